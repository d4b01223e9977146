"""The site that a bridge is: a folder, or another server that is already there."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from outlast.errors import StorageError, UsageError
from outlast.rooms.reach.io.names import look_up
from outlast.rooms.reach.io.web_server import Site

PATIENCE_S: Final = 60.0
"""For so long nothing may move on a visitor's connection to a folder: nginx's ``client_header_timeout`` and others."""
RESTART_S: Final = 1.0


@asynccontextmanager
async def open_site(where: str, with_tls: str = "") -> AsyncIterator[Site]:
    """A site by the path of its folder, or by the URL of a server on this computer; raises UsageError.

    ``with_tls`` is ``HOST:PORT`` where that server also listens with TLS, for what only TLS itself can answer.
    """
    if where.startswith("http://"):
        yield Site(await _address_of(where, 80), await _address_of(f"//{with_tls}", 443) if with_tls else None)
    elif "://" in where:
        raise UsageError("a site is a folder or http://HOST:PORT, not %(where)s: TLS ends in the bridge", where=where)
    elif not Path(where).is_dir():
        raise UsageError("there is no folder %(where)s with a site; name one, or http://HOST:PORT", where=where)
    else:
        async with _folder(Path(where)) as site:
            yield site


async def _address_of(url: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        found = (parts.hostname, parts.port or port)
    except ValueError:
        found = (None, 0)
    host, port = found
    if not host or parts.path not in ("", "/") or parts.query:
        raise UsageError("%(url)s is not HOST:PORT of a site; write it without a path", url=url.removeprefix("//"))
    try:
        addresses = await look_up(host)
    except OSError:
        raise UsageError(
            "the name %(host)s of the site leads nowhere; give the address of its server", host=host
        ) from None
    return addresses[0], port


@asynccontextmanager
async def _folder(folder: Path) -> AsyncIterator[Site]:
    """A process of its own serves it: while this one relays, pages are as quick as ever."""
    private = Path(tempfile.mkdtemp(prefix="outlast-site-"))  # mode 0700
    try:
        path = str(private / "s")
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        keeping = asyncio.create_task(_keep_serving(folder, path, ready))
        try:
            await asyncio.wait((ready, keeping), return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
            yield Site(path, patience_s=PATIENCE_S)
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError, StorageError):
                await keeping
    finally:
        shutil.rmtree(private, ignore_errors=True)


async def _keep_serving(folder: Path, path: str, ready: asyncio.Future[None]) -> None:
    """Serve it until this is cancelled, with another process when one died; raises StorageError if the first does."""
    while True:
        # By its path, so that it imports nothing of this program; -P keeps our files from standing for others' modules.
        command = (sys.executable, "-P", str(Path(__file__).with_name("folder.py")), str(folder), path)
        child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            if await child.stdout.readline() and not ready.done():
                ready.set_result(None)
            await child.wait()
        finally:
            child.stdin.close()  # it ends when that does, also when this process is killed
            await child.wait()
        if not ready.done():
            raise StorageError("the site %(folder)s cannot be served; see whether the disk is full", folder=folder)
        await asyncio.sleep(RESTART_S)
