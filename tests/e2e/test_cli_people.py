"""Several people, their phones and the encrypted door by the command line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outlast.edges.api import operations_of
from outlast.edges.daemon import local_api
from outlast.kernel.identity import identity_key, parse_id, words_of
from tests.e2e.program import Program, made, secret_file
from tests.e2e.test_cli_messages import until
from tests.unit.edges.served import LAN, Served, served

OPERATIONS = operations_of(())
BORISS = "lamp, winter, ferry"


def documented(operation: str, answer: Any) -> Any:
    """An answer, once it was seen to be what docs/reference/api.md says of the operation, field for field."""
    read = msgspec.convert(answer, OPERATIONS[operation].result, strict=True)
    assert msgspec.to_builtins(read) == answer
    return answer


@pytest.fixture
def ada(tmp_path: Path) -> Program:
    """An unattended home."""
    return made(tmp_path / "ada", "Ada")


@pytest.fixture
def boriss(tmp_path: Path) -> str:
    """A file with Boris's passphrase."""
    (tmp_path / "boris").mkdir()
    return secret_file(tmp_path / "boris", BORISS)


def people(program: Program) -> dict[str | None, dict[str, Any]]:
    """Who lives there, by name where the vault is open."""
    return {one["name"]: one for one in documented("person.list", program.json("person", "list"))}


# ---- people ----


def test_a_second_person_comes_by_their_24_words_and_a_stopped_home_opens_for_each_alone(
    ada: Program, boriss: str, tmp_path: Path
) -> None:
    words = tmp_path / "words"
    words.write_text(" ".join(words_of(bytes(range(32)))))
    coming = ["person", "add", "--name", "Boris", "--new-passphrase-file", boriss, "--words-file", str(words)]
    boris = documented("person.add", ada.json(*coming))
    assert (boris["name"], boris["open"], boris["passphrase"]) == ("Boris", True, True)
    listed = ada("person", "list").stdout
    assert re.search(rf"{boris['person']} +- +locked\n", listed), "closed again: the name is not known"
    assert re.search(r"[0-9a-f]+ +Ada +open, opens by itself\n", listed)
    assert ada.json("id")["name"] == "Ada"
    assert "passphrase is needed" in ada.fails(3, "--person", "Boris", "id")
    found = ada.json("id", "--person", "Boris", "--passphrase-file", boriss)
    assert (found["name"], parse_id(found["id"])) == ("Boris", identity_key(bytes(range(32))).public)
    assert ada.json("person", "remove", boris["person"][:8], "--yes") == {}
    assert set(people(ada)) == {"Ada"}
    assert not [path for path in ada.home.rglob("*") if boris["person"] in path.name]
    assert "nobody else lives" in ada.fails(2, "person", "remove", "Ada", "--yes")


def test_on_a_running_node_a_command_says_for_whom_it_asks(ada: Program, boriss: str) -> None:
    with ada.up("--no-lan"):
        for code, *arguments in (
            (2, "--name", "", "--new-passphrase-file", boriss),
            (2, "--name", "Boris", "--new-passphrase-file", boriss, "--words-file", "/dev/null"),
            (3, "--name", "Boris"),
        ):
            ada.fails(code, "person", "add", *arguments)
        assert set(people(ada)) == {"Ada"}
        added = ada.json("person", "add", "--name", "Boris", "--new-passphrase-file", boriss)
        assert "--person" in ada.fails(2, "id")
        assert [ada.json("id", "--person", who)["name"] for who in ("Ada", "boris", added["person"][:6])] == [
            "Ada", "Boris", "Boris",
        ]  # fmt: skip
        ada.json("carry", "channel", "create", "Boris alone", "--person", "Boris")
        assert [one["name"] for one in ada.json("carry", "channels", "--person", "Boris")] == ["Boris alone"]
        assert ada.json("carry", "channels", "--person", "Ada") == []
        assert "Vera" in ada.fails(3, "id", "--person", "Vera")

        assert ada.json("person", "lock", "Boris") == {}
        assert people(ada)[None] == added | {"name": None, "open": False}
        assert "open" in ada.fails(3, "id", "--person", "Boris")
        assert ada.json("id")["name"] == "Ada", "one vault alone is open"
        assert "nobody here" in ada.fails(4, "person", "lock", "Boris"), "the name of a closed vault is not known"
        assert ada.json("unlock", "--passphrase-file", boriss) == {"name": "Boris"}
        assert "--yes" in ada.fails(2, "person", "remove", "Boris")
        assert ada.json("person", "remove", "Boris", "--yes") == {}
        assert set(people(ada)) == {"Ada"}
    assert "outlast up" in ada.fails(4, "person", "lock", "Ada")


