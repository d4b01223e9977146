"""What somebody holds who takes a third node, or the stick: nothing that says who wrote to whom.

The node is taken with its passphrase: every table is read, every page of its files is decrypted, free ones and old ones
in the log too, every other file is searched, and so is what the program logged. The stick is taken with its file.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import msgspec
import pytest

from outlast.errors import LockedError, OutlastError
from outlast.kernel import mail
from outlast.kernel.bundle import CHUNK_BYTES, MAGIC, SLOTS, BundleError, BundleReader
from outlast.kernel.entry import DAY_MS, HOUR_MS, Entry
from outlast.kernel.home import Home
from outlast.kernel.hpke import ENC_BYTES, OpeningKey
from outlast.kernel.identity import fingerprint_words, id_text, node_text, read_certificate
from outlast.kernel.mail import MAIL_SPACE, PAYLOAD_CLASSES
from outlast.kernel.node import SPENT_STEP_BYTES
from outlast.kernel.person import Person
from tests.kernel.society import Society, befriend, bundle, carry, envelopes, events, hears, society, story, until, write
from tests.seizure.taken import pages

PASSPHRASE = "the relay's own passphrase"


@dataclass
class Evidence:
    """All that would tell something: what it is, and the bytes to look for."""

    found: dict[str, bytes] = field(default_factory=dict)

    def note(self, what: str, *values: bytes) -> None:
        """Look for these bytes, and for them written in hex."""
        for number, value in enumerate(values):
            assert len(value) >= 8, what
            self.found[f"{what} {number}"] = value
            self.found[f"{what} {number} in hex"] = value.hex().encode()

    def of(self, person: Person) -> None:
        """Everything that names a person, and everything that only they or their contacts know."""
        device = read_certificate(person.certificate)
        who = person.name
        self.note(f"{who}: name", who.encode())
        self.note(f"{who}: identity", person.identity, id_text(person.identity).encode())
        self.note(f"{who}: words", " ".join(fingerprint_words(person.identity)).encode())
        self.note(f"{who}: device", device.device, device.seal, device.certificate)
        self.note(f"{who}: node", person.node.transport_id, node_text(person.node.transport_id).encode())
        secrets = {
            "keys": "SELECT value FROM meta WHERE name IN ('entropy', 'device', 'seal')",
            "prekeys": "SELECT secret FROM prekey UNION ALL SELECT public FROM prekey",
            "intro secrets": "SELECT secret FROM invite",
            "letters": "SELECT letter FROM sent UNION SELECT letter FROM seen_letter",
        }
        for what, sql in secrets.items():
            self.note(f"{who}: {what}", *(bytes(row[0]) for row in person.query(sql)))
        self.note(f"{who}: tag keys", *person._keys_in.values(), *person._keys_out.values())
        self.note(f"{who}: texts", *(row[0].encode() for row in person.query("SELECT text FROM local_toy_note")))

    def look_through(self, where: str, places: Iterable[bytes]) -> None:
        """Fail when any of it stands in one of the places."""
        for place in places:
            for what, value in self.found.items():
                assert value not in place, f"{what} stands in {where}"


async def talk(anna: Person, boris: Person, boat: Sequence[tuple[Person, Person]] = ()) -> list[bytes]:
    """First contact, an answer, receipts, and what was read; ``boat`` are the ways of a stick after each."""
    await boris.add_contact(await anna.link())
    letters = []
    for sender, receiver, text in (
        (boris, anna, f"first words of {boris.name}"),
        (anna, boris, f"an answer of {anna.name}, longer: " + "and so on, " * 60),
        (boris, anna, f"one more of {boris.name}"),
    ):
        letters.append(await write(sender, receiver, text))
        for one, other in boat:
            await carry(one, other)
        await until(lambda r=receiver, t=text: t in _notes(r), receiver)  # type: ignore[misc]
        await receiver.mark_read([letters[-1]])
        for one, other in boat:
            await carry(one, other)
        await until(lambda s=sender: "read" in events(s, letters[-1]), sender)  # type: ignore[misc]
    return letters


def _notes(person: Person) -> list[str]:
    return [row[0] for row in person.query("SELECT text FROM local_toy_note")]


async def people(nodes: Society) -> tuple[Person, Person, Person, Person]:
    """Two pairs who write to each other."""
    names = ("Anna Zvonimira", "Boris Kvitoslav", "Carl Ondrasek", "Dora Milosava")
    anna, boris, carl, dora = [await nodes.join(name.split()[0], called=name) for name in names]
    return anna, boris, carl, dora


def plaintext(home: Home, passphrase: str) -> list[bytes]:
    """Every page of the store and the vaults, decrypted."""
    found = [*pages(home.store_path, home.open_key(None, passphrase))]
    for key in home.people():
        found += pages(home.vault_path(key), home.open_key(key, passphrase))
    return found


def files(home: Home) -> list[bytes]:
    """Every file as it lies there, and every file's name."""
    paths = [path for path in home.path.rglob("*") if path.is_file()]
    return [*(path.read_bytes() for path in paths), *(str(path.relative_to(home.path)).encode() for path in paths)]


