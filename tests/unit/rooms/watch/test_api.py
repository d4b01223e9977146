"""What programs and the command line can ask of watch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from outlast.errors import NotFoundError, UsageError
from outlast.rooms.watch import service, view
from outlast.rooms.watch.api import OPERATIONS
from outlast.ui.operation import Call
from tests.unit.rooms.carry.houses import House
from tests.unit.rooms.watch.test_service import Clock, houses, keep
from tests.unit.rooms.watch.test_web import ioda

NAMED = {operation.name: operation for operation in OPERATIONS}


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """A node with watch."""
    async with houses(folder, Clock(), "ann") as [ann]:
        yield ann


async def ask(ann: House, operation: str, **params: Any) -> Any:
    """What an operation answers."""
    named = NAMED[operation]
    return await named.answer(Call(ann.node, named.read(params)))


async def test_the_three_lamps_say_that_nothing_is_known_and_nothing_is_published(tmp_path: Path) -> None:
    async with house(tmp_path) as ann:
        found = await ask(ann, "watch.status")
        assert [found[name]["light"] for name in ("site", "link", "country")] == ["unknown"] * 3
        assert found["published"] == []


async def test_settings_change_one_by_one(tmp_path: Path) -> None:
    async with house(tmp_path) as ann:
        await ask(ann, "watch.set", country="by", asn=6697)
        found = await ask(ann, "watch.set", domestic=["www.example.by"], abroad=["192.0.2.1:53"])
        assert (found["country"], found["asn"], found["abroad"]) == ("BY", 6697, ["192.0.2.1:53"])
        await ask(ann, "watch.set", control="https://node.example.org/", control_token="heron")
        await ask(ann, "watch.set", control="https://node.example.org/")
        assert service.settings(ann.person).control_token == "heron"
        found = await ask(ann, "watch.set", control="https://other.example.org/")
        assert found["control"] == "https://other.example.org/"
        assert service.settings(ann.person).control_token == "", "no other control learns it"
        for wrong in ({"control": "no address"}, {"control_token": "two words", "control": "https://x/"}):
            with pytest.raises(UsageError):
                await ask(ann, "watch.set", **wrong)
        for wrong in ({"every_h": 3}, {"abroad": ["no address"]}, {"every_h": 24, "targets": ["https://x/"]}):
            with pytest.raises(UsageError):
                await ask(ann, "watch.set", **wrong)
        channel = await ask(ann, "watch.channel.create", name="Watch")
        assert await ask(ann, "watch.channels") == [channel]
        assert (await ask(ann, "watch.publish", what=["outages"], channel="Watch"))["publish"] == ["outages"]
        assert (await ask(ann, "watch.publish", what=[]))["publish"] == []
        with pytest.raises(UsageError):
            await ask(ann, "watch.publish", what=["everything"])
        await ask(ann, "watch.unfollow", channel=channel["id"])
        assert await ask(ann, "watch.channels") == []


async def test_a_file_becomes_outages_and_a_report(tmp_path: Path) -> None:
    (tmp_path / "ioda.csv").write_bytes(ioda())
    async with house(tmp_path) as ann:
        assert (await ask(ann, "watch.read", file=str(tmp_path / "ioda.csv"), country="BY"))["series"] == 2
        [outage] = await ask(ann, "watch.outages")
        assert (outage["entity"], outage["start"], outage["confirmed"]) == ("BY", "2026-01-04T18:00:00Z", False)
        assert outage["end"] is not None
        text = (await ask(ann, "watch.report", country="Belarus", **{"from": "2026-01-01", "to": "2026-01-05"}))["text"]
        assert "1 outage in this time" in text
        with pytest.raises(UsageError):
            await ask(ann, "watch.report", country="BY", **{"from": "2026-01-05", "to": "2026-01-01"})
        with pytest.raises(UsageError):
            await ask(ann, "watch.report", country="BY", **{"from": "yesterday"})
        for never in ("0001-01-01T00:00:00+14:00", "1969-12-31", "9999-12-31T23:59:59-12:00"):
            with pytest.raises(UsageError, match="is no time since 1970"):
                await ask(ann, "watch.report", country="BY", **{"from": never, "to": "2026-01-05"})
        with pytest.raises(NotFoundError):
            await ask(ann, "watch.report", country="Atlantis")
        with pytest.raises(UsageError):
            await ask(ann, "watch.read", file="ioda.csv", country="BY")
        with pytest.raises(NotFoundError):
            await ask(ann, "watch.read", file=str(tmp_path / "nothing"), country="BY")


def tor_metrics() -> str:
    """Tor's file of all countries: 40 days of two countries, and of the world."""
    days = [date(2026, 1, 1) + timedelta(day) for day in range(40)]
    rows = [
        f"{day},{country},{users},,,70"
        for number, day in enumerate(days)
        for country, users in (("", 2_000_000), ("by", 9_000 + number), ("zw", 4_000 + number))
    ]
    return "\n".join(["# The Tor Project", "date,country,users,lower,upper,frac", *rows])


async def test_of_a_file_about_several_countries_one_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "tor.csv"
    file.write_text(tor_metrics())
    async with house(tmp_path) as ann:
        for country in ("BY", " zimbabwe "):  # as people write them
            assert (await ask(ann, "watch.read", file=str(file), country=country))["series"] == 1
        usual = {one.entity: one.points[0][1] for one in view.series(ann.person)}
        assert usual == {"BY": 9_000, "ZW": 4_000}


async def test_a_file_about_another_country_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tor.csv"
    file.write_text(tor_metrics())
    async with house(tmp_path) as ann:
        with pytest.raises(UsageError, match="this file says nothing of IR: it is about BY, ZW"):
            await ask(ann, "watch.read", file=str(file), country="IR")
        with pytest.raises(NotFoundError, match="there is no country 'Atlantis': give its two letters"):
            await ask(ann, "watch.read", file=str(file), country="Atlantis")
        assert view.series(ann.person) == []


async def test_a_pipe_keeps_no_thread_of_the_node_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with house(tmp_path) as ann:
        with pytest.raises(UsageError, match="pipe is a pipe: name a file"):
            await asyncio.wait_for(ask(ann, "watch.read", file=str(tmp_path / "pipe"), country="BY"), 5)


async def test_measurements_are_listed_and_exported_without_addresses(tmp_path: Path) -> None:
    async with house(tmp_path) as ann:
        await keep(ann)
        [one] = await ask(ann, "watch.observations")
        assert (one["verdict"], one["key"], one["layers"]["dns"]) == ("blocked", None, "blocked")
        assert "203.0.113" not in (await ask(ann, "watch.export"))["text"]
        with pytest.raises(UsageError):
            await ask(ann, "watch.observations", limit=0)
