"""Watch's tables: the same in whatever order things came, and after they were built anew; only what is in bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.kernel.entry import DAY_MS, Entry
from outlast.kernel.room import Letter
from outlast.kernel.store import Incoming, Store
from outlast.kernel.vault import Vault
from outlast.rooms.watch import ROOM, view
from outlast.rooms.watch.entries import (
    HEARTBEAT,
    KEY,
    KEY_LIFE_DAYS,
    KEYS_MAX,
    OBSERVATION,
    WITNESS,
    Heartbeat,
    WatchKey,
    Witness,
)
from outlast.rooms.watch.view import Cut, StoredSeries, receive, series_row
from outlast.terms import ROUTE, Fact, Route
from tests.unit.kernel.entries import KEY as STORE_KEY
from tests.unit.kernel.people import NOW_MS, secret
from tests.unit.rooms.watch.said import NEWS, NOW_S, heartbeat, key, observation, outage, say, witness

SPACES = [NEWS.id]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store with watch's view."""
    opened = Store.open(tmp_path / "store.db", STORE_KEY, rooms=[ROOM])
    yield opened
    opened.close()


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """An empty vault with watch's tables."""
    opened = Vault.open(tmp_path / "vault.db", STORE_KEY, rooms=[ROOM])
    yield opened
    opened.close()


def add(store: Store, *entries: Entry) -> None:
    """Append entries and fold them."""
    store.append([Incoming(one) for one in entries])
    while store.fold("watch"):
        pass


