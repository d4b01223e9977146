"""A node served over real sockets in a thread of its own, and browsers made of httpx."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from outlast.edges.web import Serving, serving
from outlast.kernel import Home, Node, Person, Room

T = TypeVar("T")

LAN = "127.0.0.2"
"""Loopback is a /8: this address stands for the one in the local network."""


@dataclass
class Served:
    """A running node with its doors. ``lan`` are the addresses that this machine has; tests may change them."""

    loop: asyncio.AbstractEventLoop
    serving: Serving
    home: Home
    lan: list[str] = field(default_factory=lambda: [LAN])

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, done in the node's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def call(self, act: Callable[[], T]) -> T:
        """The result of a plain function, called in the node's loop."""

        async def work() -> T:
            return act()

        return self.run(work())

    @property
    def url(self) -> str:
        return self.serving.url

    @property
    def lan_url(self) -> str:
        return f"http://{LAN}:{self.serving.port}"

    @property
    def node(self) -> Node:
        return self.serving.web.node

    @property
    def person(self) -> Person:
        return next(iter(self.node.people.values()))

    @contextmanager
    def stranger(self, url: str = "", **more: Any) -> Iterator[Browser]:
        """A browser that nobody let in."""
        with Browser(base_url=url or self.url, timeout=30, verify=False, trust_env=False, **more) as browser:
            yield browser

    @contextmanager
    def owner(self) -> Iterator[Browser]:
        """A browser let in at localhost by the launch token."""
        with self.stranger() as browser:
            assert browser.post("/enter", data={"token": self.serving.web.launch}).status_code == 303
            yield browser

    @contextmanager
    def phone(self, label: str = "phone") -> Iterator[Browser]:
        """A phone that joined over the local network."""
        with self.owner() as owner:
            owner.submit("/settings/lan", lan="on")
            owner.submit("/phones/invite")
            path = re.findall(r"/join/[\w-]+", owner.get("/phones/invite").text)[0]
            with self.stranger(self.lan_url) as phone:
                assert phone.post(path, data={"label": label}).status_code == 303
                code = re.findall(r"\d{3} \d{3}", phone.get("/").text)[0]
                assert owner.submit("/phones/answer", code=code, answer="yes").status_code == 303
                yield phone


class Browser(httpx.Client):
    """A browser that takes the form token of its session from the pages."""

    def submit(self, path: str, files: Any = None, **form: str) -> httpx.Response:
        """Submit a form of this session, as a page would."""
        return self.post(path, data={"csrf": self.token(), **form}, files=files)

    def token(self) -> str:
        """The form token of this session, empty without one."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/settings").text)
        found = found or re.search(r'name="csrf" value="([^"]+)"', self.get("/").text)
        return found[1] if found else ""


@contextmanager
def served(
    folder: Path,
    *,
    name: str | None = "Ala",
    passphrase: str | None = None,
    rooms: Sequence[Room] = (),
    lan: bool | None = False,
) -> Iterator[Served]:
    """Serve the home in ``folder``, made first when ``name`` is given and it is empty."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    addresses = [LAN]
    home = Home(folder)

    async def start() -> tuple[Any, Serving, Node | None]:
        if name is not None and not home.exists():
            await Node.create(home, name, passphrase=passphrase, rooms=rooms)
        node = await Node.open(home, rooms=rooms) if home.exists() else None
        context = serving(home, node, 0, lan=lan, rooms=rooms, addresses=lambda: list(addresses))
        return context, await context.__aenter__(), node

    async def stop(context: Any, web: Serving) -> None:
        await context.__aexit__(None, None, None)
        if web.web.made:
            await web.web.node.close()

    context, web, _node = run(start())
    try:
        yield Served(loop, web, home, addresses)
    finally:
        run(stop(context, web))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
