"""Counts for a monitor: how much there is now, and what happened since the process began. They name nobody.

They leave the node only through its own socket, for its owner: ``outlast metrics``, or ``GET /metrics`` there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from outlast.ui.operation import Call, Nothing, Operation

if TYPE_CHECKING:
    from outlast.kernel import Node

TEXT: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def _total(text: str) -> Meta:
    """What only grows, from 0 at the start of the process."""
    return Meta(description=text, extra={"total": True})


def _totals(text: str, label: str) -> Meta:
    """The same, counted apart for each value of ``label``."""
    return Meta(description=text, extra={"total": True, "label": label})


class Counts(msgspec.Struct, frozen=True):
    """Counts of the node; those of the store are 0 while it is locked."""

    locked: Annotated[int, Meta(description="1 while the store is closed")]
    people_unlocked: Annotated[int, Meta(description="Vaults that are open")]
    entries: Annotated[int, Meta(description="Entries held")]
    entry_bytes: Annotated[int, Meta(description="Bytes of the entries held")]
    pool_entries: Annotated[int, Meta(description="Of the entries, those that strangers brought")]
    pool_bytes: Annotated[int, Meta(description="Bytes of those")]
    store_file_bytes: Annotated[int, Meta(description="Bytes of the store's files, the write-ahead log included")]
    vault_file_bytes: Annotated[int, Meta(description="Bytes of the vaults' files")]
    disk_free_bytes: Annotated[int, Meta(description="Bytes free on the disk of the home")]
    spaces: Annotated[int, Meta(description="Spaces followed, the mail space included")]
    peers: Annotated[int, Meta(description="Nodes that this one connects to")]
    peers_connected: Annotated[int, Meta(description="Of these, how many are connected now")]
    callers_connected: Annotated[int, Meta(description="Other nodes that are connected because they called")]
    door_waiting: Annotated[int, Meta(description="Entries that wait to be examined")]
    outbox_waiting: Annotated[int, Meta(description="What was written here and is not in the store yet")]
    changes_unfolded: Annotated[int, Meta(description="Changes that the view which lags most has not seen yet")]
    clock_warning: Annotated[int, Meta(description="1 while the clock cannot be right")]
    pruning_stopped: Annotated[int, Meta(description="1 while what is over is kept, because the date is in doubt")]
    sessions: Annotated[int, _total("Sessions with other nodes that were begun")]
    admitted: Annotated[int, _total("Entries taken in, those written here included")]
    refused: Annotated[dict[str, int], _totals("Entries turned away, by the rule that did it", "rule")]
    expired: Annotated[int, _total("Entries removed because their time was over")]
    evicted: Annotated[int, _total("Entries let go because a quota was full")]
    payloads_dropped: Annotated[int, _total("Payloads let go for the same reason; their headers stay")]
    link_bytes_in: Annotated[dict[str, int], _totals("Bytes that came, by the kind of link", "link")]
    link_bytes_out: Annotated[dict[str, int], _totals("Bytes that went out, by the kind of link", "link")]


class Sample(NamedTuple):
    """One number: the count's name, the label's value or nothing, the value, and what it says."""

    name: str
    label: str
    value: int
    text: str


async def metrics(call: Call[Nothing]) -> Counts:
    """Count."""
    return count(call.node)


def count(node: Node) -> Counts:
    """The counts of a node, locked or not."""
    store, counted, peers = node.store, node.metrics, [] if node.locked else node.peers()
    usage, pool = (store.usage(), store.pool_usage()) if store else (None, None)
    return Counts(
        locked=int(node.locked),
        people_unlocked=len(node.people),
        entries=usage.entries if usage else 0,
        entry_bytes=usage.bytes if usage else 0,
        pool_entries=pool.entries if pool else 0,
        pool_bytes=pool.bytes if pool else 0,
        store_file_bytes=_size(node, "store.db*") + _size(node, "store.chunks"),
        vault_file_bytes=_size(node, "people/*/vault.db*"),
        disk_free_bytes=node.space_left(),
        spaces=len(store.spaces()) if store else 0,
        peers=sum(peer.added for peer in peers),
        peers_connected=sum(peer.added and peer.connected for peer in peers),
        callers_connected=sum(not peer.added for peer in peers),
        door_waiting=node.door.waiting(),
        outbox_waiting=sum(person.outbox.waiting() for person in node.people.values()),
        changes_unfolded=store.behind() if store else 0,
        clock_warning=int(node.clock_warning() is not None),
        pruning_stopped=int(node.pruning_stopped() is not None),
        sessions=counted.sessions,
        admitted=counted.admitted,
        refused=dict(counted.refused),
        expired=counted.expired,
        evicted=counted.evicted,
        payloads_dropped=counted.payloads_dropped,
        link_bytes_in=dict(counted.link_bytes_in),
        link_bytes_out=dict(counted.link_bytes_out),
    )


METRICS: Final = Operation("metrics", Nothing, Counts, metrics, "Counts for a monitor", while_locked=True)


def samples(counts: Mapping[str, Any]) -> Iterator[Sample]:
    """The answer of the operation number by number, in the order of ``Counts``."""
    for name, meta in _told().items():
        value, text = counts[name], str(meta.description)
        if isinstance(value, Mapping):
            yield from (Sample(name, label, one, text) for label, one in sorted(value.items()))
        else:
            yield Sample(name, "", value, text)


def exposition(counts: Mapping[str, Any]) -> str:
    """The answer of the operation as OpenMetrics text 1.0, which Prometheus and others read."""
    lines: list[str] = []
    found = list(samples(counts))
    for name, meta in _told().items():
        extra = meta.extra or {}
        kind, suffix = ("counter", "_total") if "total" in extra else ("gauge", "")
        lines += [f"# TYPE outlast_{name} {kind}", f"# HELP outlast_{name} {meta.description}"]
        for one in found:
            if one.name == name:
                label = f'{{{extra["label"]}="{one.label}"}}' if "label" in extra else ""
                lines.append(f"outlast_{name}{suffix}{label} {one.value}")
    return "\n".join([*lines, "# EOF", ""])


@cache
def _told() -> dict[str, Meta]:
    hints = get_type_hints(Counts, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def _size(node: Node, pattern: str) -> int:
    total = 0
    for file in node.home.path.glob(pattern):
        with suppress(FileNotFoundError):  # a write-ahead log goes when its file is closed
            total += file.stat().st_size
    return total
