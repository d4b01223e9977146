"""Carries out what the chooser says: tries bridges, holds the carrier that is used, and tells what came of it."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from outlast.address import Target
from outlast.errors import OutlastError
from outlast.rooms.reach.io.attempt import Make, Tried, attempt, reconsider
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
    Candidate,
    Chooser,
    Command,
    Doubted,
    Drop,
    Event,
    Failed,
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
PULSE_S: Final = 60.0
"""So often a carrier is tested that cannot tell by itself that its streams are silent, while streams are opened."""
OTHERS_RANK: Final = 9
TELL_S: Final = 0.05
"""So long changes are gathered before it is told how all stand."""
TOR_LIMIT_S: Final = 120.0
_RANKS: Final = {"web": 0, "ss": 2, "socks5": 3, "http": 3, "tor": 5}

_OURS: Final = frozenset({Refusal.FAILED, Refusal.TIMED_OUT})
_THEIRS: Final = frozenset(Refusal) - {Refusal.NOT_ALLOWED}
"""A carrier with a connection for each stream may mean its bridge by these, as well as the target."""


class Attempted(msgspec.Struct, frozen=True, tag="attempted"):
    """A bridge was tried."""

    bridge: str
    ok: bool
    failure: str | None  # the name of its class
    evidence: str
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
    name, evidence = (None, "") if tried.failure is None else (tried.failure.name, tried.failure.evidence)
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
        self._machine = Chooser(random.SystemRandom().random, network, _today(), memory)
        self._bridges: dict[str, Bridge] = {}
        self._reached: dict[str, Tried] = {}  # by the address that answered in the last attempt
        self._addresses: dict[str, str] = {}
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._using: tuple[str, Carrier] | None = None
        self._retired: dict[Carrier, asyncio.TimerHandle] = {}
        self._making: asyncio.Task[None] | None = None
        self._pulse: asyncio.Task[None] | None = None
        self._opened = 0
        self._struck = False  # whether a stream failed since one worked
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
        self._step(NetworkChanged(network, _today()))

    @property
    def using(self) -> str | None:
        """The bridge that streams take."""
        return None if self._using is None else self._using[0]

    def wanted(self) -> None:
        """Somebody waits for a way out."""
        self._step(Wanted())

    def carry(self, client: Client) -> None:
        """Hand a client to the carrier in use, of which there must be one, and learn from what becomes of it."""
        assert self._using is not None
        id_, carrier = self._using
        self._opened += 1
        carrier.carry(_Watched(client, self, id_))

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
        for timer in (self._wake, self._telling):
            if timer is not None:
                timer.cancel()
        tasks = [task for task in (*self._attempts.values(), self._making, self._pulse) if task is not None]
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
            if self._struck:
                self._struck = False
                self._step(StreamWorked(id_))
        elif refusal in (_THEIRS if isinstance(self._bridges.get(id_), ShadowsocksBridge | ProxyBridge) else _OURS):
            self._struck = True
            self._step(StreamFailed(id_))

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
        tried = await attempt(bridge, self._make, url=self._url, known=self._addresses.get(id_, ""))
        if tried.failure is None:
            self._reached[id_] = tried
            if tried.address:
                self._addresses[id_] = tried.address
        elif self._using is not None and self._using[0] != id_:
            tried = await reconsider(bridge, tried, self._using[1])
        self._attempts.pop(id_, None)
        self._report(attempted(id_, tried))
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
        if isinstance(bridge, ShadowsocksBridge | ProxyBridge):
            self._pulse = self._loop.create_task(self._feel(id_, bridge))

    def _retire(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None
        if self._using is not None:
            _, carrier = self._using
            self._using = None
            self._retired[carrier] = self._loop.call_later(RETIRED_S, self._end, carrier)
            if len(self._retired) > RETIRED_MAX:
                self._end(next(iter(self._retired)))

    def _end(self, carrier: Carrier) -> None:
        self._retired.pop(carrier).cancel()
        carrier.close()

    async def _feel(self, id_: str, bridge: Bridge) -> None:
        """Test a carrier in use whose silence nobody else would notice."""
        while True:
            before = self._opened
            await asyncio.sleep(PULSE_S)
            if self._opened == before:
                continue
            tried = await attempt(bridge, self._make, url=self._url)
            if tried.failure is not None and self._using is not None and self._using[0] == id_:
                self._step(Doubted(id_))


class _Watched:
    """A client of the gate, and who hears what becomes of it."""

    __slots__ = ("_choosing", "_client", "_id")

    def __init__(self, client: Client, choosing: Choosing, id_: str) -> None:
        self._client = client
        self._choosing = choosing
        self._id = id_

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
        self._choosing.heard(self._id, None)
        return self._client.take()

    def refuse(self, refusal: Refusal) -> None:
        """There is none."""
        self._choosing.heard(self._id, refusal)
        self._client.refuse(refusal)


def _candidate(id_: str, bridge: Bridge) -> Candidate:
    kind = kind_of(bridge)
    limit_s = TOR_LIMIT_S if isinstance(bridge, TorBridge | PluggedBridge) else Candidate(id_, kind).limit_s
    return Candidate(id_, kind, _RANKS.get(kind, 1), isinstance(bridge, Tricks), limit_s)


def _today() -> int:
    return int(time.time()) // DAY_S
