"""What watch does with a real node: keep, publish under another key each week, follow, agree on an outage."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from outlast.errors import UsageError
from outlast.kernel import DAY_MS, Entry, Home, Kind, Node, Put
from outlast.kernel.identity import SigningKey
from outlast.kernel.log import loose_entry
from outlast.rooms.watch import ROOM, service, view
from outlast.rooms.watch.entries import OBSERVATION, WITNESS, Layer, Observation, Witness, pack_raw, unpack_raw
from outlast.rooms.watch.io.measurements import own_fingerprints
from outlast.rooms.watch.lamps import Lamp
from outlast.rooms.watch.view import Measured
from outlast.terms import OUTAGE, Outage
from tests.unit.rooms.carry.houses import House
from tests.unit.rooms.watch.public_servers import NAMES, page, serving, usual

NOW_MS = 1_800_000_000_000


@dataclass
class Clock:
    """A clock that the test turns."""

    ms: int = NOW_MS

    def __call__(self) -> int:
        return self.ms


@asynccontextmanager
async def houses(folder: Path, clock: Callable[[], int], *names: str) -> AsyncIterator[list[House]]:
    """Nodes of these people, who have verified each other."""
    async with AsyncExitStack() as stack:
        made = []
        for name in names:
            home = Home(folder / name)
            await Node.create(home, name, passphrase=None, rooms=[ROOM])
            node = await stack.enter_async_context(await Node.open(home, rooms=[ROOM], system_ms=clock))
            made.append(House(node, next(iter(node.people.values()))))
        for one in made:
            for other in made:
                if other is not one:
                    contact = await one.person.add_contact(await other.person.link())
                    await one.person.verify(contact.identity)
        yield made


def measured(input: str = "https://example.org/?sid=secret") -> Measured:
    """A measurement that was made here."""
    return Measured(
        None, None, 0, NOW_MS // 1000 + 7, "web_connectivity", input, "", 0, "dns", False,
        "blocked", "ok", "ok", "ok", "unknown", "", "outlast 1", 0,
    )  # fmt: skip


RAW = json.dumps(
    {
        "input": "https://example.org/",
        "measurement_start_time": "2027-01-15 08:00:07",
        "probe_ip": "203.0.113.7",
        "probe_cc": "BY",
        "resolver_ip": "203.0.113.53",
        "test_keys": {"accessible": False, "requests": [{"response": {"body": "seen from 203.0.113.7", "code": 200}}]},
    }
).encode()


async def keep(house: House) -> int:
    """Keep a measurement; its number."""
    await service.keep(house.node, house.person, measured(), RAW)
    return view.runs(house.person)[0].n


def authors(node: Node, space: bytes) -> list[bytes]:
    """Who signed what is in a channel."""
    return [row[0] for row in node.query("SELECT author FROM entry WHERE space = ?", (space,))]


async def test_nothing_is_published_until_somebody_says_so(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "ann") as [ann]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        number = await keep(ann)
        with pytest.raises(UsageError, match="nothing is published"):
            await service.publish_run(ann.node, ann.person, number)
        assert view.observations(ann.node, [channel.space], NOW_MS) == []
        assert not service.settings(ann.person).publishes


async def test_what_is_published_is_scrubbed_and_signed_by_no_device(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "ann") as [ann]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "by", 6697)
        await service.publish(ann.node, ann.person, ["observations"])
        await keep(ann)
        [one] = view.observations(ann.node, [channel.space], NOW_MS)
        assert (one.country, one.asn, one.blocking, one.at_s % 3600) == ("BY", 6697, "dns", 0)
        assert one.input == "https://example.org/?sid=[scrubbed]"
        assert one.key != ann.person.device
        assert one.key == view.own_keys(ann.person)[0].key
        entry = ann.node.open_store.get(one.id or b"")
        assert entry is not None
        assert (entry.header.seq, entry.header.clock, entry.header.ts_ms % 3_600_000) == (0, 0, 0)
        record = unpack_raw(OBSERVATION.decode(entry.payload or b"").raw)
        assert b"203.0.113" not in record
        assert json.loads(record)["measurement_start_time"] == "2027-01-15 08:00:00"
        assert len(service.measured(ann.node, ann.person)) == 1, "one's own is not shown twice"
        assert b"203.0.113" not in await service.export(ann.node, ann.person)


async def test_what_was_just_measured_is_published_also_when_the_clock_was_set_back(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "ann") as [ann]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.publish(ann.node, ann.person, ["observations"])
        for input in ("https://one.example/", "https://two.example/"):
            await service.keep(ann.node, ann.person, measured(input), RAW)
            clock.ms -= 3_600_000
        assert all(one.id for one in view.runs(ann.person))
        published = view.observations(ann.node, [channel.space], NOW_MS)
        assert {one.input for one in published} == {"https://one.example/", "https://two.example/"}


async def test_what_was_measured_by_a_clock_that_ran_years_ahead_stands_before_nothing_later(tmp_path: Path) -> None:
    clock = Clock(NOW_MS + 20 * 365 * DAY_MS)
    async with houses(tmp_path, clock, "ann") as [ann]:
        await keep(ann)
        clock.ms = NOW_MS
        assert service.three_lamps(ann.node, ann.person).measured == []
        await keep(ann)
        [latest] = service.three_lamps(ann.node, ann.person).measured
        assert latest.at_s == NOW_MS // 1000


async def test_each_week_has_another_key_and_the_old_seed_is_gone(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "ann") as [ann]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "BY", 1)
        await service.publish(ann.node, ann.person, ["observations"])
        await keep(ann)
        clock.ms += 7 * DAY_MS
        await keep(ann)
        first, second = view.observations(ann.node, [channel.space], clock.ms)
        assert first.key != second.key
        assert [one.seed is None for one in view.own_keys(ann.person)] == [False, True]
        assert ann.person.device not in {first.key, second.key}


async def test_whom_one_told_of_a_key_is_forgotten_with_its_week(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "ann", "ben") as [ann, _ben]:

        def told() -> list[str]:
            return [what for what in view.said(ann.person) if what.startswith("key:")]

        await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "BY", 1)
        await service.publish(ann.node, ann.person, ["heartbeats"])
        await ann.until(told)
        before = told()
        clock.ms += 7 * DAY_MS
        ann.node.touch()
        await ann.until(lambda: told() not in (before, []))
        assert len(told()) == 1


async def test_a_channel_is_followed_by_its_link_and_left_again(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "ann", "ben") as [ann, ben]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "BY", 1)
        await service.publish(ann.node, ann.person, ["observations", "heartbeats"])
        await keep(ann)
        followed = await service.follow(ben.node, ben.person, service.link_of(channel))
        await ann.carry_to(ben, space=channel.space)
        await ben.until(lambda: len(view.observations(ben.node, [followed.space], NOW_MS)) == 1)
        assert service.measured(ben.node, ben.person)[0].input == "https://example.org/?sid=[scrubbed]"
        assert service.channels(ben.node, ben.person)[0].name == "Watch"
        await service.unfollow(ben.node, ben.person, followed.space)
        assert service.measured(ben.node, ben.person) == []


def alarm(start_s: int = NOW_MS // 1000 - 3600) -> view.Cut:
    """An outage that a node's own detector found."""
    return view.Cut(None, None, start_s, "BY", "blackout", start_s, None, (), ())


