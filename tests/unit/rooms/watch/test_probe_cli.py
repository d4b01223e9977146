"""The command ``outlast watch probe``: consent first, then what was asked for and nothing else."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from outlast.rooms.watch.io.consent import control_token, has_consented, withdraw
from tests.e2e.program import Program, at_terminal


class Site(BaseHTTPRequestHandler):
    """A page, and a note of who asked for it."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<title>Hello</title>text of the page")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Noting", (Site,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_nothing_is_sent_before_the_operator_has_agreed(tmp_path: Path, site: tuple[str, list[str]]) -> None:
    url, asked = site
    done = Program(tmp_path / "home")("watch", "probe", url)
    assert (done.returncode, done.stdout, asked) == (2, "", [])
    last = done.stderr.splitlines()[-1]
    assert last == "outlast: nothing was probed: read docs/howto/probe.md, then add --yes-i-know"
    assert "punished" in done.stderr


def test_at_a_terminal_only_yes_agrees(tmp_path: Path, site: tuple[str, list[str]]) -> None:
    url, asked = site
    home = tmp_path / "home"
    code, seen = at_terminal(["--home", str(home), "watch", "probe", url], "no")
    assert (code, asked, has_consented(home)) == (2, [], False)
    assert "nothing was probed" in seen
    code, _ = at_terminal(["--home", str(home), "watch", "probe", url], "yes")
    assert (code, asked, has_consented(home)) == (0, ["/"], True)


def test_the_word_is_kept_in_the_home_and_goes_with_it(tmp_path: Path, site: tuple[str, list[str]]) -> None:
    url, asked = site
    program = Program(tmp_path / "home")
    out = tmp_path / "out.jsonl"
    assert program("watch", "probe", url, "--yes-i-know", "--out", str(out)).returncode == 0
    assert program("watch", "probe", url, "--out", str(out)).returncode == 0
    assert len(asked) == 2
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [json.loads(line)["input"] for line in out.read_text().splitlines()] == [url, url]
    assert "text of the page" not in out.read_text()
    program.json("init", "--name", "Ala", "--unattended")
    assert has_consented(program.home)
    withdraw(program.home)
    assert not has_consented(program.home)
    program("watch", "probe", url, "--yes-i-know")
    assert program("wipe", "--yes").returncode == 0
    assert not program.home.exists()


def test_for_programs_there_is_one_line_for_each_target(tmp_path: Path, site: tuple[str, list[str]]) -> None:
    row = Program(tmp_path / "home").json("watch", "probe", site[0], "--yes-i-know")
    assert list(row) == ["file", "input", "blocking", "accessible", "layers", "fingerprint", "control"]
    assert (row["input"], row["control"]) == (site[0], "none")
    assert row["layers"]["tcp"] == "ok"


def test_risky_categories_of_a_list_stay_out_until_they_are_named(tmp_path: Path, site: tuple[str, list[str]]) -> None:
    url, asked = site
    file = tmp_path / "list.csv"
    file.write_text(
        f"url,category_code,notes\n{url}/a,NEWS,\n{url}/b,PORN,\n{url}/c,LGBT,\nnonsense,NEWS,\n{url}/a,NEWS,\n"
    )
    program = Program(tmp_path / "home")
    done = program("watch", "probe", "--yes-i-know", "--list", str(file))
    assert "2 targets of risky categories are left out" in done.stderr
    assert "1 lines name no URL" in done.stderr
    assert asked == ["/a"]
    program("watch", "probe", "--list", str(file), "--category", "LGBT", "--max", "5")
    assert sorted(asked) == ["/a", "/a", "/c"]
    assert "there are ALDR" in program.fails(2, "watch", "probe", "--list", str(file), "--category", "NEWS")


def test_a_run_is_capped(tmp_path: Path, site: tuple[str, list[str]]) -> None:
    url, asked = site
    done = Program(tmp_path / "home")("watch", "probe", "--yes-i-know", "--max", "2", *(f"{url}/{n}" for n in range(4)))
    assert "only the first 2 of 4 targets" in done.stderr
    assert sorted(asked) == ["/0", "/1"]


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, []),
        (2, ["ftp://example.org/"]),
        (2, ["http://example.org/", "--resolver", "nobody"]),
        (2, ["http://example.org/", "--test", "nothing"]),
        (2, ["dot://", "--test", "dnscheck"]),
        (4, ["--list", "missing.csv"]),
    ],
)
def test_wrong_use_is_one_line(tmp_path: Path, code: int, arguments: list[str]) -> None:
    Program(tmp_path / "home").fails(code, "watch", "probe", *arguments)


@pytest.mark.parametrize("where", ["here", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "[::1]:99999"])
def test_a_control_listens_at_no_port_that_cannot_be(tmp_path: Path, where: str) -> None:
    Program(tmp_path / "home").fails(2, "watch", "serve-control", "--listen", where)


@pytest.mark.parametrize("content", [b"", b"nothing,of,this\n", b'url,category_code\n"x', b"\0\xff"])
def test_a_damaged_list_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(content)
    Program(tmp_path / "home").fails(6, "watch", "probe", "--list", str(file))


def test_the_controls_word_is_made_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    token = control_token(tmp_path)
    assert control_token(tmp_path) == token
    assert len(token) >= 32
    file = tmp_path / "rooms" / "watch" / "control-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
