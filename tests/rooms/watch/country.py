"""A country whose border censors: three network namespaces, real servers abroad, and a middlebox on the way.

``home`` is the operator's machine, ``border`` the country's only way out with its provider's resolver, its own sites
and the censor, ``abroad`` everything else. Addresses look like public ones; nothing leaves the namespaces. The censor
is Python code behind nft redirects, and nft and tc themselves. ``Country.counted`` says what left home.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from outlast import dns, tls
from outlast.rooms.watch.proto import quic
from outlast.rooms.watch.proto.services import TELEGRAM_POINTS
from tests import nameserver
from tests.e2e import machines
from tests.e2e.machines import enter, ip

HOME, GATE = "5.22.200.2", "5.22.200.1"
BORDER, ABROAD = "62.115.0.1", "62.115.0.2"
RESOLVERS = {"8.8.8.8": 5301, "1.1.1.1": 5302}
DOH = "9.9.9.9"
CONTROL = ABROAD
BLOCK_PAGE, DOMESTIC = "5.22.201.1", "5.22.202.1"
TELEGRAM_WEB, AUTHORITY = "149.154.167.99", "131.188.40.189"
OFFICE = "office.example"  # what the network at home adds to names that are not found, as by DHCP
SLOW_BITS = 240_000
SITES = {
    name: f"93.184.216.{number}"
    for number, name in enumerate(
        ("free", "forged", "sni", "hijacked", "redirected", "dropped", "slow", "intercepted"), 1
    )
}
ZONE = {f"{name}.example.net": address for name, address in SITES.items()}
ZONE |= {"dns.example.net": DOH, "web.telegram.org": TELEGRAM_WEB, "example.org": SITES["free"]}
ZONE |= {"domestic.example.net": DOMESTIC, "block.example.net": BLOCK_PAGE}
NEUTRAL_PAGE = b"<html><head><title>%s</title></head><body>" + b"The quick brown fox. " * 100 + b"</body></html>"
BLOCK_TEXT = b"<html><head><title>Access denied</title></head><body>By order of the authority.</body></html>"
NFT = """
table inet censor {
  set ours { type ipv4_addr; elements = { %(ours)s } }
  chain middlebox {
    type nat hook prerouting priority -100;
    iifname "home" ip daddr 8.8.8.8 udp dport 53 redirect to :5301
    iifname "home" ip daddr 1.1.1.1 udp dport 53 redirect to :5302
    iifname "home" ip daddr %(sni)s tcp dport 443 redirect to :8443
    iifname "home" ip daddr %(intercepted)s tcp dport 443 redirect to :8444
    iifname "home" ip daddr %(redirected)s tcp dport 80 redirect to :8080
  }
  chain counted {
    type filter hook prerouting priority -300;
    iifname "home" ip daddr @ours counter
    iifname "home" meta nfproto ipv4 counter
  }
  chain dropped { type filter hook prerouting priority -200; iifname "home" ip daddr %(dropped)s drop; }
  chain slowed { type filter hook forward priority 0; ip saddr %(slow)s meta priority set 0x00010020; }
  chain outage { type filter hook prerouting priority -190; }
}
"""


@dataclass(frozen=True)
class Authority:
    """Somebody who signs certificates."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key, _certificate(name, key, name, key, None))

    def context(self, folder: Path, *names: str) -> ssl.SSLContext:
        """A server's TLS with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.files(folder, *names))
        return context

    def files(self, folder: Path, *names: str) -> tuple[Path, Path]:
        """A chain and its key, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        made = _certificate(names[0], key, str(issuer), self.key, names)
        chain, secret = (folder / f"{id(self)}-{names[0]}.{end}" for end in ("pem", "key"))
        chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return chain, secret


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, names: Any
) -> x509.Certificate:
    subject, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, issuer))
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
    )
    if names is not None:
        made = made.add_extension(x509.SubjectAlternativeName([_alternative(one) for one in names]), critical=False)
    return made.sign(signer, hashes.SHA256())


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Place:
    """Servers in a network namespace: a thread that lives there, with a loop of its own."""

    def __init__(self, network: str, *starts: Callable[[], Awaitable[Any]]) -> None:
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._error: BaseException | None = None
        self._kept: list[Any] = []
        self._thread = threading.Thread(target=self._live, args=(network, starts), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)
        if self._error:
            raise self._error

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def _live(self, network: str, starts: tuple[Callable[[], Awaitable[Any]], ...]) -> None:
        async def begin() -> None:
            self._kept.extend([await start() for start in starts])

        try:
            enter(network)
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(begin())
        except BaseException as error:
            self._error = error
            return
        finally:
            self._ready.set()
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: Callable[[bytes, Callable[[bytes], None]], None]) -> None:
        self._answer = answer

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._answer(data, lambda reply: self._transport.sendto(reply, addr))


