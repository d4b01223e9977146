"""Writes space.json: python vectors/make_space.py

Geneses of closed spaces, keys of epochs, a sealed entry, a circular, names in HELLO, and histories of acts
with the members that follow from them. A change of the file is a change of the wire, and needs a new version there.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from outlast.kernel.circular import circulars
from outlast.kernel.entry import DAY_MS, Entry, pack
from outlast.kernel.epoch import Inner, access_key, commitment, epoch_key, seal_entry
from outlast.kernel.identity import Device, SigningKey, certify, derive, read_certificate
from outlast.kernel.log import Head, next_entry
from outlast.kernel.membership import (
    ADD,
    ADMIN,
    HERE,
    MEMBER,
    MEMBER_ACT,
    REMOVE,
    RENEW,
    ActBody,
    Founding,
    read_act,
    resolve,
    revoking_act,
)
from outlast.kernel.revocation import REVOKE, Revoke, revocation_of, revoke
from outlast.kernel.space import CLOSED, MEMBERS, SEALED, make_closed_genesis, open_genesis
from outlast.kernel.wire import space_mac

HERE_FOLDER = Path(__file__).parent
NOW_MS = 1_795_305_912_345


def secret(text: str) -> bytes:
    """32 bytes that stand for chance."""
    return sha256(b"outlast/vectors/1/" + text.encode()).digest()


class Person:
    """Somebody with a device."""

    def __init__(self, name: str) -> None:
        self.identity = SigningKey.from_seed(secret(f"{name} identity"))
        self.signing = SigningKey.from_seed(secret(f"{name} signing"))
        self.device: Device = read_certificate(
            certify(self.identity, self.signing, secret(f"{name} seal"), 20_000, name)
        )


PEOPLE = {name: Person(name) for name in ("olga", "anna", "boris", "clara")}


def genesis(type: str) -> Entry:
    """The genesis of a closed space of that type."""
    olga = PEOPLE["olga"]
    return make_closed_genesis(
        olga.signing,
        olga.device.certificate,
        "reading circle",
        type,
        NOW_MS,
        secret=secret(f"{type} first epoch"),
        nonce=secret(f"{type} nonce")[:16],
    )


class History:
    """Acts in a members-only space, each by a person who saw those named."""

    def __init__(self) -> None:
        self.space = genesis(MEMBERS).id
        self.entries: dict[str, Entry] = {}
        self.heads: dict[bytes, Head] = {}

    def put(self, label: str, author: str, kind: str, payload: bytes) -> None:
        """An entry in the author's chain."""
        key = PEOPLE[author].signing
        entry = next_entry(
            key,
            self.heads.get(key.public),
            space=self.space,
            kind=kind,
            payload=payload,
            clock=len(self.entries) + 1,
            ts_ms=NOW_MS + len(self.entries),
            life_ms=0,
            priority=0,
        )
        self.entries[label] = entry
        self.heads[key.public] = Head(entry.header.seq, entry.id)

    def say(self, label: str, author: str, act: str, subject: str = "", role: str = "", *seen: str) -> None:
        """An act that names these as its parents."""
        begins = act == RENEW or (act == REMOVE and subject != author)
        body = ActBody(
            act=act,
            subject=PEOPLE[subject].identity.public if subject else b"",
            role=role,
            parents=tuple(sorted(self.entries[one].id for one in seen)),
            last=(),
            commitment=commitment(secret(f"epoch {label}")) if begins else b"",
            certificate=PEOPLE[author].device.certificate,
        )
        self.put(label, author, MEMBER_ACT.name, MEMBER_ACT.encode(body))

    def end(self, label: str, author: str) -> None:
        """The author's identity ends the author's device before its first entry."""
        body = Revoke(revoke(PEOPLE[author].identity, PEOPLE[author].device.device, self.space, 0))
        self.put(label, "olga", REVOKE.name, REVOKE.encode(body))


def told(title: str, *steps: tuple[str, ...]) -> tuple[str, History]:
    """A history that begins with two admins and a member."""
    history = History()
    history.say("1", "olga", ADD, "anna", ADMIN)
    history.say("2", "olga", ADD, "boris", ADMIN, "1")
    history.say("3", "olga", ADD, "clara", MEMBER, "2")
    for step in steps:
        if step[1] == "end":
            history.end(step[0], step[2])
        else:
            history.say(*step)
    return title, history


