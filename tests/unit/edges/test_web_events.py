"""Open pages hear of changes: a stream with the revision as its id, which resumes, and ends with the session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from outlast.edges.doors import STREAMS_MAX
from tests.unit.edges.served import Browser, Served, served


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("home") / "a", passphrase=None) as running:
        yield running


@contextmanager
def stream(browser: Browser, path: str = "/events", **headers: str) -> Iterator[Iterator[dict[str, str]]]:
    """The events of a stream as they come."""

    def events(response: httpx.Response) -> Iterator[dict[str, str]]:
        fields: dict[str, str] = {}
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
            elif fields:
                yield fields
                fields = {}

    with browser.stream("GET", path, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield events(response)


def test_a_change_is_told_with_the_revision_as_its_id(node: Served) -> None:
    with node.owner() as owner, stream(owner) as events:
        assert next(events)["event"] == "status"
        before = node.node.revision
        node.call(node.node.touch)
        told = next(event for event in events if int(event["data"]) > before)  # the node itself may have had news
        assert told == {"event": "fragment", "id": told["data"], "data": told["data"]}


@pytest.mark.parametrize("how", ["header", "address"])
def test_a_stream_that_was_lost_begins_with_what_was_missed(node: Served, how: str) -> None:
    before = node.node.revision
    node.call(node.node.touch)
    path, headers = ("/events", {"last-event-id": str(before)}) if how == "header" else (f"/events?since={before}", {})
    with node.owner() as owner, stream(owner, path, **headers) as events:
        opened = next(events)
        assert opened["event"] == "status"
        assert "id" not in opened, "who loses the stream here must still ask for what was missed"
        assert int(next(events)["id"]) > before


def test_a_page_of_an_earlier_run_is_told_to_look_again(node: Served) -> None:
    with node.owner() as owner, stream(owner, "/events?since=999999999") as events:
        next(events)
        assert next(events)["event"] == "fragment"


@pytest.mark.parametrize("seen", ["", "x", "-1", "9" * 400, "٣"])
def test_a_strange_revision_is_as_good_as_none(node: Served, seen: str) -> None:
    with node.owner() as owner, stream(owner, f"/events?since={quote(seen)}") as events:
        assert next(events)["event"] == "status"


def test_a_browser_has_a_bounded_number_of_streams_and_gives_them_back(node: Served) -> None:
    with node.owner() as owner:
        session = node.serving.web.sessions._open[next(reversed(node.serving.web.sessions._open))]

        def open_some(left: int) -> None:
            if left == 0:
                assert owner.get("/events").status_code == 429
                return
            with stream(owner) as events:
                next(events)
                open_some(left - 1)

        open_some(STREAMS_MAX)

        async def until_closed() -> None:
            # A hang-up is seen in the loop's own time and tells nobody: look again each time round.
            while session.watchers:
                await asyncio.sleep(0)

        node.run(until_closed())


def test_who_reads_an_answer_slowly_makes_no_page_of_others_wait(node: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    took: list[float] = []
    monkeypatch.setattr(node.serving.web.turns, "took", took.append)
    with node.owner() as owner, owner.stream("GET", "/events", headers={"x-fragment": "1"}) as stream:
        lines = stream.iter_lines()  # held: it is hung up on with the last of them
        assert next(lines)
        assert len(took) == 1, "the answer was made, however long it is read"


def test_locking_ends_every_stream(tmp_path: Path) -> None:
    with served(tmp_path / "home", passphrase="heron, river, stone") as node, node.owner() as owner:
        owner.submit("/unlock", passphrase="heron, river, stone")
        with stream(owner) as events:
            next(events)
            with node.owner() as other:
                other.submit("/settings/lock")
            assert [event for event in events if event["event"] != "fragment"] == []
