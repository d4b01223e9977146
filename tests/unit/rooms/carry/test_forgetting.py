"""Letters disappear at the exact moment on both sides, leave nothing behind in the vault, and what is removed can be
restored for a while."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from outlast.errors import NotFoundError, UsageError
from outlast.kernel import DAY_MS, Home, open_backup
from outlast.rooms.carry import file_view, files, forgetting, places, service, view
from outlast.rooms.carry.places import HOUR_MS
from tests.seizure.taken import take
from tests.unit.rooms.carry.houses import House, houses

SECRET = "meet behind the bakery"


@dataclass
class Clock:
    """A clock that is moved by hand."""

    at_ms: int = field(default_factory=lambda: int(time.time() * 1000))

    def __call__(self) -> int:
        return self.at_ms


def shown(house: House, peer: House) -> list[str]:
    """Every way in which a text is shown."""
    person, other = house.person, peer.person.identity
    now = house.node.now_ms()
    return [
        one.text
        for found in (
            service.inbox(person),
            service.sent(person),
            service.conversation(person, other),
            [one.last for one in service.conversations(person)],
            service.search(person, "bakery"),
            service.search(person, "be"),
        )
        for one in found
    ] + [SECRET] * sum(view.unread(person, now).values())


def rows(house: House) -> int:
    """How many letters the vault still holds, shown or not."""
    count: int = house.person.query(f"SELECT count(*) FROM {view.MESSAGE}")[0][0]
    return count


def holding(home: Path) -> list[str]:
    """Where the text stands in a home that was taken with its keys, free pages and logs included."""
    return [place for place, data in take(home, None).everything() if SECRET[5:].encode() in data]


async def test_a_letter_with_a_life_is_hidden_at_its_end_and_then_destroyed_on_both_sides(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", now_ms=clock) as (ann, ben):
        written = clock.at_ms
        letter = await service.send(ann.node, ann.person, ben.person.identity, SECRET, life_ms=HOUR_MS)
        clock.at_ms += 20 * 60_000
        await ann.carry_to(ben)
        await ben.until(lambda: service.inbox(ben.person))
        for house in (ann, ben):
            found = view.find_message(house.person, letter, clock.at_ms)
            assert found is not None
            assert found.until_ms == written + HOUR_MS
            await house.node.write(lambda v=house.person.vault: v.write(lambda t: t.execute(view.LETTERS.fill, (9,))))

        clock.at_ms = written + HOUR_MS - 1
        assert holding(tmp_path / "ann")
        assert holding(tmp_path / "ben")
        assert set(shown(ann, ben)) == {SECRET}
        assert set(shown(ben, ann)) == {SECRET}
        clock.at_ms += 1
        assert shown(ann, ben) == []
        assert shown(ben, ann) == []
        with pytest.raises(NotFoundError, match="not in this conversation"):
            await service.send(ben.node, ben.person, ann.person.identity, "an answer", letter)

        for house, name in ((ann, "ann"), (ben, "ben")):
            house.node.touch()
            await house.until(lambda house=house: not rows(house))
            assert await forgetting.destroy(house.node, house.person) == 0
            await house.node.write(house.person.vault.forget_deleted)
            assert holding(tmp_path / name) == []


async def test_what_comes_after_its_time_is_never_shown(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", now_ms=clock) as (ann, ben):
        await service.send(ann.node, ann.person, ben.person.identity, SECRET, life_ms=HOUR_MS)
        await service.send(ann.node, ann.person, ben.person.identity, "stays")
        clock.at_ms += HOUR_MS
        await ann.carry_to(ben)
        await ben.until(lambda: service.inbox(ben.person))
        assert [one.text for one in service.inbox(ben.person)] == ["stays"]
        assert rows(ben) == 1


async def test_a_letter_that_nobody_is_shown_is_not_said_to_have_been_received(tmp_path: Path) -> None:
    slow, right = Clock(), Clock()
    slow.at_ms -= 5 * HOUR_MS
    async with houses(tmp_path, "ann", now_ms=slow) as (ann,), houses(tmp_path, "ben", now_ms=right) as (ben,):
        await ann.person.add_contact(await ben.person.link())
        await ben.person.add_contact(await ann.person.link())
        over = await service.send(ann.node, ann.person, ben.person.identity, SECRET, life_ms=HOUR_MS)
        stays = await service.send(ann.node, ann.person, ben.person.identity, "stays")
        await ann.carry_to(ben)
        await ben.settled()
        assert [one.text for one in service.inbox(ben.person)] == ["stays"]
        await ben.carry_to(ann)
        await ann.settled()
        known = service.custody(ann.person, service.sent(ann.person))
        assert {letter: [one.event for one in events] for letter, events in known.items()} == {
            over: ["kept", "copied"],
            stays: ["kept", "copied", "received"],
        }


async def test_the_clock_of_a_sender_that_runs_ahead_lets_nothing_live_longer(tmp_path: Path) -> None:
    ahead, right = Clock(), Clock()
    ahead.at_ms += 5 * HOUR_MS
    async with houses(tmp_path, "ann", now_ms=ahead) as (ann,), houses(tmp_path, "ben", now_ms=right) as (ben,):
        await ann.person.add_contact(await ben.person.link())
        await ben.person.add_contact(await ann.person.link())
        await service.send(ann.node, ann.person, ben.person.identity, SECRET, life_ms=HOUR_MS)
        await ann.carry_to(ben)
        await ben.until(lambda: service.inbox(ben.person))
        assert service.inbox(ben.person)[0].until_ms == right.at_ms + HOUR_MS


async def test_a_conversation_can_say_how_long_what_is_written_in_it_stays(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        node, person, to = ann.node, ann.person, ben.person.identity
        await places.set_life(node, person, to, DAY_MS)
        with pytest.raises(UsageError, match="an hour, a day or a week"):
            await places.set_life(node, person, to, DAY_MS + 1)
        with pytest.raises(UsageError, match="an hour, a day or a week"):
            await service.send(node, person, to, "text", life_ms=-1)
        await service.send(node, person, to, "passes")
        await service.send(node, person, to, "stays", life_ms=0)
        lives = {one.text: one.until_ms and one.until_ms - one.at_ms for one in service.sent(person)}
        assert lives == {"passes": DAY_MS, "stays": None}


async def test_a_backup_has_no_letters_that_disappear(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        to = ben.person.identity
        await service.send(ann.node, ann.person, to, "passes", life_ms=HOUR_MS)
        await files.send(ann.node, ann.person, to, io.BytesIO(b"x"), name="passes.txt", life_ms=HOUR_MS)
        await service.send(ann.node, ann.person, to, "stays")
        removed = await service.send(ann.node, ann.person, to, "removed")
        await forgetting.remove(ann.node, ann.person, removed)
        tables = open_backup(await ann.person.backup("a long passphrase"), "a long passphrase").rooms["carry"].tables
        texts = tables[view.MESSAGE].columns.index("text")
        assert [row[texts] for row in tables[view.MESSAGE].rows] == ["stays"]
        assert tables[file_view.FILE].rows == []


async def test_a_file_disappears_with_its_letter_and_so_does_what_it_takes(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", now_ms=clock) as (ann, ben):
        await places.set_life(ann.node, ann.person, ben.person.identity, HOUR_MS)
        letter = await files.send(ann.node, ann.person, ben.person.identity, io.BytesIO(b"x" * 9000), name="map.png")
        assert [one.file.name for one in files.listing(ann.node, ann.person)] == ["map.png"]
        clock.at_ms += HOUR_MS
        assert files.listing(ann.node, ann.person) == []
        with pytest.raises(NotFoundError):
            files.find(ann.node, ann.person, letter)
        ann.node.touch()
        await ann.until(lambda: not rows(ann))
        assert ann.person.query(f"SELECT * FROM {file_view.FILE}") == []
        assert ann.person.query("SELECT * FROM parcel") == []


async def test_what_is_removed_goes_at_once_and_can_be_restored_for_a_while(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", now_ms=clock) as (ann, ben):
        node, person, to = ann.node, ann.person, ben.person.identity
        first = await service.send(node, person, to, SECRET)
        await service.send(node, person, to, SECRET + ", too", life_ms=HOUR_MS)
        with pytest.raises(NotFoundError):
            await forgetting.remove(node, person, bytes(16))
        await forgetting.remove(node, person, first)
        assert set(shown(ann, ben)) == {SECRET + ", too"}
        assert forgetting.removed(person, to, clock.at_ms) == (1, clock.at_ms + forgetting.RESTORE_MS)
        assert await forgetting.remove_all(node, person, to) == 1
        assert shown(ann, ben) == []

        clock.at_ms += forgetting.RESTORE_MS - 1
        assert await forgetting.restore(node, person, to) == 2
        lives = {one.text: one.until_ms and one.until_ms - one.at_ms for one in service.sent(person)}
        assert lives == {SECRET: None, SECRET + ", too": HOUR_MS}

        assert await forgetting.remove_all(node, person, to) == 2
        clock.at_ms += forgetting.RESTORE_MS
        assert forgetting.removed(person, to, clock.at_ms) == (0, 0)
        assert await forgetting.restore(node, person, to) == 0
        node.touch()
        await ann.until(lambda: not rows(ann))


async def test_what_is_over_when_a_node_starts_is_destroyed_then(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", now_ms=clock) as (ann, ben):
        await service.send(ann.node, ann.person, ben.person.identity, SECRET, life_ms=HOUR_MS)
    clock.at_ms += HOUR_MS
    async with houses(tmp_path, "ann", now_ms=clock) as (ann,):
        assert service.sent(ann.person) == []
        await ann.until(lambda: not rows(ann))
    assert Home(tmp_path / "ann").exists()


def test_what_cannot_be_destroyed_now_is_not_tried_without_a_pause() -> None:
    assert forgetting.until_next_look_s([5_000, 9_000], 4_000) == 1.0
    assert forgetting.until_next_look_s([], 4_000) == forgetting.LOOK_S
    assert forgetting.until_next_look_s([1_000, 99_000], 4_000) == forgetting.RETRY_S > 0


async def test_a_letter_that_is_taken_back_and_a_draft_that_is_emptied_leave_nothing_behind(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        to = ben.person.identity
        letter = await service.send(ann.node, ann.person, to, SECRET)
        await service.take_back(ann.node, ann.person, letter)
        assert holding(tmp_path / "ann") == []
        await places.keep_draft(ann.node, ann.person, to, SECRET)
        await places.keep_draft(ann.node, ann.person, to, "")
        assert holding(tmp_path / "ann") == []
