"""The commands ``outlast watch ...``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer

from outlast import address
from outlast.errors import NotFoundError, OutlastError, ProtocolError, StorageError, UsageError
from outlast.ui.command import call, local_time, say, show, table, terminal

if TYPE_CHECKING:
    from outlast.rooms.watch.proto.classify import Verdict
    from outlast.rooms.watch.proto.endpoints import Endpoint
    from outlast.rooms.watch.proto.fingerprints import Fingerprints
    from outlast.rooms.watch.proto.fusion import Report
    from outlast.rooms.watch.proto.measurement import Measurement
    from outlast.rooms.watch.proto.records import Damage
    from outlast.rooms.watch.proto.visibility import Step, Visibility

STDIN: Final = "-"
MRT_KEYS: Final = ("records", "announced", "withdrawn", "prefixes")
GEOIP: Final = Path("/usr/share/tor")  # where Debian's tor-geoipdb puts it
GEOIP_MAX_BYTES: Final = 1 << 26
LAYERS: Final = ("dns", "tcp", "tls", "http", "throttled")
ROWS_AT_ONCE: Final = 500
"""A table is set in blocks of so many rows: a file may have millions."""
REFUSED_SHOWN: Final = 20
INPUT_SHOWN: Final = 60

app = typer.Typer(
    help="What is blocked, what is cut, and what it costs.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)


@app.callback()
def watch() -> None:
    """What is blocked, what is cut, and what it costs."""


@app.command()
def mrt(
    file: Annotated[str, typer.Argument(metavar="FILE", help="gz, bz2 or plain; - reads standard input.")],
    country: Annotated[
        str | None,
        typer.Option("--country", metavar="COUNTRY", help="Its visible prefixes over time, by tor-geoipdb."),
    ] = None,
) -> None:
    """Count what a file of a route collector announces and withdraws."""
    from outlast.rooms.watch.io.files import pieces
    from outlast.rooms.watch.places import find_country
    from outlast.rooms.watch.proto.mrt import summarise

    code = None if country is None else find_country(country)
    seen = None if code is None else _visibility(code)
    with _mrt_file(file) as source:
        summary = summarise(pieces(source), None if seen is None else seen.take)
    counts: dict[str, Any] = {name: getattr(summary, name) for name in MRT_KEYS}
    if seen is not None:
        counts["country"] = code
        counts["series"] = [_step(step) for step in seen.steps()]
    show(counts, _mrt_lines)
    if summary.damage is not None:
        raise ProtocolError(f"{summary.damage}; what could be read is counted")


def _visibility(country: str) -> Visibility:
    from outlast.rooms.watch.io.files import lines, open_capped
    from outlast.rooms.watch.proto.geoip import read_ranges
    from outlast.rooms.watch.proto.visibility import Visibility

    ranges = []
    for name, ipv6 in (("geoip", False), ("geoip6", True)):
        if not (GEOIP / name).is_file():
            raise NotFoundError("the ranges of countries are not here: apt install tor-geoipdb")
        with open_capped(GEOIP / name, GEOIP_MAX_BYTES) as source:
            ranges.append(read_ranges(lines(source), country, ipv6=ipv6))
    if not any(map(len, ranges)):
        raise NotFoundError(f"no range of addresses belongs to {country}")
    return Visibility(*ranges)


def _step(step: Step) -> dict[str, Any]:
    from outlast.rooms.watch.proto.series import iso

    return {
        "time": iso(step.t_s),
        "prefixes": step.prefixes if step.heard else None,
        "slash24s": step.slash24s if step.heard else None,
        "announced": step.announced,
        "withdrawn": step.withdrawn,
    }


def _mrt_lines(counts: dict[str, Any]) -> Iterator[str]:
    yield from table(tuple(name.upper() for name in MRT_KEYS), [tuple(counts[name] for name in MRT_KEYS)])
    if "series" in counts:
        yield f"Visible of {counts['country']}, as far as this file tells:"
        yield from table(
            ("TIME", "PREFIXES", "/24S", "ANNOUNCED", "WITHDRAWN"),
            (["-" if value is None else value for value in step.values()] for step in counts["series"]),
        )


@app.command()
def detect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A series, plain, gz or bz2; known by its content.")],
    signal: Annotated[
        str | None, typer.Option("--signal", metavar="NAME", help="Only this one, or part of it.")
    ] = None,
    regions: Annotated[bool, typer.Option("--regions", help="Each region's signals as well.")] = False,
    utc_offset: Annotated[
        float | None, typer.Option("--utc-offset", metavar="HOURS", help="For local times of a place not known here.")
    ] = None,
) -> None:
    """Find outages in measured series: of IODA, Tor Metrics, OONI, Monash."""
    from outlast.rooms.watch.io.series import read_series
    from outlast.rooms.watch.proto.fusion import detect as reports_of
    from outlast.rooms.watch.proto.series import iso

    if utc_offset is not None and not -12 <= utc_offset <= 14:
        raise UsageError("--utc-offset goes from -12 to 14 hours")
    reports = reports_of(read_series(file, utc_offset), regions=regions or signal is not None)
    if signal is not None:
        reports = [one for one in reports if one.signal == signal] or [
            one for one in reports if signal.lower() in one.signal.lower()
        ]
        if not reports:
            raise NotFoundError(f"there is no signal {signal} in {file.name}")
    unjudged = [one.signal for one in reports if not one.judged]
    if unjudged:
        say(f"Not judged, since less than a day is known, or losing everything is usual: {', '.join(unjudged)}")
    for one in reports:
        if one.silent_since_s is not None and not (one.alarms and one.alarms[-1].end_s is None):
            say(f"{one.signal}: no values since {iso(one.silent_since_s)}, so nothing is known from then on")
    _show_reports([one for one in reports if one.judged or terminal().json])


def _report(report: Report) -> dict[str, Any]:
    from outlast.rooms.watch.proto.evidence import english
    from outlast.rooms.watch.proto.series import iso

    alarms = [
        {
            "start": iso(alarm.start_s),
            "end": None if alarm.end_s is None else iso(alarm.end_s),
            "state": alarm.state.value,
            "evidence": [english(line) for line in alarm.evidence],
        }
        for alarm in report.alarms
    ]
    return {"signal": report.signal, "alarms": alarms}


def _show_reports(reports: list[Report]) -> None:
    """For programs one line each signal, for people a table of alarms and the quiet signals below it."""
    from outlast.rooms.watch.proto.series import iso

    if terminal().json:
        for report in reports:
            show(_report(report), lambda _: ())
        return
    rows = [
        (report.signal, alarm["state"], alarm["start"], alarm["end"] or "lasts", "; ".join(alarm["evidence"]))
        for report in reports
        for alarm in _report(report)["alarms"]
    ]
    quiet = [
        report.signal if report.silent_since_s is None else f"{report.signal} (until {iso(report.silent_since_s)})"
        for report in reports
        if not report.alarms
    ]
    show(rows, lambda rows: table(("SIGNAL", "STATE", "FROM", "UNTIL", "EVIDENCE"), rows))
    show(quiet, lambda quiet: [f"No alarm: {', '.join(quiet)}"] if quiet else [])


@app.command()
def cost(
    country: Annotated[str, typer.Argument(metavar="COUNTRY", help="ISO code, or English name.")],
    days: Annotated[float, typer.Option("--days", metavar="N", help="How many days it lasted, also parts.")],
    year: Annotated[int, typer.Option("--year", metavar="Y", help="Whose GDP and population count.")],
    reported: Annotated[
        float | None, typer.Option("--reported", metavar="USD", help="What somebody else says all of it cost.")
    ] = None,
    share: Annotated[
        float | None, typer.Option("--share", metavar="F", help="Share of a day's GDP that you can defend, 0 to 1.")
    ] = None,
    affected: Annotated[
        float, typer.Option("--affected", metavar="F", help="Share of the country that was cut off, 0 to 1.")
    ] = 1.0,
    connectivity: Annotated[
        str | None, typer.Option("--connectivity", metavar="CLASS", help="low, medium or high; unknown without it.")
    ] = None,
    internet_share: Annotated[
        float | None, typer.Option("--internet-share", metavar="F", help="The internet's share of the economy, 0 to 1.")
    ] = None,
) -> None:
    """What a cut costs by every published method, each with its inputs and source."""
    import msgspec

    from outlast.rooms.watch import data
    from outlast.rooms.watch.proto.cost import costs, find_country, parse_indicators, percent_of

    found = costs(
        find_country(parse_indicators(data.read("worldbank.csv")), country),
        days=days,
        year=year,
        share=share,
        affected=affected,
        connectivity=connectivity,
        internet_share=internet_share,
        reported_usd=reported,
    )
    if terminal().json:
        for one in found:
            show(msgspec.to_builtins(one), lambda _: ())
        return
    money = "{:,.0f}".format
    rows = [(c.method, money(c.low), money(c.mid), money(c.high), _cost_source(c.inputs)) for c in found]
    lines = table(("METHOD", "LOW USD", "MIDDLE", "HIGH", "INPUTS AND SOURCE"), rows)
    if (implied := found[0].implied_share) is not None:
        lines.append(f"The reported {money(reported)} are {percent_of(implied):,g}% of the GDP of these days.")
    show(lines, lambda lines: lines)


def _cost_source(inputs: dict[str, Any]) -> str:
    base = [f"GDP of {inputs['gdp_year']}"] if "gdp_year" in inputs else []
    base += [f"population of {inputs['population_year']}"] if "population_year" in inputs else []
    return "; ".join([*base, str(inputs["source"])])


@contextmanager
def _mrt_file(name: str) -> Iterator[BinaryIO]:
    from outlast.rooms.watch.io.collector import MAX_BYTES, open_mrt
    from outlast.rooms.watch.io.files import unpack_capped

    if name == STDIN:
        with unpack_capped(sys.stdin.buffer, "standard input", MAX_BYTES) as source:  # type: ignore[arg-type]
            yield source
        return
    with open_mrt(Path(name)) as source:
        yield source


@app.command()
def classify(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="OONI measurements, JSON or JSONL; - is input.")
    ],
    fingerprints: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="OONI's lists of block pages (*.csv); none come with this.")
    ] = None,
) -> None:
    """Say what measurements of OONI show: what is blocked, layer by layer."""
    from outlast.rooms.watch.proto.classify import classify as classified
    from outlast.rooms.watch.proto.records import Damage

    known = _known_fingerprints(fingerprints)
    problems: list[OutlastError] = []
    damaged = answered = 0
    rows: list[dict[str, Any]] = []
    for file in files:
        before = damaged
        try:
            for found in _measurements(file):
                if isinstance(found, Damage):
                    damaged += 1
                    if damaged - before <= REFUSED_SHOWN:
                        say(f"{file}: line {found.line}: {found.problem}")
                    continue
                row = _verdict(file, classified(found, known))
                answered += 1
                if terminal().json:
                    show(row, lambda _: ())
                else:
                    rows.append(row)
                    if len(rows) == ROWS_AT_ONCE:
                        show(rows, _verdict_lines)
                        rows.clear()
        except OutlastError as error:
            problems.append(error)
            say(f"{file}: {error}")
        if damaged - before > REFUSED_SHOWN:
            say(f"{file}: {damaged - before - REFUSED_SHOWN} more could not be read")
    if rows:
        show(rows, _verdict_lines)
    # Each was told where it came up. Damage outweighs a file that is not there: its code is the greater.
    if damaged:
        what = "1 measurement" if damaged == 1 else f"{damaged} measurements"
        raise ProtocolError(f"{what} could not be read{'; the others are above' if answered else ''}")
    if problems:
        what = "1 file" if len(problems) == 1 else f"{len(problems)} files"
        raise type(max(problems, key=lambda error: error.exit_code))(f"{what} could not be read to the end")


def _measurements(file: str) -> Iterator[Measurement | Damage]:
    from outlast.rooms.watch.io.files import unpack_capped
    from outlast.rooms.watch.io.measurements import STREAM_MAX_BYTES, measurements, measurements_in

    if file != STDIN:
        yield from measurements(Path(file))
        return
    with unpack_capped(sys.stdin.buffer, "standard input", STREAM_MAX_BYTES) as source:  # type: ignore[arg-type]
        yield from measurements_in(source)


def _known_fingerprints(folder: Path | None) -> Fingerprints | None:
    """The lists of a named folder, else of ``rooms/watch/fingerprints`` in the home if it is there."""
    from outlast.rooms.watch.io.measurements import FOLDER
    from outlast.rooms.watch.io.measurements import fingerprints as load_fingerprints

    own = terminal().home / FOLDER
    if folder is None and not own.is_dir():
        return None
    known = load_fingerprints(folder or own)
    for refused in known.refused[:REFUSED_SHOWN]:
        say(f"a fingerprint is not used: {refused.reason}")
    if len(known.refused) > REFUSED_SHOWN:
        say(f"{len(known.refused) - REFUSED_SHOWN} more fingerprints are not used")
    return known


def _verdict(file: str, verdict: Verdict) -> dict[str, Any]:
    layers = {layer: getattr(verdict.layers, layer) for layer in LAYERS}
    return {
        "file": file,
        "input": verdict.input or None,
        "blocking": verdict.blocking,
        "accessible": verdict.accessible,
        "layers": layers,
        "fingerprint": verdict.fingerprint,
    }


def _blocking(value: str | bool | None) -> str:
    return {None: "-", False: "no", True: "yes"}.get(value) or str(value)  # type: ignore[arg-type]


def _verdict_lines(rows: list[dict[str, Any]]) -> Iterable[str]:
    return table(
        (*(layer.upper() for layer in LAYERS), "BLOCKING", "FINGERPRINT", "INPUT", "FILE"),
        (
            (
                *row["layers"].values(),
                _blocking(row["blocking"]),
                row["fingerprint"] or "-",
                (row["input"] or "-")[:INPUT_SHOWN],
                row["file"],
            )
            for row in rows
        ),
    )


@app.command()
def probe(
    urls: Annotated[
        list[str] | None, typer.Argument(metavar="URL...", help="What to probe; of dnscheck: resolvers.")
    ] = None,
    test: Annotated[
        str, typer.Option("--test", metavar="NAME", help="Or dnscheck, telegram, tor.")
    ] = "web_connectivity",
    list_: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="CSV with url,category_code; for tor the JSON of ts-023."),
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option("--category", metavar="CODE", help="A risky category to probe all the same.")
    ] = None,
    most: Annotated[int, typer.Option("--max", metavar="N", min=1, help="At most so many targets.")] = 100,
    control: Annotated[
        str | None, typer.Option("--control", metavar="URL", help="A test helper elsewhere, to compare with.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="The word by which the control knows you.")
    ] = None,
    resolver: Annotated[
        list[str] | None, typer.Option("--resolver", metavar="IP[:PORT]", help="A DNS resolver to ask by UDP.")
    ] = None,
    doh: Annotated[
        str | None, typer.Option("--doh", metavar="URL", help="A DNS resolver to ask by HTTPS; off asks none.")
    ] = None,
    domestic: Annotated[
        list[str] | None,
        typer.Option("--domestic", metavar="URL", help="A target within the country: tells a cut from a block."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Append the measurements, in OONI's format.")
    ] = None,
    bodies: Annotated[bool, typer.Option("--bodies", help="With the text of the pages that came.")] = False,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="NODE", help="Have a contact's node probe instead; see `answers`.")
    ] = None,
    agreed: Annotated[bool, typer.Option("--yes-i-know", help="I know what probing can bring me.")] = False,
) -> None:
    """Find out whether a site is blocked here, and how. Read docs/howto/probe.md first: it can endanger you."""
    from outlast.rooms.watch.io import run
    from outlast.rooms.watch.proto.classify import classify as classified
    from outlast.rooms.watch.proto.measurement import from_object
    from outlast.rooms.watch.proto.web_connectivity import publishable

    if from_ is not None:
        if test != "web_connectivity" or list_ is not None or not urls:
            raise UsageError("a contact is asked for URLs: name them, and no list and no other test")
        for url in urls:
            show(
                call("watch.ask", to=from_, url=url),
                lambda _: ["Asked; `outlast watch answers` shows what comes back."],
            )
        return
    if test != "web_connectivity":
        plan = run.plan_service(test, urls or [], list_)
    else:
        plan = run.plan(urls or [], list_, category or [], most, control, token_file, resolver, doh, domestic or [])
    _need_consent(agreed)
    for line in plan.remarks:
        say(line)
    known = _known_fingerprints(None)
    seen = []
    with run.appending(out) as keep:
        for done in run.run_plan(plan):
            if plan.domestic:
                seen.append(done)
            keep(done if bodies else publishable(done))
            verdict = classified(from_object(done), known)
            row = _verdict(str(out) if out else STDIN, verdict) | {"control": run.control_state(done)}
            show(row, partial(_probe_lines, done, verdict.evidence))
    if plan.domestic:
        show(run.link_of(plan, seen), lambda link: [f"link  {link['link'] or 'unknown'}"])


@app.command()
def answers() -> None:
    """What contacts were asked to probe from where they are, and what they found."""
    show(call("watch.answers"), _answer_lines)


def _answer_lines(found: list[dict[str, Any]]) -> Iterable[str]:
    return table(
        ("ASKED", "WHOM", "ANSWER", *(layer.upper() for layer in LAYERS), "BLOCKING", "INPUT"),
        (
            (
                local_time(one["at_ms"]),
                one["name"],
                "not yet" if one["done_ms"] is None else one["problem"] or "came",
                *(one["layers"].get(layer, "-") for layer in LAYERS),
                _blocking(one["blocking"]),
                one["input"][:INPUT_SHOWN],
            )
            for one in found
        ),
    )


@app.command("probe-for")
def probe_for(
    who: Annotated[str, typer.Argument(metavar="ID", help="A contact: ID, name, or the beginning of an ID.")],
    end: Annotated[bool, typer.Option("--end", help="Not any more.")] = False,
    agreed: Annotated[bool, typer.Option("--yes-i-know", help="I know what probing can bring me.")] = False,
) -> None:
    """Let a contact have this computer probe the URLs that they name, at most 20 a day. It can endanger you."""
    if not end:
        _need_consent(agreed)
    call("watch.allow", who=who, allowed=not end)
    show({}, lambda _: ["Not any more." if end else "They may ask now, and you bear the risk."])


@app.command("serve-control")
def serve_control(
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where probes ask; port 0 picks one.")
    ] = "127.0.0.1:0",
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="FILE", help="Chain in PEM: https.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Its key in PEM.")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow-network", metavar="CIDR", help="A network of your own that probes may have looked at."),
    ] = None,
) -> None:
    """Look at sites from here for probes elsewhere that know the token: OONI's test helper protocol."""
    from ipaddress import ip_network

    from outlast.rooms.watch.io.consent import control_token, token_file
    from outlast.rooms.watch.io.control import listener, serve
    from outlast.rooms.watch.io.probe import split_address

    try:
        networks = [ip_network(one) for one in allow or ()]
        host, port = split_address(listen, 0)
    except ValueError:
        raise UsageError("write --listen HOST:PORT and --allow-network ADDRESS/BITS") from None
    if (certificate is None) != (key is None):
        raise UsageError("a certificate needs its key: --certificate FILE --key FILE")
    home = terminal().home
    token = control_token(home)
    socket = listener(host, port)
    scheme = "https" if certificate else "http"
    at = address.show((host, socket.getsockname()[1]))
    answer = {"control": f"{scheme}://{at}/", "token_file": str(token_file(home))}
    show(answer, lambda one: [f"control     {one['control']}", f"token file  {one['token_file']}"])
    serve(socket, token, networks, (certificate, key) if certificate and key else None)


