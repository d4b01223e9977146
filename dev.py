#!/usr/bin/env python3
"""Outlast's two commands, and the developer's others. Needs Python 3.11 and nothing else.

python3 dev.py up [ARGS]        make .venv from the hash-locked list, then run `outlast up ARGS`
python3 dev.py test [ARGS]      run the suite; ARGS go to pytest
python3 dev.py check            format, lint, types, import contracts, the map in ARCHITECTURE.md
python3 dev.py soak [NAME...]   the long runs: tests/soak/test_NAME.py, all of them without a name
python3 dev.py bench [NAME]     measurements as JSON lines, beside their peers; town takes --contacts FILE
python3 dev.py map              write the map of the code into ARCHITECTURE.md
python3 dev.py deb [SET]        make a Debian package in dist/, of a release's folder or else of this checkout
python3 dev.py release ...      make and sign a release: key FILE | make FOLDER | sign FOLDER FILE
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WINDOWS = os.name == "nt"
if WINDOWS:
    import msvcrt
else:
    import fcntl

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
VENV_BENCH = ROOT / ".venv-bench"  # the peers we measure against never enter the program's own
RUN_LOCK = "requirements.lock"
DEV_LOCK = "requirements-dev.lock"  # holds everything of RUN_LOCK, at the same versions
BENCH_LOCK = "requirements-bench.lock"

# What the suite needs beside Python: Debian package -> a file that shows that it is there.
DEBIAN_PACKAGES = {
    "chromium": "/usr/bin/chromium",
    "curl": "/usr/bin/curl",
    "dosfstools": "/usr/sbin/mkfs.vfat",
    "fonts-dejavu-core": "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "git": "/usr/bin/git",
    "iproute2": "/sbin/ip",
    "iptables": "/usr/sbin/iptables-legacy",
    "libnss3-tools": "/usr/bin/certutil",
    "nftables": "/usr/sbin/nft",
    "nginx": "/usr/sbin/nginx",
    "obfs4proxy": "/usr/bin/obfs4proxy",
    "openssl": "/usr/bin/openssl",
    "pebble": "/usr/bin/pebble",
    "python3": "/usr/bin/python3",  # another python may run this; the Debian package is made by this one
    "shadowsocks-libev": "/usr/bin/ss-server",
    "snowflake-client": "/usr/bin/snowflake-client",
    "systemd": "/usr/bin/systemd-analyze",
    "tor": "/usr/bin/tor",
}
# Programs that `bench` measures beside ours.
DEBIAN_PEERS = {
    "chromium": "/usr/bin/chromium",
    "iproute2": "/sbin/ip",
    "nncp": "/usr/bin/nncp-file",
    "obfs4proxy": "/usr/bin/obfs4proxy",
    "openssl": "/usr/bin/openssl",
    "shadowsocks-libev": "/usr/bin/ss-server",
    "syncthing": "/usr/bin/syncthing",
    "trojan": "/usr/bin/trojan",
}


def main(arguments: list[str]) -> int:
    """Run one command; the exit status is 0 when it succeeded."""
    commands = {
        "up": up,
        "test": test,
        "check": check,
        "soak": soak,
        "bench": bench,
        "map": write_map,
        "release": release,
        "deb": deb,
    }
    if not arguments or arguments[0] not in commands:
        print(__doc__, end="", file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    return commands[arguments[0]](arguments[1:])


def up(arguments: list[str]) -> int:
    """Make the environment if it is not there, then become `outlast up`."""
    refuse_windows()
    program = environment(VENV, RUN_LOCK).with_name("outlast")
    os.execv(program, [str(program), "up", *arguments])


def test(arguments: list[str]) -> int:
    """Run the suite with what it needs; `arguments` go to pytest."""
    refuse_windows()
    python = environment(VENV, DEV_LOCK)
    install_debian_packages(missing(DEBIAN_PACKAGES))
    # loadgroup: tests marked `serial` share one worker, and those of a file (tests/conftest.py).
    command = [python, "-m", "pytest", "-n", "2", "--dist", "loadgroup", *arguments]
    return run(command)


def check(arguments: list[str]) -> int:
    """Run every quick check, also after one has failed."""
    refuse_arguments("check", arguments)
    tools = environment(VENV, DEV_LOCK).parent
    steps: list[list[str | Path]] = [
        [tools / "ruff", "format", "--check", "."],
        [tools / "ruff", "check", "."],
        [tools / "mypy", "--strict", "src"],
        [tools / "lint-imports"],
        [tools / "python", "-m", "tests.architecture.codemap", "--check"],
    ]
    failed = [step for step in steps if run(step) != 0]
    for step in failed:
        print(f"does not pass: {' '.join([Path(step[0]).name, *map(str, step[1:])])}")
    return 1 if failed else 0


def soak(arguments: list[str]) -> int:
    """Run the long runs, one process, no time limit."""
    refuse_windows()
    python = environment(VENV, DEV_LOCK)
    folder = ROOT / "tests" / "soak"
    names = sorted(path.stem.removeprefix("test_") for path in folder.glob("test_*.py"))
    unknown = [name for name in arguments if name not in names]
    if unknown:
        raise SystemExit(f"No soak is called {unknown[0]}. There are: {', '.join(names)}.")
    files = [folder / f"test_{name}.py" for name in arguments] or [folder]
    command = [python, "-m", "pytest", "-s", "--timeout=0", *files]
    return run(command, {**os.environ, "OUTLAST_SOAK": "1"})


def bench(arguments: list[str]) -> int:
    """Print measurements as JSON lines; a peer that cannot be installed counts as absent."""
    refuse_windows()
    python = environment(VENV, DEV_LOCK)
    peers = dict(os.environ)
    try:
        peers["OUTLAST_BENCH_PYTHON"] = str(environment(VENV_BENCH, BENCH_LOCK, program=False))
    except SystemExit as reason:
        say(f"{reason} Measuring without these peers.")
    try:
        install_debian_packages(missing(DEBIAN_PEERS))
    except SystemExit as reason:
        say(f"{reason} Measuring without them.")
    return run([python, "-m", "tests.bench", *arguments], peers)


def write_map(arguments: list[str]) -> int:
    """Write the map of the code into ARCHITECTURE.md."""
    refuse_arguments("map", arguments)
    return run([environment(VENV, DEV_LOCK), "-m", "tests.architecture.codemap"])


def release(arguments: list[str]) -> int:
    """Make a key, make a release, or sign one; what is released is what is committed."""
    python = environment(VENV, RUN_LOCK)
    if arguments[:1] == ["make"]:
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
        if changed.stdout:
            raise SystemExit("There are changes that are not committed: a release is made from a commit.")
    return run([python, "-m", "outlast.edges.spread.release", *arguments])


def deb(arguments: list[str]) -> int:
    """Make a Debian package by Debian's own python: of a set that `release` made, or of this checkout as it is."""
    python = environment(VENV, RUN_LOCK)
    if missing({"dpkg": "/usr/bin/dpkg-deb", "python3": "/usr/bin/python3"}):
        raise SystemExit("A Debian package is made on Debian.")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(arguments[0]) if arguments else Path(scratch) / "set"
        if not arguments:
            call([python, "-m", "outlast.edges.spread.release", "make", source])
        return run(["/usr/bin/python3", ROOT / "debian" / "build.py", source, ROOT / "dist"])


