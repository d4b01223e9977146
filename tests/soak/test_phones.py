"""dev.py soak phones: 200 phones have one channel open and post 20 times a second for 5 minutes; nothing is lost, and
pages stay quick. In the suite 12 phones, for seconds."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from statistics import quantiles
from time import process_time

import pytest

from outlast.rooms.carry import service
from tests.soak.crowd import Seen, crowd
from tests.unit.edges.served import LAN, served

pytestmark = pytest.mark.serial

PAGE_P99_S = 0.5


def test_many_phones_post_at_once_and_nothing_is_lost(tmp_path: Path, soaking: bool) -> None:
    phones, seconds = (200, 300.0) if soaking else (12, 3.0)
    posts_s = 20 if soaking else 10
    with served(tmp_path / "node", rooms=None) as node, ExitStack() as joined:
        channel = node.run(service.create_channel(node.node, node.person, "Street"))
        cookies = [joined.enter_context(node.phone(f"phone {number}")).cookies for number in range(phones)]
        name = f"outlast-{node.serving.port}"
        told = [f"{name}={one[name]}" for one in cookies]
        path = f"/carry/channels/{channel.id}"
        with ProcessPoolExecutor(1, get_context("spawn")) as others:
            others.submit(int).result()
            began_s = process_time()
            seen = others.submit(crowd, LAN, node.serving.port, told, path, seconds, 1 / posts_s).result()
            cpu_s = process_time() - began_s
        kept = [one.text for one in node.call(lambda: service.read_channel(node.node, node.person, channel.space))]
    print(report(seen, cpu_s))
    assert not seen.wrong, seen.wrong[:9]
    assert sorted(kept) == sorted(f"post {number}." for number in range(round(seconds * posts_s))), "each once"
    # Beside other tests the times say nothing.
    assert not soaking or percent(seen.page_s)[98] < PAGE_P99_S


def percent(seconds: list[float]) -> list[float]:
    """The percentiles, 1 to 99."""
    return quantiles(seconds, n=100)


def report(seen: Seen, cpu_s: float) -> str:
    """The figures in a line, with the CPU time of the node, which says something on a busy machine, too."""
    page, post = percent(seen.page_s), percent(seen.post_s)
    return (
        f"phones: {len(seen.page_s)} pages, half in {1000 * page[49]:.0f} ms, 1 in 100 took {1000 * page[98]:.0f} ms or"
        f" more; {len(seen.post_s)} posts, {1000 * post[49]:.0f} ms and {1000 * post[98]:.0f} ms; {seen.news} times"
        f" told of news; the last post was on every phone after {max(seen.shown_s):.1f} s;"
        f" the node took {1000 * cpu_s / len(seen.post_s):.1f} ms of CPU for each post and its"
        f" {len(seen.page_s) / len(seen.post_s):.0f} looks"
    )
