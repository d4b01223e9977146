"""The report of a country: one HTML file with plots that can be printed, kept and passed on. Values in, text out.

Everything is inside of it: no script, nothing to be fetched. All that comes from elsewhere is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from outlast.rooms.watch import costs, timeline
from outlast.rooms.watch.costs import Running
from outlast.rooms.watch.proto.evidence import english
from outlast.rooms.watch.timeline import Band, Line, day_text
from outlast.rooms.watch.view import Cut, Measured

WIDTH: Final = 680
MEASURED_MAX: Final = 300
MEASURED_OF_ONE: Final = 1000
"""Of each person the newest so many measurements count."""
STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b2322; --paper: #fff; --muted: #56625f; --line: #d9dcd5; --accent: #0b5d52;
  --bad: #a3261d; --bad-tint: #fbe6e3; --warn: #7a4d00; --warn-tint: #fcf0d6; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e8ecea; --paper: #101615; --muted: #a3b0ac;
  --line: #313c3a; --accent: #6fd3c0; --bad: #f59a90; --bad-tint: #3b1a17; --warn: #f0c36a; --warn-tint: #33270d; } }
body { margin: 0 auto; max-inline-size: 46rem; padding: 1rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.15rem; margin-block: 1.5rem .5rem; break-after: avoid; }
table { border-collapse: collapse; inline-size: 100%; font-size: .875rem; }
th, td { text-align: start; vertical-align: top; padding: .3rem .5rem .3rem 0; }
tr { border-block-end: 1px solid var(--line); }
td.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; } figure { margin: 0; break-inside: avoid; } small, .muted { color: var(--muted); }
svg { display: block; inline-size: 100%; fill: none; stroke-linejoin: round; }
svg text { fill: var(--muted); font: 10px system-ui, sans-serif; } svg .title { fill: var(--ink); font-weight: 600; }
svg .name { fill: var(--ink); font-size: 11px; } svg .grid { stroke: var(--line); } svg .axis { stroke: var(--muted); }
svg .line { stroke: var(--accent); stroke-width: 1.4; } svg .dot { fill: var(--accent); }
svg .missing { stroke: var(--muted); stroke-width: 5; stroke-dasharray: 1 3; }
svg .ground.bad { fill: var(--bad-tint); } svg .hatch.bad { stroke: var(--bad); stroke-width: .7; }
svg .ground.warn { fill: var(--warn-tint); } svg .hatch.warn { fill: var(--warn); }
@media print { body { max-inline-size: none; padding: 0; font-size: 10.5pt; } tr, li { break-inside: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } @page { margin: 15mm; } }
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What a report tells: a country between two times (UTC seconds), as it was known at ``made_s``."""

    code: str
    name: str
    from_s: int
    to_s: int
    made_s: int
    lines: Sequence[Line]
    cuts: Sequence[Cut]
    measured: Sequence[Measured]

    @property
    def inside(self) -> list[Cut]:
        """The outages of which a part lies in this time."""
        return [cut for cut in self.cuts if cut.start_s <= self.to_s and (cut.end_s or self.to_s) >= self.from_s]

    @property
    def cost(self) -> Running | None:
        """What the longest outage in this time costs."""
        longest = max(self.inside, key=lambda cut: (cut.end_s or self.made_s) - cut.start_s, default=None)
        return costs.of_cut(longest, self.made_s) if longest else None


def page(report: Report) -> str:
    """The report as an HTML document."""
    inside = report.inside
    parts = [
        Markup("<h1>{}</h1><p>{} to {}, UTC.</p>").format(
            f"{report.name}: the internet", day_text(report.from_s), day_text(report.to_s)
        ),
        _summary(report, inside),
        _signals(report, inside),
        _outages(inside),
        _cost(report),
        _measured(report.measured),
        Markup(
            "<p class=muted>Made by Outlast at {}, from the data of one node: what it was given and what reached it. "
            "A gap is a gap and no zero. A cause is never more than a hint. Times are UTC.</p>"
        ).format(day_text(report.made_s)),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.name)} – Outlast</title><style>{STYLE}</style></head><body>\n"
        f"{Markup(chr(10)).join(part for part in parts if part)}\n</body></html>\n"
    )


