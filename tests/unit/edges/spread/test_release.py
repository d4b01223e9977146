"""Maintainers make keys and sign what they looked at."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from outlast.edges.spread.install import LOCK, MANIFEST, SIGNATURES, WHEELS, File
from outlast.edges.spread.release import main
from outlast.edges.spread.shelf import installed_shelf, write_manifest
from outlast.edges.spread.signing import signers


def set_in(folder: Path) -> Path:
    """A set of one file."""
    folder.mkdir()
    (folder / LOCK).write_bytes(b"# nothing\n")
    row = File(LOCK, 10, sha256(b"# nothing\n").hexdigest())
    (folder / MANIFEST).write_bytes(write_manifest("1.2.3", [row]))
    return folder


def test_two_keys_sign_one_after_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = set_in(tmp_path / "set")
    publics = []
    for name in ("one", "two"):
        assert main(["key", str(tmp_path / name)]) == 0
        publics.append(bytes.fromhex(capsys.readouterr().out.split()[-1]))
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        assert main(["sign", str(made), str(tmp_path / name)]) == 0
    assert "2 signatures, 0 of them by keys that are pinned here." in capsys.readouterr().out
    manifest, signatures = ((made / name).read_bytes() for name in (MANIFEST, SIGNATURES))
    assert signers(manifest, signatures, publics) == set(publics)


def test_a_key_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key"
    assert main(["key", str(file)]) == 0
    before = file.read_bytes()
    assert main(["key", str(file)]) == 1
    assert file.read_bytes() == before
    assert "File exists" in capsys.readouterr().err


def test_a_damaged_set_is_not_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = set_in(tmp_path / "set")
    assert main(["key", str(tmp_path / "key")]) == 0
    (made / LOCK).write_bytes(b"# changed\n")
    assert main(["sign", str(made), str(tmp_path / "key")]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert not (made / SIGNATURES).exists()


@pytest.mark.parametrize("content", [b"", b"00", b"\xff" * 32, b"zz" * 32])
def test_what_is_no_key_is_told(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    made, file = set_in(tmp_path / "set"), tmp_path / "key"
    file.write_bytes(content)
    assert main(["sign", str(made), str(file)]) == 1
    assert "holds no release key" in capsys.readouterr().err


def test_a_folder_with_something_in_it_is_no_place_for_a_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").touch()
    assert main(["make", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_set_written_over_another_one_does_not_keep_its_signatures(tmp_path: Path) -> None:
    old, new = set_in(tmp_path / "old"), set_in(tmp_path / "new")
    (old / WHEELS).mkdir()
    (new / WHEELS).mkdir()
    assert main(["key", str(tmp_path / "key")]) == 0
    assert main(["sign", str(old), str(tmp_path / "key")]) == 0
    installed_shelf(new).write(old)
    assert not (old / SIGNATURES).exists()
    assert installed_shelf(old).manifest == installed_shelf(new).manifest
