"""Metrics: what a node has counted since its process began, by rule and by kind of link. They name nobody."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Metrics:
    """Counts that only grow. Each is added to on one thread alone: what eviction counts on the writer's."""

    admitted: int = 0
    """Entries that came in by the door, those written here included."""
    refused: Counter[str] = field(default_factory=Counter)
    """Entries turned away, by the code of the rule (``admit.Rule``)."""
    expired: int = 0
    """Entries removed because their time was over."""
    evicted: int = 0
    """Entries let go because a quota was full."""
    payloads_dropped: int = 0
    """Payloads let go for the same reason while their headers stay."""
    sessions: int = 0
    """Sessions with other nodes that were begun."""
    link_bytes_in: Counter[str] = field(default_factory=Counter)
    """Bytes of messages or files that came, by the kind of link: ``tcp``, ``bundle``."""
    link_bytes_out: Counter[str] = field(default_factory=Counter)
    """Bytes of messages or files that went out, by the kind of link."""
