"""What the probe does next: which addresses, in which order, and where it never goes."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from outlast import dns
from outlast.rooms.watch.proto.http import parse_url
from outlast.rooms.watch.proto.probe import (
    Answered,
    AskControl,
    AskDoh,
    Close,
    Command,
    Connect,
    Connected,
    ControlAnswered,
    Event,
    Fetch,
    Fetched,
    Handshake,
    InitialAnswered,
    LookedUp,
    Lookup,
    MeasureSpeed,
    Probe,
    Query,
    SendInitial,
    Settings,
    Shaken,
    SpeedMeasured,
    is_public,
)
from tests import nameserver

TRUE, FORGED, SECOND = "93.184.216.34", "95.161.76.100", "93.184.216.35"
T: Any = {"t0": 0.0, "t": 0.1}


class World:
    """A network as answers to commands; counts what was sent."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.probe = Probe(parse_url(url), Settings(**settings))
        self.system: dict[str, tuple[str, ...]] = {"www.example.org": (TRUE,)}
        self.failures: dict[tuple[type, str], str] = {}
        self.pages: dict[str, tuple[int, str | None]] = {}
        self.udp: tuple[str, ...] = (TRUE,)
        self.control: dict[str, Any] | None = None
        self.sent: list[Command] = []
        self.body = b"hello"
        self.seconds = 0.1

    def run(self) -> Probe:
        waiting = self.probe.start()
        while waiting:
            command = waiting.pop(0)
            self.sent.append(command)
            if not isinstance(command, Close):
                waiting += self.probe.handle(self.answer(command))
        assert self.probe.finished
        return self.probe

    def answer(self, command: Command) -> Event:
        match command:
            case Lookup():
                found = self.system.get(command.host, ())
                return LookedUp(id=command.id, addresses=found, failure=None if found else "dns_nxdomain_error", **T)
            case Query() | AskDoh():
                query = dns.encode_query(1, command.host, dns.A)
                reply = dns.decode_reply(nameserver.reply(query, self.udp))
                return Answered(id=command.id, replies=((0.1, reply),), **T)
            case Connect():
                return Connected(id=command.id, failure=self.failures.get((Connect, command.ip)), **T)
            case Handshake():
                ip = next(one.ip for one in self.sent if isinstance(one, Connect) and one.id == command.id)
                failure = self.failures.get((Handshake, ip)) if command.server_name != "example.org" else None
                return Shaken(id=command.id, failure=failure, **T)
            case Fetch():
                status, location = self.pages.get(command.url.text, (200, None))
                headers = (("Location", location),) if location else ()
                slots = ((self.seconds, len(self.body)),)
                page = Fetched(id=command.id, t0=0.0, t=self.seconds, status=status, headers=headers, slots=slots)
                return page
            case SendInitial():
                return InitialAnswered(id=command.id, **T)
            case AskControl():
                return ControlAnswered(id=command.id, response=self.control, **T)
            case MeasureSpeed():
                return SpeedMeasured(id=command.id, **T)
            case _:
                raise AssertionError(command)

    def those(self, kind: type, what: Callable[[Any], Any]) -> list[Any]:
        return [what(command) for command in self.sent if isinstance(command, kind)]


def test_a_page_over_https_takes_one_connection_and_one_request() -> None:
    world = World("https://www.example.org/", resolvers=("9.9.9.9:53",))
    world.run()
    assert world.those(Connect, lambda one: (one.ip, one.port)) == [(TRUE, 443)]
    assert world.those(Handshake, lambda one: (one.server_name, one.verify)) == [("www.example.org", True)]
    assert world.those(Fetch, lambda one: one.url.text) == ["https://www.example.org/"]
    assert world.those(SendInitial, lambda one: (one.ip, one.port)) == [(TRUE, 443)]


def test_over_http_the_certificate_of_each_address_is_looked_at_too() -> None:
    world = World("http://www.example.org/")
    world.run()
    assert world.those(Connect, lambda one: one.port) == [80, 443]
    assert [step.tags for step in world.probe.steps if isinstance(step.command, Handshake)] == [
        ("classic", "tcptls_experiment", "depth=0", "fetch_body=false")
    ]
    world = World("http://www.example.org:8080/")
    world.run()
    assert world.those(Connect, lambda one: one.port) == [8080]


def test_the_systems_address_fetches_and_the_others_are_only_tried() -> None:
    world = World("https://www.example.org/", resolvers=("9.9.9.9:53",))
    world.system["www.example.org"] = (FORGED,)
    world.run()
    assert world.those(Connect, lambda one: one.ip) == [FORGED, TRUE]
    [fetch] = world.those(Fetch, lambda one: one.id)
    assert next(one.ip for one in world.sent if isinstance(one, Connect) and one.id == fetch) == FORGED


def test_another_address_fetches_when_the_systems_own_fails() -> None:
    world = World("https://www.example.org/", resolvers=("9.9.9.9:53",))
    world.system["www.example.org"] = (FORGED,)
    world.failures[Connect, FORGED] = "generic_timeout_error"
    world.run()
    [fetch] = world.those(Fetch, lambda one: one.id)
    assert next(one.ip for one in world.sent if isinstance(one, Connect) and one.id == fetch) == TRUE


