"""Long runs of the storage: processes killed in open transactions, a disk that is full at every write, torn pages.

Each prints what it counted. In the suite they make few rounds, in `dev.py soak storage` many.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outlast.errors import StorageError
from outlast.kernel.room import Put
from outlast.kernel.store import Incoming, Store
from outlast.kernel.vault import Transaction, Vault
from tests.unit.kernel.entries import DAY, KEY, TOY, post
from tests.unit.kernel.people import secret

WRITER = """
import sys
from pathlib import Path
from tests.soak.test_storage import write_for_ever
write_for_ever(Path(sys.argv[1]), int(sys.argv[2]))
"""


def batch_of(number: int) -> list[Incoming]:
    """Batch `number`: 1 to 40 entries with payloads of 0 to 20 kB, some to expire soon."""
    chance = random.Random(number)
    return [
        Incoming(
            post(
                number * 100 + place,
                payload=bytes(chance.choice((0, 300, 900, 5_000, 20_000))),
                day=DAY + chance.choice((0, 10, 20)),
                tags=(secret("tag", number, place)[:16],),
            )
        )
        for place in range(chance.randint(1, 40))
    ]


def write_for_ever(folder: Path, first: int) -> None:
    """Append, fold and note in the vault, one batch after another; tell when each begins and when it is durable."""
    store = Store.open(folder / "store.db", KEY, rooms=[TOY])
    vault = Vault.open(folder / "vault.db", KEY, rooms=[TOY])
    number = first
    while True:
        batch = batch_of(number)

        def note(t: Transaction, number: int = number) -> None:
            t.apply([Put("local_toy_note", {"id": number, "text": f"batch {number}"})], "toy")
            print("open", number, flush=True)

        def keep(batch: list[Incoming] = batch, number: int = number) -> None:
            store.append(batch)
            print("open", number, flush=True)
            store.fold("toy")

        vault.write(note)
        store.together(keep)
        print("kept", number, flush=True)
        if number % 7 == 0:
            store.rebuild()
        number += 1


def whole_batches(folder: Path) -> tuple[int, int]:
    """How many batches the store and the vault hold; fails when one is not whole or the view tells otherwise."""
    store = Store.open(folder / "store.db", KEY, rooms=[TOY])
    vault = Vault.open(folder / "vault.db", KEY, rooms=[TOY])
    assert store.query("PRAGMA integrity_check") == [("ok",)]
    assert vault.query("PRAGMA integrity_check") == [("ok",)]
    number = total = 0
    while known := store.known([item.entry.id for item in batch_of(number)]):
        assert len(known) == len(batch_of(number)), number
        total += len(known)
        number += 1
    assert store.usage().entries == total
    while store.fold("toy"):
        pass
    assert store.query("SELECT count(*) FROM view_toy_post") == [(total,)]
    if number:
        for item in batch_of(number - 1):
            entry = store.get(item.entry.id)
            assert entry is not None
            assert entry.payload == item.entry.payload
    notes = [row[0] for row in vault.query("SELECT id FROM local_toy_note ORDER BY id")]
    assert notes == list(range(len(notes)))
    store.close()
    vault.close()
    return number, len(notes)


def test_nothing_acknowledged_is_lost_to_kill_9(tmp_path: Path, soaking: bool) -> None:
    rounds = 200 if soaking else 6
    chance = random.Random(1)
    kept = total = lost = in_the_open = 0
    folder = tmp_path
    for round_ in range(rounds):
        if round_ % 10 == 0:  # what is checked grows with what is there
            folder = tmp_path / str(round_)
            folder.mkdir()
            total, kept = total + kept, 0
        command = [sys.executable, "-c", WRITER, folder, str(kept)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            last = ""
            for _ in range(chance.randint(1, 60)):
                last = writer.stdout.readline()
            writer.kill()
            lines = [last, *writer.stdout.read().splitlines(keepends=True)]
        said = [line.split() for line in lines if line.endswith("\n")]  # half a line acknowledges nothing
        acknowledged = max((int(number) + 1 for word, number in said if word == "kept"), default=kept)
        in_the_open += said[-1][0] == "open"
        held, noted = whole_batches(folder)
        lost += max(0, acknowledged - held) + max(0, held - noted)
        assert held <= noted <= held + 1
        if noted > held:
            # What stands in the vault alone is what a node hands to its store again at the next start.
            store = Store.open(folder / "store.db", KEY, rooms=[TOY])
            store.append(batch_of(held))
            store.close()
        kept = noted
    print(f"killed {rounds} times, {in_the_open} of them in an open transaction; batches {total + kept}, lost {lost}")
    assert lost == 0
    assert in_the_open >= (rounds // 2 if soaking else 1)


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[int], None]]:
    """A disk of 8 MiB in `folder`, if this user may mount one; what it gives sets how many bytes are left on it."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        yield from small_files()
        return
    filler = folder / "filler"

    def leave(size: int) -> None:
        filler.unlink(missing_ok=True)
        left = os.statvfs(folder)
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, left.f_bavail * left.f_frsize - size))

    try:
        yield leave
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def small_files() -> Iterator[Callable[[int], None]]:
    """In place of a small disk: no file of this process can grow beyond a size."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def leave(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    try:
        yield leave
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.serial
def test_nothing_acknowledged_is_lost_to_a_full_disk(tmp_path: Path, soaking: bool) -> None:
    """With every amount of room from none to enough, in steps of a page and less, a whole run is tried."""
    step = 2048 if soaking else 65_536
    refused = finished = acknowledged = 0
    with small_disk(tmp_path / "disk") as leave:
        home = tmp_path / "disk" / "home"
        for room in range(0, 2_400_000, step):
            leave(8_000_000)
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            store = vault = None
            number, noted, kept = 0, set[int](), set[int]()
            leave(room)
            try:
                store = Store.open(home / "store.db", KEY, rooms=[TOY])
                vault = Vault.open(home / "vault.db", KEY, rooms=[TOY])
                for number in range(4):
                    vault.transaction([Put("local_toy_note", {"id": number, "text": f"batch {number}"})], "toy")
                    noted.add(number)
                    store.append(batch_of(number))
                    kept.add(number)
                    store.fold("toy")
                    store.expire(DAY - 1)
                finished += 1
            except StorageError as error:
                refused += 1
                assert "\n" not in str(error)  # noqa: PT017
            leave(8_000_000)
            # There is room again: the same objects go on where they were.
            store = store or Store.open(home / "store.db", KEY, rooms=[TOY])
            vault = vault or Vault.open(home / "vault.db", KEY, rooms=[TOY])
            assert all(len(store.known([i.entry.id for i in batch_of(n)])) == len(batch_of(n)) for n in kept)
            assert {row[0] for row in vault.query("SELECT id FROM local_toy_note")} >= noted
            for n in range(4):
                vault.transaction([Put("local_toy_note", {"id": n, "text": f"batch {n}"})], "toy")
                store.append(batch_of(n))
            store.close()
            vault.close()
            assert whole_batches(home) == (4, 4)
            acknowledged += len(noted) + len(kept)
    print(f"full disk: {refused} runs refused, {finished} not, {acknowledged} acknowledged writes, lost 0")
    assert refused > 2
    assert finished > 0


def test_a_torn_end_opens_at_the_last_whole_transaction(tmp_path: Path, soaking: bool) -> None:
    """The last sectors of the log hold what was there before, zeros or noise, in every mixture tried."""
    rounds = 400 if soaking else 20
    chance = random.Random(2)
    source = tmp_path / "source"
    source.mkdir()
    store = Store.open(source / "store.db", KEY, rooms=[TOY])
    vault = Vault.open(source / "vault.db", KEY, rooms=[TOY])
    log = source / "store.db-wal"
    ends = []
    for number in range(5):
        vault.transaction([Put("local_toy_note", {"id": number, "text": ""})], "toy")
        store.append(batch_of(number))
        ends.append(log.stat().st_size)
    content = log.read_bytes()
    opened = {4: 0, 5: 0}
    for round_ in range(rounds):
        torn = tmp_path / f"torn{round_}"
        shutil.copytree(source, torn, ignore=shutil.ignore_patterns("*-shm"))
        damaged = bytearray(content)
        for at in range(ends[3] // 512 * 512 + 512, ends[4], 512):
            if chance.random() < 2 / ((ends[4] - ends[3]) / 512):
                damaged[at : at + 512] = chance.choice((bytes(512), chance.randbytes(512), content[at - 512 : at]))
        (torn / "store.db-wal").write_bytes(damaged[: ends[4]])
        expected = 5 if bytes(damaged[: ends[4]]) == content[: ends[4]] else 4
        assert whole_batches(torn) == (expected, 5)
        opened[expected] += 1
        shutil.rmtree(torn)
    store.close()
    vault.close()
    print(f"torn {rounds} times: {opened[4]} opened at the commit before, {opened[5]} were not hit, lost 0")
    assert opened[4] > rounds / 3


def test_a_million_entries_open_and_answer_at_once(tmp_path: Path, soaking: bool) -> None:
    """Opening takes under three seconds, a look at anything under a fifth of one."""
    count = 1_000_000 if soaking else 20_000
    path = tmp_path / "store.db"
    store = Store.open(path, KEY, rooms=[TOY])
    for at in range(0, count, 2000):
        store.append([Incoming(post(n, day=DAY + n % 30, tags=(secret(n)[:16],))) for n in range(at, at + 2000)])
    store.close()
    took = {}
    start = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        took[name] = time.perf_counter() - start
        start = time.perf_counter()

    store = Store.open(path, KEY, rooms=[TOY])
    lap("open")
    assert store.get(post(5, day=DAY + 5, tags=(secret(5)[:16],)).id) is not None
    assert store.by_tags([secret(7)[:16], secret("none")[:16]])
    assert store.usage().entries == count
    assert sum(number for _, number in store.buckets(secret("space"))) == count
    lap("look")
    assert store.bucket(secret("space"), DAY + 3)[1].shape == (-(-(count - 3) // 30), 32)
    lap("bucket")
    assert store.expire(DAY + 1, limit=1000) == min(1000, -(-count // 30))
    lap("expire 1000")
    store.close()
    print(f"{count} entries:", ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in took.items()))
    assert took["open"] < 3
    assert took["look"] < 0.2
