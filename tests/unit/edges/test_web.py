"""The safety of a local server: each attack that a page elsewhere, a program here or a phone nearby could try."""

from __future__ import annotations

import asyncio
import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from outlast.edges import gate, pages
from outlast.edges.doors import IDLE_MS, JOIN_MS, Tries
from outlast.edges.gate import DISK_KEPT_BYTES, FORM_MAX_BYTES, Access, Gate, typed_in
from outlast.edges.https import trusting
from outlast.edges.web import serving
from outlast.errors import StorageError
from outlast.kernel import Node
from tests.unit.edges.served import LAN, Served, served


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("home") / "with a space") as running:
        yield running


@pytest.fixture(autouse=True)
def no_tries_spent_by_the_test_before(node: Served) -> None:
    node.serving.web.tries = Tries(5, 15_000)


ROUTES = pages.routes()
GATES = {(route.path, method): route.app for route in ROUTES for method in route.methods or ()}


def raw(port: int, request: bytes, host: str = "127.0.0.1") -> bytes:
    """The first bytes of the answer to a request that no decent client would send."""
    with socket.create_connection((host, port), timeout=10) as line:
        line.sendall(request)
        return line.recv(65536)


# ---- Host: DNS rebinding ----


@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1:1", "localhost:8484.evil.example", "", LAN])
def test_a_host_that_is_not_this_door_is_refused(node: Served, host: str) -> None:
    with node.owner() as owner:
        answer = owner.get("/people", headers={"host": host})
        assert answer.status_code == 421
        assert "Ala" not in answer.text


def test_every_name_of_the_door_is_let_through(node: Served) -> None:
    for host in ("localhost", "127.0.0.1", "LOCALHOST"):
        with node.stranger() as browser:
            assert browser.get("/", headers={"host": f"{host}:{node.serving.port}"}).status_code == 200


