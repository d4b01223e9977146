"""The command line: its tree, the settings that stand anywhere, and how every command ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from outlast.edges.main import _one_line, read_settings, run, tree
from outlast.errors import UsageError

OUTLAST = Path(sys.executable).with_name("outlast")

COMMANDS = {
    "init": set(),
    "up": set(),
    "id": set(),
    "status": set(),
    "unlock": set(),
    "doctor": set(),
    "rebuild": set(),
    "wipe": set(),
    "peer": {"add", "find", "list", "remove"},
    "backup": {"file", "shares"},
    "share": {"fetch", "write"},
    "hotspot": set(),
    "update": set(),
    "release": set(),
    "restore": set(),
    "bundle": {"write", "read"},
    "stick": {"erase", "list", "out", "read", "write"},
    "contact": {"accept", "add", "verify", "list", "block"},
}


def outlast(*arguments: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "OUTLAST_HOME": str(home), **more}
    return subprocess.run([OUTLAST, *arguments], capture_output=True, text=True, env=environ, stdin=subprocess.DEVNULL)


def test_the_tree_has_the_promised_commands_and_the_rooms() -> None:
    group = tree()
    assert {
        name: set(getattr(one, "commands", ())) for name, one in group.commands.items() if name in COMMANDS
    } == COMMANDS
    assert "carry" in group.commands


def test_help_imports_nothing_heavy_and_no_room() -> None:
    program = (
        "import sys\n"
        "from outlast.edges.main import run\n"
        "code = run(['--help'])\n"
        "heavy = {'starlette', 'uvicorn', 'numpy', 'apsw', 'jinja2', 'pyhpke', 'babel', 'rich', 'asyncio'}\n"
        "ours = ('outlast.rooms.', 'outlast.kernel')\n"
        "print([name for name in sys.modules if name in heavy or name.startswith(ours)])\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "carry" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [["--help"], ["-h"], [], ["peer", "--help"], ["up", "-h"], ["--version"]])
def test_asking_for_help_is_no_error(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["nonsense"],
        ["peer"],
        ["peer", "add", "only-one"],
        ["init"],
        ["up", "--port", "many"],
        ["peer", "find", "everybody"],
        ["--nonsense"],
        ["--home"],
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("outlast: ")
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("command", [["--json", "status"], ["status", "--json"]])
def test_the_settings_stand_before_or_behind_the_command(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--home", str(tmp_path / "none")]) == 4
    told = json.loads(capsys.readouterr().err)
    assert told["code"] == 4
    assert "outlast init" in told["error"]


settings = st.lists(
    st.sampled_from([["--json"], ["--home", "/h"], ["--home=/h"], ["--passphrase-file", "/f"]]), max_size=3
)
words = st.lists(st.sampled_from(["carry", "send", "-x", "--lan", "text", "--port=1"]), max_size=4)


@given(settings, words, settings)
def test_the_settings_are_taken_out_wherever_they_stand(
    before: list[list[str]], command: list[str], behind: list[list[str]]
) -> None:
    terminal, rest = read_settings([*chain(*before), *command, *chain(*behind)])
    given = [one[0].partition("=")[0] for one in before + behind]
    assert rest == command
    assert terminal.json == ("--json" in given)
    assert (terminal.home == Path("/h")) == ("--home" in given)
    assert (terminal.passphrase_file == Path("/f")) == ("--passphrase-file" in given)


def test_what_follows_two_dashes_is_text() -> None:
    terminal, rest = read_settings(["carry", "send", "x", "--", "--json"])
    assert rest == ["carry", "send", "x", "--", "--json"]
    assert not terminal.json


def test_a_setting_without_its_value_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="DIR"):
        read_settings(["status", "--home"])


def test_the_passphrase_file_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_PASSPHRASE_FILE", "/secret")
    assert read_settings(["status"])[0].passphrase_file == Path("/secret")
    assert read_settings(["status", "--passphrase-file=/other"])[0].passphrase_file == Path("/other")


@pytest.mark.parametrize("command", [["--help"], ["carry", "--help"], ["carry", "inbox", "--json"]])
def test_nobody_reading_the_output_is_quiet_and_no_fault(command: list[str], tmp_path: Path) -> None:
    assert outlast("init", "--name", "Ada", "--unattended", home=tmp_path).returncode == 0
    reader, writer = os.pipe()
    os.close(reader)
    environ = {**os.environ, "OUTLAST_HOME": str(tmp_path)}
    done = subprocess.run([OUTLAST, *command], stdout=writer, stderr=subprocess.PIPE, env=environ, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_error_that_cannot_be_written_down_is_told_by_its_exit_code(more: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([OUTLAST, "--home", tmp_path / "h", "status", *more], stderr=full, check=False)
    assert done.returncode == 4


def test_a_command_whose_output_is_closed_does_its_work_and_tells_how_it_ended(tmp_path: Path) -> None:
    def code(command: str) -> int:
        return subprocess.run(["sh", "-c", f"'{OUTLAST}' --home '{tmp_path / 'h'}' {command}"], check=False).returncode

    assert code("init --name Ada --unattended >&- 2>&- <&-") == 0
    assert code("id --json >&-") == 0
    assert code("contact verify Nobody >&- 2>&-") == 4


def test_letters_that_a_terminal_has_not_are_shown_as_marks_and_kept_for_programs(tmp_path: Path) -> None:
    assert outlast("init", "--name", "Ада", "--unattended", home=tmp_path).returncode == 0
    assert "name   ???\n" in outlast("id", home=tmp_path, PYTHONIOENCODING="ascii").stdout
    assert json.loads(outlast("id", "--json", home=tmp_path, PYTHONIOENCODING="ascii").stdout)["name"] == "Ада"


def test_what_is_no_text_in_utf_8_is_refused_and_not_cut(tmp_path: Path) -> None:
    home = tmp_path / "h"
    assert outlast("init", "--name", "Ada", "--unattended", home=home).returncode == 0
    link = json.loads(outlast("id", "--json", home=home).stdout)["link"]
    bela = tmp_path / "b"
    assert outlast("init", "--name", "Bela", "--unattended", home=bela).returncode == 0
    assert outlast("contact", "add", link, home=bela).returncode == 0
    in_koi8 = os.fsdecode("хлеб".encode("koi8-r"))
    for command in (["carry", "send", "Ada", in_koi8], ["bundle", "read", in_koi8], ["--person", in_koi8, "id"]):
        done = outlast(*command, home=bela)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "no text in UTF-8" in done.stderr
    done = outlast("init", "--name", "Cleo", "--unattended", home=tmp_path / in_koi8)
    assert (done.returncode, "no text in UTF-8" in done.stderr) == (2, True)
    assert outlast("carry", "sent", home=bela).stdout == ""


@pytest.mark.parametrize(
    "command",
    [
        "up --port {busy}",
        "up --port 0 --listen 127.0.0.1:{busy}",
        "share --listen 127.0.0.1:{busy}",
        "watch serve-control --listen 127.0.0.1:{busy}",
        "reach connect --listen 127.0.0.1:{busy} --bridge socks5://127.0.0.1:9",
    ],
)
def test_a_port_that_is_taken_is_no_mistake_of_who_typed_and_no_fault(command: str, tmp_path: Path) -> None:
    assert outlast("init", "--name", "Ada", "--unattended", home=tmp_path).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as busy:
        where = f"127.0.0.1:{busy.getsockname()[1]}"
        done = outlast(*command.format(busy=busy.getsockname()[1]).split(), home=tmp_path)
    assert done.returncode == 5
    assert f"outlast: {where} is in use by another program" in done.stderr


def test_a_group_without_a_command_names_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["peer"]) == 2
    assert capsys.readouterr().err == "outlast: name a command: add, list, remove, find; see `outlast peer --help`\n"


def test_completion_is_offered(tmp_path: Path) -> None:
    done = outlast(home=tmp_path, _OUTLAST_COMPLETE="complete_bash", COMP_WORDS="outlast con", COMP_CWORD="1")
    assert "contact" in done.stdout


@pytest.mark.parametrize("option", ["--home", "--passphrase-file"])
def test_a_user_without_a_home_directory_is_asked_for_a_path(option: str) -> None:
    with pytest.raises(UsageError, match=r"no home directory: .* --home DIR"):
        read_settings([option, "~nobody-of-this-name/x", "id"])


def test_a_folder_that_went_while_one_was_in_it_is_said_to_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert run(["status", "--home", "here"]) == 5
    assert "the folder that you are in is there no more" in capsys.readouterr().err


def test_a_fault_of_the_program_is_one_line_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_self: object, _operation: str, _params: object) -> None:
        raise ValueError("Ada wrote to Bela")

    monkeypatch.setattr("outlast.edges.client.Client.__call__", fail)
    assert run(["status", "--home", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("outlast: this program has a fault: ValueError at test_main.py:")
    assert "Ada" not in told
    monkeypatch.setenv("OUTLAST_DEBUG", "1")
    with pytest.raises(ValueError, match="Ada"):
        run(["status", "--home", str(tmp_path)])


def test_what_an_argument_lacks_is_told_in_one_line_however_many_it_has() -> None:
    error = typer.TyperException("Missing option '--way'. Choose from:\n\tweb,\n\tss")
    error.ctx = SimpleNamespace(command_path="outlast reach", command=object())  # a command, and no group of them
    assert _one_line(error) == "Missing option '--way'. Choose from: web, ss; see `outlast reach --help`"
