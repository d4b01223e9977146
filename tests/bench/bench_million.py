"""A node with a million entries: how soon it answers, what memory it takes, what a sync of ten differences costs."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from http.cookiejar import CookieJar
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from outlast.kernel import Home, Node, find_rooms, node_text, parse_space
from outlast.kernel.entry import DAY_MS, HOUR_MS, Entry, Header, expiry_day, sign_entry
from outlast.kernel.identity import SigningKey
from outlast.kernel.log import Head
from outlast.kernel.mail import MAIL_KIND, MAIL_LIFE_DAYS, MAIL_PRIORITY, MAIL_SPACE
from outlast.kernel.store import Incoming, Store
from outlast.rooms.carry import service
from outlast.rooms.carry.entries import POST, Post
from tests.bench.bench_kernel import free_port, processes, pss_bytes, row

ENTRIES = int(os.environ.get("OUTLAST_BENCH_ENTRIES", "1000000"))
MAIL = 0.3
"""This part of them is mail, the rest stands in channels."""
CHANNELS = 10
DAYS = 30
DIFFERENCES = 10
BATCH = 5000
START_BAR_S = 3.0
PAGE_BAR_MS = 200.0
MEMORY_BAR_MB = 300.0
_SOURCES = ("kernel/store.py", "kernel/database.py", "kernel/vault.py", "kernel/home.py", "rooms/carry/view.py")


def run() -> Iterator[dict[str, Any]]:
    """All rows. The home is made once for each version of the code, and copied for each run."""
    made = million()
    with TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        shutil.copytree(made, ours)
        shutil.copytree(made, theirs)
        ids = set_apart(ours, theirs)
        yield from measure(ours, theirs, ids)


def measure(ours: Path, theirs: Path, ids: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of two homes that differ by ``ids``."""
    held = f"with {ENTRIES:,} entries"
    outlast, port = Path(sys.executable).with_name("outlast"), free_port()
    up = [outlast, "--home", ours, "up", "--port", port, "--no-lan"]
    starts = []
    for last in (False, False, True):
        begun = time.perf_counter()
        with subprocess.Popen(up, stdout=subprocess.PIPE, text=True) as child:
            try:
                browser = enter(child)
                starts.append(time.perf_counter() - begun)
                if not last:
                    continue
                yield row(f"start {held}, to the first page", "s", median(starts), bar=START_BAR_S, **OURS)
                address = f"http://localhost:{port}"
                yield from pages(browser, address, held)
                yield row(f"memory (PSS) {held}, after pages", "MB", pss_bytes(child.pid) / 1e6, **MEMORY)
                yield from sync(outlast, ours, theirs, child.pid, ids, held, partial(timed, browser, address))
            finally:
                child.terminate()


OURS: dict[str, Any] = {"at_least": False, "of_peer": False}
MEMORY: dict[str, Any] = {"bar": MEMORY_BAR_MB, **OURS}


def enter(child: subprocess.Popen[str]) -> urllib.request.OpenerDirector:
    """A browser that entered by the link that the node printed, as soon as it did and answers."""
    assert child.stdout
    link = child.stdout.readline().split()[1]
    token = link.partition("?t=")[2]
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    address = link.partition("/?")[0]
    browser.open(f"{address}/enter", data=f"token={token}".encode(), timeout=60).read()
    return browser


def pages(browser: urllib.request.OpenerDirector, address: str, held: str) -> Iterator[dict[str, Any]]:
    """The pages that people open most, each asked for five times."""
    channel = re.findall(r'"(/carry/channels/[^"/?]+)"', browser.open(f"{address}/carry/channels").read().decode())[0]
    for path, name in (("/", "home"), ("/carry/", "letters"), ("/carry/channels", "channels"), (channel, "a channel")):
        took = [timed(browser, address + path) for _ in range(5)]
        yield row(f"the page {name!r} {held}", "ms", median(took), bar=PAGE_BAR_MS, **OURS)


def timed(browser: urllib.request.OpenerDirector, url: str) -> float:
    """How long a page takes, in ms."""
    begun = time.perf_counter()
    browser.open(url, timeout=60).read()
    return 1000 * (time.perf_counter() - begun)


