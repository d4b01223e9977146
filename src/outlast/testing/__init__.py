"""Fakes that ship with the program: a clock, a link, a town of nodes in one process, and stories that happen in it.

Nothing of the program imports them; tests and rooms of others do.
"""

from outlast.testing.clock import FakeClock
from outlast.testing.contacts import Contact, Letter, contact_lines, letters_between, read_contacts, town_contacts
from outlast.testing.link import MemoryLink
from outlast.testing.pipe import Pipe, pipe
from outlast.testing.shelf import FileShelf, MemoryShelf
from outlast.testing.spread import Outcome, spread, spread_in_town
from outlast.testing.story import Teller, shrink, write_script
from outlast.testing.town import Meeting, Place, Town

__all__ = [
    "Contact",
    "FakeClock",
    "FileShelf",
    "Letter",
    "Meeting",
    "MemoryLink",
    "MemoryShelf",
    "Outcome",
    "Pipe",
    "Place",
    "Teller",
    "Town",
    "contact_lines",
    "letters_between",
    "pipe",
    "read_contacts",
    "shrink",
    "spread",
    "spread_in_town",
    "town_contacts",
    "write_script",
]
