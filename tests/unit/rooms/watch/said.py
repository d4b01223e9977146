"""Observations, heartbeats, witnesses and outages for watch's tests, under keys that come from their names."""

from __future__ import annotations

from typing import Any

import msgspec

from outlast.kernel import Kind
from outlast.kernel.entry import DAY_MS, Entry
from outlast.kernel.identity import SigningKey
from outlast.kernel.log import loose_entry
from outlast.kernel.space import OPEN, SpaceBody, make_genesis
from outlast.rooms.watch.entries import HEARTBEAT, OBSERVATION, WITNESS, Heartbeat, Observation, Witness
from outlast.terms import OUTAGE, Fact, Outage
from tests.unit.kernel.people import NOW_MS, person, secret

HOUR_MS = 3_600_000
NOW_S = NOW_MS // HOUR_MS * 3600
OWNER = person("owner")


def channel(name: str = "Watch") -> Entry:
    """The genesis of a channel in which everybody may speak."""
    body = SpaceBody(OPEN, name, OWNER.device.certificate, "anyone", (OWNER.identity.public,), secret(name)[:16])
    return make_genesis(OWNER.signing, body, NOW_MS)


NEWS = channel()


def key(name: str) -> SigningKey:
    """The key of somebody."""
    return SigningKey.from_seed(secret("watch", name))


def say(kind: Kind, body: msgspec.Struct, *, by: str = "ann", at_s: int = NOW_S, life_days: int = 30) -> Entry:
    """An entry outside of chains."""
    return loose_entry(
        key(by),
        space=NEWS.id,
        kind=kind.name,
        payload=msgspec.msgpack.encode(body),
        ts_ms=at_s * 1000,
        life_ms=life_days * DAY_MS,
        priority=kind.priority,
    )


def observation(input: str = "https://example.org/", *, by: str = "ann", **changed: Any) -> Entry:
    """A measurement that found nothing, but for what is ``changed``."""
    plain = Observation(
        "web_connectivity", input, NOW_S, "BY", 6697, "false", True, ("ok", "ok", "ok", "ok", "unknown"), "", "outlast"
    )
    return say(OBSERVATION, msgspec.structs.replace(plain, **changed), by=by)


def heartbeat(by: str = "ann", *, country: str = "BY", asn: int = 6697, at_s: int = NOW_S) -> Entry:
    """Somebody is there."""
    return say(HEARTBEAT, Heartbeat(country, asn), by=by, at_s=at_s)


def witness(by: str, *, asn: int = 6697, state: Any = "blackout", start_s: int = NOW_S, entity: str = "BY") -> Entry:
    """Somebody sees an outage."""
    return say(WITNESS, Witness(entity, state, start_s, "BY", asn), by=by)


def outage(by: str = "ann", **changed: Any) -> Entry:
    """An outage of Belarus that lasts."""
    seen = (Fact("changed", ("bgp", -0.97, NOW_S, -1)), "somebody's own words")
    plain = Outage("BY", "blackout", NOW_S, None, seen, (secret("a witness"),))
    return say(OUTAGE, msgspec.structs.replace(plain, **changed), by=by)
