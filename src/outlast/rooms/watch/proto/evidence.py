"""What shows an outage, line by line: facts as data, and the sentence for each; only who shows it makes one of them.

A fact travels and is kept as its kind with values (``outlast.terms.Fact``). In English, as the command line and the
report say it, ``english`` makes the sentence; pages fill the same sentence in their language (``words.evidence``). A
line by somebody else may be free text, or a fact that this version does not know: these are shown as they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, assert_never

from outlast.errors import Part, Sentence
from outlast.rooms.watch.proto.series import HOUR_S, iso
from outlast.terms import LAST_S, Fact, Value


class Unit(StrEnum):
    """What a value of a fact is."""

    NAME = "name"  # of a signal, or several with ", " between them
    COUNT = "count"
    AMOUNT = "amount"  # as a signal counts
    CHANGE = "change"  # a share of the usual: -0.5 is half of it gone, 1 twice as much
    TIME = "time"  # s UTC
    SPAN = "span"  # s
    ANSWER = "answer"  # whether something answered, None = it was not asked


FORMS: Final[Mapping[str, Sentence]] = {
    # of a country
    "changed": Sentence(
        "%(signal)s: %(change)s since %(since)s, at worst %(worst)s",
        {"signal": Unit.NAME, "change": Unit.CHANGE, "since": Unit.TIME, "worst": Unit.CHANGE},
    ),
    "silent": Sentence(
        "%(signal)s: no values since %(since)s while %(others)s other signals report",
        {"signal": Unit.NAME, "since": Unit.TIME, "others": Unit.COUNT},
    ),
    "regions": Sentence(
        "%(gone)s of %(regions)s regions have lost at least half at %(at)s",
        {"gone": Unit.COUNT, "regions": Unit.COUNT, "at": Unit.TIME},
    ),
    "restoring": Sentence(
        "restoring since %(since)s: at least half of every loss has come back",
        {"since": Unit.TIME},
    ),
    "signals-end": Sentence("the signals end here: whether it went on is not known"),
    "own-line": Sentence(
        "own line: the gateway %(gateway)s, a target in the country %(country)s, a target abroad %(abroad)s",
        {"gateway": Unit.ANSWER, "country": Unit.ANSWER, "abroad": Unit.ANSWER},
    ),
    # what it looks like
    "like-ordered": Sentence(
        "hint, no finding: like an ordered shutdown (%(signal)s %(worst)s within %(fall)s, then flat for"
        " %(flat)s; the routes stayed up)",
        {"signal": Unit.NAME, "worst": Unit.CHANGE, "fall": Unit.SPAN, "flat": Unit.SPAN},
    ),
    "like-ordered-regions": Sentence(
        "hint, no finding: like an ordered shutdown (%(signal)s %(worst)s within %(fall)s, then flat for"
        " %(flat)s; the routes stayed up; %(gone)s of %(regions)s regions lost half, nine in ten of them"
        " within %(within)s)",
        {
            "signal": Unit.NAME,
            "worst": Unit.CHANGE,
            "fall": Unit.SPAN,
            "flat": Unit.SPAN,
            "gone": Unit.COUNT,
            "regions": Unit.COUNT,
            "within": Unit.SPAN,
        },
    ),
    "like-power": Sentence(
        "hint, no finding: like a power cut or damage (%(signal)s lay at its worst for %(low)s and has"
        " been coming back for %(back)s)",
        {"signal": Unit.NAME, "low": Unit.SPAN, "back": Unit.SPAN},
    ),
    "like-power-regions": Sentence(
        "hint, no finding: like a power cut or damage (%(signal)s lay at its worst for %(low)s and has"
        " been coming back for %(back)s; %(gone)s of %(regions)s regions lost half, nine in ten of them"
        " within %(within)s)",
        {
            "signal": Unit.NAME,
            "low": Unit.SPAN,
            "back": Unit.SPAN,
            "gone": Unit.COUNT,
            "regions": Unit.COUNT,
            "within": Unit.SPAN,
        },
    ),
    "like-cable": Sentence(
        "hint, no finding: like a broken cable (%(signal)s lost a part, %(worst)s, for %(held)s, with %(others)s)",
        {"signal": Unit.NAME, "worst": Unit.CHANGE, "held": Unit.SPAN, "others": Unit.NAME},
    ),
    # of one signal
    "value": Sentence(
        "%(value)s where %(usual)s is usual at this hour: %(change)s; it is an alarm from %(threshold)s",
        {"value": Unit.AMOUNT, "usual": Unit.AMOUNT, "change": Unit.CHANGE, "threshold": Unit.CHANGE},
    ),
    "values": Sentence(
        "%(value)s where %(usual)s is usual at this hour: %(change)s for three values in a row; it is an"
        " alarm from %(threshold)s",
        {"value": Unit.AMOUNT, "usual": Unit.AMOUNT, "change": Unit.CHANGE, "threshold": Unit.CHANGE},
    ),
    "worst": Sentence(
        "at worst %(change)s at %(at)s",
        {"change": Unit.CHANGE, "at": Unit.TIME},
    ),
    "half-back": Sentence(
        "restoring since %(since)s: at least half of the loss has come back",
        {"since": Unit.TIME},
    ),
    "again": Sentence(
        "fell again at %(at)s",
        {"at": Unit.TIME},
    ),
    "missing": Sentence(
        "no values since %(since)s: missing, which is not 0",
        {"since": Unit.TIME},
    ),
    "accepted": Sentence("the operator accepted this level as the new usual"),
}
"""A kind's sentence; its parts are what each value is, in order."""
ANSWERS: Final[Mapping[bool | None, Sentence]] = {
    True: Sentence("answers"),
    False: Sentence("does not answer"),
    None: Sentence("was not asked"),
}


