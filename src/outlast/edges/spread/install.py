#!/usr/bin/env python3
"""Installs Outlast from somebody nearby who has it. Needs Python 3.11, and no internet.

    python3 install.py http://192.168.1.5:8486/get      from a neighbour's computer
    python3 install.py /media/stick/outlast             from a folder with the same files

The program comes into the folder "outlast" in your home directory, or where --into says; deleting that folder removes
it. Nothing else on this computer is changed, and nothing here needs to be run as root.

Every file is compared with the list (manifest.json) that came with it. That shows that nothing was damaged on the way.
It does not show that who gave it to you is honest, for this installer came from there too: compare the six words that
stand at the end with somebody who has Outlast from elsewhere.

Only the standard library is used, so that this file can be read whole before it is run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

FORMAT = 1
MANIFEST, SIGNATURES, INDEX = "manifest.json", "manifest.sig", "index.json"
INSTALLER, LOCK, WHEELS = "install.py", "requirements.lock", "wheels"
MANIFEST_MAX_BYTES = 64 * 1024
INDEX_MAX_BYTES = 1024 * 1024
FILE_MAX_BYTES = 256 * 1024 * 1024
FILES_MAX = 2000
REASON_MAX = 200
NOT_FOUND, TOO_MANY = 404, 429
BUSY_S = (5.0, 15.0, 30.0, 60.0)
"""So long a source is left alone that says that it is busy (RFC 6585), before it is asked again."""
HELD = ".outlast"
SHARED = Path("share", "outlast")
"""Where in its environment an installed program keeps the set that it came from, to hand it on."""

_PATH = re.compile(r"(?:wheels/)?[A-Za-z0-9][A-Za-z0-9_.+!-]{0,199}")
_VERSION = re.compile(r"(?:0|[1-9][0-9]{0,5})(?:\.(?:0|[1-9][0-9]{0,5})){2}")
_LOCKED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)(?:\s*;\s*(.*))?")


class InstallError(Exception):
    """What keeps the program from being installed; ``str()`` is one line for a person."""


class File(NamedTuple):
    """A file of a set: its path within, its size in bytes, its SHA-256 in hex."""

    path: str
    size: int
    sha256: str


class Manifest(NamedTuple):
    """What belongs to a release, the same worldwide: its version, and its files but for other people's wheels."""

    version: str
    files: tuple[File, ...]

    def only(self, pattern: str) -> File:
        """The one file whose path matches; raises InstallError when there is none or another one."""
        found = [file for file in self.files if re.fullmatch(pattern, file.path)]
        if len(found) != 1:
            raise InstallError(f"this release is not whole: {len(found)} files are like {pattern}")
        return found[0]


class Locked(NamedTuple):
    """A line of the list of libraries: a name, a version, for which systems (PEP 508), the SHA-256 that are right."""

    name: str
    version: str
    marker: str
    hashes: frozenset[str]


def main(arguments: list[str]) -> int:
    """Install what the command line names; the exit status is 0 when the program can be started."""
    beside = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Installs Outlast from somebody nearby who has it.")
    parser.add_argument("source", nargs="?", default=str(beside), help="the address that ends in /get, or a folder")
    parser.add_argument("--into", type=Path, default=Path("~/outlast"), help="where to (default: ~/outlast)")
    given = parser.parse_args(arguments)
    try:
        launcher = install(given.source, expanded(given.into).absolute())
    except InstallError as error:
        print(f"Not installed: {error}", file=sys.stderr)
        return 1
    subprocess.run([launcher, "release"])
    print(f"Outlast is installed. Start it:\n\n    {quoted(launcher)} up\n")
    return 0


