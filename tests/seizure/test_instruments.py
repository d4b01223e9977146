"""What the other files here look with sees what it is meant to see: each is given a leak, and must find it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import apsw
import msgspec
import pytest
from cryptography.exceptions import InvalidSignature

from outlast.kernel import mail
from outlast.kernel.entry import HOUR_MS, Entry, expiry_day, sign_entry
from outlast.kernel.identity import SigningKey, id_text, node_text
from outlast.kernel.node import COMMON_SPACES, find_rooms
from outlast.kernel.store import Incoming, Store
from tests.seizure import likeness, needles, replay
from tests.seizure.taken import Taken, decrypt, open_file

KEY = replay.KEY
HOUR = 500_000 * HOUR_MS
SECRET = b"the words that nobody may find, not in any place of any file"


def envelope(payload: bytes, **changed: object) -> Entry:
    """An envelope around these sealed bytes."""
    author = SigningKey.from_seed(os.urandom(32))
    header = mail.MAIL_GENESIS.__class__(
        version=1,
        space=mail.MAIL_SPACE,
        kind=mail.MAIL_KIND,
        author=author.public,
        seq=0,
        prev=None,
        clock=0,
        ts_ms=HOUR,
        expires_day=expiry_day(HOUR, mail.MAIL_LIFE_DAYS * 86_400_000),
        priority=1,
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
        tags=(os.urandom(16),),
        stamp_nonce=0,
    )
    header = msgspec.structs.replace(header, **changed)
    return sign_entry(header, author, payload)


def sealed(mark: Callable[[bytearray], None] = lambda _: None) -> bytes:
    """512 random bytes as HPKE's look, with a mark."""
    data = bytearray(os.urandom(512))
    data[31] &= 0x7F
    mark(data)
    return bytes(data)


