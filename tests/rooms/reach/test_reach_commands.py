"""``outlast reach connect`` and ``serve`` as a person at a terminal meets them: real processes, no home, no node."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from outlast import address
from outlast.address import Target
from outlast.edges.main import run
from outlast.rooms.reach.cli import _link_host
from tests.rooms.reach.gates import curl, datagram_through, serving, through

OUTLAST = [sys.executable, "-c", "from outlast.edges.main import main; main()"]
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"


class Running:
    """A command that goes on until it is told to end, and the events it tells."""

    def __init__(self, home: Path, *arguments: str) -> None:
        environ = {**os.environ, "OUTLAST_HOME": str(home)}
        self.process = subprocess.Popen(
            [*OUTLAST, "reach", *arguments, "--json"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def event(self, kind: str) -> dict[str, Any]:
        """The next event of this kind."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told: dict[str, Any] = json.loads(line)
            if told["type"] == kind:
                return told
        assert self.process.stderr is not None
        raise AssertionError(self.process.stderr.read().decode())

    def end(self) -> int:
        """End it as systemd would; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.communicate()


@contextmanager
def running(home: Path, *arguments: str) -> Iterator[Running]:
    """A command for the time of the block; it ends in order."""
    one = Running(home, *arguments)
    try:
        yield one
    finally:
        code = one.end()
    assert code == 0


def page(one: socket.socket) -> None:
    """Answer a request."""
    if one.recv(65_536):
        one.sendall(PAGE)


@pytest.mark.parametrize("transport", ["web", "ss"])
def test_what_serve_prints_is_what_connect_takes(tmp_path: Path, transport: str) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text("a site")
    site = ["--site", str(pages)] if transport == "web" else []
    with ExitStack() as stack:
        server = ["serve", "--transport", transport, "--listen", "127.0.0.1:0", *site, "--allow-private"]
        serving_ = stack.enter_context(running(tmp_path / "server", *server)).event("serving")
        (link,) = serving_["links"]
        client = stack.enter_context(
            running(tmp_path / "client", "connect", "--listen", "127.0.0.1:0", "--bridge", link)
        )
        gate = client.event("listening")
        assert client.event("using")["bridge"]
        at = stack.enter_context(serving(page))
        for way in (["--socks5-hostname", gate["at"]], ["--proxy", f"http://{gate['at']}"]):
            done = curl(*way, f"http://localhost:{at.port}/")
            assert (done.returncode, done.stdout) == (0, b"yes"), done.stderr
        assert b"PROXY 127.0.0.1:" in curl(gate["pac"]).stdout
        assert datagram_through(address.read(gate["at"])) == b"pong"
        if transport == "web":
            assert curl("-k", f"https://{serving_['at']}/").stdout == b"a site"
    assert not (tmp_path / "client").exists()


def test_a_reset_right_behind_the_last_bytes_goes_through_a_bridge(tmp_path: Path) -> None:
    told: Queue[str] = Queue()

    def hear(one: socket.socket) -> None:
        with suppress(ConnectionError):
            while one.recv(100):
                pass
        told.put("over")

    (tmp_path / "index.html").write_text("a site")
    server = ["serve", "--listen", "127.0.0.1:0", "--site", str(tmp_path), "--allow-private"]
    with ExitStack() as stack:
        (link,) = stack.enter_context(running(tmp_path / "server", *server)).event("serving")["links"]
        client = ["connect", "--listen", "127.0.0.1:0", "--bridge", link]
        gate = stack.enter_context(running(tmp_path / "client", *client)).event("listening")["at"]
        at = stack.enter_context(serving(hear))
        for _ in range(20):
            with through(address.read(gate), at) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.sendall(b"last words")
        assert [told.get(timeout=20) for _ in range(20)] == ["over"] * 20


def test_a_bridge_is_no_open_proxy_and_leads_its_users_nowhere_near_itself(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text("a site")
    reached: list[object] = []
    with ExitStack() as stack:
        server = ["serve", "--transport", "web", "--listen", "127.0.0.1:0", "--site", str(pages)]
        bridge = stack.enter_context(running(tmp_path / "server", *server)).event("serving")
        inside = stack.enter_context(serving(reached.append))
        target = f"http://127.0.0.1:{inside.port}/"
        # Whoever knows no secret: as a proxy of any kind it is a web server that does not know such requests.
        for way in (["-p", "-x"], ["-x"]):
            assert curl("--fail", "-k", "--proxy-insecure", *way, f"https://{bridge['at']}", target).returncode != 0
        for way in ("--socks5-hostname", "--socks4a"):
            assert curl(way, bridge["at"], target).returncode != 0
        # Whoever knows it: the public internet, and nothing of the server's own.
        client = ["connect", "--listen", "127.0.0.1:0", "--bridge", bridge["links"][0]]
        one = stack.enter_context(running(tmp_path / "client", *client))
        gate = one.event("listening")["at"]
        assert one.event("using")["bridge"]
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"):
            done = curl("--fail", "-x", f"http://{gate}", f"http://{host}:{inside.port}/", "-w", "%{http_code}")
            assert done.stdout == b"403", (host, done)
    assert reached == []


def test_a_bridge_that_is_started_again_has_the_same_secret(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        at = f"127.0.0.1:{free.getsockname()[1]}"
    links = []
    for _ in range(2):
        with running(tmp_path, "serve", "--transport", "ss", "--listen", at) as one:
            links.append(one.event("serving")["links"])
    assert links[0] == links[1]
    assert (tmp_path / "rooms" / "reach" / "ss.key").stat().st_mode & 0o777 == 0o600


def test_for_people_there_are_lines_with_the_time_on_stderr_and_the_link_alone_on_stdout(tmp_path: Path) -> None:
    command = [*OUTLAST, "reach", "serve", "--transport", "ss", "--listen", "127.0.0.1:0", "--home", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert " s  Serving at 127.0.0.1:" in process.stderr.readline()
        assert process.stdout.readline().startswith("ss://")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        process.communicate()


def test_links_are_read_from_standard_input_so_that_no_command_line_shows_them(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path)]
    for command in (["init", "--name", "Zoya", "--unattended"], ["reach", "bridge", "add", "-"]):
        done = subprocess.run([*OUTLAST, *home, *command], input=b"\n socks5://127.0.0.1:1\n", capture_output=True)
        assert done.returncode == 0, done.stderr
    kept = subprocess.run([*OUTLAST, *home, "reach", "bridge", "list"], capture_output=True, check=True).stdout
    command = [*OUTLAST, *home, "--json", "reach", "test", "--bridge", "-"]
    tried = subprocess.run(
        command, input=b"socks5://127.0.0.1:1\nsocks5://127.0.0.1:2\n", capture_output=True, check=True
    )
    first, second = (json.loads(line)["bridge"] for line in tried.stdout.splitlines())
    assert first.encode() in kept
    assert second.encode() not in kept


def test_a_text_with_several_bridges_is_kept_and_what_is_none_is_told(tmp_path: Path) -> None:
    home = [*OUTLAST, "--home", str(tmp_path)]
    subprocess.run([*home, "init", "--name", "Zoya", "--unattended"], capture_output=True, check=True)
    text = b"Today:\nsocks5://127.0.0.1:1\nvmess://eyJ2IjoiMiJ9\nsocks5://127.0.0.1:2\n"
    done = subprocess.run([*home, "reach", "bridge", "add", "-"], input=text, capture_output=True)
    assert done.returncode == 0
    *kept, problem = done.stdout.decode().splitlines()
    assert [line.endswith("(proxy) is kept.") for line in kept] == [True, True]
    assert problem.startswith("Not kept: vmess:// is no way out that Outlast has")
    done = subprocess.run([*home, "reach", "bridge", "add", "Nothing\nhere"], capture_output=True)
    assert done.returncode == 2
    assert b"this is no bridge" in done.stderr


def test_ctrl_c_ends_it_also_while_its_program_has_not_begun_yet(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    for name in ("obfs4proxy", "lyrebird"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho > {begun}\nexec cat\n")
        (tmp_path / name).chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [*OUTLAST, "--home", str(tmp_path), "reach", "serve", "--transport", "obfs4", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        begun.read_bytes()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        assert process.communicate() == (b"", b"")


def test_a_shell_that_allows_few_files_does_not_bound_the_streams_and_no_keys_end_in_a_core_file() -> None:
    script = """if True:
        import resource
        from outlast.rooms.reach.io.relay import run
        async def look():
            print(*resource.getrlimit(resource.RLIMIT_NOFILE), *resource.getrlimit(resource.RLIMIT_CORE))
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))
        run(look())
    """
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"512 512 0 0\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("connect", "no way out is known: give --bridge LINK"),
        ("connect --bridge gopher://x", "is no way out that Outlast has"),
        ("connect --bridge outlast://bridge/abc", "incomplete or damaged; copy it whole"),
        ("connect --listen 1080 --bridge socks5://127.0.0.1:9", "is no address: write HOST:PORT"),
        ("connect --listen 127.0.0.1:70000 --bridge socks5://127.0.0.1:9", "ports go up to 65535"),
        ("connect --listen 0.0.0.0:0 --bridge socks5://127.0.0.1:9", "can be reached by others"),
        ("connect --listen 127.0.0.1:{busy} --bridge socks5://127.0.0.1:9", "in use by another program"),
        ("connect --direct a..b --bridge socks5://127.0.0.1:9", "neither a domain"),
        ("connect --user me --bridge socks5://127.0.0.1:9", "--user and --password-file go together"),
        ("connect --user a:b --password-file {file} --bridge socks5://127.0.0.1:9", "the name has no colon"),
        ("connect --user a --password-file {home}/none --bridge socks5://127.0.0.1:9", "cannot be read"),
        ("serve --listen 127.0.0.1:0", "needs a website in front"),
        ("serve --listen 127.0.0.1:0 --site /nowhere/at/all", "there is no folder"),
        ("serve --listen 127.0.0.1:0 --transport quic", "is no transport: choose web"),
        ("serve --listen 127.0.0.1:{busy} --transport ss", "in use by another program"),
        ("serve --listen 127.0.0.1:0 --site . --cert x", "--cert and --key go together"),
        ("serve --listen 127.0.0.1:0 --site . --cert {home}/x --key {home}/y", "cannot be used"),
        ("serve --listen 127.0.0.1:0 --transport ss --site .", "belong to --transport web"),
        ("serve", "Missing option '--listen'"),
    ],
)
def test_what_cannot_be_is_told_in_one_line_that_says_what_to_do(
    tmp_path: Path, arguments: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        words = arguments.format(busy=busy.getsockname()[1], home=tmp_path, file=file).split()
        assert run(["--home", str(tmp_path / "home"), "reach", *words]) in (2, 5)
    said = capsys.readouterr()
    assert said.out == ""
    assert [told in line for line in said.err.splitlines() if line.startswith("outlast: ")] == [True]


def test_settings_are_shown_in_words_and_what_is_not_set_as_a_dash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--home", str(tmp_path / "home"), "init", "--name", "Ada", "--unattended"]) == 0
    capsys.readouterr()
    assert run(["--home", str(tmp_path / "home"), "reach", "set", "--country", "BY", "--direct", "example.by"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "on: no",
        "listen: 127.0.0.1:1080",
        "user: -",
        "direct: example.by",
        "country: BY",
        "asn: -",
        "publish: no",
        "channel: -",
        "test url: -",
    ]


@pytest.mark.parametrize(
    ("listen", "name", "host"),
    [
        ("62.115.0.2", "bread.example", "62.115.0.2"),
        ("62.115.0.2", None, "62.115.0.2"),
        ("62.115.0.2", "62.115.0.9", "62.115.0.9"),
        ("192.168.1.20", "bread.example", "bread.example"),  # others reach it by what stands before it
        ("127.0.0.1", None, "127.0.0.1"),
    ],
)
def test_a_link_has_a_public_address_where_one_is_known_for_names_are_forged(
    listen: str, name: str | None, host: str
) -> None:
    assert _link_host(Target(listen, 443), name) == host
