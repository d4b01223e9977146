"""Watch's pages as browsers without JavaScript use them, over real sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest

from outlast.kernel import DAY_MS, Entry, Kind
from outlast.kernel.identity import SigningKey
from outlast.kernel.log import loose_entry
from outlast.kernel.stamp import STAMP_BITS
from outlast.rooms.watch import ROOM, service, web
from outlast.rooms.watch.entries import HEARTBEAT, Heartbeat
from outlast.rooms.watch.proto.series import DAY_S
from outlast.terms import LAST_S, OUTAGE, Outage
from outlast.ui.languages import Catalogues
from outlast.ui.page import LANGUAGE_COOKIE
from tests.unit.edges.outline import Outline
from tests.unit.edges.served import Browser, Served, served
from tests.unit.rooms.watch.test_service import RAW, measured

PAGES = (
    "/watch/",
    "/watch/map",
    "/watch/country/BY",
    "/watch/outages",
    "/watch/cost",
    "/watch/cost?country=BY&days=1&year=2019&reported=56400000&share=32",
    "/watch/runs",
    "/watch/settings",
)
HOSTILE = '<script>alert(1)</script>&"'


def ioda(days: int = 4, end: str = "") -> bytes:
    """An export of the dashboard: half-hourly, 100 and then 2 for the last six hours; one value is missing."""
    rows = ["Time (UTC),Google (Search),BGP"]
    for number in range(days * 48):
        value = "" if number == 30 else "2" if number >= days * 48 - 12 else "100"
        day, half = divmod(number, 48)
        rows.append(f"2026-01-{day + 1:02} {half // 2:02}:{half % 2 * 3}0:00,{value},99{end}")
    return "\n".join(rows).encode()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Served]:
    """A node with watch."""
    with served(tmp_path / "home", rooms=[ROOM]) as made:
        yield made


@pytest.fixture
def page(node: Served) -> Iterator[Browser]:
    """Its owner's browser."""
    with node.owner() as browser:
        yield browser


def text_of(answer: httpx.Response) -> str:
    """A page as one line."""
    return re.sub(r"\s+", " ", answer.text)


def filled(node: Served, page: Browser) -> None:
    """Something on every page."""
    page.submit("/watch/settings/place", country="BY", asn="AS6697")
    page.submit("/watch/channels/create", name=f"Watch {HOSTILE}")
    page.submit("/watch/country/BY/series", files={"file": (f"{HOSTILE}.csv", ioda())})
    node.run(service.keep(node.node, node.person, measured(f"https://example.org/{HOSTILE}"), RAW))
    node.run(service.note_link(node.node, node.person, True, True, False))


def test_pages_teach_when_there_is_nothing_and_say_that_nothing_is_published(page: Browser) -> None:
    for path in PAGES:
        answer = page.get(path)
        assert answer.status_code == 200, path
        assert Outline(answer.text).faults() == [], path
        assert "Nothing is published." in answer.text, path


def test_pages_with_something_on_them_are_whole_and_escape_it(node: Served, page: Browser) -> None:
    filled(node, page)
    cut = service.outages(node.node, node.person)[0]
    for path in (*PAGES, f"/watch/outage/BY/{cut.start_s}"):
        answer = page.get(path)
        assert answer.status_code == 200, path
        assert Outline(answer.text).faults() == [], path
        assert "<script>alert" not in answer.text, path


def test_the_three_lamps_tell_what_was_found(node: Served, page: Browser) -> None:
    filled(node, page)
    text = text_of(page.get("/watch/"))
    assert "1 of 1 sites is blocked." in text
    assert "Only addresses inside the country answer." in text
    assert "By your node&#39;s own signals: only what is inside the country answers." in text
    assert "Belarus" in text


