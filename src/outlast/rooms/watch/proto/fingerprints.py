"""Fingerprints of block pages and forged DNS answers, read from OONI's CSV format and matched in one pass.

The lists (github.com/ooni/blocking-fingerprints: ``fingerprints_dns.csv``, ``fingerprints_http.csv``) state no licence,
so none is shipped: an operator who has them names their folder. Columns used: name, scope, location_found (``dns``,
``body``, ``header.NAME``), pattern_type (``full``, ``prefix``, ``contains``, ``regexp``), pattern, confidence_no_fp,
expected_countries.

A list is a stranger's. From each body pattern four bytes are taken that it must contain and that few others do; one
look over a body tells which of these occur in it, and only their patterns are then searched for. No regular expression
of a list is ever run: it is taken apart into texts of fixed length and the gaps between them, which are found one
behind another in linear time, and one that is made of anything else is refused.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

LIST_MAX_BYTES: Final = 16 << 20
PATTERNS_MAX: Final = 20_000
PATTERN_MAX_BYTES: Final = 4096
ALL_PATTERNS_MAX_BYTES: Final = 2 << 20
"""Of all patterns together: each of their bytes costs about a hundred while they are made ready."""
EXPRESSIONS_MAX: Final = 200
PIECES_MAX: Final = 16
TEXTS_MAX: Final = 16
PLACES_MAX: Final = 10_000
"""So many places of a value an expression is tried at: a page that offers it more is not matched by it."""
ALIKE_MAX: Final = 16
"""So many patterns may share the four bytes by which they are looked for."""
BODY_MAX_BYTES: Final = 1 << 19
"""So much of a body is looked at, which is what OONI's probes keep of one."""
HEADER_MAX_BYTES: Final = 4096
FALSE_POSITIVE: Final = "fp"
BLOCKING_SCOPES: Final = frozenset(("nat", "isp", "prod", "inst", "prov"))
"""A nation's, a provider's, a product's, an institution's page. ``vbw`` are vague words: named, never a verdict."""
CONFIDENCE_MIN: Final = 5
"""Of 10, in the column confidence_no_fp: how sure it is that the pattern is no false positive."""
_GRAM: Final = 4
_TABLE_BITS: Final = 16
_MULTIPLIER: Final = 2_654_435_761  # Knuth's: it spreads neighbouring keys


class Fingerprint(msgspec.Struct, frozen=True):
    """One row of a list."""

    name: str
    scope: str
    location: str
    kind: str
    pattern: str
    confidence: int
    countries: frozenset[str]

    def blocks(self, country: str) -> bool:
        """Whether a match means blocking in that country ("" when it is unknown)."""
        placed = not self.countries or not country or country in self.countries
        return self.scope in BLOCKING_SCOPES and self.confidence >= CONFIDENCE_MIN and placed


class Refused(msgspec.Struct, frozen=True):
    """A row that is not used: its line in the list (from 1, the heading), and why."""

    line: int
    reason: str


def read_list(lines: Iterable[str]) -> Iterator[Fingerprint | Refused]:
    """The rows of a list in CSV."""
    rows = csv.DictReader(lines)
    number = 1
    try:
        for row in rows:
            number = rows.line_num
            yield _row(row, number)
    except csv.Error as error:
        yield Refused(number, f"it is no CSV: {error}")


def _row(row: Mapping[str | None, Any], line: int) -> Fingerprint | Refused:
    found = {name: value for name, value in row.items() if isinstance(name, str) and isinstance(value, str)}
    confidence = found.get("confidence_no_fp", "")
    one = Fingerprint(
        name=found.get("name", ""),
        scope=found.get("scope", ""),
        location=found.get("location_found", "").lower(),
        kind=found.get("pattern_type", ""),
        pattern=found.get("pattern", ""),
        confidence=int(confidence) if confidence.isascii() and confidence.isdecimal() and len(confidence) < 3 else 0,
        countries=frozenset(filter(None, re.split("[ ,;]+", found.get("expected_countries", "").upper()))),
    )
    if not one.name or not one.pattern:
        return Refused(line, "it has no name or no pattern")
    if len(one.pattern.encode(errors="replace")) > PATTERN_MAX_BYTES:
        return Refused(line, f"its pattern is longer than {PATTERN_MAX_BYTES} bytes")
    if one.kind not in ("full", "prefix", "contains", "regexp"):
        return Refused(line, f"its pattern_type is {one.kind!r}")
    if one.location != "dns" and one.location != "body" and not one.location.startswith("header."):
        return Refused(line, f"its location_found is {one.location!r}")
    if one.kind == "regexp":
        try:
            _pieces(one.pattern)
        except ValueError as error:
            return Refused(line, str(error))
    elif one.location == "body" and len(one.pattern.encode(errors="replace")) < _GRAM:
        return Refused(line, f"its pattern is shorter than {_GRAM} bytes")
    return one


