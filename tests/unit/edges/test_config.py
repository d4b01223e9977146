"""Settings: the file, over it the environment, over both the flags; what is wrong is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast.edges.config import Config, default_home, read_config
from outlast.errors import UsageError
from outlast.kernel.node import FILES_AUTO_BYTES


def write(home: Path, text: str) -> Path:
    (home / "config.toml").write_text(text, encoding="utf-8")
    return home


def test_without_a_file_everything_has_a_default(tmp_path: Path) -> None:
    assert read_config(tmp_path, {}, {}) == Config(port=8484, listen=None, lan=None, passphrase_file=None)


def test_a_node_fetches_by_itself_what_it_would_without_a_setting(tmp_path: Path) -> None:
    assert read_config(tmp_path, {}, {}).files_auto_bytes == FILES_AUTO_BYTES


def test_flags_go_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    home = write(tmp_path, 'port = 1\nlan = true\nlisten = "a:1"\n')
    assert read_config(home, {}, {}).port == 1
    assert read_config(home, {"OUTLAST_PORT": "2"}, {}).port == 2
    assert read_config(home, {"OUTLAST_PORT": "2"}, {"port": 3}).port == 3
    assert read_config(home, {"OUTLAST_LAN": "false"}, {"listen": "[::1]:9"}) == Config(1, "[::1]:9", False)


def test_a_flag_that_was_not_given_does_not_count(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "lan = true"), {}, {"lan": None}).lan is True


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", "did you mean 'port'"),
        ("colour = 1", "there are port, listen, lan, passphrase_file, discovery, files_auto_bytes"),
        ("port = 'many'", "Expected `int`"),
        ("port = 70000", "ports go from 0 to 65535"),
        ("listen = 'here'", "HOST:PORT"),
        ("files_auto_bytes = -1", "number of bytes"),
        ("port = ", "not well written"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_in_one_line_with_its_name(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_config(write(tmp_path, text), {}, {})
    assert told in str(caught.value)
    assert "config.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_in_the_environment_is_told_with_its_variable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="OUTLAST_PORT"):
        read_config(tmp_path, {"OUTLAST_PORT": "many"}, {})


def test_a_file_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b'listen = "\xff"')
    with pytest.raises(UsageError, match=r"config\.toml"):
        read_config(tmp_path, {}, {})


def test_the_home_is_where_the_environment_says(tmp_path: Path) -> None:
    assert default_home({"OUTLAST_HOME": str(tmp_path)}) == tmp_path
    assert default_home({"OUTLAST_HOME": "~/elsewhere"}) == Path.home() / "elsewhere"
    assert default_home({"OUTLAST_HOME": ""}).name == "outlast"
    assert default_home({}).is_absolute()
