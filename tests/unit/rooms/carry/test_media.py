"""What films and recordings tell is overwritten where it stands; what is seen and heard is not touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import UsageError
from outlast.rooms.carry.io import media
from outlast.rooms.carry.proto import id3, isobmff, matroska, ogg
from outlast.rooms.carry.proto.patch import MediaError, Patch, Read, patched
from tests.unit.rooms.carry import recordings
from tests.unit.rooms.carry.recordings import NEEDLE, SOUND, box, u32

Patches = Callable[[Read, int], list[Patch]]
KINDS: dict[str, tuple[Patches, bytes]] = {
    "MP4": (isobmff.patches, recordings.film()),
    "MP4 above 4 GiB": (isobmff.patches, recordings.film(large=True, wide=True)),
    "Opus": (ogg.patches, recordings.ogg()),
    "one Opus recording after another": (ogg.patches, recordings.ogg() * 2),
    "Opus with something behind it": (ogg.patches, recordings.ogg() + NEEDLE * 3),
    "WebM": (matroska.patches, recordings.webm()),
    "live WebM": (matroska.patches, recordings.webm(is_live=True)),
    "MP3": (id3.patches, recordings.mp3()),
}


def cleaned(patches: Patches, data: bytes, step: int = 1 << 20) -> bytes:
    """A file after it was cleaned."""

    def read(start: int, size: int) -> bytes:
        return data[start : start + size]

    found = patches(read, len(data))
    return b"".join(patched((data[at : at + step] for at in range(0, len(data), step)), found))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_what_a_recording_tells_is_gone_and_what_one_hears_is_not(kind: str, step: int) -> None:
    patches, data = KINDS[kind]
    assert NEEDLE in data
    out = cleaned(patches, data, step)
    assert NEEDLE not in out
    assert b"\x77\x77\x77\x77" not in out
    assert len(out) == len(data)
    assert out.index(SOUND) == data.index(SOUND)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_cleaned_is_a_recording_of_the_same_kind_and_stays_as_it_is(kind: str) -> None:
    patches, data = KINDS[kind]
    once = cleaned(patches, data)
    assert cleaned(patches, once) == once


def test_comments_over_several_pages_are_emptied_and_each_page_has_its_checksum() -> None:
    tags = b"OpusTags" + bytes(8) + NEEDLE * 9
    out = cleaned(ogg.patches, recordings.ogg((b"OpusHead" + bytes(11), tags, SOUND)))
    assert NEEDLE not in out
    at = 0
    while at < len(out):
        page = bytearray(out[at:])
        del page[27 + page[26] + sum(page[27 : 27 + page[26]]) :]
        told = int.from_bytes(page[22:26], "little")
        page[22:26] = bytes(4)
        assert told == ogg.checksum(page)
        at += len(page)


def test_a_track_of_measurements_in_pieces_is_refused() -> None:
    head = box(b"ftyp", b"isom", u32(0))
    film = head + box(b"moov", recordings.track(b"meta", [], [])) + box(b"moof")
    with pytest.raises(MediaError, match="in pieces"):
        cleaned(isobmff.patches, film)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        box(b"ftyp", b"isom"),
        box(b"moov", box(b"trak", b"\xff\xff\xff\xffmdia")),
        u32(4) + b"moov",
        b"".join(u32(8 * depth) + b"moov" for depth in range(40, 0, -1)),
    ],
)
def test_a_damaged_film_is_refused(data: bytes) -> None:
    with pytest.raises(MediaError):
        cleaned(isobmff.patches, data)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_damaged_recording_is_refused_or_cleaned_to_the_same_length(kind: str, data: st.DataObject) -> None:
    patches, whole = KINDS[kind]
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)), label="cut")])
    for at, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6), label="changes"
    ):
        if at < len(damaged):
            damaged[at] = byte
    with suppress(MediaError):
        assert len(cleaned(patches, bytes(damaged))) == len(damaged)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.truncate(path, 9),
        lambda path: path.open("ab").write(b"more"),
        lambda path: os.utime(path, ns=(1, 1)),  # as whoever writes into the middle of it leaves it
    ],
    ids=["it is cut", "it grows", "it is overwritten"],
)
def test_a_file_that_somebody_writes_to_is_not_sent(change: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(bytes(2 * media.PIECE_BYTES))
    with path.open("rb") as file:
        pieces = media.pieces(media.Opened(file))
        assert next(pieces) == bytes(media.PIECE_BYTES)
        change(path)
        with pytest.raises(UsageError, match="changed while it was read"):
            next(pieces)


@given(
    data=st.binary(max_size=60),
    patches=st.lists(st.builds(Patch, st.integers(0, 70), st.integers(0, 20), st.binary(max_size=20)), max_size=5),
    step=st.integers(1, 9),
)
def test_patches_are_applied_alike_however_a_file_comes(data: bytes, patches: list[Patch], step: int) -> None:
    out = bytearray(data)
    for start, size, written in sorted(patches, key=lambda patch: patch.start):
        out[start : start + size] = written[:size].ljust(size, b"\0")[: max(0, len(data) - start)]
    pieces = (data[at : at + step] for at in range(0, len(data), step))
    assert b"".join(patched(pieces, patches)) == bytes(out)
