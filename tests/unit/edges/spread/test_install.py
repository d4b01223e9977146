"""The installer refuses what is not as the manifest says, and changes over in one step."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.edges.spread import install
from outlast.edges.spread.install import File, InstallError, read_files, read_lock, read_manifest

DIGEST = "0" * 64


def manifest(**changed: Any) -> bytes:
    """A manifest with one file, and what is changed of it."""
    rows = [{"path": "install.py", "size": 3, "sha256": sha256(b"abc").hexdigest()}]
    return json.dumps({"format": 1, "name": "outlast", "version": "1.2.3", "files": rows} | changed).encode()


def test_a_manifest_is_read() -> None:
    read = read_manifest(manifest())
    assert read.version == "1.2.3"
    assert read.files == (File("install.py", 3, sha256(b"abc").hexdigest()),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 100_000,
        b"[]",
        manifest(format=2),
        manifest(name="other"),
        manifest(version="1.2"),
        manifest(version="../1"),
        manifest(version="1.2.3\n"),
        manifest(version=["1.2.3"]),
        manifest(files=None),
        manifest(files=[{"path": "install.py", "size": 3, "sha256": DIGEST}] * 2),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(InstallError):
        read_manifest(data)


@pytest.mark.parametrize(
    "row",
    [
        {"path": "../install.py", "size": 1, "sha256": DIGEST},
        {"path": "/etc/passwd", "size": 1, "sha256": DIGEST},
        {"path": "wheels/../../x.whl", "size": 1, "sha256": DIGEST},
        {"path": "wheels\\x.whl", "size": 1, "sha256": DIGEST},
        {"path": ".hidden", "size": 1, "sha256": DIGEST},
        {"path": "a\n", "size": 1, "sha256": DIGEST},
        {"path": "a", "size": -1, "sha256": DIGEST},
        {"path": "a", "size": 1 << 40, "sha256": DIGEST},
        {"path": "a", "size": True, "sha256": DIGEST},
        {"path": "a", "size": 1, "sha256": "A" * 64},
        {"path": "a", "size": 1},
        "a",
    ],
)
def test_a_list_names_nothing_outside_its_folder_and_nothing_endless(row: Any) -> None:
    with pytest.raises(InstallError):
        read_files([row])


@given(st.binary(max_size=200))
def test_bytes_from_anywhere_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(InstallError):
        read_manifest(data)


def test_the_list_of_libraries_is_read_as_pip_reads_it() -> None:
    text = (
        "one==1.0 \\\n    --hash=sha256:" + "a" * 64 + " \\\n    --hash=sha256:" + "b" * 64 + "\n    # via outlast\n"
        "Two-x==2.0.post1 ; sys_platform == 'win32' \\\n    --hash=sha256:" + "c" * 64 + "\n"
    )
    assert read_lock(text) == [
        install.Locked("one", "1.0", "", frozenset({"a" * 64, "b" * 64})),
        install.Locked("two-x", "2.0.post1", "sys_platform == 'win32'", frozenset({"c" * 64})),
    ]


def test_a_file_that_is_not_what_the_list_says_is_not_kept(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "kept"
    source.mkdir()
    (source / "install.py").write_bytes(b"abc")
    install.fetch(str(source), File("install.py", 3, sha256(b"abc").hexdigest()), target)
    assert target.read_bytes() == b"abc"
    for size, digest in (
        (3, sha256(b"abd").hexdigest()),
        (2, sha256(b"ab").hexdigest()),
        (4, sha256(b"abc").hexdigest()),
    ):
        with pytest.raises(InstallError, match="not what the list says"):
            install.fetch(str(source), File("install.py", size, digest), tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "source"]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    source.mkdir()
    into.mkdir()
    (source / "manifest.json").write_bytes(manifest())
    (into / "letters.txt").write_text("mine")
    with pytest.raises(InstallError, match="other files"):
        install.install(str(source), into)
    assert [path.name for path in into.iterdir()] == ["letters.txt"]


def test_what_is_refused_is_not_fetched_and_leaves_nothing(tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    source.mkdir()
    (source / "manifest.json").write_bytes(manifest())

    def refuse(_manifest: bytes, signatures: bytes) -> None:
        assert signatures == b""
        raise InstallError("refused")

    with pytest.raises(InstallError, match="refused"):
        install.install(str(source), into, refuse)
    assert not into.exists()


def test_an_attempt_that_fails_leaves_the_program_that_was_there_and_gives_the_disk_its_room_back(
    tmp_path: Path,
) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    source.mkdir()
    (source / "manifest.json").write_bytes(manifest())
    (source / "install.py").write_bytes(b"changed")
    into.mkdir()
    install.point(install.launcher_in(into), "1.0.0")
    with pytest.raises(InstallError, match="not what the list says"):
        install.install(str(source), into)
    assert sorted(path.name for path in into.iterdir()) == [install.HELD, "outlast"]
    assert install.current(install.launcher_in(into)) == "1.0.0"


def test_what_another_installation_brought_meanwhile_is_not_replaced_by_what_may_be_older(tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    source.mkdir()
    (source / "manifest.json").write_bytes(manifest())
    into.mkdir()
    launcher = install.launcher_in(into)
    install.point(launcher, "1.0.0")

    def accept(_manifest: bytes, _signatures: bytes) -> None:
        install.point(launcher, "1.2.4")

    with pytest.raises(InstallError, match=r"1\.2\.4 was installed meanwhile"):
        install.install(str(source), into, accept)
    assert install.current(launcher) == "1.2.4"


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"does not give manifest\.json"):
        install.install(str(tmp_path / "nowhere"), tmp_path / "into")


def test_the_launcher_starts_the_version_that_it_points_to(tmp_path: Path) -> None:
    into = tmp_path / "it's hier drüben"
    launcher = install.launcher_in(into)
    for version in ("1.0.0", "1.0.1"):
        installed(into / version, f"import sys; print({version!r}, *sys.argv[1:])")
        install.point(launcher, version)
        assert install.current(launcher) == version
        assert subprocess.check_output([launcher, "a", "b c"], text=True) == f"{version} a b c\n"


def test_the_program_takes_no_library_from_where_its_environment_says(tmp_path: Path) -> None:
    into, foreign = tmp_path / "into", tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "json.py").write_text("raise SystemExit('somebody else')")
    installed(into / "1.0.0", "import json; print('ours')")
    launcher = install.launcher_in(into)
    install.point(launcher, "1.0.0")
    environ = {**os.environ, "PYTHONPATH": str(foreign)}
    assert subprocess.check_output([launcher], text=True, env=environ, cwd=foreign) == "ours\n"


def test_a_program_that_does_not_start_is_found_before_it_takes_the_place_of_another(tmp_path: Path) -> None:
    installed(tmp_path / "1.0.0", "import sys; assert sys.argv[1:] == ['release']")
    install.start(tmp_path / "1.0.0")
    installed(tmp_path / "1.0.1", "raise SystemExit(1)")
    with pytest.raises(InstallError, match="does not start"):
        install.start(tmp_path / "1.0.1")


def installed(folder: Path, program: str) -> None:
    """A version as it is installed, with a program of one line."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "bin" / "outlast").write_text(program)


