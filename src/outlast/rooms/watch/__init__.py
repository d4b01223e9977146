"""What is blocked, what is cut, and what it costs: this site, my link, or the country."""

from outlast.kernel import Room

__all__ = ["ROOM"]

ROOM = Room(name="watch", version=1, cli="outlast.rooms.watch.cli:app")
