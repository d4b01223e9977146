"""The pages as people use them, without JavaScript: first run, people, sneakernet, backup, settings."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import segno
from PIL import Image

from outlast.edges import pages
from outlast.kernel import Discovery, Home, Node, entropy_of, node_text, open_backup
from outlast.ui.languages import Catalogues
from tests.unit.edges.outline import Outline
from tests.unit.edges.served import Browser, Served, served

PASSPHRASE = "heron, river, stone"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("home") / "a") as running:
        yield running


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("home") / "b", name="Борис") as running:
        yield running


@pytest.fixture
def owner(node: Served) -> Iterator[Browser]:
    with node.owner() as browser:
        browser.follow_redirects = True
        yield browser


def link_of(served_: Served) -> str:
    return served_.run(served_.person.link())


# ---- the first run ----


def first_run(node: Served, browser: Browser, **form: str) -> Any:
    browser.follow_redirects = True
    assert browser.post("/enter", data={"token": node.serving.launch_url}).url.path == "/first/language"
    return browser.submit("/first/name", **form)


def test_the_first_run_leads_from_the_terminal_s_link_to_the_start_page(tmp_path: Path) -> None:
    with served(tmp_path / "new home", name=None) as node, node.stranger(follow_redirects=True) as browser:
        assert browser.get("/").status_code == 200
        assert browser.get("/first/how").status_code == 401
        page = browser.get(node.serving.launch_url).text
        assert 'action="/enter"' in page
        assert not node.home.exists()
        page = first_run(node, browser, how="new", name="Ala", passphrase=PASSPHRASE, again=PASSPHRASE)
        assert page.url.path == "/first/words"
        assert all(word in page.text for word in node.person.words())
        assert "outlast://contact/" in page.text
        assert "Almost set up" in browser.get("/").text
        assert browser.submit("/first/done", step="words").url.path == "/first/phone"
        assert browser.submit("/first/done", step="phone").url.path == "/"
        assert "Almost set up" not in browser.get("/").text
        assert not node.home.unattended
        # Coming back to a step that is over does no harm.
        assert browser.get("/first/how").url.path == "/"
        assert browser.submit("/first/name", how="new", name="Eve", protection="unattended").url.path == "/"
        assert len(node.home.people()) == 1


def test_every_page_leads_to_the_first_run_until_there_is_somebody_whose_it_is(tmp_path: Path) -> None:
    with served(tmp_path / "home", name=None) as node, node.stranger(follow_redirects=True) as browser:
        browser.post("/enter", data={"token": node.serving.launch_url})
        for page in ("/", "/people", "/settings"):
            assert browser.get(page).url.path == "/first/language", page
        # As from a page that is still open after the home was removed.
        assert browser.submit("/unlock", passphrase=PASSPHRASE).url.path == "/first/language"


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ({"name": "Ala", "passphrase": "one", "again": "two"}, "The two passphrases differ"),
        ({"name": "Ala", "passphrase": "short", "again": "short"}, "at least 8 characters"),
        ({"name": "", "protection": "unattended"}, "1 to 64 printable characters"),
        ({"name": "x" * 65, "protection": "unattended"}, "1 to 64 printable characters"),
        ({"name": "Ala", "how": "words", "words": "one two", "protection": "unattended"}, "24 words are needed"),
    ],
)
def test_a_mistake_in_the_first_run_gets_one_line_and_makes_nothing(
    tmp_path: Path, form: dict[str, str], line: str
) -> None:
    with served(tmp_path / "home", name=None) as node, node.stranger() as browser:
        answer = first_run(node, browser, **form)
        assert answer.status_code == 400
        assert line in answer.text
        assert not node.home.exists()
        if form["name"] == "Ala":
            assert 'value="Ala"' in answer.text


def test_who_comes_back_to_the_first_steps_too_late_is_shown_no_empty_code(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node, node.owner() as owner:
        assert 'class="qr"' not in owner.get("/first/words").text, "no link is young enough"
        owner.submit("/people/me")
        assert 'class="qr"' in owner.get("/first/words").text


def test_24_words_make_the_same_person_again(tmp_path: Path, node: Served) -> None:
    words = " ".join(node.person.secret_words())
    with served(tmp_path / "home", name=None) as again, again.stranger() as browser:
        first_run(again, browser, how="words", name="Ala", words=words, protection="unattended")
        assert again.person.identity == node.person.identity
        assert again.person.device != node.person.device


def test_a_backup_is_downloaded_tried_and_restored(tmp_path: Path, node: Served, other: Served, owner: Browser) -> None:
    owner.submit("/people/add", link=link_of(other))
    backup = owner.submit("/backup/file", passphrase=PASSPHRASE, again=PASSPHRASE).content
    tried = owner.submit("/backup/test", files={"file": ("b", backup)}, passphrase=PASSPHRASE)
    assert "This backup is whole" in tried.text
    assert "1 contact" in tried.text
    wrong = owner.submit("/backup/test", files={"file": ("b", backup)}, passphrase="not this one")
    assert wrong.status_code == 400
    assert "whole" not in wrong.text
    damaged = owner.submit("/backup/test", files={"file": ("b", backup[:-1])}, passphrase=PASSPHRASE)
    assert damaged.status_code == 400
    with served(tmp_path / "home", name=None) as again, again.stranger() as browser:
        browser.follow_redirects = True
        browser.post("/enter", data={"token": again.serving.web.launch})
        form = {"how": "backup", "old": PASSPHRASE, "protection": "unattended"}
        page = browser.submit("/first/name", files={"file": ("b", backup)}, **form)
        assert page.url.path == "/first/words"
        assert again.person.identity == node.person.identity
        assert [contact.name for contact in again.person.contacts()] == ["Борис"]
        page = browser.get("/devices").text
        assert page.count("this one") == 1
        assert "End 1 device" in page
        assert "Ended." in browser.submit("/devices/revoke", device="all").text
        assert [one.revoked for one in again.person.devices()] == [False, True]
        assert "End 1 device" not in browser.get("/devices").text
        assert browser.submit("/devices/revoke", device="all").status_code == 404


# ---- devices ----


def stick(node: Served, other: Served) -> None:
    """What is written here for the other one is read there, and opened."""
    file = BytesIO()

    async def write() -> None:
        await node.person.bundle_left(await node.person.write_bundle(file, to=other.person.identity))

    async def read() -> None:
        await other.person.read_bundle(file)
        await other.person.inbox.read()

    node.run(write())
    file.seek(0)
    other.run(read())


def test_a_device_that_begins_anew_says_so_and_its_contacts_see_who_vouches(tmp_path: Path) -> None:
    with served(tmp_path / "a") as ada, served(tmp_path / "b", name="Борис") as boris, ada.owner() as browser:
        browser.follow_redirects = True
        browser.submit("/people/add", link=link_of(boris))
        boris.run(boris.person.add_contact(link_of(ada)))
        old = browser.get("/people/me").text
        page = browser.submit("/devices/renew").text
        assert "is a new device now" in page
        assert "What this means" not in browser.get("/").text
        assert ada.person.devices()[1].revoked
        new = browser.get("/people/me").text
        assert "outlast://contact/" in new
        assert new != old
        stick(ada, boris)
        with boris.owner() as other:
            other.follow_redirects = True
            page = other.get(f"/people/{ada.person.id}").text
            assert "vouches for it" in page
            assert "not accepted" not in page
            assert "vouches for it" not in other.submit(f"/people/{ada.person.id}/device").text


def test_a_contacts_device_that_nobody_vouches_for_waits_for_the_owners_word(tmp_path: Path) -> None:
    with served(tmp_path / "a") as ada, served(tmp_path / "b", name="Борис") as boris, ada.owner() as browser:
        browser.follow_redirects = True
        browser.submit("/people/add", link=link_of(boris))
        boris.run(boris.person.add_contact(link_of(ada)))
        boris.run(boris.person.renew())
        # The words alone were typed somewhere: no device signed for this one.
        data = boris.run(boris.person.backup(PASSPHRASE))
        body = open_backup(data, PASSPHRASE)
        boris.run(Node.create(Home(tmp_path / "c"), "Борис", passphrase=None, backup=body, rooms=[]))
        with served(tmp_path / "c", name=None) as again:
            browser.submit("/people/add", link=link_of(again))
            person = f"/people/{again.person.id}"
            page = browser.get(person).text
            assert "Ask them, not by message" in page
            assert "not accepted" in page
            with ada.phone() as phone:
                assert "it is theirs" not in phone.get(person).text
            assert "Accepted" in browser.submit(f"{person}/device").text
            assert "not accepted" not in browser.get(person).text


def test_a_device_that_was_ended_says_it_on_its_page_and_can_begin_anew(tmp_path: Path) -> None:
    with served(tmp_path / "a") as ada:
        pass
    copytree(tmp_path / "a", tmp_path / "copy")
    with served(tmp_path / "a") as ada, served(tmp_path / "copy") as copy, ada.owner() as browser:
        browser.follow_redirects = True
        entries = copy.run(renewed(copy))
        ada.run(ada.node.ingest(entries))
        ada.run(ada.person.inbox.read())
        assert "It says nothing more" in browser.get("/").text
        page = browser.get("/devices").text
        assert "This device was ended" in page
        assert "outlast device renew" in browser.submit("/people/me").text
        browser.submit("/devices/renew")
        assert "It says nothing more" not in browser.get("/").text
        assert browser.submit("/people/me").status_code == 200
        with copy.owner() as other:
            assert "What this means" in other.get("/").text
            other.submit("/devices/noted")
            assert "What this means" not in other.get("/").text


async def renewed(node: Served) -> list[Any]:
    """Let the device begin anew by itself; all that its node holds then."""
    await node.person.renew()
    return [change.entry for change in node.node.open_store.changes(0)]


# ---- unlocking ----


def test_a_locked_node_shows_nothing_opens_by_the_passphrase_and_locks_again(tmp_path: Path) -> None:
    with served(tmp_path / "home", name="Ala", passphrase=PASSPHRASE) as node, node.owner() as owner:
        owner.follow_redirects = True
        assert "Unlock" in owner.get("/").text
        assert owner.get("/people").status_code == 423
        assert owner.get("/events").status_code == 423
        wrong = owner.submit("/unlock", passphrase="not this one")
        assert wrong.status_code == 423
        assert 'role="alert"' in wrong.text
        assert "Hello, Ala" in owner.submit("/unlock", passphrase=PASSPHRASE).text
        with node.stranger(follow_redirects=True) as browser:
            assert browser.post("/enter", data={"passphrase": "not this one"}).status_code == 423
            assert "Hello, Ala" in browser.post("/enter", data={"passphrase": PASSPHRASE}).text
        words = owner.submit("/backup/words", passphrase="not this one")
        assert words.status_code == 400
        assert not any(f">{word}<" in words.text for word in node.person.secret_words())
        words = owner.submit("/backup/words", passphrase=PASSPHRASE)
        assert all(f">{word}<" in words.text for word in node.person.secret_words())
        sheets = {"threshold": "2", "count": "3"}
        assert owner.submit("/backup/shares", **sheets, passphrase="not this one").status_code == 400
        assert owner.submit("/backup/shares", threshold="4", count="3", passphrase=PASSPHRASE).status_code == 400
        shown = owner.submit("/backup/shares", **sheets, passphrase=PASSPHRASE).text
        words = re.findall(r'<li lang="en">(\w+)</li>', shown)
        assert len(words) == 3 * 33
        assert entropy_of(" ".join(words[33:])) == node.person.entropy
        assert "Unlock" in owner.submit("/settings/lock").text
        assert node.node.locked
        assert owner.get("/people").status_code == 423


def test_wiping_needs_the_word_and_leaves_nothing(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node, node.owner() as owner:
        assert owner.submit("/settings/wipe", word="yes").status_code == 400
        assert node.home.exists()
        assert "Wiped" in owner.submit("/settings/wipe", word="wipe").text
        assert not (tmp_path / "home").exists()


# ---- people ----


def test_each_page_says_that_the_disk_of_the_home_was_taken_away(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    with served(home) as node, node.owner() as browser:
        home.rename(elsewhere)
        for path in ("/", "/people", "/carry/"):
            page = browser.get(path)
            assert page.status_code < 500
            assert "The folder of this node is gone" in page.text
        elsewhere.rename(home)
        assert "is gone" not in browser.get("/").text


def test_somebody_is_added_by_link_verified_renamed_and_blocked(tmp_path: Path, other: Served) -> None:
    with served(tmp_path / "home") as node, node.owner() as owner:
        owner.follow_redirects = True
        page = owner.submit("/people/add", link="\n " + link_of(other) + " \n")
        assert "not verified" in owner.get("/people").text
        assert all(f">{word}<" in page.text for word in other.person.words())
        path = page.url.path
        assert "Verified." in owner.submit(f"{path}/verify").text
        assert "Renamed." in owner.submit(f"{path}/name", name="Boris").text
        assert "Boris" in owner.get("/people").text
        assert "Blocked." in owner.submit(f"{path}/block", blocked="yes").text
        assert "blocked" in owner.get("/people").text
        assert "Unblocked." in owner.submit(f"{path}/block", blocked="no").text


@pytest.mark.parametrize("link", ["", "hello", "outlast://contact/AAAA", "http://example.org/"])
def test_a_wrong_link_gets_one_line(owner: Browser, link: str) -> None:
    answer = owner.submit("/people/add", link=link)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert f">{link}</textarea>" in answer.text, "what was typed stays"


def photo(text: str, *, noise: bool = True) -> bytes:
    """A QR code photographed at an angle from a screen."""
    png = BytesIO()
    segno.make_qr(text, error="l").save(png, kind="png", scale=10, border=4)
    png.seek(0)
    code = Image.open(png).convert("RGB").rotate(8, expand=True, fillcolor=(90, 80, 70))
    room = Image.new("RGB", (code.width + 600, code.height + 400), (90, 80, 70))
    room.paste(code, (250, 120))
    jpeg = BytesIO()
    room.save(jpeg, "JPEG", quality=60)
    return jpeg.getvalue()


def test_somebody_is_added_by_a_photo_of_their_qr_code(tmp_path: Path, other: Served) -> None:
    with served(tmp_path / "home") as node, node.phone() as phone:
        phone.follow_redirects = True
        page = phone.submit("/people/photo", files={"photo": ("p.jpg", photo(link_of(other)), "image/jpeg")})
        assert "Борис" in page.text
        assert [contact.identity for contact in node.person.contacts()] == [other.person.identity]


def test_a_photo_without_a_code_or_that_is_none_gets_one_line(owner: Browser) -> None:
    empty = BytesIO()
    Image.new("RGB", (300, 300), "white").save(empty, "PNG")
    bomb = BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    cases = {
        b"": "Choose a file",
        b"no photo": "cannot be read",
        empty.getvalue(): "No QR code",
        bomb.getvalue(): "cannot be",
    }
    for data, line in cases.items():
        name = "p.png" if data else ""
        answer = owner.submit("/people/photo", files={"photo": (name, data, "image/png")})
        assert answer.status_code == (404 if line == "No QR code" else 400)
        assert line in answer.text


def test_the_own_link_is_shown_after_it_was_asked_for_and_adds_its_owner(
    node: Served, owner: Browser, other: Served
) -> None:
    page = owner.submit("/people/me")
    link = re.findall(r"outlast://contact/[\w-]+", page.text)[0]
    assert all(f">{word}<" in page.text for word in node.person.words())
    added = other.run(other.person.add_contact(link))
    assert added.identity == node.person.identity


# ---- other nodes ----


def test_a_neighbour_is_added_told_of_and_removed(owner: Browser, other: Served) -> None:
    id_ = node_text(other.node.transport_id)
    page = owner.submit("/nodes/add", address="127.0.0.1:9", node=id_)
    assert "127.0.0.1:9" in page.text
    assert id_ in page.text
    assert "127.0.0.1:9" not in owner.submit("/nodes/remove", node=id_).text


def test_nodes_are_looked_for_in_this_network_only_after_the_owner_said_so(node: Served, owner: Browser) -> None:
    assert node.node.discovery is Discovery.OFF
    assert "looks for nobody" in owner.get("/nodes").text
    for whom, said in (("neighbours", "finds the nodes"), ("strangers", "every node"), ("off", "looks for nobody")):
        assert said in owner.submit("/nodes/find", whom=whom).text
        assert node.node.discovery is Discovery(whom)
    assert owner.submit("/nodes/find", whom="everybody").status_code == 400
    assert node.node.discovery is Discovery.OFF
    assert owner.submit("/nodes/find", whom="neighbours", back="/first/phone").url.path == "/first/phone"
    assert "finds the nodes" in owner.get("/first/phone").text


@pytest.mark.parametrize(("address", "id_"), [("nowhere", "a" * 56), ("a:1", "x"), ("", ""), ("a:99999", "a" * 56)])
def test_a_wrong_address_or_id_gets_one_line(owner: Browser, address: str, id_: str) -> None:
    answer = owner.submit("/nodes/add", address=address, node=id_)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert f'name="address" value="{address}"' in answer.text, "what was typed stays"


def test_the_page_of_nodes_says_where_others_can_call_this_one(node: Served, owner: Browser) -> None:
    assert "No other node can call this one now" in owner.get("/nodes").text
    port = node.run(node.node.listen("127.0.0.1", 0))
    assert f"<code>127.0.0.1:{port}</code>" in owner.get("/nodes").text
    node.run(node.node.stop_listening())
    assert f"127.0.0.1:{port}" not in owner.get("/nodes").text


# ---- sneakernet ----


def test_a_bundle_goes_there_by_the_phone_and_the_trips_are_told(tmp_path: Path) -> None:
    with served(tmp_path / "a") as a, served(tmp_path / "b", name="Bo") as b:
        a.run(a.person.add_contact(link_of(b)))
        b.run(b.person.add_contact(link_of(a)))
        with a.phone() as phone, b.phone() as there:
            there.follow_redirects = True
            file = phone.submit("/stick/write", to=a.person.contacts()[0].id)
            assert file.status_code == 200
            name = re.findall(r'filename="([^"]+)"', file.headers["content-disposition"])[0]
            assert re.fullmatch(r"[0-9a-f]{8}\.[0-9a-f]{3}", name)
            assert "Written for Bo" in phone.get("/stick").text
            page = there.submit("/stick/read", files={"bundle": (name, file.content)})
            assert page.url.path == "/stick"
            assert "Read. What it brought stands below." in page.text


def test_a_damaged_or_foreign_file_gets_one_line_and_does_no_harm(node: Served, owner: Browser, other: Served) -> None:
    answer = owner.submit("/stick/read", files={"bundle": ("x", b"not a bundle" * 1000)})
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    owner.submit("/people/add", link=link_of(other))
    file = owner.submit("/stick/write", to=other.person.id).content
    mine = owner.submit("/stick/read", files={"bundle": ("x", file)})
    assert mine.status_code == 400
    assert owner.submit("/stick/write").status_code == 400
    assert owner.submit("/stick/write", to="x").status_code == 400


# ---- languages and plain reading ----


def test_a_language_file_appears_in_the_chooser_and_on_every_page(tmp_path: Path, node: Served, owner: Browser) -> None:
    site = node.serving.web.site
    before = site.catalogues
    (tmp_path / "fa.po").write_text('msgid "Settings"\nmsgstr "تنظیمات"\n', encoding="utf-8")
    site.catalogues = Catalogues(tmp_path)
    try:
        assert "فارسی" in owner.get("/settings").text
        page = owner.submit("/language", language="fa", back="/settings")
        assert page.url.path == "/settings"
        assert '<html lang="fa" dir="rtl">' in page.text
        assert "تنظیمات" in page.text
        assert owner.submit("/language", language="en", back="//evil.example").url.host == "localhost"
        assert 'lang="en"' in owner.get("/settings").text
    finally:
        site.catalogues = before


PLACES = [
    route.path for route in pages.routes()
    if "GET" in (route.methods or ()) and "{" not in route.path and route.path not in ("/events",)
]  # fmt: skip


@pytest.mark.parametrize("path", [*PLACES, *(f"/help/{topic}" for topic in pages.HELP), "/nowhere"])
def test_a_page_has_one_heading_named_controls_and_stays_small(owner: Browser, path: str) -> None:
    owner.submit("/people/me")
    page = owner.get(path)
    assert Outline(page.text).faults() == []
    assert '<html lang="en" dir="ltr">' in page.text
    assert len(page.content) < 40_000
    assert '<meta name="viewport"' in page.text


def test_the_first_page_with_all_it_needs_has_at_most_60_kib(owner: Browser) -> None:
    page = owner.get("/")
    parts = {part for part in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)}
    assert len(parts) == 4
    assert len(page.content) + sum(len(owner.get(part).content) for part in parts) <= 60 * 1024


def test_nobody_s_name_stands_in_a_title_or_an_address(owner: Browser, other: Served) -> None:
    owner.submit("/people/add", link=link_of(other))
    for path in PLACES:
        page = owner.get(path)
        assert re.findall(r"<title>(.*?)</title>", page.text) == ["Outlast"]
        assert "Борис" not in str(page.url)


def test_a_home_that_another_process_has_open_is_one_line(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node:

        async def again() -> None:
            await Node.open(Home(node.home.path), rooms=())

        with pytest.raises(Exception, match="is open in another Outlast"):
            asyncio.run(again())


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("be", "Гэта не тая спасылка: яна пачынаецца з outlast://contact/; скапіюйце яе цалкам"),
        ("de", "Das ist nicht der Link: er beginnt mit outlast://contact/; kopieren Sie ihn ganz"),
        ("en", "This is not the link: it begins with outlast://contact/; copy it whole"),
        ("fa", "این آن پیوند نیست: با \u2068outlast://contact/\u2069 آغاز می‌شود؛ کاملش را کپی کنید"),
        ("ja", "これは必要なリンクではありません。outlast://contact/ で始まるリンクをすべてコピーしてください"),
        ("ru", "Это не та ссылка: она начинается с outlast://contact/; скопируйте её целиком"),
    ],
)
def test_an_error_speaks_the_reader_s_language_with_its_parts(owner: Browser, language: str, line: str) -> None:
    owner.headers["accept-language"] = language
    page = owner.submit("/people/add", link="https://example.org/")
    assert (page.status_code, line in page.text) == (400, True)