def test_a_file_of_signals_becomes_a_timeline_and_an_outage(node: Served, page: Browser) -> None:
    assert page.submit("/watch/country/BY/series", files={"file": ("ioda.csv", ioda())}).status_code == 303
    answer = page.get("/watch/country/BY")
    text = text_of(answer)
    assert "Google (Search) · ioda" in text
    assert "no zero" in text
    [cut] = service.outages(node.node, node.person)
    assert (cut.entity, cut.end_s is None) == ("BY", False), "old signals do not say that it lasts"
    assert f"/watch/outage/BY/{cut.start_s}" in text
    page.cookies.set(LANGUAGE_COOKIE, "de")
    shown = text_of(page.get(f"/watch/outage/BY/{cut.start_s}"))
    assert "\u2068Google (Search)\u2069: 98 % niedriger seit " in shown
    page.cookies.set(LANGUAGE_COOKIE, "en")
    closer = re.findall(r'href="(/watch/country/BY\?from=\d+&amp;to=\d+)#timeline">Closer', answer.text)[0]
    assert page.get(closer.replace("&amp;", "&")).status_code == 200
    for language, left_to_right in (("en", 1), ("fa", -1)):  # the chart's time goes from left to right in both
        page.cookies.set(LANGUAGE_COOKIE, language)
        zoom = page.get("/watch/country/BY").text.partition('class="zoom"')[2]
        begins = [int(start) for start in re.findall(r"\?from=(\d+)", zoom)[:2][::left_to_right]]
        assert begins == sorted(begins)
    page.cookies.set(LANGUAGE_COOKIE, "en")
    page.submit("/watch/country/BY/forget")
    assert service.outages(node.node, node.person) == []


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x1f\x8b\x08bomb", b"{" * 10_000], ids=str)
def test_a_file_that_is_no_signal_is_answered_in_one_line(page: Browser, data: bytes) -> None:
    answer = page.submit("/watch/country/BY/series", files={"file": ("x.csv", data)})
    assert answer.status_code in (400, 413)
    assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/watch/country/XX",
        "/watch/country/%3Cscript%3E",
        "/watch/outage/BY/1",
        "/watch/outage/BY/x",
        "/watch/go?country=",
    ],
)
def test_what_is_not_there_is_not_found(page: Browser, path: str) -> None:
    assert page.get(path).status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "from=1&to=9999999999999",
        "from=x&to=-1",
        "from=9&to=1",
        "to=999999999999",
        "from=0",
        "from=1&to=253402300799",
        "from=253300000000&to=253402300799",
    ],
)
def test_any_stretch_of_time_can_be_asked_for(node: Served, page: Browser, query: str) -> None:
    page.submit("/watch/country/BY/series", files={"file": ("ioda.csv", ioda())})
    assert page.get(f"/watch/country/BY?{query}").status_code == 200
    assert page.get(f"/watch/country/BY/report?{query}").status_code == 200


