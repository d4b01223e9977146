"""This side of negentropy V1 against the vectors and, where there is one, the reference itself.

With OUTLAST_NEGENTROPY naming a checkout of the reference, its JavaScript harness under node is the
peer in both roles, more sessions are made up, and every byte is compared. Without it the frozen
messages of vectors/negentropy.json (once checked with the reference) and the harness beside this
file stand in its place.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from outlast.kernel.setrec import Initiator, Responder, SetrecError, SetView

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "vectors" / "negentropy.json").read_text())
REFERENCE = os.environ.get("OUTLAST_NEGENTROPY")
OURS = [sys.executable, str(ROOT / "tests" / "peers" / "negentropy_harness.py")]
PEER = ["node", f"{REFERENCE}/test/js/harness.js"] if REFERENCE else OURS
Item = tuple[int, bytes]


@dataclass(frozen=True)
class Session:
    """Two sets and the limits under which they are reconciled; ``vector`` is None if made up."""

    name: str
    spec: dict[str, Any]
    vector: dict[str, Any] | None = None

    def items(self, side: str) -> list[Item]:
        """The set of ``client`` or ``server``, by the rule that the vectors' file states."""
        held: set[int] = set()
        for start, stop, step in self.spec[side]["holds"]:
            held.update(range(start, stop, step))
        for start, stop, step in self.spec[side].get("lacks", []):
            held.difference_update(range(start, stop, step))
        first, step_size = self.spec["first_timestamp"], self.spec["timestamp_step"]
        return [
            (
                first + i // self.spec["items_per_timestamp"] * step_size,
                sha256(b"outlast/vector/negentropy/%d" % i).digest(),
            )
            for i in sorted(held)
        ]

    def limit(self, side: str) -> int:
        """The frame limit of ``client`` or ``server`` in bytes; 0 is none."""
        return int(self.spec[side].get("frame_size_limit", 0))

    @cached_property
    def differences(self) -> tuple[set[bytes], set[bytes]]:
        """The ids that only the client and those that only the server holds."""
        client, server = ({i for _, i in self.items(side)} for side in ("client", "server"))
        return client - server, server - client

    @property
    def peer(self) -> list[str]:
        """The command of the peer that can take this session's numbers."""
        both = self.items("client") + self.items("server")
        return PEER if fits_the_reference(both) else OURS


def fits_the_reference(items: list[Item]) -> bool:
    """Its numbers have 32 bits and are read as signed ones; a timestamp goes out as itself + 1."""
    return all(ts + 1 < 2**31 for ts, _ in items)


def slices(random: Random, count: int) -> list[list[int]]:
    start, stop = sorted((random.randrange(count + 1), random.randrange(count + 1)))
    step = random.choice((1, 2, 3, 10, 100))
    return [[0, count, random.choice((7, 50, 400, 2000))], [start, min(stop, start + 900), step]]


def made_up(seed: int) -> Session:
    """A session that the vectors do not have."""
    random = Random(seed)
    count = random.choice((random.randrange(200), random.randrange(6_000)))
    sides = {
        side: {
            "holds": [[0, count, 1]],
            "lacks": slices(random, count) if random.random() < 0.8 else [],
            "frame_size_limit": random.choice((0, 4096, random.randrange(4096, 20_000))),
        }
        for side in ("client", "server")
    }
    stamps = {"first_timestamp": 1_700_000_000, "timestamp_step": random.choice((0, 1, 300))}
    return Session(f"made up {seed}", {**stamps, "items_per_timestamp": 3, **sides})


FROZEN = [Session(vector["name"], vector, vector) for vector in VECTORS["sessions"]]
SESSIONS = [*FROZEN, *(made_up(seed) for seed in range(40) if REFERENCE)]


def summary(message: bytes) -> dict[str, Any]:
    """How the vectors' file states a message: whole, or by length and digest when it is long."""
    if len(message) <= 1024:
        return {"hex": message.hex()}
    return {"bytes": len(message), "sha256": sha256(message).hexdigest()}


class Peer:
    """A harness that speaks the line protocol of the reference's test scripts."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, line: str) -> tuple[bytes | None, list[bytes], list[bytes]]:
        """The message (None when it is done), the haves and the needs that answer ``line``."""
        have: list[bytes] = []
        need: list[bytes] = []
        self.tell(line)
        assert self._process.stdout is not None
        for answer in self._process.stdout:
            match answer.strip().split(","):
                case ["have", item_id]:
                    have.append(bytes.fromhex(item_id))
                case ["need", item_id]:
                    need.append(bytes.fromhex(item_id))
                case ["msg", message]:
                    return bytes.fromhex(message), have, need
                case ["done"]:
                    return None, have, need
                case _:
                    pytest.fail(f"the peer said {answer!r}")
        pytest.fail("the peer ended")

    def tell(self, line: str) -> None:
        """Send lines that have no answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


