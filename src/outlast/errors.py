"""The roots of the exception tree; each part of the program adds its own below them.

    OutlastError               everything this program raises on purpose; its text is one line that says what to do
    ├── UsageError             the person asked for something that cannot be; exit code 2, status 400
    ├── LockedError            a passphrase or key is needed or wrong; exit code 3, status 423
    ├── NotFoundError          no such contact, channel, message or file; exit code 4, status 404
    ├── StorageError           disk full, damaged file, home already in use; exit code 5, status 507
    └── ProtocolError          bytes from outside that break a format's rules; exit code 6, status 400
        (entries, noise, setrec, mail, bundle and invite have their own below it)

Expected outcomes (a refused entry, a gap in a chain) are returned values and never stand here.
"""


class OutlastError(Exception):
    """Root of all deliberate errors; ``str()`` is one line for a person."""

    exit_code = 1
    status = 500


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