async def see(house: House, cut: view.Cut) -> None:
    """The node's own detector finds an outage."""
    await house.node.write(lambda: house.person.vault.transaction([view.alarm_row(cut)], "watch"))
    house.node.touch()


async def test_an_outage_is_published_once_three_verified_people_in_three_networks_see_it(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "ann", "ben", "eve") as all_three:
        ann, *others = all_three
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        for number, one in enumerate(all_three):
            if one is not ann:
                await service.follow(one.node, one.person, service.link_of(channel))
                await ann.carry_to(one, space=channel.space)
            await service.set_place(one.node, one.person, "BY", 100 + number)
            await service.publish(one.node, one.person, ["outages"], channel.space)
            await see(one, alarm())
        for one in others:
            spaces = [channel.space]
            await one.until(lambda one=one, spaces=spaces: view.witnesses(one.node, spaces, NOW_MS))
            await one.until(lambda one=one: any(name.startswith("key:") for name in view.said(one.person)))
            assert view.outages(one.node, [channel.space], NOW_MS) == [], "two are no quorum"
            await one.carry_to(ann)
            await one.carry_to(ann, space=channel.space)
        await ann.until(lambda: view.outages(ann.node, [channel.space], NOW_MS))
        [cut] = view.outages(ann.node, [channel.space], NOW_MS)
        assert (cut.entity, cut.state, len(cut.witnesses)) == ("BY", "blackout", 3)
        standing = service.standing(ann.node, ann.person, cut)
        assert standing.confirmed
        assert {one.asn for one in standing.agreeing} == {100, 101, 102}
        assert service.three_lamps(ann.node, ann.person).country.light == "bad"
        assert all(one.person.device not in authors(ann.node, channel.space)[1:] for one in all_three)


