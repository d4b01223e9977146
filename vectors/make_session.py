"""Writes session.json: python vectors/make_session.py

The names of spaces, one message of each type, and a whole session of two small stores. A change of the file is a change
of the wire, and needs a new version there; only where the initiator cuts its ranges is its own affair.
"""

from __future__ import annotations

import json
from collections import deque
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from outlast.kernel.chunks import Downloads, Splitter
from outlast.kernel.entry import (
    DAY_MS,
    Entry,
    Header,
    expiry_day,
    pack,
    sign_entry,
)
from outlast.kernel.identity import SigningKey
from outlast.kernel.links.channel import session_key
from outlast.kernel.setrec import SetView
from outlast.kernel.steps import (
    Bucket,
    BucketLoaded,
    BucketsLoaded,
    EntriesLoaded,
    Event,
    Fate,
    Ingest,
    Ingested,
    LoadBucket,
    LoadBuckets,
    LoadEntries,
    LoadUrgent,
    MessageArrived,
    Send,
    Started,
    UrgentLoaded,
)
from outlast.kernel.sync import Session
from outlast.kernel.wire import Type, space_mac, urgent_digest

HERE = Path(__file__).parent
NOW_MS = 1_795_305_912_345
TODAY = NOW_MS // DAY_MS


def secret(text: str) -> bytes:
    """32 bytes that stand for chance."""
    return sha256(b"outlast/vectors/1/" + text.encode()).digest()


class Chance:
    """Random bytes of one side: SHA-256 of a text and a number, cut to what is asked."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._numbers = count()

    def __call__(self, size: int) -> bytes:
        return secret(f"{self._text} {next(self._numbers)}")[:size]


CONTENT_BYTES = 150_000
KEY = secret("session key")
SPACES = {"i": [secret("space 1"), secret("space 2")], "r": [secret("space 2"), secret("space 3")]}
COMMON = secret("space 2")
AUTHOR = SigningKey.from_seed(secret("author"))


def post(number: int, life_days: int, size: int, priority: int = 2) -> Entry:
    """An entry of the common space whose body has ``size`` bytes."""
    payload = f"{number} ".encode().ljust(size, b"x")
    ts_ms = NOW_MS + number * 1000
    header = Header(
        version=1,
        space=COMMON,
        kind="vector.post",
        author=AUTHOR.public,
        seq=0,
        prev=None,
        clock=0,
        ts_ms=ts_ms,
        expires_day=expiry_day(ts_ms, life_days * DAY_MS),
        priority=priority,
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
        tags=(),
        stamp_nonce=0,
    )
    return sign_entry(header, AUTHOR, payload)


POSTS = [post(number, 3, 20) for number in range(9)] + [post(9, 3, 2000), post(10, 5, 1024), post(11, 7, 1025)]
POSTS.append(post(12, 3, 40, priority=0))
STORES = {"i": [0, 1, 2, 3, 4, 5, 9, 10], "r": [0, 1, 2, 3, 6, 7, 8, 11, 12]}


class Side:
    """A store in memory that answers a session's commands at once."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.entries = {POSTS[i].id: POSTS[i] for i in STORES[role]}
        self.session = Session(
            initiator=role == "i",
            key=KEY,
            peer=secret("peer of " + role),
            spaces=SPACES[role],
            today=TODAY,
            pruned_day=TODAY - 1,
            rand=Chance("chance of " + role),
            downloads=Downloads(),
        )

    def hear(self, event: Event) -> list[bytes]:
        """The messages that an event and what the store answers make this side send."""
        events, sent = deque([event]), []
        while events:
            for command in self.session.step(events.popleft()):
                match command:
                    case Send(data):
                        sent.append(data)
                    case LoadBuckets():
                        counts: dict[int, int] = {}
                        for entry in self.entries.values():
                            counts[entry.header.expires_day] = counts.get(entry.header.expires_day, 0) + 1
                        events.append(BucketsLoaded([Bucket(COMMON, day, n) for day, n in counts.items()]))
                    case LoadBucket(space, day):
                        items = [(e.header.ts_ms, e.id) for e in self.entries.values() if e.header.expires_day == day]
                        events.append(BucketLoaded(space, day, SetView.from_items(items)))
                    case LoadEntries(ids):
                        events.append(EntriesLoaded([self.entries[one] for one in ids if one in self.entries]))
                    case LoadUrgent():
                        urgent = [one.id for one in self.entries.values() if one.header.priority == 0]
                        events.append(UrgentLoaded({COMMON: urgent}))
                    case Ingest(entries):
                        self.entries.update({entry.id: entry for entry in entries})
                        whole = [entry.payload is not None for entry in entries]
                        events.append(Ingested([Fate.KEPT if one else Fate.WANTS_PAYLOAD for one in whole]))
                    case _:
                        pass
        return sent


