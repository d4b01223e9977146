"""Probes elsewhere: asking a contact by letter to probe a URL from where they are, and answering those who may ask."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import replace

from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import Node, Person, Update
from outlast.rooms.watch import asked
from outlast.rooms.watch.asked import Wish
from outlast.rooms.watch.entries import ASK, ASK_NUMBER_BYTES, TOLD, TOLD_RAW_MAX_BYTES, Ask, Told, pack_raw
from outlast.rooms.watch.io.consent import has_consented


async def ask(node: Node, person: Person, to: bytes, target: str) -> bytes:
    """Ask a contact (identity, 32 B) to probe a URL; returns the wish's number (16 B) once the letter is durable.

    Raises UsageError for what is no public URL, and what sending a letter raises.
    """
    if not asked.is_target(target):
        raise UsageError(
            "%(target)r is no URL of the public web: a contact is asked for nothing else", target=target[:80]
        )
    number = secrets.token_bytes(ASK_NUMBER_BYTES)
    wish = Wish(number, to, target, node.now_ms(), True, None, "", b"")
    await person.send(to, ASK.name, Ask(number, target), local=lambda _: [asked.row(wish)])
    return number


def answers(person: Person) -> Sequence[Wish]:
    """What the person asked of contacts, answered or not, the newest first."""
    return asked.wishes(person, mine=True)


async def allow(node: Node, person: Person, peer: bytes, *, allowed: bool) -> None:
    """Let a contact have this computer probe what they name, or not any more. Raises UsageError without consent."""
    if allowed and not has_consented(node.home.path):
        raise UsageError("read what measuring can bring upon you, and agree to it, first")
    change = asked.allow_row(peer, node.now_ms(), allowed=allowed)
    await node.write(lambda: person.vault.transaction([change], "watch"))
    node.touch()


async def answer_one(node: Node, person: Person) -> bool:
    """Fulfil the wish that waits longest, if any; whether there was one. It is begun once, whatever becomes of it."""
    from outlast.rooms.watch.io.run import encode, plan, run_list
    from outlast.rooms.watch.proto.web_connectivity import publishable

    if not has_consented(node.home.path) or asked.due(person, node.now_ms()) is None:
        return False
    wish = await node.write(lambda: _take(person, node.now_ms()))
    if wish is None:
        return False
    problem, raw = "", b""
    try:
        made = await asyncio.to_thread(plan, [wish.target])
        # Not their own words: an address that only the person may name stays out of reach.
        async for done in run_list(replace(made, settings=replace(made.settings, typed=False))):
            told = publishable(done)
            for left in ("network_events", "x_quic_initial", "x_sni_handshakes"):
                raw = pack_raw(encode(told))
                if raw and len(raw) <= TOLD_RAW_MAX_BYTES:
                    break
                told = told | {"test_keys": told["test_keys"] | {left: []}}
            else:
                problem, raw = "the measurement is too large for a letter", b""
    except OutlastError as error:
        problem = str(error)[: asked.PROBLEM_MAX_CHARS]
    except OSError:  # this computer has no network, or no more room for connections: a wish ends no node
        problem = "the computer that was asked could not probe"
    # What is over is only counted: nobody who takes this computer need find what was probed, and for whom.
    ended = Update(asked.ASKED, {"number": wish.number}, {"problem": problem, "target": ""})
    with contextlib.suppress(UsageError, NotFoundError):  # they are no contact any more
        await person.send(wish.peer, TOLD.name, Told(wish.number, problem, raw), local=lambda _: [ended])
    return True


def _take(person: Person, now_ms: int) -> Wish | None:
    """The wish that is due, marked as begun; in the one thread that writes, so that nobody begins it again."""
    wish = asked.due(person, now_ms)
    if wish is not None:
        begun = Update(asked.ASKED, {"number": wish.number}, {"done_ms": now_ms, "problem": "begun"})
        person.vault.transaction([begun], "watch")
    return wish
