"""The own uplink, lent to neighbours: a Shadowsocks 2022 listener for each member, that leads to their bridges alone.

The host sees which bridges a member's bytes go to, and how many; what they are is the bridge's ciphertext. Each member
has a share of the day, all together have one, and all of them wait while this machine itself uses the line.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from outlast.address import Target
from outlast.errors import OutlastError
from outlast.rooms.reach.io.carrier import Association, Refusal
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.shadowsocks_server import ShadowsocksListener
from outlast.rooms.reach.proto.exit_policy import Policy
from outlast.rooms.reach.proto.token_bucket import Allowance, TokenBucket, leftover_per_s

METHOD: Final = "2022-blake3-aes-256-gcm"
LOOK_S: Final = 0.5
"""How often it is seen what the line carries beside what is lent."""
TELL_S: Final = 5.0
BURST_BYTES: Final = 65_536
COUNTED_TWICE: Final = 2.2
"""Lent bytes come in and go out by one interface, with headers."""
DAY_S: Final = 86_400
NO_BOUND: Final = 1 << 62
"""Two hundred years of bytes."""
_ROUTES: Final = Path("/proc/net/route")
_COUNTERS: Final = Path("/proc/net/dev")


class Share(msgspec.Struct, frozen=True):
    """What one member gets."""

    number: bytes  # 16 B: the offer
    key: bytes  # 32 B
    port: int  # 0 or a taken one: any
    targets: tuple[Target, ...]  # where their bridges are, by their own word
    day_bytes: int  # 0 = no bound of their own
    spent: int = 0  # of it, today


class Shares(msgspec.Struct, frozen=True):
    """What is lent to all."""

    hosts: tuple[str, ...]  # addresses of this machine in the local network
    members: tuple[Share, ...] = ()
    day_bytes: int = 0  # for all together, 0 = no bound
    policy: Policy = Policy()


class Lent(msgspec.Struct, frozen=True, tag="lent"):
    """Where a member's listener is, and how many bytes of the day they have used."""

    number: bytes
    port: int
    spent: int


