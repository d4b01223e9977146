"""Probes that contacts ask of each other: only who may ask is heard, and an answer counts once, from whom was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from outlast.errors import UsageError
from outlast.rooms.watch import asked, asks, service
from outlast.rooms.watch.entries import unpack_raw
from outlast.rooms.watch.io import run
from outlast.rooms.watch.io.consent import consent, withdraw
from outlast.rooms.watch.proto.measurement import read
from outlast.rooms.watch.proto.probe import Settings
from tests.unit.rooms.carry.houses import House
from tests.unit.rooms.watch.test_service import NOW_MS, Clock, houses

URL = "https://www.example.org/"


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was probed: nothing leaves this machine, each probe finds that nobody answered."""
    seen: list[str] = []

    async def run_list(plan: run.Plan) -> AsyncIterator[dict[str, Any]]:
        assert plan.settings != Settings()
        seen.extend(url.text for url in plan.urls)
        keys = {"requests": [], "network_events": [{"operation": "read", "num_bytes": 7}] * 50}
        yield {"test_name": "web_connectivity", "input": plan.urls[0].text, "test_keys": keys}

    monkeypatch.setattr(run, "run_list", run_list)
    return seen


async def settled(house: House) -> None:
    """The node's own work is done, as far as it is due."""
    while await asks.answer_one(house.node, house.person):
        pass


async def test_who_may_ask_gets_a_measurement_from_there(tmp_path: Path, probed: list[str]) -> None:
    async with houses(tmp_path, Clock(), "ann", "ben") as [ann, ben]:
        consent(ann.node.home.path, NOW_MS)
        await asks.allow(ann.node, ann.person, ben.person.identity, allowed=True)
        await asks.ask(ben.node, ben.person, ann.person.identity, URL)
        assert [one.done_ms for one in asks.answers(ben.person)] == [None]
        await ben.carry_to(ann)
        await ann.until(lambda: asked.wishes(ann.person, mine=False))
        await settled(ann)
        await ann.until(lambda: probed)
        await ann.until(lambda: asked.wishes(ann.person, mine=False)[0].problem == "")
        assert asked.wishes(ann.person, mine=False)[0].target == "", "what was probed is nobody's to find"
        await ann.carry_to(ben)
        await ben.until(lambda: asks.answers(ben.person)[0].done_ms)
        [answer] = asks.answers(ben.person)
        assert (probed, answer.problem, read(unpack_raw(answer.raw)).input) == ([URL], "", URL)


async def test_a_probe_that_the_computer_cannot_make_is_answered_and_ends_no_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run_list(_: run.Plan) -> AsyncIterator[dict[str, Any]]:
        if _.urls:
            raise OSError(24, "Too many open files", "/home/ann")
        yield {}

    monkeypatch.setattr(run, "run_list", run_list)
    async with houses(tmp_path, Clock(), "ann", "ben") as [ann, ben]:
        consent(ann.node.home.path, NOW_MS)
        await asks.allow(ann.node, ann.person, ben.person.identity, allowed=True)
        await asks.ask(ben.node, ben.person, ann.person.identity, URL)
        await ben.carry_to(ann)
        await ann.until(lambda: asked.wishes(ann.person, mine=False))
        await ann.until(lambda: asked.wishes(ann.person, mine=False)[0].problem not in ("", "begun"))
        await ann.carry_to(ben)
        await ben.until(lambda: asks.answers(ben.person)[0].done_ms)
        assert asks.answers(ben.person)[0].problem == "the computer that was asked could not probe"
        assert not ann.node.failed.done()


async def test_who_was_not_allowed_leaves_no_trace_and_moves_nothing(tmp_path: Path, probed: list[str]) -> None:
    async with houses(tmp_path, Clock(), "ann", "ben") as [ann, ben]:
        consent(ann.node.home.path, NOW_MS)
        await asks.ask(ben.node, ben.person, ann.person.identity, URL)
        await service.set_place(ben.node, ben.person, "BY", 1)
        await ben.carry_to(ann)
        await asks.allow(ann.node, ann.person, ben.person.identity, allowed=True)
        await settled(ann)
        assert (asked.wishes(ann.person, mine=False), probed) == ([], [])


async def test_without_consent_nobody_is_allowed_and_nothing_is_probed(tmp_path: Path, probed: list[str]) -> None:
    async with houses(tmp_path, Clock(), "ann", "ben") as [ann, ben]:
        with pytest.raises(UsageError):
            await asks.allow(ann.node, ann.person, ben.person.identity, allowed=True)
        consent(ann.node.home.path, NOW_MS)
        await asks.allow(ann.node, ann.person, ben.person.identity, allowed=True)
        withdraw(ann.node.home.path)
        await asks.ask(ben.node, ben.person, ann.person.identity, URL)
        await ben.carry_to(ann)
        await ann.until(lambda: asked.wishes(ann.person, mine=False))
        await settled(ann)
        assert probed == []


async def test_a_day_has_room_for_twenty_wishes_of_one_contact(tmp_path: Path, probed: list[str]) -> None:
    async with houses(tmp_path, Clock(), "ann", "ben") as [ann, ben]:
        consent(ann.node.home.path, NOW_MS)
        await asks.allow(ann.node, ann.person, ben.person.identity, allowed=True)
        for number in range(asked.A_DAY_MAX + 3):
            await asks.ask(ben.node, ben.person, ann.person.identity, f"{URL}{number}")
        await ben.carry_to(ann)
        await ann.until(lambda: len(asked.wishes(ann.person, mine=False)) >= asked.A_DAY_MAX)
        await asyncio.gather(*(ann.node.write(lambda: None) for _ in range(5)))
        assert len(asked.wishes(ann.person, mine=False)) == asked.A_DAY_MAX


@pytest.mark.parametrize(
    "target", ["http://192.168.1.1/", "http://[::1]/", "ftp://example.org/", "", "https://a.net/" + "b" * 3000,
     "http://router/", "http://nas.local/", "http://example.org:22/", "http://[::ffff:10.0.0.1]/", "http://127.1/"],
)  # fmt: skip
def test_only_urls_of_the_public_web_are_asked_for(target: str) -> None:
    assert not asked.is_target(target)
    assert asked.is_target(URL)
