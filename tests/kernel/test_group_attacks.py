"""What strangers, former members and members of a closed group try, and what its nodes make of it."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import msgspec
import pytest

from outlast.errors import UsageError
from outlast.kernel import wire
from outlast.kernel.admit import Admitted, Held, Refused, Rule
from outlast.kernel.circular import CIRCULAR, Circular
from outlast.kernel.entry import Entry, day_of, pack
from outlast.kernel.epoch import Inner, seal_entry
from outlast.kernel.links import tcp
from outlast.kernel.log import Head, next_entry
from outlast.kernel.mail import MAIL_SPACE
from outlast.kernel.membership import ADD, ADMIN, HERE, MEMBER_ACT, MEMBER_ACTS_MAX, REMOVE, RENEW, ActBody
from outlast.kernel.outbox import Outgoing
from outlast.kernel.person import Person
from outlast.kernel.wire import space_mac
from tests.kernel.forger import Forger, note
from tests.kernel.society import (
    NOTE,
    POST,
    Note,
    befriend,
    envelopes,
    hand_over,
    notes,
    said_in,
    settle,
    society,
    story,
)
from tests.kernel.test_groups import LIFE_MS, everybody_meets, group, holds, members, quartet, say, texts, trio


def act(author: Person, space: bytes, what: str, subject: bytes, role: str, *parents: bytes) -> bytes:
    """The body of an act that this person's own program would not say."""
    return MEMBER_ACT.encode(ActBody(what, subject, role, tuple(sorted(parents)), (), b"", author.certificate))


def entry_of(author: Person, space: bytes, kind: str, payload: bytes, seq: int, life_ms: int = 0) -> Entry:
    """An entry in the open, signed by this person's device."""
    return next_entry(
        author.signing_key,
        Head(seq - 1, os.urandom(32)) if seq > 1 else None,
        space=space,
        kind=kind,
        payload=payload,
        clock=seq,
        ts_ms=author.node.now_ms(),
        life_ms=life_ms,
        priority=0,
    )


async def by_mail(sender: Person, receiver: Person, body: bytes) -> None:
    """A circular of any contents from a contact."""
    await sender.outbox.enqueue(receiver.identity, CIRCULAR.name, body, None)
    await everybody_meets(sender, receiver)