def honest(count: int) -> list[Entry]:
    """So many envelopes that tell nothing."""
    return [envelope(sealed()) for _ in range(count)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A relay's store with some mail."""
    new = Store.open(tmp_path / "store.db", KEY, rooms=find_rooms())
    for space in COMMON_SPACES:
        new.put_space(space)
    new.append([Incoming(one) for one in honest(20)])
    for room in find_rooms():
        new.fold(room.name)
    return new


def alter(store: Store, *statements: str) -> None:
    """Write what a careless node might write."""
    for statement in statements:
        store.together(lambda s=statement: store._write(lambda t: t.execute(s)))  # type: ignore[misc]


def test_honest_envelopes_pass_all_tests() -> None:
    some = honest(200)
    likeness.have_equal_headers(some)
    likeness.share_no_keys(some)
    likeness.share_no_run([likeness.own_bytes(one) for one in some])
    likeness.look_random(b"".join((one.payload or b"") for one in some))
    likeness.have_no_mark(likeness.bits_of(some))
    likeness.do_not_cluster(likeness.bits_of(some), [number % 3 for number in range(200)])


@pytest.mark.parametrize(
    "changed",
    [
        {"ts_ms": HOUR + 1},
        {"expires_day": 1},
        {"priority": 2},
        {"stamp_nonce": 7},
        {"clock": 1},
        {"seq": 1},
        {"tags": ()},
        {"tags": (b"a" * 16, b"b" * 16)},
        {"kind": "post"},
        {"payload_size": 700},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_header_that_is_not_like_all_is_noticed(changed: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        likeness.have_equal_headers([*honest(3), envelope(sealed(), **changed)])


def test_a_tag_or_a_payload_that_comes_twice_is_noticed() -> None:
    first = envelope(sealed())
    for again in (envelope(sealed(), tags=first.header.tags), envelope(first.payload or b"")):
        with pytest.raises(AssertionError, match="two envelopes have one"):
            likeness.have_equal_headers([first, *honest(3), again])


def test_an_author_or_an_encapsulated_key_that_comes_twice_is_noticed() -> None:
    first = envelope(sealed())
    enc = (first.payload or b"")[:32]
    for again in (
        envelope(sealed(), author=first.header.author),
        envelope(enc + sealed()[32:]),
        envelope(first.header.author + sealed()[32:]),
    ):
        with pytest.raises(AssertionError, match="stands in two places"):
            likeness.share_no_keys([first, *honest(3), again])


def test_eight_bytes_that_stand_in_two_envelopes_are_noticed_wherever_they_stand() -> None:
    mark = os.urandom(8)
    things = [os.urandom(700) for _ in range(50)]
    likeness.share_no_run(things)
    with pytest.raises(AssertionError, match="stands in number"):
        likeness.share_no_run([*things, os.urandom(100) + mark + os.urandom(9), os.urandom(300) + mark])


@pytest.mark.parametrize(
    "data",
    [
        bytes(100_000),
        os.urandom(90_000) + bytes(10_000),
        os.urandom(95_000) + b"plain text, " * 500,
        bytes(range(256)) * 400,
    ],
    ids=["zeros", "padding", "text", "even but in order"],
)
def test_bytes_that_are_not_random_are_noticed(data: bytes) -> None:
    with pytest.raises(AssertionError, match="spread evenly"):
        likeness.look_random(data)


def test_one_bit_that_one_sort_of_letter_always_sets_is_noticed() -> None:
    def mark(data: bytearray) -> None:
        data[300] |= 0x10

    with pytest.raises(AssertionError, match="bit"):
        likeness.have_no_mark(likeness.bits_of([envelope(sealed(mark)) for _ in range(60)]))


def test_a_few_bits_that_only_a_pair_shares_are_noticed() -> None:
    """Nothing stands out for who does not know the pairs: half of all have one secret pattern, half its opposite."""
    pattern = os.urandom(3)

    def mark(one: bool) -> Callable[[bytearray], None]:
        def put(data: bytearray) -> None:
            data[200:203] = bytes(byte ^ (0 if one else 255) for byte in pattern)

        return put

    some = [envelope(sealed(mark(number % 2 == 0))) for number in range(240)]
    likeness.have_no_mark(likeness.bits_of(some))
    with pytest.raises(AssertionError, match="agree by"):
        likeness.do_not_cluster(likeness.bits_of(some), [number % 2 for number in range(240)])


@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE entry SET rank = rank + 1 WHERE n = 5"],
        ["ALTER TABLE entry ADD COLUMN source BLOB"],
        ["UPDATE entry SET author = x'00112233' WHERE n = 5"],
        ["INSERT INTO tag VALUES (12345, 5)"],
        ["ALTER TABLE entry ADD COLUMN at_ms INTEGER", "UPDATE entry SET at_ms = 1800000000000 + n"],
        ["CREATE TABLE copied (n INTEGER, neighbour BLOB)"],
        ["CREATE INDEX view_carry_more ON entry (ts_ms)"],
        ["INSERT INTO spent VALUES (20000, x'00112233', 700)"],
        ["INSERT INTO refused VALUES (x'00112233', 20000)"],
        ["UPDATE bucket SET bytes = bytes + 1"],
        ["INSERT INTO change (event, n) VALUES (2, 5)"],
        ["INSERT INTO view_carry_channel (space) VALUES (x'00112233')"],
    ],
    ids=lambda statements: statements[-1][:40],
)
def test_whatever_a_store_remembers_beside_what_came_is_noticed(
    store: Store, tmp_path: Path, statements: list[str]
) -> None:
    path = tmp_path / "again"
    path.mkdir()
    assert replay.differences(open_file(tmp_path / "store.db", KEY), path) == []
    alter(store, *statements)
    store.close()
    (path / "again.db").unlink()
    assert replay.differences(open_file(tmp_path / "store.db", KEY), path) != []


class TestSearch:
    def found(self, folder: Path, store: Store) -> list[str]:
        taken = Taken(open_file(folder / "store.db", KEY), [], {})
        return needles.search(needles.of_bytes("the words", SECRET), taken.everything())

    def test_it_sees_what_is_there(self, store: Store, tmp_path: Path) -> None:
        assert self.found(tmp_path, store) == []
        store.set_meta("note", b"said: " + SECRET)
        assert len(self.found(tmp_path, store)) >= 2, "in the log, and in the table"
        store.close()
        assert len(self.found(tmp_path, store)) >= 2, "in the file, and in the table"

    def test_it_sees_what_was_deleted_while_it_stands_in_a_free_page_or_in_the_log(
        self, store: Store, tmp_path: Path
    ) -> None:
        store.set_meta("note", SECRET * 1000)
        store.set_meta("note", b"")
        assert self.found(tmp_path, store), "in the log"
        store.close()
        assert not (tmp_path / "store.db-wal").exists()
        assert self.found(tmp_path, store), "in free pages"
        connection = apsw.Connection(str(tmp_path / "store.db"))
        connection.pragma("cipher", "chacha20")
        connection.pragma("key", f"raw:{KEY.hex()}")
        connection.execute("VACUUM")
        connection.close()
        assert self.found(tmp_path, store) == []

    def test_it_sees_names_of_tables_and_of_files(self, store: Store, tmp_path: Path) -> None:
        alter(store, "CREATE TABLE kingfisher (a)")
        sought = needles.of_text("a bird", "Kingfisher")
        taken = Taken(open_file(tmp_path / "store.db", KEY), [], {"kingfisher.txt": b""})
        assert {one.split(" in ")[1].split()[0] for one in needles.search(sought, taken.everything())} == {
            "page",
            "table",
            "file",
        }

    @pytest.mark.parametrize("form", [bytes, bytes.hex, id_text, node_text], ids=["raw", "hex", "ID", "node"])
    def test_it_sees_keys_however_they_are_written(self, form: Callable[[bytes], bytes | str]) -> None:
        key = os.urandom(32)
        written = form(key)
        data = b"before " + (written if isinstance(written, bytes) else written.encode()) + b" behind"
        assert needles.search(needles.of_bytes("key", key), [("here", data)])
        assert needles.search(needles.of_bytes("key", os.urandom(32)), [("here", data)]) == []

    def test_another_key_opens_no_page(self, store: Store, tmp_path: Path) -> None:
        page = (tmp_path / "store.db").read_bytes()[4096:8192]
        assert len(decrypt(page, 2, KEY)) == 4064
        for wrong in ((page, 3, KEY), (page, 2, b"k" * 32), (page[:-1] + bytes([page[-1] ^ 1]), 2, KEY)):
            with pytest.raises(InvalidSignature):
                decrypt(*wrong)


def test_a_replayed_store_must_have_the_same_entries(store: Store, tmp_path: Path) -> None:
    opened = open_file(tmp_path / "store.db", KEY)
    tables = opened.tables | {"entry": opened.tables["entry"][:-1]}
    with pytest.raises(KeyError):
        replay.differences(replace(opened, tables=tables), tmp_path)
