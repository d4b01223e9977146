"""Neighbours: the sessions of a node with others; carries out what the session machine returns.

A neighbour that was added is dialled until it answers, and again when the link breaks; a way that a room brings is
opened in the same manner. Whoever knows this node's ID may connect; those that were not added share the strangers'
budget.

The sessions take turns: each carries out what one event asks for, hands the link no more than a turn's bytes, and lets
the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, assert_never

from outlast.errors import LockedError, OutlastError, ProtocolError, Sentence, StorageError, reason_of
from outlast.kernel import sending, steps, sync
from outlast.kernel.admit import Admitted, Known, Refused, Verdict
from outlast.kernel.chunks import Chunk, Downloads, is_chunked
from outlast.kernel.forward import Carriage, Offer, carriage
from outlast.kernel.links import tcp
from outlast.kernel.links.channel import Channel, answer, call
from outlast.kernel.links.link import Cost, Duplex, Link, LinkError, Way
from outlast.kernel.noise import Pattern
from outlast.kernel.snapshots import Snapshots
from outlast.kernel.store import SETS, Scope

if TYPE_CHECKING:
    from outlast.kernel.node import Node
    from outlast.kernel.store import Grown

log = logging.getLogger("outlast")

RETRY_MIN_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
CALLS_AT_ONCE: Final = 8
"""So often in as many times RETRY_MIN_S a neighbour is called anew without a pause after a session: a side ends it each
time that somebody there follows something, and what it says last may be lost with the link."""
TICK_S: Final = 10.0
NEWS_MAX: Final = 4096
"""News that wait for a session; one that is further behind is ended, and the next one finds what is missing."""
READ_AHEAD_BYTES: Final = 4 * 1024 * 1024
"""Of messages that wait for the session, with what each takes beside its bytes; an honest peer's credit bounds them
further."""
VISITS_MAX: Final = 4
"""Strangers in the local network that are called at a time."""
QUICK_S: Final = 0.05
"""A link that takes all that is to go in this time is quick."""
EVENTS_A_TURN: Final = 8
"""What a session sees to before the others have their turn."""
UNBOUNDED: Final = 2**62
MESSAGE_COST_BYTES: Final = 512
CHUNKS_TOGETHER: Final = 64
"""Chunks that are written in one transaction: 4 MiB, while as much again comes in."""
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
    error: Sentence | None
    added: bool


@dataclass(eq=False, slots=True)
class _Live:
    """A running session."""

    peer: bytes
    named: bool
    """Whether the peer showed a key; else ``peer`` is a random name."""
    link: Link
    initiator: bool
    session: sync.Session
    task: asyncio.Task[None] | None
    events: asyncio.Queue[steps.Event] = field(default_factory=asyncio.Queue)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while more may be read ahead."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    bulk: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while a piece of a chunk is on its way to the link."""
    ahead_bytes: int = 0
    in_step: bool = False
    scope: Scope = SETS
    """What is compared with the peer: the pool with strangers alone, and what people here wrote always."""
    told: int = 0
    """The cursor up to which the peer has chosen from what strangers brought."""
    news: list[Offer] = field(default_factory=list)
    behind: bool = False
    holdings: dict[bytes, int] = field(default_factory=dict)
    whole: set[bytes] = field(default_factory=set)

    def hear(self, offers: Sequence[Offer]) -> None:
        """Put news into the queue; all that wait there are one event, and not too many."""
        fresh = self.session.welcome(offers)
        if not fresh or self.behind:
            return
        if len(self.news) + len(fresh) > NEWS_MAX:
            self.news.clear()
            self.behind = True
            self.put(steps.Stopping())
            return
        if not self.news:
            self.put(steps.LocalAppended(self.news))
        self.news += [offer._replace(entry=sending.as_news(offer.entry)) for offer in fresh]

    def hear_of_content(self, holdings: Mapping[bytes, int], whole: Collection[bytes]) -> None:
        """Put what came of contents into the queue; all that waits there is one event."""
        if not self.holdings:
            self.put(steps.ContentGrew(self.holdings, self.whole))
        self.holdings.update(holdings)
        self.whole.update(whole)

    def put(self, event: steps.Event) -> None:
        """Let the session see to this in its turn."""
        self.events.put_nowait(event)

    async def next(self) -> steps.Event:
        """What the session is to see to now."""
        event = await self.events.get()
        match event:
            case steps.MessageArrived(data):
                self.ahead_bytes -= len(data) + MESSAGE_COST_BYTES
                self.room.set()
            case steps.LocalAppended(offers) if offers is self.news:
                self.news = []
            case steps.ContentGrew():
                self.holdings, self.whole = {}, set()
        return event


