"""What must not be found: the names, words, keys and secrets of people, in every form in which they could be written."""

from __future__ import annotations

from base64 import b32encode, b64encode, urlsafe_b64encode
from collections.abc import Iterable

from outlast.kernel.person import Person
from outlast.rooms.carry import service

Needles = dict[bytes, str]
"""Bytes to look for, and what they are."""


def of_text(what: str, text: str) -> Needles:
    """A text as it may be encoded."""
    forms = {text, text.casefold(), text.upper()}
    return {form.encode(code): what for form in forms for code in ("utf-8", "utf-16-le")}


def of_bytes(what: str, data: bytes) -> Needles:
    """Bytes raw and as digits or letters of any alphabet in use here; a certificate or a link also in parts."""
    texts = [data.hex(), b32encode(data).decode(), b64encode(data).decode(), urlsafe_b64encode(data).decode()]
    plain = {text.rstrip("=") for text in texts}
    return {data: what} | {t.encode(): what for text in plain for t in (text, text.lower(), text.upper())}


async def of_person(person: Person) -> Needles:
    """Everything that somebody's vault knows and a relay must not."""
    name = person.name
    found = of_text(f"the name of {name}", name) | of_text(f"the link of {name}", await person.link())
    for word in name.split():
        found |= of_text(f"a name of {name}", word)
    secret = {
        "identity": person.identity,
        "device": person.device,
        "seal key": person._own.seal,
        "certificate": person.certificate,
        "signature in the certificate": person.certificate[-64:],
        "signing secret": person.signing_key.seed,
        "sealing secret": person._seal.secret,
        "entropy": person._entropy,
    }
    for what, data in secret.items():
        found |= of_bytes(f"the {what} of {name}", data)
    for public, private in person.query("SELECT public, secret FROM prekey"):
        found |= of_bytes(f"a prekey of {name}", public) | of_bytes(f"a prekey's secret of {name}", private)
    for (intro,) in person.query("SELECT secret FROM invite UNION SELECT intro FROM contact WHERE intro IS NOT NULL"):
        found |= of_bytes(f"an intro secret that {name} has", intro)
    for key in (*person._keys_in.values(), *person._keys_out.values()):
        found |= of_bytes(f"a key of tags of {name}", key)
    for (letter,) in person.query("SELECT letter FROM sent UNION SELECT letter FROM seen_letter"):
        found |= of_bytes(f"a letter's id that {name} knows", letter)
    for message in (*service.inbox(person), *service.sent(person)):
        found |= of_text(f"a text that {name} knows", message.text)
    return found


def search(needles: Needles, places: Iterable[tuple[str, bytes]]) -> list[str]:
    """What was found, and where."""
    shortest = min(map(len, needles))
    assert shortest >= 6, "a needle that short turns up by chance"
    return [f"{what} in {place}" for place, data in places for needle, what in needles.items() if needle in data]