def test_the_control_is_asked_once_and_its_addresses_are_tried() -> None:
    world = World("http://www.example.org/", control=True)
    world.system = {"www.example.org": (), "other.example": (SECOND,)}
    world.control = {"dns": {"addrs": [TRUE, "junk", 7]}}
    world.pages["http://www.example.org/"] = (302, "https://other.example/")
    world.run()
    [request] = world.those(AskControl, lambda one: one.request)
    assert (request["http_request"], request["tcp_connect"]) == ("http://www.example.org/", [])
    assert world.those(Fetch, lambda one: one.url.host) == ["www.example.org", "other.example"]
    assert world.those(Connect, lambda one: one.ip) == [TRUE, TRUE, SECOND]


def test_the_control_is_asked_for_the_ipv4_addresses_that_translated_ones_stand_for() -> None:
    world = World("https://www.example.org/", resolvers=("9.9.9.9:53",), control=True)
    world.system["www.example.org"] = ("64:ff9b::5db8:d822",)
    world.run()
    assert world.those(Connect, lambda one: one.ip) == ["64:ff9b::5db8:d822", TRUE]
    [asked] = world.those(AskControl, lambda one: one.request["tcp_connect"])
    assert asked == [f"{TRUE}:443", f"{TRUE}:80"]


def test_filtering_by_name_is_told_apart_where_tls_failed() -> None:
    world = World("https://www.example.org/")
    world.failures[Handshake, TRUE] = "connection_reset"
    world.run()
    assert world.those(Handshake, lambda one: (one.server_name, one.verify)) == [
        ("www.example.org", True),
        ("www.example.org", False),
        ("example.org", False),
        (None, False),
    ]
    assert world.those(Fetch, lambda one: one) == []


def test_redirects_end_after_ten() -> None:
    world = World("http://www.example.org/")
    world.pages["http://www.example.org/"] = (301, "/")
    world.run()
    assert len(world.those(Fetch, lambda one: one)) == 11


def test_a_redirect_to_no_url_is_a_failure() -> None:
    world = World("http://www.example.org/")
    world.pages["http://www.example.org/"] = (301, "http:///x")
    assert world.run().redirect_failure == "http_invalid_redirect_location_host"


def test_neither_a_reply_nor_a_redirect_leads_into_the_operators_own_network() -> None:
    for inner in ("192.168.1.1", "127.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:10.0.0.1", "2002:a00:1::"):
        world = World("http://www.example.org/", resolvers=("9.9.9.9:53",), control=True)
        world.system["www.example.org"] = (inner,)
        world.udp = ()
        world.control = {"dns": {"addrs": [inner]}}
        world.run()
        assert world.those(Connect, lambda one: one.ip) == []
    world = World("http://www.example.org/")
    world.pages["http://www.example.org/"] = (302, "http://192.168.1.1/reboot")
    world.run()
    assert {ip for ip in world.those(Connect, lambda one: one.ip)} == {TRUE}


@pytest.mark.parametrize(
    "away", ["http://other.example.org:25/", "https://other.example.org:22/", "http://router/", "http://nas.lan/",
             "http://printer.local:8080/", "http://127.1/", "http://2130706433/", "http://x.home.arpa/"]
)  # fmt: skip
def test_a_redirect_leads_to_ports_and_names_of_the_public_web_alone(away: str) -> None:
    world = World("http://www.example.org/")
    world.pages["http://www.example.org/"] = (302, away)
    assert world.run().redirect_failure == "http_invalid_redirect_location_host"
    assert world.those(Lookup, lambda one: one.host) == ["www.example.org"]
    assert {port for port in world.those(Connect, lambda one: one.port)} == {80, 443}


def test_what_is_in_the_computers_own_networks_is_not_reached_by_whatever_name_of_it() -> None:
    refused = (IPv4Network("93.184.216.0/24"), IPv6Network("2a00:1:2:300::/56"))
    for host in ("93.184.216.9", "[::ffff:93.184.216.9]", "[64:ff9b::5db8:d809]", "[2a00:1:2:3aa::1]", "[2a00:1::1%1]"):
        world = World(f"http://{host}/", refused=refused, typed=False)
        world.run()
        assert world.those(Connect, lambda one: one.ip) == []
    world = World("http://93.184.216.9/", refused=refused)
    world.run()
    assert world.those(Connect, lambda one: one.ip) == ["93.184.216.9"]


def test_addresses_that_only_look_public_are_not() -> None:
    for odd in ("192.0.0.192", "168.63.129.16", "::ffff:0:7f00:1", "4000::1", "5f00::1", "64:ff9b::a00:1"):
        assert not is_public(odd)
    for true in ("64:ff9b::5db8:d809", "2a00::1", "1.1.1.1"):
        assert is_public(true)


def test_an_address_of_the_own_network_is_probed_when_the_operator_names_it() -> None:
    world = World("http://192.168.1.1:8080/")
    world.run()
    assert world.those(Connect, lambda one: (one.ip, one.port)) == [("192.168.1.1", 8080)]
    assert world.those(Lookup, lambda one: one) == []


def test_a_slow_page_is_compared_with_the_control_and_a_quick_one_is_not() -> None:
    for seconds, asked in ((0.5, 0), (4.0, 1)):
        world = World("https://www.example.org/", control=True)
        world.body, world.seconds = b"x" * 50_000, seconds
        world.run()
        assert len(world.those(MeasureSpeed, lambda one: one)) == asked


def test_addresses_are_bounded() -> None:
    world = World("https://www.example.org/", resolvers=("9.9.9.9:53",))
    world.system["www.example.org"] = tuple(f"93.184.216.{n}" for n in range(1, 100))
    world.udp = tuple(f"93.184.217.{n}" for n in range(1, 100))
    world.run()
    assert len(world.those(Connect, lambda one: one)) == 8
