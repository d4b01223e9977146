"""Classes of failure: what probably stopped an attempt to use a bridge, judged from what happened in it.

An attempt goes through steps; whoever makes it writes down at which step it stopped, how, and after how many bytes
(``Observed``), and ``judge`` names the class and its evidence. Often a censor, a dead server and a wrong link look
alike. Where two explanations fit, the weaker one is named, which claims less about others: that nothing is known
before that a key is wrong, and that a key is wrong before that somebody filters. The evidence names the other.

========================== ============================================================================================
class                      what was seen
========================== ============================================================================================
``dns``                    the name has no address, or a new one that does not work where the old one did
``refused``                the connection was refused: the server is off, or somebody on the way rejects it
``syn-drop``               nothing answers at all
``rst-after-hello``        connected, and reset as soon as the first bytes in clear (a TLS hello) were sent
``freeze@N``               silence after N bytes, which the other side did not even acknowledge, or in a running stream
``tls-mitm``               the certificate is not the bridge's
``fully-encrypted-filter`` connected, and first bytes that look random were never acknowledged
``wrong-key``              the bridge received the first bytes and did not take them
``wrong-clock``            the clock here is wrong by more than the bridge forgives
``captive-portal``         something on the way answered in plain HTTP
``throttled``              bytes flow, too slowly to be of use
``unknown``                anything else
========================== ============================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from outlast.errors import OutlastError, Sentence

CLOCK_TOLERANCE_S: Final = 12 * 3600
"""A clock that is wrong by less than this explains no refusal: bridges take yesterday's and tomorrow's path."""


class Kind(StrEnum):
    """A class of failure; ``FREEZE`` has the number of bytes behind it, see ``Failure.name``."""

    DNS = "dns"
    REFUSED = "refused"
    SYN_DROP = "syn-drop"
    RST_AFTER_HELLO = "rst-after-hello"
    FREEZE = "freeze"
    TLS_MITM = "tls-mitm"
    FULLY_ENCRYPTED_FILTER = "fully-encrypted-filter"
    WRONG_KEY = "wrong-key"
    WRONG_CLOCK = "wrong-clock"
    CAPTIVE_PORTAL = "captive-portal"
    THROTTLED = "throttled"
    UNKNOWN = "unknown"


class Step(StrEnum):
    """Where an attempt is."""

    NAME = "name"  # the host's name is looked up
    CONNECT = "connect"  # TCP's handshake
    HELLO = "hello"  # first bytes were sent, and the transport's answer (TLS's, or any sealed byte) is awaited
    KEYS = "keys"  # the bridge was heard, and has to show that it knows the secret (Upgrade, the mux's hello)
    STREAM = "stream"  # it is ours; the 64 KB, or people's streams


class Stop(StrEnum):
    """What ended an attempt."""

    SILENCE = "silence"  # nothing came until the time limit
    RESET = "reset"
    CLOSED = "closed"  # the other side ended the connection in order
    REFUSED = "refused"
    UNREACHABLE = "unreachable"  # no route, or a router says so
    NO_NAME = "no-name"  # the resolver knows no address, or does not answer
    CERTIFICATE = "certificate"  # not the pinned one, or not valid for the name
    DATES = "dates"  # a certificate that is expired or not yet valid by the clock here
    PLAIN = "plain"  # plain HTTP where none belongs
    ANSWER = "answer"  # the transport's form, and not what a bridge answers that knows us
    SLOW = "slow"  # bytes still came when the time was over


@dataclass(frozen=True, slots=True)
class Observed:
    """How far an attempt came. Byte counts are those of the wire, from the connection's beginning."""

    step: Step
    stop: Stop
    sent_bytes: int = 0
    received_bytes: int = 0
    unacked_bytes: int | None = None  # sent, and not acknowledged by the other side's kernel; None: not known
    elapsed_ms: int = 0
    looks_random: bool = False  # the first bytes of this transport look fully encrypted (Shadowsocks, obfs4)
    new_address: bool = False  # the name leads to another address than when the bridge last worked
    clock_off_s: int | None = None  # how far the clock here is ahead of what the bridge says; None: it said nothing


