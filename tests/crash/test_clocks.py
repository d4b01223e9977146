"""A clock that jumps between two runs of a node deletes nothing, says so, and keeps no letter from going out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast.kernel import DAY_MS, Home
from tests.crash.promises import Promises
from tests.crash.toy import House, befriend, house, make

YEARS_MS = 365 * DAY_MS * 30


def shifted(by_ms: int) -> Callable[[], int]:
    """A clock that is wrong by so much."""
    return lambda: time.time_ns() // 1_000_000 + by_ms


RIGHT = shifted(0)


async def two(folder: Path) -> tuple[Home, Home, bytes, Promises]:
    """Homes of two who know and verified each other, a channel, and letters and posts of which none has left."""
    homes = await make(folder / "one"), await make(folder / "other")
    promises = Promises()
    async with house(homes[0]) as one, house(homes[1]) as other:
        await befriend(one, other)
        space = await one.node.new_space(one.person, "news")
        await other.node.follow(space)
        await one.person.verify(peer_of(one))
        await other.person.verify(peer_of(other))
        for number in range(3):
            await promise(one, promises, space, f"before {number}")
        assert await promises.broken(one) == []
    return *homes, space, promises


async def promise(own: House, promises: Promises, space: bytes, text: str) -> bytes:
    """A letter and a post; the letter."""
    letter = await own.send(peer_of(own), text)
    promises.letters[letter] = text
    promises.posts[await own.say(space, f"post {text}")] = f"post {text}"
    return letter


def peer_of(own: House) -> bytes:
    """The identity of the one contact."""
    (contact,) = own.person.contacts()
    return contact.identity


Heard = Callable[[House], bool]
"""Whether somebody heard that all their letters were received."""


async def meet_by_stick(one: House, other: House, space: bytes, heard: Heard) -> None:
    """One trip there and back, and the receipts of what came back; mail of odd dates waits a while for its turn."""
    await other.read(await one.bundle(to=peer_of(one)))
    await other.read(await one.bundle(space=space))
    await other.until(lambda: other.got() == one.sent())
    await one.read(await other.bundle(to=peer_of(other)))
    await one.until(lambda: one.got() == other.sent() and heard(one))
    await other.read(await one.bundle(to=peer_of(one)))
    await other.until(lambda: heard(other))


async def meet_by_link(one: House, other: House, _space: bytes, heard: Heard) -> None:
    """Over TCP, until both have all."""
    await one.node.peer_add(other.node.transport_id, "127.0.0.1", await other.node.listen("127.0.0.1", 0))
    await other.until(lambda: other.got() == one.sent() and other.posts() == one.posts())
    await one.until(lambda: one.got() == other.sent() and heard(one))
    await other.until(lambda: heard(other))
    await one.node.peer_remove(other.node.transport_id)


@pytest.mark.parametrize("by_ms", [-YEARS_MS, -9 * DAY_MS, 9 * DAY_MS, YEARS_MS], ids=["-30y", "-9d", "+9d", "+30y"])
@pytest.mark.parametrize("meet", [meet_by_stick, meet_by_link], ids=["stick", "link"])
def test_a_clock_that_jumped_loses_nothing_and_letters_go_on(
    tmp_path: Path, by_ms: int, meet: Callable[..., object]
) -> None:
    async def run() -> None:
        one_home, other_home, space, promises = await two(tmp_path)
        async with house(one_home, system_ms=shifted(by_ms), dial=True) as one, house(other_home) as other:
            assert await promises.broken(one) == []
            odd = await promise(one, promises, space, "with the wrong clock")
            await other.send(peer_of(other), "to the one with the wrong clock")
            assert await promises.broken(one) == []
            if abs(by_ms) == YEARS_MS:
                await one.until(lambda: one.node.clock_warning() or one.node.pruning_stopped())
                assert "\n" not in f"{one.node.clock_warning()}{one.node.pruning_stopped()}"
            held = one.node.query("SELECT count(*) FROM entry")
            # Only some of it leaves now: what is left must not count as told to the other side.
            await other.read(await one.bundle(to=peer_of(one)))
            await one.read(await other.bundle(to=peer_of(other)))
            await one.node._tidy()
            await one.node._tidy()
            assert one.node.pruned_day * DAY_MS <= RIGHT()
            assert one.node.query("SELECT count(*) FROM entry")[0] >= held[0]
            assert await promises.broken(one) == []
        # By those dates it was received before the last week.
        promises.forgettable |= {odd} if by_ms < 0 else set()
        forgettable = {promises.letters[letter] for letter in promises.forgettable}

        def heard(own: House) -> bool:
            return set(own.sent()) - own.confirmed("received") <= forgettable

        async with house(one_home, dial=True) as one, house(other_home) as other:
            assert abs(one.node.now_ms() - RIGHT()) < DAY_MS, "the wrong time does not stay"
            assert await promises.broken(one) == []
            await promise(one, promises, space, "with the right clock again")
            await other.send(peer_of(other), "welcome back")
            await meet(one, other, space, heard)  # type: ignore[misc]
            assert other.got() == one.sent()
            assert one.got() == other.sent()
            assert other.posts() == one.posts()
            assert heard(one)
            assert other.confirmed("received") == set(other.sent())
            assert await promises.broken(one) == []

    asyncio.run(run())


def test_a_clock_that_forgot_the_date_writes_letters_that_others_still_take(tmp_path: Path) -> None:
    async def run() -> None:
        one_home, other_home, space, _ = await two(tmp_path)
        years = shifted(YEARS_MS)
        # Thirty years later both were told that the date is right, and have deleted what was over.
        for home in (one_home, other_home):
            async with house(home, system_ms=years) as own:
                await own.node.confirm_clock()
                assert own.node.query("SELECT count(*) FROM entry WHERE expires_day > 0") == [(0,)]
        async with house(one_home, system_ms=lambda: 0) as one, house(other_home, system_ms=years) as other:
            assert one.node.clock_warning() is not None
            assert one.node.now_ms() + 2 * DAY_MS > years()
            await one.person.add_contact(await other.person.link())
            await other.person.add_contact(await one.person.link())
            await one.send(peer_of(one), "from a machine without a clock")
            await one.say(space, "from there, too")
            await other.read(await one.bundle(to=peer_of(one)))
            await other.read(await one.bundle(space=space))
            await other.until(lambda: other.got() == ["from a machine without a clock", "hello"])
            assert other.posts() == ["from there, too"]

    asyncio.run(run())


def test_the_owner_can_take_a_wrong_word_about_the_clock_back(tmp_path: Path) -> None:
    async def run() -> None:
        home = await make(tmp_path / "one")
        async with house(home, system_ms=shifted(YEARS_MS)) as one:
            await one.node.confirm_clock()
            space = await one.node.new_space(one.person, "news")
            await one.say(space, "in thirty years")
        async with house(home) as one:
            assert "set the clock" in str(one.node.clock_warning())
            await one.node.confirm_clock()
            assert one.node.clock_warning() is None
            assert abs(one.node.now_ms() - RIGHT()) < DAY_MS
            await one.say(space, "today")
            assert one.posts() == ["in thirty years", "today"]
            assert await Promises().broken(one) == []

    asyncio.run(run())


def test_a_node_that_is_always_on_is_not_told_that_its_date_leapt(tmp_path: Path) -> None:
    async def run() -> None:
        now = RIGHT()
        async with house(await make(tmp_path / "one"), system_ms=lambda: now) as one:
            space = await one.node.new_space(one.person, "news")
            await one.say(space, "a post")
            for _ in range(60):
                now += DAY_MS
                await one.node._tidy()
            assert "No verified contact" in str(one.node.pruning_stopped())
            assert one.node.clock_warning() is None
            assert one.posts() == ["a post"]
            await one.node.confirm_clock()
            assert one.node.pruning_stopped() is None
            assert one.posts() == []

    asyncio.run(run())


def test_contacts_who_are_silent_or_whose_letters_come_late_make_no_clock_wrong(tmp_path: Path) -> None:
    async def run() -> None:
        now = RIGHT()
        one_home, other_home, _, _ = await two(tmp_path)
        async with house(one_home) as one, house(other_home, system_ms=lambda: now) as other:
            await other.read(await one.bundle(to=peer_of(one)))
            await one.send(peer_of(one), "long on its way")
            late = await one.bundle(to=peer_of(one))
            for _ in range(10):
                now += DAY_MS
                await other.node._tidy()
                assert other.node.clock_warning() is None
            await other.read(late)
            assert "long on its way" in other.got()
            assert other.node.clock_warning() is None

    asyncio.run(run())


def test_what_came_while_a_clock_ran_ahead_is_no_word_about_the_date_for_years(tmp_path: Path) -> None:
    async def run() -> None:
        now = RIGHT()
        one_home, other_home, _, _ = await two(tmp_path)
        async with house(one_home) as one, house(other_home, system_ms=lambda: now + YEARS_MS) as other:
            await other.read(await one.bundle(to=peer_of(one)))
            await other.until(other.got)
            assert other.node.clock_warning() is not None
        async with house(other_home, system_ms=lambda: now) as other:
            for _ in range(50):
                now += DAY_MS
                await other.node._tidy()
            assert other.node.clock_warning() is None
            assert other.person.claims() == []

    asyncio.run(run())
