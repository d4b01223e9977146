"""What whole nodes do with tombstones: the payload goes wherever the two meet, the header stays, and only some may."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from outlast.errors import NotFoundError, UsageError
from outlast.kernel.admit import Admitted
from outlast.kernel.entry import DAY_MS, Entry, pack_header, unpack
from outlast.kernel.identity import SigningKey, certify
from outlast.kernel.log import next_entry
from outlast.kernel.person import Person
from outlast.kernel.tombstone import TOMBSTONE, Tombstone
from tests.kernel.society import POST, Note, entries_of, settle, society, story


async def post(person: Person, space: bytes, text: str = "x" * 3000, days: int = 20) -> Entry:
    """Say something in a space."""
    return await person.node.append(person, space, POST.name, Note(text), life_ms=days * DAY_MS)


def payload(person: Person, entry: Entry) -> bytes | None:
    """What a node holds of an entry."""
    held = person.node.open_store.get(entry.id)
    assert held is not None, "the header stays"
    return held.payload


def stone(device: SigningKey, certificate: bytes, target: Entry, days: int = 30) -> Entry:
    """A tombstone by anybody."""
    body = TOMBSTONE.encode(Tombstone((target.id,), certificate))
    return next_entry(
        device,
        None,
        space=target.header.space,
        kind=TOMBSTONE.name,
        payload=body,
        clock=1,
        ts_ms=target.header.ts_ms,
        life_ms=days * DAY_MS,
        priority=1,
    )


class TestEnding:
    @story
    async def test_what_is_ended_goes_here_and_is_not_taken_again(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            space = await anna.node.new_space(anna, "news")
            said, other = await post(anna, space), await post(anna, space, "stays")
            before = anna.node.open_store.usage().bytes
            ending = await anna.node.end(anna, space, [said.id])
            await settle(anna)
            assert payload(anna, said) is None
            assert payload(anna, other) == other.payload
            assert anna.node.open_store.usage().bytes < before - 2000
            assert ending.header.expires_day >= said.header.expires_day
            again = await anna.node.ingest([said])
            assert not isinstance(again[0], Admitted)
            assert payload(anna, said) is None
            assert anna.node.open_store.bare() == [], "it is not asked for again"

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    @story
    async def test_in_whatever_order_they_come_all_nodes_hold_the_same(
        self, order: tuple[int, ...], tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            space = await anna.node.new_space(anna, "news")
            await boris.node.follow(space)
            said = await post(anna, space)
            ending = await anna.node.end(anna, space, [said.id])
            genesis = next(e for e in entries_of(anna) if e.id == space)
            three = [genesis, said, ending]
            for place in order:
                await boris.node.ingest([three[place]])
            assert payload(boris, said) is None
            for day, _ in anna.node.open_store.buckets(space):
                mine, theirs = (one.node.open_store.bucket(space, day)[1] for one in (anna, boris))
                assert mine.tobytes() == theirs.tobytes()
            await boris.node.ingest([unpack(pack_header(said))[0], said])
            assert payload(boris, said) is None

    @story
    async def test_an_owner_ends_what_others_wrote_and_from_another_device(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            space = await anna.node.new_space(anna, "news")
            await boris.node.follow(space)
            await boris.node.ingest(entries_of(anna))
            said = await post(boris, space)
            await anna.node.ingest([said])
            await anna.renew()
            ending = await anna.node.end(anna, space, [said.id])
            await boris.node.ingest([ending])
            assert payload(anna, said) is None
            assert payload(boris, said) is None

    @story
    async def test_what_is_ended_leaves_no_bundle_any_more(self, tmp_path: Path) -> None:
        import io

        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            space = await anna.node.new_space(anna, "news")
            said = await post(anna, space, "a text that is to go")
            await anna.node.end(anna, space, [said.id])
            file = io.BytesIO()
            await anna.write_bundle(file, space=space)
            assert b"a text that is to go" not in file.getvalue()

    @story
    async def test_a_view_made_anew_is_the_same(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            space = await anna.node.new_space(anna, "news")
            said = await post(anna, space)
            await anna.node.end(anna, space, [said.id])
            await anna.node.rebuild()
            anna = await nodes.come_back("anna")
            assert payload(anna, said) is None


class TestAttacks:
    @story
    async def test_a_stranger_ends_nothing(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            space = await anna.node.new_space(anna, "news")
            said = await post(anna, space)
            thief, identity = SigningKey.from_seed(os.urandom(32)), SigningKey.from_seed(os.urandom(32))
            own = certify(identity, thief, os.urandom(32), 20_000, "Mallory")
            await anna.node.ingest([stone(thief, own, said), stone(thief, anna.certificate, said, days=31)])
            assert payload(anna, said) == said.payload

    @story
    async def test_a_tombstone_that_goes_before_what_it_ends_ends_nothing(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            space = await anna.node.new_space(anna, "news")
            said = await post(anna, space, days=20)
            await anna.node.ingest([stone(anna.signing_key, anna.certificate, said, days=10)])
            assert payload(anna, said) == said.payload

    @story
    async def test_what_ends_others_cannot_be_ended(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            space = await anna.node.new_space(anna, "news")
            said = await post(anna, space)
            ending = await anna.node.end(anna, space, [said.id])
            for one in (ending.id, space):
                with pytest.raises((UsageError, NotFoundError)):
                    await anna.node.end(anna, space, [one])
            await anna.node.ingest([stone(anna.signing_key, anna.certificate, ending)])
            assert payload(anna, ending) == ending.payload

    @story
    async def test_a_device_that_was_ended_ends_nothing_any_more_not_even_dated_back(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            space = await anna.node.new_space(anna, "news")
            await boris.node.follow(space)
            said = await post(anna, space)
            await post(anna, space)
            lost, certificate = anna.signing_key, anna.certificate
            await anna.renew()
            await boris.node.ingest(entries_of(anna))
            mallory = SigningKey.from_seed(os.urandom(32))
            own = certify(mallory, lost, os.urandom(32), 20_000, "Mallory")
            late = [stone(lost, by, said) for by in (certificate, own)]
            await boris.node.ingest(late)
            assert payload(boris, said) == said.payload

    @story
    async def test_only_the_author_and_the_owner_are_let_try(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            space = await anna.node.new_space(anna, "news")
            said = await post(anna, space)
            await boris.node.follow(space)
            await boris.node.ingest(entries_of(anna))
            with pytest.raises(UsageError, match="only its author"):
                await boris.node.end(boris, space, [said.id])
            with pytest.raises(NotFoundError):
                await anna.node.end(anna, space, [os.urandom(32)])
