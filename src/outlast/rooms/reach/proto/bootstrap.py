"""Tor's start by the lines of its log: how far it is, where its SOCKS port is, and what stops it, in a person's words.

What tor writes beside it - names, addresses, fingerprints of bridges - is not passed on.
"""

from __future__ import annotations

import re
from typing import Final

from outlast.address import Target
from outlast.errors import Sentence
from outlast.rooms.reach.proto.failures import Failure, Kind
from outlast.rooms.reach.proto.pluggable import PluggableError, read_address

STALLED_S: Final = 15.0
"""After so long without progress a trouble that was told is taken for the reason."""
SILENT_S: Final = 90.0
"""After so long without progress and without any trouble told nothing more is expected."""
_LINE_MAX: Final = 4096

_PROGRESS: Final = re.compile(r"Bootstrapped (\d{1,3})% \((\w{1,40})\): ([ -~]{1,120})")
_STUCK: Final = re.compile(r"Problem bootstrapping\. Stuck at .*; ([A-Z_]{1,40}); count \d+; recommendation ")
_SOCKS: Final = re.compile(r"Opened Socks listener connection \(ready\) on (\S{1,60})$")
_CHILD: Final = re.compile(r"Managed proxy .*: the bridge does not work: ([a-z-]{1,40})")
"""What our own transport tells of a bridge (``io.managed``), with its class (``failures``)."""
_PROXY: Final = re.compile(r"Proxy Client: unable to connect .*\(\"?([A-Za-z0-9 -]{1,60})\"?\)$")

STARTING: Final = Sentence("Starting")
STEPS: Final = (
    STARTING,
    Sentence("Connecting to pluggable transport"),
    Sentence("Connected to pluggable transport"),
    Sentence("Connecting to proxy"),
    Sentence("Connected to proxy"),
    Sentence("Connecting to a relay"),
    Sentence("Connected to a relay"),
    Sentence("Handshaking with a relay"),
    Sentence("Handshake with a relay done"),
    Sentence("Establishing an encrypted directory connection"),
    Sentence("Asking for networkstatus consensus"),
    Sentence("Loading networkstatus consensus"),
    Sentence("Loading authority key certs"),
    Sentence("Asking for relay descriptors"),
    Sentence("Loading relay descriptors"),
    Sentence("Loaded enough directory info to build circuits"),
    Sentence("Connecting to pluggable transport to build circuits"),
    Sentence("Connected to pluggable transport to build circuits"),
    Sentence("Connecting to proxy to build circuits"),
    Sentence("Connected to proxy to build circuits"),
    Sentence("Connecting to a relay to build circuits"),
    Sentence("Connected to a relay to build circuits"),
    Sentence("Finishing handshake with a relay to build circuits"),
    Sentence("Handshake finished with a relay to build circuits"),
    Sentence("Establishing a Tor circuit"),
    Sentence("Done"),
)
"""What tor 0.4 says that it does, in its own words, here to be translated; other words are shown as they come."""