def environment(folder: Path, lock: str, *, program: bool = True) -> Path:
    """Bring the virtual environment `folder` to what the file `lock` pins; return its python.

    A record inside the folder, written last, says what is installed. While it is true nothing is
    done, so a second run needs no network. When it is missing, a run was cut short and the folder
    is made again. Everything is fetched before the record goes: a run that fails for want of a
    network leaves a working environment as it was.
    """
    python, record, draft = python_of(folder), folder / "installed.json", folder / "draft"
    wanted = {"folder": str(folder), lock: digest(lock)}
    if lock == DEV_LOCK:
        wanted[RUN_LOCK] = digest(RUN_LOCK)
    if program:
        wanted["pyproject.toml"] = digest("pyproject.toml")
    with one_at_a_time():
        present = read_record(record) if os.access(python, os.X_OK) else {}
        if wanted.items() <= present.items():
            return python
        try:
            folder.mkdir(exist_ok=True)
            draft.touch()  # whoever may not write here learns it before anything is fetched
            install(folder, lock, anew=present.get("folder") != str(folder), program=program)
            draft.write_text(json.dumps(wanted), encoding="utf-8")
            draft.replace(record)
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                f"{folder.name} is not ready; the reason stands above. With a network and 2 GB of "
                "free disk, run the same command again."
            ) from error
        except OSError as error:
            raise SystemExit(
                f"Cannot write {folder}: {error.strerror}. It takes the owner of {ROOT} and 2 GB of free disk."
            ) from error
    return python


def install(folder: Path, lock: str, *, anew: bool, program: bool) -> None:
    """Install what `lock` pins, and the program itself, into `folder`; `anew` empties it first."""
    python, wheels = python_of(folder), folder / "wheels"
    if anew:
        need_venv()
        say(f"Making {folder.name}: once, about a minute.")
        call([sys.executable, "-m", "venv", "--clear", folder])
    else:
        say(f"Bringing {folder.name} up to date.")
    # -I: neither PYTHONPATH nor the user's own packages have a say in what is installed.
    pip = [python, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "-qq"]
    pinned = ["--require-hashes", "--only-binary=:all:", "-r", ROOT / lock]
    call([*pip, "download", "--dest", wheels, *pinned])
    (folder / "installed.json").unlink(missing_ok=True)
    call([*pip, "install", "--no-index", "--find-links", wheels, *pinned])
    if program:
        call([*pip, "install", "--no-deps", "--no-build-isolation", "--editable", ROOT])
        keep(wheels, folder / "share" / "outlast" / "wheels")
    shutil.rmtree(wheels)