def _summary(report: Report, cuts: Sequence[Cut]) -> Markup:
    if not report.lines and not cuts and not report.measured:
        return Markup("<p><strong>Nothing is known here of this country in this time.</strong></p>")
    lasting = sum(cut.end_s is None for cut in cuts)
    return Markup("<p><strong>{} in this time, {} of them lasting; {}; {}.</strong></p>").format(
        _count(len(cuts), "outage"), lasting, _count(len(report.lines), "signal"),
        _count(len(report.measured), "measurement of sites", "measurements of sites"),
    )  # fmt: skip


def _signals(report: Report, cuts: Sequence[Cut]) -> Markup:
    if not report.lines:
        return Markup("")
    bands = [Band(cut.start_s, cut.end_s, cut.state, "warn" if cut.state == "degraded" else "bad") for cut in cuts]
    figures = [
        Markup("<figure>{}</figure>").format(
            timeline.draw(
                [line], bands, report.from_s, report.to_s, width=WIDTH, words=timeline.Words(), id=f"plot-{number}"
            )
        )
        for number, line in enumerate(report.lines)
    ]
    legend = "Hatched: an outage. Dashes on the ground line: the signal said nothing. The scale of each begins at 0."
    return Markup("<h2>Signals</h2>{}<p class=muted>{}</p>").format(Markup("").join(figures), legend)


def _outages(cuts: Sequence[Cut]) -> Markup:
    if not cuts:
        return Markup("")
    rows = [
        Markup("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>").format(
            cut.state,
            day_text(cut.start_s),
            "lasts" if cut.end_s is None else day_text(cut.end_s) + (" (signals end)" if cut.fades_out else ""),
            Markup("<br>").join(map(english, cut.evidence)),
        )
        for cut in cuts
    ]
    return Markup(
        "<h2>Outages</h2><div class=scroll><table><tr><th>State<th>From<th>Until<th>Evidence</tr>{}</table></div>"
    ).format(Markup("").join(rows))


def _cost(report: Report) -> Markup:
    cost = report.cost
    if cost is None:
        return Markup("")
    rows = [
        Markup("<tr><td>{}</td><td class=number>{} – {}</td><td class=number>{} – {}</td><td>{}</td></tr>").format(
            method,
            costs.money(hour.low),
            costs.money(hour.high),
            costs.money(so_far.low),
            costs.money(so_far.high),
            hour.inputs.get("source", ""),
        )
        for method, hour, so_far in cost.rows
    ]
    return Markup(
        "<h2>What it costs</h2><p>For the {:.0f} hours of the longest outage, if the whole country were cut off; in US"
        " dollars. The methods differ by a factor of a hundred, and nothing decides between them.</p>"
        "<div class=scroll><table><tr><th>Method<th>An hour<th>All of it<th>Source</tr>{}</table></div>"
    ).format(cost.hours, Markup("").join(rows))


def _measured(measured: Sequence[Measured]) -> Markup:
    if not measured:
        return Markup("")
    rows = [
        Markup("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>").format(
            day_text(one.at_s),
            one.input,
            one.verdict,
            ", ".join(f"{name} {value}" for name, value in one.layers.items() if value != "unknown"),
        )
        for one in measured[:MEASURED_MAX]
    ]
    shown = f"The newest {MEASURED_MAX} of {len(measured)} are shown. " if len(measured) > MEASURED_MAX else ""
    return Markup(
        "<h2>Sites</h2><div class=scroll><table><tr><th>When<th>What<th>Verdict<th>Layers</tr>{}</table></div>"
        "<p class=muted>{}Of each person the newest {} of this time count.</p>"
    ).format(Markup("").join(rows), shown, MEASURED_OF_ONE)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
