"""Token buckets: over any time no more passes than came, and whoever waits as long as told may go on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.reach.proto.token_bucket import Allowance, TokenBucket, wait_s


@given(
    st.integers(1, 10**7),
    st.integers(1, 10**7),
    st.lists(st.tuples(st.integers(1, 65_536), st.floats(0, 2)), min_size=1, max_size=40),
)
def test_over_any_time_passes_what_came_and_one_read_more(
    per_s: int, burst: int, reads: list[tuple[int, float]]
) -> None:
    bucket, now_s, passed = TokenBucket(per_s, burst, 100.0), 100.0, 0
    for size, idle_s in reads:
        now_s += idle_s + bucket.wait_s(now_s) * 1.000001 + 1e-6
        assert bucket.wait_s(now_s) == pytest.approx(0, abs=1e-3)
        bucket.take(size, now_s)
        passed += size
        assert passed <= burst + per_s * (now_s - 100.0) + size + 1


def test_a_full_bucket_holds_no_more_however_long_nobody_takes() -> None:
    bucket = TokenBucket(1000, 5000, 0.0)
    assert bucket.left(1e6) == 5000


def test_what_was_taken_too_much_is_waited_for() -> None:
    bucket = TokenBucket(1000, 5000, 0.0)
    bucket.take(7000, 0.0)
    assert bucket.left(0.0) == -2000
    assert bucket.wait_s(0.0, 1000) == pytest.approx(3.0)
    assert bucket.wait_s(3.0, 1000) == pytest.approx(0.0)


def test_a_clock_that_goes_back_brings_nothing() -> None:
    bucket = TokenBucket(1000, 5000, 100.0)
    bucket.take(5000, 100.0)
    assert bucket.left(50.0) == 0
    assert bucket.left(101.0) == pytest.approx(1000)


def test_who_stands_before_several_buckets_waits_for_the_slowest() -> None:
    own, all_together = TokenBucket(1000, 1000, 0.0), TokenBucket(100, 1000, 0.0)
    own.take(1000, 0.0)
    all_together.take(1000, 0.0)
    assert wait_s([own, all_together], 0.0, 100) == pytest.approx(1.0)
    assert wait_s([], 0.0) == 0


@pytest.mark.parametrize(("per_s", "burst"), [(0, 1), (1, 0), (-1, 1)])
def test_a_bucket_that_nothing_can_pass_is_refused(per_s: int, burst: int) -> None:
    with pytest.raises(ValueError, match="rate"):
        TokenBucket(per_s, burst, 0.0)


def test_an_allowance_ends_with_its_bytes_and_begins_anew_with_the_day() -> None:
    allowance = Allowance(1000, 5)
    assert allowance.take(999, 5)
    assert not allowance.take(1, 5)
    assert allowance.spent == 1000
    assert allowance.take(10, 6)
    assert allowance.spent == 10