def keep(wheels: Path, kept: Path) -> None:
    """Keep the wheels that the program itself was installed from: `outlast share` hands them on.

    What was kept before, for other systems too, stays while the list still pins it.
    """
    pinned = (ROOT / RUN_LOCK).read_text(encoding="utf-8")
    kept.mkdir(parents=True, exist_ok=True)
    for wheel in [*wheels.glob("*.whl"), *kept.glob("*.whl")]:
        if hashlib.sha256(wheel.read_bytes()).hexdigest() in pinned:
            wheel.replace(kept / wheel.name)
        elif wheel.parent == kept:
            wheel.unlink()


def python_of(folder: Path) -> Path:
    """Return the python of a virtual environment; programs stand beside it."""
    return folder / ("Scripts/python.exe" if WINDOWS else "bin/python")


def need_venv() -> None:
    """Make sure that this Python can make virtual environments; Debian packs that apart."""
    probe = [sys.executable, "-I", "-c", "import ensurepip; ensurepip.version()"]
    if subprocess.run(probe, stderr=subprocess.DEVNULL).returncode == 0:
        return
    install_debian_packages(["python3-venv"])
    if subprocess.run(probe, stderr=subprocess.DEVNULL).returncode != 0:
        raise SystemExit(f"{sys.executable} has no ensurepip: run dev.py with /usr/bin/python3.")


def missing(packages: dict[str, str]) -> list[str]:
    """Return the names of the Debian packages that this machine lacks."""
    return [name for name, file in packages.items() if not Path(file).exists()]


def install_debian_packages(names: list[str]) -> None:
    """Install Debian packages; without root or Debian end with the line that says what to do."""
    if not names:
        return
    if not shutil.which("apt-get"):
        raise SystemExit(f"Missing on this machine, by Debian's names: {', '.join(names)}.")
    order = ["apt-get", "install", "--yes", "--no-install-recommends", *names]
    if os.geteuid() != 0:
        raise SystemExit(f"Missing on this machine. As root: {' '.join(order)}")
    say(f"Installing {', '.join(names)}.")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        call(["apt-get", "update", "--quiet=2"], quiet)
        call([*order, "--quiet=2"], quiet)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"apt-get failed (see above). As root: {' '.join(order)}") from error


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the project folder while the environment changes: a second run waits for the first."""
    # Windows opens no folders, and locks bytes of a file: one that is there in every checkout.
    held = os.open(ROOT / "LICENSE" if WINDOWS else ROOT, os.O_RDONLY)
    try:
        if WINDOWS:
            while not locked(held):
                time.sleep(1)
        else:
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def locked(descriptor: int) -> bool:
    """Lock the first byte of a file on Windows, until it is closed; false when another process has it for long."""
    try:
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)  # tries for ten seconds
    except OSError:
        return False
    return True


def read_record(record: Path) -> dict[str, str]:
    """Return what the record says is installed; an absent or damaged one says nothing."""
    try:
        content = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def digest(name: str) -> str:
    """Return the SHA-256 of a file of the project, in hex."""
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()


def refuse_windows() -> None:
    """End with what to do where the program itself cannot run: it needs a Unix."""
    if WINDOWS:
        raise SystemExit("Outlast runs on Linux and macOS. On Windows, run this within WSL: `wsl --install -d Debian`.")


def refuse_arguments(command: str, arguments: list[str]) -> None:
    """End with a clear line when a command that takes no arguments was given some."""
    if arguments:
        raise SystemExit(f"dev.py {command} takes no arguments, not even {arguments[0]!r}.")


def say(line: str) -> None:
    """Tell the person what happens, apart from what the command itself prints."""
    print(line, file=sys.stderr, flush=True)


def call(command: list[str | Path], environ: dict[str, str] | None = None) -> None:
    """Run a step whose failure ends the command. Its output is no part of the command's own."""
    subprocess.run(command, cwd=ROOT, env=environ, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def run(command: list[str | Path], environ: dict[str, str] | None = None) -> int:
    """Run what the command is about and return its exit status."""
    return subprocess.run(command, cwd=ROOT, env=environ).returncode


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036  (this file also meets an older python3)
        sys.exit("Outlast needs Python 3.11 or newer: run dev.py with python3.11.")
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
