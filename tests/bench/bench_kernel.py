"""The kernel's measurements beside its peers: letters, their bytes, ingest, files, memory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from outlast.kernel import node_text
from tests.bench.peer_nncp import Nncp
from tests.bench.peer_syncthing import syncthing

ROUNDS = 3
LETTERS = 3000
PEER_LETTERS = 100
SIZE = 300
POSTS = 500
ENTRIES = 20_000
BATCH = 1000
FILES = 2
FILE_BYTES = 128 << 20
"""The largest content of one entry."""


class Process:
    """A child that answers JSON lines."""

    def __init__(self, *command: str | Path) -> None:
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )

    def ask(self, command: str, *arguments: object) -> dict[str, Any]:
        self.tell(command, *arguments)
        return self.hear()

    def tell(self, command: str, *arguments: object) -> None:
        """Let it begin; ``hear`` has the answer. What is told meanwhile is done after it."""
        assert self.child.stdin
        self.child.stdin.write(json.dumps([command, *arguments]) + "\n")
        self.child.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.child.stdout
        line = self.child.stdout.readline()
        if not line:
            raise SystemExit(f"{self.child.args[-2:]} ended before it answered")  # type: ignore[index]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        assert self.child.stdin
        self.child.stdin.close()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


@contextmanager
def processes(*commands: list[str | Path]) -> Iterator[list[Process]]:
    """Children that are ended afterwards."""
    started = [Process(*command) for command in commands]
    try:
        yield started
    finally:
        for one in started:
            one.end()


def row(
    work: str,
    unit: str,
    ours: float,
    *,
    peer: float | None = None,
    peer_name: str | None = None,
    bar: float | None = None,
    at_least: bool = True,
    of_peer: bool = True,
) -> dict[str, Any]:
    """One line of the result; a bar is on the ratio to the peer, or (``of_peer`` False) on our own figure."""
    ratio = ours / peer if peer else None
    figure = ratio if of_peer else ours
    holds = None if bar is None or figure is None else (figure >= bar if at_least else figure <= bar)
    return {
        "work": work,
        "unit": unit,
        "ours": round(ours, 1),
        "peer": None if peer is None else round(peer, 1),
        "peer_name": peer_name,
        "ratio": None if ratio is None else round(ratio, 3),
        "bar": bar,
        "holds": holds,
    }


def run(peer_python: str | None) -> Iterator[dict[str, Any]]:
    """All rows; those that need LXMF have no peer where it is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        yield from letters(Path(folder), peer_python)
        yield from ingest(Path(folder))
        yield from files(Path(folder))
        yield from memory(Path(folder), peer_python)


def files(folder: Path) -> Iterator[dict[str, Any]]:
    """Files from their being handed to one node until another has them durable, beside those programs that are here.

    Outlast's are whole once they are in the receiver's store, Syncthing's once they and their names are synced and in
    its index, NNCP's once they are tossed into the receiver's folder.
    """
    folder = folder / "files"
    folder.mkdir()
    paths = [folder / f"file{number}" for number in range(FILES)]
    over_tcp, over_stick = "over TCP", "over a stick"
    with ExitStack() as stack:
        ours = stack.enter_context(Outlast.pair(folder))
        ways: dict[tuple[str, str], Callable[[Sequence[Path]], float]] = {
            ("Outlast", over_tcp): ours.by_tcp,
            ("Outlast", over_stick): ours.by_stick,
        }
        if installed("syncthing"):
            pair = stack.enter_context(syncthing(folder / "syncthing", [free_port() for _ in range(4)]))
            ways["Syncthing", over_tcp] = pair.by_tcp
        if installed("nncp-file"):
            nncp = Nncp(folder / "nncp", free_port())
            ways["NNCP", over_tcp], ways["NNCP", over_stick] = nncp.by_tcp, nncp.by_stick
        took: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
        spent: dict[str, list[float]] = {over_tcp: [], over_stick: []}
        for _ in range(ROUNDS):
            for path in paths:
                path.unlink(missing_ok=True)  # a peer may hold a link to the last one
                path.write_bytes(os.urandom(FILE_BYTES))
            for way, send in ways.items():
                os.sync()  # nobody writes for the one before
                before = ours.cpu_s()
                took[way].append(send(paths))
                if way[0] == "Outlast":
                    spent[way[1]].append(ours.cpu_s() - before)
    mib = FILES * FILE_BYTES / 2**20
    for name, way in took:
        if name != "Outlast":
            rate, peer = mib / median(took["Outlast", way]), mib / median(took[name, way])
            yield row(f"{mib:.0f} MiB of files {way}, durable", "MiB/s", rate, peer=peer, peer_name=name, bar=1)
    for over, seconds in spent.items():
        yield row(f"{mib:.0f} MiB of files {over}, durable, both nodes", "CPU s", median(seconds))


