"""Carry's pages as browsers without JavaScript use them, over real sockets."""

from __future__ import annotations

import io
import re
import socket
from html import unescape
from pathlib import Path

import httpx
import pytest

from outlast.kernel import Custody, id_text
from outlast.rooms.carry import ROOM, places, service
from outlast.rooms.carry.bubbles import Stage, stages
from outlast.rooms.carry.entries import LETTER_TEXT_MAX_BYTES
from tests.unit.edges.served import Browser, Served, served
from tests.unit.kernel.people import secret
from tests.unit.rooms.carry.two import trip, until, with_

HOSTILE = '<script>alert(1)</script> & "quotes" \u202eback'


def came(at: Served, text: str) -> None:
    """Wait until a letter with that text came."""
    until(at, lambda: text in [one.text for one in service.inbox(at.person)])


def write(start: Served, end: Served, text: str) -> bytes:
    """A letter that comes to the other one by stick."""
    letter = start.run(service.send(start.node, start.person, end.person.identity, text))
    trip(start, end)
    came(end, text)
    return letter


def text_of(answer: httpx.Response) -> str:
    """A page as one line."""
    return re.sub(r"\s+", " ", answer.text)


def hidden(answer: httpx.Response, name: str) -> str:
    """The value of a hidden field that is no part of its form's own markup."""
    found = re.search(rf'form="seen" name="{name}" value="([^"]+)"', answer.text)
    assert found, answer.text
    return found[1]


def test_somebody_writes_and_sees_that_it_is_kept_here(page: Browser, ben: Served) -> None:
    assert "Ben &lt;b&gt;" in page.get("/carry/").text
    answer = page.submit(with_(ben), text="  Is the bridge open?\r\nTell me. ")
    assert (answer.status_code, answer.headers["location"]) == (303, with_(ben) + "#latest")
    shown = text_of(page.get(with_(ben)))
    assert '<p dir="auto">Is the bridge open? Tell me.</p>' in shown
    assert re.search(r"kept here <time[^>]*>[^<]*</time> · no copy elsewhere yet", shown)
    assert 'You:</span> <span class="one-line" dir="auto">Is the bridge open?' in text_of(page.get("/carry/"))


def test_the_page_tells_each_station_of_a_letter(page: Browser, ann: Served, ben: Served) -> None:
    letter = write(ann, ben, "Stations")
    assert re.search(r"Stations.*copied onward <time", text_of(page.get(with_(ben))))
    ben.run(service.mark_read(ben.node, ben.person, [letter]))
    trip(ben, ann)

    async def read() -> None:
        while "read" not in [one.event for one in ann.person.custody([letter])[letter]]:
            await ann.node.wait(ann.node.revision)

    ann.run(read())
    shown = text_of(page.get(with_(ben)))
    assert re.search(r"kept here <time.{0,90} · copied onward <time.{0,90} · received <time.{0,90} · read <time", shown)


def test_stations_are_told_once_in_the_order_they_were_reached() -> None:
    told = [Custody("kept", 1), Custody("copied", 3), Custody("copied", 5), Custody("received", 9)]
    assert stages(told) == (Stage("kept", 1, 1), Stage("copied", 3, 2), Stage("received", 9, 1))


def test_what_people_write_is_text_and_stands_in_no_title_or_address(page: Browser, ann: Served, ben: Served) -> None:
    answer = page.submit(with_(ben), text=HOSTILE)
    shown = page.get(with_(ben)).text
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;quotes&#34; \u202eback</p>" in shown
    title = re.findall("<title>(.*)</title>", shown)[0]
    assert "script" not in title
    assert "Ben" not in title
    assert "alert" not in str(answer.headers)


@pytest.mark.parametrize(
    ("text", "line"), [("", "This is empty"), ("\u200b", "This is empty"), ("ы" * 8000, "are allowed: make it shorter")]
)
def test_what_cannot_be_sent_is_refused_on_the_page_and_what_was_typed_stays(
    page: Browser, ann: Served, ben: Served, text: str, line: str
) -> None:
    before = len(service.sent(ann.person))
    answer = page.submit(with_(ben), text=text)
    assert answer.status_code == 400
    assert line in answer.text
    assert text in answer.text
    assert len(service.sent(ann.person)) == before