_TOLD: Final[dict[str, tuple[Kind, Sentence]]] = {
    "CONNECTREFUSED": (Kind.REFUSED, Sentence("the connection was refused")),
    "TIMEOUT": (Kind.SYN_DROP, Sentence("nothing answers there")),
    "CONNECTRESET": (Kind.RST_AFTER_HELLO, Sentence("the connection was reset")),
    "IDENTITY": (Kind.WRONG_KEY, Sentence("another relay answers than the one of this fingerprint")),
    "NOROUTE": (Kind.UNKNOWN, Sentence("there is no route to it: is this machine in a network?")),
    "PT_MISSING": (Kind.UNKNOWN, Sentence("the program for its transport is not there or does not start")),
}
_ELSE: Final = (Kind.UNKNOWN, Sentence("the connection broke before tor was through with its handshake"))
_CLOCK: Final = re.compile(
    r"[Oo]ur clock is |clock skew|skewed time|CLOCK_SKEW|accurate clock|clock, time ?zone"
    r"|[Cc]ertificate (already expired|not yet valid)|\(certificate lifetime runs from"
)
_OTHERS: Final = (
    (_CLOCK, Kind.WRONG_CLOCK, Sentence("tor says that the time here is not the network's")),
    (re.compile(r"identity keys were not as expected"), *_TOLD["IDENTITY"]),
    (re.compile(r"Managed proxy .*(terminated|died|failed|execve)|Could not launch managed"), *_TOLD["PT_MISSING"]),
    (
        re.compile(r"Could not bind to|Address already in use"),
        Kind.UNKNOWN,
        Sentence("a port that tor was to use is taken"),
    ),
    (
        re.compile(r"parse/validate config|Reading config failed"),
        Kind.UNKNOWN,
        Sentence("tor does not take its configuration"),
    ),
    (
        re.compile(r"another Tor process is running with the same data"),
        Kind.UNKNOWN,
        Sentence("another tor has its folder"),
    ),
    (re.compile(r"No space left on device"), Kind.UNKNOWN, Sentence("the disk is full")),
)
_FIRM: Final = (Kind.WRONG_CLOCK, Kind.WRONG_KEY, Kind.TLS_MITM)
"""What later lines of less weight do not displace."""
_KINDS: Final = frozenset(map(str, Kind)) - {Kind.FREEZE}


class Bootstrap:
    """One start of tor: give it the log's lines with the time; times are seconds of any one clock."""

    def __init__(self, now_s: float) -> None:
        self.percent = 0
        self.step = str(STARTING)
        """What tor does now, in its own words."""
        self.socks: Target | None = None
        self._trouble: Failure | None = None
        self._progressed_s = now_s

    @property
    def done(self) -> bool:
        """Whether tor takes streams."""
        return self.percent == 100 and self.socks is not None

    def take(self, line: bytes, now_s: float) -> None:
        """Take one line."""
        text = line[:_LINE_MAX].decode("ascii", "replace")
        if found := _PROGRESS.search(text):
            percent = min(int(found[1]), 100)
            if percent > self.percent:
                self.percent, self.step = percent, found[3]
                self._progressed_s = now_s
        elif found := _SOCKS.search(text):
            try:
                self.socks = read_address(found[1])
            except PluggableError:
                return
        elif "[warn]" in text or "[err]" in text:
            trouble = _trouble(text)
            if trouble is not None and (self._trouble is None or self._trouble.kind not in _FIRM):
                self._trouble = trouble

    def ended(self) -> Failure:
        """Why tor ended, as far as it told."""
        return self._trouble or Failure(Kind.UNKNOWN, Sentence("tor ended without saying why"))

    def stalled(self, now_s: float) -> Failure | None:
        """What stops it, when it has not come further for a while."""
        waited_s = now_s - self._progressed_s
        if self.done or waited_s < STALLED_S:
            return None
        if self._trouble is None and waited_s < SILENT_S:
            return None
        stays = Sentence("tor stays at %(percent)d%% and does not say why", {"percent": self.percent})
        return self._trouble or Failure(Kind.UNKNOWN, stays)


def _trouble(text: str) -> Failure | None:
    if (found := _CHILD.search(text)) and found[1] in _KINDS:
        return Failure(Kind(found[1]), Sentence("its transport says so"))
    for pattern, kind, evidence in _OTHERS:
        if pattern.search(text):
            return Failure(kind, evidence)
    if found := _STUCK.search(text):
        return Failure(*_TOLD.get(found[1], _ELSE))
    if found := _PROXY.search(text):
        return Failure(
            *_PROXY_TOLD.get(found[1].lower(), (Kind.UNKNOWN, Sentence("its transport does not get through to it")))
        )
    return None


_PROXY_TOLD: Final = {
    "connection refused by destination host": _TOLD["CONNECTREFUSED"],
    "ttl expired": _TOLD["TIMEOUT"],
    "network unreachable": _TOLD["NOROUTE"],
    "host unreachable": _TOLD["NOROUTE"],
}
