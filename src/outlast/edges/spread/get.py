"""The page ``/get``: what this node hands on, for whoever is near enough to reach it, by any browser.

It is served by ``outlast share``, and at the door for phones while its owner has turned it on. Nobody needs to be let
in for it, and nothing but the program is there.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from outlast.edges.gate import Access, TooOftenError, Web, route
from outlast.edges.spread.counter import Counter
from outlast.errors import NotFoundError, OutlastError
from outlast.ui.languages import marked
from outlast.ui.page import attachment, fields, go, render, translator

if TYPE_CHECKING:
    from outlast.edges.spread.shelf import Shelf

SETTING: Final = "web/get"
SERVED_MAX: Final = 16
"""So many files are handed out at the same time: the pages of those who live here come first."""
SERVE_S: Final = 900.0
"""So long one file may take: who reads no further gives their place to others."""
NOTICES: Final = {
    "shared": marked("Neighbours can get Outlast here now."),
    "unshared": marked("Neighbours no longer get Outlast here."),
}


def routes() -> list[Route]:
    """The owner's switch, and what it opens."""
    return [*open_routes(), route("/share", "GET", share, Access.OWNER), route("/share", "POST", switch, Access.OWNER)]


def open_routes() -> list[Route]:
    """The page and the files, for everybody."""
    return [
        route("/get", "GET", get, Access.OPEN),
        route("/get/{path:path}", "GET", get_file, Access.OPEN),
    ]


class Handout(FileResponse):
    """A file, while which is sent it counts as served."""

    def __init__(self, counter: Counter, path: Path, headers: dict[str, str]) -> None:
        """Send the file at ``path`` as a download."""
        super().__init__(path, media_type="application/octet-stream", headers=headers)
        self._counter = counter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; raises TimeoutError when nobody reads it."""
        self._counter.served += 1
        try:
            async with asyncio.timeout(SERVE_S):
                await super().__call__(scope, receive, send)
        finally:
            self._counter.served -= 1


async def get(request: Request) -> Response:
    """What to do on which computer, and what is here for it."""
    from outlast.edges.spread.wheels import SYSTEMS

    shelf = await _shelf(request)
    systems = [(SYSTEMS[key].name, pythons) for key, pythons in shelf.systems.items()]
    _ = translator(request)
    strip = "off", _("This page comes from a computer near you, not from the internet.")
    own: dict[str, Any] = {"tabs": [], "live": False, "person": None, "strip": strip}
    url = f"http://{request.headers['host']}/get"
    if request.state.door == "https" and (plain := request.state.web.lan_urls()):
        url = f"{plain[0]}/get"  # the installer knows no certificate of this node's
    return render(request, "get.html", url=url, release=shelf.release, systems=systems, **own)


async def get_file(request: Request) -> Response:
    """A file of the set: the program or a library as a wheel, and what they are checked by."""
    path: str = request.path_params["path"]
    shelf = await _shelf(request)
    counter: Counter = request.state.web.counter
    if path not in shelf.files:
        raise NotFoundError("There is no such page here.")
    content = shelf.files[path]
    headers = attachment(path.rpartition("/")[2])
    if isinstance(content, bytes):
        return Response(content, media_type="application/octet-stream", headers=headers)
    if counter.served >= SERVED_MAX:
        raise TooOftenError("too many get Outlast here at this moment: try again in some minutes")
    return Handout(counter, content, headers)


async def share(request: Request) -> Response:
    """The switch, at the computer that runs the node."""
    web: Web = request.state.web
    on = _is_open(web)
    release, wrong = None, None
    if on:
        try:
            release = (await web.counter.shelf()).release
        except OutlastError as error:
            wrong = error
    urls = [f"{url}/get" for url in web.lan_urls()] if on and not wrong else []
    return render(request, "share.html", on=on, lan=web.lan, urls=urls, release=release, wrong=wrong)


async def switch(request: Request) -> Response:
    """Hand the program on, or no longer; remembered in the store."""
    web: Web = request.state.web
    on = (await fields(request)).get("on") == "on"
    store = web.node.open_store
    await web.node.write(lambda: store.set_meta(SETTING, b"1" if on else b"0"))
    return go("/share", "shared" if on else "unshared")


async def _shelf(request: Request) -> Shelf:
    web: Web = request.state.web
    if not _is_open(web):
        raise NotFoundError("There is no such page here.")
    return await web.counter.shelf()


def _is_open(web: Web) -> bool:
    store = web.node.store if web.made else None
    return web.counter.always or (store is not None and store.meta(SETTING) == b"1")
