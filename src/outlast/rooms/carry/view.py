"""Carry's tables: how changes and letters become rows, and the questions that are asked of them.

The public view in the node's store knows channels and posts. Whatever order entries arrive in, the rows are the same:
whose posts count is asked when they are read (``view_carry_shown``), by the identities that the channel's genesis
names and the devices that these certified. A vault holds the person's letters, with an index for search, and the
channels that they follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from outlast.errors import ProtocolError
from outlast.kernel import (
    CLOCK_MAX,
    DAY_MS,
    GENESIS,
    REVOKE,
    Change,
    Delete,
    Entry,
    Event,
    Letter,
    Put,
    RowChanges,
    Rows,
    SpaceBody,
    Value,
    read_certificate,
    read_genesis,
    revocation_in,
)
from outlast.rooms.carry import file_view, group_view, places, upload_view
from outlast.rooms.carry.entries import (
    DEVICE,
    FILE,
    HEARD,
    HIDE,
    POST,
    POST_LIFE_MS,
    SHARED,
    TEXT,
    clean,
    is_blank,
    read_file,
    read_shared,
    shown_until,
)
from outlast.rooms.carry.words import Index

MESSAGE: Final = file_view.LETTERS
FOLLOW: Final = "local_carry_follow"
OF_LETTERS: Final = (MESSAGE, file_view.FILE)
"""Tables with rows of letters, by the column ``letter``."""
PASSING: Final = {
    MESSAGE: "until_ms IS NOT NULL",
    file_view.FILE: f"state = {file_view.ENDED} OR letter IN (SELECT letter FROM {MESSAGE} WHERE until_ms IS NOT NULL"
    f" UNION ALL SELECT id FROM {group_view.SAID} WHERE until_ms IS NOT NULL)",
    group_view.SAID: "until_ms IS NOT NULL",
}
"""What disappears is in no backup."""
HIDDEN_KEPT_MS: Final = 3 * DAY_MS
"""How long after its removal a post's payload stays on this node."""
UNREAD_MAX: Final = 200
"""Unread posts are counted up to here: a channel may hold any number."""
LETTERS: Final = Index(MESSAGE, "local_carry_search")
"""Where words are looked for in letters."""

_CHANNEL: Final = "view_carry_channel"
_SIGNER: Final = "view_carry_signer"
_DEVICE: Final = "view_carry_device"
_POST: Final = "view_carry_post"
_SHARED: Final = "view_carry_shared"
_HIDE: Final = "view_carry_hide"
_FORK: Final = "view_carry_fork"
_REVOKED: Final = "view_carry_revoked"
_INT64_MAX: Final = 2**63 - 1
_GONE: Final = (Event.EXPIRED, Event.PAYLOAD_DROPPED)
"""After these an entry says nothing: also what ends or certifies others may have been ended by a tombstone."""

# The identity for which a device said something in a channel, NULL when no signer of its genesis certified it, or when
# that identity had ended the device before. Of two that certified it one counts, the same everywhere.
_FOR_WHOM = (
    "(SELECT d.identity FROM view_carry_device d JOIN view_carry_signer s"
    " ON s.space = d.space AND s.identity = d.identity WHERE d.space = {0}.space AND d.device = {0}.device"
    " AND NOT EXISTS (SELECT 1 FROM view_carry_revoked r WHERE r.space = {0}.space AND r.device = {0}.device"
    " AND r.identity = d.identity AND {1}) ORDER BY d.identity LIMIT 1)"
)
# The kernel's ``is_ended``, in SQL; a seq has 8 bytes, big-endian.
_AUTHOR = _FOR_WHOM.format(
    "{0}", "({0}.seq = zeroblob(8) OR {0}.seq > r.seq OR ({0}.seq = r.seq AND {0}.id <> r.last))"
)
# Where a device was ended its identity has said which branch counts.
_FORKED_FOR = _FOR_WHOM.format("f", "f.seq >= r.seq")