def installed(program: str) -> bool:
    """Whether a program is here; says so when it is not."""
    if shutil.which(program):
        return True
    print(f"{program} is not installed: measuring without it.", file=sys.stderr)
    return False


class Outlast:
    """A sender and a receiver that are connected."""

    def __init__(self, sender: Process, receiver: Process) -> None:
        about = receiver.ask("about")
        sender.ask("meet", about["link"], about["node"], about["port"])
        self._sender, self._receiver = sender, receiver

    @classmethod
    @contextmanager
    def pair(cls, folder: Path) -> Iterator[Outlast]:
        """Both, with homes of their own in ``folder``."""
        node = [sys.executable, "-m", "tests.bench.node_process"]
        with processes([*node, folder / "a"], [*node, folder / "b"]) as (a, b):
            yield cls(a, b)

    def cpu_s(self) -> float:
        """What both have spent so far."""
        return float(sum(one.ask("cpu")["cpu"] for one in (self._sender, self._receiver)))

    def by_tcp(self, paths: Sequence[Path]) -> float:
        """Seconds from the first file's being handed to the sender until all of them are whole at the receiver."""
        space = self._channel()
        start = time.perf_counter()
        for path in paths:
            self._receiver.tell("fetch", [self._sender.ask("file", space, str(path))["id"]])
        for _ in paths:
            self._receiver.hear()
        return time.perf_counter() - start

    def by_stick(self, paths: Sequence[Path]) -> float:
        """The same by way of a bundle: written by one, then read by the other, and nothing of it over TCP."""
        space, stick = self._channel(), paths[0].with_name("bundle")
        start = time.perf_counter()
        ids = [self._sender.ask("file", space, str(path))["id"] for path in paths]
        self._sender.ask("write_bundle", space, str(stick))
        assert self._receiver.ask("read_bundle", str(stick), ids)["whole"]
        seconds = time.perf_counter() - start
        stick.unlink()
        return seconds

    def _channel(self) -> str:
        space: str = self._sender.ask("channel", "films")["space"]
        self._receiver.ask("follow", space)
        return space


def letters(folder: Path, peer_python: str | None) -> Iterator[dict[str, Any]]:
    """Letters delivered and acknowledged a second, and bytes on the wire."""
    node = [sys.executable, "-m", "tests.bench.node_process"]
    with processes([*node, folder / "a"], [*node, folder / "b"]) as (a, b):
        about = b.ask("about")
        a.ask("meet", about["link"], about["node"], about["port"])
        ours, theirs = [], []
        for number in range(ROUNDS):
            ours.append(a.ask("letters", LETTERS, SIZE))
            if peer_python:
                theirs.append(lxmf(folder / f"lxmf{number}", peer_python))
        space = a.ask("channel", "news")["space"]
        b.ask("follow", space)
        a.ask("posts", space, 1, SIZE)
        b.ask("wait_posts", space, 1)
        before = a.ask("sent")["bytes_sent"]
        a.ask("posts", space, POSTS, SIZE)
        b.ask("wait_posts", space, POSTS + 1)
        post_bytes = (a.ask("sent")["bytes_sent"] - before) / POSTS
    name = "LXMF over RNS"
    yield row(
        f"direct messages of {SIZE} B, sealed, delivered and acknowledged over TCP",
        "1/s",
        LETTERS / middle(ours, "seconds"),
        peer=PEER_LETTERS / middle(theirs, "seconds") if theirs else None,
        peer_name=name,
        bar=50,
    )
    yield row(
        f"a direct message of {SIZE} B on the wire",
        "B",
        middle(ours, "bytes_sent") / LETTERS,
        peer=middle(theirs, "bytes_sent") / PEER_LETTERS if theirs else None,
        peer_name=name,
        bar=900,
        at_least=False,
        of_peer=False,
    )
    yield row(
        "its receipt and acknowledgements on the wire",
        "B",
        middle(ours, "bytes_received") / LETTERS,
        peer=middle(theirs, "bytes_received") / PEER_LETTERS if theirs else None,
        peer_name=name,
    )
    yield row(f"a public post of {SIZE} B on the wire", "B", post_bytes, bar=560, at_least=False, of_peer=False)