async def test_a_heartbeat_goes_out_each_hour_while_it_is_switched_on(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "ann") as [ann]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        with pytest.raises(UsageError, match="country"):
            await service.publish(ann.node, ann.person, ["heartbeats"])
        await service.set_place(ann.node, ann.person, "BY", 1)
        await service.publish(ann.node, ann.person, ["heartbeats"])

        def beats() -> int:
            return sum(one.keys for one in view.beats(ann.node, [channel.space], clock.ms, "BY", 0, clock.ms))

        await ann.until(lambda: beats() == 1)
        clock.ms += 3_600_000
        ann.node.touch()
        await ann.until(lambda: beats() == 2)
        await service.publish(ann.node, ann.person, [])
        assert not service.settings(ann.person).publishes
        clock.ms += 3_600_000
        assert service.agenda.due(service.situation(ann.node, ann.person)) == []


@pytest.mark.parametrize(("country", "asn"), [("Belarus", 1), ("ZZ", 1), ("BY", -1), ("BY", 2**32)])
async def test_a_place_that_cannot_be_is_refused(tmp_path: Path, country: str, asn: int) -> None:
    async with houses(tmp_path, Clock(), "ann") as [ann]:
        with pytest.raises(UsageError):
            await service.set_place(ann.node, ann.person, country, asn)


async def test_strangers_with_many_keys_make_no_outage_and_push_nothing_out(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "ann") as [ann]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "BY", 1)
        await service.publish(ann.node, ann.person, ["observations"])
        await keep(ann)
        start_s = NOW_MS // 1000 - 3600

        def say(by: int, kind: Kind, body: msgspec.Struct) -> Entry:
            return loose_entry(
                SigningKey.from_seed(by.to_bytes(32, "big")), space=channel.space, kind=kind.name,
                payload=kind.encode(body), ts_ms=NOW_MS, life_ms=30 * DAY_MS, priority=kind.priority,
            )  # fmt: skip

        layers = ("blocked", "blocked", "blocked", "blocked", "blocked")
        await ann.node.ingest(
            [
                *(say(by, WITNESS, Witness("BY", "blackout", start_s, "BY", by)) for by in range(1, 400)),
                *(say(by, OUTAGE, Outage("BY", "blackout", start_s + by, None, (), ())) for by in range(1, 300)),
                *(
                    say(
                        by, OBSERVATION,
                        Observation("t", f"https://{by}/", NOW_MS // 1000, "BY", by, "dns", False, layers, "", ""),
                    )
                    for by in range(1, 400)
                ),
            ]
        )  # fmt: skip
        lamps = service.three_lamps(ann.node, ann.person)
        assert (lamps.country.code, lamps.cuts) == ("no-signals", [])
        assert [one.input for one in lamps.measured] == ["https://example.org/?sid=secret"]
        [claimed] = service.outages(ann.node, ann.person)
        assert not service.standing(ann.node, ann.person, claimed).confirmed
        await see(ann, alarm(start_s))
        [own] = service.outages(ann.node, ann.person)
        assert own.id is None, "what the own signals show is not replaced by a claim"
        shown = service.measured(ann.node, ann.person)
        assert sum(one.key is None for one in shown) == 1


async def test_one_known_person_with_many_words_silences_nobody(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "ann", "ben", "cid", "eve", "mal") as all_five:
        ann, *others = all_five
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "BY", 7)
        start_s = NOW_MS // 1000 - 7200

        def say(by: House, kind: Kind, body: msgspec.Struct, at_s: int = start_s) -> Entry:
            return loose_entry(
                SigningKey.from_seed(by.person.device), space=channel.space, kind=kind.name,
                payload=kind.encode(body), ts_ms=at_s * 1000, life_ms=30 * DAY_MS, priority=kind.priority,
            )  # fmt: skip

        def vouch(by: House) -> Put:
            key = SigningKey.from_seed(by.person.device).public
            row = {"key": key, "peer": by.person.identity, "came_ms": NOW_MS, "until_day": 2**30}
            return Put(view.VOUCHED, row)

        await ann.node.write(lambda: ann.person.vault.transaction([vouch(one) for one in others], "watch"))
        whitelist, last_s = Witness("BY", "whitelist", start_s, "BY", 1), 253_402_300_799
        mal, well = others[3], Witness("BY", "normal", start_s, "BY", 9)
        hour, far_s = 3600, NOW_MS // 1000 + 40 * DAY_MS // 1000
        entries = [
            say(one, WITNESS, msgspec.structs.replace(whitelist, asn=asn)) for asn, one in enumerate(others[:3], 1)
        ]
        entries.append(say(others[0], OUTAGE, Outage("BY", "whitelist", start_s, None, (), ())))
        entries += [say(mal, WITNESS, well, far_s + number) for number in range(1000)]
        entries += [say(mal, WITNESS, well, start_s + number) for number in range(1, service.WITNESSES_OF_ONE)]
        entries += [
            say(mal, OUTAGE, Outage("BY", "normal", last_s - number, None, (), ()), far_s) for number in range(99)
        ]
        for number in range(99):
            false = Outage("BY", "blackout" if number % 2 else "normal", start_s + 60 * number, None, (), ())
            entries.append(say(mal, OUTAGE, false, start_s + hour))
        await ann.node.ingest(entries)
        [sure] = service.believed(ann.node, ann.person, "BY")
        assert (sure.state, sure.start_s, sure.end_s) == ("whitelist", start_s, None)
        assert service.three_lamps(ann.node, ann.person).cuts == [sure]
        assert all(one.start_s <= NOW_MS // 1000 + hour for one in service.outages(ann.node, ann.person))


async def test_one_known_person_ends_and_softens_no_outage_that_enough_others_see_and_as_many_as_began_it_end_it(
    tmp_path: Path,
) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "ann", "ben", "cid", "eve", "mal") as all_five:
        ann, *others = all_five
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "BY", 7)
        start_s, hour = NOW_MS // 1000 - 10 * 3600, 3600
        true = Outage("BY", "blackout", start_s, None, (), ())

        def say(by: House, kind: Kind, body: msgspec.Struct, at_s: int) -> Entry:
            return loose_entry(
                SigningKey.from_seed(by.person.device), space=channel.space, kind=kind.name,
                payload=kind.encode(body), ts_ms=at_s * 1000, life_ms=30 * DAY_MS, priority=kind.priority,
            )  # fmt: skip

        def over(end_s: int) -> Outage:
            return msgspec.structs.replace(true, end_s=end_s)

        def vouch(by: House) -> Put:
            key = SigningKey.from_seed(by.person.device).public
            return Put(view.VOUCHED, {"key": key, "peer": by.person.identity, "came_ms": NOW_MS, "until_day": 2**30})

        def ends() -> list[int | None]:
            return [cut.end_s for cut in service.believed(ann.node, ann.person, "BY")]

        await ann.node.write(lambda: ann.person.vault.transaction([vouch(one) for one in others], "watch"))
        *honest, mal = others
        await ann.node.ingest(
            [
                *(
                    say(one, WITNESS, Witness("BY", "blackout", start_s, "BY", asn), start_s + past * hour)
                    for asn, one in enumerate(others, 1)
                    for past in range(10)
                ),
                say(honest[0], OUTAGE, true, start_s),
            ]
        )
        assert ends() == [None]
        now_s = NOW_MS // 1000
        lies = [over(start_s + 60), over(start_s + 5 * hour), over(now_s - 60), over(now_s), over(now_s + 2 * hour)]
        for lie in lies:
            await ann.node.ingest([say(mal, OUTAGE, lie, now_s)])
            assert ends() == [None], lie.end_s
            assert service.three_lamps(ann.node, ann.person).country == Lamp("bad", "blackout")
        for state in ("degraded", "restoring"):
            await ann.node.ingest([say(mal, OUTAGE, msgspec.structs.replace(true, state=state), now_s)])
            assert service.three_lamps(ann.node, ann.person).country == Lamp("bad", "blackout"), state
        assert all(
            cut.end_s is None or not service.standing(ann.node, ann.person, cut).confirmed
            for cut in service.outages(ann.node, ann.person)
        )
        clock.ms += hour * 1000
        for one in honest:
            await ann.node.ingest([say(one, OUTAGE, over(now_s + 30), now_s)])
        assert ends() == [now_s + 30]


