"""What a process says of its own faults: kind and place. Their texts may hold what people wrote or where they go."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger("outlast")

AGAIN_S: Final = 3600.0
"""A fault of a loop that was told is told again after so long: some come with every byte."""


def fault(error: BaseException) -> str:
    """A line for an error that nobody foresaw: kind and place, without its text."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"this program has a fault: {type(error).__name__}{place}"


class Discreet(logging.Formatter):
    """One line for a fault: its kind and place."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a traceback."""
        line = self._fmt % {"message": record.getMessage()} if self._fmt else record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        return f"{line}: {fault(error)}" if error is not None else line


def be_discreet() -> None:
    """From now on all that this process says on stderr by itself is so, also what threads and destructors raise."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Discreet("outlast: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    threading.excepthook = _tell
    sys.unraisablehook = _tell


def _tell(found: Any) -> None:
    log.error("%s", fault(found.exc_value) if found.exc_value is not None else found.exc_type.__name__)


def tell_faults_of(loop: asyncio.AbstractEventLoop) -> None:
    """Log what callbacks and forgotten tasks of a loop raise, each kind and place once in AGAIN_S."""
    told: dict[str, float] = {}

    def tell(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        line = fault(error) if isinstance(error, BaseException) else context["message"]
        if line not in told or loop.time() >= told[line] + AGAIN_S:
            told[line] = loop.time()
            log.error("%s", line)

    loop.set_exception_handler(tell)
