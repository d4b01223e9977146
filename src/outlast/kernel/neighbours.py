"""Neighbours: the sessions of a node with others; carries out what the session machine returns.

A neighbour that was added is dialled until it answers, and again when the link breaks. Whoever knows this node's ID may
connect; those that were not added share the strangers' budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, assert_never

from outlast.errors import OutlastError, ProtocolError, StorageError
from outlast.kernel import sync
from outlast.kernel.admit import Admitted, Known, Refused, Verdict
from outlast.kernel.entry import Entry
from outlast.kernel.forward import Offer
from outlast.kernel.links import tcp
from outlast.kernel.links.channel import Channel
from outlast.kernel.setrec import SetView

if TYPE_CHECKING:
    from outlast.kernel.node import Node

LINK: Final = "tcp"
"""The kind of all links so far."""
RETRY_MIN_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
TICK_S: Final = 10.0
READ_AHEAD_BYTES: Final = 4 * 1024 * 1024
"""Of messages that wait for the session; an honest peer's credit bounds them further."""
INBOUND_MAX: Final = 64
"""Sessions that others may have opened at a time."""
UNCONFIRMED_MAX: Final = 256
"""Neighbours of whom it is remembered that a link to them died before they confirmed something; the latest ones."""
STRANGERS_MAX: Final = 16
"""Those of them that neighbours may have opened who were not added."""


class PeerState(NamedTuple):
    """A neighbour that was added, or is connected by itself, and how it stands with it."""

    node: bytes  # 32 B, transport key
    host: str
    port: int
    connected: bool
    last_seen_ms: int | None
    error: str | None
    added: bool


@dataclass(eq=False, slots=True)
class _Live:
    """A running session."""

    peer: bytes
    initiator: bool
    events: asyncio.Queue[sync.Event]
    session: sync.Session
    task: asyncio.Task[None] | None
    room: asyncio.Event
    """Set while more may be read ahead."""
    ahead_bytes: int = 0
    in_step: bool = False


