"""HTTP: the doors to the pages, what guards them, and the servers that listen.

Each request passes ``Guard`` (is this Host ours, does the request come from our own page, whose session is it), then
the ``Gate`` of its route (may this visitor do this here, does the form carry the session's token, is the body small
enough), then the page. A route without a Gate cannot be mounted.
"""

import asyncio
import logging
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Final, assert_never

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request, cookie_parser
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outlast.edges import pages
from outlast.edges.doors import Door, DoorKind
from outlast.edges.gate import (
    FORM_MAX_BYTES,
    LAN_SETTING,
    SAFE_METHODS,
    Access,
    Gate,
    StrangerError,
    UnprovedError,
    Web,
)
from outlast.edges.https import pages as prove
from outlast.edges.https.authority import Leaf, now_utc
from outlast.edges.https.naming import Naming
from outlast.edges.https.trusting import PORT_SETTING, found, is_on
from outlast.edges.listening import FILES, Places, bind
from outlast.errors import LockedError, OutlastError, StorageError, UsageError
from outlast.kernel import Home, Node, Room, find_rooms
from outlast.ui.nearby import local_addresses
from outlast.ui.page import AT_THE_COMPUTER, LANGUAGE_COOKIE, TAKES_BYTES, Site, error_line, render

HEADERS_MAX_BYTES: Final = 16 * 1024
LOOPBACK: Final = ("127.0.0.1", "::1")

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; media-src 'self'; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
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
        send = with_headers(send, HEADERS)
        if refusal := self.refuse(scope, headers):
            await refusal(scope, receive, send)
            return
        cookies = cookie_parser(headers.get("cookie", ""))
        web = self.web
        web.adopt()
        session = web.find(cookies.get(self.door.cookie, ""), self.door.kind)
        if session is not None and scope["method"] not in SAFE_METHODS and web.must_keep(session):
            await web.keep(session)
        # An open page goes on in its own language.
        chosen = headers.get("x-fragment", "") or cookies.get(LANGUAGE_COOKIE, "")
        language = web.site.catalogues.choose(chosen, headers.get("accept-language", ""))
        scope["state"] = {
            "web": web,
            "site": web.site,
            "node": web.node if web.made else None,
            "door": self.door.kind,
            "door_cookie": self.door.cookie,
            "session": session,
            "person": None if session is None or session.waiting_code else web.person_of(session),
            "csrf": session.csrf if session else "",
            "once": secrets.token_urlsafe(6),
            "translation": web.site.catalogues.translation(language),
            "typed": "",
            "unsent": "",
        }
        if "x-fragment" in headers and scope["method"] == "GET":
            send = when_it_begins(send, web.turns.took)
        await self.app(scope, receive, send)

    def refuse(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that was not meant for us, or that another site made."""
        if sum(len(name) + len(value) for name, value in headers.raw) > HEADERS_MAX_BYTES:
            return PlainTextResponse("Your browser sent too much ahead of its request; delete its cookies.\n", 431)
        hosts = headers.getlist("host")
        names = self.door.names()
        if len(hosts) != 1 or hosts[0].lower() not in names:
            return PlainTextResponse(
                f"This is not the address of this page. Open {self.door.scheme}://{names[0]}/\n", 421
            )
        if scope["method"] in SAFE_METHODS:
            return None
        origins = headers.getlist("origin")
        own = f"{self.door.scheme}://{hosts[0].lower()}"
        if any(origin.lower() != own for origin in origins) or headers.get("sec-fetch-site", "same-origin") not in (
            "same-origin",
            "none",
        ):
            return PlainTextResponse("Another site sent this form; nothing was done.\n", 403)
        return None


def with_headers(send: Send, common: Mapping[str, str]) -> Send:
    """``send`` that adds the headers which every answer has, unless the page set its own."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in common.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers


def when_it_begins(send: Send, tell: Callable[[float], None]) -> Send:
    """``send`` that tells how many seconds the answer took to make: not to be read, which is up to who asked."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    async def send_and_tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            tell(loop.time() - began_s)
        await send(message)

    return send_and_tell


def room_routes(site: Site) -> list[Route]:
    """The routes of the rooms: for people whose vault is open, under the room's own name only."""
    found: list[Route] = []
    for name, room in site.rooms.items():
        if not room.web:
            continue
        module, _, attribute = room.web.partition(":")
        for one in getattr(import_module(module), attribute)():
            if not one.path.startswith(f"/{name}/"):
                raise UsageError("the room %(name)s has a page outside of /%(name)s/", name=name)
            access = Access.OWNER if getattr(one.endpoint, AT_THE_COMPUTER, False) else Access.PERSON
            gate = Gate(one.app, access, getattr(one.endpoint, TAKES_BYTES, FORM_MAX_BYTES))
            found.append(Route(one.path, gate, methods=list(one.methods or ()), name=one.name))
    return found


def build_app(web: Web, door: Door) -> ASGIApp:
    """All pages of the node as an ASGI app for one door."""
    return guarded([*pages.routes(), *room_routes(web.site)], web, door)


def guarded(routes: Sequence[Route], web: Web, door: Door) -> ASGIApp:
    """An ASGI app of these routes, whose mistakes are told on a page."""
    app = Starlette(
        routes=routes, exception_handlers=dict.fromkeys((OutlastError, HTTPException, ClientDisconnect, 500), tell)
    )
    return Guard(app, web, door)


async def tell(request: Request, error: Exception) -> Response:
    """The page that says in one line what went wrong and what to do, and gives back what was written."""
    request.state.unsent = request.state.typed
    if isinstance(error, UnprovedError):
        back = request.url.path if request.method in SAFE_METHODS else "/"
        return prove.render_prove(request, back, status=error.status)
    if isinstance(error, StrangerError | LockedError) and request.state.person is None:
        return await pages.doorway(request, status=error.status)
    _ = request.state.translation
    if isinstance(error, HTTPException):
        status = error.status_code
        line = _("There is no such page here.") if status == 404 else _("This page cannot be used like that.")
    elif isinstance(error, OutlastError):
        status, line = error.status, error_line(request, error)
    elif isinstance(error, ClientDisconnect):  # no fault of ours, and nobody is there to read it
        status, line = 400, _("What you sent did not arrive whole: send it again.")
    else:
        status, line = 500, _("Something went wrong inside Outlast; nothing was lost. `outlast doctor` says more.")
    return render(request, "error.html", status=status, line=line)


class Server(uvicorn.Server):
    """A server that leaves the process's signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def server_of(app: ASGIApp, context: ssl.SSLContext | None = None) -> Server:
    """A server for what anybody in the local network can reach, encrypted when there is a ``context``."""
    # What strangers send goes into no log, and scrolls nothing away in the terminal.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=FILES // 2,  # of those who ask for something, where connections are not counted: on Windows
        h11_max_incomplete_event_size=32 * 1024,
        timeout_graceful_shutdown=3,
        ssl_context_factory=(lambda _config, _default: context) if context else None,
    )
    return Server(config)


class Serving:
    """The listeners: one for localhost, and one for each local address while the door for phones is open."""

    def __init__(self, web: Web, addresses: Callable[[], list[str]] = local_addresses) -> None:
        """Nothing listens yet."""
        self.web = web
        self.for_host, self.for_phones = Places.for_host(), Places.for_phones()
        web.switch_lan = self.switch_lan
        web.match_https = self.match_https
        self._addresses = addresses
        self._servers: dict[tuple[DoorKind, str], tuple[Server, asyncio.Task[None]]] = {}
        self._follow: asyncio.Task[None] | None = None
        self._context: ssl.SSLContext | None = None
        self._leaf: Leaf | None = None
        self._naming = Naming()
        self._watch: asyncio.Task[None] | None = None
        self._switching = asyncio.Lock()

    @property
    def port(self) -> int:
        """The port of every door."""
        return self.web.port

    async def node(self) -> Node:
        """The node, as soon as the first run has made it."""
        return await self.web.wait_node()

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
        return self.web.lan_urls()

    async def open(self, port: int, lan: bool | None) -> None:
        """Listen on loopback, and for phones; raises StorageError when the port is taken."""
        first = bind("127.0.0.1", port, self.for_host)
        self.web.port = first.getsockname()[1]
        listeners = [first]
        with suppress(OSError, StorageError):
            listeners.append(bind("::1", self.web.port, self.for_host))
        await self._start("localhost", "", listeners)
        self._follow = asyncio.create_task(self._follow_addresses())
        if lan:
            await self.switch_lan(True)
        self._watch = asyncio.create_task(self._watch_node(lan))

    async def _watch_node(self, lan: bool | None) -> None:
        """End streams when the node is locked, and open the door for phones as the unlocked store says."""
        node = await self.web.wait_node()
        revision = -1
        while True:
            revision = await node.wait(revision)
            self.web.site.pages.clear()  # what is old is asked for no more, and of who is locked nothing stays
            if node.store is None:
                self.web.sessions.close_streams()
                continue
            if lan is None:
                lan = node.store.meta(LAN_SETTING) == b"1"
                with suppress(StorageError):
                    await self.switch_lan(lan)
            with suppress(StorageError):
                await self.match_https()

    async def switch_lan(self, on: bool) -> None:
        """Open or close the door for phones; it follows the machine's addresses while it is open."""
        async with self._switching:
            self.web.lan = on
            await self._match_lan()

    async def _follow_addresses(self) -> None:
        while True:
            await asyncio.sleep(3)
            with suppress(StorageError):
                async with self._switching:
                    await self._match_lan()
            with suppress(StorageError):
                await self.match_https()

    async def _match_lan(self) -> None:
        wanted = self._addresses() if self.web.lan else []
        await self._match("lan", wanted, self.web.port)
        if self.web.lan_addresses != (now := [a for a in wanted if ("lan", a) in self._servers]):
            self.web.lan_addresses = now
            if self.web.made:
                self.web.node.touch()

    async def match_https(self) -> None:
        """Open or close the encrypted door as the store says, at the addresses and by the certificate of now."""
        async with self._switching:
            web = self.web
            one = await asyncio.to_thread(found, web.node) if web.made and is_on(web.node) else None
            if one != web.authority:  # closed, or made anew: nothing of the old one is served on
                await self._match("https", [], 0)
                await self._naming.stop()
                web.authority, web.https_port, self._context = one, 0, None
            if one is None:
                return
            now = now_utc(web.now_ms())
            if self._context is None:
                self._context = one.context(now)
            elif self._leaf != one.leaf(now):
                self._context.load_cert_chain(one.leaf(now).file)
            self._leaf = one.leaf(now)
            addresses = self._addresses()
            if not web.https_port and addresses:
                web.https_port = await self._https_port(addresses[0])
            await self._match("https", addresses, web.https_port)
            await self._naming.say(one.name, web.https_port, addresses)

    async def _https_port(self, address: str) -> int:
        """The port that the encrypted door had, else one near the others', else any: phones keep the address."""
        store = self.web.node.open_store
        for port in (int(store.meta(PORT_SETTING) or 0), self.web.port + 2, 0):
            with suppress(StorageError), bind(address, port, self.for_phones) as free:
                chosen: int = free.getsockname()[1]
                await self.web.node.write(partial(store.set_meta, PORT_SETTING, b"%d" % chosen))
                return chosen
        raise StorageError("no port is free at %(address)s", address=address)

    async def _match(self, kind: DoorKind, wanted: Sequence[str], port: int) -> None:
        for one in [one for one in self._servers if one[0] == kind and one[1] not in wanted]:
            await self._stop(one)
        for address in wanted:
            if (kind, address) not in self._servers:
                await self._start(kind, address, [bind(address, port, self.for_phones)])

    async def _start(self, kind: DoorKind, address: str, listeners: list[socket.socket]) -> None:
        match kind:
            case "localhost":
                door = Door(kind, self.web.port, lambda: LOOPBACK)
            case "lan":
                door = Door(kind, self.web.port, lambda: [address])
            case "https":
                names = [self.web.authority.name] if self.web.authority else []
                door = Door(kind, self.web.https_port, lambda: names)
            case _:
                assert_never(kind)
        server = server_of(build_app(self.web, door), self._context if kind == "https" else None)
        self._servers[kind, address] = server, asyncio.create_task(server.serve(sockets=listeners))
        while not server.started and not self._servers[kind, address][1].done():
            await asyncio.sleep(0.005)

    async def _stop(self, name: tuple[DoorKind, str]) -> None:
        server, task = self._servers.pop(name)
        server.should_exit = True
        await task

    async def close(self) -> None:
        """Stop listening: streams end, answers under way are finished."""
        for task in (self._follow, self._watch):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self.web.sessions.close_streams()
        await self._naming.stop()
        for name in list(self._servers):
            await self._stop(name)


@asynccontextmanager
async def serving(
    home: Home,
    node: Node | None,
    port: int,
    *,
    lan: bool | None = None,
    rooms: Sequence[Room] | None = None,
    addresses: Callable[[], list[str]] = local_addresses,
) -> AsyncIterator[Serving]:
    """Serve the pages on localhost, and to phones when ``lan``, or when it is None and the page says so.

    Port 0 picks one (``Serving.port``). Without a ``node`` the first run is served; ``Serving.node()`` waits for the
    one that it makes, which the caller closes. Raises StorageError when the port is taken.
    """
    found = node.rooms.values() if node else find_rooms() if rooms is None else rooms
    site = Site({room.name: room for room in found}, notices=pages.NOTICES)
    serving = Serving(Web(home, node, site), addresses)
    try:
        await serving.open(port, lan)
        yield serving
    finally:
        await serving.close()
