"""The import contracts of pyproject.toml hold, and each of them bites."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

# Contract -> one forbidden import each: the file it is added to, and the line.
LAYERS = "Each layer imports only from the layers below it"
ROOMS = "Rooms are blind to each other"
FAKES = "Only tests import the shipped fakes"
DOOR = "Above the kernel only its door is imported"
INSIDE = "Inside the kernel nobody goes through the door"
TOOLKITS = "The kernel knows no toolkit of the edges"
MACHINES = "The kernel's machines touch no socket, file, clock or chance"
ROOM_MACHINES = "A room's entries, view and formats are pure"
FORBIDDEN = [
    (LAYERS, "rooms/carry/service.py", "import outlast.edges.main"),
    (LAYERS, "ui/page.py", "from outlast.rooms import carry"),
    (LAYERS, "kernel/node.py", "def draw():\n    import outlast.ui.page"),
    (LAYERS, "errors.py", "import outlast.kernel"),
    (LAYERS, "everything.py", "import outlast.errors"),
    (ROOMS, "rooms/toy/__init__.py", "import outlast.rooms.carry"),
    (FAKES, "edges/main.py", "from outlast.testing import FakeClock"),
    (DOOR, "edges/main.py", "from outlast.kernel.store import Store"),
    (DOOR, "rooms/carry/service.py", "from outlast.kernel import entry"),
    (DOOR, "ui/page.py", "import outlast.kernel.noise"),
    (INSIDE, "kernel/node.py", "from outlast.kernel import Entry"),
    (TOOLKITS, "kernel/room.py", "import typer"),
    (TOOLKITS, "kernel/node.py", "def serve():\n    from starlette.applications import Starlette"),
    (MACHINES, "kernel/entry.py", "import time"),
    (MACHINES, "kernel/mail.py", "from os import urandom"),
    (MACHINES, "kernel/admit.py", "import outlast.kernel.store"),
    (ROOM_MACHINES, "rooms/carry/view.py", "import asyncio"),
]


# What the kernel may do itself: the shell around its machines. Everything else there is a machine.
SHELL = {
    "__init__",
    "circular",
    "database",
    "devices",
    "door",
    "endings",
    "groups",
    "heap",
    "discovery",
    "eviction",
    "footprint",
    "home",
    "inbox",
    "neighbours",
    "node",
    "outbox",
    "packing",
    "overlap",
    "people",
    "person",
    "room",
    "snapshots",
    "store",
    "trips",
    "vault",
}


def lint(folder: Path) -> tuple[int, str]:
    """Return the exit status and the output of lint-imports for the tree `folder`/src."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the program and its contracts, to be broken."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src" / "outlast", tmp_path / "src" / "outlast")
    return tmp_path


def test_the_program_keeps_its_contracts() -> None:
    status, output = lint(ROOT)
    assert status == 0, output


def test_every_contract_is_broken_on_purpose_below() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert {contract["name"] for contract in contracts["contracts"]} == {name for name, _, _ in FORBIDDEN}


def test_every_file_of_the_kernel_is_a_machine_or_belongs_to_the_shell() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [machines] = [one for one in contracts["contracts"] if one["name"] == MACHINES]
    files = {f"outlast.kernel.{path.stem}" for path in (ROOT / "src/outlast/kernel").glob("*.py")}
    assert files - {f"outlast.kernel.{name}" for name in SHELL} == set(machines["source_modules"])


@pytest.mark.parametrize(("contract", "file", "line"), FORBIDDEN)
def test_a_contract_bites(copy: Path, contract: str, file: str, line: str) -> None:
    target = copy / "src" / "outlast" / file
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a", encoding="utf-8") as source:
        source.write(f"\n\n{line}\n")
    status, output = lint(copy)
    assert status == 1, output
    assert f"{contract} BROKEN" in output
