"""A neighbour's computer gets the program from a node, with no other network than the cable between the two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from outlast import __version__
from outlast.edges.spread import install
from outlast.edges.spread.install import MANIFEST, SHARED, WHEELS
from outlast.edges.spread.release import sign
from outlast.edges.spread.shelf import build, made_shelf
from outlast.kernel import SigningKey
from tests.architecture.tree import ROOT
from tests.e2e.disks import cut_off, stick
from tests.e2e.machines import Elsewhere, Machine, enter, machines

pytestmark = pytest.mark.serial

BARE_PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}"
PORT = 8486


@pytest.fixture(scope="module", autouse=True)
def _kept() -> None:
    if not (Path(sys.prefix) / SHARED / WHEELS).is_dir() and os.environ.get("CI") != "true":
        pytest.skip("this environment kept no wheels: `python3 dev.py test` makes one that does")


def environ_of(folder: Path) -> dict[str, str]:
    """The environment of a person whose home directory is ``folder``; nothing of the one that the tests run in."""
    return {"HOME": str(folder), "PATH": "/usr/bin:/bin"}


def at(machine: Machine, folder: Path, *command: str | Path) -> str:
    """What a command prints that succeeds on another machine, whose person's home directory is ``folder``."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ_of(folder),
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
def shared(program: Path, place: Machine, environ: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """What ``outlast share`` tells on a machine, while it runs; ``environ`` is what it finds there, if not ours."""
    process = subprocess.Popen(
        [program, "--json", "share", "--listen", f"{place.address}:{PORT}"],
        env=environ,
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
        with shared(Path(sys.executable).with_name("outlast"), here) as told:
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
        with shared(program, there, environ_of(folder)) as again:
            assert again["words"] == told["words"]
            assert again["systems"]
            assert all(set(found) <= set(told["systems"][key]) for key, found in again["systems"].items())
            assert fetched(here, folder, f"{again['urls'][0]}/{MANIFEST}") == manifest


KEYS = [SigningKey.from_seed(bytes([number]) * 32) for number in range(1, 4)]


def signed_set(folder: Path, version: str, *keys: SigningKey, starts: bool = True) -> Path:
    """A release of this program as that version, in which three keys are pinned, signed by some."""
    source = folder / f"source {version}"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "LICENSE", "requirements.lock"):
        shutil.copy(ROOT / name, source / name)
    for name in ("pyproject.toml", "src/outlast/__init__.py"):
        text = (source / name).read_text()
        assert text.count(f'version = "{__version__}"') + text.count(f'version__ = "{__version__}"') == 1
        (source / name).write_text(text.replace(f'"{__version__}"', f'"{version}"'))
    if not starts:
        (source / "src/outlast/edges/main.py").write_text("raise SystemExit('no computer runs this')\n")
    pinned = "".join(f"{key.public.hex()} a key\n" for key in KEYS)
    (source / "src/outlast/edges/spread/release_keys.txt").write_text(pinned)
    made = folder / f"set {version}"
    made_shelf(source, Path(sys.prefix) / SHARED / WHEELS).write(made)
    for key in keys:
        sign(made, key)
    return made


def test_an_installed_program_takes_what_two_keys_signed_and_nothing_older(tmp_path: Path) -> None:
    old = signed_set(tmp_path, "0.9.0", *KEYS)
    new = signed_set(tmp_path, "0.10.0", KEYS[2])
    environ = environ_of(tmp_path)

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=150)

    done = run(BARE_PYTHON, old / "install.py")
    assert "Signed by 3 release keys." in done.stdout, done.stderr
    program = tmp_path / "outlast" / "outlast"

    refused = run(program, "update", new)
    assert (refused.returncode, refused.stdout) == (6, "")
    assert "1 of the release keys signed this, 2 are needed" in refused.stderr
    assert run(program, "--version").stdout == "outlast 0.9.0\n"

    sign(new, KEYS[0])
    with subprocess.Popen([program, "update", new], env=environ, stderr=subprocess.PIPE, text=True) as cut:
        assert cut.stderr is not None
        told = ""
        while "Installing" not in told:
            line = cut.stderr.readline()
            assert line, f"it ended before it installed anything: {told}"
            told += line
        cut.kill()
    assert (tmp_path / "outlast" / "0.10.0").is_dir(), "was not cut short"
    assert run(program, "--version").stdout == "outlast 0.9.0\n"

    # The pip that was left running is waited for.
    taken = run(program, "--json", "update", new)
    assert json.loads(taken.stdout)["version"] == "0.10.0", taken.stderr
    assert run(program, "--version").stdout == "outlast 0.10.0\n"

    downgrade = run(program, "update", old)
    assert downgrade.returncode == 2
    assert "only newer ones are taken" in downgrade.stderr
    assert run(program, "--version").stdout == "outlast 0.10.0\n"

    lame = run(program, "update", signed_set(tmp_path, "0.11.0", *KEYS[:2], starts=False))
    assert lame.returncode == 5
    assert "no computer runs this" in lame.stderr
    assert "what was installed does not start" in lame.stderr
    assert run(program, "--version").stdout == "outlast 0.10.0\n"


def test_a_power_cut_while_the_program_changes_over_leaves_one_that_starts(tmp_path: Path) -> None:
    # A filesystem that writes a name down long before what stands in the file.
    with stick(tmp_path, "ext4", 16, options="loop,noauto_da_alloc") as disk:
        launcher = install.launcher_in(disk)
        for version in ("1.0.0", "1.0.1"):
            install.point(launcher, version)
        with open(disk / "another file", "wb") as other:
            os.fsync(other.fileno())
        cut_off(disk)
    with stick(tmp_path, "ext4", 16) as disk:
        assert install.current(install.launcher_in(disk)) in ("1.0.0", "1.0.1")


def test_equal_sources_make_equal_bytes_wherever_they_lie(tmp_path: Path) -> None:
    wheels = []
    for name, mask in (("one", 0o022), ("another place", 0o077)):
        source = tmp_path / name
        before = os.umask(mask)
        try:
            shutil.copytree(ROOT / "src", source / "src", copy_function=shutil.copyfile)
            for file in ("pyproject.toml", "LICENSE"):
                shutil.copyfile(ROOT / file, source / file)
        finally:
            os.umask(before)
        wheels.append(build(source))
    assert wheels[0] == wheels[1]
