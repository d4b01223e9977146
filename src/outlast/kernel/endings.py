"""Endings: carries out, in the store, what tombstones say; with what revocations say of who wrote these.

On the writer thread, in the transaction that takes the entries in. Whatever comes first, what is ended has no payload
when both are there. What a stranger says of an entry is looked at once, when it comes, and never again.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from outlast.kernel.entry import Header
from outlast.kernel.kinds import KindError
from outlast.kernel.revocation import revocation_in
from outlast.kernel.room import Change, Event
from outlast.kernel.space import GENESIS, read_genesis
from outlast.kernel.store import Store
from outlast.kernel.tombstone import Stone, allowed, ends, read_stone


def carry_out(store: Store, changes: Sequence[Change]) -> None:
    """Drop the payloads of what is ended now that these changes have happened."""
    stones: list[Stone] = []
    others: list[bytes] = []
    founded: list[bytes] = []
    for entry in (change.entry for change in changes if change.event in (Event.ADMITTED, Event.PAYLOAD_ARRIVED)):
        if (stone := read_stone(entry)) is not None:
            store.note_endings(
                entry.id, [(id, who) for id in stone.ids for who in (entry.header.author, stone.identity)]
            )
            stones.append(stone)
        elif (revocation := revocation_in(entry)) is not None:
            store.note_endings(entry.id, [(revocation.device, revocation.identity)])
        else:
            others.append(entry.id)
            if entry.header.kind == GENESIS.name:
                founded.append(entry.id)  # it shows who else may end what stands in its space
    for stone in stones:
        for target in store.named(stone.ids):
            if _ends(store, stone, target.header, _named(store, target.header.space)):
                store.end(target.id)
    for target in store.named(others, founded):
        named = _named(store, target.header.space)
        for entry in store.endings(target.id, {target.header.author, *named}):
            found = read_stone(entry)
            if found is not None and _ends(store, found, target.header, named):
                store.end(target.id)
                break


def _ends(store: Store, stone: Stone, target: Header, named: Set[bytes]) -> bool:
    about = store.endings(stone.entry.header.author, {stone.identity, *named})
    revocations = [one for entry in about if (one := revocation_in(entry)) is not None]
    # Of an ended device what parts its chain may be forged later, and a payload does not come back.
    return ends(stone, target, named, revocations) and (not revocations or store.is_alone(stone.entry))


def _named(store: Store, space: bytes) -> set[bytes]:
    entry = store.get_now(space)
    try:
        return allowed(read_genesis(entry)) if entry is not None else set()
    except KindError:
        return set()
