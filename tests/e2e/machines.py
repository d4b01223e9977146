"""Several machines on one network, and no other way between them: network namespaces joined by a bridge."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.e2e.program import Program

NEW_NETWORK = 0x40000000


@dataclass(frozen=True)
class Machine:
    """A network namespace, and its address in the network that all share."""

    network: str
    address: str


@dataclass(frozen=True)
class Elsewhere(Program):
    """The command line on another machine: in the network namespace ``network``."""

    network: str

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """Start a command there."""
        return super().start(*arguments, preexec_fn=partial(enter, self.network), **more)


def enter(network: str) -> None:
    """Move this process into a network namespace: setns(2)."""
    with open(f"/run/netns/{network}", "rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"cannot enter {network}")


def ip(*arguments: str) -> None:
    """Run iproute2's ``ip``."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@contextmanager
def networks(names: Collection[str], wire: Callable[[], object]) -> Iterator[None]:
    """Network namespaces of these names, joined by ``wire``; where none can be made the test is skipped, but in CI."""
    made: list[str] = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            wire()
        except (OSError, subprocess.CalledProcessError) as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield
    finally:
        for name in made:
            ip("netns", "delete", name)


@contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """So many machines with a switch between them."""
    switch, *names = (f"outlast{os.getpid()}n{number}" for number in range(count + 1))
    found = [Machine(name, f"10.77.0.{number}") for number, name in enumerate(names, 1)]
    with networks((switch, *names), partial(_wire, switch, names)):
        for one in found:
            ip("-n", one.network, "addr", "add", f"{one.address}/24", "dev", "cable")
            ip("-n", one.network, "link", "set", "cable", "up")
            ip("-n", one.network, "link", "set", "lo", "up")
        yield found


def _wire(switch: str, names: Sequence[str]) -> None:
    ip("-n", switch, "link", "add", "switch", "type", "bridge")
    ip("-n", switch, "link", "set", "switch", "up")
    for name in names:
        ip("link", "add", "cable", "netns", name, "type", "veth", "peer", "name", name, "netns", switch)
        ip("-n", switch, "link", "set", name, "master", "switch", "up")