VIEWS: Final = (
    f"CREATE TABLE {_CHANNEL} (space BLOB PRIMARY KEY, name TEXT, owner BLOB, writers TEXT, made_ms INTEGER)",
    f"CREATE TABLE {_SIGNER} (space BLOB, identity BLOB, PRIMARY KEY (space, identity)) WITHOUT ROWID",
    f"CREATE TABLE {_DEVICE} (id BLOB PRIMARY KEY, space BLOB, device BLOB, identity BLOB, until_ms INTEGER)",
    f"CREATE INDEX view_carry_device_space ON {_DEVICE} (space, device)",
    f"CREATE TABLE {_REVOKED} (id BLOB PRIMARY KEY, space BLOB, device BLOB, identity BLOB, seq BLOB, last BLOB)",
    f"CREATE INDEX view_carry_revoked_space ON {_REVOKED} (space, device)",
    f"CREATE TABLE {_POST} (id BLOB PRIMARY KEY, space BLOB, device BLOB, seq BLOB, clock INTEGER, ts_ms INTEGER,"
    " until_ms INTEGER, n INTEGER, text TEXT, reply_to BLOB)",
    f"CREATE INDEX view_carry_post_order ON {_POST} (space, clock, ts_ms, id)",
    f"CREATE INDEX view_carry_post_arrival ON {_POST} (space, n)",
    f"CREATE INDEX view_carry_post_device ON {_POST} (space, device, n)",
    f"CREATE INDEX view_carry_post_until ON {_POST} (until_ms)",
    f"CREATE TABLE {_SHARED} (id BLOB PRIMARY KEY, type TEXT, size_bytes INTEGER, content BLOB, preview BLOB)",
    f"CREATE TABLE {_HIDE} (id BLOB PRIMARY KEY, space BLOB, device BLOB, seq BLOB, post BLOB, ts_ms INTEGER)",
    f"CREATE INDEX view_carry_hide_post ON {_HIDE} (post)",
    f"CREATE TABLE {_FORK} (id BLOB PRIMARY KEY, space BLOB, device BLOB, seq BLOB)",
    "CREATE VIEW view_carry_said AS SELECT p.*, " + _AUTHOR.format("p") + " AS author,"
    f" (SELECT min(h.ts_ms) FROM {_HIDE} h WHERE h.post = p.id AND h.space = p.space"
    f" AND ({_AUTHOR.format('h')} IS NOT NULL OR (h.device = p.device AND {_AUTHOR.format('p')} IS NULL))) AS hidden_ms"
    f" FROM {_POST} p",
    f"CREATE VIEW view_carry_shown AS SELECT t.* FROM view_carry_said t JOIN {_CHANNEL} c ON c.space = t.space"
    " WHERE t.hidden_ms IS NULL AND (c.writers = 'anyone' OR t.author IS NOT NULL)",
)

MIGRATIONS: Final = (
    f"CREATE TABLE {MESSAGE} (n INTEGER PRIMARY KEY, letter BLOB UNIQUE, peer BLOB, outgoing INTEGER, text TEXT,"
    " reply_to BLOB, at_ms INTEGER, received_ms INTEGER, read_ms INTEGER)",
    f"CREATE INDEX local_carry_message_peer ON {MESSAGE} (peer, at_ms, n)",
    f"CREATE INDEX local_carry_message_time ON {MESSAGE} (outgoing, at_ms, n)",
    f"CREATE INDEX local_carry_message_unread ON {MESSAGE} (peer) WHERE outgoing = 0 AND read_ms IS NULL",
    *LETTERS.migrations,
    f"CREATE TABLE {FOLLOW} (space BLOB PRIMARY KEY, name TEXT, added_ms INTEGER, read_n INTEGER DEFAULT 0)",
    f"ALTER TABLE {MESSAGE} ADD COLUMN device BLOB",
    *file_view.MIGRATIONS,
    *group_view.MIGRATIONS,
    *places.MIGRATIONS,
    # A letter is not shown from until_ms on. One that was removed has back_ms too: what until_ms was (0: nothing).
    f"ALTER TABLE {MESSAGE} ADD COLUMN until_ms INTEGER",
    f"ALTER TABLE {MESSAGE} ADD COLUMN back_ms INTEGER",
    f"CREATE INDEX local_carry_message_until ON {MESSAGE} (until_ms) WHERE until_ms IS NOT NULL",
    *upload_view.MIGRATIONS,
    *group_view.LIVES,
    *group_view.CLAIMS,
    # With all that decides whether a letter is shown, so that counting those that wait touches none of them.
    "DROP INDEX local_carry_message_unread",
    f"CREATE INDEX local_carry_message_waiting ON {MESSAGE} (peer, outgoing, read_ms, until_ms, back_ms)"
    " WHERE outgoing = 0 AND read_ms IS NULL",
)


