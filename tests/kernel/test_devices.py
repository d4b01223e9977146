"""What a person's devices promise: no chain is ever continued in two places, and who lost a device can end it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from outlast.errors import NotFoundError, UsageError
from outlast.kernel.database import Transaction
from outlast.kernel.devices import TELL_AGAIN_DAYS
from outlast.kernel.entry import DAY_MS, HOUR_MS, Entry
from outlast.kernel.identity import Device, SealingKey, SigningKey, certify, identity_key, read_certificate
from outlast.kernel.inbox import DEVICES_MAX
from outlast.kernel.invite import read_link
from outlast.kernel.person import INTRO_DAYS, Person
from outlast.kernel.revocation import REVOKE, TOLD_MAX, is_ended, revocation_in
from outlast.testing.clock import FakeClock
from tests.kernel.society import (
    POST,
    Note,
    Society,
    befriend,
    bundle,
    entries_of,
    envelopes,
    friends,
    hand_over,
    hears,
    ids,
    meet,
    notes,
    settle,
    society,
    story,
    write,
)


async def after_letters(nodes: Society) -> tuple[Person, Person]:
    """Friends who have written to each other, and both know it."""
    anna, boris = await friends(nodes)
    await write(anna, boris, "hello")
    await write(boris, anna, "hello")
    await meet(anna, boris)
    return anna, boris


async def post(person: Person, space: bytes, text: str) -> Entry:
    """Say something in a space."""
    return await person.node.append(person, space, POST.name, Note(text), life_ms=20 * DAY_MS)


async def share(giver: Person, *takers: Person) -> None:
    """All that one node holds goes to the others."""
    for taker in takers:
        await hand_over(entries_of(giver), taker)


def forks(person: Person) -> list[tuple[int]]:
    """Places where a node holds two entries of one device."""
    return person.node.query(
        "SELECT count(*) FROM entry WHERE author IS NOT NULL GROUP BY author, space, seq HAVING count(*) > 1"
    )


class TestCopies:
    @story
    async def test_a_copied_home_and_its_original_never_continue_one_chain(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)
            space = await anna.node.new_space(anna, "news")
            await boris.node.follow(space)
            await post(anna, space, "one")
            copy = await nodes.copy("anna", "copy")
            anna = nodes.person("anna")
            before = anna.device
            await post(anna, space, "two")
            last = await post(anna, space, "three")
            await share(anna, boris)
            # The copy meets what its own device said elsewhere: it says nothing more as that device.
            await share(boris, copy)
            assert copy.device != before == anna.device
            fourth = await post(copy, space, "four")
            assert fourth.header.author == copy.device
            meanwhile = await post(anna, space, "meanwhile")
            # The original learns of it, by the space alone, and is still until it begins anew.
            await share(copy, boris, anna)
            with pytest.raises(UsageError, match="device renew"):
                await post(anna, space, "five")
            with pytest.raises(UsageError, match="device renew"):
                await write(anna, boris, "five")
            await anna.renew()
            (again,) = [e for e in entries_of(anna) if e.header.author == anna.device and e.header.kind == POST.name]
            assert (again.payload, again.header.ts_ms, again.header.expires_day) == (
                meanwhile.payload,
                meanwhile.header.ts_ms,
                meanwhile.header.expires_day,
            ), "what was said before it could know of its end is said again"
            assert anna.device not in (before, copy.device)
            await post(anna, space, "five")
            await share(anna, boris)
            await share(copy, boris)
            assert forks(boris) == []
            ended = [r for e in entries_of(boris) if (r := revocation_in(e)) is not None]
            assert {(r.device, r.seq, r.last) for r in ended} == {(before, last.header.seq, last.id)}
            said = [e for e in entries_of(boris) if e.header.kind == POST.name]
            assert len(said) == 7
            assert [e.id for e in said if is_ended(e.header, e.id, anna.identity, ended)] == [meanwhile.id]

    @story
    async def test_a_copy_that_speaks_first_finds_the_fork_and_stops_at_once(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)
            space = await anna.node.new_space(anna, "news")
            await boris.node.follow(space)
            copy = await nodes.copy("anna", "copy")
            anna = nodes.person("anna")
            before = anna.device
            await post(anna, space, "here")
            await post(copy, space, "there")
            await share(copy, anna)
            await share(anna, boris)
            assert anna.device != before
            assert forks(boris) == [(2,)], "both were said, and both are kept"
            await share(boris, copy)
            await copy.renew()
            for person in (anna, copy):
                await post(person, space, "again")
                await share(person, boris)
            assert forks(boris) == [(2,)]

    @story
    async def test_who_renews_loses_no_mail_and_is_written_to_without_asking(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)
            await write(boris, anna, "sealed to the device of before")
            under_way = entries_of(boris)
            before = anna.device
            await anna.renew()
            await hand_over(under_way, anna)
            assert notes(anna) == ["hello", "sealed to the device of before"]
            await meet(anna, boris)
            assert {(d.device.device == anna.device, d.warning) for d in boris.contact_devices(anna.identity)} == {
                (True, "new_device"),
                (False, "revoked"),
            }
            count = len(entries_of(boris))
            await write(boris, anna, "to the new one")
            assert len(entries_of(boris)) == count + 1, "nothing is sealed to the one that is no more"
            await meet(boris, anna)
            assert "to the new one" in notes(anna)
            await write(anna, boris, "from the new one")
            await meet(anna, boris)
            assert "from the new one" in notes(boris)
            assert before not in {row[0] for row in boris.query("SELECT device FROM device WHERE accepted = 1")}

    @story
    async def test_a_stick_for_the_device_of_before_is_read(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)
            await write(boris, anna, "on the stick")
            file, _ = await bundle(boris, anna)
            await anna.renew()
            report = await anna.read_bundle(io.BytesIO(file))
            await settle(anna)
            assert report.problems == ()
            assert "on the stick" in notes(anna)

    @story
    async def test_who_never_gave_a_link_learns_of_the_new_device_too(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            await boris.add_contact(await anna.link())
            await write(boris, anna, "hello")
            await meet(boris, anna)
            await anna.renew()
            await write(anna, boris, "from the new one")
            await meet(anna, boris)
            assert notes(boris) == ["from the new one"]

    @story
    async def test_a_link_of_the_device_of_before_still_leads_to_the_person(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            link = await anna.link()
            await anna.renew()
            await boris.add_contact(link)
            await write(boris, anna, "by the old link")
            await meet(boris, anna)
            assert notes(anna) == ["by the old link"]
            await write(anna, boris, "welcome")
            await meet(anna, boris)
            assert notes(boris) == ["welcome"]
            assert boris.contact(anna.identity).warnings == ("new_device",)

    @story
    async def test_the_other_copy_is_told_even_where_nobody_speaks_in_a_space(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            await after_letters(nodes)
            copy = await nodes.copy("anna", "copy")
            anna = nodes.person("anna")
            await copy.renew()
            await share(copy, anna)
            assert anna.is_ended
            with pytest.raises(UsageError, match="device renew"):
                await anna.link()
            anna = await nodes.come_back("anna")
            assert anna.is_ended

    @story
    async def test_a_letter_that_only_a_copy_can_have_written_is_told_to_the_person(self, tmp_path: Path) -> None:
        """A contact could have made it up, so nothing is decided without the person."""
        async with society(tmp_path) as nodes:
            _, boris = await after_letters(nodes)
            copy = await nodes.copy("anna", "copy")
            anna = nodes.person("anna")
            await write(anna, boris, "by the original")
            await meet(anna, boris)
            anna = await nodes.come_back("anna")
            await settle(anna)
            assert anna.device_state == "ok", "its own letters are its own"
            device = copy.device
            await share(boris, copy)
            assert copy.device_state == "copied"
            assert copy.device == device
            await copy.note_renewal()
            assert copy.device_state == "ok"

    @story
    async def test_the_second_that_renews_waits_for_the_contacts_word(self, tmp_path: Path) -> None:
        """Contacts cannot know which of two copies is in the right hands."""
        async with society(tmp_path) as nodes:
            _, boris = await after_letters(nodes)
            copy = await nodes.copy("anna", "copy")
            anna = nodes.person("anna")
            await copy.renew()
            await meet(copy, boris)
            await anna.renew()
            await meet(anna, boris)
            warnings = {d.device.device: d.warning for d in boris.contact_devices(anna.identity)}
            assert (warnings[copy.device], warnings[anna.device]) == ("new_device", "unknown_device")

    @story
    async def test_a_renewal_survives_the_restart(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)
            await anna.renew()
            device = anna.device
            anna = await nodes.come_back("anna")
            assert anna.device == device
            await meet(anna, boris)
            await write(boris, anna, "to the new one")
            await meet(boris, anna)
            assert "to the new one" in notes(anna)


class TestRevocation:
    @story
    async def test_a_restore_ends_the_lost_device_in_letters_and_spaces(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)
            space = await anna.node.new_space(anna, "news")
            await boris.node.follow(space)
            last = await post(anna, space, "before")
            again = await nodes.join("again", backup=await anna.backup("backup words"))
            await again.node.follow(space)
            assert [d.device for d in again.old_devices()] == [anna.device]
            await again.revoke_device(anna.device)
            assert again.old_devices() == []
            assert [d.revoked for d in again.devices()] == [False, True]
            assert [e for e in entries_of(again) if e.header.kind == REVOKE.name] == []
            late = await post(anna, space, "by the thief")
            await share(anna, again, boris)
            await share(again, boris)
            assert {
                (d.device.device == anna.device, d.accepted, d.warning) for d in boris.contact_devices(anna.identity)
            } == {
                (True, False, "revoked"),
                (False, False, "unknown_device"),
            }
            ended = [r for e in entries_of(boris) if (r := revocation_in(e)) is not None]
            assert [is_ended(e.header, e.id, anna.identity, ended) for e in (last, late)] == [False, True]
            with pytest.raises(UsageError, match="nothing can be sealed"):
                await write(boris, anna, "to the thief?")
            await boris.accept_device(anna.identity)
            assert [d.warning for d in boris.contact_devices(anna.identity)] == ["", "revoked"]
            await write(boris, anna, "welcome")
            await share(boris, again, anna)
            assert "welcome" in notes(again)
            assert "welcome" not in notes(anna)

    @story
    async def test_an_end_is_heard_although_so_many_devices_are_known_that_no_more_are_let_in(
        self, tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)

            def crowd(tx: Transaction) -> None:
                for number in range(2 * DEVICES_MAX - 1):
                    boris.inbox.put_device(tx, _device_of(anna, number), None, None)

            await boris.node.write(lambda: boris.vault.write(crowd))
            again = await nodes.join("again", backup=await anna.backup("backup words"))
            await write(again, boris, "one too many")
            await hand_over(envelopes(again), boris)
            assert notes(boris) == ["hello"]
            await again.revoke_device(anna.device)
            await write(again, boris, "there is room for me")
            await hand_over(envelopes(again), boris)
            assert notes(boris) == ["hello", "there is room for me"]
            assert any(
                d.device.device == anna.device and d.warning == "revoked" for d in boris.contact_devices(anna.identity)
            )
            await hears(await nodes.come_back("boris"), "hello", "one too many", "there is room for me")

    @story
    async def test_letters_of_an_ended_device_are_shown_with_doubt_and_its_receipts_count_for_nothing(
        self, tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)
            letter = await write(boris, anna, "for the lost one")
            again = await nodes.join("again", backup=await anna.backup("backup words"))
            await again.revoke_device(anna.device)
            nodes.clock.advance(ms=HOUR_MS)
            await share(again, boris)
            assert boris.doubts(anna.device, nodes.clock() - 2 * HOUR_MS) == ""
            await share(boris, anna)
            await write(anna, boris, "still me")
            await share(anna, boris)
            assert "still me" in notes(boris)
            assert boris.doubts(anna.device, nodes.clock()) == "revoked"
            assert [one.event for one in boris.custody([letter])[letter]] == ["kept"]

    @story
    async def test_an_end_that_was_heard_while_the_clock_ran_ahead_casts_doubt_at_once(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            clock = FakeClock(nodes.clock())
            anna, boris = await nodes.join("anna"), await nodes.join("boris", clock=clock)
            await befriend(anna, boris)
            await write(anna, boris, "hello")
            await meet(anna, boris)
            again = await nodes.join("again", backup=await anna.backup("backup words"))
            await again.revoke_device(anna.device)
            clock.advance(days=400)
            await share(again, boris)
            clock.advance(days=-400)
            await write(anna, boris, "still me")
            await share(anna, boris)
            assert "still me" in notes(boris)
            assert boris.doubts(anna.device, clock()) == "revoked"

    @story
    async def test_only_an_earlier_device_of_ones_own_can_be_revoked(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)
            with pytest.raises(UsageError, match="device renew"):
                await anna.revoke_device(anna.device)
            with pytest.raises(NotFoundError):
                await anna.revoke_device(boris.device)

    @story
    async def test_what_was_ended_stays_so_after_a_restore_of_the_contact(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)
            await anna.renew()
            await meet(anna, boris)
            other = await nodes.join("boris again", backup=await boris.backup("backup words"))
            assert [d.warning for d in other.contact_devices(anna.identity)] == [
                d.warning for d in boris.contact_devices(anna.identity)
            ]
            assert other.query("SELECT count(*) FROM revoked") == [(1,)]

    @story
    async def test_in_somebody_elses_space_nothing_says_whose_device_it_was(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)
            space = await anna.node.new_space(anna, "news")
            await boris.node.follow(space)
            await share(anna, boris)
            said = await post(boris, space, "a guest")
            await boris.node.end(boris, space, [said.id])
            await boris.renew()
            await post(boris, space, "another guest")
            written = [e for e in entries_of(boris) if e.header.space == space and e.header.author != anna.device]
            assert not any(boris.identity in (entry.payload or b"") for entry in written)
            assert boris.node.open_store.get(said.id).payload is None  # type: ignore[union-attr]

    @story
    async def test_a_revocation_stays_as_long_as_what_it_ends(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, _ = await after_letters(nodes)
            space = await anna.node.new_space(anna, "news")
            await post(anna, space, "one")
            await anna.renew()
            (entry,) = [e for e in entries_of(anna) if e.header.kind == REVOKE.name]
            assert entry.header.expires_day == 0
            await settle(anna)


class TestTelling:
    @story
    async def test_who_was_away_is_told_again_until_they_know(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_letters(nodes)
            before = anna.device
            await anna.renew()
            lost = ids(entries_of(anna))
            nodes.clock.advance(days=TELL_AGAIN_DAYS + 1)
            await anna.tell_again()
            fresh = [e for e in entries_of(anna) if e.id not in lost]
            await hand_over(fresh, boris)
            assert {d.device.device: d.warning for d in boris.contact_devices(anna.identity)} == {
                anna.device: "new_device",
                before: "revoked",
            }
            await meet(anna, boris)
            assert anna.query("SELECT count(*) FROM untold") == [(0,)], "they have acknowledged it"
            count = len(entries_of(anna))
            nodes.clock.advance(days=TELL_AGAIN_DAYS + 1)
            await anna.tell_again()
            assert len(entries_of(anna)) == count

    @story
    async def test_who_could_not_be_told_is_told_with_their_link(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            await boris.add_contact(await anna.link())
            await write(boris, anna, "hello")
            await meet(boris, anna)
            again = await nodes.join("again", backup=await anna.backup("backup words"))
            await again.revoke_device(anna.device)
            assert len(entries_of(again)) == 0
            await again.add_contact(await boris.link())
            await meet(again, boris)
            warnings = {d.device.device: d.warning for d in boris.contact_devices(anna.identity)}
            assert warnings == {anna.device: "revoked", again.device: "unknown_device"}

    @story
    async def test_of_however_many_devices_who_could_not_be_told_hears_of_each_that_it_has_ended(
        self, tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            await boris.add_contact(await anna.link())
            await write(boris, anna, "hello")
            await meet(boris, anna)
            again = await nodes.join("again", backup=await anna.backup("backup words"))
            lost = [_device_of(anna, number) for number in range(TOLD_MAX + 2)]

            def remember(tx: Transaction) -> None:
                rows = [(device.device, device.certificate) for device in lost]
                tx.executemany("INSERT INTO own_device(device, certificate, ended_day) VALUES (?, ?, 0)", rows)

            await again.node.write(lambda: again.vault.write(remember))
            for device in again.old_devices():
                await again.revoke_device(device.device)
            await again.add_contact(await boris.link())
            await meet(again, boris)
            heard = boris.query("SELECT device FROM revoked WHERE identity = ?", (anna.identity,))
            assert {bytes(row[0]) for row in heard} == {anna.device, *(device.device for device in lost)}

    @story
    async def test_links_of_other_months_bear_other_secrets_and_all_lead_here(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            first = await anna.link()
            nodes.clock.advance(days=INTRO_DAYS)
            second = await anna.link()
            secrets = [read_link(link, today=anna.node.today()).intro_secret for link in (first, second)]
            assert secrets[0] != secrets[1]
            await boris.add_contact(first)
            await write(boris, anna, "by the first")
            await meet(boris, anna)
            assert notes(anna) == ["by the first"]

    @story
    async def test_a_prekey_of_a_clock_that_ran_ahead_does_not_stay_the_newest(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            ahead = FakeClock(nodes.clock() + 9000 * DAY_MS)
            anna, boris = await nodes.join("anna", clock=ahead), await nodes.join("boris")
            await boris.add_contact(await anna.link())
            ahead.now_ms = nodes.clock()
            anna = await nodes.come_back("anna")
            await anna.add_contact(await boris.link())
            await anna.met_somebody()
            await write(anna, boris, "the clock is right again")
            await meet(anna, boris)
            ((day,),) = boris.query("SELECT prekey_day FROM device")
            assert day == boris.node.today()
            await write(boris, anna, "to the new prekey")
            await meet(boris, anna)
            assert notes(anna) == ["to the new prekey"]


def _device_of(person: Person, number: int) -> Device:
    """One more device of somebody, which is nowhere."""
    device, seal = SigningKey.from_seed(bytes([number]) * 32), SealingKey.from_secret(bytes(31) + b"x")
    return read_certificate(
        certify(identity_key(person.entropy), device, seal.public, person.node.today(), person.name)
    )
