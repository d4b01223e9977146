"""What reach costs beside its peers: CPU seconds a GiB, new connections a second, time to the first byte.

Both ends of a way count together, ours as theirs, and the machine's other ends (`reach_target`, this process) do not.
Ours and the peer take turns, and rows hold medians, since other work on the machine moves absolute numbers far.
"""

from __future__ import annotations

import hashlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from outlast import address
from outlast.address import Target
from tests.bench import reach_ways
from tests.bench.reach_target import digest_of, send
from tests.bench.reach_ways import SS, SS_2022, Open, Way

GIB, MIB = 1 << 30, 1 << 20
ROUNDS = int(os.environ.get("OUTLAST_BENCH_ROUNDS", "5"))
WORKERS = 32
CONNECTIONS_S = 1.0
FIRST_BYTES = 300


@dataclass(frozen=True)
class Bulk:
    """A comparison of CPU seconds a GiB."""

    name: str
    ours: Open
    peer: Open | None
    bars: tuple[float, float]  # down, up
    size: int = GIB


def run(peer_python: str | None) -> Iterator[dict[str, Any]]:
    """Measure everything, beside the peers that are there."""
    libev, sing_box, trojan = reach_ways.libev(), reach_ways.sing_box(), reach_ways.trojan()
    ss, ss_2022, web = reach_ways.shadowsocks(SS), reach_ways.shadowsocks(SS_2022), reach_ways.web()
    for bulk in (
        Bulk("shadowsocks-libev aes-256-gcm", ss, libev, (0.80, 0.80)),
        Bulk("sing-box SS-2022", ss_2022, sing_box, (0.90, 1.15)),
        Bulk("trojan", web, trojan, (0.90, 1.00)),
        Bulk("obfs4proxy", ss_2022, reach_ways.obfs4proxy(), (0.20, 0.20), GIB // 4),
        Bulk("pproxy", ss_2022, reach_ways.pproxy(peer_python), (0.07, 0.07), GIB // 16),
    ):
        yield from measure_bulk(bulk)
    yield from measure_connections("shadowsocks-libev aes-256-gcm", web, libev, 0.6)
    yield from measure_connections("sing-box SS-2022", web, sing_box, 2.0)
    yield from measure_first_byte("sing-box SS-2022", web, sing_box, 1.0)
    for name, way in (("SS-2022", ss_2022), ("web", web)):
        yield check_bytes(f"1 GiB down and up with equal hashes, {name}", way)


def row(
    work: str, unit: str, ours: float, peer: float | None, name: str | None, bar: float | None, *, more: bool = False
) -> dict[str, Any]:
    """A row; ``more``: the ratio has to be at least the bar, else at most."""
    ratio = ours / peer if peer else None
    holds = None if bar is None or ratio is None else (ratio >= bar if more else ratio <= bar)
    numbers = {"ours": round(ours, 3), "peer": peer and round(peer, 3), "ratio": ratio and round(ratio, 3)}
    return {"work": work, "unit": unit, **numbers, "peer_name": name if peer else None, "bar": bar, "holds": holds}


@contextmanager
def both(ours: Open, peer: Open | None) -> Iterator[tuple[int, list[Way]]]:
    """A target and the ways to it, ours first."""
    with ExitStack() as stack:
        command = [sys.executable, "-m", "tests.bench.reach_target"]
        target = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert target.stdin
        assert target.stdout
        stack.callback(target.stdin.close)
        port = int(target.stdout.readline())
        ways = []
        for one in (ours, peer):
            if one:
                folder = Path(stack.enter_context(TemporaryDirectory()))
                ways.append(stack.enter_context(one(port, folder)))
        yield port, ways


def measure_bulk(bulk: Bulk) -> Iterator[dict[str, Any]]:
    """CPU seconds a GiB, down and up."""
    costs: dict[tuple[str, int], list[float]] = {}
    with both(bulk.ours, bulk.peer) as (target, ways):
        for way in ways:
            for direction in ("down", "up"):
                transfer(way, target, direction, 16 * MIB)
        for number in range(ROUNDS):
            for direction in ("down", "up"):
                for which in in_turn(ways, number):
                    before = ways[which].cpu_s()
                    transfer(ways[which], target, direction, bulk.size)
                    costs.setdefault((direction, which), []).append((ways[which].cpu_s() - before) * GIB / bulk.size)
    for direction, bar in zip(("down", "up"), bulk.bars, strict=True):
        ours, *theirs = (statistics.median(costs[direction, which]) for which in range(len(ways)))
        work = f"1 GiB {direction} through SOCKS5"
        yield row(work, "CPU-s/GiB", ours, theirs[0] if theirs else None, bulk.name, bar)


def in_turn(ways: list[Way], number: int) -> list[int]:
    """Which way is measured after which: A B, then B A."""
    return sorted(range(len(ways)), reverse=number % 2 == 1)


def measure_first_byte(name: str, ours: Open, peer: Open | None, bar: float) -> Iterator[dict[str, Any]]:
    """Milliseconds from a program's connecting to the target's first byte."""
    times: dict[int, list[float]] = {}
    with both(ours, peer) as (target, ways):
        for number in range(FIRST_BYTES):
            for which in in_turn(ways, number):
                started = time.perf_counter()
                with connect(ways[which], target) as one:
                    one.sendall(b"one\n")
                    assert one.recv(1) == b"!"
                times.setdefault(which, []).append(1000 * (time.perf_counter() - started))
    mine, *theirs = (statistics.median(times[which]) for which in range(len(ways)))
    yield row("time to first byte, median", "ms", mine, theirs[0] if theirs else None, name, bar)


def measure_connections(name: str, ours: Open, peer: Open | None, bar: float) -> Iterator[dict[str, Any]]:
    """New connections a second with 32 workers, each with one byte back; and what each costs, without a bar.

    The rate also depends on what the two ends of the measurement leave of the machine, the cost does not.
    """
    rates: dict[int, list[float]] = {}
    costs: dict[int, list[float]] = {}
    with both(ours, peer) as (target, ways):
        for number in range(ROUNDS):
            for which in in_turn(ways, number):
                before = ways[which].cpu_s()
                rate = connections_a_second(ways[which], target)
                rates.setdefault(which, []).append(rate)
                costs.setdefault(which, []).append(1e6 * (ways[which].cpu_s() - before) / (rate * CONNECTIONS_S))
    mine, *theirs = (statistics.median(rates[which]) for which in range(len(ways)))
    work = f"new connections a second, {WORKERS} workers"
    yield row(work, "1/s", mine, theirs[0] if theirs else None, name, bar, more=True)
    mine, *theirs = (statistics.median(costs[which]) for which in range(len(ways)))
    yield row("a new connection", "CPU-us", mine, theirs[0] if theirs else None, name, None)


def connections_a_second(way: Way, target: int) -> float:
    """How many connections so many workers together get through."""
    ask = [way.port, way.to or target, WORKERS, CONNECTIONS_S]
    command = [sys.executable, "-m", "tests.bench.reach_load", *map(str, ask)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def check_bytes(work: str, ours: Open) -> dict[str, Any]:
    """Send 1 GiB down and up, and compare hashes."""
    with both(ours, None) as (target, ways):
        wanted, started = digest_of(GIB), time.perf_counter()
        down = transfer(ways[0], target, "down", GIB, hashed=True)
        up = transfer(ways[0], target, "up", GIB, hashed=True)
        found = row(work, "s", time.perf_counter() - started, None, "", None)
    return found | {"holds": down == up == wanted}


def transfer(way: Way, target: int, direction: str, size: int, *, hashed: bool = False) -> str:
    """Send so much through a way, all of it; the SHA-256 of what came, if asked for."""
    with connect(way, target) as one:
        if direction == "up":
            one.sendall(f"up {size} {int(hashed)}\n".encode())
            send(one, size)
            digest = b""
            while len(digest) < 64:
                part = one.recv(64)
                if not part:
                    raise SystemExit("a way ended early")
                digest += part
            return digest.decode()
        one.sendall(f"down {size}\n".encode())
        found, buffer = hashlib.sha256(), memoryview(bytearray(1 << 19))
        while size:
            count = one.recv_into(buffer)
            if not count:
                raise SystemExit("a way ended early")
            size -= count
            if hashed:
                found.update(buffer[:count])
        return found.hexdigest()


def connect(way: Way, target: int) -> socket.socket:
    """A stream through a way."""
    one = socket.create_connection(("127.0.0.1", way.port), 60)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.sendall(b"\5\1\2" if way.credentials else b"\5\1\0")
    if one.recv(2)[1] == 2 and way.credentials:
        user, password = split(*way.credentials)
        one.sendall(b"\1" + bytes((len(user),)) + user + bytes((len(password),)) + password)
        one.recv(2)
    one.sendall(b"\5\1\0" + address.encode(Target("127.0.0.1", way.to or target)))
    answer = one.recv(10)
    if answer[1]:
        raise SystemExit(f"a way refuses with {answer[1]}")
    return one


def split(user: bytes, password: bytes) -> tuple[bytes, bytes]:
    """Arguments of a transport as credentials, which may not be longer than 255 bytes each."""
    return (user[:255], user[255:] or password) if len(user) > 255 else (user, password)