class Failure(NamedTuple):
    """A class with its evidence: one line without names, addresses or secrets."""

    kind: Kind
    evidence: Sentence
    at_bytes: int = 0  # of FREEZE: so many bytes had passed

    @property
    def name(self) -> str:
        """As it is shown and stored: ``freeze@16211``, ``dns``."""
        return f"freeze@{self.at_bytes}" if self.kind is Kind.FREEZE else str(self.kind)


OUT_OF_DATE: Final = Failure(Kind.UNKNOWN, Sentence("the certificate is out of date, unless the clock here is wrong"))
"""A server whose certificate ran out is no less usual than a clock that is wrong: it says nothing of anybody else."""


class BridgeError(OutlastError):
    """A bridge could not be used; ``failure`` says why, the text what to do."""

    def __init__(self, failure: Failure) -> None:
        """The error for a failure."""
        super().__init__(
            Sentence(
                "the bridge does not work: %(failure)s (%(evidence)s); %(advice)s",
                {"failure": failure.name, "evidence": failure.evidence, "advice": ADVICE[failure.kind]},
            )
        )
        self.failure = failure


ADVICE: Final[dict[Kind, Sentence]] = {
    Kind.DNS: Sentence("use a bridge whose link has an address in place of a name"),
    Kind.REFUSED: Sentence("ask whoever runs the bridge whether it is on, or try another one"),
    Kind.SYN_DROP: Sentence("try a bridge at another address"),
    Kind.RST_AFTER_HELLO: Sentence("try a bridge of another transport or name"),
    Kind.FREEZE: Sentence("try a bridge of Outlast's web transport, which goes on over new connections"),
    Kind.TLS_MITM: Sentence("do not use it here; ask whoever runs the bridge whether its certificate has changed"),
    Kind.FULLY_ENCRYPTED_FILTER: Sentence("try a bridge of the web transport, which looks like a website"),
    Kind.WRONG_KEY: Sentence("ask whoever runs the bridge for a new link"),
    Kind.WRONG_CLOCK: Sentence("set the clock of this machine"),
    Kind.CAPTIVE_PORTAL: Sentence("open any http:// page in a browser and sign in to this network first"),
    Kind.THROTTLED: Sentence("try another bridge, or wait"),
    Kind.UNKNOWN: Sentence("try another bridge"),
}
"""What a person can do about each class, as the end of a sentence."""


def judge(seen: Observed) -> Failure:
    """The class of what was seen."""
    if seen.clock_off_s is not None and abs(seen.clock_off_s) > CLOCK_TOLERANCE_S:
        hours = round(abs(seen.clock_off_s) / 3600)
        if seen.clock_off_s > 0:
            return Failure(
                Kind.WRONG_CLOCK,
                Sentence("the clock here is %(hours)d hours ahead of the bridge's site", {"hours": hours}),
            )
        return Failure(
            Kind.WRONG_CLOCK, Sentence("the clock here is %(hours)d hours behind the bridge's site", {"hours": hours})
        )
    match seen.stop:
        case Stop.NO_NAME:
            return Failure(Kind.DNS, Sentence("the bridge's name leads to no address"))
        case Stop.PLAIN:
            return Failure(Kind.CAPTIVE_PORTAL, Sentence("something on the way answered in plain HTTP"))
        case Stop.DATES:
            return OUT_OF_DATE
        case Stop.SLOW if seen.received_bytes:
            rate = 8 * seen.received_bytes // max(1, seen.elapsed_ms)
            return Failure(
                Kind.THROTTLED,
                Sentence(
                    "%(received)d bytes in %(time_s).1f s, %(rate)d kbit/s",
                    {"received": seen.received_bytes, "time_s": _seconds(seen), "rate": rate},
                ),
            )
        case Stop.CERTIFICATE if not seen.new_address:
            text = Sentence(
                "the certificate is not the bridge's: somebody on the way shows another, or the bridge changed it"
            )
            return Failure(Kind.TLS_MITM, text)
    if seen.new_address:
        return Failure(
            Kind.DNS,
            Sentence("the name leads to another address than before, which fails (%(stop)s)", {"stop": seen.stop}),
        )
    match seen.step:
        case Step.NAME | Step.CONNECT:
            return _at_connect(seen)
        case Step.HELLO:
            return _at_hello(seen)
        case Step.KEYS:
            return _at_keys(seen)
        case Step.STREAM:
            return _in_stream(seen)


