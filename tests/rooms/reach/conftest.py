"""The border and the bridges beyond it stand once for all tests that cross it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import msgspec
import psutil
import pytest

from outlast.address import Target
from outlast.rooms.reach.proto.bridge import WebBridge
from outlast.rooms.reach.proto.links import read_bridge, write_bridge
from tests.rooms.reach.border import STANDING, Border, border
from tests.rooms.reach.ways import NAMED, serving, stock_shadowsocks, upstream, website


@pytest.fixture(scope="session")
def land(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Border]:
    with border(tmp_path_factory.mktemp("border")) as made:
        yield made


@pytest.fixture
def born() -> Callable[[], set[psutil.Process]]:
    """What programs run that this test has started: others may have some that last longer."""
    before = set(psutil.Process().children())
    return lambda: set(psutil.Process().children()) - before


def by_name(link: str) -> str:
    """A link as an operator writes it who knows no address: the bridge itself says the one that it has."""
    bridge = read_bridge(link)
    assert isinstance(bridge, WebBridge)
    assert (bridge.at.host, bridge.name) == (STANDING[1], NAMED)
    return write_bridge(msgspec.structs.replace(bridge, at=Target(NAMED, bridge.at.port)))


@pytest.fixture(scope="session")
def ways(land: Border) -> Iterator[dict[str, str]]:
    """The links of bridges of several kinds, all of them running."""
    chain, key = land.authority.files(land.folder, NAMED)
    with ExitStack() as held:
        yield {
            "web": held.enter_context(website(land, f"{STANDING[0]}:443")),
            "web-by-name": by_name(
                held.enter_context(website(land, f"{STANDING[1]}:443", "--name", NAMED, "--cert", chain, "--key", key))
            ),
            "ss-2022": held.enter_context(serving(land, "--transport", "ss", "--listen", f"{STANDING[1]}:8388")),
            "obfs4": held.enter_context(serving(land, "--transport", "obfs4", "--listen", f"{STANDING[2]}:4443")),
            "ss-stock": held.enter_context(stock_shadowsocks(land, STANDING[2], 8388)),
            "socks5": held.enter_context(upstream(land)),
        }