async def _udp(host: str, port: int, answer: Callable[[bytes, Callable[[bytes], None]], None]) -> Any:
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(lambda: _Datagrams(answer), local_addr=(host, port))


def _resolve(data: bytes, send: Callable[[bytes], None], lies: dict[str, str] | None = None) -> None:
    with suppress(dns.DnsError):
        name = nameserver.asked(data).name.lower()
        address = (lies or {}).get(name) or ZONE.get(name)
        send(nameserver.reply(data, (address,) if address else (), rcode=0 if address else dns.NXDOMAIN))


def _inject(lies: dict[str, str], data: bytes, send: Callable[[bytes], None]) -> None:
    """The injector: a forged reply at once, the true one a little later."""
    with suppress(dns.DnsError):
        asked = nameserver.asked(data)
        if lie := lies.get(asked.name.lower()):
            send(nameserver.reply(data, (lie,)))
            asyncio.get_running_loop().call_later(0.1, _resolve, data, send)
        else:
            _resolve(data, send)


def _quic(data: bytes, send: Callable[[bytes], None]) -> None:
    reply = quic.server_initial(
        data, b"server00", bytes.fromhex("0200000000") + b"\x06\0\x04\x02\0\0\0".ljust(20, b"\0")
    )
    if reply:
        send(reply)


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body_of: Callable[[bytes], bytes]) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(body_of(head))
        await writer.drain()
    writer.close()


def _site(head: bytes) -> bytes:
    host = next((line[6:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"host: ")), b"")
    page = NEUTRAL_PAGE % (b"Welcome to " + host)
    if host.startswith(b"slow"):
        page += b"x" * (128 * 1024)
    return _answer(b"200 OK", page)


def _answer(status: bytes, page: bytes, more: bytes = b"") -> bytes:
    size = str(len(page)).encode()
    return b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %s\r\n%s\r\n%s" % (status, size, more, page)


async def _doh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        replies: list[bytes] = []
        _resolve(await reader.readexactly(size), replies.append)
        writer.write(_answer(b"200 OK", replies[0]))
        await writer.drain()
    writer.close()


async def _dot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            replies: list[bytes] = []
            _resolve(query, replies.append)
            writer.write(len(replies[0]).to_bytes(2) + replies[0])
    writer.close()


