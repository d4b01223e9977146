"""One session with one neighbour, as a machine: ``Session.step(event)`` returns commands.

    both           HELLO      what each speaks, its date, the spaces both can name, first credit
    both           SUMMARY    how many entries lie in each common bucket (space, expires_day)
    initiator <->  RECON      negentropy on buckets both have; the initiator learns what differs
    either         PULL, END  the whole of a bucket that one side has nothing of
    either         WANT, WANT_PAYLOAD, LACK
    either         ENTRIES, PAYLOAD, KEPT, CREDIT
    either         WANT_CHUNKS, CHUNK, HOLDS, WHOLE
    both           DONE       all that the start of the session asked for is durable
    both           CONFIRM, URGENT  that both hold the same alarms and keys, by a digest that only this session has
    either         OFFER, TAKE  what strangers brought, newest first, for the other side to choose from
    either         BYE

After DONE the session stays open and what is new is pushed as it comes. The wire is
docs/spec/sync.md.

The machine touches nothing: the shell carries out the commands (load from the store, append to it,
write to the link) and brings what came of them as events, in any order but the one it got several
``Ingest`` in. Bytes from outside raise nothing: who breaks a rule is cut off.

What a hostile peer can cost. It can send no more than it was granted (1 MiB at a time, each byte
paid back only when what it carried is durable or refused, and never more than the day's share), no
ids but those asked of it, one unfinished payload at a time, and rounds of reconciliation in number
bounded by the sizes of both sets. Chunks of large content (``chunks``) come only when they were asked
for, at most 8 MiB that are not durable. It can make this side hold 4 snapshots of its own buckets,
4,096 ids it asked for, 1.5 MiB that wait for its credit and 48 chunks that wait for the link.

Chunks go last: this side hands the link one piece at a time, by ``SendBulk``, and the next one when
the link has taken it; where the link is quick up to eight. So a text waits behind one piece at most, or a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, assert_never

from outlast.errors import ProtocolError, Sentence
from outlast.kernel.chunks import (
    Downloads,
    Fetching,
    Holds,
    Serving,
    to_bytes,
)
from outlast.kernel.entry import CHUNK_BYTES, Entry, pack_header, travel_size
from outlast.kernel.forward import ALL_PRIORITIES, Offer, Tier, offered
from outlast.kernel.receiving import TOLD_MAX, Receiving
from outlast.kernel.sending import Sending
from outlast.kernel.setrec import FRAME_LIMIT_MIN_BYTES, SEED_BYTES, Initiator, Responder, SetView
from outlast.kernel.steps import (
    UNLIMITED,
    Bucket,
    BucketLoaded,
    BucketsLoaded,
    BulkSent,
    ChunksIngested,
    ChunksLoaded,
    Close,
    Command,
    ContentGrew,
    Copied,
    CutOff,
    EntriesLoaded,
    Event,
    Ingest,
    IngestChunk,
    Ingested,
    InStep,
    Limits,
    LinkClosed,
    LoadBucket,
    LoadBuckets,
    LoadChunks,
    LoadUrgent,
    LoadWanted,
    LocalAppended,
    MessageArrived,
    MoreWanted,
    OfferWeighed,
    PoolLoaded,
    Send,
    SendBulk,
    Started,
    Stopping,
    TakenByLink,
    Tick,
    UrgentLoaded,
    WantedLoaded,
)
from outlast.kernel.wire import (
    BUCKETS_MAX,
    ENTRIES_MAX_BYTES,
    MAC_BYTES,
    MESSAGE_MAX_BYTES,
    RECON_MAX_BYTES,
    SPACES_MAX,
    SPACES_STEP,
    URGENT_MAX,
    VERSIONS,
    WANT_IDS_MAX,
    BucketName,
    Bye,
    ChunkPiece,
    Confirm,
    Done,
    Hello,
    HoldsBody,
    IdList,
    Message,
    Reason,
    Recon,
    Summary,
    SyncError,
    Type,
    Urgent,
    WantChunks,
    decode,
    encode,
    space_mac,
    urgent_digest,
)

BULK_TURN_MAX: Final = 8
"""Pieces of chunks that go at a time over a link that is quick."""
RECON_OPEN_MAX: Final = 4
"""Buckets under reconciliation at a time."""
_ROUNDS_MIN: Final = 64
_NO_PROGRESS: Final = frozenset((Type.CREDIT, Type.HOLDS, Type.WHOLE))
"""Messages that settle nothing of what a peer owes: it could send them for ever."""
_Key = tuple[bytes, int]  # a bucket: space, day


class _Pass(NamedTuple):
    """One pass of the initiator over a bucket; ``machine`` is None until the bucket is loaded."""

    machine: Initiator | None
    told: int


class Session:
    """One session of one link. Feed it events; carry out the commands in order.

    ``key`` is 32 bytes that only the two ends of this link know. ``peer`` names the neighbour (its
    transport key). ``spaces`` are those that this node follows, the mail space among them, and
    ``access`` has the access keys (32 B) of those that are closed: only who has them too shares them.
    ``today`` is the local date in days since 1970, ``pruned_day`` the day before which this store
    has pruned. ``rand`` returns random bytes. ``downloads`` is what all sessions of this node fetch. With a
    ``stranger``, a peer that nobody here added, what strangers brought is reconciled like all else; to others it is
    offered apart.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        key: bytes,
        peer: bytes,
        spaces: Iterable[bytes],
        today: int,
        pruned_day: int,
        rand: Callable[[int], bytes],
        downloads: Downloads,
        limits: Limits = UNLIMITED,
        access: Mapping[bytes, bytes] | None = None,
        stranger: bool = False,
    ) -> None:
        self.peer_today: int | None = None
        """The date that the peer claims, once its HELLO is here."""
        self.spaces: frozenset[bytes] = frozenset()
        """The spaces that both sides follow, once the peer's HELLO is here."""
        self.closed = False
        """Whether the session is over; events change nothing any more."""
        self.stranger = stranger
        self._initiator = initiator
        self._key = key
        self._peer = peer
        self._own_spaces = sorted(set(spaces))[:SPACES_MAX]
        self._access = access or {}
        self._today = today
        self._floor = self._pruned_day = pruned_day
        self._rand = rand
        self._limits = limits
        self._priority_max = limits.priority_max

        self._refs: list[bytes] = []
        self._ref_of: dict[bytes, int] = {}
        self._sending = Sending((), 0, limits)
        self._receiving = Receiving((), limits)
        self._ingests: deque[Sequence[Entry]] = deque()
        self._fetching = Fetching(downloads)
        self._serving = Serving((), CHUNK_BYTES)
        self._bulk_on_way = False
        self._bulk_turn = 1
        self._ours: dict[_Key, int] | None = None
        self._theirs: dict[_Key, int] | None = None

        self._to_reconcile: deque[_Key] = deque()
        self._passes: dict[_Key, _Pass] = {}
        self._replies: deque[tuple[_Key, bytes]] = deque()
        self._again: list[_Key] = []
        self._responders: dict[_Key, Responder | None] = {}
        self._questions: dict[_Key, bytes] = {}
        self._rounds: dict[_Key, int] = {}
        self._to_pull: deque[_Key] = deque()
        self._pulling: set[_Key] = set()
        self._served: set[_Key] = set()
        self._pushed: set[bytes] | None = set()  # None once nothing more is reconciled

        self._urgent: dict[bytes, frozenset[bytes]] | None = None  # ours, once it is loaded
        self._confirm: dict[bytes, bytes] | None = None  # the peer's digests
        self._unlike: set[bytes] = set()  # spaces of which the peer may list what is urgent
        self._urgent_listed = 0

        self.failed = False
        """Whether a side could not go on with the other; else it ended to have another session, or the link broke."""
        self._done = self._peer_done = self._in_step = False
        self._now_ms: int | None = None
        self._progress_ms: int | None = None
        self._out: list[Command] = []

    @property
    def has_more(self) -> bool:
        """Whether more is to be sent once the link has taken what was."""
        return not self.closed and self._sending.has_more

    @property
    def unacknowledged(self) -> list[bytes]:
        """Ids that were sent and whose KEPT has not come, also after the link has died.

        The peer may hold them or not, and reconciliation will not tell the shell which: offered
        again in the next session as news, they are sent once more at most, and confirmed.
        """
        return self._sending.unacknowledged

    @property
    def pool_settled(self) -> bool:
        """Whether the peer has chosen from all that strangers brought here, and has what it chose."""
        return self._in_step and self._sending.pool_settled

    def step(self, event: Event) -> list[Command]:
        """What is to be done about an event. Raises nothing for any bytes of the peer."""
        if self.closed:
            return []
        try:
            self._take(event)
            if not self.closed:
                self._advance()
        except ProtocolError as error:
            self._cut_off(Reason.BROKE_RULES, error.line)
        out, self._out = self._out, []
        return out

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self._send(Type.HELLO, self._hello())
            case MessageArrived(data):
                self._message(data)
            case BucketsLoaded(buckets, missing):
                self._summarise(buckets)
                self._receiving.need_payloads(e for e in missing if e.header.priority <= self._priority_max)
            case BucketLoaded(space, day, view):
                self._bucket_loaded((space, day), view)
            case EntriesLoaded(entries):
                lack = self._sending.loaded(entries)
                if lack is not None:
                    self._out.append(Send(lack))
            case Ingested(fates):
                for message in self._receiving.ingested(self._ingests.popleft(), fates):
                    self._out.append(Send(message))
            case LocalAppended(offers):
                self._push(offers)
            case UrgentLoaded(ids):
                self._urgent = {space: frozenset(found) for space, found in ids.items() if found}
                digests = [
                    (self._ref_of[space], urgent_digest(self._key, space, found))
                    for space, found in self._urgent.items()
                ]
                self._send(Type.CONFIRM, Confirm(digests))
                self._compare()
            case PoolLoaded(items):
                self._sending.pool(reversed(items))
            case OfferWeighed(ids):
                self._out.append(Send(self._receiving.weighed(ids)))
            case TakenByLink():
                self._sending.begin_turn()
            case BulkSent(quick):
                self._bulk_on_way = False
                self._bulk_turn = min(2 * self._bulk_turn, BULK_TURN_MAX) if quick else 1
            case WantedLoaded(wanted):
                self._fetching.loaded(wanted)
            case ChunksLoaded(chunks, holdings):
                self._say_holds(self._serving.loaded(chunks, holdings))
            case ChunksIngested(chunks):
                self._fetching.durable(chunks)
            case ContentGrew(holdings, whole):
                self._content_grew(holdings, whole)
            case MoreWanted(requested):
                self._fetching.look_again(requested)
            case Tick(now_ms):
                self._tick(now_ms)
            case Stopping():
                self._send(Type.BYE, Bye(Reason.FINISHED))
                self._close(Sentence("this side ended the session"))
            case LinkClosed():
                self._end()
            case _:
                assert_never(event)

    # Start: HELLO and SUMMARY

    def _hello(self) -> Hello:
        macs = [self._mac(space, own=True) for space in self._own_spaces]
        # Filled up to a multiple of 8 and sorted, so that little shows of their number and order.
        macs += [self._rand(MAC_BYTES) for _ in range(-len(macs) % SPACES_STEP)]
        return Hello(list(VERSIONS), self._today, sorted(macs), self._receiving.grant, self._priority_max)

    def _mac(self, space: bytes, *, own: bool) -> bytes:
        access = self._access.get(space, b"")
        return space_mac(self._key, initiator=self._initiator is own, space=space, access=access)

    def _hello_arrived(self, hello: Hello) -> None:
        if not set(VERSIONS) & set(hello.versions):
            self.failed = True
            self._send(Type.BYE, Bye(Reason.NO_COMMON_VERSION))
            self._close(_BYE_LINES[Reason.NO_COMMON_VERSION])
            return
        named = set(hello.spaces)
        self._refs = [s for s in self._own_spaces if self._mac(s, own=False) in named]
        self._ref_of = {space: ref for ref, space in enumerate(self._refs)}
        self.spaces = frozenset(self._refs)
        self.peer_today = hello.today
        if abs(hello.today - self._today) <= 2:
            self._floor = max(self._pruned_day, hello.today)
        self._sending = Sending(self.spaces, hello.credit, self._limits)
        self._receiving = Receiving(self.spaces, self._limits)
        self._serving = Serving(self.spaces, CHUNK_BYTES if self._whole_steps else self._limits.step_bytes)
        # Both sides compare the same part of their buckets.
        self._priority_max = min(self._priority_max, hello.priority_max)
        self._out.append(LoadBuckets(self.spaces, self._floor, self._priority_max))

    def _summarise(self, buckets: Sequence[Bucket]) -> None:
        ours = {
            (bucket.space, bucket.day): bucket.count
            for bucket in buckets
            if bucket.space in self.spaces and bucket.count and self._is_alive(bucket.day)
        }
        # Space by space, what never expires first, then what was written last.
        order = sorted(ours, key=lambda key: (key[1] != 0, -key[1], key[0]))[:BUCKETS_MAX]
        self._ours = {key: ours[key] for key in order}
        self._send(
            Type.SUMMARY,
            Summary([(self._ref_of[space], day, ours[space, day]) for space, day in order]),
        )
        self._plan()

    def _summary_arrived(self, summary: Summary) -> None:
        if self._theirs is not None:
            raise SyncError("it summarises twice")
        theirs = {(self._space(ref), day): count for ref, day, count in summary.buckets}
        if len(theirs) != len(summary.buckets):
            raise SyncError("it summarises a bucket twice")
        self._theirs = theirs
        self._plan()

    def _plan(self) -> None:
        if self._ours is None or self._theirs is None:
            return
        for key in self._theirs:
            if not self._is_alive(key[1]):
                continue
            if key not in self._ours:
                self._to_pull.append(key)
            elif self._initiator:
                self._to_reconcile.append(key)

    def _is_alive(self, day: int) -> bool:
        return day == 0 or day >= self._floor

    def _space(self, ref: int) -> bytes:
        if ref >= len(self._refs):
            raise SyncError("it names a space that was not agreed on")
        return self._refs[ref]

    # Reconciliation

    def _recon_arrived(self, key: _Key, message: bytes) -> None:
        if self._initiator:
            current = self._passes.get(key)
            if current is None or current.machine is None or self._is_queued(key):
                raise SyncError("it answers what it was not asked")
            self._count_round(key)
            self._replies.append((key, message))
        elif not message:
            if key not in self._responders or key in self._questions:
                raise SyncError("it ends what it did not begin")
            del self._responders[key]
        else:
            if key in self._questions:
                raise SyncError("it asks again before it was answered")
            self._count_round(key)
            if key not in self._responders:
                if len(self._responders) >= RECON_OPEN_MAX:
                    raise SyncError("it opens too many buckets at once")
                self._responders[key] = None
                self._out.append(LoadBucket(*key, self._priority_max))
            self._questions[key] = message
            self._answer(key)

    def _is_queued(self, key: _Key) -> bool:
        return any(key == queued for queued, _ in self._replies)

    def _count_round(self, key: _Key) -> None:
        """Refuse reconciliation without end: ids travel a few times at most, and splits are few."""
        ours, theirs = (self._ours or {}).get(key), (self._theirs or {}).get(key)
        if ours is None or theirs is None:
            raise SyncError("it reconciles a bucket that not both sides have")
        rounds = self._rounds[key] = self._rounds.get(key, 0) + 1
        if rounds > _ROUNDS_MIN + (ours + theirs) * 256 // RECON_MAX_BYTES:
            raise SyncError("its reconciliation does not end")

    def _answer(self, key: _Key) -> None:
        responder = self._responders.get(key)
        if responder is not None and key in self._questions:
            self._send_recon(key, responder.step(self._questions.pop(key)))

    def _bucket_loaded(self, key: _Key, view: SetView) -> None:
        if key in self._passes:
            machine = Initiator(view, seed=self._rand(SEED_BYTES), frame_size_limit=self._recon_bytes)
            self._passes[key] = _Pass(machine, 0)
            self._send_recon(key, machine.initiate())
        elif key in self._responders:
            self._responders[key] = Responder(view, frame_size_limit=self._recon_bytes)
            self._answer(key)
        elif key in self._served:
            self._sending.pull(encode(Type.END, BucketName(self._ref_of[key[0]], key[1])), view)

    def _digest_reply(self, key: _Key, message: bytes) -> None:
        machine, told = self._passes[key]
        assert machine is not None
        step = machine.step(message)
        self._sending.offer(one for one in reversed(step.have) if one not in (self._pushed or ()))
        self._receiving.need(reversed(step.need))
        told += len(step.have) + len(step.need)
        if step.reply is not None and told <= TOLD_MAX:
            self._passes[key] = _Pass(machine, told)
            self._send_recon(key, step.reply)
            return
        if step.reply is not None:
            self._again.append(key)
        del self._passes[key]
        self._send_recon(key, b"")

    @property
    def _recon_bytes(self) -> int:
        """Largest message of reconciliation that this side makes."""
        return RECON_MAX_BYTES if self._whole_steps else max(self._limits.step_bytes, FRAME_LIMIT_MIN_BYTES)

    @property
    def _whole_steps(self) -> bool:
        """Whether the link is so fast that a message need not be short."""
        return self._limits.step_bytes >= ENTRIES_MAX_BYTES

    def _send_recon(self, key: _Key, message: bytes) -> None:
        self._send(Type.RECON, Recon(self._ref_of[key[0]], key[1], message))

    # Messages

    def _message(self, data: bytes) -> None:
        if not 1 <= len(data) <= MESSAGE_MAX_BYTES:
            raise SyncError("a message is empty or too long")
        if data[0] == Type.ENTRIES:
            self._require_hello(Type.ENTRIES)
            self._ingest(self._receiving.entries(data))
            self._progress_ms = self._now_ms
            return
        kind, body = decode(data)
        self._require_hello(kind)
        if kind not in _NO_PROGRESS:
            self._progress_ms = self._now_ms
        self._dispatch(kind, body, data)

    def _require_hello(self, kind: Type) -> None:
        if (kind is Type.HELLO) is (self.peer_today is not None) and kind is not Type.BYE:
            raise SyncError("it does not begin with a greeting, or greets twice")

    def _dispatch(self, kind: Type, body: Any, data: bytes) -> None:
        match kind:
            case Type.HELLO:
                self._hello_arrived(body)
            case Type.SUMMARY:
                self._summary_arrived(body)
            case Type.RECON:
                self._recon_arrived((self._space(body.ref), body.day), body.message)
            case Type.PULL:
                self._pull_arrived((self._space(body.ref), body.day))
            case Type.END:
                key = self._space(body.ref), body.day
                if key not in self._pulling:
                    raise SyncError("it ends what was not asked of it")
                self._pulling.remove(key)
            case Type.WANT | Type.WANT_PAYLOAD:
                self._sending.want(kind, body.ids)
            case Type.LACK:
                self._receiving.lacked(body.ids)
            case Type.PAYLOAD:
                self._ingest(self._receiving.piece(data, body))
            case Type.KEPT:
                self._copied(self._sending.kept(body))
            case Type.CREDIT:
                self._sending.grant(body.size_bytes)
            case Type.CONFIRM:
                if not self._in_step or self._confirm is not None:
                    raise SyncError("it confirms twice, or before both sides are done")
                self._confirm = {self._space(ref): digest for ref, digest in body.digests}
                self._compare()
            case Type.URGENT:
                self._urgent_arrived(self._space(body.ref), body.ids)
            case Type.OFFER:
                if not self._in_step:
                    raise SyncError("it offers before both sides are done")
                self._out.append(self._receiving.offered(body.ids))
            case Type.TAKE:
                self._sending.taken(body.ids)
            case Type.DONE:
                if self._peer_done:
                    raise SyncError("it is done twice")
                self._peer_done = True
            case Type.WANT_CHUNKS:
                if self._priority_max < ALL_PRIORITIES:
                    raise SyncError("it asks for chunks over a link that carries none")
                self._serving.want(body.id, body.places)
            case Type.CHUNK:
                self._chunk_arrived(body)
            case Type.HOLDS:
                held = int.from_bytes(body.held, "little")
                self._receiving.spend(-self._fetching.holds(Holds(body.id, body.lacked, held)))
            case Type.WHOLE:
                self._copied(self._sending.whole(body.ids))
            case Type.BYE:
                self.failed = body.reason != Reason.FINISHED
                self._close(_BYE_LINES.get(body.reason, Sentence("the other node ended the session")))
            case Type.ENTRIES:
                raise AssertionError("entries are no msgpack")
            case _:
                assert_never(kind)

    def _copied(self, ids: Sequence[bytes]) -> None:
        if ids:
            self._out.append(Copied(ids))

    def _ingest(self, ingest: Ingest | None) -> None:
        if ingest is not None:
            self._ingests.append(ingest.entries)
            self._out.append(ingest)

    def _pull_arrived(self, key: _Key) -> None:
        if key not in (self._ours or ()) or key in self._served:
            raise SyncError("it pulls a bucket that it was not offered, or pulls one twice")
        self._served.add(key)
        self._out.append(LoadBucket(*key, self._priority_max))

    def welcome(self, offers: Iterable[Offer]) -> list[Offer]:
        """What of some news is for this session."""
        return offered(offers, self._peer, self.spaces, self._floor, self._priority_max)

    def _compare(self) -> None:
        """List what is urgent in spaces where the two sides differ."""
        if self._urgent is None or self._confirm is None:
            return
        left = URGENT_MAX
        for space in self._urgent.keys() | self._confirm.keys():
            ours = self._urgent.get(space, frozenset())
            if self._confirm.get(space) == urgent_digest(self._key, space, ours):
                continue
            self._unlike.add(space)
            listed = sorted(ours)[:left]
            left -= len(listed)
            for at in range(0, len(listed), WANT_IDS_MAX):
                self._send(Type.URGENT, Urgent(self._ref_of[space], listed[at : at + WANT_IDS_MAX]))

    def _urgent_arrived(self, space: bytes, ids: Sequence[bytes]) -> None:
        if self._urgent is None or space not in self._unlike:
            raise SyncError("it lists what both sides have")
        self._urgent_listed += len(ids)
        if self._urgent_listed > URGENT_MAX:
            raise SyncError("it lists more alarms and keys than there can be")
        ours = self._urgent.get(space, frozenset())
        self._receiving.need(one for one in ids if one not in ours)

    def _push(self, offers: Sequence[Offer]) -> None:
        if self.peer_today is None:
            return  # the snapshots, not taken yet, will hold them
        fresh = self.welcome(offers)
        if not self.stranger:
            of_strangers = [offer.entry for offer in fresh if offer.tier is Tier.STRANGER]
            self._sending.pool(
                (one.id, len(pack_header(one)) + travel_size(one.header.payload_size)) for one in of_strangers
            )
            fresh = [offer for offer in fresh if offer.tier is not Tier.STRANGER]
        self._sending.push(fresh)
        if self._pushed is not None and len(self._pushed) < TOLD_MAX:
            self._pushed.update(offer.entry.id for offer in fresh)

    # Chunks

    def _chunk_arrived(self, piece: ChunkPiece) -> None:
        chunk = self._fetching.piece(piece.id, piece.place, piece.offset, piece.data)
        if chunk is not None:
            self._out.append(IngestChunk(chunk))

    def _content_grew(self, holdings: Mapping[bytes, int], whole: Collection[bytes]) -> None:
        self._say_holds(self._serving.grown(holdings))
        told = self._receiving.whole(whole)
        for at in range(0, len(told), WANT_IDS_MAX):
            self._send(Type.WHOLE, IdList(told[at : at + WANT_IDS_MAX]))

    def _say_holds(self, holds: Iterable[Holds]) -> None:
        for one in holds:
            self._send(Type.HOLDS, HoldsBody(one.id, list(one.lacked), to_bytes(one.held)))

    def _move_chunks(self) -> None:
        if self.peer_today is None or self._priority_max < ALL_PRIORITIES:
            return
        if self._fetching.begin_load():
            self._out.append(LoadWanted(self.spaces, self._fetching.passed))
        for id, asked, size in self._fetching.asks(self._receiving.budget):
            self._receiving.spend(size)
            self._send(Type.WANT_CHUNKS, WantChunks(id, asked))
        load = self._serving.next_load()
        if load:
            self._out.append(LoadChunks(load))
        messages: list[bytes] = []
        for _ in range(0 if self._bulk_on_way else self._bulk_turn):
            if (piece := self._serving.piece(self._sending.room_bulk)) is None:
                break
            messages.append(encode(Type.CHUNK, ChunkPiece(*piece)))
            self._sending.bulk_sent(len(messages[-1]))
        if messages:
            self._bulk_on_way = True
            self._out.append(SendBulk(messages))

    # What follows from the state after any event

    def _advance(self) -> None:
        while self._replies and self._sending.backlog + self._receiving.backlog < TOLD_MAX:
            self._digest_reply(*self._replies.popleft())
        if self._again and self._receiving.idle and self._sending.idle:
            self._to_reconcile.extend(self._again)
            self._again.clear()
        while self._to_reconcile and len(self._passes) < RECON_OPEN_MAX:
            key = self._to_reconcile.popleft()
            self._passes[key] = _Pass(None, 0)
            self._out.append(LoadBucket(*key, self._priority_max))
        while self._to_pull and len(self._pulling) < RECON_OPEN_MAX:
            key = self._to_pull.popleft()
            self._pulling.add(key)
            self._send(Type.PULL, BucketName(self._ref_of[key[0]], key[1]))
        for message in self._receiving.requests():
            self._out.append(Send(message))
        for message in self._sending.messages():
            self._out.append(Send(message))
        load = self._sending.next_load()
        if load is not None:
            self._out.append(load)
        # A bucket that was pulled and is empty by now leaves its END behind.
        for message in self._sending.messages():
            self._out.append(Send(message))
        if self._ours is not None and self._theirs is not None:
            self._finish()
        if self._in_step and (offer := self._sending.next_offer()) is not None:
            self._out.append(Send(offer))
        self._move_chunks()

    def _finish(self) -> None:
        reconciling = self._passes or self._to_reconcile or self._again or self._replies
        if not reconciling and self._pushed is not None:
            # What the two sides pushed meanwhile need not be kept apart from differences any more.
            self._pushed = None
            self._receiving.forget_news()
        pulling = self._to_pull or self._pulling
        waiting = not self._initiator and not self._peer_done
        idle = self._receiving.idle and self._sending.idle
        if not self._done and not reconciling and not pulling and not waiting and idle:
            self._done = True
            self._send(Type.DONE, Done())
        if self._done and self._peer_done and not self._in_step:
            self._in_step = True
            assert self._ours is not None
            assert self._theirs is not None
            # Of buckets that only one side named the other has pruned the day, or got all of it at once.
            self._out.append(LoadUrgent(frozenset(self._ours.keys() & self._theirs.keys())))
            self._out.append(InStep())

    def _tick(self, now_ms: int) -> None:
        self._now_ms = now_ms
        if self._progress_ms is None or self._receiving.busy or self._fetching.busy or not self._awaits():
            self._progress_ms = now_ms
        elif now_ms - self._progress_ms > self._limits.stall_ms:
            self._cut_off(Reason.STALLED, Sentence("it owes an answer and sends nothing"))

    def _awaits(self) -> bool:
        """Whether the peer owes anything."""
        return (
            self._theirs is None
            or any(not self._is_queued(key) for key, one in self._passes.items() if one.machine)
            or (bool(self._pulling) and not self._receiving.exhausted)
            or self._receiving.awaits
            or self._sending.awaits
            or self._fetching.awaits
        )

    def _send(self, kind: Type, body: Message) -> None:
        self._out.append(Send(encode(kind, body)))

    def _close(self, reason: Sentence) -> None:
        self._end()
        self._out.append(Close(reason))

    def _end(self) -> None:
        self.closed = True
        self._fetching.leave()

    def _cut_off(self, reason: Reason, line: Sentence) -> None:
        self._end()
        self.failed = True
        self._out = [Send(encode(Type.BYE, Bye(reason))), CutOff(line)]


_BYE_LINES: Final = {
    Reason.NO_COMMON_VERSION: Sentence("the two nodes share no version of the session: update the older one"),
    Reason.BROKE_RULES: Sentence("the other node says that this one broke the rules: update both"),
    Reason.STALLED: Sentence("the other node waited too long for this one"),
}
