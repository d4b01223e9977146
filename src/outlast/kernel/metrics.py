"""Metrics: what a node has counted since its process began, by rule and by kind of link. They name nobody."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Metrics:
    """Counts that only grow. Who counts adds to them on the event loop; who asks reads them there."""

    admitted: int = 0
    """Entries that came in by the door, those written here included."""
    refused: Counter[str] = field(default_factory=Counter)
    """Entries turned away, by the code of the rule (``admit.Rule``)."""
    expired: int = 0
    """Entries removed because their time was over."""
    sessions: int = 0
    """Sessions with other nodes that were begun."""
    link_bytes_in: Counter[str] = field(default_factory=Counter)
    """Bytes of messages or files that came, by the kind of link: ``tcp``, ``bundle``."""
    link_bytes_out: Counter[str] = field(default_factory=Counter)
    """Bytes of messages or files that went out, by the kind of link."""
