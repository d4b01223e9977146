"""Watch's pages: three lamps, map, countries, outages, what they cost, what was measured, settings; all without JS."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import Node, Person, parse_space, space_text
from outlast.rooms.watch import agenda, costs, lamps, report, service, timeline, view, words, worldmap
from outlast.rooms.watch.io.consent import RISKS
from outlast.rooms.watch.places import country_names, entity_name, outlines
from outlast.rooms.watch.proto.cost import percent_of
from outlast.rooms.watch.view import Cut
from outlast.ui.languages import Translation
from outlast.ui.page import (
    Card,
    at_the_computer,
    attachment,
    fields,
    go,
    moment,
    render,
    takes_files,
    translator,
    upload,
    whole_moment,
)

FILE_MAX_BYTES: Final = 16 << 20
PAGE: Final = 100
WIDE: Final = 680
NARROW: Final = 340
DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Shown:
    """An outage as a list shows it."""

    cut: Cut
    place: str
    state: str
    href: str
    light: str
    claimed: bool = False  # published, and not confirmed by people whom one knows


def routes() -> list[Route]:
    """All pages of watch."""
    return [
        Route("/watch/", show_home, methods=["GET"]),
        Route("/watch/link", look_at_link, methods=["POST"]),
        Route("/watch/check", check_site, methods=["POST"]),
        Route("/watch/map", show_map, methods=["GET"]),
        Route("/watch/go", go_to_country, methods=["GET"]),
        Route("/watch/country/{code}", show_country, methods=["GET"]),
        Route("/watch/country/{code}/series", add_series, methods=["POST"]),
        Route("/watch/country/{code}/forget", forget_series, methods=["POST"]),
        Route("/watch/country/{code}/report", show_report, methods=["GET"]),
        Route("/watch/outages", show_outages, methods=["GET"]),
        Route("/watch/outage/{entity}/{start}", show_outage, methods=["GET"]),
        Route("/watch/cost", show_cost, methods=["GET"]),
        Route("/watch/runs", show_runs, methods=["GET"]),
        Route("/watch/export", export, methods=["POST"]),
        Route("/watch/settings", show_settings, methods=["GET"]),
        Route("/watch/settings/place", set_place, methods=["POST"]),
        Route("/watch/settings/publish", set_publish, methods=["POST"]),
        Route("/watch/settings/controls", set_controls, methods=["POST"]),
        Route("/watch/settings/consent", set_consent, methods=["POST"]),
        Route("/watch/settings/schedule", set_schedule, methods=["POST"]),
        Route("/watch/settings/fetching", set_fetching, methods=["POST"]),
        Route("/watch/settings/control", set_control, methods=["POST"]),
        Route("/watch/channels/create", create_channel, methods=["POST"]),
        Route("/watch/channels/follow", follow_channel, methods=["POST"]),
        Route("/watch/channels/leave", leave_channel, methods=["POST"]),
    ]


def card(request: Request) -> Card:
    """Watch on the home page: the worst lamp in a sentence."""
    _ = translator(request)
    found = service.three_lamps(request.state.node, request.state.person)
    told = ((found.country, words.country(found.country, _)), (found.link, _(words.LINK[found.link.code])), (found.site, words.site(found.site, _)))  # fmt: skip # noqa: E501
    order = ("bad", "warn", "ok", "unknown")
    lamp, text = min(told, key=lambda one: order.index(one[0].light))
    if lamp.light == "unknown":
        text = _("Is it this site, your line, or the country?")
    return Card("/watch/", _("Watch"), text, 0, "watch")


def headline(request: Request) -> tuple[str, str] | None:
    """How the internet is, as far as this node knows, in one sentence with its level; None when it does not."""
    _ = translator(request)
    found = service.three_lamps(request.state.node, request.state.person)
    cut, place, line = lamps.worst_of(found.cuts), found.country, found.link
    if cut is not None and place.light in ("bad", "warn"):
        since = moment(cut.start_s * 1000, _)
        if place.code in ("blackout", "routes-up-traffic-down"):
            return place.light, _("Internet cut since %(time)s.", time=since)
        if place.code in ("perhaps-blackout", "perhaps-routes-up-traffic-down"):
            return place.light, _("Internet perhaps cut since %(time)s; nobody else has confirmed it.", time=since)
        return place.light, words.country(place, _)
    if line.light == "unknown" or found.check is None:
        return None
    at = moment(found.check.at_ms, _)
    if line.code == "ok":
        return "ok", _("The internet answered at %(time)s.", time=at)
    looked = _("(Looked at %(time)s.)", time=at)
    return line.light, f"{_(words.LINK[line.code])} {looked}"


# ---- the three lamps ----


async def show_home(request: Request) -> Response:
    """The three lamps, each with what it stands on."""
    return _home(request)


async def look_at_link(request: Request) -> Response:
    """Try the own line now."""
    try:
        await service.look_at_link(request.state.node, request.state.person)
    except OutlastError as error:
        return _home(request, error=error)
    return go("/watch/")


async def check_site(request: Request) -> Response:
    """Measure one site now."""
    target = (await fields(request)).get("target", "")
    if target and "://" not in target:
        target = f"https://{target}"
    try:
        if not target:
            raise UsageError("say which site")
        await service.probe(request.state.node, request.state.person, [target])
    except OutlastError as error:
        return _home(request, target=target, error=error)
    return go("/watch/#site")


def _home(request: Request, *, target: str = "", error: OutlastError | None = None) -> Response:
    _ = translator(request)
    node, person = _who(request)
    found = service.three_lamps(node, person)
    country = found.settings.country
    return _render(
        request,
        "watch/home.html",
        error,
        found=found,
        site=words.site(found.site, _),
        link=_(words.LINK[found.link.code]),
        country=words.country(found.country, _),
        country_name=entity_name(country, _.language) if country else "",
        country_code=country,
        cuts=[_shown(cut, _) for cut in found.cuts],
        target=target,
        verdicts={name: _(text) for name, text in words.VERDICTS.items()},
        layer_names={name: _(text) for name, text in words.LAYERS.items()},
        lights={name: _(text) for name, text in words.LIGHTS.items()},
    )


# ---- the map and countries ----


async def show_map(request: Request) -> Response:
    """The world, with the places of which something is known."""
    _ = translator(request)
    node, person = _who(request)
    marks, lasting = _marks(node, person, _), [cut for cut in service.believed(node, person) if cut.end_s is None]
    names = country_names(_.language)
    picture = worldmap.draw(outlines(), marks, names, label=_("Map of the world"))
    return _render(
        request,
        "watch/map.html",
        None,
        picture=picture,
        names=names,
        known=[(code, names.get(code, code), mark) for code, mark in sorted(marks.items())],
        lasting=[_shown(cut, _) for cut in lasting],
        lights={name: _(text) for name, text in words.LIGHTS.items()},
    )


async def go_to_country(request: Request) -> Response:
    """From the list of countries to one."""
    return go(f"/watch/country/{_code(request.query_params.get('country', ''))}")


async def show_country(request: Request) -> Response:
    """A country's signals over time, its outages, and what may be added."""
    return _country(request, _code(request.path_params["code"]))