def install(source: str, into: Path, accept: Callable[[bytes, bytes], None] | None = None) -> Path:
    """Install a release below the folder ``into`` and return the program to start.

    ``source`` is an address or a folder. ``accept`` is given the manifest and its signatures (empty when there are
    none) before anything else is fetched, and raises what speaks against them. Each version has a folder of its own,
    and the program changes to it last, when it has started once: until then, whatever happens, the version that was
    there goes on.
    """
    launcher = launcher_in(into)
    before = current(launcher)
    manifest_data = read(source, MANIFEST, MANIFEST_MAX_BYTES)
    manifest = read_manifest(manifest_data)
    signatures = read(source, SIGNATURES, MANIFEST_MAX_BYTES, optional=True)
    if accept:
        accept(manifest_data, signatures)
    try:
        if into.exists() and not launcher.exists() and not (into / HELD).exists() and any(into.iterdir()):
            raise InstallError(f"{into} has other files in it: name another folder with --into")
        into.mkdir(parents=True, exist_ok=True)
        with alone(into):
            now = current(launcher)
            if now == manifest.version:
                raise InstallError(f"Outlast {manifest.version} is there already: {launcher}")
            if now != before:  # what was accepted in its place may be older than this one
                raise InstallError(f"Outlast {now} was installed meanwhile: try again")
            folder = into / manifest.version
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
            try:
                shared = folder / SHARED
                (shared / WHEELS).mkdir(parents=True)
                (shared / MANIFEST).write_bytes(manifest_data)
                if signatures:
                    (shared / SIGNATURES).write_bytes(signatures)
                for file in manifest.files:
                    fetch(source, file, shared / file.path)
                fetch_libraries(source, manifest, shared)
                make_environment(folder, manifest, shared)
                start(folder)
                os.sync()  # a power cut must not leave a program that points to what is not there
                point(launcher, manifest.version)
            finally:
                if current(launcher) != manifest.version:  # half of it would only fill the disk
                    shutil.rmtree(folder, ignore_errors=True)
            for other in into.iterdir():  # one that may still be running stays until the next time
                if _VERSION.fullmatch(other.name) and other.name not in (before, manifest.version):
                    shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        raise InstallError(f"{error.filename or into}: {error.strerror or error}") from error
    except subprocess.CalledProcessError as error:
        raise InstallError("pip could not install the libraries; the reason stands above") from error
    return launcher


@contextmanager
def alone(into: Path) -> Iterator[None]:
    """Hold the folder: a second installer waits, also for the pip that a killed one left running."""
    import fcntl

    with (into / HELD).open("w") as held:
        os.set_inheritable(held.fileno(), True)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another installation is under way there: waiting for its end.")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def read_manifest(data: bytes) -> Manifest:
    """The manifest in ``data``; raises InstallError when it is none or of another format."""
    content = read_json(data)
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("name") != "outlast":
        raise InstallError("this is no release of Outlast, or one for a newer installer")
    version = content.get("version")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise InstallError("the release does not say which version it is")
    return Manifest(version, read_files(content.get("files")))


def read_files(rows: Any) -> tuple[File, ...]:
    """The files that a manifest or an index lists; raises InstallError for what could leave the folder or fill it."""
    if not isinstance(rows, list) or len(rows) > FILES_MAX:
        raise InstallError("the list of files is not well written")
    found = []
    for row in rows:
        path, size, digest = (
            (row.get(key) for key in ("path", "size", "sha256")) if isinstance(row, dict) else (0, 0, 0)
        )
        if not (isinstance(path, str) and _PATH.fullmatch(path) and isinstance(digest, str)):
            raise InstallError("the list of files is not well written")
        if type(size) is not int or not 0 <= size <= FILE_MAX_BYTES or not re.fullmatch("[0-9a-f]{64}", digest):
            raise InstallError("the list of files is not well written")
        found.append(File(path, size, digest))
    if len({file.path.lower() for file in found}) != len(found):
        raise InstallError("the list names a file twice")
    return tuple(found)


