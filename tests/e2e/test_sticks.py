"""Sticks with real filesystems: what is written there is there, and what goes wrong is told in one line."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path

import pytest

from outlast.edges.stick import files, service
from outlast.edges.stick.media import Disk, Medium, media
from outlast.edges.stick.memory import Targets
from outlast.errors import StorageError
from outlast.kernel import BUNDLE_MAGIC
from outlast.rooms.carry.files import send as send_file
from outlast.rooms.carry.service import inbox, send
from tests.e2e.disks import KNOWN, cut_off, stick
from tests.unit.rooms.carry.houses import House, houses

pytestmark = pytest.mark.serial


def silent(_done: int, _total: int | None) -> None:
    """Nobody watches."""


def events(house: House, letter: bytes) -> set[str]:
    """Where a letter has been, as its writer knows."""
    return {one.event for one in house.person.custody([letter])[letter]}


def to(house: House) -> Targets:
    return Targets([house.person.identity])


@pytest.mark.parametrize("filesystem", KNOWN)
def test_a_letter_goes_there_and_its_receipt_comes_back_by_a_stick(tmp_path: Path, filesystem: str) -> None:
    async def trip() -> None:
        async with houses(tmp_path, "ala", "boris") as (ala, boris):
            with stick(tmp_path, filesystem, 16) as place:
                medium = Medium(place, "", filesystem)
                letter = await send(ala.node, ala.person, boris.person.identity, "Are you well?")
                told: list[tuple[int, int | None]] = []
                given = await service.write(ala.person, medium, to(boris), lambda *now: told.append(now))
                assert (given.files, given.problems) == (1, [])
                assert told[-1] == (given.size, given.size)
                assert [one.state for one in (await service.look(ala.person, medium)).bundles] == ["written"]
                assert [one.state for one in (await service.look(boris.person, medium)).bundles] == ["mine"]
            with stick(tmp_path, filesystem, 16) as place:  # carried, and plugged in there
                medium = Medium(place, "", filesystem)
                taken = await service.read(boris.person, medium, silent)
                assert (taken.files, taken.new, taken.problems) == (1, 1, [])
                await boris.settled()
                assert [one.text for one in inbox(boris.person)] == ["Are you well?"]
                await service.write(boris.person, medium, to(ala), silent)
                assert {one.state for one in (await service.look(boris.person, medium)).bundles} == {"read", "written"}
                await service.read(ala.person, medium, silent)
                assert "received" in events(ala, letter)
                # The next one for the same takes the place of the one before.
                await service.write(ala.person, medium, to(boris), silent)
                await service.write(ala.person, medium, to(boris), silent)
                states = [one.state for one in (await service.look(ala.person, medium)).bundles]
                assert sorted(states) == ["read", "written"]
                (place / "holiday.jpg").write_bytes(b"mine")
                assert await service.erase(ala.person, medium, silent) == 2
                assert [one.name for one in place.iterdir() if one.is_file()] == ["holiday.jpg"]

    asyncio.run(trip())


@pytest.mark.parametrize("filesystem", KNOWN)
def test_a_stick_that_is_locked_or_full_says_so_and_nothing_counts_as_copied(tmp_path: Path, filesystem: str) -> None:
    async def tries() -> None:
        async with houses(tmp_path, "ala", "boris") as (ala, boris):
            letter = await send(ala.node, ala.person, boris.person.identity, "?")
            with stick(tmp_path, filesystem, 16) as place:
                left = os.statvfs(place)
                (place / "film").write_bytes(bytes(left.f_bavail * left.f_frsize - 40_000))
                with pytest.raises(StorageError, match="full"):
                    await service.write(ala.person, Medium(place, "", filesystem), to(boris), silent)
            with stick(tmp_path, filesystem, 16, read_only=True) as place:
                for medium in (Medium(place, "", filesystem), Medium(place, "", filesystem, read_only=True)):
                    with pytest.raises(StorageError, match=r"full|read-only"):
                        await service.write(ala.person, medium, to(boris), silent)
                (place.parent / "staged").write_bytes(b"x" * 100)
                with pytest.raises(StorageError, match="read-only"), open(place.parent / "staged", "rb") as source:
                    files.put(Medium(place), source, 100, silent)
            assert events(ala, letter) == {"kept"}

    asyncio.run(tries())


def test_nothing_of_a_channel_is_left_on_a_stick_that_was_erased_also_of_what_was_replaced(tmp_path: Path) -> None:
    async def write_twice_and_erase() -> None:
        async with houses(tmp_path, "ala") as [ala]:
            space = await ala.node.new_space(ala.person, "a name like no other")
            with stick(tmp_path, "ext4", 16) as place:
                for _ in range(2):
                    await service.write(ala.person, Medium(place), Targets([], [space]), silent)
                assert len([one for one in place.iterdir() if one.is_file()]) == 1
            assert (tmp_path / "ext4.img").read_bytes().count(b"a name like no other") == 1
            with stick(tmp_path, "ext4", 16) as place:
                assert await service.erase(ala.person, Medium(place), silent) == 1
            assert b"a name like no other" not in (tmp_path / "ext4.img").read_bytes()

    asyncio.run(write_twice_and_erase())


def test_a_stick_pulled_in_the_middle_leaves_a_half_file_that_is_seen_and_cleaned(tmp_path: Path) -> None:
    async def pull() -> None:
        async with houses(tmp_path, "ala", "boris") as (ala, boris):
            letter = await send(ala.node, ala.person, boris.person.identity, "?")
            with stick(tmp_path, "ext4", 16) as place:

                def pulled(_done: int, _total: int | None) -> None:
                    cut_off(place)

                (tmp_path / "large").write_bytes(BUNDLE_MAGIC + os.urandom(4 << 20))
                with open(tmp_path / "large", "rb") as source, pytest.raises(StorageError, match="pulled out"):
                    files.put(Medium(place), source, 4 << 20, pulled)
            with stick(tmp_path, "ext4", 16) as place:
                half = place / ".0123abcd.e1f.89abcdef"
                half.write_bytes(BUNDLE_MAGIC + bytes(100_000))
                os.utime(half, (1_700_000_000, 1_700_000_000))
                medium = Medium(place)
                assert [one.state for one in (await service.look(boris.person, medium)).bundles] == ["half"]
                await service.write(ala.person, medium, to(boris), silent)
                assert not half.exists()
            assert events(ala, letter) == {"kept", "copied"}

    asyncio.run(pull())


def test_a_hostile_stick_is_bounded_and_never_followed(tmp_path: Path) -> None:
    async def look() -> None:
        async with houses(tmp_path, "ala", "boris") as (ala, boris):
            with stick(tmp_path, "ext4", 64) as place:
                secret = tmp_path / "secret"
                secret.write_bytes(BUNDLE_MAGIC + b"no business of a stick")
                (place / "link").symlink_to(secret)
                (place / "there").symlink_to(tmp_path)
                (place / "loop").symlink_to(place)
                os.mkfifo(place / "pipe")
                os.mknod(place / "disk", 0o600 | 0o020000, os.makedev(1, 5))
                with open(place / "giant", "wb") as giant:
                    giant.write(BUNDLE_MAGIC)
                    giant.truncate(files.SIZE_MAX + 1)
                with open(place / "hollow", "wb") as hollow:
                    hollow.write(BUNDLE_MAGIC + b"\x01\x01")
                    hollow.truncate(1 << 22)
                for number in range(1500):
                    (place / f"{number}\n\x1b[2J").write_bytes(BUNDLE_MAGIC)
                (place / os.fsdecode(b"\xff\xfe")).write_bytes(BUNDLE_MAGIC)
                medium = Medium(place)
                found = await service.look(boris.person, medium)
                assert 0 < len(found.bundles) <= files.FILES_MAX
                assert {one.state for one in found.bundles} <= {"damaged", "channel"}
                assert not {"link", "there", "giant", "pipe", "disk"} & {one.found.path.name for one in found.bundles}
                taken = await service.read(boris.person, medium, silent)
                assert taken.entries == 0
                await service.erase(ala.person, medium, silent)
                assert secret.read_bytes().endswith(b"no business of a stick")
                with pytest.raises(OSError, match="symbolic links"), files.open_plain(place / "link"):
                    pass

    asyncio.run(look())


def test_a_mounted_stick_is_found_by_itself_and_can_be_taken_out(tmp_path: Path) -> None:
    with stick(tmp_path, "ext4", 16) as place:

        def usb(_number: str, source: str) -> Disk | None:
            return Disk("/sys/devices/usb9/block/sdz", True) if source.startswith("/dev/loop") else None

        [found] = [one for one in media(home=tmp_path / "home", disk_of=usb) if one.folder == place]
        assert (found.name, found.filesystem, found.read_only) == ("STICK", "ext4", False)
        assert media([place], home=place / "home", disk_of=usb)[0].device == ""
        assert not any(one.folder == place for one in media(home=place / "home", disk_of=usb))
        assert files.take_out(found)
        assert not place.is_mount()


def test_a_folder_where_a_stick_was_mounted_is_none_while_it_is_not(tmp_path: Path) -> None:
    async def come_and_go() -> None:
        async with houses(tmp_path, "ala") as [ala]:
            (tmp_path / "plain").mkdir()
            await service.add_folder(ala.person, str(tmp_path / "plain"))
            with stick(tmp_path, "ext4", 16) as place:
                await service.add_folder(ala.person, str(place))
                assert place in [one.folder for one in await service.found_media(ala.person)]
            assert place.is_dir()
            found = [one.folder for one in await service.found_media(ala.person)]
            assert tmp_path / "plain" in found
            assert place not in found, "what is written there would be said to be on the stick"
            with stick(tmp_path, "ext4", 16):
                assert place in [one.folder for one in await service.found_media(ala.person)]
                await service.remove_folder(ala.person, str(place))
                assert place not in [one.folder for one in await service.found_media(ala.person)]

    asyncio.run(come_and_go())


def test_a_computer_that_is_full_is_not_taken_for_a_full_stick(tmp_path: Path) -> None:
    async def take() -> None:
        with stick(tmp_path, "ext4", 48) as computer:
            async with houses(computer, "ala", "boris") as (ala, boris):
                medium = Medium(tmp_path / "folder")
                medium.folder.mkdir()
                film = io.BytesIO(os.urandom(4 << 20))
                await send_file(ala.node, ala.person, boris.person.identity, film, name="film")
                await service.write(ala.person, medium, to(boris), silent)
                left = os.statvfs(computer)
                (computer / "everything else").write_bytes(bytes(left.f_bavail * left.f_frsize - (2 << 20)))
                with pytest.raises(StorageError, match=r"store\.chunks is full: .*make room") as told:
                    await service.read(boris.person, medium, silent)
                assert "erase" not in str(told.value)
                (computer / "everything else").unlink()
                taken = await service.read(boris.person, medium, silent)
                assert (taken.files, taken.problems) == (1, [])

    asyncio.run(take())


def test_what_fits_on_a_small_stick_goes_first_and_the_rest_is_told(tmp_path: Path) -> None:
    async def squeeze() -> None:
        async with houses(tmp_path, "ala", "boris") as (ala, boris):
            for number in range(150):
                await send(ala.node, ala.person, boris.person.identity, f"{number} " + "x" * 3000)
            with stick(tmp_path, "ext4", 16) as place:
                left = os.statvfs(place)
                (place / "film").write_bytes(bytes(left.f_bavail * left.f_frsize - 400_000))
                given = await service.write(ala.person, Medium(place), to(boris), silent)
                assert given.files == 1
                assert given.left_out > 0

    asyncio.run(squeeze())


def test_a_stick_that_does_not_know_its_node_is_left_alone_and_one_that_does_takes_and_gives(tmp_path: Path) -> None:
    async def come() -> None:
        async with houses(tmp_path, "ala", "boris") as (ala, boris):
            place = tmp_path / "stick"
            place.mkdir()
            medium = Medium(place)
            assert await service.come(ala.person, medium, silent) is None
            await service.set_auto(ala.person, medium, to(boris))
            [mark] = place.iterdir()
            assert mark.stat().st_size == 32
            assert await service.come(boris.person, medium, silent) is None
            await send(ala.node, ala.person, boris.person.identity, "By itself")
            done = await service.come(ala.person, medium, silent)
            assert done is not None
            assert done[1].files == 1
            assert (await service.look(ala.person, medium)).auto
            await service.set_auto(ala.person, medium, None)
            assert not mark.exists()
            assert await service.come(ala.person, medium, silent) is None

    asyncio.run(come())