def run() -> tuple[dict[str, Side], list[tuple[str, bytes]]]:
    """A whole session: both sides, and all messages in the order in which they arrive."""
    sides = {role: Side(role) for role in "ir"}
    way = deque((role, data) for role in "ir" for data in sides[role].hear(Started()))
    log = []
    while way:
        role, data = way.popleft()
        log.append((role, data))
        other = "r" if role == "i" else "i"
        way.extend((other, answer) for answer in sides[other].hear(MessageArrived(data)))
    return sides, log


def plain(value: Any) -> Any:
    """Bytes as hex, however deep they lie."""
    if isinstance(value, bytes):
        return value.hex()
    return [plain(one) for one in value] if isinstance(value, list) else value


def message(kind: Type, *fields: Any) -> dict[str, Any]:
    """One message, in words and in bytes."""
    shown = [plain(field) for field in fields]
    data = bytes([kind]) + msgspec.msgpack.encode(list(fields))
    return {"name": kind.name, "fields": shown, "bytes": data.hex()}


def main() -> None:
    """Write the file."""
    macs = [
        {
            "initiator": initiator,
            "space": space.hex(),
            "mac": space_mac(KEY, initiator=initiator, space=space).hex(),
        }
        for initiator in (True, False)
        for space in sorted({*SPACES["i"], *SPACES["r"]})
    ]
    ids = [POSTS[0].id, POSTS[1].id]
    messages = [
        message(Type.HELLO, [1], TODAY, sorted(bytes.fromhex(one["mac"]) for one in macs[:3]), 2**20),
        message(Type.HELLO, [1], TODAY, sorted(bytes.fromhex(one["mac"]) for one in macs[3:]), 2**20, 1),
        message(Type.SUMMARY, [[0, TODAY + 4, 8], [0, 0, 1], [1, TODAY + 31, 70_000]]),
        message(Type.RECON, 0, TODAY + 4, bytes.fromhex("61000200")),
        message(Type.RECON, 0, TODAY + 4, b""),
        message(Type.PULL, 0, TODAY + 6),
        message(Type.END, 0, TODAY + 6),
        message(Type.WANT, ids),
        message(Type.LACK, ids[:1]),
        message(Type.WANT_PAYLOAD, ids[1:]),
        message(Type.PAYLOAD, ids[1], 32_768, b"the last bytes of it"),
        message(Type.KEPT, 300, [7, 130], [299]),
        message(Type.CREDIT, 262_200),
        message(Type.DONE),
        message(Type.BYE, 2),
        message(Type.WANT_CHUNKS, ids[0], [0, 1, 2, 7, 2047]),
        message(Type.CHUNK, ids[0], 7, 32_768, b"the second half of it"),
        message(Type.HOLDS, ids[0], [2, 2047], bytes.fromhex("8301")),
        message(Type.WHOLE, ids),
        message(Type.OFFER, ids),
        message(Type.TAKE, ids[:1]),
        message(Type.CONFIRM, [[0, urgent_digest(KEY, COMMON, ids)]]),
        message(Type.URGENT, 0, ids),
    ]
    content = b"".join(secret(f"content {number}") for number in range(CONTENT_BYTES // 32 + 1))[:CONTENT_BYTES]
    splitter = Splitter(CONTENT_BYTES)
    splitter.feed(content)
    _, manifest = splitter.finish()
    assert manifest is not None
    _, log = run()
    noise = json.loads((HERE / "noise.json").read_text(encoding="utf-8"))
    vectors = {
        "about": "Sessions of docs/spec/sync.md. Bytes are in hex. `session_keys`: of the links in noise.json, by their"
        " transcript hash. `spaces`: how each side names a space. `messages`: one of each type but ENTRIES, and a HELLO"
        " without its last element. `content`: its bytes are SHA-256('outlast/vectors/1/content N') for N = 0, 1,"
        " ..., cut to its size; and its manifest. `session`: two stores, given by indexes into `entries` (packed), and"
        " all messages in the order in which they arrive; `i` is the initiator, whose cuts in RECON and random fill of"
        " HELLO are free. What `r` says after its HELLO follows from what it has heard.",
        "session_keys": [
            {"transcript_hash": digest, "key": session_key(bytes.fromhex(digest)).hex()}
            for digest in (one["handshake_hash"] for one in noise["link"]["vectors"])
        ],
        "key": KEY.hex(),
        "spaces": macs,
        "messages": messages,
        "content": {
            "size_bytes": CONTENT_BYTES,
            "sha256": sha256(content).hexdigest(),
            "manifest": manifest.hashes.hex(),
            "payload_hash": sha256(manifest.hashes).hexdigest(),
        },
        "session": {
            "today": TODAY,
            "spaces": {role: [space.hex() for space in SPACES[role]] for role in "ir"},
            "entries": [pack(entry).hex() for entry in POSTS],
            "stores": STORES,
            "log": [[role, data.hex()] for role, data in log],
        },
    }
    text = json.dumps(vectors, indent=1) + "\n"
    (HERE / "session.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