# ---- what changes say ----


def fold(change: Change, _rows: Rows) -> RowChanges:
    """The rows of the public view that a change of the store brings or takes."""
    entry = change.entry
    if change.event is Event.FORKED:  # of whichever kind the branch is that came later
        return [Put(_FORK, _said(entry))]
    reading = _READINGS.get(entry.header.kind)
    rows = reading(change) if reading else ()
    return [*rows, Delete(_FORK, {"id": entry.id})] if change.event is Event.EXPIRED and entry.header.seq else rows


def receive(letter: Letter, rows: Rows) -> RowChanges:
    """The rows of a letter that came in; none when it is malformed, shows nothing, or takes the id of another."""
    if letter.kind == FILE.name:
        return _receive_file(letter, rows)
    if letter.kind == HEARD.name:
        return group_view.receive_heard(letter, rows)
    try:
        body = TEXT.decode(letter.body)
    except ProtocolError:
        return ()
    text = clean(body.text)
    if letter.kind != TEXT.name or is_blank(text):
        return ()
    return [_letter_row(letter, text, body.reply_to)] if _is_new(letter, rows) else ()


def _receive_file(letter: Letter, rows: Rows) -> RowChanges:
    file = read_file(letter.body)
    if file is None or not _is_new(letter, rows):
        return ()
    message = _letter_row(letter, file.name, None)
    return [message, file_view.file_row(letter.id, letter.sender, file, _written_ms(letter), outgoing=False)]


def _is_new(letter: Letter, rows: Rows) -> bool:
    """Whether to keep a letter: its time is not over already, and it takes the id of no other."""
    if letter.is_over:
        return False
    # The sender chooses the id, and knows those of the letters that they got from here.
    return not rows.query(f"SELECT 1 FROM {MESSAGE} WHERE letter = ?", (letter.id,))


def _written_ms(letter: Letter) -> int:
    return min(letter.sent_ms, letter.received_ms)


def _letter_row(letter: Letter, text: str, reply_to: bytes | None) -> Put:
    at_ms, came_ms = _written_ms(letter), letter.received_ms
    return message_row(letter.id, letter.sender, text, reply_to, at_ms, came_ms, letter.device, life_ms=letter.life_ms)


def message_row(
    letter: bytes,
    peer: bytes,
    text: str,
    reply_to: bytes | None,
    at_ms: int,
    received_ms: int | None,
    device: bytes | None = None,
    *,
    life_ms: int = 0,
) -> Put:
    """A letter's row; without ``received_ms``, and the ``device`` that sent it, it is one that the person wrote.

    It is shown for ``life_ms`` from when it was written; 0: until it is removed.
    """
    row: dict[str, Value] = {
        "n": None,
        "letter": letter,
        "peer": peer,
        "outgoing": int(received_ms is None),
        "text": text,
        "reply_to": reply_to,
        "at_ms": at_ms,
        "received_ms": received_ms,
        "device": device,
        "until_ms": at_ms + life_ms if life_ms else None,
    }
    return Put(MESSAGE, row)


def _read_genesis(change: Change) -> RowChanges:
    entry = change.entry
    if change.event in _GONE:
        where: dict[str, Value] = {"space": entry.id}
        return [Delete(_CHANNEL, where), Delete(_SIGNER, where), Delete(_DEVICE, {"id": entry.id})]
    if entry.payload is None:
        return ()
    try:
        body: SpaceBody = read_genesis(entry)
        if body.type != "open":
            return ()  # groups are no channels
        owner = read_certificate(body.owner)
    except ProtocolError:
        return ()
    space = entry.id
    channel: dict[str, Value] = {
        "space": space,
        "name": body.name,
        "owner": owner.identity,
        "writers": body.writers,
        "made_ms": entry.header.ts_ms,
    }
    device: dict[str, Value] = {
        "id": space,
        "space": space,
        "device": owner.device,
        "identity": owner.identity,
        "until_ms": _INT64_MAX,
    }
    named = dict.fromkeys((owner.identity, *body.signers))
    signers = [Put(_SIGNER, {"space": space, "identity": signer}) for signer in named]
    return [Put(_CHANNEL, channel), Put(_DEVICE, device), *signers]


def _read_post(change: Change) -> RowChanges:
    body = _body(change.entry)
    return _posted(change, clean(body.text), body.reply_to, body.life_ms) if body else _posted(change, "")