def read_json(data: bytes) -> Any:
    """What JSON says; raises InstallError."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise InstallError("a list of files is damaged: try again") from None


def read_lock(text: str) -> list[Locked]:
    """The libraries that a list pins, in the form that ``pip install --require-hashes -r`` takes."""
    found = []
    for line in re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n?", "", text)).splitlines():
        if match := _LOCKED.match(line):
            hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
            marker = (match[3] or "").partition("--hash")[0].strip()
            found.append(Locked(match[1].lower(), match[2], marker, hashes))
    return found


def choose(
    lock: Iterable[Locked],
    files: Iterable[File],
    environment: Mapping[str, str] | None,
    tags: Iterable[Any],
    library: Any,
) -> tuple[list[File], list[str]]:
    """The wheels among ``files`` that a system needs, and the names of libraries that are missing for it.

    ``environment`` and ``tags`` tell of the system (PEP 508 markers; PEP 425 tags, best first), None and the running
    one's for this one. ``library`` is the package ``packaging``, which pip brings along.
    """
    rank: dict[Any, int] = {}
    for tag in tags:
        rank.setdefault(tag, len(rank))
    wheels: dict[tuple[str, str], list[tuple[int, File]]] = {}
    for file in files:
        try:
            name, version, _build, fits = library.utils.parse_wheel_filename(file.path.rpartition("/")[2])
        except ValueError:  # its InvalidWheelFilename is one: no wheel
            continue
        ranks = [rank[tag] for tag in fits if tag in rank]
        if ranks:
            wheels.setdefault((name, str(version)), []).append((min(ranks), file))
    chosen, missing = [], []
    for one in lock:
        if one.marker and not library.markers.Marker(one.marker).evaluate(environment):
            continue
        key = library.utils.canonicalize_name(one.name), str(library.version.Version(one.version))
        right = [(at, file) for at, file in wheels.get(key, []) if file.sha256 in one.hashes]
        if right:
            chosen.append(min(right)[1])
        else:
            missing.append(one.name)
    return chosen, missing


def fetch_libraries(source: str, manifest: Manifest, shared: Path) -> None:
    """Fetch the wheels that this system needs; raises InstallError that names what the source does not have."""
    pip = shared / manifest.only(r"wheels/pip-.+\.whl").path
    sys.path.insert(0, str(pip))
    library = import_module("pip._vendor.packaging")
    for part in ("markers", "tags", "utils", "version"):
        import_module(f"pip._vendor.packaging.{part}")
    held = read_json(read(source, INDEX, INDEX_MAX_BYTES))
    files = read_files(held.get("files") if isinstance(held, dict) else None)
    lock = read_lock((shared / LOCK).read_text(encoding="utf-8"))
    chosen, missing = choose(lock, files, None, library.tags.sys_tags(), library)
    if missing:
        raise InstallError(
            f"there are no {', '.join(missing)} for {describe()} where you get Outlast from; with internet, "
            "`outlast share fetch` there brings them"
        )
    total = sum(file.size for file in chosen)
    say(f"Fetching {len(chosen)} libraries, {total / 1e6:.0f} MB.")
    for file in chosen:
        if not (shared / file.path).exists():
            fetch(source, file, shared / file.path)


def make_environment(folder: Path, manifest: Manifest, shared: Path) -> None:
    """Install the program and its libraries into a virtual environment in ``folder``; each file must have its hash."""
    say("Installing, about a minute.")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    own = manifest.only(r"wheels/outlast-.+\.whl")
    wanted = folder / "wanted.txt"
    wanted.write_text(f"outlast=={manifest.version} --hash=sha256:{own.sha256}\n", encoding="utf-8")
    pip = shared / manifest.only(r"wheels/pip-.+\.whl").path
    order: list[str | Path] = [python, "-I", pip / "pip", "--isolated", "--disable-pip-version-check", "install"]
    # Python compiles what is used when it is first used: on a small computer all at once takes longer than the rest.
    order += [
        "--quiet",
        "--no-compile",
        "--no-index",
        "--find-links",
        shared / WHEELS,
        "--require-hashes",
        "--only-binary=:all:",
    ]
    # It inherits what ``alone`` holds, and so holds it to its own end.
    order += ["-r", shared / LOCK, "-r", wanted]
    subprocess.run(order, check=True, stdin=subprocess.DEVNULL, close_fds=False)
    wanted.unlink()


def start(folder: Path) -> None:
    """Start the program that was installed into ``folder`` once; raises InstallError when it does not run here."""
    bin = folder / "bin"
    done = subprocess.run(
        [bin / "python", "-I", bin / "outlast", "release"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    if done.returncode:
        raise InstallError("what was installed does not start; the reason stands above")


def launcher_in(into: Path) -> Path:
    """The program that people start, in a folder that Outlast is installed into."""
    return into / "outlast"


def current(launcher: Path) -> str:
    """The version that a launcher starts, empty when there is none."""
    try:
        found = re.search(r"outlast-version: (\S+)", launcher.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1] if found else ""


def point(launcher: Path, version: str) -> None:
    """Let ``launcher`` start this version; it changes in one step, which a power cut does not divide."""
    folder = str(launcher.parent / version / "bin").replace("'", "'\\''")
    # -I: nobody's PYTHONPATH puts other libraries before those that were compared with their hashes.
    text = f"#!/bin/sh\n# outlast-version: {version}\nexec '{folder}/python' -I '{folder}/outlast' \"$@\"\n"
    draft = launcher.with_name(launcher.name + ".new")
    with draft.open("w", encoding="utf-8") as written:
        written.write(text)
        written.flush()
        os.fsync(written.fileno())
    draft.chmod(0o755)
    os.replace(draft, launcher)


def fetch(source: str, file: File, target: Path) -> None:
    """Write a file of the source to ``target`` once its size and SHA-256 are right; raises InstallError."""
    digest, left = hashlib.sha256(), file.size
    draft = target.with_name(target.name + ".part")
    with opened(source, file.path) as stream, draft.open("wb") as written:
        for block in blocks(stream, source):
            left -= len(block)
            digest.update(block)
            if left < 0:
                break
            written.write(block)
    if left != 0 or digest.hexdigest() != file.sha256:
        draft.unlink()
        raise InstallError(f"{file.path} is not what the list says: it was damaged on the way, or changed")
    os.replace(draft, target)


def read(source: str, path: str, max_bytes: int, *, optional: bool = False) -> bytes:
    """A small file of the source; empty when it is ``optional`` and there is none. Raises InstallError."""
    try:
        with opened(source, path) as stream:
            data = b"".join(blocks(stream, source, max_bytes + 1))
    except InstallError as error:
        if optional and is_missing(error.__cause__):
            return b""
        raise
    if len(data) > max_bytes:
        raise InstallError(f"{path} is larger than it may be")
    return data


def is_missing(error: BaseException | None) -> bool:
    """Whether a source said that it does not have a file; one that breaks off may have it."""
    return isinstance(error, FileNotFoundError) or (isinstance(error, HTTPError) and error.code == NOT_FOUND)


class NowhereElse(HTTPRedirectHandler):
    """A neighbour's answer is theirs: it must not send this computer to others, or to what listens on this one."""

    def redirect_request(self, *_: Any) -> None:
        """Go nowhere: the answer counts as a refusal."""


