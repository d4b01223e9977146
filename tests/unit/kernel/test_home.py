"""A home belongs to one process, keeps its keys to its owner, and can be destroyed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from outlast.errors import LockedError, NotFoundError, StorageError, UsageError
from outlast.kernel import home as home_module
from outlast.kernel.home import Home, local_cost, wipe_secret, write_secret
from outlast.kernel.keyslot import Cost
from outlast.kernel.store import Store
from outlast.kernel.vault import Vault

CHEAP = Cost(1, 8)
PERSON = "0123456789abcdef"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with its folders and nothing in them."""
    made = Home(tmp_path / "home")
    made.create()
    made.finish()
    return made


# ---- making one ----


def test_folders_and_files_are_the_owners_alone(home: Home) -> None:
    old = os.umask(0)
    try:
        home.new_key(None, "passphrase", CHEAP)
        home.new_key(PERSON, None)
        with home.lock():
            pass
    finally:
        os.umask(old)
    modes = {
        str(path.relative_to(home.path)): stat.S_IMODE(path.stat().st_mode)
        for path in [home.path, *home.path.rglob("*")]
    }
    assert modes == {
        ".": 0o700,
        "lock": 0o600,
        "store.key": 0o600,
        "people": 0o700,
        f"people/{PERSON}": 0o700,
        f"people/{PERSON}/vault.keyfile": 0o600,
    }


