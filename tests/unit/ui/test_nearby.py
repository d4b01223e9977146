"""What listens everywhere is named by addresses that programs can use."""

from __future__ import annotations

from outlast.address import Target
from outlast.ui.nearby import heard_at, local_addresses, reached_at


def test_what_listens_everywhere_is_reached_at_this_computer_and_at_each_of_its_addresses_of_that_kind() -> None:
    plain = [one for one in local_addresses() if ":" not in one]
    assert heard_at("0.0.0.0") == plain
    assert reached_at(Target("0.0.0.0", 1080)) == [Target(one, 1080) for one in ("127.0.0.1", *plain)]
    assert reached_at(Target("::", 1080))[0] == Target("::1", 1080)
    assert all(":" in one.host for one in reached_at(Target("::", 1080)))


def test_what_listens_at_one_address_is_reached_there_alone() -> None:
    assert reached_at(Target("192.168.1.20", 1080)) == [Target("192.168.1.20", 1080)]
    assert reached_at(Target("localhost", 1080)) == [Target("localhost", 1080)]
