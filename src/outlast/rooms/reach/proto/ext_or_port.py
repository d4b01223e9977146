"""The Extended ORPort (ext-orport-spec): how a transport tells tor who comes, before the stream itself begins.

Both sides prove that they can read the same cookie file, so that nothing else on the machine is taken for one of them.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Final, NamedTuple

from outlast.address import Target, show
from outlast.errors import ProtocolError
from outlast.rooms.reach.proto.pluggable import is_name

COOKIE_HEADER: Final = b"! Extended ORPort Auth Cookie !\n"
COOKIE_FILE_BYTES: Final = len(COOKIE_HEADER) + 32
NONCE_BYTES: Final = 32
_SAFE_COOKIE: Final = 1
_AUTH_TYPES_MAX: Final = 255
_SERVER_TEXT: Final = b"ExtORPort authentication server-to-client hash"
_CLIENT_TEXT: Final = b"ExtORPort authentication client-to-server hash"
_DONE, _USERADDR, _TRANSPORT = 0x0000, 0x0001, 0x0002
_OKAY, _DENY = 0x1000, 0x1001
_BODY_MAX_BYTES: Final = 1024
_COMMANDS_MAX: Final = 16
_REPLIES_MAX: Final = 16
"""Replies that are not known and passed over; tor sends none."""


class ExtOrPortError(ProtocolError):
    """What answers is not the tor that wrote the cookie, or it takes nobody now."""


class Introduction(NamedTuple):
    """Who comes, as tor counts them."""

    transport: str
    address: Target | None = None  # of the client; None: not told


def make_cookie(key: bytes) -> bytes:
    """The cookie file of a key of 32 B."""
    return COOKIE_HEADER + key


def read_cookie(data: bytes) -> bytes:
    """The key in tor's cookie file, 32 B; raises ExtOrPortError."""
    if len(data) != COOKIE_FILE_BYTES or not data.startswith(COOKIE_HEADER):
        raise ExtOrPortError("the cookie file of the Extended ORPort is none: is tor still starting?")
    return data[len(COOKIE_HEADER) :]


def _proof(text: bytes, cookie: bytes, nonces: bytes) -> bytes:
    return hmac.digest(cookie, text + nonces, sha256)


class Introducer:
    """The transport's side: give it what comes, send what it returns; the stream begins when it is ``done``.

    ``nonce`` is 32 random bytes, used for this connection only. Raises ExtOrPortError, after which the connection is
    of no use. What tor sends after its OKAY belongs to the stream and is left in ``rest``.
    """

    def __init__(self, cookie: bytes, introduction: Introduction, nonce: bytes) -> None:
        self._cookie = cookie
        self._introduction = introduction
        self._nonce = nonce
        self._step = self._auth_types
        self._replies = 0
        self._data = b""
        self.done = False

    @property
    def rest(self) -> bytes:
        """What came behind tor's OKAY; empty until ``done``."""
        return self._data if self.done else b""

    def take(self, data: bytes) -> bytes:
        """Take what came; returns what is to be sent."""
        self._data += data
        answer = b""
        while not self.done and (part := self._step()) is not None:
            answer += part
        return answer

    def _auth_types(self) -> bytes | None:
        end = self._data.find(0, 0, _AUTH_TYPES_MAX + 1)
        if end < 0:
            if len(self._data) > _AUTH_TYPES_MAX:
                raise ExtOrPortError("what listens there is no Extended ORPort")
            return None
        offered, self._data = self._data[:end], self._data[end + 1 :]
        if _SAFE_COOKIE not in offered:
            raise ExtOrPortError("tor offers no way to prove the cookie that is known here")
        self._step = self._server_proof
        return bytes((_SAFE_COOKIE,)) + self._nonce

    def _server_proof(self) -> bytes | None:
        if len(self._data) < 64:
            return None
        proof, theirs, self._data = self._data[:32], self._data[32:64], self._data[64:]
        nonces = self._nonce + theirs
        if not hmac.compare_digest(proof, _proof(_SERVER_TEXT, self._cookie, nonces)):
            raise ExtOrPortError("what listens there does not know the cookie")
        self._step = self._status
        return _proof(_CLIENT_TEXT, self._cookie, nonces)

    def _status(self) -> bytes | None:
        if not self._data:
            return None
        if self._data[0] != 1:
            raise ExtOrPortError("tor did not accept the cookie")
        self._data = self._data[1:]
        self._step = self._reply
        told = _command(_TRANSPORT, self._introduction.transport.encode())
        if self._introduction.address is not None:
            told = _command(_USERADDR, show(self._introduction.address).encode()) + told
        return told + _command(_DONE)

    def _reply(self) -> bytes | None:
        if len(self._data) < 4:
            return None
        command, size = int.from_bytes(self._data[:2], "big"), int.from_bytes(self._data[2:4], "big")
        if len(self._data) < 4 + size:
            return None
        self._data = self._data[4 + size :]
        self._replies += 1
        if command == _OKAY:
            self.done = True
        elif command == _DENY:
            raise ExtOrPortError("tor takes nobody from there now")
        elif self._replies > _REPLIES_MAX:
            raise ExtOrPortError("what listens there is no Extended ORPort")
        return b""


