"""Admission: the one way in, for entries made here and entries from outside alike.

``examine`` makes every test that needs no signature, the cheapest first; ``admit`` does the same
for a batch and then has all signatures verified together. What comes out is a verdict, never an
exception. Admission checks bounds only: who may say what is decided in the views, so that the
order of arrival cannot split the stores of honest nodes. Nothing that a relay could change
authorises anything, and there is no hop count.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

from outlast.errors import Sentence
from outlast.kernel.entry import (
    DAY_MS,
    HEADER_MAX_BYTES,
    PAYLOAD_MAX_BYTES,
    VERSION,
    Entry,
    EntryError,
    expiry_day,
    signing_input,
    unpack,
)
from outlast.kernel.epoch import is_wellformed_sealed
from outlast.kernel.identity import IdentityError
from outlast.kernel.kinds import DEFAULT_LIFE_DAYS, KindError, Kinds
from outlast.kernel.mail import MAIL_SPACE, is_wellformed_envelope
from outlast.kernel.parcel import PARCEL_SPACE, is_wellformed_parcel
from outlast.kernel.space import GENESIS, NO_SPACE, OPEN, SEALED, is_valid_genesis, read_genesis

PACKED_MAX_BYTES: Final = 2 + HEADER_MAX_BYTES + 64 + PAYLOAD_MAX_BYTES
"""Largest packed entry."""
UNLIMITED: Final = 2**62
"""A share that no batch uses up."""
_HEAD_BYTES: Final = 2 + 64


class Rule(StrEnum):
    """Why an entry was not admitted: a code for machines, and ``line``, one line for people.

    ``lasting`` rules can never come out otherwise, and finding out costs time: such a refusal is
    worth remembering by its digest. ``by_id``: the id alone decides, whoever sends it with whatever
    signature, so that it need not be asked for again.
    """

    line: Sentence
    lasting: bool
    by_id: bool

    def __new__(cls, code: str, line: Sentence, lasting: bool = False, by_id: bool = False) -> Rule:
        """A rule is its code, as a string."""
        rule = str.__new__(cls, code)
        rule._value_ = code
        rule.line = line
        rule.lasting = lasting
        rule.by_id = by_id
        return rule

    SIZE = "size", Sentence("it is larger than any entry can be")
    FORM = "form", Sentence("its bytes are no canonical entry")
    KIND_SIZE = "kind-size", Sentence("its payload is larger than its kind allows"), False, True
    BODY = "body", Sentence("its payload is not what its kind says"), True, True
    LIFE = "life", Sentence("it asks to be kept longer than its kind allows"), False, True
    EXPIRED = "expired", Sentence("its time is over")
    SPACE = "space", Sentence("it belongs to a channel that nobody here follows")
    SPACE_TYPE = "space-type", Sentence("its channel is of another type than the one that is followed here")
    GENESIS = "genesis", Sentence("it founds no channel: its form or its owner's certificate is wrong"), True
    ENVELOPE = (
        "envelope",
        Sentence("it lies in the mail space and does not look like every other envelope"),
        False,
        True,
    )
    PARCEL = "parcel", Sentence("it lies in the parcel space and does not look like every other parcel"), False, True
    SEALED = "sealed", Sentence("it lies in a sealed group and does not look like everything there"), False, True
    REMEMBERED = "remembered", Sentence("the same bytes were refused before")
    SHARE = "share", Sentence("the neighbour has used up its bytes for today")
    SIGNATURE = "signature", Sentence("its signature is not its author's"), True


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """Verified and within all bounds; ``completes``: the header was here, the payload is new."""

    entry: Entry
    completes: bool = False


class Known(msgspec.Struct, frozen=True, gc=False):
    """Held already, with all that this copy brings."""

    entry: Entry


class Held(msgspec.Struct, frozen=True, gc=False):
    """Well-formed, but nothing here says yet that it is to be kept; it may be later."""

    entry: Entry
    rule: Rule


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Outside of a rule; ``digest`` (32 B) is what ``AdmissionState.refused`` remembers."""

    rule: Rule
    digest: bytes
    entry: Entry | None = None


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """Within all bounds; only its signature is still to be verified."""

    entry: Entry


Verdict = Admitted | Known | Held | Refused
Signed = tuple[bytes, bytes, bytes]
"""Public key (32 B), signature (64 B), message."""
VerifyMany = Callable[[list[Signed]], list[bool]]
"""Verifies a batch, on as many threads as the shell likes; one answer for each, in order."""


@dataclass(slots=True)
class AdmissionState:
    """What admission needs to know of this node, for one batch from one neighbour.

    ``share_left`` (bytes) goes down as candidates are found: a forged entry has cost its
    neighbour's share all the same.
    """

    kinds: Kinds
    spaces: Container[bytes]
    """Followed spaces; the mail space is always open."""
    pruned_day: int
    """Entries that expire before this day are gone."""
    closed: Mapping[bytes, str] = field(default_factory=dict)
    """The types of those of the followed spaces that are for members; the others are open."""
    known: Container[bytes] = frozenset()
    """Ids of the batch that are held."""
    incomplete: Container[bytes] = frozenset()
    """Those of them whose payload is not at hand and is wanted."""
    refused: Container[bytes] = frozenset()
    """Digests of lasting refusals."""
    share_left: int = UNLIMITED


