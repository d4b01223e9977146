"""The border stands once for all tests that cross it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.rooms.reach.border import Border, border


@pytest.fixture(scope="session")
def land(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Border]:
    with border(tmp_path_factory.mktemp("border")) as made:
        yield made


@pytest.fixture
def born() -> Callable[[], set[psutil.Process]]:
    """What programs run that this test has started: others may have some that last longer."""
    before = set(psutil.Process().children())
    return lambda: set(psutil.Process().children()) - before