def fact(kind: str, *values: Value) -> Fact:
    """A fact of one of ``FORMS``."""
    return Fact(kind, values)


def told(line: Fact, write: Callable[[Unit, Value], Part]) -> Sentence | None:
    """A fact's sentence with its values as ``write`` writes them; None when this version knows none that they fit."""
    form = FORMS.get(line.kind)
    if form is None or len(form.parts) != len(line.values):
        return None
    units = [Unit(str(unit)) for unit in form.parts.values()]
    if not all(map(_fits, units, line.values)):
        return None
    return Sentence(form.text, dict(zip(form.parts, map(write, units, line.values), strict=True)))


def english(line: str | Fact) -> str:
    """A line of evidence in English; a fact that is none of ours as it stands."""
    if isinstance(line, str):
        return line
    return str(told(line, _in_english) or f"{line.kind}: {', '.join(map(str, line.values))}")


def change(share: str, *, rises: bool) -> Sentence:
    """A change of the usual, by its size."""
    return Sentence("%(share)s higher", {"share": share}) if rises else Sentence("%(share)s lower", {"share": share})


def hours(number: str) -> Sentence:
    """A span."""
    return Sentence("%(n)s h", {"n": number})


def _fits(unit: Unit, value: Value) -> bool:
    match unit:
        case Unit.NAME:
            return isinstance(value, str)
        case Unit.ANSWER:
            return value is None or isinstance(value, bool)
        case Unit.TIME:
            return type(value) is int and 0 <= value <= LAST_S
        case Unit.COUNT:
            return type(value) is int and value >= 0
        case Unit.SPAN | Unit.AMOUNT | Unit.CHANGE:
            return type(value) in (int, float)
        case _:
            assert_never(unit)


def _in_english(unit: Unit, value: Value) -> Part:
    match unit, value:
        case Unit.CHANGE, int() | float():
            return change(f"{abs(value):.0%}", rises=value > 0)
        case Unit.AMOUNT, int() | float():
            return f"{value:.4g}"
        case Unit.SPAN, int() | float():
            return hours(f"{value / HOUR_S:.3g}")
        case Unit.TIME, int():
            return iso(value)
        case Unit.ANSWER, bool() | None:
            return ANSWERS[value]
    return str(value)