def _probe_lines(measured: dict[str, Any], evidence: Sequence[str], row: dict[str, Any]) -> Iterator[str]:
    from outlast.rooms.watch.io.run import lines

    yield from _verdict_lines([row])
    yield from lines(measured, evidence)


def _need_consent(agreed: bool) -> None:
    """Tell the risks, once for each home, and go on only with the operator's word."""
    from outlast.rooms.watch.io import consent

    home = terminal().home
    if consent.has_consented(home):
        return
    if not agreed:
        for line in consent.RISKS:
            say(line)
        if not sys.stdin.isatty():
            raise UsageError("nothing was probed: read docs/howto/probe.md, then add --yes-i-know")
        sys.stderr.write("Type yes to go on: ")
        sys.stderr.flush()
        if sys.stdin.readline().strip() != "yes":
            raise UsageError("nothing was probed")
    consent.consent(home, int(time.time() * 1000))


@app.command()
def status() -> None:
    """Is it this site, my link, or the country?"""
    show(call("watch.status"), _status_lines)


def _status_lines(lamps: dict[str, Any]) -> Iterator[str]:
    rows = [
        ("this site", lamps["site"]["light"], lamps["site"]["code"]),
        ("my link", lamps["link"]["light"], lamps["link"]["code"]),
        (lamps["entity"] or "the country", lamps["country"]["light"], lamps["country"]["code"]),
    ]
    yield from table(("WHAT", "LIGHT", "WHY"), rows)
    for outage in lamps["outages"]:
        until = outage["end"] or "lasts"
        yield f"{outage['entity']}: {outage['state']} since {outage['start']}, {until}; {outage['witnesses']} witnesses"
        yield from (f"  {line}" for line in outage["evidence"])
    yield f"published: {', '.join(lamps['published'])}" if lamps["published"] else "nothing is published"


