"""What stands before each route: who may use it, how much they may send, and that the form is our own.

``Web`` holds what all doors share: the node, the browsers that were let in, the tokens that let one in.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from enum import IntEnum
from hashlib import sha256
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outlast.edges.doors import (
    DAY_MS,
    MINUTE_MS,
    PROOF_MS,
    DoorKind,
    Invitations,
    Session,
    Sessions,
    Tries,
    Turns,
    host_of,
)
from outlast.edges.https.authority import Authority
from outlast.edges.residents import SESSION_ROW, KeptSession, keep
from outlast.edges.spread.counter import Counter
from outlast.errors import LockedError, NotFoundError, OutlastError, UsageError
from outlast.kernel import Home, Node, Person
from outlast.ui.page import FIELDS_MAX, Site

FORM_MAX_BYTES: Final = 160 * 1024
"""A form of text: the longest message fits, of 15 KiB characters of any alphabet, each of them up to nine bytes."""
TEXT_FORM: Final = "application/x-www-form-urlencoded"
DISK_KEPT_BYTES: Final = 256 << 20
"""What uploads leave free of the disk."""
BODY_STALL_S: Final = 60.0
"""So long nothing of a form may come; the connections of a door are few."""
CSRF_PREFIX_BYTES: Final = 1024
SAFE_METHODS: Final = ("GET", "HEAD")
LAN_SETTING: Final = "web/lan"

_FIRST_FIELD = re.compile(
    rb'(?:--[^\r\n]{1,200}\r\ncontent-disposition: form-data; name="csrf"\r\n\r\n([\w-]{43})\r\n'
    rb"|csrf=([\w-]{43})(?:&|$))",
    re.IGNORECASE,
)
_OF_ONE_PAGE = re.compile(rb"csrf=[\w-]{43}&once=[\w-]{8}(?:&|$)")
"""Such a form of text was shown once: no other has the same bytes."""


class Access(IntEnum):
    """Who may use a route."""

    OPEN = 0
    """Anybody who reaches the door."""
    SESSION = 1
    """Who was let in, also while the vault is locked."""
    PERSON = 2
    """Who was let in and whose vault is open; joined phones too."""
    HOST = 3
    """Who was let in at localhost, also while the vault is locked."""
    OWNER = 4
    """Who was let in at localhost and whose vault is open."""


class StrangerError(OutlastError):
    """Nobody let this visitor in yet."""

    status = 401


class ForbiddenError(OutlastError):
    """This door, page or form is not the one for it."""

    status = 403


class UnprovedError(ForbiddenError):
    """By this door only who has just given the passphrase may do this."""


class TooLargeError(UsageError):
    """More bytes than the form may have."""

    status = 413


class TooSlowError(OutlastError):
    """A form that does not come any further."""

    status = 408


class TooOftenError(OutlastError):
    """A secret was tried too often."""

    status = 429


class Lan(Protocol):
    """The switch of the door for phones."""

    async def __call__(self, on: bool) -> None:
        """Open or close the door; raises StorageError when its port is taken."""


class Web:
    """What the doors share: the node, the browsers that were let in, the tokens that let one in."""

    def __init__(self, home: Home, node: Node | None, site: Site) -> None:
        """Nobody is in yet; a launch token is made for the one who sees the terminal.

        Without a ``node`` the pages lead through the first run, which makes one in ``home``.
        """
        self.home = home
        self.site = site
        self._node = node
        self._starter = self._sole()
        self._made: asyncio.Event = asyncio.Event()
        self.launch = secrets.token_urlsafe(32)
        self.sessions = Sessions()
        self.counter = Counter()
        self.invitations = Invitations(lambda: secrets.token_urlsafe(32))
        self.tries = Tries(5, MINUTE_MS // 4)
        self.turns = Turns()
        self.lan = False
        self.lan_addresses: list[str] = []
        self.port = 0
        self.switch_lan: Lan | None = None
        self.authority: Authority | None = None
        self.https_port = 0
        self.match_https: Callable[[], Awaitable[None]] | None = None
        self._adopted: dict[str, Person] = {}

    @property
    def node(self) -> Node:
        """The node; raises NotFoundError while the first run has not made it."""
        if self._node is None:
            raise NotFoundError("nobody set this node up yet: do the first steps")
        return self._node

    @property
    def made(self) -> bool:
        """Whether there is a node."""
        return self._node is not None

    def take(self, node: Node) -> None:
        """From now on serve this node, which the first run made."""
        self._node = node
        self._starter = self._sole()
        self._made.set()

    def _sole(self) -> str:
        """The key of the one who lives here, or who alone needs no passphrase; empty where that is nobody."""
        here = self.home.people() if self.made else []
        bare = here if len(here) == 1 else [one for one in here if not self.home.needs_passphrase(one)]
        return bare[0] if len(bare) == 1 else ""

    async def wait_node(self) -> Node:
        """The node, as soon as there is one."""
        if self._node is None:
            await self._made.wait()
        return self.node

    def now_ms(self) -> int:
        """The node's clock, or the system's before there is a node."""
        return self._node.now_ms() if self._node else time.time_ns() // 1_000_000

    def person_of(self, session: Session | None) -> Person | None:
        """The person whose open vault a session may use."""
        if session is None or not self.made or self.node.locked:
            return None
        if not session.person and session.door == "localhost":
            # Whoever started the node is the one who lived here then, and does so still.
            return self.node.people.get(self._starter) if self._starter and self._starter == self._sole() else None
        return self.node.people.get(session.person)

    def is_in(self, session: Session) -> bool:
        """Whether a session still stands: a phone's may have been ended by a command, in the vault alone."""
        if session.ended(self.now_ms()):
            return False
        person = self.person_of(session)
        if session.door == "localhost" or session.waiting_code or person is None:
            return True
        return person.vault.meta(SESSION_ROW + session.digest.hex()) is not None

    def adopt(self) -> None:
        """Take in the phones that the vaults opened since the last visit remember."""
        for key, person in self._node.people.items() if self._node else ():
            if self._adopted.get(key) is person:
                continue
            self._adopted[key] = person
            for name, value in person.query("SELECT name, value FROM meta WHERE name LIKE 'session/%'"):
                kept = msgspec.msgpack.decode(bytes(value), type=KeptSession)
                digest = bytes.fromhex(str(name).removeprefix(SESSION_ROW))
                self.sessions.restore(Session(digest, kept.door, key, kept.label, kept.made_ms, kept.seen_ms, ""))

    async def keep(self, session: Session) -> None:
        """Remember a phone in its person's vault, so that it stays joined when the node starts anew."""
        assert session.door != "localhost"
        kept = KeptSession(session.label, session.made_ms, session.seen_ms, session.door)
        await self._put(session, msgspec.msgpack.encode(kept))

    def phones(self, person: Person) -> list[Session]:
        """The phones of a person that are in, oldest first."""
        joined = self.sessions.phones(person.key)
        return [phone for phone in joined if not phone.waiting_code and self.is_in(phone)]

    def find(self, secret: str, door: DoorKind) -> Session | None:
        """The session of a browser that comes by ``door`` with ``secret``, or None."""
        session = self.sessions.find(secret, door, self.now_ms())
        if session is not None and not self.is_in(session):
            self.sessions.close(session)
            return None
        return session

    async def end(self, session: Session) -> None:
        """End a session for good; its streams end too."""
        self.sessions.close(session)
        await self._put(session, None)

    def must_keep(self, session: Session) -> bool:
        """Whether the vault's record of when a phone was last seen is a day old."""
        person = self._node.people.get(session.person) if self._node else None
        if person is None or session.door == "localhost" or session.waiting_code:
            return False
        value = person.vault.meta(SESSION_ROW + session.digest.hex())
        return value is not None and session.seen_ms - msgspec.msgpack.decode(value, type=KeptSession).seen_ms > DAY_MS

    @property
    def https_url(self) -> str:
        """What phones open that installed this node's certificate, or nothing while that door is closed."""
        return f"https://{self.authority.name}:{self.https_port}" if self.authority and self.https_port else ""

    def lan_urls(self) -> list[str]:
        """What phones nearby open, while their door is open."""
        return [f"http://{host_of(address)}:{self.port}" for address in self.lan_addresses]

    async def _put(self, session: Session, value: bytes | None) -> None:
        person = self.node.people.get(session.person) if session.door != "localhost" and self.made else None
        if person is not None:
            await keep(person, SESSION_ROW + session.digest.hex(), value)

    def try_secret(self, what: str) -> None:
        """Count one try at a secret; raises TooOftenError when there were too many.

        ``what`` names the form and who uses it, a door or a person: none may use up the tries of others.
        """
        if self.tries.take(what, self.now_ms()):
            raise TooOftenError("too many tries: wait half a minute, then try again")


