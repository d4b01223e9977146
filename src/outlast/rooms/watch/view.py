"""Watch's tables: how changes and letters become rows, and the questions that are asked of them.

The public view in the node's store knows observations, heartbeats, witnesses, outages and the ways out of the room
reach, each under the key that signed it. Whose key it was only a vault knows, from contacts' letters. What was
measured here and is not published, the series that were read from files, settings and the followed channels stand in
the vault.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from outlast.errors import ProtocolError
from outlast.kernel import (
    DAY_MS,
    GENESIS,
    Change,
    Delete,
    Entry,
    Event,
    Letter,
    Put,
    RowChanges,
    Rows,
    Value,
    read_genesis,
)
from outlast.rooms.watch import asked
from outlast.rooms.watch.entries import (
    ASK,
    HEARTBEAT,
    HOUR_S,
    KEY,
    KEY_LIFE_DAYS,
    KEYS_MAX,
    LAYERS,
    OBSERVATION,
    TOLD,
    WITNESS,
    is_sane_heartbeat,
    is_sane_observation,
    is_sane_witness,
)
from outlast.rooms.watch.proto.evidence import fact
from outlast.rooms.watch.proto.heartbeats import DOMESTIC, FOREIGN
from outlast.terms import EVIDENCE_MAX, LAST_S, OUTAGE, ROUTE, Fact, State, is_sane, is_sane_route

RUN: Final = "local_watch_run"
SETTING: Final = "local_watch_setting"
FOLLOW: Final = "local_watch_follow"
OWN_KEY: Final = "local_watch_own_key"
VOUCHED: Final = "local_watch_vouched"
SERIES: Final = "local_watch_series"
LINK: Final = "local_watch_link"
ALARM: Final = "local_watch_alarm"
SAID: Final = "local_watch_said"
AWAY: Final = "local_watch_away"

_CHANNEL: Final = "view_watch_channel"
_OBSERVATION: Final = "view_watch_observation"
_HEARTBEAT: Final = "view_watch_heartbeat"
_WITNESS: Final = "view_watch_witness"
_OUTAGE: Final = "view_watch_outage"
_ROUTE: Final = "view_watch_route"
_INT64_MAX: Final = 2**63 - 1
LIVE_S: Final = 3 * DAY_MS // 1000
"""An outage that lasts, and of which nothing was heard for longer than this, is not said to last now."""
SIGNALS_END: Final = fact("signals-end")

VIEWS: Final = (
    f"CREATE TABLE {_CHANNEL} (space BLOB PRIMARY KEY, name TEXT)",
    f"CREATE TABLE {_OBSERVATION} (id BLOB PRIMARY KEY, space BLOB, key BLOB, n INTEGER, at_s INTEGER,"
    " until_ms INTEGER, test TEXT, input TEXT, country TEXT, asn INTEGER, blocking TEXT, accessible INTEGER, dns TEXT,"
    " tcp TEXT, tls TEXT, http TEXT, throttled TEXT, fingerprint TEXT, software TEXT, raw_bytes INTEGER)",
    f"CREATE INDEX view_watch_observation_time ON {_OBSERVATION} (at_s)",
    f"CREATE TABLE {_HEARTBEAT} (id BLOB PRIMARY KEY, space BLOB, key BLOB, at_s INTEGER, until_ms INTEGER,"
    " country TEXT, asn INTEGER)",
    f"CREATE INDEX view_watch_heartbeat_place ON {_HEARTBEAT} (country, at_s)",
    f"CREATE TABLE {_WITNESS} (id BLOB PRIMARY KEY, space BLOB, key BLOB, at_s INTEGER, until_ms INTEGER, entity TEXT,"
    " state TEXT, start_s INTEGER, country TEXT, asn INTEGER)",
    f"CREATE INDEX view_watch_witness_entity ON {_WITNESS} (entity, at_s)",
    f"CREATE TABLE {_OUTAGE} (id BLOB PRIMARY KEY, space BLOB, key BLOB, at_s INTEGER, until_ms INTEGER, n INTEGER,"
    " entity TEXT, state TEXT, start_s INTEGER, end_s INTEGER, evidence BLOB, witnesses BLOB)",
    f"CREATE INDEX view_watch_outage_entity ON {_OUTAGE} (entity, start_s)",
    f"CREATE TABLE {_ROUTE} (id BLOB PRIMARY KEY, space BLOB, key BLOB, at_s INTEGER, until_ms INTEGER, country TEXT,"
    " asn INTEGER, transport TEXT, outcome TEXT)",
    f"CREATE INDEX view_watch_route_place ON {_ROUTE} (country, at_s)",
)

MIGRATIONS: Final = (
    f"CREATE TABLE {RUN} (n INTEGER PRIMARY KEY, at_ms INTEGER, test TEXT, input TEXT, blocking TEXT,"
    " accessible INTEGER, dns TEXT, tcp TEXT, tls TEXT, http TEXT, throttled TEXT, fingerprint TEXT, software TEXT,"
    " country TEXT, asn INTEGER, raw BLOB, entry BLOB)",
    f"CREATE INDEX local_watch_run_time ON {RUN} (at_ms)",
    f"CREATE TABLE {SETTING} (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
    f"CREATE TABLE {FOLLOW} (space BLOB PRIMARY KEY, name TEXT, added_ms INTEGER)",
    f"CREATE TABLE {OWN_KEY} (day INTEGER PRIMARY KEY, seed BLOB, key BLOB)",
    f"CREATE TABLE {VOUCHED} (key BLOB, peer BLOB, came_ms INTEGER, until_day INTEGER, PRIMARY KEY (key, peer))"
    " WITHOUT ROWID",
    f"CREATE INDEX local_watch_vouched_peer ON {VOUCHED} (peer)",
    f"CREATE TABLE {SERIES} (entity TEXT, source TEXT, signal TEXT, step_s INTEGER, first_s INTEGER, last_s INTEGER,"
    " fetched_ms INTEGER, sha256 BLOB, times BLOB, points BLOB, PRIMARY KEY (entity, source, signal)) WITHOUT ROWID",
    f"CREATE TABLE {LINK} (n INTEGER PRIMARY KEY, at_ms INTEGER, gateway INTEGER, domestic INTEGER, abroad INTEGER)",
    f"CREATE TABLE {ALARM} (entity TEXT, start_s INTEGER, own INTEGER, end_s INTEGER, fades_out INTEGER, state TEXT,"
    " evidence BLOB, PRIMARY KEY (entity, start_s, own)) WITHOUT ROWID",
    f"CREATE TABLE {SAID} (what TEXT PRIMARY KEY, at_ms INTEGER) WITHOUT ROWID",
    *asked.MIGRATIONS,
    f"CREATE TABLE {AWAY} (begin_s INTEGER PRIMARY KEY, end_s INTEGER)",
    f"ALTER TABLE {ALARM} DROP COLUMN fades_out",
    f"ALTER TABLE {ALARM} ADD COLUMN at_s INTEGER",
)


# ---- what changes say ----


def fold(change: Change, _rows: Rows) -> RowChanges:
    """The rows of the public view that a change of the store brings or takes."""
    reading = _READINGS.get(change.entry.header.kind)
    if reading is None:
        return ()
    table, read = reading
    entry = change.entry
    if change.event in (Event.EXPIRED, Event.PAYLOAD_DROPPED):
        return [Delete(table, {"space" if table == _CHANNEL else "id": entry.id})]
    if change.event is Event.FORKED or entry.payload is None or entry.header.version != 1:
        return ()
    try:
        row = read(change, entry.payload)
    except ProtocolError:
        return ()
    return [Put(table, row)] if row else ()


def receive(letter: Letter, rows: Rows) -> RowChanges:
    """The row by which a contact's letter vouches for a key, asks for a probe or tells of one."""
    if letter.kind in (ASK.name, TOLD.name):
        return asked.receive(letter, rows)
    try:
        body = KEY.decode(letter.body)
    except ProtocolError:
        return ()
    if letter.kind != KEY.name or len(body.key) != 32 or not 0 <= body.day < 2**31:
        return ()
    today = letter.received_ms // DAY_MS
    held = rows.query(f"SELECT key, came_ms, until_day FROM {VOUCHED} WHERE peer = ?", (letter.sender,))
    ended = [Delete(VOUCHED, {"key": key, "peer": letter.sender}) for key, _, until_day in held if until_day < today]
    lasting = {key: came_ms for key, came_ms, until_day in held if until_day >= today}
    if len(lasting) >= KEYS_MAX and body.key not in lasting:
        return ended
    row: dict[str, Value] = {
        "key": body.key,
        "peer": letter.sender,
        "came_ms": lasting.get(body.key, letter.received_ms),
        # A week around its day, and then for as long as anything lives that was signed by it.
        "until_day": min(body.day, today + 7) + KEY_LIFE_DAYS,
    }
    return [*ended, Put(VOUCHED, row)]


