"""Programs in a process of their own with little memory and time, far from any key: for decoders of pictures.

Such decoders have a long history of holes, so nothing that strangers made is decoded in the process that holds keys.
A program is a Python file that imports nothing of Outlast. It has ``prepare()``, which loads what it needs, and
``work(data, *words)``, which makes bytes of bytes. Between the two the process loses the right to open anything: no
file, no socket, no other process.

This file is both sides: ``run`` starts it as the child's main program.
"""

import asyncio
import runpy
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

MEMORY_BYTES: Final = 1 << 30
CPU_S: Final = 30
WAIT_S: Final = 60.0
PIECE_BYTES: Final = 1 << 16
OUT_MAX_BYTES: Final = 1 << 28
"""More than any picture that is made anew has: what comes out waits in the memory of the process that holds keys."""


async def run(program: Path, data: bytes, *words: str) -> bytes | None:
    """What the program makes of the data; None when it fails, or takes more than it may."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        __file__,
        str(program),
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd="/",
    )
    assert child.stdin is not None
    assert child.stdout is not None
    giving = asyncio.create_task(_give(child.stdin, data))
    out = bytearray()
    try:
        async with asyncio.timeout(WAIT_S):
            while len(out) <= OUT_MAX_BYTES and (piece := await child.stdout.read(PIECE_BYTES)):
                out += piece
            if len(out) <= OUT_MAX_BYTES:
                await child.wait()
    except TimeoutError:
        pass
    finally:
        giving.cancel()
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    return bytes(out) if child.returncode == 0 else None


async def _give(stdin: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(ConnectionError):  # it had enough of it
        stdin.write(data)
        await stdin.drain()
        stdin.close()


def confine() -> None:
    """Bound what this process may take, whatever it is given: memory, time, files, processes."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def shut() -> None:
    """Open nothing more: only the pipes in, out and for errors are left, and there is no number for another one."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def main(program: str, *words: str) -> None:
    """Be the child."""
    confine()
    parts = runpy.run_path(program)
    parts["prepare"]()
    shut()
    sys.stdout.buffer.write(parts["work"](sys.stdin.buffer.read(), *words))


if __name__ == "__main__":
    main(*sys.argv[1:])
