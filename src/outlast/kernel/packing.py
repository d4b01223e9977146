"""Packing: a file on its way into parcels (``parcel``), sealed as it comes, and out of them again.

Some MiB of it are in memory at a time. What was packed is durable in the store and belongs to nobody until a letter
names it (``Person.send_parcels``); what no letter took is let go of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from outlast.errors import NotFoundError, StorageError, UsageError
from outlast.kernel.chunks import BATCHES, PLACES_MAX, Cut, Manifest, places
from outlast.kernel.entry import CHUNK_BYTES, Entry
from outlast.kernel.identity import SigningKey
from outlast.kernel.overlap import Overlap
from outlast.kernel.parcel import (
    FILE_MAX_BYTES,
    KEY_BYTES,
    PARCEL_SPACE,
    PLAIN_BYTES,
    ParcelError,
    Sealer,
    counts_of,
    make_parcel,
)
from outlast.kernel.store import Progress

if TYPE_CHECKING:
    from outlast.kernel.node import Node

BLOCK_CHUNKS: Final = 64
"""Chunks that are sealed and written at a time; parcels are made of whole blocks."""
_BLOCK_BYTES: Final = BLOCK_CHUNKS * PLAIN_BYTES


class Packing:
    """A file that is being packed. Use it as an async context manager: at its end what no letter took is let go of."""

    def __init__(self, node: Node, announced_bytes: int = 0) -> None:
        """Nothing is packed yet; raises UsageError when more is announced than a file may have."""
        _check_size(announced_bytes)
        self.key = os.urandom(KEY_BYTES)
        """Opens what is packed (32 B)."""
        self.size_bytes = 0
        """What was fed so far."""
        self.parcels: tuple[Entry, ...] = ()
        """What the letter is to name, once all is packed."""
        self._node = node
        self._sealer = Sealer(self.key)
        self._rest = bytearray()
        self._hashes: list[list[bytes]] = []
        self._stages: list[int | None] = []
        self._first = b""  # the only chunk of a parcel that has one, which is no manifest's
        self._staging = Overlap(BATCHES)

    async def __aenter__(self) -> Self:
        """This."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what no letter took; what one took and the store has no room for yet is kept for it."""
        await self._staging.__aexit__(kind, error or StorageError(), trace)
        store = self._node.open_store
        here = store.known([parcel.id for parcel in self.parcels])
        waiting = {parcel.id for parcel in self.parcels} & self._node.outgoing()
        for place, stage in enumerate(self._stages):
            parcel = self.parcels[place].id if place < len(self.parcels) else b""
            if stage is not None and (parcel in here or parcel not in waiting):
                with contextlib.suppress(StorageError):
                    await self._node.write(partial(store.close_stage, stage))
                    await self._node.free_chunks(store)

    async def feed(self, data: bytes) -> None:
        """More of the file; raises UsageError when it is too large, StorageError when the disk is full."""
        self.size_bytes += len(data)
        _check_size(self.size_bytes)
        self._rest += data
        while len(self._rest) > _BLOCK_BYTES:  # the last block waits: it may need to be filled up
            block = bytes(memoryview(self._rest)[:_BLOCK_BYTES])
            del self._rest[:_BLOCK_BYTES]
            await self._take(block)

    async def finish(self) -> None:
        """Nothing more comes: fill up the last parcel, and make all of them."""
        counts = counts_of(self.size_bytes)
        missing = sum(counts) - sum(map(len, self._hashes))
        rest = bytes(self._rest)
        for at in range(0, missing, BLOCK_CHUNKS):
            size = min(BLOCK_CHUNKS, missing - at) * PLAIN_BYTES
            await self._take(rest[at * PLAIN_BYTES :][:size].ljust(size, b"\0"))
        await self._staging.__aexit__(None, None, None)
        self._rest.clear()
        now_ms = self._node.now_ms()
        parcels = []
        for hashes in self._hashes:
            payload = b"".join(hashes) if len(hashes) > 1 else self._first
            parcels.append(make_parcel(SigningKey.from_seed(os.urandom(32)), hashes, payload, now_ms))
        self.parcels = tuple(parcels)

    async def _take(self, block: bytes) -> None:
        store = self._node.open_store
        if not self._hashes or len(self._hashes[-1]) == PLACES_MAX:
            self._hashes.append([])
            self._stages.append(None)
        hashes = self._hashes[-1]
        first = len(hashes)
        cuts: list[Cut] = await asyncio.to_thread(
            self._sealer.seal, block, (len(self._hashes) - 1) * PLACES_MAX + first
        )
        hashes.extend(cut.hash for cut in cuts)
        if not first and len(cuts) == 1:
            self._first = bytes(cuts[0].data)
            return
        stage = self._stages[-1]
        if stage is None:
            stage = await self._node.write(partial(store.open_stage, PARCEL_SPACE, self._node.today()))
            self._stages[-1] = stage
        await self._staging.begin(partial(self._node.stage_chunks, stage, first, cuts))


