"""What carry's pages of conversations, groups and channels share: messages as they are shown, and what forms name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from outlast.errors import NotFoundError
from outlast.kernel import Custody
from outlast.ui.languages import Translation

PAGE: Final = 50
"""How many messages a page shows."""
QUOTE_CHARS: Final = 80
LATE_MS: Final = 10 * 60 * 1000
"""From this delay on a message says when it came."""
MINUTE_MS: Final = 60_000
LATEST: Final = "#latest"
_CHANNEL_LINK: Final = re.compile(r"outlast://channel/[A-Za-z0-9_-]{40,2000}")


@dataclass(frozen=True, slots=True)
class Stage:
    """One station of a message: ``event`` as in custody, when it first happened, and how often."""

    event: str
    at_ms: int
    count: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A file as the page shows it."""

    id: str  # hex
    name: str
    size_bytes: int
    mine: bool
    state: str  # as of files.Held
    percent: int
    has_small: bool
    look: Literal["picture", "audio", "video", ""]  # what the page can make of it


@dataclass(frozen=True, slots=True)
class Bubble:
    """A message as the page shows it."""

    id: str  # hex
    text: str
    mine: bool
    at_ms: int
    came_ms: int | None = None  # when it came, if that was noticeably later
    unread: bool = False
    quote: str = ""  # the beginning of what it answers
    journey: tuple[Stage, ...] = ()
    can_be_taken_back: bool = False
    by: str = ""  # who wrote it, where that is not said by the page: in groups, and posts not by the channel's owner
    note: str = ""  # what else is known of it, in words
    doubt: str = ""  # why a letter may not be by whom it says, as a code
    left: str = ""  # how long it is still shown, in words, when it disappears
    file: Shown | None = None
    event: str = ""  # what became of a member, in words; there is no text then

    @property
    def leads_to(self) -> str:
        """The first link of a channel in the text, not looked at closer; nothing where there is none."""
        found = _CHANNEL_LINK.search(self.text)
        return found[0] if found else ""


def stages(custody: Sequence[Custody]) -> tuple[Stage, ...]:
    """The stations of a letter by when they were first reached; each once. ``custody`` is in order."""
    first: dict[str, int] = {}
    for one in custody:
        first.setdefault(one.event, one.at_ms)
    return tuple(Stage(event, at_ms, sum(one.event == event for one in custody)) for event, at_ms in first.items())


def beginning(text: str) -> str:
    """The first line of a text, cut to fit a quotation."""
    line = text.split("\n", 1)[0]
    return line if len(line) <= QUOTE_CHARS else line[: QUOTE_CHARS - 1] + "…"


def time_left(ms: int, _: Translation) -> str:
    """How long a letter is still shown, in words, rounded up."""
    minutes = max(1, -(-ms // MINUTE_MS))
    if minutes <= 60:
        return _.ngettext("disappears in %(n)d minute", "disappears in %(n)d minutes", minutes)
    if minutes <= 48 * 60:
        return _.ngettext("disappears in %(n)d hour", "disappears in %(n)d hours", -(-minutes // 60))
    return _.ngettext("disappears in %(n)d day", "disappears in %(n)d days", -(-minutes // 1440))


def read_bytes(text: str) -> bytes:
    """The bytes of an id in an address or a form; raises NotFoundError."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise NotFoundError("there is no such message here") from None


def read_number(text: str) -> int:
    """A number in a form; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
