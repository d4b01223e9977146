"""Reach's pages as browsers without JavaScript use them, over real sockets."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import segno

from outlast import address
from outlast.address import Target
from outlast.errors import Sentence
from outlast.rooms.carry import ROOM as CARRY
from outlast.rooms.reach import ROOM, service, uplinks, words
from outlast.rooms.reach.entries import Uplink
from outlast.rooms.reach.io.choosing import Attempted, Stand, Standings
from outlast.rooms.reach.io.control import Child
from outlast.rooms.reach.io.relay import Listening
from outlast.rooms.reach.proto.bridge import WebBridge
from outlast.rooms.reach.proto.failures import Kind
from outlast.rooms.reach.proto.links import write_bridge
from outlast.rooms.reach.supervisor import Now, Supervisor
from outlast.rooms.reach.view import Borrowed, Want, borrowed_row, bridge_row, want_row
from outlast.terms import TRANSPORTS
from outlast.ui.nearby import heard_at, local_addresses
from tests.unit.edges.outline import Outline
from tests.unit.edges.served import Browser, Served, served

PAGES = ("/reach/", "/reach/programs", "/reach/bridges", "/reach/sharing", "/reach/settings")
HOSTILE = '<script>alert(1)</script>&"'
LINK = write_bridge(WebBridge(Target("192.0.2.7", 443), "www.example.org", bytes(32), label="heron"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Served]:
    """A node with reach."""
    with served(tmp_path / "home", rooms=[ROOM, CARRY], lan=True) as made:
        yield made


@pytest.fixture
def page(node: Served) -> Iterator[Browser]:
    """Its owner's browser."""
    with node.owner() as browser:
        yield browser


@pytest.fixture
def contact(node: Served, tmp_path: Path) -> Iterator[str]:
    """Somebody whose name wants to be a script."""
    with served(tmp_path / "other", name=HOSTILE, rooms=[ROOM]) as other:
        yield node.run(node.person.add_contact(other.run(other.person.link()))).id


def text_of(answer: httpx.Response) -> str:
    """A page as one line."""
    return re.sub(r"\s+", " ", answer.text)


def filled(node: Served, page: Browser) -> list[str]:
    """Something on every page; all that can be looked at."""
    person, identity = node.person, node.person.contacts()[0].identity
    [held], _ = node.run(service.add_bridges(node.node, person, LINK))
    day = node.call(node.node.today)
    offer = Uplink(bytes(16), ("192.168.1.7",), 8388, bytes(32), 5_000_000, True, day + 9)
    want = Want(bytes(16), identity, False, b"", None, False, False, node.call(node.node.now_ms))
    rows = [
        want_row(want),
        borrowed_row(Borrowed(identity, offer, False, b"")),
        bridge_row(replace(held, id="f" * 16, peer=identity, number=bytes(16), failing_ms=1, outcome="freeze")),
    ]
    node.run(service.remember(node.node, person, rows))
    node.run(uplinks.lend(node.node, person, identity, day_bytes=3_000_000))
    return [*PAGES, f"/reach/bridge/{held.id}", f"/reach/bridge/{'f' * 16}"]


def test_pages_teach_when_there_is_nothing(page: Browser) -> None:
    for path in PAGES:
        answer = page.get(path)
        assert answer.status_code == 200, path
        assert Outline(answer.text).faults() == [], path
    assert "Get me out" in page.get("/reach/").text
    assert "None yet." in page.get("/reach/bridges").text


def test_pages_with_something_on_them_are_whole_and_escape_it(node: Served, page: Browser, contact: str) -> None:
    for path in filled(node, page):
        answer = page.get(path)
        assert answer.status_code == 200, path
        assert Outline(answer.text).faults() == [], path
        assert "<script>alert" not in answer.text, path
    text = text_of(page.get("/reach/bridges"))
    assert "frozen after a while" in text
    assert "They ask for a bridge" in text


def test_a_bridge_comes_by_link_or_by_photo_and_goes(node: Served, page: Browser) -> None:
    assert page.submit("/reach/bridges/add", link=f"«{LINK}»").status_code == 303
    [held] = service.bridges(node.person)
    answer = page.get(f"/reach/bridge/{held.id}")
    assert LINK in answer.text
    assert 'role="img"' in answer.text
    assert page.submit(f"/reach/bridge/{held.id}/remove").status_code == 303
    assert service.bridges(node.person) == []
    photo = BytesIO()
    segno.make_qr(LINK).save(photo, kind="png", scale=4)
    assert page.submit("/reach/bridges/photo", files={"photo": ("x.png", photo.getvalue())}).status_code == 303
    assert [one.link for one in service.bridges(node.person)] == [LINK]


