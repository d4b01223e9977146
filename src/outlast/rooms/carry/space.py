"""What carry keeps on the disk beside letters and posts."""

from __future__ import annotations

from collections.abc import Sequence

from outlast.kernel import Node, Person, Taken
from outlast.rooms.carry import files, uploads
from outlast.ui.languages import marked


def space(node: Node, person: Person) -> Sequence[Taken]:
    """Files that were sent and that came, and those that a browser is bringing; those of channels count with these."""
    held = sum(one.held_bytes for one in files.listing(node, person) if not one.file.is_public)
    waiting = sum(one.held_bytes for one in uploads.listing(node, person))
    return [
        Taken("files", marked("Files that you sent or received"), held, "/carry/files"),
        Taken("uploads", marked("Files that wait to be sent"), waiting, "/carry/files"),
    ]