def rows(person: Person) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table of the store and of the vault."""
    tables = "SELECT name FROM sqlite_schema WHERE type = 'table'"
    found = {}
    for of, query in (("store", person.node.query), ("vault", person.query)):
        for (name,) in query(tables):
            with suppress(OutlastError):
                found[f"{of}.{name}"] = query(f'SELECT * FROM "{name}"')
    return found


class TestRelay:
    @story
    async def test_its_store_opened_by_its_passphrase_names_nobody(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        async with society(tmp_path) as nodes:
            anna, boris, carl, dora = await people(nodes)
            relay = await nodes.join("relay", passphrase=PASSPHRASE, called="the relay")
            port = await relay.node.listen("127.0.0.1", 0)
            for person in (anna, boris, carl, dora):
                await person.node.peer_add(relay.node.transport_id, "127.0.0.1", port)
            await talk(anna, boris)
            await talk(carl, dora)
            await until(lambda: len(envelopes(relay)) >= 18, relay)

            evidence = Evidence()
            for person in (anna, boris, carl, dora):
                evidence.of(person)
            home = nodes.home("relay")
            evidence.look_through("a page, the node running", plaintext(home, PASSPHRASE))
            held = rows(relay)
            evidence.look_through("a row", [repr(held).encode(), *_cells(held)])
            _assert_nothing_is_told_of_mail(held, envelopes(relay))
            assert relay.contacts() == []
            evidence.look_through("what a page asks for", [repr(relay.node.peers()[:0]).encode()])
            await nodes.leave("relay")
            evidence.look_through("a page, the node closed", plaintext(home, PASSPHRASE))
            evidence.look_through("a file", files(home))
            evidence.look_through("the log", [record.getMessage().encode() for record in caplog.records])
            evidence.look_through("the output", [part.encode() for part in capfd.readouterr()])

    @story
    async def test_nor_does_it_after_it_carried_the_mail_by_sticks(self, tmp_path: Path) -> None:
        """The relay's person knows nobody of those who write; a friend of the friends brings and takes the mail."""
        async with society(tmp_path) as nodes:
            anna, boris, carl, dora = await people(nodes)
            relay = await nodes.join("relay", passphrase=PASSPHRASE, called="the relay")
            friend = await nodes.join("friend")
            await befriend(friend, relay)
            for person in (anna, boris, carl, dora):
                await befriend(friend, person)
            roads = [
                step
                for start in (anna, boris, carl, dora)
                for step in ((start, friend), (friend, relay), (relay, friend))
            ] + [(friend, end) for end in (anna, boris, carl, dora)]
            await talk(anna, boris, roads)
            evidence = Evidence()
            for person in (anna, boris, carl, dora):
                evidence.of(person)
            home = nodes.home("relay")
            evidence.look_through("a page, the node running", plaintext(home, PASSPHRASE))
            _assert_nothing_is_told_of_mail(
                {name: rows_ for name, rows_ in rows(relay).items() if name.startswith("store.")}, envelopes(relay)
            )
            await nodes.leave("relay")
            evidence.look_through("a page, the node closed", plaintext(home, PASSPHRASE))
            evidence.look_through("a file", files(home))

    @story
    async def test_its_own_letters_look_like_the_mail_of_others(self, tmp_path: Path) -> None:
        """The store is taken with its passphrase, and the vault of the person who lives there stays closed."""
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("Anna"), await nodes.join("Boris")
            await befriend(anna, boris)
            await write(anna, boris, "from here")
            await carry(anna, boris)
            await carry(boris, anna)
            own = {bytes(row[0]) for row in anna.query("SELECT entry FROM sent")}
            columns = "id, space, expires_day, ts_ms, author, seq, tier, source, whole, payload IS NULL"
            held = anna.node.query(f"SELECT {columns} FROM entry")
            assert {bytes(row[0]) for row in held} > own
            assert len({row[1:] for row in held}) == 1, "one column differs"
            # When its person wrote last stands there to the day at most.
            await anna.node._tidy()
            (floor,) = anna.node.query("SELECT value FROM meta WHERE name = 'floor_ms'") or [(bytes(8),)]
            assert int.from_bytes(floor[0], "big") % DAY_MS == 0
            evidence = Evidence()
            evidence.of(boris)
            key = nodes.home("Anna").open_key(None, None)
            evidence.look_through("a page of the store", pages(nodes.home("Anna").store_path, key))

    @story
    async def test_who_brought_a_few_letters_is_written_down_nowhere(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("Anna"), await nodes.join("Boris")
            relay = await nodes.join("relay")
            await befriend(anna, boris)
            for number in range(20):
                await write(anna, boris, f"letter {number}")
            neighbour, stranger = anna.node.transport_id, os.urandom(32)
            await relay.node.peer_add(neighbour, "127.0.0.1", 9)
            half = envelopes(anna)[:10]
            await relay.node.ingest(half, neighbour)
            await relay.node.ingest(envelopes(anna)[10:], stranger)
            spent = relay.node.share_left(os.urandom(32)), relay.node.share_left(neighbour)
            assert spent[0] != spent[1]
            for name, found in rows(relay).items():
                assert name == "store.peer" or all(neighbour not in row and stranger not in row for row in found), name
            assert relay.node.query("SELECT * FROM spent") == []
            assert sum(len(e.header_bytes) for e in half) < SPENT_STEP_BYTES

    @story
    async def test_no_other_passphrase_opens_it_and_nothing_stands_in_clear(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            relay = await nodes.join("relay", passphrase=PASSPHRASE, called="Relja Zlatoust")
            friend = await nodes.join("friend", called="Friend Bozidarka")
            await befriend(relay, friend)
            await write(relay, friend, "a letter of my own")
            evidence = Evidence()
            evidence.of(relay)
            evidence.of(friend)
            evidence.note("store", MAIL_SPACE, b"CREATE TABLE")
            for entry in envelopes(relay):
                evidence.note("entry", entry.id, entry.header.author)
            await nodes.leave("relay")
            evidence.look_through("a file", files(nodes.home("relay")))
            with pytest.raises(LockedError):
                nodes.home("relay").open_key(None, "another passphrase")


class TestStick:
    @story
    async def test_its_file_names_nobody_and_opens_for_nobody_else(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, carl, dora = await people(nodes)
            third = await nodes.join("third", passphrase=PASSPHRASE, called="the third")
            await befriend(carl, dora)
            await talk(anna, boris, [(boris, anna), (anna, boris), (boris, anna)]) if await _know(anna, boris) else None
            await write(carl, dora, "carried along")
            file, _ = await bundle(anna, boris)
            evidence = Evidence()
            for person in (anna, boris, carl, dora):
                evidence.of(person)
            evidence.note("mail", MAIL_SPACE, *(e.id for e in envelopes(anna)), *(e.header_bytes for e in envelopes(anna)))
            evidence.look_through("the stick's file", [file])
            # The one who carries it tries all the keys they have, then everybody else's but the receiver's.
            for reader in (third, carl, dora):
                with pytest.raises(BundleError, match="somebody else"):
                    await reader.read_bundle(io.BytesIO(file))
            assert envelopes(third) == []
            await nodes.leave("third")
            evidence.look_through("a page of who carried it", plaintext(nodes.home("third"), PASSPHRASE))
            evidence.look_through("a file of who carried it", files(nodes.home("third")))

    @story
    async def test_its_size_and_form_tell_neither_how_many_letters_nor_for_how_many_devices(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("Anna"), await nodes.join("Boris")
            await befriend(anna, boris)
            await write(anna, boris, "one")
            one, _ = await bundle(anna, boris)
            for number in range(40):
                await write(anna, boris, f"letter {number}")
            many, _ = await bundle(anna, boris)
            phone = await nodes.join("phone", backup=await boris.backup("backup words"))
            await anna.add_contact(await phone.link())
            await anna.accept_device(boris.identity)
            both, _ = await bundle(anna, boris)
            assert len(one) == len(many) == len(both) == 10 + SLOTS * 80 + CHUNK_BYTES + 16
            assert {file[:10] for file in (one, many, both)} == {MAGIC + b"\x01\x00"}
            for file in (one, many, both):
                slots = [file[at : at + 80] for at in range(10, 330, 80)]
                assert len(set(slots)) == SLOTS
                assert all(slot[ENC_BYTES - 1] < 0x80 for slot in slots), "an encapsulated key shows by its top bit"
                assert 7.9 < _entropy(file[10:]) <= 8
            assert not set(_blocks(one)) & set(_blocks(many)) - {one[:16]}


class TestEnvelopes:
    @story
    async def test_texts_receipts_prekeys_and_introductions_cannot_be_told_apart(self, tmp_path: Path) -> None:
        count = 250
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            await befriend(anna, boris)
            link = mail  # what is sealed, by real keys of real people
            kinds = {
                "text": [await _one(anna, boris, write(anna, boris, f"text {n}")) for n in range(count)],
            }
            assert link.INTRO_TAGS
            introductions = [e for e in kinds["text"]]
            await hears_all(anna, boris)
            kinds = {"introduction": introductions}
            kinds["text"] = [await _one(anna, boris, write(anna, boris, f"text {n}")) for n in range(count)]
            letters = [bytes(row[0]) for row in boris.query("SELECT letter FROM seen_letter")]
            kinds["receipt"] = [await _one(boris, anna, boris.mark_read([letters[n]])) for n in range(count)]
            fields = {name: [_fields(e) for e in found] for name, found in kinds.items()}
            assert len({frozenset(map(msgspec.msgpack.encode, values)) for values in fields.values()}) == 1
            assert len(set(map(msgspec.msgpack.encode, fields["text"]))) <= 2  # an hour may have begun meanwhile
            everything = [e for found in kinds.values() for e in found]
            for part in (lambda e: e.header.author, lambda e: e.header.tags[0], lambda e: e.payload[:ENC_BYTES]):
                assert len(set(map(part, everything))) == len(everything)
            _assert_same_noise({name: [_noise(e) for e in found] for name, found in kinds.items()})

    def test_the_check_notices_a_single_bit(self) -> None:
        """What would make one kind stand out must fail the check above."""
        plain = [os.urandom(600) for _ in range(250)]
        marked = [bytes((*noise[:100], noise[100] | 1, *noise[101:])) for noise in (os.urandom(600) for _ in range(250))]
        _assert_same_noise({"one": plain, "other": [os.urandom(600) for _ in range(250)]})
        with pytest.raises(AssertionError, match="byte 100"):
            _assert_same_noise({"one": plain, "other": marked})


async def _know(one: Person, other: Person) -> bool:
    await befriend(one, other)
    return True


async def hears_all(sender: Person, receiver: Person) -> None:
    """The receiver gets what was written and answers, so that introductions end."""
    from tests.kernel.society import hand_over

    await hand_over(envelopes(sender), receiver)
    await hand_over(envelopes(receiver), sender)


async def _one(sender: Person, _receiver: Person, act: object) -> Entry:
    before = len(envelopes_count(sender))
    await act  # type: ignore[misc]
    from tests.kernel.society import settle

    await settle(sender)
    (entry,) = sender.node.open_store.changes(envelopes_count(sender)[before - 1] if before else 0)
    return entry.entry


def envelopes_count(person: Person) -> list[int]:
    return [row[0] for row in person.node.query("SELECT cursor FROM change ORDER BY cursor")]


def _fields(entry: Entry) -> list[object]:
    """All of a header but what is random, and the sizes."""
    h = entry.header
    constant = [h.version, h.space, h.kind, h.seq, h.prev, h.clock, h.ts_ms, h.expires_day, h.priority, h.payload_size]
    return [*constant, len(h.tags), len(h.tags[0]), h.stamp_nonce, len(entry.header_bytes), len(entry.payload or b"")]


def _noise(entry: Entry) -> bytes:
    return b"".join((entry.header.author, entry.header.tags[0], entry.signature, entry.payload or b""))


def _assert_same_noise(kinds: dict[str, list[bytes]]) -> None:
    """Byte by byte and bit by bit the kinds have the same mean, as far as that many samples can tell."""
    means = {
        name: [fmean(column) for column in zip(*samples, strict=True)] for name, samples in kinds.items()
    }
    bits = {
        name: [[fmean(byte >> bit & 1 for byte in column) for bit in range(8)] for column in zip(*samples, strict=True)]
        for name, samples in kinds.items()
    }
    names = list(kinds)
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            size = 1 / len(kinds[one]) + 1 / len(kinds[other])
            for place, (a, b) in enumerate(zip(means[one], means[other], strict=True)):
                assert abs(a - b) < 6.5 * (5461.25 * size) ** 0.5, f"{one} and {other} differ in byte {place}"
            for place, (x, y) in enumerate(zip(bits[one], bits[other], strict=True)):
                for bit in range(8):
                    assert abs(x[bit] - y[bit]) < 6.5 * (0.25 * size) ** 0.5, f"{one}, {other}: bit {bit} of byte {place}"


def _assert_nothing_is_told_of_mail(held: dict[str, list[tuple[object, ...]]], mail_here: list[Entry]) -> None:
    """No column of an envelope but its random parts and its day differs between envelopes, and no table knows more."""
    assert len(mail_here) >= 9
    assert len({e.header.author for e in mail_here}) == len(mail_here), "an author twice links two envelopes"
    assert len({e.header.tags[0] for e in mail_here}) == len(mail_here), "a tag twice links two envelopes"
    assert {e.header.payload_size for e in mail_here} <= set(PAYLOAD_CLASSES)
    assert all(e.header.ts_ms % HOUR_MS == 0 for e in mail_here)
    constant = {
        (h.version, h.space, h.kind, h.seq, h.prev, h.clock, h.priority, h.stamp_nonce, len(h.tags), len(h.tags[0]))
        for h in (e.header for e in mail_here)
    }
    assert len(constant) == 1
    # n, prefix, id, space, expires_day, ts_ms, author, seq, tier, source, whole, header, signature, payload
    for row in held["store.entry"]:
        assert row[6:10] == (None, None, 2, None), "what is known of an envelope beside itself"
    for table in ("peer", "spent", "held", "refused"):
        assert held[f"store.{table}"] == [], table
    for table in ("contact", "device", "sent", "opened", "custody", "seen_letter", "outbox", "bundle_out", "held_by"):
        assert held.get(f"vault.{table}", []) == [], table
    assert {str(row[0]) for row in held["store.meta"]} <= {"transport", "pruned_day", "tidy_day", "confirmed_day", "floor_ms"}


def _cells(held: dict[str, list[tuple[object, ...]]]) -> Iterable[bytes]:
    for found in held.values():
        for row in found:
            yield from (cell for cell in row if isinstance(cell, bytes))


def _entropy(data: bytes) -> float:
    from math import log2

    return -sum(n / len(data) * log2(n / len(data)) for n in Counter(data).values())


def _blocks(data: bytes) -> list[bytes]:
    return [data[at : at + 16] for at in range(0, len(data) - 15, 16)]


def test_keys_of_the_stick_are_no_persons(tmp_path: Path) -> None:
    """A reader without keys gets as far as one with wrong ones."""
    assert re.match("outlast", MAGIC.decode().lower())
    reader = BundleReader([OpeningKey.from_secret(os.urandom(32))], os.urandom(32))
    with pytest.raises(BundleError, match="somebody else"):
        reader.feed(MAGIC + b"\x01\x00" + os.urandom(320))