def test_what_strangers_date_beyond_belief_breaks_no_page(node: Served, page: Browser) -> None:
    page.submit("/watch/country/BY/series", files={"file": ("ioda.csv", ioda())})
    page.submit("/watch/channels/create", name="Watch")
    [channel] = service.channels(node.node, node.person)
    now_ms = node.node.now_ms()

    def say(by: int, kind: Kind, body: msgspec.Struct, ts_ms: int) -> Entry:
        return loose_entry(
            SigningKey.from_seed(bytes([by]) * 32), space=channel.space, kind=kind.name, payload=kind.encode(body),
            ts_ms=ts_ms, life_ms=30 * DAY_MS, priority=kind.priority, stamp_bits=STAMP_BITS,
        )  # fmt: skip

    times = [(0, LAST_S), (DAY_S, None), (LAST_S - DAY_S, LAST_S), (LAST_S, None)]
    said = [
        say(by, OUTAGE, Outage("BY", "blackout", start_s, end_s, (), ()), now_ms)
        for by, (start_s, end_s) in enumerate(times)
    ]
    early = say(9, HEARTBEAT, Heartbeat("LA", 1), (now_ms // 3_600_000 + 1) * 3_600_000)
    node.run(node.node.ingest([*said, early]))
    cuts = service.outages(node.node, node.person, "BY")
    dates = {cut.start_s for cut in cuts}
    assert dates >= {0, DAY_S}
    assert max(dates) <= now_ms // 1000, "what is said to begin later has not begun"
    pages = ["/watch/outages", "/watch/country/LA", "/watch/country/LA/report", "/watch/country/BY"]
    for path in (*pages, *(f"/watch/outage/BY/{start_s}" for start_s in dates)):
        answer = page.get(path)
        assert answer.status_code == 200, path
        assert Outline(answer.text).faults() == [], path


def test_publishing_is_switched_on_and_off_and_every_page_says_so(node: Served, page: Browser) -> None:
    assert page.submit("/watch/settings/publish", observations="on").status_code == 400, "no channel yet"
    page.submit("/watch/channels/create", name="Watch")
    assert page.submit("/watch/settings/publish", observations="on").status_code == 303
    assert "Published: what you measure, scrubbed." in text_of(page.get("/watch/map"))
    page.submit("/watch/settings/publish")
    assert "Nothing is published." in text_of(page.get("/watch/map"))


def test_public_servers_are_asked_by_themselves_only_once_that_is_chosen(node: Served, page: Browser) -> None:
    assert service.settings(node.person).fetch_h == 0
    assert "whoever watches your line sees their names" in text_of(page.get("/watch/settings"))
    assert page.submit("/watch/settings/fetching", fetch_h="24").status_code == 400, "no country yet"
    assert page.submit("/watch/settings/fetching", fetch_h="7").status_code == 400
    assert page.submit("/watch/settings/fetching", fetch_h="0").status_code == 303
    assert service.settings(node.person).fetch_h == 0


def test_nothing_is_measured_before_the_risks_were_agreed_to(node: Served, page: Browser) -> None:
    assert "is punished" in text_of(page.get("/watch/settings"))
    refused = page.submit("/watch/check", target="example.org")
    assert refused.status_code == 400
    assert "Read what measuring can bring upon you" in refused.text
    assert page.submit("/watch/settings/schedule", every_h="24", targets="https://example.org/").status_code == 400
    page.submit("/watch/settings/consent", agreed="yes")
    assert page.submit("/watch/settings/schedule", every_h="0", targets="https://example.org/").status_code == 303
    assert page.submit("/watch/settings/schedule", every_h="24", targets="ftp://x").status_code == 400
    page.submit("/watch/settings/consent", agreed="no")
    assert service.settings(node.person).consented is False


def test_no_phone_agrees_to_the_risks_of_whoever_runs_the_node(node: Served) -> None:
    with node.phone() as phone:
        assert 'action="/watch/settings/consent"' not in phone.get("/watch/settings").text
        assert phone.submit("/watch/settings/consent", agreed="yes").status_code == 403
    assert service.settings(node.person).consented is False


def test_the_export_is_ooni_jsonl_without_addresses(node: Served, page: Browser) -> None:
    filled(node, page)
    answer = page.submit("/watch/export")
    assert "attachment" in answer.headers["content-disposition"]
    [line] = answer.text.splitlines()
    assert json.loads(line)["input"] == "https://example.org/"
    assert "203.0.113" not in answer.text


def test_the_report_is_one_file_that_fetches_nothing(node: Served, page: Browser) -> None:
    filled(node, page)
    answer = page.get("/watch/country/BY/report?from=1767225600&to=1767571200")
    assert "attachment" in answer.headers["content-disposition"]
    assert "Belarus: the internet" in answer.text
    assert "1 outage in this time, 0 of them lasting; 2 signals" in answer.text
    assert re.findall(r"<script|<link|<img|url\(http|@import|https?://(?!example)", answer.text) == []


def test_the_home_page_has_a_card_of_the_room(node: Served, page: Browser) -> None:
    assert "Is it this site, your line, or the country?" in text_of(page.get("/"))
    filled(node, page)
    assert 'href="/watch/"' in page.get("/").text


def test_that_there_is_no_outage_does_not_say_that_each_signal_is_as_usual(page: Browser) -> None:
    """The users of Tor are gone, and what may speak for a country alone is as it was."""
    today = datetime.now(UTC).date()
    users = [(today - timedelta(back), 100 if back < 3 else 9000 + back) for back in range(40)[::-1]]
    tor = "\n".join(["date,country,users,lower,upper,frac", *(f"{day},by,{count},,,70" for day, count in users)])
    page.submit("/watch/settings/place", country="BY", asn="0")
    page.submit("/watch/country/BY/series", files={"file": ("tor.csv", tor.encode())})
    shown = text_of(page.get("/watch/"))
    assert "No outage, by all signals together that this node has." in shown
    assert "every signal" not in shown


def test_cost_shows_the_implied_share_and_refuses_nonsense(page: Browser) -> None:
    text = text_of(page.get("/watch/cost?country=BY&days=1&year=2019&reported=56400000"))
    assert "The reported cost is 32% of the GDP of these days." in text
    text = text_of(page.get("/watch/cost?country=IN&days=64&year=2022&reported=184300000"))
    assert "The reported cost is 0.031% of the GDP of these days." in text
    assert "32%" in text_of(page.get("/watch/cost?country=BY&days=1&year=2019&reported=56,400,000"))
    for comma in ("days=2,5", "days=1,500", "days=1&share=0,5", "days=1&reported=56,4", "days=1&reported=5,64,00000"):
        assert page.get(f"/watch/cost?country=BY&year=2019&{comma}").status_code == 400, comma
    assert page.get("/watch/cost?country=BY&days=-1&year=2019").status_code == 400
    assert page.get("/watch/cost?country=BY&days=0&year=2019").status_code == 400
    assert page.get("/watch/cost?country=BY&days=1e9&year=2019").status_code == 400
    assert page.get("/watch/cost?country=%3Cb%3E&days=1&year=2019").status_code == 404


@pytest.mark.parametrize(
    ("language", "told"),
    [
        ("en", "32,800 3.74M"),
        ("ru", "32\xa0800 3,74\xa0млн"),
        ("fa", "۳۲٬۸۰۰ ۳٫۷۴\xa0میلیون"),
        ("ja", "32,800 374万"),
    ],
)
def test_amounts_are_written_as_the_language_writes_them(language: str, told: str) -> None:
    money = web._money(Catalogues().translation(language))
    assert f"{money(32_800)} {money(3_740_000)}" == told
