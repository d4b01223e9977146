"""What a contact, a relay, a peer or the writer of a bundle tries, and what the node makes of it."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from outlast.errors import ProtocolError, UsageError
from outlast.kernel import inbox, mail
from outlast.kernel.admit import Admitted, Refused, Rule
from outlast.kernel.bundle import BundleWriter
from outlast.kernel.door import SPACE_LOW_BYTES, STRANGERS, VERIFY_SPLIT
from outlast.kernel.entry import DAY_MS, Entry, day_of
from outlast.kernel.identity import SigningKey, id_text
from outlast.kernel.node import Node
from outlast.kernel.outbox import Receipt
from outlast.kernel.person import Person
from outlast.kernel.revocation import TOLD_MAX, Devices, revoke
from outlast.testing.clock import FakeClock
from tests.kernel.forger import Forger, envelope, garbage, note, unchecked
from tests.kernel.society import (
    NOTE,
    Society,
    bundle,
    carry,
    envelopes,
    events,
    friends,
    hand_over,
    meet,
    notes,
    settle,
    society,
    story,
    write,
)

LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    (2**255 - 19).to_bytes(32, "little"),
]


def is_alive(person: Person) -> bool:
    """Whether no part of the node has failed."""
    return not person.node.failed.done()


async def acquainted(nodes: Society, anna: Person) -> Forger:
    """A contact of Anna's who follows no rule."""
    forger = Forger()
    now = nodes.clock()
    await hand_over([forger.introduce(forger.letter(note("hello"), now), await anna.link(), now)], anna)
    assert notes(anna) == ["hello"]
    return forger