HISTORIES = [
    told("three are added"),
    told("a removal", ("4", "anna", REMOVE, "clara", "", "3")),
    told("a plain member removes nobody", ("4", "clara", REMOVE, "boris", "", "3")),
    told(
        "a removal beats what the removed does at the same time",
        ("4", "olga", REMOVE, "boris", "", "3"),
        ("5", "boris", REMOVE, "anna", "", "3"),
    ),
    told(
        "two remove each other, and one of them another",
        ("4", "anna", REMOVE, "boris", "", "3"),
        ("5", "boris", REMOVE, "anna", "", "3"),
        ("6", "boris", REMOVE, "clara", "", "3"),
    ),
    told(
        "two removals at the same time, and a renewal behind both",
        ("4", "anna", REMOVE, "clara", "", "3"),
        ("5", "olga", REMOVE, "boris", "", "3"),
        ("6", "olga", RENEW, "", "", "4", "5"),
    ),
    told(
        "removed and added again",
        ("4", "olga", REMOVE, "clara", "", "3"),
        ("5", "anna", ADD, "clara", MEMBER, "4"),
        ("6", "clara", HERE, "", "", "5"),
    ),
    told("an ended device", ("4", "anna", REMOVE, "clara", "", "3"), ("5", "end", "anna")),
]


def outcome(history: History) -> dict[str, Any]:
    """What follows from a history, by labels and names."""
    olga = PEOPLE["olga"].device
    founding = Founding(history.space, olga.identity, olga.device, commitment(secret("members first epoch")))
    acts = []
    for entry in history.entries.values():
        h, payload = entry.header, entry.payload or b""
        if h.kind == REVOKE.name:
            revocation = revocation_of(payload, h.space)
            assert revocation is not None
            acts.append(revoking_act(entry.id, h.author, revocation))
        else:
            act = read_act(entry.id, h.author, h.seq, MEMBER_ACT.decode(payload))
            assert act is not None
            acts.append(act)
    membership = resolve(founding, acts)
    names = {person.identity.public: name for name, person in PEOPLE.items()}
    labels = {history.space: "genesis"} | {entry.id: label for label, entry in history.entries.items()}
    return {
        "members": {names[identity]: role for identity, role in sorted(membership.roles.items())},
        "epochs": sorted(labels[epoch] for epoch in membership.epochs),
        "heads": sorted(labels[head] for head in membership.heads),
        "renewal_due": membership.stale,
    }


def make() -> dict[str, Any]:
    """All of space.json."""
    geneses = []
    for type in CLOSED:
        entry, first = genesis(type), secret(f"{type} first epoch")
        body = open_genesis(entry, first)
        geneses.append(
            {
                "type": type,
                "secret": first.hex(),
                "packed": pack(entry).hex(),
                "space": entry.id.hex(),
                "name": body.name,
                "owner": body.owner.hex(),
                "commitment": body.commitment.hex(),
            }
        )
    space = genesis(SEALED).id
    secrets = {space: secret("sealed first epoch"), secret("a later act"): secret("a later secret")}
    key = epoch_key(space, secrets)
    inner = Inner("post", NOW_MS, b"hello")
    boris = PEOPLE["boris"]
    sealed = seal_entry(
        boris.signing,
        Head(3, secret("entry before")),
        inner,
        space=space,
        secrets=secrets,
        clock=9,
        life_ms=7 * DAY_MS,
        rand=lambda size: secret("nonce")[:size],
    )
    session = secret("session key")
    (circular,) = circulars(
        space,
        genesis=genesis(SEALED),
        entries=[sealed],
        secrets=sorted(secrets.items()),
        told=[boris.identity.public],
    )
    return {
        "geneses": geneses,
        "key": {
            "space": space.hex(),
            "secrets": {epoch.hex(): one.hex() for epoch, one in sorted(secrets.items())},
            "key": key.hex(),
            "access": access_key(key).hex(),
            "seal": derive(key, b"outlast/epoch/seal/1").hex(),
        },
        "sealed_entry": {
            "packed": pack(sealed).hex(),
            "kind": inner.kind,
            "ts_ms": inner.ts_ms,
            "body": b"hello".hex(),
        },
        "hello": {
            "session_key": session.hex(),
            **{
                role: space_mac(session, initiator=role == "i", space=space, access=access_key(key)).hex()
                for role in "ir"
            },
        },
        "circular": circular.hex(),
        "people": {name: person.identity.public.hex() for name, person in PEOPLE.items()},
        "histories": [
            {
                "title": title,
                "entries": {label: pack(entry).hex() for label, entry in history.entries.items()},
                **outcome(history),
            }
            for title, history in HISTORIES
        ],
    }


if __name__ == "__main__":
    (HERE_FOLDER / "space.json").write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
