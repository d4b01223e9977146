"""Tor's start as its log tells it; the lines are those of tor 0.4.9."""

from __future__ import annotations

import pytest

from outlast.address import Target
from outlast.errors import Sentence
from outlast.rooms.reach.proto.bootstrap import SILENT_S, STALLED_S, STEPS, Bootstrap
from outlast.rooms.reach.proto.failures import BridgeError, Kind

STUCK = "Problem bootstrapping. Stuck at 5% (conn): Connecting to a relay. ({}; {}; count 2; recommendation warn; host"
STUCK += " 0F9D7B519324DFEB252398C491079F58AA932CCB at 192.0.2.1:443)"
PROXY = "Proxy Client: unable to connect OR connection (handshaking (proxy)) with 192.0.2.1:443 ID=<none>"
PROXY += ' RSA_ID=0F9D7B519324DFEB252398C491079F58AA932CCB ("{}")'


def follow(*lines: str, level: str = "warn") -> Bootstrap:
    start = Bootstrap(0.0)
    for line in lines:
        start.take(f"Nov 22 10:42:16.000 [{level}] {line}".encode(), 1.0)
    return start


def test_a_start_is_done_when_tor_says_so_and_has_a_port() -> None:
    start = follow("Bootstrapped 45% (requesting_descriptors): Asking for relay descriptors", level="notice")
    assert (start.percent, start.step, start.done) == (45, "Asking for relay descriptors", False)
    assert Sentence(start.step) in STEPS, "it is translated where it is shown"
    start.take(b"[notice] Bootstrapped 100% (done): Done", 2.0)
    assert not start.done
    start.take(b"[notice] Opened Socks listener connection (ready) on 127.0.0.1:41617", 2.0)
    assert start.socks == Target("127.0.0.1", 41617)
    assert start.done
    assert start.stalled(1e9) is None


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (STUCK.format("Connection refused", "CONNECTREFUSED"), Kind.REFUSED),
        (STUCK.format("Connection timed out", "TIMEOUT"), Kind.SYN_DROP),
        (STUCK.format("Connection reset by peer", "CONNECTRESET"), Kind.RST_AFTER_HELLO),
        (STUCK.format("No route to host", "NOROUTE"), Kind.UNKNOWN),
        (STUCK.format("DONE", "DONE"), Kind.UNKNOWN),
        (PROXY.format("general SOCKS server failure"), Kind.UNKNOWN),
        (PROXY.format("Connection refused by destination host"), Kind.REFUSED),
        (
            "Tried connecting to router at 192.0.2.1:443 ID=<none> RSA_ID=0F9D, but RSA + ed25519 identity keys were"
            " not as expected: wanted 0F9D + no ed25519 key but got 1F9D + xxn.",
            Kind.WRONG_KEY,
        ),
        (
            "Received NETINFO cell with skewed time (OR:192.0.2.1:443): It seems that our clock is ahead by 1 days, 3"
            " hours, or that theirs is behind. Tor requires an accurate clock to work.",
            Kind.WRONG_CLOCK,
        ),
        ('Managed proxy "/usr/bin/obfs4proxy" having PID 4787 terminated with status code 1', Kind.UNKNOWN),
        ('Managed proxy "/x": the bridge does not work: tls-mitm (the certificate)', Kind.TLS_MITM),
        ("Could not bind to 127.0.0.1:9050: Address already in use. Is Tor already running?", Kind.UNKNOWN),
    ],
)
def test_what_stops_it_has_a_class_and_names_nobody(line: str, kind: Kind) -> None:
    start = follow(line)
    assert start.stalled(STALLED_S - 1) is None
    failure = start.stalled(STALLED_S + 1)
    assert failure is not None
    assert failure.kind is kind
    told = str(BridgeError(failure))
    assert "192.0.2.1" not in told
    assert "0F9D" not in told


def test_progress_gives_it_time_again() -> None:
    start = follow(STUCK.format("Connection refused", "CONNECTREFUSED"))
    start.take(b"[notice] Bootstrapped 10% (conn_done): Connected to a relay", 20.0)
    assert start.stalled(20.0 + STALLED_S - 1) is None
    assert start.stalled(20.0 + STALLED_S) is not None


def test_without_a_word_it_is_given_longer_and_then_told_to_be_stuck() -> None:
    start = follow("Bootstrapped 30% (loading_status): Loading networkstatus consensus", level="notice")
    assert start.stalled(SILENT_S) is None
    failure = start.stalled(SILENT_S + 1)
    assert failure is not None
    assert str(failure.evidence) == "tor stays at 30% and does not say why"


def test_a_wrong_clock_is_not_forgotten_for_what_follows_from_it() -> None:
    start = follow("Our clock is 3 days behind", STUCK.format("DONE", "DONE"))
    assert start.ended().kind is Kind.WRONG_CLOCK


def test_a_tor_that_ends_at_once_says_why_if_it_did() -> None:
    told = follow("Reading config failed--see warnings above.", level="err").ended().evidence
    assert str(told).endswith("configuration")
    assert str(follow().ended().evidence) == "tor ended without saying why"