class TestIdentities:
    @story
    async def test_nobody_takes_over_mail_by_certifying_somebody_elses_device(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            await write(boris, anna, "hello")
            await meet(boris, anna)
            forger, now = Forger(), nodes.clock()
            stolen = forger.posing(boris.device, forger.seal.public)
            letter = forger.letter(note("I am nobody"), now, prekey_day=day_of(now) + 9)
            await hand_over([forger.introduce(letter, await anna.link(), now, sender=stolen)], anna)
            assert notes(anna) == ["hello"]
            await write(anna, boris, "for Boris alone")
            await meet(anna, boris)
            assert notes(boris) == ["for Boris alone"]

    @story
    async def test_one_device_of_two_identities_is_known_as_the_first(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            forger = await acquainted(nodes, anna)
            other = Forger("Another")
            other.signing, now = forger.signing, nodes.clock()
            other.device = other.certified()
            await hand_over([other.introduce(other.letter(note("it is me"), now), await anna.link(), now)], anna)
            with pytest.raises(UsageError, match="somebody else's"):
                await anna.add_contact(other.link(day_of(now)))
            assert notes(anna) == ["hello"]
            assert [contact.name for contact in anna.contacts()] == ["Mallory"]
            (kept,) = anna.query("SELECT prekey FROM device")[0]
            assert kept == forger.prekey.public

    @story
    async def test_a_device_certified_by_the_words_alone_blocks_until_it_is_accepted(self, tmp_path: Path) -> None:
        """Somebody typed Boris' 24 words into a program of their own."""
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            await write(boris, anna, "hello")
            await meet(boris, anna)
            thief = Forger("Boris", SigningKey.from_seed(_identity_seed(boris)))
            now = nodes.clock()
            letter = thief.letter(note("new phone, send it here"), now, prekey_day=day_of(now) + 9)
            await hand_over([thief.introduce(letter, await anna.link(), now)], anna)
            assert anna.contact(boris.identity).warnings == ("unknown_device",)
            before = Counter(e.id for e in envelopes(anna))
            await write(anna, boris, "for the Boris I know")
            await settle(anna)
            sealed = [e for e in envelopes(anna) if e.id not in before]
            devices = anna.query("SELECT device FROM sent JOIN custody USING (letter)")
            assert len(sealed) == 1
            assert {bytes(row[0]) for row in devices} == {boris.device}
            file, _ = await bundle(anna, boris)
            report = await boris.read_bundle(io.BytesIO(file))
            assert report.problems == ()
            with pytest.raises(ProtocolError, match="somebody else"):
                _read(file, thief)

    @story
    async def test_a_device_cross_signed_by_the_thiefs_own_is_no_more_trusted(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            thief = Forger("Boris", SigningKey.from_seed(_identity_seed(boris)))
            now, link = nodes.clock(), await anna.link()
            await hand_over([thief.introduce(thief.letter(note("one"), now), link, now)], anna)
            second = Forger("Boris", thief.identity)
            second.device = second.certified(cross=thief.signing)
            await hand_over([second.introduce(second.letter(note("two"), now), link, now)], anna)
            rows = anna.query("SELECT device, accepted, warning FROM device WHERE identity = ?", (boris.identity,))
            assert {(bytes(d), a, w) for d, a, w in rows} == {
                (boris.device, 1, ""),
                (thief.device.device, 0, "unknown_device"),
                (second.device.device, 0, "unknown_device"),
            }

    @story
    async def test_a_device_cross_signed_by_the_known_one_is_a_notice(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            second = Forger("Boris", SigningKey.from_seed(_identity_seed(boris)))
            second.device = second.certified(cross=boris.signing_key)
            now = nodes.clock()
            await hand_over([second.introduce(second.letter(note("hi"), now), await anna.link(), now)], anna)
            assert anna.contact(boris.identity).warnings == ("new_device",)
            await write(anna, boris, "to both")
            rows = anna.query("SELECT device FROM sent JOIN custody USING (letter)")
            assert {bytes(row[0]) for row in rows} == {boris.device, second.device.device}

    @story
    async def test_nobody_ends_somebody_elses_device(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            forger, now = Forger(), nodes.clock()
            ended = [revoke(forger.identity, boris.device), revoke(forger.identity, anna.device)]
            forged = msgspec.msgpack.encode([msgspec.msgpack.decode(ended[0])[0], bytes(64)])
            body = msgspec.msgpack.encode(Devices([], [*ended, forged]))
            letter = forger.letter(body, now, kind="devices")
            await hand_over([forger.introduce(letter, await anna.link(), now)], anna)
            assert [(d.accepted, d.warning) for d in anna.contact_devices(boris.identity)] == [(True, "")]
            assert not anna.is_ended
            await write(anna, boris, "as before")
            await meet(anna, boris)
            assert "as before" in notes(boris)

    @story
    async def test_a_revocation_told_again_and_again_ends_one_device_once(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            await boris.renew()
            await meet(boris, anna)
            before = anna.contact_devices(boris.identity)
            ended = anna.query("SELECT signed FROM revoked")
            thief = Forger("Boris", SigningKey.from_seed(_identity_seed(boris)))
            now, link = nodes.clock(), await anna.link()
            again = msgspec.msgpack.encode(Devices([], [bytes(row[0]) for row in ended]))
            for _ in range(3):
                await hand_over([thief.introduce(thief.letter(again, now, kind="devices"), link, now)], anna)
            assert anna.contact_devices(boris.identity)[1:] == before
            assert anna.query("SELECT signed FROM revoked") == ended

    @story
    async def test_a_device_that_was_ended_before_it_was_seen_is_never_written_to(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            lost = Forger("Boris", SigningKey.from_seed(_identity_seed(boris)))
            lost.device = lost.certified(cross=boris.signing_key)
            now, link = nodes.clock(), await anna.link()
            ended = msgspec.msgpack.encode(Devices([], [revoke(lost.identity, lost.device.device)]))
            other = Forger("Boris", lost.identity)
            await hand_over([other.introduce(other.letter(ended, now, kind="devices"), link, now)], anna)
            await hand_over([lost.introduce(lost.letter(note("hi"), now), link, now)], anna)
            assert {d.device.device: d.warning for d in anna.contact_devices(boris.identity)} == {
                boris.device: "",
                other.device.device: "unknown_device",
                lost.device.device: "revoked",
            }
            await anna.accept_device(boris.identity)
            await write(anna, boris, "to whom?")
            rows = anna.query("SELECT device FROM sent JOIN custody USING (letter)")
            assert lost.device.device not in {bytes(row[0]) for row in rows}

    @story
    async def test_revocations_of_devices_that_nobody_knows_do_not_fill_the_vault(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            forger = await acquainted(nodes, anna)
            now, link = nodes.clock(), await anna.link()
            letters = []
            for _ in range(inbox.REVOKED_MAX // TOLD_MAX + 3):
                ended = [revoke(forger.identity, os.urandom(32)) for _ in range(TOLD_MAX)]
                body = msgspec.msgpack.encode(Devices([], ended))
                letters.append(forger.introduce(forger.letter(body, now, kind="devices"), link, now))
            await hand_over(letters, anna)
            assert anna.query("SELECT count(*) FROM revoked") == [(inbox.REVOKED_MAX,)]
            ended = [revoke(forger.identity, forger.device.device)]
            body = msgspec.msgpack.encode(Devices([], ended))
            await hand_over([forger.introduce(forger.letter(body, now, kind="devices"), link, now)], anna)
            assert [d.warning for d in anna.contact_devices(forger.identity.public)] == ["revoked"]

    @story
    async def test_a_contact_cannot_make_each_letter_cost_a_hundred(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            forger = await acquainted(nodes, anna)
            now, link = nodes.clock(), await anna.link()
            more = []
            for number in range(40):
                one = Forger("Mallory", forger.identity)
                one.device = one.certified(cross=forger.signing)
                more.append(one.introduce(one.letter(note(str(number)), now), link, now))
            await hand_over(more, anna)
            before = len(envelopes(anna))
            await anna.send(forger.identity.public, NOTE.name, _note("hello"))
            assert len(envelopes(anna)) - before <= inbox.DEVICES_MAX
            assert anna.query("SELECT count(*) FROM device")[0][0] <= 2 * inbox.DEVICES_MAX

    @story
    async def test_who_introduces_themselves_by_a_contacts_name_is_told_apart_and_takes_it_from_nobody(
        self, tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            now, link = nodes.clock(), await anna.link()
            posing = [
                Forger(name) for name in ("BORIS", "\uff42oris", "anna", "boris\ufe0f", "bor\u034fis \u3164", "\u2800")
            ]
            await hand_over([one.introduce(one.letter(note(one.name), now), link, now) for one in posing], anna)
            assert anna.find("boris").identity == boris.identity
            for one in posing:
                assert anna.contact(one.identity.public).name == f"{one.name} ({id_text(one.identity.public)[:8]})"

    @story
    async def test_who_floods_a_link_with_identities_meets_an_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inbox, "INTRODUCED_MAX", 5)
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            now, link = nodes.clock(), await anna.link()
            crowd = [Forger(f"Mallory {n}") for n in range(9)]
            await hand_over([one.introduce(one.letter(note(one.name), now), link, now) for one in crowd], anna)
            assert len(anna.contacts()) == 5
            # Somebody who is wanted still gets in, and so do the others when there is room.
            await anna.add_contact(await boris.link())
            await boris.add_contact(link)
            await write(boris, anna, "it is me")
            await meet(boris, anna)
            assert "it is me" in notes(anna)
            for contact in anna.contacts():
                await anna.verify(contact.identity)
            anna = await nodes.come_back("anna")
            await settle(anna)
            assert len(notes(anna)) == 10


class TestKeys:
    @pytest.mark.parametrize("key", LOW_ORDER, ids=bytes.hex)
    @story
    async def test_a_prekey_that_nothing_can_be_sealed_to_does_not_stop_a_node(
        self, tmp_path: Path, key: bytes
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            forger = await acquainted(nodes, anna)
            now = nodes.clock()
            with unchecked():
                bad = forger.write(forger.letter(note("answer me"), now, prekey=key), await anna.link(), now)
            await hand_over([bad], anna)
            assert is_alive(anna)
            assert notes(anna) == ["hello"]
            for receiver in (forger.identity.public, boris.identity):
                await anna.send(receiver, NOTE.name, _note("still here"))
            await meet(anna, boris)
            assert notes(boris) == ["still here"]

    @pytest.mark.parametrize("key", LOW_ORDER, ids=bytes.hex)
    @story
    async def test_a_link_with_such_a_key_is_refused_in_one_line(self, tmp_path: Path, key: bytes) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            forger = Forger()
            today = day_of(nodes.clock())
            for link in (forger.link(today, prekey=key), forger.link(today, seal=key)):
                with pytest.raises((ProtocolError, UsageError)) as refusal:
                    await anna.add_contact(link)
                assert "\n" not in str(refusal.value)
            assert anna.contacts() == []
            anna = await nodes.come_back("anna")
            await hand_over([_odd_mail(nodes.clock())], anna)
            assert is_alive(anna)


class TestLetters:
    @pytest.mark.parametrize(
        "body",
        [b"", b"\xc1", b"\x91\xa2\xc3\x28", b"\x91" * 3000, msgspec.msgpack.encode({"text": 1}), note("x" * 14_999)],
        ids=["nothing", "no msgpack", "no text", "too deep", "a map", "too long"],
    )
    @story
    async def test_a_body_that_is_none_of_its_kind_is_passed_over(self, tmp_path: Path, body: bytes) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            forger = await acquainted(nodes, anna)
            now, link = nodes.clock(), await anna.link()
            receipts = len(envelopes(anna))
            with unchecked():
                await hand_over([forger.write(forger.letter(body, now), link, now)], anna)
            assert is_alive(anna)
            assert notes(anna) == ["hello"]
            assert len(envelopes(anna)) == receipts + 1, "what nobody can read is not said to be received"
            await hand_over([forger.write(forger.letter(note("again"), now), link, now, counter=1)], anna)
            assert notes(anna) == ["again", "hello"]

    @story
    async def test_a_letter_that_no_room_here_knows_is_kept_for_the_room_and_not_said_to_be_received(
        self, tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            rooms, nodes.rooms = nodes.rooms, [msgspec_free_toy()]
            anna = await nodes.come_back("anna")
            letter = await write(boris, anna, "for a room that is not here")
            await meet(boris, anna)
            assert events(boris, letter) == ["kept"]
            nodes.rooms = rooms
            anna = await nodes.come_back("anna")
            await settle(anna)
            assert notes(anna) == ["for a room that is not here"]
            await meet(anna, boris)
            assert events(boris, letter) == ["kept", "received"]

    @story
    async def test_nobody_acknowledges_for_somebody_else(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            forger = await acquainted(nodes, anna)
            letter = await write(anna, boris, "for Boris")
            now, link = nodes.clock(), await anna.link()
            for counter, event in enumerate((1, 2)):
                body = msgspec.msgpack.encode(Receipt(event, [letter]))
                receipt = forger.write(forger.letter(body, now, "receipt"), link, now, counter)
                await hand_over([receipt], anna)
            assert events(anna, letter) == ["kept"]

    @pytest.mark.parametrize(
        "body",
        [b"", b"\xc0", b"\x92\x01\xc0", b"\x91" * 3000, b"\x92\x01\x91\xc4\x01x", b"\x92\x07\x91\xc4\x10" + bytes(16)],
        ids=["nothing", "nil", "no letters", "too deep", "short id", "unknown event"],
    )
    @story
    async def test_receipts_of_any_form_do_no_harm(self, tmp_path: Path, body: bytes) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            forger = await acquainted(nodes, anna)
            letter = await anna.send(forger.identity.public, NOTE.name, _note("hello"))
            if body.endswith(bytes(16)):
                body = body[:-16] + letter
            now = nodes.clock()
            await hand_over([forger.write(forger.letter(body, now, "receipt"), await anna.link(), now)], anna)
            assert is_alive(anna)
            assert events(anna, letter) == ["kept"]

    @story
    async def test_a_letter_that_comes_twice_in_two_envelopes_is_shown_once(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            forger = await acquainted(nodes, anna)
            now, link = nodes.clock(), await anna.link()
            letter = forger.letter(note("once"), now)
            copies = [forger.write(letter, link, now, counter) for counter in range(3)]
            await hand_over(copies, anna)
            other = msgspec.structs.replace(letter, body=note("another text under the same id"))
            await hand_over([forger.write(other, link, now, 3)], anna)
            assert notes(anna) == ["hello", "once"]

    @story
    async def test_letters_whose_bodies_never_come_keep_nobody_elses_from_being_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inbox, "AWAITED_MAX", 20)
        monkeypatch.setattr(inbox, "AWAITED_OF_ONE", 10)
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            now, link = anna.node.now_ms(), await anna.link()
            mallory, boris = Forger(), Forger("Boris")

            def promised(by: Forger, place: mail.Place) -> Entry:
                return by.introduce(mail.apart(by.letter(b"", now), place), link, now)

            nowhere = [mail.Place(os.urandom(16), os.urandom(32), os.urandom(32)) for _ in range(25)]
            await hand_over([promised(mallory, place) for place in nowhere], anna)
            body, place = mail.seal_body(note("hello"), now_ms=now, rand=os.urandom)
            await hand_over([promised(boris, place)], anna)
            await hand_over([body], anna)
            assert notes(anna) == ["hello"]
            assert anna.query("SELECT count(*) FROM awaited") == [(10,)]

    @story
    async def test_tags_used_again_do_not_lose_a_letter(self, tmp_path: Path) -> None:
        """Boris' disk was put back to this morning's copy, so his counters run again."""
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            forger = await acquainted(nodes, anna)
            now, link = nodes.clock(), await anna.link()
            for text in ("first", "second"):
                await hand_over([forger.write(forger.letter(note(text), now), link, now, 0)], anna)
            assert notes(anna) == ["first", "hello", "second"]


class TestCosts:
    @pytest.fixture(autouse=True)
    def without_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inbox, "LATER_PAUSE", 0)

    @story
    async def test_garbage_under_a_tag_that_was_seen_hides_no_letter(self, tmp_path: Path) -> None:
        """A relay holds a letter back, and sends a hundred envelopes with its tag ahead of it."""
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            await write(boris, anna, "the real one")
            (real,) = envelopes(boris)
            await hand_over([*garbage(real, 100), real], anna)
            assert notes(anna) == ["the real one"]
            assert is_alive(anna)

    @story
    async def test_garbage_is_tried_a_few_times_before_the_mail_of_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[bytes] = []
        opens = mail.open_letter

        def counting(entry: Entry, **more: object) -> mail.SealedLetter:
            tried.append(entry.header.tags[0])
            return opens(entry, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(mail, "open_letter", counting)
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            forger = await acquainted(nodes, anna)
            await write(boris, anna, "the real one")
            (real,) = envelopes(boris)
            tag = real.header.tags[0]
            for _ in range(3):
                await anna.node.ingest(garbage(real, 120))
            now = nodes.clock()
            other = forger.write(forger.letter(note("next"), now), await anna.link(), now)
            await anna.node.ingest([other])
            await anna.inbox.read()
            before = Counter(tried)[tag]
            assert "next" in notes(anna), "the mail of others did not wait"
            assert before <= inbox.FAILURES_MAX + inbox.TRIES_MAX + 5 * inbox.LATER_SLICE
            await hand_over([real], anna)

    @story
    async def test_garbage_that_lies_here_costs_no_memory_when_a_link_is_added_again(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            await write(anna, boris, "hello")
            await meet(anna, boris)
            await write(boris, anna, "the real one")
            real = envelopes(boris)[-1]
            await anna.block(boris.identity)
            await hand_over([*garbage(real, 1000, size_bytes=16_384), real], anna)
            link = await boris.link()
            tracemalloc.start()
            try:
                await anna.block(boris.identity, False)
                await anna.add_contact(link)
                assert tracemalloc.get_traced_memory()[1] < 6 << 20
            finally:
                tracemalloc.stop()
            await settle(anna)
            assert notes(anna) == ["the real one"]

    @story
    async def test_made_up_dates_cost_no_memory_and_hide_no_letter(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            away = FakeClock(nodes.clock())
            anna, boris = await nodes.join("anna"), await nodes.join("boris", clock=away)
            await boris.add_contact(await anna.link())
            away.advance(days=9 * 365)
            forger = await acquainted(nodes, anna)
            before = sum(map(len, anna.inbox._expected.values()))
            now = nodes.clock()
            made_up = [
                envelope(SigningKey.from_seed(os.urandom(32)), os.urandom(512), os.urandom(16), now + n * DAY_MS)
                for n in (*range(50, 50 + inbox.DAYS_MAX + 10), 10**6, 10**8)
            ]
            await anna.node.ingest(made_up)
            await write(boris, anna, "my clock is nine years ahead")
            await hand_over(envelopes(boris), anna)
            assert notes(anna) == ["hello", "my clock is nine years ahead"]
            assert sum(map(len, anna.inbox._expected.values())) <= 3 * before
            assert len(anna.inbox._expected) <= inbox.DAYS_MAX
            # The days after are found as well, and so is what came before the introduction.
            away.advance(days=1)
            await write(boris, anna, "and a day more")
            await hand_over(envelopes(boris)[-1:], anna)
            await hand_over([forger.write(forger.letter(note("x"), now), await anna.link(), now + 99 * DAY_MS)], anna)
            assert notes(anna) == ["and a day more", "hello", "my clock is nine years ahead", "x"]

    @story
    async def test_what_waits_for_its_turn_is_not_lost_with_the_process(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            away = FakeClock(nodes.clock() - 200 * DAY_MS)
            anna, boris = await friends(nodes)
            await write(boris, anna, "held back")
            (real,) = envelopes(boris)
            forger = Forger()
            odd = forger.introduce(forger.letter(note("odd"), away()), await anna.link(), away())
            await anna.node.ingest([*garbage(real, 100), real, odd])
            await anna.inbox.read()  # what is cheap was looked at, and the cursor stands behind it all
            anna = await nodes.come_back("anna")
            await settle(anna)
            assert notes(anna) == ["held back", "odd"]


class TestShares:
    @story
    async def test_forged_entries_cost_the_neighbour_that_brings_them(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            neighbour = os.urandom(32)
            await write(boris, anna, "hello")
            forged = [_with_signature(e, os.urandom(64)) for e in envelopes(boris) for _ in range(50)]
            before = anna.node.door.share_left(neighbour)
            verdicts = await anna.node.ingest(forged, neighbour)
            assert all(isinstance(v, Refused) and v.rule is Rule.SIGNATURE for v in verdicts)
            spent = before - anna.node.door.share_left(neighbour)
            assert spent >= sum(len(e.header_bytes) + 64 + len(e.payload or b"") for e in forged)

    @story
    async def test_in_a_large_batch_each_forgery_is_found_wherever_it_stands(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            await write(boris, anna, "hello")
            (real,) = envelopes(boris)
            for size in (VERIFY_SPLIT - 1, VERIFY_SPLIT, 2 * VERIFY_SPLIT + 1):
                signed = garbage(real, size)
                forged = {0, size // 2 - 1, size // 2, size // 2 + 2, size - 1}
                batch = [_with_signature(e, os.urandom(64)) if n in forged else e for n, e in enumerate(signed)]
                verdicts = await anna.node.ingest(batch, os.urandom(32))
                assert {n for n, verdict in enumerate(verdicts) if isinstance(verdict, Refused)} == forged
                assert sum(isinstance(verdict, Admitted) for verdict in verdicts) == size - len(forged)

    @story
    async def test_what_was_brought_today_still_counts_after_a_restart_and_is_written_down_in_steps(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        step = 10_000
        monkeypatch.setattr("outlast.kernel.door.SPENT_STEP_BYTES", step)
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            neighbour, strangers = os.urandom(32), [os.urandom(32), os.urandom(32)]
            await anna.node.peer_add(neighbour, "127.0.0.1", 9)
            await write(boris, anna, "hello")
            (real,) = envelopes(boris)
            whole = anna.node.door.share_left(neighbour)
            of_strangers = anna.node.door.share_left(strangers[0])
            for source in (neighbour, *strangers):
                for _ in range(9):
                    await anna.node.ingest(garbage(real, 5), source)
            spent = whole - anna.node.door.share_left(neighbour)
            assert spent > 2 * step
            assert spent % step
            written = dict(anna.node.query("SELECT neighbour, bytes FROM spent"))
            assert written == {neighbour: spent // step * step, STRANGERS: 2 * spent // step * step}
            anna = await nodes.come_back("anna")
            assert whole - anna.node.door.share_left(neighbour) == spent // step * step
            assert of_strangers - anna.node.door.share_left(strangers[1]) == 2 * spent // step * step

    @story
    async def test_refusals_are_remembered_within_bounds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("outlast.kernel.door.REFUSED_MAX", 20)
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            await write(boris, anna, "hello")
            (real,) = envelopes(boris)
            await anna.node.ingest([_with_signature(real, os.urandom(64)) for _ in range(100)], os.urandom(32))
            assert len(anna.node.door._refused) <= 20
            assert anna.node.query("SELECT count(*) FROM refused")[0][0] <= 20
            await hand_over([real], anna)
            assert notes(anna) == ["hello"]

    @story
    async def test_a_disk_that_fills_is_kept_for_what_is_written_here(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            neighbour, stranger = os.urandom(32), os.urandom(32)
            await anna.node.peer_add(neighbour, "127.0.0.1", 9)
            for number in range(3):
                await write(boris, anna, f"letter {number}")
            first, second, third = envelopes(boris)
            for free, entry, source, is_let_in in (
                (SPACE_LOW_BYTES * 3, first, stranger, True),
                (SPACE_LOW_BYTES * 3 // 2, second, stranger, False),
                (SPACE_LOW_BYTES * 3 // 2, second, neighbour, True),
                (SPACE_LOW_BYTES - 1, third, neighbour, False),
                (SPACE_LOW_BYTES - 1, third, None, True),
            ):
                monkeypatch.setattr(Node, "space_left", lambda _, free=free: free)
                (verdict,) = await anna.node.ingest([entry], source)
                assert isinstance(verdict, Admitted) is is_let_in
            await write(anna, boris, "still here")
            await settle(anna)
            assert notes(anna) == ["letter 0", "letter 1", "letter 2"]


class TestBundles:
    @story
    async def test_a_bundle_by_a_stranger_leaves_no_trace_but_its_entries(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            await write(boris, anna, "hello")
            file = _bundle_by(Forger(), anna, envelopes(boris))
            report = await anna.read_bundle(io.BytesIO(file))
            await settle(anna)
            assert (report.new, notes(anna)) == (1, ["hello"])
            for table in ("held_by", "bundle_in"):
                assert anna.query(f"SELECT count(*) FROM {table}") == [(0,)]

    @story
    async def test_a_bundle_that_poses_as_a_friends_keeps_nothing_from_the_friend(self, tmp_path: Path) -> None:
        """The manifest names Boris, the signature is the forger's: what Anna writes must reach Boris all the same."""
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            await write(anna, boris, "for Boris")
            forger = Forger()
            file = _bundle_by(forger, anna, envelopes(anna), certificate=boris.certificate, acks=range(1, 50))
            report = await anna.read_bundle(io.BytesIO(file))
            assert "not written as its writer says" in "; ".join(map(str, report.problems))
            await carry(anna, boris)
            assert notes(boris) == ["for Boris"]


def msgspec_free_toy() -> object:
    """The toy room, as a version of it that knows no notes."""
    from dataclasses import replace

    from tests.kernel.society import TOY

    return replace(TOY, letters=())


def _note(text: str) -> msgspec.Struct:
    from tests.kernel.society import Note

    return Note(text)


def _identity_seed(person: Person) -> bytes:
    from outlast.kernel.identity import entropy_of, identity_key

    return identity_key(entropy_of(" ".join(person.secret_words()))).seed


def _odd_mail(now_ms: int) -> Entry:
    return envelope(SigningKey.from_seed(os.urandom(32)), os.urandom(512), os.urandom(16), now_ms)


def _with_signature(entry: Entry, signature: bytes) -> Entry:
    return Entry(entry.header, entry.header_bytes, signature, entry.id, entry.payload)


def _read(file: bytes, reader: Forger) -> None:
    from outlast.kernel.bundle import BundleReader

    BundleReader([reader.seal, reader.prekey], reader.device.device).feed(file)


def _bundle_by(
    forger: Forger, reader: Person, entries: list[Entry], certificate: bytes | None = None, acks: range = range(0)
) -> bytes:
    from outlast.kernel.identity import read_certificate

    device = read_certificate(reader.certificate)
    writer = BundleWriter.sealed(
        [(device.device, device.seal)],
        certificate=certificate or forger.device.certificate,
        signer=forger.signing,
        number=1,
        made_day=20_000,
        acks={device.device: list(acks)},
        rand=os.urandom,
    )
    return b"".join([writer.start(), *map(writer.add, entries), *writer.finish()])
