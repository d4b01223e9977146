"""Letters by which members bring each other their group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outlast.kernel.circular import (
    CIRCULAR,
    GROUPS,
    HELD,
    INVITED_BY_ONE_MAX,
    INVITED_MAX,
    SECRET,
    TOLD,
    WAITING,
    WAITING_MAX,
    Circular,
    circulars,
    receive,
)
from outlast.kernel.entry import DAY_MS, Entry, pack
from outlast.kernel.epoch import commitment
from outlast.kernel.log import next_entry
from outlast.kernel.mail import LETTER_MAX_BYTES
from outlast.kernel.room import Letter, Put, RowChanges
from outlast.kernel.space import SEALED, make_closed_genesis
from outlast.kernel.vault import Vault
from tests.unit.kernel.people import NOW_MS, person, secret

OWNER = person("olga")


def genesis(number: int = 0) -> Entry:
    return make_closed_genesis(
        OWNER.signing,
        OWNER.device.certificate,
        f"circle {number}",
        SEALED,
        NOW_MS,
        secret=secret("first", number),
        nonce=secret("nonce", number)[:16],
    )


def entry(space: bytes, number: int, size: int = 300) -> Entry:
    return next_entry(
        OWNER.signing,
        None,
        space=space,
        kind="test",
        payload=bytes(size),
        clock=number,
        ts_ms=NOW_MS,
        life_ms=DAY_MS,
        priority=2,
    )


@pytest.fixture
def vault(tmp_path: Path) -> Any:
    opened = Vault.open(tmp_path / "vault", bytes(32), rooms=(GROUPS,))
    yield opened
    opened.close()


def letter(body: bytes, sender: bytes = bytes(32)) -> Letter:
    return Letter(bytes(16), CIRCULAR.name, body, NOW_MS, sender, bytes(32), NOW_MS)


def read(vault: Vault, *bodies: bytes, sender: bytes = bytes(32)) -> list[RowChanges]:
    """Take these in one after the other, as the inbox does."""
    taken = []
    for body in bodies:
        changes = receive(letter(body, sender), vault)
        vault.transaction(changes, GROUPS.name)
        taken.append(changes)
    return taken


def count(vault: Vault, table: str) -> int:
    return int(vault.query(f"SELECT count(*) FROM {table}")[0][0])


def invitation(number: int = 0, entries: Sequence[Entry] = ()) -> list[bytes]:
    space = genesis(number).id
    return circulars(space, genesis=genesis(number), entries=entries, secrets=[(space, secret("first", number))])


def test_an_invitation_is_noted_with_what_its_genesis_says(vault: Vault) -> None:
    read(vault, *invitation())
    ((space, state, type, name, owner, sender),) = vault.query(
        f"SELECT space, state, type, name, owner, sender FROM {HELD}"
    )
    assert (space, state, type, name) == (genesis().id, "invited", SEALED, "circle 0")
    assert (owner, sender) == (OWNER.identity.public, bytes(32))


def test_as_many_letters_as_it_takes_bring_all_of_it_in_any_order(vault: Vault) -> None:
    space = genesis().id
    entries = [entry(space, number, 1000) for number in range(40)]
    secrets = [(space, secret("first", 0)), *((secret("epoch", n), secret("key", n)) for n in range(300))]
    told = [secret("member", n) for n in range(50)]
    bodies = circulars(space, genesis=genesis(), entries=entries, secrets=secrets, told=told)
    assert all(len(body) <= LETTER_MAX_BYTES for body in bodies)
    read(vault, *reversed(bodies))
    assert {bytes(row[0]) for row in vault.query(f"SELECT packed FROM {WAITING}")} == {pack(one) for one in entries}
    assert count(vault, SECRET) == len(secrets)
    assert count(vault, TOLD) == len(secrets) * (len(told) + 1)
    assert count(vault, HELD) == 1


def test_what_is_too_large_for_a_letter_is_left_to_sync() -> None:
    space = genesis().id
    (body,) = circulars(space, entries=[entry(space, 1, 20_000), entry(space, 2)])
    assert len(CIRCULAR.decode(body).entries) == 1


def test_what_comes_first_waits_for_its_invitation(vault: Vault) -> None:
    space = genesis().id
    read(vault, *circulars(space, entries=[entry(space, 1)]))
    assert (count(vault, HELD), count(vault, WAITING)) == (0, 1)
    read(vault, *invitation())
    assert count(vault, HELD) == 1


def forged(**fields: Any) -> bytes:
    space = genesis().id
    standing: dict[str, Any] = {
        "space": space,
        "genesis": pack(genesis()),
        "entries": (),
        "secrets": ((space, secret("first", 0)),),
        "told": (),
    }
    return msgspec.msgpack.encode(Circular(**(standing | fields)))


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"",
        forged(space=b"short"),
        forged(secrets=((b"short", bytes(32)),)),
        forged(secrets=((bytes(32), b"short"),)),
    ],
)
def test_what_is_no_circular_changes_nothing(vault: Vault, body: bytes) -> None:
    assert receive(letter(body), vault) == ()


@pytest.mark.parametrize(
    "body",
    [
        forged(genesis=pack(genesis(1))),
        forged(genesis=b"garbage"),
        forged(genesis=pack(genesis()) + b"x"),
        forged(genesis=pack(genesis())[:-1]),
        forged(
            genesis=pack(Entry(genesis().header, genesis().header_bytes, bytes(64), genesis().id, genesis().payload))
        ),
        forged(secrets=()),
        forged(secrets=((genesis().id, secret("wrong")),)),
        forged(space=secret("another"), secrets=((secret("another"), secret("first", 0)),)),
    ],
)
def test_an_invitation_that_does_not_hold_invites_nobody(vault: Vault, body: bytes) -> None:
    read(vault, body)
    assert count(vault, HELD) == 0


def test_entries_of_other_spaces_and_garbage_are_left_out(vault: Vault) -> None:
    space = genesis().id
    wanted = entry(space, 1)
    bare = pack(Entry(wanted.header, wanted.header_bytes, wanted.signature, wanted.id, None))
    read(vault, forged(entries=(b"", b"garbage", pack(entry(secret("another"), 1)), bare, pack(wanted))))
    assert [bytes(row[0]) for row in vault.query(f"SELECT id FROM {WAITING}")] == [wanted.id]


def test_strangers_fill_a_vault_only_so_far(vault: Vault) -> None:
    for number in range(INVITED_BY_ONE_MAX + 3):
        read(vault, *invitation(number))
    assert count(vault, HELD) == INVITED_BY_ONE_MAX
    for number in range(INVITED_BY_ONE_MAX, INVITED_MAX + 3):
        read(vault, *invitation(number), sender=secret("stranger", number))
    assert count(vault, HELD) == INVITED_MAX
    space = genesis().id
    entries = [entry(space, number, 1) for number in range(WAITING_MAX + 20)]
    read(vault, *circulars(space, entries=entries))
    assert count(vault, WAITING) == WAITING_MAX
    read(vault, *circulars(space, entries=[entry(space, 10**6, 1)]))
    assert count(vault, WAITING) == WAITING_MAX


def test_one_secret_told_again_and_again_fills_a_vault_only_so_far(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.kernel.circular.TOLD_KEPT_MAX", 100)
    space = genesis().id
    for turn in range(4):
        told = [secret("member", turn * 40 + n) for n in range(40)]
        read(vault, *circulars(space, secrets=[(space, secret("first", 0))], told=told))
    assert (count(vault, SECRET), count(vault, TOLD)) == (1, 100)


def test_a_wrong_secret_stands_beside_the_right_one_and_does_not_replace_it(vault: Vault) -> None:
    space = genesis().id
    read(vault, *invitation(), *circulars(space, secrets=[(space, secret("wrong"))]))
    kept = {bytes(row[0]) for row in vault.query(f"SELECT secret FROM {SECRET} WHERE epoch = ?", (space,))}
    assert {commitment(one) for one in kept} >= {commitment(secret("first", 0))}


def test_rows_are_for_the_groups_tables_alone(vault: Vault) -> None:
    (changes,) = read(vault, *invitation(entries=[entry(genesis().id, 1)]))
    assert {change.table for change in changes} == {HELD, SECRET, TOLD, WAITING}
    assert all(isinstance(change, Put) for change in changes)