def _read_shared(change: Change) -> RowChanges:
    payload, id = change.entry.payload, change.entry.id
    file = read_shared(payload) if payload is not None and change.entry.header.version == 1 else None
    post = _posted(change, file.name, None, file.life_ms) if file else _posted(change, "")
    if change.event in _GONE:
        return [*post, Delete(_SHARED, {"id": id})]
    if file is None:
        return post
    row: dict[str, Value] = {name: getattr(file, name) for name in ("type", "size_bytes", "content", "preview")}
    return [*post, Put(_SHARED, {"id": id} | row)]


def _posted(change: Change, text: str, reply_to: bytes | None = None, life_ms: int = 0) -> RowChanges:
    """The rows of a post of that text; none that shows nothing is kept."""
    entry = change.entry
    if change.event in _GONE:
        return [Delete(_POST, {"id": entry.id})]
    if is_blank(text):
        return ()
    header = entry.header
    latest_ms = shown_until(header.ts_ms, life_ms) or header.ts_ms + POST_LIFE_MS
    row = _said(entry) | {
        "clock": min(header.clock, CLOCK_MAX),
        "ts_ms": header.ts_ms,
        "until_ms": min(header.expires_day * DAY_MS, latest_ms),
        "n": change.cursor,
        "text": text,
        "reply_to": reply_to,
    }
    return [Put(_POST, row)]


def _read_hide(change: Change) -> RowChanges:
    entry = change.entry
    if change.event in _GONE:
        return [Delete(_HIDE, {"id": entry.id})]
    body = _body(entry)
    return [Put(_HIDE, _said(entry) | {"post": body.post, "ts_ms": entry.header.ts_ms})] if body else ()


def _read_device(change: Change) -> RowChanges:
    entry = change.entry
    if change.event in _GONE:
        return [Delete(_DEVICE, {"id": entry.id})]
    body = _body(entry)
    try:
        device = read_certificate(body.certificate) if body else None
    except ProtocolError:
        return ()
    if device is None:
        return ()
    row: dict[str, Value] = {
        "device": device.device,
        "identity": device.identity,
        "until_ms": entry.header.expires_day * DAY_MS,
    }
    return [Put(_DEVICE, _place(entry) | row)]


def _read_revoke(change: Change) -> RowChanges:
    entry = change.entry
    if change.event in _GONE:
        return [Delete(_REVOKED, {"id": entry.id})]
    found = revocation_in(entry)
    if found is None:
        return ()
    row: dict[str, Value] = {
        "id": entry.id,
        "space": found.space,
        "device": found.device,
        "identity": found.identity,
        "seq": _seq(found.seq),
        "last": found.last,
    }
    return [Put(_REVOKED, row)]


_READINGS: Final[dict[str, Callable[[Change], RowChanges]]] = {
    GENESIS.name: _read_genesis,
    POST.name: _read_post,
    SHARED.name: _read_shared,
    HIDE.name: _read_hide,
    DEVICE.name: _read_device,
    REVOKE.name: _read_revoke,
}
_KINDS: Final = {kind.name: kind for kind in (POST, HIDE, DEVICE)}


def _body(entry: Entry) -> Any:
    """The body of an entry whose payload is at hand; None when it is not, or says nothing that this version knows."""
    if entry.payload is None or entry.header.version != 1:
        return None
    try:
        return _KINDS[entry.header.kind].decode(entry.payload)
    except ProtocolError:
        return None


def _place(entry: Entry) -> dict[str, Value]:
    return {"id": entry.id, "space": entry.header.space, "device": entry.header.author}


def _said(entry: Entry) -> dict[str, Value]:
    return _place(entry) | {"seq": _seq(entry.header.seq)}


def _seq(seq: int) -> bytes:
    return seq.to_bytes(8, "big")


# ---- questions to the store ----


@dataclass(frozen=True, slots=True)
class ChannelHead:
    """What a channel's genesis says; ``forked`` when its owner's devices signed two things where there can be one."""

    space: bytes  # 32 B
    name: str
    owner: bytes  # 32 B, identity
    writers: str  # "owner" or "anyone"
    forked: bool


