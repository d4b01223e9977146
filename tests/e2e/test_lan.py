"""Nodes on one network that were added to each other and have moved since: they find each other, and nobody else."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.machines import Elsewhere, machines
from tests.e2e.program import made
from tests.e2e.test_cli_messages import until

pytestmark = [pytest.mark.serial, pytest.mark.timeout(420)]  # neighbours are called for now and then

NOWHERE = "10.77.0.200:1"


def test_neighbours_on_one_network_find_each_other_and_a_third_is_left_alone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        places = stack.enter_context(machines(3))
        names = ("Ala", "Boris", "Vera")
        ala, boris, vera = (
            Elsewhere(made(tmp_path / name, name).home, place.network)
            for name, place in zip(names, places, strict=True)
        )
        ids = [one.json("id") for one in (ala, boris, vera)]
        ala.json("peer", "add", NOWHERE, ids[1]["node"])
        boris.json("peer", "add", NOWHERE, ids[0]["node"])
        # Vera knows Ala's node, which does not know hers.
        vera.json("peer", "add", NOWHERE, ids[0]["node"])
        for me, you in ((ala, ids[1]), (boris, ids[0])):
            me.json("contact", "add", you["link"])
        for one in (vera, ala, boris):
            one.json("peer", "find", "neighbours")
            stack.enter_context(one.up("--no-lan", listeners=3))
        ala.json("carry", "send", ids[1]["id"], "--", "Is anybody there?")
        [received] = until(lambda: boris.json("carry", "inbox"))
        assert received["text"] == "Is anybody there?"
        until(lambda: "received" in [event["event"] for event in ala.json("carry", "sent")[0]["custody"]])
        [peer] = ala.json("peer", "list")
        assert (peer["address"], peer["connected"]) == (NOWHERE, True), "the address that was given stays"
        assert vera.json("status")["entries"] == 0
        assert not vera.json("peer", "list")[0]["connected"]
