"""Pluggable transports as children: Debian's obfs4proxy on both sides, and programs that break the contract."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from outlast.address import Target
from outlast.errors import UsageError
from outlast.rooms.reach.io import children, pluggable
from outlast.rooms.reach.io.children import ChildError
from outlast.rooms.reach.io.pluggable import Child, find_program
from outlast.rooms.reach.proto.pluggable import ClientDemand, Proxy, ServerDemand, SMethod
from tests.rooms.reach.programs import program

LOOPBACK = Target("127.0.0.1", 0)
MIB = 1 << 20
Born = Callable[[], set[psutil.Process]]


@asynccontextmanager
async def far_and_near(folder: Path, target: Target) -> AsyncIterator[tuple[Child, SMethod]]:
    """obfs4proxy in front of a target, and one that reaches it."""
    path = program("obfs4proxy")
    far = Child([path], ServerDemand(str(folder / "far"), True, ("obfs4",), target, {"obfs4": LOOPBACK}))
    near = Child([path], ClientDemand(str(folder / "near"), True, ("obfs4",)))
    try:
        method = await far.method("obfs4")
        assert isinstance(method, SMethod)
        yield near, method
    finally:
        await asyncio.gather(near.close(), far.close())


def test_a_stream_goes_both_ways_through_obfs4proxy_with_equal_hashes(tmp_path: Path) -> None:
    sent = random.Random(1).randbytes(8 * MIB)

    async def story() -> None:
        heard = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got = await reader.readexactly(len(sent))
            heard.set_result(hashlib.sha256(got).hexdigest())
            writer.write(got)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            here = Target("127.0.0.1", server.sockets[0].getsockname()[1])
            async with far_and_near(tmp_path, here) as (near, method):
                sock = await near.dial("obfs4", method.at, method.args)
                reader, writer = await asyncio.open_connection(sock=sock)
                writer.write(sent)
                back = await reader.readexactly(len(sent))
                writer.close()
        assert await heard == hashlib.sha256(sent).hexdigest() == hashlib.sha256(back).hexdigest()

    asyncio.run(story())


def test_a_wrong_key_or_a_dead_bridge_is_told_as_such(tmp_path: Path) -> None:
    async def story() -> None:
        async with far_and_near(tmp_path, Target("127.0.0.1", 9)) as (near, method):
            for at, args in (
                (Target("127.0.0.1", 1), method.args),
                (method.at, {}),
                (method.at, dict(method.args) | {"cert": "x"}),
            ):
                with pytest.raises(ChildError, match="try another one"):
                    await near.dial("obfs4", at, args)
            with pytest.raises(ChildError, match="does not offer meek_lite: it was not asked for it"):
                await near.dial("meek_lite", method.at, {})
            with pytest.raises(UsageError, match="SOCKS carries 510"):
                await near.dial("obfs4", method.at, {"cert": "x" * 600})

    asyncio.run(story())


def test_snowflake_client_asks_the_broker_that_a_bridge_names(tmp_path: Path) -> None:
    async def story() -> None:
        asked = asyncio.get_running_loop().create_future()

        async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            asked.set_result((head.split(b" ")[1], await reader.readexactly(size)))
            answer = b'{"error":"no proxies here"}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
            writer.close()

        async with await asyncio.start_server(broker, "127.0.0.1", 0) as server:
            at = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            child = Child([program("snowflake-client")], ClientDemand(str(tmp_path), True, ("snowflake",)))
            try:
                args = {"url": at, "ice": "stun:127.0.0.1:9", "fingerprint": "0123456789ABCDEF0123456789ABCDEF01234567"}
                with await child.dial("snowflake", Target("192.0.2.3", 80), args):
                    path, offer = await asyncio.wait_for(asked, 30)
            finally:
                await child.close()
        assert path == b"/client"
        assert b"sdp" in offer
        assert args["fingerprint"].encode() in offer

    asyncio.run(story())


def test_obfs4proxy_uses_the_proxy_that_it_is_given(tmp_path: Path) -> None:
    async def story() -> None:
        asked = asyncio.Event()

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            asked.set()
            writer.close()

        async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
            at = Target("127.0.0.1", server.sockets[0].getsockname()[1])
            demand = ClientDemand(str(tmp_path), True, ("obfs4",), Proxy("socks5", at, "user", "pass word"))
            near = Child([program("obfs4proxy")], demand)
            cert = "A" * 70
            with suppress(ChildError):
                await near.dial("obfs4", Target("192.0.2.1", 443), {"cert": cert, "iat-mode": "0"})
            await asked.wait()
            await near.close()

    asyncio.run(story())


PRELUDE = "import os, sys, time\nprint('VERSION 1', flush=True)\n"
READY = PRELUDE + "print('CMETHOD x socks5 127.0.0.1:1\\nCMETHODS DONE', flush=True)\n"
UNTIL_STDIN_CLOSES = "sys.stdin.read()\n"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)\n"


def child(script: str, tmp_path: Path) -> Child:
    return Child([sys.executable, "-S", "-c", script], ClientDemand(str(tmp_path), True, ("x",)))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("", r"ended \(exit code 0\)"),
        ("raise SystemExit(3)", r"ended \(exit code 3\)"),
        ("print('VERSION-ERROR no-version')", "cannot work here: no-version"),
        (PRELUDE + "print('ENV-ERROR \\x1b[2J' + 'no' * 900)", "cannot work here: .{1,200}$"),
        (PRELUDE + "print('CMETHOD x socks5 192.0.2.1:1')\n", "not on this machine"),
        (PRELUDE + "print('CMETHOD-ERROR x no rocks\\nCMETHODS DONE', flush=True)\n" + UNTIL_STDIN_CLOSES, "no rocks"),
        (PRELUDE + "print('LOG SEVERITY=error MESSAGE=\"port in use\"')\n", "port in use"),
        ("print('x' * 100_000)", "a line is too long"),
        ("print('\\x00\\x01\\x02')", "no line of the contract"),
        ("while True: print('x' * 10**6, end='')", "a line is too long"),
    ],
)
def test_a_child_that_breaks_the_contract_is_ended_and_told_in_one_line(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, born: Born
) -> None:
    monkeypatch.setattr(children, "END_S", 0.2)

    async def story() -> None:
        broken = child(script, tmp_path)
        with pytest.raises(ChildError, match=why) as caught:
            await broken.method("x")
        assert str(caught.value).isprintable()
        await broken.close()

    asyncio.run(story())
    assert not born()


def test_a_child_that_never_gets_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pluggable, "READY_S", 0.3)

    async def story() -> None:
        silent = child(PRELUDE + UNTIL_STDIN_CLOSES, tmp_path)
        with pytest.raises(ChildError, match="was not ready within"):
            await silent.method("x")
        await silent.close()

    asyncio.run(story())


def test_a_child_that_does_not_want_to_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, born: Born
) -> None:
    monkeypatch.setattr(children, "END_S", 0.2)

    async def story() -> None:
        deaf = child(READY + DEAF, tmp_path)
        await deaf.method("x")
        await deaf.close()

    asyncio.run(story())
    assert not born()


FORKING = """
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    %s
    time.sleep(600)