def test_nobody_is_written_to_who_is_not_there_or_blocked(page: Browser, ann: Served, ben: Served) -> None:
    assert page.get(f"/carry/with/{id_text(secret('nobody'))}").status_code == 404
    assert page.get("/carry/with/nonsense").status_code == 400
    ann.run(ann.person.block(ben.person.identity))
    try:
        shown = page.get(with_(ben))
        assert "<textarea" not in shown.text
        assert "Blocked" in shown.text
        refused = page.submit(with_(ben), text="Written before the block")
        assert refused.status_code == 400
        assert "Written before the block" in refused.text
        assert "blocked here" in refused.text
    finally:
        ann.run(ann.person.block(ben.person.identity, False))


def test_looking_reads_nothing_and_the_button_reads_what_was_shown(page: Browser, ann: Served, ben: Served) -> None:
    first = write(ben, ann, "first")
    seen = page.get(with_(ben))
    page.get("/carry/")
    second = write(ben, ann, "second")
    unread = {one.letter for one in service.inbox(ann.person) if one.unread}
    assert {first, second} <= unread
    assert "new message" in page.get("/").text

    answer = page.submit(with_(ben) + "/read", shown=hidden(seen, "shown"))
    assert answer.status_code == 303
    unread = {one.letter for one in service.inbox(ann.person) if one.unread}
    assert first not in unread
    assert second in unread
    page.submit(with_(ben), text="Answered", shown=hidden(page.get(with_(ben)), "shown"))
    assert not {first, second} & {one.letter for one in service.inbox(ann.person) if one.unread}
    assert 'name="shown" value=""' in page.get(with_(ben)).text


def test_an_answer_shows_what_it_answers(page: Browser, ann: Served, ben: Served) -> None:
    letter = write(ben, ann, "Where do we meet?\nSay soon.")
    form = page.get(with_(ben), params={"reply": letter.hex()})
    assert "<bdi>Where do we meet?</bdi>" in form.text
    assert f'name="reply_to" value="{letter.hex()}"' in form.text
    page.submit(with_(ben), text="At the mill", reply_to=letter.hex())
    shown = text_of(page.get(with_(ben)))
    assert 'Where do we meet?</small> <p dir="auto">At the mill</p>' in shown
    assert service.sent(ann.person)[-1].reply_to == letter


def test_a_letter_is_taken_back_before_it_left_and_not_after(page: Browser, ann: Served, ben: Served) -> None:
    page.submit(with_(ben), text="regretted")
    letter = service.sent(ann.person)[-1].letter
    button = f'form="back" name="letter" value="{letter.hex()}"'
    assert button in page.get(with_(ben)).text
    assert page.submit(with_(ben) + "/back", letter=letter.hex()).status_code == 303
    assert "regretted" not in page.get(with_(ben)).text
    left = write(ann, ben, "left")
    assert f'form="back" name="letter" value="{left.hex()}"' not in page.get(with_(ben)).text
    refused = page.submit(with_(ben) + "/back", letter=left.hex())
    assert refused.status_code == 400
    assert "may have left" in refused.text
    assert page.submit(with_(ben) + "/back", letter="zz").status_code == 404


def test_long_conversations_have_pages(page: Browser, ann: Served, ben: Served) -> None:
    async def many() -> None:
        for number in range(60):
            await service.send(ann.node, ann.person, ben.person.identity, f"number {number}.")

    ann.run(many())
    latest = page.get(with_(ben)).text
    assert "number 59." in latest
    assert "number 9." not in latest
    [older] = re.findall(r"\?at=\w+", latest)
    earlier = page.get(with_(ben) + older).text
    assert "number 9." in earlier
    assert "number 10." not in earlier
    assert "Latest messages" in earlier


def test_words_are_searched_without_standing_in_an_address(page: Browser, ann: Served, ben: Served) -> None:
    page.submit(with_(ben), text="Сустрэча ля млына")
    found = page.submit("/carry/search", words="МЛЫН сустр")
    assert found.status_code == 200
    assert "Сустрэча ля млына" in found.text
    assert 'method="post" action="/carry/search"' in page.get("/carry/search").text
    assert "No message has all" in page.submit("/carry/search", words="nothing like this").text
    assert page.submit("/carry/search", words="").status_code == 400


