"""A node that is up: what it serves, how commands reach it, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import stat
import urllib.parse
import urllib.request
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals

import pytest

from outlast.edges.client import ask_running
from tests.e2e.program import PASSPHRASE, Program, made, secret_file

TRIES = 100


@pytest.fixture
def ada(tmp_path: Path) -> Program:
    """An unattended home."""
    return made(tmp_path / "ada", "Ada")


def get(port: int, path: str = "/") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={"Host": f"localhost:{port}"})
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_page_and_the_commands_answer_while_it_is_up(ada: Program) -> None:
    who = ada.json("id")
    with ada.up() as running:
        assert get(running.port) in (200, 303)
        assert stat.S_IMODE((ada.home / "api.sock").stat().st_mode) == 0o600
        assert ada.json("id") == who
        assert ada.json("status")["name"] == "Ada"
        assert "Ada" in ada("status").stdout
    assert ada.json("id") == who


@pytest.mark.parametrize("sign", [SIGINT, SIGTERM])
def test_it_ends_cleanly_when_told_to(ada: Program, sign: Signals) -> None:
    with ada.up() as running:
        assert running.end(sign) == (0, "")
    assert not (ada.home / "api.sock").exists()


def test_a_second_node_on_the_same_home_is_refused_in_one_line(ada: Program) -> None:
    with ada.up():
        assert "open in another" in ada.fails(5, "up", "--port", "0")
        assert ada.json("status")["name"] == "Ada"


def test_it_comes_up_again_after_it_was_killed(ada: Program) -> None:
    with ada.up() as running:
        assert running.end(SIGKILL)[0] == -9
    assert (ada.home / "api.sock").exists()
    assert ada.json("status")["name"] == "Ada"
    with ada.up():
        assert ada.json("status")["name"] == "Ada"


def test_a_taken_port_is_told_in_one_line(ada: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert port in ada.fails(5, "up", "--port", port)
        assert port in ada("up", "--port", "0", "--listen", f"127.0.0.1:{port}").stderr


def test_a_locked_node_serves_its_page_and_is_unlocked_by_a_command(tmp_path: Path) -> None:
    program, secret = made(tmp_path / "ada", "Ada", PASSPHRASE), secret_file(tmp_path)
    with program.up() as running:
        assert get(running.port) in (200, 303)
        assert program.json("status")["locked"]
        assert "locked" in program.fails(3, "id")
        program.fails(3, "unlock")
        wrong = tmp_path / "wrong"
        wrong.write_text("kingfisher over the rivet\n")
        program.fails(3, "unlock", "--passphrase-file", str(wrong))
        assert program.json("unlock", "--passphrase-file", secret) == {"name": "Ada"}
        assert not program.json("status")["locked"]
        assert program.json("id")["name"] == "Ada"
    assert "outlast up" in program.fails(4, "unlock", "--passphrase-file", secret)


def test_a_node_listens_for_others_exactly_while_it_is_unlocked(tmp_path: Path) -> None:
    program, secret = made(tmp_path / "ada", "Ada", PASSPHRASE), secret_file(tmp_path)
    with program.up("--listen", "127.0.0.1:0") as running:
        program.json("unlock", "--passphrase-file", secret)
        assert running.process.stdout is not None
        what, at = running.process.stdout.readline().split()
        assert what == "nodes"
        address = ("127.0.0.1", int(at.rpartition(":")[2]))
        socket.create_connection(address, 20).close()
        ask_running(program.home, "lock", {})
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 20)
        program.json("unlock", "--passphrase-file", secret)
        for _ in range(TRIES):
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(address, 20).close()
                break
            program("status")
        else:
            pytest.fail("does not listen again")


def test_a_node_whose_output_nobody_reads_goes_on(tmp_path: Path) -> None:
    program, secret = made(tmp_path / "ada", "Ada", PASSPHRASE), secret_file(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with program.up("--listen", f"127.0.0.1:{address[1]}") as running:
        assert running.process.stdout is not None
        running.process.stdout.close()
        program.json("unlock", "--passphrase-file", secret)  # now it tells where other nodes connect
        for _ in range(TRIES):
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(address, 20).close()
                break
            assert running.process.poll() is None
            program("status")
        assert not program.json("status")["locked"]
        assert running.end(SIGTERM) == (0, "")


def test_a_service_opens_its_home_by_a_passphrase_file(tmp_path: Path) -> None:
    program, secret = made(tmp_path / "ada", "Ada", PASSPHRASE), secret_file(tmp_path)
    (program.home / "config.toml").write_text(f"passphrase_file = {secret!r}\n")
    with program.up():
        assert not program.json("status")["locked"]


def test_a_wrong_setting_is_told_in_one_line(ada: Program) -> None:
    (ada.home / "config.toml").write_text("prot = 8484\n")
    assert "did you mean 'port'" in ada.fails(2, "up")


def test_two_nodes_that_are_up_meet(ada: Program, tmp_path: Path) -> None:
    bela = made(tmp_path / "bela", "Bela")
    with ada.up("--listen", "127.0.0.1:0", listeners=3) as listening, bela.up():
        bela.json("peer", "add", listening.at["nodes"], ada.json("id")["node"])
        assert any(bela.json("peer", "list")[0]["connected"] for _ in range(TRIES))
        assert any(peer["connected"] for _ in range(TRIES) for peer in ada.json("peer", "list"))


def test_wiping_ends_the_node(ada: Program) -> None:
    with ada.up() as running:
        assert ada.json("wipe", "--yes") == {}
        assert running.process.wait(timeout=60) == 0
        assert not ada.home.exists()


def test_without_a_home_the_first_run_is_served_and_nothing_is_made(tmp_path: Path) -> None:
    program = Program(tmp_path / "ada")
    with program.up(listeners=1) as running:
        assert get(running.port) in (200, 303)
        assert "outlast init" in program.fails(4, "status")
        assert running.end(SIGTERM) == (0, "")
    assert not program.home.exists()


def test_the_first_run_in_the_browser_makes_a_node_that_commands_reach(tmp_path: Path) -> None:
    program = Program(tmp_path / "ada")
    with program.up(listeners=1) as running:
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        page = f"http://localhost:{running.port}"

        def post(path: str, **form: str) -> str:
            with browser.open(page + path, urllib.parse.urlencode(form).encode(), timeout=20) as answer:
                return answer.read().decode()

        post("/enter", token=running.at["page"].partition("?t=")[2])
        with browser.open(page + "/first/name", timeout=20) as answer:
            csrf = re.search(r'name="csrf" value="([\w-]{43})"', answer.read().decode())
        assert csrf
        post("/first/name", csrf=csrf[1], how="new", name="Ada", protection="unattended")
        assert running.process.stdout is not None
        assert running.process.stdout.readline().split() == ["commands", str(program.home / "api.sock")]
        assert program.json("status")["name"] == "Ada"
        assert running.end(SIGTERM) == (0, "")
    assert program.json("id")["name"] == "Ada"


def test_a_home_with_a_long_path_has_its_socket_too(tmp_path: Path) -> None:
    program = Program(tmp_path / ("deep" * 20) / ("deeper" * 20) / "ada")
    program.json("init", "--name", "Ada", "--unattended")
    with program.up():
        assert program.json("status")["name"] == "Ada"


def test_keys_stay_out_of_core_files(ada: Program) -> None:
    with ada.up() as running:
        limits = Path(f"/proc/{running.process.pid}/limits").read_text()
        assert limits.split("Max core file size")[1].split()[:2] == ["0", "0"]
