"""Noticing that a stick comes or goes, so that pages show it and known ones take and give by themselves."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from outlast.edges.stick import pages, service
from outlast.edges.stick.media import MOUNTINFO, Medium
from outlast.errors import OutlastError
from outlast.kernel import Node, Person

LOOK_S: Final = 5.0
"""Where the system does not tell of changes, it is asked this often."""


@contextmanager
def mount_changes() -> Iterator[asyncio.Event | None]:
    """An event that is set whenever something was mounted or unmounted (proc(5), POLLPRI on mountinfo).

    None where the system does not tell.
    """
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        try:
            mounts = stack.enter_context(open(MOUNTINFO, "rb"))
            # An epoll within the loop's: the loop itself asks for no POLLPRI.
            news = stack.enter_context(select.epoll())
            news.register(mounts, select.EPOLLPRI | select.EPOLLERR)
        except (OSError, AttributeError):
            yield None
            return

        def tell() -> None:
            news.poll(0)
            changed.set()

        loop.add_reader(news, tell)
        try:
            yield changed
        finally:
            loop.remove_reader(news)


async def follow(node: Node) -> None:
    """Notice sticks until cancelled."""
    before: set[Path] = set()
    with mount_changes() as changed:
        async with asyncio.TaskGroup() as coming:
            while True:
                if changed is not None:
                    changed.clear()
                now: set[Path] = set()
                for person in list(node.people.values()):
                    with suppress(OutlastError, OSError):
                        for medium in await service.found_media(person):
                            now.add(medium.folder)
                            if medium.folder not in before and medium.device:
                                coming.create_task(_come(person, medium))
                if now != before:
                    node.touch()
                before = now if node.people else set()
                if changed is None or not node.people:
                    await asyncio.sleep(LOOK_S)
                else:
                    await changed.wait()


async def _come(person: Person, medium: Medium) -> None:
    with suppress(OutlastError, OSError):  # it may be gone again
        await pages.come(person, medium)
