"""What an exit refuses: everything but the public internet, in every form it can be written."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.reach.proto.exit_policy import Policy, allowing_private, is_public

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.251",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::",
    "2002:c0a8:101::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
TAKEN = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "168.63.129.17",
    "192.0.1.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_of_no_public_network_is_refused(address: str) -> None:
    assert Policy().refuses(address)


@pytest.mark.parametrize("address", TAKEN)
def test_an_address_of_the_internet_is_taken_unless_it_is_this_machine_s_own(address: str) -> None:
    assert not Policy().refuses(address)
    assert Policy().refuses(address, frozenset([str(ip_address(address))]))


def test_what_is_no_address_is_refused() -> None:
    for text in ("", "example.org", "127.1", "0x7f000001", "2130706433", "1.2.3.4.5"):
        assert Policy().refuses(text)


def test_networks_that_are_allowed_are_taken_and_no_others() -> None:
    policy = Policy(allowed=("192.168.7.0/24",))
    assert not policy.refuses("192.168.7.9")
    assert policy.refuses("192.168.8.9")
    assert not allowing_private().refuses("127.0.0.1", frozenset(["127.0.0.1"]))


def test_who_shares_the_link_of_ipv6_is_refused_and_the_next_network_is_not() -> None:
    links = ("2606:4700:1:2::/64",)
    assert Policy().refuses("2606:4700:1:2::9", links=links)
    assert not Policy().refuses("2606:4700:1:3::9", links=links)
    assert not Policy(allowed=("2606:4700:1:2::9/128",)).refuses("2606:4700:1:2::9", links=links)


def test_mail_is_not_sent_for_strangers() -> None:
    assert Policy().refuses_port(25)
    assert Policy().refuses_port(0)
    assert not Policy().refuses_port(443)


@given(st.ip_addresses(v=4))
def test_what_the_standard_library_calls_no_global_address_is_refused_also_inside_of_ipv6(address: object) -> None:
    if not ip_address(str(address)).is_global:
        assert not is_public(str(address))
    assert is_public(f"::ffff:{address}") == is_public(str(address))
    assert is_public(f"64:ff9b::{address}") == is_public(str(address))


@given(st.ip_addresses(v=6))
def test_what_the_standard_library_calls_no_global_address_is_refused(address: object) -> None:
    six = ip_address(str(address))
    if not six.is_global and six.sixtofour is None and six.ipv4_mapped is None:
        assert not is_public(str(address))


@pytest.mark.parametrize(
    "form",
    ["::ffff:8.8.4.4", "::FFFF:808:404", "64:ff9b::8.8.4.4", "2002:808:404::1", "2606:4700::BEEF", "2606:4700:0::beef"],
)
def test_an_own_address_is_refused_in_each_form_that_leads_to_it(form: str) -> None:
    assert Policy().refuses(form, frozenset({"8.8.4.4", "2606:4700::beef"}))
