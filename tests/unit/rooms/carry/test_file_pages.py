"""Files on the pages, as browsers without JavaScript use them: sent, followed, got, saved, let go of."""

from __future__ import annotations

import random
from collections.abc import Iterator
from io import BytesIO

import httpx
import pytest
from PIL import Image

from outlast.kernel import Node
from outlast.rooms.carry import files, groups, service, uploads
from outlast.rooms.carry.uploads import BLOCK_BYTES
from tests.unit.edges.served import Browser, Served
from tests.unit.rooms.carry.two import trip, until, with_

NEEDLE = b"CAMERA-OF-ANN"


def photo(width: int = 640, height: int = 480) -> bytes:
    """A photo that tells the camera and the place."""
    told = Image.Exif()
    told[0x010F] = NEEDLE.decode()
    told.get_ifd(0x8825)[1] = "N"
    told.get_ifd(0x8825)[2] = (53.0, 54.0, 0.0)
    out = BytesIO()
    Image.new("RGB", (width, height), (180, 40, 40)).save(out, "JPEG", exif=told)
    assert NEEDLE in out.getvalue()
    return out.getvalue()


def sent(at: Served, name: str) -> files.Held:
    """The file of that name, once it was sent."""
    until(at, lambda: name in [one.file.name for one in files.listing(at.node, at.person)])
    return next(one for one in files.listing(at.node, at.person) if one.file.name == name)


def test_a_photo_is_sent_without_what_it_tells_and_comes_with_a_small_picture(
    ann: Served, ben: Served, page: Browser
) -> None:
    answer = page.submit(f"{with_(ben)}/files", files={"file": ("Photo 1.JPG", photo(), "image/jpeg")})
    assert answer.status_code == 303
    held = sent(ann, "Photo 1.JPG")
    assert held.file.type == "image/jpeg"
    assert 0 < len(held.file.preview) <= 8192
    assert uploads.listing(ann.node, ann.person) == []
    until(ann, lambda: not list((ann.home.path / "rooms/carry/waiting" / ann.person.key).iterdir()))
    trip(ann, ben)
    until(ben, lambda: files.find(ben.node, ben.person, held.id).state == "here")
    data = b"".join(files.read(ben.node, ben.person, held.id))
    with Image.open(BytesIO(data)) as image:
        assert (image.size, dict(image.getexif())) == ((640, 480), {})
    assert NEEDLE not in data
    with ben.owner() as browser:
        shown = browser.get(with_(ann)).text
        assert "Photo 1.JPG" in shown
        assert f"/carry/files/{held.id.hex()}/save" in shown
        for kind in ("small", "picture"):
            picture = browser.get(f"/carry/files/{held.id.hex()}/{kind}")
            assert picture.headers["content-type"] == "image/webp"
            assert "sandbox" in picture.headers["content-security-policy"]
            with Image.open(BytesIO(picture.content)) as image:
                assert image.format == "WEBP"


def test_a_file_that_cannot_be_cleaned_waits_for_its_owner_s_word(ann: Served, ben: Served, page: Browser) -> None:
    data = b"%PDF-1.7 " + NEEDLE
    page.submit(f"{with_(ben)}/files", files={"file": ("list.pdf", data)})
    until(ann, lambda: [one.file.state for one in uploads.listing(ann.node, ann.person)] == [2])
    [one] = uploads.listing(ann.node, ann.person)
    assert "Outlast cannot remove what this file tells about you" in page.get(f"{with_(ben)}/files").text
    assert "waits for you</span>" in page.get(with_(ben)).text
    assert "on its way" not in page.get(with_(ben)).text, "it goes nowhere by itself"
    assert "list.pdf" not in [one.file.name for one in files.listing(ann.node, ann.person)]
    assert NEEDLE not in b"".join(path.read_bytes() for path in ann.home.path.rglob("*") if path.is_file())
    page.submit(f"/carry/waiting/{one.file.id.hex()}/go")
    held = sent(ann, "list.pdf")
    saved = page.get(f"/carry/files/{held.id.hex()}/save")
    assert saved.content == data
    assert saved.headers["content-disposition"] == 'attachment; filename="list.pdf"'
    assert saved.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in saved.headers["content-security-policy"]


