"""Tells stories of towns, and of one that goes wrong the seed and the fewest scenes that it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from outlast.testing import FileShelf, Teller, shrink, write_script
from outlast.testing.shelf import Shelf
from outlast.testing.story import Scene


def told(seed: int, script: Sequence[Scene], shelf: Callable[[str], Shelf] | None = None) -> list[str]:
    """The flaws of one story."""
    return Teller(seed, shelf).tell(script)


def check_story(seed: int, folder: Path | None = None) -> None:
    """Tell a seed's story, on real stores in ``folder``; of one that fails show the seed and the scenes it takes."""
    shelf = None if folder is None else file_shelves(folder)
    flaws = told(seed, write_script(seed), shelf)
    if flaws:
        script = shrink(write_script(seed), lambda shorter: bool(told(seed, shorter, shelf)))
        scenes = "\n".join(f"    {scene}" for scene in script)
        pytest.fail(f"seed {seed}:\n" + "\n".join(flaws) + f"\nit takes:\n{scenes}")


def file_shelves(folder: Path) -> Callable[[str], FileShelf]:
    """Makes a store of its own each time that it is asked."""
    return lambda name: FileShelf(folder / f"{len(list(folder.iterdir()))}-{name}.db", bytes(32))