def test_two_hosts_or_none_are_refused(node: Served) -> None:
    port = node.serving.port
    assert b" 400 " in raw(port, b"GET / HTTP/1.1\r\n\r\n")
    assert raw(port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421")
    two = f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil.example\r\n\r\n".encode()
    assert raw(port, two).split(b" ")[1] in (b"400", b"421")


def test_the_lan_door_answers_to_its_addresses_only_and_follows_them(tmp_path: Path) -> None:
    with served(tmp_path / "home", lan=True) as node, node.stranger(node.lan_url) as phone:
        assert phone.get("/").status_code == 200
        assert phone.get("/", headers={"host": f"localhost:{node.serving.port}"}).status_code == 421
        node.lan[:] = ["127.0.0.3"]
        node.run(node.serving.switch_lan(True))
        with node.stranger(f"http://127.0.0.3:{node.serving.port}") as moved:
            assert moved.get("/").status_code == 200
            assert moved.get("/", headers={"host": f"{LAN}:{node.serving.port}"}).status_code == 421
        with node.stranger(node.lan_url) as late, pytest.raises(httpx.ConnectError):
            late.get("/")


# ---- Origin and the form token: requests that another page makes ----


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"origin": "https://localhost"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_of_another_site_is_refused_though_it_has_cookie_and_token(
    node: Served, headers: dict[str, str]
) -> None:
    with node.owner() as owner:
        before = node.node.revision
        form = {"csrf": owner.token(), "lan": "on"}
        assert owner.post("/settings/lan", data=form, headers=headers).status_code == 403
        assert node.node.revision == before


def test_our_own_origin_is_let_through(node: Served) -> None:
    with node.owner() as owner:
        own = {"origin": node.url, "sec-fetch-site": "same-origin"}
        assert owner.post("/people/me", data={"csrf": owner.token()}, headers=own).status_code == 303


def posts() -> list[str]:
    """All addresses that take a form of a session."""
    gates = [(path, gate) for (path, method), gate in GATES.items() if method == "POST"]
    return [path for path, gate in gates if isinstance(gate, Gate) and gate.access > Access.OPEN]


@pytest.mark.parametrize("path", posts())
def test_a_form_without_the_session_s_token_does_nothing(node: Served, path: str) -> None:
    path = re.sub(r"\{\w+\}", "x", path)
    with node.owner() as owner, node.owner() as other:
        before = node.node.revision
        foreign = other.token()
        assert foreign != owner.token()
        for form in ({}, {"csrf": ""}, {"csrf": foreign}, {"csrf": "A" * 43}, {"word": "WIPE", "csrf": owner.token()}):
            assert owner.post(path, data=form).status_code == 403
        assert owner.post(f"{path}?csrf={owner.token()}", data={}).status_code == 403
        multipart = {"file": ("a", b"x" * 100), "csrf": (None, owner.token())}
        assert owner.post(path, files=multipart).status_code == 403
        assert node.node.revision == before


def test_an_upload_with_a_wrong_token_is_refused_before_it_is_read(node: Served) -> None:
    with node.owner() as owner:
        cookie = "; ".join(f"{name}={value}" for name, value in owner.cookies.items())
    head = (
        f"POST /stick/read HTTP/1.1\r\nHost: localhost:{node.serving.port}\r\nCookie: {cookie}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n' + "A" * 43 + "\r\n--b\r\n" + "x" * 2000
    )
    assert raw(node.serving.port, head.encode()).startswith(b"HTTP/1.1 403")


# ---- GET ----


def test_no_get_changes_anything(node: Served) -> None:
    samples = {"token": "x" * 22, "topic": "travel", "digest": "0", "name": "style.css", "id": "a" * 56, "path": "x"}

    def state() -> Any:
        web = node.serving.web
        tables = [row[0] for row in node.person.query("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        rows = {name: node.person.query(f'SELECT * FROM "{name}"') for name in tables if "sqlite" not in name}
        return rows, node.node.revision, node.node.query("SELECT count(*) FROM entry"), len(web.sessions.phones(""))

    with node.owner() as owner:
        before = node.call(state)
        for (path, method), _gate in GATES.items():
            if method == "GET" and path != "/events":
                filled = path.replace(":path", "").format(**samples)
                assert owner.get(filled).status_code in (200, 303, 400, 404), filled
                assert owner.head(filled).status_code in (200, 303, 400, 404), filled
        assert node.call(state) == before


def test_a_join_link_opened_by_a_preview_or_a_prank_does_not_use_it_up(node: Served) -> None:
    with node.owner() as owner, ExitStack() as stack:
        owner.submit("/settings/lan", lan="on")
        owner.submit("/phones/invite")
        path = re.findall(r"/join/[\w-]+", owner.get("/phones/invite").text)[0]
        for _ in range(3):
            curious = stack.enter_context(node.stranger(node.lan_url))
            assert curious.get(path).status_code == 200
            assert not curious.cookies
        assert curious.post(path).status_code == 303


# ---- who may do what ----

OPEN = {
    ("/", "GET"), ("/enter", "POST"), ("/language", "POST"), ("/static/{digest}/{name}", "GET"), ("/help", "GET"),
    ("/help/{topic}", "GET"), ("/join/{token}", "GET"), ("/join/{token}", "POST"),
    ("/get", "GET"), ("/get/{path:path}", "GET"),
    ("/trust", "GET"), ("/trust/outlast.crt", "GET"),
}  # fmt: skip


def test_every_route_stands_behind_a_gate_and_few_are_open() -> None:
    assert all(isinstance(route, Route) and isinstance(route.app, Gate) for route in ROUTES)
    found = {where for where, gate in GATES.items() if isinstance(gate, Gate) and gate.access == Access.OPEN}
    assert {where for where in found if where[1] != "HEAD"} == OPEN


@pytest.mark.parametrize(("path", "method"), [where for where in GATES if where not in OPEN and where[1] != "HEAD"])
def test_a_stranger_sees_and_does_nothing(node: Served, path: str, method: str) -> None:
    with node.stranger() as stranger:
        before = node.node.revision
        answer = stranger.request(method, re.sub(r"\{\w+\}", "x", path), data={} if method == "POST" else None)
        assert answer.status_code == 401
        assert "Ala" not in answer.text
        assert node.node.revision == before


OWNERS = [
    where for where, gate in GATES.items()
    if isinstance(gate, Gate) and gate.access in (Access.OWNER, Access.HOST) and where[1] != "HEAD"
]  # fmt: skip


@pytest.fixture(scope="module")
def phone(node: Served) -> Iterator[Any]:
    with node.phone() as joined:
        yield joined


@pytest.mark.parametrize(("path", "method"), OWNERS)
def test_a_joined_phone_cannot_do_what_belongs_to_the_computer(
    node: Served, phone: Any, path: str, method: str
) -> None:
    before = node.node.revision
    path = re.sub(r"\{\w+\}", "x", path)
    answer = phone.submit(path) if method == "POST" else phone.get(path)
    assert answer.status_code == 403
    assert node.node.revision == before


def test_passphrase_backup_words_devices_verification_and_wipe_are_the_computer_s(phone: Any) -> None:
    paths = {path for path, _method in OWNERS}
    assert {
        "/backup/file", "/backup/words", "/backup/test", "/phones/lost", "/phones/answer", "/nodes/add",
        "/people/{id}/verify", "/people/{id}/device", "/settings/wipe", "/settings/lan", "/first/name",
    } <= paths  # fmt: skip
    assert phone.post("/enter", data={"passphrase": "anything at all"}).status_code in (401, 403)
    assert phone.submit("/unlock", passphrase="anything at all").status_code == 403


def test_a_session_counts_at_its_own_door_only(node: Served, phone: Any) -> None:
    secret = phone.cookies[f"outlast-{node.serving.port}"]
    with node.stranger(cookies={f"outlast-{node.serving.port}": secret}) as thief:
        assert thief.get("/people").status_code == 401
    with node.owner() as owner:
        secret = owner.cookies[f"outlast-{node.serving.port}"]
    with node.stranger(node.lan_url, cookies={f"outlast-{node.serving.port}": secret}) as thief:
        assert thief.get("/people").status_code == 401


# ---- the cookie and the headers ----


def test_the_session_s_cookie_is_out_of_reach_of_scripts_and_other_sites(node: Served) -> None:
    with node.stranger() as browser:
        answer = browser.post("/enter", data={"token": node.serving.web.launch})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"outlast-{node.serving.port}=")
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    secret = cookie.partition("=")[2].partition(";")[0]
    assert len(secret) == 43
    sessions = node.serving.web.sessions._open
    assert all(secret.encode() not in digest for digest in sessions)


@pytest.mark.parametrize(
    "others", ['prefs={"a": 1}', "a b=c", "flag", "=nameless", "expires=soon", "x=caf\xe9", 'half="a']
)
def test_cookies_of_other_servers_on_this_computer_shut_nobody_out(node: Served, others: str) -> None:
    with node.owner() as owner, node.stranger() as same:
        own = f"outlast-{node.serving.port}={owner.cookies[f'outlast-{node.serving.port}']}"
        for line in (f"{others}; {own}", f"{own}; {others}"):
            assert same.get("/people", headers={"cookie": line.encode("latin-1")}).status_code == 200


RULES = [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
]


def test_every_answer_has_the_strict_headers(node: Served) -> None:
    with node.owner() as owner:
        answers = [owner.get(path) for path in ("/", "/people", "/nowhere", "/backup", "/help/safety")]
        answers += [owner.post("/settings/wipe"), owner.get("/", headers={"host": "x"}), owner.put("/")]
        for answer in answers:
            policy = answer.headers["content-security-policy"]
            for rule in RULES:
                assert rule in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert answer.headers["referrer-policy"] == "same-origin"
            assert "server" not in answer.headers


def test_no_page_has_inline_script_or_style(node: Served) -> None:
    with node.owner() as owner:
        for (path, method), _gate in GATES.items():
            if method == "GET" and "{" not in path and path != "/events":
                text = owner.get(path).text
                assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", text), path


def test_static_files_are_kept_and_nothing_else_is_served_from_there(node: Served) -> None:
    with node.stranger() as browser:
        url = re.findall(r"/static/\w+/style\.css", browser.get("/").text)[0]
        answer = browser.get(url)
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-encoding"] == "gzip"
        plain = browser.get(url, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == answer.content
        assert "content-encoding" not in browser.get("/").headers, "what strangers may have a part in shows no size"
        for path in (
            "/static/0/../page.py",
            "/static/0/page.py",
            "/static/0/%2e%2e%2fpage.py",
            "/static/0/..%2fpage.py",
        ):
            assert browser.get(path).status_code == 404


def test_a_download_is_stored_and_never_shown(node: Served) -> None:
    with node.owner() as owner:
        answer = owner.submit("/backup/file", passphrase="river and stone", again="river and stone")
        assert answer.status_code == 200
        assert answer.headers["content-disposition"].startswith("attachment; ")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["content-type"] == "application/octet-stream"


def test_web_sockets_are_refused(node: Served) -> None:
    with node.owner() as owner:
        headers = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
                   "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
        assert owner.get("/events2", headers=headers).status_code == 404
        assert owner.get("/", headers=headers).status_code == 200


# ---- how much and how often ----


def test_a_form_that_is_too_large_is_refused_by_its_length_and_by_its_bytes(node: Served) -> None:
    with node.owner() as owner:
        token = owner.token()
        form = {"csrf": token, "link": "x" * FORM_MAX_BYTES}
        assert owner.post("/people/add", data=form).status_code == 413

        def endless() -> Iterator[bytes]:
            yield f"csrf={token}&link=".encode()
            for _ in range(FORM_MAX_BYTES // 4096 + 1):
                yield b"x" * 4096

        kind = {"content-type": "application/x-www-form-urlencoded"}
        assert owner.post("/people/add", content=endless(), headers=kind).status_code == 413


def test_what_was_typed_is_found_in_a_form_and_in_no_heap_of_fields() -> None:
    assert typed_in(b"csrf=x&text=%20a+%D1%8F%FF%00&more=") == "a я\ufffd\x00"
    assert typed_in(b"csrf=x&text=a" + b"&x=" * 2000) == ""


def test_an_upload_leaves_room_on_the_disk(node: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with node.owner() as owner:
        file = {"bundle": ("a", bytes(2 << 20))}
        monkeypatch.setattr(Node, "space_left", lambda _: DISK_KEPT_BYTES + (1 << 20))
        assert owner.submit("/stick/read", files=file).status_code == 413
        monkeypatch.setattr(Node, "space_left", lambda _: DISK_KEPT_BYTES + (4 << 20))
        assert owner.submit("/stick/read", files=file).status_code == 400, "it is no bundle"


def test_a_header_that_is_too_large_is_refused(node: Served) -> None:
    request = f"GET / HTTP/1.1\r\nHost: localhost:{node.serving.port}\r\nX: {'x' * 20_000}\r\n\r\n"
    assert raw(node.serving.port, request.encode()).startswith(b"HTTP/1.1 431")
    endless = f"GET / HTTP/1.1\r\nHost: localhost:{node.serving.port}\r\nX: {'x' * 1_000_000}"
    assert raw(node.serving.port, endless.encode()).startswith(b"HTTP/1.1 400")


def test_guessing_the_launch_token_is_slowed_down(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node, node.stranger() as thief:
        found = [thief.post("/enter", data={"token": f"guess {n}"}).status_code for n in range(8)]
        assert found == [401] * 5 + [429] * 3
        assert thief.get("/people").status_code == 401


def test_guessing_the_passphrase_is_slowed_down_and_does_not_shut_the_owner_out(tmp_path: Path) -> None:
    right = "heron, river, stone"
    with served(tmp_path / "home", passphrase=right) as node, node.stranger() as thief, node.owner() as owner:
        found = [thief.post("/enter", data={"passphrase": "a wrong guess"}).status_code for _ in range(7)]
        assert found == [423] * 5 + [429] * 2
        assert thief.post("/enter", data={"passphrase": right}).status_code == 429
        assert owner.submit("/unlock", passphrase=right).status_code == 303


def test_an_unattended_node_takes_no_passphrase_for_an_owner_s(node: Served) -> None:
    with node.stranger() as thief:
        for guess in ("", "anything at all"):
            assert thief.post("/enter", data={"passphrase": guess}).status_code == 423
        assert thief.get("/people").status_code == 401
        assert "assphrase" not in thief.get("/").text


def test_what_strangers_send_goes_into_no_log(node: Served, caplog: pytest.LogCaptureFixture) -> None:
    host = f"Host: localhost:{node.serving.port}\r\n"
    upgrade = f"GET / HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert raw(node.serving.port, upgrade.encode()).startswith(b"HTTP/1.1 200")
    assert raw(node.serving.port, b"\x16\x03\x01\r\n\r\n").startswith(b"HTTP/1.1 400")
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=b"):
        cut_off(node, f"POST /enter HTTP/1.1\r\n{host}", kind, b"token=a")
    assert caplog.messages == []


def test_an_upload_that_is_cut_off_is_no_fault_of_the_program(node: Served, caplog: pytest.LogCaptureFixture) -> None:
    with node.owner() as owner:
        cookies = "; ".join(f"{name}={value}" for name, value in owner.cookies.items())
        form = f'--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{owner.token()}\r\n--b\r\n'.encode()
    head = f"POST /stick/read HTTP/1.1\r\nHost: localhost:{node.serving.port}\r\nCookie: {cookies}\r\n"
    cut_off(node, head, "multipart/form-data; boundary=b", form + b"x" * 2000)
    assert caplog.messages == []


def cut_off(node: Served, head: str, kind: str, form: bytes) -> None:
    """Hang up in the middle of a form, and wait until the node has noticed."""
    with socket.create_connection(("127.0.0.1", node.serving.port), timeout=10) as line:
        line.sendall(f"{head}Content-Type: {kind}\r\nContent-Length: 100000\r\n\r\n".encode() + form)
        line.shutdown(socket.SHUT_WR)
        while line.recv(65536):
            pass
    for _turn in range(50):
        node.run(asyncio.sleep(0))


@pytest.fixture(scope="module")
def junk() -> list[bytes]:
    return [b"", b"\xff\xfe\x00", b"=&=&&", b"a" * 5000, b"%zz%", b"--b\r\n\r\n--b--", "имя=я&id=\U0001f600".encode()]


@pytest.mark.parametrize(
    "path", [*(path for path in posts() if path != "/leave"), "/enter", "/language", "/join/{token}"]
)
def test_junk_gets_one_line_and_never_a_crash(node: Served, junk: list[bytes], path: str) -> None:
    with node.owner() as owner:
        token = owner.token().encode()
        for kind in (
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=b",
            "multipart/form-data",
            "text/x",
        ):
            first = b"csrf=" + token + b"&"
            if "multipart" in kind:
                first = b'--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n' + token + b"\r\n"
            for body in junk:
                answer = owner.post(
                    path.format(id="é", token="x"), content=first + body, headers={"content-type": kind}
                )
                assert answer.status_code < 500, (path, kind, body, answer.text[-500:])


# ---- sessions end ----


def test_logging_out_ends_the_session_and_not_just_the_cookie(node: Served) -> None:
    with node.owner() as owner:
        kept = dict(owner.cookies)
        assert owner.submit("/leave").status_code == 303
        assert not owner.cookies
    with node.stranger(cookies=kept) as again:
        assert again.get("/people").status_code == 401


def test_a_lost_phone_is_shut_out_at_once_and_its_stream_ends(node: Served) -> None:
    with node.phone("to be lost") as phone, node.owner() as owner:
        ended = threading.Event()
        opened = threading.Event()

        def listen() -> None:
            with phone.stream("GET", "/events") as stream:
                for _line in stream.iter_lines():
                    opened.set()
            ended.set()

        listener = threading.Thread(target=listen)
        listener.start()
        assert opened.wait(60)
        page = owner.get("/phones").text
        digest = re.search(r'to be lost.*?name="phone" value="(\w+)"', page, re.DOTALL)
        assert digest
        assert owner.submit("/phones/lost", phone=digest[1]).status_code == 303
        assert ended.wait(60)
        listener.join()
        assert phone.get("/people").status_code == 401
        assert "to be lost" not in owner.get("/phones").text


def test_sessions_do_not_outlive_their_time(node: Served) -> None:
    sessions = node.serving.web.sessions
    secret = "s" * 43
    now = node.node.now_ms()
    for door in ("localhost", "lan"):
        session = node.call(lambda door=door: sessions.open(secret, door, "", "", now))
        assert node.call(lambda door=door: sessions.find(secret, door, now + IDLE_MS[door])) is session
        assert node.call(lambda door=door: sessions.find(secret, door, now + 2 * IDLE_MS[door] + 1)) is None


def test_a_phone_stays_joined_when_the_node_starts_anew_and_only_hashes_are_kept(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node, node.phone("mine") as phone:
        kept = dict(phone.cookies)
        rows = node.person.query("SELECT name, value FROM meta WHERE name LIKE 'session/%'")
        assert len(rows) == 1
        assert all(secret.encode() not in bytes(rows[0][1]) and secret not in rows[0][0] for secret in kept.values())
    with served(tmp_path / "home", lan=None) as node:
        node.run(node.serving.switch_lan(True))
        secret = next(iter(kept.values()))
        with node.stranger(node.lan_url, cookies={f"outlast-{node.serving.port}": secret}) as phone:
            assert phone.get("/people").status_code == 200


# ---- joining ----


def test_a_join_token_is_good_once_and_for_five_minutes(node: Served) -> None:
    web = node.serving.web
    with node.owner() as owner, node.stranger(node.lan_url) as first, node.stranger(node.lan_url) as second:
        owner.submit("/settings/lan", lan="on")
        owner.submit("/phones/invite")
        path = re.findall(r"/join/[\w-]+", owner.get("/phones/invite").text)[0]
        assert first.post(path, data={"label": "a"}).status_code == 303
        assert second.post(path, data={"label": "b"}).status_code == 404
        owner.submit("/phones/invite")
        late = re.findall(r"/join/[\w-]+", owner.get("/phones/invite").text)[0]
        shown = web.invitations.find(late.removeprefix("/join/"), node.node.now_ms())
        assert shown
        shown.made_ms -= JOIN_MS + 1
        assert second.get(late).status_code == 404
        assert second.post(late).status_code == 404


def test_a_phone_sees_nothing_before_the_host_confirmed_the_code_that_both_screens_show(node: Served) -> None:
    with node.owner() as owner, node.stranger(node.lan_url) as phone:
        owner.submit("/settings/lan", lan="on")
        owner.submit("/phones/invite")
        path = re.findall(r"/join/[\w-]+", owner.get("/phones/invite").text)[0]
        phone.post(path, data={"label": "eve"})
        code = re.findall(r"\d{3} \d{3}", phone.get("/").text)[0]
        assert code in owner.get("/phones/invite").text
        assert phone.get("/people").status_code == 401
        assert owner.submit("/phones/answer", code="000 000", answer="yes").status_code == 404
        assert phone.get("/people").status_code == 401
        assert owner.submit("/phones/answer", code=code, answer="no").status_code == 303
        assert phone.get("/people").status_code == 401
        assert owner.submit("/phones/answer", code=code, answer="yes").status_code == 404


# ---- listening ----


def test_a_form_that_stalls_is_given_up_and_its_connection_with_it(
    node: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "BODY_STALL_S", 0.05)
    with node.owner() as owner, socket.create_connection(("127.0.0.1", node.serving.port), timeout=20) as slow:
        cookies = "; ".join(f"{name}={value}" for name, value in owner.cookies.items())
        head = f"POST /settings/lock HTTP/1.1\r\nHost: localhost:{node.serving.port}\r\nCookie: {cookies}\r\n"
        slow.sendall(f"{head}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\n".encode())
        answer = b"".join(iter(lambda: slow.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 408"), answer[:200]


@pytest.mark.parametrize("encrypted", [False, True])
def test_who_opens_connections_and_asks_for_nothing_takes_no_more_than_a_share(tmp_path: Path, encrypted: bool) -> None:
    with served(tmp_path / "home", lan=True) as node, ExitStack() as lines:
        url = node.lan_url
        if encrypted:
            node.run(trusting.switch(node.node, True))
            node.run(node.serving.match_https())
            url = f"https://{LAN}:{node.serving.web.https_port}"
        node.serving.for_phones.most, node.serving.for_phones.share = 8, 2
        at = (LAN, int(url.rpartition(":")[2]))
        idle = [lines.enter_context(socket.create_connection(at, 20, ("127.0.0.9", 0))) for _ in range(12)]
        own = httpx.HTTPTransport(local_address="127.0.0.10", verify=False)
        with node.stranger(url, transport=own) as phone:
            assert phone.get("/").status_code in (200, 421)
        hung_up = [line for line in idle if select.select([line], [], [], 0)[0] and not line.recv(1)]
        assert len(hung_up) == 8


def test_a_taken_port_gives_one_clear_line(tmp_path: Path, node: Served) -> None:
    async def open_again() -> None:
        async with serving(node.home, node.node, node.serving.port, lan=False, rooms=()):
            pass

    with pytest.raises(StorageError, match=rf"127\.0\.0\.1:{node.serving.port} is in use by another program"):
        node.run(open_again())


def test_the_door_for_phones_is_as_it_was_left_when_the_node_starts_anew(tmp_path: Path) -> None:
    def is_open(node: Served) -> bool:
        async def settled() -> bool:
            async with asyncio.timeout(60):
                while not node.serving.web.lan:
                    await node.node.wait(node.node.revision)
            return True

        try:
            return node.run(settled())
        except TimeoutError:
            return False

    with served(tmp_path / "home", lan=None) as node, node.owner() as owner:
        owner.submit("/settings/lan", lan="on")
    with served(tmp_path / "home", lan=None) as node:
        assert is_open(node)
    with served(tmp_path / "home", lan=False) as node:
        assert not node.serving.web.lan


def test_nothing_listens_beyond_loopback_while_the_door_for_phones_is_closed(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LAN, node.serving.port), timeout=5)
        with node.owner() as owner:
            owner.submit("/settings/lan", lan="on")
            socket.create_connection((LAN, node.serving.port), timeout=5).close()
            owner.submit("/settings/lan", lan="off")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LAN, node.serving.port), timeout=5)
