"""SOCKS 5 (RFC 1928) with credentials (RFC 1929), SOCKS 4 and 4a, as a server: machines that are fed bytes. Pure.

Names are passed on as they came: nothing here looks one up. A machine keeps at most HELD_MAX_BYTES while it waits for
the rest of a request. The client's side is ``outlast.socks``.
"""

from __future__ import annotations

from typing import Final

from outlast import address
from outlast.address import AddressError, Target
from outlast.rooms.reach.proto.request import Credentials, Ended, Request, isolation_of
from outlast.socks import NO_METHOD, NO_PASSWORD, NOWHERE, PASSWORD, Command

HELD_MAX_BYTES: Final = 1024
_COMMAND_UNKNOWN, _ADDRESS_UNKNOWN = 7, 8
_GRANTED: Final = b"\x05\x00\x00\x01" + bytes(6)


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
            say += more
            if outcome is not None or not more or not self._held:
                return say, outcome

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
        if PASSWORD in offered:
            self._step = self._password
            return b"\x05\x02", None
        if NO_PASSWORD in offered and self._credentials is None:
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
            return b"\x01\x01", Ended("wrong credentials", guessed=True)
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


def _named(raw: bytes, port: int) -> tuple[Target, int]:
    if len(raw) > address.NAME_MAX_BYTES:
        raise AddressError("too long a name")
    found = address.decode(bytes((3, len(raw))) + raw + port.to_bytes(2, "big"))
    assert found is not None
    return found
