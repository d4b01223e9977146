"""SOCKS 5 (RFC 1928) with credentials (RFC 1929) as a client speaks it, and its datagrams. Pure.

The proxy looks names up, not this computer.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from outlast import address
from outlast.address import AddressError, Target
from outlast.errors import ProtocolError, Sentence

NO_PASSWORD, PASSWORD, NO_METHOD = 0, 2, 0xFF
NOWHERE: Final = Target("0.0.0.0", 0)
REFUSALS: Final = {
    1: Sentence("the proxy failed"),
    2: Sentence("the proxy does not allow it"),
    3: Sentence("the proxy finds no way into that network"),
    4: Sentence("the proxy does not reach the host"),
    5: Sentence("the host refuses the connection"),
    6: Sentence("the way there took too long"),
}
_REFUSAL: Final = Sentence("the proxy refuses")


class Command(Enum):
    """What is asked for."""

    CONNECT = 1
    ASSOCIATE = 3


class SocksError(ProtocolError):
    """A proxy that refuses, or speaks something else; ``code`` is SOCKS 5's reason (RFC 1928 §6)."""

    def __init__(self, line: str | Sentence, code: int = 1) -> None:
        super().__init__(line)
        self.code = code


def wrap_datagram(target: Target, data: bytes) -> bytes:
    """A datagram with its header (RFC 1928 §7): to whom it goes, or from whom it comes."""
    return b"\0\0\0" + address.encode(target) + data


def unwrap_datagram(datagram: bytes) -> tuple[Target, bytes] | None:
    """Where a datagram goes, or comes from, and what it holds; None for fragments and for what is none."""
    if datagram[:3] != b"\0\0\0":
        return None
    try:
        found = address.decode(datagram, 3)
    except AddressError:
        return None
    return None if found is None else (found[0], datagram[found[1] :])


class Reached(NamedTuple):
    """A proxy said that the way is open; ``early`` already came from the target."""

    bound: Target
    early: bytes


class Asking:
    """A client of SOCKS 5: greets, gives its credentials when it has any, and asks."""

    __slots__ = ("_credentials", "_held", "_request", "_step", "bound")

    def __init__(
        self, target: Target, credentials: tuple[bytes, bytes] | None = None, command: Command = Command.CONNECT
    ) -> None:
        """Ask for a target, as (user, password) or as anybody. ``bound`` is the proxy's word.

        Raises AddressError for what does not fit into a request.
        """
        if credentials is not None and max(map(len, credentials)) > 255:
            raise AddressError("these credentials are too long for SOCKS 5")
        self.bound = NOWHERE
        self._request = bytes((5, command.value, 0)) + address.encode(target)
        self._credentials = credentials
        self._held = b""
        self._step = self._method

    def first(self) -> bytes:
        """What is sent first."""
        return b"\x05\x01\x00" if self._credentials is None else b"\x05\x02\x02\x00"

    def receive(self, data: bytes) -> tuple[bytes, Reached | None]:
        """Take bytes; what is to be sent, and at last that it is reached. Raises SocksError."""
        self._held += data
        say = b""
        while True:
            step = self._step
            more, reached = step()
            say += more
            if reached is not None or step == self._step:
                return say, reached

    def _method(self) -> tuple[bytes, Reached | None]:
        held = self._held
        if held[:1] not in (b"", b"\x05"):
            raise SocksError("the proxy speaks no SOCKS 5")
        if len(held) < 2:
            return b"", None
        self._held = held[2:]
        if held[1] == NO_PASSWORD:
            self._step = self._reply
            return self._request, None
        if held[1] == PASSWORD and self._credentials is not None:
            user, password = self._credentials
            self._step = self._admission
            return bytes((1, len(user))) + user + bytes((len(password),)) + password, None
        if self._credentials is None:
            raise SocksError("the proxy wants a password, which is not known how to give", 2)
        raise SocksError("the proxy wants other credentials", 2)

    def _admission(self) -> tuple[bytes, Reached | None]:
        if len(self._held) < 2:
            return b"", None
        if self._held[1] != 0:
            raise SocksError("the proxy does not accept the credentials", 2)
        self._held = self._held[2:]
        self._step = self._reply
        return self._request, None

    def _reply(self) -> tuple[bytes, Reached | None]:
        held = self._held
        if held[:1] not in (b"", b"\x05"):
            raise SocksError("the proxy speaks no SOCKS 5")
        if len(held) > 1 and held[1] != 0:
            raise SocksError(REFUSALS.get(held[1], _REFUSAL), held[1])
        if len(held) < 4:
            return b"", None
        try:
            found = address.decode(held, 3) if held[3] != 3 or held[4:5] != b"\0" else _unnamed(held)
        except AddressError as error:
            raise SocksError(error.line) from None
        if found is None:
            return b"", None
        self.bound = found[0]
        return b"", Reached(found[0], held[found[1] :])


def _unnamed(held: bytes) -> tuple[Target, int] | None:
    # Some servers give an empty name as what they are bound to; nothing depends on it.
    return (NOWHERE, 7) if len(held) >= 7 else None