@app.command("read")
def read_series(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Of IODA, Tor Metrics, OONI, Monash; plain, gz or bz2.")],
    country: Annotated[str, typer.Option("--country", metavar="COUNTRY", help="Two letters, or English name.")],
) -> None:
    """Keep a country's series in a file, for timeline and lamps, and look for outages in them."""
    answer = call("watch.read", file=str(file.absolute()), country=country)
    show(answer, lambda a: [f"{a['series']} series kept; see `outlast watch status`."])


@app.command()
def fetch(
    country: Annotated[str, typer.Option("--country", metavar="COUNTRY", help="Two letters, or English name.")],
    source: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="NAME", help="ioda, tor, ooni, or rrc00 for a collector of RIS: only these."),
    ] = None,
    days: Annotated[int, typer.Option("--days", metavar="N", help="How many days back.")] = 28,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Write the files as they came, and keep no series.")
    ] = None,
) -> None:
    """Ask public servers for a country's signals. They and the network see that this computer asks."""
    import tempfile

    from outlast.rooms.watch.places import find_country
    from outlast.rooms.watch.proto.endpoints import endpoints

    code = find_country(country)
    asked = endpoints(code, int(time.time()), days, source or ())
    if out is None:
        if not all(one.is_series for one in asked):
            raise UsageError("a collector's file is no series: write it by --out FOLDER, for outlast watch mrt")
        call("watch.settings")  # where nothing can be kept, nobody is asked
        with tempfile.TemporaryDirectory(prefix="outlast-") as folder:
            _fetch(asked, code, Path(folder), keep=True)
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror}") from None
    _fetch(asked, code, out, keep=False)