@contextmanager
def answering(answers: list[int], location: str = "", reason: str | None = None) -> Iterator[str]:
    """The address of a neighbour who gives these answers, one after another."""

    class Neighbour(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.pop(0), reason)
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(b"abc")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Neighbour) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/get"
        finally:
            server.shutdown()


def test_a_busy_source_is_asked_again_and_another_trouble_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [429, 429, 200, 503]
    monkeypatch.setattr(install, "BUSY_S", (0.0, 0.0))
    with answering(answers) as source:
        assert install.read(source, "manifest.json", 10) == b"abc"
        with pytest.raises(InstallError, match="Service Unavailable"):
            install.read(source, "manifest.json", 10)
        answers += [429] * 3
        with pytest.raises(InstallError, match="Too Many Requests"):
            install.read(source, "manifest.json", 10)
        assert answers == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_neighbour_sends_nobody_elsewhere(status: int) -> None:
    elsewhere = [200]
    with answering(elsewhere) as other, answering([status], other) as source:
        with pytest.raises(InstallError, match=r"does not give manifest\.json"):
            install.read(source, "manifest.json", 10)
        assert elsewhere == [200], "it was asked"


def test_what_a_neighbour_says_of_a_failure_neither_steers_the_terminal_nor_fills_it() -> None:
    with answering([500], reason="\x1b]0;fine\x07\x1b[2J" + "Installed. " * 1000) as source:
        with pytest.raises(InstallError) as told:
            install.read(source, "manifest.json", 10)
        assert str(told.value).isprintable()
        assert len(str(told.value)) < 400


def test_signatures_are_missing_only_where_the_source_says_so(tmp_path: Path) -> None:
    assert install.read(str(tmp_path), "manifest.sig", 10, optional=True) == b""
    with answering([404, 503]) as source:
        assert install.read(source, "manifest.sig", 10, optional=True) == b""
        with pytest.raises(InstallError, match="Service Unavailable"):
            install.read(source, "manifest.sig", 10, optional=True)


def test_who_has_no_home_directory_is_asked_for_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    assert install.expanded(Path("~/outlast")) == home / "outlast"
    with pytest.raises(InstallError, match="--into"):
        install.expanded(Path("~nobody-of-this-name/outlast"))


def test_the_installer_needs_nothing_but_the_standard_library() -> None:
    tree = ast.parse(Path(install.__file__).read_bytes())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        name
        for node in imports
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert {str(name).partition(".")[0] for name in names} <= sys.stdlib_module_names
