"""Bundles on a stick: finding them among whatever lies there, reading, writing durably, erasing, taking the stick out.

A stick is somebody else's: links are never followed, only plain files are opened, and of folders, names and files no
more are looked at than the bounds below. What is written appears whole under its name or not at all; what a pulled
stick left half written is recognised and cleaned.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, Literal

from outlast.edges.stick.media import Medium
from outlast.errors import NotFoundError, StorageError
from outlast.kernel import BUNDLE_MAGIC, BUNDLE_MIN_BYTES, PEEK_BYTES
from outlast.ui.file import new_file

NAMES_MAX: Final = 1 << 16
"""Names that are looked at in one folder: as many as FAT has room for."""
OPENED_MAX: Final = 2000
"""Files that are opened in one folder; those called as ours are come first."""
FOLDERS_MAX: Final = 32
"""Folders below the first that are looked into; those in them are not."""
FILES_MAX: Final = 500
"""Bundles that are told of on one stick."""
SIZE_MAX: Final = 1 << 36
"""A file above that is no bundle, whatever it begins with."""
FAT_MAX: Final = (1 << 32) - 1
"""The largest file that FAT can hold."""
FAT: Final = ("vfat", "msdos", "fat", "fuseblk.vfat")
KEPT_BYTES: Final = 1 << 16
"""What is left free on a stick: the folder itself may grow."""
BLOCK_BYTES: Final = 1 << 20
BEGINNING_BYTES: Final = PEEK_BYTES
"""What is kept of a file that was found: it tells for whom it is, and is recognised by it."""
MARK_BYTES: Final = 32
WRITTEN_NOW_MS: Final = 120_000
"""A draft that grew within this time may still be being written."""

_OURS = re.compile(r"\.?[0-9a-f]{8}\.(?:bin|[0-9a-f]{3})(?:\.[0-9a-f]{8})?")
_DRAFT = re.compile(r"\.[0-9a-f]{8}\.(?:bin|[0-9a-f]{3})\.[0-9a-f]{8}")
_MARK = re.compile(r"[0-9a-f]{8}\.[0-9a-f]{3}")

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A bundle on a stick, or the half of one (a draft): where it is, its size, its age, how it begins."""

    path: Path
    size: int
    changed_ms: int
    beginning: bytes
    draft: bool = False

    @property
    def digest(self) -> bytes:
        """By what it is recognised: 32 bytes of its beginning, in which a fresh key or its content stands."""
        return sha256(self.beginning).digest()

    @property
    def is_open(self) -> bool:
        """Whether everybody can read it: a channel."""
        return self.beginning[len(BUNDLE_MAGIC) + 1 :][:1] == b"\1"


def find(folder: Path) -> list[Found]:
    """The bundles in a folder and in the folders in it, newest first; raises StorageError when it cannot be read."""
    with stick_errors():
        found, folders = _look(folder)
        for one in folders[:FOLDERS_MAX]:
            with suppress(OSError):
                found += _look(one)[0]
    return sorted(found, key=lambda one: (-one.changed_ms, one.path))[:FILES_MAX]


def _look(folder: Path) -> tuple[list[Found], list[Path]]:
    found: list[Found] = []
    folders: list[Path] = []
    opened = 0
    with os.scandir(folder) as names:
        # FAT lists what was written last behind all that was there before.
        for entry in sorted(islice(names, NAMES_MAX), key=lambda one: _OURS.fullmatch(one.name) is None):
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif opened < OPENED_MAX and entry.is_file(follow_symlinks=False):
                    opened += 1
                    if one := _bundle(Path(entry.path)):
                        found.append(one)
            if len(found) >= FILES_MAX:
                break
    return found, sorted(folders)


def _bundle(path: Path) -> Found | None:
    draft = _DRAFT.fullmatch(path.name) is not None
    with open_plain(path) as file:
        state = os.fstat(file.fileno())
        if state.st_size > SIZE_MAX:
            return None
        beginning = file.read(len(BUNDLE_MAGIC))
        if beginning != BUNDLE_MAGIC and not (draft and not beginning.strip(b"\0")):
            return None
        return Found(
            path,
            state.st_size,
            state.st_mtime_ns // 1_000_000,
            beginning + file.read(BEGINNING_BYTES - len(beginning)),
            draft,
        )