def test_a_channel_is_started_posted_in_and_read_elsewhere(page: Browser, ann: Served, ben: Served) -> None:
    refused = page.submit("/carry/channels/create", name=" ")
    assert refused.status_code == 400
    started = page.submit("/carry/channels/create", name="Yard <news>")
    assert started.status_code == 303
    place = started.headers["location"]
    assert page.submit(place, text="Water at ten").status_code == 303
    assert page.submit(place, text="Wrong").status_code == 303
    shown = page.get(place).text
    assert "Yard &lt;news&gt;" in shown
    assert "Water at ten" in shown
    assert 'class="qr"' in shown
    too_long = page.submit(place, text="ж" * 2001)
    assert too_long.status_code == 400
    assert "ж" * 2001 in too_long.text

    [channel] = service.channels(ann.node, ann.person)
    wrong = channel.last
    assert wrong is not None
    assert page.submit(place + "/remove", post=wrong.id.hex()).status_code == 303
    assert "Wrong" not in page.get(place).text
    assert page.submit(place + "/remove", post=wrong.id.hex()).status_code == 404

    with ben.owner() as reader:
        bad = reader.submit("/carry/channels/follow", link="outlast://channel/abc")
        assert bad.status_code == 400
        assert "outlast://channel/abc" in bad.text
        followed = reader.submit("/carry/channels/follow", link=channel.link)
        assert followed.headers["location"] == place
        assert "beginning has not arrived" in reader.get(place).text
        stick = io.BytesIO()
        ann.run(ann.person.write_bundle(stick, space=channel.space))
        stick.seek(0)
        ben.run(ben.person.read_bundle(stick))
        shown = reader.get(place)
        assert "Water at ten" in shown.text
        assert "Wrong" not in shown.text
        assert "<textarea name" not in shown.text
        assert 'class="badge">1<' in reader.get("/carry/channels").text
        assert "new post" in reader.get("/").text
        reader.submit(place + "/read", upto=hidden(shown, "upto"))
        assert 'class="badge">1<' not in reader.get("/carry/channels").text
        assert reader.submit(place, text="false").status_code == 400
        assert reader.submit(place + "/leave").status_code == 303
        assert reader.get(place).status_code == 404


def test_readers_move_on_to_the_channel_whose_link_stands_in_a_post(page: Browser, ann: Served, ben: Served) -> None:
    old, new = (ann.run(service.create_channel(ann.node, ann.person, name)) for name in ("Bread", "Bread again"))
    place = f"/carry/channels/{old.id}"
    ann.run(service.post(ann.node, ann.person, old.space, f"We go on there ({new.link})."))
    own = page.get(place).text
    assert "/carry/channels#start" in own
    assert f'value="{new.link}"' not in own
    with ben.owner() as reader:
        ben.run(service.follow(ben.node, ben.person, old.link))
        stick = io.BytesIO()
        ann.run(ann.person.write_bundle(stick, space=old.space))
        stick.seek(0)
        ben.run(ben.person.read_bundle(stick))
        shown = reader.get(place).text
        assert f'form="follow" name="link" value="{new.link}"' in shown
        assert "/carry/channels#start" not in shown
        followed = reader.submit("/carry/channels/follow", link=new.link)
        assert followed.headers["location"] == f"/carry/channels/{new.id}"


def test_a_page_that_is_open_gets_only_what_is_live(page: Browser, ben: Served) -> None:
    for path in ("/carry/", with_(ben), "/carry/channels"):
        fragment = page.get(path, headers={"X-Fragment": "1"})
        assert fragment.status_code == 200
        assert "<html" not in fragment.text
        assert "data-live" in fragment.text


def test_forms_begin_with_their_token_and_stand_outside_of_what_is_exchanged(page: Browser, ben: Served) -> None:
    for path in ("/carry/", with_(ben), "/carry/channels", "/carry/search"):
        shown = page.get(path).text
        for form in re.findall(r"<form method=.post.*?>\s*(.*)|<form id=[^>]*>(.*)", shown):
            assert "".join(form).startswith('<input type="hidden" name="csrf"'), path
        for live in re.findall(r'<div id="\w+" data-live>.*?\n</div>', shown, re.DOTALL):
            assert "<form" not in live, path


def test_strangers_see_no_page_of_carry(ann: Served, ben: Served) -> None:
    with ann.stranger() as stranger:
        for path in ("/carry/", with_(ben), "/carry/channels", "/carry/search"):
            answer = stranger.get(path)
            assert answer.status_code == 401
            assert "Ben" not in answer.text


def test_a_phone_is_told_whom_it_trusts(ann: Served) -> None:
    with ann.phone() as phone:
        assert "trusts the node" in phone.get("/carry/").text


def test_empty_pages_say_what_to_do(tmp_path: Path) -> None:
    with served(tmp_path / "new", name="New", rooms=[ROOM]) as node, node.owner() as browser:
        assert "need their link once" in text_of(browser.get("/carry/"))
        assert "one voice for many" in text_of(browser.get("/carry/channels"))
        assert "waits here until it can travel" in text_of(browser.get("/"))


# ---- what was written and could not be sent ----


