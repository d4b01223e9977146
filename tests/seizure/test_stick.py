"""A stick is taken: its file has a random name and one of few sizes, and names neither its writer nor its reader."""

from __future__ import annotations

import asyncio
import io
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from outlast.edges.operations import Target, bundle_write
from outlast.kernel import hpke
from outlast.kernel.bundle import CHUNK_BYTES, MAGIC, SLOTS, BundleError
from outlast.kernel.person import Person
from outlast.rooms.carry import service
from outlast.testing.clock import FakeClock
from outlast.ui.operation import Call
from tests.kernel.society import until
from tests.seizure import likeness, needles
from tests.seizure.village import befriend, first_morning, village, write

pytestmark = pytest.mark.xdist_group("seizure")

WRITER, READER = "Wilhelmina Oyelaran", "Rustam Berdimuhamedov"
FRIEND, OTHER = "Friedrich Nakagawa", "Ottoline Szczepanska"
SLOT_BYTES = hpke.OVERHEAD_BYTES + 32
ONE_CHUNK = len(MAGIC) + 2 + SLOTS * SLOT_BYTES + CHUNK_BYTES + 16


@dataclass(frozen=True)
class File:
    """What is known of a bundle: its writer and its reader only to themselves, the rest to whoever takes the stick."""

    writer: str
    reader: str
    name: str
    data: bytes

    @property
    def sealed(self) -> bytes:
        """All but what every bundle begins with."""
        return self.data[len(MAGIC) + 2 :]

    @property
    def slots(self) -> list[bytes]:
        """Its four slots, used and unused."""
        return [self.sealed[at : at + SLOT_BYTES] for at in range(0, SLOTS * SLOT_BYTES, SLOT_BYTES)]


@dataclass(frozen=True)
class Stick:
    """A stick with all bundles, and what must not be on it."""

    files: list[File]
    """The first holds one letter, the others more, or none."""
    needles: needles.Needles
    refusals: dict[tuple[str, str], str]
    """By reader and file: what others than its reader were told, with their vaults open."""
    texts: list[str]
    """What the reader had, once they were given their files."""


@pytest.fixture(scope="module")
def stick(tmp_path_factory: pytest.TempPathFactory) -> Stick:
    """Somebody writes to two contacts, and somebody else to one of them; each file is tried by everybody else."""
    return asyncio.run(asyncio.wait_for(_write_sticks(tmp_path_factory.mktemp("stick")), 60))


async def _write_sticks(folder: Path) -> Stick:
    clock = FakeClock(first_morning())
    files: list[File] = []
    (folder / "medium").mkdir()
    (folder / "village").mkdir()
    async with village(folder / "village", clock) as place:
        writer, reader, friend, other = [await place.join(name) for name in (WRITER, READER, FRIEND, OTHER)]
        for one, two in ((writer, reader), (writer, friend), (other, reader), (friend, other)):
            await befriend(one, two)

        async def leave(sender: Person, receiver: Person) -> File:
            target = Target(str(folder / "medium"), to=receiver.id)
            written = Path((await bundle_write(Call(sender.node, target))).file)
            files.append(File(sender.name, receiver.name, written.name, written.read_bytes()))
            return files[-1]

        await write(writer, reader.identity, "we meet at the old mill")
        first = await leave(writer, reader)
        for number in range(10):
            await write(writer, reader.identity, f"number {number} of several letters")
            await write(other, reader.identity, f"number {number} of other letters")
        again = await leave(writer, reader)
        await leave(writer, reader)
        await leave(writer, friend)
        await leave(other, reader)
        refusals: dict[tuple[str, str], str] = {}
        for file in files:
            for person in place.people.values():
                if person.name != file.reader:
                    with pytest.raises(BundleError) as refusal:
                        await person.read_bundle(io.BytesIO(file.data))
                    refusals[person.name, file.name] = str(refusal.value)
        for file in (first, again):
            await reader.read_bundle(io.BytesIO(file.data))
        await until(lambda: len(service.inbox(reader)) >= 11, reader)
        found = needles.of_text("a phrase", "of several letters") | needles.of_text("a phrase", "we meet at")
        for person in place.people.values():
            found |= await needles.of_person(person) | needles.of_bytes("a node", person.node.transport_id)
        for entry in writer.node.query("SELECT id, header, signature FROM entry"):
            found |= {bytes(part): "a letter's envelope" for part in entry}
        return Stick(files, found, refusals, [message.text for message in service.inbox(reader)])


def test_whom_it_is_for_reads_it(stick: Stick) -> None:
    assert "we meet at the old mill" in stick.texts
    assert len(stick.texts) == 11


def test_nobody_else_does_not_even_who_wrote_it_and_all_are_told_the_same(stick: Stick) -> None:
    """Also not with another vault open, of somebody who knows both, or who has another file of the same writer."""
    assert len(stick.refusals) == 3 * len(stick.files)
    assert set(stick.refusals.values()) == {"this bundle is for somebody else"}


def test_neither_name_nor_content_names_anybody(stick: Stick) -> None:
    places = [(file.name, file.name.encode() + b"\0" + file.data) for file in stick.files]
    assert needles.search(stick.needles, places) == []
    assert all(re.fullmatch(r"[0-9a-f]{8}\.bin", file.name) for file in stick.files)
    assert len({file.name for file in stick.files}) == len(stick.files)


def test_a_size_tells_its_class_alone(stick: Stick) -> None:
    assert {len(file.data) for file in stick.files} == {ONE_CHUNK}
    assert {file.data[: len(MAGIC) + 2] for file in stick.files} == {MAGIC + bytes((1, 0))}


def test_what_is_sealed_looks_like_chance(stick: Stick) -> None:
    for file in stick.files:
        likeness.look_random(file.sealed)


def test_two_files_share_no_eight_bytes_whoever_wrote_them(stick: Stick) -> None:
    likeness.share_no_run([part for file in stick.files for part in (*file.slots, file.sealed[SLOTS * SLOT_BYTES :])])


def test_two_files_of_one_writer_are_as_unlike_as_any(stick: Stick) -> None:
    """Two that were sealed by one key would show the difference of their contents, which are nearly the same."""
    for one, other in itertools.combinations(stick.files, 2):
        likeness.agree_by_half(one.sealed, other.sealed)


def test_files_that_are_alike_are_noticed(stick: Stick) -> None:
    first, second = stick.files[:2]
    with pytest.raises(AssertionError, match="agree"):
        likeness.agree_by_half(first.sealed, second.sealed[:60_000] + first.sealed[60_000:])
    with pytest.raises(AssertionError, match="stands in number"):
        likeness.share_no_run([first.sealed, first.slots[1] + second.sealed[SLOT_BYTES:]])
