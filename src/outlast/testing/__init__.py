"""Fakes that ship with the program: a clock, a link, a town of nodes in one process, and stories that happen in it.

Nothing of the program imports them; tests and rooms of others do.
"""

from outlast.testing.clock import FakeClock
from outlast.testing.link import MemoryLink
from outlast.testing.pipe import Pipe, pipe
from outlast.testing.shelf import FileShelf, MemoryShelf
from outlast.testing.story import Teller, shrink, write_script
from outlast.testing.town import Meeting, Place, Town

__all__ = [
    "FakeClock",
    "FileShelf",
    "Meeting",
    "MemoryLink",
    "MemoryShelf",
    "Pipe",
    "Place",
    "Teller",
    "Town",
    "pipe",
    "shrink",
    "write_script",
]