class Neighbours:
    """The node's links and sessions."""

    def __init__(self, node: Node, *, dial: bool) -> None:
        """Nothing is connected until ``start``, and without ``dial`` nobody is called."""
        self._dials_out = dial
        self._node = node
        self._dials: dict[bytes, asyncio.Task[None]] = {}
        self._servers: list[tcp.Listener] = []
        self._live: set[_Live] = set()
        self._seen: dict[bytes, int] = {}
        self._errors: dict[bytes, str] = {}
        self._claims: dict[bytes, int] = {}
        self._hopeless: set[bytes] = set()
        self._unconfirmed: dict[bytes, set[bytes]] = {}
        """What people here wrote, and a link died before the neighbour said that it is durable there."""

    def start(self) -> None:
        """Begin to dial the neighbours that were added."""
        self.refresh_peers()

    async def stop(self) -> None:
        """End all sessions and stop listening."""
        for server in self._servers:
            await server.close()
        self._servers.clear()
        tasks = [*self._dials.values(), *(live.task for live in self._live if live.task)]
        self._dials.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._live.clear()

    async def listen(self, host: str, port: int) -> int:
        """Wait for neighbours on this address; returns the port. Raises LinkError when it is taken."""
        server = await tcp.serve(host, port, static=self._node.transport.secret, on_channel=self._accept)
        self._servers.append(server)
        return server.port

    def refresh_peers(self) -> None:
        """Dial those that were added since, stop dialling those removed."""
        if not self._dials_out:
            return
        peers = {peer.node: peer for peer in self._node.open_store.peers()}
        for key in self._dials.keys() - peers.keys():
            self._dials.pop(key).cancel()
        for key, peer in peers.items():
            if key not in self._dials:
                self._dials[key] = self._node.loop.create_task(self._dial(key, peer.host, peer.port))

    def refresh(self) -> None:
        """What is followed has changed: begin the sessions anew."""
        for live in self._live:
            _put(live.events, sync.Stopping())

    def offer(self, offers: Sequence[Offer]) -> None:
        """Tell all sessions what became whole here."""
        if self._live:
            self._node.leaves([offer.entry.id for offer in offers])
        for live in self._live:
            _put(live.events, sync.LocalAppended(offers))

    def states(self) -> list[PeerState]:
        """All neighbours that were added, then those that connected by themselves."""
        connected = {live.peer for live in self._live}
        peers = self._node.open_store.peers() if not self._node.locked else []
        added = {peer.node for peer in peers}
        known = [
            PeerState(
                p.node, p.host, p.port, p.node in connected, self._seen.get(p.node), self._errors.get(p.node), True
            )
            for p in peers
        ]
        return known + [
            PeerState(key, "", 0, True, self._seen.get(key), None, False) for key in sorted(connected - added)
        ]

    def claims(self) -> list[int]:
        """The dates that connected neighbours claim; they warn and never set or prune anything."""
        added = self._added()
        return [day for peer, day in self._claims.items() if peer in added]

    def _added(self) -> set[bytes]:
        return set() if self._node.locked else {peer.node for peer in self._node.open_store.peers()}

    async def _dial(self, peer: bytes, host: str, port: int) -> None:
        wait_s = RETRY_MIN_S
        while True:
            try:
                channel = await tcp.connect(host, port, static=self._node.transport.secret, remote=peer)
            except OutlastError as error:
                self._errors[peer] = str(error)
                self._node.touch()
            else:
                wait_s = RETRY_MIN_S
                await self._run(channel, peer)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    async def _accept(self, channel: Channel) -> None:
        inbound = [live.peer for live in self._live if not live.initiator and live.peer != channel.remote]
        if channel.remote is None or len(inbound) >= INBOUND_MAX:
            return
        added = self._added()
        if channel.remote not in added and sum(peer not in added for peer in inbound) >= STRANGERS_MAX:
            return
        await self._run(channel, channel.remote)

    def _is_better(self, peer: bytes, initiator: bool) -> bool:
        """Of two sessions with a neighbour the one that the lower key began stays; who calls anew has lost the old."""
        mine = self._node.transport_id
        for live in list(self._live):
            if live.peer != peer:
                continue
            if live.initiator == initiator and not initiator and live.task is not None:
                live.task.cancel()
            elif live.initiator != initiator and initiator == (mine < peer):
                _put(live.events, sync.Stopping())
            else:
                return False
        return True

    async def _run(self, channel: Channel, peer: bytes) -> None:
        """One session from its first message to its end."""
        node, initiator = self._node, channel.initiator
        if not self._is_better(peer, initiator):
            await channel.close()
            return
        session = sync.Session(
            initiator=initiator,
            key=channel.session_key,
            peer=peer,
            spaces=node.spaces(),
            today=node.today(),
            pruned_day=node.pruned_day,
            rand=os.urandom,
            limits=sync.Limits(intake_bytes=node.share_left(peer)),
        )
        live = _Live(peer, initiator, asyncio.Queue(), session, asyncio.current_task(), asyncio.Event())
        live.room.set()
        ingests: asyncio.Queue[Sequence[Entry]] = asyncio.Queue()
        self._live.add(live)
        node.metrics.sessions += 1
        self._errors.pop(peer, None)
        node.touch()
        read = node.loop.create_task(self._read(channel, live))
        tick = node.loop.create_task(self._tick(live))
        admit = node.loop.create_task(self._ingest(ingests, live))
        try:
            _put(live.events, sync.Started())
            reason: str | None = None
            while reason is None:
                event = await live.events.get()
                if isinstance(event, sync.MessageArrived):
                    live.ahead_bytes -= len(event.data)
                    live.room.set()
                if admit.done():
                    admit.result()
                for command in session.step(event):
                    reason = await self._carry_out(command, channel, live, ingests)
                    if reason is not None:
                        break
                if session.peer_today is not None:
                    self._claims[peer] = session.peer_today
                if session.closed and reason is None:
                    reason = "the link broke"
            self._errors[peer] = reason
        except (OutlastError, OSError) as error:
            self._errors[peer] = str(error)
        finally:
            for task in (read, tick, admit):
                task.cancel()
            await asyncio.gather(read, tick, admit, return_exceptions=True)
            self._live.discard(live)
            self._claims.pop(peer, None)
            self._note_unconfirmed(peer, session.unacknowledged)
            if peer in self._added():
                self._seen[peer] = node.now_ms()
            else:
                self._errors.pop(peer, None)  # nothing is remembered of any number of strangers
            await channel.close()
            node.touch()

    async def _carry_out(
        self, command: sync.Command, channel: Channel, live: _Live, ingests: asyncio.Queue[Sequence[Entry]]
    ) -> str | None:
        """Do what the machine says; a reason when the session is over."""
        node = self._node
        store = node.open_store
        match command:
            case sync.Send(data):
                node.metrics.link_bytes_out[LINK] += len(data)
                await channel.send(data)
            case sync.LoadBuckets(spaces, floor_day):
                buckets = [
                    sync.Bucket(space, day, count)
                    for space in spaces
                    for day, count in store.buckets(space)
                    if day == 0 or day >= floor_day
                ]
                bare = [entry for entry in store.bare() if entry.id not in self._hopeless]
                _put(live.events, sync.BucketsLoaded(buckets, bare))
            case sync.LoadBucket(space, day):
                times, ids = store.bucket(space, day)
                view = await asyncio.to_thread(SetView.from_sorted, times, ids)
                _put(live.events, sync.BucketLoaded(space, day, view))
            case sync.LoadEntries(ids):
                node.leaves(ids)
                _put(live.events, sync.EntriesLoaded(store.load(ids)))
            case sync.Ingest(entries):
                ingests.put_nowait(entries)
            case sync.Copied(ids):
                await node.copied(ids)
                if live.peer in self._unconfirmed:
                    self._unconfirmed[live.peer].difference_update(ids)
            case sync.InStep():
                live.in_step = True
                again = store.load(self._unconfirmed.get(live.peer, ()))
                _put(live.events, sync.LocalAppended([Offer(entry) for entry in again]))
                for person in list(node.people.values()):
                    await person.met_somebody()
                node.touch()
            case sync.Close(reason) | sync.CutOff(reason):
                return reason
            case _:
                assert_never(command)
        return None

    def _note_unconfirmed(self, peer: bytes, ids: Sequence[bytes]) -> None:
        """Offer these once more when that neighbour is back: reconciliation does not tell who holds what."""
        with contextlib.suppress(StorageError):
            own = {id for person in self._node.people.values() for id in person.authored(ids)}
            if own := own | self._unconfirmed.pop(peer, set()):
                self._unconfirmed[peer] = own
            if len(self._unconfirmed) > UNCONFIRMED_MAX:
                self._unconfirmed.pop(next(iter(self._unconfirmed)))

    async def _read(self, channel: Channel, live: _Live) -> None:
        try:
            while True:
                await live.room.wait()
                message = await channel.receive()
                if message is None:
                    break
                self._node.metrics.link_bytes_in[LINK] += len(message)
                _put(live.events, sync.MessageArrived(message))
                live.ahead_bytes += len(message)
                if live.ahead_bytes > READ_AHEAD_BYTES:
                    live.room.clear()
        except ProtocolError as error:
            self._errors[live.peer] = str(error)
        _put(live.events, sync.LinkClosed())

    async def _tick(self, live: _Live) -> None:
        while True:
            _put(live.events, sync.Tick(int(self._node.loop.time() * 1000)))
            await asyncio.sleep(TICK_S)

    async def _ingest(self, ingests: asyncio.Queue[Sequence[Entry]], live: _Live) -> None:
        """Take what arrived to the door; all that waits goes together, so that it shares a transaction."""
        while True:
            waiting = [await ingests.get()]
            while not ingests.empty():
                waiting.append(ingests.get_nowait())
            try:
                results = await asyncio.gather(*(self._node.ingest(entries, live.peer) for entries in waiting))
            except OutlastError:
                _put(live.events, sync.Stopping())
                raise
            for verdicts in results:
                # A header that was kept can have a payload that its kind refuses: it is not asked for again.
                refused = [v.entry.id for v in verdicts if isinstance(v, Refused) and v.entry and v.entry.payload]
                self._hopeless |= self._node.open_store.known(refused)
                _put(live.events, sync.Ingested([self._fate(verdict) for verdict in verdicts]))

    def _fate(self, verdict: Verdict) -> sync.Fate:
        match verdict:
            case Admitted(entry):
                whole = entry.payload is not None
            case Known(entry):
                held = self._node.open_store.get(entry.id) if entry.payload is None else entry
                whole = held is not None and held.payload is not None
            case _:
                return sync.Fate.REFUSED
        return sync.Fate.KEPT if whole else sync.Fate.WANTS_PAYLOAD


def _put(events: asyncio.Queue[sync.Event], event: sync.Event) -> None:
    events.put_nowait(event)
