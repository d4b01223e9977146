"""The first words of the home page: what is known of the internet, who is in reach, how messages leave."""

from __future__ import annotations

import re
from pathlib import Path

from outlast.rooms.carry import service
from outlast.rooms.watch import service as watch
from tests.unit.edges.served import Browser, Served, served


def strip(owner: Browser) -> tuple[str, str]:
    """The level and the sentence of the strip."""
    found = re.search(r'<p class="strip (\w+)"[^>]*>(.*?)</p>', owner.get("/").text)
    assert found
    return found[1], found[2]


def note(node: Served, *, domestic: bool, abroad: bool) -> None:
    """How the own line was found."""
    node.run(watch.note_link(node.node, node.person, True, domestic, abroad))


def test_the_home_page_begins_with_what_is_known_and_no_more(tmp_path: Path) -> None:
    with (
        served(tmp_path / "a", rooms=None) as node,
        served(tmp_path / "b", name="Boris", rooms=None) as other,
        node.owner() as owner,
    ):
        nothing = "No other node in reach. Messages wait here and can leave by stick or phone."
        assert strip(owner) == ("off", nothing)

        contact = node.run(node.person.add_contact(other.run(other.person.link())))
        node.run(service.send(node.node, node.person, contact.identity, "Are you there?"))
        waits = "No other node in reach. 1 message waits here and can leave by stick or phone."
        assert strip(owner) == ("off", waits)

        note(node, domestic=True, abroad=True)
        level, told = strip(owner)
        assert level == "ok"
        assert re.match(r"The internet answered at \d\d:\d\d\. No other node in reach\.", told)

        note(node, domestic=True, abroad=False)
        level, told = strip(owner)
        assert level == "warn"
        assert re.match(r"Only addresses inside the country answer\. \(Looked at \d\d:\d\d\.\) No other", told)


def test_a_cut_that_this_node_alone_sees_is_called_unconfirmed(tmp_path: Path) -> None:
    with served(tmp_path / "a", rooms=None) as node, node.owner() as owner:
        node.run(watch.set_place(node.node, node.person, "BY", 6697))
        now_s = node.call(node.node.now_ms) // 1_800_000 * 1800
        rows = ["Time (UTC),Google (Search)"]
        for number in range(-6 * 48, 0):
            rows.append(f"{stamp(now_s + number * 1800)},{3 if number > -12 else 95}")
        node.run(watch.read_series(node.node, node.person, "\n".join(rows).encode(), "ioda.csv", "BY"))
        level, told = strip(owner)
        assert level == "warn"
        assert re.match(r"Internet perhaps cut since .*; nobody else has confirmed it\. No other node", told)


def stamp(at_s: int) -> str:
    """A time as the files of IODA have it."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_s))
