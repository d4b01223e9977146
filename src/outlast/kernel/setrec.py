"""Set reconciliation: two nodes find what each of them lacks without sending their lists.

    Initiator                                     Responder
    initiate()  -> ranges with fingerprints -->   step(message)
    step(reply) <- the ranges that differ,  <--   split finer, or as lists of ids
    ... until step() has no reply left: the ids told as ``have`` and ``need`` are the differences.

The bytes are negentropy protocol V1 (hoytech/negentropy, ``docs/negentropy-protocol-v1.md``);
docs/spec/sync.md says what of it this side narrows. Items are (timestamp, id), sorted; a range is
named by its upper bound alone, the lower one being the upper one of the range before. A range is
settled by a fingerprint that agrees or by a list of ids.

What a hostile peer can cost. A message is read once, from front to back, in memory that does not
grow with its number of ranges, and no announced length is believed before the bytes are there. Time
is O(ranges in the message, at most one per 3 bytes, times log n, plus ranges and ids in the reply).
A reply is at most ``frame_size_limit`` bytes; without a limit, at most 32 bytes for each item of
the view and 90 for each range of the message, plus 1. An Initiator keeps every id that it has told
(about 130 bytes for each, and a peer must send 32 to add one). A peer that never agrees can keep a
session going without end: who owns the session counts its rounds and bytes.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256, shake_256
from itertools import pairwise
from math import isqrt
from typing import TYPE_CHECKING, Final, NamedTuple

from outlast.errors import ProtocolError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ID_BYTES: Final = 32
FINGERPRINT_BYTES: Final = 16
SEED_BYTES: Final = 32
VERSION: Final = 0x61
"""The first byte of every message: negentropy protocol 1."""
FRAME_LIMIT_MIN_BYTES: Final = 4096
"""Smallest limit that always lets a reply carry at least one range on."""
TIMESTAMP_MAX: Final = 2**64 - 2
"""Largest timestamp of an item; the number above it means infinity."""

_INFINITY: Final = TIMESTAMP_MAX + 1
_SKIP, _FINGERPRINT, _ID_LIST = 0, 1, 2
_PARTS: Final = 16
# Kept free of a limited message for what may come last: a skip, a bound and a fingerprint.
_RESERVE_BYTES: Final = 200
# From one stored prefix sum to the next: 4 bytes an item, at most 7 additions to reach any rank.
_BLOCK_ITEMS: Final = 8
_MODULUS: Final = 1 << 256
_VARINT_MAX_BYTES: Final = 10


class SetrecError(ProtocolError):
    """The other side's message is no negentropy V1 message; end the session."""


class Bound(NamedTuple):
    """The place between two items where a range ends: exclusive above, inclusive below.

    ``timestamp`` 0 to 2**64 - 1, the last meaning infinity; ``prefix`` 0 to 32 bytes, the rest of
    the id being zeros.
    """

    timestamp: int
    prefix: bytes


_START: Final = Bound(0, b"")
_END: Final = Bound(_INFINITY, b"")