async def _filter_names(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The filter: a banned name in the ClientHello is answered by a reset, every other connection goes through."""
    hello = await reader.read(4096)
    if tls.read_flight(hello).server_name == "sni.example.net":
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return
    on, out = await asyncio.open_connection(SITES["sni"], 443)
    out.write(hello)
    await asyncio.gather(_pipe(reader, out), _pipe(on, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@dataclass
class Country:
    """The three namespaces while they stand, and the command line at home."""

    folder: Path
    networks: dict[str, str]
    home: Path
    environment: dict[str, str]
    control: str = ""
    token_file: str = ""
    programs: list[subprocess.Popen[str]] = field(default_factory=list)

    def outlast(self, place: str, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line in a namespace, with that place's resolver."""
        resolver = self.folder / f"resolv-{place}"
        bind = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
        inside = ["nsenter", f"--net=/run/netns/{self.networks[place]}", "unshare", "--mount", "sh", "-c", bind, "sh"]
        outlast = Path(sys.executable).with_name("outlast")
        program = [str(outlast), "--home", str(self.home / place)]
        started = subprocess.Popen(
            [*inside, str(resolver), *program, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.programs.append(started)
        return started

    def probe(self, *arguments: str, control: bool = True) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Probe sites from home: what the command said, and the measurements that it wrote."""
        asked = [word for address in RESOLVERS for word in ("--resolver", address)]
        asked += ["--control", self.control, "--token-file", self.token_file] if control else []
        return self.measure(*arguments, *asked, "--doh", f"https://{DOH}/dns-query")

    def measure(self, *arguments: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Run the command from home as it is."""
        out = self.folder / f"out-{len(self.programs)}.jsonl"
        done = self.outlast("home", "--json", "watch", "probe", *arguments, "--yes-i-know", "--out", str(out))
        said, told = done.communicate(timeout=90)
        assert done.returncode == 0, told
        written = out.read_text().splitlines()
        return [json.loads(line) for line in said.splitlines()], [json.loads(line) for line in written]

    def counted(self) -> tuple[int, int]:
        """Packets from home to addresses that the probe may reach, and all packets from home."""
        listed = self._nft("-j", "list", "chain", "inet", "censor", "counted").stdout
        rules = [one["rule"]["expr"] for one in json.loads(listed)["nftables"] if "rule" in one]
        counters = [
            expression["counter"]["packets"] for rule in rules for expression in rule if "counter" in expression
        ]
        return counters[0], counters[1]

    def cut(self, *rules: str) -> None:
        """Put rules for what comes from home at the border; none lets all through again."""
        self._nft("flush", "chain", "inet", "censor", "outage")
        for rule in rules:
            self._nft("add", "rule", "inet", "censor", "outage", 'iifname "home"', *rule.split())

    def run(self, place: str, *command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program in a namespace."""
        inside = ["ip", "netns", "exec", self.networks[place], *command]
        return subprocess.run(inside, input=text, check=True, capture_output=True, text=True, timeout=20)

    def _nft(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("border", "nft", *arguments)


@contextmanager
def country(folder: Path) -> Iterator[Country]:
    """The country, censored as SITES say."""
    networks = {place: f"outlast{os.getpid()}{place}" for place in ("home", "border", "abroad")}
    stack = ExitStack()
    places: list[Place] = []
    nation: Country | None = None
    try:
        stack.enter_context(machines.networks(networks.values(), partial(_wire, networks)))
        true, false = Authority.make("Test authority"), Authority.make("Ministry")
        trusted = folder / "trusted.pem"
        trusted.write_bytes(true.certificate.public_bytes(serialization.Encoding.PEM))
        (folder / "resolv-home").write_text(f"nameserver {GATE}\nsearch {OFFICE}\noptions timeout:1 attempts:1\n")
        (folder / "resolv-abroad").write_text("nameserver 8.8.8.8\noptions timeout:1 attempts:1\n")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OUTLAST_")}
        environment["SSL_CERT_FILE"] = str(trusted)
        nation = Country(folder, networks, folder, environment)
        nation.run("border", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        ours = ", ".join({*ZONE.values(), *RESOLVERS, DOH, CONTROL, GATE})
        nation.run("border", "nft", "-f", "-", text=NFT % {"ours": ours, **SITES})
        for command in (
            "qdisc add dev home root handle 1: htb default 10",
            "class add dev home parent 1: classid 1:10 htb rate 1gbit",
            f"class add dev home parent 1: classid 1:20 htb rate {SLOW_BITS} burst 4k",
        ):
            nation.run("border", "tc", *command.split())
        places.append(Place(networks["abroad"], *_abroad(true, folder)))
        places.append(Place(networks["border"], *_border(true, false, folder)))
        chain, key = true.files(folder, CONTROL)
        # It runs in the sites' own namespace, whose addresses a control refuses by itself.
        listen = (
            "--allow-network",
            "93.184.216.0/24",
            "--listen",
            f"{CONTROL}:8443",
            "--certificate",
            str(chain),
            "--key",
            str(key),
        )
        helper = nation.outlast("abroad", "--json", "watch", "serve-control", *listen)
        assert helper.stdout is not None
        line = helper.stdout.readline()
        assert line, helper.communicate(timeout=20)
        told = json.loads(line)
        nation.control, nation.token_file = told["control"], told["token_file"]
        yield nation
    finally:
        for program in nation.programs if nation else ():
            if program.poll() is None:
                program.terminate()
            program.communicate(timeout=20)
        for place in places:
            place.end()
        stack.close()


def _wire(networks: dict[str, str]) -> None:
    home, border, abroad = networks.values()
    ip("link", "add", "cable", "netns", home, "type", "veth", "peer", "name", "home", "netns", border)
    ip("link", "add", "cable", "netns", abroad, "type", "veth", "peer", "name", "abroad", "netns", border)
    for network, device, address in (
        (home, "cable", f"{HOME}/24"),
        (border, "home", f"{GATE}/24"),
        (border, "abroad", f"{BORDER}/24"),
        (abroad, "cable", f"{ABROAD}/24"),
        *((border, "lo", f"{one}/32") for one in (BLOCK_PAGE, DOMESTIC)),
        *(
            (abroad, "lo", f"{one}/32")
            for one in (*SITES.values(), *RESOLVERS, DOH, *TELEGRAM_POINTS, TELEGRAM_WEB, AUTHORITY)
        ),
    ):
        ip("-n", network, "addr", "add", address, "dev", device)
        ip("-n", network, "link", "set", device, "up")
    for network in (home, border, abroad):
        ip("-n", network, "link", "set", "lo", "up")
    ip("-n", home, "route", "add", "default", "via", GATE)
    ip("-n", border, "route", "add", "default", "via", ABROAD)
    ip("-n", abroad, "route", "add", "default", "via", BORDER)


def _abroad(true: Authority, folder: Path) -> list[Callable[[], Awaitable[Any]]]:
    names = [f"{name}.example.net" for name in SITES]
    site = partial(_http, body_of=_site)
    starts: list[Callable[[], Awaitable[Any]]] = [
        partial(asyncio.start_server, site, "0.0.0.0", 80),
        *(partial(asyncio.start_server, site, one, 443, ssl=true.context(folder, *names)) for one in SITES.values()),
        partial(asyncio.start_server, _doh, DOH, 443, ssl=true.context(folder, DOH, "dns.example.net")),
        partial(asyncio.start_server, _dot, DOH, 853, ssl=true.context(folder, "dns.example.net")),
        *(partial(asyncio.start_server, site, one, 443) for one in TELEGRAM_POINTS),
        partial(asyncio.start_server, site, TELEGRAM_WEB, 443, ssl=true.context(folder, "web.telegram.org")),
        partial(asyncio.start_server, site, AUTHORITY, 9001, ssl=true.context(folder, "www.nobody.example")),
    ]
    starts += [partial(_udp, one, 53, _resolve) for one in RESOLVERS]
    return starts + [partial(_udp, one, 443, _quic) for one in SITES.values()]


def _border(true: Authority, false: Authority, folder: Path) -> list[Callable[[], Awaitable[Any]]]:
    lies = {"forged.example.net": DOMESTIC, "hijacked.example.net": BLOCK_PAGE, f"gone.example.net.{OFFICE}": DOMESTIC}
    # Like many a middlebox it names no length: one header more in common with the site would make the pages alike.
    blocked = partial(_http, body_of=lambda _: b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + BLOCK_TEXT)
    away = b"Location: http://block.example.net/\r\n"
    redirect = partial(_http, body_of=lambda _: _answer(b"302 Found", b"", away))
    site = partial(_http, body_of=_site)
    rogue = false.context(folder, "intercepted.example.net")
    own = true.context(folder, "domestic.example.net")
    return [
        partial(_udp, GATE, 53, partial(_resolve, lies=lies)),
        *(partial(_udp, "0.0.0.0", port, partial(_inject, lies)) for port in RESOLVERS.values()),
        partial(asyncio.start_server, blocked, BLOCK_PAGE, 80),
        partial(asyncio.start_server, site, DOMESTIC, 80),
        partial(asyncio.start_server, site, DOMESTIC, 443, ssl=own),
        partial(asyncio.start_server, _filter_names, "0.0.0.0", 8443),
        partial(asyncio.start_server, site, "0.0.0.0", 8444, ssl=rogue),
        partial(asyncio.start_server, redirect, "0.0.0.0", 8080),
    ]
