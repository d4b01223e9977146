"""The page and the operation that tell what fills the disk, and letting go of what is carried for others."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from outlast.edges.space import look
from outlast.errors import LockedError
from outlast.kernel import let_go_of_carried
from outlast.rooms.carry import files, uploads
from tests.unit.edges.served import Served, served


def send(node: Served, other: Served, size: int) -> bytes:
    """A file for somebody, which stands on the disk from now on; the letter that names it."""
    contact = node.run(node.person.add_contact(other.run(other.person.link())))
    data = BytesIO(os.urandom(size))
    return node.run(files.send(node.node, node.person, contact.identity, data, name="film.bin"))


def strange(node: Served) -> None:
    """No letter here names any file any more, as on a node that only carries them."""
    node.run(node.node.write(lambda: node.person.vault.write(lambda tx: tx.execute("DELETE FROM parcel"))))
    store = node.node.open_store
    node.run(node.node.write(lambda: store.together(lambda: store._database.write(forget_wishes))))


def forget_wishes(t: Any) -> None:
    t.execute("UPDATE file SET wanted = 0")


def kinds(node: Served) -> dict[str, int]:
    """What takes room, by kind."""
    found, _parts = node.run(look(node.node, node.person))
    assert sum(part.bytes for part in found.parts) >= found.bytes > 0
    return {part.kind: part.bytes for part in found.parts}


def test_what_fills_the_disk_is_told_by_kind_and_what_is_for_others_may_go(tmp_path: Path) -> None:
    with served(tmp_path / "a", rooms=None) as node, served(tmp_path / "b", name="Boris", rooms=None) as other:
        before = kinds(node)
        assert "files" not in before
        send(node, other, 3_000_000)
        contact = node.person.contacts()[0].identity
        one = node.run(uploads.begin(node.node, node.person, contact, "half.bin", 900_000))

        async def half() -> Any:
            yield bytes(600_000)

        node.run(uploads.take(node.node, node.person, one.file.id, 0, half()))
        now = kinds(node)
        assert now["files"] == 3_000_000
        assert 0 < now["uploads"] <= 600_000
        assert "carried" not in now
        with node.owner() as owner:
            page = owner.get("/space").text
        assert "Files that you sent or received" in page
        assert "Files for others" not in page

        send(node, other, 20_000)
        strange(node)
        mine = send(node, other, 500_000)
        assert kinds(node)["carried"] >= 3_020_000
        with node.owner() as owner:
            assert owner.submit("/space/carried").status_code == 400
            assert "carried" in kinds(node)
            assert owner.submit("/space/carried", sure="on").headers["location"] == "/space?said=carried-gone"
            assert "Let go of. The space is free." in owner.get("/space?said=carried-gone").text
        assert "carried" not in kinds(node)
        assert node.call(lambda: files.find(node.node, node.person, mine).state) == "here"
        assert node.run(let_go_of_carried(node.node)) == 0

        with node.phone() as phone:
            assert "Space on disk" in phone.get("/space").text
            assert phone.submit("/space/carried", sure="on").status_code == 403
        key = node.run(node.node.add_person("Vera", "heron, river, stone")).key
        node.run(node.node.lock_person(key))
        with pytest.raises(LockedError):
            node.run(let_go_of_carried(node.node))
