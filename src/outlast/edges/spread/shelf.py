"""The shelf: the set that this installation hands on, as it was installed, or made from a checkout.

The wheels are those that were fetched when this was installed: a wheel made again from installed files would have
another hash than the lock pins, and nobody could tell it from a changed one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec

from outlast import __version__
from outlast.edges.spread import install, signing, wheels
from outlast.edges.spread.install import (
    INDEX,
    INSTALLER,
    LOCK,
    MANIFEST,
    SHARED,
    SIGNATURES,
    WHEELS,
    File,
    InstallError,
)
from outlast.errors import NotFoundError, Sentence, StorageError, UsageError
from outlast.ui.file import new_file

SOURCES: Final = ("pyproject.toml", "LICENSE", "src")
NOTHING_KEPT: Final = Sentence(
    "this copy kept nothing that it could hand on: install it by `python3 dev.py up` or by install.py"
)
ZIP_EPOCH_S: Final = 315_532_800
"""1980-01-01, the first day that a zip can tell: wheels made from the same source are then the same bytes."""


class Release(msgspec.Struct, frozen=True):
    """Which release this is, and who stands for it."""

    version: str
    words: str
    signed: int  # by so many of the release keys that this program knows
    official: bool  # two of them


@dataclass(frozen=True, slots=True)
class Shelf:
    """What is handed on: each path of the set with its file or its bytes."""

    manifest: bytes
    signatures: bytes
    files: dict[str, Path | bytes]
    systems: dict[str, list[str]]
    """For which systems, by their keys in ``wheels.SYSTEMS``, and there for which versions of Python."""

    @property
    def release(self) -> Release:
        """Which release it is."""
        signed = len(signing.signers(self.manifest, self.signatures, signing.pinned_keys()))
        version = install.read_manifest(self.manifest).version
        return Release(version, signing.words_of_release(self.manifest), signed, signed >= signing.NEEDED)

    def write(self, folder: Path) -> None:
        """Write the set into a folder, such as one on a stick, over an older one; it is durable when this returns.

        A stick may be somebody else's: neither is the folder followed where it is a link, nor are links in it. Raises
        UsageError for them, StorageError.
        """
        for one in (folder, folder / WHEELS):
            if one.is_symlink():
                raise UsageError("%(path)s is a link: name another folder", path=one)
        (folder / WHEELS).mkdir(parents=True, exist_ok=True)
        (folder / SIGNATURES).unlink(missing_ok=True)
        for path, content in self.files.items():
            with new_file(folder / path, 0o644) as out:
                if isinstance(content, Path):
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, out)
                else:
                    out.write(content)


def shared_folder() -> Path:
    """Where this installation keeps what it hands on."""
    return Path(sys.prefix) / SHARED


def open_shelf() -> Shelf:
    """What this installation hands on; takes seconds in a checkout, where the program's wheel is made first.

    Raises NotFoundError where nothing was kept, StorageError when what was kept is damaged.
    """
    folder = shared_folder()
    if (folder / MANIFEST).is_file():
        return installed_shelf(folder)
    source = checkout()
    if source is None or not (folder / WHEELS).is_dir():
        raise NotFoundError(NOTHING_KEPT)
    return made_shelf(source, folder / WHEELS)


def installed_shelf(folder: Path) -> Shelf:
    """The set in ``folder``; raises StorageError when a file of the release is missing or damaged."""
    manifest = (folder / MANIFEST).read_bytes()
    signatures = (folder / SIGNATURES).read_bytes() if (folder / SIGNATURES).is_file() else b""
    try:
        files = install.read_manifest(manifest).files
    except InstallError as error:
        raise StorageError("%(file)s: %(error)s", file=folder / MANIFEST, error=error) from None
    own: dict[str, Path | bytes] = {file.path: folder / file.path for file in files}
    for file in files:
        path = folder / file.path
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != file.sha256:
            raise StorageError("%(path)s is damaged: install Outlast anew before you hand it on", path=path)
    return _shelf(manifest, signatures, own, (folder / LOCK).read_text(encoding="utf-8"), folder / WHEELS)


def made_shelf(source: Path, kept: Path) -> Shelf:
    """The set of a checkout at ``source``, with the libraries kept in ``kept``; nobody has signed it."""
    lock = (source / LOCK).read_bytes()
    locked = install.read_lock(lock.decode())
    tool = next(iter(wheels.listed(kept, [one for one in locked if one.name == "pip"])), None)
    if tool is None:
        raise NotFoundError("pip's own wheel is not among what was kept: run `python3 dev.py up` again")
    name, program = build(source)
    installer = (source / "src/outlast/edges/spread/install.py").read_bytes()
    own: dict[str, Path | bytes] = {INSTALLER: installer, LOCK: lock, f"{WHEELS}/{name}": program}
    files = [
        *(File(path, len(data), sha256(data).hexdigest()) for path, data in own.items() if isinstance(data, bytes))
    ]
    manifest = write_manifest(version_of(name), [*files, tool])
    return _shelf(manifest, b"", {**own, tool.path: kept.parent / tool.path}, lock.decode(), kept)


def fetch(key: str, python: tuple[int, int]) -> dict[str, dict[str, list[str]]]:
    """Bring the libraries for another system onto the shelf; returns for which ``systems`` they are there now.

    Raises NotFoundError where nothing was kept, StorageError when they cannot be had.
    """
    folder, source = shared_folder(), checkout()
    lock = folder / LOCK if (folder / LOCK).is_file() else source / LOCK if source else None
    if lock is None or not (folder / WHEELS).is_dir():
        raise NotFoundError(NOTHING_KEPT)
    locked = install.read_lock(lock.read_text(encoding="utf-8"))
    wheels.fetch(locked, folder / WHEELS, key, python)
    return {"systems": wheels.covered(locked, wheels.listed(folder / WHEELS, locked))}


def write_manifest(version: str, files: Sequence[File]) -> bytes:
    """The manifest of a release: JSON that is the same wherever it is made."""
    rows = [file._asdict() for file in sorted(files)]
    content = {"format": install.FORMAT, "name": "outlast", "version": version, "files": rows}
    return json.dumps(content, indent=1).encode() + b"\n"


def write_index(files: Sequence[File]) -> bytes:
    """The list of the wheels that are here; unsigned, for the signed lock says which are right."""
    return json.dumps({"files": [file._asdict() for file in files]}, indent=1).encode() + b"\n"


def checkout() -> Path | None:
    """The folder of the sources that this program runs from, None when it was installed from a wheel."""
    try:
        text = distribution("outlast").read_text("direct_url.json")
        found = json.loads(text or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    if not found.get("dir_info", {}).get("editable"):
        return None
    return Path(url2pathname(urlsplit(found["url"]).path))


def build(source: Path) -> tuple[str, bytes]:
    """The name and bytes of the program's wheel, made from its sources: equal sources give equal bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        copy, made = Path(scratch) / "source", Path(scratch) / "made"
        copy.mkdir()
        for name in SOURCES:
            if (source / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source / name, copy / name, ignore=ignored, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(source / name, copy / name)
        for path in copy.rglob("*"):  # a wheel tells who may read a file, and that depends on the builder
            path.chmod(0o755 if path.is_dir() else 0o644)
        order = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
        order += ["--no-build-isolation", "--no-index", "--wheel-dir", str(made), str(copy)]
        environ = {**os.environ, "SOURCE_DATE_EPOCH": str(ZIP_EPOCH_S)}
        done = subprocess.run(order, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise StorageError("the program's wheel cannot be made: %(reason)s", reason=done.stderr.strip()[-200:])
        [wheel] = made.glob("*.whl")
        return wheel.name, wheel.read_bytes()


def version_of(wheel: str) -> str:
    """The version in a wheel's name."""
    return wheel.split("-")[1]


def release_here() -> Release:
    """Which release runs here: what was installed with it says so; a checkout has none, and no words."""
    folder = shared_folder()
    if not (folder / MANIFEST).is_file():
        return Release(__version__, "", 0, False)
    return installed_shelf(folder).release


def _shelf(manifest: bytes, signatures: bytes, own: dict[str, Path | bytes], lock: str, kept: Path) -> Shelf:
    locked = install.read_lock(lock)
    listed = wheels.listed(kept, locked)
    files: dict[str, Path | bytes] = {file.path: kept.parent / file.path for file in listed}
    files |= own | {MANIFEST: manifest, INDEX: write_index(listed)}
    if signatures:
        files[SIGNATURES] = signatures
    return Shelf(manifest, signatures, files, wheels.covered(locked, listed))