def _read_channel(change: Change, _payload: bytes) -> dict[str, Value] | None:
    body = read_genesis(change.entry)
    return {"space": change.entry.id, "name": body.name} if body.type == "open" else None


def _read_observation(change: Change, payload: bytes) -> dict[str, Value] | None:
    one = OBSERVATION.decode(payload)
    if not is_sane_observation(one):
        return None
    row: dict[str, Value] = {
        "n": change.cursor,
        "at_s": one.at_s,
        "test": one.test,
        "input": one.input,
        "country": one.country,
        "asn": one.asn,
        "blocking": one.blocking,
        "accessible": None if one.accessible is None else int(one.accessible),
        "fingerprint": one.fingerprint,
        "software": one.software,
        "raw_bytes": len(one.raw),
    }
    return _said(change.entry) | row | dict(zip(LAYERS, one.layers, strict=True))


def _read_heartbeat(change: Change, payload: bytes) -> dict[str, Value] | None:
    one = HEARTBEAT.decode(payload)
    if not is_sane_heartbeat(one):
        return None
    row: dict[str, Value] = {"country": one.country, "asn": one.asn}
    return _said(change.entry) | row


def _read_witness(change: Change, payload: bytes) -> dict[str, Value] | None:
    one = WITNESS.decode(payload)
    if not is_sane_witness(one):
        return None
    row: dict[str, Value] = {
        "entity": one.entity,
        "state": one.state,
        "start_s": one.start_s,
        "country": one.country,
        "asn": one.asn,
    }
    return _said(change.entry) | row


