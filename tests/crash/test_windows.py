"""Between two files, two transactions or two nodes there is a moment in which everything can end: each known one."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import subprocess
import sys
from pathlib import Path

import pytest

from outlast.errors import LockedError, StorageError, UsageError
from outlast.kernel import Home, Node, inbox, neighbours, outbox
from tests.architecture.tree import ROOT
from tests.crash.disk import Disk, Write
from tests.crash.promises import Promises
from tests.crash.toy import POST, TOY, House, Note, befriend, house, make

YEAR_MS = 366 * 86_400_000


async def two(folder: Path) -> tuple[Home, Home]:
    """Two closed homes of people who know each other."""
    homes = await make(folder / "one"), await make(folder / "other")
    async with house(homes[0]) as one, house(homes[1]) as other:
        await befriend(one, other)
    return homes


def peer_of(own: House) -> bytes:
    """The identity of the one contact."""
    (contact,) = own.person.contacts()
    return contact.identity


# ---- letters that arrive ----


def test_letters_in_any_order_are_opened_also_across_restarts(tmp_path: Path) -> None:
    async def run() -> None:
        one_home, other_home = await two(tmp_path)
        async with house(one_home) as one:
            for number in range(40):
                await one.send(peer_of(one), f"{number:02d}")
            entries = [row[0] for row in one.person.query("SELECT entry FROM sent ORDER BY rowid")][-40:]
            letters = one.node.open_store.load(entries)
        random.Random(1).shuffle(letters)
        for start in range(0, 40, 3):
            async with house(other_home) as other:
                await other.node.ingest(letters[start : start + 3])
                await other.person.inbox.read()
        async with house(other_home) as other:
            assert other.got() == [*(f"{number:02d}" for number in range(40)), "hello"]

    asyncio.run(run())


@pytest.mark.parametrize("room", range(0, 24, 6))
def test_letters_are_opened_with_their_receipts_or_not_at_all(tmp_path: Path, room: int) -> None:
    async def run() -> None:
        one_home, other_home = await two(tmp_path)
        async with house(one_home) as one:
            for number in range(30):
                await one.send(peer_of(one), f"{number:02d}")
            bundle = await one.bundle(to=peer_of(one))
        async with house(other_home) as other:
            before, sent = other.got(), other.person.query("SELECT count(*) FROM sent")[0][0]
            vault = FullVault(other, asyncio.Event(), room)
            with Disk(vault):
                with contextlib.suppress(StorageError):
                    await other.read(bundle)
                opened = len(other.got()) - len(before)
                assert opened in (0, 30)
                assert (other.person.query("SELECT count(*) FROM sent")[0][0] > sent) == bool(opened)
                vault.full = False
                await other.read(bundle)
            back = await other.bundle(to=peer_of(other))
        async with house(one_home) as one:
            await one.read(back)
            assert one.confirmed("received") == set(one.sent())

    asyncio.run(run())


def test_mail_is_opened_by_itself_when_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (inbox, outbox):
        monkeypatch.setattr(part, "RETRY_S", 0.01)

    async def run() -> None:
        one_home, other_home = await two(tmp_path)
        async with house(one_home) as one:
            await one.send(peer_of(one), "late")
            letters = one.node.open_store.load([one.person.query("SELECT entry FROM sent ORDER BY rowid DESC")[0][0]])
        refused = asyncio.Event()
        async with house(other_home) as other:
            vault = FullVault(other, refused)
            with Disk(vault):
                await other.node.ingest(letters)
                await refused.wait()
                assert "late" not in other.got()
                vault.full = False
                await other.until(lambda: "late" in other.got())

    asyncio.run(run())


class FullVault:
    """The vault's log takes ``room`` writes and nothing more while ``full``; ``refused`` tells of the first refusal."""

    def __init__(self, own: House, refused: asyncio.Event, room: int = 0) -> None:
        self.full = True
        self._room = room
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._names = {str(own.person.vault._database.path) + "-wal"}

    def __call__(self, write: Write) -> bool:
        """Refuse what goes to the vault's log."""
        if not self.full or write.path not in self._names:
            return False
        self._room -= 1
        if self._room >= 0:
            return False
        self._loop.call_soon_threadsafe(self._refused.set)
        return True


class FullStore(FullVault):
    """The same the other way round."""

    def __init__(self, own: House, refused: asyncio.Event) -> None:
        super().__init__(own, refused)
        self._names = {str(own.node.home.store_path) + "-wal"}


# ---- letters that leave ----