def tables(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the view, sorted."""
    names = [
        row[0] for row in store.query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'view_%'")
    ]
    return {name: sorted(store.query(f"SELECT * FROM {name}"), key=repr) for name in names}


def test_an_observation_is_shown_with_its_verdict(store: Store) -> None:
    blocked = observation(
        blocking="dns", accessible=False, layers=("blocked", "unknown", "unknown", "unknown", "unknown")
    )
    add(store, NEWS, blocked)
    [one] = view.observations(store, SPACES, NOW_MS)
    assert (one.id, one.key, one.verdict) == (blocked.id, key("ann").public, "blocked")
    assert one.layers == {
        "dns": "blocked",
        "tcp": "unknown",
        "tls": "unknown",
        "http": "unknown",
        "throttled": "unknown",
    }
    assert view.observations(store, [secret("elsewhere")], NOW_MS) == []
    assert view.observations(store, [], NOW_MS) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"at_s": NOW_S + 1},
        {"country": "Belarus"},
        {"asn": 2**32},
        {"asn": -1},
        {"input": "https://example.org/\n"},
        {"input": "https://gro.elpmaxe\u202e.evil.example/"},
        {"input": "https://example.org/\u2066"},
        {"input": "https://exam\u200bple.org/"},
        {"input": "https://example.org/\U000e0041"},
        {"input": "x" * 513},
        {"input": ""},
        {"test": "<script>"},
        {"software": "x" * 81},
        {"blocking": "\u202edns"},
    ],
    ids=str,
)
def test_an_observation_out_of_bounds_is_not_shown(store: Store, changed: dict[str, Any]) -> None:
    add(store, NEWS, observation(**changed))
    assert view.observations(store, SPACES, NOW_MS) == []


def test_outages_keep_their_evidence_and_witnesses(store: Store) -> None:
    add(store, NEWS, outage(), outage("ben", start_s=NOW_S - 3600, end_s=NOW_S))
    lasting, over = view.outages(store, SPACES, NOW_MS)
    assert (lasting.entity, lasting.state, lasting.end_s) == ("BY", "blackout", None)
    assert lasting.evidence == (Fact("changed", ("bgp", -0.97, NOW_S, -1)), "somebody's own words")
    assert lasting.witnesses == (secret("a witness"),)
    assert over.end_s == NOW_S


@pytest.mark.parametrize(
    "changed",
    [
        {"entity": "nowhere"},
        {"entity": "BY'; DROP TABLE x"},
        {"end_s": NOW_S - 1},
        {"start_s": 2**60},
        {"evidence": ("x" * 301,)},
        {"evidence": ("two\nlines",)},
        {"evidence": (Fact("regions", (float("nan"),)),)},
        {"evidence": ("one",) * 41},
        {"witnesses": (b"short",)},
    ],
    ids=str,
)
def test_an_outage_out_of_bounds_is_not_shown(store: Store, changed: dict[str, Any]) -> None:
    add(store, NEWS, outage(**changed))
    assert view.outages(store, SPACES, NOW_MS) == []


def test_heartbeats_are_counted_by_the_hour_and_once_for_each_key(store: Store) -> None:
    add(store, NEWS, heartbeat(), heartbeat("ben", asn=1), heartbeat(at_s=NOW_S + 3600), heartbeat("eve", country="RU"))
    add(store, heartbeat(at_s=NOW_S + 1))
    found = view.beats(store, SPACES, NOW_MS, "BY", NOW_S - 3600, NOW_S + 7200)
    assert [(one.hour_s, one.keys, one.networks) for one in found] == [(NOW_S, 2, 2), (NOW_S + 3600, 1, 1)]


SAID = [
    observation(),
    observation(by="ben", blocking="dns"),
    heartbeat(),
    heartbeat("ben"),
    witness("ann"),
    witness("ben", asn=1),
    outage(),
    outage("eve", entity="nowhere"),
    NEWS,
]


@given(st.permutations(SAID))
@settings(max_examples=20, deadline=None)
def test_the_order_of_arrival_changes_nothing_but_the_numbers_of_arrival(order: list[Entry]) -> None:
    def folded(entries: list[Entry]) -> dict[str, list[tuple[Any, ...]]]:
        with TemporaryDirectory() as folder:
            store = Store.open(Path(folder) / "store.db", STORE_KEY, rooms=[ROOM])
            add(store, *entries)
            store._database.write(lambda t: t.execute("UPDATE view_watch_observation SET n = 0"))
            store._database.write(lambda t: t.execute("UPDATE view_watch_outage SET n = 0"))
            found = tables(store)
            store.close()
            return found

    assert folded(order) == folded(SAID)


@pytest.mark.parametrize("turned", [False, True])
def test_which_words_of_one_hour_a_limit_leaves_does_not_hang_on_the_order_in_which_they_came(
    store: Store, turned: bool
) -> None:
    words = [observation(f"https://{number}.example/") for number in range(5)]
    cuts = [outage("ann", evidence=(str(number),)) for number in range(5)]
    add(store, NEWS, *reversed(words + cuts) if turned else words + cuts)
    assert [one.id for one in view.observations(store, SPACES, NOW_MS, limit=2)] == sorted(one.id for one in words)[:2]
    assert [one.id for one in view.outages(store, SPACES, NOW_MS, limit=2)] == sorted(one.id for one in cuts)[:2]


def test_a_view_that_is_built_anew_is_the_same(store: Store) -> None:
    add(store, *SAID)
    store.drop_payload(SAID[0].id)
    add(store, observation(by="late"))
    live = tables(store)
    assert len(live["view_watch_observation"]) == 2
    store.rebuild()
    assert tables(store) == live


PASSING = [
    say(HEARTBEAT, Heartbeat("BY", number), by=f"passing {number}", life_days=1 + number % 3) for number in range(1, 7)
]


@given(st.permutations([*SAID, *PASSING, *PASSING[:2], SAID[0]]), st.data())
@settings(max_examples=15, deadline=None)
def test_a_view_is_what_a_rebuilt_one_is_whatever_came_twice_expired_or_was_dropped(
    order: list[Entry], data: st.DataObject
) -> None:
    def without_numbers(store: Store) -> dict[str, list[tuple[Any, ...]]]:
        for table in ("view_watch_observation", "view_watch_outage"):
            store._database.write(lambda t, table=table: t.execute(f"UPDATE {table} SET n = 0"))
        return tables(store)

    with TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store.db", STORE_KEY, rooms=[ROOM])
        today = NOW_MS // DAY_MS
        while order:
            now = data.draw(st.integers(1, len(order)))
            add(store, *order[:now])
            order = order[now:]
            match data.draw(st.sampled_from(["nothing", "expire", "drop"])):
                case "expire":
                    store.expire(today + data.draw(st.integers(0, 3)))
                case "drop":
                    store.drop_payload(SAID[1].id)
            while store.fold("watch"):
                pass
        live = without_numbers(store)
        held = {row[0] for row in store.query("SELECT id FROM entry")}
        assert {row[0] for name, rows in live.items() if name != "view_watch_channel" for row in rows} <= held
        store.rebuild()
        assert without_numbers(store) == live
        store.close()


def test_what_has_expired_is_not_read_before_it_is_pruned_either(store: Store) -> None:
    way = say(ROUTE, Route("web", "ok", NOW_S, "BY", 6697), life_days=1)
    short = say(HEARTBEAT, Heartbeat("BY", 6697), life_days=1)
    seen = say(WITNESS, Witness("BY", "blackout", NOW_S, "BY", 6697), life_days=1)
    add(store, NEWS, way, short, seen)

    def read(now_ms: int) -> list[int]:
        span = ("BY", NOW_S - 3600, NOW_S + 3600)
        return [
            len(view.routes(store, SPACES, now_ms, *span)),
            len(view.beats(store, SPACES, now_ms, *span)),
            len(view.heard(store, SPACES, now_ms, [key("ann").public], *span[1:])),
            len(view.witnesses(store, SPACES, now_ms)),
        ]

    assert read(NOW_MS) == [1, 1, 1, 1]
    assert read(NOW_MS + 3 * DAY_MS) == [0, 0, 0, 0]


def test_what_expires_goes(store: Store) -> None:
    add(store, *SAID)
    assert store.expire(10**6)
    while store.fold("watch"):
        pass
    assert [rows for name, rows in tables(store).items() if name != "view_watch_channel"] == [[]] * 5


def test_a_contacts_letter_vouches_for_a_key_and_no_other_does(vault: Vault) -> None:
    def letter(body: bytes, kind: str = KEY.name) -> Letter:
        return Letter(secret("letter")[:16], kind, body, NOW_MS, secret("peer"), secret("device"), NOW_MS)

    day = NOW_MS // DAY_MS
    good = letter(KEY.encode(WatchKey(key("ann").public, day)))
    bad = [
        letter(b"\xc1"),
        letter(KEY.encode(WatchKey(b"short", day))),
        letter(KEY.encode(WatchKey(key("ann").public, -1))),
        letter(good.body, "carry.text"),
    ]
    assert [receive(one, vault) for one in bad] == [()] * len(bad)
    vault.transaction(receive(good, vault), "watch")
    peers = {secret("peer")}
    assert view.vouched(vault, day, peers) == {key("ann").public: secret("peer")}
    assert view.vouched(vault, day + 365, peers) == {}
    assert view.vouched(vault, day, {secret("other")}) == {}


def tell(vault: Vault, who: str, public: bytes, at_ms: int = NOW_MS) -> None:
    """A contact says that a key is theirs."""
    body = KEY.encode(WatchKey(public, at_ms // DAY_MS))
    told = Letter(secret("letter")[:16], KEY.name, body, at_ms, secret(who), secret("device"), at_ms)
    vault.transaction(receive(told, vault), "watch")


def test_who_claims_a_contacts_key_later_does_not_take_their_word_away(vault: Vault) -> None:
    day, public = NOW_MS // DAY_MS, key("ann").public
    tell(vault, "stranger", public, NOW_MS - 1)
    tell(vault, "ann", public)
    tell(vault, "eve", public, NOW_MS + 1)
    tell(vault, "ann", public, NOW_MS + 2)
    assert view.vouched(vault, day, {secret("ann"), secret("eve")}) == {public: secret("ann")}
    assert view.vouched(vault, day, {secret("eve")}) == {public: secret("eve")}


def test_a_contact_with_many_keys_fills_no_vault(vault: Vault) -> None:
    day = NOW_MS // DAY_MS
    for number in range(KEYS_MAX + 3):
        tell(vault, "eve", secret("key", str(number)))
    tell(vault, "ann", key("ann").public)
    peers = {secret("ann"), secret("eve")}
    found = list(view.vouched(vault, day, peers).values())
    assert (found.count(secret("eve")), found.count(secret("ann"))) == (KEYS_MAX, 1)
    later_ms = NOW_MS + (KEY_LIFE_DAYS + 1) * DAY_MS
    tell(vault, "eve", secret("another"), later_ms)
    assert view.vouched(vault, later_ms // DAY_MS, peers) == {secret("another"): secret("eve")}
    assert vault.query(f"SELECT count(*) FROM {view.VOUCHED}") == [(2,)], "what has ended is gone"


def test_what_the_own_line_shows_and_what_a_series_shows_are_two_outages_whatever_their_evidence_says(
    vault: Vault,
) -> None:
    line = Cut(None, None, NOW_S, "BY", "blackout", NOW_S, None, ("own line: the gateway answers",), (), own=True)
    series = replace(line, end_s=NOW_S + 60, evidence=("own line: a signal of this name",), own=False)
    vault.transaction([view.alarm_row(line), view.alarm_row(series)], "watch")
    assert sorted(view.alarms(vault, NOW_S, "BY"), key=lambda one: one.own) == [series, line]
    vault.transaction([view.alarm_gone(series)], "watch")
    assert view.alarms(vault, NOW_S) == [line]


def test_an_outage_that_nothing_was_heard_of_for_three_days_is_not_said_to_last(vault: Vault) -> None:
    line = Cut(None, None, NOW_S + 60, "BY", "blackout", NOW_S, None, ("no more",), (), own=True)
    vault.transaction([view.alarm_row(line)], "watch")
    assert view.alarms(vault, NOW_S + 60 + 3 * 86_400) == [line]
    [faded] = view.alarms(vault, NOW_S + 61 + 3 * 86_400)
    assert (faded.end_s, faded.fades_out, faded.evidence[-1]) == (NOW_S + 60, True, view.SIGNALS_END)


values = st.one_of(st.none(), st.floats(0, 1e12, allow_nan=False))


@given(st.lists(st.tuples(st.integers(0, 2**40), values), max_size=50), st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_series_comes_back_as_it_was_kept_gaps_and_all(points: list[tuple[int, float | None]], judged: bool) -> None:
    one = StoredSeries("BY", "ioda", "bgp", 1800, NOW_MS, secret("file"), tuple(points))
    with TemporaryDirectory() as folder:
        vault = Vault.open(Path(folder) / "vault.db", STORE_KEY, rooms=[ROOM])
        vault.transaction([series_row(one, judged=judged)], "watch")
        assert view.series(vault, "BY") == [one]
        values_at = [at for at, value in points if value is not None]
        assert view.latest_signals(vault) == ({"BY": values_at[-1]} if judged and values_at else {})
        assert view.signalled(vault) == ["BY"]
        vault.close()


def test_a_large_record_is_refused_by_its_kind() -> None:
    entry = say(OBSERVATION, WatchKey(b"x" * (OBSERVATION.max_bytes + 1), 0))
    assert entry.header.payload_size > OBSERVATION.max_bytes