def _read_outage(change: Change, payload: bytes) -> dict[str, Value] | None:
    one = OUTAGE.decode(payload)
    if not is_sane(one):
        return None
    row: dict[str, Value] = {
        "n": change.cursor,
        "entity": one.entity,
        "state": one.state,
        "start_s": one.start_s,
        "end_s": one.end_s,
        "evidence": msgspec.msgpack.encode(one.evidence),
        "witnesses": b"".join(sorted(set(one.witnesses))),
    }
    return _said(change.entry) | row


def _read_route(change: Change, payload: bytes) -> dict[str, Value] | None:
    one = ROUTE.decode(payload)
    if not is_sane_route(one):
        return None
    return _said(change.entry) | msgspec.structs.asdict(one)


_Read = Callable[[Change, bytes], dict[str, Value] | None]
_READINGS: Final[dict[str, tuple[str, _Read]]] = {
    GENESIS.name: (_CHANNEL, _read_channel),
    OBSERVATION.name: (_OBSERVATION, _read_observation),
    HEARTBEAT.name: (_HEARTBEAT, _read_heartbeat),
    WITNESS.name: (_WITNESS, _read_witness),
    OUTAGE.name: (_OUTAGE, _read_outage),
    ROUTE.name: (_ROUTE, _read_route),
}


