"""A relaying process with a configuration out of a file, to stand in a namespace: it tells what happens on stdout."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from outlast.rooms.reach.io.relay import Config, Event, relay_until_signal, run


def show(event: Event) -> None:
    """A line of JSON."""
    print(msgspec.json.encode(event).decode(), flush=True)


if __name__ == "__main__":
    run(relay_until_signal(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Config), show))
