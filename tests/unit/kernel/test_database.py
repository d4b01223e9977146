"""An encrypted file holds whole transactions or nothing of them, whatever happens to the process or the disk."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

import pytest

from outlast.errors import LockedError, StorageError
from outlast.kernel.database import Database, Transaction
from tests.unit.kernel.people import secret

KEY = secret("key")
SCHEMA = ("CREATE TABLE line (n INTEGER PRIMARY KEY, batch INTEGER NOT NULL, text BLOB NOT NULL)",)
PLAIN = b"words that must not stand on the disk"


def database(path: Path, key: bytes = KEY, *, application_id: int = 77, schema: tuple[str, ...] = SCHEMA) -> Database:
    """Open or make the file."""
    return Database.open(path, key, application_id=application_id, schema=schema, scope="view_")


def add(t: Transaction, batch: int, lines: int = 10, size: int = 500) -> None:
    """Write a batch of lines."""
    t.executemany(
        "INSERT INTO line (batch, text) VALUES (?, ?)",
        [(batch, (PLAIN * size)[:size]) for _ in range(lines)],
    )


def batches(db: Database) -> list[int]:
    """The whole batches in the file; fails when one is not whole."""
    rows = db.query("SELECT batch, count(*), sum(length(text)) FROM line GROUP BY batch ORDER BY batch")
    assert all((count, size) == (10, 5000) for _, count, size in rows)
    return [row[0] for row in rows]


def checkpoint(db: Database) -> None:
    """Move the whole log into the file, as happens by itself every few thousand pages."""
    db.read("PRAGMA wal_checkpoint(TRUNCATE)")


def copy(source: Path, target: Path) -> Path:
    """The files as a power cut would leave them now."""
    target.mkdir()
    for suffix in ("", "-wal"):
        if Path(f"{source}{suffix}").exists():
            shutil.copy(f"{source}{suffix}", target / f"{source.name}{suffix}")
    return target / source.name


def held_in(path: Path) -> list[int]:
    """The batches in a file that is not open."""
    db = database(path)
    try:
        return batches(db)
    finally:
        db.close()


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ---- the file ----


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        db = database(tmp_path / "x.db")
        db.write(partial(add, batch=1))
    finally:
        os.umask(old)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["x.db", "x.db-shm", "x.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    db.close()


def test_nothing_stands_in_clear_in_any_file(tmp_path: Path) -> None:
    db = database(tmp_path / "x.db")
    db.write(lambda t: add(t, 1, lines=2000))
    for moved in (False, True):
        if moved:
            checkpoint(db)
        db.write(partial(add, batch=2))
        for file in tmp_path.iterdir():
            content = file.read_bytes()
            for clear in (PLAIN[:12], b"SQLite format", b"CREATE TABLE", b"batch", KEY, KEY.hex().encode()):
                assert clear not in content, (file, clear)
    assert (tmp_path / "x.db").stat().st_size > 1_000_000
    db.close()


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    db = database(tmp_path / "x.db")
    wanted = {"journal_mode": "wal", "synchronous": 2, "temp_store": 2}
    assert {name: db.read(f"PRAGMA {name}")[0][0] for name in wanted} == wanted
    assert db.query("PRAGMA temp_store") == [(2,)]
    db.close()


def test_the_reading_connection_cannot_write(tmp_path: Path) -> None:
    db = database(tmp_path / "x.db")
    with pytest.raises(StorageError):
        db.query("DELETE FROM line")
    db.close()


def test_a_wrong_key_opens_nothing_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    db = database(path)
    db.write(partial(add, batch=1))
    db.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="damaged, or its key belongs to another file"):
        database(path, secret("another key"))
    assert path.read_bytes() == before
    assert held_in(path) == [1]
    with pytest.raises(ValueError, match="32 bytes"):
        database(path, KEY[:31])


def test_files_of_another_kind_or_a_newer_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    database(path, schema=(*SCHEMA, "CREATE TABLE more (n)")).close()
    with pytest.raises(StorageError, match="newer Outlast: update"):
        database(path)
    with pytest.raises(StorageError, match="another kind of file"):
        database(path, application_id=78)


def test_an_older_file_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    db = database(path)
    db.write(partial(add, batch=1))
    db.close()
    newer = (*SCHEMA, "CREATE TABLE more (n); INSERT INTO more SELECT count(*) FROM line")
    for _ in range(2):
        db = database(path, schema=newer)
        assert db.query("SELECT n FROM more") == [(10,)]
        db.close()


def test_an_update_of_the_schema_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    import apsw

    path = tmp_path / "x.db"
    db = database(path)
    db.write(partial(add, batch=1))
    db.close()
    with pytest.raises(apsw.SQLError):
        database(path, schema=(*SCHEMA, "CREATE TABLE more (n)", "CREATE TABLE line (n)"))
    db = database(path)
    assert db.query("SELECT name FROM sqlite_schema WHERE name = 'more'") == []
    db.close()


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0" + bytes(4080), os.urandom(20_000)], ids=len)
def test_a_foreign_file_is_called_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="restore from the backup"):
        database(path)
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"x\.db") as error:
        database(tmp_path / "none" / "x.db")
    assert "\n" not in str(error.value)


def test_several_threads_can_read_at_once(tmp_path: Path) -> None:
    db = database(tmp_path / "x.db")
    long = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) SELECT count(*) FROM n"
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: db.query(long), range(100))) == [[(30_000,)]] * 100
    db.close()


# ---- transactions ----


def test_what_raises_inside_a_transaction_undoes_it(tmp_path: Path) -> None:
    db = database(tmp_path / "x.db")

    def fail(t: Transaction) -> None:
        add(t, 1)
        assert t.query("SELECT count(*) FROM line") == [(10,)]
        raise KeyError("a caller's own")

    with pytest.raises(KeyError, match="own"):
        db.write(fail)
    assert batches(db) == []
    assert db.write(lambda t: t.execute("UPDATE line SET batch = 2")) == 0
    db.write(partial(add, batch=2))
    assert db.write(lambda t: t.execute("UPDATE line SET batch = 3")) == 10
    db.close()


def test_a_write_inside_a_write_is_one_transaction(tmp_path: Path) -> None:
    db = database(tmp_path / "x.db")

    def outer(t: Transaction, fail: bool) -> None:
        add(t, 1)
        db.write(partial(add, batch=2))
        assert batches(db) == []
        if fail:
            raise KeyError

    with pytest.raises(KeyError):
        db.write(partial(outer, fail=True))
    assert batches(db) == []
    db.write(partial(outer, fail=False))
    assert batches(db) == [1, 2]
    db.close()


def test_a_mistake_in_sql_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    import apsw

    db = database(tmp_path / "x.db")
    with pytest.raises(apsw.SQLError):
        db.query("SELECT nothing FROM nowhere")
    with pytest.raises(apsw.ConstraintError):
        db.write(lambda t: t.execute("INSERT INTO line VALUES (1, NULL, x'')"))
    db.close()


# ---- a process that ends at any moment ----


def test_files_copied_at_any_moment_hold_exactly_the_committed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    db = database(path)
    moments: list[tuple[Path, list[int]]] = []

    def step(t: Transaction, batch: int, committed: list[int]) -> None:
        moments.append((copy(path, tmp_path / f"begun{batch}"), committed))
        add(t, batch)
        moments.append((copy(path, tmp_path / f"open{batch}"), committed))

    for batch in range(12):
        db.write(partial(step, batch=batch, committed=list(range(batch))))
        moments.append((copy(path, tmp_path / f"done{batch}"), list(range(batch + 1))))
        if batch % 5 == 4:
            checkpoint(db)
            moments.append((copy(path, tmp_path / f"checkpoint{batch}"), list(range(batch + 1))))
    db.close()
    for file, committed in moments:
        assert held_in(file) == committed, file


def test_a_transaction_larger_than_memory_is_whole_or_absent_too(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    db = database(path)
    db.write(partial(add, batch=1))
    before = Path(f"{path}-wal").stat().st_size

    def spill(t: Transaction) -> None:
        add(t, 2, lines=60, size=500_000)
        assert Path(f"{path}-wal").stat().st_size > before + 2_000_000, "it has begun to write"
        assert held_in(copy(path, tmp_path / "open")) == [1]
        raise KeyError

    with pytest.raises(KeyError):
        db.write(spill)
    assert batches(db) == [1]
    assert held_in(copy(path, tmp_path / "after")) == [1]
    db.close()


WRITER = """
import sys
from functools import partial
from pathlib import Path
from threading import Event
from tests.unit.kernel.test_database import add, database
db = database(Path(sys.argv[1]))
(first,) = db.query("SELECT ifnull(max(batch), -1) + 1 FROM line")[0]
for batch in range(first, first + 100_000):
    db.write(partial(add, batch=batch))
    print(batch, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    acknowledged = -1
    for round_ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                acknowledged = int(line)
                if acknowledged % 40 >= 20 + round_:
                    break
            writer.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        held = held_in(copy(path, tmp_path / f"killed{round_}"))
        assert held == list(range(len(held)))
        assert acknowledged <= held[-1] <= acknowledged + 1
        acknowledged = held[-1]


# ---- a disk that tears, flips or fills up ----


def torn_states(tmp_path: Path) -> tuple[Path, list[int]]:
    """A file that was never checkpointed, and the length of its log after each of its six batches."""
    path = tmp_path / "x.db"
    db = database(path)
    ends = []
    for batch in range(6):
        db.write(partial(add, batch=batch))
        ends.append(Path(f"{path}-wal").stat().st_size)
    kept = copy(path, tmp_path / "kept")
    db.close()
    return kept, ends


def test_a_log_cut_anywhere_opens_at_the_last_whole_commit(tmp_path: Path) -> None:
    path, ends = torn_states(tmp_path)
    log = Path(f"{path}-wal").read_bytes()
    edges = {end + off for end in ends for off in (-4097, -25, -1, 0, 1, 23, 24, 25)}
    for number, length in enumerate(sorted({*range(ends[0], ends[-1], 1999), *edges} & set(range(ends[-1] + 1)))):
        if length < ends[0] - 5000:
            continue
        torn = copy(path, tmp_path / f"cut{number}")
        Path(f"{torn}-wal").write_bytes(log[:length])
        whole = sum(end <= length for end in ends)
        assert held_in(torn) == list(range(whole)), length


def test_a_flipped_bit_in_the_log_opens_at_the_last_whole_commit_before_it(tmp_path: Path) -> None:
    path, ends = torn_states(tmp_path)
    log = Path(f"{path}-wal").read_bytes()
    for number, at in enumerate(range(ends[0], ends[-1], 1511)):
        torn = copy(path, tmp_path / f"flip{number}")
        Path(f"{torn}-wal").write_bytes(log[:at] + bytes([log[at] ^ 0x10]) + log[at + 1 :])
        whole = sum(end <= at for end in ends)
        assert held_in(torn) == list(range(whole)), at
        db = database(torn)
        db.write(partial(add, batch=whole))
        assert batches(db) == list(range(whole + 1))
        db.close()


def test_pages_torn_while_the_log_is_moved_into_the_file_come_back_from_the_log(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    db = database(path)
    for batch in range(3):
        db.write(partial(add, batch=batch))
    checkpoint(db)
    for batch in range(3, 8):
        db.write(partial(add, batch=batch))
    kept = copy(path, tmp_path / "kept")
    before = path.read_bytes()
    checkpoint(db)
    after = path.read_bytes()
    db.close()
    before = before.ljust(len(after), b"\0")
    pages = [at for at in range(0, len(after), 4096) if before[at : at + 4096] != after[at : at + 4096]]
    assert len(pages) > 5
    for number, torn_at in enumerate(range(0, 4096, 256)):
        mixed = bytearray(before)
        for at in pages[: number % len(pages) + 1]:
            mixed[at : at + torn_at] = after[at : at + torn_at]
        torn = copy(kept, tmp_path / f"torn{number}")
        torn.write_bytes(mixed)
        assert held_in(torn) == list(range(8)), torn_at


def test_a_flipped_bit_in_the_file_is_never_taken_for_content(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    db = database(path)
    for batch in range(20):
        db.write(partial(add, batch=batch))
    db.close()
    content = path.read_bytes()
    for at in range(0, len(content), 1777):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            assert held_in(path) == list(range(20)), at
        except StorageError as error:
            assert "restore from the backup" in str(error)  # noqa: PT017
        else:
            assert at < 32, at  # some bytes in the open head of the file say nothing


def test_a_full_disk_at_any_write_loses_nothing_and_the_file_works_on(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    db = database(path)
    db.write(partial(add, batch=0))
    refused = 0
    held = [0]
    for batch in range(1, 60):
        log = Path(f"{path}-wal").stat().st_size
        room = batch * 977 % 16_000
        try:
            with files_end_at(max(log, path.stat().st_size) + room):
                db.write(partial(add, batch=batch))
            held.append(batch)
        except StorageError as error:
            refused += 1
            assert "nothing acknowledged is lost" in str(error)  # noqa: PT017
        assert batches(db) == held
        if batch % 20 == 0:
            assert held_in(copy(path, tmp_path / f"copy{batch}")) == held
            checkpoint(db)
    assert refused > 10
    assert len(held) > 10
    db.write(partial(add, batch=99))
    assert batches(db) == [*held, 99]
    db.close()
    assert held_in(path) == [*held, 99]


def test_a_full_disk_while_the_log_is_moved_into_the_file_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    db = database(path)
    for batch in range(10):
        db.write(partial(add, batch=batch))
    with files_end_at(path.stat().st_size + 5000), pytest.raises(StorageError, match="nothing acknowledged is lost"):
        checkpoint(db)
    assert batches(db) == list(range(10))
    assert held_in(copy(path, tmp_path / "copy")) == list(range(10))
    checkpoint(db)
    assert Path(f"{path}-wal").stat().st_size == 0
    db.close()
    assert held_in(path) == list(range(10))


def test_a_disk_without_room_for_a_new_file_gets_one_line(tmp_path: Path) -> None:
    with files_end_at(0), pytest.raises(StorageError) as error:
        database(tmp_path / "x.db")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x.db").exists()
    database(tmp_path / "x.db").close()


def test_a_log_without_its_file_is_no_part_of_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    db = database(path)
    db.write(partial(add, batch=1))
    kept = copy(path, tmp_path / "kept")
    db.close()
    kept.unlink()
    assert held_in(kept) == []


def test_a_damaged_page_anywhere_in_the_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    db = database(path)
    db.write(partial(add, batch=1, lines=200))
    assert db.is_sound()
    db.close()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    db = database(path)
    assert not db.is_sound()
    db.close()


def test_a_file_that_is_closed_while_another_thread_reads_it_is_read_to_the_end(tmp_path: Path) -> None:
    count = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 300000) SELECT count(*) FROM c"
    db = database(tmp_path / "file.db")
    began = Event()

    def read() -> list[tuple[int]]:
        began.set()
        return db.query(count)

    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(read)
        began.wait()
        while not db._reading.locked() and not reading.done():
            pass
        db.close()
        assert reading.result() == [(300_000,)]
    for ask in (db.query, db.read):
        with pytest.raises(LockedError):
            ask("SELECT 1")
    with pytest.raises(LockedError):
        db.write(add_nothing)


def add_nothing(_t: Transaction) -> None:
    """Write nothing."""