@dataclass(frozen=True, slots=True)
class ChannelPost:
    """A post as shown. ``author`` is None when nobody whom the channel names stands for the device that signed it."""

    id: bytes  # 32 B
    space: bytes  # 32 B
    author: bytes | None  # 32 B, identity
    device: bytes  # 32 B
    at_ms: int
    text: str
    reply_to: bytes | None
    n: int  # grows in the order of arrival on this node
    until_ms: int


_POST_COLUMNS: Final = "id, space, author, device, ts_ms, text, reply_to, n, until_ms"


def channel_head(store: Rows, space: bytes) -> ChannelHead | None:
    """The channel of that id, or None while its genesis is not here."""
    rows = store.query(
        "SELECT space, name, owner, writers,"
        f" EXISTS (SELECT 1 FROM {_FORK} f WHERE f.space = c.space AND {_FORKED_FOR} IS NOT NULL)"
        f" FROM {_CHANNEL} c WHERE space = ?",
        (space,),
    )
    if not rows:
        return None
    space, name, owner, writers, forked = rows[0]
    return ChannelHead(space, name, owner, writers, bool(forked))


def author_of(store: Rows, space: bytes, device: bytes, until_ms: int) -> bytes | None:
    """The identity for which a device speaks in a channel until that time, or None."""
    rows = store.query(
        f"SELECT d.identity FROM {_DEVICE} d JOIN {_SIGNER} s ON s.space = d.space AND s.identity = d.identity"
        " WHERE d.space = ? AND d.device = ? AND d.until_ms >= ? ORDER BY d.identity",
        (space, device, until_ms),
    )
    return rows[0][0] if rows else None


def is_signer(store: Rows, space: bytes, identity: bytes) -> bool:
    """Whether the channel's genesis names this identity."""
    return bool(store.query(f"SELECT 1 FROM {_SIGNER} WHERE space = ? AND identity = ?", (space, identity)))


def signers(store: Rows, space: bytes) -> list[bytes]:
    """The identities that the channel's genesis names, the owner's among them."""
    return [bytes(row[0]) for row in store.query(f"SELECT identity FROM {_SIGNER} WHERE space = ?", (space,))]


def posts(store: Rows, space: bytes, now_ms: int, *, before: bytes | None = None, limit: int = -1) -> list[ChannelPost]:
    """The newest posts shown in a channel, oldest first; only those before the post ``before``, at most ``limit``."""
    older = ""
    args: list[Value] = [space, now_ms]
    if before is not None:
        older = f" AND (clock, ts_ms, id) < (SELECT clock, ts_ms, id FROM {_POST} WHERE id = ?)"
        args.append(before)
    rows = store.query(
        f"SELECT {_POST_COLUMNS} FROM view_carry_shown WHERE space = ? AND until_ms > ?{older}"
        " ORDER BY clock DESC, ts_ms DESC, id DESC LIMIT ?",
        (*args, limit),
    )
    return [ChannelPost(*row) for row in reversed(rows)]


def newest_clock(store: Rows, space: bytes) -> int:
    """The Lamport time of the last post that counts in a channel; 0 when there is none."""
    rows = store.query(
        "SELECT clock FROM view_carry_shown WHERE space = ? ORDER BY clock DESC, ts_ms DESC, id DESC LIMIT 1", (space,)
    )
    return int(rows[0][0]) if rows else 0


def find_post(store: Rows, id: bytes, now_ms: int) -> ChannelPost | None:
    """The post of that id, if it is shown."""
    rows = store.query(f"SELECT {_POST_COLUMNS} FROM view_carry_shown WHERE id = ? AND until_ms > ?", (id, now_ms))
    return ChannelPost(*rows[0]) if rows else None


# Of a channel of signers only their posts are looked at: others can leave any number there. Where anyone may write, all
# that came last counts.
_UNREAD: Final = {
    "owner": f"n > ?2 AND device IN (SELECT d.device FROM {_DEVICE} d JOIN {_SIGNER} s ON s.space = d.space"
    " AND s.identity = d.identity WHERE d.space = ?1 AND d.device <> ?3 AND d.identity <> ?4)",
    "anyone": "device <> ?3 AND author IS NOT ?4 AND n >= (SELECT min(n) FROM"
    f" (SELECT n FROM {_POST} WHERE space = ?1 AND n > ?2 ORDER BY n DESC LIMIT ?6))",
}