# ---- phones, and the encrypted door ----


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Program]]:
    """A node that serves phones at an address which every machine has, and the command line beside it."""
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(served(tmp_path_factory.mktemp("running") / "home", name="Ada"))
        answering = local_api(node.home, node.node)
        node.run(answering.__aenter__())
        stack.callback(lambda: node.run(answering.__aexit__(None, None, None)))
        yield node, Program(node.home.path)


def test_lost_phones_are_shut_out_one_by_one_or_all_at_once(running: tuple[Served, Program]) -> None:
    node, program = running
    assert program.json("phone", "list") == []
    assert program("phone", "end", "--all").stdout == "No phone was in.\n"
    with node.phone("Ada's") as kept, node.phone("lost in the bus") as lost, node.phone("the tablet") as tablet:
        phones = {one["label"]: one for one in documented("phone.list", program.json("phone", "list"))}
        assert set(phones) == {"Ada's", "lost in the bus", "the tablet"}
        gone = phones["lost in the bus"]
        listed = program("phone", "list").stdout
        assert re.search(rf"{gone['phone'][:8]} .*lost in the bus\n", listed)
        program.fails(2, "phone", "end")
        program.fails(2, "phone", "end", gone["phone"], "--all")
        assert "no such phone" in program.fails(4, "phone", "end", gone["phone"][:2])
        assert [one.get("/people").status_code for one in (kept, lost, tablet)] == [200, 200, 200]
        assert documented("phone.end", program.json("phone", "end", gone["phone"][:8])) == [gone]
        assert [one.get("/people").status_code for one in (kept, lost, tablet)] == [200, 401, 200]
        assert {one["label"] for one in program.json("phone", "end", "--all")} == {"Ada's", "the tablet"}
        assert [one.get("/people").status_code for one in (kept, lost, tablet)] == [401, 401, 401]
        assert program.json("phone", "list") == []


def test_the_encrypted_door_is_opened_closed_and_made_anew(running: tuple[Served, Program]) -> None:
    node, program = running
    closed = {"on": False, "name": None, "url": None, "fingerprint": None, "words": None, "ends_ms": None}
    assert documented("trust.get", program.json("trust")) == closed
    assert program("trust").stdout == "The encrypted door is closed.\n"
    opened = documented("trust.set", program.json("trust", "--on"))
    assert (opened["on"], len(opened["words"].split())) == (True, 6)
    shown = until(lambda: (one := program.json("trust"))["url"] and one)
    assert shown | {"url": None} == opened | {"url": None}
    assert re.fullmatch(rf"https://{re.escape(shown['name'])}:\d+", shown["url"])
    assert re.fullmatch(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", shown["fingerprint"])
    told = program("trust").stdout
    assert all(shown[what] in told for what in ("url", "words", "fingerprint"))
    page = f"http://{LAN}:{node.serving.port}"
    with node.stranger(page) as phone:
        node.run(node.serving.switch_lan(True))
        assert shown["fingerprint"] in phone.get("/trust").text
        assert program.json("trust", "--on")["fingerprint"] == shown["fingerprint"], "phones keep what they installed"
        anew = documented("trust.set", program.json("trust", "--new"))
        assert anew["on"]
        assert not {anew[what] for what in ("name", "fingerprint", "words")} & set(shown.values())
        node.run(node.serving.match_https())
        assert anew["fingerprint"] in phone.get("/trust").text
        assert "open it" in program.fails(2, "trust", "--new", "--off")
        off = documented("trust.set", program.json("trust", "--off"))
        assert (off["on"], off["name"]) == (False, anew["name"])
        node.run(node.serving.match_https())
        assert phone.get("/trust/outlast.crt").status_code == 404
