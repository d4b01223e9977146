"""The command line on a stopped home: made, asked, backed up, restored, destroyed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from outlast.kernel.identity import parse_id, parse_node, words_of
from tests.e2e.program import PASSPHRASE, Program, at_terminal, made, secret_file


@pytest.fixture
def ada(tmp_path: Path) -> Program:
    """An unattended home."""
    return made(tmp_path / "ada", "Ada")


def test_unattended_says_what_it_means_and_keeps_its_keys_to_itself(tmp_path: Path) -> None:
    program = Program(tmp_path / "a home with spaces")
    done = program("init", "--name", "Ada", "--unattended", "--json")
    assert done.returncode == 0
    assert "not protected against seizure" in done.stderr
    keys = list(program.home.rglob("*.keyfile"))
    assert len(keys) == 2
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert stat.S_IMODE(program.home.stat().st_mode) == 0o700


def test_id_tells_who_one_is(ada: Program) -> None:
    who = ada.json("id")
    assert set(who) == {"id", "words", "name", "link", "node"}
    assert who["name"] == "Ada"
    assert len(who["words"].split()) == 6
    assert who["link"].startswith("outlast://contact/")
    assert len(parse_id(who["id"])) == len(parse_node(who["node"])) == 32
    assert who["id"] in ada("id").stdout


def test_counts_are_told_as_a_table_as_json_and_as_text_for_a_monitor(ada: Program) -> None:
    assert ada.json("metrics")["people_unlocked"] == 1
    assert "people_unlocked" in ada("metrics").stdout
    lines = ada("metrics", "--openmetrics").stdout.splitlines()
    assert "outlast_people_unlocked 1" in lines
    assert lines[-1] == "# EOF"


def test_without_the_passphrase_nothing_is_told(tmp_path: Path) -> None:
    program = Program(tmp_path / "ada")
    secret = secret_file(tmp_path)
    made = program.json("init", "--name", "Ada", "--passphrase-file", secret)
    assert not list(program.home.rglob("*.keyfile"))
    assert "passphrase" in program.fails(3, "id")
    other = tmp_path / "other"
    other.write_text("kingfisher over the rivet\n")
    program.fails(3, "id", "--passphrase-file", str(other))
    assert program.json("id", "--passphrase-file", secret)["id"] == made["id"]
    assert program.json("status")["locked"]


def test_a_passphrase_is_asked_for_twice_at_a_terminal(tmp_path: Path) -> None:
    arguments = ["init", "--name", "Ada", "--home", str(tmp_path / "ada")]
    code, seen = at_terminal(arguments, PASSPHRASE, PASSPHRASE + "s")
    assert (code, "differ" in seen) == (2, True)
    assert not (tmp_path / "ada").exists()
    code, seen = at_terminal(arguments, PASSPHRASE, PASSPHRASE)
    assert (code, "backup" in seen, PASSPHRASE in seen) == (0, True, False)
    code, seen = at_terminal(["id", "--home", str(tmp_path / "ada")], PASSPHRASE)
    assert (code, "Ada" in seen) == (0, True)


def test_an_interrupted_prompt_makes_nothing(tmp_path: Path) -> None:
    code, _ = at_terminal(["init", "--name", "Ada", "--home", str(tmp_path / "ada")], "\x03")
    assert code == 130
    assert not (tmp_path / "ada").exists()


def test_a_home_is_made_once(ada: Program) -> None:
    before = ada.json("id")
    assert "already" in ada.fails(2, "init", "--name", "Bela", "--unattended")
    assert ada.json("id")["id"] == before["id"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "", "--unattended"],
        ["--name", "x" * 65, "--unattended"],
        ["--name", "Ada", "--unattended", "--passphrase-file", "/dev/null"],
        ["--name", "Ada", "--passphrase-file", "/dev/null"],
        ["--name", "Ada", "--passphrase-file", "/nowhere"],
        ["--name", "Ada", "--unattended", "--words-file", "/dev/null"],
    ],
)
def test_a_home_is_not_made_by_halves(tmp_path: Path, arguments: list[str]) -> None:
    program = Program(tmp_path / "ada")
    program.fails(2, "init", *arguments)
    assert not program.home.exists()


def test_24_words_make_the_same_person_on_another_node(tmp_path: Path) -> None:
    words = words_of(bytes(range(32)))
    file = tmp_path / "words"
    file.write_text("\n".join(words).upper())
    homes = [Program(tmp_path / name) for name in ("old", "new")]
    first, second = (one.json("init", "--name", "Ada", "--unattended", "--words-file", str(file)) for one in homes)
    assert (first["id"], first["words"]) == (second["id"], second["words"])
    assert first["node"] != second["node"]


def test_a_wrong_word_is_named(tmp_path: Path) -> None:
    words = words_of(bytes(range(32)))
    words[6] = "kingfisher"
    file = tmp_path / "words"
    file.write_text(" ".join(words))
    program = Program(tmp_path / "ada")
    assert "word 7" in program.fails(2, "init", "--name", "Ada", "--unattended", "--words-file", str(file))


def test_a_backup_makes_the_same_person_with_their_contacts(ada: Program, tmp_path: Path) -> None:
    bela = made(tmp_path / "bela", "Bela")
    ada.json("contact", "add", bela.json("id")["link"], "--name", "Белла")
    file, secret = str(tmp_path / "backup"), secret_file(tmp_path)
    saved = ada.json("backup", file, "--passphrase-file", secret)
    assert saved == {"file": file, "bytes": Path(file).stat().st_size}

    empty = Program(tmp_path / "new")
    tested = empty.json("restore", file, "--test", "--passphrase-file", secret)
    assert (tested["name"], tested["contacts"]) == ("Ada", 1)
    assert not empty.home.exists()

    restored = empty.json("restore", file, "--passphrase-file", secret)
    assert restored["id"] == ada.json("id")["id"]
    assert [one["name"] for one in empty.json("contact", "list", "--passphrase-file", secret)] == ["Белла"]
    assert "already" in ada.fails(2, "restore", file, "--passphrase-file", secret)


def test_where_a_backup_came_back_the_earlier_device_is_known_and_can_be_revoked(ada: Program, tmp_path: Path) -> None:
    file, secret = str(tmp_path / "backup"), secret_file(tmp_path)
    ada.json("backup", file, "--passphrase-file", secret)
    empty = Program(tmp_path / "new")
    (old,) = empty.json("restore", file, "--passphrase-file", secret)["old_devices"]
    assert old["state"] == "earlier"
    assert old["key"] == ada.json("device", "list")[0]["key"]
    revoke = ["device", "revoke", old["key"][:8], "--passphrase-file", secret]
    assert [device["state"] for device in empty.json(*revoke)] == ["present", "revoked"]
    renewed = empty.json("device", "renew", "--passphrase-file", secret)
    assert [device["state"] for device in renewed] == ["present", "revoked", "revoked"]
    assert "no such device" in empty.fails(4, "device", "revoke", "ffff", "--passphrase-file", secret)
    assert empty.json("device", "revoke", "--all", "--passphrase-file", secret) == renewed
    assert "--all" in empty.fails(2, "device", "revoke", "--passphrase-file", secret)


def test_what_is_no_backup_or_not_ours_is_told(ada: Program, tmp_path: Path) -> None:
    file, secret = tmp_path / "backup", secret_file(tmp_path)
    ada.json("backup", str(file), "--passphrase-file", secret)
    other = tmp_path / "other"
    other.write_text("kingfisher over the rivet\n")
    empty = Program(tmp_path / "new")
    empty.fails(3, "restore", str(file), "--test", "--passphrase-file", str(other))
    empty.fails(4, "restore", str(tmp_path / "none"), "--passphrase-file", secret)
    empty.fails(2, "restore", str(tmp_path), "--passphrase-file", secret)
    file.write_bytes(file.read_bytes()[:-1])
    assert empty("restore", str(file), "--test", "--passphrase-file", secret).returncode in (3, 5)
    file.write_bytes(b"holiday picture")
    empty.fails(5, "restore", str(file), "--test", "--passphrase-file", secret)
    assert not empty.home.exists()


def test_a_backup_needs_a_passphrase_that_a_restore_takes(ada: Program, tmp_path: Path) -> None:
    ada.fails(2, "backup", str(tmp_path / "backup"), "--passphrase-file", secret_file(tmp_path, "short"))
    assert not (tmp_path / "backup").exists()


def test_wiping_is_meant(ada: Program) -> None:
    ada.fails(2, "wipe")
    assert ada.home.exists()
    assert ada.json("wipe", "--yes") == {}
    assert not ada.home.exists()
    ada.fails(4, "wipe", "--yes")
    ada.fails(4, "id")


def test_a_folder_that_is_no_home_is_never_wiped(tmp_path: Path) -> None:
    photos = tmp_path / "people"
    photos.mkdir()
    Program(tmp_path).fails(4, "wipe", "--yes")
    assert [path.name for path in tmp_path.iterdir()] == ["people"]


def test_a_locked_home_is_wiped_without_its_passphrase(tmp_path: Path) -> None:
    program = made(tmp_path / "ada", "Ada", PASSPHRASE)
    assert at_terminal(["wipe", "--home", str(program.home)], "no")[0] == 2
    assert program.home.exists()
    assert at_terminal(["wipe", "--home", str(program.home)], "wipe")[0] == 0
    assert not program.home.exists()


def test_contacts_are_found_by_name_and_by_id(ada: Program, tmp_path: Path) -> None:
    who = made(tmp_path / "bela", "Bela").json("id")
    added = ada.json("contact", "add", who["link"])
    assert (added["id"], added["name"], added["words"], added["verified"]) == (who["id"], "Bela", who["words"], False)
    assert ada.json("contact", "verify", "bela")["verified"]
    assert ada.json("contact", "block", who["id"][:8])["blocked"]
    assert "blocked" in ada("contact", "list").stdout
    assert not ada.json("contact", "block", who["id"], "--undo")["blocked"]
    assert "no contact" in ada.fails(4, "contact", "verify", "Cela")
    assert ada("contact", "add", "outlast://contact/AAAA").returncode in (2, 6)
    assert "own link" in ada.fails(2, "contact", "add", ada.json("id")["link"])


def test_words_that_differ_verify_nobody(ada: Program, tmp_path: Path) -> None:
    who = made(tmp_path / "bela", "Bela").json("id")
    ada.json("contact", "add", who["link"])
    ada.fails(6, "contact", "verify", "Bela", *reversed(who["words"].split()))
    told = ada.fails(2, "contact", "verify", "Bela", *who["words"].split()[:5])
    assert "6 words, 5 were given" in told
    assert "between you" not in told
    assert not ada.json("contact", "list")[0]["verified"]
    assert ada.json("contact", "verify", "Bela", *who["words"].upper().split())["verified"]


def test_peers_are_kept(ada: Program, tmp_path: Path) -> None:
    node = made(tmp_path / "bela", "Bela").json("id")["node"]
    assert ada.json("peer", "list") == []
    assert ada.json("peer", "find") == {"mode": "off"}
    assert ada.json("peer", "find", "neighbours") == ada.json("peer", "find") == {"mode": "neighbours"}
    assert "looks for the nodes that were added" in ada("peer", "find").stdout
    assert "everybody" in ada.fails(2, "peer", "find", "everybody")
    ada.json("peer", "add", "[::1]:9", node)
    assert [(peer["address"], peer["node"]) for peer in ada.json("peer", "list")] == [("[::1]:9", node)]
    assert node in ada("peer", "list").stdout
    ada.fails(2, "peer", "add", "localhost", node)
    ada.fails(2, "peer", "add", "localhost:9", node[:-1])
    ada.json("peer", "remove", node)
    ada.fails(4, "peer", "remove", node)


def test_views_are_made_anew(ada: Program) -> None:
    assert ada.json("rebuild") == {"entries": 0}


def test_a_bundle_is_refused_by_whom_it_is_not_for(ada: Program, tmp_path: Path) -> None:
    bela, cela = made(tmp_path / "bela", "Bela"), made(tmp_path / "cela", "Cela")
    ada.json("contact", "add", bela.json("id")["link"])
    file = str(tmp_path / "b.bin")
    written = ada.json("bundle", "write", file, "--to", "Bela")
    assert set(written) >= {"entries", "bytes", "new"}
    assert written["bytes"] == Path(file).stat().st_size
    assert set(bela.json("bundle", "read", file)) >= {"entries", "bytes", "new"}
    assert "somebody else" in cela.fails(6, "bundle", "read", file)
    picture = tmp_path / "picture"
    picture.write_bytes(b"\xff\xd8\xff" * 1000)
    bela.fails(6, "bundle", "read", str(picture))
    ada.fails(2, "bundle", "write", file)
    ada.fails(4, "bundle", "write", file, "--to", "nobody")


def test_shares_from_one_home_make_the_same_person_in_another(tmp_path: Path) -> None:
    ada = made(tmp_path / "ada", "Ada")
    answer = ada.json("backup", "shares", "--threshold", "2", "--of", "3")
    assert (answer["threshold"], len(answer["shares"])) == (2, 3)
    file = tmp_path / "words"
    file.write_text("\n".join(answer["shares"][1:]))
    again = Program(tmp_path / "again")
    assert again.json("init", "--name", "Ada", "--unattended", "--words-file", str(file))["id"] == ada.json("id")["id"]
    file.write_text(ada("backup", "shares", "--threshold", "2", "--of", "2").stdout, encoding="utf-8-sig")
    pasted = Program(tmp_path / "pasted")
    assert pasted.json("init", "--name", "Ada", "--unattended", "--words-file", str(file))["id"] == ada.json("id")["id"]
    file.write_text(answer["shares"][0])
    assert "2 shares are needed" in Program(tmp_path / "third").fails(
        2, "init", "--name", "Ada", "--unattended", "--words-file", str(file)
    )
    ada.fails(2, "backup", "shares", "--threshold", "3", "--of", "2")
