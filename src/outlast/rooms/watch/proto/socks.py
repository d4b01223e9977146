"""SOCKS 5 as a client without a password speaks it (RFC 1928): the proxy looks the name up, not this computer. Pure."""

from __future__ import annotations

from typing import Final

from outlast.errors import ProtocolError, UsageError

GREETING: Final = b"\x05\x01\x00"
GREETED_BYTES: Final = 2
HEAD_BYTES: Final = 5
"""So much of a reply tells how long it is."""
REFUSALS: Final = {
    1: "the proxy failed",
    2: "the proxy does not allow it",
    3: "the proxy finds no way into that network",
    4: "the proxy does not reach the host",
    5: "the host refuses the connection",
    6: "the way there took too long",
}
_NAME: Final = 3


class SocksError(ProtocolError):
    """A proxy that refuses, or speaks something else."""


def connect(host: str, port: int) -> bytes:
    """The request for a connection to a named host; raises UsageError for a name that does not fit in."""
    name = host.encode("ascii", "replace")
    if not 0 < len(name) < 256:
        raise UsageError(f"{host[:80]!r} is no name of a host")
    return bytes((5, 1, 0, _NAME, len(name))) + name + port.to_bytes(2)


def read_greeting(data: bytes) -> None:
    """Take the GREETED_BYTES of the first answer; raises SocksError unless no password is asked for."""
    if data[:1] != b"\x05":
        raise SocksError("the proxy speaks no SOCKS 5")
    if data != b"\x05\x00":
        raise SocksError("the proxy wants a password, which is not known how to give")


def rest_of_reply(head: bytes) -> int:
    """How many bytes follow the HEAD_BYTES of the reply to a request; raises SocksError when it refuses."""
    if len(head) != HEAD_BYTES or head[0] != 5:
        raise SocksError("the proxy speaks no SOCKS 5")
    if head[1] != 0:
        raise SocksError(REFUSALS.get(head[1], "the proxy refuses"))
    match head[3]:
        case 1:
            return 4 - 1 + 2
        case 4:
            return 16 - 1 + 2
        case 3:
            return head[4] + 2
        case _:
            raise SocksError("the proxy names an address of no known kind")