def unread_posts(
    store: Rows, head: ChannelHead | None, read_n: int, device: bytes, identity: bytes, now_ms: int
) -> int:
    """How many posts by others arrived in a channel after number ``read_n``; counted up to ``UNREAD_MAX``.

    ``device`` and ``identity`` (32 B each) are the reader's; what their earlier devices said is theirs, too.
    """
    if head is None:
        return 0
    rows = store.query(
        "SELECT count(*) FROM (SELECT 1 FROM view_carry_shown WHERE space = ?1 AND until_ms > ?5"
        f" AND {_UNREAD[head.writers]} LIMIT ?6)",
        (head.space, read_n, device, identity, now_ms, UNREAD_MAX),
    )
    return int(rows[0][0])


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file in a channel, as a post that is shown names it."""

    id: bytes  # 32 B, of the post
    space: bytes  # 32 B
    author: bytes | None  # 32 B, identity
    device: bytes  # 32 B
    at_ms: int
    until_ms: int
    name: str
    type: str
    size_bytes: int
    content: bytes  # 32 B, id of the entry whose content it is
    preview: bytes


_SHARED_FILES: Final = (
    "SELECT p.id, p.space, p.author, p.device, p.ts_ms, p.until_ms, p.text, f.type, f.size_bytes, f.content, f.preview"
    f" FROM {_SHARED} f CROSS JOIN view_carry_shown p ON p.id = f.id WHERE p.until_ms > ?"
)


def shared_files(store: Rows, space: bytes, now_ms: int) -> list[SharedFile]:
    """The files that posts of a channel name, oldest first."""
    rows = store.query(f"{_SHARED_FILES} AND p.space = ? ORDER BY p.ts_ms, p.id", (now_ms, space))
    return [SharedFile(*row) for row in rows]


def find_shared(store: Rows, post: bytes, now_ms: int) -> SharedFile | None:
    """The file that a post names, if that is shown."""
    rows = store.query(f"{_SHARED_FILES} AND f.id = ?", (now_ms, post))
    return SharedFile(*rows[0]) if rows else None


class Due(NamedTuple):
    """A post whose payload is to go, with the content that it names."""

    post: bytes  # 32 B
    space: bytes  # 32 B
    device: bytes  # 32 B
    content: bytes | None  # 32 B


def due_to_drop(store: Rows, now_ms: int) -> list[Due]:
    """Posts that were removed so long ago that their payloads are to go, or have disappeared."""
    found = f"SELECT p.id, p.space, p.device, f.content FROM {{}} p LEFT JOIN {_SHARED} f ON f.id = p.id WHERE"
    # UNION ALL: to leave out what is in both, SQLite would go through all posts in the order of their ids.
    rows = store.query(
        f"{found.format('view_carry_said')} p.id IN (SELECT post FROM {_HIDE}) AND p.hidden_ms < ?"
        f" UNION ALL {found.format(_POST)} p.until_ms <= ?",
        (now_ms - HIDDEN_KEPT_MS, now_ms),
    )
    return list(dict.fromkeys(Due(*row) for row in rows))


# ---- questions to a vault ----


@dataclass(frozen=True, slots=True)
class Message:
    """A letter in a person's vault. ``received_ms`` is None for those that the person wrote."""

    n: int  # grows in the order of arrival in this vault
    letter: bytes  # 16 B
    peer: bytes  # 32 B, identity
    outgoing: bool
    text: str
    reply_to: bytes | None
    at_ms: int  # when it was written, by the writer's clock, and never later than it came
    received_ms: int | None
    read_ms: int | None
    device: bytes | None  # 32 B, that sent it; None for those that the person wrote
    until_ms: int | None  # from then on it is not shown any more; None when it stays

    @property
    def unread(self) -> bool:
        """Whether it came and was not read yet."""
        return not self.outgoing and self.read_ms is None


@dataclass(frozen=True, slots=True)
class Conversation:
    """All letters with one person: the last one, and how many wait to be read."""

    peer: bytes
    last: Message
    unread: int


@dataclass(frozen=True, slots=True)
class Follow:
    """A channel that the person follows: the name it was followed under, and up to where it was read."""

    space: bytes
    name: str
    added_ms: int
    read_n: int


_MESSAGE_COLUMNS: Final = "n, letter, peer, outgoing, text, reply_to, at_ms, received_ms, read_ms, device, until_ms"
_SHOWN: Final = "({0}until_ms IS NULL OR ({0}until_ms > ? AND {0}back_ms IS NULL))"
"""Whether a letter is shown at a time: it has not disappeared, and was not removed."""


