"""A neighbour's computer gets the program from a node, with no other network than the cable between the two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from outlast.edges.spread.install import MANIFEST, SHARED, WHEELS
from tests.e2e.machines import Elsewhere, Machine, enter, machines

pytestmark = pytest.mark.serial

BARE_PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}"
PORT = 8486


@pytest.fixture(scope="module", autouse=True)
def _kept() -> None:
    if not (Path(sys.prefix) / SHARED / WHEELS).is_dir() and os.environ.get("CI") != "true":
        pytest.skip("this environment kept no wheels: `python3 dev.py test` makes one that does")


def at(machine: Machine, folder: Path, *command: str | Path) -> str:
    """What a command prints that succeeds on another machine, whose person's home directory is ``folder``."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        preexec_fn=partial(enter, machine.network),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fetched(machine: Machine, folder: Path, url: str) -> bytes:
    """What a browser there would download."""
    at(machine, folder, "curl", "--fail", "--silent", "--show-error", "--output", "downloaded", url)
    return (folder / "downloaded").read_bytes()


@contextmanager
def shared(command: Sequence[str | Path], place: Machine) -> Iterator[dict[str, object]]:
    """What ``outlast share`` tells on a machine, while it runs."""
    process = subprocess.Popen(
        [*command, "--json", "share", "--listen", f"{place.address}:{PORT}"],
        preexec_fn=partial(enter, place.network),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate(timeout=60))
        yield json.loads(line)
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_a_neighbour_without_internet_gets_the_program_runs_it_and_hands_it_on(tmp_path: Path) -> None:
    folder = tmp_path / "a neighbour"
    folder.mkdir()
    with machines(2) as (here, there):
        with shared([Path(sys.executable).with_name("outlast")], here) as told:
            [url] = told["urls"]
            assert "python3 install.py" in fetched(there, folder, url).decode()
            manifest = fetched(there, folder, f"{url}/{MANIFEST}")
            (folder / "install.py").write_bytes(fetched(there, folder, f"{url}/install.py"))
            said = at(there, folder, BARE_PYTHON, "install.py", url)
            assert told["words"] in said
        program = folder / "outlast" / "outlast"
        assert at(there, folder, program, "--version") == f"outlast {told['version']}\n"
        node = Elsewhere(tmp_path / "home", there.network)
        at(there, folder, program, "--home", node.home, "init", "--name", "Vera", "--unattended")
        with shared([program], there) as again:
            assert (again["words"], again["systems"]) == (told["words"], told["systems"])
            assert fetched(here, folder, f"{again['urls'][0]}/{MANIFEST}") == manifest
