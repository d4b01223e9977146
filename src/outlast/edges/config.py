"""Settings: the file ``config.toml`` in the home, over it the environment's ``OUTLAST_*``, over both the flags::

port = 8484                       # the page, on this machine; 0 picks a free one
listen = "0.0.0.0:8485"           # where other nodes may connect; nowhere without it
lan = true                        # the page for phones of this network; else as set on the page
discovery = "neighbours"          # whom to look for in local networks, or "off"; else as set on the page
passphrase_file = "/run/secret"   # opens the home at the start, for services
files_auto_bytes = 16777216       # files of channels up to this size are fetched without anybody asking
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from outlast import address
from outlast.address import Target
from outlast.errors import UsageError

FILE: Final = "config.toml"
PREFIX: Final = "OUTLAST_"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of ``outlast up``."""

    port: int = 8484  # 0 to 65535
    listen: str | None = None  # HOST:PORT
    lan: bool | None = None
    passphrase_file: str | None = None
    discovery: Literal["off", "neighbours", "strangers"] | None = None
    files_auto_bytes: int = 16 * 1024 * 1024

    @property
    def listen_address(self) -> Target | None:
        """Host and port of the sync listener."""
        return None if self.listen is None else address.read(self.listen)


def default_home(environ: Mapping[str, str]) -> Path:
    """The home when no ``--home`` is given: ``OUTLAST_HOME``, else the user's own data directory."""
    chosen = environ.get(f"{PREFIX}HOME")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("outlast", appauthor=False)


def read_config(home: Path, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """The settings of a home; flags that are None do not count. Raises UsageError with what to change, and where."""
    file = home / FILE
    known = msgspec.structs.fields(Config)
    config = _convert(_read(file), str(file))
    named = {field.name: environ[f"{PREFIX}{field.name.upper()}"] for field in known if _given(environ, field.name)}
    for name, text in named.items():
        config = _replace(config, {name: text}, f"{PREFIX}{name.upper()}")
    return _replace(config, {name: value for name, value in flags.items() if value is not None}, "the command line")


def _given(environ: Mapping[str, str], name: str) -> bool:
    return bool(environ.get(f"{PREFIX}{name.upper()}"))


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not well written: {error}") from None


def _replace(config: Config, changes: Mapping[str, Any], where: str) -> Config:
    return _convert({**msgspec.structs.asdict(config), **changes}, where)


def _convert(values: Mapping[str, Any], where: str) -> Config:
    names = [field.name for field in msgspec.structs.fields(Config)]
    for name in values:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            raise UsageError(f"{where}: no setting is called {name!r}; {hint}")
    try:
        config = msgspec.convert(values, Config, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}") from None
    if not 0 <= config.port <= 65535:
        raise UsageError(f"{where}: there is no port {config.port}; ports go from 0 to 65535")
    if config.files_auto_bytes < 0:
        raise UsageError(f"{where}: files_auto_bytes is a number of bytes; 0 fetches no file by itself")
    if config.listen is not None:
        try:
            address.read(config.listen)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
    return config
