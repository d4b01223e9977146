"""What must not be found: the names, words, keys and secrets of people, in every form in which they may be written."""

from __future__ import annotations

from base64 import b32encode, b64encode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from outlast.kernel.identity import read_certificate
from outlast.kernel.person import Person
from outlast.rooms.carry import service

Needles = dict[bytes, str]
"""Bytes to look for, and what they are."""
HEAD_BYTES: Final = 6


def of_text(what: str, text: str) -> Needles:
    """A text as it may be encoded."""
    forms = {text, text.casefold(), text.upper()}
    return {form.encode(code): what for form in forms for code in ("utf-8", "utf-16-le")}


def of_bytes(what: str, data: bytes) -> Needles:
    """Bytes raw and as digits or letters of any alphabet in use here; a certificate or a link also in parts."""
    texts = [data.hex(), b32encode(data).decode(), b64encode(data).decode(), urlsafe_b64encode(data).decode()]
    # Behind them a checksum may go on in the middle of the last letter.
    whole = [texts[0], *(text.rstrip("=")[:-1] for text in texts[1:])]
    return {data: what} | {form.encode(): what for text in whole for form in (text, text.lower(), text.upper())}


async def of_person(person: Person) -> Needles:
    """Everything that somebody's vault knows and a relay must not."""
    name = person.name
    found = of_text(f"the name of {name}", name) | of_text(f"the link of {name}", await person.link())
    for word in name.split():
        found |= of_text(f"a name of {name}", word)
    own = read_certificate(person.certificate)
    known = {"identity": own.identity, "device": own.device, "seal key": own.seal, "signed": person.certificate[-64:]}
    secrets = person.query("SELECT name, value FROM meta WHERE name IN ('entropy', 'device', 'seal', 'certificate')")
    assert len(secrets) == 4
    for what, data in (*known.items(), *((f"{what} in the vault", bytes(value)) for what, value in secrets)):
        found |= of_bytes(f"the {what} of {name}", data)
    for public, private in person.query("SELECT public, secret FROM prekey"):
        found |= of_bytes(f"a prekey of {name}", public) | of_bytes(f"a prekey's secret of {name}", private)
    for (intro,) in person.query("SELECT secret FROM invite UNION SELECT intro FROM contact WHERE intro IS NOT NULL"):
        found |= of_bytes(f"an intro secret that {name} has", intro)
    for key in (*person.inbox._keys_in.values(), *person.outbox._keys_out.values()):
        found |= of_bytes(f"a key of tags of {name}", key)
    for (letter,) in person.query("SELECT letter FROM sent UNION SELECT letter FROM seen_letter"):
        found |= of_bytes(f"a letter's id that {name} knows", letter)
    for message in (*service.inbox(person), *service.sent(person)):
        found |= of_text(f"a text that {name} knows", message.text)
    return found


def search(needles: Needles, places: Iterable[tuple[str, bytes]]) -> list[str]:
    """What was found, and where; every place is looked through from each of its bytes on."""
    assert min(map(len, needles)) >= HEAD_BYTES, "a needle that short turns up by chance"
    by_head: dict[bytes, list[bytes]] = {}
    for needle in needles:
        by_head.setdefault(needle[:HEAD_BYTES], []).append(needle)
    heads = np.unique(np.concatenate([_runs(head) for head in by_head]))
    found: list[str] = []
    for place, data in places:
        runs = _runs(data)
        nearest = heads[np.searchsorted(heads, runs).clip(max=len(heads) - 1)]
        for at in np.flatnonzero(nearest == runs):
            candidates = by_head[data[at : at + HEAD_BYTES]]
            found += [f"{needles[one]} in {place}" for one in candidates if data.startswith(one, at)]
    return found


def _runs(data: bytes) -> NDArray[np.uint64]:
    """The HEAD_BYTES bytes from each place on, as numbers."""
    values = np.frombuffer(data, np.uint8).astype(np.uint64)
    count = max(0, len(data) - HEAD_BYTES + 1)
    runs = np.zeros(count, np.uint64)
    for place in range(HEAD_BYTES):
        runs |= values[place : place + count] << np.uint64(8 * place)
    return runs
