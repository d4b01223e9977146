"""The border stands once for all tests that cross it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rooms.reach.border import Border, border


@pytest.fixture(scope="session")
def land(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Border]:
    with border(tmp_path_factory.mktemp("border")) as made:
        yield made
