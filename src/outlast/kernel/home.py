"""Home: the directory of one node, its files and their keys.

::

    lock                          held by the one process that has the home open
    store.db                      the node's store, encrypted
    store.chunks                  the chunks of large content, each encrypted
    store.key | store.keyfile     its key: wrapped under a passphrase, or bare (unattended)
    people/<16 hex>/vault.db      a person's vault, encrypted; vault.key | vault.keyfile as above; the vault.key of who
                                  came to live here later holds the store's key too
    rooms/<name>/                 what a room keeps in files of its own
    https/                        the certificates and keys of the encrypted door for phones
    reserve                       room on the disk, for a start when others have filled it
    api.sock                      the local API, while the node is up
    config.toml                   optional

Folders have mode 0700, files 0600. A bare key file lets the node start by itself after a power cut, and protects
nothing when the disk is taken.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outlast.errors import LockedError, NotFoundError, StorageError, UsageError
from outlast.kernel import keyslot
from outlast.kernel.database import sync_folder
from outlast.kernel.keyslot import KEY_BYTES
from outlast.secrecy import make_private

_PERSON = re.compile(r"[0-9a-f]{16}").fullmatch
_OURS = re.compile(
    r"lock|unfinished|people|rooms|https|reserve|api\.sock|config\.toml"
    r"|store\.(chunks|db(-wal|-shm|-journal|\.new(-journal)?)?|(key|keyfile)(\.new)?)"
).fullmatch

RESERVE_BYTES: Final = 4 << 20
"""Room for what SQLite writes beside its files when they are opened, and for a while of small changes."""
PLENTY_BYTES: Final = 128 << 20
"""With so much free, such a reserve takes nothing from anybody."""


def local_cost() -> keyslot.Cost:
    """What a guess at a passphrase costs when it is set on this machine (see ``keyslot.cost_for``)."""
    return keyslot.cost_for(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def write_secret(path: Path, data: bytes) -> None:
    """Write a small secret file whole or not at all, mode 0600, durable when this returns.

    What an older file of that name held is overwritten on the medium (see ``wipe_secret``). Raises StorageError.
    """
    draft = path.with_name(path.name + ".new")
    try:
        wipe_secret(draft)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        old = _open_secret(path)
        try:
            draft.replace(path)
            sync_folder(path.parent)
            if old is not None:
                _overwrite(old)
        finally:
            if old is not None:
                os.close(old)
    except OSError as error:
        raise StorageError(
            "cannot write %(path)s: %(error)s; make room or check whose folder it is", path=path, error=error
        ) from error


def wipe_secret(path: Path) -> None:
    """Overwrite a small secret file with random bytes, then zeros, make that durable, and remove it.

    On a disk with magnets this destroys the key. On flash (SSD, SD card, stick) the medium may keep the old bytes
    elsewhere: there only a passphrase nobody tells, or destroying the medium, protects. Nothing happens when there is
    no such file. Raises StorageError when something resists.
    """
    try:
        old = _open_secret(path)
        if old is None:
            return
        try:
            _overwrite(old)
        finally:
            os.close(old)
        path.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            "cannot wipe %(path)s: %(error)s; destroy the medium it is on", path=path, error=error
        ) from error


def _open_secret(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def _overwrite(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    for content in (os.urandom(size), bytes(size)):
        os.pwrite(descriptor, content, 0)
        os.fsync(descriptor)


@dataclass(frozen=True, slots=True)
class Keys:
    """What a passphrase opens: a person's vault (32 B), and the store (32 B, or empty when its own slot has it)."""

    person: str
    vault: bytes
    store: bytes


