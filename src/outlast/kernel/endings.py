"""Endings: carries out, in the store, what tombstones say; with what revocations say of who wrote these.

On the writer thread, in the transaction that takes the entries in. Whatever comes first, what is ended has no payload
when both are there.
"""

from __future__ import annotations

from collections.abc import Sequence

from outlast.kernel.entry import Entry, Header
from outlast.kernel.kinds import KindError
from outlast.kernel.revocation import revocation_in
from outlast.kernel.room import Change, Event
from outlast.kernel.space import GENESIS, SpaceBody, read_genesis
from outlast.kernel.store import Store
from outlast.kernel.tombstone import ended_by, ends


def carry_out(store: Store, changes: Sequence[Change]) -> None:
    """Drop the payloads of what is ended now that these changes have happened."""
    touched: set[bytes] = set()
    founded: list[bytes] = []
    for entry in (change.entry for change in changes if change.event in (Event.ADMITTED, Event.PAYLOAD_ARRIVED)):
        ids = ended_by(entry)
        revocation = revocation_in(entry)
        store.note_endings(entry.id, ids if revocation is None else [revocation.device])
        touched.update(ids, [entry.id])
        if entry.header.kind == GENESIS.name:
            founded.append(entry.id)  # it shows who else may end what stands in its space
    for target in store.named(list(touched), founded):
        if _is_ended(store, target.header, target.id):
            store.end(target.id)


def _is_ended(store: Store, target: Header, target_id: bytes) -> bool:
    genesis = _genesis(store.get_now(target.space))
    for stone in store.endings(target_id):
        revocations = [one for entry in store.endings(stone.header.author) if (one := revocation_in(entry)) is not None]
        # Of an ended device what parts its chain may be forged later, and a payload does not come back.
        if ends(stone, target, genesis, revocations) and (not revocations or store.is_alone(stone)):
            return True
    return False


def _genesis(entry: Entry | None) -> SpaceBody | None:
    try:
        return read_genesis(entry) if entry is not None else None
    except KindError:
        return None