"""


@pytest.mark.parametrize("holds", ["pass", "os.closerange(0, 3)"])
def test_what_a_child_left_behind_ends_with_it(
    holds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, born: Born
) -> None:
    monkeypatch.setattr(children, "END_S", 0.2)

    async def story() -> list[psutil.Process]:
        forking = child(FORKING % holds + READY + UNTIL_STDIN_CLOSES, tmp_path)
        await forking.method("x")
        (process,) = born()
        left = process.children()
        await forking.close()
        return left

    left = asyncio.run(story())
    assert len(left) == 1
    _, alive = psutil.wait_procs(left, timeout=10)
    for process in alive:
        process.kill()
    assert not alive


def test_what_a_flooding_child_says_is_read_at_a_pace_and_it_is_of_use_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "END_S", 0.2)
    flood = READY + "while True: print('LOG SEVERITY=notice MESSAGE=' + 'x' * 1000)\n"

    async def story() -> None:
        flooding = child(flood, tmp_path)
        await flooding.method("x")
        before = time.process_time()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 1)
        assert time.process_time() - before < 0.5
        assert (await flooding.method("x")).at.port == 1
        await flooding.close()

    asyncio.run(story())


def test_a_child_that_dies_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, born: Born) -> None:
    monkeypatch.setattr(children, "RETRY_FIRST_S", 0.01)
    counted = f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\n"

    async def story() -> None:
        mortal = child(counted + READY + UNTIL_STDIN_CLOSES, tmp_path)
        await mortal.method("x")
        (process,) = born()
        process.kill()
        with suppress(psutil.NoSuchProcess):
            await asyncio.to_thread(process.wait)
        while True:
            with suppress(ChildError):
                if born() - {process}:
                    await mortal.method("x")
                    break
            await asyncio.sleep(0.01)
        await mortal.close()

    asyncio.run(story())
    assert len((tmp_path / "runs").read_text()) == 2


HOLDER = """
import asyncio, sys
from outlast.rooms.reach.io.pluggable import Child
from outlast.rooms.reach.proto.pluggable import ClientDemand
async def main():
    child = Child(sys.argv[3:], ClientDemand(sys.argv[1], True, (sys.argv[2],)))
    await child.method(sys.argv[2])
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["obfs4proxy", "deaf"])
def test_children_end_when_we_are_killed(kind: str, tmp_path: Path) -> None:
    command = {
        "obfs4proxy": ["obfs4", program("obfs4proxy")],
        "deaf": ["x", sys.executable, "-S", "-c", READY + DEAF],
    }[kind]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == b"ready\n"
        children = psutil.Process(holder.pid).children(recursive=True)
        assert children
        os.kill(holder.pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert gone
    assert not alive


def test_a_transport_whose_program_is_not_here_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ChildError, match="install lyrebird or obfs4proxy"):
        find_program("obfs4")


@pytest.mark.parametrize("name", ["true", "reboot", "sh", "../obfs4", "obfs4proxy"])
def test_a_link_starts_no_other_programs_than_those_that_are_known_for_a_transport(name: str) -> None:
    with pytest.raises(ChildError, match="is not known here; there are obfs4, "):
        find_program(name)


def test_a_program_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        nothing = Child([str(tmp_path / "nothing")], ClientDemand(str(tmp_path), True, ("x",)))
        with pytest.raises(ChildError, match="nothing"):
            await nothing.method("x")
        await nothing.close()

    asyncio.run(story())


FOLDER = """
import sys
from outlast.rooms.reach.io.children import PrivateFolder
folder = PrivateFolder()
(folder.path / "state").write_text("a bridge")
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    processes = [
        subprocess.Popen([sys.executable, "-c", FOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    killed, ended, living = processes
    folders = []
    for process in processes:
        assert process.stdout is not None
        folders.append(Path(process.stdout.readline().strip()))
    assert all((folder / "state").exists() and folder.stat().st_mode & 0o777 == 0o700 for folder in folders)
    killed.kill()
    killed.communicate()
    ended.communicate()
    assert [folder.exists() for folder in folders] == [True, False, True]
    mine = children.PrivateFolder()
    assert [folder.exists() for folder in folders] == [False, False, True]
    mine.close()
    living.communicate()
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_room_is_told_as_what_a_bridge_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(ChildError, match="no folder can be made for a program's own files: No such file"):
        children.PrivateFolder()