@contextmanager
def harness(command: list[str], items: list[Item], frame_size_limit: int = 0) -> Iterator[Peer]:
    """A peer that holds ``items``."""
    environment = os.environ | {
        "FRAMESIZELIMIT": str(frame_size_limit),
        "PYTHONPATH": str(ROOT / "src"),
    }
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        try:
            it = Peer(process)
            it.tell("\n".join([*(f"item,{ts},{i.hex()}" for ts, i in items), "seal"]))
            yield it
        finally:
            process.kill()


def peer(session: Session, side: str, command: list[str]) -> AbstractContextManager[Peer]:
    """A peer in the role of ``side``."""
    return harness(command, session.items(side), session.limit(side))


Outcome = tuple[list[bytes], set[bytes], set[bytes]]


def between(client: Initiator | Peer, server: Responder | Peer) -> Outcome:
    """All messages of a session, and what its client was told as have and need."""
    have: set[bytes] = set()
    need: set[bytes] = set()
    message: bytes | None
    message = client.initiate() if isinstance(client, Initiator) else client.ask("initiate")[0]
    messages: list[bytes] = []
    while message is not None:
        if isinstance(server, Responder):
            answer = server.step(message)
        else:
            said = server.ask(f"msg,{message.hex()}")[0]
            assert said is not None, "a server is never done"
            answer = said
        messages += (message, answer)
        if isinstance(client, Initiator):
            step = client.step(answer)
            message, only_here, only_there = step.reply, step.have, step.need
        else:
            message, only_here, only_there = client.ask(f"msg,{answer.hex()}")
        have.update(only_here)
        need.update(only_there)
    return messages, have, need


def client_of(session: Session, **how: Any) -> Initiator:
    view = SetView.from_items(session.items("client"))
    return Initiator(view, frame_size_limit=session.limit("client"), **how)


def server_of(session: Session, **how: Any) -> Responder:
    view = SetView.from_items(session.items("server"))
    return Responder(view, frame_size_limit=session.limit("server"), **how)


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_aligned_messages_equal_the_peers_byte_for_byte(session: Session) -> None:
    messages, have, need = between(client_of(session, aligned=True), server_of(session, aligned=True))
    if session.vector is not None:
        assert [summary(message) for message in messages] == session.vector["messages"]
        lost = session.vector.get("differences_lost_by_aligned_peers", 0)
        assert sum(map(len, session.differences)) == len(have) + len(need) + lost
    with (
        peer(session, "client", session.peer) as client,
        peer(session, "server", session.peer) as server,
    ):
        assert between(client, server) == (messages, have, need)


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_random_cuts_find_exactly_the_differences(session: Session) -> None:
    for seed in range(3):
        client = client_of(session, seed=bytes((seed,)) * 32)
        assert between(client, server_of(session))[1:] == session.differences


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_as_client_of_an_aligned_peer_we_find_exactly_the_differences(session: Session) -> None:
    with peer(session, "server", session.peer) as server:
        outcome = between(client_of(session, seed=b"s" * 32), server)
    assert outcome[1:] == session.differences


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_as_server_of_an_aligned_peer_we_hide_no_difference(session: Session) -> None:
    with peer(session, "client", session.peer) as client:
        outcome = between(client, server_of(session))
    assert outcome[1:] == session.differences


def test_our_harness_cuts_at_random_ranks_when_told_to() -> None:
    session = FROZEN[-1]
    first: set[bytes | None] = set()
    for _ in range(2):
        with peer(session, "client", [*OURS, "--random"]) as client:
            messages, *outcome = between(client, server_of(session))
        first.add(messages[0])
        assert tuple(outcome) == session.differences
    assert len(first) == 2


@pytest.mark.parametrize("vector", VECTORS["answers"], ids=lambda vector: vector["name"])
def test_an_answer_is_the_stated_one(vector: dict[str, Any]) -> None:
    items = [(ts, bytes.fromhex(item_id)) for ts, item_id in vector["items"]]
    message, answer = bytes.fromhex(vector["message"]), bytes.fromhex(vector["answer"])
    assert Responder(SetView.from_items(items)).step(message) == answer
    with harness(PEER if fits_the_reference(items) else OURS, items) as server:
        assert server.ask(f"msg,{message.hex()}")[0] == answer


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=lambda vector: vector["name"])
def test_a_malformed_message_is_refused_by_both_roles(vector: dict[str, Any]) -> None:
    message = bytes.fromhex(vector["message"])
    view = SetView.from_items(FROZEN[-1].items("client"))
    with pytest.raises(SetrecError):
        Responder(view).step(message)
    client = Initiator(view, aligned=True)
    client.initiate()
    with pytest.raises(SetrecError):
        client.step(message)


@pytest.mark.parametrize("vector", VECTORS["fingerprints"], ids=lambda vector: vector["name"])
def test_a_fingerprint_is_the_stated_one(vector: dict[str, Any]) -> None:
    ids = [bytes.fromhex(item_id) for item_id in vector["ids"]]
    view = SetView.from_items(enumerate(ids))
    assert view.fingerprint(0, len(ids)).hex() == vector["fingerprint"]
