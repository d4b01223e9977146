"""Who may come in by which door: Host names, sessions, tokens that let a phone join, and how often one may try.

All pure: times are given in ms, secrets come from a function. Only hashes of session secrets are kept.
"""

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal

from outlast.edges.submitted import Submitted

DoorKind = Literal["localhost", "lan", "https"]
Secret = Callable[[], str]

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
JOIN_MS: Final = 5 * MINUTE_MS
IDLE_MS: Final = {"localhost": DAY_MS // 2, "lan": 30 * DAY_MS, "https": 30 * DAY_MS}
"""How long a session lives without a visit."""
LIFE_MS: Final = {"localhost": 7 * DAY_MS, "lan": 180 * DAY_MS, "https": 180 * DAY_MS}
"""How long a session lives at most."""
TURN_S: Final = 0.01
"""From one open page to the next that looks again: a page of messages has some 30 KB."""
PROOF_MS: Final = 10 * MINUTE_MS
"""So long after its bearer gave the passphrase a phone may do, over https, what is done at the computer otherwise."""
STREAMS_MAX: Final = 4
"""Of one browser, which has six connections to a node (HTTP/1.1): the others are for what it asks."""


@dataclass(frozen=True, slots=True)
class Door:
    """A listener: ``localhost`` for the one who runs the node; for joined phones ``lan`` over plain http, and ``https``
    for those that installed this node's certificate."""

    kind: DoorKind
    port: int
    addresses: Callable[[], Iterable[str]]

    @property
    def scheme(self) -> str:
        """What its URLs begin with."""
        return "https" if self.kind == "https" else "http"

    @property
    def cookie(self) -> str:
        """The name of the session's cookie; browsers share cookies between the ports of one host."""
        return f"outlast-{self.port}"

    def names(self) -> list[str]:
        """The values of ``Host`` that mean this door now: addresses come and go."""
        literal = [host_of(address) for address in self.addresses()]
        if self.kind == "localhost":
            literal = ["localhost", *literal]
        return [f"{name}:{self.port}" for name in literal] + (literal if self.port == 80 else [])


def host_of(address: str) -> str:
    """An address as it stands in a URL (RFC 3986 §3.2.2)."""
    return f"[{address}]" if ":" in address else address


@dataclass(slots=True, eq=False)
class Session:
    """One browser that was let in. ``person`` is the key of the vault it speaks for, or empty while none is open."""

    digest: bytes
    door: DoorKind
    person: str
    label: str
    made_ms: int
    seen_ms: int
    csrf: str
    waiting_code: str = ""
    proved_ms: int = -PROOF_MS
    watchers: set[Callable[[], None]] = field(default_factory=set)
    submitted: Submitted = field(default_factory=Submitted)

    def ended(self, now_ms: int) -> bool:
        """Whether its time is over."""
        if self.waiting_code:
            return now_ms - self.made_ms > JOIN_MS
        return now_ms - self.seen_ms > IDLE_MS[self.door] or now_ms - self.made_ms > LIFE_MS[self.door]

    def close(self) -> None:
        """Tell whoever streams to this browser that it is over."""
        for watcher in list(self.watchers):
            watcher()


class Sessions:
    """The browsers that were let in, by the hash of their secret."""

    def __init__(self) -> None:
        """Nobody is in yet."""
        self._open: dict[bytes, Session] = {}

    def open(self, secret: str, door: DoorKind, person: str, label: str, now_ms: int) -> Session:
        """Let a browser in that holds ``secret``."""
        session = Session(digest(secret), door, person, label, now_ms, now_ms, csrf_of(secret))
        self._open[session.digest] = session
        return session

    def restore(self, session: Session) -> None:
        """Take in a session kept from an earlier run."""
        self._open.setdefault(session.digest, session)

    def find(self, secret: str, door: DoorKind, now_ms: int) -> Session | None:
        """The session of a browser at ``door``, marked as seen, or None when it has none or its time is over."""
        session = self._open.get(digest(secret)) if secret else None
        if session is None or session.door != door:
            return None
        if session.ended(now_ms):
            self.close(session)
            return None
        session.seen_ms = now_ms
        session.csrf = session.csrf or csrf_of(secret)
        return session

    def named(self, digest_hex: str) -> Session | None:
        """The session whose hash is written ``digest_hex``."""
        try:
            return self._open.get(bytes.fromhex(digest_hex))
        except ValueError:
            return None

    def close(self, session: Session) -> None:
        """End a session; its streams end too."""
        self._open.pop(session.digest, None)
        session.close()

    def phones(self, person: str) -> list[Session]:
        """The sessions by the doors for phones that speak for a person, oldest first."""
        found = [one for one in self._open.values() if one.door != "localhost" and one.person == person]
        return sorted(found, key=lambda session: session.made_ms)

    def close_person(self, person: str) -> None:
        """End all sessions that speak for a person, at every door."""
        for session in [one for one in self._open.values() if one.person == person]:
            self.close(session)

    def close_streams(self) -> None:
        """End all streams; the sessions stay."""
        for session in list(self._open.values()):
            session.close()


def digest(secret: str) -> bytes:
    """What is kept of a session's secret: 32 bytes, SHA-256. The secret has 256 random bits, so no salt is needed."""
    return sha256(b"outlast/web-session/1" + secret.encode(errors="replace")).digest()


def csrf_of(secret: str) -> str:
    """The form token of a session: 43 characters that the cookie's secret gives and that do not give it away."""
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(hmac.digest(secret.encode(errors="replace"), b"outlast/web-form/1", "sha256"))[
        :43
    ].decode()


def same(one: str, other: str) -> bool:
    """Whether two secrets are equal, in constant time; an empty one equals nothing."""
    return bool(one) and hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))


