"""Entries and a toy room for tests of what keeps them; nobody verifies their signatures."""

from __future__ import annotations

from hashlib import sha256

from outlast.kernel.entry import Entry, Header, encode_header, entry_id
from outlast.kernel.room import Change, Delete, Event, Put, Room, RowChanges, Rows
from tests.unit.kernel.people import NOW_MS, secret

SPACE = secret("space")
DAY = 20_800
KEY = secret("key")


def post(
    number: int = 0,
    *,
    payload: bytes | None = b"hello",
    content: bytes | None = None,
    payload_size: int | None = None,
    space: bytes = SPACE,
    day: int = DAY,
    tags: tuple[bytes, ...] = (),
    author: str = "author",
    seq: int = 0,
    ts_ms: int = NOW_MS,
) -> Entry:
    """An entry that differs with `number`; its payload can stay away, be other than `content`, or a manifest."""
    body = content if content is not None else payload or b""
    header = Header(
        version=1,
        space=space,
        kind="test.post",
        author=secret(author),
        seq=seq,
        prev=secret("prev") if seq > 1 else None,
        clock=0,
        ts_ms=ts_ms,
        expires_day=day,
        priority=2,
        payload_hash=sha256(body).digest(),
        payload_size=len(body) if payload_size is None else payload_size,
        tags=tuple(sorted(tags)),
        stamp_nonce=number,
    )
    data = encode_header(header)
    return Entry(header, data, secret("signature", number) * 2, entry_id(data), payload)


def fold_posts(change: Change, rows: Rows) -> RowChanges:
    """Keep a row for each entry that is here, and one for each fork."""
    key = {"id": change.entry.id}
    match change.event:
        case Event.EXPIRED:
            return [Delete("view_toy_post", key)]
        case Event.FORKED:
            return [Put("view_toy_fork", key)]
        case _:
            return [Put("view_toy_post", {**key, "body": change.entry.payload})]


TOY = Room(
    "toy",
    1,
    views=(
        "CREATE TABLE view_toy_post (id BLOB PRIMARY KEY, body BLOB)",
        "CREATE INDEX view_toy_post_body ON view_toy_post (body)",
        "CREATE TABLE view_toy_fork (id BLOB PRIMARY KEY) WITHOUT ROWID",
    ),
    migrations=("CREATE TABLE local_toy_note (id INTEGER PRIMARY KEY, text TEXT NOT NULL, extra)",),
    fold=fold_posts,
)
