"""Where a stream is to go: a host by name or address and a port, as SOCKS 5, Shadowsocks and the mux all write it."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from outlast.errors import ProtocolError, UsageError

NAME_MAX_BYTES: Final = 255
ADDRESS_MAX_BYTES: Final = 1 + 1 + NAME_MAX_BYTES + 2
_IPV4, _NAME, _IPV6 = 1, 3, 4
_SIZES: Final = {_IPV4: 1 + 4, _IPV6: 1 + 16}


class AddressError(ProtocolError):
    """What should be an address is none."""


class Target(NamedTuple):
    """A host, an IP address as text or a name in ASCII that nobody here looks up, and a port from 0 to 65535."""

    host: str
    port: int


def read(text: str) -> Target:
    """The target that a person wrote as ``HOST:PORT`` or ``[IPv6]:PORT``; raises UsageError."""
    host, colon, port = text.strip().rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not bare or (":" in bare and not bracketed) or not port.isascii() or not port.isdigit():
        raise UsageError(
            "%(text)r is no address: write HOST:PORT, such as 127.0.0.1:1080 or [::1]:1080", text=text[:80]
        )
    if len(port) > 5 or int(port) > 65535:
        raise UsageError("there is no port %(port)s: ports go up to 65535", port=port[:80])
    return Target(bare, int(port))


def show(at: tuple[str, int], usual_port: int | None = None) -> str:
    """The text that ``read`` reads; without the port where it is the usual one, as URLs have it (RFC 9110 §4.2.3)."""
    host, port = f"[{at[0]}]" if ":" in at[0] else at[0], at[1]
    return host if port == usual_port else f"{host}:{port}"


def parse(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is given as; None when it is a name."""
    if "%" in host:
        return None  # a zone of IPv6 means something on the machine that wrote it alone (RFC 4007 §11)
    return _parse(host) if host[-1:].isdigit() or ":" in host else None  # most names are known at once


def household(host: str) -> str:
    """Whose address this is, as text: of IPv6 everybody has 64 bits for themselves."""
    if ":" not in host:
        return host
    six = IPv6Address(host)
    return str(six.ipv4_mapped or int(six) >> 64)


@lru_cache(256)
def _parse(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def encode(target: Target) -> bytes:
    """The address in SOCKS 5's form (RFC 1928 §5): type, address, port; raises AddressError for what does not fit."""
    return _encode(target.host) + target.port.to_bytes(2, "big")


@lru_cache(256)
def _encode(host: str) -> bytes:
    address = parse(host)
    if address is None:
        if not _is_name(host):
            raise AddressError("%(host)r is no name of a host", host=host[:80])
        name = host.encode("ascii")
        return bytes((_NAME, len(name))) + name
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed


def decode(data: bytes | bytearray | memoryview, at: int = 0) -> tuple[Target, int] | None:
    """The address that begins at ``at`` and where it ends; None when more bytes are needed; raises AddressError."""
    if len(data) < at + 2:
        return None
    kind = data[at]
    size = 2 + data[at + 1] if kind == _NAME else _SIZES.get(kind)  # without the port
    if size is None:
        raise AddressError("addresses of type %(other)s are not known", other=kind)
    end = at + size + 2
    return (_decode(bytes(data[at:end])), end) if len(data) >= end else None


@lru_cache(256)
def _decode(whole: bytes) -> Target:
    if whole[0] == _NAME:
        host = _read_name(whole[2:-2])
    elif whole[0] == _IPV4:
        host = "{}.{}.{}.{}".format(*whole[1:5])
    else:
        host = str(IPv6Address(whole[1:-2]))
    return Target(host, int.from_bytes(whole[-2:], "big"))


def _read_name(raw: bytes) -> str:
    name = raw.decode("ascii", "replace")
    if not _is_name(name):
        raise AddressError("%(name)r is no name of a host", name=name[:80])
    return name


def _is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_MAX_BYTES and name.isascii() and name.isprintable() and " " not in name
