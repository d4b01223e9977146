"""A channel whose owner signs what no program would: those who follow it read the rest, and their nodes live."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outlast.kernel.admit import Admitted
from outlast.kernel.entry import DAY_MS, Entry
from outlast.kernel.identity import space_text
from outlast.kernel.invite import make_channel_link
from outlast.rooms.carry import ROOM, service
from outlast.rooms.carry.entries import POST, Post
from outlast.ui.command import local_time
from tests.unit.edges.served import Served, served
from tests.unit.kernel.people import NOW_MS
from tests.unit.rooms.carry.said import OWNER, STRANGER, channel, entry, hide, post

FAR_MS = 2**53 - 1


def by_owner(space: Entry, text: str, at_ms: int, clock: int, *, seq: int = 0, number: int = 0) -> Entry:
    """A post with any numbers in its header."""
    payload = POST.encode(Post(text))
    return entry(OWNER.signing, space.id, POST.name, payload, at_ms=at_ms, clock=clock, seq=seq, number=number)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Somebody who follows the channel in a browser."""
    with served(tmp_path_factory.mktemp("reader"), name="Reader", rooms=[ROOM]) as node:
        yield node


def hostile(space: Entry) -> list[Entry]:
    """Everything at its ends."""
    return [
        by_owner(space, "at the end of time", FAR_MS, 2**64 - 1),
        by_owner(space, "at its beginning", 0, 0),
        by_owner(space, "in the year 9999", 253_402_300_799_999, 2**63),
        by_owner(space, "the highest number", NOW_MS, 1, seq=2**64 - 1, number=2**64 - 1),
        by_owner(space, "one place", NOW_MS, 1, seq=7),
        by_owner(space, "one place twice", NOW_MS, 1, seq=7),
        by_owner(space, "<b>\u202e\u2028{{ 7*7 }}</b>", NOW_MS, 2),
        by_owner(space, "\u0301" * 1900, NOW_MS, 3),
        entry(OWNER.signing, space.id, POST.name, POST.encode(Post("an answer", b"")), at_ms=NOW_MS),
        entry(OWNER.signing, space.id, POST.name, POST.encode(Post("answers itself", bytes(40))), at_ms=NOW_MS),
        entry(OWNER.signing, space.id, "carry.hide", b"\x91\xc4\x00", at_ms=NOW_MS, life_days=60),
        entry(OWNER.signing, space.id, "some.kind", bytes(60_000), at_ms=FAR_MS),
        entry(OWNER.signing, space.id, POST.name, None, at_ms=NOW_MS, number=5),
        post(space, "not yours to write", author=STRANGER.signing),
    ]


def test_what_it_says_is_shown_and_its_pages_work(reader: Served, capsys: pytest.CaptureFixture[str]) -> None:
    space = channel("A <hostile> channel")
    node, person = reader.node, reader.person
    reader.run(service.follow(node, person, make_channel_link(space.id, "A channel")))
    entries = hostile(space)
    good = post(space, "a word that matters", clock=5, at_ms=node.now_ms())
    verdicts = reader.run(node.ingest([space, *entries, hide(space, entries[0], author=STRANGER.signing), good]))
    assert sum(isinstance(verdict, Admitted) for verdict in verdicts) >= 14
    assert not node.failed.done()
    path = f"/carry/channels/{space_text(space.id)}"
    with reader.owner() as browser:
        for page in (path, "/carry/channels", "/carry/", "/"):
            answer = browser.get(page)
            assert answer.status_code == 200, page
        text = browser.get(path).text
        assert "a word that matters" in text
        assert "<hostile>" not in text
        assert "<b>" not in text
        assert "not yours to write" not in text
        assert browser.submit(f"{path}/read", upto=str(2**70)).status_code in (303, 400)
    shown = service.read_channel(node, person, space.id)
    assert "at the end of time" in [one.text for one in shown]
    for one in shown:
        assert local_time(one.at_ms)
    # Nothing of it is a reason to delete, or to doubt the clock; and it ends with the channel.
    reader.run(node.rebuild())
    reader.run(node.confirm_clock())
    assert service.read_channel(node, person, space.id) == shown
    reader.run(service.unfollow(node, person, space.id))
    assert node.open_store.usage_of(space.id).entries == 0


def test_a_genesis_of_any_date_founds_a_channel_that_can_be_read(reader: Served) -> None:
    for at_ms in (0, FAR_MS):
        space = channel(f"From {at_ms}", at_ms=at_ms)
        node, person = reader.node, reader.person
        reader.run(service.follow(node, person, make_channel_link(space.id, "A channel")))
        reader.run(node.ingest([space, post(space, "hello", at_ms=node.now_ms() - DAY_MS)]))
        with reader.owner() as browser:
            assert "hello" in browser.get(f"/carry/channels/{space_text(space.id)}").text
        reader.run(service.unfollow(node, person, space.id))
