"""The genesis of closed spaces."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from outlast.errors import UsageError
from outlast.kernel.entry import HOUR_MS, Entry
from outlast.kernel.kinds import KindError
from outlast.kernel.space import (
    CLOSED,
    GENESIS,
    MEMBERS,
    SEALED,
    SpaceBody,
    is_valid_genesis,
    make_closed_genesis,
    make_genesis,
    open_genesis,
    read_genesis,
)
from tests.unit.kernel.people import NOW_MS, person, secret

OWNER = person("olga")
SECRET = secret("first epoch")


def founded(type: str, **fields: Any) -> Entry:
    standing: dict[str, Any] = {"secret": SECRET, "nonce": secret("nonce")[:16]}
    return make_closed_genesis(
        OWNER.signing, OWNER.device.certificate, "reading circle", type, NOW_MS, **(standing | fields)
    )


@pytest.mark.parametrize("type", CLOSED)
def test_members_read_name_and_owner_out_of_it(type: str) -> None:
    genesis = founded(type)
    body = open_genesis(genesis, SECRET)
    assert (body.name, body.owner, body.writers) == ("reading circle", OWNER.device.certificate, "anyone")
    assert read_genesis(genesis).type == type
    assert is_valid_genesis(genesis, read_genesis(genesis))


def test_a_sealed_one_shows_others_neither() -> None:
    genesis = founded(SEALED)
    shown = genesis.header_bytes + (genesis.payload or b"")
    for needle in (b"reading", OWNER.identity.public, OWNER.device.seal, OWNER.device.certificate):
        assert needle not in shown
    assert genesis.header.ts_ms % HOUR_MS == 0


@pytest.mark.parametrize("type", CLOSED)
def test_another_secret_does_not_fit(type: str) -> None:
    with pytest.raises(KindError, match="another one"):
        open_genesis(founded(type), secret("another"))


def test_long_names_and_certificates_fit_its_box() -> None:
    owner = person("longest", shown="Ж" * 64)
    genesis = make_closed_genesis(
        owner.signing, owner.device.certificate, "Ж" * 64, SEALED, NOW_MS, secret=SECRET, nonce=bytes(16)
    )
    assert open_genesis(genesis, SECRET).name == "Ж" * 64


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "secret"},
        {"name": "shown"},
        {"owner": OWNER.device.certificate},
        {"signers": (bytes(32),)},
        {"commitment": b""},
        {"commitment": bytes(31)},
        {"box": b""},
        {"box": bytes(1039)},
        {"nonce": b""},
        {"writers": "nobody"},
    ],
)
def test_a_sealed_one_of_another_form_is_none(fields: dict[str, Any]) -> None:
    body = msgspec.structs.replace(read_genesis(founded(SEALED)), **fields)
    with pytest.raises(UsageError):
        make_genesis(OWNER.signing, body, NOW_MS - NOW_MS % HOUR_MS)


def test_what_is_in_the_box_must_be_of_the_same_space_and_owner() -> None:
    body = read_genesis(founded(SEALED))
    stranger = person("mallory")
    with pytest.raises(KindError, match="altered"):
        open_genesis(make_genesis(stranger.signing, body, NOW_MS - NOW_MS % HOUR_MS), SECRET)
    swapped = msgspec.structs.replace(body, box=read_genesis(founded(SEALED, nonce=bytes(16))).box)
    with pytest.raises(KindError, match="altered"):
        open_genesis(make_genesis(OWNER.signing, swapped, NOW_MS - NOW_MS % HOUR_MS), SECRET)


def test_an_open_one_has_no_secret() -> None:
    body = SpaceBody("open", "news", OWNER.device.certificate, "owner", (), bytes(16))
    genesis = make_genesis(OWNER.signing, body, NOW_MS)
    with pytest.raises(KindError):
        open_genesis(genesis, SECRET)
    with pytest.raises(UsageError):
        make_genesis(OWNER.signing, msgspec.structs.replace(body, commitment=bytes(32)), NOW_MS)
    assert GENESIS.decode(founded(MEMBERS).payload or b"").type == MEMBERS
