"""What reach does with a real node: publish only when told, under keys of its own, and keep what people choose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from outlast.address import Target
from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import DAY_MS, LinkError
from outlast.rooms.reach import ROOM, agenda, service, view
from outlast.rooms.reach.agenda import Ask, NameBridges, Offer, Publish, Report, Tell
from outlast.rooms.reach.entries import Uplink
from outlast.rooms.reach.proto.chooser import Worked
from outlast.rooms.reach.proto.links import bridge_id, read_bridges
from outlast.rooms.reach.serving import Served, link_for
from outlast.rooms.watch import ROOM as WATCH
from outlast.rooms.watch import service as watch
from outlast.terms import ROUTE, Route
from tests.unit.rooms.reach.towns import NOW_MS, Clock, houses

SS = "ss://YWVzLTI1Ni1nY206c2VjcmV0@192.0.2.9:8388#mine"


async def test_nothing_runs_and_nothing_is_published_before_somebody_says_so(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann") as (ann,):
        chosen = service.settings(ann.person)
        assert (chosen.on, chosen.publishes, chosen.share) == (False, False, False)
        assert service.state(ann.node, ann.person).code == "off"
        assert agenda.due(service.situation(ann.node, ann.person)) == []


async def test_what_is_published_is_the_kind_of_way_and_how_it_ended_and_watch_counts_it(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "Ann", rooms=(ROOM, WATCH)) as (ann,):
        node, person = ann.node, ann.person
        channel = await watch.found_channel(node, person, "we watch")
        with pytest.raises(UsageError, match="which country"):
            await service.publish(node, person, on=True, channel=watch.link_of(channel))
        await service.set_place(node, person, "by", 6697)
        await service.publish(node, person, on=True, channel=watch.link_of(channel))
        await service.add_bridges(node, person, SS)
        await service.carry_out(node, person, Publish("web", "freeze", clock.ms))
        [id] = [row[0] for row in node.query("SELECT id FROM view_watch_route")]
        entry = node.open_store.load([id])[0]
        assert entry.header.author != person.device
        assert entry.header.author not in {one.key for one in watch.view.own_keys(person)}
        assert entry.header.ts_ms % 3_600_000 == 0
        assert ROUTE.decode(entry.payload or b"") == Route("web", "freeze", NOW_MS // 3_600_000 * 3600, "BY", 6697)
        lines = watch.lines_of(node, person, "BY", clock.ms // 1000)
        assert {line.name: line.points[-1][1] for line in lines} == {"nodes that tried a way out: freeze": 1.0}
        # The same is said once a day, and by another key in another week.
        assert agenda.route_name("web", "freeze") in view.said(person)
        clock.ms += 7 * DAY_MS
        await service.carry_out(node, person, Publish("web", "freeze", clock.ms))
        assert len({one[0] for one in node.query("SELECT key FROM view_watch_route")}) == 2


def test_the_same_outcome_is_due_once_a_day() -> None:
    chosen = agenda.Settings(country="BY", publish=True, channel=bytes(32))
    now = agenda.Situation(
        NOW_MS, chosen, {}, (), (), (), {}, {}, (), {}, (), (), ended=(("web", "freeze", NOW_MS), ("ss", "ok", NOW_MS))
    )
    assert agenda.due(now) == [Publish("web", "freeze", NOW_MS), Publish("ss", "ok", NOW_MS)]
    later = agenda.replace(now, now_ms=NOW_MS + agenda.SAY_MS)
    assert agenda.due(later) == [], "what ended so yesterday is no news"
    for ago, count in ((1, 1), (agenda.SAY_MS, 2), (-1, 2)):
        said = {agenda.route_name("web", "freeze"): NOW_MS - ago}
        assert len(agenda.due(agenda.replace(now, said=said))) == count
    silent = agenda.replace(now, settings=agenda.replace(chosen, publish=False))
    assert agenda.due(silent) == []


async def test_a_bridge_is_kept_once_found_by_the_beginning_of_its_id_and_forgotten(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann") as (ann,):
        node, person = ann.node, ann.person
        [held], _ = await service.add_bridges(node, person, f"  <{SS}> ")
        assert await service.add_bridges(node, person, f"{SS}\n{SS}") == ([held], [])
        assert service.find_bridge(person, held.id[:6].upper()) == held
        with pytest.raises(UsageError):
            await service.add_bridges(node, person, "https://example.org/")
        await service.remove_bridge(node, person, held.id)
        with pytest.raises(NotFoundError, match="no bridge"):
            service.find_bridge(person, held.id)


async def test_all_bridges_of_a_text_are_kept_or_none_where_they_are_too_many(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann") as (ann,):
        node, person = ann.node, ann.person
        proxies = [f"socks5://192.0.2.{number}:1080" for number in range(view.BRIDGES_MAX)]
        held, [wrong] = await service.add_bridges(node, person, f"{proxies[0]}\nvmess://eyJ2IjoiMiJ9\n{SS}")
        assert [one.link for one in held] == [proxies[0], SS]
        kept = service.bridges(person)
        assert {one.id for one in kept} == {one.id for one in held}
        assert "vmess:// is no way out" in str(wrong)
        with pytest.raises(UsageError, match=f"at most {view.BRIDGES_MAX} bridges are kept"):
            await service.add_bridges(node, person, "\n".join(proxies))
        assert service.bridges(person) == kept
        await service.add_bridges(node, person, "\n".join(proxies[:-1]))
        assert len(service.bridges(person)) == view.BRIDGES_MAX


async def test_what_a_contact_handed_and_one_adds_stays_when_its_time_is_over(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob") as (ann, bob):
        node, person, peer = ann.node, ann.person, bob.person.identity
        [bridge], _ = read_bridges(SS)
        held = view.Held(bridge_id(bridge), SS, peer, b"n" * 16, True, NOW_MS, node.today() + 9, None, "", False)
        await service.remember(node, person, [view.bridge_row(held)])
        [kept], _ = await service.add_bridges(node, person, SS)
        assert kept == replace(held, until_day=0) == service.find_bridge(person, held.id)
        assert view.forgotten(person, node.today() + 99, 0) == []


async def test_wiping_takes_all_that_others_gave_and_leaves_the_settings(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob") as (ann, bob):
        node, person = ann.node, ann.person
        await service.lend(node, person, bob.person.identity)
        [lent] = service.shares(person)
        await service.remember(node, person, [view.lent_row(lent._replace(targets=(("192.0.2.9", 443),), told=b"t"))])
        await service.set_place(node, person, "BY", 1)
        await service.add_bridges(node, person, SS)
        await service.remember(node, person, view.worked_rows("net", [Worked("b", 1)]))
        await service.forget_all(node, person)
        assert service.bridges(person) == []
        assert view.worked(person) == {}
        assert service.settings(person).country == "BY"
        assert service.shares(person) == [lent], "it is offered anew, and then its holder says where it leads"


@pytest.mark.parametrize("text", ["", "1080", "host:", "host:99999", "a:1 b:2 c:3 d:4 e:5"])
async def test_addresses_to_listen_on_have_a_host_and_a_port(tmp_path: Path, text: str) -> None:
    async with houses(tmp_path, Clock(), "Ann") as (ann,):
        with pytest.raises(OutlastError):
            await service.set_gate(ann.node, ann.person, text.split(), "", "", [])


async def test_a_gate_for_others_needs_a_password(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann") as (ann,):
        for user, password, wrong in (
            ("", "", "needs a user and a password"),
            ("ann", "", "go together"),
            ("", "secret", "go together"),
            ("a:b", "secret", "no colon"),
            ("ann", "ü" * 128, "at most 255 bytes"),
        ):
            with pytest.raises(UsageError, match=wrong):
                await service.set_gate(ann.node, ann.person, ["0.0.0.0:1080"], user, password, [])
        await service.set_gate(ann.node, ann.person, ["0.0.0.0:1080", "[::1]:1080"], "ann", "secret", [" example.by "])
        chosen = service.settings(ann.person)
        assert (chosen.listen, chosen.direct) == (("0.0.0.0:1080", "[::1]:1080"), ("example.by",))


async def test_ways_lead_to_nodes_behind_bridges_and_to_neighbours_elsewhere_and_to_none_nearby(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob") as (ann, bob):
        node, person = bob.node, bob.person
        await bob.until(lambda: service._houses.get(node))
        link = link_for(Served("web", "0.0.0.0:443", Target("192.0.2.1", 443), pin=b"p" * 32), bytes(32), b"n" * 32)
        [held], _ = await service.add_bridges(node, person, link)
        await node.peer_add(ann.node.transport_id, "62.115.0.2", 9)
        assert service.links(node) == [], "nothing leads anywhere before it is switched on"
        await service.switch(node, person, on=True)
        ways = {one.name: one.remote for one in service.links(node)}
        assert ways == {f"reach {held.id}": b"n" * 32, "reach 62.115.0.2:9": ann.node.transport_id}
        for way in service.links(node):
            with pytest.raises(LinkError, match="no way out"):
                await way.opens()
        await node.peer_add(ann.node.transport_id, "192.168.1.7", 9)
        assert [one.name for one in service.links(node)] == [f"reach {held.id}"]
        # Whoever serves a bridge that takes sync waits for those who come by it.
        await service.serve(ann.node, ann.person, Served("web", "0.0.0.0:443", Target("192.0.2.1", 443), pin=b"p" * 32))
        await ann.until(lambda: service._houses.get(ann.node))
        assert [(one.name, one.remote) for one in service.links(ann.node)] == [("reach in", None)]


async def test_what_is_gone_while_something_is_told_of_it_does_not_come_back_in_part(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob") as (ann, bob):
        node, person, peer = ann.node, ann.person, bob.person.identity
        number, day = b"n" * 16, node.today()
        held = view.Held("0" * 16, SS, peer, number, False, NOW_MS, day + 9, NOW_MS, "freeze", False)
        offer = view.Borrowed(peer, Uplink(number, ("192.168.1.7",), 8388, bytes(32), 0, False, day + 9), True, b"")
        want = view.Want(number, peer, True, b"", None, False, True, NOW_MS)
        await service.serve(node, person, Served("ss", "127.0.0.1:0", Target("192.0.2.1", 443)))
        await service.invite(node, person, peer)
        [member] = service.invited(person)
        await service.lend(node, person, peer)
        [lent] = service.shares(person)
        rows = [view.bridge_row(held), view.borrowed_row(offer), view.want_row(want)]
        await service.remember(node, person, rows)
        await service.forget_all(node, person)
        await service.revoke(node, person, peer)
        await service.stop_lending(node, person, peer)
        tables = (view.BRIDGE, view.BORROWED, view.WANT, view.MEMBER, view.LENT)
        for duty in (Report(held), NameBridges(offer, ()), Ask(want), Tell(member), Offer(lent, offer.offer)):
            await service.carry_out(node, person, duty)
        await service.remember(node, person, [view.member_row(member.member), view.spent_row(lent.number, day, 1)])
        assert {table: person.query(f"SELECT * FROM {table}") for table in tables} == {one: [] for one in tables}