def _said(entry: Entry) -> dict[str, Value]:
    header = entry.header
    until_ms = header.expires_day * DAY_MS or _INT64_MAX
    at_s = header.ts_ms // 1000
    return {"id": entry.id, "space": header.space, "key": header.author, "at_s": at_s, "until_ms": until_ms}


# ---- rows as pages read them ----


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement with its verdict: published by somebody (``key``), or made here (``n`` in the vault)."""

    id: bytes | None  # 32 B of the published entry
    key: bytes | None  # 32 B, who signed it; None = made here
    n: int
    at_s: int
    test: str
    input: str
    country: str
    asn: int
    blocking: str
    accessible: bool | None
    dns: str
    tcp: str
    tls: str
    http: str
    throttled: str
    fingerprint: str
    software: str
    raw_bytes: int

    @property
    def layers(self) -> dict[str, str]:
        """Each layer's verdict: ok, blocked, down or unknown."""
        return {name: getattr(self, name) for name in LAYERS}

    @property
    def verdict(self) -> str:
        """The whole in one word: ``blocked`` when any layer is, else ``down``, ``ok`` or ``unknown``."""
        values = set(self.layers.values())
        if "blocked" in values:
            return "blocked"
        if "down" in values or self.accessible is False:
            return "down"
        return "ok" if self.accessible or "ok" in values else "unknown"


@dataclass(frozen=True, slots=True)
class Beat:
    """How many different keys said in one hour that they are there, from one country."""

    country: str
    hour_s: int
    keys: int
    networks: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A witness: one node's detector sees a place in a state."""

    id: bytes
    key: bytes
    at_s: int
    entity: str
    state: State
    start_s: int
    country: str
    asn: int


