"""What pages are made of: QR codes, times, escaping, the room's place in them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zxingcpp
from starlette.requests import Request

from outlast.kernel import Room
from outlast.ui.languages import Catalogues
from outlast.ui.page import STATIC, Site, Translation, qr, render, static_url, time_element, upload

BAIT = "<script>alert(1)</script>\"'&\u202e"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    package = tmp_path / "toyroom"
    (package / "templates").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('a page looks for templates without importing the room')")
    (package / "templates" / "toy.html").write_text(
        '{% extends "page.html" %}{% block main %}<p>{{ text }}</p>{% endblock %}'
    )
    sys.path.insert(0, str(tmp_path))
    yield Room("toy", 1, web="toyroom.web:routes")
    sys.path.remove(str(tmp_path))
    sys.modules.pop("toyroom", None)


def request(site: Site, **headers: str) -> Request:
    """A request as the doors hand it on, of a visitor whom nobody let in."""
    scope = {
        "type": "http", "method": "GET", "path": "/toy/", "query_string": b"", "scheme": "http",
        "server": ("localhost", 1), "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asked = Request(scope)
    for name, value in {
        "site": site, "node": None, "person": None, "csrf": "token", "once": "once", "door": "localhost", "unsent": "",
        "translation": site.catalogues.translation("en"),
    }.items():  # fmt: skip
        setattr(asked.state, name, value)
    return asked


def text_of(response: object) -> str:
    return bytes(response.body).decode()  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["http://192.168.1.5:8484/join/abcdefghijkl", "outlast://contact/" + "Ab_-" * 120])
def test_a_qr_code_reads_as_what_was_put_in(text: str) -> None:
    code = qr(text)
    image = np.full((code.size, code.size), 255, np.uint8)
    for run in code.path.split("z")[:-1]:
        at, _, width = run.removeprefix("M").partition("h")
        x, y = map(int, at.split(" "))
        image[y, x : x + int(width.partition("v")[0])] = 0
    found = zxingcpp.read_barcodes(image.repeat(4, 0).repeat(4, 1))
    assert [one.text for one in found] == [text]


def test_a_room_s_template_is_found_and_what_people_wrote_is_escaped(room: Room) -> None:
    site = Site({"toy": room})
    page = text_of(render(request(site), "toy/toy.html", text=BAIT))
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "<title>Outlast</title>" in page


def test_a_fragment_is_the_page_without_its_frame(room: Room) -> None:
    site = Site({"toy": room})
    page = text_of(render(request(site, **{"x-fragment": "1"}), "toy/toy.html", text="hello"))
    assert "hello" in page
    assert 'id="strip"' in page
    assert "<html" not in page
    assert "<nav" not in page


def test_a_forgotten_value_is_an_error_and_not_an_empty_place(room: Room) -> None:
    with pytest.raises(Exception, match="text"):
        render(request(Site({"toy": room})), "toy/toy.html")


def test_rooms_that_do_not_exist_have_no_place_in_the_bar(room: Room) -> None:
    _ = Catalogues().translation("en")
    assert [tab.title for tab in Site({"toy": room}).tabs("/", _, {})] == ["Home", "People"]
    bar = Site({"carry": Room("carry", 1)}).tabs("/carry/channels/x", _, {"/carry/": 3})
    assert [(tab.title, tab.here, tab.count) for tab in bar] == [
        ("Home", False, 0), ("Messages", False, 3), ("Channels", True, 0), ("People", False, 0),
    ]  # fmt: skip


def test_a_time_tells_the_day_only_when_it_is_not_today() -> None:
    from datetime import datetime, timedelta

    context = {"_": Translation("en", "ltr", Catalogues().translation("en")._catalogue)}
    now = datetime.now().astimezone()
    old = datetime(2020, 2, 3, 4, 5).astimezone()
    assert time_element(context, int(now.timestamp() * 1000)).endswith(f">{now:%H:%M}</time>")
    assert time_element(context, int(old.timestamp() * 1000)).endswith(">3 Feb 2020 04:05</time>")
    yesterday = now - timedelta(days=1)
    assert f">{yesterday.day} " in time_element(context, int(yesterday.timestamp() * 1000))


def test_a_time_that_no_calendar_has_is_a_dash() -> None:
    for at_ms in (2**53 - 1, 253_402_300_799_999 + 86_400_000, -(2**53)):
        assert time_element({"_": str}, at_ms) == "<time>\u2013</time>"


def test_a_static_address_changes_with_its_content() -> None:
    assert static_url("style.css") != static_url("live.js").replace("live.js", "style.css")
    assert max((STATIC / name).stat().st_size for name in ("live.js", "talk.js", "upload.js")) <= 4096
    assert (STATIC / "scan.js").stat().st_size <= 2048


@pytest.mark.parametrize(("memory_bytes", "on_disk"), [(1 << 20, True), (4 << 20, False)])
def test_a_file_lies_on_the_disk_only_above_what_the_page_keeps_in_memory(memory_bytes: int, on_disk: bool) -> None:
    photo = b"x" * (2 << 20)
    body = b'--b\r\ncontent-disposition: form-data; name="photo"; filename="p"\r\n\r\n' + photo + b"\r\n--b--\r\n"

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def look() -> None:
        headers = [(b"content-type", b"multipart/form-data; boundary=b")]
        sent = Request({"type": "http", "method": "POST", "headers": headers}, receive)
        file, _ = await upload(sent, "photo", memory_bytes=memory_bytes)
        assert getattr(file.file, "_rolled") is on_disk  # noqa: B009  (the one place where this can be seen)
        assert await file.read() == photo

    asyncio.run(look())
