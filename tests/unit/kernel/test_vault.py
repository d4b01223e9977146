"""A vault is written whole, by rooms in their own tables only, and comes back from a backup."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outlast.errors import StorageError
from outlast.kernel.backup import RoomRows, TableRows
from outlast.kernel.room import Delete, Put, Room
from outlast.kernel.store import Store
from outlast.kernel.vault import Transaction, Vault
from tests.unit.kernel.entries import KEY, TOY
from tests.unit.kernel.people import secret

SHOP = Room("shop", 1, migrations=("CREATE TABLE local_shop_item (id INTEGER PRIMARY KEY, name TEXT)",))
SEARCH = Room(
    "search",
    1,
    migrations=(
        "CREATE TABLE local_search_text (id INTEGER PRIMARY KEY, words TEXT NOT NULL)",
        "CREATE VIRTUAL TABLE local_search_index USING fts5(words, content='local_search_text', content_rowid='id')",
        "CREATE TRIGGER local_search_put AFTER INSERT ON local_search_text BEGIN"
        " INSERT INTO local_search_index (rowid, words) VALUES (new.id, new.words); END",
        "ALTER TABLE local_search_text ADD COLUMN at_ms INTEGER",
    ),
)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """An empty vault with two rooms."""
    opened = Vault.open(tmp_path / "vault.db", KEY, rooms=[TOY, SHOP])
    yield opened
    opened.close()


def notes(vault: Vault) -> list[tuple[object, ...]]:
    """The toy room's rows."""
    return vault.query("SELECT id, text, extra FROM local_toy_note ORDER BY id")


def found(vault: Vault, word: str) -> list[int]:
    """The rows in which the search room finds a word."""
    return [row[0] for row in vault.query("SELECT rowid FROM local_search_index WHERE words MATCH ?", (word,))]


def test_the_kernels_tables_are_there(vault: Vault) -> None:
    names = {row[0] for row in vault.query("SELECT name FROM pragma_table_list WHERE schema = 'main'")}
    assert names >= {
        *("meta", "contact", "device", "prekey", "counter", "opened", "sent", "custody", "seen_letter", "outbox"),
        *("bundle_out", "bundle_in", "held_by", "bundle_part", "invite", "local_toy_note", "local_shop_item"),
    }


def test_row_changes_are_written_all_or_none(vault: Vault) -> None:
    vault.transaction([Put("local_toy_note", {"id": 1, "text": "a"}), Put("local_toy_note", {"id": 2, "text": "b"})])
    with pytest.raises(StorageError):
        vault.transaction([Delete("local_toy_note", {"id": 1}), Put("local_toy_note", {"id": 3, "words": ""})])
    vault.transaction([Put("local_toy_note", {"id": 2, "extra": b"\0", "text": "c"})], room="toy")
    assert notes(vault) == [(1, "a", None), (2, "c", b"\0")]


@pytest.mark.parametrize(
    ("room", "table"),
    [
        (None, "meta"),
        (None, "view_toy_post"),
        (None, "LOCAL_toy_note"),
        (None, "local_toy_missing"),
        ("toy", "local_shop_item"),
        ("to", "local_toy_note"),
        ("toy", "contact"),
    ],
)
def test_a_room_reaches_its_own_rows_only(vault: Vault, room: str | None, table: str) -> None:
    for change in (Put(table, {"id": 1}), Delete(table, {})):
        with pytest.raises(StorageError, match="table"):
            vault.transaction([change], room)


def test_kernel_and_room_write_in_one_transaction(vault: Vault) -> None:
    def act(t: Transaction, fail: bool) -> int:
        t.execute("INSERT INTO opened VALUES (?, ?)", (secret(1), 20_000))
        t.executemany(
            "INSERT INTO custody VALUES (?, ?, ?)", [(secret(1)[:16], "kept", 1), (secret(1)[:16], "read", 2)]
        )
        t.apply([Put("local_toy_note", {"id": 1, "text": "a"})], "toy")
        if fail:
            raise KeyError
        return len(t.query("SELECT * FROM custody"))

    with pytest.raises(KeyError):
        vault.write(lambda t: act(t, True))
    assert (notes(vault), vault.query("SELECT * FROM opened")) == ([], [])
    assert vault.write(lambda t: act(t, False)) == 2
    assert vault.read("SELECT count(*) FROM opened") == [(1,)]
    assert notes(vault) == [(1, "a", None)]