def _fetch(asked: Sequence[Endpoint], country: str, folder: Path, *, keep: bool) -> None:
    """Ask one after another; what one server lacks keeps nobody from the next."""
    import asyncio
    import os

    from outlast.rooms.watch.io.fetch import fetch as fetched
    from outlast.rooms.watch.io.fetch import proxy_of

    proxy = proxy_of(os.environ)
    problems: list[OutlastError] = []
    for one in asked:
        row: dict[str, Any] = {"source": one.source, "url": one.url, "bytes": None, "series": None, "file": None}
        row["problem"] = None
        try:
            data = asyncio.run(fetched(one, country, proxy))
            file = folder / one.file
            file.write_bytes(data)
            row["bytes"] = len(data)
            if keep:
                row["series"] = call("watch.read", file=str(file.absolute()), country=country)["series"]
            else:
                row["file"] = str(file)
        except OutlastError as error:
            problems.append(error)
            row["problem"] = str(error)
        except OSError as error:
            raise StorageError(f"cannot write {folder}: {error.strerror}") from None
        show(row, _fetched_lines)
    if problems:
        worst = max(problems, key=lambda error: error.exit_code)
        raise type(worst)(f"{len(problems)} of {len(asked)} servers gave nothing that can be used")


def _fetched_lines(row: dict[str, Any]) -> Iterator[str]:
    if row["problem"] is not None:
        yield f"{row['source']}: {row['problem']}"
    elif row["file"] is not None:
        yield f"{row['source']}: {row['bytes']} bytes in {row['file']}"
    else:
        yield f"{row['source']}: {row['series']} series kept"


@app.command()
def report(
    country: Annotated[str, typer.Argument(metavar="COUNTRY", help="Two letters, or English name.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="As in 2026-01-01; all there is without it.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="As in 2026-01-12T16:30; UTC.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where it goes; outlast-CC.html without it, - prints.")
    ] = None,
) -> None:
    """Write a country's report: one HTML page with plots that can be printed, kept and passed on."""
    text = call("watch.report", **{"country": country, "from": from_, "to": to})["text"]
    if out is not None and str(out) == STDIN:
        sys.stdout.write(text)
        return
    file = out or Path(f"outlast-{''.join(c for c in country if c.isalnum())[:40]}.html")
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}") from None
    show({"file": str(file)}, lambda a: [f"Written: {a['file']}"])
