"""A relay that has carried files, and a sender's store without their vault: neither tells whose file is for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from outlast.kernel.chunks import Loaded
from outlast.kernel.home import Home
from outlast.kernel.parcel import PARCEL_SPACE
from outlast.kernel.person import Person
from outlast.rooms.carry import files
from outlast.testing.clock import FakeClock
from tests.seizure import needles
from tests.seizure.taken import Opened, Taken, take
from tests.seizure.village import befriend, village

NAME = "statement of the witnesses.odt"
CONTENT = b"what was seen at the old mill that night, " * 20_000
NOW_MS = 1_795_305_912_345


async def stream() -> AsyncIterator[bytes]:
    yield CONTENT


async def until(person: Person, holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await person.node.wait(person.node.revision)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Taken, Taken, needles.Needles]:
    """The relay's home and the sender's after a file has gone from one to another person through the relay."""
    return asyncio.run(asyncio.wait_for(_carry(tmp_path_factory.mktemp("village")), 120))


async def _carry(folder: Path) -> tuple[Taken, Taken, needles.Needles]:
    paths: dict[str, Home] = {}
    async with village(folder, FakeClock(NOW_MS)) as place:
        vera, walter, relay = [await place.join(name) for name in ("Veronika Volkova", "Waldemar Steiner", "relay")]
        await befriend(vera, walter)
        letter = await files.send(vera.node, vera, walter.identity, stream(), name=NAME)
        for near, far in ((vera, relay), (relay, walter)):
            await far.node.peer_add(near.node.transport_id, "127.0.0.1", 9)
            port = await far.node.listen("127.0.0.1", 0)
            await near.node.peer_add(far.node.transport_id, "127.0.0.1", port)
        await until(walter, lambda: (f := files.files_of(walter.node, walter, [letter])) and f[letter].state == "here")
        assert b"".join(files.read(walter.node, walter, letter)) == CONTENT
        await until(vera, lambda: "received" in [one.event for one in vera.custody([letter])[letter]])
        [file] = files.listing(vera.node, vera)
        found = needles.of_text("the file's name", NAME) | needles.of_bytes("the file's key", file.file.key)
        found |= needles.of_text("the content", CONTENT[:42].decode())
        for person in (vera, walter):
            found |= await needles.of_person(person)
        chunk: Loaded = relay.node.open_store.chunk(file.file.parcels[0], 0)
        assert chunk.data is not None, "the relay has carried it"
        for name, person in place.people.items():
            paths[name] = person.node.home
    return take(paths["relay"].path, None), take(paths["Veronika Volkova"].path, None), found


def rows(store: Opened) -> list[dict[str, object]]:
    """The store's parcels."""
    space = next(row[0] for row in store.tables["space"] if row[1] == PARCEL_SPACE)
    named = [dict(zip(store.columns["entry"], row, strict=True)) for row in store.tables["entry"]]
    return [row for row in named if row["space"] == space]


def test_a_relay_that_carried_a_file_has_neither_its_name_nor_its_key_nor_its_people(
    homes: tuple[Taken, Taken, needles.Needles],
) -> None:
    relay, _, found = homes
    assert rows(relay.store)
    assert needles.search(found, relay.everything()) == []


def test_the_store_of_who_sent_a_small_file_holds_it_as_a_relay_does(
    homes: tuple[Taken, Taken, needles.Needles],
) -> None:
    relay, sender, found = homes
    told = ("id", "expires_day", "ts_ms", "author", "seq", "rank", "whole", "header")
    of_relay, of_sender = ([{name: row[name] for name in told} for row in rows(one.store)] for one in (relay, sender))
    assert of_relay == of_sender
    wanted = [[row[3] for row in one.store.tables["file"]] for one in (relay, sender)]
    assert wanted == [[0], [0]]
    secret = {needle: what for needle, what in found.items() if "file" in what or "content" in what}
    assert needles.search(secret, sender.store.everything()) == []
    assert needles.search(secret, sender.vaults[0].everything()) != [], "they would be found"