@contextmanager
def open_plain(path: Path, mode: Literal["rb", "r+b"] = "rb") -> Iterator[BinaryIO]:
    """A plain file that is reached by no link; raises OSError for everything else, and waits for nothing."""
    with open(path, mode, opener=_no_link) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no plain file")
        yield file


def _no_link(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def stick_errors() -> Iterator[None]:
    """What goes wrong with a stick, as one line that says what to do: raises StorageError.

    What the node says of its own disk passes as it is: nobody is to erase a stick because the computer is full.
    """
    try:
        yield
    except OSError as error:
        raise _stick_error(error) from error


@contextmanager
def _new_file(medium: Medium) -> Iterator[BinaryIO]:
    """A file on a stick under a name by chance, whole and durable behind the block or not there: raises StorageError.

    Nothing in the name tells what it is or for whom.
    """
    try:
        with new_file(medium.folder / f"{secrets.token_hex(4)}.{secrets.token_hex(2)[:3]}", 0o644) as out:
            yield out
    except StorageError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise _stick_error(error.__cause__) from error.__cause__


def _stick_error(error: OSError) -> StorageError:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return StorageError("the stick is full: erase what it need not carry, or take a larger one")
        case errno.EROFS:
            return StorageError("the stick is read-only: move its lock switch, or take another one")
        case errno.EACCES | errno.EPERM:
            return StorageError(
                "this user may not use the stick: open it in the file manager first, or take another one"
            )
        case errno.EFBIG:
            return StorageError("this stick takes no file as large: its filesystem ends at 4 GiB")
        case errno.EIO | errno.ENODEV | errno.ENXIO | errno.ENOENT | errno.ENOTDIR | errno.ESTALE | errno.ESHUTDOWN:
            return StorageError("the stick was pulled out, or is failing: put it in again; nothing half written counts")
        case _:
            return StorageError("the stick cannot be used: %(error)s", error=error)


def room(medium: Medium) -> int:
    """How large a file may be on this stick now, in bytes; raises StorageError when it is full, or cannot be used."""
    with stick_errors():
        free = shutil.disk_usage(medium.folder).free - KEPT_BYTES
    if free < BUNDLE_MIN_BYTES:
        raise StorageError("the stick is full: erase what it need not carry, or take a larger one")
    return min(free, FAT_MAX) if medium.filesystem in FAT else min(free, SIZE_MAX)


def put(medium: Medium, source: BinaryIO, size: int, progress: Progress) -> bytes:
    """Copy ``size`` bytes of ``source`` onto a stick under a name by chance, read them back; by what it is recognised.

    Once this returns the file is durable. Raises StorageError.
    """
    beginning = source.read(BEGINNING_BYTES)
    source.seek(0)
    digest, done = sha256(), 0
    with _new_file(medium) as out:
        while block := source.read(BLOCK_BYTES):
            digest.update(block)
            out.write(block)
            done += len(block)
            progress(done, size)
        out.flush()
        os.fsync(out.fileno())
        if _read_back(Path(out.name)) != digest.digest():
            raise StorageError("the stick does not give back what was written: it is broken, take another one")
    return sha256(beginning).digest()


def _read_back(path: Path) -> bytes:
    """The digest of a file as the stick has it, not as the memory remembers it."""
    digest = sha256()
    with open_plain(path) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.digest()


def settle(medium: Medium) -> None:
    """Wait until everything that was written is on the stick: syncfs(2). Raises StorageError."""
    with stick_errors():
        if sys.platform != "linux":
            os.sync()
            return
        folder = os.open(medium.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(folder):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        finally:
            os.close(folder)


def clean(found: list[Found], now_ms: int) -> int:
    """Remove what is half written and is not being written at this moment; how many files that were."""
    left = [one for one in found if one.draft and not 0 <= now_ms - one.changed_ms < WRITTEN_NOW_MS]
    with stick_errors():
        for one in left:
            if one.is_open:
                _overwrite(one, _silent)
            one.path.unlink(missing_ok=True)
    return len(left)


def remove(found: Iterable[Found]) -> None:
    """Remove bundles that newer ones stand for; one that cannot be removed does no harm.

    What everybody could read is overwritten, or ``erase`` would leave it to whoever looks for deleted files.
    """
    for one in found:
        with suppress(OSError):
            if one.is_open:
                _overwrite(one, _silent)
            one.path.unlink()


def erase(medium: Medium, found: list[Found], progress: Progress) -> int:
    """Overwrite and delete bundles; how many. What else is on the stick stays.

    Of many bundles ``find`` tells of a part: who wants all of them gone asks again until there are none.
    Flash writes elsewhere than where it is told to: remains may stay readable for who takes the chips off.
    """
    total, before = sum(one.size for one in found), 0
    with stick_errors():
        for one in found:
            _overwrite(one, progress, before, total)
            one.path.unlink()
            before += one.size
    settle(medium)
    return len(found)


def _silent(_done: int, _total: int | None) -> None:
    """Nobody watches."""


def _overwrite(one: Found, progress: Progress, before: int = 0, total: int | None = None) -> None:
    with open_plain(one.path, "r+b") as file:
        for begin, end in _parts(file, one.size):
            file.seek(begin)
            for at in range(begin, end, BLOCK_BYTES):
                written = file.write(os.urandom(min(BLOCK_BYTES, end - at)))
                progress(before + at + written, total)
        file.flush()
        os.fsync(file.fileno())
        file.truncate(0)
        os.fsync(file.fileno())


def _parts(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """What of a file has a place on the disk, from where to where: overwriting the holes in it would only fill that."""
    at = 0
    while at < size:
        try:
            begin = file.seek(at, os.SEEK_DATA)
            end = min(file.seek(begin, os.SEEK_HOLE), size)
        except (OSError, ValueError, AttributeError) as error:  # no more data, or no such question here
            if getattr(error, "errno", None) != errno.ENXIO:
                yield at, size
            return
        yield begin, end
        at = end


def take_out(medium: Medium) -> bool:
    """Make everything durable and unmount the stick; whether that was possible here. Raises StorageError.

    When it returns True, it is safe to pull the stick out.
    """
    settle(medium)
    if not medium.device:
        return False
    if sys.platform == "darwin":
        ways = [["diskutil", "unmount", str(medium.folder)]]
    else:
        ways = [
            ["udisksctl", "unmount", "--no-user-interaction", "-b", medium.device],
            ["umount", "--", str(medium.folder)],
        ]
    for way in ways:
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(way, capture_output=True, timeout=120, check=True, stdin=subprocess.DEVNULL)
            return True
    return False


def make_mark(medium: Medium) -> bytes:
    """Leave 32 bytes by chance on a stick, by which this node alone knows it again; they."""
    mark = os.urandom(MARK_BYTES)
    with _new_file(medium) as out:
        out.write(mark)
    return mark


def unmark(paths: Iterable[Path]) -> None:
    """Remove marks; raises StorageError."""
    with stick_errors():
        for path in paths:
            path.unlink()


def marks(folder: Path) -> dict[bytes, Path]:
    """What in the first folder of a stick may be a mark: short files of this size and form of name."""
    found: dict[bytes, Path] = {}
    with stick_errors(), os.scandir(folder) as names:
        for entry in islice(names, NAMES_MAX):
            if _MARK.fullmatch(entry.name) is None:
                continue
            with suppress(OSError), open_plain(Path(entry.path)) as file:
                if os.fstat(file.fileno()).st_size == MARK_BYTES:
                    found[file.read(MARK_BYTES)] = Path(entry.path)
    return found


def one_of(found: list[Medium], name: str | None) -> Medium:
    """The medium that was named by its name, folder or device, or the only one; raises NotFoundError."""
    if name is None:
        if len(found) == 1:
            return found[0]
        if not found:
            raise NotFoundError("no stick was found: plug one in, or name its folder")
        raise NotFoundError("there are %(n)s sticks: name one of them, as `outlast stick list` does", n=len(found))
    for one in found:
        if name in (one.name, str(one.folder), one.device):
            return one
    folder = Path(name)
    if folder.is_absolute() and folder.is_dir():
        return Medium(folder)
    raise NotFoundError("no such stick: see `outlast stick list`, or name its folder")