def test_a_photo_that_cannot_be_read_is_not_sent_and_can_be_dropped(ann: Served, ben: Served, page: Browser) -> None:
    page.submit(f"{with_(ben)}/files", files={"file": ("broken.jpg", photo()[:200])})
    until(ann, lambda: [one.file.state for one in uploads.listing(ann.node, ann.person)] == [4])
    [one] = uploads.listing(ann.node, ann.person)
    assert "could not be taken out, so it was not sent" in page.get("/carry/files").text
    assert "not sent</span>" in page.get(with_(ben)).text
    assert "on its way" not in page.get(with_(ben)).text
    page.submit(f"/carry/waiting/{one.file.id.hex()}/drop")
    assert uploads.listing(ann.node, ann.person) == []
    assert page.submit(f"/carry/waiting/{one.file.id.hex()}/drop").status_code == 404


def part(page: Browser, at: str, start: int, data: bytes) -> httpx.Response:
    return page.submit(at, start=str(start), files={"part": ("blob", data)})


def test_a_file_in_parts_goes_on_where_it_was_cut(ann: Served, ben: Served, page: Browser) -> None:
    data = random.Random(1).randbytes(3 * BLOCK_BYTES + 7)
    asked = {"name": "film.bin", "size": str(len(data)), "mark": "17"}
    told = page.submit(f"{with_(ben)}/files/begin", **asked).json()
    assert told["held"] == 0
    assert part(page, told["at"], 0, data[: BLOCK_BYTES + 100]).json()["held"] == BLOCK_BYTES
    assert part(page, told["at"], 0, data[:BLOCK_BYTES]).status_code == 409
    assert "not all of it is here</span>" in page.get(with_(ben)).text
    assert "on its way" not in page.get(with_(ben)).text, "it waits for its sender"
    again = page.submit(f"{with_(ben)}/files/begin", **asked).json()
    assert again == told | {"held": BLOCK_BYTES}
    assert page.get(told["at"]).json() == again
    assert part(page, told["at"], BLOCK_BYTES, data[BLOCK_BYTES:]).json()["held"] == len(data)
    assert part(page, told["at"], len(data), b"more").status_code == 409
    until(ann, lambda: [one.file.state for one in uploads.listing(ann.node, ann.person)] == [2])
    page.submit(f"{told['at']}/go")
    held = sent(ann, "film.bin")
    assert page.get(f"/carry/files/{held.id.hex()}/save").content == data


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=70000-140000", 70_000, 140_000),
        ("bytes=199990-", 199_990, -1),
        ("bytes=-5", -5, -1),
    ],
)
def test_a_part_of_a_file_can_be_asked_for(
    ann: Served, ben: Served, page: Browser, asked: str, first: int, last: int
) -> None:
    data = random.Random(2).randbytes(200_000)
    id = ann.run(files.send(ann.node, ann.person, ben.person.identity, BytesIO(data), name="part.bin"))
    answer = page.get(f"/carry/files/{id.hex()}/save", headers={"range": asked})
    first, last = first % len(data), last % len(data)
    assert (answer.status_code, answer.content) == (206, data[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(data)}"


def test_what_lies_behind_a_file_cannot_be_asked_for(ann: Served, ben: Served, page: Browser) -> None:
    id = ann.run(files.send(ann.node, ann.person, ben.person.identity, BytesIO(b"abc"), name="short.bin"))
    assert page.get(f"/carry/files/{id.hex()}/save", headers={"range": "bytes=3-"}).status_code == 416
    assert page.get(f"/carry/files/{id.hex()}/save", headers={"range": "lines=1-2"}).content == b"abc"


def test_a_large_file_is_fetched_when_its_receiver_asks_and_can_be_let_go(
    ann: Served, ben: Served, page: Browser
) -> None:
    ben.node.files_auto_bytes = 1000
    id = ann.run(files.send(ann.node, ann.person, ben.person.identity, BytesIO(bytes(300_000)), name="large.bin"))
    trip(ann, ben)
    until(ben, lambda: any(one.id == id for one in files.listing(ben.node, ben.person)))
    with ben.owner() as browser:
        browser.submit(f"/carry/files/{id.hex()}/get")
        trip(ann, ben)
        until(ben, lambda: files.find(ben.node, ben.person, id).state == "here")
        browser.submit(f"/carry/files/{id.hex()}/remove")
        assert browser.get(f"/carry/files/{id.hex()}/save").status_code == 404
        assert "not here any more" in browser.get("/carry/files").text


def test_a_name_in_any_script_is_kept_by_a_download(ann: Served, ben: Served, page: Browser) -> None:
    id = ann.run(files.send(ann.node, ann.person, ben.person.identity, BytesIO(b"x"), name='фото "1".bin'))
    header = page.get(f"/carry/files/{id.hex()}/save").headers["content-disposition"]
    assert header == ("attachment; filename=\"____ _1_.bin\"; filename*=UTF-8''%D1%84%D0%BE%D1%82%D0%BE%20%221%22.bin")


def test_what_only_says_that_it_is_a_film_is_not_played(ann: Served, ben: Served, page: Browser) -> None:
    page_of_theirs = b"<script>alert(1)</script>" * 10
    id = ann.run(
        files.send(
            ann.node, ann.person, ben.person.identity, BytesIO(page_of_theirs), name="film.mp4", type="video/mp4"
        )
    )
    assert page.get(f"/carry/files/{id.hex()}/play").status_code == 404


def test_a_form_without_a_file_says_so(ben: Served, page: Browser) -> None:
    answer = page.submit(f"{with_(ben)}/files", files={"file": ("", b"")})
    assert answer.status_code == 400
    assert "Choose a file first." in answer.text


def test_a_file_whose_form_comes_in_chunks_is_sent_whole(ann: Served, ben: Served, page: Browser) -> None:
    data = photo()

    def chunks() -> Iterator[bytes]:
        """The form as a browser sends it, piece by piece: nothing says before how long it is."""
        yield b'--edge\r\ncontent-disposition: form-data; name="csrf"\r\n\r\n' + token.encode() + b"\r\n"
        yield b'--edge\r\ncontent-disposition: form-data; name="file"; filename="chunks.jpg"\r\n\r\n'
        yield from (data[at : at + 1000] for at in range(0, len(data), 1000))
        yield b"\r\n--edge--\r\n"

    token = page.token()
    kind = {"content-type": "multipart/form-data; boundary=edge"}
    answer = page.post(f"{with_(ben)}/files", content=chunks(), headers=kind)
    assert (answer.status_code, "transfer-encoding" in answer.request.headers) == (303, True)
    assert sent(ann, "chunks.jpg").file.type == "image/jpeg"


@pytest.mark.parametrize("left_bytes", [0, 2000], ids=["no room", "too little"])
def test_a_form_with_a_file_that_has_no_room_says_so_and_begins_nothing(
    ann: Served, ben: Served, page: Browser, monkeypatch: pytest.MonkeyPatch, left_bytes: int
) -> None:
    monkeypatch.setattr(Node, "space_left", lambda _: uploads.DISK_KEPT_BYTES + left_bytes)
    answer = page.submit(f"{with_(ben)}/files", files={"file": ("large.bin", bytes(5000))})
    assert answer.status_code == 400
    assert "This file is too large, or the disk of the node has too little room for it." in answer.text
    assert "large.bin" not in [one.file.name for one in uploads.listing(ann.node, ann.person)]


@pytest.mark.parametrize("size", ["", "-1", "1e9", "1.5", "٣", "9" * 20])
def test_a_size_that_is_no_plain_number_begins_no_file(ann: Served, ben: Served, page: Browser, size: str) -> None:
    answer = page.submit(f"{with_(ben)}/files/begin", name="film.mp4", size=size, mark="1")
    assert (answer.status_code, answer.json()["error"]) == (400, "This page cannot be used like that.")
    assert "film.mp4" not in [one.file.name for one in uploads.listing(ann.node, ann.person)]


def test_a_file_goes_to_a_group_as_well(ann: Served, ben: Served, page: Browser) -> None:
    group = ann.run(groups.create(ann.node, ann.person, "Street", [ben.person.identity]))
    there = f"/carry/groups/{group.id}"
    assert page.submit(f"{there}/files", files={"file": ("map.png", photo(), "image/png")}).status_code == 303
    held = sent(ann, "map.jpg")
    shown = page.get(there).text
    assert f"/carry/files/{held.id.hex()}/save" in shown
    assert f'src="/carry/files/{held.id.hex()}/small"' in shown
    assert f'<a href="{there}"><bdi>Street</bdi></a>' in page.get("/carry/files").text


def test_a_moving_picture_stays_one(ann: Served, ben: Served, page: Browser) -> None:
    out = BytesIO()
    frames = [Image.new("RGB", (60, 40), (20 * number, 0, 0)) for number in range(8)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], comment=NEEDLE)
    page.submit(f"{with_(ben)}/files", files={"file": ("wave.gif", out.getvalue(), "image/gif")})
    held = sent(ann, "wave.webp")
    data = page.get(f"/carry/files/{held.id.hex()}/save").content
    with Image.open(BytesIO(data)) as image:
        assert image.n_frames == 8
    assert NEEDLE not in data


