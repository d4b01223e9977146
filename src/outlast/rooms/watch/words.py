"""What watch's codes say, as sentences that are translated where they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from outlast.errors import Part
from outlast.rooms.watch.lamps import Lamp
from outlast.rooms.watch.proto.cost import YOUR_SHARE, Cost, nearest
from outlast.rooms.watch.proto.detector import REGIONS_UP
from outlast.rooms.watch.proto.evidence import ANSWERS, Unit, change, english, hours, told
from outlast.rooms.watch.proto.heartbeats import DOMESTIC, FOREIGN
from outlast.rooms.watch.proto.series import HOUR_S
from outlast.rooms.watch.service import HEARTBEATS, ROUTES
from outlast.terms import Fact, Value
from outlast.ui.languages import Translation, marked
from outlast.ui.page import moment

STATES: Final[Mapping[str, str]] = {
    "normal": marked("as usual"),
    "degraded": marked("much worse than usual"),
    "routes-up-traffic-down": marked("routes are up, traffic is gone"),
    "whitelist": marked("only what is inside the country answers"),
    "blackout": marked("cut off"),
    "restoring": marked("coming back"),
}
VERDICTS: Final[Mapping[str, str]] = {
    "ok": marked("answers"),
    "blocked": marked("blocked"),
    "down": marked("down"),
    "unknown": marked("unclear"),
}
LAYERS: Final[Mapping[str, str]] = {
    "dns": marked("name"),
    "tcp": marked("connection"),
    "tls": marked("encryption"),
    "http": marked("page"),
    "throttled": marked("speed"),
}
PUBLISHED: Final[Mapping[str, str]] = {
    "observations": marked("what you measure, scrubbed"),
    "heartbeats": marked("that a node is there, each hour"),
    "outages": marked("outages that your node sees"),
}
LIGHTS: Final[Mapping[str, str]] = {
    "ok": marked("well"),
    "warn": marked("take care"),
    "bad": marked("cut off"),
    "old": marked("old"),
    "unknown": marked("not known"),
}
LINK: Final[Mapping[str, str]] = {
    "ok": marked("Your line works: something at home and abroad answers."),
    "only-inside": marked("Only addresses inside the country answer."),
    "only-abroad": marked("Addresses abroad answer, those inside the country do not."),
    "no-gateway": marked("Your own router does not answer: this is your line, not the country."),
    "nothing-answers": marked("Nothing answers beyond your router."),
    "not-looked": marked("Nobody has looked yet."),
    "long-ago": marked("The last look is too long ago to say."),
    "unclear": marked("The last look does not tell."),
}
COUNTRY: Final[Mapping[str, str]] = {
    "no-country": marked("Say in which country this node is: then it can watch it."),
    "no-signals": marked("No signal tells yet: read a file of one, or follow a channel of people who watch."),
    "old-signals": marked(
        "The signals here are too old to say: read a newer file of one, or let this node ask public servers."
    ),
    "own-link": marked("Your own line is down, so this node cannot say."),
    "normal": marked("No outage, by all signals together that this node has."),
}


SIGNALS: Final[Mapping[str, str]] = {
    DOMESTIC: marked("people in the country who are heard"),
    FOREIGN: marked("people abroad who are heard"),
    HEARTBEATS: HEARTBEATS,
}
ROUTE_ENDS: Final[Mapping[str, str]] = {
    "ok": marked("answered"),
    "dns": marked("its name leads nowhere"),
    "refused": marked("refused"),
    "syn-drop": marked("no answer at all"),
    "rst-after-hello": marked("cut off at the greeting"),
    "freeze": marked("frozen after a while"),
    "tls-mitm": marked("a wrong certificate"),
    "fully-encrypted-filter": marked("what looks random is dropped"),
    "wrong-key": marked("a wrong key"),
    "wrong-clock": marked("a wrong clock"),
    "captive-portal": marked("a network to sign in to first"),
    "throttled": marked("too slow"),
    "unknown": marked("not clear why"),
}
COST_INPUTS: Final[Mapping[str, str]] = {
    "gdp_usd": marked("GDP in dollars"),
    "gdp_year": marked("GDP of the year"),
    "population": marked("population"),
    "population_year": marked("population of the year"),
    "share": marked("your share"),
    "affected": marked("share of the country that was cut off"),
    "connectivity": marked("connectivity"),
    "internet_share": marked("the internet's share of the economy"),
    "reported_usd": marked("reported, in dollars"),
}


@dataclass(frozen=True, slots=True)
class Told:
    """A cost in words: what went in, by name and value; what is to be said of it; and where it was published."""

    inputs: Sequence[tuple[str, str]]
    notes: Sequence[str]
    source: str


def evidence(line: str | Fact, _: Translation) -> str:
    """A line of evidence in the reader's language; one by somebody else that is none of ours, as it stands."""

    def write(unit: Unit, value: Value) -> Part:
        match unit, value:
            case Unit.NAME, str():
                # A name keeps its own direction of writing.
                return f"\u2068{', '.join(signal(name, _) for name in value.split(', '))}\u2069"
            case Unit.CHANGE, int() | float():
                return change(percent(abs(value), _), rises=value > 0)
            case Unit.AMOUNT, int() | float():
                return number(float(f"{value:.4g}"), _)
            case Unit.SPAN, int() | float():
                return hours(number(float(f"{value / HOUR_S:.3g}"), _))
            case Unit.TIME, int():
                return moment(value * 1000, _)
            case Unit.ANSWER, bool() | None:
                return ANSWERS[value]
        return _.digits(value)

    known = None if isinstance(line, str) else told(line, write)
    if known is None:
        return english(line)
    text = _(known)
    return f"{text[:1].upper()}{text[1:]}"