def middle(rounds: list[dict[str, Any]], what: str) -> float:
    """The median of a figure over the rounds."""
    return float(median(one[what] for one in rounds))


def lxmf(folder: Path, python: str) -> dict[str, Any]:
    """The same letters between two LXMF routers."""
    port = free_port()
    script = Path(__file__).with_name("peer_lxmf.py")
    for name in ("listen", "connect"):
        (folder / name).mkdir(parents=True)
    with processes([python, script, folder / "listen", "listen", port]) as (b,):
        # A server of RNS drops a caller that comes before it is wholly up: the first answers before the second starts.
        target = b.ask("about")["hash"]
        return connect([python, script, folder / "connect", "connect", port], b, target)


def connect(command: list[str | Path], b: Process, target: str) -> dict[str, Any]:
    """Let a second router send to the first."""
    with processes(command) as (a,):
        a.ask("about")
        time.sleep(2)  # RNS has no way to say that its interface is connected
        b.ask("announce")
        a.ask("letters", target, 1, SIZE)
        return a.ask("letters", target, PEER_LETTERS, SIZE)


def ingest(folder: Path) -> Iterator[dict[str, Any]]:
    """Entries a CPU second through the door, beside a loop that verifies, hashes and inserts without admission."""
    import asyncio

    import apsw

    from outlast.kernel import Home, Node
    from outlast.kernel.entry import Entry, signing_input, unpack
    from outlast.kernel.identity import verify

    packed = posts(ENTRIES)
    space, wire = packed[0], packed[1]

    def bare() -> float:
        key = os.urandom(32)
        connection = apsw.Connection(str(folder / "bare.db"))
        connection.pragma("cipher", "chacha20")
        connection.pragma("key", f"raw:{key.hex()}")
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.execute(
            "CREATE TABLE entry (n INTEGER PRIMARY KEY, id BLOB, space BLOB, day INTEGER, ts INTEGER, author BLOB,"
            " seq INTEGER, header BLOB, signature BLOB, payload BLOB);"
            "CREATE UNIQUE INDEX by_id ON entry (id); CREATE INDEX by_order ON entry (space, day, ts, id);"
            "CREATE INDEX by_chain ON entry (author, space, seq);"
        )
        start = time.process_time()
        for at in range(0, len(wire), BATCH):
            rows = []
            for data in wire[at : at + BATCH]:
                entry: Entry = unpack(data)[0]
                h = entry.header
                if verify(h.author, entry.signature, signing_input(entry.header_bytes)):
                    rows.append(
                        (
                            entry.id,
                            h.space,
                            h.expires_day,
                            h.ts_ms,
                            h.author,
                            h.seq,
                            entry.header_bytes,
                            entry.signature,
                            entry.payload,
                        )
                    )
            with connection:
                connection.executemany(
                    "INSERT INTO entry (id, space, day, ts, author, seq, header, signature, payload)"
                    " VALUES (?,?,?,?,?,?,?,?,?)",
                    rows,
                )
        spent = time.process_time() - start
        connection.close()
        (folder / "bare.db").unlink()
        return spent

    async def door(number: int) -> float:
        home = Home(folder / f"door{number}")
        await Node.create(home, "door", passphrase=None)
        async with await Node.open(home) as node:
            await node.follow(space)
            start = time.process_time()
            for at in range(0, len(wire), BATCH):
                await node.ingest(wire[at : at + BATCH])
            spent = time.process_time() - start
            assert node.open_store.usage_of(space).entries == len(wire)
            return spent

    ours, theirs = [], []
    for number in range(3):
        theirs.append(bare())
        ours.append(asyncio.run(door(number)))
    median = sorted(range(3), key=lambda n: theirs[n] / ours[n])[1]
    yield row(
        "ingest through the door: verified, admitted, indexed, durable, encrypted",
        "1/CPU s",
        ENTRIES / ours[median],
        peer=ENTRIES / theirs[median],
        peer_name="a loop without admission",
        bar=0.8,
    )