def _at_connect(seen: Observed) -> Failure:
    match seen.stop:
        case Stop.REFUSED | Stop.RESET:
            return Failure(
                Kind.REFUSED, Sentence("the connection was refused by the server, or by somebody on the way")
            )
        case Stop.SILENCE:
            return Failure(Kind.SYN_DROP, Sentence("nothing answered in %(time_s).1f s", {"time_s": _seconds(seen)}))
        case Stop.UNREACHABLE:
            return Failure(Kind.UNKNOWN, Sentence("the network has no route there; is this machine connected at all?"))
        case other:
            return Failure(Kind.UNKNOWN, Sentence("it ended while connecting (%(stop)s)", {"stop": other}))


def _at_hello(seen: Observed) -> Failure:
    dropped = bool(seen.unacked_bytes)
    match seen.stop:
        case Stop.RESET if not seen.looks_random and not seen.received_bytes:
            return Failure(
                Kind.RST_AFTER_HELLO,
                Sentence("reset after %(sent)d bytes of greeting, without an answer", {"sent": seen.sent_bytes}),
            )
        case Stop.SILENCE | Stop.RESET if dropped and not seen.received_bytes and seen.looks_random:
            return Failure(
                Kind.FULLY_ENCRYPTED_FILTER,
                Sentence(
                    "the first %(sent)d bytes, which look random, never arrived, though the connection stood",
                    {"sent": seen.sent_bytes},
                ),
            )
        case Stop.SILENCE if dropped:
            return _freeze(seen, Sentence("the greeting was not acknowledged"))
        case Stop.SILENCE if seen.received_bytes:
            return _freeze(
                seen, Sentence("the greeting's answer stopped for %(time_s).1f s", {"time_s": _seconds(seen)})
            )
        case Stop.SILENCE if seen.looks_random and seen.unacked_bytes is not None:
            text = Sentence(
                "the bridge received the first bytes and stays silent: the key is another, or its service is stuck"
            )
            return Failure(Kind.WRONG_KEY, text)
        case Stop.CLOSED | Stop.RESET if seen.looks_random:
            # A server of others does so too when it cannot reach the target of the test.
            return Failure(
                Kind.UNKNOWN,
                Sentence(
                    "the server ended it after the first bytes (%(stop)s): the key is another, or it reaches nothing",
                    {"stop": seen.stop},
                ),
            )
        case other:
            return Failure(
                Kind.UNKNOWN,
                Sentence(
                    "no greeting came back (%(stop)s after %(sent)d bytes)", {"stop": other, "sent": seen.sent_bytes}
                ),
            )


def _at_keys(seen: Observed) -> Failure:
    match seen.stop:
        case Stop.ANSWER:
            return Failure(
                Kind.WRONG_KEY, Sentence("the site answered as it answers strangers: the link is of no user there")
            )
        case Stop.SILENCE:
            return _freeze(seen, Sentence("silence for %(time_s).1f s after the greeting", {"time_s": _seconds(seen)}))
        case Stop.CLOSED:
            return Failure(Kind.WRONG_KEY, Sentence("the bridge ended it instead of taking the key"))
        case other:
            return Failure(
                Kind.UNKNOWN, Sentence("it ended before the bridge took the key (%(stop)s)", {"stop": other})
            )


def _in_stream(seen: Observed) -> Failure:
    match seen.stop:
        case Stop.SILENCE:
            return _freeze(seen, Sentence("silence for %(time_s).1f s in a running stream", {"time_s": _seconds(seen)}))
        case other:
            return Failure(
                Kind.UNKNOWN,
                Sentence(
                    "it ended in a running stream (%(stop)s after %(received)d bytes)",
                    {"stop": other, "received": seen.received_bytes},
                ),
            )


def _freeze(seen: Observed, what: Sentence) -> Failure:
    # The direction that stalled is the one whose bytes are not acknowledged; else what was to come did not.
    passed = seen.sent_bytes - seen.unacked_bytes if seen.unacked_bytes else seen.received_bytes
    evidence = Sentence(
        "%(what)s; %(sent)d bytes out, %(received)d in",
        {"what": what, "sent": seen.sent_bytes, "received": seen.received_bytes},
    )
    return Failure(Kind.FREEZE, evidence, max(0, passed))


def _seconds(seen: Observed) -> float:
    return seen.elapsed_ms / 1000