@pytest.mark.parametrize("letter", ["a", "я", "漢"])
def test_a_text_as_long_as_its_field_takes_comes_back_with_what_is_wrong_in_every_alphabet(
    page: Browser, ann: Served, ben: Served, letter: str
) -> None:
    text = letter * (LETTER_TEXT_MAX_BYTES - 5) + "!.!.!"
    assert f'maxlength="{len(text)}"' in page.get(with_(ben)).text
    answer = page.submit(with_(ben), text=text)
    assert answer.status_code == (303 if letter == "a" else 400)
    assert text in page.get(with_(ben)).text, "sent, or in the form for another try"
    ann.run(places.keep_draft(ann.node, ann.person, ben.person.identity, ""))


def test_what_was_written_comes_back_from_a_page_whose_session_is_over(page: Browser, ann: Served, ben: Served) -> None:
    written = {"csrf": page.token(), "text": f"The bridge is open {HOSTILE}"}
    page.submit("/leave")
    nobody = page.post(with_(ben), data=written)
    assert nobody.status_code == 401
    with ann.owner() as again:
        other_session = again.post(with_(ben), data=written)
        assert other_session.status_code == 403
    for answer in (nobody, other_session):
        found = re.search(r"<textarea readonly[^>]*>([^<]*)</textarea>", answer.text)
        assert found
        assert unescape(found[1]) == written["text"]
    assert "bridge is open" not in str([one.text for one in service.sent(ann.person)])


def test_a_cut_form_gives_nothing_back_and_sends_nothing(page: Browser, ann: Served, ben: Served) -> None:
    before = len(service.sent(ann.person))
    cookies = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
    form = f"csrf={page.token()}&text=half a thou"
    head = (
        f"POST {with_(ben)} HTTP/1.1\r\nHost: localhost:{ann.serving.port}\r\nCookie: {cookies}\r\n"
        "Connection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(form) + 100}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", ann.serving.port), timeout=20) as cut:
        cut.sendall((head + form).encode())
        cut.shutdown(socket.SHUT_WR)
        while cut.recv(65536):
            pass
    page.get("/")
    assert len(service.sent(ann.person)) == before


def test_every_contact_may_be_ticked_in_one_form(page: Browser) -> None:
    many = {f"contact {number}": "on" for number in range(500)}
    answer = page.submit("/carry/groups/new", name="", **many)
    assert "<h1>New group</h1>" in answer.text, "its own page asks for the name that is missing"


# ---- the same form, twice ----


def shown_form(page: Browser, path: str) -> dict[str, str]:
    """The hidden fields of a form that the page shows now, as a browser sends them."""
    found = re.search(
        r'name="csrf" value="([^"]+)"><input type="hidden" name="once" value="([^"]+)"', page.get(path).text
    )
    assert found
    return {"csrf": found[1], "once": found[2]}


def sent_texts(node: Served) -> list[str]:
    return [one.text for one in service.sent(node.person)]


def test_a_letter_whose_form_comes_twice_is_sent_once_and_both_see_it(page: Browser, ann: Served, ben: Served) -> None:
    form = {**shown_form(page, with_(ben)), "text": "the bus leaves at six"}
    first, second = (page.post(with_(ben), data=form) for _ in range(2))
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.headers["location"] == second.headers["location"]
    assert sent_texts(ann).count("the bus leaves at six") == 1


def test_the_same_words_from_two_pages_are_two_letters(page: Browser, ann: Served, ben: Served) -> None:
    for form in (shown_form(page, with_(ben)), shown_form(page, with_(ben))):
        assert page.post(with_(ben), data={**form, "text": "yes, again"}).status_code == 303
    assert sent_texts(ann).count("yes, again") == 2


def test_one_form_with_other_words_is_another_letter(page: Browser, ann: Served, ben: Served) -> None:
    form = shown_form(page, with_(ben))
    for text in ("gone back to", "and written anew"):
        page.post(with_(ben), data={**form, "text": text})
    assert {"gone back to", "and written anew"} <= set(sent_texts(ann))


def test_a_form_that_was_refused_is_tried_again_as_it_is(page: Browser, ann: Served, ben: Served) -> None:
    form = {**shown_form(page, with_(ben)), "text": "written while they were blocked"}
    ann.run(ann.person.block(ben.person.identity))
    try:
        assert page.post(with_(ben), data=form).status_code == 400
    finally:
        ann.run(ann.person.block(ben.person.identity, False))
    assert page.post(with_(ben), data=form).status_code == 303
    assert sent_texts(ann).count("written while they were blocked") == 1