class Fingerprints:
    """Fingerprints made ready for matching; ``refused`` has those that were not taken, ``len()`` counts the others."""

    def __init__(self, rows: Iterable[Fingerprint | Refused] = ()) -> None:
        """Take rows as ``read_list`` gives them, at most PATTERNS_MAX of them."""
        self.refused: list[Refused] = []
        taken: list[Fingerprint] = []
        expressions = size = 0
        for number, row in enumerate(rows, 2):
            if len(taken) == PATTERNS_MAX or len(self.refused) == PATTERNS_MAX:
                self.refused.append(Refused(number, f"there are more than {PATTERNS_MAX} patterns"))
                break
            if isinstance(row, Refused):
                self.refused.append(row)
                continue
            size += len(row.pattern.encode(errors="replace"))
            if size > ALL_PATTERNS_MAX_BYTES:
                self.refused.append(Refused(number, f"the patterns have more than {ALL_PATTERNS_MAX_BYTES} bytes"))
                break
            expressions += row.kind == "regexp"
            if row.kind == "regexp" and expressions > EXPRESSIONS_MAX:
                self.refused.append(Refused(number, f"there are more than {EXPRESSIONS_MAX} regular expressions"))
            else:
                taken.append(row)
        placed: defaultdict[str, list[Fingerprint]] = defaultdict(list)
        for row in taken:
            placed[row.location].append(row)
        self._body = _Body(placed.pop("body", []))
        for row in self._body.left_out:
            self.refused.append(Refused(0, f"{row.name}: more than {ALIKE_MAX} patterns are like it"))
        self._count = len(taken) - len(self._body.left_out)
        self._short = {location: _Short(there) for location, there in placed.items()}

    def __len__(self) -> int:
        """How many patterns are matched."""
        return self._count

    def of_answers(self, addresses: Iterable[str]) -> list[Fingerprint]:
        """Those of addresses, or other answers of a lookup."""
        here = self._short.get("dns")
        return [found for address in addresses for found in here.find(address)] if here else []

    def of_response(self, headers: Mapping[str, str], body: bytes) -> list[Fingerprint]:
        """Those of a response."""
        found = self._body.find(body[:BODY_MAX_BYTES])
        for name, value in headers.items():
            here = self._short.get(f"header.{name.lower()}")
            if here:
                found += here.find(value)
        return found


Test = Callable[[bytes], bool]


class _Short:
    """Patterns for values of some bytes: looked at one by one, full ones by a table."""

    def __init__(self, rows: Iterable[Fingerprint]) -> None:
        self._full: dict[bytes, list[Fingerprint]] = {}
        self._others: list[tuple[Test, Fingerprint]] = []
        for row in rows:
            if row.kind == "full":
                self._full.setdefault(row.pattern.encode(errors="replace"), []).append(row)
            else:
                self._others.append((_test(row), row))

    def find(self, value: str) -> list[Fingerprint]:
        data = value.encode(errors="replace")[:HEADER_MAX_BYTES]
        return [*self._full.get(data, ()), *(row for test, row in self._others if test(data))]


class _Body:
    """Patterns for bodies, each under four bytes that it must contain; ``left_out`` are those that found no place."""

    def __init__(self, rows: list[Fingerprint]) -> None:
        self._by_gram: dict[int, list[tuple[Test, Fingerprint]]] = {}
        self.left_out: list[Fingerprint] = []
        texts = [_must_contain(row) for row in rows]
        often = Counter(gram for text in texts for gram in set(_grams(text)))
        for row, text in zip(rows, texts, strict=True):
            # The rarest among the patterns; of several the last, which is past common beginnings.
            grams = sorted(reversed(list(_grams(text))), key=often.__getitem__)
            gram = next((one for one in grams if len(self._by_gram.get(one, ())) < ALIKE_MAX), None)
            if gram is None:
                self.left_out.append(row)
            else:
                self._by_gram.setdefault(gram, []).append((_test(row), row))
        self._table: Any = None

    def find(self, body: bytes) -> list[Fingerprint]:
        if len(body) < _GRAM or not self._by_gram:
            return []
        # numpy takes a tenth of a second to import: only who matches fingerprints pays for it.
        import numpy as np

        shift = np.uint32(32 - _TABLE_BITS)
        multiplier = np.uint32(_MULTIPLIER)
        if self._table is None:
            self._table = np.zeros(1 << _TABLE_BITS, dtype=bool)
            self._table[np.array(list(self._by_gram), dtype=np.uint32) * multiplier >> shift] = True
        data = np.frombuffer(body, dtype=np.uint8)
        end = len(body) - _GRAM + 1
        grams = np.zeros(end, dtype=np.uint32)
        for at in range(_GRAM):
            grams |= data[at : at + end].astype(np.uint32) << np.uint32(8 * at)
        here = set(grams[self._table[grams * multiplier >> shift]].tolist())
        return [row for gram in here & self._by_gram.keys() for test, row in self._by_gram[gram] if test(body)]