def posts(count: int) -> tuple[bytes, list[bytes]]:
    """A space and ``count`` packed entries of 300 B in it, all of one author's chain, in order."""
    from outlast.kernel.entry import pack
    from outlast.kernel.identity import SealingKey, SigningKey, certify
    from outlast.kernel.log import Head, next_entry
    from outlast.kernel.space import OPEN, SpaceBody, make_genesis

    author = SigningKey.from_seed(sha256(b"bench").digest())
    seal = SealingKey.from_secret(sha256(b"seal").digest())
    now = time.time_ns() // 1_000_000
    certificate = certify(author, author, seal.public, now // 86_400_000, "bench")
    genesis = make_genesis(author, SpaceBody(OPEN, "bench", certificate, "owner", (author.public,), bytes(16)), now)
    wire = [pack(genesis)]
    head = None
    for number in range(count - 1):
        entry = next_entry(
            author,
            head,
            space=genesis.id,
            kind="bench.post",
            payload=number.to_bytes(4, "big").ljust(SIZE, b"x"),
            clock=number + 1,
            ts_ms=now + number,
            life_ms=30 * 86_400_000,
            priority=2,
        )
        head = Head(entry.header.seq, entry.id)
        wire.append(pack(entry))
    return genesis.id, wire


def memory(folder: Path, peer_python: str | None) -> Iterator[dict[str, Any]]:
    """Proportional memory (PSS) of a node that serves its page and has synced, beside MeshChatX at rest."""
    outlast = Path(sys.executable).with_name("outlast")
    home, port = folder / "m", free_port()
    subprocess.run([outlast, "--home", home, "init", "--name", "m", "--unattended"], check=True, capture_output=True)
    up = [outlast, "--home", home, "up", "--port", port, "--no-lan"]
    with processes([sys.executable, "-m", "tests.bench.node_process", folder / "n"]) as (other,), serving(up) as child:
        about = other.ask("about")
        told = [
            outlast,
            "--home",
            home,
            "peer",
            "add",
            f"127.0.0.1:{about['port']}",
            node_text(bytes.fromhex(about["node"])),
        ]
        answers(f"http://localhost:{port}/")
        subprocess.run(told, check=True, capture_output=True)
        while other.ask("sessions")["count"] == 0:
            time.sleep(0.1)
        answers(f"http://localhost:{port}/")
        ours = pss_bytes(child.pid)
    peer = None
    if peer_python:
        config = folder / "reticulum"
        config.mkdir()
        (config / "config").write_text("[reticulum]\nenable_transport = No\nshare_instance = No\n[interfaces]\n")
        port = free_port()
        command = [Path(peer_python).with_name("meshchatx"), "--headless", "--no-https", "--host", "127.0.0.1"]
        command += ["--port", port, "--reticulum-config-dir", config, "--storage-dir", folder / "meshchatx"]
        with serving(command) as child:
            answers(f"http://127.0.0.1:{port}/")
            time.sleep(10)  # it goes on loading after its first answer; at rest is what is compared
            peer = pss_bytes(child.pid)
    yield row(
        "memory (PSS) after one page and one sync",
        "MB",
        ours / 1e6,
        peer=peer and peer / 1e6,
        peer_name="MeshChatX at rest",
        bar=0.75,
        at_least=False,
    )


@contextmanager
def serving(command: list[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
    """A child that serves until it is ended."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def answers(url: str) -> None:
    """Ask until there is an answer."""
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def free_port() -> str:
    """A port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process and of all that it started, however far down."""
    process = psutil.Process(pid)
    return sum(int(one.memory_full_info().pss) for one in (process, *process.children(recursive=True)))
