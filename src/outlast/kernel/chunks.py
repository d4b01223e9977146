"""Chunks: content above 64 KiB, cut into chunks that are fetched, verified and dropped one by one.

What travels as the payload of such an entry is its *manifest*: the SHA-256 of each chunk of 64 KiB, the last one
shorter. The header bears the content's size, so a manifest of another length is not the entry's payload.

``Fetching`` and ``Serving`` are the two halves of a session (``sync``) that move chunks; ``Downloads`` is what the
sessions of a node share, so that no chunk is asked of two neighbours at a time. A chunk comes only when it was asked
for, and no more are asked for than may be in memory at once: chunks need no credit besides. Sets of places are integers
with a bit for each place, the first chunk's the lowest.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from struct import iter_unpack
from typing import Final, NamedTuple

from outlast.errors import ProtocolError, UsageError
from outlast.kernel.entry import CHUNK_BYTES, CONTENT_MAX_BYTES, PAYLOAD_MAX_BYTES, Entry, Header, travel_size

PLACES_MAX: Final = CONTENT_MAX_BYTES // CHUNK_BYTES
"""Chunks of the largest content."""
ASKED_MAX: Final = 128
"""Chunks that may be asked of one peer and not be durable yet: 8 MiB, so that network and disk work at a time."""
OPEN_MAX: Final = 4
"""Contents fetched from one peer at a time."""
INTERESTS_MAX: Final = 4096
"""Contents of which a peer is told what more of them comes."""
BATCHES: Final = 2
"""Batches of chunks that are made durable at a time: one is sealed while the disk takes the other."""

_ASK_STEP: Final = 8
_READY_MAX: Final = 48
_LOAD_STEP: Final = 32
_EVERYWHERE: Final = (1 << PLACES_MAX) - 1
_HASH_BYTES: Final = 32


class ChunkError(ProtocolError):
    """The peer broke a rule of the transfer of chunks."""


def is_chunked(header: Header) -> bool:
    """Whether what travels as the payload is a manifest."""
    return header.payload_size > PAYLOAD_MAX_BYTES


@dataclass(frozen=True, slots=True)
class Manifest:
    """The hashes of all chunks, 32 B each, and the size of the content."""

    size_bytes: int
    hashes: bytes

    def __post_init__(self) -> None:
        """Raise ChunkError when size and hashes do not fit each other."""
        if not PAYLOAD_MAX_BYTES < self.size_bytes <= CONTENT_MAX_BYTES:
            raise ChunkError(
                "content in chunks has %(least)s to %(most)s bytes", least=PAYLOAD_MAX_BYTES + 1, most=CONTENT_MAX_BYTES
            )
        if len(self.hashes) != travel_size(self.size_bytes):
            raise ChunkError("the manifest does not have one hash for each chunk")

    @classmethod
    def of(cls, entry: Entry) -> Manifest | None:
        """The manifest of an entry; None when its content is not in chunks, or the manifest is not at hand."""
        if entry.payload is None or not is_chunked(entry.header):
            return None
        return cls(entry.header.payload_size, entry.payload)

    def __len__(self) -> int:
        """The number of chunks."""
        return len(self.hashes) // _HASH_BYTES

    def hash_at(self, place: int) -> bytes:
        """The SHA-256 of a chunk."""
        return self.hashes[place * _HASH_BYTES : (place + 1) * _HASH_BYTES]

    def size_at(self, place: int) -> int:
        """The bytes of a chunk: 64 KiB but for the last one."""
        return min(CHUNK_BYTES, self.size_bytes - place * CHUNK_BYTES)

    def places_of(self, hashes: Collection[bytes]) -> list[tuple[int, bytes]]:
        """Where chunks of these hashes stand, rising, each with its hash; content that repeats itself has one often."""
        return [
            (place, hash) for place, (hash,) in enumerate(iter_unpack(f"{_HASH_BYTES}s", self.hashes)) if hash in hashes
        ]


class Cut(NamedTuple):
    """A chunk of content that is made here."""

    hash: bytes
    data: bytes | memoryview


def _cut(data: bytes | memoryview) -> Cut:
    return Cut(sha256(data).digest(), data)


class Splitter:
    """Cuts a stream into chunks; holds less than one chunk and the hashes."""

    def __init__(self, max_bytes: int) -> None:
        """For content of at most ``max_bytes``."""
        self.size_bytes = 0
        """Of all that was fed."""
        self._max_bytes = min(max_bytes, CONTENT_MAX_BYTES)
        self._rest = b""
        self._hashes = bytearray()

    def feed(self, data: bytes) -> list[Cut]:
        """The chunks that are whole now, with the last one still open; raises UsageError when it is too much."""
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise UsageError("a file here has at most %(most)s bytes: this one is larger", most=self._max_bytes)
        start = CHUNK_BYTES - len(self._rest) if self._rest else 0
        if start >= len(data):
            self._rest += data
            return []
        view = memoryview(data)
        chunks = [_cut(self._rest + view[:start])] if self._rest else []
        whole = start + (len(data) - start - 1) // CHUNK_BYTES * CHUNK_BYTES
        chunks += [_cut(view[at : at + CHUNK_BYTES]) for at in range(start, whole, CHUNK_BYTES)]
        self._rest = bytes(view[whole:])
        self._hashes += b"".join(chunk.hash for chunk in chunks)
        return chunks

    def finish(self) -> tuple[Cut, Manifest | None]:
        """The last chunk, and the manifest; without a manifest that chunk is the whole content."""
        last = _cut(self._rest)
        return last, Manifest(self.size_bytes, bytes(self._hashes) + last.hash) if self._hashes else None


def places(bits: int) -> Iterator[int]:
    """The places of a set, rising."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def padded(count: int) -> int:
    """What so many chunks are filled up to, where their number is nobody's business: at most 12 % more."""
    step = padding_step(count)
    return -(-count // step) * step


def padding_step(count: int) -> int:
    """What numbers of chunks near this one are multiples of, once padded (Padmé: Nikitin et al., PoPETs 2019)."""
    exponent = count.bit_length() - 1
    return 1 << max(0, exponent - exponent.bit_length())


def to_bytes(bits: int) -> bytes:
    """A set as it travels: bit ``p % 8`` of byte ``p // 8`` stands for place ``p``; no zeros at the end."""
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


class Wanted(NamedTuple):
    """Content that is to be fetched, and the places of what is not here; of equal chunks only the first."""

    id: bytes
    manifest: Manifest
    missing: int
    requested: bool = False
    """Whether a person here asked for it: it then counts in no neighbour's share of the day."""


class Chunk(NamedTuple):
    """A chunk that came and is the one that its manifest names."""

    id: bytes
    place: int
    hash: bytes
    data: bytes | memoryview
    requested: bool = False
    """Whether a person here asked for the content."""


class Loaded(NamedTuple):
    """A chunk that a peer asked for, as the store has it."""

    id: bytes
    place: int
    space: bytes | None
    """The space of its entry; None when the entry is not here."""
    data: bytes | memoryview | None
    """None when it is not here, or damaged on this disk."""
    hash: bytes = b""
    """The SHA-256 of the data; of what is not here nothing."""


class Holds(NamedTuple):
    """What is said of a content: which chunks that were asked for will not come, and which are here."""

    id: bytes
    lacked: Sequence[int]
    held: int


@dataclass(slots=True)
class _Download:
    free: int
    """Places that are missing and asked of nobody."""
    asked: int = 0
    sessions: int = 0


class Downloads:
    """What all sessions of a node fetch."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._files: dict[bytes, _Download] = {}

    def open(self, id: bytes, missing: int) -> None:
        """One more session fetches this content, of which the store lacks ``missing`` by now."""
        file = self._files.setdefault(id, _Download(missing))
        file.free &= missing
        file.sessions += 1

    def close(self, id: bytes) -> None:
        """One session fewer fetches it."""
        file = self._files[id]
        file.sessions -= 1
        if not file.sessions:
            del self._files[id]

    def take(self, id: bytes, within: int, count: int) -> list[int]:
        """Up to ``count`` of the places that nobody was asked for, the lowest first; they are the caller's now."""
        file = self._files[id]
        taken = list(islice(places(file.free & within), count))
        bits = sum(1 << place for place in taken)
        file.free ^= bits
        file.asked |= bits
        return taken

    def give_back(self, id: bytes, place: int) -> None:
        """It did not come from where it was asked."""
        if (file := self._files.get(id)) and file.asked >> place & 1:
            file.asked ^= 1 << place
            file.free |= 1 << place

    def settle(self, id: bytes, place: int) -> None:
        """It is here."""
        if file := self._files.get(id):
            file.asked &= ~(1 << place)
            file.free &= ~(1 << place)

    def free(self, id: bytes) -> int:
        """What is missing of it and asked of nobody."""
        return self._files[id].free

    def is_over(self, id: bytes) -> bool:
        """Whether nothing is missing any more."""
        file = self._files[id]
        return not file.free | file.asked


@dataclass(slots=True)
class _Open:
    manifest: Manifest
    requested: bool
    within: int = _EVERYWHERE
    """What the peer holds, as far as it said."""
    owed: int = 0
    """How many of its chunks are asked for and not durable yet."""


class _Asked(NamedTuple):
    hash: bytes
    size: int
    requested: bool


class Fetching:
    """The half of a session that asks for chunks, round robin over a few contents."""

    def __init__(self, downloads: Downloads) -> None:
        """``downloads`` is shared by the sessions of a node."""
        self.tried: set[bytes] = set()
        """Contents of which the peer has nothing more that is missing here."""
        self._downloads = downloads
        self._files: OrderedDict[bytes, _Open] = OrderedDict()
        self._asked: dict[tuple[bytes, int], _Asked] = {}
        self._part = bytearray()
        self._part_of: tuple[bytes, int] | None = None
        self._arrived: set[tuple[bytes, int]] = set()
        self._loading = False
        self._more = True

    @property
    def awaits(self) -> bool:
        """Whether the peer owes chunks."""
        return bool(self._asked)

    @property
    def busy(self) -> bool:
        """Whether this side still has to make durable what came."""
        return bool(self._arrived)

    @property
    def passed(self) -> set[bytes]:
        """Contents that need not be loaded: they are open, or the peer has nothing of them."""
        return self.tried | self._files.keys()

    def begin_load(self) -> bool:
        """Whether another content is to be loaded now; its answer comes by ``loaded``."""
        if self._loading or not self._more or len(self._files) >= OPEN_MAX:
            return False
        self._loading, self._more = True, False
        return True

    def loaded(self, wanted: Wanted | None) -> None:
        """What is to be fetched next; None: nothing, until ``look_again``."""
        self._loading = False
        if wanted is None:
            return
        self._more = True
        if wanted.id not in self._files:
            self._downloads.open(wanted.id, wanted.missing)
            self._files[wanted.id] = _Open(wanted.manifest, wanted.requested)

    def look_again(self, requested: bytes | None = None) -> None:
        """There may be more to fetch, also such as a look that is under way has missed, or as a person asks for now."""
        self._more = True
        if requested is not None and (file := self._files.get(requested)):
            file.requested = True

    def asks(self, budget_bytes: int) -> Iterator[tuple[bytes, list[int], int]]:
        """What is to be asked of the peer now: content, places, and the bytes that they take of the budget.

        What a person asked for takes nothing of it.
        """
        room = ASKED_MAX - len(self._asked) - len(self._arrived)
        idle = 0
        while room >= _ASK_STEP and idle < len(self._files):
            id, file = next(iter(self._files.items()))
            self._files.move_to_end(id)
            affordable = file.requested or budget_bytes >= _ASK_STEP * CHUNK_BYTES
            taken = self._downloads.take(id, file.within, _ASK_STEP) if affordable else []
            if not taken:
                idle += 1
                continue
            idle = 0
            room -= len(taken)
            file.owed += len(taken)
            manifest = file.manifest
            for place in taken:
                self._asked[id, place] = _Asked(manifest.hash_at(place), manifest.size_at(place), file.requested)
            cost = 0 if file.requested else sum(map(manifest.size_at, taken))
            budget_bytes -= cost
            yield id, taken, cost
        self._retire()

    def piece(self, id: bytes, place: int, offset: int, data: bytes | memoryview) -> Chunk | None:
        """Take a piece; the chunk when it was the last one. Raises ChunkError for what was not asked for."""
        key = id, place
        expected = self._asked.get(key)
        if expected is None or self._part_of not in (None, key):
            raise ChunkError("it sends a chunk that was not asked for")
        digest, size, requested = expected
        if offset != len(self._part) or offset + len(data) > size:
            raise ChunkError("it sends pieces of a chunk that do not fit together")
        chunk = data
        if len(data) < size:  # else there is nothing to be put together, and nothing is copied
            self._part_of = key
            self._part += data
            if len(self._part) < size:
                return None
            chunk = bytes(self._part)
        if sha256(chunk).digest() != digest:
            raise ChunkError("it sends a chunk that is not the one of the manifest")
        self._part, self._part_of = bytearray(), None
        del self._asked[key]
        self._arrived.add(key)
        return Chunk(id, place, digest, chunk, requested)

    def durable(self, chunks: Iterable[Chunk]) -> None:
        """These chunks that came are in the store."""
        for chunk in chunks:
            self._arrived.remove((chunk.id, chunk.place))
            self._downloads.settle(chunk.id, chunk.place)
            self._files[chunk.id].owed -= 1

    def holds(self, said: Holds) -> int:
        """The peer says what it has; returns the bytes of the budget that will not come."""
        freed = 0
        for place in said.lacked:
            key = said.id, place
            if key not in self._asked or key == self._part_of:
                raise ChunkError("it lacks a chunk that was not asked for, or that it has begun to send")
            asked = self._asked.pop(key)
            freed += 0 if asked.requested else asked.size
            self._files[said.id].owed -= 1
            self._downloads.give_back(*key)
        file = self._files.get(said.id)
        if file is not None:
            file.within = said.held
        elif said.held and said.id in self.tried:
            self.tried.discard(said.id)
            self._more = True
        return freed

    def leave(self) -> None:
        """The session is over: others may ask for what did not come."""
        for key in (*self._asked, *self._arrived):
            self._downloads.give_back(*key)
        for id in self._files:
            self._downloads.close(id)
        self._asked.clear()
        self._arrived.clear()
        self._files.clear()

    def _retire(self) -> None:
        for id, file in list(self._files.items()):
            if file.owed:  # what is not durable would be found missing when it is opened again
                continue
            free = self._downloads.free(id)
            if self._downloads.is_over(id):
                self._more = True
            elif free and not free & file.within:
                if len(self.tried) < INTERESTS_MAX:
                    self.tried.add(id)
            else:
                continue
            self._downloads.close(id)
            del self._files[id]
            self._more = True


class Serving:
    """The half of a session that sends chunks, one piece at a time, round robin over the contents asked for."""

    def __init__(self, spaces: Collection[bytes], piece_bytes: int) -> None:
        """Only entries of ``spaces`` are served, in pieces of ``piece_bytes``."""
        self._spaces = spaces
        self._piece = piece_bytes
        self._queues: OrderedDict[bytes, deque[int]] = OrderedDict()
        self._count = 0
        self._loading = False
        self._ready: deque[tuple[bytes, int, memoryview]] = deque()
        self._offset = 0
        self._interested: dict[bytes, None] = {}

    def want(self, id: bytes, asked: Sequence[int]) -> None:
        """The peer asks for chunks; raises ChunkError when it asks for more than it may."""
        self._count += len(asked)
        if self._count > ASKED_MAX:
            raise ChunkError("it asks for more chunks at once than it can take")
        self._queues.setdefault(id, deque()).extend(asked)

    def next_load(self) -> list[tuple[bytes, int]]:
        """What is to be loaded now."""
        found: list[tuple[bytes, int]] = []
        if self._loading or len(self._ready) > _READY_MAX - _LOAD_STEP:
            return found
        while self._queues and len(self._ready) + len(found) < _READY_MAX:
            id, queue = self._queues.popitem(last=False)
            found.append((id, queue.popleft()))
            if queue:
                self._queues[id] = queue
        self._loading = bool(found)
        return found

    def loaded(self, chunks: Sequence[Loaded], holdings: Mapping[bytes, int]) -> list[Holds]:
        """What was to be loaded; ``holdings`` has what is here of contents that lack a chunk. Returns what to say."""
        self._loading = False
        lacked: dict[bytes, list[int]] = {}
        shown: dict[bytes, int] = {}
        for id, place, space, data, _ in chunks:
            if space in self._spaces:
                shown[id] = holdings.get(id, 0)
                if data is not None:
                    self._ready.append((id, place, memoryview(data)))
                    continue
                if len(self._interested) < INTERESTS_MAX:
                    self._interested[id] = None
            lacked.setdefault(id, []).append(place)
        for id, missing in lacked.items():
            # What else is asked of it in vain need not be loaded.
            held, queue = shown.get(id, 0), self._queues.pop(id, ())
            missing.extend(place for place in queue if not held >> place & 1)
            if kept := deque(place for place in queue if held >> place & 1):
                self._queues[id] = kept
            self._count -= len(missing)
        return [Holds(id, missing, shown.get(id, 0)) for id, missing in lacked.items()]

    def grown(self, holdings: Mapping[bytes, int]) -> list[Holds]:
        """What the peer is told of contents of which it lacked something, now that more of them is here."""
        return [Holds(id, (), held) for id, held in holdings.items() if id in self._interested]

    def piece(self, room_bytes: int) -> tuple[bytes, int, int, memoryview] | None:
        """The next piece, as content, place, offset and bytes; None when none is ready, or it exceeds the room."""
        if not self._ready or room_bytes < 2 * CHUNK_BYTES:
            return None
        id, place, data = self._ready[0]
        offset, self._offset = self._offset, self._offset + self._piece
        if self._offset >= len(data):
            self._ready.popleft()
            self._offset = 0
            self._count -= 1
        return id, place, offset, data[offset : offset + self._piece]