def messages(vault: Rows, now_ms: int, *, outgoing: bool, limit: int = -1) -> list[Message]:
    """The newest letters that came in, or that were sent, and are shown at that time; oldest first."""
    rows = vault.query(
        f"SELECT {_MESSAGE_COLUMNS} FROM {MESSAGE} WHERE outgoing = ? AND {_SHOWN.format('')}"
        " ORDER BY at_ms DESC, n DESC LIMIT ?",
        (int(outgoing), now_ms, limit),
    )
    return [_message(row) for row in reversed(rows)]


def find_message(vault: Rows, letter: bytes, now_ms: int) -> Message | None:
    """The letter of that id, if it is shown at that time."""
    rows = vault.query(
        f"SELECT {_MESSAGE_COLUMNS} FROM {MESSAGE} WHERE letter = ? AND {_SHOWN.format('')}", (letter, now_ms)
    )
    return _message(rows[0]) if rows else None


def conversation(
    vault: Rows, peer: bytes, now_ms: int, *, before: bytes | None = None, limit: int = -1
) -> list[Message]:
    """The newest letters from and to one person, oldest first; only those before the letter ``before``."""
    older = ""
    args: list[Value] = [peer, now_ms]
    if before is not None:
        older = f" AND (at_ms, n) < (SELECT at_ms, n FROM {MESSAGE} WHERE letter = ?)"
        args.append(before)
    rows = vault.query(
        f"SELECT {_MESSAGE_COLUMNS} FROM {MESSAGE} WHERE peer = ? AND {_SHOWN.format('')}{older}"
        " ORDER BY at_ms DESC, n DESC LIMIT ?",
        (*args, limit),
    )
    return [_message(row) for row in reversed(rows)]


def conversations(vault: Rows, now_ms: int) -> list[Conversation]:
    """Everybody with whom there are letters, the latest first."""
    rows = vault.query(
        f"WITH RECURSIVE peers(peer) AS (SELECT min(peer) FROM {MESSAGE} UNION ALL"
        f" SELECT (SELECT min(m.peer) FROM {MESSAGE} m WHERE m.peer > peers.peer) FROM peers WHERE peer IS NOT NULL)"
        f" SELECT {_MESSAGE_COLUMNS}, (SELECT count(*) FROM {MESSAGE} u WHERE u.peer = m.peer AND u.outgoing = 0"
        f" AND u.read_ms IS NULL AND {_SHOWN.format('u.')}) FROM {MESSAGE} m WHERE n IN (SELECT (SELECT l.n"
        f" FROM {MESSAGE} l WHERE l.peer = peers.peer AND {_SHOWN.format('l.')}"
        " ORDER BY l.at_ms DESC, l.n DESC LIMIT 1) FROM peers) ORDER BY at_ms DESC, n DESC",
        (now_ms, now_ms),
    )
    return [Conversation(row[2], _message(row[:-1]), row[-1]) for row in rows]


def unread(vault: Rows, now_ms: int) -> dict[bytes, int]:
    """How many letters wait to be read, by who wrote them (32 B); whoever has sent a flood is counted as fast."""
    return dict(
        vault.query(
            f"SELECT peer, count(*) FROM {MESSAGE} INDEXED BY local_carry_message_waiting WHERE outgoing = 0"
            f" AND read_ms IS NULL AND {_SHOWN.format('')} GROUP BY peer",
            (now_ms,),
        )
    )


def search(vault: Rows, words: Sequence[str], now_ms: int) -> list[Message]:
    """The letters that hold all of these words, in whatever case, also inside of longer ones; the newest first."""
    columns = f"text, {_MESSAGE_COLUMNS}"
    return LETTERS.find(vault, columns, lambda row: _message(row[1:]), words, (_SHOWN.format(""), now_ms))


def follows(vault: Rows) -> list[Follow]:
    """The channels that the person follows, the newest first."""
    return [
        Follow(*row)
        for row in vault.query(f"SELECT space, name, added_ms, read_n FROM {FOLLOW} ORDER BY added_ms DESC, space")
    ]


def _message(row: Sequence[Any]) -> Message:
    n, letter, peer, outgoing, *rest = row
    return Message(n, letter, peer, bool(outgoing), *rest)
