"""What the local API and the commands answer, of a node whose rooms are open."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from outlast.errors import NotFoundError, UsageError
from outlast.rooms.reach import service
from outlast.rooms.reach.api import OPERATIONS
from outlast.rooms.reach.commands import size_of
from outlast.ui.operation import Call
from tests.unit.rooms.carry.houses import House
from tests.unit.rooms.reach.test_handing import web
from tests.unit.rooms.reach.towns import Clock, houses

SS = "ss://YWVzLTI1Ni1nY206c2VjcmV0@192.0.2.9:8388#mine"
BY_NAME = {one.name: one for one in OPERATIONS}


async def ask(house: House, operation_name: str, **params: Any) -> Any:
    """The answer as JSON holds it."""
    operation = BY_NAME[operation_name]
    return await operation.answer(Call(house.node, operation.read(params)))


async def test_a_bridge_is_added_listed_without_its_secret_shown_and_removed(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann") as (ann,):
        added = await ask(ann, "reach.bridge.add", links=SS)
        [listed] = await ask(ann, "reach.bridges")
        assert added == {"kept": [listed], "wrong": []}
        assert (listed["transport"], listed["label"], listed["by"]) == ("ss", "mine", None)
        assert "c2VjcmV0" not in str(listed)
        assert await ask(ann, "reach.bridge.link", id=listed["id"][:5]) == {"id": listed["id"], "link": SS}
        assert await ask(ann, "reach.bridge.links") == [{"id": listed["id"], "link": SS}]
        await ask(ann, "reach.bridge.remove", id=listed["id"])
        assert await ask(ann, "reach.bridges") == []


async def test_members_requests_and_what_is_served_are_told_by_names(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob") as (ann, bob):
        served = web()
        found = await ask(
            ann, "reach.serve", transport="web", listen=served.listen, at="192.0.2.1:443", name="n.example", site="/srv"
        )
        assert (found["at"], found["open"], found["members"]) == ("192.0.2.1:443", True, 0)
        await ask(bob, "reach.bridge.ask", to="Ann")
        await bob.carry_to(ann)
        await ann.until(lambda: service.wants(ann.person))
        [request] = await ask(ann, "reach.requests")
        assert request["by"]["name"] == "Bob"
        await ask(ann, "reach.answer", id=request["id"])
        [member] = await ask(ann, "reach.members")
        assert (member["by"]["name"], member["direct"], member["trust"]) == ("Bob", True, 1)
        status = await ask(ann, "reach.status")
        assert [one["members"] for one in status["serving"]] == [1]
        await ann.carry_to(bob)
        await bob.until(lambda: service.bridges(bob.person))
        assert (await ask(bob, "reach.bridges"))[0]["by"]["name"] == "Ann"
        assert await ask(ann, "reach.bridge.revoke", to="Bob") == {"count": 1}
        await ask(ann, "reach.stop", id=found["bridge"])
        with pytest.raises(NotFoundError):
            await ask(ann, "reach.blocked", id=found["bridge"])


async def test_an_own_bridge_that_is_blocked_is_told_as_such(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob") as (ann, _):
        found = await ask(ann, "reach.serve", transport="ss", listen="0.0.0.0:8388", at="192.0.2.1:8388")
        await ask(ann, "reach.bridge.invite", to="Bob")
        await ask(ann, "reach.blocked", id=found["bridge"][:6])
        [served] = (await ask(ann, "reach.status"))["serving"]
        assert not served["open"]
        assert [one["bridge"] for one in await ask(ann, "reach.members")] == [None]


async def test_settings_change_one_by_one(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann") as (ann,):
        await ask(ann, "reach.set", country="by", asn=6697)
        await ask(ann, "reach.set", listen=["127.0.0.1:9050"], direct=["example.by"])
        found = await ask(ann, "reach.set", test_url="http://192.0.2.1/64k")
        assert (found["country"], found["listen"], found["direct"]) == ("BY", ["127.0.0.1:9050"], ["example.by"])
        assert found["test_url"] == "http://192.0.2.1/64k"
        with pytest.raises(UsageError):
            await ask(ann, "reach.publish", on=True)
        assert not (await ask(ann, "reach.settings"))["publish"]
        await ask(ann, "reach.forget")


async def test_the_uplink_is_lent_offered_and_used(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob", relay=True) as (ann, bob):
        await ask(ann, "reach.lend", to="Bob", day_bytes=1 << 20)
        found = await ask(ann, "reach.share", on=True, day_bytes=1 << 30, hosts=["127.0.0.1"])
        assert found["on"]
        assert [(one["to"]["name"], one["day_bytes"]) for one in found["to"]] == [("Bob", 1 << 20)]
        # The listener is up, so that the letter says where.
        async with asyncio.timeout(30):
            await ann.until(lambda: service.shares(ann.person)[0].told)
        await ann.carry_to(bob)
        await bob.until(lambda: service.neighbours(bob.person))
        [offer] = (await ask(bob, "reach.shared"))["offered"]
        assert (offer["by"]["name"], offer["accepted"]) == ("Ann", False)
        await ask(bob, "reach.bridge.add", links=SS)
        await ask(bob, "reach.use", id=offer["id"])
        await bob.until(lambda: service.neighbours(bob.person)[0].told)
        await bob.carry_to(ann)
        await ann.until(lambda: service.shares(ann.person)[0].targets)
        assert service.shares(ann.person)[0].targets == (("192.0.2.9", 8388),)
        await ask(ann, "reach.lend", to="Bob", allowed=False)
        await ann.carry_to(bob)
        await bob.until(lambda: not service.neighbours(bob.person))


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("500M", 500 << 20), ("2g", 2 << 30), ("7GiB", 7 << 30)])
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "M", "1.5G", "-1", "9X", "²"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no size"):
        size_of(text)