def test_of_a_pasted_message_every_bridge_is_kept_and_what_is_none_is_said(node: Served, page: Browser) -> None:
    message = f"For today:\n{LINK}\nsocks5://192.0.2.9:1080\nvmess://eyJ2IjoiMiJ9#no"
    answer = page.submit("/reach/bridges/add", link=message)
    assert answer.status_code == 400
    assert "Not all of these links are kept: vmess:// is no way out that Outlast has" in text_of(answer)
    assert [one.link for one in service.bridges(node.person)] == [LINK, "socks5://192.0.2.9:1080"]


@pytest.mark.parametrize("link", ["", "nonsense", "outlast://bridge/AAAA", "ss://x", "x" * 9000], ids=str)
def test_what_is_no_bridge_is_answered_in_one_line(page: Browser, link: str) -> None:
    answer = page.submit("/reach/bridges/add", link=link)
    assert answer.status_code in (400, 413)
    assert answer.status_code == 413 or 'role="alert"' in answer.text


def test_a_photo_without_a_code_says_what_to_do(page: Browser) -> None:
    answer = page.submit("/reach/bridges/photo", files={"photo": ("x.png", b"no picture")})
    assert answer.status_code == 400
    assert "send a JPEG or PNG" in answer.text


def test_the_one_button_switches_on_and_off(node: Served, page: Browser) -> None:
    assert page.submit("/reach/switch", on="yes").status_code == 303
    assert service.settings(node.person).on
    assert "Stop" in page.get("/reach/").text
    page.submit("/reach/switch", on="no")
    assert not service.settings(node.person).on
    assert "Get me out" in page.get("/reach/").text