def number(value: float, _: Translation) -> str:
    """A number as the page's language writes it."""
    from babel.numbers import format_decimal

    return _.digits(format_decimal(value, locale=_.language.replace("-", "_"), numbering_system="default"))


def short(value: float, _: Translation) -> str:
    """A number in few characters, as the page's language writes it: ``12.5``, ``1.2K``, ``3.4M``."""
    from babel.numbers import format_compact_decimal

    rounded = float(f"{value:.3g}")
    if abs(rounded) < 1000:
        return number(rounded, _)
    locale = _.language.replace("-", "_")
    return _.digits(format_compact_decimal(rounded, locale=locale, fraction_digits=2, numbering_system="default"))


def money(value: float, _: Translation) -> str:
    """Dollars with the digits that mean something: ``34,000``, ``1.2M``, ``1.3B``."""
    rounded = float(f"{value:.3g}")
    return number(rounded, _) if rounded < 1e6 else short(rounded, _)


def percent(share: float, _: Translation, places: int = 0) -> str:
    """A share of one as a percentage, with at most so many places behind the point.

    From right to left the sign stands left of the number, as behind Arabic letters, also where none stand before it.
    """
    from babel import Locale
    from babel.numbers import format_percent

    locale = Locale.parse(_.language.replace("-", "_"))
    sign = locale.number_symbols[locale.default_numbering_system]["percentSign"]
    rounded = round(share, places + 2)
    text = format_percent(rounded, locale=locale, decimal_quantization=False, numbering_system="default")
    before = "\N{ARABIC LETTER MARK}" if _.direction == "rtl" else ""
    return before + _.digits(text).replace("%", sign)


def signal(name: str, _: Translation) -> str:
    """The name of a signal: as its source has it, or in words for what this program counts itself."""
    first, dot, source = name.partition(" · ")
    whole, _colon, part = first.rpartition(": ")
    if first in SIGNALS:
        first = _(SIGNALS[first])
    elif part == REGIONS_UP:
        first = _("%(signal)s: share of regions that are up", signal=whole)
    elif whole == ROUTES and part in ROUTE_ENDS:
        first = f"{_(ROUTES)}: {_(ROUTE_ENDS[part])}"
    return f"{first}{dot}{source}"


def cost(one: Cost, year: str, _: Translation, money: Callable[[float], str]) -> Told:
    """What one method says of a cut that was asked about for ``year``."""
    given = one.inputs
    inputs = []
    for name, label in COST_INPUTS.items():
        match given.get(name):
            case str() as text:
                inputs.append((_(label), _(text)))
            case int() | float() as value if name.endswith("year"):
                inputs.append((_(label), _.digits(value)))
            case int() | float() as value if name in ("gdp_usd", "population", "reported_usd"):
                inputs.append((_(label), money(value)))
            case int() | float() as value:
                inputs.append((_(label), percent(value, _, 2)))
    rates = list(dict.fromkeys(given.get("rates", ())))
    if rates and one.method.endswith("people"):
        amounts = " / ".join(number(rate, _) for rate in rates)
        inputs.append((_("rate"), _("%(rate)s dollars a person and day", rate=amounts)))
    elif rates:
        shares = " / ".join(percent(rate, _, 2) for rate in rates)
        inputs.append((_("rate"), _("%(rate)s of GDP", rate=shares)))
    notes = []
    if note := given.get("note"):
        notes.append(_(note))
    if "year_note" in given:
        known = given.get("gdp_year", given.get("population_year"))
        notes.append(_(nearest(_.digits(year), _.digits(known))))
    sources = [given[name] for name in ("source", "data") if name in given]
    if given["source"] == str(YOUR_SHARE):
        notes.append(_(YOUR_SHARE))
        sources.pop(0)
    return Told(inputs, [f"{note[:1].upper()}{note[1:]}." for note in notes], ". ".join(sources))


def cost_range(one: Cost, _: Translation, money: Callable[[float], str]) -> str:
    """A method with its range, in a sentence."""
    return _("%(method)s: %(low)s to %(high)s dollars.", method=one.method, low=money(one.low), high=money(one.high))


def site(lamp: Lamp, _: Translation) -> str:
    """The sentence of the first lamp."""
    numbers = lamp.numbers
    match lamp.code:
        case "nothing-measured":
            return _("Nothing was measured in the last day.")
        case "blocked":
            text = _.ngettext("%(n)d of %(all)d sites is blocked.", "%(n)d of %(all)d sites are blocked.", numbers["blocked"], all=numbers["n"])  # fmt: skip # noqa: E501
        case "down":
            text = _.ngettext("%(n)d of %(all)d sites is down, also for others.", "%(n)d of %(all)d sites are down, also for others.", numbers["down"], all=numbers["n"])  # fmt: skip # noqa: E501
        case "ok":
            text = _.ngettext("The %(n)d site that was tried answers.", "All %(n)d sites that were tried answer.", numbers["n"])  # fmt: skip # noqa: E501
        case _:
            text = _("What was measured does not tell.")
    return text


def country(lamp: Lamp, _: Translation) -> str:
    """The sentence of the third lamp."""
    known = COUNTRY.get(lamp.code)
    if known is not None:
        return _(known)
    if lamp.code.startswith("perhaps-"):
        state = _(STATES[lamp.code.removeprefix("perhaps-")])
        return _("By your node's own signals: %(state)s. Not confirmed by others.", state=state)
    return _("%(state)s, by three or more people in different networks.", state=_(STATES[lamp.code]).capitalize())
