"""OONI's own 50 cases of web_connectivity: what its probe recorded, and its golden observations and analyses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.watch.proto.analysis import analyse
from outlast.rooms.watch.proto.classify import Verdict, classify
from outlast.rooms.watch.proto.measurement import from_object, read
from outlast.rooms.watch.proto.observations import classic, observe
from tests.real import real

VERDICT_KEYS = [
    "accessible",
    "blocking",
    "body_length_match",
    "body_proportion",
    "dns_consistency",
    "dns_experiment_failure",
    "headers_match",
    "http_experiment_failure",
    "status_code_match",
    "title_match",
    "x_blocking_flags",
    "x_dns_flags",
    "x_null_null_flags",
]
"""Test keys in which a measurement says what it concluded."""
FLAGS = {"dns": 1, "tcp": 2, "tls": 4, "http": 8 | 16}
"""Bits of ``x_blocking_flags``, OONI's own verdict by layer; 16 of ``x_null_null_flags``: addresses out of nowhere."""


def cases() -> list[Path]:
    """The folders of the cases."""
    found = sorted(path for path in real("watch/ooni/qa").iterdir() if path.is_dir())
    assert len(found) == 50
    return found


def recorded(case: Path) -> dict[str, Any]:
    """A case's measurement as JSON."""
    found: dict[str, Any] = json.loads((case / "measurement.json").read_bytes())
    return found


def as_lists(value: Any) -> Any:
    """Go writes a set of names as an object of trues, and an empty set as {} or []."""
    match value:
        case dict() if value and all(one is True for one in value.values()):
            return sorted(value)
        case dict():
            return {key: as_lists(one) for key, one in value.items()} or []
        case list():
            return [as_lists(one) for one in value]
        case _:
            return value


def networks_in(value: Any) -> dict[str, int | None]:
    """The network of each address as the golden files have it: what OONI's database said on the day."""
    match value:
        case {"IPAddress": str() as address, "IPAddressASN": asn}:
            return {address: asn}
        case dict():
            return {key: asn for one in value.values() for key, asn in networks_in(one).items()}
        case list():
            return {key: asn for one in value for key, asn in networks_in(one).items()}
        case _:
            return {}


def test_all_cases_have_the_recorded_verdict() -> None:
    for case in cases():
        verdict, keys = classify(read((case / "measurement.json").read_bytes())), recorded(case)["test_keys"]
        assert (verdict.blocking, verdict.accessible) == (keys["blocking"], keys["accessible"]), case.name


def test_all_cases_have_a_layer_blocked_where_oonis_flags_say_so() -> None:
    for case in cases():
        layers, keys = classify(read((case / "measurement.json").read_bytes())).layers, recorded(case)["test_keys"]
        expected = {layer for layer, bits in FLAGS.items() if keys["x_blocking_flags"] & bits}
        expected |= {"dns"} if keys["x_null_null_flags"] & 16 else set()
        assert {layer for layer in FLAGS if getattr(layers, layer) == "blocked"} == expected, case.name


def test_only_the_throttled_cases_are_throttled() -> None:
    throttled = {
        case.name
        for case in cases()
        if classify(read((case / "measurement.json").read_bytes())).layers.throttled == "blocked"
    }
    assert throttled == {"throttlingWithHTTP", "throttlingWithHTTPS"}


@pytest.mark.parametrize("only_classic", [False, True], ids=["all", "classic"])
def test_observations_and_analyses_have_the_golden_content(only_classic: bool) -> None:
    suffix = "_classic" if only_classic else ""
    for case in cases():
        golden = {
            name: json.loads((case / f"{name}{suffix}.json").read_bytes()) for name in ("observations", "analysis")
        }
        measurement = read((case / "measurement.json").read_bytes())
        networks = {**measurement.asns, **networks_in(golden)}
        found = observe(measurement, networks.get)
        found = classic(found) if only_classic else found
        for name, ours in (("observations", found), ("analysis", analyse(found, networks.get))):
            assert as_lists(json.loads(msgspec.json.encode(ours))) == as_lists(golden[name]), f"{case.name} {name}"


CHOSEN = st.dictionaries(
    st.sampled_from(VERDICT_KEYS),
    st.none()
    | st.booleans()
    | st.integers(0, 63)
    | st.sampled_from(["dns", "tcp_ip", "http-diff", "consistent", "eof"]),
)


@given(case=st.integers(0, 49), altered=CHOSEN, removed=st.sets(st.sampled_from(VERDICT_KEYS)))
def test_what_a_measurement_says_of_itself_changes_nothing(
    case: int, altered: dict[str, object], removed: set[str]
) -> None:
    measured = recorded(cases()[case])
    expected: Verdict = classify(from_object(measured))
    keys = {name: value for name, value in {**measured["test_keys"], **altered}.items() if name not in removed}
    assert classify(from_object({**measured, "test_keys": keys})) == expected