class Lending:
    """All listeners."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        shares: Shares,
        report: Callable[[Lent], None],
        line: Callable[[], int | None] | None = None,
        used: dict[bytes, Allowance] | None = None,
    ) -> None:
        """Listen; ``line`` counts the bytes that the machine's way out has carried. Raises as ``match`` does.

        ``used`` is what members have used, by number, of a lending that was closed; it is kept up here.
        """
        self.loop = loop
        self._report = report
        self._line = line or carried_bytes
        self._members: list[_Member] = []
        self.used = {} if used is None else used
        for share in shares.members:
            self.allowance_of(share)
        self.all = Allowance(NO_BOUND, _today(), sum(one.spent for one in self.used.values()))
        self.lent = 0
        self.bucket: TokenBucket | None = None
        """What may pass while the machine itself uses the line; None while it does not."""
        self._seen: tuple[int | None, int, float] = (self._line(), 0, loop.time())
        try:
            self.match(shares)
        except OutlastError:
            self._end()
            raise
        self._timers = [loop.call_later(LOOK_S, self._look), loop.call_later(TELL_S, self._tell)]

    def match(self, shares: Shares) -> None:
        """Lend this from now on, and say how all stand. Raises OutlastError when an address cannot be had.

        Where a member is to be led they say themselves, by letters: none of these gives them their day anew, or ends
        another one's streams.
        """
        self.all.per_day = shares.day_bytes or NO_BOUND
        before, self._members = {one.number: one for one in self._members}, []
        for share in shares.members:
            known = before.get(share.number)
            if known is not None and known.serves(share, shares):
                self._members.append(before.pop(share.number))
                known.lead(share)
        for gone in before.values():
            gone.close()
        there = {one.number for one in self._members}
        for share in shares.members:
            if share.number not in there:
                self._members.append(_Member(self, share, shares))
        self.tell()

    def allowance_of(self, share: Share) -> Allowance:
        """What a member may use, and has used today."""
        one = self.used.setdefault(share.number, Allowance(NO_BOUND, _today(), share.spent))
        one.per_day = share.day_bytes or NO_BOUND
        one.take(0, _today())
        return one

    async def close(self) -> None:
        """End it, and say what was used."""
        for timer in self._timers:
            timer.cancel()
        self.tell()
        self._end()

    def tell(self) -> None:
        """Report how all stand."""
        for member in self._members:
            self._report(member.state())

    def _end(self) -> None:
        for member in self._members:
            member.close()

    def _look(self) -> None:
        """See what the line carries beside what is lent, and hold that back while it is much."""
        line, now_s = self._line(), self.loop.time()
        before, lent, then_s = self._seen
        self._seen = line, self.lent, now_s
        self._timers[0] = self.loop.call_later(LOOK_S, self._look)
        if line is None or before is None or now_s <= then_s:
            self.bucket = None
            return
        own_per_s = (line - before - COUNTED_TWICE * (self.lent - lent)) / (now_s - then_s)
        per_s = leftover_per_s(own_per_s)
        if per_s is None:
            self.bucket = None
        elif self.bucket is None:
            self.bucket = TokenBucket(per_s, BURST_BYTES, now_s)
        else:
            self.bucket.left(now_s)
            self.bucket.per_s = per_s

    def _tell(self) -> None:
        self._timers[1] = self.loop.call_later(TELL_S, self._tell)
        for member in self._members:
            if member.told != member.allowance.spent:
                self._report(member.state())


class _Member:
    """One member's listeners, on each address of the machine the same port where it can be had."""

    def __init__(self, lending: Lending, share: Share, shares: Shares) -> None:
        self.number = share.number
        self.allowance = lending.allowance_of(share)
        self.told = -1
        self._at = share.key, share.port, shares.hosts, shares.policy
        self._lending = lending
        self._exit = _Hop(lending.loop, shares.policy, frozenset(share.targets), self.may_use)
        self._listeners: list[ShadowsocksListener] = []
        self.port = share.port
        try:
            for host in shares.hosts:
                self._listen(host, share.key)
        except OutlastError:
            self.close()
            raise

    def serves(self, share: Share, shares: Shares) -> bool:
        """Whether it stands where this share is to be."""
        return self._at == (share.key, share.port, shares.hosts, shares.policy)

    def lead(self, share: Share) -> None:
        """From now on to these targets, and so much a day."""
        self._exit.targets = frozenset(share.targets)
        self._lending.allowance_of(share)

    def _listen(self, host: str, key: bytes) -> None:
        password = b64encode(key).decode()
        try:
            one = ShadowsocksListener(self._exit, Target(host, self.port), METHOD, password, host, meter=self._meter)
        except OutlastError:
            if self._listeners:
                return  # the other addresses have to do
            one = ShadowsocksListener(self._exit, Target(host, 0), METHOD, password, host, meter=self._meter)
        self._listeners.append(one)
        self.port = one.at.port

    def may_use(self) -> bool:
        """Whether anything of the day is left."""
        today = _today()
        return self.allowance.take(0, today) and self._lending.all.take(0, today)

    def state(self) -> Lent:
        self.told = self.allowance.spent
        return Lent(self.number, self.port, self.told)

    def close(self) -> None:
        for one in self._listeners:
            one.end()
        self._exit.close()

    def _meter(self, count: int) -> float:
        lending, today = self._lending, _today()
        lending.lent += count
        left = self.allowance.take(count, today)
        if not (lending.all.take(count, today) and left):
            lending.loop.call_soon(self._cut)
            return LOOK_S  # until then nothing more is read, of what is there already
        if lending.bucket is None:
            return 0.0
        now_s = lending.loop.time()
        lending.bucket.take(count, now_s)
        return lending.bucket.wait_s(now_s)

    def _cut(self) -> None:
        """The share of the day is used up: streams end, and none begins before tomorrow."""
        for one in self._listeners:
            for pump in tuple(one.pumps):
                pump.close()


class _Hop(Exit):
    """An exit to some targets and to nothing else."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, policy: Policy, targets: frozenset[Target], may_use: Callable[[], bool]
    ) -> None:
        super().__init__(loop, policy)
        self.targets = targets
        self._may_use = may_use

    def open(
        self,
        target: Target,
        opened: Callable[..., None],
        failed: Callable[[Refusal], None],
        whose: bytes | None = None,
    ) -> Callable[[], None]:
        """Connect to a target of the member's while they have any of the day left."""
        if target not in self.targets or not self._may_use():
            return self.loop.call_soon(failed, Refusal.NOT_ALLOWED).cancel
        return super().open(target, opened, failed, whose)

    def datagrams(self, deliver: Callable[[Target, bytes], None], whose: bytes | None = None) -> Association | None:
        """No way: what a bridge takes comes by streams."""
        return None


def carried_bytes() -> int | None:
    """How many bytes the interface of the default route has carried, both ways; None when that cannot be known."""
    try:
        routes, counters = _ROUTES.read_text("ascii", "replace"), _COUNTERS.read_text("ascii", "replace")
    except OSError:
        return None
    return counted(routes, counters)


def counted(routes: str, counters: str) -> int | None:
    """The same from the texts of ``/proc/net/route`` and ``/proc/net/dev``."""
    name = next(
        (row[0] for line in routes.splitlines()[1:] if len(row := line.split()) > 2 and row[1] == "0" * 8), None
    )
    for line in counters.splitlines():
        interface, colon, rest = line.partition(":")
        columns = rest.split()
        if colon and interface.strip() == name and len(columns) > 8 and columns[0].isdigit() and columns[8].isdigit():
            return int(columns[0]) + int(columns[8])
    return None


def _today() -> int:
    return int(time.time()) // DAY_S