def test_a_file_goes_into_a_channel_and_readers_see_it_there(ann: Served, ben: Served, page: Browser) -> None:
    channel = ann.run(service.create_channel(ann.node, ann.person, "Street news"))
    there = f"/carry/channels/{channel.id}"
    ben.run(service.follow(ben.node, ben.person, channel.link))
    assert f'href="{there}/files"' in page.get(there).text
    form = page.get(f"{there}/files").text
    assert "Everybody who gets it can see it and pass it on." in form
    too_large = {"name": "film.mp4", "size": str(200 << 20)}
    assert "too large" in page.submit(f"{there}/files/begin", **too_large).json()["error"]
    assert page.submit(f"{there}/files", files={"file": ("Flood.JPG", photo(), "image/jpeg")}).status_code == 303
    held = sent(ann, "Flood.JPG")
    at = f"/carry/files/{held.id.hex()}"
    stick = BytesIO()
    ann.run(ann.person.write_bundle(stick, space=channel.space))
    stick.seek(0)
    ben.run(ben.person.read_bundle(stick))
    until(ben, lambda: any(one.id == held.id and one.state == "here" for one in files.listing(ben.node, ben.person)))
    with ben.owner() as browser:
        shown = browser.get(there).text
        assert f'src="{at}/small"' in shown
        assert f"{there}/files" not in shown
        assert browser.get(f"{there}/files").status_code == 400
        assert NEEDLE not in browser.get(f"{at}/save").content
        for kind in ("small", "picture"):
            assert browser.get(f"{at}/{kind}").headers["content-type"] == "image/webp"
        assert f'<a href="{there}"><bdi>Street news</bdi></a>' in browser.get("/carry/files").text
        browser.submit(f"{at}/remove")
        assert browser.get(f"{at}/save").status_code == 404
        answer = browser.submit(f"{at}/get")
        assert answer.headers["location"] == f"{there}?at={held.id.hex()}#m{held.id.hex()}"
    page.submit(f"{there}/remove", post=held.id.hex())
    assert "Flood.JPG" not in page.get(there).text
    assert page.get(f"{at}/save").status_code == 404