class Home:
    """The paths in a home and the keys of its files. An owner is a person's 16 hex digits, or None for the store."""

    def __init__(self, path: Path) -> None:
        """Name a home; nothing is read or made."""
        self.path = path.absolute()

    @property
    def store_path(self) -> Path:
        """The node's store."""
        return self.path / "store.db"

    @property
    def socket_path(self) -> Path:
        """The local API's socket."""
        return self.path / "api.sock"

    def vault_path(self, person: str) -> Path:
        """A person's vault; raises NotFoundError for what is no person's key."""
        return self._person_folder(person) / "vault.db"

    @property
    def unattended(self) -> bool:
        """Whether the store opens by itself, by a bare key file."""
        return self._keyfile(None).exists()

    def exists(self) -> bool:
        """Whether a node was made here, to the end."""
        return (self.has_key(None) or bool(self.people())) and not self._unfinished.exists()

    def people(self) -> list[str]:
        """The keys (16 hex digits) of the persons who live here, sorted."""
        folder = self.path / "people"
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if _PERSON(entry.name) and self.has_key(entry.name))

    def create(self) -> None:
        """Make the folders (mode 0700); raises UsageError when a node or anything foreign is here already.

        What a making that was cut short left is removed first; raises StorageError while another process is making it.
        The home exists from ``finish`` on.
        """
        if self.exists():
            raise UsageError("%(path)s has a node already: use it, or name another folder by --home", path=self.path)
        if self._unfinished.exists():
            with self.lock():  # whoever is making it holds it
                self.wipe()
        if self.store_path.exists():
            raise UsageError(
                "%(path)s has a store without its key: put the key back, or name another folder", path=self.path
            )
        if self.path.is_dir():
            foreign = sorted(entry.name for entry in self.path.iterdir() if not _OURS(entry.name))
            if foreign:
                raise UsageError(
                    "%(path)s holds %(name)r: name an empty or a new folder by --home", path=self.path, name=foreign[0]
                )
        make_private(self.path)
        write_secret(self._unfinished, b"")
        make_private(self.path / "people")

    def finish(self) -> None:
        """All keys and files are made: from now on there is a node here."""
        wipe_secret(self._unfinished)

    @property
    def _unfinished(self) -> Path:
        return self.path / "unfinished"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home for this process; raises StorageError at once when another one has it.

        The kernel lets go when the process ends, however it ends.
        """
        if not self.path.is_dir():
            raise NotFoundError(
                "there is no node in %(path)s: make one with `outlast init --name NAME`", path=self.path
            )
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                "cannot write in %(path)s: %(error)s; check whose folder it is", path=self.path, error=error
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StorageError(
                    "%(path)s is open in another Outlast: use that one, end it, or name another folder by --home",
                    path=self.path,
                ) from None
            yield
        finally:
            os.close(descriptor)

    def has_key(self, owner: str | None) -> bool:
        """Whether a key of that owner is here, wrapped or bare."""
        return self._slot(owner).exists() or self._keyfile(owner).exists()

    def needs_passphrase(self, owner: str | None) -> bool:
        """Whether that owner's key opens by a passphrase only."""
        return not self._keyfile(owner).exists()

    def new_key(self, owner: str | None, passphrase: str | None, cost: keyslot.Cost | None = None) -> bytes:
        """A fresh random key (32 B), kept under a passphrase, or bare when there is none.

        Raises UsageError when the owner has one: a second key would shut out the first one's data.
        """
        if self.has_key(owner):
            raise UsageError("a key is here already: change its passphrase instead")
        if owner is not None:
            make_private(self._person_folder(owner))
        key = os.urandom(KEY_BYTES)
        self.set_passphrase(owner, key, passphrase, cost)
        return key

    def begin_person(self, person: str) -> bytes:
        """Make a new person's folder and return a fresh key (32 B) for their vault.

        They live here as soon as it is kept by ``set_passphrase``: last, so that nobody half made is left by a power
        cut.
        """
        make_private(self._person_folder(person))
        return os.urandom(KEY_BYTES)

    def set_passphrase(
        self, owner: str | None, key: bytes, passphrase: str | None, cost: keyslot.Cost | None = None
    ) -> None:
        """Keep a key under a new passphrase, or bare; the old slot or bare key is overwritten and removed.

        A vault's key may be followed by the store's, so that one passphrase opens both.
        Takes about a second of computing. At a power cut either the old or the new way opens it.
        """
        slot, bare = self._slot(owner), self._keyfile(owner)
        if passphrase is None:
            write_secret(bare, key)
            wipe_secret(slot)
            return
        salt, nonce = os.urandom(keyslot.SALT_BYTES), os.urandom(keyslot.NONCE_BYTES)
        sealed = keyslot.seal_slot(key, passphrase, salt=salt, nonce=nonce, cost=cost or local_cost())
        write_secret(slot, sealed)
        wipe_secret(bare)

    def open_key(self, owner: str | None, passphrase: str | None = None) -> bytes:
        """An owner's key (32 B): from its bare file, else by the passphrase.

        Raises LockedError when a passphrase is needed or wrong, NotFoundError when there is no key, StorageError when
        its file is damaged. A wrapped key takes about a second of computing.
        """
        bare, slot = self._keyfile(owner), self._slot(owner)
        try:
            if bare.exists():
                key = bare.read_bytes()
                if len(key) != KEY_BYTES:
                    raise StorageError("%(path)s is damaged: restore from the backup file", path=bare)
                return key
            sealed = slot.read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                "there is no key %(slot)s: make a node with `outlast init`, or restore one", slot=slot
            ) from None
        except OSError as error:
            raise StorageError(
                "cannot read %(path)s: %(error)s; check whose file it is", path=error.filename, error=error
            ) from error
        if passphrase is None:
            raise LockedError("a passphrase is needed: give it to unlock")
        return keyslot.open_slot(sealed, passphrase)[:KEY_BYTES]

    def whose(self, passphrase: str) -> Keys:
        """Whose vault a passphrase opens, and its keys; about a second of computing for each person who has one.

        Where nobody has one, any passphrase stands for the first person, as key files open everything. Raises
        LockedError.
        """
        wrong = LockedError("nobody lives on this node yet")
        sealed = [person for person in self.people() if self.needs_passphrase(person)]
        for person in sealed:
            try:
                both = keyslot.open_slot(self._slot(person).read_bytes(), passphrase)
            except LockedError as error:
                wrong = error
            else:
                return Keys(person, both[:KEY_BYTES], both[KEY_BYTES:])
        if not sealed and (bare := self.people()):
            return Keys(bare[0], self.open_key(bare[0]), b"")
        raise wrong

    def remove_person(self, person: str) -> None:
        """Destroy a person's keys, then their files. The store stays, and its key where others can open it.

        Raises NotFoundError when nobody of that key lives here, UsageError when nobody else does.
        """
        if person not in self.people():
            raise NotFoundError("%(person)r is nobody here", person=person[:40])
        if self.people() == [person]:
            raise UsageError("nobody else lives on this node: `outlast wipe` destroys all of it")
        slot = self._slot(person)
        # The first person's passphrase holds the store's key in a slot of its own; all others have it with theirs.
        founder = slot.exists() and slot.stat().st_size == keyslot.SLOT_BYTES
        for secret in (slot, self._keyfile(person), *((self._slot(None),) if founder else ())):
            wipe_secret(secret)
        try:
            shutil.rmtree(slot.parent)
        except OSError as error:
            raise StorageError(
                "the keys are destroyed, but %(path)s remains: %(error)s", path=error.filename, error=error
            ) from error

    def wipe(self) -> None:
        """Destroy this home: overwrite every key, make that durable, then remove what is ours. Ask before.

        Without its key an encrypted file is noise, so the keys go first and the rest may be interrupted. What flash
        memory does with overwritten bytes is its own affair: an SSD, SD card or stick can keep the old ones where no
        program reaches them. There a key that was wrapped is as safe as its passphrase, and a bare key file is not safe
        until the medium is destroyed. Raises StorageError when something resists.
        """
        secrets = [*filter(lambda path: _OURS(path.name), self.path.glob("store.key*"))]
        # Rooms, and the door by https, call files that hold keys after that.
        keys = (*self.path.glob("rooms/**/*key*"), *self.path.glob("https/*key*"))
        of_rooms = [path for path in keys if path.is_file() and not path.is_symlink()]
        for secret in [*secrets, *self.path.glob("people/*/vault.key*"), *of_rooms]:
            wipe_secret(secret)
        try:
            for entry in sorted(self.path.iterdir()):
                if not _OURS(entry.name):
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            if not any(self.path.iterdir()):
                self.path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(
                "the keys are destroyed, but %(path)s remains: %(error)s", path=error.filename, error=error
            ) from error

    def keep_reserve(self) -> None:
        """Hold some of the disk while there is plenty, for ``release_reserve``."""
        if self._reserve.exists() or shutil.disk_usage(self.path).free < PLENTY_BYTES:
            return
        try:
            held = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(held, 0, RESERVE_BYTES)
            finally:
                os.close(held)
        except OSError:
            self.release_reserve()

    def release_reserve(self) -> bool:
        """Give back what is held of the disk when it is full; whether there was anything to give.

        Without any room not even what only reads can open the files.
        """
        try:
            if shutil.disk_usage(self.path).free >= RESERVE_BYTES:
                return False
            self._reserve.unlink()
        except OSError:
            return False
        return True

    @property
    def _reserve(self) -> Path:
        return self.path / "reserve"

    def _person_folder(self, person: str) -> Path:
        if not _PERSON(person):
            raise NotFoundError("%(person)r is nobody here", person=person[:40])
        return self.path / "people" / person

    def _slot(self, owner: str | None) -> Path:
        return self.path / "store.key" if owner is None else self._person_folder(owner) / "vault.key"

    def _keyfile(self, owner: str | None) -> Path:
        return self.path / "store.keyfile" if owner is None else self._person_folder(owner) / "vault.keyfile"
