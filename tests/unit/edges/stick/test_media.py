"""Which mounts are sticks, by what systems say of them."""

from __future__ import annotations

from pathlib import Path

from outlast.edges.stick.media import Disk, Medium, linux, macos, windows

USB = "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0/host6/target6:0:0/6:0:0:0/block/sdb"
SATA = "/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda"
USB_SYSTEM = "/sys/devices/platform/scb/fd500000.pcie/pci0000:00/0000:00:00.0/usb2/2-1/2-1:1.0/host0/block/sdc"
CARD = "/sys/devices/platform/emmc2bus/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0"

LAPTOP = r"""22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw,errors=remount-ro
24 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
31 22 8:1 / /boot/efi rw,relatime shared:30 - vfat /dev/sda1 rw,fmask=0077,dmask=0077,codepage=437
310 22 8:17 / /media/ala/MY\040STICK rw,nosuid,nodev,relatime shared:500 - vfat /dev/sdb1 rw,uid=1000,flush
311 22 8:17 /backup /srv2/backup rw,relatime - vfat /dev/sdb1 rw,uid=1000
312 22 8:18 / /run/media/ala/b ro,nosuid - exfat /dev/sdb2 ro,uid=1000
not a line of it
"""
RASPBERRY = """20 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw
21 20 179:1 / /boot/firmware rw,relatime shared:2 - vfat /dev/mmcblk0p1 rw
22 20 8:33 / /srv rw,relatime shared:3 - ext4 /dev/sdc1 rw
23 20 8:34 / /mnt/more rw,relatime shared:4 - ext4 /dev/sdc2 rw
24 20 0:45 / /media/pi/butter rw,relatime shared:5 - btrfs /dev/sdb1 rw,space_cache=v2,subvolid=5,subvol=/
"""
MACOS = """/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse, protect)
/dev/disk4s1 on /Volumes/MY STICK (1) (msdos, local, nodev, nosuid, noowners, noatime)
//ala@host/share on /Volumes/share (smbfs, nodev, nosuid, mounted by ala)
/dev/disk5s2 on /Volumes/Locked (hfs, local, nodev, nosuid, read-only, noowners)
"""


def disk_of(number: str, source: str) -> Disk | None:
    disks = {"8:2": SATA, "8:1": SATA, "8:17": USB, "8:18": USB, "8:33": USB_SYSTEM, "8:34": USB_SYSTEM}
    if number.startswith("179:"):
        return Disk(CARD, False)
    place = disks.get(number) or (USB if source == "/dev/sdb1" else None)
    return None if place is None else Disk(place, place == USB)


def test_parts_of_a_stick_are_found_with_their_names_and_locks_and_the_computers_own_disks_are_not() -> None:
    assert linux(LAPTOP, disk_of) == [
        Medium(Path("/media/ala/MY STICK"), "/dev/sdb1", "vfat"),
        Medium(Path("/run/media/ala/b"), "/dev/sdb2", "exfat", read_only=True),
    ]


def test_a_disk_on_usb_that_holds_a_part_of_the_system_is_no_stick_in_any_of_its_parts() -> None:
    assert linux(RASPBERRY, disk_of) == [Medium(Path("/media/pi/butter"), "/dev/sdb1", "btrfs")]


def test_a_disk_on_usb_is_a_stick_though_it_does_not_call_itself_removable() -> None:
    assert Disk(USB, False).is_stick
    assert not Disk(SATA, False).is_stick
    assert Disk(SATA, True).is_stick


def test_on_macos_local_volumes_are_sticks_and_shares_of_the_network_are_not() -> None:
    assert macos(MACOS) == [
        Medium(Path("/Volumes/MY STICK (1)"), "/dev/disk4s1", "msdos"),
        Medium(Path("/Volumes/Locked"), "/dev/disk5s2", "hfs", read_only=True),
    ]


def test_on_windows_the_type_of_the_drive_tells() -> None:
    types = {"C:\\": 3, "D:\\": 5, "E:\\": 2}
    assert [str(one.folder) for one in windows(0b11100, types.__getitem__)] == ["E:\\"]