def test_a_letter_whose_store_was_full_leaves_by_itself_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (inbox, outbox):
        monkeypatch.setattr(part, "RETRY_S", 0.01)

    async def run() -> None:
        one_home, _ = await two(tmp_path)
        async with house(one_home) as one:
            store = FullStore(one, asyncio.Event())
            with Disk(store):
                letter = await one.send(peer_of(one), "waits")
                assert [event.event for event in one.person.custody([letter])[letter]] == ["kept"]
                (entry,) = one.person.query("SELECT entry FROM sent WHERE letter = ?", (letter,))[0]
                assert one.node.open_store.get(entry) is None
                store.full = False
                await one.until(lambda: one.node.open_store.get(entry))

    asyncio.run(run())


def test_a_post_whose_store_was_full_comes_before_the_next_one(tmp_path: Path) -> None:
    async def run() -> None:
        home = await make(tmp_path / "one")
        async with house(home) as one:
            space = await one.node.new_space(one.person, "news")
            await one.say(space, "first")
            store = FullStore(one, asyncio.Event())
            with Disk(store):
                await one.say(space, "second")
                assert one.posts() == ["first"]
        promises = Promises()
        # The replay fails as well: only the vault knows the head of the chain.
        with Disk() as disk:
            disk.fill(10**6)
            async with await Node.open(home, rooms=[TOY], dial=False) as node:
                (someone,) = node.people.values()
                one = House(node, someone)
                await one.say(space, "third")
                assert one.posts() == ["first", "second", "third"]
                assert await promises.broken(one) == []

    asyncio.run(run())


@pytest.mark.parametrize("steps", range(12))
def test_a_post_given_up_at_any_step_leaves_no_fork(tmp_path: Path, steps: int) -> None:
    async def run() -> None:
        async with house(await make(tmp_path / "one")) as one:
            space = await one.node.new_space(one.person, "news")
            await one.say(space, "0")
            task = asyncio.create_task(one.say(space, "1"))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await one.say(space, "2")
            assert await Promises().broken(one) == []
            assert {"0", "2"} <= set(one.posts())

    asyncio.run(run())


def test_what_the_door_would_refuse_is_not_promised(tmp_path: Path) -> None:
    async def run() -> None:
        async with house(await make(tmp_path / "one")) as one:
            space = await one.node.new_space(one.person, "news")
            with pytest.raises(UsageError, match="longer than its kind allows"):
                await one.node.append(one.person, space, POST, Note("for ever"), life_ms=YEAR_MS)
            assert one.person.query("SELECT * FROM outbox WHERE entry_id NOT IN (SELECT ?)", (space,)) == []
            await one.say(space, "next")
            assert await Promises().broken(one) == []

    asyncio.run(run())


def test_who_waits_is_told_when_the_node_is_closed(tmp_path: Path) -> None:
    async def run() -> None:
        one_home, _ = await two(tmp_path)
        async with house(one_home) as one:
            to = peer_of(one)
            waiting = [asyncio.create_task(one.send(to, f"{number}")) for number in range(50)]
            await asyncio.sleep(0)
            await one.node.close()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            kept = [answer for answer in answers if isinstance(answer, bytes)]
            refused = [answer for answer in answers if isinstance(answer, LockedError)]
            assert len(kept) + len(refused) == 50
            with pytest.raises(LockedError):
                await one.person.outbox.enqueue(to, "toy.letter", b"", None)
        async with house(one_home) as one:
            held = {row[0] for row in one.person.query("SELECT letter FROM local_toy_sent")}
            assert held.issuperset(kept)
            assert await Promises().broken(one) == []

    asyncio.run(run())


def test_a_letter_that_a_link_has_taken_cannot_be_taken_back(tmp_path: Path) -> None:
    async def run() -> None:
        one_home, other_home = await two(tmp_path)
        async with house(one_home, dial=True) as one, house(other_home) as other:
            letter = await one.send(peer_of(one), "apart")
            assert await one.person.take_back(letter, local=one.forgetting(letter))
            await one.node.peer_add(other.node.transport_id, "127.0.0.1", await other.node.listen("127.0.0.1", 0))
            await one.until(lambda: one.node.peers()[0].connected)
            await one.send(peer_of(one), "first")
            await other.until(lambda: "first" in other.got())
            letter = await one.send(peer_of(one), "live")
            assert not await one.person.take_back(letter, local=one.forgetting(letter))
            await other.until(lambda: "live" in other.got())
            assert other.got() == one.sent() == ["first", "hello", "live"]

    asyncio.run(run())


