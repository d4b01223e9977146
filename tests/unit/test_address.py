"""Addresses as people write them, and whose they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.address import Target, household, read, show
from outlast.errors import UsageError


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_survives_being_written(host: object, port: int) -> None:
    assert read(show(Target(str(host), port))) == (str(host), port)


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:", "host:p", "host:70000", "fe80::1:80", "[fe80::1:80", "host:-1", "[]:1", "a:١"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read(text)


def test_who_has_a_network_of_ipv6_counts_as_one() -> None:
    assert household("2606:4700::1") == household("2606:4700:0:0:ffff::9")
    assert household("2606:4700::1") != household("2606:4700:0:1::1")
    assert household("::ffff:192.0.2.1") == household("192.0.2.1")
    assert household("fe80::1%lo") == household("fe80::2")