@dataclass(frozen=True, slots=True)
class Cut:
    """An outage, by an entry (``id``, ``key``) or by this node's own detector (both None)."""

    id: bytes | None
    key: bytes | None
    at_s: int  # when it was said, or what the detector knew last
    entity: str
    state: State
    start_s: int
    end_s: int | None
    evidence: tuple[str | Fact, ...]
    witnesses: tuple[bytes, ...]
    own: bool = False  # by this node's own line, and not by a series
    fades_out: bool = False  # it only ends because nothing more is known: it may have gone on


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that the person follows for watch."""

    space: bytes
    name: str
    added_ms: int


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """One signal of one place, as it was read from a file or a feed; ``None`` = nothing came then."""

    entity: str
    source: str
    signal: str
    step_s: int
    fetched_ms: int
    sha256: bytes
    points: tuple[tuple[int, float | None], ...]  # UTC seconds, in order


@dataclass(frozen=True, slots=True)
class LinkCheck:
    """What answered when the local link was last looked at; None = was not asked, or abroad it proved nothing."""

    at_ms: int
    gateway: bool | None
    domestic: bool | None
    abroad: bool | None


@dataclass(frozen=True, slots=True)
class Sought:
    """Which measurements are asked for: from one time to another (UTC seconds), and from one country if any."""

    from_s: int = 0
    to_s: int = LAST_S
    country: str = ""


EVERYTHING: Final = Sought()
_MEASURED: Final = (
    "test, input, country, asn, blocking, accessible, dns, tcp, tls, http, throttled, fingerprint, software"
)
_RUNS: Final = f"SELECT entry, NULL, n, at_ms / 1000, {_MEASURED}, length(raw) FROM {RUN}"


def observations(
    store: Rows,
    spaces: Sequence[bytes],
    now_ms: int,
    *,
    keys: Sequence[bytes] | None = None,
    sought: Sought = EVERYTHING,
    limit: int = 500,
) -> list[Measured]:
    """The newest published observations of these channels, the newest first; only those under ``keys`` if given."""
    if not spaces:
        return []
    rows = store.query(
        f"SELECT id, key, n, at_s, {_MEASURED}, raw_bytes FROM {_OBSERVATION} WHERE at_s >= ? AND at_s <= ?"
        f" AND (? = '' OR country = ?) AND until_ms > ? AND space IN ({_marks(spaces)}){_under(keys)}"
        " ORDER BY at_s DESC, id LIMIT ?",
        (
            sought.from_s, min(sought.to_s, _soon_s(now_ms)), sought.country, sought.country, now_ms,
            *spaces, *(keys or ()), limit,
        ),
    )  # fmt: skip
    return [_measured(row) for row in rows]


def runs(vault: Rows, *, sought: Sought = EVERYTHING, limit: int = 500) -> list[Measured]:
    """The newest measurements made here, the newest first."""
    rows = vault.query(
        f"{_RUNS} WHERE at_ms >= ? AND at_ms < ? AND (? = '' OR country = ?) ORDER BY at_ms DESC, n DESC LIMIT ?",
        (1000 * sought.from_s, 1000 * (sought.to_s + 1), sought.country, sought.country, limit),
    )
    return [_measured(row) for row in rows]


def find_run(vault: Rows, number: int) -> Measured | None:
    """The measurement made here with this number."""
    rows = vault.query(f"{_RUNS} WHERE n = ?", (number,))
    return _measured(rows[0]) if rows else None


def last_run(vault: Rows) -> int:
    """The number of the measurement that was kept last, whatever its time; there is one."""
    return int(vault.query(f"SELECT max(n) FROM {RUN}")[0][0])


def raw_runs(vault: Rows, numbers: Sequence[int]) -> list[bytes]:
    """The OONI measurements of these runs as they were made, in the order of their numbers."""
    rows = vault.query(f"SELECT raw FROM {RUN} WHERE n IN ({_marks(numbers)}) ORDER BY n", tuple(numbers))
    return [bytes(row[0]) for row in rows]


def run_row(one: Measured, at_ms: int, raw: bytes) -> Put:
    """The vault's row of a measurement that was made here."""
    row: dict[str, Value] = {
        "n": None,
        "at_ms": at_ms,
        "test": one.test,
        "input": one.input,
        "blocking": one.blocking,
        "accessible": None if one.accessible is None else int(one.accessible),
        "fingerprint": one.fingerprint,
        "software": one.software,
        "country": one.country,
        "asn": one.asn,
        "raw": raw,
        "entry": None,
    }
    return Put(RUN, row | dict(one.layers.items()))


def alarm_gone(one: Cut) -> Delete:
    """The row of an outage that the detector no longer finds."""
    return Delete(ALARM, {"entity": one.entity, "start_s": one.start_s, "own": int(one.own)})


def beats(store: Rows, spaces: Sequence[bytes], now_ms: int, country: str, from_s: int, to_s: int) -> list[Beat]:
    """How many keys were there in each hour of a time; hours without any are not listed."""
    if not spaces:
        return []
    rows = store.query(
        f"SELECT country, at_s / 3600 * 3600, count(DISTINCT key), count(DISTINCT asn) FROM {_HEARTBEAT}"
        f" WHERE country = ? AND at_s >= ? AND at_s < ? AND until_ms > ? AND space IN ({_marks(spaces)})"
        " GROUP BY 2 ORDER BY 2",
        (country, from_s, to_s, now_ms, *spaces),
    )
    return [Beat(*row) for row in rows]


