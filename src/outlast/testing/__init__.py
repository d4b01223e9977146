"""Fakes that ship with the program: a clock, a link, and a town of nodes in one process.

Nothing of the program imports them; tests and rooms of others do.
"""

from outlast.testing.clock import FakeClock
from outlast.testing.link import MemoryLink
from outlast.testing.town import Meeting, Place, Town

__all__ = ["FakeClock", "Meeting", "MemoryLink", "Place", "Town"]
