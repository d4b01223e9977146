"""Muting, drafts, lifetimes, removing and what open pages tell, as browsers without JavaScript use them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from outlast.rooms.carry import attention, forgetting, groups, places, service
from outlast.rooms.carry.places import HOUR_MS
from tests.unit.edges.served import Browser, Served
from tests.unit.rooms.carry.test_web import text_of, write
from tests.unit.rooms.carry.two import trip, with_


def place(other: Served) -> str:
    """The address of what is set for the conversation with the person of that node."""
    return f"/carry/place/{other.person.identity.hex()}"


def count(answer: httpx.Response) -> int:
    """How many things wait, as the page says it to the script."""
    found = re.search(
        r'id="tabs" data-live data-who="[^"]*" data-count="(\d+)" data-mark="[^"]*" data-news="([^"]*)"', answer.text
    )
    assert found, answer.text
    number = int(found[1])
    assert (f"<title>({number}) " in answer.text) == bool(number)
    return number


@pytest.fixture(autouse=True)
def nothing_set(ann: Served, ben: Served) -> Iterator[None]:
    """Afterwards nothing is set, and nothing waits."""
    yield
    ann.run(places.mute(ann.node, ann.person, ben.person.identity, False))
    ann.run(places.set_life(ann.node, ann.person, ben.person.identity, 0))
    ann.run(places.keep_draft(ann.node, ann.person, ben.person.identity, ""))
    ann.run(attention.set_quiet(ann.node, ann.person, False))
    ann.run(service.mark_read(ann.node, ann.person, [one.letter for one in service.inbox(ann.person)]))


def test_every_page_counts_what_is_new_and_says_nothing_of_it(page: Browser, ann: Served, ben: Served) -> None:
    assert count(page.get("/people")) == 0
    write(ben, ann, "Nobody may see this on another page")
    shown = page.get("/people")
    assert count(shown) == 1
    assert 'data-news="1 new message"' in shown.text
    assert "Nobody may see this" not in shown.text
    assert re.search(r'Messages<span class="badge">1', text_of(shown))
    page.submit("/carry/notices", quiet="on")
    shown = page.get("/people")
    assert (count(shown), 'data-news=""' in shown.text) == (1, True)
    assert "Tell me of what comes" in page.get("/carry/notices").text


def test_what_is_muted_or_blocked_counts_nowhere(page: Browser, ann: Served, ben: Served) -> None:
    write(ben, ann, "first")
    assert count(page.get("/")) == 1
    assert page.submit(place(ben) + "/mute", muted="on").headers["location"] == with_(ben)
    assert count(page.get("/")) == 0
    assert "1 new message" not in page.get("/").text
    assert '<span class="badge unknown">muted</span>' in page.get("/carry/").text
    assert "No longer mute" in page.get(with_(ben)).text
    page.submit(place(ben) + "/mute")
    assert count(page.get("/")) == 1
    ann.run(ann.person.block(ben.person.identity))
    try:
        assert count(page.get("/")) == 0
    finally:
        ann.run(ann.person.block(ben.person.identity, False))


def test_channels_and_groups_are_muted_in_the_same_way(page: Browser, ann: Served, ben: Served) -> None:
    news = ben.run(service.create_channel(ben.node, ben.person, "News"))
    ben.run(service.post(ben.node, ben.person, news.space, "hello"))
    assert page.submit("/carry/channels/follow", link=news.link).status_code == 303
    trip(ben, ann)
    group = ben.run(groups.create(ben.node, ben.person, "Street", [ann.person.identity]))
    for space, address in ((news.space, f"/carry/channels/{news.id}"), (group.space, f"/carry/groups/{group.id}")):
        if space == group.space:
            trip(ben, ann)

            async def asked() -> None:
                while not groups.invitations(ann.person):
                    await ann.node.wait(ann.node.revision)

            ann.run(asked())
            assert page.submit("/carry/invitations", join=group.id).status_code == 303
        muted = page.submit(f"/carry/place/{space.hex()}/mute", muted="on")
        assert muted.headers["location"] == address
        assert space in places.muted(ann.person)
        assert "No longer mute" in page.get(address).text
    page.submit(f"/carry/channels/{news.id}/leave")
    page.submit(f"/carry/groups/{group.id}/leave")
    assert not places.muted(ann.person)
    assert page.submit(f"/carry/place/{news.space.hex()}/mute", muted="on").status_code == 404


def test_a_draft_stays_until_it_is_sent(page: Browser, ann: Served, ben: Served) -> None:
    draft = "Half a thou<ght"
    assert page.submit(place(ben) + "/draft", text=draft).status_code == 204
    assert "Half a thou&lt;ght</textarea>" in page.get(with_(ben)).text
    assert '<span class="badge warn">draft</span>' in page.get("/carry/").text
    page.submit(with_(ben), text="A whole one")
    assert places.find(ann.person, ben.person.identity).draft == ""
    assert 'placeholder="Message"></textarea>' in page.get(with_(ben)).text

    refused = page.submit(with_(ben), text="x" * 16_000)
    assert refused.status_code == 400
    assert places.find(ann.person, ben.person.identity).draft == "x" * 16_000
    assert page.submit("/carry/place/00/draft", text="x").status_code == 404
    assert page.submit(f"/carry/place/{ben.person.device.hex()}/draft", text="x").status_code == 404


def test_letters_disappear_as_the_conversation_or_the_form_says(page: Browser, ann: Served, ben: Served) -> None:
    assert page.submit(place(ben) + "/life", life="hour").headers["location"] == with_(ben)
    page.submit(with_(ben), text="for an hour")
    page.submit(with_(ben), text="for ever", life="")
    page.submit(with_(ben), text="for a week", life="week")
    lives = {one.text: one.until_ms and one.until_ms - one.at_ms for one in service.sent(ann.person)[-3:]}
    assert lives == {"for an hour": HOUR_MS, "for ever": None, "for a week": 7 * 24 * HOUR_MS}
    shown = text_of(page.get(with_(ben)))
    assert re.search("for an hour</p> <small>disappears in (59|60) minutes</small>", shown)
    assert "disappears in 7 days" in shown
    assert page.submit(place(ben) + "/life", life="year").status_code == 400


@pytest.mark.parametrize("kind", ["groups", "channels"])
def test_what_is_said_in_groups_and_channels_disappears_as_the_place_or_the_form_says(
    page: Browser, ann: Served, kind: str
) -> None:
    if kind == "groups":
        made = ann.run(groups.create(ann.node, ann.person, "Lives"))
    else:
        made = ann.run(service.create_channel(ann.node, ann.person, "Lives"))
    there = f"/carry/{kind}/{made.id}"
    set_at = f"/carry/place/{made.space.hex()}/life"
    assert f'action="{set_at}"' in page.get(there).text
    assert page.submit(set_at, life="hour").headers["location"] == there
    assert '<option value="hour" selected>' in page.get(there).text
    assert ("after 30 days" in page.get(there).text) == (kind == "channels")
    page.submit(there, text="for an hour")
    page.submit(there, text="for ever", life="")
    page.submit(there, text="for a week", life="week")
    shown = text_of(page.get(there))
    assert re.search("for an hour</p> <small>disappears in (59|60) minutes</small>", shown)
    assert re.search("for a week</p> <small>disappears in [67] days</small>", shown)
    assert not re.search("for ever</p> <small>disappears", shown)
    assert page.submit(there, text="for a year", life="year").status_code == 400


@pytest.mark.parametrize("kind", ["with", "groups", "channels"])
def test_what_could_not_be_sent_comes_back_as_it_was_to_be_sent(
    page: Browser, ann: Served, ben: Served, kind: str
) -> None:
    if kind == "with":
        there, id = with_(ben), write(ben, ann, "Where do we meet?")
    elif kind == "groups":
        group = ann.run(groups.create(ann.node, ann.person, "Answers"))
        there, id = f"/carry/groups/{group.id}", ann.run(groups.post(ann.node, ann.person, group.space, "Where?"))
    else:
        channel = ann.run(service.create_channel(ann.node, ann.person, "Answers"))
        there = f"/carry/channels/{channel.id}"
        id = ann.run(service.post(ann.node, ann.person, channel.space, "Where?"))
    too_long = "م" * 15_000
    refused = page.submit(there, text=too_long, life="hour", reply_to=id.hex())
    assert refused.status_code == 400
    composer = refused.text[refused.text.index("composer") :]
    assert too_long in composer
    assert '<option value="hour" selected>' in composer, "else it would stay for ever when it is sent again"
    assert f'name="reply_to" value="{id.hex()}"' in composer
    setting = refused.text[: refused.text.index("composer")]
    assert '<option value="" selected>' in setting, "what is set for the place did not change"
    assert '<option value="hour" selected>' not in page.get(there).text


def test_messages_are_removed_here_and_can_be_restored(page: Browser, ann: Served, ben: Served) -> None:
    page.submit(with_(ben), text="too much said")
    letter = service.sent(ann.person)[-1].letter
    before = len(service.conversation(ann.person, ben.person.identity))
    page.submit(place(ben) + "/forget", letter=letter.hex())
    shown = text_of(page.get(with_(ben)))
    assert "too much said" not in shown
    assert "1 message was removed." in shown
    page.submit(place(ben) + "/forget")
    assert service.conversation(ann.person, ben.person.identity) == []
    page.submit(place(ben) + "/restore")
    assert len(service.conversation(ann.person, ben.person.identity)) == before
    assert forgetting.removed(ann.person, ben.person.identity, ann.node.now_ms()) == (0, 0)
    assert page.submit(place(ben) + "/forget", letter="00").status_code == 404
