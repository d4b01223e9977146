"""The process of ``outlast share``: serves ``/get`` to the local network and nothing else, with or without a node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.address import show
from outlast.edges import pages
from outlast.edges.daemon import told_by_signals
from outlast.edges.doors import Door
from outlast.edges.gate import Access, Web, route
from outlast.edges.listening import Places, bind
from outlast.edges.spread import get
from outlast.edges.spread.counter import Counter
from outlast.edges.spread.shelf import Shelf
from outlast.edges.web import LOOPBACK, guarded, server_of
from outlast.kernel import Home
from outlast.ui.nearby import heard_at
from outlast.ui.page import Site, go


class Shared(msgspec.Struct, frozen=True):
    """What ``outlast share`` hands on, and where."""

    urls: list[str]
    version: str
    words: str
    signed: int  # by so many release keys
    official: bool
    systems: dict[str, list[str]]  # linux-x86_64 and so on -> versions of Python


async def serve(shelf: Shelf, host: str, port: int, announce: Callable[[dict[str, Any]], None]) -> None:
    """Hand ``shelf`` on at an address of this machine until a signal comes.

    ``announce`` is told what (as ``Shared``) once neighbours can reach it. Raises StorageError when the port is taken.
    """
    stop = asyncio.Event()
    listener = bind(host, port, Places.for_phones())
    port = listener.getsockname()[1]

    def names() -> list[str]:
        return [*heard_at(host), *LOOPBACK]

    web = Web(Home(Path()), None, Site({}))
    web.port, web.counter = port, Counter(shelf, always=True)
    server = server_of(guarded(_routes(), web, Door("lan", port, names)))
    urls = [f"http://{show((one, port))}/get" for one in heard_at(host)]
    release = msgspec.to_builtins(shelf.release)
    with told_by_signals(stop):
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        announce(msgspec.to_builtins(Shared(urls=urls, systems=shelf.systems, **release)))
        await stop.wait()
        server.should_exit = True
        await serving


def _routes() -> list[Route]:
    return [
        route("/", "GET", _to_get, Access.OPEN),
        route("/language", "POST", pages.choose_language, Access.OPEN),
        route("/static/{digest}/{name}", "GET", pages.static, Access.OPEN),
        route("/help", "GET", pages.help_index, Access.OPEN),
        route("/help/{topic}", "GET", pages.help_topic, Access.OPEN),
        *get.open_routes(),
    ]


async def _to_get(request: Request) -> Response:
    return go("/get")
