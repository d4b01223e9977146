"""Carries out what the chooser says: tries bridges, holds the carrier that is used, and tells what came of it."""

from __future__ import annotations

import asyncio
import fcntl
import random
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from outlast.address import Target
from outlast.errors import OutlastError, Sentence
from outlast.rooms.reach.io.attempt import LED_NOWHERE, Make, Tried, attempt, leads_somewhere, reconsider
from outlast.rooms.reach.io.carrier import Carrier, Client, Refusal
from outlast.rooms.reach.io.tunnel import Tunnel
from outlast.rooms.reach.proto.bridge import (
    Bridge,
    PluggedBridge,
    ProxyBridge,
    ShadowsocksBridge,
    TorBridge,
    Tricks,
    WebBridge,
)
from outlast.rooms.reach.proto.chooser import (
    STRIKES,
    AllWanted,
    Candidate,
    Chooser,
    Command,
    Doubted,
    Drop,
    Event,
    Failed,
    LedNowhere,
    Lost,
    Memory,
    NetworkChanged,
    Offered,
    Passed,
    Remember,
    Stop,
    StreamFailed,
    StreamWorked,
    Try,
    Use,
    Wake,
    Wanted,
    Woke,
    Worked,
)
from outlast.rooms.reach.proto.links import bridge_id

DAY_S: Final = 86_400
RETIRED_S: Final = 120.0
"""So long streams may go on that run over a carrier which another one replaced."""
RETIRED_MAX: Final = 8
"""So many of them; a bridge that is chosen again and again would have as many programs running."""
SILENT_S: Final = 8.0
"""A stream that brings nothing for so long may be one of a slow site, or of a bridge that brings nothing at all."""
LOOK_S: Final = 2.0
LOOKED_AT_MAX: Final = 8
"""So many streams are looked at, at a time; all others cost nothing."""
QUESTION_S: Final = 60.0
"""A carrier is asked for a page no more often than this."""
OTHERS_RANK: Final = 9
TELL_S: Final = 0.05
"""So long changes are gathered before it is told how all stand."""
TOR_LIMIT_S: Final = 120.0
_RANKS: Final = {"web": 0, "ss": 2, "socks5": 3, "http": 3, "tor": 5}
_TCP_INFO_BYTES: Final = 208
_RECEIVED_AT, _SENT_AT = 128, 200  # tcpi_bytes_received, tcpi_bytes_sent of linux/tcp.h


class Attempted(msgspec.Struct, frozen=True, tag="attempted"):
    """A bridge was tried."""

    bridge: str
    ok: bool
    failure: str | None  # the name of its class
    evidence: Sentence | None
    proof: bool  # whether 64 KB went through; else an answer's first byte has to do
    ttfb_ms: int | None
    kbps: int | None


class Stand(msgspec.Struct, frozen=True):
    """How one bridge stands."""

    bridge: str
    state: str  # of ``chooser.State``
    since_ms: int  # UTC
    failure: str  # of the last attempt; "" when it went well or there was none
    next_ms: int | None  # when it is tried next


class Standings(msgspec.Struct, frozen=True, tag="standings"):
    """How all bridges stand, in the order in which they would be tried now."""

    bridges: tuple[Stand, ...]


class Remembered(msgspec.Struct, frozen=True, tag="remembered"):
    """What worked on a network, in place of what was told before: to be kept sealed, and for 14 days."""

    network: str
    worked: tuple[Worked, ...]


def attempted(id_: str, tried: Tried) -> Attempted:
    """An attempt as it is told."""
    name, evidence = (None, None) if tried.failure is None else (tried.failure.name, tried.failure.evidence)
    return Attempted(id_, name is None, name, evidence, tried.proof, tried.ttfb_ms, tried.kbps)


class Other(NamedTuple):
    """A way to a bridge that is not its own address, such as through a neighbour's uplink."""

    id: str
    bridge: Bridge
    is_last: bool  # whether it costs somebody money: it is tried when nothing else is left


def kind_of(bridge: Bridge) -> str:
    """Its transport."""
    match bridge:
        case WebBridge():
            return "web"
        case ShadowsocksBridge():
            return "ss"
        case ProxyBridge():
            return bridge.scheme
        case PluggedBridge():
            return bridge.transport
        case TorBridge():
            return "tor"
        case Tricks():
            return "direct"


