"""Programs of others as our children: started with little, run again when they end, and ended with us."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

from outlast.errors import OutlastError

RETRY_FIRST_S: Final = 1.0
RETRY_LAST_S: Final = 60.0
LINE_MAX_BYTES: Final = 8192
"""A line of a child; none that is known says more than 1 KiB."""
PACE_BYTES: Final = 1 << 16
"""What is read of a child's words in a second; one that says more waits."""
END_S: Final = 2.0
_PREFIX: Final = "outlast-child-"
_LOCK: Final = "lock"
_KEPT_VARIABLES: Final = ("PATH", "HOME", "TMPDIR", "LANG", "SYSTEMROOT", "PYTHONPATH")  # the last for our own

Ready = TypeVar("Ready")


def own_program(module: str) -> tuple[str, ...]:
    """The command that runs a module of ours as a program: it takes no code from the folder that one happens to be in.

    Where this process listens to none of Python's environment variables, neither does the other.
    """
    return sys.executable, "-I" if sys.flags.isolated else "-P", "-m", module


class ChildError(OutlastError):
    """A child cannot be had or cannot do what it is for; the text says which program and what to do."""


class PrivateFolder:
    """A folder for a child's own files, for this user alone; deleted when it is closed, or this process ends.

    It lies in memory where the system has a place for that: what a child writes there may name a bridge. What a process
    left there that was killed goes when the next one makes a folder: its lock is free then.
    """

    def __init__(self) -> None:
        try:
            runtime = os.environ.get("XDG_RUNTIME_DIR", "")
            place = Path(runtime if runtime and os.access(runtime, os.W_OK) else tempfile.gettempdir())
            for left in place.glob(f"{_PREFIX}*"):
                with suppress(OSError):
                    _delete_if_left(left)
            folder = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place, ignore_cleanup_errors=True)
            self.path = Path(folder.name)
            self._folder = folder
            draft = self.path / f"{_LOCK}.draft"
            self._lock = open(draft, "wb")  # noqa: SIM115 - held as long as the folder
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            draft.rename(self.path / _LOCK)
        except OSError as error:
            raise ChildError("no folder can be made for a program's own files: %(error)s", error=error) from None

    def close(self) -> None:
        """Delete it with all that is in it."""
        self._folder.cleanup()
        self._lock.close()


def _delete_if_left(folder: Path) -> None:
    if folder.lstat().st_uid != os.getuid():  # in a place that others write, too, they may have laid traps
        return
    with open(folder / _LOCK, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


class Kept(Generic[Ready]):
    """Something that runs, is of use from some moment on, and is run again when it ends: soon, then every minute."""

    def __init__(self, name: str, run: Callable[[Callable[[Ready], None]], Awaitable[OutlastError]]) -> None:
        """Begin. ``run`` runs it once, calls what it is given when it is of use, and returns why it ended."""
        self._name = name
        self._run = run
        self._now: Ready | None = None
        self._why: OutlastError | None = None
        self._waiting: set[asyncio.Future[Ready]] = set()
        self._keeping = asyncio.create_task(self._keep(), name=f"keeps {name}")

    @property
    def now(self) -> Ready | None:
        """What it is of use by, if it is at present."""
        return self._now

    async def ready(self) -> Ready:
        """What it is of use by, waiting for it while it starts; raises why it last ended when it is to be run later."""
        if self._now is not None:
            return self._now
        if self._why is not None:
            raise self._why.with_traceback(None)  # else every raise would lengthen it
        waiter: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            return await waiter
        finally:
            self._waiting.discard(waiter)

    async def close(self) -> None:
        """End it, and wait until it has ended, at most a few seconds."""
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        self._fail(ChildError("%(name)s was ended", name=self._name))

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        delay = RETRY_FIRST_S
        while True:
            began = loop.time()
            self._why = None
            self._fail(await self._run(self._succeed))
            if loop.time() - began > RETRY_LAST_S:
                delay = RETRY_FIRST_S
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_LAST_S)

    def _succeed(self, ready: Ready) -> None:
        self._now = ready
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(ready)

    def _fail(self, why: OutlastError) -> None:
        self._now, self._why = None, why
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(why)


async def start(command: Sequence[str], variables: Mapping[str, str]) -> Process:
    """Start a program that ends with us, with ``variables`` and little else in its environment; raises OSError.

    It leads a group of processes, in which whatever it starts is ended with it.
    """
    # The kernel's own means, without code of ours between fork and exec.
    setpriv = shutil.which("setpriv")
    leash = (setpriv, "--pdeathsig", "KILL", "--") if setpriv is not None else ()
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return await asyncio.create_subprocess_exec(
        *leash,
        *command,
        env=kept | dict(variables),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        limit=LINE_MAX_BYTES,
        start_new_session=True,
    )


async def lines(process: Process) -> AsyncIterator[bytes]:
    """What it says, without the ends of lines, at a bounded pace; raises ChildError for a line without end."""
    assert process.stdout is not None
    read = 0
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:
            raise ChildError("a line is too long") from None
        if not line:
            return
        if (read := read + len(line)) > PACE_BYTES:
            read = 0
            await asyncio.sleep(1)
        yield line.rstrip(b"\r\n")


async def end(process: Process, *, by_stdin: bool) -> int | None:
    """End a program: by its closed input where it listens to that, then by asking, then by force; its exit code.

    What it started and left behind is ended by force. Whoever is cancelled meanwhile still sees all of it end: at once.
    """
    assert process.stdin is not None
    process.stdin.close()
    hurry: asyncio.CancelledError | None = None

    def force() -> None:
        os.killpg(process.pid, signal.SIGKILL)

    asks = (process.terminate, force)
    for ask in (None, *asks) if by_stdin else asks:
        if ask is not None:
            with suppress(OSError):
                ask()
        try:
            await asyncio.wait_for(_drain(process), END_S)
            break
        except TimeoutError:
            continue
        except asyncio.CancelledError as cancelled:
            hurry = cancelled
            with suppress(OSError):
                force()
    with suppress(OSError):  # mostly nobody is left; on macOS the dead are not to be asked
        force()
    if hurry is not None:
        raise hurry
    return process.returncode


async def _drain(process: Process) -> None:
    """Wait for its end; a child that has something left to say would else never end."""
    while process.stdout is not None and await process.stdout.read(PACE_BYTES):
        pass
    await process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            await process.stdin.wait_closed()
