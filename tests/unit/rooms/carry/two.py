"""What tests of carry's pages do with two nodes."""

from __future__ import annotations

import io
from collections.abc import Callable

from outlast.kernel import id_text
from tests.unit.edges.served import Served


def trip(start: Served, end: Served) -> None:
    """A stick goes from one to the other."""
    stick = io.BytesIO()
    start.run(start.person.bundle_left(start.run(start.person.write_bundle(stick, to=end.person.identity))))
    stick.seek(0)
    end.run(end.person.read_bundle(stick))


def until(at: Served, holds: Callable[[], object]) -> None:
    """Wait until something holds that news of the node can bring about."""

    async def wait() -> None:
        while not holds():
            await at.node.wait(at.node.revision)

    at.run(wait())


def with_(other: Served) -> str:
    """The address of the conversation with the person of that node."""
    return f"/carry/with/{id_text(other.person.identity)}"