class SetView:
    """A sealed snapshot of one set, its items in order of (timestamp, id).

    Takes 44 bytes an item (8 timestamp, 32 id, 4 prefix sums): 44 MB for 1,000,000 items; while it
    is built up to 32 bytes an item more. Nothing that is done to the arguments later changes it.
    """

    __slots__ = ("__weakref__", "_ids", "_sums", "_timestamps")

    def __init__(self, timestamps: bytes, ids: bytes, sums: bytes) -> None:
        """Use ``from_sorted`` or ``from_items``; this takes their columns as they are."""
        self._timestamps = memoryview(timestamps).cast("Q")
        self._ids = ids
        self._sums = sums

    @classmethod
    def from_sorted(cls, ts: npt.NDArray[np.uint64], ids: npt.NDArray[np.uint8]) -> SetView:
        """Copy two columns that stand in order: ``ts`` of shape (n,), ``ids`` of shape (n, 32).

        Raises ValueError when shapes or types are others, an item stands out of order or twice, or
        a timestamp is 2**64 - 1.
        """
        import numpy as np

        if ts.dtype != np.uint64 or ids.dtype != np.uint8 or ids.shape != (ts.size, ID_BYTES):
            raise ValueError("a set takes n timestamps (uint64) and n ids (uint8, n x 32)")
        packed = ids.tobytes()
        view = cls(ts.tobytes(), packed, _block_sums(packed))
        heads = np.ndarray((len(ts),), ">u8", packed, strides=(ID_BYTES,))
        unclear = ts[1:] < ts[:-1]
        unclear |= (ts[1:] == ts[:-1]) & (heads[1:] <= heads[:-1])
        for rank in np.flatnonzero(unclear):
            if view.item(int(rank)) >= view.item(int(rank) + 1):
                raise ValueError(f"item {rank + 1} stands out of order or twice")
        if len(ts) and ts[-1] > TIMESTAMP_MAX:
            raise ValueError("the largest 64-bit timestamp means infinity and is no item's")
        return view

    @classmethod
    def from_items(cls, items: Iterable[tuple[int, bytes]]) -> SetView:
        """Sort and copy (timestamp in ms, id of 32 bytes) pairs.

        Raises ValueError for an item given twice, an id of another length or a timestamp out of 0
        to 2**64 - 2.
        """
        import numpy as np

        ordered = sorted(items)
        if any(len(item_id) != ID_BYTES for _, item_id in ordered):
            raise ValueError("an id is 32 bytes")
        if ordered and not 0 <= ordered[0][0] <= ordered[-1][0] <= TIMESTAMP_MAX:
            raise ValueError("a timestamp is 0 to 2**64 - 2")
        ts = np.fromiter((timestamp for timestamp, _ in ordered), np.uint64, len(ordered))
        ids = np.frombuffer(b"".join(item_id for _, item_id in ordered), np.uint8)
        return cls.from_sorted(ts, ids.reshape(-1, ID_BYTES))

    def __len__(self) -> int:
        """Number of items."""
        return len(self._timestamps)

    def item(self, rank: int) -> Bound:
        """The item at ``rank`` (0 to n - 1), as the bound that stands right before it."""
        return Bound(self._timestamps[rank], self.ids(rank, rank + 1))

    def ids(self, lower: int, upper: int) -> bytes:
        """The ids at the ranks [lower, upper), 32 bytes each, one after the other."""
        return self._ids[lower * ID_BYTES : upper * ID_BYTES]

    def rank(self, bound: Bound, lower: int = 0) -> int:
        """Number of items below ``bound``, when at least ``lower`` are known to be."""
        if bound.timestamp == _INFINITY:
            return len(self)
        first = bisect_left(self._timestamps, bound.timestamp, lower)
        if not bound.prefix:
            return first
        after = bisect_right(self._timestamps, bound.timestamp, first)
        return bisect_left(range(after), bound.prefix, first, key=lambda i: self.ids(i, i + 1))

    def boundary(self, rank: int) -> Bound:
        """The shortest bound between the items at ``rank`` - 1 and ``rank`` (1 to n - 1)."""
        timestamp = self._timestamps[rank]
        if self._timestamps[rank - 1] != timestamp:
            return Bound(timestamp, b"")
        before, after = self.ids(rank - 1, rank), self.ids(rank, rank + 1)
        shared = next(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
        return Bound(timestamp, after[: shared + 1])

    def fingerprint(self, lower: int, upper: int) -> bytes:
        """16 bytes over the items at the ranks [lower, upper); costs the same for any number of
        them.

        The first half of SHA-256 over the ids' sum mod 2**256, each a little-endian number, and
        their count.
        """
        total = (self._sum(upper) - self._sum(lower)) % _MODULUS
        digest = sha256(total.to_bytes(32, "little") + _varint(upper - lower))
        return digest.digest()[:FINGERPRINT_BYTES]

    def _sum(self, rank: int) -> int:
        """The sum of all ids before ``rank``."""
        block, rest = divmod(rank, _BLOCK_ITEMS)
        number = int.from_bytes
        total = number(self._sums[block * ID_BYTES : (block + 1) * ID_BYTES], "little")
        end = rank * ID_BYTES
        for start in range(end - rest * ID_BYTES, end, ID_BYTES):
            total += number(self._ids[start : start + ID_BYTES], "little")
        return total


def _block_sums(ids: bytes) -> bytes:
    """The sum mod 2**256 of all ids before each whole block, 32 bytes little-endian each."""
    import numpy as np

    blocks = len(ids) // (_BLOCK_ITEMS * ID_BYTES)
    words = np.frombuffer(ids, "<u4", blocks * _BLOCK_ITEMS * 8).reshape(blocks, _BLOCK_ITEMS, 8)
    # 64 bits hold sums of 2**32 words of 32 bits, so carries are paid for once, at the end.
    totals = np.cumsum(words.sum(axis=1, dtype=np.uint64), axis=0)
    sums = np.zeros((blocks + 1, 8), "<u4")
    carry = np.zeros(blocks, np.uint64)
    for column in range(8):
        carry += totals[:, column]
        sums[1:, column] = carry & np.uint64(0xFFFFFFFF)
        carry >>= np.uint64(32)
    return sums.tobytes()


def _varint(value: int) -> bytes:
    """Base 128, most significant digit first, the high bit set on all digits but the last."""
    if value < 128:
        return bytes((value,))
    digits = bytearray((value & 127,))
    while value := value >> 7:
        digits.append(value & 127 | 128)
    digits.reverse()
    return bytes(digits)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of at most 10 digits (70 bits) in its shortest form, and where it ends."""
    value = 0
    for end, digit in enumerate(message[at : at + _VARINT_MAX_BYTES], at + 1):
        value = value << 7 | digit & 127
        if digit < 128:
            return value, end
        if value == 0:
            raise SetrecError("reconciliation message: a number has leading zeros")
    if len(message) - at < _VARINT_MAX_BYTES:
        raise SetrecError("reconciliation message: it ends inside a number")
    raise SetrecError("reconciliation message: a number has more than 10 digits")


class _Range(NamedTuple):
    """One range of a message; ``payload`` is its fingerprint or its ids one after the other."""

    bound: Bound
    mode: int
    payload: bytes


def _ranges(message: bytes) -> Iterator[_Range]:
    """The ranges behind the version byte; raises SetrecError at the first malformed one."""
    at, timestamp, previous = 1, 0, b""
    while at < len(message):
        step, at = _read_varint(message, at)
        length, at = _read_varint(message, at)
        prefix = message[at : at + length]
        at += length
        if length > ID_BYTES or (step == 0 and length):
            raise SetrecError("reconciliation message: a bound is longer than an id")
        if step == 0:
            timestamp = _INFINITY
        elif step > 1:
            timestamp += step - 1
            if timestamp > TIMESTAMP_MAX:
                raise SetrecError("reconciliation message: a timestamp lies beyond infinity")
        elif timestamp == _INFINITY or prefix.ljust(ID_BYTES, b"\0") < previous:
            raise SetrecError("reconciliation message: its ranges are out of order")
        previous = prefix.ljust(ID_BYTES, b"\0")
        mode, at = _read_varint(message, at)
        if mode == _SKIP:
            size = 0
        elif mode == _FINGERPRINT:
            size = FINGERPRINT_BYTES
        elif mode == _ID_LIST:
            count, at = _read_varint(message, at)
            size = count * ID_BYTES
        else:
            raise SetrecError("reconciliation message: %(mode)s is no mode of a range", mode=mode)
        if size > len(message) - at:
            raise SetrecError("reconciliation message: it ends inside a range")
        yield _Range(Bound(timestamp, prefix), mode, message[at : at + size])
        at += size


class _Writer:
    """One message in the making; a skip waits in ``skipped`` until another range makes it
    needed."""

    def __init__(self) -> None:
        self.message = bytearray((VERSION,))
        self.skipped: Bound | None = None
        self._timestamp = 0

    def mark(self) -> tuple[int, int, Bound | None]:
        """What ``rollback`` needs to take back all that is written after now."""
        return len(self.message), self._timestamp, self.skipped

    def rollback(self, mark: tuple[int, int, Bound | None]) -> None:
        size, self._timestamp, self.skipped = mark
        del self.message[size:]

    def fingerprint(self, bound: Bound, fingerprint: bytes) -> None:
        self._head(bound, _FINGERPRINT)
        self.message += fingerprint

    def id_list(self, bound: Bound, ids: bytes) -> None:
        self._head(bound, _ID_LIST)
        self.message += _varint(len(ids) // ID_BYTES)
        self.message += ids

    def _head(self, bound: Bound, mode: int) -> None:
        if self.skipped is not None:
            self._range(self.skipped, _SKIP)
            self.skipped = None
        self._range(bound, mode)

    def _range(self, bound: Bound, mode: int) -> None:
        if bound.timestamp == _INFINITY:
            self.message.append(0)
        else:
            self.message += _varint(bound.timestamp - self._timestamp + 1)
            self._timestamp = bound.timestamp
        self.message.append(len(bound.prefix))
        self.message += bound.prefix
        self.message.append(mode)


Cuts = Callable[[int, int], list[int]]
"""Where to cut the ranks [lower, upper): ascending ranks inside, or none to list the ids."""


def even_cuts(lower: int, upper: int) -> list[int]:
    """The reference's cuts: 16 parts that differ by at most one item, none below 32 items."""
    size, larger = divmod(upper - lower, _PARTS)
    if size < 2:
        return []
    return [lower + i * size + min(i, larger) for i in range(1, _PARTS)]


def random_cuts(seed: bytes) -> Cuts:
    """Cuts at ranks that nobody without ``seed`` (32 random bytes) knows before they are sent.

    Up to 16 parts: the even cuts, each moved by up to a quarter of a part to either side. Ranges
    below 32 items, which the reference lists, are cut as well, into about √(1.5 n) parts: a
    fingerprint with its bound takes some 21 bytes, each id that the other side then lists 32.
    """
    stream = shake_256(b"outlast/setrec/cuts/1" + seed)
    drawn = 0

    def cuts(lower: int, upper: int) -> list[int]:
        nonlocal drawn
        size = upper - lower
        parts = min(_PARTS, isqrt(3 * size // 2))
        if parts < 2:
            return []
        fresh = stream.copy()
        fresh.update(drawn.to_bytes(8, "big"))
        drawn += 1
        moves = struct.unpack(f">{parts - 1}Q", fresh.digest(8 * (parts - 1)))
        # The cut i lies at the part's width times i - 1/4 + move / 2, all in units of 2**-65.
        return [lower + (size * ((4 * i - 1 << 63) + move) // parts >> 65) for i, move in enumerate(moves, 1)]

    return cuts


@dataclass(frozen=True, slots=True)
class Step:
    """What one message of the responder gave.

    ``reply`` goes back to it; None ends the session. ``have`` and ``need`` are ids of 32 bytes:
    those that only this side holds and those that only the other holds. Over a session no id is
    told twice.
    """

    reply: bytes | None
    have: list[bytes]
    need: list[bytes]


class _Party(ABC):
    """What both sides do with a message: compare, split what differs, stop at the frame limit."""

    def __init__(self, view: SetView, cuts: Cuts, frame_size_limit: int, aligned: bool) -> None:
        if frame_size_limit and frame_size_limit < FRAME_LIMIT_MIN_BYTES:
            raise ValueError(f"a frame limit is 0 (none) or at least {FRAME_LIMIT_MIN_BYTES} bytes")
        self._view = view
        self._cuts = cuts
        self._aligned = aligned
        self._room = frame_size_limit - _RESERVE_BYTES if frame_size_limit else None

    @abstractmethod
    def _listed(self, lower: int, upper: int, theirs: _Range, out: _Writer) -> int:
        """Take the other side's list of ids; return the rank up to which its range is settled."""

    def _answer(self, message: bytes) -> bytes:
        out = _Writer()
        ranges = _ranges(message)
        lower = 0
        for theirs in ranges:
            upper = self._view.rank(theirs.bound, lower)
            if theirs.mode == _ID_LIST:
                upper = self._listed(lower, upper, theirs, out)
                if self._full(out):
                    if self._aligned or upper < len(self._view) or theirs.bound != _END:
                        self._offer_rest(upper, out)
                    break
            elif theirs.mode == _SKIP or theirs.payload == self._view.fingerprint(lower, upper):
                out.skipped = theirs.bound
            else:
                mark = out.mark()
                self._split(lower, upper, theirs.bound, out)
                if self._full(out):
                    out.rollback(mark)
                    if self._aligned:
                        # The reference leaves the dropped range out of the fingerprint that stands
                        # for it. When nothing follows, a peer with nothing there agrees, and the
                        # range's differences are lost.
                        out.skipped = None
                        lower = upper
                    self._offer_rest(lower, out)
                    break
            lower = upper
        for _ in ranges:
            pass  # what a full frame leaves unanswered must be well-formed all the same
        return bytes(out.message)

    def _offer_rest(self, lower: int, out: _Writer) -> None:
        """One range for all that this frame has no room for; the next round splits it."""
        if lower < len(self._view) or self._aligned:
            out.fingerprint(_END, self._view.fingerprint(lower, len(self._view)))
        else:
            out.id_list(_END, b"")

    def _full(self, out: _Writer) -> bool:
        return self._room is not None and len(out.message) > self._room

    def _split(self, lower: int, upper: int, bound: Bound, out: _Writer) -> None:
        cuts = self._cuts(lower, upper)
        if not cuts:
            out.id_list(bound, self._view.ids(lower, upper))
            return
        for start, end in pairwise((lower, *cuts)):
            out.fingerprint(self._view.boundary(end), self._view.fingerprint(start, end))
        out.fingerprint(bound, self._view.fingerprint(cuts[-1], upper))


class Initiator(_Party):
    """The side that asks and learns the differences.

    ``seed`` is 32 fresh random bytes for each session: additive fingerprints can be forged by who
    knows the ranges beforehand, so ranges are cut at ranks drawn from it, and a set of 3 or more
    items never goes under one fingerprint. ``aligned`` instead of it gives the reference's bytes
    for comparisons: its even cuts, and its way of ending a full frame, which can lose differences.
    ``frame_size_limit`` bounds each message in bytes; 0 does not, other values are at least 4096.
    Raises ValueError when the arguments break these rules.
    """

    def __init__(
        self,
        view: SetView,
        *,
        seed: bytes = b"",
        frame_size_limit: int = 0,
        aligned: bool = False,
    ) -> None:
        if len(seed) != (0 if aligned else SEED_BYTES):
            raise ValueError(f"a session takes a seed of {SEED_BYTES} bytes, an aligned one none")
        super().__init__(view, even_cuts if aligned else random_cuts(seed), frame_size_limit, aligned)
        self._waiting = False
        self._told: set[bytes] = set()
        self._have: list[bytes] = []
        self._need: list[bytes] = []

    def initiate(self) -> bytes:
        """The first message."""
        out = _Writer()
        self._split(0, len(self._view), _END, out)
        self._waiting = True
        return bytes(out.message)

    def step(self, message: bytes) -> Step:
        """Take the responder's answer.

        Raises SetrecError when it is malformed, of another version or unasked for; the session is
        over then.
        """
        if not self._waiting:
            raise SetrecError("reconciliation message: nothing was asked")
        self._waiting = False
        if message[:1] != bytes((VERSION,)):
            raise SetrecError("reconciliation: the other side speaks another version, update both")
        self._have, self._need = [], []
        reply = self._answer(message)
        self._waiting = len(reply) > 1
        return Step(reply if self._waiting else None, self._have, self._need)

    def _listed(self, lower: int, upper: int, theirs: _Range, out: _Writer) -> int:
        ours, listed = _split_ids(self._view.ids(lower, upper)), _split_ids(theirs.payload)
        self._have += self._untold(ours, set(listed))
        self._need += self._untold(listed, set(ours))
        out.skipped = theirs.bound
        return upper

    def _untold(self, ids: list[bytes], known: set[bytes]) -> list[bytes]:
        """Those of ``ids`` neither in ``known`` nor told before: full frames repeat ranges."""
        fresh = [i for i in dict.fromkeys(ids) if i not in known and i not in self._told]
        self._told.update(fresh)
        return fresh


class Responder(_Party):
    """The side that answers; it keeps nothing between messages, so one serves many sessions.

    ``frame_size_limit`` and ``aligned`` as for the Initiator; raises ValueError for a limit of 1 to
    4095.
    """

    def __init__(self, view: SetView, *, frame_size_limit: int = 0, aligned: bool = False) -> None:
        super().__init__(view, even_cuts, frame_size_limit, aligned)

    def step(self, message: bytes) -> bytes:
        """The answer to a message; to one in another version, the version byte of this one.

        Raises SetrecError when the message is malformed.
        """
        if not 0x60 <= int.from_bytes(message[:1]) <= 0x6F:
            raise SetrecError("reconciliation message: it does not begin with a version")
        if message[0] != VERSION:
            return bytes((VERSION,))
        return self._answer(message)

    def _listed(self, lower: int, upper: int, theirs: _Range, out: _Writer) -> int:
        bound, end = theirs.bound, upper
        if self._room is not None:
            end = min(upper, lower + (self._room - len(out.message)) // ID_BYTES + 1)
        if end < upper:
            bound = self._view.item(end)
        out.id_list(bound, self._view.ids(lower, end))
        return end


def _split_ids(ids: bytes) -> list[bytes]:
    return [ids[i : i + ID_BYTES] for i in range(0, len(ids), ID_BYTES)]
