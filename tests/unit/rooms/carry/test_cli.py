"""The commands of carry: what programs read has the documented keys, what people read is a line each."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from outlast.edges.main import run
from tests.unit.rooms.carry.test_file_pages import NEEDLE, photo

KEYS = {"id", "from", "to", "text", "at_ms", "verified", "custody"}


class Home:
    """The command line on one home."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Make a node there."""
        self._path, self._capsys = path, capsys
        assert self("init", "--name", path.name, "--unattended")[0] == 0

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """The exit code, and what was printed: answers when it went well, else the complaint."""
        code = run(["--home", str(self._path), *arguments])
        said = self._capsys.readouterr()
        self.aside = said.err
        return code, said.err if code else said.out

    def json(self, *arguments: str) -> Any:
        """The answer of a command, as programs read it."""
        code, said = self(*arguments, "--json")
        assert code == 0, said
        return json.loads(said)


@pytest.fixture
def homes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Home, Home]:
    """Ada's and Bela's homes; each has the other's link."""
    ada, bela = Home(tmp_path / "Ada", capsys), Home(tmp_path / "Bela", capsys)
    ada.json("contact", "add", bela.json("id")["link"])
    bela.json("contact", "add", ada.json("id")["link"])
    return ada, bela


def carry(start: Home, end: Home, tmp_path: Path, *to: str) -> None:
    """A stick goes from one to the other."""
    start.json("bundle", "write", str(tmp_path / "stick"), *to)
    end.json("bundle", "read", str(tmp_path / "stick"))
    (tmp_path / "stick").unlink()


def test_a_bundle_is_no_larger_than_it_may_be(homes: tuple[Home, Home], tmp_path: Path) -> None:
    ada, _ = homes
    ada("carry", "send", "Bela", "hello")
    written = ada.json("bundle", "write", str(tmp_path / "stick"), "--to", "Bela", "--max-mb", "1")
    assert written["bytes"] == (tmp_path / "stick").stat().st_size <= 1_000_000
    assert written["left_out"] == 0


def test_a_limit_may_be_larger_than_any_number_that_a_table_knows(homes: tuple[Home, Home]) -> None:
    ada, _ = homes
    ada("carry", "send", "Bela", "hello")
    assert [one["text"] for one in ada.json("carry", "sent", "--limit", str(1 << 70))] == ["hello"]


def test_letters_are_listed_with_the_documented_keys_for_programs(homes: tuple[Home, Home], tmp_path: Path) -> None:
    ada, bela = homes
    sent = ada.json("carry", "send", "Bela", "hello")
    assert set(sent) == {"id"}
    carry(ada, bela, tmp_path, "--to", "Bela")
    [letter] = ada.json("carry", "sent")
    assert set(letter) == KEYS
    assert [set(one) for one in letter["custody"]] == [{"event", "at_ms"}] * 2
    [came] = bela.json("carry", "inbox", "--mark-read")
    assert set(came) == KEYS
    assert (came["id"], came["to"], came["verified"]) == (sent["id"], bela.json("id")["id"], False)
    [came] = bela.json("carry", "inbox")
    assert [one["event"] for one in came["custody"]] == ["received", "read"]
    carry(bela, ada, tmp_path, "--to", "Ada")
    [letter] = ada.json("carry", "sent")
    assert [one["event"] for one in letter["custody"]] == ["kept", "copied", "received", "read"]
    assert ada.json("carry", "search", "HELL")[0]["id"] == sent["id"]
    assert ada.json("carry", "search", "heaven") == []


def test_people_read_lines(homes: tuple[Home, Home], tmp_path: Path) -> None:
    ada, bela = homes
    ada("carry", "send", "Bela", "first\x1b[2J\nsecond")
    _, said = ada("carry", "sent")
    assert said.splitlines()[0].split() == ["WHEN", "TO", "WHERE", "IT", "HAS", "BEEN", "TEXT"]
    assert "kept" in said
    assert "first[2J second" in said
    carry(ada, bela, tmp_path, "--to", "Bela")
    assert "*" in bela("carry", "inbox")[1]
    bela("carry", "inbox", "--mark-read")
    assert "*" not in bela("carry", "inbox")[1]


