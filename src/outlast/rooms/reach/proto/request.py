"""What a program asks of the gate, whichever protocol it asked by; and the gate's answer in that protocol."""

from __future__ import annotations

import hmac
from typing import Final, NamedTuple, Protocol

from outlast.address import Target
from outlast.errors import UsageError
from outlast.socks import Command

CREDENTIAL_MAX_BYTES: Final = 255


class Request(NamedTuple):
    """A program's wish: a stream to ``target``, or a way for datagrams.

    ``early`` is what came behind the request and belongs to the stream.
    """

    command: Command
    target: Target
    isolation: bytes
    early: bytes


class Ended(NamedTuple):
    """The conversation is over: send what is to be said, and close. ``why`` names no target.

    ``guessed`` is true when it ended because credentials were given, and were wrong.
    """

    why: str
    guessed: bool = False


class Credentials(NamedTuple):
    """Who may use a gate."""

    user: bytes
    password: bytes

    def match(self, user: bytes, password: bytes) -> bool:
        """Whether these are the ones; takes as long for wrong ones as for right ones."""
        return hmac.compare_digest(user, self.user) & hmac.compare_digest(password, self.password)


def read_credentials(user: str, password: str) -> Credentials | None:
    """Who may use a gate, None for anybody: no name and no password. Raises UsageError for what no protocol can say.

    SOCKS 5 counts both in one byte (RFC 1929 §2), and HTTP has a colon behind the name (RFC 7617 §2).
    """
    if bool(user) != bool(password):
        raise UsageError("a gate's name and password go together")
    found = Credentials(user.encode(), password.encode())
    if max(map(len, found)) > CREDENTIAL_MAX_BYTES or ":" in user:
        raise UsageError("a gate's name and password have at most 255 bytes each, and the name has no colon")
    return found if user else None


class Reader(Protocol):
    """Reads one program's request: a machine that is fed what comes, in pieces of any size."""

    def receive(self, data: bytes) -> tuple[bytes, Request | Ended | None]:
        """Take bytes; what is to be sent, and what came of it: None while more is needed. After that call no more."""
        ...

    def granted(self) -> bytes:
        """What is said when the way is open."""
        ...

    def refused(self, code: int) -> bytes:
        """What is said when there is none; ``code`` is SOCKS 5's (RFC 1928 §6)."""
        ...


def isolation_of(user: bytes, password: bytes) -> bytes:
    """The key under which streams with these credentials are kept apart from others."""
    return bytes((len(user) & 255,)) + user + password
