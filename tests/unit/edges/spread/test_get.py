"""``/get`` at the door for phones: for everybody, only while its owner wants it, and nothing but the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outlast.edges.spread import get
from outlast.edges.spread.counter import Counter
from outlast.edges.spread.install import INDEX, INSTALLER, MANIFEST, File
from outlast.edges.spread.shelf import Shelf, write_index, write_manifest
from outlast.edges.spread.signing import words_of_release
from tests.unit.edges.served import Served, served

MANIFEST_BYTES = write_manifest("1.2.3", [File(INSTALLER, 3, "0" * 64)])


def shelf(folder: Path) -> Shelf:
    """A set with one wheel."""
    wheel = folder / "plain-1.0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    files: dict[str, Path | bytes] = {
        MANIFEST: MANIFEST_BYTES,
        INSTALLER: b"abc",
        INDEX: write_index([]),
        "wheels/plain-1.0-py3-none-any.whl": wheel,
    }
    return Shelf(MANIFEST_BYTES, b"", files, {"linux-x86_64": ["3.11", "3.12"]})


def hand_on(node: Served, folder: Path) -> None:
    """Put a set on the node's shelf, and turn its handing on."""
    node.serving.web.counter = Counter(shelf(folder))
    with node.owner() as owner:
        assert owner.submit("/settings/lan", lan="on").status_code == 303
        assert owner.submit("/share", on="on").headers["location"] == "/share?said=shared"


def test_nothing_is_handed_on_until_the_owner_wants_it_and_after_they_do_not(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node, node.stranger(node.lan_url) as neighbour:
        hand_on(node, tmp_path)
        assert neighbour.get("/get").status_code == 200
        with node.owner() as owner:
            assert f"{node.lan_url}/get" in owner.get("/share").text
            owner.submit("/share", on="off")
        assert neighbour.get("/get").status_code == 404
        assert neighbour.get(f"/get/{MANIFEST}").status_code == 404


def test_a_stranger_gets_the_program_and_what_to_do_with_it(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node, node.stranger(node.lan_url) as neighbour:
        hand_on(node, tmp_path)
        page = neighbour.get("/get").text
        assert f"python3 install.py {node.lan_url}/get" in page
        assert re.findall(r'<li lang="en">(\w+)</li>', page) == words_of_release(MANIFEST_BYTES).split()
        assert "Nobody signed this copy" in page
        assert "Ala" not in page
        wheel = neighbour.get("/get/wheels/plain-1.0-py3-none-any.whl")
        assert (wheel.content, wheel.headers["content-type"]) == (b"a wheel", "application/octet-stream")
        assert wheel.headers["content-disposition"].startswith("attachment")
        assert neighbour.get(f"/get/{MANIFEST}").content == MANIFEST_BYTES
        again = {neighbour.get(f"/get/{wheel.url.path[5:]}").status_code for _ in range(2 * get.SERVED_MAX)}
        assert again == {200}, "who was served stands in nobody's way"


@pytest.mark.parametrize(
    "path",
    ["manifest.sig", "wheels", "wheels/../../home/node.key", "..%2f..%2fhome", "wheels/%2e%2e/x", "//etc/passwd"],
)
def test_nothing_else_can_be_had_there(tmp_path: Path, path: str) -> None:
    with served(tmp_path / "home") as node, node.stranger(node.lan_url) as neighbour:
        hand_on(node, tmp_path)
        assert neighbour.get(f"/get/{path}").status_code == 404


def test_the_switch_is_the_owners(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node:
        hand_on(node, tmp_path)
        with node.phone() as phone:
            assert phone.get("/share").status_code == 403
            assert phone.submit("/share", on="off").status_code == 403
        with node.stranger(node.lan_url) as neighbour:
            assert neighbour.get("/get").status_code == 200


def test_a_locked_node_hands_nothing_on(tmp_path: Path) -> None:
    with served(tmp_path / "home", passphrase="kingfisher over the river") as node:
        node.run(node.node.unlock("kingfisher over the river"))
        hand_on(node, tmp_path)
        with node.stranger(node.lan_url) as neighbour:
            assert neighbour.get("/get").status_code == 200
            node.run(node.node.lock())
            assert neighbour.get("/get").status_code == 404


def test_many_at_once_are_asked_to_come_again(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node, node.stranger(node.lan_url) as neighbour:
        hand_on(node, tmp_path)
        node.serving.web.counter.served = get.SERVED_MAX
        assert neighbour.get("/get/wheels/plain-1.0-py3-none-any.whl").status_code == 429
        assert neighbour.get("/get").status_code == 200


def test_a_copy_that_kept_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    with served(tmp_path / "home") as node, node.owner() as owner:
        owner.submit("/share", on="on")
        assert "kept nothing that it could hand on" in owner.get("/share").text