def test_a_channel_from_its_start_to_its_end(homes: tuple[Home, Home], tmp_path: Path) -> None:
    ada, bela = homes
    channel = ada.json("carry", "channel", "create", "Mill news")
    assert ada.json("carry", "channels") == [channel]
    ada.json("carry", "post", "mill NEWS", "bread at ten")
    wrong = ada.json("carry", "post", channel["id"], "wrong")["id"]
    ada.json("carry", "retract", wrong)
    assert [one["text"] for one in ada.json("carry", "read", "Mill news")] == ["bread at ten"]
    assert bela.json("carry", "follow", channel["link"])["owner"] is None
    carry(ada, bela, tmp_path, "--space", channel["id"])
    [post] = bela.json("carry", "read", channel["id"], "--limit", "5")
    assert set(post) == KEYS
    assert (post["text"], post["from"], post["to"]) == ("bread at ten", ada.json("id")["id"], channel["id"])
    assert (post["verified"], post["custody"]) == (True, [])
    assert bela.json("carry", "channels")[0]["unread"] == 1
    assert "bread at ten" in bela("carry", "read", "mill news")[1]
    bela.json("carry", "unfollow", "Mill news")
    assert bela.json("carry", "channels") == []


def test_text_can_come_from_another_program(homes: tuple[Home, Home], monkeypatch: pytest.MonkeyPatch) -> None:
    ada, _ = homes

    def pipe(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    pipe("Зборы\nа сёмай\n".encode())
    ada.json("carry", "send", "Bela", "-")
    assert ada.json("carry", "sent")[0]["text"] == "Зборы\nа сёмай"
    pipe(b"\xff\xfe")
    assert ada("carry", "send", "Bela", "-") == (2, "outlast: standard input is no text in UTF-8\n")
    pipe(b"x" * (1 << 20) + b"x")
    assert ada("carry", "send", "Bela", "-") == (2, "outlast: that is too long for a message\n")


def test_a_letter_stays_when_nobody_can_be_sure_that_it_never_left(homes: tuple[Home, Home]) -> None:
    ada, _ = homes
    letter = ada.json("carry", "send", "Bela", "hello")["id"]
    assert ada("carry", "retract", letter) == (
        2,
        "outlast: this message may have left already: it cannot be taken back\n",
    )
    assert [one["id"] for one in ada.json("carry", "sent")] == [letter]


MISTAKES = [
    (("send", "Bela", " "), 2),
    (("send", "Bela", "x" * 20_000), 2),
    (("send", "nobody", "hello"), 4),
    (("post", "nowhere", "hello"), 4),
    (("follow", "nonsense"), 2),
    (("read", "nowhere"), 4),
    (("unfollow", "nowhere"), 4),
    (("retract", "nonsense"), 4),
    (("retract", "0" * 32), 4),
    (("retract", "0" * 64), 4),
    (("search", " "), 2),
    (("inbox", "--limit", "0"), 2),
    (("channel", "create", "a\nb\x00"), 2),
]


def test_a_mistake_is_one_line_and_an_exit_code(homes: tuple[Home, Home]) -> None:
    for arguments, code in MISTAKES:
        found, said = homes[0]("carry", *arguments)
        assert (arguments, found, said.count("\n")) == (arguments, code, 1)
        assert said.startswith("outlast: ")


def test_a_file_goes_to_a_contact_by_stick_and_is_written_down(homes: tuple[Home, Home], tmp_path: Path) -> None:
    ada, bela = homes
    data = bytes(range(256)) * 4096
    (tmp_path / "film.mp4").write_bytes(data)
    code, said = ada("carry", "file", "send", "Bela", str(tmp_path / "film.mp4"))
    assert (code, "--as-it-is" in said) == (2, True)
    assert ada.json("carry", "file", "list") == []
    sent = ada.json("carry", "file", "send", "Bela", str(tmp_path / "film.mp4"), "--as-it-is")
    carry(ada, bela, tmp_path, "--to", "Bela")
    [own] = ada.json("carry", "file", "list")
    assert (own["id"], own["state"], [one["event"] for one in own["custody"]]) == (
        sent["id"],
        "here",
        ["kept", "copied"],
    )
    [came] = bela.json("carry", "file", "list")
    assert (came["name"], came["bytes"], came["held"], came["state"]) == ("film.mp4", len(data), len(data), "here")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("film.mp4", "film 2.mp4"):
        assert bela.json("carry", "file", "get", sent["id"], "-o", str(folder))["file"] == str(folder / name)
        assert (folder / name).read_bytes() == data
    carry(bela, ada, tmp_path, "--to", "Ada")
    assert "received" in ada("carry", "file", "list")[1]
    assert bela("carry", "file", "remove", sent["id"])[0] == 0
    assert bela.json("carry", "file", "list")[0]["state"] == "gone"
    code, said = bela("carry", "file", "get", sent["id"], "-o", f"{folder / 'new'}/")
    assert (code, "there is no folder" in said) == (4, True)
    assert not (folder / "new").exists()
    code, said = bela("carry", "file", "get", sent["id"], "-o", str(folder))
    assert (code, "0 of 1048576 bytes are here" in said) == (4, True)


def test_a_group_from_its_start_to_its_end(homes: tuple[Home, Home], tmp_path: Path) -> None:
    ada, bela = homes
    group = ada.json("carry", "group", "create", "Mill street", "Bela")
    assert set(group) == {"id", "name", "role", "members", "unread"}
    assert (group["name"], group["role"], group["members"]) == ("Mill street", "owner", 2)
    carry(ada, bela, tmp_path, "--to", "Bela")
    [asked] = bela.json("carry", "group", "list")["invitations"]
    assert asked == {"id": group["id"], "name": "Mill street", "from": "Ada"}
    assert "asks you into 'Mill street'" in bela("carry", "group", "list")[1]
    assert bela.json("carry", "group", "join", "mill STREET")["role"] == "member"
    assert bela.json("carry", "group", "join", "mill STREET")["role"] == "member"  # once more is no mistake
    question = ada.json("carry", "group", "post", group["id"][:8], "Who has flour?")["id"]
    carry(ada, bela, tmp_path, "--to", "Bela")
    [text] = bela.json("carry", "group", "read", "Mill street", "--mark-read")
    assert set(text) == KEYS
    assert (text["id"], text["from"], text["to"]) == (question, ada.json("id")["id"], group["id"])
    assert bela.json("carry", "group", "list")["groups"][0]["unread"] == 0
    wrong = bela.json("carry", "group", "post", "Mill street", "wrong")["id"]
    bela.json("carry", "retract", wrong)
    bela.json("carry", "group", "post", "Mill street", "we do")
    carry(bela, ada, tmp_path, "--to", "Ada")
    said = ada.json("carry", "group", "read", "Mill street")
    assert [one["text"] for one in said] == ["Who has flour?", "we do"]
    assert [one["event"] for one in said[0]["custody"]] == ["kept", "received"]
    assert "(received by 1)" in ada("carry", "group", "read", "Mill street")[1]
    assert [one["text"] for one in ada.json("carry", "search", "flour")] == ["Who has flour?"]
    found = ada.json("carry", "group", "members", "Mill street")
    assert [(one["name"], one["role"], one["joined"], one["contact"]) for one in found] == [
        ("Ada", "owner", True, False),
        ("Bela", "member", True, True),
    ]
    ada.json("carry", "group", "rename", "Mill street", "Bakers")
    ada.json("carry", "group", "remove", "bakers", "Bela")
    assert ada.json("carry", "group", "list")["groups"][0]["members"] == 1
    bela.json("carry", "group", "leave", "Mill street")
    assert bela.json("carry", "group", "list") == {"groups": [], "invitations": []}
    assert bela("carry", "group", "read", "Mill street")[0] == 4


def test_messages_disappear_are_removed_and_places_muted_by_commands(homes: tuple[Home, Home]) -> None:
    ada, _bela = homes
    letter = ada.json("carry", "send", "Bela", "for an hour", "--for", "1h")["id"]
    assert ada("carry", "send", "Bela", "text", "--for", "1y")[0] == 2
    assert ada.json("carry", "disappear", "Bela", "1w") == {}
    assert ada.json("carry", "mute", "Bela") == {}
    assert ada.json("carry", "unmute", "Bela") == {}
    assert ada("carry", "mute", "nobody")[0] != 0
    assert ada.json("carry", "forget", letter) == {"letters": 1}
    assert ada.json("carry", "sent") == []
    assert ada.json("carry", "restore", "Bela") == {"letters": 1}
    assert ada.json("carry", "forget", "--with", "Bela") == {"letters": 1}
    channel = ada.json("carry", "channel", "create", "Street", "--signer", "Bela")
    assert len(channel["signers"]) == 1
    ada.json("carry", "group", "create", "Mill")
    for where, post in (("Street", ("post",)), ("Mill", ("group", "post"))):
        assert ada.json("carry", "disappear", where, "1d") == {}
        assert ada.json("carry", *post, where, "for an hour", "--for", "1h")["id"]
        assert ada("carry", *post, where, "text", "--for", "1y")[0] == 2


def test_a_photo_leaves_the_command_line_without_what_it_tells(homes: tuple[Home, Home], tmp_path: Path) -> None:
    ada, bela = homes
    (tmp_path / "photo.jpg").write_bytes(photo())
    sent = ada.json("carry", "file", "send", "Bela", str(tmp_path / "photo.jpg"))
    assert (sent["name"], sent["cleaned"]) == ("photo.jpg", True)
    assert "was taken out" in ada.aside
    carry(ada, bela, tmp_path, "--to", "Bela")
    bela.json("carry", "file", "get", sent["id"], "-o", str(tmp_path / "came.jpg"))
    came = (tmp_path / "came.jpg").read_bytes()
    assert came.startswith(b"\xff\xd8\xff")
    assert NEEDLE not in came
    whole = ada.json("carry", "file", "send", "Bela", str(tmp_path / "photo.jpg"), "--as-it-is")
    assert (whole["cleaned"], ada.aside) == (False, "")
    ada.json("carry", "file", "get", whole["id"], "-o", str(tmp_path / "own.jpg"))
    assert (tmp_path / "own.jpg").read_bytes() == photo()
    (tmp_path / "broken.jpg").write_bytes(photo()[:200])
    code, said = ada("carry", "file", "send", "Bela", str(tmp_path / "broken.jpg"))
    assert (code, "could not be taken out, so it was not sent" in said) == (2, True)


def test_a_file_goes_into_a_channel_by_the_command_line(homes: tuple[Home, Home], tmp_path: Path) -> None:
    ada, bela = homes
    channel = ada.json("carry", "channel", "create", "Mill")
    bela.json("carry", "follow", channel["link"])
    (tmp_path / "photo.jpg").write_bytes(photo())
    sent = ada.json("carry", "file", "send", "Mill", str(tmp_path / "photo.jpg"))
    carry(ada, bela, tmp_path, "--space", channel["id"])
    [came] = bela.json("carry", "file", "list")
    assert (came["id"], came["from"], came["state"], came["who"]) == (sent["id"], channel["id"], "here", "Mill")
    assert [one["text"] for one in bela.json("carry", "read", "Mill")] == ["photo.jpg"]
    bela.json("carry", "file", "get", sent["id"], "-o", str(tmp_path / "came.jpg"))
    code, said = bela("carry", "file", "send", "Mill", str(tmp_path / "photo.jpg"))
    assert (code, "only this channel's owner" in said) == (2, True)
