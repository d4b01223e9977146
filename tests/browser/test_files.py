"""A file from a phone: cut in the middle it goes on, also after the page was closed; it needs no JavaScript."""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from outlast.kernel import id_text
from outlast.rooms.carry import files, uploads
from tests.browser.fit import NARROWEST, magnified, speak
from tests.browser.phone import WAIT_MS, Album, Phone, phone
from tests.unit.edges.served import Served, served

pytestmark = pytest.mark.serial


def photo() -> bytes:
    """A photo with a place in it."""
    told, out = Image.Exif(), BytesIO()
    told[0x010F] = "CAMERA"
    told.get_ifd(0x8825)[1] = "N"
    Image.radial_gradient("L").resize((640, 480)).convert("RGB").save(out, "JPEG", exif=told)
    return out.getvalue()


def until(at: Served, holds: Callable[[], object]) -> None:
    """Wait until something holds."""

    async def wait() -> None:
        while not holds():
            await at.node.wait(at.node.revision)

    at.run(wait())


def befriend(node: Served, folder: Path) -> str:
    """Boris becomes a contact; the address of the page to send him a file."""
    with served(folder, name="Boris", rooms=None) as boris:
        node.run(node.person.add_contact(boris.run(boris.person.link())))
        return f"/carry/with/{id_text(boris.person.identity)}/files"


def choose(found: Phone, name: str, data: bytes) -> None:
    """Choose a file in the last of the fields."""
    field = found.page.get_by_label("Any file")
    field.set_input_files({"name": name, "mimeType": "application/octet-stream", "buffer": data})


@pytest.mark.parametrize("js", [True, False], ids=["js", "no-js"])
def test_a_photo_is_sent_and_shown(chromium: Any, album: Album, tmp_path: Path, js: bool) -> None:
    with (
        served(tmp_path / "a", name="Ala", rooms=None) as node,
        phone(chromium, album, "Ala", node.url, js=js) as found,
    ):
        there = befriend(node, tmp_path / "b")
        found.enter(node.serving.launch_url)
        found.go(there)
        found.shot("form")
        assert not js or found.barriers() == []
        choose(found, "cat.jpg", photo())
        found.page.get_by_role("button", name="Send", exact=True).click()
        until(node, lambda: files.listing(node.node, node.person))
        found.go(there.removesuffix("/files"))
        found.sees("cat.jpg")
        picture = found.page.locator("img.shot")
        picture.wait_for(state="visible", timeout=WAIT_MS)
        if js:
            picture.scroll_into_view_if_needed()
            found.page.wait_for_function("document.querySelector('img.shot').naturalWidth > 0")
        found.shot("sent")
        assert not js or found.barriers() == []
        found.go("/carry/files")
        found.sees("cat.jpg")
        found.shot("files")
        assert not js or found.barriers() == []


def test_what_a_conversation_says_of_files_fits_the_narrowest_screen(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    with (
        served(tmp_path / "a", name="Ala", rooms=None) as node,
        phone(chromium, album, "Ala", node.url) as found,
    ):
        there = befriend(node, tmp_path / "b")
        found.enter(node.serving.launch_url)
        speak(found, "de")
        found.page.set_viewport_size({"width": NARROWEST, "height": 568})
        to = node.person.contacts()[0].identity
        for state, (name, size) in enumerate((("half.bin", 5000), ("empty.bin", 0))):
            node.run(uploads.begin(node.node, node.person, to, name, size))
            until(node, lambda n=2 * state: n in [one.file.state for one in uploads.listing(node.node, node.person)])
            found.go(there.removesuffix("/files"))
            assert found.page.locator("#attach .badge").count() == 1
            assert magnified(found) == [], name


def test_a_file_that_was_cut_goes_on_after_the_page_was_closed(chromium: Any, album: Album, tmp_path: Path) -> None:
    data = random.Random(6).randbytes(9 << 20)
    with (
        served(tmp_path / "a", name="Ala", rooms=None) as node,
        phone(chromium, album, "Ala", node.url, js=True) as found,
    ):
        there = befriend(node, tmp_path / "b")
        film = tmp_path / "film.bin"
        film.write_bytes(data)
        found.enter(node.serving.launch_url)
        found.go(there)
        parts: list[str] = []

        def cut(route: Any) -> None:
            parts.append(route.request.method)
            if len(parts) > 1:  # the first part came
                route.abort()
            else:
                route.continue_()

        found.page.route("**/carry/waiting/*", cut)
        found.page.get_by_label("Any file").set_input_files(film)
        found.page.get_by_role("button", name="Send", exact=True).click()
        found.sees("The connection was cut")
        found.shot("cut")
        [one] = uploads.listing(node.node, node.person)
        assert 0 < one.held_bytes < len(data)
        found.go("/carry/")
        found.page.unroute("**/carry/waiting/*")
        found.go(there)
        found.sees("choose the same file again to go on")
        found.shot("half")
        assert found.barriers() == []
        found.page.get_by_label("Any file").set_input_files(film)
        starts: list[str] = []
        found.page.on("request", lambda sent: starts.append(sent.url) if sent.method == "POST" else None)
        found.page.get_by_role("button", name="Send", exact=True).click()
        until(node, lambda: [way.file.state for way in uploads.listing(node.node, node.person)] == [2])
        found.page.wait_for_url("**/carry/with/*")
        assert len([url for url in starts if "/carry/waiting/" in url]) == 2
        found.go(there)
        found.sees("Outlast cannot remove what this file tells about you")
        found.shot("asks")
        assert found.barriers() == []
        found.page.get_by_role("button", name="Send it as it is").click()
        until(node, lambda: files.listing(node.node, node.person))
        [held] = files.listing(node.node, node.person)
        assert b"".join(files.read(node.node, node.person, held.id)) == data