def _grams(text: bytes) -> Iterator[int]:
    for at in range(len(text) - _GRAM + 1):
        yield int.from_bytes(text[at : at + _GRAM], "little")


def _must_contain(row: Fingerprint) -> bytes:
    """The longest text that is in everything the pattern matches."""
    if row.kind != "regexp":
        return row.pattern.encode(errors="replace")
    return max((text for texts, _ in _pieces(row.pattern) for _, text in texts), key=len)


def _test(row: Fingerprint) -> Test:
    """Whether a value matches, in a time that is linear in its length."""
    text = row.pattern.encode(errors="replace")
    if row.kind == "full":
        return lambda value: value == text
    if row.kind == "prefix":
        return lambda value: value.startswith(text)
    if row.kind == "contains":
        return lambda value: text in value
    pieces = _pieces(row.pattern)
    return lambda value: _in_order(pieces, value)


# ---- regular expressions, the safe few ----

_SPECIAL: Final = frozenset("()[]{}+?|^$*\\.")
Piece = tuple[tuple[tuple[int, bytes], ...], int]
"""Texts with their places in the piece, and how long it is; between them stands one byte of any kind each."""


def _pieces(pattern: str) -> tuple[Piece, ...]:
    r"""What a regular expression is made of when it is text, escaped text, ``.`` and ``.*`` alone; else ValueError.

    A brace that counts nothing is text, as every engine takes it.
    """
    pieces: list[list[bytes | None]] = [[]]
    at = 0
    while at < len(pattern):
        one = pattern[at]
        if pattern.startswith((".*", ".+"), at):
            if pattern[at + 1] == "+":
                pieces[-1].append(None)
            pieces.append([])
            at += 3 if pattern.startswith("?", at + 2) else 2
            continue
        if one == "\\":
            at += 1
            one = pattern[at : at + 1]
            if not one or one.isalnum():
                raise ValueError("its regular expression has an escape that is not taken here")
            pieces[-1].append(one.encode(errors="replace"))
        elif one == ".":
            pieces[-1].append(None)
        elif one not in _SPECIAL or one == "}" or (one == "{" and not re.match(r"[0-9,]", pattern[at + 1 :])):
            pieces[-1].append(one.encode(errors="replace"))
        else:
            raise ValueError(f"its regular expression has {one!r}: only text, . and .* are taken here")
        at += 1
    found = tuple(_placed(piece) for piece in pieces if piece)
    if len(found) > PIECES_MAX or any(len(texts) > TEXTS_MAX for texts, _ in found):
        raise ValueError(f"its regular expression has more than {PIECES_MAX} pieces")
    if max((len(text) for texts, _ in found for _, text in texts), default=0) < _GRAM:
        raise ValueError(f"its regular expression has no text of {_GRAM} bytes")
    return found


def _placed(parts: Iterable[bytes | None]) -> Piece:
    texts: list[tuple[int, bytes]] = []
    at = 0
    for part in parts:
        if part is None:
            at += 1
            continue
        if texts and texts[-1][0] + len(texts[-1][1]) == at:
            texts[-1] = (texts[-1][0], texts[-1][1] + part)
        else:
            texts.append((at, part))
        at += len(part)
    return tuple(texts), at


def _in_order(pieces: tuple[Piece, ...], value: bytes) -> bool:
    """Whether the pieces stand in one line of ``value``, one behind another: the first place of each is the best."""
    rarest = max((text for texts, _ in pieces for _, text in texts), key=len)
    left = [PLACES_MAX]
    at = value.find(rarest)
    while at >= 0 and left[0] > 0:
        begin, end = value.rfind(b"\n", 0, at) + 1, value.find(b"\n", at)
        end = len(value) if end < 0 else end
        left[0] -= 1
        for piece in pieces:
            begin = _after(piece, value, begin, end, left)
            if begin < 0:
                break
        else:
            return True
        at = value.find(rarest, end)
    return False


def _after(piece: Piece, value: bytes, begin: int, end: int, left: list[int]) -> int:
    """Where the first place of a piece between ``begin`` and ``end`` ends; -1 when there is none, or none is left."""
    texts, length = piece
    if not texts:
        return begin + length if begin + length <= end else -1
    offset, longest = max(texts, key=lambda text: len(text[1]))
    at = value.find(longest, begin + offset, end)
    while at >= 0 and left[0] > 0:
        left[0] -= 1
        start = at - offset
        if start + length <= end and all(value.startswith(text, start + place) for place, text in texts):
            return start + length
        at = value.find(longest, at + 1, end)
    return -1