def opened(source: str, path: str) -> BinaryIO:
    """A file of an address or a folder, to be read; raises InstallError."""
    try:
        if not re.match("https?://", source):
            return (Path(source) / path).open("rb")
        # A neighbour is reached directly, whatever proxies this computer uses otherwise.
        direct = build_opener(ProxyHandler({}), NowhereElse)
        for wait_s in (*BUSY_S, None):
            try:
                stream: BinaryIO = direct.open(f"{source.rstrip('/')}/{path}", timeout=30)
                return stream
            except HTTPError as error:
                if error.code != TOO_MANY or wait_s is None:
                    raise
            say("Many get it there at this moment: waiting.")
            time.sleep(wait_s)
        raise AssertionError("the last try returned or raised")
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        # What a neighbour wrote there must not steer the terminal, nor fill it.
        told = "".join(sign for sign in str(reason)[:REASON_MAX] if sign.isprintable())
        raise InstallError(f"{source} does not give {path}: {told}") from error


def blocks(stream: BinaryIO, source: str, max_bytes: int = FILE_MAX_BYTES + 1) -> Iterator[bytes]:
    """What a stream holds, up to ``max_bytes``; raises InstallError when it breaks off."""
    try:
        while max_bytes > 0 and (block := stream.read(min(256 * 1024, max_bytes))):
            max_bytes -= len(block)
            yield block
    except (OSError, ValueError, HTTPException) as error:
        raise InstallError(f"the connection to {source} broke off: try again") from error


def describe() -> str:
    """This system in words: ``Python 3.11 on Linux x86_64``."""
    import platform

    return f"Python {sys.version_info[0]}.{sys.version_info[1]} on {platform.system()} {platform.machine()}"


def say(line: str) -> None:
    """Tell the person what happens, apart from what a command answers."""
    print(line, file=sys.stderr, flush=True)


def expanded(path: Path) -> Path:
    """A path in which ``~`` is the home directory; raises InstallError for somebody who has none."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise InstallError("this user has no home directory: name a folder with --into") from None


def quoted(path: Path) -> str:
    """A path as it can be typed into a terminal."""
    text = str(path)
    return text if re.fullmatch(r"[\w./~-]+", text) else f'"{text}"'


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036  (this file also meets an older python3)
        sys.exit("Outlast needs Python 3.11 or newer.")
    if os.name == "nt":
        sys.exit("Outlast runs on Linux and macOS. On Windows, run this within WSL: wsl --install -d Debian")
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