def routes(
    store: Rows, spaces: Sequence[bytes], now_ms: int, country: str, from_s: int, to_s: int
) -> dict[str, list[tuple[int, int]]]:
    """How many keys said on each day that a way out ended so, by that outcome: (the day's begin in UTC seconds, keys).

    Anybody may say so under any number of keys: it is shown, and proves no outage.
    """
    if not spaces:
        return {}
    rows = store.query(
        f"SELECT outcome, at_s / 86400 * 86400, count(DISTINCT key) FROM {_ROUTE}"
        f" WHERE country = ? AND at_s >= ? AND at_s < ? AND until_ms > ? AND space IN ({_marks(spaces)})"
        " GROUP BY 1, 2 ORDER BY 1, 2",
        (country, from_s, to_s, now_ms, *spaces),
    )
    found: dict[str, list[tuple[int, int]]] = {}
    for outcome, at_s, keys in rows:
        found.setdefault(outcome, []).append((at_s, keys))
    return found


def heard(
    store: Rows, spaces: Sequence[bytes], now_ms: int, keys: Sequence[bytes], from_s: int, to_s: int
) -> list[tuple[bytes, int, str, int]]:
    """The heartbeats of these keys that name a network, in any order: (key, UTC seconds, country, network)."""
    if not spaces or not keys:
        return []
    return store.query(
        f"SELECT DISTINCT key, at_s, country, asn FROM {_HEARTBEAT} WHERE at_s >= ? AND at_s < ? AND asn > 0"
        f" AND until_ms > ? AND space IN ({_marks(spaces)}){_under(keys)}",
        (from_s, to_s, now_ms, *spaces, *keys),
    )


def witnesses(
    store: Rows,
    spaces: Sequence[bytes],
    now_ms: int,
    *,
    since_s: int = 0,
    entity: str = "",
    keys: Sequence[bytes] | None = None,
    limit: int = 1000,
) -> list[Seen]:
    """The newest witnesses of these channels, the newest first; of one place, or under ``keys``, if given."""
    if not spaces:
        return []
    rows = store.query(
        f"SELECT id, key, at_s, entity, state, start_s, country, asn FROM {_WITNESS} WHERE at_s >= ? AND at_s <= ?"
        f" AND until_ms > ? AND (? = '' OR entity = ?) AND space IN ({_marks(spaces)}){_under(keys)}"
        " ORDER BY at_s DESC, id LIMIT ?",
        (since_s, _soon_s(now_ms), now_ms, entity, entity, *spaces, *(keys or ()), limit),
    )
    return [Seen(*row) for row in rows]


def outages(
    store: Rows,
    spaces: Sequence[bytes],
    now_ms: int,
    *,
    entity: str = "",
    keys: Sequence[bytes] | None = None,
    limit: int = 200,
) -> list[Cut]:
    """The outages that were published in these channels, the latest first; of one entity or under ``keys`` if given."""
    if not spaces:
        return []
    rows = store.query(
        f"SELECT id, key, at_s, entity, state, start_s, end_s, evidence, witnesses FROM {_OUTAGE} WHERE until_ms > ?"
        f" AND max(at_s, start_s) <= ? AND (? = '' OR entity = ?) AND space IN ({_marks(spaces)}){_under(keys)}"
        " ORDER BY start_s DESC, id LIMIT ?",
        (now_ms, _soon_s(now_ms), entity, entity, *spaces, *(keys or ()), limit),
    )
    return [_cut(row) for row in rows]


def alarms(vault: Rows, now_s: int, entity: str = "") -> list[Cut]:
    """What this node's own detector found, the latest first; what it has long heard nothing of fades out."""
    rows = vault.query(
        "SELECT NULL, NULL, ifnull(at_s, start_s), entity, state, start_s, end_s, evidence, x'', own"
        f" FROM {ALARM} WHERE ? = '' OR entity = ? ORDER BY start_s DESC",
        (entity, entity),
    )
    return [faded(cut, cut.at_s, now_s) for cut in map(_cut, rows)]


def faded(cut: Cut, heard_s: int, now_s: int) -> Cut:
    """The outage; over since ``heard_s``, the last that is known of it, where that is longer ago than LIVE_S."""
    if cut.end_s is not None or now_s - heard_s <= LIVE_S:
        return cut
    evidence = (*cut.evidence[: EVIDENCE_MAX - 1], SIGNALS_END)
    return replace(cut, end_s=max(heard_s, cut.start_s), evidence=evidence, fades_out=True)


