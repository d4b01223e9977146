"""A file that is cut again and again arrives as it was, over TCP with both processes killed and by sticks torn off.

Real programs with homes on the disk. In the suite the file is small; in `dev.py soak files` it has 2 GiB and is cut ten
times each way. Each prints how long it took and the most memory that a node had.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

import pytest

from outlast.edges.client import ask_running
from outlast.errors import NotFoundError, StorageError
from tests.bench.bench_kernel import free_port
from tests.e2e.program import Program, Running, made

MEMORY_MAX_BYTES = 200_000_000
PATIENCE_S = 1800.0


@dataclass
class Node:
    """A program that is started, asked, killed and started again."""

    program: Program
    port: int
    peak_bytes: int = 0
    running: Running | None = None

    def ask(self, operation: str, **params: object) -> Any:
        """The answer of the running node."""
        return ask_running(self.program.home, operation, params)

    @contextmanager
    def up(self) -> Iterator[None]:
        """While it runs."""
        with self.program.up("--listen", f"127.0.0.1:{self.port}", listeners=3) as self.running:
            try:
                yield
            finally:
                self.look()

    def look(self) -> None:
        """Take note of the most memory it ever had."""
        assert self.running is not None
        with suppress(OSError):
            for line in Path(f"/proc/{self.running.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.peak_bytes = max(self.peak_bytes, int(line.split()[1]) * 1024)

    def kill(self) -> None:
        """No warning."""
        assert self.running is not None
        self.look()
        self.running.process.send_signal(signal.SIGKILL)
        self.running.process.wait()


@pytest.fixture
def size(soaking: bool) -> int:
    return 2 << 30 if soaking else (40 << 20) + 12_345


@pytest.fixture
def cuts(soaking: bool) -> int:
    return 10 if soaking else 3


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Node, Node]:
    """Ada's and Bela's nodes, who know each other; each has the other for a neighbour."""
    ada, bela = (Node(made(tmp_path / name, name), free_port()) for name in ("ada", "bela"))
    for one, other in ((ada, bela), (bela, ada)):
        one.program.json("contact", "add", other.program.json("id")["link"])
    return ada, bela


def meet(ada: Node, bela: Node) -> None:
    """Each is the other's neighbour."""
    for one, other in ((ada, bela), (bela, ada)):
        one.program.json("peer", "add", f"127.0.0.1:{other.port}", other.program.json("id")["node"])


def a_file(folder: Path, size: int) -> Path:
    path = folder / "film.bin"
    with path.open("wb") as out:
        for at in range(0, size, 1 << 20):
            out.write(os.urandom(min(1 << 20, size - at)))
    return path


def digest(path: Path) -> str:
    with path.open("rb") as source:
        return file_digest(source, "sha256").hexdigest()


def held(node: Node, letter: str) -> int:
    """How much of a file is there."""
    found = [one for one in node.ask("carry.file.list") if one["id"] == letter]
    return found[0]["held"] if found else 0


def until_held(node: Node, letter: str, count: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while (there := held(node, letter)) < count:
        assert time.monotonic() < end, f"{there} of {count} bytes are there, and no more come"


def ask_for(node: Node, letter: str, folder: Path) -> None:
    """Say that the file is wanted, as soon as its letter is there."""
    until_listed(node, letter)
    with suppress(NotFoundError):
        node.ask("carry.file.get", id=letter, file=str(folder / "early"))


def until_listed(node: Node, letter: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not any(one["id"] == letter for one in node.ask("carry.file.list")):
        assert time.monotonic() < end, "the letter does not come"


def compare(node: Node, letter: str, path: Path, folder: Path) -> None:
    """Write the file down where it went, and compare."""
    written = node.ask("carry.file.get", id=letter, file=str(folder / "arrived"), wait=True)
    assert written["bytes"] == path.stat().st_size
    assert digest(folder / "arrived") == digest(path)


@pytest.mark.timeout(3600)
def test_a_file_over_tcp_survives_that_both_nodes_are_killed(
    tmp_path: Path, pair: tuple[Node, Node], size: int, cuts: int
) -> None:
    ada, bela = pair
    meet(ada, bela)
    path = a_file(tmp_path, size)
    with ada.up():
        letter = ada.ask("carry.file.send", to="bela", file=str(path), as_it_is=True)["id"]
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(ada.up())
        stack.enter_context(bela.up())
        ask_for(bela, letter, tmp_path)
        for cut in range(cuts):
            until_held(bela, letter, size * (cut + 1) // (cuts + 2))
            before = held(bela, letter)
            victim = (ada, bela)[cut % 2]
            victim.kill()
            stack.enter_context(victim.up())
            assert held(bela, letter) >= before, "what was said to be here is gone"
        until_held(bela, letter, size)
        seconds = time.monotonic() - began
        compare(bela, letter, path, tmp_path)
        ada.ask("carry.file.list")
        end = time.monotonic() + PATIENCE_S
        while "received" not in [one["event"] for one in ada.ask("carry.file.list")[0]["custody"]]:
            assert time.monotonic() < end, "the receipt does not come"
    peaks = [node.peak_bytes for node in pair]
    print(f"\nfiles over TCP: {size >> 20} MiB, {cuts} kills, {seconds:.0f} s, memory {[p >> 20 for p in peaks]} MiB")
    assert max(peaks) < MEMORY_MAX_BYTES


@pytest.mark.timeout(3600)
def test_a_file_by_stick_survives_that_the_stick_is_pulled_out(
    tmp_path: Path, pair: tuple[Node, Node], size: int, cuts: int
) -> None:
    ada, bela = pair
    path, there, back = a_file(tmp_path, size), tmp_path / "there", tmp_path / "back"
    with ada.up(), bela.up():
        letter = ada.ask("carry.file.send", to="bela", file=str(path), as_it_is=True)["id"]
        began, carried = time.monotonic(), 0
        for cut in range(cuts + 1):
            ada.ask("bundle.write", to="bela", file=str(there))
            if cut < cuts:
                os.truncate(there, there.stat().st_size * 2 // (cuts + 2 - cut))
            carried += there.stat().st_size
            before = held(bela, letter)
            with suppress(StorageError):
                bela.ask("bundle.read", file=str(there))
            until_listed(bela, letter)
            assert held(bela, letter) > before
            bela.ask("bundle.write", to="ada", file=str(back))
            ada.ask("bundle.read", file=str(back))
        seconds = time.monotonic() - began
        compare(bela, letter, path, tmp_path)
    peaks = [node.peak_bytes for node in pair]
    print(
        f"\nfiles by stick: {size >> 20} MiB, {cuts} cuts, {carried >> 20} MiB carried, {seconds:.0f} s,"
        f" memory {[p >> 20 for p in peaks]} MiB"
    )
    assert carried < size * 1.3 + (16 << 20)
    assert max(peaks) < MEMORY_MAX_BYTES
