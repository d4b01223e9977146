"""Tombstones: entries that end other entries of their space, before their time.

What a tombstone ends keeps its header, so that the sets of all nodes stay alike; its payload is dropped, wherever the
two meet and in whatever order they came, and travels no more. It lives at least as long as what it ends, or ends
nothing: else the payload could come back. Copies in hands that do not follow the rules stay what they are.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import Final, NamedTuple

import msgspec

from outlast.kernel.entry import DAY_MS, VERSION, Entry, Header
from outlast.kernel.identity import IdentityError, read_certificate
from outlast.kernel.kinds import Kind, KindError
from outlast.kernel.mail import CERTIFICATE_MAX_BYTES
from outlast.kernel.membership import MEMBER_ACT
from outlast.kernel.revocation import REVOKE, Revocation, is_ended
from outlast.kernel.space import GENESIS, SpaceBody

ENDED_MAX: Final = 64
"""Entries that one tombstone ends."""


class Tombstone(msgspec.Struct, array_like=True, frozen=True):
    """What is ended, and who says so."""

    ids: tuple[bytes, ...]  # 32 B each
    certificate: bytes  # of the device that signs the tombstone; empty: it wrote what it ends, as nobody in particular


TOMBSTONE: Final = Kind(
    "tombstone", Tombstone, max_bytes=ENDED_MAX * 34 + CERTIFICATE_MAX_BYTES + 16, max_life_days=0, priority=1
)
LASTING: Final = frozenset((GENESIS.name, MEMBER_ACT.name, REVOKE.name, TOMBSTONE.name))
"""Kinds that no tombstone ends: to end what ends would bring it back."""


class Stone(NamedTuple):
    """A tombstone whose certificate holds: the ids (32 B) that it names, and the identity (32 B) that says so.

    Without a certificate the identity is empty.
    """

    entry: Entry
    ids: tuple[bytes, ...]
    identity: bytes


def read_stone(entry: Entry) -> Stone | None:
    """The tombstone that an entry is; None for another entry, a malformed one, and one with another's certificate."""
    if entry.header.kind != TOMBSTONE.name or entry.header.version != VERSION or entry.payload is None:
        return None
    try:
        body: Tombstone = TOMBSTONE.decode(entry.payload)
        device = read_certificate(body.certificate) if body.certificate else None
    except (KindError, IdentityError):
        return None
    if device is not None and device.device != entry.header.author:
        return None
    ids = tuple(id for id in body.ids[:ENDED_MAX] if len(id) == 32)
    return Stone(entry, ids, device.identity if device is not None else b"")


def ends(stone: Stone, target: Header, named: Set[bytes], revocations: Collection[Revocation]) -> bool:
    """Whether a tombstone that names this entry has the right and the life to end it.

    That right has who wrote the entry, and whoever the space's genesis names (``allowed``). ``revocations`` are those
    in the space of the device that signed the tombstone, by its identity or one of those named.
    """
    header = stone.entry.header
    if target.space != header.space or target.kind in LASTING:
        return False
    if header.expires_day and not 0 < target.expires_day <= header.expires_day:
        return False
    if header.author != target.author and stone.identity not in named:
        return False
    # Whoever found a lost device can certify it for an identity of their own: that ends none of its revocations.
    return not any(is_ended(header, stone.entry.id, one.identity, [one]) for one in revocations)


def allowed(genesis: SpaceBody) -> set[bytes]:
    """The identities (32 B each) that may end what others wrote: the space's owner and signers."""
    try:
        return {read_certificate(genesis.owner).identity, *genesis.signers}
    except IdentityError:
        return set(genesis.signers)


def life_for(targets: Collection[Header], now_ms: int) -> int:
    """How long, in ms from ``now_ms`` on, a tombstone must live to end these; 0 = for ever."""
    if any(target.expires_day == 0 for target in targets):
        return 0
    return max(DAY_MS, *(target.expires_day * DAY_MS - now_ms for target in targets)) if targets else DAY_MS
