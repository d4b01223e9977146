"""The stylesheet can be read by everybody: contrast in both themes, both directions of writing, small."""

from __future__ import annotations

import re

import pytest

from outlast.ui.page import STATIC

STYLE = (STATIC / "style.css").read_text()

TEXT_ON = [
    ("ink", "paper"), ("ink", "card"), ("ink", "tint"), ("muted", "paper"), ("muted", "card"), ("muted", "tint"),
    ("accent", "paper"), ("accent", "card"), ("accent", "tint"), ("on-accent", "accent"), ("ok", "ok-tint"),
    ("warn", "warn-tint"), ("bad", "bad-tint"), ("bad", "card"), ("bad", "paper"), ("ink", "line"),
    ("accent", "warn-tint"), ("accent", "bad-tint"), ("accent", "ok-tint"),
]  # fmt: skip


def themes() -> dict[str, dict[str, str]]:
    """The colours of the light and the dark theme, by name."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks)
    return {"light": light, "dark": light | dark}


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("front", "back"), TEXT_ON)
def test_text_stands_out_from_its_ground(theme: str, front: str, back: str) -> None:
    colours = themes()[theme]
    one, other = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
    assert (one + 0.05) / (other + 0.05) >= 4.5


def test_the_style_knows_no_left_and_right() -> None:
    sides = r"[\s{;](?:margin|padding|border)-(?:left|right|top|bottom)\b"
    sided = re.findall(sides + r"|[\s{;](?:left|right|width|height):|text-align: (?:left|right)", STYLE)
    assert sided == []


def test_the_style_fetches_nothing_and_shows_where_the_focus_is() -> None:
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert ":focus-visible { outline: 3px" in STYLE
    assert "prefers-color-scheme: dark" in STYLE
    assert len(STYLE) < 17_000
