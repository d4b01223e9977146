"""Visible prefixes of a country: whose a prefix is, when it is visible, and what its intervals say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.edges.main import run
from outlast.errors import ProtocolError
from outlast.rooms.watch import cli
from outlast.rooms.watch.proto import visibility
from outlast.rooms.watch.proto.detector import ROUTES, kind_of
from outlast.rooms.watch.proto.fusion import detect
from outlast.rooms.watch.proto.geoip import Ranges, read_ranges
from outlast.rooms.watch.proto.mrt import Reader
from outlast.rooms.watch.proto.series import gather
from outlast.rooms.watch.proto.visibility import STEP_S, Visibility
from tests.unit.rooms.watch import mrt_files as write

GEOIP = b"""# made by hand
167772160,184549375,BY
184549376,184549631,RU
3221225984,3221226239,BY
""".splitlines()
GEOIP6 = b"""# made by hand
2001:db8::,2001:db8:ffff:ffff:ffff:ffff:ffff:ffff,BY
""".splitlines()
START_S = write.AT_S // STEP_S * STEP_S


def country() -> Visibility:
    return Visibility(read_ranges(GEOIP, "by"), read_ranges(GEOIP6, "BY", ipv6=True))


def watched(*records: bytes) -> Visibility:
    seen = country()
    for update in Reader().updates(records):
        seen.take(update)
    return seen


def said(
    came: Iterable[str] = (), gone: Iterable[str] = (), *, step: int = 0, peer: str = "198.51.100.1", six: bool = False
) -> bytes:
    body = write.routes(write.nlri(*came), write.nlri(*gone))
    if six:
        body = write.routes(attributes=write.reach(write.nlri(*came)) + write.unreach(write.nlri(*gone)))
    return write.bgp4mp(body, at_s=START_S + step * STEP_S, peer=peer)


@pytest.mark.parametrize(
    ("prefix", "ours"),
    [("10.0.0.0/8", True), ("10.255.255.0/24", True), ("11.0.0.0/24", False), ("9.0.0.0/8", False),
     ("192.0.2.0/24", True), ("192.0.3.0/24", False), ("0.0.0.0/0", False)],
)  # fmt: skip
def test_a_prefix_belongs_to_where_it_begins(prefix: str, ours: bool) -> None:
    assert read_ranges(GEOIP, "BY").holds(int.from_bytes(write.nlri(prefix))) is ours


def test_a_line_that_is_no_range_is_refused() -> None:
    for line in (b"1,BY", b"a,b,BY", b",,BY", b"1.2.3.4,1.2.3.5,BY"):
        with pytest.raises(ProtocolError, match="line 1"):
            read_ranges([line], "BY")
    with pytest.raises(ProtocolError):
        read_ranges([b"1,2,BY"], "BY", ipv6=True)


def test_a_prefix_is_visible_until_the_last_peer_withdraws_it() -> None:
    seen = watched(
        said(["10.1.0.0/16"]),
        said(["10.1.0.0/16"], peer="198.51.100.2"),
        said(gone=["10.1.0.0/16"], step=1),
        said(gone=["10.1.0.0/16"], step=2, peer="198.51.100.2"),
    )
    assert [(step.t_s - START_S, step.prefixes, step.slash24s) for step in seen.steps()] == [
        (0, 1, 256), (STEP_S, 1, 256), (2 * STEP_S, 0, 0)
    ]  # fmt: skip
    assert [(step.announced, step.withdrawn) for step in seen.steps()] == [(2, 0), (0, 1), (0, 1)]


def test_prefixes_of_others_and_repetitions_change_nothing() -> None:
    (step,) = watched(said(["10.1.0.0/16", "8.8.8.0/24"]), said(["10.1.0.0/16"]), said(gone=["8.8.8.0/24"])).steps()
    assert (step.prefixes, step.announced, step.withdrawn) == (1, 2, 0)


def test_ipv6_counts_among_prefixes_and_not_among_blocks_of_ipv4() -> None:
    (step,) = watched(said(["2001:db8:1::/48", "2001:dba::/32"], six=True), said(["192.0.2.0/24"])).steps()
    assert (step.prefixes, step.slash24s) == (2, 1)


@pytest.mark.parametrize(
    ("prefixes", "blocks"),
    [(["10.0.0.0/8", "10.1.0.0/16"], 65_536), (["10.0.0.0/25", "10.0.0.128/25"], 1),
     (["10.0.0.0/24", "10.0.2.0/24"], 2)],
)  # fmt: skip
def test_blocks_are_counted_once(prefixes: list[str], blocks: int) -> None:
    assert watched(said(prefixes)).steps()[-1].slash24s == blocks


def test_silence_of_the_collector_is_missing_and_no_loss() -> None:
    seen = watched(said(["10.1.0.0/16"]), said(["8.8.8.0/24"], step=3))
    assert [step.heard for step in seen.steps()] == [True, False, False, True]
    values = [point.value for point in seen.points("BY") if point.signal == visibility.PREFIXES]
    assert values == [1.0, None, None, 1.0]


def test_times_that_jump_make_no_endless_series() -> None:
    seen = watched(said(["10.1.0.0/16"]), write.bgp4mp(write.routes(write.nlri("10.2.0.0/16")), at_s=4_000_000_000))
    assert len(seen.steps()) == 2
    earlier = watched(said(["10.1.0.0/16"], step=5), said(["10.2.0.0/16"]))
    assert [step.prefixes for step in earlier.steps()] == [2]


def test_there_is_an_end_to_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "STEPS_MAX", 5)
    seen = watched(*(said(["10.1.0.0/16"], step=step) for step in range(50)))
    assert seen.full
    assert len(seen.steps()) == 6


def test_more_peers_than_places_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "PEERS_MAX", 2)
    peers = [f"198.51.100.{number}" for number in range(5)]
    assert watched(*(said(["10.1.0.0/16"], peer=peer) for peer in peers)).steps()[-1].prefixes == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), max_size=40))
def test_what_is_visible_is_what_some_peer_announces(events: list[tuple[bool, int, int]]) -> None:
    holds: set[tuple[int, int]] = set()
    records = []
    for came, prefix, peer in events:
        name = [f"10.{prefix}.0.0/16"]
        records.append(said(name if came else (), () if came else name, peer=f"198.51.100.{peer}"))
        (holds.add if came else holds.discard)((prefix, peer))
    steps = watched(*records).steps()
    assert (steps[-1].prefixes if steps else 0) == len({prefix for prefix, _ in holds})


def test_the_detector_takes_the_series_as_routes_and_finds_them_gone() -> None:
    names = [f"10.{number}.0.0/16" for number in range(40)]
    days = 16 * 86_400 // STEP_S
    keep_alive = "8.8.8.0/24"
    records = [said(names)] + [said([keep_alive], step=step) for step in range(1, days)]
    records += [said(gone=names, step=days)] + [said([keep_alive], step=days + step) for step in range(1, 12)]
    points = list(watched(*records).points("BY"))
    assert {kind_of(signal) for _, _, signal in gather(points)} == {ROUTES}
    alarms = [alarm for report in detect(points) for alarm in report.alarms]
    assert alarms
    assert {alarm.start_s for alarm in alarms} == {START_S + days * STEP_S}


def test_the_command_adds_the_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "geoip").write_bytes(b"\n".join(GEOIP))
    (tmp_path / "updates").write_bytes(said(["10.1.0.0/16", "8.8.8.0/24"]) + said(gone=["10.1.0.0/16"], step=1))
    monkeypatch.setattr(cli, "GEOIP", tmp_path)
    command = ["watch", "mrt", str(tmp_path / "updates"), "--json", "--country"]
    assert run([*command, "BY"]) == 4
    assert "tor-geoipdb" in capsys.readouterr().err
    (tmp_path / "geoip6").write_bytes(b"\n".join(GEOIP6))
    assert run([*command, "by"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["country"], answer["prefixes"]) == ("BY", 2)
    assert [(step["prefixes"], step["slash24s"]) for step in answer["series"]] == [(1, 256), (0, 0)]
    assert run([*command, "XX"]) == 4
    assert run([*command, "Atlantis"]) == 4
    for name in ("belarus", "BLR", " By "):
        assert run([*command, name]) == 0
        assert json.loads(capsys.readouterr().out) == answer


def test_a_country_without_ranges_holds_nothing() -> None:
    assert not Ranges([]).holds(0)
