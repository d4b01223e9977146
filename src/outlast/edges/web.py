"""HTTP: the doors to the pages, what guards them, and the servers that listen.

Each request passes ``Guard`` (is this Host ours, does the request come from our own page, whose session is it), then the
``Gate`` of its route (may this visitor do this here, does the form carry the session's token, is the body small enough),
then the page. A route without a Gate cannot be mounted.
"""

import asyncio
import re
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import IntEnum
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, request_response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outlast.edges.doors import DAY_MS, MINUTE_MS, Door, DoorKind, Invitations, Session, Sessions, Tries
from outlast.errors import LockedError, OutlastError, StorageError, UsageError
from outlast.ui.page import LANGUAGE_COOKIE, Site, render

if TYPE_CHECKING:
    from outlast.kernel import Node, Person

FORM_MAX_BYTES: Final = 64 * 1024
CSRF_PREFIX_BYTES: Final = 1024
SAFE_METHODS: Final = ("GET", "HEAD")
LOOPBACK: Final = ("127.0.0.1", "::1")
SESSION_ROW: Final = "session/"

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    # Not no-referrer: under it browsers send "Origin: null" with our own forms (Fetch, "append a request Origin
    # header"), which must stay a sign of a foreign page. Either way nothing is told to other sites.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}

_FIRST_FIELD = re.compile(
    rb'(?:--[^\r\n]{1,200}\r\ncontent-disposition: form-data; name="csrf"\r\n\r\n([\w-]{43})\r\n'
    rb"|csrf=([\w-]{43})(?:&|$))",
    re.IGNORECASE,
)


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


class TooLargeError(UsageError):
    """More bytes than the form may have."""

    status = 413


class TooOftenError(OutlastError):
    """A secret was tried too often."""

    status = 429


class KeptSession(msgspec.Struct, array_like=True, frozen=True):
    """A phone's session in its person's vault, under the hash of its secret."""

    label: str
    made_ms: int
    seen_ms: int


class Lan(Protocol):
    """The switch of the door for phones."""

    async def __call__(self, on: bool) -> None:
        """Open or close the door; raises StorageError when its port is taken."""