@takes_files(FILE_MAX_BYTES)
async def add_series(request: Request) -> Response:
    """Read a file of signals."""
    code = _code(request.path_params["code"])
    try:
        file, _fields = await upload(request, "file", memory_bytes=FILE_MAX_BYTES)
        data = await file.read()
        await service.read_series(request.state.node, request.state.person, data, file.filename or "file", code)
    except OutlastError as error:
        return _country(request, code, error=error)
    return go(f"/watch/country/{code}")


async def forget_series(request: Request) -> Response:
    """Delete a country's signals."""
    code = _code(request.path_params["code"])
    await service.forget_series(request.state.node, request.state.person, code)
    return go(f"/watch/country/{code}")


def _country(request: Request, code: str, *, error: OutlastError | None = None) -> Response:
    _ = translator(request)
    node, person = _who(request)
    now_s = node.now_ms() // 1000
    lines = service.lines_of(node, person, code, now_s)
    whole = timeline.span(lines)
    from_s, to_s = _span(request.query_params, whole, now_s)
    cuts = service.outages(node, person, code)
    sure = service.believed(node, person, code)
    name = entity_name(code, _.language)
    plots = _plots(lines, sure, from_s, to_s, _) if lines else ()
    mark = _marks(node, person, _).get(code) or worldmap.Mark("", "")
    return _render(
        request,
        "watch/country.html",
        error,
        code=code,
        name=name,
        plots=plots,
        spans=_zoom(code, from_s, to_s, whole, _) if whole else (),
        from_text=whole_moment(datetime.fromtimestamp(from_s, UTC), _),
        to_text=whole_moment(datetime.fromtimestamp(to_s, UTC), _),
        picture=worldmap.draw(
            outlines(), {code: mark} if mark.words else {}, country_names(_.language), label=name, focus=code
        ),
        outages=[_shown(cut, _, sure) for cut in cuts],
        series=[(words.signal(one.signal, _), one) for one in view.series(person, code)],
        report=f"/watch/country/{code}/report?from={from_s}&to={to_s}",
        cost=costs.of_lasting(code, sure, now_s),
        money=_money(_),
    )