def test_all_bridges_are_tried_at_a_button_and_each_says_in_words_how_it_went(
    node: Served, page: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    [held], _ = node.run(service.add_bridges(node.node, node.person, LINK))
    assert "Try all" not in page.get("/reach/bridges").text
    assert "switch that on first" in page.submit("/reach/bridges/try").text
    supervisor = Supervisor(Child.start, none, lambda: 0)
    failed = Attempted(held.id, False, "freeze@16211", "silence", False, None, None)
    for event in (Listening("127.0.0.1:1080", ""), Standings((Stand(held.id, "failed", 0, "", None),)), failed):
        supervisor.take(event)
    monkeypatch.setattr(service, "relaying", lambda *_: replace(supervisor.now, since_ms=1))
    page.submit("/reach/switch", on="yes")
    text = text_of(page.get("/reach/bridges"))
    assert "Try all of them now" in text
    assert "frozen after a while" in text
    supervisor.take(Standings((Stand(held.id, "trying", 0, "", None),)))
    assert "They are tried one after another" in page.get("/reach/bridges").text


async def none(_: object) -> None:
    """Nobody hears."""


def test_a_gate_whose_port_is_taken_is_one_clear_line(
    node: Served, page: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.submit("/reach/switch", on="yes")
    taken = Now(since_ms=1, closed={"192.168.1.20:1080": Sentence("192.168.1.20:1080 is in use by another program")})
    monkeypatch.setattr(service, "relaying", lambda *_: taken)
    text = text_of(page.get("/reach/"))
    assert "Programs cannot connect to 192.168.1.20:1080: another program has this port" in text
    assert text.count("192.168.1.20:1080") == 1


def test_phones_see_how_it_is_and_what_to_set_and_never_a_bridge(node: Served, page: Browser, contact: str) -> None:
    places = filled(node, page)
    with node.phone() as phone:
        for path in places:
            answer = phone.get(path)
            assert answer.status_code == (200 if path in PAGES[:2] else 403), path
            assert "heron" not in answer.text, path
            assert "outlast://bridge/" not in answer.text, path
        assert phone.submit("/reach/bridges/add", link=LINK).status_code == 403
        assert "for everybody who uses this gate, not for this phone alone" in phone.get("/reach/").text
    assert "not for this phone alone" not in page.get("/reach/").text


def test_settings_are_kept_and_a_password_is_never_shown(node: Served, page: Browser) -> None:
    secret = "correct horse"
    form = {"listen": "127.0.0.1:1090 192.168.1.5:1090", "user": "me", "password": secret, "direct": "bank.example"}
    assert page.submit("/reach/settings/gate", **form).status_code == 303
    chosen = service.settings(node.person)
    assert (chosen.password, chosen.direct) == (secret, ("bank.example",))
    assert secret not in page.get("/reach/settings").text
    page.submit("/reach/settings/gate", **(form | {"password": ""}))
    assert service.settings(node.person).password == secret
    wrong = page.submit("/reach/settings/gate", listen="0.0.0.0:1080", user="", password="", direct="")
    assert (wrong.status_code, "needs a user and a password" in wrong.text) == (400, True)
    assert "socks5h://me:correct%20horse@127.0.0.1:1090" in page.get("/reach/programs").text
    with node.phone() as phone:
        assert "correct" not in phone.get("/reach/programs").text


def test_a_gate_that_listens_everywhere_is_told_by_addresses_that_programs_can_use(
    node: Served, page: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = {"listen": "0.0.0.0:1090 [::]:1090", "user": "me", "password": "correct horse", "direct": ""}
    assert page.submit("/reach/settings/gate", **form).status_code == 303
    told = page.get("/reach/programs").text
    assert 'value="http://127.0.0.1:1090/proxy.pac"' in told
    assert "0.0.0.0" not in told
    assert "//[::]" not in told
    for one in local_addresses():
        assert f'value="http://{address.show((one, 1090))}/proxy.pac"' in told
    page.submit("/reach/switch", on="yes")
    gates = [Listening("0.0.0.0:1090", "http://0.0.0.0:1090/proxy.pac")] * (service.OWN_GATES + 1)
    monkeypatch.setattr(service, "relaying", lambda *_: Now(since_ms=1, listens=gates))
    now = service.state(node.node, node.person)
    assert now.pac_url == "http://127.0.0.1:1090/proxy.pac"
    assert now.listens == [f"{one}:1090" for one in ("127.0.0.1", *heard_at("0.0.0.0"))]


def test_the_line_is_lent_and_borrowed(node: Served, page: Browser, contact: str) -> None:
    filled(node, page)
    page.submit("/reach/sharing/uplink", share="on", day_mb="500")
    chosen = service.settings(node.person)
    assert (chosen.share, chosen.share_day_bytes, chosen.metered) == (True, 500_000_000, False)
    page.submit("/reach/sharing/lend", contact=contact, stop="yes")
    assert service.shares(node.person) == []
    page.submit("/reach/sharing/lend", contact=contact, day_mb="7")
    assert [one.day_bytes for one in service.shares(node.person)] == [7_000_000]
    page.submit("/reach/sharing/borrow", number=bytes(16).hex(), accept="yes")
    assert [one.accepted for one in service.neighbours(node.person)] == [True]
    assert page.submit("/reach/sharing/uplink", share="on", day_mb="much").status_code == 400


def test_a_bridge_is_served_given_and_stopped(node: Served, page: Browser, contact: str) -> None:
    form = {"transport": "ss", "listen": "127.0.0.1:8388", "at": "192.0.2.9:8388", "label": "dish"}
    assert page.submit("/reach/sharing/serve", **form).status_code == 303
    again = page.submit("/reach/sharing/serve", **form)
    assert (again.status_code, "stop that one first" in again.text) == (400, True)
    assert page.submit("/reach/bridges/give", contact=contact).status_code == 303
    assert "1 person uses them." in page.get("/reach/sharing").text
    [(one, serves)] = service.served(node.person)
    assert serves
    page.submit("/reach/sharing/blocked", id=one.id)
    assert [serves for _, serves in service.served(node.person)] == [False]
    page.submit("/reach/sharing/stop", id=one.id)
    assert service.served(node.person) == []


def test_nothing_is_published_before_a_country_and_a_channel_are_named(node: Served, page: Browser) -> None:
    assert page.submit("/reach/settings/publish", publish="on", country="BY", asn="AS6697").status_code == 400
    assert not service.settings(node.person).publishes
    assert page.submit("/reach/settings/publish", publish="on", country="BY", asn="x").status_code == 400


def test_everything_that_can_happen_has_words() -> None:
    assert {str(kind) for kind in Kind} | {"ok"} == set(words.OUTCOMES)
    assert set(TRANSPORTS) <= set(words.TRANSPORTS)
    assert set(words.STEPS) == set(service.STEPS.values())
    assert set(words.NOW) == set(words.LIGHTS)


def test_what_was_written_stays_in_its_form_when_it_cannot_be_kept(page: Browser) -> None:
    pasted = "vmess://a-server-of-ours\nand a line beside it"
    assert html.escape(pasted) in page.submit("/reach/bridges/add", link=pasted).text
    gate = {"listen": "192.168.1.5:1090", "user": "me", "password": "", "direct": "bank.example 10.0.0.0/8"}
    answer = page.submit("/reach/settings/gate", **gate)
    assert answer.status_code == 400
    for value in ("192.168.1.5:1090", "me"):
        assert f'value="{value}"' in answer.text
    assert ">bank.example 10.0.0.0/8</textarea>" in answer.text
    assert (
        'value="ftp://large.example/file"' in page.submit("/reach/settings/test", url="ftp://large.example/file").text
    )
    publish = {"publish": "on", "country": "BY", "asn": "6697", "channel": "outlast://channel/damaged"}
    answer = page.submit("/reach/settings/publish", **publish)
    assert answer.status_code == 400
    assert 'value="outlast://channel/damaged"' in answer.text
    secret = page.submit("/reach/settings/gate", **(gate | {"listen": "nowhere", "password": "correct horse"}))
    assert (secret.status_code, "correct" in secret.text) == (400, False)