def _check_size(size_bytes: int) -> None:
    if size_bytes > FILE_MAX_BYTES:
        raise UsageError("a file has at most %(most)s GiB here: send it in parts", most=round(FILE_MAX_BYTES / 2**30))


def progress_of(node: Node, parcels: Sequence[bytes], size_bytes: int) -> Progress:
    """How much of a file is here, of which these are the parcels: whole when all of them are.

    Padding counts for nothing, and what is not known yet for what is missing.
    """
    held = sum(one.held_bytes for one in parcels_here(node, parcels, size_bytes).values())
    total = sum(counts_of(size_bytes)) * CHUNK_BYTES
    return Progress(
        size_bytes if held == total else min(held * size_bytes // total, max(0, size_bytes - 1)), size_bytes
    )


def parcels_here(node: Node, parcels: Sequence[bytes], size_bytes: int) -> dict[bytes, Progress]:
    """Of the parcels of a file of this size those that are here, by their ids, and how much of each.

    A letter may name anything: what is no parcel, or one of another size, is none of them.
    """
    counts = dict(zip(parcels, counts_of(size_bytes), strict=True))
    found = ((one, node.open_store.progress(one, PARCEL_SPACE)) for one in parcels)
    return {id: one for id, one in found if one is not None and one.size_bytes == counts[id] * CHUNK_BYTES}


def strange_parcels(node: Node, key: bytes, parcels: Sequence[bytes], size_bytes: int) -> set[bytes]:
    """What is here of these and was not sealed under the key of the file: whoever named it has no part in it."""
    sealer, store = Sealer(key), node.open_store
    strange = store.known(parcels) - parcels_here(node, parcels, size_bytes).keys()
    for part, parcel in enumerate(parcels):
        entry = store.get(parcel)
        if entry is None or entry.payload is None or parcel in strange:
            continue
        place = 0
        data: bytes | memoryview = entry.payload
        if Manifest.of(entry) is not None:
            place = next(iter(places(store.holding(parcel))), 0)
            data = store.chunk(parcel, place).data or b""
        if data:
            try:
                sealer.open(data, part * PLACES_MAX + place)
            except ParcelError:
                strange.add(parcel)
    return strange


def read_parcels(node: Node, key: bytes, parcels: Sequence[bytes], size_bytes: int, start: int = 0) -> Iterator[bytes]:
    """A file from a byte on, in pieces of at most 65,520 B.

    Raises NotFoundError when not all of it is here, ParcelError when the parcels are not what its letter says.
    """
    sealer, store = Sealer(key), node.open_store
    counts = counts_of(size_bytes)
    if len(parcels) != len(counts):
        raise ParcelError("the letter names other parts of the file than its size asks for")
    number = start // PLAIN_BYTES
    while number * PLAIN_BYTES < size_bytes:
        part = number // PLACES_MAX
        entry = store.get(parcels[part])
        if entry is None or entry.payload is None:
            raise NotFoundError("not all of this file is here: fetch it and wait until it is")
        if entry.header.space != PARCEL_SPACE or entry.header.payload_size != counts[part] * CHUNK_BYTES:
            raise ParcelError("the letter names something else than the parts of a file")
        is_single = Manifest.of(entry) is None
        for place in range(number % PLACES_MAX, counts[part]):
            at = number * PLAIN_BYTES
            if at >= size_bytes:
                return
            data = entry.payload if is_single else store.chunk(entry.id, place).data
            if data is None:
                raise NotFoundError("not all of this file is here, or a part is damaged on this disk: fetch it again")
            plain = sealer.open(data, number)
            yield plain[max(0, start - at) : size_bytes - at]
            number += 1