class Web:
    """What the doors share: the node, the browsers that were let in, the tokens that let one in."""

    def __init__(self, node: "Node", site: Site | None = None) -> None:
        """Nobody is in yet; a launch token is made for the one who sees the terminal."""
        self.node = node
        self.site = site or Site(node.rooms)
        self.launch = secrets.token_urlsafe(32)
        self.sessions = Sessions()
        self.invitations = Invitations(lambda: secrets.token_urlsafe(32))
        self.tries = Tries(5, MINUTE_MS // 4)
        self.lan_addresses: list[str] = []
        self.port = 0
        self.switch_lan: Lan | None = None
        self._adopted: dict[str, Person] = {}

    def now_ms(self) -> int:
        """The node's clock."""
        return self.node.now_ms()

    def person_of(self, session: Session | None) -> "Person | None":
        """The person whose open vault a session may use."""
        people = self.node.people
        if session is None or self.node.locked:
            return None
        if not session.person and session.door == "localhost" and len(people) == 1:
            return next(iter(people.values()))
        return people.get(session.person)

    def adopt(self) -> None:
        """Take in the phones that the vaults opened since the last visit remember."""
        for key, person in self.node.people.items():
            if self._adopted.get(key) is person:
                continue
            self._adopted[key] = person
            for name, value in person.query("SELECT name, value FROM meta WHERE name LIKE 'session/%'"):
                kept = msgspec.msgpack.decode(bytes(value), type=KeptSession)
                digest = bytes.fromhex(str(name).removeprefix(SESSION_ROW))
                self.sessions.restore(Session(digest, "lan", key, kept.label, kept.made_ms, kept.seen_ms, ""))

    async def keep(self, session: Session) -> None:
        """Remember a phone in its person's vault, so that it stays joined when the node starts anew."""
        row = msgspec.msgpack.encode(KeptSession(session.label, session.made_ms, session.seen_ms))
        await self._vault(
            session, "INSERT OR REPLACE INTO meta(name, value) VALUES (?, ?)", (SESSION_ROW + session.digest.hex(), row)
        )

    async def end(self, session: Session) -> None:
        """End a session for good; its streams end too."""
        self.sessions.close(session)
        await self._vault(session, "DELETE FROM meta WHERE name = ?", (SESSION_ROW + session.digest.hex(),))

    async def _vault(self, session: Session, sql: str, args: tuple[str | bytes, ...]) -> None:
        person = self.node.people.get(session.person)
        if session.door == "lan" and person is not None:
            await self.node.write(lambda: person.vault.write(lambda tx: tx.execute(sql, args)))
            self.node.touch()

    def try_secret(self, what: str) -> None:
        """Count one try at a secret; raises TooOftenError when there were too many."""
        if wait_s := self.tries.take(what, self.now_ms()):
            raise TooOftenError(f"too many tries: wait {wait_s} seconds, then try again")


class Guard:
    """Stands before every page of one door."""

    def __init__(self, app: ASGIApp, web: Web, door: Door) -> None:
        """Let through to ``app`` what ``door`` may let through."""
        self.app = app
        self.web = web
        self.door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on with ``scope["state"]`` filled."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        send = with_headers(send)
        if refusal := self.refuse(scope, headers):
            await refusal(scope, receive, send)
            return
        cookies = read_cookies(headers.get("cookie", ""))
        web = self.web
        web.adopt()
        session = web.sessions.find(cookies.get(self.door.cookie, ""), self.door.kind, web.now_ms())
        if session is not None and session.door == "lan" and await self.must_keep(session):
            await web.keep(session)
        language = web.site.catalogues.choose(cookies.get(LANGUAGE_COOKIE, ""), headers.get("accept-language", ""))
        scope["state"] = {
            "web": web,
            "site": web.site,
            "node": web.node,
            "door": self.door.kind,
            "door_cookie": self.door.cookie,
            "session": session,
            "person": None if session is None or session.waiting_code else web.person_of(session),
            "csrf": session.csrf if session else "",
            "translation": web.site.catalogues.translation(language),
        }
        await self.app(scope, receive, send)

    def refuse(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that was not meant for us, or that another site made."""
        hosts = headers.getlist("host")
        names = self.door.names()
        if len(hosts) != 1 or hosts[0].lower() not in names:
            return PlainTextResponse(f"This is not the address of this page. Open http://{names[0]}/\n", 421)
        if scope["method"] in SAFE_METHODS:
            return None
        origins = headers.getlist("origin")
        own = f"http://{hosts[0].lower()}"
        if any(origin.lower() != own for origin in origins) or headers.get("sec-fetch-site", "same-origin") not in (
            "same-origin",
            "none",
        ):
            return PlainTextResponse("Another site sent this form; nothing was done.\n", 403)
        return None

    async def must_keep(self, session: Session) -> bool:
        """Whether the vault's record of when a phone was last seen is a day old."""
        person = self.web.node.people.get(session.person)
        if person is None or session.waiting_code:
            return False
        value = person.vault.meta(SESSION_ROW + session.digest.hex())
        return value is not None and session.seen_ms - msgspec.msgpack.decode(value, type=KeptSession).seen_ms > DAY_MS


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
        _ = state["translation"]
        session: Session | None = state["session"]
        if self.access in (Access.HOST, Access.OWNER) and state["door"] != "localhost":
            raise ForbiddenError(_("This is done at the computer that runs the node, not over Wi-Fi."))
        if self.access > Access.OPEN and (session is None or session.waiting_code):
            raise StrangerError(_("Nobody let this browser in yet."))
        if self.access in (Access.PERSON, Access.OWNER) and state["person"] is None:
            raise LockedError(_("Locked. Give the passphrase at the computer that runs the node."))
        if scope["method"] not in SAFE_METHODS:
            receive = limited(receive, self.max_bytes, Headers(scope=scope), _)
            if session is not None:
                receive = await checked(receive, session.csrf, _)
        await self.app(scope, receive, send)


def limited(receive: Receive, max_bytes: int, headers: Headers, _: Callable[[str], str]) -> Receive:
    """``receive`` that raises TooLargeError when the body is, or says that it is, larger than ``max_bytes``."""
    length = headers.get("content-length", "0")
    taken = int(length) if length.isdigit() else max_bytes + 1
    if taken > max_bytes:
        raise TooLargeError(_("That is too large for this form."))
    taken = 0

    async def receive_limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > max_bytes:
            raise TooLargeError(_("That is too large for this form."))
        return message

    return receive_limited


async def checked(receive: Receive, csrf: str, _: Callable[[str], str]) -> Receive:
    """``receive`` once the body was seen to begin with the form token; raises ForbiddenError when it does not.

    The token is the first field of every form, so an upload is checked before it is read.
    """
    seen: list[Message] = []
    start = b""
    while len(start) < CSRF_PREFIX_BYTES:
        message = await receive()
        seen.append(message)
        start += message.get("body", b"")
        if not message.get("more_body", False):
            break
    match = _FIRST_FIELD.match(start)
    given = (match[1] or match[2]).decode() if match else ""
    if not secrets.compare_digest(given, csrf):
        raise ForbiddenError(_("This form is too old or came from elsewhere; nothing was done. Open the page again."))

    async def receive_again() -> Message:
        return seen.pop(0) if seen else await receive()

    return receive_again


def with_headers(send: Send) -> Send:
    """``send`` that adds the headers which every answer has, unless the page set its own."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers


def read_cookies(header: str) -> dict[str, str]:
    """The cookies of a request; none when the header is malformed."""
    jar: SimpleCookie = SimpleCookie()
    with suppress(CookieError):
        jar.load(header)
    return {name: morsel.value for name, morsel in jar.items()}


def route(
    path: str, method: str, handler: Callable[[Request], Any], access: Access, max_bytes: int = FORM_MAX_BYTES
) -> Route:
    """A route behind its Gate. ``method`` is GET or POST; a GET changes nothing."""
    return Route(path, Gate(request_response(handler), access, max_bytes), methods=[method], name=f"{method} {path}")


def room_routes(site: Site) -> list[BaseRoute]:
    """The routes of the rooms: for people whose vault is open, under the room's own name only."""
    found: list[BaseRoute] = []
    for name, room in site.rooms.items():
        if not room.web:
            continue
        module, _, attribute = room.web.partition(":")
        for one in getattr(import_module(module), attribute)():
            if not isinstance(one, Route) or not one.path.startswith(f"/{name}/"):
                raise UsageError(f"the room {name} has a page outside of /{name}/")
            found.append(Route(one.path, Gate(one.app, Access.PERSON), methods=list(one.methods or ()), name=one.name))
    return found


def build_app(web: Web, door: Door) -> ASGIApp:
    """All pages of the node as an ASGI app for one door."""
    from outlast.edges.pages import routes

    app = Starlette(
        routes=[*routes(), *room_routes(web.site)],
        exception_handlers={OutlastError: tell, HTTPException: tell, 500: tell},
    )
    return Guard(app, web, door)


async def tell(request: Request, error: Exception) -> Response:
    """The page that says in one line what went wrong and what to do."""
    from outlast.edges.pages import doorway

    if isinstance(error, StrangerError | LockedError) and request.state.person is None:
        return await doorway(request, status=error.status)
    _ = request.state.translation
    if isinstance(error, HTTPException):
        status = error.status_code
        line = _("There is no such page here.") if status == 404 else _("This page cannot be used like that.")
    elif isinstance(error, OutlastError):
        status, line = error.status, _(str(error))
    else:
        status, line = 500, _("Something went wrong inside Outlast; nothing was lost. `outlast doctor` says more.")
    return render(request, "error.html", status=status, line=line[:1].upper() + line[1:])


def local_addresses() -> list[str]:
    """The addresses by which neighbours on the same private network reach this machine, IPv4 first."""
    import ifaddr

    found = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    private = [one for one in found if (at := ip_address(one)).is_private and not at.is_loopback]
    return sorted(
        (one for one in private if not (":" in one and ip_address(one).is_link_local)), key=lambda a: ":" in a
    )


class _Server(uvicorn.Server):
    """A server that leaves the process's signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Any:
        """Capture none."""
        yield


class Serving:
    """The listeners: one for localhost, and one for each local address while the door for phones is open."""

    def __init__(self, web: Web, addresses: Callable[[], list[str]] = local_addresses) -> None:
        """Nothing listens yet."""
        self.web = web
        self._addresses = addresses
        self._servers: dict[str, tuple[_Server, asyncio.Task[None]]] = {}
        self._follow: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """What to open in the browser on this machine."""
        return f"http://localhost:{self.web.port}"

    @property
    def launch_url(self) -> str:
        """The same with the token that lets its bearer in: for the eyes of who started the node."""
        return f"{self.url}/?t={self.web.launch}"

    @property
    def lan_urls(self) -> list[str]:
        """What phones nearby open, while their door is open."""
        return [f"http://{host_of(address)}:{self.web.port}" for address in self.web.lan_addresses]

    async def open_localhost(self, port: int) -> None:
        """Listen on loopback; port 0 picks one. Raises StorageError when the port is taken."""
        first = bind("127.0.0.1", port)
        self.web.port = first.getsockname()[1]
        listeners = [first]
        with suppress(OSError, StorageError):
            listeners.append(bind("::1", self.web.port))
        await self._start("localhost", listeners)

    async def switch_lan(self, on: bool) -> None:
        """Open or close the door for phones; it follows the machine's addresses while it is open."""
        if self._follow is not None:
            self._follow.cancel()
            with suppress(asyncio.CancelledError):
                await self._follow
            self._follow = None
        await self._match(self._addresses() if on else [])
        if on:
            self._follow = asyncio.create_task(self._follow_addresses())

    async def _follow_addresses(self) -> None:
        while True:
            await asyncio.sleep(3)
            with suppress(StorageError):
                await self._match(self._addresses())

    async def _match(self, wanted: Sequence[str]) -> None:
        for address in [a for a in self._servers if a != "localhost" and a not in wanted]:
            await self._stop(address)
        self.web.lan_addresses = [a for a in wanted if a in self._servers]
        for address in wanted:
            if address not in self._servers:
                await self._start(address, [bind(address, self.web.port)])
                self.web.lan_addresses = [a for a in wanted if a in self._servers]
        self.web.node.touch()

    async def _start(self, name: str, listeners: list[socket.socket]) -> None:
        kind: DoorKind = "localhost" if name == "localhost" else "lan"
        door = Door(kind, self.web.port, lambda: LOOPBACK if kind == "localhost" else [name])
        config = uvicorn.Config(
            build_app(self.web, door),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=256,
            h11_max_incomplete_event_size=32 * 1024,
            timeout_graceful_shutdown=3,
        )
        server = _Server(config)
        self._servers[name] = server, asyncio.create_task(server.serve(sockets=listeners))
        while not server.started and not self._servers[name][1].done():
            await asyncio.sleep(0.005)

    async def _stop(self, name: str) -> None:
        server, task = self._servers.pop(name)
        server.should_exit = True
        await task

    async def close(self) -> None:
        """Stop listening: streams end, answers under way are finished."""
        if self._follow is not None:
            self._follow.cancel()
        self.web.sessions.close_streams()
        for name in list(self._servers):
            await self._stop(name)


def host_of(address: str) -> str:
    """An address as it stands in a URL (RFC 3986 §3.2.2)."""
    return f"[{address}]" if ":" in address else address


def bind(address: str, port: int) -> socket.socket:
    """A TCP socket bound to an address of this machine; raises StorageError when the port is taken or not allowed."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        # Two sockets can be bound to one port; only one can listen.
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise StorageError(
            f"cannot listen on {host_of(address)}:{port}: {error.strerror}; choose another port with --port"
        ) from None
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def serving(
    node: "Node", port: int, *, lan: bool, addresses: Callable[[], list[str]] = local_addresses
) -> AsyncIterator[Serving]:
    """Serve the pages on localhost, and to phones when ``lan``; raises StorageError when the port is taken."""
    web = Web(node)
    serving = Serving(web, addresses)
    web.switch_lan = serving.switch_lan
    try:
        await serving.open_localhost(port)
        if lan:
            await serving.switch_lan(True)
        yield serving
    finally:
        await serving.close()