async def show_report(request: Request) -> Response:
    """The country's report as one page to print or keep."""
    _ = translator(request)
    node, person = _who(request)
    code = _code(request.path_params["code"])
    now_s = node.now_ms() // 1000
    lines = service.lines_of(node, person, code, now_s)
    from_s, to_s = _span(request.query_params, timeline.span(lines), now_s)
    told = service.report_of(node, person, code, entity_name(code, _.language), from_s, to_s)
    html = report.page(told)
    return Response(html, media_type="text/html", headers=attachment(f"outlast-{code}.html"))


# ---- outages and what they cost ----


async def show_outages(request: Request) -> Response:
    """All outages that are known here."""
    _ = translator(request)
    node, person = _who(request)
    sure = service.believed(node, person)
    shown = [_shown(cut, _, sure) for cut in service.outages(node, person)]
    return _render(request, "watch/outages.html", None, outages=shown)


async def show_outage(request: Request) -> Response:
    """One outage: since when, what shows it, who stands for it, what it costs."""
    _ = translator(request)
    node, person = _who(request)
    entity, start_s = request.path_params["entity"], _number(request.path_params["start"])
    cut = next((one for one in service.outages(node, person, entity) if one.start_s == start_s), None)
    if cut is None:
        raise NotFoundError("there is no such outage here")
    now_s = node.now_ms() // 1000
    code = entity.partition("-")[0]
    lines = service.lines_of(node, person, code, now_s)
    around_s = max(DAY_S, ((cut.end_s or now_s) - cut.start_s) // 3)
    from_s, to_s = max(cut.start_s - around_s, 0), min((cut.end_s or now_s) + around_s, now_s)
    whole = timeline.span(lines)
    to_s = min(to_s, whole[1]) if whole and whole[1] > cut.start_s else to_s
    lines = [line for line in lines if any(from_s <= at_s <= to_s for at_s, _value in line.points)]
    standing = service.standing(node, person, cut)
    return _render(
        request,
        "watch/outage.html",
        None,
        shown=_shown(cut, _),
        evidence=[(words.evidence(line, _), isinstance(line, str)) for line in cut.evidence],
        code=code,
        plots=_plots(lines, [cut], from_s, to_s, _) if lines else (),
        standing=standing,
        networks=sorted({one.asn for one in standing.agreeing}),
        heard=len(standing.said),
        cost=costs.of_cut(cut, now_s),
        money=_money(_),
        own=cut.id is None,
        lasts_h=round(((cut.end_s or now_s) - cut.start_s) / 3600),
    )


async def show_cost(request: Request) -> Response:
    """What a cut costs, by every published method."""
    _ = translator(request)
    node, person = _who(request)
    query = request.query_params
    year = int(timeline.day_text(node.now_ms() // 1000, order="%(year)s"))
    asked = {
        "country": query.get("country", "") or service.settings(person).country,
        "days": query.get("days", "1"),
        "year": query.get("year", str(year - 1)),
        "reported": query.get("reported", ""),
        "share": query.get("share", ""),
    }
    rows: Sequence[Any] = ()
    error: OutlastError | None = None
    if asked["country"]:
        try:
            rows = costs.asked(asked)
        except OutlastError as wrong:
            error = wrong
    names = country_names(_.language)
    return _render(
        request,
        "watch/cost.html",
        error,
        asked=asked,
        rows=rows,
        money=_money(_),
        implied=words.number(percent_of(share), _) if rows and (share := rows[0].implied_share) is not None else "",
        sayings=[words.cost(one, asked["year"], _, _money(_)) for one in rows],
        picture=costs.picture(
            rows, " ".join(words.cost_range(one, _, _money(_)) for one in rows), partial(words.short, _=_)
        ),
        names=names,
        name=names.get(asked["country"], asked["country"]),
        running=[_shown(cut, _) for cut in service.believed(node, person) if cut.end_s is None],
    )


# ---- what was measured ----


async def show_runs(request: Request) -> Response:
    """What was measured, by whom, and the export."""
    _ = translator(request)
    node, person = _who(request)
    measured = service.measured(node, person, limit=PAGE + 1)
    known = service.people(node, person)
    names = {contact.identity: contact.name for contact in person.contacts()} | {person.identity: person.name}
    return _render(
        request,
        "watch/runs.html",
        None,
        measured=[(one, names.get(known.get(one.key or b"", b""), "")) for one in measured[:PAGE]],
        more=len(measured) > PAGE,
        verdicts={name: _(text) for name, text in words.VERDICTS.items()},
        layer_names={name: _(text) for name, text in words.LAYERS.items()},
    )


async def export(request: Request) -> Response:
    """OONI's JSON lines as a file, scrubbed."""
    data = await service.export(request.state.node, request.state.person)
    return Response(data, media_type="application/jsonl", headers=attachment("outlast-measurements.jsonl"))


# ---- settings ----


async def show_settings(request: Request) -> Response:
    """The place, what is published, what is measured by itself, and what that can bring."""
    return _settings(request)


async def set_place(request: Request) -> Response:
    """The country and the network of this node."""
    form = await fields(request)
    node, person = _who(request)
    try:
        await service.set_place(node, person, form.get("country", ""), form.get("asn", ""))
    except OutlastError as error:
        return _settings(request, error=error)
    return go("/watch/settings")


async def set_publish(request: Request) -> Response:
    """What is published, and where."""
    form = await fields(request)
    node, person = _who(request)
    chosen = [name for name in agenda.PUBLISHABLE if form.get(name)]
    try:
        channel = parse_space(form["channel"]) if form.get("channel") else None
        await service.publish(node, person, chosen, channel)
    except OutlastError as error:
        return _settings(request, error=error)
    return go("/watch/settings")


async def set_controls(request: Request) -> Response:
    """What the own line is tried with."""
    form = await fields(request)
    node, person = _who(request)
    try:
        await service.set_controls(node, person, form.get("domestic", "").split(), form.get("abroad", "").split())
    except OutlastError as error:
        return _settings(request, error=error)
    return go("/watch/settings")


@at_the_computer
async def set_consent(request: Request) -> Response:
    """Agree to the risks of measuring, or not any more: they are the operator's, and no affair of joined phones."""
    form = await fields(request)
    await service.consent(request.state.node, form.get("agreed") == "yes")
    return go("/watch/settings#measure")


async def set_schedule(request: Request) -> Response:
    """What is measured by itself, and how often."""
    form = await fields(request)
    node, person = _who(request)
    try:
        hours = _whole(form.get("every_h", "0"))
        await service.set_schedule(node, person, hours, form.get("targets", "").splitlines())
    except OutlastError as error:
        return _settings(request, error=error)
    return go("/watch/settings#measure")


async def set_fetching(request: Request) -> Response:
    """How often public servers are asked."""
    form = await fields(request)
    node, person = _who(request)
    try:
        await service.set_fetching(node, person, _whole(form.get("fetch_h", "0")))
    except OutlastError as error:
        return _settings(request, error=error)
    return go("/watch/settings#servers")


async def set_control(request: Request) -> Response:
    """The test helper that measurements are compared with."""
    form = await fields(request)
    node, person = _who(request)
    try:
        await service.set_control(node, person, form.get("control", ""), form.get("token") or None)
    except OutlastError as error:
        return _settings(request, error=error)
    return go("/watch/settings#measure")


async def create_channel(request: Request) -> Response:
    """Found a channel for watching."""
    try:
        await service.found_channel(request.state.node, request.state.person, (await fields(request)).get("name", ""))
    except OutlastError as error:
        return _settings(request, error=error)
    return go("/watch/settings#publish")


async def follow_channel(request: Request) -> Response:
    """Follow a channel by its link or ID."""
    try:
        await service.follow(request.state.node, request.state.person, (await fields(request)).get("link", ""))
    except OutlastError as error:
        return _settings(request, error=error)
    return go("/watch/settings#publish")


async def leave_channel(request: Request) -> Response:
    """Follow a channel no more."""
    space = parse_space((await fields(request)).get("channel", ""))
    await service.unfollow(request.state.node, request.state.person, space)
    return go("/watch/settings#publish")


def _settings(request: Request, *, error: OutlastError | None = None) -> Response:
    _ = translator(request)
    node, person = _who(request)
    chosen = service.settings(person)
    followed = service.channels(node, person)
    return _render(
        request,
        "watch/settings.html",
        error,
        chosen=chosen,
        names=country_names(_.language),
        channels=[(one, space_text(one.space), service.link_of(one)) for one in followed],
        publishing=space_text(chosen.channel) if chosen.channel else "",
        what={name: _(text) for name, text in words.PUBLISHED.items()},
        schedules=agenda.SCHEDULES_H,
        fetch_problems=service.fetch_problems(person),
        risks=[_(line) for line in RISKS],
    )


# ---- what pages show ----


def _render(request: Request, template: str, error: OutlastError | None, **context: Any) -> Response:
    _ = translator(request)
    chosen = service.settings(request.state.person)
    line = _(error) if error else ""
    return render(
        request,
        template,
        status=error.status if error else 200,
        wrong=line[:1].upper() + line[1:],
        nothing_published=not chosen.publishes,
        published=[_(words.PUBLISHED[one]) for one in agenda.PUBLISHABLE if chosen.says(one)],
        **context,
    )


def _who(request: Request) -> tuple[Node, Person]:
    return request.state.node, request.state.person


def _shown(cut: Cut, _: Translation, sure: Sequence[Cut] | None = None) -> Shown:
    return Shown(
        cut,
        entity_name(cut.entity, _.language),
        _(words.STATES[cut.state]),
        f"/watch/outage/{cut.entity}/{cut.start_s}",
        "warn" if cut.state in ("degraded", "restoring") or cut.end_s is not None else "bad",
        sure is not None and cut not in sure,
    )


def _marks(node: Node, person: Person, _: Translation) -> dict[str, worldmap.Mark]:
    """What the map says of each country: an outage that lasts, none by signals of these days, or that they are old."""
    marks: dict[str, worldmap.Mark] = {}
    for code, last_s in view.latest_signals(person).items():
        if node.now_ms() // 1000 - last_s <= lamps.RECENT_S:
            marks[code] = worldmap.Mark("ok", _(words.STATES["normal"]))
        else:
            day = timeline.day_text(last_s, _months(_), _("%(day)s %(month)s %(year)s"))
            marks[code] = worldmap.Mark("old", _("signals end %(day)s", day=_.digits(day)))
    for cut in reversed(service.believed(node, person)):
        if cut.end_s is None:
            shown = _shown(cut, _)
            marks[cut.entity.partition("-")[0]] = worldmap.Mark(shown.light, shown.state)
    return marks


def _plots(
    lines: Sequence[timeline.Line], cuts: Sequence[Cut], from_s: int, to_s: int, _: Translation
) -> tuple[Markup, Markup]:
    """The same timeline twice, for narrow screens and for wide ones."""
    lines = [replace(line, name=words.signal(line.name, _)) for line in lines]
    bands = [
        timeline.Band(cut.start_s, cut.end_s, _(words.STATES[cut.state]), "warn" if cut.state == "degraded" else "bad")
        for cut in cuts
    ]
    said = timeline.Words(
        missing=_("no data"),
        summary=_("%(name)s from %(start)s to %(end)s: lowest %(low)s, highest %(high)s, last %(last)s."),
        nothing=_("%(name)s: nothing was measured in this time."),
        months=_months(_),
        day=_("%(day)s %(month)s"),
        month=_("%(month)s %(year)s"),
        moment=_("%(day)s %(month)s %(year)s %(clock)s"),
        digits=_.digits,
        number=partial(words.short, _=_),
    )
    narrow = timeline.draw(lines, bands, from_s, to_s, width=NARROW, words=said, id="narrow")
    return narrow, timeline.draw(lines, bands, from_s, to_s, width=WIDE, words=said, id="wide")


def _money(_: Translation) -> Callable[[float], str]:
    """Amounts as the page's language writes them."""
    return partial(words.money, _=_)


def _months(_: Translation) -> str:
    return _(timeline.MONTHS)


def _span(query: Mapping[str, str], whole: tuple[int, int] | None, now_s: int) -> tuple[int, int]:
    """What the address asks for, else the last month of what there is."""
    first, last = whole or (now_s - 31 * DAY_S, now_s)
    to_s = _number(query.get("to", "")) or last
    from_s = _number(query.get("from", "")) or max(first, to_s - 31 * DAY_S)
    to_s = min(to_s, 253_402_300_799)
    return (from_s, to_s) if from_s < to_s else (to_s - DAY_S, to_s)


def _zoom(code: str, from_s: int, to_s: int, whole: tuple[int, int], _: Translation) -> list[tuple[str, str, bool]]:
    """Links to other stretches of time: text, address, whether it is the present one."""
    length, middle = to_s - from_s, (from_s + to_s) // 2

    def at(start_s: int, end_s: int) -> str:
        return f"/watch/country/{code}?from={max(start_s, 1)}&to={max(end_s, 2)}#timeline"

    half, quarter = max(length // 2, 1800), max(length // 4, 900)
    beside = [
        (_("Earlier"), at(from_s - half, to_s - half), False),
        (_("Later on"), at(from_s + half, to_s + half), False),
    ]
    return [
        # Time goes from left to right in the chart below, in every language: the left one leads to what is left of it.
        *(reversed(beside) if _.direction == "rtl" else beside),
        (_("Closer"), at(middle - quarter, middle + quarter), False),
        (_("Farther"), at(middle - length, middle + length), False),
        (_("A week"), at(to_s - 7 * DAY_S, to_s), length == 7 * DAY_S),
        (_("All"), at(*whole), (from_s, to_s) == whole),
    ]


# ---- what addresses and forms name ----


def _code(text: str) -> str:
    code = text.strip().upper()
    if code not in country_names("en"):
        raise NotFoundError("there is no country with these two letters")
    return code


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else 0


def _whole(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text):
        raise UsageError("the hours are a whole number")
    return int(text)
