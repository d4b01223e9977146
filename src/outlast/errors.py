"""The roots of the exception tree; each part of the program adds its own below them.

    OutlastError               everything this program raises on purpose; its line says what to do
    ├── UsageError             the person asked for something that cannot be; exit code 2, status 400
    ├── LockedError            a passphrase or key is needed or wrong; exit code 3, status 423
    ├── NotFoundError          no such contact, channel, message or file; exit code 4, status 404
    ├── StorageError           disk full, damaged file, home already in use; exit code 5, status 507
    └── ProtocolError          bytes from outside that break a format's rules; exit code 6, status 400
        (entries, noise, setrec, mail, bundle and invite have their own below it)

Expected outcomes (a refused entry, a gap in a chain) are returned values and never stand here.

What differs from case to case is a named part of the line, ``UsageError("there is no port %(port)d", port=port)``:
pages translate the line, then fill in its parts (``_(error)``). The command line, the API and logs say it in English.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a person is told: an English sentence, and its parts where it has ``%(name)s``; ``str()`` is English.

    A part that is a Sentence is translated as well. Other words that are to be translated have a line each.
    """

    text: str
    parts: Mapping[str, Part] = field(default_factory=dict)

    def __str__(self) -> str:
        """The sentence in English, with its parts."""
        return self.text % self.parts if self.parts else self.text


Part = str | int | float | Sentence

REASONS: Final = (
    Sentence("Address already in use"),
    Sentence("Cannot assign requested address"),
    Sentence("Connection refused"),
    Sentence("Connection reset by peer"),
    Sentence("Connection timed out"),
    Sentence("Device or resource busy"),
    Sentence("Disk quota exceeded"),
    Sentence("File exists"),
    Sentence("File name too long"),
    Sentence("File too large"),
    Sentence("Input/output error"),
    Sentence("Is a directory"),
    Sentence("Name or service not known"),
    Sentence("Network is down"),
    Sentence("Network is unreachable"),
    Sentence("No route to host"),
    Sentence("No space left on device"),
    Sentence("No such device"),
    Sentence("No such file or directory"),
    Sentence("Not a directory"),
    Sentence("Operation not permitted"),
    Sentence("Permission denied"),
    Sentence("Read-only file system"),
    Sentence("Too many open files"),
)
"""What the system says most often, here to be translated: ``reason_of``."""


def reason_of(error: BaseException) -> Sentence:
    """What the system, or a library, says of an error: in the reader's language where it is one of ``REASONS``."""
    if isinstance(error, OutlastError):
        return error.line
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Sentence(text)


class OutlastError(Exception):
    """Root of all deliberate errors: ``line`` is for a person, ``str()`` is the same in English."""

    exit_code = 1
    status = 500

    def __init__(self, line: str | Sentence = "", /, **parts: object) -> None:
        """``line`` has a ``%(name)s`` for each of ``parts``; an error among them is told by its own reason."""
        super().__init__(line)
        self.line = (
            line if isinstance(line, Sentence) else Sentence(line, {name: _part(one) for name, one in parts.items()})
        )

    def __str__(self) -> str:
        """The line in English."""
        return str(self.line)


class UsageError(OutlastError):
    """The request itself cannot be carried out as it was made."""

    exit_code = 2
    status = 400


class LockedError(OutlastError):
    """A passphrase or key is missing or wrong."""

    exit_code = 3
    status = 423


class NotFoundError(OutlastError):
    """What was named does not exist here."""

    exit_code = 4
    status = 404


class StorageError(OutlastError):
    """The disk or a file on it does not allow the operation; nothing acknowledged is lost."""

    exit_code = 5
    status = 507


class ProtocolError(OutlastError):
    """Bytes from outside break the rules of their format."""

    exit_code = 6
    status = 400


def _part(value: object) -> Part:
    if isinstance(value, BaseException):
        return reason_of(value)
    return value if isinstance(value, str | int | float | Sentence) else str(value)


def port_taken(where: str) -> StorageError:
    """The error for an address at which another program listens."""
    return StorageError("%(where)s is in use by another program: end it, or choose another port", where=where)
