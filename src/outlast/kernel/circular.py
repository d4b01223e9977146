"""Circulars: letters by which members of a closed space bring each other what it is made of.

A circular carries entries of the space, secrets of epochs, and for somebody who is new its genesis. Who is added by it
is *invited*: nothing of the space enters their node's store before they say that they want to join. Everything here
stands in the person's vault, in rows ``local_group_*``, which are in the backup too; ``groups`` works on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from outlast.errors import ProtocolError
from outlast.kernel.entry import Entry, pack, signing_input, unpack
from outlast.kernel.epoch import SECRET_BYTES, commitment
from outlast.kernel.identity import read_certificate, verify
from outlast.kernel.kinds import Kind
from outlast.kernel.mail import LETTER_MAX_BYTES
from outlast.kernel.room import Letter, Put, Room, RowChange, RowChanges, Rows
from outlast.kernel.space import open_genesis, read_genesis, space_of

INVITED_MAX: Final = 32
"""Invitations that wait for an answer; more are not noted."""
INVITED_BY_ONE_MAX: Final = 8
"""Those of them that one sender takes: nobody shuts out everybody else's."""
WAITING_MAX: Final = 500
"""Entries of a space that wait until it is joined, and of all those together that nobody has invited to yet."""
ARRIVED_MAX: Final = 20_000
"""Entries of a joined space on their way into the store."""
SECRETS_MAX: Final = 8192
"""Secrets of a space, and of all those together that nobody has invited to yet."""
TOLD_MAX: Final = 128
"""Members that a circular says know its secrets."""
TOLD_KEPT_MAX: Final = 100_000
"""What is remembered of who knows which secret of a space, and of all those together that nobody has invited to yet."""
INVITED: Final = "invited"
JOINED: Final = "joined"
LEFT: Final = "left"

HELD: Final = "local_group_held"
SECRET: Final = "local_group_secret"
TOLD: Final = "local_group_claim"
WAITING: Final = "local_group_waiting"
ACT: Final = "local_group_act"

MIGRATIONS: Final = (
    f"CREATE TABLE {HELD} (space BLOB PRIMARY KEY, state TEXT, type TEXT, name TEXT,"
    " owner BLOB, genesis BLOB, sender BLOB, at_ms INTEGER)",
    f"CREATE TABLE {SECRET} (space BLOB, epoch BLOB, secret BLOB, PRIMARY KEY (space, epoch, secret)) WITHOUT ROWID",
    # By the commitment to the secret: who does not know it cannot say who does, and keep others from telling it.
    "CREATE TABLE local_group_told (space BLOB, commitment BLOB, identity BLOB,"
    " PRIMARY KEY (space, commitment, identity)) WITHOUT ROWID",
    f"CREATE TABLE {WAITING} (id BLOB PRIMARY KEY, space BLOB, packed BLOB)",
    f"CREATE INDEX {WAITING}_space ON {WAITING} (space)",
    # Acts and revocations, also of a store that let go of them or was lost.
    f"CREATE TABLE {ACT} (id BLOB PRIMARY KEY, space BLOB, packed BLOB)",
    f"CREATE INDEX {ACT}_space ON {ACT} (space)",
    # With who said so, for not everybody is believed.
    f"CREATE TABLE {TOLD} (space BLOB, commitment BLOB, identity BLOB, sender BLOB,"
    " PRIMARY KEY (space, commitment, identity, sender)) WITHOUT ROWID",
    f"INSERT INTO {TOLD} SELECT space, commitment, identity, identity FROM local_group_told",
    "DROP TABLE local_group_told",
)


class Circular(msgspec.Struct, array_like=True, frozen=True):
    """What the kernel's letter ``group`` says."""

    space: bytes  # 32 B
    genesis: bytes  # packed, or empty for those who have it
    entries: tuple[bytes, ...]  # packed
    secrets: tuple[tuple[bytes, bytes], ...]  # 32 B each: epochs and their secrets
    told: tuple[bytes, ...]  # 32 B each: identities that know these secrets or are being told


CIRCULAR: Final = Kind("group", Circular, max_bytes=LETTER_MAX_BYTES)
_FRAME_BYTES: Final = 64


