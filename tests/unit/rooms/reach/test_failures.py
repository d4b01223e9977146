"""What happened in an attempt gives its class, and of two explanations that fit the one that claims less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.reach.proto.failures import ADVICE, BridgeError, Kind, Observed, Step, Stop, judge

HOUR_S = 3600


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        (Observed(Step.NAME, Stop.NO_NAME), "dns"),
        (Observed(Step.CONNECT, Stop.SILENCE, new_address=True), "dns"),
        (Observed(Step.HELLO, Stop.CERTIFICATE, 300, 4000, new_address=True), "dns"),
        (Observed(Step.CONNECT, Stop.REFUSED), "refused"),
        (Observed(Step.CONNECT, Stop.SILENCE, elapsed_ms=3000), "syn-drop"),
        (Observed(Step.CONNECT, Stop.UNREACHABLE), "unknown"),
        (Observed(Step.HELLO, Stop.RESET, 517), "rst-after-hello"),
        (Observed(Step.HELLO, Stop.SILENCE, 517, unacked_bytes=517), "freeze@0"),
        (Observed(Step.HELLO, Stop.SILENCE, 517, 1400), "freeze@1400"),
        (Observed(Step.HELLO, Stop.CERTIFICATE, 517, 4000), "tls-mitm"),
        (Observed(Step.HELLO, Stop.PLAIN, 517, 200), "captive-portal"),
        (Observed(Step.HELLO, Stop.SILENCE, 80, unacked_bytes=80, looks_random=True), "fully-encrypted-filter"),
        # The server's kernel took the bytes: that is no filter.
        (Observed(Step.HELLO, Stop.SILENCE, 80, unacked_bytes=0, looks_random=True), "wrong-key"),
        # A server whose own targets do not answer ends it in the same way.
        (Observed(Step.HELLO, Stop.RESET, 80, unacked_bytes=0, looks_random=True), "unknown"),
        (Observed(Step.HELLO, Stop.CLOSED, 80, unacked_bytes=0, looks_random=True), "unknown"),
        # Whether they arrived is not known: neither is said.
        (Observed(Step.HELLO, Stop.SILENCE, 80, looks_random=True), "unknown"),
        (Observed(Step.HELLO, Stop.SILENCE, 517, unacked_bytes=0), "unknown"),
        (Observed(Step.HELLO, Stop.CLOSED, 517), "unknown"),
        (Observed(Step.HELLO, Stop.DATES, 517, 4000), "unknown"),
        (Observed(Step.HELLO, Stop.DATES, 517, 4000, clock_off_s=-400 * 24 * HOUR_S), "wrong-clock"),
        (Observed(Step.KEYS, Stop.ANSWER, 900, 6000, clock_off_s=60), "wrong-key"),
        (Observed(Step.KEYS, Stop.ANSWER, 900, 6000, clock_off_s=49 * HOUR_S), "wrong-clock"),
        (Observed(Step.STREAM, Stop.SILENCE, 16_400, 3000, unacked_bytes=2800), "freeze@13600"),
        (Observed(Step.STREAM, Stop.SILENCE, 65_000, 16_211, unacked_bytes=0), "freeze@16211"),
        (Observed(Step.KEYS, Stop.SLOW, 1_000, 5_000, elapsed_ms=10_000), "throttled"),
        (Observed(Step.STREAM, Stop.SLOW, 65_000, 9000, elapsed_ms=10_000), "throttled"),
        (Observed(Step.STREAM, Stop.RESET, 65_000, 9000), "unknown"),
    ],
)
def test_what_was_seen_has_its_class(seen: Observed, name: str) -> None:
    assert judge(seen).name == name


observed = st.builds(
    Observed,
    st.sampled_from(Step),
    st.sampled_from(Stop),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
    st.none() | st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(-(1 << 40), 1 << 40),
)


@given(observed)
def test_whatever_was_seen_has_a_class_with_evidence_and_advice(seen: Observed) -> None:
    failure = judge(seen)
    assert str(failure.evidence)
    assert failure.at_bytes >= 0
    text = str(BridgeError(failure))
    assert failure.name in text
    assert text.endswith(str(ADVICE[failure.kind]))
    assert "\n" not in text


@given(observed)
def test_a_filter_of_what_looks_random_is_named_only_where_first_bytes_were_not_acknowledged(seen: Observed) -> None:
    if judge(seen).kind is Kind.FULLY_ENCRYPTED_FILTER:
        assert seen.unacked_bytes
        assert not seen.received_bytes