class Choosing:
    """The chooser with its hands; all on one event loop."""

    def __init__(
        self,
        make: Make,
        used: Callable[[Carrier | None, str | None], None],
        report: Callable[[Attempted | Remembered], None],
        *,
        network: str = "",
        memory: Memory | None = None,
        url: str = "",
        stood: Callable[[Standings], None] | None = None,
    ) -> None:
        """``make`` makes carriers; ``used`` hears which is in use from now on, None while there is none.

        ``stood`` hears, soon after something changed, how all stand.
        """
        self._stood = stood
        self._telling: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._make = make
        self._used = used
        self._report = report
        self._url = url
        self._network = network
        self._machine = Chooser(random.SystemRandom().random, network, _today(), memory)
        self._bridges: dict[str, Bridge] = {}
        self._reached: dict[str, Tried] = {}  # by the address that answered in the last attempt
        self._addresses: dict[str, str] = {}
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._using: tuple[str, Carrier] | None = None
        self._retired: dict[Carrier, asyncio.TimerHandle] = {}
        self._making: asyncio.Task[None] | None = None
        self._question: asyncio.Task[None] | None = None
        self._questioned = "", 0.0
        self._looked_at: list[_Watched] = []
        self._look: asyncio.TimerHandle | None = None
        self._struck = False  # whether a stream failed since one worked
        self._refused = 0  # streams in a row that the far end refused
        self._wake: asyncio.TimerHandle | None = None
        self._closed = False

    def offer(self, bridges: Iterable[Bridge], others: Iterable[Other] = ()) -> None:
        """These are the ways out from now on: bridges, and ``others`` that have names of their own."""
        plain = {bridge_id(bridge): bridge for bridge in bridges}
        apart = {other.id: other for other in others}
        self._bridges = plain | {id_: other.bridge for id_, other in apart.items()}
        candidates = [_candidate(id_, bridge) for id_, bridge in plain.items()]
        candidates += [
            _candidate(id_, other.bridge)._replace(rank=OTHERS_RANK, last_resort=other.is_last)
            for id_, other in apart.items()
        ]
        self._step(Offered(tuple(candidates)))

    def moved(self, network: str) -> None:
        """This machine is on a network of that key."""
        self._network = network
        self._step(NetworkChanged(network, _today()))

    @property
    def using(self) -> str | None:
        """The bridge that streams take."""
        return None if self._using is None else self._using[0]

    def wanted(self) -> None:
        """Somebody waits for a way out."""
        self._step(Wanted())

    def try_all(self) -> None:
        """Somebody wants to know how each of them is now."""
        self._step(AllWanted())

    def carry(self, client: Client) -> None:
        """Hand a client to the carrier in use, of which there must be one, and learn from what becomes of it."""
        assert self._using is not None
        id_, carrier = self._using
        watched = _Watched(client, self, id_)
        if len(self._looked_at) < LOOKED_AT_MAX:
            watched.look_at(self._loop.time())
            self._looked_at.append(watched)
            if self._look is None:
                self._look = self._loop.call_later(LOOK_S, self._look_at_all)
        carrier.carry(watched)

    def standings(self) -> Standings:
        """How each bridge stands."""
        ahead_s = time.time() - time.monotonic()

        def wall(at_s: float) -> int:
            return int(1000 * (at_s + ahead_s))

        return Standings(
            tuple(
                Stand(
                    one.id,
                    one.state,
                    wall(one.since_s),
                    one.failure,
                    None if one.next_try_s is None else wall(one.next_try_s),
                )
                for one in self._machine.standings()
            )
        )

    def _tell(self) -> None:
        self._telling = None
        if self._stood is not None:
            self._stood(self.standings())

    async def close(self) -> None:
        """End every attempt and carrier."""
        self._closed = True
        for timer in (self._wake, self._telling, self._look):
            if timer is not None:
                timer.cancel()
        tasks = [task for task in (*self._attempts.values(), self._making, self._question) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for carrier, timer in self._retired.items():
            timer.cancel()
            carrier.close()
        self._retired.clear()
        if self._using is not None:
            self._using[1].close()
            self._using = None

    # ---- what streams and carriers tell ----

    def heard(self, id_: str, refusal: Refusal | None) -> None:
        """A stream was opened, or refused for a reason that may lie with the carrier."""
        if refusal is None:
            self._refused = 0
            if self._struck:
                self._struck = False
                self._step(StreamWorked(id_))
        elif refusal is Refusal.LOST:
            self._struck = True
            self._step(StreamFailed(id_))
        elif refusal is not Refusal.NOT_ALLOWED:
            # A page may have dead addresses, and a bridge may lead nowhere: one that answers elsewhere tells which.
            self._refused += 1
            if self._refused >= STRIKES:
                self._ask(id_)

    def _look_at_all(self) -> None:
        """Whether anything came through the carrier since these streams were opened."""
        self._look = None
        now_s = self._loop.time()
        seen = {one: one.answered() for one in self._looked_at}
        silent = [one for one in seen if seen[one] is False and now_s >= one.since_s + SILENT_S]
        if silent:
            self._ask(silent[0].bridge)
        if silent or True in seen.values():
            self._looked_at.clear()
            return
        self._looked_at = [one for one in seen if now_s < one.since_s + 2 * SILENT_S and not one.over]
        if self._looked_at:
            self._look = self._loop.call_later(LOOK_S, self._look_at_all)

    def _ask(self, id_: str) -> None:
        """Ask for a page through the carrier in use, when it is in doubt whether it leads anywhere."""
        now_s, (last, last_s) = self._loop.time(), self._questioned
        if self._using is None or self._using[0] != id_ or (last == id_ and now_s < last_s + QUESTION_S):
            return
        if self._question is None or self._question.done():
            self._questioned, self._refused = (id_, now_s), 0
            self._question = self._loop.create_task(self._ask_for_page(id_, self._bridges[id_], self._using[1]))

    async def _ask_for_page(self, id_: str, bridge: Bridge, carrier: Carrier) -> None:
        if await leads_somewhere(bridge, carrier, self._url):
            return
        if self._using == (id_, carrier):
            name, evidence = LED_NOWHERE.name, LED_NOWHERE.evidence
            self._report(Attempted(id_, False, name, evidence, False, None, None))
            self._step(LedNowhere(id_))

    # ---- carrying out ----

    def _step(self, event: Event) -> None:
        if self._closed:
            return
        commands = self._machine.step(event, time.monotonic())
        # Whoever is replaced is left when the next one is there, not before.
        replaced = any(isinstance(command, Use) for command in commands)
        for command in commands:
            if not (replaced and isinstance(command, Drop)):
                self._do(command)
        if self._telling is None and self._stood is not None:
            self._telling = self._loop.call_later(TELL_S, self._tell)

    def _do(self, command: Command) -> None:
        match command:
            case Try(id_):
                self._attempts[id_] = self._loop.create_task(self._try(id_))
            case Stop(id_):
                if (task := self._attempts.pop(id_, None)) is not None:
                    task.cancel()
            case Use(id_):
                if self._making is not None:
                    self._making.cancel()
                self._making = self._loop.create_task(self._begin(id_))
            case Drop():
                if self._making is not None:
                    self._making.cancel()
                if self._using is not None:
                    self._retire()
                    self._used(None, None)
            case Remember(network, worked):
                self._report(Remembered(network, worked))
            case Wake(at_s):
                if self._wake is not None:
                    self._wake.cancel()
                delay_s = None if at_s is None else max(0.0, at_s - time.monotonic())
                self._wake = None if delay_s is None else self._loop.call_later(delay_s, self._step, Woke())

    async def _try(self, id_: str) -> None:
        bridge = self._bridges[id_]
        known, others = self._addresses.get(id_, ""), self._bridges.values()
        tried = await attempt(bridge, self._make, url=self._url, known=known, others=others)
        if tried.failure is None:
            self._reached[id_] = tried
            if tried.address:
                self._addresses[id_] = tried.address
        elif self._using is not None and self._using[0] != id_:
            tried = await reconsider(bridge, tried, self._using[1])
        self._attempts.pop(id_, None)
        self._report(attempted(id_, tried))
        self.moved(self._network)  # on the same network as before, but maybe on another day
        self._step(Passed(id_, tried.proof) if tried.failure is None else Failed(id_, tried.failure.name))

    async def _begin(self, id_: str) -> None:
        """Make the carrier of a bridge that passed; until it is there, the one before is used."""
        tried = self._reached.get(id_)
        if tried is None:
            return
        bridge = tried.bridge

        def changed(error: OutlastError) -> None:
            if self._using is not None and self._using[0] == id_:
                self._step(Doubted(id_))

        try:
            carrier = await self._make(bridge, changed, tried.hop_bytes)
        except (OutlastError, OSError):
            self._step(Lost(id_, "unknown"))
            return
        self._retire()
        self._using = id_, carrier
        self._used(carrier, id_)
        if isinstance(carrier, Tunnel):
            carrier.warm()

    def _retire(self) -> None:
        self._looked_at.clear()
        self._refused = 0
        if self._using is not None:
            _, carrier = self._using
            self._using = None
            self._retired[carrier] = self._loop.call_later(RETIRED_S, self._end, carrier)
            if len(self._retired) > RETIRED_MAX:
                self._end(next(iter(self._retired)))

    def _end(self, carrier: Carrier) -> None:
        self._retired.pop(carrier).cancel()
        carrier.close()


class _Watched:
    """A client of the gate, and who hears what becomes of it."""

    __slots__ = ("_before", "_choosing", "_client", "_socket", "bridge", "over", "since_s")

    def __init__(self, client: Client, choosing: Choosing, bridge: str) -> None:
        self._client = client
        self._choosing = choosing
        self.bridge = bridge
        self.since_s = 0.0  # when it was handed over, of one that is looked at
        self.over = False
        self._socket: socket.socket | None = None
        self._before = (0, 0)

    def look_at(self, now_s: float) -> None:
        """From now on ``answered`` may be asked."""
        self.since_s = now_s

    def answered(self) -> bool | None:
        """Whether bytes came back; None: nothing was said that is to be answered, or it cannot be known."""
        if self._socket is None:
            return None if self.over else False
        moved = _moved_bytes(self._socket)
        if moved is None:
            self.over = True
            return None
        received, sent = moved
        if sent > self._before[1]:
            return True
        return False if received > self._before[0] else None

    @property
    def target(self) -> Target:
        """The client's."""
        return self._client.target

    @property
    def isolation(self) -> bytes:
        """The client's."""
        return self._client.isolation

    @property
    def gone(self) -> bool:
        """Whether the client has hung up."""
        return self._client.gone

    def take(self) -> tuple[socket.socket, bytes]:
        """The way is open."""
        self._choosing.heard(self.bridge, None)
        taken, early = self._client.take()
        if self.since_s:
            self._socket = taken
            received, sent = _moved_bytes(taken) or (0, 0)
            # What was read is the greeting of SOCKS or HTTP, but for what came early.
            unread = int.from_bytes(fcntl.ioctl(taken.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)
            self._before = received - unread - len(early), sent
        return taken, early

    def refuse(self, refusal: Refusal) -> None:
        """There is none."""
        self.over = True
        self._choosing.heard(self.bridge, refusal)
        self._client.refuse(refusal)


def _moved_bytes(one: socket.socket) -> tuple[int, int] | None:
    """How much a connection of TCP received and sent so far, by the kernel; None where it cannot tell."""
    try:
        info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:  # it is closed, or a pair of sockets
        return None
    if len(info) < _TCP_INFO_BYTES:
        return None
    return struct.unpack_from("Q", info, _RECEIVED_AT)[0], struct.unpack_from("Q", info, _SENT_AT)[0]


def _candidate(id_: str, bridge: Bridge) -> Candidate:
    kind = kind_of(bridge)
    limit_s = TOR_LIMIT_S if isinstance(bridge, TorBridge | PluggedBridge) else Candidate(id_, kind).limit_s
    return Candidate(id_, kind, _RANKS.get(kind, 1), isinstance(bridge, Tricks), limit_s)


def _today() -> int:
    return int(time.time()) // DAY_S
