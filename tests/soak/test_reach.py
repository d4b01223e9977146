"""One stream of 200 MB, byte for byte, over connections that freeze after 16 KB or are reset every three seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.rooms.reach import censors
from tests.rooms.reach.border import BRIDGES, Border, border, page_of
from tests.rooms.reach.ways import Way, connected, website

pytestmark = pytest.mark.serial

SITE = "https://site.example.net"
FULL_BYTES = 200_000_000
Moved = Callable[[Way, int, Path], None]


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Border]:
    with border(tmp_path_factory.mktemp("border")) as made:
        yield made


@pytest.fixture(scope="module")
def link(land: Border) -> Iterator[str]:
    with website(land, f"{BRIDGES[2]}:443") as made:
        yield made


def fetched(way: Way, size: int, folder: Path) -> None:
    """Get a page of that size."""
    file = folder / "page"
    done = way.curl("-o", str(file), f"{SITE}/{size}", limit_s=3600)
    assert done.returncode == 0, done.stderr
    assert sha256(file.read_bytes()).digest() == sha256(page_of(size)).digest()


def put(way: Way, size: int, folder: Path) -> None:
    """Send as much."""
    file = folder / "page"
    file.write_bytes(page_of(size))
    done = way.curl("-T", str(file), f"{SITE}/put", "-H", "Expect:", limit_s=3600)
    assert done.stdout == sha256(page_of(size)).hexdigest(), done.stderr


@pytest.mark.parametrize("moved", [fetched, put])
def test_behind_the_curtain_a_stream_goes_on_over_one_connection_after_another(
    land: Border, link: str, tmp_path: Path, soaking: bool, moved: Moved
) -> None:
    with land.censored(censors.curtain(16_000)), connected(land, [link]) as way:
        moved(way, FULL_BYTES if soaking else 300_000, tmp_path)


@pytest.mark.parametrize("moved", [fetched, put])
def test_a_stream_outlives_connections_that_are_reset_under_it(
    land: Border, link: str, tmp_path: Path, soaking: bool, moved: Moved
) -> None:
    # As fast as a good line and not as fast as a loopback, so that it takes a while.
    slow = censors.throttle(10_000_000, BRIDGES[2])
    with land.censored(slow), land.struck(3.0 if soaking else 0.3) as struck, connected(land, [link]) as way:
        moved(way, FULL_BYTES if soaking else 10_000_000, tmp_path)
    assert struck
