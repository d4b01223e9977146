"""Kinds: the name of what an entry or a letter says, with its body type, size limit and retention.

A kind is unknown to a node that lacks its room: such entries are relayed opaquely under the default limits, so that
nodes without a room do not split the sets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from outlast.errors import ProtocolError, UsageError
from outlast.kernel.entry import CONTENT_MAX_BYTES, KIND_MAX_BYTES

DEFAULT_LIFE_DAYS: Final = 90
"""Longest life of an entry whose kind this node does not know."""


class KindError(ProtocolError):
    """A body does not fit its kind."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entry (on the log) or of letter (inside mail).

    ``body`` is a frozen msgspec Struct, encoded as msgpack, or None: then the payload is bytes as they are, as those of
    a file, and above 64 KiB it is in chunks. ``max_bytes`` bounds the encoded body or the bytes; ``max_life_days``
    bounds ``expires_day`` against the entry's own time, and 0 allows entries that never expire. A letter is
    ``acknowledged`` as received when it is opened; else its room says when (``Person.mark_received``).
    """

    name: str
    body: type[msgspec.Struct] | None
    max_bytes: int
    max_life_days: int = DEFAULT_LIFE_DAYS
    priority: int = 2
    acknowledged: bool = True

    def __post_init__(self) -> None:
        """Refuse names and limits that no entry can have."""
        if not 0 < len(self.name) <= KIND_MAX_BYTES or self.max_bytes > CONTENT_MAX_BYTES:
            raise UsageError("kind %(name)r has an impossible name or size", name=self.name)

    def encode(self, body: msgspec.Struct) -> bytes:
        """The payload of a body; raises KindError when it is too large or of another type."""
        if self.body is None:
            raise KindError("%(name)s takes bytes as they are, no body", name=self.name)
        if not isinstance(body, self.body):
            raise KindError("%(name)s takes a %(body)s", name=self.name, body=self.body.__name__)
        data = msgspec.msgpack.encode(body)
        if len(data) > self.max_bytes:
            raise KindError(
                "%(name)s holds at most %(most)s bytes, this has %(size)s",
                name=self.name,
                most=self.max_bytes,
                size=len(data),
            )
        return data

    def decode(self, payload: bytes) -> Any:
        """The body of a payload; raises KindError when it is malformed, or the kind has none."""
        if self.body is None:
            raise KindError("%(name)s has no body: its payload is bytes as they are", name=self.name)
        if len(payload) > self.max_bytes:
            raise KindError(
                "%(name)s holds at most %(most)s bytes, this has %(size)s",
                name=self.name,
                most=self.max_bytes,
                size=len(payload),
            )
        try:
            return msgspec.msgpack.decode(payload, type=self.body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise KindError("%(name)s is malformed: %(error)s", name=self.name, error=error) from None


class Kinds:
    """The kinds this node knows, by name."""

    def __init__(self, kinds: Iterable[Kind] = ()) -> None:
        """Register ``kinds``; two rooms may register one name only with one body type."""
        self._kinds: dict[str, Kind] = {}
        for kind in kinds:
            known = self._kinds.setdefault(kind.name, kind)
            if known.body is not kind.body:
                raise UsageError("two rooms give the kind %(name)r different bodies", name=kind.name)

    def get(self, name: str) -> Kind | None:
        """The kind of that name, or None when no room here knows it."""
        return self._kinds.get(name)
