"""What censors do, each as rules for the border and, where bytes are looked at, a judge of first segments.

The rules stand in the border's chains ``lies`` (nat, prerouting) and ``blocks`` (filter, forward).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from outlast import tls
from tests.rooms.reach.nfqueue import Segment, Verdict

Judge = Callable[[Segment], Verdict]
DNS_PORT, HTTP_PORT, TLS_PORT = 5353, 8080, 8443  # where the border's own servers lie in wait
Depth = Literal["segment", "stream", "records"]


@dataclass(frozen=True)
class Censor:
    """What stands at the border while it is switched on."""

    name: str
    blocks: tuple[str, ...] = ()
    lies: tuple[str, ...] = ()
    judge: Judge | None = None
    names: Mapping[str, str] = field(default_factory=dict)  # what the resolver at the border says of these; "": nothing


def drop_address(*addresses: str) -> Censor:
    """Packets to these addresses disappear."""
    return Censor("address", blocks=(f"ip daddr {{ {', '.join(addresses)} }} drop",))


def reset_names(*names: str, depth: Depth = "segment") -> Censor:
    """A ClientHello that asks for such a name is answered by a reset.

    The filter looks at each segment by itself, or puts the stream together, or the records in it as well.
    """
    streams: dict[tuple[bytes, bytes, bytes], dict[int, bytes]] = {}

    def judge(segment: Segment) -> Verdict:
        data = segment.payload
        if depth != "segment":
            parts = streams.setdefault(segment.flow, {})
            parts[segment.sequence] = data
            data = b"".join(parts[at] for at in sorted(parts))
        flight = tls.read_handshake(_records(data)) if depth == "records" else tls.read_flight(data)
        return Verdict.RESET if flight.server_name in names else Verdict.PASS

    return Censor("sni", judge=judge)


def _records(data: bytes) -> bytes:
    body = b""
    while len(data) >= 5 and data[0] == tls.HANDSHAKE:
        size = int.from_bytes(data[3:5])
        body += data[5 : 5 + size]
        data = data[5 + size :]
    return body


def forge_names(**names: str) -> Censor:
    """Each question for an address is answered at once, at the border, and for some names with a lie."""
    lies = {f"{name}.example.net": address for name, address in names.items()}
    return Censor("dns", lies=(f"udp dport 53 redirect to :{DNS_PORT}",), names=lies)


def drop_encrypted() -> Censor:
    """A connection whose first segment looks like nothing but chance goes no further."""
    seen: set[tuple[bytes, bytes, bytes]] = set()

    def judge(segment: Segment) -> Verdict:
        first = segment.flow not in seen
        seen.add(segment.flow)
        return Verdict.DROP if first and looks_fully_encrypted(segment.payload) else Verdict.PASS

    return Censor("encrypted", judge=judge)


def looks_fully_encrypted(first: bytes) -> bool:
    """China's rule of 2021 to 2023: "How the Great Firewall of China Detects and Blocks Fully Encrypted Traffic",
    USENIX Security 2023, Algorithm 1.
    """
    printable = [0x20 <= one <= 0x7E for one in first]
    ones = sum(one.bit_count() for one in first) / len(first)
    run = longest = 0
    for one in printable:
        run = run + 1 if one else 0
        longest = max(longest, run)
    return not (
        ones <= 3.4
        or ones >= 4.6
        or (len(first) >= 6 and all(printable[:6]))
        or sum(printable) > len(first) / 2
        or longest > 20
        or (first[0] in (0x16, 0x17) and first[1:2] == b"\x03" and first[2:3] <= b"\x09")
        or first.startswith((b"GET ", b"PUT ", b"POST ", b"HEAD "))
    )


def curtain(size_bytes: int = 16_000) -> Censor:
    """A TCP connection stands still, both ways, once so many bytes of packets have come in on it (Russia, 2025)."""
    return Censor("curtain", blocks=(f"meta l4proto tcp ct reply bytes > {size_bytes} drop",))


def cap(count: int = 3) -> Censor:
    """No more than so many connections at a time from one address to another one."""
    return Censor(
        "cap",
        blocks=(f"ct state new add @pairs {{ ip saddr . ip daddr ct count over {count} }} reject with tcp reset",),
    )


def throttle(bytes_s: int, *addresses: str) -> Censor:
    """So many bytes a second may come from these addresses, together."""
    return Censor(
        "throttling",
        blocks=(
            f"ip saddr {{ {', '.join(addresses)} }} limit rate over {bytes_s} bytes/second burst {bytes_s} bytes drop",
        ),
    )


def redirect_http() -> Censor:
    """Whatever is asked for by plain HTTP is answered with the way to the ministry's page (Belarus, 2020)."""
    return Censor("http", lies=(f"tcp dport 80 redirect to :{HTTP_PORT}",))


def portal() -> Censor:
    """Nobody gets to any site before they have seen this network's page, which speaks plain HTTP at TLS's port too."""
    return Censor("portal", lies=(f"tcp dport {{ 80, 443 }} redirect to :{HTTP_PORT}",))


def forge_certificates() -> Censor:
    """TLS ends at the border, under certificates of the ministry's; behind it another one goes on (Belarus, 2020)."""
    return Censor("forged", lies=(f"tcp dport 443 redirect to :{TLS_PORT}",))


def cut() -> Censor:
    """Nothing passes."""
    return Censor("cut", blocks=("drop",))
