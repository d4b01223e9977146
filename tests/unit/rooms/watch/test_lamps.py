"""The three lamps, the own line, and what is due: decisions without a clock or a network."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import UsageError
from outlast.kernel import DAY_MS
from outlast.rooms.watch import agenda, lamps, signals, view
from outlast.rooms.watch.agenda import (
    AskServers,
    ProbeRound,
    Rotate,
    SayHere,
    SayOutage,
    SayWitness,
    Settings,
    Situation,
    Vouch,
)
from outlast.rooms.watch.io import link
from outlast.rooms.watch.io.link import any_answers, default_gateway, is_neighbour, read_target
from outlast.rooms.watch.lamps import Lamp, country_lamp, link_lamp, merged
from outlast.rooms.watch.view import Cut, LinkCheck, Measured, Seen, StoredSeries
from outlast.terms import State
from tests.rooms.watch.country import Authority
from tests.unit.kernel.people import secret

NOW_MS = 1_800_000_000_000
NOW_S = NOW_MS // 1000
ALL = Settings("BY", 6697, frozenset(agenda.PUBLISHABLE), bytes(32), 24, ("https://example.org/",), True)
CALM = Situation(NOW_MS, ALL, {"beat": NOW_MS, "round": NOW_MS}, agenda.week_of(NOW_MS), (), (), (), {}, True)


def cut(start_s: int = NOW_S - 3600, *, id: bytes | None = None, at_s: int = NOW_S, end_s: int | None = None) -> Cut:
    """An outage of Belarus."""
    return Cut(id, id, at_s, "BY", "blackout", start_s, end_s, (), ())


def seen(name: str, asn: int, at_s: int = NOW_S) -> Seen:
    """A witness of that outage."""
    return Seen(secret(name), secret("key", name), at_s, "BY", "blackout", NOW_S - 3600, "BY", asn)


def measured(http: str, at_s: int = NOW_S) -> Measured:
    """A measurement by somebody, of which HTTP alone says something."""
    rest = ("ok", "ok", "ok", http, "unknown", "", "outlast", 0)
    return Measured(secret(http), secret("key"), 1, at_s, "t", "https://example.org/", "BY", 1, "", None, *rest)


@pytest.mark.parametrize(
    ("answers", "light", "code"),
    [
        ((True, True, True), "ok", "ok"),
        ((True, True, False), "warn", "only-inside"),
        ((True, False, True), "warn", "only-abroad"),
        ((True, False, False), "bad", "nothing-answers"),
        ((False, False, False), "bad", "no-gateway"),
        ((False, None, None), "bad", "no-gateway"),
        ((None, None, True), "ok", "ok"),
        ((True, None, None), "unknown", "unclear"),
        ((None, True, None), "unknown", "unclear"),
        ((True, None, False), "bad", "nothing-answers"),
        ((False, None, False), "bad", "no-gateway"),
        ((None, None, None), "unknown", "unclear"),
    ],
)
def test_the_lamp_of_the_line(answers: tuple[bool | None, ...], light: str, code: str) -> None:
    assert link_lamp(LinkCheck(NOW_MS, *answers), NOW_MS) == Lamp(light, code)


def test_an_old_look_says_nothing() -> None:
    assert link_lamp(None, NOW_MS).light == "unknown"
    assert link_lamp(LinkCheck(NOW_MS - 3 * 3_600_000, True, True, True), NOW_MS).light == "unknown"
    for way in (-1, 1):
        looked = LinkCheck(NOW_MS + way * lamps.LINK_FRESH_MS, True, True, True)
        assert link_lamp(looked, NOW_MS) == Lamp("ok", "ok")
        assert link_lamp(replace(looked, at_ms=looked.at_ms + way), NOW_MS) == Lamp("unknown", "long-ago")


@given(st.lists(st.sampled_from(["ok", "blocked", "down", "unknown"])))
def test_the_lamp_of_sites_shows_the_worst_and_green_only_where_one_is_well(verdicts: list[str]) -> None:
    unclear = replace(measured("unknown"), dns="unknown", tcp="unknown", tls="unknown")
    lamp = lamps.site_lamp([unclear if one == "unknown" else measured(one) for one in verdicts])
    kinds = set(verdicts)
    light = "bad" if "blocked" in kinds else "warn" if "down" in kinds else "ok" if "ok" in kinds else "unknown"
    assert lamp.light == light
    counted = {"n": len(verdicts), "blocked": verdicts.count("blocked"), "down": verdicts.count("down")}
    assert lamp.numbers == (counted if verdicts else {})


def test_of_each_site_the_newest_measurement_counts_and_those_that_are_blocked_come_first() -> None:
    def of(site: str, http: str, at_s: int) -> Measured:
        return replace(measured(http, at_s), input=site)

    newest_first = [
        of("a", "ok", 9),
        of("b", "blocked", 8),
        of("c", "down", 7),
        of("a", "blocked", 6),
        of("b", "ok", 5),
    ]
    assert [(one.input, one.at_s) for one in lamps.latest_by_target(newest_first)] == [("b", 8), ("c", 7), ("a", 9)]


def test_no_news_is_no_good_news() -> None:
    up, down = Lamp("ok", "ok"), Lamp("bad", "no-gateway")
    assert country_lamp("BY", [], False, None, up).light == "unknown"
    assert country_lamp("", [], False, 60, up).light == "unknown"
    assert country_lamp("BY", [], False, 60, down) == Lamp("unknown", "own-link")
    assert country_lamp("BY", [], False, 60, up) == Lamp("ok", "normal")
    assert country_lamp("BY", [cut()], False, 60, up) == Lamp("warn", "perhaps-blackout")
    assert country_lamp("BY", [cut()], True, 60, up) == Lamp("bad", "blackout")
    assert country_lamp("BY", [], False, None, up) == Lamp("unknown", "no-signals")
    assert country_lamp("BY", [], False, 2 * 86_400, up) == Lamp("unknown", "old-signals")
    assert country_lamp("BY", [], False, lamps.RECENT_S, up) == Lamp("ok", "normal")
    assert country_lamp("BY", [], False, lamps.RECENT_S + 1, up) == Lamp("unknown", "old-signals")
    assert lamps.site_lamp([]).light == "unknown"


@pytest.mark.parametrize(
    ("state", "light"),
    [
        ("degraded", "warn"),
        ("restoring", "warn"),
        ("routes-up-traffic-down", "bad"),
        ("whitelist", "bad"),
        ("blackout", "bad"),
    ],
)
def test_an_outage_of_the_country_shows_though_the_own_line_is_down_and_red_only_when_confirmed_and_grave(
    state: State, light: str
) -> None:
    down, outage = Lamp("bad", "no-gateway"), replace(cut(), state=state)
    assert country_lamp("BY", [outage], True, None, down) == Lamp(light, state)
    assert country_lamp("BY", [outage], False, None, down) == Lamp("warn", f"perhaps-{state}")


def test_of_several_outages_the_country_shows_the_worst() -> None:
    mild, grave = replace(cut(), state="degraded"), cut(NOW_S - 60)
    assert country_lamp("BY", [mild, grave, mild], True, 60, Lamp("ok", "ok")) == Lamp("bad", "blackout")
    earlier = replace(grave, start_s=NOW_S - 61)
    assert lamps.worst_of([grave, earlier, mild]) == earlier
    assert lamps.worst_of([]) is None


def test_the_own_line_begins_changes_and_ends_an_outage() -> None:
    cut_abroad = signals.own_cut(LinkCheck(NOW_MS, True, True, False), None, "BY")
    assert cut_abroad is not None
    assert (cut_abroad.state, cut_abroad.end_s) == ("whitelist", None)
    assert cut_abroad.own
    again = signals.own_cut(LinkCheck(NOW_MS + 500_000, True, True, False), cut_abroad, "BY")
    assert again == replace(cut_abroad, at_s=NOW_S + 500)
    worse = signals.own_cut(LinkCheck(NOW_MS + 1000, True, False, False), cut_abroad, "BY")
    assert worse is not None
    assert (worse.state, worse.start_s, worse.own) == ("blackout", cut_abroad.start_s, True)
    assert signals.own_cut(LinkCheck(NOW_MS, False, False, False), worse, "BY") is None, "a dead line says nothing"
    over = signals.own_cut(LinkCheck(NOW_MS + 9000, True, True, True), worse, "BY")
    assert over is not None
    assert over.end_s == NOW_S + 9
    assert signals.own_cut(LinkCheck(NOW_MS, True, True, True), None, "BY") is None


def test_of_one_outage_what_counts_more_stands() -> None:
    claimed, own = cut(NOW_S, id=secret("claim"), end_s=NOW_S), cut(NOW_S - 60)
    assert merged([], [own], [claimed]) == [own]
    assert merged([claimed], [own]) == [claimed]
    old, new = cut(id=secret("old"), at_s=NOW_S - 60), cut(id=secret("new"))
    assert merged([old, new]) == [new]
    assert len(merged([cut(), cut(NOW_S - 10 * 86_400)])) == 2
    assert merged([cut(NOW_S - lamps.NEAR_S)], [cut(NOW_S)]) == [cut(NOW_S - lamps.NEAR_S)]
    assert merged([cut(NOW_S - lamps.NEAR_S - 1)], [cut(NOW_S)]) == [cut(NOW_S), cut(NOW_S - lamps.NEAR_S - 1)]
    assert len(merged([replace(cut(), entity="RU")], [cut()])) == 2


def test_two_words_of_one_hour_are_taken_alike_whichever_came_first() -> None:
    over = cut(id=secret("over"), end_s=NOW_S - 60)
    milder = replace(cut(id=secret("milder")), state="degraded")
    words = [cut(id=secret("a")), cut(id=secret("b")), milder, over]
    assert {tuple(merged(order)) for order in permutations(words)} == {(over,)}, "that it ended is known last"
    assert {merged(order)[0].state for order in permutations(words[:3])} == {"blackout"}
    assert len({tuple(merged(order)) for order in permutations(words[:3])}) == 1
    open_, shut = measured("ok"), measured("blocked")
    assert [lamps.latest_by_target(order) for order in ([open_, shut], [shut, open_])] == [[shut], [shut]]


@pytest.mark.parametrize("ahead_s", [60, 30 * 365 * 86_400])
def test_what_was_noted_while_the_clock_was_ahead_holds_nothing_up_once_it_is_right(ahead_s: int) -> None:
    then_ms = NOW_MS + ahead_s * 1000
    noted = {"beat": then_ms, "round": then_ms, agenda.witness_name(cut()): then_ms}
    wrong = ahead_s > 3600
    assert [type(duty) for duty in agenda.due(replace(CALM, said=noted, alarms=(cut(),)))] == (
        [SayHere, SayWitness, ProbeRound] if wrong else []
    )
    check = LinkCheck(then_ms, True, True, True)
    assert link_lamp(check, NOW_MS) == (Lamp("unknown", "long-ago") if wrong else Lamp("ok", "ok"))


def test_nothing_is_due_while_nothing_was_chosen() -> None:
    idle = replace(CALM, settings=Settings(), alarms=(cut(),), said={}, key_day=None)
    assert agenda.due(idle) == []


def test_a_new_week_takes_a_new_key_before_anything_is_said() -> None:
    late = replace(CALM, now_ms=NOW_MS + 7 * 86_400_000, said={}, verified=[secret("ben")])
    assert agenda.due(late) == [Rotate(agenda.week_of(late.now_ms))]


def test_each_thing_is_due_in_its_time() -> None:
    assert agenda.due(CALM) == []
    assert SayHere() in agenda.due(replace(CALM, now_ms=NOW_MS + 3_600_000))
    assert ProbeRound(ALL.targets) in agenda.due(replace(CALM, now_ms=NOW_MS + 24 * 3_600_000, said={"beat": NOW_MS}))
    assert agenda.due(replace(CALM, verified=[secret("ben")])) == [Vouch(secret("ben"), agenda.week_of(NOW_MS))]
    assert ProbeRound(ALL.targets) not in agenda.due(
        replace(CALM, settings=replace(ALL, consented=False), said={"beat": NOW_MS})
    )


def test_public_servers_are_asked_only_where_that_is_switched_on_and_a_country_is_told() -> None:
    asking = Settings(country="BY", fetch_h=6)
    due = replace(CALM, settings=asking, said={"fetch": NOW_MS}, now_ms=NOW_MS + 6 * 3_600_000)
    assert agenda.due(due) == [AskServers("BY")]
    for other in (Settings(country="BY"), Settings(fetch_h=6)):
        assert agenda.due(replace(due, settings=other)) == []
    assert agenda.due(replace(due, now_ms=due.now_ms - 1)) == []


def test_what_was_said_is_forgotten_once_it_decides_nothing() -> None:
    week_ms, year_ms = agenda.week_of(NOW_MS) * DAY_MS, 400 * DAY_MS
    ben = agenda.vouch_name(secret("ben"), agenda.week_of(NOW_MS))
    older = agenda.vouch_name(secret("ben"), agenda.week_of(NOW_MS) - 7)
    said = {
        ben: week_ms,
        older: week_ms - 1,
        agenda.witness_name(cut()): NOW_MS,
        agenda.witness_name(cut(NOW_S - 9 * 86_400)): week_ms - 1,
        agenda.outage_name(cut()): NOW_MS - year_ms,
        agenda.outage_name(cut(NOW_S - 9 * 86_400)): NOW_MS - year_ms - 1,
        "round": NOW_MS,
    }
    assert agenda.past(said, NOW_MS) == list(said)[1:6:2]


def test_who_is_cut_off_alone_is_no_witness() -> None:
    alarmed = replace(CALM, alarms=(cut(),))
    assert agenda.due(alarmed) == [SayWitness(cut())]
    assert agenda.due(replace(alarmed, link_is_up=False)) == []
    assert agenda.due(replace(alarmed, alarms=(cut(NOW_S - 30 * 86_400, end_s=NOW_S - 29 * 86_400),))) == []


def test_three_people_in_three_networks_make_an_outage_and_fewer_do_not() -> None:
    people = {secret("key", name): secret("person", name) for name in ("ann", "ben", "eve", "joe")}
    three = [seen("ann", 1), seen("ben", 2), seen("eve", 3)]
    assert {one.asn for one in agenda.agreeing_with(cut(), three, people)} == {1, 2, 3}
    assert agenda.agreeing_with(cut(), three[:2], people) == []
    assert agenda.agreeing_with(cut(), [*three[:2], seen("eve", 2)], people) == [], "two in one network"
    assert agenda.agreeing_with(cut(), [*three[:2], seen("eve", 0)], people) == [], "a network that is not told"
    assert agenda.agreeing_with(cut(), [*three[:2], seen("stranger", 3)], people) == [], "nobody vouches for this key"
    same = people | {secret("key", "eve"): secret("person", "ann")}
    assert agenda.agreeing_with(cut(), three, same) == [], "one person with two keys"
    late = [*three[:2], seen("eve", 3, NOW_S + 5 * 3600)]
    assert agenda.agreeing_with(cut(), late, people) == [], "not within one hour"
    said = replace(CALM, alarms=(cut(),), witnesses=three, people=people)
    assert SayOutage(cut(), tuple(sorted(one.id for one in three))) in agenda.due(said)
    assert agenda.due(replace(said, said={**CALM.said, agenda.outage_name(cut()): NOW_MS, agenda.witness_name(cut()): NOW_MS})) == []  # fmt: skip # noqa: E501


def test_the_kernels_tables_are_read() -> None:
    table = "Iface Destination Gateway Flags\neth0 0002A8C0 00000000 0001\neth0 00000000 0102A8C0 0003\n"
    assert default_gateway(table) == "192.168.2.1"
    assert default_gateway("Iface\n") is None
    assert default_gateway("Iface\neth0 00000000 01 0003\n") is None
    arp = "IP address HW type Flags HW address\n192.168.2.1 0x1 0x2 aa:bb\n192.168.2.9 0x1 0x0 00:00\n"
    assert is_neighbour(arp, "192.168.2.1")
    assert not is_neighbour(arp, "192.168.2.9")
    assert not is_neighbour(arp, "192.168.2.7")


def test_addresses_of_controls() -> None:
    assert read_target("example.org") == ("example.org", 443)
    assert read_target("http://example.org/x") == ("example.org", 80)
    assert read_target("[2001:db8::7]:53") == ("2001:db8::7", 53)
    for wrong in ("", "two words", "http://", "x:99999", "a" * 300):
        with pytest.raises(UsageError):
            read_target(wrong)


async def test_who_refuses_in_person_is_there() -> None:
    async with await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await any_answers([f"127.0.0.1:{port}"]) is True
    assert await any_answers([f"127.0.0.1:{port}"]) is True, "a refusal comes from there"
    assert await any_answers(["name.invalid"]) is False
    assert await any_answers([]) is None


async def test_what_is_abroad_proves_by_its_certificate_that_nothing_else_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, rogue = Authority.make("An authority"), Authority.make("A portal")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(true.certificate.public_bytes(Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))

    def end(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def asked(context: ssl.SSLContext | None) -> tuple[bool | None, bool | None]:
        """By its name, and by its address."""
        async with await asyncio.start_server(end, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setattr(link, "HTTPS_PORT", port)
            return await link.any_proves_itself([f"localhost:{port}"]), await link.any_proves_itself(
                [f"127.0.0.1:{port}"]
            )

    assert await asked(true.context(tmp_path, "localhost")) == (True, True)
    assert await asked(rogue.context(tmp_path, "localhost")) == (None, True)
    assert await asked(true.context(tmp_path, "portal.example")) == (None, True)
    assert await asked(None) == (None, True), "a proxy took the connection, and nothing speaks behind it"
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert await link.any_proves_itself([f"127.0.0.1:{port}"]) is None, "any firewall can refuse"
    assert await link.any_proves_itself(["name.invalid"]) is False
    assert await link.any_proves_itself([]) is None
    assert signals.own_word(LinkCheck(NOW_MS, True, True, None)) is None, "no alarm, and no end of one"
    assert link_lamp(LinkCheck(NOW_MS, True, True, None), NOW_MS) == Lamp("unknown", "unclear")


def test_signals_that_end_in_an_outage_are_no_end_of_it() -> None:
    start_s = NOW_S - 30 * 86_400
    usual = [(start_s + hour * 3600, 100.0 + hour % 24) for hour in range(24 * 20)]
    gone = [(usual[-1][0] + hour * 3600, 0.0) for hour in range(1, 49)]
    series = [StoredSeries("BY", "ioda", name, 3600, 0, bytes(32), (*usual, *gone)) for name in ("ping-slash24", "bgp")]
    [lasting], _judged = signals.look_through(series, "BY", gone[-1][0])
    faded = view.faded(lasting, lasting.at_s, gone[-1][0] + 4 * 86_400)
    assert (lasting.end_s, lasting.fades_out) == (None, False)
    assert (faded.end_s, faded.fades_out) == (gone[-1][0], True)
    people = {secret("key", name): secret("person", name) for name in ("ann", "ben", "eve")}
    three = [
        replace(seen(name, n, lasting.start_s), start_s=lasting.start_s)
        for n, name in enumerate(("ann", "ben", "eve"), 1)
    ]
    now_ms = (gone[-1][0] + 3600) * 1000
    then = replace(CALM, now_ms=now_ms, key_day=agenda.week_of(now_ms), witnesses=three, people=people)
    assert any(isinstance(duty, SayOutage) for duty in agenda.due(replace(then, alarms=(lasting,))))
    assert not any(isinstance(duty, SayOutage) for duty in agenda.due(replace(then, alarms=(faded,))))
