"""Lists of what to probe, in the format of the Citizen Lab's test lists: CSV with ``url`` and ``category_code``. Pure.

Whose mere visit is punished in many countries stays off until the operator names its category. The codes are those of
the lists' own legend.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from outlast.errors import ProtocolError, UsageError
from outlast.rooms.watch.proto.http import URL_MAX_CHARS, Url, parse_url

RISKY: Final = {
    "ALDR": "alcohol and drugs",
    "DATE": "dating",
    "GMB": "gambling",
    "HATE": "hate speech",
    "LGBT": "LGBT",
    "MILX": "militants and extremism",
    "PORN": "pornography",
    "PROV": "provocative attire",
    "XED": "sex education",
}
"""Categories that are left out unless they are asked for."""
TARGETS_MAX: Final = 5_000
_COLUMNS: Final = ("url", "category_code")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL and its category, "" when it has none."""

    url: Url
    category: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is probed of a list, and how many of its rows are not: of a risky category, or no URL."""

    targets: tuple[Target, ...]
    risky: int
    damaged: int


def read_targets(lines: Iterable[str], wanted: Collection[str] = ()) -> Selection:
    """Read a list; categories of RISKY count only when they are ``wanted``.

    Raises ProtocolError when it is no such list, or has more than TARGETS_MAX rows.
    """
    unknown = sorted(set(wanted) - RISKY.keys())
    if unknown:
        raise UsageError(
            "%(name)r is no category that is off: there are %(known)s", name=unknown[0][:80], known=", ".join(RISKY)
        )
    found: dict[str, Target] = {}
    risky = damaged = 0
    try:
        rows = csv.reader(lines, strict=True)
        head = [name.strip().lower() for name in next(rows, [])]
        if not set(_COLUMNS) <= set(head):
            raise ProtocolError("this is no list of targets: its first line must name the columns url,category_code")
        at_url, at_category = (head.index(name) for name in _COLUMNS)
        for number, row in enumerate(rows):
            if number >= TARGETS_MAX:
                raise ProtocolError("a list of targets has at most %(most)s rows", most=TARGETS_MAX)
            category = row[at_category].strip().upper() if len(row) > at_category else ""
            if category in RISKY and category not in wanted:
                risky += 1
                continue
            try:
                text = row[at_url].strip()
                found.setdefault(text, Target(parse_url(text[: URL_MAX_CHARS + 1]), category))
            except (UsageError, IndexError):
                damaged += 1
    except csv.Error as error:
        raise ProtocolError("this is no list of targets: %(error)s", error=error) from None
    return Selection(tuple(found.values()), risky, damaged)
