"""Which removable media are there: decided from what the operating system says of its mounts and disks.

Linux: ``/proc/self/mountinfo`` (proc(5)) and ``/sys``, without udev; macOS: what ``mount`` prints; Windows: the types
of the drives. What is told of hard disks in USB cases differs between systems, so any folder can be named by hand too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOUNTINFO: Final = Path("/proc/self/mountinfo")
MEDIA_MAX: Final = 16
"""More media are not looked at."""
SYSTEM_FOLDERS: Final = ("/", "/boot", "/efi", "/etc", "/home", "/nix", "/opt", "/root", "/srv", "/usr", "/var")
"""A disk that holds one of these is part of the computer, whatever it is plugged in by."""
DRIVE_REMOVABLE: Final = 2
"""What GetDriveTypeW says of sticks and cards."""

_OCTAL = re.compile(r"\\([0-7]{3})")
_MACOS = re.compile(r"(/dev/\S+) on (/Volumes/.+) \(([^()]*)\)")


@dataclass(frozen=True, slots=True)
class Medium:
    """A mounted medium: its folder, what it is called there, the device file, the filesystem, whether it is locked."""

    folder: Path
    device: str = ""  # empty: a folder named by hand
    filesystem: str = ""
    read_only: bool = False

    @property
    def name(self) -> str:
        """What a person knows it by: its label, which systems mount it under."""
        return self.folder.name or str(self.folder)


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of Linux: its place in /sys, which is one for all of its parts, and whether it calls itself removable."""

    place: str
    removable: bool

    @property
    def is_stick(self) -> bool:
        """Whether it can be pulled out: it says so, or hangs on a USB bus."""
        return self.removable or re.search(r"/usb\d+/", self.place) is not None


DiskOf = Callable[[str, str], Disk | None]
"""The disk of a mount, by its ``major:minor`` and its source; None for what is none."""


def linux(mountinfo: str, disk_of: DiskOf) -> list[Medium]:
    """The media among the mounts that ``/proc/self/mountinfo`` tells of; each disk's parts are media of their own."""
    found: dict[str, Medium] = {}
    own: set[str] = set()
    places: dict[str, str] = {}
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields, more = before.split(" "), after.split(" ")
        if not dash or len(fields) < 6 or len(more) < 3:
            continue
        number, root, folder = fields[2], _plain(fields[3]), _plain(fields[4])
        filesystem, device = more[0], _plain(more[1])
        disk = disk_of(number, device)
        if disk is None:
            continue
        if _is_of_the_system(folder):
            own.add(disk.place)
        # A part of a filesystem that is mounted once more elsewhere is not another stick.
        if disk.is_stick and root == "/" and device not in found:
            locked = "ro" in fields[5].split(",") or "ro" in more[2].split(",")
            found[device] = Medium(Path(folder), device, filesystem, locked)
            places[device] = disk.place
    return [medium for device, medium in found.items() if places[device] not in own][:MEDIA_MAX]


def _is_of_the_system(folder: str) -> bool:
    return any(folder == one or folder.startswith(f"{one}/") for one in SYSTEM_FOLDERS[1:]) or folder == "/"


def _plain(field: str) -> str:
    """A field of mountinfo, in which spaces and the like stand as octal numbers."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def disk_in_sys(number: str, source: str) -> Disk | None:
    """The disk behind a mount, as /sys tells; the stacked ones, and those without a device, are none."""
    with suppress(OSError, ValueError):
        if number.startswith("0:"):
            # Btrfs and others number their mounts by themselves.
            if not source.startswith("/dev/"):
                return None
            device = os.stat(source).st_rdev
            number = f"{os.major(device)}:{os.minor(device)}"
        place = Path(f"/sys/dev/block/{number}").resolve(strict=True)
        if (place / "partition").exists():
            place = place.parent
        return Disk(str(place), (place / "removable").read_text().strip() == "1")
    return None


def macos(mounts: str) -> list[Medium]:
    """The media among what ``mount`` prints: local disks in /Volumes."""
    found = []
    for line in mounts.splitlines():
        match = _MACOS.fullmatch(line)
        flags = match[3].split(", ") if match else []
        if match and "local" in flags and "nobrowse" not in flags:
            found.append(Medium(Path(match[2]), match[1], flags[0], "read-only" in flags))
    return found[:MEDIA_MAX]


def windows(drives: int, type_of: Callable[[str], int]) -> list[Medium]:
    """The removable ones of the drives whose letters stand as bits in ``drives`` (GetLogicalDrives)."""
    roots = [f"{chr(ord('A') + bit)}:\\" for bit in range(26) if drives >> bit & 1]
    return [Medium(Path(root), root) for root in roots if type_of(root) == DRIVE_REMOVABLE]


def media(folders: Iterable[Path] = (), *, home: Path, disk_of: DiskOf = disk_in_sys) -> list[Medium]:
    """The media of this computer now, and the ``folders`` that were named by hand and are there.

    What holds the node's own ``home`` is none.
    """
    found: Sequence[Medium] = ()
    if sys.platform == "linux":
        found = linux(os.fsdecode(MOUNTINFO.read_bytes()), disk_of)
    elif sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            found = macos(subprocess.run(["/sbin/mount"], capture_output=True, text=True, timeout=5, check=True).stdout)
    elif sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        found = windows(kernel.GetLogicalDrives(), kernel.GetDriveTypeW)
    own = home.absolute()
    by_hand = [Medium(folder) for folder in folders if folder.is_dir()]
    known = {medium.folder for medium in by_hand}
    return [*by_hand, *(one for one in found if one.folder not in known and not own.is_relative_to(one.folder))]
