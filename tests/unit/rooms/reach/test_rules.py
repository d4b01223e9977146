"""What may go directly: nothing, unless it is named."""

from __future__ import annotations

import pytest

from outlast.address import Target
from outlast.errors import UsageError
from outlast.rooms.reach.proto.rules import Rules, read_rules


def test_without_rules_nothing_goes_directly() -> None:
    for host in ("example.org", "localhost", "127.0.0.1", "192.168.1.1", "::1"):
        assert not Rules().direct(Target(host, 80))


@pytest.mark.parametrize(
    "host", ["example.by", "EXAMPLE.by", "www.example.by", "example.by.", "192.168.7.1", "fd00::7"]
)
def test_what_is_named_goes_directly(host: str) -> None:
    assert read_rules(["*.Example.BY", "192.168.0.0/16", "fd00::/8"]).direct(Target(host, 80))


@pytest.mark.parametrize("host", ["example.org", "notexample.by", "example.by.evil.example", "10.0.0.1", "fe80::1"])
def test_what_is_not_named_does_not(host: str) -> None:
    assert not read_rules(["example.by", "192.168.0.0/16", "fd00::/8"]).direct(Target(host, 80))


@pytest.mark.parametrize("text", ["", "a b", "http://example.org", "пример.бел", "a..b", "10.0.0.0/33", "."])
def test_a_rule_that_is_none_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="neither a domain"):
        read_rules([text])