def vouched(by: House) -> Put:
    """The row by which a contact's device is taken for their key of the week."""
    key = SigningKey.from_seed(by.person.device).public
    return Put(view.VOUCHED, {"key": key, "peer": by.person.identity, "came_ms": NOW_MS, "until_day": 2**30})


def said_by(by: House, space: bytes, kind: Kind, body: msgspec.Struct, at_s: int) -> Entry:
    """An entry under that key."""
    return loose_entry(
        SigningKey.from_seed(by.person.device), space=space, kind=kind.name,
        payload=kind.encode(body), ts_ms=at_s * 1000, life_ms=60 * DAY_MS, priority=kind.priority,
    )  # fmt: skip


async def test_an_outage_that_nobody_speaks_of_any_more_is_not_said_to_last(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "ann", "ben", "cid", "eve") as all_four:
        ann, *others = all_four
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "BY", 7)
        start_s, day = NOW_MS // 1000 - 3600, 86_400
        seen, true = Witness("BY", "blackout", start_s, "BY", 1), Outage("BY", "blackout", start_s, None, (), ())
        await ann.node.write(lambda: ann.person.vault.transaction(list(map(vouched, others)), "watch"))
        await ann.node.ingest(
            [
                *(
                    said_by(one, channel.space, WITNESS, msgspec.structs.replace(seen, asn=asn), start_s)
                    for asn, one in enumerate(others, 1)
                ),
                said_by(others[0], channel.space, OUTAGE, true, start_s),
            ]
        )
        clock.ms += 3 * DAY_MS - 3_600_000
        assert service.three_lamps(ann.node, ann.person).country == Lamp("bad", "blackout")
        clock.ms += 3_600_000
        assert service.three_lamps(ann.node, ann.person).country == Lamp("unknown", "no-signals")
        [over] = service.believed(ann.node, ann.person, "BY")
        assert (over.start_s, over.end_s, over.fades_out) == (start_s, start_s, True)
        assert service.standing(ann.node, ann.person, over).confirmed
        await see(ann, replace(alarm(start_s), at_s=clock.ms // 1000))
        [own] = service.believed(ann.node, ann.person, "BY")
        assert own.end_s is None, "what this node sees itself goes before silence"
        await ann.node.ingest([said_by(others[1], channel.space, WITNESS, seen, NOW_MS // 1000 + 3 * day)])
        [again] = service.believed(ann.node, ann.person, "BY")
        assert (again.id is not None, again.end_s) == (True, None), "one word by somebody known, and it lasts"


@pytest.mark.parametrize("hours", [-23, -7, -5, 5, 7, 23])
async def test_one_known_person_moves_no_beginning_and_makes_no_second_outage_of_one(
    tmp_path: Path, hours: int
) -> None:
    async with houses(tmp_path, Clock(), "ann", "ben", "cid", "eve", "mal") as all_five:
        ann, *others = all_five
        *honest, mal = others
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        start_s, hour = NOW_MS // 1000 - 30 * 3600, 3600
        false_s = start_s + hours * hour
        await ann.node.write(lambda: ann.person.vault.transaction(list(map(vouched, others)), "watch"))
        entries = [
            said_by(one, channel.space, WITNESS, Witness("BY", "blackout", start_s + 60 * asn, "BY", asn), at_s)
            for asn, one in enumerate(honest, 1)
            for at_s in range(start_s, start_s + 24 * hour, hour)
        ]
        entries += [
            said_by(mal, channel.space, WITNESS, Witness("BY", "blackout", false_s, "BY", asn), start_s + late * hour)
            for asn in range(1, 9)
            for late in range(24)
        ]
        entries.append(
            said_by(honest[0], channel.space, OUTAGE, Outage("BY", "blackout", start_s, None, (), ()), start_s)
        )
        lasting = Outage("BY", "blackout", false_s, None, (), ())
        entries += [
            said_by(mal, channel.space, OUTAGE, lie, NOW_MS // 1000)
            for lie in (lasting, msgspec.structs.replace(lasting, end_s=false_s + 60))
        ]
        await ann.node.ingest(entries)
        [sure] = service.believed(ann.node, ann.person, "BY")
        assert abs(sure.start_s - start_s) <= 180
        assert sure.end_s is None
        assert service.standing(ann.node, ann.person, sure).confirmed
        for claimed in service.outages(ann.node, ann.person, "BY"):
            assert claimed == sure or not service.standing(ann.node, ann.person, claimed).confirmed


async def test_what_a_known_person_measured_in_another_country_says_nothing_of_a_site_here(tmp_path: Path) -> None:
    clock = Clock(NOW_MS - 3_600_000)
    async with houses(tmp_path, clock, "ann", "ben") as [ann, ben]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "BY", 1)
        await service.keep(ann.node, ann.person, measured("https://here.example/"), RAW)
        clock.ms, key = NOW_MS, SigningKey.from_seed(ben.person.device)
        row = {"key": key.public, "peer": ben.person.identity, "came_ms": NOW_MS, "until_day": 2**30}
        await ann.node.write(lambda: ann.person.vault.transaction([Put(view.VOUCHED, row)], "watch"))

        async def says(input: str, country: str, layer: Layer) -> None:
            found = Observation("t", input, NOW_MS // 1000, country, 1, "", layer == "ok", (layer,) * 5, "", "")
            entry = loose_entry(
                key, space=channel.space, kind=OBSERVATION.name, payload=OBSERVATION.encode(found),
                ts_ms=NOW_MS, life_ms=30 * DAY_MS, priority=4,
            )  # fmt: skip
            await ann.node.ingest([entry])

        await says("https://here.example/", "DE", "ok")
        await says("https://abroad.example/", "DE", "blocked")
        await says("https://too.example/", "BY", "ok")
        lamps = service.three_lamps(ann.node, ann.person)
        assert {one.input: one.verdict for one in lamps.measured} == {
            "https://here.example/": "blocked",
            "https://too.example/": "ok",
        }
        await service.set_place(ann.node, ann.person, "", 0)
        assert len(service.three_lamps(ann.node, ann.person).measured) == 3, (
            "who has not said where they are is shown all"
        )


async def test_however_much_one_known_person_measures_what_another_found_blocked_is_seen(
    tmp_path: Path,
) -> None:
    async with houses(tmp_path, Clock(), "ann", "ben", "mal") as [ann, ben, mal]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")

        def say(by: House, number: int, layer: Layer, at_s: int) -> Entry:
            found = Observation(
                "t", f"https://{number}.example/", at_s, "BY", 1, "", layer == "ok", (layer,) * 5, "", ""
            )
            return loose_entry(
                SigningKey.from_seed(by.person.device), space=channel.space, kind=OBSERVATION.name,
                payload=OBSERVATION.encode(found), ts_ms=at_s * 1000, life_ms=30 * DAY_MS, priority=4,
            )  # fmt: skip

        def vouch(by: House) -> Put:
            key = SigningKey.from_seed(by.person.device).public
            return Put(view.VOUCHED, {"key": key, "peer": by.person.identity, "came_ms": NOW_MS, "until_day": 2**30})

        await ann.node.write(lambda: ann.person.vault.transaction([vouch(ben), vouch(mal)], "watch"))
        now_s = NOW_MS // 1000
        await ann.node.ingest([say(ben, 1, "blocked", now_s - 3600)])
        await ann.node.ingest([say(mal, number, "ok", now_s) for number in range(2, 602)])
        lamps = service.three_lamps(ann.node, ann.person)
        assert (lamps.site.light, lamps.measured[0].input) == ("bad", "https://1.example/")


async def test_what_a_stranger_says_of_a_confirmed_outage_neither_ends_nor_softens_nor_repeats_it(
    tmp_path: Path,
) -> None:
    async with houses(tmp_path, Clock(), "ann", "ben", "cid", "eve") as all_four:
        ann, *others = all_four
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "BY", 7)
        start_s, hour = NOW_MS // 1000 - 7200, 3600
        keys = [SigningKey.from_seed(one.person.device) for one in others]
        stranger = SigningKey.from_seed(bytes(32))

        def say(by: SigningKey, kind: Kind, body: msgspec.Struct, at_s: int = start_s) -> Entry:
            return loose_entry(
                by, space=channel.space, kind=kind.name,
                payload=kind.encode(body), ts_ms=at_s * 1000, life_ms=30 * DAY_MS, priority=kind.priority,
            )  # fmt: skip

        def vouch(by: House, key: SigningKey) -> Put:
            row = {"key": key.public, "peer": by.person.identity, "came_ms": NOW_MS, "until_day": 2**30}
            return Put(view.VOUCHED, row)

        vouched = [vouch(one, key) for one, key in zip(others, keys, strict=True)]
        await ann.node.write(lambda: ann.person.vault.transaction(vouched, "watch"))
        true = Outage("BY", "blackout", start_s, None, (), ())
        false = [
            Outage("BY", "blackout", start_s, start_s + 60, (), ()),
            Outage("BY", "degraded", start_s + 60, None, (), ()),
            Outage("BY", "blackout", start_s - 10 * hour, None, (), ()),
        ]
        await ann.node.ingest(
            [
                *(say(key, WITNESS, Witness("BY", "blackout", start_s, "BY", asn)) for asn, key in enumerate(keys, 1)),
                say(keys[0], OUTAGE, true),
                *(say(stranger, OUTAGE, one, start_s + hour) for one in false),
            ]
        )
        [sure] = service.believed(ann.node, ann.person, "BY")
        assert (sure.state, sure.start_s, sure.end_s) == ("blackout", start_s, None)
        assert service.three_lamps(ann.node, ann.person).country == Lamp("bad", "blackout")
        [claimed] = [one for one in service.outages(ann.node, ann.person) if one.key == stranger.public]
        assert not service.standing(ann.node, ann.person, claimed).confirmed


@asynccontextmanager
async def site(answer: bytes, gate: asyncio.Event | None = None) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The address of a site of one page, and what is set once it was asked; it answers when ``gate`` opens."""
    asked, open_ = asyncio.Event(), gate or asyncio.Event()
    if gate is None:
        open_.set()

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await open_.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(answer) + answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(page, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", asked


async def test_heartbeats_do_not_wait_for_a_round_of_measuring_and_no_other_round_begins_beside_it(
    tmp_path: Path,
) -> None:
    clock, gate = Clock(), asyncio.Event()
    async with houses(tmp_path, clock, "ann") as [ann], site(b"hello", gate) as (target, asked):
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "BY", 1)
        await service.publish(ann.node, ann.person, ["heartbeats"])
        await service.consent(ann.node, True)
        await service.set_schedule(ann.node, ann.person, 1, [target])

        def beats() -> int:
            return sum(one.keys for one in view.beats(ann.node, [channel.space], clock.ms, "BY", 0, clock.ms))

        async with asyncio.timeout(30):
            await asked.wait()
        begun_ms = view.said(ann.person)["round"]
        for hours in (1, 2):
            clock.ms = NOW_MS + hours * 3_600_000
            ann.node.touch()
            await ann.until(lambda hours=hours: beats() == hours + 1)
        assert view.said(ann.person)["round"] == begun_ms
        assert service.measured(ann.node, ann.person) == []
        gate.set()
        await ann.until(lambda: len(service.measured(ann.node, ann.person)) == 2)
        assert view.said(ann.person)["round"] == clock.ms, "what fell due meanwhile is one round, not two"


LIST = "name,scope,location_found,pattern_type,pattern,confidence_no_fp,expected_countries\n"


async def test_the_operator_s_lists_of_block_pages_are_used_and_read_again_when_they_change(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "ann") as [ann], site(b"this page is forbidden") as (target, _):
        await service.consent(ann.node, True)
        folder = ann.node.home.path / "rooms" / "watch" / "fingerprints"
        folder.mkdir(parents=True)

        async def found() -> str:
            await service.probe(ann.node, ann.person, [target])
            return max(service.measured(ann.node, ann.person), key=lambda one: one.n).fingerprint

        (folder / "some.csv").write_bytes(b"\xff")
        assert await found() == "", "a damaged list keeps nobody from measuring"
        (folder / "some.csv").write_text(f"{LIST}by.first,nat,body,contains,is forbidden,10,\n")
        assert await found() == "by.first"
        before = own_fingerprints(ann.node.home.path)
        assert own_fingerprints(ann.node.home.path) is before
        (folder / "more.csv").write_text(f"{LIST}by.other,nat,body,contains,nothing,10,\n")
        assert own_fingerprints(ann.node.home.path) is not before
        (folder / "gone").symlink_to(folder / "nowhere")
        assert len(own_fingerprints(ann.node.home.path) or ()) == 2, "a link that leads nowhere hides no list"


async def test_a_site_that_is_tried_is_kept_with_its_verdict(tmp_path: Path) -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with houses(tmp_path, Clock(), "ann") as [ann], await asyncio.start_server(page, "127.0.0.1", 0) as server:
        target = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(UsageError, match="agree"):
            await service.probe(ann.node, ann.person, [target])
        await service.consent(ann.node, True)
        assert await service.probe(ann.node, ann.person, [target]) == 1
        [one] = service.measured(ann.node, ann.person)
        assert (one.input, one.test, one.verdict in ("ok", "unknown")) == (target, "web_connectivity", True)
        [line] = (await service.export(ann.node, ann.person)).splitlines()
        assert json.loads(line)["input"] == target
        assert b"hello" not in line


async def test_a_report_tells_what_was_measured_in_its_time_however_much_was_measured_since(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "ann", "ben") as [ann, ben]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        now_s, month = NOW_MS // 1000, 30 * 86_400
        own = [
            view.run_row(replace(measured(f"https://{number}.example/"), country="BY"), at_ms, b"")
            for number, at_ms in enumerate([NOW_MS - month * 1000, *[NOW_MS] * 600])
        ]
        await ann.node.write(lambda: ann.person.vault.transaction([*own, vouched(ben)], "watch"))
        layers: tuple[Layer, ...] = ("ok",) * 5
        found = [
            Observation("t", f"https://of-ben.example/{number}", at_s, country, 1, "", True, layers, "", "")  # type: ignore[arg-type]
            for number, (at_s, country) in enumerate(
                [(now_s - month, "BY"), *[(now_s, "BY")] * 600, (now_s - month, "DE")]
            )
        ]
        await ann.node.ingest([said_by(ben, channel.space, OBSERVATION, one, one.at_s) for one in found])
        told = service.report_of(ann.node, ann.person, "BY", "Belarus", now_s - month - 60, now_s - month + 60)
        assert sorted(one.input for one in told.measured) == ["https://0.example/", "https://of-ben.example/0"]
        assert service.span_of(ann.node, ann.person, "BY") == (now_s - month, now_s), "measurements alone are something"


async def test_strangers_take_no_room_in_the_export_and_put_no_line_into_it_that_is_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with houses(tmp_path, Clock(), "ann", "ben") as [ann, ben]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await ann.node.write(lambda: ann.person.vault.transaction([vouched(ben)], "watch"))
        await keep(ann)

        def published(key: SigningKey, raw: bytes, at_s: int) -> Entry:
            layers: tuple[Layer, ...] = ("ok",) * 5
            one = Observation("t", "https://x/", at_s, "BY", 1, "", True, layers, "", "", pack_raw(raw))  # type: ignore[arg-type]
            return loose_entry(
                key, space=channel.space, kind=OBSERVATION.name, payload=OBSERVATION.encode(one),
                ts_ms=at_s * 1000, life_ms=30 * DAY_MS, priority=4,
            )  # fmt: skip

        def stranger(number: int) -> SigningKey:
            return SigningKey.from_seed(number.to_bytes(32, "big"))

        now_s = NOW_MS // 1000
        of_ben = SigningKey.from_seed(ben.person.device)
        await ann.node.ingest([published(of_ben, b'{"input": "https://ben.example/"}', now_s - 7200)])
        large = b'{"input": "https://stranger.example/", "test_keys": {"x": [%s0]}}' % (b"0.25," * 1000)
        await ann.node.ingest([published(stranger(number), large, now_s) for number in range(1, 9)])
        await ann.node.ingest(
            [
                published(stranger(101), b'{"input":\n"https://a.example/",\n"probe_ip": "203.0.113.9"}', now_s),
                published(
                    stranger(102), b'{"input": "https://b.example/"}\n{"input": "https://forged.example/"}', now_s
                ),
                published(stranger(103), b"no measurement", now_s),
            ]
        )
        monkeypatch.setattr(service, "EXPORTED_MAX", 5)
        monkeypatch.setattr(service, "EXPORTED_BYTES_MAX", 20_000, raising=False)
        exported = await service.export(ann.node, ann.person)
        inputs = [json.loads(line)["input"] for line in exported.splitlines()]
        assert inputs[:2] == ["https://example.org/", "https://ben.example/"]
        assert len(exported) <= 20_000
        assert b"forged" not in exported
        monkeypatch.setattr(service, "EXPORTED_MAX", 50)
        monkeypatch.setattr(service, "EXPORTED_BYTES_MAX", 1 << 20)
        inputs = [json.loads(line)["input"] for line in (await service.export(ann.node, ann.person)).splitlines()]
        assert inputs.count("https://stranger.example/") == 8
        assert inputs.count("https://a.example/") == 1
        assert len(inputs) == 11
        assert b"203.0.113" not in await service.export(ann.node, ann.person)


async def test_a_node_that_is_told_to_asks_public_servers_and_keeps_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_tor(host: str, target: str) -> bytes:
        return page(b"", "503 Busy") if "torproject" in host else usual(host, target)

    async with houses(tmp_path, Clock(), "Ann") as [ann], serving(tmp_path, without_tor) as servers:
        for name, value in servers.environ.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UsageError):
            await service.set_fetching(ann.node, ann.person, 6)
        await service.set_place(ann.node, ann.person, "BY", 0)
        with pytest.raises(UsageError):
            await service.set_fetching(ann.node, ann.person, 5)
        assert servers.names == []
        await service.set_fetching(ann.node, ann.person, 6)
        async with asyncio.timeout(20):
            while not service.fetch_problems(ann.person):
                await ann.node.wait(ann.node.revision)
        [problem] = service.fetch_problems(ann.person)
        assert str(problem).startswith("metrics.torproject.org cannot answer at present")
        assert {(one.source, one.entity) for one in view.series(ann.person)} == {("ioda", "BY"), ("ooni", "BY")}
        assert sorted(servers.names) == sorted(f"{name}:443" for name in NAMES[:3]), "each once, until six hours later"


def of_ioda(values: list[float | None], begin_s: int) -> bytes:
    """A file of IODA's of half-hourly values."""
    one = {"entityType": "country", "entityCode": "BY", "datasource": "bgp", "from": begin_s, "step": 1800}
    return json.dumps({"data": [[one | {"values": values}]]}).encode()


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([1000.0 + at % 7 for at in range(240)], "normal"),
        ([*(1000.0 + at % 7 for at in range(96)), *[None] * 144], "old-signals"),
        ([*[None] * 238, 1000.0, 1001.0], "no-signals"),
        ([5.0, 5.0, 5.0, 0.0] * 60, "no-signals"),
    ],
    ids=["values to the end", "rows without values at the end", "two values", "often nothing at all"],
)
async def test_the_country_s_lamp_is_green_by_values_alone_that_can_be_judged(
    tmp_path: Path, values: list[float | None], code: str
) -> None:
    async with houses(tmp_path, Clock(), "ann") as [ann]:
        await service.set_place(ann.node, ann.person, "BY", 1)
        begin_s = NOW_MS // 1000 - len(values) * 1800
        await service.read_series(ann.node, ann.person, of_ioda(values, begin_s), "ioda.json", "BY")
        light = "ok" if code == "normal" else "unknown"
        assert service.three_lamps(ann.node, ann.person).country == Lamp(light, code)


async def test_where_another_kind_of_proxy_is_set_no_server_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    async with houses(tmp_path, Clock(), "Ann") as [ann]:
        [problem] = await service.fetch_series(ann.node, ann.person, "BY")
    assert str(problem).startswith("nothing was asked")
