"""Whose an address is."""

from __future__ import annotations

from outlast.rooms.reach.proto.address import household


def test_who_has_a_network_of_ipv6_counts_as_one() -> None:
    assert household("2606:4700::1") == household("2606:4700:0:0:ffff::9")
    assert household("2606:4700::1") != household("2606:4700:0:1::1")
    assert household("::ffff:192.0.2.1") == household("192.0.2.1")
    assert household("fe80::1%lo") == household("fe80::2")
