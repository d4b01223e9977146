"""Small things that a store, a vault or a stick would tell: who wrote, who brought, what was deleted."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from math import log2
from pathlib import Path

from outlast.kernel.bundle import CHUNK_BYTES, MAGIC, SLOTS
from outlast.kernel.door import SPENT_STEP_BYTES
from outlast.kernel.entry import DAY_MS
from outlast.kernel.hpke import ENC_BYTES
from outlast.kernel.person import Person
from tests.kernel.society import befriend, bundle, carry, envelopes, friends, meet, society, story, write
from tests.seizure.taken import Taken, take


def copy_of(home: Path, tmp_path: Path, passphrase: str | None = None) -> Taken:
    """A home as it lies there while its node runs, as after a power cut."""
    place = tmp_path / os.urandom(4).hex()
    shutil.copytree(home, place)
    return take(place, passphrase)


def entropy(data: bytes) -> float:
    """Bits in each byte."""
    return -sum(n / len(data) * log2(n / len(data)) for n in Counter(data).values())


class TestStore:
    @story
    async def test_letters_written_here_look_like_the_mail_of_others(self, tmp_path: Path) -> None:
        """The store is taken with its key, and the vault of the person who lives there stays shut."""
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes, "Anna", "Boris")
            await write(anna, boris, "from here")
            await carry(anna, boris)
            await carry(boris, anna)
            own = {bytes(row[0]) for row in anna.query("SELECT entry FROM sent")}
            await anna.node._tidy()
            store = copy_of(nodes.home("Anna").path, tmp_path).store
            row_of = [dict(zip(store.columns["entry"], row, strict=True)) for row in store.tables["entry"]]
            assert {row["id"] for row in row_of} > own
            told = ("space", "expires_day", "ts_ms", "author", "seq", "rank", "whole")
            assert len({tuple(row[name] for name in told) for row in row_of}) == 1
            # What stands there about time is no finer than a day: else it would say when somebody here wrote last.
            meta = {
                str(name): int.from_bytes(value, "big") for name, value in store.tables["meta"] if name != "transport"
            }
            assert meta.pop("floor_ms", 0) % DAY_MS == 0
            assert all(value < 2**31 for value in meta.values()), "days"

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
            unspent = relay.node.door.share_left(stranger)
            found = envelopes(anna)
            assert sum(len(entry.header_bytes) for entry in found) < SPENT_STEP_BYTES
            for source, part in ((neighbour, found[:10]), (stranger, found[10:])):
                await relay.node.ingest(part, source)
                assert relay.node.door.share_left(source) < unspent
            taken = copy_of(nodes.home("relay").path, tmp_path)
            assert taken.store.tables["spent"] == []
            for place, data in taken.everything():
                assert stranger not in data, place
            for table, rows in taken.store.tables.items():
                assert table == "peer" or all(neighbour not in row for row in rows), table

    @story
    async def test_what_many_bytes_of_strangers_cost_stands_under_no_name(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes, "Anna", "Boris")
            stranger = os.urandom(32)
            boris.node.door._spent[bytes(32)] = SPENT_STEP_BYTES - 1
            await write(anna, boris, "the byte too many")
            boris.node.door.share_left(stranger)
            boris.node.door._spent[bytes(32)] = SPENT_STEP_BYTES - 1
            await boris.node.ingest(envelopes(anna), stranger)
            assert boris.node.query("SELECT neighbour, bytes FROM spent") == [(bytes(32), SPENT_STEP_BYTES)]


class TestVault:
    @story
    async def test_prekeys_that_are_over_are_on_no_page_and_in_no_log_of_the_vault(self, tmp_path: Path) -> None:
        """Who takes an open vault later cannot read the mail of that time, should somebody have kept it."""
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes, "Anna", "Boris")
            await write(anna, boris, "hello")
            await meet(anna, boris)
            known = keys(boris)
            for _ in range(50):
                nodes.clock.advance(days=1)
                await boris.met_somebody()
                known |= keys(boris)
                await boris.node.confirm_clock()
            gone = {secret for public, secret in known.items() if public not in keys(boris)}
            assert len(gone) >= 10
            taken = copy_of(nodes.home("Boris").path, tmp_path)
            assert any(secret in page for secret in keys(boris).values() for page in taken.vaults[0].pages)
            for place, data in taken.everything():
                assert not any(secret in data for secret in gone), place

    @story
    async def test_a_letter_taken_back_leaves_no_text_behind(self, tmp_path: Path) -> None:
        from outlast.kernel.room import Delete, Put
        from tests.kernel.society import NOTE, Note

        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes, "Anna", "Boris")
            text = "a sentence that was a mistake"
            row = {"letter": b"", "sender": anna.identity, "text": text}
            letter = await anna.send(
                boris.identity, NOTE.name, Note(text), local=lambda id: [Put("local_toy_note", row | {"letter": id})]
            )
            assert await anna.take_back(letter, local=[Delete("local_toy_note", {"letter": letter})])
            await nodes.leave("Anna")
            for place, data in take(nodes.home("Anna").path, None).everything():
                assert text.encode() not in data, place


class TestStick:
    @story
    async def test_its_size_and_form_tell_neither_how_many_letters_nor_for_how_many_devices(
        self, tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes, "Anna", "Boris")
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
                assert all(slot[ENC_BYTES - 1] < 0x80 for slot in slots), "a slot that is used shows by its top bit"
                assert entropy(file[10:]) > 7.99


class TestEnvelopes:
    @story
    async def test_not_even_a_hundred_first_letters_of_one_pair_share_a_tag(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("Anna"), await nodes.join("Boris")
            await anna.add_contact(await boris.link())
            for number in range(100):
                await write(anna, boris, f"are you there? {number}")
                if number == 50:
                    anna = await nodes.come_back("Anna")
            tags = [entry.header.tags for entry in envelopes(anna)]
            assert len(set(tags)) == len(tags) == 100
            await meet(anna, boris)
            assert len(boris.query("SELECT 1 FROM local_toy_note")) == 100


def keys(person: Person) -> dict[bytes, bytes]:
    """This person's prekeys: public and secret."""
    return {bytes(public): bytes(secret) for public, secret in person.query("SELECT public, secret FROM prekey")}