def brings(space: bytes, *entries: Entry, secrets: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    return CIRCULAR.encode(Circular(space, b"", tuple(map(pack, entries)), secrets, ()))


class TestActs:
    @story
    async def test_one_who_is_no_member_adds_and_removes_nobody(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("members", anna, boris)
            heads = anna.node.members(space).heads
            forged = [
                entry_of(clara, space, "member", act(clara, space, ADD, clara.identity, ADMIN, *heads[:16]), 1),
                entry_of(clara, space, "member", act(clara, space, REMOVE, boris.identity, "", *heads[:16]), 2),
            ]
            await by_mail(clara, anna, brings(space, *forged))
            assert anna.node.open_store.known([one.id for one in forged]) == {one.id for one in forged}
            assert members(anna, space) == {"anna", "boris"}

    @story
    async def test_a_plain_member_leads_nobody_and_their_program_says_so(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris, clara)
            for attempt in (
                boris.add_member(space, clara.identity, "admin"),
                boris.remove_member(space, clara.identity),
            ):
                with pytest.raises(UsageError, match="founder and the admins"):
                    await attempt
            with pytest.raises(UsageError, match="stays until they leave"):
                await anna.remove_member(space, anna.identity)

    @story
    async def test_the_removed_change_nothing_by_dating_back(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("members", anna, boris, clara)
            await anna.add_member(space, clara.identity, "admin")
            await everybody_meets(anna, boris, clara)
            heads = clara.node.members(space).heads
            await anna.remove_member(space, clara.identity)
            await everybody_meets(anna, boris, clara)
            forged = entry_of(clara, space, "member", act(clara, space, REMOVE, boris.identity, "", *heads), 50)
            await by_mail(clara, boris, brings(space, forged))
            assert members(boris, space) == {"anna", "boris"}

    @story
    async def test_thousands_of_acts_hold_nobody_up(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group("members", anna, boris)
            heads = boris.node.members(space).heads
            flood = [
                entry_of(boris, space, "member", act(boris, space, ADD, os.urandom(32), ADMIN, *heads), 10 + number)
                for number in range(2000)
            ]
            assert all(isinstance(v, Admitted) for v in await anna.node.ingest(flood))
            began = time.process_time()
            assert members(anna, space) == {"anna", "boris"}
            assert time.process_time() - began < 5
            await anna.remove_member(space, boris.identity)
            assert members(anna, space) == {"anna"}
            assert anna.query("SELECT count(*) FROM local_group_act")[0][0] < 30

    @story
    async def test_a_member_who_says_too_much_is_removed_like_others(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group("members", anna, boris)
            heads = boris.node.members(space).heads
            await anna.node.ingest(
                [
                    entry_of(boris, space, "member", act(boris, space, HERE, b"", "", *heads), 10 + number)
                    for number in range(MEMBER_ACTS_MAX)
                ]
            )
            await anna.remove_member(space, boris.identity)
            assert members(anna, space) == {"anna"}

    @pytest.mark.parametrize("type", ["members", "sealed"])
    @story
    async def test_a_member_who_says_more_than_is_read_at_a_time_keeps_nobody_new_from_being_heard(
        self, type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("outlast.kernel.groups.READ_SLICE", 20)
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group(type, anna, boris)
            noise = Inner("member", boris.node.now_ms(), act(boris, space, HERE, b"", ""))
            secrets = dict(boris.groups._readings[space].secrets)
            for number in range(10, 110):
                head = Head(number, os.urandom(32))
                one = (
                    seal_entry(
                        boris.signing_key,
                        head,
                        noise,
                        space=space,
                        secrets=secrets,
                        clock=1,
                        life_ms=0,
                        rand=os.urandom,
                    )
                    if type == "sealed"
                    else entry_of(boris, space, "member", noise.body, number)
                )
                await anna.node.door.admit_own([one])
            await anna.add_member(space, clara.identity, "admin")
            await everybody_meets(anna, clara)
            await clara.join_space(space)
            await everybody_meets(anna, clara)
            await say(clara, space, "hello")
            await everybody_meets(anna, clara)
            assert texts(anna, space) == ["hello"]
            await clara.remove_member(space, boris.identity)
            await everybody_meets(anna, clara)
            assert members(anna, space) == {"anna", "clara"}

    @story
    async def test_who_showed_a_device_before_they_were_added_counts_after_any_number_of_acts_of_no_use(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("outlast.kernel.groups.SPARE_MAX", 3)
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("members", anna, boris)
            early = entry_of(clara, space, "member", act(clara, space, HERE, b"", ""), 1)
            noise = [
                entry_of(boris, space, "member", act(boris, space, HERE, b"", ""), 10 + number)
                for number in range(MEMBER_ACTS_MAX + 10)
            ]
            await anna.node.ingest([early, *noise])
            assert members(anna, space) == {"anna", "boris"}
            assert len(anna.groups._readings[space].acts) < MEMBER_ACTS_MAX + 9
            adding = act(anna, space, ADD, clara.identity, "member", *anna.node.members(space).heads)
            seq, _ = anna.node.open_store.head(space, anna.device) or (0, b"")
            added = entry_of(anna, space, "member", adding, seq + 1)
            late = entry_of(clara, space, "member", act(clara, space, HERE, b"", "", added.id), 2)
            await anna.node.ingest([late, added])
            await anna.groups.tend()
            assert clara.device in anna.node.members(space).devices

    @story
    async def test_an_act_whose_payload_comes_after_its_header_counts_as_soon_as_it_has_come(
        self, tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("members", anna, boris, clara)
            others = tuple(sorted((os.urandom(32), number) for number in range(16)))
            heads = tuple(sorted((*boris.node.members(space).heads, *(os.urandom(32) for _ in range(12)))))
            body = ActBody(REMOVE, clara.identity, "", heads, others, os.urandom(32), anna.certificate)
            removal = entry_of(anna, space, "member", MEMBER_ACT.encode(body), 40)
            assert removal.header.payload_size > 1024
            await boris.node.ingest([msgspec.structs.replace(removal, payload=None)])
            assert members(boris, space) == {"anna", "boris", "clara"}
            await boris.node.ingest([removal])
            assert members(boris, space) == {"anna", "boris"}

    @story
    async def test_what_would_not_count_is_not_said_again_and_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group("members", anna, boris)
            monkeypatch.setattr("outlast.kernel.membership.MEMBER_ACTS_MAX", 0)
            boris = await nodes.come_back("boris")
            before = holds(boris, space)
            await boris.groups.tend()
            assert boris.device not in boris.node.members(space).devices
            assert holds(boris, space) == before


class TestKeys:
    @story
    async def test_a_wrong_secret_takes_nobodys_key(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris, clara)
            epoch = anna.node.members(space).epochs[0]
            before = boris.groups.access[space]
            await by_mail(clara, boris, brings(space, secrets=((epoch, os.urandom(32)),)))
            await boris.groups.tend()
            assert boris.groups.access[space] == before
            await anna.remove_member(space, clara.identity)
            (renewed,) = anna.node.members(space).epochs
            await by_mail(clara, boris, brings(space, secrets=((renewed, os.urandom(32)),)))
            await everybody_meets(anna, boris)
            assert boris.groups.access[space] == anna.groups.access[space]

    @story
    async def test_any_number_of_wrong_secrets_leaves_room_for_the_right_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("outlast.kernel.circular.SECRETS_MAX", 40)
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris, clara)
            await anna.remove_member(space, clara.identity)
            wrong = tuple((os.urandom(32), os.urandom(32)) for _ in range(60))
            await by_mail(clara, boris, brings(space, secrets=wrong))
            await everybody_meets(anna, boris)
            assert boris.groups.access[space] == anna.groups.access[space]

    @story
    async def test_who_does_not_know_a_secret_keeps_nobody_from_telling_it(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara, dora, space = await quartet(nodes)
            await anna.remove_member(space, clara.identity)
            (renewed,) = anna.node.members(space).epochs
            lie = Circular(space, b"", (), ((renewed, os.urandom(32)),), (dora.identity,))
            await by_mail(clara, boris, CIRCULAR.encode(lie))
            await everybody_meets(anna, boris, dora)
            assert dora.groups.access[space] == anna.groups.access[space]

    @story
    async def test_a_member_who_says_that_others_know_a_new_key_keeps_nobody_from_telling_them(
        self, tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara, dora, space = await quartet(nodes)
            edith = await nodes.join("edith")
            await befriend(dora, edith)
            await befriend(boris, edith)
            await boris.add_member(space, edith.identity)
            await everybody_meets(boris, edith)
            await edith.join_space(space)
            everybody = anna, boris, clara, dora, edith
            await everybody_meets(*everybody)
            await anna.groups._act(space, RENEW, secret=os.urandom(32))
            await anna.groups.tend()
            (renewed,) = anna.node.members(space).epochs
            await hand_over(envelopes(anna), clara)
            secret = anna.groups._readings[space].secrets[renewed]
            lie = Circular(space, b"", (), ((renewed, secret),), (dora.identity, edith.identity))
            await by_mail(clara, boris, CIRCULAR.encode(lie))
            await everybody_meets(*everybody)
            assert dora.groups.access[space] == edith.groups.access[space] == anna.groups.access[space]

    @story
    async def test_what_is_sealed_under_an_old_key_by_the_removed_does_not_count(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris, clara)
            secrets = dict(clara.groups._readings[space].secrets)
            await anna.remove_member(space, clara.identity)
            await everybody_meets(anna, boris, clara)
            inner = Inner(POST.name, clara.node.now_ms(), msgspec.msgpack.encode(Note("still here")))
            forged = seal_entry(
                clara.signing_key,
                Head(40, os.urandom(32)),
                inner,
                space=space,
                secrets=secrets,
                clock=1,
                life_ms=LIFE_MS,
                rand=os.urandom,
            )
            await by_mail(clara, boris, brings(space, forged))
            assert forged.id in {said.id for said in said_in(boris, space) if not said.counts}
            assert texts(boris, space) == []

    @story
    async def test_what_waits_for_who_was_asked_in_is_not_exchanged_for_what_nobody_signed(
        self, tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, clara)
            await say(anna, space, "hello")
            await anna.add_member(space, boris.identity)
            await everybody_meets(anna, boris, clara)
            false = [
                msgspec.structs.replace(one, signature=os.urandom(64))
                for one in clara.node.open_store.load(holds(clara, space))
                if one.id != space
            ]
            await by_mail(clara, boris, brings(space, *false))
            await boris.join_space(space)
            await settle(boris)
            assert texts(boris, space) == ["hello"]
            assert members(boris, space) == {"anna", "boris", "clara"}

    @story
    async def test_a_member_who_writes_under_the_id_of_anothers_letter_keeps_it_from_nobody(
        self, tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris, clara)
            before = {bytes(row[0]) for row in clara.query("SELECT letter FROM seen_letter")}
            await say(anna, space, "meet at noon")
            await settle(anna)
            await hand_over(envelopes(anna), clara)
            [known] = {bytes(row[0]) for row in clara.query("SELECT letter FROM seen_letter")} - before
            false = Outgoing(boris.identity, NOTE.name, note("nothing"), known, clara.node.now_ms())
            await clara.node.write(
                lambda: clara.outbox.commit(lambda tx: (clara.outbox.put_letters(tx, [false])[0], None))
            )
            await clara.outbox.flush()
            await hand_over(envelopes(clara)[-1:], boris)
            assert notes(boris) == ["nothing"]
            await hand_over(envelopes(anna), boris)
            await boris.groups.tend()
            await settle(boris)
            assert texts(boris, space) == ["meet at noon"]

    @story
    async def test_one_who_is_out_cannot_speak_by_their_own_program(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("members", anna, boris, clara)
            await anna.remove_member(space, clara.identity)
            await everybody_meets(anna, boris)
            removal = anna.node.open_store.load(id for _, id in anna.node.open_store.lasting(space))
            await clara.node.ingest(removal)
            with pytest.raises(UsageError, match="no member"):
                await say(clara, space, "still here")


class TestTheDoor:
    @story
    async def test_in_a_sealed_group_nothing_lies_open(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group("sealed", anna, boris)
            open_entry = entry_of(boris, space, POST.name, POST.encode(Note("in the open")), 9, LIFE_MS)
            (verdict,) = await anna.node.ingest([open_entry])
            assert isinstance(verdict, Refused)
            assert verdict.rule is Rule.SEALED
            with pytest.raises(UsageError, match="no files yet"):
                await anna.node.append_content(anna, space, POST.name, tmp_path, life_ms=LIFE_MS)

    @story
    async def test_a_genesis_is_let_in_only_as_what_was_joined(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris)
            (genesis,) = anna.node.open_store.load([space])
            await clara.node.follow(space)
            (verdict,) = await clara.node.ingest([genesis])
            assert isinstance(verdict, Held)
            await boris.node.follow(space)
            assert boris.node.open_store.closed() == {space: "sealed"}

    @pytest.mark.parametrize("type", ["members", "sealed"])
    @story
    async def test_no_open_bundle_holds_a_group(self, type: str, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group(type, anna, boris)
            with pytest.raises(UsageError, match="open bundle"):
                await anna.write_bundle(io.BytesIO(), space=space)


class Caller:
    """A peer made by hand, under a key of its own."""

    def __init__(self, channel: tcp.Channel) -> None:
        self.channel = channel

    @classmethod
    async def call(cls, person: Person, port: int) -> Caller:
        node = person.node.transport_id
        return cls(await tcp.connect("127.0.0.1", port, static=os.urandom(32), remote=node))

    async def buckets_for(self, person: Person, macs: list[bytes]) -> set[int]:
        """Name these spaces beside the mail space; the numbers of those that the node then speaks of."""
        mail = space_mac(self.channel.session_key, initiator=True, space=MAIL_SPACE)
        hello = wire.Hello([1], day_of(person.node.now_ms()), [mail, *macs], 2**30)
        await self.channel.send(wire.encode(wire.Type.HELLO, hello))
        while True:
            message = await self.channel.receive()
            assert message is not None
            if message[0] == wire.Type.SUMMARY:
                return {ref for ref, _, _ in wire.decode(message)[1].buckets}

    async def greeting(self) -> list[bytes]:
        """How the node names its spaces to this peer."""
        while True:
            message = await self.channel.receive()
            assert message is not None
            if message[0] == wire.Type.HELLO:
                return list(wire.decode(message)[1].spaces)


@story
async def test_only_the_present_key_of_this_very_session_names_a_group(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await trio(nodes)
        space = await group("sealed", anna, boris, clara)
        old = clara.groups.access[space]
        await anna.remove_member(space, clara.identity)
        await everybody_meets(anna, boris)
        now = anna.groups.access[space]
        port = await anna.node.listen("127.0.0.1", 0)

        async def numbers(access: bytes | None, *, initiator: bool = True, replayed: list[bytes] | None = None) -> int:
            caller = await Caller.call(anna, port)
            try:
                macs = list(replayed or ())
                if access is not None:
                    key = caller.channel.session_key
                    macs.append(space_mac(key, initiator=initiator, space=space, access=access))
                return len(await caller.buckets_for(anna, macs))
            finally:
                await caller.channel.close()

        listener = await Caller.call(anna, port)
        heard = await listener.greeting()
        await listener.channel.close()
        assert await numbers(now) == 2
        assert await numbers(old) == 1
        assert await numbers(b"") == 1
        assert await numbers(os.urandom(32)) == 1
        assert await numbers(now, initiator=False) == 1
        assert await numbers(None, replayed=heard) == 1


@story
async def test_an_invitation_by_a_stranger_waits_like_any_other_and_brings_nothing_in(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        forger, now = Forger(), nodes.clock()
        body = CIRCULAR.encode(Circular(os.urandom(32), b"garbage", (b"garbage",) * 10, (), ()))
        letter = forger.letter(body, now, kind=CIRCULAR.name)
        await anna.node.ingest([forger.introduce(letter, await anna.link(), now)])
        await everybody_meets(anna)
        assert anna.invitations() == []
        assert not anna.node.failed.done()