def alarm_row(one: Cut) -> Put:
    """The vault's row of an outage that this node's own detector found."""
    evidence = msgspec.msgpack.encode(one.evidence)
    row: dict[str, Value] = {
        "entity": one.entity,
        "start_s": one.start_s,
        "own": int(one.own),
        "end_s": one.end_s,
        "at_s": one.at_s,
        "state": one.state,
        "evidence": evidence,
    }
    return Put(ALARM, row)


def channels(store: Rows, vault: Rows) -> list[Channel]:
    """The channels that are followed for watch, the oldest first, by their founders' names once these have come."""
    followed = vault.query(f"SELECT space, name, added_ms FROM {FOLLOW} ORDER BY added_ms, space")
    names = dict(store.query(f"SELECT space, name FROM {_CHANNEL}"))
    return [Channel(space, names.get(space, name), added_ms) for space, name, added_ms in followed]


def settings(vault: Rows) -> dict[str, str]:
    """What the person has chosen, by name."""
    return dict(vault.query(f"SELECT name, value FROM {SETTING}"))


def vouched(vault: Rows, day: int, peers: Collection[bytes]) -> dict[bytes, bytes]:
    """Which of these contacts (identity, 32 B) is behind each key that they told of, by key.

    The first who said so: all can read a key once it has spoken, and a later claim takes nobody's word away.
    """
    claims = f"SELECT key, peer FROM {VOUCHED} WHERE until_day >= ? ORDER BY came_ms DESC, peer DESC"
    return {key: peer for key, peer in vault.query(claims, (day,)) if peer in peers}


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A key under which this person published in the week from ``day`` on; the seed (32 B) is gone with that week."""

    day: int
    seed: bytes | None
    key: bytes


def own_keys(vault: Rows) -> list[OwnKey]:
    """The keys under which this person published, the newest first."""
    return [OwnKey(*row) for row in vault.query(f"SELECT day, seed, key FROM {OWN_KEY} ORDER BY day DESC")]


def said(vault: Rows) -> dict[str, int]:
    """When something was last published, in ms, by what it was."""
    return dict(vault.query(f"SELECT what, at_ms FROM {SAID}"))


def away(vault: Rows) -> list[tuple[int, int]]:
    """The times in which this node could hear nobody, in order: (begin, end) in UTC seconds."""
    return [(row[0], row[1]) for row in vault.query(f"SELECT begin_s, end_s FROM {AWAY} ORDER BY begin_s")]


def link_check(vault: Rows) -> LinkCheck | None:
    """How the local link was when it was last looked at."""
    rows = vault.query(f"SELECT at_ms, gateway, domestic, abroad FROM {LINK} ORDER BY at_ms DESC, n DESC LIMIT 1")
    return (
        LinkCheck(rows[0][0], *(None if answer is None else bool(answer) for answer in rows[0][1:])) if rows else None
    )


def link_row(check: LinkCheck) -> Put:
    """The vault's row of a look at the own line; the one before goes."""
    answers = (check.gateway, check.domestic, check.abroad)
    gateway, domestic, abroad = (None if answer is None else int(answer) for answer in answers)
    row: dict[str, Value] = {"n": 1, "at_ms": check.at_ms, "gateway": gateway, "domestic": domestic, "abroad": abroad}
    return Put(LINK, row)


def series_gone(one: StoredSeries) -> Delete:
    """The row of a series that is to go."""
    return Delete(SERIES, {"entity": one.entity, "source": one.source, "signal": one.signal})


def last_s(one: StoredSeries) -> int | None:
    """When (UTC seconds) the last value of a series is; a gap is no news. None where it has none."""
    return next((t_s for t_s, value in reversed(one.points) if value is not None), None)