@dataclass(slots=True)
class Invitation:
    """A QR code shown to one phone: good for five minutes and one use."""

    token: str
    person: str
    made_ms: int
    session: Session | None = None

    def over(self, now_ms: int) -> bool:
        """Whether it can no longer be used."""
        return not 0 <= now_ms - self.made_ms <= JOIN_MS


class Invitations:
    """Phones that are about to join: a token is shown, redeemed once, and confirmed at the host's screen."""

    def __init__(self, secret: Secret) -> None:
        """Tokens and codes are made by ``secret``."""
        self._secret = secret
        self._made: dict[str, Invitation] = {}

    def make(self, person: str, now_ms: int) -> Invitation:
        """A new invitation to use this node as ``person``; a person has one at a time."""
        self._made = {t: i for t, i in self._made.items() if i.person != person and not i.over(now_ms)}
        invitation = Invitation(self._secret()[:24], person, now_ms)
        self._made[invitation.token] = invitation
        return invitation

    def find(self, token: str, now_ms: int) -> Invitation | None:
        """The invitation that can still be redeemed with ``token``."""
        invitation = self._made.get(token)
        return None if invitation is None or invitation.over(now_ms) or invitation.session else invitation

    def of(self, person: str, now_ms: int) -> Invitation | None:
        """The invitation that ``person`` shows now, redeemed or not."""
        found = [one for one in self._made.values() if one.person == person and not one.over(now_ms)]
        return found[-1] if found else None

    def drop(self, invitation: Invitation) -> None:
        """Forget an invitation: it was confirmed, refused or taken back."""
        self._made.pop(invitation.token, None)


class Tries:
    """How often a secret may be tried: ``limit`` at once, then one more each ``every_ms``."""

    def __init__(self, limit: int, every_ms: int) -> None:
        """All tries are there at the beginning."""
        self._limit = limit
        self._every_ms = every_ms
        self._spent: dict[str, float] = {}

    def take(self, what: str, now_ms: int) -> int:
        """Take one try at ``what``; the result is 0, or in how many seconds the next one is allowed."""
        full_at = max(self._spent.get(what, 0.0), now_ms)
        wait_ms = full_at - now_ms - (self._limit - 1) * self._every_ms
        if wait_ms > 0:
            return int(wait_ms // 1000) + 1
        self._spent[what] = full_at + self._every_ms
        return 0

    def forgive(self, what: str) -> None:
        """Give the last try back: the right secret was given. No more, for who knows one may guess at another."""
        if what in self._spent:
            self._spent[what] -= self._every_ms


class Turns:
    """When each of many open pages looks again after a change: one by one, with as much time between them as their
    looking takes, so that others do not wait, and never so many a second that the Wi-Fi is full of them."""

    def __init__(self) -> None:
        """Nobody has looked yet."""
        self._free_s = 0.0
        self._look_s = 0.0

    def took(self, seconds: float) -> None:
        """A page was fetched again in so many seconds."""
        self._look_s += (seconds - self._look_s) / 8

    def take(self, now_s: float) -> float:
        """Take the next turn; the result says in how many seconds it is, on the monotonic clock of ``now_s``."""
        turn_s = max(self._free_s, now_s)
        self._free_s = turn_s + max(2 * self._look_s, TURN_S)
        return turn_s - now_s
