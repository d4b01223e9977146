"""What texts from elsewhere tell of whoever asked: addresses that pages and headers repeat, and keys in URLs. Pure.

Behind a router the operator's public address is not known here, so any address counts as theirs that is none of those
measured. Reads hostile text in time linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from ipaddress import ip_address
from typing import Any, Final

SCRUBBED: Final = "[scrubbed]"
_DEPTH_MAX: Final = 16
_ADDRESS: Final = re.compile(
    r"(?<![0-9.])[0-9]{1,3}([.-])[0-9]{1,3}\1[0-9]{1,3}\1[0-9]{1,3}(?!\.?[0-9])"
    r"|(?<![\w:])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{2,39}(?:\.[0-9]{1,3}){0,3}(?![\w:])"
)
_VALUE: Final = re.compile(r"([?&;][^=&;#\s]{0,256})=[^&;#\s]+")


def measured(value: Any) -> set[str]:
    """The addresses that stand by themselves in a measurement, also with a port; headers' values do not count."""
    return {one for text in _texts(value, 0) if (one := _plain(text))}


def without_addresses(text: str, known: Collection[str]) -> str:
    """A text in which no address stands but the known ones, also none written with dashes."""

    def strike(found: re.Match[str]) -> str:
        address = _plain(found[0].replace("-", ".") if found[1] == "-" else found[0])
        return found[0] if not address or address in known else SCRUBBED

    return _ADDRESS.sub(strike, text)


def without_values(url: str) -> str:
    """A URL without what its query's names are set to: a session, or who asked."""
    return _VALUE.sub(r"\1=" + SCRUBBED, url)


def _texts(value: Any, depth: int) -> Iterator[str]:
    match value:
        case str() if len(value) <= 64:
            yield value
        case dict() if depth < _DEPTH_MAX:
            for name, one in value.items():
                if name not in ("headers", "headers_list", "body"):
                    yield from _texts(one, depth + 1)
        case list() if depth < _DEPTH_MAX:
            for one in value:
                yield from _texts(one, depth + 1)


def _plain(text: str) -> str:
    """The address that a text is, in its usual form, "" for none; a port after it does not matter."""
    host, _, port = text.rpartition(":")
    for one in (text, host.removeprefix("[").removesuffix("]") if port.isdigit() else ""):
        try:
            return str(ip_address(one))
        except ValueError:
            continue
    return ""
