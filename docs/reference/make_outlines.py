"""Makes ``outlines.json`` of the room watch: the outlines of the countries, projected and cut to a few kilobytes.

    python docs/reference/make_outlines.py countries-110m.json countries-50m.json

Both files are those of world-atlas 2.0.2 (Natural Earth 4.1.0, public domain); their hashes are checked. Countries of
the first become paths, those that only the second has become dots. Projection: Equal Earth (Šavrič, Patterson, Jenny
2018, doi 10.1080/13658816.2018.1504949), 1000 units wide, without the Antarctic.
"""

from __future__ import annotations

import json
import math
import sys
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from babel.core import get_global

HASHES = (
    "2516c915867c7baf18ddec727aec46c315541a07cfb3d79a6559b05d5e94eee8",
    "04342cdc1e3016bcd7db1630de95684d67b79fe3c8c460321e87aef469502394",
)
TARGET = Path(__file__).parents[2] / "src/outlast/rooms/watch/data/outlines.json"
WIDTH = 1000
NORTH, SOUTH = 84.0, -56.0
# Drawn apart, without a code of ISO 3166: whose code the registries of addresses use for networks there.
WITHOUT_CODE = {"Kosovo": "XK", "Somaliland": "SO", "N. Cyprus": "CY"}
LEFT_OUT = {"AQ", "TF", "HM", "GS"}  # nobody lives there
Point = tuple[float, float]
Ring = list[Point]


def equal_earth(longitude: float, latitude: float) -> Point:
    """The projected place, x from -2.71 to 2.71, y growing northwards."""
    a1, a2, a3, a4 = 1.340264, -0.081106, 0.000893, 0.003796
    theta = math.asin(math.sqrt(3) / 2 * math.sin(math.radians(latitude)))
    slope = 9 * a4 * theta**8 + 7 * a3 * theta**6 + 3 * a2 * theta**2 + a1
    x = 2 * math.sqrt(3) * math.radians(longitude) * math.cos(theta) / (3 * slope)
    return x, a4 * theta**9 + a3 * theta**7 + a2 * theta**3 + a1 * theta


EDGE = equal_earth(180, 0)[0]
SCALE = WIDTH / (2 * EDGE)
TOP = equal_earth(0, NORTH)[1]
HEIGHT = round((TOP - equal_earth(0, SOUTH)[1]) * SCALE)


def place(longitude: float, latitude: float) -> tuple[int, int]:
    """A place on the map, in whole units."""
    x, y = equal_earth(longitude, latitude)
    return round((x + EDGE) * SCALE), round((TOP - y) * SCALE)


def arcs_of(topology: dict[str, Any]) -> list[Ring]:
    """All arcs in degrees (TopoJSON: differences on a grid)."""
    (sx, sy), (tx, ty) = topology["transform"]["scale"], topology["transform"]["translate"]
    found = []
    for arc in topology["arcs"]:
        x = y = 0
        ring = []
        for dx, dy in arc:
            x, y = x + dx, y + dy
            ring.append((x * sx + tx, y * sy + ty))
        found.append(ring)
    return found


def rings_of(geometry: dict[str, Any], arcs: list[Ring]) -> list[Ring]:
    """The rings of a shape; an arc's complement (~i) is walked backwards."""
    polygons = geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]
    found = []
    for polygon in polygons:
        for parts in polygon:
            ring: Ring = []
            for number in parts:
                ring += arcs[number] if number >= 0 else arcs[~number][::-1]
            found.append(ring)
    return found


def cut(ring: Ring) -> list[Ring]:
    """The pieces of a ring on either side of 180 degrees, where the map ends."""
    turned, turn, last = [], 0, ring[0][0]
    for x, y in ring:
        turn += 360 if x - last < -180 else -360 if x - last > 180 else 0
        turned.append((x + turn, y))
        last = x
    pieces = [[(min(180.0, max(-180.0, x + shift)), y) for x, y in turned] for shift in (-360, 0, 360)]
    return [without_edge(piece) for piece in pieces if any(abs(x) < 180 for x, _ in piece)]


def without_edge(ring: Ring) -> Ring:
    """A closed ring without what lies along the map's edge but the ends of each such stretch."""
    start = next(number for number, (x, _) in enumerate(ring) if abs(x) < 180)
    ring = ring[start:-1] + ring[: start + 1]
    return [
        point
        for before, point, after in zip([ring[-2], *ring], ring, [*ring[1:], ring[1]], strict=False)
        if not (abs(before[0]) == abs(point[0]) == abs(after[0]) == 180)
    ]


def path(rings: list[Ring]) -> str:
    """The rings as an SVG path of relative steps."""
    parts = []
    for ring in (piece for whole in rings for piece in cut(whole)):
        points = [place(*point) for point in ring]
        points = [points[0], *(b for a, b in pairwise(points) if a != b)]
        if len(points) < 4:
            continue
        steps = [(x - a, y - b) for (a, b), (x, y) in pairwise(points)]
        parts.append(f"M{points[0][0]} {points[0][1]}l" + " ".join(f"{x} {y}" for x, y in steps[:-1]) + "z")
    return "".join(parts)


def middle(rings: list[Ring]) -> tuple[int, int]:
    """The middle of the largest ring."""
    ring = max(rings, key=len)
    return place(sum(x for x, _ in ring) / len(ring), sum(y for _, y in ring) / len(ring))


def code_of(geometry: dict[str, Any]) -> str:
    """The ISO 3166 alpha-2 code of a shape; empty when there is none."""
    if "id" not in geometry:
        return WITHOUT_CODE.get(geometry["properties"]["name"], "")
    codes = get_global("territory_aliases").get(geometry["id"], [""])
    return str(codes[0])


def main(files: list[str]) -> None:
    """Write the outlines of both files."""
    texts = [Path(name).read_bytes() for name in files]
    if tuple(sha256(text).hexdigest() for text in texts) != HASHES:
        raise SystemExit("these are not the files of world-atlas 2.0.2")
    coarse, fine = (json.loads(text) for text in texts)
    shapes: dict[str, list[Ring]] = {}
    for geometry in coarse["objects"]["countries"]["geometries"]:
        shapes.setdefault(code_of(geometry), []).extend(rings_of(geometry, arcs_of(coarse)))
    arcs = arcs_of(fine)
    dots = {
        code_of(geometry): middle(rings_of(geometry, arcs))
        for geometry in fine["objects"]["countries"]["geometries"]
        if code_of(geometry) not in shapes
    }
    made = {
        "width": WIDTH,
        "height": HEIGHT,
        "countries": {code: path(rings) for code, rings in sorted(shapes.items()) if code and code not in LEFT_OUT},
        "dots": {code: at for code, at in sorted(dots.items()) if code and code not in LEFT_OUT},
    }
    TARGET.write_text(json.dumps(made, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