class Gate:
    """Stands before one route: who may use it, and how much they may send."""

    def __init__(self, app: ASGIApp, access: Access, max_bytes: int = FORM_MAX_BYTES) -> None:
        """Pass on to ``app`` what ``access`` allows, up to ``max_bytes`` of body."""
        self.app = app
        self.access = access
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raise what the error page tells, or pass the request on."""
        state = scope["state"]
        session: Session | None = state["session"]
        changes, headers, start = scope["method"] not in SAFE_METHODS, Headers(scope=scope), b""
        is_text = changes and headers.get("content-type", "").lower().startswith(TEXT_FORM)
        if changes:
            most = FORM_MAX_BYTES if is_text else room_for(self.max_bytes, state["node"])
            receive = limited(receive, most, headers)
        if is_text:  # read before anything is refused, so that the refusal can give back what was written
            start, receive = await beginning(receive, FORM_MAX_BYTES)
            state["typed"] = typed_in(start)
        if self.access in (Access.HOST, Access.OWNER) and state["door"] == "lan":
            raise ForbiddenError("This is done at the computer that runs the node, not over Wi-Fi.")
        if self.access > Access.OPEN and (session is None or session.waiting_code):
            raise StrangerError("Nobody let this browser in yet.")
        if self.access in (Access.PERSON, Access.OWNER) and state["person"] is None:
            raise LockedError("Locked. Give the passphrase at the computer that runs the node.")
        if self.access in (Access.HOST, Access.OWNER) and state["door"] == "https":
            web: Web = state["web"]
            if session is None or not 0 <= web.now_ms() - session.proved_ms < PROOF_MS:
                raise UnprovedError("Give your passphrase first.")
        if changes and session is not None:
            if not is_text:
                start, receive = await beginning(receive, CSRF_PREFIX_BYTES)
            check_token(start, session.csrf)
            if _OF_ONE_PAGE.match(start):
                form = sha256(scope["path"].encode() + b"?" + start).digest()
                await session.submitted.once(form, self.app, scope, receive, send)
                return
        await self.app(scope, receive, send)


def room_for(max_bytes: int, node: Node | None) -> int:
    """How large a body may be now: a file that waits on the disk must leave room for what people here write."""
    if node is None or max_bytes <= FORM_MAX_BYTES:
        return max_bytes
    return max(FORM_MAX_BYTES, min(max_bytes, node.space_left() - DISK_KEPT_BYTES))


def limited(receive: Receive, max_bytes: int, headers: Headers) -> Receive:
    """``receive`` that raises TooLargeError when the body is, or says that it is, larger than ``max_bytes``.

    It raises TooSlowError when the body stalls. What is received behind the body, a hang-up, takes its time.
    """
    length = headers.get("content-length", "0")
    taken = int(length) if re.fullmatch("[0-9]{1,18}", length) else max_bytes + 1
    if taken > max_bytes:
        raise TooLargeError("That is too large for this form, or for the disk.")
    taken, whole = 0, False

    async def receive_limited() -> Message:
        nonlocal taken, whole
        try:
            async with asyncio.timeout(None if whole else BODY_STALL_S):
                message = await receive()
        except TimeoutError:
            raise TooSlowError("What you sent did not arrive whole: send it again.") from None
        whole = not message.get("more_body", False)
        taken += len(message.get("body", b""))
        if taken > max_bytes:
            raise TooLargeError("That is too large for this form, or for the disk.")
        return message

    return receive_limited


async def beginning(receive: Receive, least_bytes: int) -> tuple[bytes, Receive]:
    """At least so much of a body, or all of it when it is shorter; and ``receive`` that begins with that again."""
    seen: list[Message] = []
    start = bytearray()
    while len(start) < least_bytes:
        message = await receive()
        seen.append(message)
        start += message.get("body", b"")
        if not message.get("more_body", False):
            break

    async def receive_again() -> Message:
        return seen.pop(0) if seen else await receive()

    return bytes(start), receive_again


def check_token(start: bytes, csrf: str) -> None:
    """Raise ForbiddenError when a body does not begin with the form token.

    The token is the first field of every form, so an upload is checked before it is read.
    """
    match = _FIRST_FIELD.match(start)
    given = (match[1] or match[2]).decode() if match else ""
    if not secrets.compare_digest(given, csrf):
        raise ForbiddenError("This form is too old or came from elsewhere; nothing was done. Open the page again.")


def typed_in(body: bytes) -> str:
    """What a person wrote in a form of text: its field ``text``, empty where there is none."""
    try:
        form = dict(parse_qsl(body.decode(errors="replace"), max_num_fields=FIELDS_MAX))
    except ValueError:  # no form of ours has so many; strangers send them to keep the node busy
        return ""
    return form.get("text", "").strip()


def route(
    path: str, method: str, handler: Callable[[Request], Any], access: Access, max_bytes: int = FORM_MAX_BYTES
) -> Route:
    """A route behind its Gate. ``method`` is GET or POST; a GET changes nothing."""
    return Route(path, Gate(request_response(handler), access, max_bytes), methods=[method], name=f"{method} {path}")


async def let_in(request: Request, answer: Response, person: str) -> None:
    """Let the browser of a request in as ``person`` (a vault's key; empty while none is open), under a new secret."""
    web: Web = request.state.web
    secret = secrets.token_urlsafe(32)
    session = web.sessions.open(secret, request.state.door, person, "", web.now_ms())
    if session.door == "https":
        session.proved_ms = session.made_ms
        await web.keep(session)
    set_session(request, answer, secret)


def set_session(request: Request, answer: Response, secret: str, max_age: int | None = None) -> None:
    """Give a browser the secret of its session; over https it is never sent in clear."""
    secure = request.state.door == "https"
    answer.set_cookie(
        request.state.door_cookie, secret, max_age=max_age, httponly=True, samesite="strict", path="/", secure=secure
    )
