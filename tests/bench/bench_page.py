"""How long a phone waits for the first page, what it costs, and how much memory the program takes at rest.

Beside MeshChatX and Syncthing, in one network namespace that leads nowhere; they take turns, and rows hold medians. A
page of one word tells how much of the first paint is the browser's own.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.bench.bench_kernel import Process, pss_bytes, row, serving
from tests.bench.peer_syncthing import Instance
from tests.e2e.machines import Elsewhere, ip, networks
from tests.e2e.program import made

ROUNDS: Final = int(os.environ.get("OUTLAST_BENCH_ROUNDS", "5"))
REST_S: Final = 10
OURS: Final = "Outlast"
ONE_WORD: Final = "a page of one word"
PLAIN_BYTES_MAX: Final = 60 * 1024
"""The first page with all that it brings, uncompressed."""
BARS: Final = {"MeshChatX": (0.25, 0.1), "Syncthing": (0.7, 0.7)}
"""The first and the largest paint, as shares of the peer's."""


def run(peer_python: str | None) -> Iterator[dict[str, Any]]:
    """All rows, beside the peers that are there."""
    network = f"outlast{os.getpid()}page"
    wire = partial(ip, "-n", network, "link", "set", "lo", "up")
    inside: list[str | Path] = ["ip", "netns", "exec", network]
    with TemporaryDirectory() as folder, networks([network], wire), ExitStack() as stack:
        made(Path(folder) / OURS, "Ala")
        node = stack.enter_context(Elsewhere(Path(folder) / OURS, network).up("--no-lan"))
        at = {OURS: (node.process.pid, node.at["page"])}
        for name, (command, url) in (one_word(Path(folder)) | peers(Path(folder), peer_python)).items():
            at[name] = stack.enter_context(serving([*inside, *command])).pid, url
        browser = Process(*inside, sys.executable, "-m", "tests.bench.page_visit")
        stack.callback(browser.end)
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in at}
        for _ in range(ROUNDS):
            for name, (_pid, url) in at.items():
                seen[name].append(browser.ask(url))
        time.sleep(REST_S)
        memory = {name: pss_bytes(pid) / 1e6 for name, (pid, _url) in at.items()}
    figures = {name: {what: median(one[what] for one in visits) for what in visits[0]} for name, visits in seen.items()}
    yield from rows(figures, memory)


def one_word(folder: Path) -> dict[str, tuple[Sequence[str | Path], str]]:
    """The command that serves a page of one word, and where."""
    (folder / "word").mkdir()
    (folder / "word" / "index.html").write_text("<!doctype html><title>-</title><p>Hello")
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", folder / "word", "8001"]
    return {ONE_WORD: (command, "http://127.0.0.1:8001/")}


def peers(folder: Path, peer_python: str | None) -> dict[str, tuple[Sequence[str | Path], str]]:
    """The commands of the peers that are there, and where their pages are."""
    found: dict[str, tuple[Sequence[str | Path], str]] = {}
    if peer_python is not None:
        config = folder / "reticulum"
        config.mkdir()
        (config / "config").write_text("[reticulum]\nenable_transport = No\nshare_instance = No\n[interfaces]\n")
        command = [Path(peer_python).with_name("meshchatx"), "--headless", "--no-https", "--host", "127.0.0.1"]
        command += ["--port", "8000", "--reticulum-config-dir", config, "--storage-dir", folder / "meshchatx"]
        found["MeshChatX"] = command, "http://127.0.0.1:8000/"
    if shutil.which("syncthing"):
        instance = Instance(folder / "syncthing", "8384", "22000")
        instance.keep_to_itself()
        found["Syncthing"] = instance.command, "http://127.0.0.1:8384/"
    return found


def rows(figures: Mapping[str, Mapping[str, float]], memory: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """Ours beside each peer's, and what the page costs at all."""
    ours = figures[OURS]
    plain = ours["plain_bytes"] / 1024
    yield row("first page, uncompressed", "KiB", plain, bar=PLAIN_BYTES_MAX / 1024, at_least=False, of_peer=False)
    word = figures[ONE_WORD]["first_ms"]
    yield row("first page: first paint", "ms", ours["first_ms"], peer=word, peer_name=ONE_WORD)
    for name in figures:
        if name not in BARS:
            continue
        theirs = figures[name]
        first, largest = BARS[name]
        for work, unit, what, size, bar in (
            ("first paint", "ms", "first_ms", 1, first),
            ("largest paint", "ms", "largest_ms", 1, largest),
            ("requests", "number", "requests", 1, None),
            ("bytes on the wire", "KiB", "bytes", 1024, None),
            ("bytes uncompressed", "KiB", "plain_bytes", 1024, None),
        ):
            yield row(
                f"first page: {work}",
                unit,
                ours[what] / size,
                peer=theirs[what] / size,
                peer_name=name,
                bar=bar,
                at_least=False,
            )
        yield row("memory (PSS) at rest", "MB", memory[OURS], peer=memory[name], peer_name=name)
