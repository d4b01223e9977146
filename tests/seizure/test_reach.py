"""Ways out in a taken home: bridges, who gave them, where they worked, and what is left when they are wiped."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from outlast.address import Target
from outlast.kernel import Home
from outlast.rooms.reach import service, view
from outlast.rooms.reach.proto.chooser import Worked
from outlast.rooms.reach.proto.links import read_bridge
from outlast.rooms.reach.serving import Served
from tests.seizure.needles import Needles, of_bytes, of_text, search
from tests.seizure.taken import Opened, Taken, take
from tests.unit.rooms.carry.houses import House
from tests.unit.rooms.reach.towns import Clock, houses

LINK = "ss://YWVzLTI1Ni1nY206bm9ib2R5LWtub3dz@192.0.2.77:8388#the-aunt-abroad"
NETWORK = "0123456789abcdef0123456789abcdef"


def copied(home: Home, folder: Path) -> Taken:
    """A home as it lies there while its node runs, in other hands with all its keys."""
    shutil.copytree(home.path, folder)
    return take(folder, None)


def closed(taken: Taken) -> Iterator[tuple[str, bytes]]:
    """What is there for somebody who cannot open the vault: the store, opened, and all files as they lie there."""
    yield from taken.store.everything()
    for path, data in taken.files.items():
        yield path, path.encode() + data


async def busy(ann: House, bob: House) -> Needles:
    """Ann has bridges, gave some, borrows an uplink and lends hers; what of it nobody is to find."""
    node, person = ann.node, ann.person
    await service.add_bridges(node, person, LINK)
    await service.serve(bob.node, bob.person, Served("web", "127.0.0.1:1", Target("192.0.2.88", 443), pin=b"p" * 32))
    await service.invite(bob.node, bob.person, person.identity)
    await bob.carry_to(ann)
    await ann.until(lambda: len(service.bridges(person)) == 2)
    given = next(one for one in service.bridges(person) if one.peer)
    await service.invite(
        node, person, bob.person.identity, next(one.id for one in service.bridges(person) if not one.peer)
    )
    await service.lend(node, person, bob.person.identity)
    await service.remember(node, person, view.worked_rows(NETWORK, [Worked(given.id, node.today())]))
    found: Needles = {}
    for text in (LINK, "nobody-knows", "192.0.2.77", "the-aunt-abroad", given.link, "192.0.2.88", given.id, NETWORK):
        found |= of_text("a bridge, or where it worked", text)
    secret = read_bridge(given.link).secret  # type: ignore[union-attr]  # a web bridge
    found |= of_bytes("a bridge's secret", secret) | of_bytes("a number", given.number or b"")
    return found | of_bytes("a share's key", service.shares(person)[0].key)


def test_who_cannot_open_the_vault_finds_no_bridge_and_who_wiped_them_has_none(tmp_path: Path) -> None:
    async def story() -> None:
        async with houses(tmp_path, Clock(), "Ann", "Bob") as (ann, bob):
            needles = await busy(ann, bob)
            taken = copied(ann.node.home, tmp_path / "taken")
            assert search(needles, closed(taken)) == []
            assert search(needles, vault_of(taken).everything()), "they stand there, so that this test can fail"
            await service.forget_all(ann.node, ann.person)
            await service.stop_lending(ann.node, ann.person, bob.person.identity)
            # As the node does by itself within the hour, and when it is closed.
            await ann.node.write(partial(ann.person.vault.forget_deleted))
            left = search(needles, vault_of(copied(ann.node.home, tmp_path / "later")).everything())
            assert left == []

    asyncio.run(story())


def vault_of(taken: Taken) -> Opened:
    """The vault, opened."""
    (vault,) = taken.vaults
    return vault
