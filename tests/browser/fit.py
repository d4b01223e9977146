"""What is asked of every page, whatever it says: that it fits, and that nothing keeps anybody from using it."""

from __future__ import annotations

import re
from typing import Any, Final

from outlast.ui.page import LANGUAGE_COOKIE
from tests.browser.phone import Phone

NARROWEST: Final = 320
"""CSS pixels; a page 1280 wide is so at 400 % (WCAG 2.2, 1.4.10)."""

SMALL: Final = """() => [...document.querySelectorAll(
    "a.button, a.card, button, nav a, .top a, .list a, .actions a, input, select, textarea, summary")]
    .filter(e => e.type !== "hidden" && !["radio", "checkbox"].includes(e.type) && e.checkVisibility())
    .filter(e => e.getBoundingClientRect().height < 44).map(e => e.outerHTML.slice(0, 80))"""

_CLIPPED: Final = """() => [...document.querySelectorAll("body *")]
    .filter(e => e.checkVisibility() && !e.closest("svg, .hidden, .one-line, .composer > .field > span"))
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
    .filter(e => { const look = getComputedStyle(e);
      return (look.overflowX !== "visible" && look.overflowX !== "auto" && e.scrollWidth > e.clientWidth + 1)
        || (look.overflowY !== "visible" && look.overflowY !== "auto" && e.scrollHeight > e.clientHeight + 1)
        || e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1 })
    .filter(e => !e.closest(".scroll")).map(e => e.outerHTML.slice(0, 80))"""

_STOPS: Final = """() => {
    const groups = new Set();
    window.stops = [...document.querySelectorAll(
        "a[href], button, input, select, textarea, summary, audio[controls], video[controls], [tabindex]")]
        .filter(e => e.type !== "hidden" && !e.disabled && e.tabIndex >= 0 && e.checkVisibility())
        .filter(e => {
            if (e.type !== "radio") return true;
            const all = [...document.querySelectorAll(`input[type=radio][name="${e.name}"]`)]
                .filter(one => one.form === e.form);
            return e === (all.find(one => one.checked) || all[0]);
        });
    return [window.stops.length, [...document.querySelectorAll("[tabindex]")].filter(e => e.tabIndex > 0).length];
}"""

_FOCUSED: Final = """() => {
    const e = document.activeElement;
    if (!e || e === document.body) return null;
    const look = getComputedStyle(e), at = e.getBoundingClientRect(), place = window.stops.indexOf(e);
    const x = Math.min(Math.max(at.left + at.width / 2, 1), innerWidth - 1);
    const y = Math.min(Math.max(at.top + Math.min(at.height / 2, 20), 1), innerHeight - 1);
    const over = document.elementFromPoint(x, y);
    const seen = over && (e.contains(over) || over.contains(e) || [...(e.labels || [])].some(l => l.contains(over)));
    const outlined = look.outlineStyle !== "none" && parseFloat(look.outlineWidth) > 0;
    return [place, outlined || !!e.closest("svg"), seen || !!e.closest("svg"), e.outerHTML.slice(0, 80)];
}"""


def speak(page: Phone, language: str) -> None:
    """From now on the node speaks this language to this browser."""
    page.page.context.add_cookies([{"name": LANGUAGE_COOKIE, "value": language, "url": page.url}])


def too_wide(page: Phone) -> list[str]:
    """Whether one would have to scroll sideways, in a line."""
    wide, there = page.page.evaluate("document.documentElement.scrollWidth"), page.page.viewport_size["width"]
    return [f"{wide} pixels wide on {there}"] * (wide > there)


def magnified(page: Phone) -> list[str]:
    """What goes wrong when all text is twice as large: what is cut off, or hangs out of the screen."""
    page.page.evaluate("document.documentElement.style.fontSize = '200%'")
    wrong: list[str] = page.page.evaluate(_CLIPPED)
    wrong += too_wide(page)
    page.page.evaluate("document.documentElement.style.fontSize = ''")
    return wrong


def unreachable(page: Phone) -> list[str]:
    """What goes wrong for who presses Tab through the page, from the skip link to the last thing and out of it."""
    page.page.evaluate("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    count, forced = page.page.evaluate(_STOPS)
    wrong = [f"{forced} elements force their place in the order"] * (forced > 0)
    order: list[int] = []
    for _ in range(2 * count + 10):  # what scrolls is a stop as well
        page.page.keyboard.press("Tab")
        found: Any = page.page.evaluate(_FOCUSED)
        if found is None or (order and found[0] == order[0]):
            break
        place, outlined, seen, html = found
        order += [place] * (place >= 0)
        wrong += [f"no outline: {html}"] * (not outlined) + [f"covered: {html}"] * (not seen)
    else:
        wrong.append(f"Tab does not leave it: {order}")
    missed = sorted(set(range(count)) - set(order))
    wrong += [page.page.evaluate("at => window.stops[at].outerHTML.slice(0, 80)", at) for at in missed]
    return wrong + [f"not in reading order: {order}"] * (order != sorted(order))


def skips(page: Phone) -> bool:
    """Whether the first stop leads past what is alike on all pages."""
    page.page.keyboard.press("Tab")
    first: str = page.page.evaluate("document.activeElement.className")
    page.page.keyboard.press("Enter")
    there: str = page.page.evaluate("document.activeElement.id")
    return bool(re.fullmatch("skip", first)) and there == "main"
