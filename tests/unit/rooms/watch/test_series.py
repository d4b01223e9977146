"""Formats of series: each read as its publisher writes it, and nothing believed that no measurement can be."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.edges.main import run
from outlast.errors import ProtocolError
from outlast.rooms.watch.io.files import lines, open_capped
from outlast.rooms.watch.proto import heartbeats, series
from outlast.rooms.watch.proto.fusion import detect
from outlast.rooms.watch.proto.heartbeats import Heard
from outlast.rooms.watch.proto.monash import offset_of
from outlast.rooms.watch.proto.recognise import read_series
from outlast.rooms.watch.proto.series import DAY_S, HOUR_S, NAME_MAX, Origin, Point, SeriesError, gather, iso, time_of
from tests.unit.rooms.watch.ioda_rule import PUBLISHED, published_alerts

ORIGIN = Origin(1_700_000_000, "ab" * 32)


def read(text: str, utc_offset_h: float | None = None) -> list[Point]:
    return read_series(io.BytesIO(text.encode()), ORIGIN, utc_offset_h)


def values(points: list[Point], signal: str, entity: str = "") -> list[tuple[str, float | None]]:
    return [(iso(one.t_s), one.value) for one in points if one.signal == signal and one.entity == entity]


def test_the_dashboard_of_ioda_gives_a_series_a_column_on_its_own_grid() -> None:
    points = read(
        '"Time (UTC)","BGP (#Visible /24s)","Mozilla (City Count)"\n'
        '"2026-01-08 16:00:00",99.5,40\n'
        '"2026-01-08 16:30:00",,\n'
        '"2026-01-08 17:00:00",99.4,7.5\n'
        '"2026-01-08 17:30:00",99.3,\n'
        '"2026-01-08 18:00:00",99.2,\n'
        '"2026-01-08 18:30:00",99.2,\n'
        '"2026-01-08 19:00:00",99.2,5\n'
        '"2026-01-08 20:00:00",99.2,5\n'
    )
    assert values(points, "BGP (#Visible /24s)")[:3] == [
        ("2026-01-08T16:00:00Z", 99.5),
        ("2026-01-08T16:30:00Z", None),
        ("2026-01-08T17:00:00Z", 99.4),
    ]
    # Hourly: the empty half hours are no gaps, the empty 18:00 is one.
    assert values(points, "Mozilla (City Count)") == [
        ("2026-01-08T16:00:00Z", 40.0),
        ("2026-01-08T17:00:00Z", 7.5),
        ("2026-01-08T18:00:00Z", None),
        ("2026-01-08T19:00:00Z", 5.0),
        ("2026-01-08T20:00:00Z", 5.0),
    ]
    assert {one.step_s for one in points if "Mozilla" in one.signal} == {HOUR_S}
    assert {(one.source, one.fetched_at, one.sha256) for one in points} == {("ioda", ORIGIN.fetched_at, ORIGIN.sha256)}


def ioda_series(**changed: object) -> dict[str, object]:
    return {
        "entityType": "country",
        "entityCode": "IR",
        "entityName": "Iran",
        "datasource": "ping-slash24",
        "subtype": "",
        "from": 1_767_889_800,
        "until": 1_767_893_400,
        "step": 600,
        "nativeStep": 600,
        "values": [61_000, None, 60_990, -1, 0],
    } | changed


def test_the_api_of_ioda_gives_lists_of_lists_of_series() -> None:
    document = {"type": "signals", "error": None, "data": [[ioda_series(), ioda_series(datasource="bgp", values=[5])]]}
    points = read(json.dumps(document))
    assert values(points, "ping-slash24", "IR") == [
        ("2026-01-08T16:30:00Z", 61_000.0),
        ("2026-01-08T16:40:00Z", None),
        ("2026-01-08T16:50:00Z", 60_990.0),
        ("2026-01-08T17:00:00Z", None),
        ("2026-01-08T17:10:00Z", 0.0),
    ]
    assert len(values(points, "bgp", "IR")) == 1
    assert read(json.dumps(document["data"])) == points
    google = read(
        json.dumps([ioda_series(datasource="gtr", subtype="WEB_SEARCH", entityType="region", entityCode=4427)])
    )
    assert {(one.entity, one.signal) for one in google} == {("/region/4427", "gtr WEB_SEARCH")}
    (entity,) = {one.entity for one in read(json.dumps([ioda_series(entityType="re\ngion" * 100)]))}
    assert "\n" not in entity
    assert len(entity) <= 2 * NAME_MAX + 2


@pytest.mark.parametrize(
    "changed",
    [
        {"step": 0},
        {"step": -5},
        {"from": -1},
        {"from": 10**30},
        {"values": "many"},
        {"entityCode": None},
        {"values": []},
        {"values": [None, "x", True, [], {}]},
    ],
)
def test_impossible_series_of_ioda_are_refused(changed: dict[str, object]) -> None:
    with pytest.raises(SeriesError):
        read(json.dumps({"data": [[ioda_series(**changed)]]}))


def test_users_of_tor_are_read_by_country_without_world_and_unknown() -> None:
    relay = read(
        "#\n# The Tor Project\n#\n# URL: https://metrics.torproject.org/userstats-relay-country.csv\n#\n"
        "date,country,users,lower,upper,frac\n2020-08-08,,2000000,,,70\n2020-08-08,??,900,,,70\n"
        "2020-08-08,by,5000,4000,6000,70\n2020-08-09,by,8000,4000,6000,70\n2020-08-10,by,9000,,,4\n"
    )
    assert values(relay, "tor-relay-users", "BY") == [
        ("2020-08-08T00:00:00Z", 5000.0),
        ("2020-08-09T00:00:00Z", 8000.0),
        ("2020-08-10T00:00:00Z", None),  # Tor saw too little that day
    ]
    assert {one.entity for one in relay} == {"BY"}
    bridge = read("date,country,users,frac\n2020-08-08,by,300,92\n2020-08-09,by,3000,92\n")
    assert {one.signal for one in bridge} == {"tor-bridge-users"}


def test_counts_of_ooni_are_read_from_json_and_csv_alike() -> None:
    rows = [
        {"measurement_start_day": "2021-07-09", "anomaly_count": 10, "confirmed_count": 20, "failure_count": 5,
         "ok_count": 70, "measurement_count": 105, "probe_cc": "IR", "domain": "a"},
        {"measurement_start_day": "2021-07-09", "anomaly_count": 0, "confirmed_count": 0, "failure_count": 0,
         "ok_count": 100, "measurement_count": 100, "probe_cc": "IR", "domain": "b"},
        {"measurement_start_day": "2021-07-10", "anomaly_count": 1, "confirmed_count": 0, "failure_count": 0,
         "ok_count": 4, "measurement_count": 5, "probe_cc": "IR", "domain": "a"},
    ]  # fmt: skip
    points = read(json.dumps({"dimension_count": 1, "result": rows, "v": 0}))
    assert values(points, "ooni-measurements", "IR") == [("2021-07-09T00:00:00Z", 205.0), ("2021-07-10T00:00:00Z", 5.0)]
    # Of five measurements nothing is concluded.
    assert values(points, "ooni-ok-share", "IR") == [("2021-07-09T00:00:00Z", 0.85), ("2021-07-10T00:00:00Z", None)]
    head = list(rows[0])
    text = "\n".join([",".join(head), *(",".join(str(row[name]) for name in head) for row in rows)])
    assert read(text) == points


def test_regions_of_monash_come_in_utc_whatever_clock_the_file_has() -> None:
    iran = read(
        "iso,id_1,name_1,id_2,name_2,time_e,time_e_str,lat,lon,connectivity\n"
        "IRN,1,Fars,1,Shiraz,1573941600,16-Nov-2019 22:00:00,1,2,4\n"
        "IRN,1,Fars,1,Shiraz,1573945200,16-Nov-2019 23:00:00,1,2,-1\n"
    )
    assert values(iran, "connectivity", "IRN/Fars/Shiraz") == [
        ("2019-11-16T18:30:00Z", 4.0),
        ("2019-11-16T19:30:00Z", None),
    ]
    usa = read(
        "time_e_utc,time_e_utc_str,connectivity,iso,name_1,name_2,lat,lon\n"
        "1598227200,24-Aug-2020 00:00:00,10,USA,Louisiana,Acadia,30,-92\n"
    )
    assert values(usa, "connectivity", "USA/Louisiana/Acadia") == [("2020-08-24T00:00:00Z", 10.0)]
    latency = read(
        "country_iso_three_char_code,adm1_name,timezone_offset,timezone_name,time_local,latency_indx\n"
        "UKR,Kiev City,2,Europe/Kiev,01-Dec-2021 05:00:00,99.5\nUKR,Kiev City,2,Europe/Kiev,01-Dec-2021 08:00:00,\n"
    )
    assert values(latency, "latency-index", "UKR/Kiev City")[0] == ("2021-12-01T03:00:00Z", 99.5)


def test_single_answers_of_monash_are_counted_by_whole_day() -> None:
    points = read(
        "ip_hash,iso,name_1,name_2,time_local_str,rtt\n"
        "01,MMR,Bago,Pegu,2021-02-08 21:18:11.000,356\n"
        "01,MMR,Bago,Pegu,2021-02-09 21:18:11.000,356\n02,MMR,Bago,Pegu,2021-02-09 22:18:11.000,300\n"
        "01,MMR,Bago,Pegu,2021-02-10 21:18:11.000,\n01,MMR,Bago,Pegu,2021-02-11 07:18:11.000,400\n"
    )
    assert values(points, "answers", "MMR/Bago/Pegu") == [("2021-02-09T00:00:00Z", 2.0), ("2021-02-10T00:00:00Z", 0.0)]


def test_local_times_of_an_unknown_place_need_to_be_told_where() -> None:
    text = "iso,name_1,time_e,connectivity\nAUS,Victoria,1573941600,100\n"
    with pytest.raises(SeriesError, match="offset of AUS"):
        read(text)
    assert values(read(text, 11), "connectivity", "AUS/Victoria") == [("2019-11-16T11:00:00Z", 100.0)]
    # Two zones; another offset until 2021.
    assert [offset_of(country, 1_573_941_600) for country in ("ECU", "SSD")] == [None, None]


def test_iran_had_summer_time_until_2022() -> None:
    assert [offset_of("IRN", time_of(day) or 0) for day in ("2019-11-16", "2019-07-01", "2023-07-01")] == [
        3.5,
        4.5,
        3.5,
    ]


@pytest.mark.parametrize(
    ("begins", "ends"), [("2019-03-22", "2019-09-22"), ("2020-03-21", "2020-09-21"), ("2022-03-22", "2022-09-22")]
)
def test_iran_s_summer_time_began_and_ended_a_day_earlier_in_leap_years(begins: str, ends: str) -> None:
    first, last = time_of(begins) or 0, time_of(ends) or 0
    assert [offset_of("IRN", at) for at in (first - 1, first, last - 1, last)] == [3.5, 4.5, 4.5, 3.5]


def shares(rows: list[Heard], begin_s: int, hours: int, signal: str = heartbeats.DOMESTIC) -> list[float | None]:
    points = heartbeats.read_rows(rows, "XX", begin_s, begin_s + hours * HOUR_S, HOUR_S, ORIGIN)
    return [one.value for one in points if one.signal == signal]


HEARD_S = 1_700_000_000 // HOUR_S * HOUR_S


def test_heartbeats_are_the_share_of_the_nodes_that_are_usually_there() -> None:
    begin = HEARD_S
    rows = [
        Heard(f"n{node}", begin + hour * HOUR_S + node, node < 3, f"AS{node}")
        for hour in range(10)
        for node in range(6)
        if hour < 5 or node > 1
    ]
    assert shares(rows, begin, 10) == [1.0] * 5 + [pytest.approx(1 / 3)] * 5
    assert shares(rows, begin, 10, heartbeats.FOREIGN) == [1.0] * 10
    assert shares(rows, begin + 9 * DAY_S, 2) == [None] * 2  # all moved on long ago: unknown, not down
    with pytest.raises(SeriesError):
        heartbeats.read_rows(rows, "XX", 0, 10**12, 1, ORIGIN)


def test_each_network_weighs_the_same_however_many_are_in_it() -> None:
    crowd = [Heard(f"crowd {node}", HEARD_S, True, "AS1") for node in range(20)]
    others = [
        Heard(f"n{node}", HEARD_S + hour * HOUR_S, True, f"AS{2 + node}") for node in range(3) for hour in range(2)
    ]
    assert shares([*crowd, *others], HEARD_S, 2) == [1.0, 0.75]
    assert shares([*crowd, *others[:2]], HEARD_S, 2) == [None, None], "two networks are no country"


def test_one_person_counts_once_whatever_networks_they_name() -> None:
    loud = [Heard("loud", HEARD_S, True, f"AS{number}") for number in range(50)]
    assert shares(loud, HEARD_S, 2) == [None, None]
    others = [Heard(f"n{node}", HEARD_S + hour * HOUR_S, True, f"AS{node}") for node in range(3) for hour in range(2)]
    found = shares([*loud, *others], HEARD_S, 2)
    assert found[0] == 1.0
    assert found[1] is not None
    assert found[1] >= 0.75
    moved = [Heard("n0", HEARD_S + HOUR_S, True, "AS9"), *others[2:]]
    assert shares([others[0], *moved], HEARD_S, 2) == [1.0, 1.0], "whoever moved is missed nowhere"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-01-08 16:30:00", "2026-01-08T16:30:00Z"),
        ("2026-01-08T16:30:00+03:30", "2026-01-08T13:00:00Z"),
        ("1767889800", "2026-01-08T16:30:00Z"),
        ("1767889800000", "2026-01-08T16:30:00Z"),
        ("16-Nov-2019 22:00:00", "2019-11-16T22:00:00Z"),
        ("2021-07-09", "2021-07-09T00:00:00Z"),
        ("9999-12-31", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("nan", None),
        ("1e400", None),
        ("-5", None),
        ("", None),
        ("1" * 5000, None),
    ],
)
def test_times_are_read_or_refused_one_by_one(text: str, at: str | None) -> None:
    found = time_of(text)
    assert (None if found is None else iso(found)) == at


def test_impossible_values_are_missing_and_doubled_and_unordered_rows_are_set_right() -> None:
    points = read(
        "Time (UTC),bgp\n2026-01-01 02:00:00,3\n2026-01-01 00:00:00,1\n2026-01-01 01:00:00,nan\n"
        "2026-01-01 03:00:00,-7\n2026-01-01 04:00:00,inf\n2026-01-01 00:00:00,2\nnever,5\n2026-01-01 05:00:00,1e999\n"
        "2026-01-01 06:00:00,4\n\n2026-01-01 07:00:00\n2026-01-01 07:00:00,5,6,7\n2026-01-01 08:00:00,5\n"
    )
    assert [value for _, value in values(points, "bgp")] == [2.0, None, 3.0, None, None, None, 4.0, 5.0, 5.0]


def test_what_ioda_computes_out_of_a_signal_is_no_second_signal() -> None:
    several = [ioda_series(datasource=name) for name in ("gtr", "gtr-norm", "gtr-sarima", "bgp")]
    points = read(json.dumps({"data": [several]}))
    assert {point.signal.split()[0] for point in points} == {"gtr", "bgp"}
    with pytest.raises(SeriesError):
        read(json.dumps({"data": [several[1:3]]}))


def test_numbers_that_nobody_counts_to_are_missing() -> None:
    entity = '{"entityType":"country","entityCode":"BY","datasource":"bgp","from":1596240000,"step":300,"values":'
    points = read('{"data":[[' + entity + "[5," + "9" * 400 + ',-1,true,null,"6",1e15,1.1e15,1e308]}]]}')
    assert [value for _, value in values(points, "bgp", "BY")] == [5.0, *[None] * 5, 1e15, None, None]


def test_values_whose_mean_no_float_can_hold_make_no_outage() -> None:
    half_hours = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=30 * number) for number in range(600)]
    rows = [f"{at:%Y-%m-%d %H:%M:%S},900,{'' if number % 2 else '1e308'}" for number, at in enumerate(half_hours)]
    reports = detect(read("\n".join(["Time (UTC),Active Probing,bgp", *rows])))
    assert [report.alarms for report in reports] == [()] * len(reports)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\r\n"])
def test_lines_end_as_any_system_ends_them(end: str) -> None:
    rows = ["\ufeffTime (UTC),bgp", "2026-01-01 00:00:00,3", "2026-01-01 01:00:00,4"]
    assert [value for _, value in values(read(end.join(rows) + end), "bgp")] == [3.0, 4.0]


def test_a_name_is_what_can_be_seen_of_it() -> None:
    points = read("Time (UTC),b\x1b[2Jg\u202e\x9bp  v6\n2026-01-01 00:00:00,3\n")
    assert {point.signal for point in points} == {"b[2Jgp v6"}


def test_a_line_that_is_all_line_ends_costs_no_memory_of_its_own() -> None:
    line = b"x" + b"\r" * (8 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(SeriesError):
            read_series([line], ORIGIN)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n\n\n", b"a,b\n1,2\n", b"{", b"[" * 100_000, b'{"data":' * 50_000, b"\xff\xfe\x00", b'"',
        b'"a\n' * 70_000, b"Time (UTC),bgp\n", b"Time (UTC),bgp\n2026-01-01 00:00:00,\n", b'{"result": []}',
        b'{"result": 5}', b"[]", b"{}", b'{"data": [[{"entityType": "country"}]]}', b"Time (UTC)," + b"x" * 200_000,
        b"date,country,users\n,,\n", b"iso,time_e,connectivity\nIRN,99999999999999,5\n", b"\0" * 1000,
    ],
)  # fmt: skip
def test_what_is_no_series_is_one_clear_error(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_series(io.BytesIO(content), ORIGIN)


HEADS = (
    "Time (UTC),bgp,Active Probing",
    "date,country,users,lower,upper,frac",
    "measurement_start_day,probe_cc,anomaly_count,confirmed_count,failure_count,ok_count,measurement_count",
    "iso,name_1,time_e,connectivity",
)
CELL = st.one_of(
    st.sampled_from(
        ["", "nan", "-1", "1e308", "inf", "IRN", "by", "2026-01-01 00:00:00", "2026-01-01", '"', "0x1", "٣"]
    ),
    st.integers(0, 10**12).map(str),
    st.text(max_size=8),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(HEADS), st.lists(st.lists(CELL, max_size=8), max_size=12))
def test_any_cells_are_read_or_refused_and_judged_without_a_fault(head: str, rows: list[list[str]]) -> None:
    text = "\n".join([head, *(",".join(row) for row in rows)])
    try:
        points = read(text)
    except ProtocolError:
        return
    assert all(one.value is None or one.value >= 0 for one in points)
    for report in detect(points, regions=True):
        assert all(alarm.end_s is None or alarm.end_s >= alarm.start_s for alarm in report.alarms)


JSONS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**18), 10**18), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from([*ioda_series(), "data", "result", "measurement_start_day", "ok_count"]), inner, max_size=11
        ),
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(JSONS, st.dictionaries(st.sampled_from(list(ioda_series())), JSONS, max_size=3))
def test_any_document_is_read_or_refused(document: object, changed: dict[str, object]) -> None:
    for one in (document, {"data": [[ioda_series(**changed)]]}, {"result": [document]}):
        try:
            points = read_series(io.BytesIO(msgspec.json.encode(one)), ORIGIN)
        except ProtocolError:
            continue
        assert gather(points)


def test_a_bomb_and_an_endless_line_end_in_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"Time (UTC),bgp\n" + b"0" * (80 << 20), 1))
    tracemalloc.start()
    try:
        with open_capped(tmp_path / "bomb.gz", 1 << 22) as source, pytest.raises(ProtocolError):
            read_series(lines(source, 1 << 22), ORIGIN)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_the_command_tells_damage_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    assert run(["watch", "detect", str(tmp_path / "a.csv"), "--json"]) == 6
    assert json.loads(capsys.readouterr().err)["code"] == 6
    assert run(["watch", "detect", str(tmp_path / "nothing.csv")]) == 4
    assert run(["watch", "detect", str(tmp_path)]) == 2
    (tmp_path / "b.csv").write_text("Time (UTC),bgp\n2026-01-01 00:00:00,5\n2026-01-01 01:00:00,5\n")
    assert run(["watch", "detect", str(tmp_path / "b.csv"), "--signal", "nothing"]) == 4
    assert run(["watch", "detect", str(tmp_path / "b.csv"), "--utc-offset", "99"]) == 2
    capsys.readouterr()
    assert run(["watch", "detect", str(tmp_path / "b.csv")]) == 0
    told = capsys.readouterr()
    assert "No alarm" not in told.out
    assert "Not judged, since less than a day is known, or losing everything is usual: country, bgp" in told.err


def test_the_command_says_where_there_was_no_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"2026-01-{1 + hour // 24:02d} {hour % 24:02d}:00:00,{100 if hour != 50 else 3}" for hour in range(72)]
    (tmp_path / "c.csv").write_text("\n".join(["Time (UTC),bgp", *rows]))
    assert run(["watch", "detect", str(tmp_path / "c.csv"), "--signal", "bgp"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("bgp     blackout  2026-01-03T02:00:00Z")
    (tmp_path / "c.csv").write_text("\n".join(["Time (UTC),bgp", *rows[:48]]))
    assert run(["watch", "detect", str(tmp_path / "c.csv")]) == 0
    told = capsys.readouterr()
    assert told.out == "No alarm: country, bgp\n"
    assert told.err == ""
    silent = [row.partition(",")[0] + "," for row in rows[48:52]]
    (tmp_path / "c.csv").write_text("\n".join(["Time (UTC),bgp", *rows[:48], *silent]))
    assert run(["watch", "detect", str(tmp_path / "c.csv")]) == 0
    told = capsys.readouterr()
    assert told.out == "No alarm: country (until 2026-01-03T00:00:00Z), bgp (until 2026-01-03T00:00:00Z)\n"
    assert "bgp: no values since 2026-01-03T00:00:00Z, so nothing is known from then on" in told.err


def test_a_file_made_to_be_slow_is_refused_or_ends_soon() -> None:
    begin = 1_700_000_000
    ragged = [Point("x", "XX", f"s{at % 10_000}", begin + at * 60, 1.0, 60) for at in range(20_000)]
    with pytest.raises(SeriesError, match="different times"):
        detect(ragged)
    dense = [Point("x", "XX", "bgp", begin + at, 100.0 + at % 3, 1) for at in range(200_000)]
    assert all(not report.alarms for report in detect(dense))


@pytest.mark.parametrize(
    "head", ["Time (UTC),bgp", "date,country,users", "measurement_start_day,measurement_count", "rtt,time_e_utc,iso"]
)
def test_a_table_of_too_many_rows_is_refused_at_the_first_beyond(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "POINTS_MAX", 10)
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield head.encode()
        while True:
            taken += 1
            yield b"nothing,nothing,nothing"

    with pytest.raises(SeriesError, match="more than 10 rows"):
        read_series(endless(), ORIGIN)
    assert taken == 11


def test_the_published_rule_of_ioda_lets_go_when_its_window_is_full_of_the_outage() -> None:
    rows = [Point("ioda", "IR", "ping-slash24", 1_700_000_000 + at * HOUR_S, value, HOUR_S) for at, value in
            enumerate([100.0] * 400 + [10.0] * 200)]  # fmt: skip
    ((begin, end),) = published_alerts(rows, PUBLISHED["probing"])
    assert begin == rows[400].t_s
    assert end is not None
    assert 3 * DAY_S < end - begin < 4 * DAY_S