class Receiver:
    """The other side, as a parent that is not tor has it: give it what comes, and send what it returns.

    ``nonce`` is 32 random bytes, used for this connection only. Raises ExtOrPortError, after which the connection is to
    be closed. Nothing of the stream may come before the introduction is ``done``: the transport waits for the OKAY.
    """

    def __init__(self, cookie: bytes, nonce: bytes) -> None:
        self._cookie = cookie
        self._nonce = nonce
        self._step = self._auth_type
        self._data = b""
        self._nonces = b""
        self._told = 0
        self.transport = ""
        """As the other side names it."""
        self.done = False

    def first(self) -> bytes:
        """What is sent first."""
        return bytes((_SAFE_COOKIE, 0))

    def take(self, data: bytes) -> bytes:
        """Take what came; returns what is to be sent."""
        self._data += data
        answer = b""
        while not self.done and (part := self._step()) is not None:
            answer += part
        if self.done and self._data:
            raise ExtOrPortError("a stream begins before it was taken")
        return answer

    def _auth_type(self) -> bytes | None:
        if not self._data:
            return None
        if self._data[0] != _SAFE_COOKIE:
            raise ExtOrPortError("a way to prove the cookie that was not offered")
        self._data = self._data[1:]
        self._step = self._client_nonce
        return b""

    def _client_nonce(self) -> bytes | None:
        if len(self._data) < NONCE_BYTES:
            return None
        self._nonces, self._data = self._data[:NONCE_BYTES] + self._nonce, self._data[NONCE_BYTES:]
        self._step = self._client_proof
        return _proof(_SERVER_TEXT, self._cookie, self._nonces) + self._nonce

    def _client_proof(self) -> bytes | None:
        if len(self._data) < 32:
            return None
        proof, self._data = self._data[:32], self._data[32:]
        if not hmac.compare_digest(proof, _proof(_CLIENT_TEXT, self._cookie, self._nonces)):
            raise ExtOrPortError("whoever connects does not know the cookie")
        self._step = self._commands
        return b"\1"

    def _commands(self) -> bytes | None:
        if len(self._data) < 4:
            return None
        command, size = int.from_bytes(self._data[:2], "big"), int.from_bytes(self._data[2:4], "big")
        if size > _BODY_MAX_BYTES:
            raise ExtOrPortError("a command is too long")
        if len(self._data) < 4 + size:
            return None
        body, self._data = self._data[4 : 4 + size], self._data[4 + size :]
        self._told += 1
        if command == _DONE:
            self.done = True
            return _command(_OKAY)
        if self._told > _COMMANDS_MAX:
            raise ExtOrPortError("an introduction does not end")
        if command == _TRANSPORT:
            self.transport = body.decode("ascii", "replace")
            if not is_name(self.transport):
                raise ExtOrPortError("a transport has no name that the contract allows")
        return b""


def _command(command: int, body: bytes = b"") -> bytes:
    return command.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body
