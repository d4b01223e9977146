"""Who lives on this node, and which phones of theirs are in: kept in the vaults, asked for by commands and by pages."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from outlast.errors import NotFoundError, UsageError
from outlast.kernel import Node, Person, entropy_of
from outlast.ui.operation import KEY_MIN_CHARS, Call, Nothing, Operation, is_meant

SESSION_ROW: Final = "session/"


class KeptSession(msgspec.Struct, array_like=True, frozen=True):
    """A phone's session in its person's vault, under the hash of its secret."""

    label: str
    made_ms: int
    seen_ms: int
    door: Literal["lan", "https"] = "lan"


async def keep(person: Person, name: str, value: bytes | None) -> None:
    """Keep a value of the pages in a person's vault under ``name``; None removes it."""
    sql = (
        "DELETE FROM meta WHERE name = ?" if value is None else "INSERT OR REPLACE INTO meta(name, value) VALUES (?, ?)"
    )
    row = (name,) if value is None else (name, value)
    await person.node.write(lambda: person.vault.write(lambda t: t.execute(sql, row)))
    person.node.touch()


class Resident(msgspec.Struct, frozen=True):
    """Somebody who lives on this node: the key of their vault, whether it is open, and only then their name."""

    person: str
    name: str | None
    open: bool
    passphrase: bool


class Newcomer(msgspec.Struct, frozen=True):
    """Who comes to live here: a name, a passphrase of their own; 24 words when they are somebody already."""

    name: str
    passphrase: str
    words: str | None = None


class Somebody(msgspec.Struct, frozen=True):
    """Who is meant: a name (of an open vault), or the beginning of a key."""

    who: str


class Phone(msgspec.Struct, frozen=True):
    """A browser that joined over the local network; ``seen_ms`` is brought up to date once a day."""

    phone: str
    label: str
    joined_ms: int
    seen_ms: int


class WhichPhone(msgspec.Struct, frozen=True):
    """A phone by the beginning of its key, or all of them."""

    phone: str | None = None
    all: bool = False


def residents(node: Node) -> list[Resident]:
    """Who lives here, as far as their vaults are open."""
    return [
        Resident(key, one.name if one else None, one is not None, node.home.needs_passphrase(key))
        for key, one in ((key, node.people.get(key)) for key in node.home.people())
    ]


def key_of(node: Node, text: str) -> str:
    """The key of the one who is meant; raises NotFoundError, UsageError when it may be several."""
    keys = {key for key in node.home.people() if len(text) >= KEY_MIN_CHARS and key.startswith(text)}
    keys |= {key for key, one in node.people.items() if is_meant(one, text)}
    if len(keys) > 1:
        raise UsageError(f"several people are meant by {text[:64]!r}: take more of the key from `outlast person list`")
    if not keys:
        raise NotFoundError(f"nobody here is meant by {text[:64]!r}: see `outlast person list`")
    return keys.pop()


async def person_list(call: Call[Nothing]) -> list[Resident]:
    """Who lives on this node."""
    return residents(call.node)


async def person_add(call: Call[Newcomer]) -> Resident:
    """Somebody more lives here."""
    given = call.params
    entropy = None if given.words is None else entropy_of(given.words)
    person = await call.node.add_person(given.name, given.passphrase, entropy=entropy)
    return next(one for one in residents(call.node) if one.person == person.key)


async def person_lock(call: Call[Somebody]) -> Nothing:
    """Close one vault."""
    await call.node.lock_person(key_of(call.node, call.params.who))
    return Nothing()


async def person_remove(call: Call[Somebody]) -> Nothing:
    """Destroy one vault."""
    await call.node.remove_person(key_of(call.node, call.params.who))
    return Nothing()


def kept_phones(person: Person) -> list[Phone]:
    """A person's phones, as their vault remembers them."""
    rows = person.query("SELECT name, value FROM meta WHERE name LIKE 'session/%'")
    kept = [(str(name), msgspec.msgpack.decode(bytes(value), type=KeptSession)) for name, value in rows]
    phones = [Phone(name.removeprefix(SESSION_ROW), one.label, one.made_ms, one.seen_ms) for name, one in kept]
    return sorted(phones, key=lambda phone: phone.joined_ms)


async def phone_list(call: Call[Nothing]) -> list[Phone]:
    """The phones of the one who asks."""
    return kept_phones(call.person)


async def phone_end(call: Call[WhichPhone]) -> list[Phone]:
    """Shut phones out; those are told that were."""
    person, wanted = call.person, call.params
    if (wanted.phone is None) != wanted.all:
        raise UsageError("name one phone by its key, or all")
    text = wanted.phone or ""
    named = len(text) >= KEY_MIN_CHARS
    ended = [one for one in kept_phones(person) if wanted.all or (named and one.phone.startswith(text))]
    if not wanted.all and len(ended) != 1:
        raise NotFoundError("no such phone, or several: see `outlast phone list`")
    for one in ended:
        await keep(person, SESSION_ROW + one.phone, None)
    return ended


OPERATIONS: Final[list[Operation[Any, Any]]] = [
    Operation("person.list", Nothing, list[Resident], person_list, "Who lives on this node", while_locked=True),
    Operation("person.add", Newcomer, Resident, person_add, "Somebody more lives on this node", unsafe=True),
    Operation("person.lock", Somebody, Nothing, person_lock, "Close one vault", unsafe=True, while_locked=True),
    Operation("person.remove", Somebody, Nothing, person_remove, "Destroy one vault", unsafe=True, while_locked=True),
    Operation("phone.list", Nothing, list[Phone], phone_list, "The phones that are in"),
    Operation("phone.end", WhichPhone, list[Phone], phone_end, "Shut phones out", unsafe=True),
]
