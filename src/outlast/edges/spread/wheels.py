"""Which libraries which system needs, and whether they are here: the lock, read for this system and for others.

``pip download --platform`` asks the markers of the system that it runs on, so it misses what only the other one needs
(as ``colorama`` on Windows). Here the lock is read with the other system's markers first; pip is told what to fetch.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import packaging
import packaging.markers
import packaging.tags
import packaging.utils
import packaging.version

from outlast.edges.spread.install import WHEELS, File, Locked, choose
from outlast.errors import StorageError
from outlast.ui.languages import marked

PYTHONS: Final = ((3, 11), (3, 12), (3, 13), (3, 14))
_GLIBC: Final = {"x86_64": (36, 4), "aarch64": (36, 16)}  # 2.x: Debian 12's, and the oldest that wheels are named after
_OLD_NAMES: Final = {"x86_64": {17: "2014", 12: "2010", 5: "1"}, "aarch64": {17: "2014"}}  # PEP 600


class System(NamedTuple):
    """A kind of computer: what people call it, and how markers (PEP 508) and wheels (PEP 425) name it."""

    name: str
    platform: str  # sys_platform
    system: str  # platform_system
    machine: str  # platform_machine
    tags: tuple[str, ...]  # best first


def _linux(machine: str) -> tuple[str, ...]:
    newest, oldest = _GLIBC[machine]
    found = []
    for minor in range(newest, oldest, -1):
        found.append(f"manylinux_2_{minor}_{machine}")
        if old := _OLD_NAMES[machine].get(minor):
            found.append(f"manylinux{old}_{machine}")
    return tuple(found)


SYSTEMS: Final = {
    "linux-x86_64": System(marked("Linux, Intel or AMD"), "linux", "Linux", "x86_64", _linux("x86_64")),
    "linux-aarch64": System(
        marked("Linux, ARM (Raspberry Pi, 64 bits)"), "linux", "Linux", "aarch64", _linux("aarch64")
    ),
    "macos-arm64": System(
        marked("macOS, Apple's processor"),
        "darwin",
        "Darwin",
        "arm64",
        tuple(packaging.tags.mac_platforms((14, 0), "arm64")),
    ),
    "macos-x86_64": System(
        marked("macOS, Intel"), "darwin", "Darwin", "x86_64", tuple(packaging.tags.mac_platforms((14, 0), "x86_64"))
    ),
}


def markers_of(system: System, python: tuple[int, int]) -> dict[str, str]:
    """What markers (PEP 508) ask of a system with CPython of this version."""
    version = ".".join(map(str, python))
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{version}.0",
        "os_name": "nt" if system.platform == "win32" else "posix",
        "platform_machine": system.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": system.system,
        "platform_version": "",
        "python_full_version": f"{version}.0",
        "python_version": version,
        "sys_platform": system.platform,
    }


@cache
def tags_of(system: System, python: tuple[int, int]) -> tuple[packaging.tags.Tag, ...]:
    """The tags (PEP 425) of wheels that run there, best first."""
    interpreter = f"cp{python[0]}{python[1]}"
    return (
        *packaging.tags.cpython_tags(python, platforms=system.tags),
        *packaging.tags.compatible_tags(python, interpreter, system.tags),
    )


def needed(lock: Iterable[Locked], system: System, python: tuple[int, int]) -> list[Locked]:
    """The libraries that a system needs."""
    environment = markers_of(system, python)
    return [one for one in lock if not one.marker or packaging.markers.Marker(one.marker).evaluate(environment)]


def missing(lock: Sequence[Locked], files: Iterable[File], system: System, python: tuple[int, int]) -> list[str]:
    """The names of libraries for a system that are not among ``files``."""
    return choose(lock, files, markers_of(system, python), tags_of(system, python), packaging)[1]


def covered(lock: Sequence[Locked], files: Sequence[File]) -> dict[str, list[str]]:
    """For each system whose libraries are all there, by its key in SYSTEMS: for which versions of Python."""
    found = {
        key: [f"{python[0]}.{python[1]}" for python in PYTHONS if not missing(lock, files, system, python)]
        for key, system in SYSTEMS.items()
    }
    return {key: pythons for key, pythons in found.items() if pythons}


def listed(folder: Path, lock: Iterable[Locked]) -> list[File]:
    """The wheels in ``folder`` that the lock pins, with their sizes and SHA-256; others are left out."""
    right = {digest for one in lock for digest in one.hashes}
    found = []
    for path in sorted(folder.glob("*.whl")):
        data = path.read_bytes()
        if (digest := sha256(data).hexdigest()) in right:
            found.append(File(f"{WHEELS}/{path.name}", len(data), digest))
    return found


def fetch(lock: Sequence[Locked], folder: Path, key: str, python: tuple[int, int]) -> None:
    """Bring the wheels for another system into ``folder`` by pip, from where pip gets its packages.

    Raises StorageError when one of them cannot be had or is not the one that the lock pins.
    """
    system = SYSTEMS[key]
    lines = [
        " ".join([f"{one.name}=={one.version}", *(f"--hash=sha256:{digest}" for digest in sorted(one.hashes))])
        for one in needed(lock, system, python)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text("\n".join(lines), encoding="utf-8")
        version = f"{python[0]}{python[1]}"
        order = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        order += ["--only-binary=:all:", "--require-hashes", "-r", str(wanted), "--dest", str(folder)]
        order += ["--implementation", "cp", "--python-version", version]
        order += [piece for abi in (f"cp{version}", "abi3", "none") for piece in ("--abi", abi)]
        order += [piece for tag in (*system.tags, "any") for piece in ("--platform", tag)]
        if subprocess.run(order, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
            raise StorageError(f"the libraries for {key} could not be fetched; the reason stands above")
    if lacking := missing(lock, listed(folder, lock), system, python):
        raise StorageError(f"for {key} these are still missing: {', '.join(lacking)}")
