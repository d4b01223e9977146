"""What watch says: on the log of open channels, and in letters; with the bounds of each field.

All of it is signed by a key that is nobody's device and is another one every week (``Node.append_apart``). In letters
``watch.key`` tells contacts which key is whose: they can count witnesses, the public cannot follow anybody for longer
than a week. Bodies are msgpack arrays.
"""

from __future__ import annotations

import re
import zlib
from typing import Final, Literal

import msgspec

from outlast.errors import ProtocolError
from outlast.kernel import DAY_MS, Kind
from outlast.terms import LAST_S, STATES, State, is_entity, is_place

HOUR_S: Final = 3600
WEEK_DAYS: Final = 7
OBSERVATION_LIFE_DAYS: Final = 90
HEARTBEAT_LIFE_DAYS: Final = 30
WITNESS_LIFE_DAYS: Final = 90
KEY_LIFE_DAYS: Final = 120
"""So long a receiver remembers whose a key was: longer than anything lives that needs it."""
KEYS_MAX: Final = 128
"""Keys of one contact that are remembered at a time: a new one each week on each of their nodes is far less."""
INPUT_MAX_CHARS: Final = 512
RAW_MAX_BYTES: Final = 48 * 1024
RAW_UNPACKED_MAX_BYTES: Final = 1 << 20

Layer = Literal["ok", "blocked", "down", "unknown"]
LAYERS: Final = ("dns", "tcp", "tls", "http", "throttled")
_LAYER_VALUES: Final = ("ok", "blocked", "down", "unknown")
_TOKEN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+:/-]{0,79}|")


class Observation(msgspec.Struct, array_like=True, frozen=True):
    """What was measured, without what could say who measured it. ``raw`` is the scrubbed measurement, packed."""

    test: str  # "web_connectivity"
    input: str  # what was tested, mostly a URL
    at_s: int  # the hour's beginning; UTC, seconds since 1970
    country: str  # of the one who measured: ISO 3166-1, "" = not told
    asn: int  # their network, 0 = not told
    blocking: str  # OONI's legacy value: "dns", "tcp_ip", "http-diff", "http-failure", "false", "" = none
    accessible: bool | None
    layers: tuple[Layer, Layer, Layer, Layer, Layer]  # in the order of ``LAYERS``
    fingerprint: str  # the name of the block page, "" = none
    software: str
    raw: bytes = b""


class Heartbeat(msgspec.Struct, array_like=True, frozen=True):
    """A node is there: from which country and network."""

    country: str
    asn: int


class Witness(msgspec.Struct, array_like=True, frozen=True):
    """One node's own detector sees a place in this state since ``start_s``."""

    entity: str
    state: State
    start_s: int
    country: str  # where the witness is
    asn: int


class WatchKey(msgspec.Struct, array_like=True, frozen=True):
    """A letter to a contact: what this key (32 B) signs in the weeks around ``day`` is by me."""

    key: bytes
    day: int  # days since 1970, UTC


OBSERVATION: Final = Kind(
    "watch.observation", Observation, max_bytes=RAW_MAX_BYTES + 4096, max_life_days=OBSERVATION_LIFE_DAYS, priority=4
)
HEARTBEAT: Final = Kind("watch.heartbeat", Heartbeat, max_bytes=64, max_life_days=HEARTBEAT_LIFE_DAYS, priority=3)
WITNESS: Final = Kind("watch.witness", Witness, max_bytes=128, max_life_days=WITNESS_LIFE_DAYS, priority=1)
KEY: Final = Kind("watch.key", WatchKey, max_bytes=64)

OBSERVATION_LIFE_MS: Final = OBSERVATION_LIFE_DAYS * DAY_MS
HEARTBEAT_LIFE_MS: Final = HEARTBEAT_LIFE_DAYS * DAY_MS
WITNESS_LIFE_MS: Final = WITNESS_LIFE_DAYS * DAY_MS


def clean_input(text: str) -> str:
    """A target as it is kept and shown: one line without controls and what nobody sees, cut to a bound."""
    kept = "".join(c for c in text[: 4 * INPUT_MAX_CHARS] if c.isprintable())
    return kept.strip()[:INPUT_MAX_CHARS]


def is_sane_observation(one: Observation) -> bool:
    """Whether an observation that somebody signed keeps to what its fields may hold."""
    return (
        bool(one.test)
        and bool(one.input)
        and clean_input(one.input) == one.input
        and all(_TOKEN.fullmatch(text) for text in (one.test, one.blocking, one.fingerprint, one.software))
        and 0 <= one.at_s <= LAST_S
        and one.at_s % HOUR_S == 0
        and is_place(one.country, one.asn)
        and all(layer in _LAYER_VALUES for layer in one.layers)
        and len(one.raw) <= RAW_MAX_BYTES
    )


def is_sane_heartbeat(one: Heartbeat) -> bool:
    """Whether a heartbeat names a country and a network."""
    return bool(one.country) and is_place(one.country, one.asn)


def is_sane_witness(one: Witness) -> bool:
    """Whether a witness names a place, a state and a time that can be."""
    return (
        is_entity(one.entity) and one.state in STATES and 0 <= one.start_s <= LAST_S and is_place(one.country, one.asn)
    )


def token(text: str) -> str:
    """A short name as an observation may hold it: what does not fit becomes a dash."""
    kept = re.sub(r"[^A-Za-z0-9 ._+:/-]", "-", text)[:80].lstrip(" ._+:/-")
    return kept if _TOKEN.fullmatch(kept) else ""


def pack_raw(measurement: bytes) -> bytes:
    """A scrubbed measurement as ``Observation.raw`` holds it; empty when it is too large to be published."""
    if len(measurement) > RAW_UNPACKED_MAX_BYTES:
        return b""
    packed = zlib.compress(measurement, 9)
    return packed if len(packed) <= RAW_MAX_BYTES else b""


def unpack_raw(raw: bytes) -> bytes:
    """The scrubbed measurement that an observation brought; raises ProtocolError when it is damaged or a bomb."""
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(raw, RAW_UNPACKED_MAX_BYTES)
    except zlib.error as error:
        raise ProtocolError("the measurement is damaged: %(error)s", error=error) from None
    if not inflate.eof or inflate.unused_data:
        raise ProtocolError("the measurement is damaged, or larger than one can be")
    return data


# ---- probes elsewhere ----

ASK_NUMBER_BYTES: Final = 16
TOLD_RAW_MAX_BYTES: Final = 14 * 1024
TARGET_MAX_BYTES: Final = 2048


class Ask(msgspec.Struct, array_like=True, frozen=True):
    """A letter to a contact: please probe this URL from where you are."""

    number: bytes  # 16 B, at random
    target: str


class Told(msgspec.Struct, array_like=True, frozen=True):
    """The answer: a measurement without pages' texts, packed; or why there is none."""

    number: bytes
    problem: str  # "" or one line
    raw: bytes


ASK: Final = Kind("watch.ask", Ask, max_bytes=TARGET_MAX_BYTES + 64)
TOLD: Final = Kind("watch.told", Told, max_bytes=TOLD_RAW_MAX_BYTES + 512)