# ---- bundles ----


def test_a_bundle_that_nobody_vouched_for_hides_nothing_from_the_next_one(tmp_path: Path) -> None:
    async def run() -> None:
        one_home, other_home = await two(tmp_path)
        async with house(one_home) as one, house(other_home) as other:
            await one.send(peer_of(one), "early")
            size = len(await one.bundle(to=peer_of(one)))

            class Stick(io.BytesIO):
                def write(self, data: object) -> int:
                    count = super().write(data)  # type: ignore[arg-type]
                    if self.tell() >= size:
                        raise OSError("the stick was pulled out when all was written")
                    return count

            file = Stick()
            with pytest.raises(OSError, match="pulled out"):
                await one.person.write_bundle(file, to=peer_of(one))
            await one.send(peer_of(one), "late")
            lost = await one.bundle(to=peer_of(one))
            assert lost
            await other.read(file.getvalue())
            await one.read(await other.bundle(to=peer_of(other)))
            await other.read(await one.bundle(to=peer_of(one)))
            assert other.got() == one.sent()

    asyncio.run(run())


# ---- spaces, views ----


def test_views_equal_a_rebuild_when_a_space_was_left(tmp_path: Path) -> None:
    async def run() -> None:
        async with house(await make(tmp_path / "one")) as one:
            space = await one.node.new_space(one.person, "news")
            await one.say(space, "gone soon")
            await one.node.unfollow(space)
            views = one.views()
            await one.node.rebuild()
            assert one.posts() == []
            assert one.views()[0] == views[0]
            await one.node.follow(space)
        async with house(Home(tmp_path / "one")) as one:
            entry = await one.say(space, "back again")
            (seq,) = one.node.query("SELECT seq FROM entry WHERE id = ?", (entry,))[0]
            assert seq + 2**63 == 2, "the chain goes on where it was, though the store forgot it"

    asyncio.run(run())


# ---- two nodes on one home ----

HOLDER = """
import asyncio, sys
from pathlib import Path
from outlast.kernel import Home
from tests.crash.toy import house

async def hold() -> None:
    async with house(Home(Path(sys.argv[1]))):
        print("open", flush=True)
        await asyncio.Event().wait()

asyncio.run(hold())
"""


def test_a_second_node_on_a_home_gets_one_clear_line_until_the_first_is_dead(tmp_path: Path) -> None:
    home = asyncio.run(make(tmp_path / "one"))

    async def visit() -> None:
        async with house(home):
            pass

    command = [sys.executable, "-c", HOLDER, str(home.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "open\n"
            with pytest.raises(StorageError, match="is open in another Outlast: use that one, end it") as error:
                asyncio.run(visit())
            assert "\n" not in str(error.value)
        finally:
            first.kill()
    asyncio.run(visit())


# ---- links ----


def test_a_link_that_broke_is_called_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "RETRY_MIN_S", 0.01)

    async def run() -> None:
        one_home, other_home = await two(tmp_path)
        async with house(one_home, dial=True) as one:
            async with house(other_home) as other:
                port = await other.node.listen("127.0.0.1", 0)
                await one.node.peer_add(other.node.transport_id, "127.0.0.1", port)
                await one.until(lambda: one.node.peers()[0].connected)
            await one.until(lambda: not one.node.peers()[0].connected)
            await one.send(peer_of(one), "meanwhile")
            async with house(other_home) as other:
                await other.node.listen("127.0.0.1", port)
                await other.until(lambda: other.got() == one.sent())

    asyncio.run(run())


def test_a_neighbour_whose_disk_is_full_gets_everything_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "RETRY_MIN_S", 0.01)

    async def run() -> None:
        one_home, other_home = await two(tmp_path)
        async with house(one_home, dial=True) as one, house(other_home) as other:
            refused = asyncio.Event()
            store = FullStore(other, refused)
            with Disk(store):
                await one.node.peer_add(other.node.transport_id, "127.0.0.1", await other.node.listen("127.0.0.1", 0))
                await one.until(lambda: one.node.peers()[0].connected)
                await one.send(peer_of(one), "too much")
                await refused.wait()
                refused.clear()
                await refused.wait()
                assert other.got() == ["hello"]
                assert one.confirmed("copied") == {"hello"}
                store.full = False
                await other.until(lambda: other.got() == one.sent())
                await one.until(lambda: one.confirmed("received") == set(one.sent()))

    asyncio.run(run())