def test_a_home_exists_when_its_making_was_finished(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.new_key(None, None)
    home.new_key(PERSON, None)
    home.store_path.write_bytes(b"begun")
    assert not home.exists()
    home.create()  # the one before was cut short
    assert (home.people(), home.store_path.exists(), home.has_key(None)) == ([], False, False)
    home.new_key(None, None)
    home.finish()
    assert home.exists()


def test_what_is_being_made_is_not_taken_for_what_was_cut_short(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    with home.lock():
        home.new_key(None, None)
        with pytest.raises(StorageError, match="open in another Outlast"):
            Home(home.path).create()
        assert home.has_key(None)


def test_a_making_that_was_cut_short_while_the_store_was_written_stands_in_nobodys_way(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    (home.path / "store.db-journal").write_bytes(b"begun")
    home.create()
    assert sorted(entry.name for entry in home.path.iterdir()) == ["people", "unfinished"]


def test_a_home_is_not_made_over_another(home: Home) -> None:
    home.new_key(None, None)
    with pytest.raises(UsageError, match="has a node already"):
        home.create()


def test_a_home_is_not_made_among_other_peoples_files(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"letter\.txt.*empty or a new folder"):
        Home(tmp_path).create()
    (tmp_path / "letter.txt").rename(tmp_path / "config.toml")
    tmp_path.chmod(0o755)
    Home(tmp_path).create()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_store_whose_key_is_elsewhere_is_not_overwritten(home: Home) -> None:
    home.store_path.write_bytes(b"noise")
    with pytest.raises(UsageError, match="put the key back"):
        home.create()


def test_a_home_that_cannot_be_made_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--home") as error:
        Home(tmp_path / "file" / "home").create()
    assert "\n" not in str(error.value)


def test_a_home_stays_where_it_was_named_when_the_process_goes_elsewhere() -> None:
    assert Home(Path("relative")).path == Path.cwd() / "relative"


# ---- one process ----

HOLDER = """
import sys
from pathlib import Path
from outlast.kernel.home import Home
with Home(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_have_one_home_open(home: Home) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, home.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="open in another Outlast") as error, home.lock():
            pass
        assert "\n" not in str(error.value)
        other.kill()
        other.wait()
        with home.lock(), pytest.raises(StorageError), home.lock():
            pass
    with home.lock():
        pass


def test_a_home_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="outlast init"), Home(tmp_path / "none").lock():
        pass


# ---- keys ----


@pytest.mark.parametrize("owner", [None, PERSON])
def test_a_key_opens_by_its_passphrase(home: Home, owner: str | None) -> None:
    key = home.new_key(owner, "passphrase", CHEAP)
    assert (home.has_key(owner), home.needs_passphrase(owner)) == (True, True)
    assert home.open_key(owner, "passphrase") == key
    with pytest.raises(LockedError, match="wrong passphrase"):
        home.open_key(owner, "other")
    with pytest.raises(LockedError, match="needed"):
        home.open_key(owner)
    assert key not in b"".join(path.read_bytes() for path in home.path.rglob("*") if path.is_file())


@pytest.mark.parametrize("owner", [None, PERSON])
def test_a_bare_key_opens_by_itself(home: Home, owner: str | None) -> None:
    key = home.new_key(owner, None)
    assert (home.has_key(owner), home.needs_passphrase(owner)) == (True, False)
    assert home.open_key(owner) == key == home.open_key(owner, "anything")
    assert len(key) == 32
    assert home.unattended is (owner is None)


def test_keys_differ(home: Home) -> None:
    assert len({home.new_key(owner, None) for owner in (None, PERSON, "f" * 16)}) == 3


def test_a_second_key_is_refused(home: Home) -> None:
    home.new_key(None, "passphrase", CHEAP)
    with pytest.raises(UsageError, match="change its passphrase"):
        home.new_key(None, None)


def test_people_are_those_who_have_a_key_here(home: Home) -> None:
    for name in ("f" * 16, PERSON):
        home.new_key(name, None)
    (home.path / "people" / ("a" * 16)).mkdir()
    (home.path / "people" / "notes").mkdir()
    assert home.people() == [PERSON, "f" * 16]
    assert Home(home.path / "none").people() == []


@pytest.mark.parametrize("name", ["", "..", "../../etc", "0" * 15, "0" * 17, "A" * 16, "0" * 15 + "/", "0" * 15 + "\n"])
def test_a_name_that_is_no_persons_leads_nowhere(home: Home, name: str) -> None:
    for ask in (home.vault_path, home.open_key, lambda owner: home.new_key(owner, None)):
        with pytest.raises(NotFoundError, match="nobody"):
            ask(name)


def test_a_passphrase_can_be_changed_given_up_and_set_again(home: Home) -> None:
    key = home.new_key(None, "first", CHEAP)
    home.set_passphrase(None, key, "second", CHEAP)
    assert home.open_key(None, "second") == key
    with pytest.raises(LockedError):
        home.open_key(None, "first")
    home.set_passphrase(None, key, None)
    assert (home.unattended, home.open_key(None)) == (True, key)
    assert not (home.path / "store.key").exists()
    home.set_passphrase(None, key, "third", CHEAP)
    assert (home.unattended, home.open_key(None, "third")) == (False, key)
    assert sorted(path.name for path in home.path.iterdir()) == ["people", "store.key"]


def test_the_slot_of_an_old_passphrase_is_overwritten(home: Home, tmp_path: Path) -> None:
    key = home.new_key(None, "first", CHEAP)
    os.link(home.path / "store.key", tmp_path / "slot")
    home.set_passphrase(None, key, None)
    os.link(home.path / "store.keyfile", tmp_path / "bare")
    home.set_passphrase(None, key, "second", CHEAP)
    os.link(home.path / "store.key", tmp_path / "next")
    home.set_passphrase(None, key, "third", CHEAP)
    for name in ("slot", "bare", "next"):
        content = (tmp_path / name).read_bytes()
        assert content == bytes(len(content)) != b"", name
    assert home.open_key(None, "third") == key


def test_a_change_that_was_cut_short_leaves_a_key_that_opens(home: Home) -> None:
    key = home.new_key(None, "first", CHEAP)
    (home.path / "store.key.new").write_bytes(b"half a slo")
    assert home.open_key(None, "first") == key
    home.set_passphrase(None, key, "second", CHEAP)
    assert home.open_key(None, "second") == key
    assert not (home.path / "store.key.new").exists()


@pytest.mark.parametrize("name", ["store.key", "store.keyfile"])
@pytest.mark.parametrize("content", [b"", b"short", bytes(31), bytes(33), bytes(200)], ids=len)
def test_a_damaged_key_file_gets_one_line(home: Home, name: str, content: bytes) -> None:
    (home.path / name).write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        home.open_key(None, "passphrase")


def test_no_key_at_all_gets_one_line(home: Home) -> None:
    with pytest.raises(NotFoundError, match="outlast init"):
        home.open_key(None, "passphrase")


def test_this_machine_pays_what_it_can() -> None:
    assert local_cost() in (Cost(), Cost(memory_kib=64 * 1024))


# ---- small secret files ----


def test_a_secret_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_secret(path, b"one")
    with pytest.raises(StorageError, match="cannot write"):
        write_secret(tmp_path / "none" / "secret", b"two")
    write_secret(path, b"three")
    assert path.read_bytes() == b"three"
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


def test_a_link_in_a_secrets_place_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (tmp_path / "secret").symlink_to(victim)
    with pytest.raises(StorageError):
        wipe_secret(tmp_path / "secret")
    assert victim.read_bytes() == b"untouched"


def test_wiping_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    wipe_secret(tmp_path / "none")


# ---- wiping ----


def test_a_wiped_home_is_gone_and_its_keys_are_overwritten_first(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(home.store_path, home.new_key(None, "passphrase", CHEAP)).close()
    Vault.open(home.vault_path(PERSON), home.new_key(PERSON, None)).close()
    (home.path / "config.toml").write_text("")
    (home.path / "store.keyfile.new").write_bytes(b"left behind")
    (home.path / "rooms" / "toy" / "deep").mkdir(parents=True)
    of_rooms = ["rooms/toy/web.key", "rooms/toy/deep/web-key.pem"]
    for name in of_rooms:
        (home.path / name).write_bytes(b"a room's key")
    keys = ["store.key", "store.keyfile.new", f"people/{PERSON}/vault.keyfile", *of_rooms]
    for number, name in enumerate(keys):
        os.link(home.path / name, tmp_path / str(number))

    def no_power(_path: Path) -> None:
        raise OSError(5, "Input/output error", str(_path))

    monkeypatch.setattr(home_module.shutil, "rmtree", no_power)
    with pytest.raises(StorageError, match="keys are destroyed, but"):
        home.wipe()
    for number in range(len(keys)):
        content = (tmp_path / str(number)).read_bytes()
        assert content == bytes(len(content)) != b""
    assert not home.exists()
    monkeypatch.undo()
    home.wipe()
    assert not home.path.exists()
    home.wipe()


def test_wiping_leaves_what_is_not_ours(home: Home) -> None:
    home.new_key(None, None)
    (home.path / "letter.txt").write_text("dear")
    (home.path / "store.key.txt").write_text("mine")
    home.wipe()
    assert sorted(path.name for path in home.path.iterdir()) == ["letter.txt", "store.key.txt"]
    assert (home.path / "store.key.txt").read_text() == "mine"