def circulars(
    space: bytes,
    *,
    genesis: Entry | None = None,
    entries: Iterable[Entry] = (),
    secrets: Sequence[tuple[bytes, bytes]] = (),
    told: Sequence[bytes] = (),
) -> list[bytes]:
    """The bodies of as many circulars as these need, each complete in itself, without entries too large for a letter.

    The first epoch's secret stands in each that bears the genesis: without it the genesis says nothing.
    """
    packed = pack(genesis) if genesis is not None else b""
    first = [pair for pair in secrets if genesis is not None and pair[0] == space]
    rest = [pair for pair in secrets if pair not in first]
    told = tuple(sorted(told)[:TOLD_MAX])
    bodies: list[bytes] = []
    frame = _FRAME_BYTES + len(packed) + 70 * len(first) + 34 * len(told)
    taken: list[bytes] = []
    keys: list[tuple[bytes, bytes]] = []
    size = frame

    def close() -> None:
        nonlocal size
        bodies.append(CIRCULAR.encode(Circular(space, packed, tuple(taken), (*first, *keys), told)))
        taken.clear()
        keys.clear()
        size = frame

    items: list[bytes | tuple[bytes, bytes]] = [*rest, *map(pack, entries)]
    for item in items:
        needed = len(item) + 3 if isinstance(item, bytes) else 70
        if frame + needed > LETTER_MAX_BYTES:
            continue
        if size + needed > LETTER_MAX_BYTES:
            close()
        if isinstance(item, bytes):
            taken.append(item)
        else:
            keys.append(item)
        size += needed
    if taken or keys or not bodies:
        close()
    return bodies


def receive(letter: Letter, rows: Rows) -> RowChanges:
    """The rows of a circular that came in; none when it is malformed or too much waits already."""
    try:
        said: Circular = CIRCULAR.decode(letter.body)
    except ProtocolError:
        return ()
    if len(said.space) != 32 or any(len(e) != 32 or len(s) != SECRET_BYTES for e, s in said.secrets):
        return ()
    held = rows.query(f"SELECT state FROM {HELD} WHERE space = ?", (said.space,))
    state = held[0][0] if held else None
    changes: list[RowChange] = []
    if said.genesis and state in (None, LEFT):
        senders = [bytes(row[0]) for row in rows.query(f"SELECT sender FROM {HELD} WHERE state = ?", (INVITED,))]
        is_full = len(senders) >= INVITED_MAX or senders.count(letter.sender) >= INVITED_BY_ONE_MAX
        invitation = None if is_full else _invitation(letter, said)
        if invitation is not None:
            state = INVITED
            changes.append(invitation)
    if state == LEFT:
        return ()
    of, args = ("space = ?", (said.space,)) if state else (f"space NOT IN (SELECT space FROM {HELD})", ())

    def room(table: str, most: int) -> int:
        return max(0, most - int(rows.query(f"SELECT count(*) FROM {table} WHERE {of}", args)[0][0]))

    secrets = said.secrets[: room(SECRET, SECRETS_MAX)]
    changes += [Put(SECRET, {"space": said.space, "epoch": epoch, "secret": secret}) for epoch, secret in secrets]
    knowing = [one for one in {*said.told[:TOLD_MAX], letter.sender} if len(one) == 32]
    told = [told_row(said.space, secret, identity, letter.sender) for _, secret in secrets for identity in knowing]
    changes += told[: room(TOLD, TOLD_KEPT_MAX)]
    for packed in said.entries[: room(WAITING, ARRIVED_MAX if state == JOINED else WAITING_MAX)]:
        entry = _whole(packed)
        if entry is not None and space_of(entry) == said.space:
            changes.append(Put(WAITING, {"id": entry.id, "space": said.space, "packed": packed}))
    return changes


def held_row(space: bytes, genesis: Entry, type: str, name: str, owner: bytes, state: str, at_ms: int) -> Put:
    """The row of a closed space that a person has founded or was invited to; ``owner`` is an identity (32 B)."""
    return Put(
        HELD,
        {
            "space": space,
            "state": state,
            "type": type,
            "name": name,
            "owner": owner,
            "genesis": pack(genesis),
            "at_ms": at_ms,
        },
    )


def told_row(space: bytes, secret: bytes, identity: bytes, sender: bytes) -> Put:
    """The row that says that somebody (32 B) knows a secret of a space, or is being told it, as ``sender`` says."""
    return Put(TOLD, {"space": space, "commitment": commitment(secret), "identity": identity, "sender": sender})


def _invitation(letter: Letter, said: Circular) -> Put | None:
    genesis = _whole(said.genesis)
    if genesis is None or genesis.id != said.space:
        return None
    for epoch, secret in said.secrets:
        if epoch == said.space:
            try:
                body = open_genesis(genesis, secret)
                type = read_genesis(genesis).type
                owner = read_certificate(body.owner).identity
            except ProtocolError:
                return None
            row = held_row(said.space, genesis, type, body.name, owner, INVITED, letter.received_ms)
            return Put(HELD, dict(row.row) | {"sender": letter.sender})
    return None


def _whole(packed: bytes) -> Entry | None:
    """The entry, with its payload, that its author signed: of one id others could be made, and take its place."""
    try:
        entry, end = unpack(packed)
    except ProtocolError:
        return None
    if end != len(packed) or entry.payload is None:
        return None
    return entry if verify(entry.header.author, entry.signature, signing_input(entry.header_bytes)) else None


GROUPS: Final = Room("group", 1, letters=(CIRCULAR,), migrations=MIGRATIONS, receive=receive)
"""The kernel's own tables and letters, kept as a room's are; no page or command shows it among the rooms."""
