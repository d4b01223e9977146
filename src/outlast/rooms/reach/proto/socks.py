"""SOCKS 5 (RFC 1928) with credentials (RFC 1929), SOCKS 4 and 4a: both sides, as machines that are fed bytes. Pure.

Names are passed on as they came: nothing here looks one up. A server's machine keeps at most HELD_MAX_BYTES while it
waits for the rest of a request.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from outlast.errors import ProtocolError
from outlast.rooms.reach.proto import address
from outlast.rooms.reach.proto.address import AddressError, Target
from outlast.rooms.reach.proto.request import Command, Credentials, Ended, Request, isolation_of

HELD_MAX_BYTES: Final = 1024
NO_METHOD: Final = 0xFF
_NONE, _PASSWORD = 0, 2
_COMMAND_UNKNOWN, _ADDRESS_UNKNOWN = 7, 8
NOWHERE: Final = Target("0.0.0.0", 0)
_GRANTED: Final = b"\x05\x00\x00\x01" + bytes(6)


class SocksError(ProtocolError):
    """A proxy that refuses, or speaks something else; ``code`` is SOCKS 5's reason (RFC 1928 §6)."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


class Socks5:
    """A server of SOCKS 5: reads the methods, the credentials when there are any, and the request."""

    __slots__ = ("_credentials", "_held", "_isolation", "_step")

    def __init__(self, credentials: Credentials | None = None) -> None:
        """Without ``credentials`` anybody is let in, and the ones given only keep streams apart."""
        self._credentials = credentials
        self._held = b""
        self._isolation = b""
        self._step = self._methods

    def receive(self, data: bytes) -> tuple[bytes, Request | Ended | None]:
        """Take bytes; see ``Reader``."""
        self._held += data
        say = b""
        while True:
            more, outcome = self._step()
            if outcome is not None or not more:
                return say + more, outcome
            say += more

    def granted(self) -> bytes:
        """The way is open; where from is not told."""
        return _GRANTED

    def refused(self, code: int) -> bytes:
        """There is no way, and why."""
        return reply(code)

    def _methods(self) -> tuple[bytes, Request | Ended | None]:
        held = self._held
        if held[:1] not in (b"", b"\x05"):
            return b"", Ended("no SOCKS 5")
        if len(held) < 2 or len(held) < (end := 2 + held[1]):
            return b"", None
        offered = held[2:end]
        self._held = held[end:]
        if _PASSWORD in offered:
            self._step = self._password
            return b"\x05\x02", None
        if _NONE in offered and self._credentials is None:
            self._step = self._request
            return b"\x05\x00", None
        return bytes((5, NO_METHOD)), Ended("no credentials")

    def _password(self) -> tuple[bytes, Request | Ended | None]:
        held = self._held
        if held[:1] not in (b"", b"\x01"):
            return b"\x01\x01", Ended("no credentials that are understood")
        if len(held) < 2 or len(held) < (middle := 2 + held[1]) + 1 or len(held) < (end := middle + 1 + held[middle]):
            return b"", None
        user, password = held[2:middle], held[middle + 1 : end]
        if self._credentials is not None and not self._credentials.match(user, password):
            return b"\x01\x01", Ended("wrong credentials")
        self._held = held[end:]
        self._isolation = isolation_of(user, password)
        self._step = self._request
        return b"\x01\x00", None

    def _request(self) -> tuple[bytes, Request | Ended | None]:
        held = self._held
        if held[:1] not in (b"", b"\x05"):
            return reply(1), Ended("no request")
        if len(held) < 4:
            return b"", None
        try:
            found = address.decode(held, 3)
        except AddressError:
            return reply(_ADDRESS_UNKNOWN), Ended("no address")
        if found is None:
            return b"", None
        target, end = found
        if held[1] not in (1, 3):
            return reply(_COMMAND_UNKNOWN), Ended("a command that is not served")
        return b"", Request(Command(held[1]), target, self._isolation, held[end:])


class Socks4:
    """A server of SOCKS 4 and of 4a, which has names. It knows no passwords, so it serves only where none is needed."""

    __slots__ = ("_credentials", "_held")

    def __init__(self, credentials: Credentials | None = None) -> None:
        """With ``credentials`` nobody is let in."""
        self._credentials = credentials
        self._held = b""

    def receive(self, data: bytes) -> tuple[bytes, Request | Ended | None]:
        """Take bytes; see ``Reader``."""
        self._held = held = self._held + data
        if held[:1] not in (b"", b"\x04"):
            return b"", Ended("no SOCKS 4")
        if self._credentials is not None:
            return self.refused(2), Ended("no credentials")
        user_end = held.find(b"\0", 8)
        named = held[4:7] == b"\0\0\0" and held[7:8] not in (b"", b"\0")
        end = held.find(b"\0", user_end + 1) if named and user_end >= 0 else user_end
        if len(held) < 9 or end < 0:
            return (self.refused(1), Ended("too long a request")) if len(held) > HELD_MAX_BYTES else (b"", None)
        port = int.from_bytes(held[2:4], "big")
        if named:
            raw = held[user_end + 1 : end]
            try:
                target, _ = _named(raw, port)
            except AddressError:
                return self.refused(1), Ended("no address")
        else:
            target = Target(".".join(map(str, held[4:8])), port)
        if held[1] != 1 or end > HELD_MAX_BYTES:
            return self.refused(1), Ended("a command that is not served")
        return b"", Request(Command.CONNECT, target, isolation_of(held[8:user_end], b""), held[end + 1 :])

    def granted(self) -> bytes:
        """The way is open."""
        return b"\0\x5a" + bytes(6)

    def refused(self, code: int) -> bytes:
        """There is no way; SOCKS 4 has one code for all reasons."""
        return b"\0\x5b" + bytes(6)


def reply(code: int, bound: Target = NOWHERE) -> bytes:
    """A server's reply (RFC 1928 §6): 0 is success; ``bound`` is where datagrams are to be sent."""
    return bytes((5, code, 0)) + address.encode(bound)


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
        self, target: Target, credentials: Credentials | None = None, command: Command = Command.CONNECT
    ) -> None:
        """Ask for a target; raises AddressError for what does not fit into a request. ``bound`` is the proxy's word."""
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
        if held[1] == _NONE:
            self._step = self._reply
            return self._request, None
        if held[1] == _PASSWORD and self._credentials is not None:
            user, password = self._credentials
            self._step = self._admission
            return bytes((1, len(user))) + user + bytes((len(password),)) + password, None
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
            raise SocksError("the proxy refuses", held[1])
        if len(held) < 4:
            return b"", None
        try:
            found = address.decode(held, 3) if held[3] != 3 or held[4:5] != b"\0" else _unnamed(held)
        except AddressError as error:
            raise SocksError(str(error)) from None
        if found is None:
            return b"", None
        self.bound = found[0]
        return b"", Reached(found[0], held[found[1] :])


def _named(raw: bytes, port: int) -> tuple[Target, int]:
    if len(raw) > address.NAME_MAX_BYTES:
        raise AddressError("too long a name")
    found = address.decode(bytes((3, len(raw))) + raw + port.to_bytes(2, "big"))
    assert found is not None
    return found


def _unnamed(held: bytes) -> tuple[Target, int] | None:
    # Some servers give an empty name as what they are bound to; nothing depends on it.
    return (NOWHERE, 7) if len(held) >= 7 else None
