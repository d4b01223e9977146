"""Sticks of any filesystem the kernel knows: images on loop devices, mounted where this user may mount."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

MAKERS: Final = {
    "ext4": ["/usr/sbin/mkfs.ext4", "-q", "-m", "0", "-L", "STICK"],
    "vfat": ["/usr/sbin/mkfs.vfat", "-n", "STICK"],
}
KNOWN: Final = [one for one in MAKERS if one in Path("/proc/filesystems").read_text().split()]
"""Those that this kernel mounts."""


SHUT_DOWN: Final = 0x8004587D
"""EXT4_IOC_SHUTDOWN."""


def cut_off(place: Path) -> None:
    """From now on the ext4 there behaves as if its disk had lost its power, or had been pulled out."""
    folder = os.open(place, os.O_RDONLY)
    fcntl.ioctl(folder, SHUT_DOWN, struct.pack("I", 2))
    os.close(folder)


@contextmanager
def stick(folder: Path, filesystem: str, mib: int, *, read_only: bool = False, options: str = "loop") -> Iterator[Path]:
    """A stick of ``mib`` MiB in ``folder``; where none can be mounted the test is skipped, but in CI."""
    image = folder / f"{filesystem}.img"
    if not image.exists():
        with image.open("wb") as made:
            made.truncate(mib << 20)
        subprocess.run([*MAKERS[filesystem], str(image)], check=True, capture_output=True)
    place = folder / "STICK"
    place.mkdir(exist_ok=True)
    try:
        subprocess.run(
            ["mount", "-o", f"{options},ro" if read_only else options, str(image), str(place)],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"nothing can be mounted here: {error}")
    try:
        yield place
    finally:
        if place.is_mount():
            subprocess.run(["umount", "-l", str(place)], check=True)
