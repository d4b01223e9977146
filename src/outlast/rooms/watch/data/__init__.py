"""Tables that come with watch; each file's first lines name its source and licence."""

from __future__ import annotations

from importlib.resources import files


def read(name: str) -> str:
    """The text of a table."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