def refusal_digest(entry: Entry) -> bytes:
    """32 bytes over header, signature and payload: garbage could share the id alone."""
    return sha256(b"outlast/refused/1" + entry.header_bytes + entry.signature + (entry.payload or b"")).digest()


def examine(data: bytes | Entry, state: AdmissionState) -> Candidate | Verdict:
    """Make all tests but the signature's on a packed entry, or one that ``unpack`` returned.

    An Admitted returned from here only completes an entry whose signature was verified before.
    """
    if isinstance(data, Entry):
        entry = data
    else:
        if len(data) > PACKED_MAX_BYTES:
            return Refused(Rule.SIZE, sha256(data).digest())
        try:
            entry, end = unpack(data)
        except EntryError:
            return Refused(Rule.FORM, sha256(data).digest())
        if end != len(data):
            return Refused(Rule.FORM, sha256(data).digest())
    completes = False
    if entry.id in state.known:
        if entry.payload is None or entry.id not in state.incomplete:
            return Known(entry)
        completes = True
    rule = _rule_against(entry, state)
    if rule is Rule.SPACE or rule is Rule.SPACE_TYPE:
        return Held(entry, rule)
    if rule is not None:
        return _refuse(entry, rule)
    if completes:
        # The payload's hash stands in the header, and unpack compared them.
        return Admitted(entry, completes=True)
    return Candidate(entry)


def admit(batch: Sequence[bytes | Entry], state: AdmissionState, verify_many: VerifyMany) -> list[Verdict]:
    """The verdicts on a batch, in order.

    Of several copies of one entry the first with a valid signature is admitted and later ones are
    known, so that garbage sent first cannot shut out the real one.
    """
    found = [examine(data, state) for data in batch]
    signed = [
        (c.entry.header.author, c.entry.signature, signing_input(c.entry.header_bytes))
        for c in found
        if isinstance(c, Candidate)
    ]
    answers = iter(verify_many(signed) if signed else ())
    taken: set[bytes] = set()
    verdicts: list[Verdict] = []
    for one in found:
        if isinstance(one, Candidate):
            entry = one.entry
            if not next(answers):
                one = _refuse(entry, Rule.SIGNATURE)
            elif entry.id in taken:
                one = Known(entry)
            else:
                taken.add(entry.id)
                one = Admitted(entry)
        verdicts.append(one)
    return verdicts


def _refuse(entry: Entry, rule: Rule) -> Refused:
    return Refused(rule, refusal_digest(entry), entry)


def _rule_against(entry: Entry, state: AdmissionState) -> Rule | None:
    """The first rule that the entry breaks, the cheapest first; charges the shares if none."""
    h = entry.header
    space = h.space
    if h.expires_day and h.expires_day < state.pruned_day:
        return Rule.EXPIRED
    if space == MAIL_SPACE:
        if not is_wellformed_envelope(h):
            return Rule.ENVELOPE
        rule = None
    elif space == PARCEL_SPACE:
        rule = None if is_wellformed_parcel(h) else Rule.PARCEL
    elif space == NO_SPACE:
        rule = _rule_of_genesis(entry, state)
    elif space not in state.spaces:
        rule = Rule.SPACE
    elif h.kind == GENESIS.name:
        rule = Rule.GENESIS  # within a space it would found another one, in the name of anybody
    elif state.closed.get(space) == SEALED:
        rule = None if is_wellformed_sealed(h) else Rule.SEALED
    else:
        rule = _rule_of_kind(entry, state.kinds)
    if rule is not None:
        return rule
    if state.refused and refusal_digest(entry) in state.refused:
        return Rule.REMEMBERED
    size = _HEAD_BYTES + len(entry.header_bytes) + len(entry.payload or b"")
    if size > state.share_left:
        return Rule.SHARE
    state.share_left -= size
    return None


def _rule_of_kind(entry: Entry, kinds: Kinds) -> Rule | None:
    h = entry.header
    # What a later version says under a name of today need not fit today's body.
    kind = kinds.get(h.kind) if h.version == VERSION else None
    if kind is None:
        life_days = DEFAULT_LIFE_DAYS  # of large content a manifest, no larger than any payload
    else:
        if h.payload_size > kind.max_bytes:
            return Rule.KIND_SIZE
        life_days = kind.max_life_days
    if life_days and not 0 < h.expires_day <= expiry_day(h.ts_ms, life_days * DAY_MS):
        return Rule.LIFE
    if kind and kind.body and entry.payload is not None and h.payload_size <= PAYLOAD_MAX_BYTES:
        try:
            if kind.encode(kind.decode(entry.payload)) != entry.payload:
                return Rule.BODY
        except KindError:
            return Rule.BODY
    return None


def _rule_of_genesis(entry: Entry, state: AdmissionState) -> Rule | None:
    h = entry.header
    if entry.id not in state.spaces:
        return Rule.SPACE
    if h.kind != GENESIS.name or h.version != VERSION or h.payload_size > GENESIS.max_bytes:
        return Rule.GENESIS
    if entry.payload is None:
        return None
    try:
        body = read_genesis(entry)
        canonical = GENESIS.encode(body) == entry.payload
    except (KindError, IdentityError):
        return Rule.GENESIS
    if body.type != state.closed.get(entry.id, OPEN):
        return Rule.SPACE_TYPE
    return None if canonical and is_valid_genesis(entry, body) else Rule.GENESIS