def test_values_are_kept_over_closing(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    for value in (None, b"name"):
        vault = Vault.open(path, KEY)
        assert vault.meta("name") == value
        vault.write(lambda t: t.execute("INSERT OR IGNORE INTO meta VALUES ('name', ?)", (b"name",)))
        vault.close()
        vault.close()


def test_store_and_vault_are_not_taken_for_each_other(tmp_path: Path) -> None:
    Vault.open(tmp_path / "vault.db", KEY).close()
    Store.open(tmp_path / "store.db", KEY).close()
    with pytest.raises(StorageError, match="another kind of file"):
        Store.open(tmp_path / "vault.db", KEY)
    with pytest.raises(StorageError, match="another kind of file"):
        Vault.open(tmp_path / "store.db", KEY)


def test_what_is_deleted_leaves_no_trace_even_for_who_has_the_key(vault: Vault) -> None:
    assert vault.read("PRAGMA secure_delete") == [(1,)]


# ---- migrations ----


def test_migrations_run_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    for upto in range(1, 5):
        vault = Vault.open(path, KEY, rooms=[replace(SEARCH, migrations=SEARCH.migrations[:upto])])
        vault.transaction([Put("local_search_text", {"id": upto, "words": f"word{upto}"})])
        vault.close()
    vault = Vault.open(path, KEY, rooms=[SEARCH])
    assert vault.query("SELECT id, words, at_ms FROM local_search_text") == [(n, f"word{n}", None) for n in range(1, 5)]
    assert [found(vault, f"word{n}") for n in (3, 4)] == [[3], [4]]
    vault.close()


def test_rows_of_a_newer_room_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    Vault.open(path, KEY, rooms=[SEARCH]).close()
    with pytest.raises(StorageError, match="newer version of search: update"):
        Vault.open(path, KEY, rooms=[replace(SEARCH, migrations=SEARCH.migrations[:2])])


def test_rows_of_a_room_that_is_away_stay(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    vault = Vault.open(path, KEY, rooms=[SHOP])
    vault.transaction([Put("local_shop_item", {"id": 1, "name": "bread"})])
    vault.close()
    away = Vault.open(path, KEY, rooms=[TOY])
    assert away.room_rows()["shop"].tables["local_shop_item"].rows == [[1, "bread"]]
    away.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE item (id)",
        "CREATE TABLE local_toy_item (id)",
        "DROP TABLE contact",
        "CREATE VIEW view_shop_x AS SELECT 1",
    ],
)
def test_a_migration_makes_the_rooms_own_tables_only(tmp_path: Path, statement: str) -> None:
    with pytest.raises(StorageError, match="local_shop_"):
        Vault.open(tmp_path / "vault.db", KEY, rooms=[replace(SHOP, migrations=(statement,))])
    Vault.open(tmp_path / "vault.db", KEY, rooms=[SHOP]).close()


def test_a_migration_that_fails_leaves_the_vault_as_it_was(tmp_path: Path) -> None:
    import apsw

    path = tmp_path / "vault.db"
    vault = Vault.open(path, KEY, rooms=[SHOP])
    vault.transaction([Put("local_shop_item", {"id": 1, "name": "bread"})])
    vault.close()
    worse = ("ALTER TABLE local_shop_item ADD COLUMN price INTEGER", "ALTER TABLE local_shop_none ADD COLUMN x")
    with pytest.raises(apsw.SQLError):
        Vault.open(path, KEY, rooms=[replace(SHOP, migrations=(*SHOP.migrations, *worse))])
    vault = Vault.open(path, KEY, rooms=[SHOP])
    assert vault.query("SELECT * FROM local_shop_item") == [(1, "bread")]
    vault.close()


# ---- backup and restore ----


def test_private_rows_come_back_through_the_migrations_made_since(tmp_path: Path) -> None:
    older = replace(SEARCH, migrations=SEARCH.migrations[:3])
    vault = Vault.open(tmp_path / "old.db", KEY, rooms=[older, TOY])
    vault.transaction(
        [
            Put("local_search_text", {"id": 7, "words": "привет мир"}),
            Put("local_toy_note", {"id": -(2**63), "text": "", "extra": b"\xff"}),
            Put("local_toy_note", {"id": 2**63 - 1, "text": "ü", "extra": 0.5}),
        ]
    )
    backup, before = vault.room_rows(), notes(vault)
    vault.close()
    assert set(backup["search"].tables) == {"local_search_text"}, "an index is made anew"
    restored = Vault.open(tmp_path / "new.db", secret("other"), rooms=[SEARCH, TOY, SHOP], restore=backup)
    assert restored.query("SELECT id, words, at_ms FROM local_search_text") == [(7, "привет мир", None)]
    assert found(restored, "мир") == [7]
    assert notes(restored) == before
    assert restored.room_rows()["search"].migrated == 4
    restored.close()


@pytest.mark.parametrize(
    "rows",
    [
        RoomRows(5, {}),
        RoomRows(1, {"meta": TableRows(["name", "value"], [["entropy", b""]])}),
        RoomRows(1, {"local_shop_item": TableRows(["id"], [[1]])}),
        RoomRows(1, {"local_toy_note": TableRows(["id", "words"], [[1, ""]])}),
        RoomRows(1, {"local_toy_gone": TableRows(["id"], [[1]])}),
    ],
)
def test_a_backup_that_does_not_fit_restores_nothing(tmp_path: Path, rows: RoomRows) -> None:
    with pytest.raises(StorageError):
        Vault.open(tmp_path / "vault.db", KEY, rooms=[TOY, SHOP], restore={"toy": rows})
    vault = Vault.open(tmp_path / "vault.db", KEY)
    assert vault.query("SELECT 1 FROM sqlite_schema WHERE name GLOB 'local_*'") == []
    vault.close()


def test_a_backup_is_never_poured_over_a_vault_in_use(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    vault = Vault.open(path, KEY, rooms=[TOY])
    backup = vault.room_rows()
    vault.close()
    with pytest.raises(StorageError, match="new vault"):
        Vault.open(path, KEY, rooms=[TOY], restore=backup)
