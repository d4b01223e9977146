"""dev.py on systems that are not ours, as far as that can be known without them."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.architecture.tree import ROOT

UNIX_ALONE = {"fcntl", "grp", "pty", "pwd", "resource", "termios"}
WINDOWS_ALONE = {"msvcrt", "winreg"}


@pytest.fixture
def dev() -> ModuleType:
    """dev.py as a module of its own."""
    spec = importlib.util.spec_from_file_location("dev_for_tests", ROOT / "dev.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def on_windows(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The same where Windows is told apart by ``WINDOWS``."""
    monkeypatch.setattr(dev, "WINDOWS", True)
    return dev


def imported(body: list[ast.stmt]) -> set[str]:
    """What statements import as they are run, not what stands in branches."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.Import):
            names |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    return names


def test_what_one_system_alone_has_is_imported_on_that_one_alone() -> None:
    tree = ast.parse((ROOT / "dev.py").read_bytes())
    always = imported(tree.body)
    [choice] = [one for one in tree.body if isinstance(one, ast.If) and ast.unparse(one.test) == "WINDOWS"]
    assert always <= sys.stdlib_module_names
    assert always & (UNIX_ALONE | WINDOWS_ALONE) == set()
    assert (imported(choice.body), imported(choice.orelse)) == ({"msvcrt"}, {"fcntl"})


def test_an_environment_has_its_python_where_the_system_puts_it(dev: ModuleType, monkeypatch: Any) -> None:
    folder = Path("some folder")
    assert dev.python_of(folder) == folder / "bin" / "python"
    monkeypatch.setattr(dev, "WINDOWS", True)
    assert dev.python_of(folder) == folder / "Scripts" / "python.exe"


@pytest.mark.parametrize("command", ["up", "test", "soak", "bench"])
def test_what_runs_the_program_says_where_it_runs(on_windows: ModuleType, command: str) -> None:
    with pytest.raises(SystemExit, match="within WSL"):
        on_windows.main([command])


def test_on_windows_a_second_run_waits_for_the_first(on_windows: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    waited: list[int] = []

    def locking(descriptor: int, _mode: int, count: int) -> None:
        tried.append(descriptor)
        assert count == 1
        if len(tried) == 1:
            raise OSError(36, "Resource deadlock avoided")

    monkeypatch.setattr(on_windows, "msvcrt", SimpleNamespace(locking=locking, LK_LOCK=1), raising=False)
    monkeypatch.setattr(on_windows, "time", SimpleNamespace(sleep=waited.append))
    with on_windows.one_at_a_time():
        assert (len(tried), waited) == (2, [1])
    with pytest.raises(OSError, match="Bad file descriptor"):
        on_windows.os.fstat(tried[0])


def test_without_apt_get_the_packages_are_named(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev.shutil, "which", lambda _name: None)
    monkeypatch.delattr(dev.os, "geteuid")
    with pytest.raises(SystemExit, match="Debian's names: chromium, tor"):
        dev.install_debian_packages(["chromium", "tor"])


def test_the_wheels_of_the_list_are_kept_and_others_are_not(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    wheels, kept = tmp_path / "wheels", tmp_path / "kept"
    wheels.mkdir()
    kept.mkdir()
    files = {wheels / "ours.whl": b"ours", wheels / "tool.whl": b"a tool", kept / "old.whl": b"an older one"}
    files[kept / "other-system.whl"] = b"for another system"
    for path, content in files.items():
        path.write_bytes(content)
    pinned = [dev.hashlib.sha256(content).hexdigest() for content in (b"ours", b"for another system")]
    (tmp_path / dev.RUN_LOCK).write_text("\n".join(f"x==1 --hash=sha256:{one}" for one in pinned))
    dev.keep(wheels, kept)
    assert sorted(path.name for path in kept.iterdir()) == ["other-system.whl", "ours.whl"]
