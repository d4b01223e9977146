"""A border in namespaces: a client behind it, a bridge's server and sites beyond it, a neighbour with a dish beside it.

``client`` has an uplink to the border and a cable to ``neighbour``; the neighbour's dish reaches ``server`` past the
border. ``server`` is a router of the free world too: behind it ``sites`` has what people want to see, and a resolver.
Addresses look like public ones; nothing leaves the namespaces. Built once, its censor is changed from case to case.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives import serialization

from outlast import dns
from tests import nameserver
from tests.e2e import machines
from tests.e2e.machines import enter, ip
from tests.rooms.reach.censors import DNS_PORT, HTTP_PORT, TLS_PORT, Censor, Judge
from tests.rooms.reach.nfqueue import NUMBER, Queue, Segment, Verdict
from tests.rooms.watch.country import Authority, Place

CLIENT, GATE = "5.22.200.2", "5.22.200.1"
BORDER, SERVER = "62.115.0.1", "62.115.0.2"
BRIDGES = tuple(f"62.115.10.{number}" for number in range(1, 5))  # all of them the server's
STANDING = tuple(f"62.115.11.{number}" for number in range(1, 5))  # the same, of bridges that many tests share
RESOLVER, DOH = "8.8.8.8", "9.9.9.9"
MINISTRY = "5.22.201.1"
SITE, BANNED = "93.184.216.1", "93.184.216.2"
PRIVATE, METADATA = "10.9.0.1", "169.254.169.254"  # services near the bridge that are nobody else's business
INNER_PORT = 8099  # a site of the server's own machine
AMPLIFIER_PORT, AMPLIFIED_BYTES = 9000, 400_000
ZONE = {
    "site.example.net": SITE,
    "banned.example.net": BANNED,
    "hijacked.example.net": BANNED,
    "connectivitycheck.gstatic.com": SITE,  # what reach asks for through bridges that know no echo
    "private.example.net": PRIVATE,
    "metadata.example.net": METADATA,
    "loopback.example.net": "127.0.0.1",
    "ministry.example.net": MINISTRY,
    **{f"bridge{number}.example.net": address for number, address in enumerate(STANDING, 1)},
}
HOME_PAGE = b"<html><title>A site</title><body><img src=https://banned.example.net/500>Welcome.</body></html>"
MINISTRY_PAGE = b"By order of the ministry."
NFT = f"""
table inet censor {{
  set pairs {{
    type ipv4_addr . ipv4_addr
    size 1024
    flags dynamic
  }}
  chain lies {{
    type nat hook prerouting priority dstnat
  }}
  chain marked {{
    type filter hook forward priority -10
    meta mark {Verdict.DROP:d} ct mark set {Verdict.DROP:d}
    meta mark {Verdict.RESET:d} ct mark set {Verdict.RESET:d}
    ct mark {Verdict.DROP:d} drop
    ct mark {Verdict.RESET:d} reject with tcp reset
  }}
  chain strikes {{
    type filter hook forward priority -5
  }}
  chain blocks {{
    type filter hook forward priority 0
  }}
}}
"""
# The first packets of each connection, also where it is cut into small pieces.
LOOK = f"FORWARD -i uplink -p tcp -m connbytes --connbytes 0:24 --connbytes-dir original --connbytes-mode packets \
-j NFQUEUE --queue-num {NUMBER} --queue-bypass"
# Connections that have carried something. The client's side learns of it first; what the server sends next is reset
# by the client's own machine.
STRIKE = 'iifname "uplink" meta l4proto tcp ct packets > 40 counter reject with tcp reset'
_built = count()
_ORIGINAL_TARGET = 80  # SO_ORIGINAL_DST, linux/netfilter_ipv4.h


@dataclass
class Border:
    """The namespaces while they stand."""

    folder: Path
    networks: dict[str, str]
    trusted: Path
    authority: Authority
    judge: Judge | None = None
    lies: dict[str, str] = field(default_factory=dict)
    programs: list[subprocess.Popen[str]] = field(default_factory=list)

    @contextmanager
    def censored(self, *censors: Censor) -> Iterator[None]:
        """What lies within is done under these censors; connections made before keep what was said about them."""
        judges = [one.judge for one in censors if one.judge]
        assert len(judges) < 2
        try:
            if judges:
                self.judge = judges[0]
                self.run("border", "iptables-legacy", "-t", "mangle", "-A", *LOOK.split())
            for one in censors:
                self.lies.update(one.names)
            for chain in ("lies", "blocks"):
                for rule in (rule for one in censors for rule in getattr(one, chain)):
                    self.rule(chain, rule)
            yield
        finally:
            self.run("border", "iptables-legacy", "-t", "mangle", "-F")
            for chain in ("lies", "blocks"):
                self.run("border", "nft", "flush", "chain", "inet", "censor", chain)
            self.judge = None
            self.lies.clear()

    @contextmanager
    def struck(self, every_s: float) -> Iterator[list[float]]:
        """Connections that carry something are reset now and again; when that was, counted from the beginning."""
        ended, began_s = threading.Event(), time.monotonic()
        struck: list[float] = []
        chain = ("inet", "censor", "strikes")

        def strike() -> None:
            while not ended.wait(every_s):
                self.run("border", "nft", "add", "rule", *chain, *STRIKE.split())
                while "packets 0 " in self.run("border", "nft", "list", "chain", *chain) and not ended.is_set():
                    pass
                self.run("border", "nft", "flush", "chain", *chain)
                struck.append(time.monotonic() - began_s)

        thread = threading.Thread(target=strike, daemon=True)
        thread.start()
        try:
            yield struck
        finally:
            ended.set()
            thread.join(20)

    def rule(self, chain: str, rule: str) -> None:
        """Add one of nft's; lies are told to those at home alone."""
        home = 'iifname "uplink" ' if chain == "lies" else ""
        self.run("border", "nft", "add", "rule", "inet", "censor", chain, *(home + rule).split())

    def start(self, place: str, *command: str | Path, **more: Any) -> subprocess.Popen[str]:
        """Start a program in a namespace, with that place's resolver; it is ended with the border at the latest."""
        bind = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
        inside = ["nsenter", f"--net=/run/netns/{self.networks[place]}", "unshare", "--mount", "sh", "-c", bind, "sh"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
        environment |= {"SSL_CERT_FILE": str(self.trusted), "CURL_CA_BUNDLE": str(self.trusted)}
        started = subprocess.Popen(
            [*inside, str(self.folder / "resolv.conf"), *map(str, command)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            **more,
        )
        self.programs.append(started)
        return started

    def outlast(self, place: str, home: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line in a namespace."""
        return self.start(place, Path(sys.executable).with_name("outlast"), "--home", home, *arguments)

    def ask(self, place: str, *command: str | Path, timeout_s: float = 20) -> subprocess.CompletedProcess[str]:
        """Run a program in a namespace to its end, whatever that is."""
        started = self.start(place, *command)
        out, err = started.communicate(timeout=timeout_s)
        self.programs.remove(started)
        return subprocess.CompletedProcess(command, started.returncode, out, err)

    def curl(self, *arguments: str, place: str = "client", limit_s: float = 1.5) -> subprocess.CompletedProcess[str]:
        """Fetch something; no proxy of the environment's has a part in it."""
        quiet = ["--noproxy", "", "-sS", "--max-time", str(limit_s)]
        return self.ask(place, "curl", *quiet, *arguments, timeout_s=limit_s + 20)

    @staticmethod
    def until(program: subprocess.Popen[str], words: str) -> str:
        """Wait until a program says that it is ready; all that it said."""
        assert program.stdout is not None
        seen = ""
        while words not in seen:
            line = program.stdout.readline()
            assert line, f"it ended and said: {seen}"
            seen += line
        return seen

    def end(self, program: subprocess.Popen[str]) -> str:
        """End a program that was started here; what it said on stderr."""
        program.terminate()
        _, err = program.communicate(timeout=20)
        self.programs.remove(program)
        return err

    def socket(self, place: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket that belongs to a namespace."""
        made: list[socket.socket] = []

        def make() -> None:
            enter(self.networks[place])
            made.append(socket.socket(type=kind))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        made[0].settimeout(10)
        return made[0]

    def run(self, place: str, *command: str, text: str | None = None) -> str:
        """Run a program in a namespace that has to succeed."""
        inside = ["ip", "netns", "exec", self.networks[place], *command]
        done = subprocess.run(inside, input=text, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def look(self, segment: Segment) -> Verdict:
        """What the judge of the moment says."""
        return self.judge(segment) if self.judge else Verdict.PASS


@contextmanager
def border(folder: Path) -> Iterator[Border]:
    """The border, without a censor."""
    here = f"outlast{os.getpid()}x{next(_built)}"
    networks = {place: here + place for place in ("client", "neighbour", "border", "server", "sites")}
    stack = ExitStack()
    places: list[Place] = []
    true, false = Authority.make("Test authority"), Authority.make("Ministry")
    trusted = folder / "trusted.pem"
    trusted.write_bytes(true.certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "resolv.conf").write_text(f"nameserver {RESOLVER}\noptions timeout:1 attempts:1\n")
    stands = Border(folder, networks, trusted, true)
    try:
        stack.enter_context(machines.networks(networks.values(), partial(_wire, networks)))
        for router in ("border", "server"):
            stands.run(router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        stands.run("border", "sh", "-c", "echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct")
        stands.run("border", "nft", "-f", "-", text=NFT)
        places.append(Place(networks["sites"], *_sites(true, folder)))
        places.append(Place(networks["server"], partial(asyncio.start_server, _site, "0.0.0.0", INNER_PORT)))
        places.append(Place(networks["border"], *_lies(false, folder, stands.lies), partial(_queue, stands.look)))
        yield stands
    finally:
        for program in stands.programs:
            if program.poll() is None:
                program.terminate()
            program.communicate(timeout=20)
        for place in places:
            place.end()
        stack.close()


def _wire(networks: dict[str, str]) -> None:
    for first, device, second, other in (
        ("client", "uplink", "border", "uplink"),
        ("client", "lan", "neighbour", "lan"),
        ("border", "abroad", "server", "land"),
        ("neighbour", "dish", "server", "sky"),
        ("server", "sites", "sites", "cable"),
    ):
        ends = ("link", "add", device, "netns", networks[first], "type", "veth", "peer", "name", other)
        ip(*ends, "netns", networks[second])
    for place, device, address in (
        ("client", "uplink", f"{CLIENT}/24"),
        ("client", "lan", "192.168.77.2/24"),
        ("neighbour", "lan", "192.168.77.1/24"),
        ("neighbour", "dish", "194.177.0.2/24"),
        ("border", "uplink", f"{GATE}/24"),
        ("border", "abroad", f"{BORDER}/24"),
        ("border", "lo", f"{MINISTRY}/32"),
        ("server", "land", f"{SERVER}/24"),
        ("server", "sky", "194.177.0.1/24"),
        ("server", "sites", "62.115.2.1/24"),
        *(("server", "lo", f"{one}/32") for one in BRIDGES + STANDING),
        ("sites", "cable", "62.115.2.2/24"),
        *(("sites", "lo", f"{one}/32") for one in (SITE, BANNED, PRIVATE, METADATA, RESOLVER, DOH)),
    ):
        ip("-n", networks[place], "addr", "add", address, "dev", device)
        # An address of IPv6 that is ready a second later is a change of network to a browser.
        ip("-n", networks[place], "link", "set", device, "addrgenmode", "none")
        ip("-n", networks[place], "link", "set", device, "up")
    for network in networks.values():
        ip("-n", network, "link", "set", "lo", "up")
    for place, way in (
        ("client", GATE),
        ("neighbour", "194.177.0.1"),
        ("border", SERVER),
        ("server", "62.115.2.2"),
        ("sites", "62.115.2.1"),
    ):
        ip("-n", networks[place], "route", "add", "default", "via", way)
    ip("-n", networks["server"], "route", "add", f"{CLIENT}/32", "via", BORDER)


async def _queue(judge: Judge) -> Queue:
    return Queue(judge)


def _sites(true: Authority, folder: Path) -> list[Callable[[], Awaitable[Any]]]:
    encrypted = true.context(folder, *(name for name, address in ZONE.items() if address in (SITE, BANNED)))
    return [
        partial(_datagrams, RESOLVER, 53, {}),
        partial(asyncio.start_server, _doh, DOH, 443, ssl=true.context(folder, "dns.example.net")),
        *(partial(_amplifier, one) for one in (SITE, PRIVATE)),
        *(partial(asyncio.start_server, _site, one, 80) for one in (SITE, BANNED, PRIVATE, METADATA)),
        *(partial(asyncio.start_server, _site, one, 443, ssl=encrypted) for one in (SITE, BANNED)),
    ]


def _lies(false: Authority, folder: Path, lies: dict[str, str]) -> list[Callable[[], Awaitable[Any]]]:
    asked: dict[Any, str] = {}
    forged = false.context(folder, *ZONE, *BRIDGES, SITE)
    # What was asked for is asked for beyond the border too.
    forged.sni_callback = lambda own, name, _: asked.__setitem__(own, name)
    return [
        partial(_datagrams, "0.0.0.0", DNS_PORT, lies),
        partial(asyncio.start_server, _ministry, "0.0.0.0", HTTP_PORT),
        partial(asyncio.start_server, _ministry, MINISTRY, 80),
        partial(asyncio.start_server, partial(_intercept, asked), "0.0.0.0", TLS_PORT, ssl=forged),
    ]


def _resolved(data: bytes, lies: dict[str, str]) -> bytes:
    try:
        name = nameserver.asked(data).name.lower()
    except dns.DnsError:
        return b""
    address = lies.get(name, ZONE.get(name))
    return nameserver.reply(data, (address,) if address else (), rcode=0 if address else dns.NXDOMAIN)


async def _doh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.IncompleteReadError, ValueError):
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        said = _resolved(await reader.readexactly(size), {})
        kind = b"Content-Type: application/dns-message\r\nContent-Length: %d\r\n\r\n" % len(said)
        writer.write(b"HTTP/1.1 200 OK\r\n" + kind + said)
        await writer.drain()
    writer.close()


class _Resolver(asyncio.DatagramProtocol):
    def __init__(self, lies: dict[str, str]) -> None:
        self._lies = lies

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if said := _resolved(data, self._lies):
            self._transport.sendto(said, addr)


class _Amplifier(_Resolver):
    def datagram_received(self, data: bytes, addr: Any) -> None:
        for _ in range(AMPLIFIED_BYTES // 1000):
            self._transport.sendto(bytes(1000), addr)


async def _amplifier(host: str) -> Any:
    """Answers with far more than it was asked."""
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(lambda: _Amplifier({}), local_addr=(host, AMPLIFIER_PORT))


async def _datagrams(host: str, port: int, lies: dict[str, str]) -> Any:
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(lambda: _Resolver(lies), local_addr=(host, port))


async def _site(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A site: ``/`` is a page with a picture of another site's, ``/SIZE`` is so many bytes; what is put is hashed."""
    with suppress(OSError, ValueError, asyncio.IncompleteReadError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ", 2)[1][1:]
            lengths = (line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            if left := int(next(lengths, b"0")):
                hashed = sha256()
                while left:
                    part = await reader.readexactly(min(65536, left))
                    hashed.update(part)
                    left -= len(part)
                page = hashed.hexdigest().encode()
            else:
                page = page_of(int(path)) if path.isdigit() else HOME_PAGE
            if path == b"generate_204":
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                break
            kind = b"text/plain" if path else b"text/html"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(page)))
            writer.write(page)
            await writer.drain()
            if b"connection: close" in head.lower():
                break
    writer.close()


def page_of(size: int) -> bytes:
    """The page of so many bytes; no two places in it are alike."""
    return Random(size).randbytes(size)


async def _ministry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        head = await reader.read(65536)
        if b"\r\nHost: ministry" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(MINISTRY_PAGE) + MINISTRY_PAGE)
        elif b" HTTP/1.1\r\n" in head:
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://ministry.example.net/\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
    writer.close()


async def _intercept(asked: dict[Any, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Goes on in TLS to where the client wanted to go, reading everything."""
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_IP, _ORIGINAL_TARGET, 16)
    port, address = struct.unpack_from("!2xH4s", raw)
    open_eyed = ssl.create_default_context()
    open_eyed.check_hostname, open_eyed.verify_mode = False, ssl.CERT_NONE
    name = asked.pop(writer.get_extra_info("ssl_object"), None)
    with suppress(OSError):
        on, out = await asyncio.open_connection(
            socket.inet_ntoa(address), port, ssl=open_eyed, server_hostname=name or ""
        )
        await asyncio.gather(_pipe(reader, out), _pipe(on, writer))
    writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