def series_row(one: StoredSeries, *, judged: bool) -> Put:
    """The vault's row of a series; a gap is kept as one (not a number). ``judged``: it is enough to say something."""
    times = array.array("q", [at for at, _value in one.points])
    values = array.array("d", [float("nan") if value is None else value for _at, value in one.points])
    row: dict[str, Value] = {
        "entity": one.entity,
        "source": one.source,
        "signal": one.signal,
        "step_s": one.step_s,
        "first_s": one.points[0][0] if one.points else None,
        "last_s": last_s(one) if judged else None,
        "fetched_ms": one.fetched_ms,
        "sha256": one.sha256,
        "times": times.tobytes(),
        "points": values.tobytes(),
    }
    return Put(SERIES, row)


def kept_bytes(vault: Rows) -> int:
    """What is kept of measurements and series, without indexes."""
    sums = (
        f"SELECT ifnull(sum(length(raw)), 0) FROM {RUN}",
        f"SELECT ifnull(sum(length(times) + length(points)), 0) FROM {SERIES}",
    )
    return sum(int(vault.query(sql)[0][0]) for sql in sums)


def series(vault: Rows, entity: str = "") -> list[StoredSeries]:
    """The series of a place, or all, sorted by source and signal."""
    rows = vault.query(
        f"SELECT entity, source, signal, step_s, fetched_ms, sha256, times, points FROM {SERIES}"
        " WHERE ? = '' OR entity = ? ORDER BY entity, source, signal",
        (entity, entity),
    )
    return [_series(row) for row in rows]


def signalled(vault: Rows) -> list[str]:
    """The countries of which there is a signal here, other than that contacts are heard."""
    rows = vault.query(
        f"SELECT DISTINCT substr(entity, 1, 2) FROM {SERIES} WHERE signal NOT IN (?, ?) ORDER BY 1", (DOMESTIC, FOREIGN)
    )
    return [code for (code,) in rows]


def latest_signals(vault: Rows) -> dict[str, int]:
    """When (UTC seconds) the latest value of any signal is that can be judged, by country.

    That contacts are heard makes none well.
    """
    return dict(
        vault.query(
            f"SELECT substr(entity, 1, 2), max(last_s) FROM {SERIES} WHERE last_s IS NOT NULL"
            " AND signal NOT IN (?, ?) GROUP BY 1 ORDER BY 1",
            (DOMESTIC, FOREIGN),
        )
    )


def _series(row: Sequence[Any]) -> StoredSeries:
    entity, source, signal, step_s, fetched_ms, sha256, times, points = row
    at, values = array.array("q"), array.array("d")
    at.frombytes(times)
    values.frombytes(points)
    pairs = tuple((t, None if v != v else v) for t, v in zip(at, values, strict=True))
    return StoredSeries(entity, source, signal, step_s, fetched_ms, bytes(sha256), pairs)


def _measured(row: Sequence[Any]) -> Measured:
    id, key, n, at_s, test, input, country, asn, blocking, accessible, *rest = row
    return Measured(
        id, key, n, at_s, test, input, country, asn, blocking, None if accessible is None else bool(accessible), *rest
    )


def _cut(row: Sequence[Any]) -> Cut:
    id, key, at_s, entity, state, start_s, end_s, evidence, ids, *marks = row
    read = msgspec.msgpack.decode(evidence, type=tuple[str | Fact, ...])
    witnesses = tuple(ids[at : at + 32] for at in range(0, len(ids), 32))
    return Cut(id, key, at_s, entity, state, start_s, end_s, read, witnesses, *map(bool, marks))


def _under(keys: Sequence[bytes] | None) -> str:
    return "" if keys is None else f" AND key IN ({_marks(keys)})"


def _soon_s(now_ms: int) -> int:
    """Up to when somebody's clock may run ahead: what is said to be later has not happened."""
    return now_ms // 1000 + HOUR_S


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
