"""The relaying process as the node has it: told by JSON lines, heard by events, ended with whoever started it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from outlast import address
from outlast.address import Target
from outlast.rooms.reach import supervisor
from outlast.rooms.reach.io import control
from outlast.rooms.reach.io.control import Child
from outlast.rooms.reach.io.relay import (
    Closed,
    Config,
    Down,
    Event,
    Failed,
    Listening,
    Profile,
    Serving,
    ShadowsocksServer,
    Using,
)
from outlast.rooms.reach.proto.bridge import ProxyBridge
from outlast.rooms.reach.proto.links import bridge_id
from outlast.rooms.reach.proto.rules import Rules
from tests.rooms.reach.gates import place, serving, through, until_end

E = TypeVar("E")
ANY = Target("127.0.0.1", 0)


async def told(events: AsyncIterator[Event], kind: type[E]) -> E:
    """The next event of this kind."""
    async with asyncio.timeout(20):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError("the child ended")


async def at_once(work: Any, *arguments: Any) -> Any:
    """Do in a thread what waits for sockets."""
    return await asyncio.to_thread(work, *arguments)


def test_no_code_is_taken_from_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outlast").mkdir()
    (tmp_path / "outlast" / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)

    async def open_a_gate() -> None:
        child = await Child.start()
        try:
            await child.configure(Config(profiles=(Profile(ANY),)))
            await told(child.events(), Listening)
        finally:
            await child.close()

    asyncio.run(open_a_gate())
    assert not (tmp_path / "ran").exists()


def test_a_gate_at_all_addresses_tells_of_its_proxy_file_at_one_that_programs_can_use() -> None:
    async def open_a_gate() -> None:
        child = await Child.start()
        try:
            await child.configure(Config(profiles=(Profile(Target("0.0.0.0", 0), "me", "secret"),)))
            gate = await told(child.events(), Listening)
            port = address.read(gate.at).port
            assert gate == Listening(f"0.0.0.0:{port}", f"http://127.0.0.1:{port}/proxy.pac")
        finally:
            await child.close()

    asyncio.run(open_a_gate())


def test_a_change_of_what_is_to_be_done_leaves_streams_and_gates_that_stay_alone() -> None:
    def back(one: socket.socket) -> None:
        while data := one.recv(65_536):
            one.sendall(data)

    async def tell(bridge: ProxyBridge, echo: Target) -> None:
        child = await Child.start()
        try:
            events = child.events()
            first = Profile(ANY)
            await child.configure(Config(profiles=(first,), bridges=(bridge,)))
            one_at = address.read((await told(events, Listening)).at)
            assert (await told(events, Using)).bridge == bridge_id(bridge)
            stream = await at_once(through, one_at, echo)
            other = Profile(ANY, "me", "secret", Rules(("example.org",)))
            await child.configure(Config(profiles=(first, other), bridges=(bridge,)))
            assert address.read((await told(events, Listening)).at) == one_at
            await told(events, Listening)
            await at_once(stream.sendall, b"still here")
            assert await at_once(stream.recv, 100) == b"still here"
            stream.close()
        finally:
            await child.close()
        assert [event async for event in events if isinstance(event, Failed)] == []

    with place() as here, serving(back) as echo:
        asyncio.run(tell(ProxyBridge(here.gate().at, "socks5"), echo))


def test_what_cannot_be_had_keeps_nothing_else_from_being_done() -> None:
    async def tell(bridge: ProxyBridge, busy: Target) -> None:
        child = await Child.start()
        try:
            events = child.events()
            wanted = Config(profiles=(Profile(busy), Profile(ANY)), bridges=(bridge,))
            await child.configure(wanted)
            assert "in use" in str((await told(events, Closed)).error)
            assert await told(events, Listening)
            assert (await told(events, Using)).bridge == bridge_id(bridge)
            await child.configure(Config(profiles=(Profile(ANY),)))
            while (await told(events, Using)).bridge is not None:
                pass
        finally:
            await child.close()

    with place() as here, socket.create_server(("127.0.0.1", 0)) as busy:
        asyncio.run(tell(ProxyBridge(here.gate().at, "socks5"), Target(*busy.getsockname())))


def test_a_gate_opens_as_soon_as_its_port_is_free() -> None:
    async def tell(busy: socket.socket) -> None:
        child = await Child.start()
        try:
            events, at = child.events(), Target(*busy.getsockname())
            await child.configure(Config(profiles=(Profile(at),)))
            assert (await told(events, Closed)).at == address.show(at)
            busy.close()
            assert (await told(events, Listening)).at == address.show(at)
        finally:
            await child.close()
        assert [event async for event in events if isinstance(event, Closed)] == []

    with socket.create_server(("127.0.0.1", 0)) as busy:
        asyncio.run(tell(busy))


def test_a_gate_that_was_named_by_a_name_is_not_said_to_be_closed_once_it_is_open() -> None:
    async def tell(busy: socket.socket) -> None:
        child = await Child.start()
        try:
            at = Target("localhost", busy.getsockname()[1])
            sees_to_it = supervisor.Supervisor(Child.start, asyncio.sleep, lambda: 1)
            await child.configure(Config(profiles=(Profile(at),)))
            async with asyncio.timeout(20):
                async for event in child.events():
                    sees_to_it.take(event)
                    if isinstance(event, Closed) and event.error is not None:
                        assert sees_to_it.now.lacking == event.error
                        busy.close()
                    elif isinstance(event, Listening):
                        break
            assert sees_to_it.now.lacking is None
        finally:
            await child.close()

    with socket.create_server(("127.0.0.1", 0)) as busy:
        asyncio.run(tell(busy))


def test_a_server_that_cannot_be_had_keeps_no_other_from_serving_and_is_there_as_soon_as_it_can_be() -> None:
    async def tell(busy: socket.socket) -> None:
        child = await Child.start()
        try:
            events, at = child.events(), Target(*busy.getsockname())
            there, lacking = (ShadowsocksServer(one, "127.0.0.1", "aes-128-gcm", "secret") for one in (ANY, at))
            await child.configure(Config(servers=(lacking, there)))
            down = await told(events, Down)
            assert down.at == address.show(at)
            assert "in use" in str(down.error)
            assert (await told(events, Serving)).at != down.at
            busy.close()
            assert await told(events, Down) == Down(down.at, None)
            assert (await told(events, Serving)).at == down.at
        finally:
            await child.close()

    with socket.create_server(("127.0.0.1", 0)) as busy:
        asyncio.run(tell(busy))


def test_without_a_way_out_streams_wait_and_what_may_go_directly_goes() -> None:
    async def tell(site: Target) -> None:
        child = await Child.start()
        try:
            events = child.events()
            profile = Profile(ANY, rules=Rules(networks=("127.0.0.0/8",)))
            await child.configure(Config(profiles=(profile,)))
            at = address.read((await told(events, Listening)).at)
            with await at_once(through, at, site) as one:
                assert await at_once(until_end, one) == b"near"
            waiting = asyncio.create_task(at_once(through, at, Target("far.example", 80)))
            done, _ = await asyncio.wait([waiting], timeout=0.3)
            assert not done
        finally:
            await child.close()
        assert await asyncio.wait([waiting], timeout=10)
        assert isinstance(waiting.exception(), ConnectionError)

    with serving(lambda one: one.sendall(b"near")) as site:
        asyncio.run(tell(site))


def test_the_child_ends_when_the_pair_closes_however_that_came() -> None:
    here, there = socket.socketpair()
    with here, there:
        command = [sys.executable, "-m", "outlast.rooms.reach.io.child", str(there.fileno())]
        child = subprocess.Popen(command, pass_fds=(there.fileno(),), env=os.environ)
        there.close()
        here.sendall(msgspec.json.encode(Config(profiles=(Profile(ANY),))) + b"\n")
        here.settimeout(20)
        assert b"listening" in here.recv(4096)
        here.close()
        assert child.wait(20) == 0


@pytest.mark.parametrize("says", ['b\'{"type":"using",\'', 'b\'{"type":"new"}\\n\'', "b'x' * (5 << 20)"])
def test_a_child_that_ends_within_a_word_or_says_what_nobody_understands_is_started_again(
    says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"import socket, sys; one = socket.socket(fileno=int(sys.argv[1])); one.recv(1 << 20); one.sendall({says})"
    monkeypatch.setattr(control, "own_program", lambda _: (sys.executable, "-S", "-c", script))
    monkeypatch.setattr(supervisor, "RESTART_S", (0.01, 0.01))

    async def story() -> None:
        ends = asyncio.Semaphore(0)

        async def heard(event: Event | None) -> None:
            assert event is None
            ends.release()

        sees_to_it = supervisor.Supervisor(Child.start, heard, lambda: 1)
        sees_to_it.want(Config(profiles=(Profile(ANY),)))
        running = asyncio.create_task(sees_to_it.run())
        again = asyncio.create_task(_twice(ends))
        await asyncio.wait([running, again], timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert again.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()

    asyncio.run(story())


async def _twice(ends: asyncio.Semaphore) -> None:
    await ends.acquire()
    await ends.acquire()


FAILING = """
import asyncio
from outlast.rooms.reach.io.relay import run

def fail(link):
    asyncio.get_running_loop().call_soon(fail, link)
    raise KeyError(link)

async def main():
    asyncio.get_running_loop().call_soon(fail, "ss://secret@192.0.2.1:443")
    for _ in range(1000):
        await asyncio.sleep(0)

run(main())
"""


def test_faults_of_a_relay_are_told_by_kind_and_place_without_what_it_knows_and_in_few_words() -> None:
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, check=True)
    assert "this program has a fault: KeyError at " in done.stderr
    assert "secret" not in done.stderr
    assert "192.0.2.1" not in done.stderr
    assert len(done.stderr) < 1000


def test_a_relay_that_cannot_go_on_says_why_in_one_line_without_what_it_was_told() -> None:
    here, there = socket.socketpair()
    with here, there:
        command = [sys.executable, "-m", "outlast.rooms.reach.io.child", str(there.fileno())]
        here.sendall(b'{"bridges": "ss://secret@192.0.2.1:443"}\n')
        done = subprocess.run(
            command, pass_fds=(there.fileno(),), env=os.environ, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("outlast: this program has a fault: ValidationError at ")
    assert done.stderr.count("\n") == 1
