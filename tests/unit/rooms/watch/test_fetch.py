"""What is asked of public servers, and what becomes of each answer, by TLS on this machine under their real names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from outlast.address import Target
from outlast.errors import NotFoundError, ProtocolError, UsageError
from outlast.rooms.watch.io.fetch import fetch, proxy_of
from outlast.rooms.watch.proto.endpoints import DAYS_MAX, SOURCES, endpoints
from tests.e2e.program import Program
from tests.unit.rooms.watch import mrt_files
from tests.unit.rooms.watch.public_servers import DAY_S, NAMES, Answer, ioda, ooni, page, served, serving, tor, usual

NOW_S = 1_768_000_123
IODA, TOR, OONI = endpoints("BY", NOW_S)
GOOD = {"ioda": ioda, "tor": tor, "ooni": ooni}


# ---- what is asked ----


def test_each_source_is_asked_for_the_country_and_the_days_alone() -> None:
    hosts = [urlsplit(one.url).hostname for one in (IODA, TOR, OONI)]
    assert (hosts, {urlsplit(one.url).scheme for one in (IODA, TOR, OONI)}) == (list(NAMES[:3]), {"https"})
    assert urlsplit(IODA.url).path.endswith("/country/BY")
    assert parse_qs(urlsplit(IODA.url).query) == {
        "from": [str(1_768_000_000 - 100 - 28 * DAY_S)],
        "until": ["1767999900"],
    }
    assert parse_qs(urlsplit(TOR.url).query)["country"] == ["by"]
    assert parse_qs(urlsplit(TOR.url).query)["start"] == ["2025-12-12"]
    asked = parse_qs(urlsplit(OONI.url).query)
    assert (asked["since"], asked["until"], asked["probe_cc"]) == (["2025-12-12"], ["2026-01-09"], ["BY"])


def test_the_end_of_the_time_does_not_tell_the_clock_of_this_computer() -> None:
    assert endpoints("BY", NOW_S) == endpoints("BY", NOW_S + 60)


def test_a_collector_is_asked_only_when_it_is_named() -> None:
    assert [one.source for one in endpoints("BY", NOW_S)] == list(SOURCES)
    [one] = endpoints("BY", NOW_S, sources=["rrc15", "rrc15"])
    assert (one.url, one.is_series) == ("https://data.ris.ripe.net/rrc15/latest-update.gz", False)


@pytest.mark.parametrize(
    ("country", "days", "source"),
    [("BYX", 1, "tor"), ("by", 1, "tor"), ("B/", 1, "tor"), ("BY", 0, "tor"), ("BY", DAYS_MAX + 1, "tor")]
    + [("BY", 1, source) for source in ("", "rrc1", "rrc00/../x", "rrc00\n", "ripe")],
)
def test_nothing_else_can_be_asked(country: str, days: int, source: str) -> None:
    with pytest.raises(UsageError):
        endpoints(country, NOW_S, days, [source])


# ---- what comes ----


async def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, which: int = 0) -> bytes:
    async with serving(folder, answer) as servers:
        monkeypatch.setenv("SSL_CERT_FILE", str(servers.authority))
        one = endpoints("BY", NOW_S, sources=[*SOURCES, "rrc00"])[which]
        return await fetch(one, "BY", Target("127.0.0.1", servers.port), fetch_s=10)


@pytest.mark.parametrize("which", range(3))
async def test_an_answer_is_handed_on_as_it_came(which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await asked(tmp_path, monkeypatch, usual, which) == GOOD[SOURCES[which]]()


async def test_a_packed_answer_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(ioda())
    assert await asked(tmp_path, monkeypatch, lambda *_: page(packed)) == packed


async def test_an_answer_in_chunks_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = ooni()
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert await asked(tmp_path, monkeypatch, lambda *_: chunked, 2) == body


async def test_a_collectors_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = gzip.compress(RECORDS)
    assert await asked(tmp_path, monkeypatch, lambda *_: page(file), 3) == file
    with pytest.raises(ProtocolError, match="cannot be used"):
        await asked(tmp_path, monkeypatch, lambda *_: page(gzip.compress(RECORDS[:-3])), 3)


RECORDS = b"".join(mrt_files.everything().values())
BOMB = gzip.compress(b" " * (65 << 20), 1, mtime=0)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (page(ioda())[:-100], "gave no answer: the connection ended too early"),
        (b"", "gave no answer: the connection ended too early"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + ioda(), "does not say how long"),
        (page(b" " * (33 << 20)), "sends more than 33554432 bytes"),
        (page(BOMB), "holds more than"),
        (page(ooni()), "another publisher"),
        (page(tor()), "another publisher"),
        (page(ioda("RU")), "another country"),
        (page(ioda()[:-40]), "no JSON document"),
        (page(b"<html><title>Log in to this network</title>", "200 OK", "Content-Type: text/html"), "no series known"),
        (page(b""), "cannot be used"),
        (page(b"", "302 Found", "Location: https://www.example.org/"), "another server"),
        (page(b"", "302 Found", "Location: http://api.ioda.inetintel.cc.gatech.edu/"), "another server"),
        (page(b"", "302 Found", "Location: https://api.ioda.inetintel.cc.gatech.edu:8443/"), "another server"),
        (page(b"", "302 Found", "Location: https://\x7f"), "another server"),
        (page(b"", "302 Found"), "another server"),
        (page(b"", "302 Found", "Location: /elsewhere"), "in circles"),
        (page(b"", "429 Too Many Requests", "Retry-After: 30"), "try again in 30 seconds"),
        (page(b"", "429 Too Many Requests", "Retry-After: \x1b[31m"), "try again in a while"),
        (page(b"", "500 Internal Server Error"), "try again later"),
        (page(b"", "404 Not Found"), "does not give this"),
        (b"no HTTP at all\r\n\r\n", "no answer in HTTP"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else value,
)
async def test_each_bad_answer_is_one_clear_error(
    answer: bytes, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((NotFoundError, ProtocolError), match=problem) as raised:
        await asked(tmp_path, monkeypatch, lambda *_: answer)
    assert "\n" not in str(raised.value)
    assert str(raised.value).isprintable()


async def test_a_redirect_within_the_server_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def moved(host: str, target: str) -> bytes:
        return usual(host, target) if target == "/there" else page(b"", "301 Moved", "Location: /there")

    assert await asked(tmp_path, monkeypatch, moved) == ioda()


async def test_a_server_that_says_nothing_is_left_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, lambda *_: page(ioda())[:-1], stay=True) as servers:
        monkeypatch.setenv("SSL_CERT_FILE", str(servers.authority))
        with pytest.raises(NotFoundError, match="no answer in time"):
            await fetch(IODA, "BY", Target("127.0.0.1", servers.port), fetch_s=0.3)


# ---- whom it is asked through ----


async def test_a_certificate_of_somebody_else_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, names=("www.example.org",)) as servers:
        monkeypatch.setenv("SSL_CERT_FILE", str(servers.authority))
        with pytest.raises(NotFoundError, match="for another name"):
            await fetch(IODA, "BY", Target("127.0.0.1", servers.port), fetch_s=10)
        assert servers.asked == []


async def test_an_authority_that_is_not_trusted_ends_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as servers:
        with pytest.raises(NotFoundError, match="not valid"):
            await fetch(IODA, "BY", Target("127.0.0.1", servers.port), fetch_s=10)
        assert servers.asked == []


async def test_the_proxy_gets_the_name_and_its_refusal_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path, refusal=4) as servers:
        with pytest.raises(NotFoundError, match="the proxy does not reach the host"):
            await fetch(TOR, "BY", Target("127.0.0.1", servers.port), fetch_s=10)
        assert servers.names == ["metrics.torproject.org:443"]


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"ALL_PROXY": ""}, None),
        ({"ALL_PROXY": "socks5h://127.0.0.1:9050"}, Target("127.0.0.1", 9050)),
        ({"all_proxy": "socks5://[::1]"}, Target("::1", 1080)),
        ({"HTTPS_PROXY": "socks5h://a:1", "ALL_PROXY": "socks5h://b:2"}, Target("a", 1)),
    ],
)
def test_the_environment_names_the_proxy(environ: dict[str, str], proxy: Target | None) -> None:
    assert proxy_of(environ) == proxy


@pytest.mark.parametrize(
    "text", ["http://p:3128", "p:3128", "socks4://p", "socks5h://u:w@p", "socks5h://", "socks5h://p:x"]
)
def test_no_proxy_that_was_set_is_passed_by(text: str) -> None:
    with pytest.raises(UsageError, match="nothing was asked"):
        proxy_of({"HTTPS_PROXY": text})


# ---- the command ----


def test_the_command_writes_what_came_and_detect_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, program = tmp_path / "out", Program(tmp_path / "home")
    with served(tmp_path) as servers:
        for name, value in servers.environ.items():
            monkeypatch.setenv(name, value)
        done = program("--json", "watch", "fetch", "--country", "Belarus", "--out", str(out))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, [one["source"] for one in rows]) == (0, list(SOURCES)), done.stderr
    assert {one.name: one.read_bytes() for one in out.iterdir()} == {
        "ioda-BY.json": ioda(),
        "tor-BY.csv": tor(),
        "ooni-BY.json": ooni(),
    }
    assert [one["bytes"] for one in rows] == [len(GOOD[name]()) for name in SOURCES]
    assert servers.names == [f"{name}:443" for name in NAMES[:3]]
    assert program("watch", "detect", str(out / "ioda-BY.json")).returncode == 0
    assert not (tmp_path / "home").exists()


def test_without_a_folder_the_series_are_kept_by_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(tmp_path / "home")
    program.json("init", "--name", "Ada", "--unattended")
    with served(tmp_path) as servers:
        for name, value in servers.environ.items():
            monkeypatch.setenv(name, value)
        done = program("--json", "watch", "fetch", "--country", "BY", "--source", "ioda", "--source", "tor")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["source"], one["series"], one["file"]) for one in rows] == [("ioda", 2, None), ("tor", 1, None)], done
    assert "tor-relay-users" in program("watch", "report", "BY", "--out", "-").stdout


def test_one_server_that_fails_keeps_nobody_from_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_fails(host: str, target: str) -> bytes:
        return page(b"", "503 Busy") if host == NAMES[0] else usual(host, target)

    program = Program(tmp_path / "home")
    with served(tmp_path, one_fails) as servers:
        for name, value in servers.environ.items():
            monkeypatch.setenv(name, value)
        done = program("watch", "fetch", "--country", "BY", "--out", str(tmp_path / "out"))
    assert (done.returncode, len(list((tmp_path / "out").iterdir()))) == (4, 2)
    assert "1 of 3 servers gave nothing that can be used" in done.stderr


def test_no_server_is_asked_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(tmp_path / "home")
    with served(tmp_path) as servers:
        for name, value in servers.environ.items():
            monkeypatch.setenv(name, value)
        program.fails(4, "watch", "fetch", "--country", "BY")
        program.fails(2, "watch", "fetch", "--country", "BY", "--source", "rrc00")
    assert servers.names == []