def sync(
    outlast: Path, ours: Path, theirs: Path, pid: int, ids: list[str], held: str, page: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """One sync with a neighbour; it ends when the neighbour has what it lacked and both are in step."""
    with processes([sys.executable, "-m", "tests.bench.node_process", theirs]) as (other,):
        about = other.ask("about")
        node = node_text(bytes.fromhex(about["node"]))
        begun, cpu, waits = time.perf_counter(), cpu_s(pid), []
        subprocess.run(
            [outlast, "--home", ours, "peer", "add", f"127.0.0.1:{about['port']}", node],
            check=True,
            capture_output=True,
        )
        while not other.ask("in_step")["yes"] or other.ask("holds", ids)["count"] < len(ids):
            waits.append(page())
        work = f"one sync of {DIFFERENCES} differences {held}"
        yield row(work, "s", time.perf_counter() - begun)
        yield row(work, "CPU s", cpu_s(pid) - cpu)
        moved = other.ask("sent")
        yield row(work, "B", moved["bytes_sent"] + moved["bytes_received"])
        yield row(f"the slowest of {len(waits)} pages during {work}", "ms", max(waits), bar=PAGE_BAR_MS, **OURS)
        yield row(f"memory (PSS) {held}, after pages and a sync", "MB", pss_bytes(pid) / 1e6, **MEMORY)
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert peak
        yield row(f"memory {held}, the most at any time (VmHWM)", "MB", int(peak[1]) * 1024 / 1e6)


def cpu_s(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def million() -> Path:
    """A home with so many entries, made by this version of the code; kept in the folder for temporary files."""
    import outlast

    source = Path(outlast.__file__).parent
    marks = [Path(__file__).read_bytes(), *((source / name).read_bytes() for name in _SOURCES)]
    digest = sha256(b"".join(marks) + str(ENTRIES).encode()).hexdigest()[:16]
    # Entries live so many days: what was made this week is as good as new.
    home = Path(gettempdir(), f"outlast-bench-{digest}-{int(time.time() // (7 * 86_400))}")
    if not home.exists():
        draft = home.with_name(f"{home.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        asyncio.run(make(draft))
        spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
        print(f"made {home} in {spent:.0f} CPU s", file=sys.stderr)
        draft.rename(home)
    return home


async def make(folder: Path) -> None:
    """Put signed entries into the store of a new node, as the door does once it has verified them."""
    home = Home(folder)
    await Node.create(home, "Million", passphrase=None)
    async with await Node.open(home, dial=False) as node:
        person = next(iter(node.people.values()))
        now = node.now_ms() - (DAYS - 1) * DAY_MS
        named = [(await service.create_channel(node, person, f"Channel {number}")).id for number in range(CHANNELS)]
        spaces = [parse_space(name) for name in named]
        chance = Random(1)
        heads: dict[bytes, Head] = {}
        author = person.signing_key
        for start in range(0, ENTRIES, BATCH):
            batch = []
            for number in range(start, min(start + BATCH, ENTRIES)):
                ts_ms = now + (DAYS - 1) * DAY_MS * number // ENTRIES
                if chance.random() < MAIL:
                    entry = envelope(chance, ts_ms)
                else:
                    space = chance.choice(spaces)
                    entry = post(author, space, heads.get(space), number, ts_ms)
                    heads[space] = Head(entry.header.seq, entry.id)
                batch.append(Incoming(entry))
            await node.write(lambda batch=batch: put(node, batch))
            node.touch()
        await person.inbox.read()


def put(node: Node, batch: list[Incoming]) -> None:
    """One transaction, as of the door."""
    store = node.open_store

    def act() -> None:
        changes = store.append(batch)
        for name in node.rooms:
            while store.fold(name, fresh=changes):
                pass

    store.together(act)


def set_apart(ours: Path, theirs: Path) -> list[str]:
    """Make the second home another node that lacks some entries of the first, and the first lack some of the second."""
    rooms, homes = find_rooms(), (Home(ours), Home(theirs))
    stores = [Store.open(home.store_path, home.open_key(None, None), rooms=rooms) for home in homes]
    rows = stores[0].query(
        "SELECT id FROM entry WHERE n > 100 AND n % ? = 0 LIMIT ?", (ENTRIES // (DIFFERENCES + 1), DIFFERENCES)
    )
    ids = [bytes(one[0]) for one in rows]
    assert len(ids) == DIFFERENCES
    for number, store in enumerate(stores):
        store.remove(ids[number::2])
    stores[1].set_meta("transport", os.urandom(32))
    for store in stores:
        for room in rooms:
            while store.fold(room.name):
                pass
        store.close()
    return [one.hex() for one in ids]


def envelope(chance: Random, ts_ms: int) -> Entry:
    """What mail looks like from outside."""
    payload, author = chance.randbytes(512), SigningKey.from_seed(chance.randbytes(32))
    at_ms = ts_ms // HOUR_MS * HOUR_MS
    header = Header(
        version=1,
        space=MAIL_SPACE,
        kind=MAIL_KIND,
        author=author.public,
        seq=0,
        prev=None,
        clock=0,
        ts_ms=at_ms,
        expires_day=expiry_day(at_ms, MAIL_LIFE_DAYS * DAY_MS),
        priority=MAIL_PRIORITY,
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
        tags=(chance.randbytes(16),),
        stamp_nonce=0,
    )
    return sign_entry(header, author, payload)


def post(author: SigningKey, space: bytes, head: Head | None, number: int, ts_ms: int) -> Entry:
    """A post of 100 characters in a chain."""
    payload = POST.encode(Post(f"Post {number} ".ljust(100, "x")))
    header = Header(
        version=1,
        space=space,
        kind=POST.name,
        author=author.public,
        seq=head.seq + 1 if head else 1000,
        prev=head.id if head else bytes(32),
        clock=number + 1,
        ts_ms=ts_ms,
        expires_day=expiry_day(ts_ms, 30 * DAY_MS),
        priority=POST.priority,
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
        tags=(),
        stamp_nonce=0,
    )
    return sign_entry(header, author, payload)