class Neighbours:
    """The node's links and sessions."""

    def __init__(self, node: Node, *, dial: bool) -> None:
        """Nothing is connected until ``start``, and without ``dial`` nobody is called."""
        self._dials_out = dial
        self._node = node
        self._dials: dict[bytes, asyncio.Task[None]] = {}
        self._ways: dict[tuple[str, str, bytes | None], asyncio.Task[None]] = {}
        """What goes each way, by the room that brings it, its name and where it leads."""
        self._servers: list[tcp.Listener] = []
        self._live: set[_Live] = set()
        self._seen: dict[bytes, int] = {}
        self._errors: dict[bytes, Sentence] = {}
        self._claims: dict[bytes, int] = {}
        self._hopeless: set[bytes] = set()
        self._downloads = Downloads()
        self._unconfirmed: dict[bytes, set[bytes]] = {}
        """What people here wrote, and a link died before the neighbour said that it is durable there."""
        self.strangers = False
        """Whether those may call, and are called, who show no key."""
        self._addresses: dict[bytes, tuple[str, int]] = {}
        """Where those that are dialled were said to be."""
        self._found: dict[bytes, tuple[str, int]] = {}
        """Where neighbours are in the local network, as they announce it."""
        self._wakes: dict[bytes, asyncio.Event] = {}
        self._visits: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._sent: dict[str, int] = {}
        """Bytes sent today over the kinds of links that have a bound."""
        self._sent_day = 0

    def start(self) -> None:
        """Begin to dial the neighbours that were added, and to open the ways that the rooms bring."""
        self._snapshots = Snapshots(self._node.open_store)
        self.refresh_peers()
        self.refresh_ways()

    async def stop(self) -> None:
        """End all sessions and stop listening."""
        await self.stop_listening()
        tasks = [
            *self._dials.values(),
            *self._ways.values(),
            *self._visits.values(),
            *(live.task for live in self._live if live.task),
        ]
        self._dials.clear()
        self._ways.clear()
        self._visits.clear()
        self._addresses.clear()
        self._found.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._live.clear()

    async def stop_listening(self) -> None:
        """Take no more calls, and end the sessions that others began by calling here."""
        for server in self._servers:
            await server.close()
        self._servers.clear()

    @property
    def heard_at(self) -> list[tuple[str, int]]:
        """Where neighbours can call now: each a host, as it was given to ``listen``, and a port."""
        return [(server.host, server.port) for server in self._servers]

    async def listen(self, host: str, port: int) -> int:
        """Wait for neighbours on this address; returns the port. Raises StorageError when it is taken."""
        server = await tcp.serve(
            host, port, static=self._node.transport.secret, on_channel=self._accept, strangers=lambda: self.strangers
        )
        self._servers.append(server)
        return server.port

    def refresh_peers(self) -> None:
        """Dial those that were added since, each where it was said to be last; stop dialling those removed."""
        if not self._dials_out:
            return
        peers = {peer.node: peer for peer in self._node.open_store.peers()}
        for key in self._dials.keys() - peers.keys():
            self._dials.pop(key).cancel()
            del self._addresses[key]
            self._found.pop(key, None)
            self._wakes.pop(key, None)
        for key, peer in peers.items():
            moved = self._addresses.get(key) != (peer.host, peer.port)
            self._addresses[key] = peer.host, peer.port
            if key not in self._dials:
                self._wakes[key] = asyncio.Event()
                self._dials[key] = self._node.loop.create_task(self._dial(key))
            elif moved:
                self._wakes[key].set()

    def refresh_ways(self) -> None:
        """Ask the rooms again which ways there are: go the new ones, leave those that are gone, try the others now."""
        if not self._dials_out:
            return
        there = {
            (room.name, way.name, way.remote): way
            for room in self._node.rooms.values()
            for way in (room.links(self._node) if room.links else ())
        }
        for key in self._ways.keys() - there.keys():
            self._ways.pop(key).cancel()
        for key, way in there.items():
            if key not in self._ways:
                self._ways[key] = self._node.loop.create_task(self._travel(way))
            elif way.remote in self._wakes:
                self._wakes[way.remote].set()
        for remote in self._wakes.keys() - self._dials.keys() - {remote for _, _, remote in self._ways}:
            del self._wakes[remote]

    def refresh(self) -> None:
        """What is followed has changed: begin the sessions anew."""
        for live in self._live:
            live.put(steps.Stopping())

    def found(self, peer: bytes, host: str, port: int) -> None:
        """A neighbour that was added says that it is there now; the address that it was added with stays."""
        if peer in self._dials and self._found.get(peer) != (host, port):
            self._found[peer] = host, port
            self._wakes[peer].set()

    def visit(self, host: str, port: int) -> None:
        """Have a session with a stranger there, if not too many strangers are visited already."""
        if self._dials_out and self.strangers and (host, port) not in self._visits and len(self._visits) < VISITS_MAX:
            self._visits[host, port] = self._node.loop.create_task(self._visit(host, port))

    def leave_strangers(self) -> None:
        """End all sessions with those who show no key."""
        self.strangers = False
        for live in self._live:
            if not live.named:
                live.put(steps.Stopping())

    @property
    def hears(self) -> bool:
        """Whether there is any session to tell news."""
        return bool(self._live)

    def offer(self, offers: Sequence[Offer]) -> None:
        """Tell all sessions what became whole here."""
        self._node.leaves([offer.entry.id for offer in offers])
        for live in self._live:
            live.hear(offers)

    def content_grew(self, grown: Grown) -> None:
        """Tell all sessions what came of contents in chunks."""
        for live in self._live:
            live.hear_of_content(grown.holdings, grown.whole)

    def more_wanted(self, requested: bytes | None = None) -> None:
        """Tell all sessions that there may be more content to fetch, and what a person asks for, by its entry."""
        for live in self._live:
            live.put(steps.MoreWanted(requested))

    def states(self) -> list[PeerState]:
        """All neighbours that were added, then those that connected by themselves."""
        connected = {live.peer for live in self._live if live.named}
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

    async def _dial(self, peer: bytes) -> None:
        static = self._node.transport.secret

        async def opens() -> Channel:
            if (near := self._found.get(peer)) is not None:
                try:
                    return await tcp.connect(*near, static=static, remote=peer)
                except OutlastError:
                    self._found.pop(peer, None)
            return await tcp.connect(*self._addresses[peer], static=static, remote=peer)

        await self._keep_calling(peer, opens, tcp.BITS_PER_S)

    async def _visit(self, host: str, port: int) -> None:
        """Call a stranger, and again when the session is over, until nobody answers or nothing comes of it."""
        try:
            while self.strangers:
                channel = await tcp.connect(host, port)
                try:
                    was = await self._run(channel, os.urandom(32), named=False)
                    if was is None or not was.in_step:
                        break
                finally:
                    await channel.close()
                await asyncio.sleep(RETRY_MAX_S * random.uniform(0.5, 1.0))
        except OutlastError:
            pass
        finally:
            self._visits.pop((host, port), None)

    async def _travel(self, way: Way) -> None:
        """Go a way that a room brings, again and again."""
        if way.remote is None:
            await self._keep_answering(way)
            return

        async def opens() -> Channel:
            link = await way.opens()
            return await call(link, Pattern.XK, static=self._node.transport.secret, remote=way.remote, psk=None)

        await self._keep_calling(way.remote, opens, None)

    async def _keep_calling(self, peer: bytes, opens: Callable[[], Awaitable[Channel]], bits_per_s: int | None) -> None:
        """Have a session with a neighbour whenever there is none over a link as good as this."""
        wait_s = RETRY_MIN_S
        calls = deque[float](maxlen=CALLS_AT_ONCE)
        wake = self._wakes.setdefault(peer, asyncio.Event())
        while True:
            while (rival := self._rival(peer, bits_per_s)) is not None:
                await rival.over.wait()
            began = self._node.loop.time()
            often = len(calls) == CALLS_AT_ONCE and began - calls[0] < CALLS_AT_ONCE * RETRY_MIN_S
            calls.append(began)
            try:
                channel = await opens()
                bits_per_s = channel.link.bits_per_s
                try:
                    was = await self._run(channel, peer)
                finally:
                    await channel.close()
                if was and was.in_step:
                    wait_s = RETRY_MIN_S
                if was and not was.session.failed and not often:
                    continue
            except OutlastError as error:
                self._errors[peer] = reason_of(error)
                self._node.touch()
            except Exception:
                self._failed(peer)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s * random.uniform(0.5, 1.0)):
                    await wake.wait()
                    # However often somebody says so, nobody is called twice in a moment.
                    await asyncio.sleep(began + RETRY_MIN_S - self._node.loop.time())
            wake.clear()
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    async def _keep_answering(self, way: Way) -> None:
        """Have a session over each link that others open by this way."""
        wait_s = RETRY_MIN_S
        sessions: set[asyncio.Task[None]] = set()
        try:
            while True:
                try:
                    link = await way.opens()
                except Exception as error:
                    if not isinstance(error, OutlastError):
                        log.exception("the way %s failed", way.name)
                    await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
                    wait_s = min(wait_s * 2, RETRY_MAX_S)
                    continue
                wait_s = RETRY_MIN_S
                if len(sessions) >= INBOUND_MAX:
                    await asyncio.wait(sessions, return_when=asyncio.FIRST_COMPLETED)
                task = self._node.loop.create_task(self._answer(link))
                sessions.add(task)
                task.add_done_callback(sessions.discard)
        finally:
            for task in sessions:
                task.cancel()

    async def _answer(self, link: Link) -> None:
        with contextlib.suppress(ProtocolError, LinkError):
            channel = await answer(link, static=self._node.transport.secret)
            try:
                await self._accept(channel)
            finally:
                await channel.close()

    def _rival(self, peer: bytes, bits_per_s: int | None) -> _Live | None:
        """The session with a neighbour over a link as good as one of so many bits a second, if there is one."""
        if bits_per_s is None:
            return None
        return next((one for one in self._live if one.peer == peer and one.link.bits_per_s >= bits_per_s), None)

    def _failed(self, peer: bytes) -> None:
        """Something failed as nothing should: it ends this session alone, so that no peer can end the node by it."""
        log.exception("a session failed")
        self._errors[peer] = Sentence("something failed on this side: see the log")
        self._node.touch()

    async def _accept(self, channel: Channel) -> None:
        peer = channel.remote or os.urandom(32)  # who shows no key is somebody else each time
        inbound = [live.peer for live in self._live if not live.initiator and live.peer != peer]
        if len(inbound) >= INBOUND_MAX:
            return
        added = self._added()
        if peer not in added and sum(peer not in added for peer in inbound) >= STRANGERS_MAX:
            return
        await self._run(channel, peer, named=channel.remote is not None)

    def _is_better(self, peer: bytes, link: Link, initiator: bool) -> bool:
        """Whether a new session with a neighbour takes the place of those that are.

        The one over the faster link stays; of two over alike links the one that the lower key began; and who calls anew
        has lost the old.
        """
        mine = self._node.transport_id
        for live in list(self._live):
            if live.peer != peer:
                continue
            if live.link.bits_per_s != link.bits_per_s:
                if live.link.bits_per_s > link.bits_per_s:
                    return False
                live.put(steps.Stopping())
            elif live.initiator == initiator and not initiator and live.task is not None:
                live.task.cancel()
            elif live.initiator != initiator and initiator == (mine < peer):
                live.put(steps.Stopping())
            else:
                return False
        return True

    async def _run(self, channel: Channel, peer: bytes, *, named: bool = True) -> _Live | None:
        """One session from its first message to its end, as it was then; None: there was none, or it failed here.

        The caller closes the channel, however this ends.
        """
        node, initiator, link = self._node, channel.initiator, channel.link
        if not self._is_better(peer, link, initiator):
            return None
        spaces, access = node.named()
        bounds = carriage(link.bits_per_s, half_duplex=link.duplex is Duplex.HALF, metered=link.cost is Cost.METERED)
        limits = steps.Limits(intake_bytes=node.door.share_left(peer), output_bytes=self._output_left(link, bounds))
        session = sync.Session(
            initiator=initiator,
            key=channel.session_key,
            peer=peer,
            spaces=spaces,
            access=access,
            today=node.today(),
            pruned_day=node.pruned_day,
            rand=os.urandom,
            downloads=self._downloads,
            limits=limits.over(bounds),
            stranger=peer not in self._added(),
        )
        live = _Live(peer, named, link, initiator, session, asyncio.current_task())
        live.room.set()
        ingests: asyncio.Queue[steps.Ingest] = asyncio.Queue()
        chunks: asyncio.Queue[Chunk] = asyncio.Queue()
        loads: asyncio.Queue[Sequence[tuple[bytes, int]]] = asyncio.Queue()
        self._live.add(live)
        self._errors.pop(peer, None)
        node.metrics.sessions += 1
        node.touch()
        read = node.loop.create_task(self._read(channel, live))
        tick = node.loop.create_task(self._tick(live))
        admit = node.loop.create_task(self._ingest(ingests, live))
        keep = node.loop.create_task(self._keep_chunks(chunks, live))
        load = node.loop.create_task(self._load_chunks(loads, live))
        bulk = node.loop.create_task(self._report_bulk(channel, live))
        tasks = (read, tick, admit, keep, load, bulk)
        try:
            live.put(steps.Started())
            reason: Sentence | None = None
            turn = 0
            while reason is None:
                event = await live.next()
                for task in (admit, keep, load, bulk):
                    if task.done():
                        task.result()
                for command in session.step(event):
                    reason = await self._carry_out(command, channel, live, ingests, chunks, loads)
                    if reason is not None:
                        break
                if session.pool_settled and not session.stranger and not live.behind and live.events.empty():
                    live.told = node.cursor
                if session.has_more:
                    live.put(steps.TakenByLink())
                if session.peer_today is not None:
                    self._claims[peer] = session.peer_today
                if session.closed and reason is None:
                    reason = Sentence("the link broke")
                turn += 1
                if turn % EVENTS_A_TURN == 0 or live.events.empty():
                    await asyncio.sleep(0)  # the others' turn
            self._errors[peer] = reason
        except (OutlastError, OSError) as error:
            self._errors[peer] = reason_of(error)
        except Exception:
            self._failed(peer)
            return None
        finally:
            # Whoever removes the neighbour now, or has a better link, cancels this task once more: what tells others
            # that the session is over comes before anything that waits.
            for task in tasks:
                task.cancel()
            self._live.discard(live)
            live.over.set()
            session.step(steps.LinkClosed())
            self.more_wanted()  # what it was asked for can be asked of others
            self._claims.pop(peer, None)
            if named:  # who is somebody else each time cannot be told again
                self._note_unconfirmed(peer, session.unacknowledged)
            if bounds.day_bytes is not None:
                self._sent[link.kind] = self._sent.get(link.kind, 0) + channel.bytes_sent
            if peer in self._added():
                self._seen[peer] = node.now_ms()
            else:
                self._errors.pop(peer, None)  # nothing is remembered of any number of strangers
            node.touch()
            await asyncio.gather(*tasks, return_exceptions=True)
            if live.told:
                with contextlib.suppress(OutlastError):
                    await node.write(partial(node.open_store.tell_peer, peer, live.told))
        return live

    def _output_left(self, link: Link, bounds: Carriage) -> int:
        """What may still be sent today over a kind of link."""
        if (today := self._node.today()) != self._sent_day:
            self._sent, self._sent_day = {}, today
        if bounds.day_bytes is None:
            return UNBOUNDED
        return max(0, bounds.day_bytes - self._sent.get(link.kind, 0))

    async def _carry_out(
        self,
        command: steps.Command,
        channel: Channel,
        live: _Live,
        ingests: asyncio.Queue[steps.Ingest],
        chunks: asyncio.Queue[Chunk],
        loads: asyncio.Queue[Sequence[tuple[bytes, int]]],
    ) -> Sentence | None:
        """Do what the machine says; a reason when the session is over."""
        node = self._node
        store = node.open_store
        match command:
            case steps.Send(data):
                node.metrics.link_bytes_out[live.link.kind] += len(data)
                await channel.send(data)
            case steps.SendBulk(messages):
                node.metrics.link_bytes_out[live.link.kind] += sum(map(len, messages))
                await channel.send(*messages)
                live.bulk.set()
            case steps.LoadBuckets(spaces, floor_day, priority_max):
                live.scope = Scope(priority_max, live.session.stranger, frozenset(node.own_pooled()))
                buckets = [
                    steps.Bucket(space, day, count)
                    for space in spaces
                    for day, count in store.buckets(space, live.scope)
                    if day == 0 or day >= floor_day
                ]
                bare = [entry for entry in store.bare() if entry.id not in self._hopeless]
                live.put(steps.BucketsLoaded(buckets, bare))
            case steps.LoadBucket(space, day):
                view = await self._snapshots.take(space, day, live.scope)
                live.put(steps.BucketLoaded(space, day, view))
            case steps.LoadEntries(ids):
                node.leaves(ids)
                live.put(steps.EntriesLoaded(store.load(ids)))
            case steps.Ingest():
                ingests.put_nowait(command)
            case steps.LoadUrgent(buckets):
                live.put(steps.UrgentLoaded(store.urgent(buckets)))
            case steps.WeighOffer(ids):
                unwanted = store.unwanted(ids)
                live.put(steps.OfferWeighed([one for one in ids if one not in unwanted]))
            case steps.LoadWanted(spaces, passed):
                live.put(steps.WantedLoaded(await node.next_content(spaces, passed)))
            case steps.LoadChunks(places):
                loads.put_nowait(places)
            case steps.IngestChunk(chunk):
                chunks.put_nowait(chunk)
            case steps.Copied(ids):
                await node.copied(ids)
                if live.peer in self._unconfirmed:
                    self._unconfirmed[live.peer].difference_update(ids)
            case steps.InStep():
                live.in_step = True
                again = store.load(self._unconfirmed.get(live.peer, ()))
                live.put(steps.LocalAppended([Offer(entry) for entry in again]))
                if not live.session.stranger:
                    live.put(steps.PoolLoaded(store.pool(live.session.spaces, live.peer)))
                for person in list(node.people.values()):
                    with contextlib.suppress(LockedError):
                        await person.met_somebody()
                node.touch()
            case steps.Close(reason) | steps.CutOff(reason):
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
                self._node.metrics.link_bytes_in[live.link.kind] += len(message)
                live.put(steps.MessageArrived(message))
                live.ahead_bytes += len(message) + MESSAGE_COST_BYTES
                if live.ahead_bytes > READ_AHEAD_BYTES:
                    live.room.clear()
        except ProtocolError as error:
            self._errors[live.peer] = error.line
        live.put(steps.LinkClosed())

    async def _tick(self, live: _Live) -> None:
        began = self._node.today()
        while True:
            live.put(steps.Tick(int(self._node.loop.time() * 1000)))
            await asyncio.sleep(TICK_S)
            if self._node.today() != began:
                # A new day has new shares and another floor: the session begins anew with them.
                live.put(steps.Stopping())

    async def _ingest(self, ingests: asyncio.Queue[steps.Ingest], live: _Live) -> None:
        """Take what arrived to the door; all that waits goes together, so that it shares a transaction."""
        while True:
            waiting = [await ingests.get()]
            while not ingests.empty():
                waiting.append(ingests.get_nowait())
            try:
                results = await asyncio.gather(
                    *(self._node.ingest(one.entries, live.peer, one.offered) for one in waiting)
                )
            except OutlastError:
                live.put(steps.Stopping())
                raise
            for verdicts in results:
                # A header that was kept can have a payload that its kind refuses: it is not asked for again.
                refused = [v.entry.id for v in verdicts if isinstance(v, Refused) and v.entry and v.entry.payload]
                self._hopeless |= self._node.open_store.known(refused)
                live.put(steps.Ingested([self._fate(verdict) for verdict in verdicts]))

    async def _keep_chunks(self, chunks: asyncio.Queue[Chunk], live: _Live) -> None:
        """Make chunks durable, as many in one transaction as have come meanwhile."""
        while True:
            waiting = [await chunks.get()]
            while not chunks.empty() and len(waiting) < CHUNKS_TOGETHER:
                waiting.append(chunks.get_nowait())
            try:
                await self._node.keep_chunks(waiting, live.peer)
            except OutlastError:
                live.put(steps.Stopping())
                raise
            live.put(steps.ChunksIngested(waiting))

    async def _load_chunks(self, loads: asyncio.Queue[Sequence[tuple[bytes, int]]], live: _Live) -> None:
        """Load chunks that the peer asked for, beside the loop: the link goes on meanwhile."""
        store = self._node.open_store
        while True:
            places = await loads.get()
            try:
                loaded = await self._node.read(partial(store.chunks, places))
                lacking = {one.id: store.holding(one.id) for one in loaded if one.data is None}
            except OutlastError:
                live.put(steps.Stopping())
                raise
            for one in loaded:
                if one.data is None:  # what is damaged counts as held in the store
                    lacking[one.id] &= ~(1 << one.place)
            live.put(steps.ChunksLoaded(loaded, lacking))

    async def _report_bulk(self, channel: Channel, live: _Live) -> None:
        """Say when the link has taken what goes last, so that no more than this lies before anything else."""
        while True:
            await live.bulk.wait()
            live.bulk.clear()
            began = self._node.loop.time()
            await channel.drained()
            live.put(steps.BulkSent(self._node.loop.time() - began < QUICK_S))

    def _fate(self, verdict: Verdict) -> steps.Fate:
        match verdict:
            case Admitted(entry):
                has_payload = entry.payload is not None
            case Known(entry):
                held = self._node.open_store.get(entry.id) if entry.payload is None else entry
                has_payload = held is not None and held.payload is not None
            case _:
                return steps.Fate.REFUSED
        if not has_payload:
            return steps.Fate.WANTS_PAYLOAD
        if is_chunked(entry.header):
            progress = self._node.open_store.progress(entry.id)
            if progress is None or not progress.is_whole:
                return steps.Fate.WANTS_CONTENT
        return steps.Fate.KEPT
