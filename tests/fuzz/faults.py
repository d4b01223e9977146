"""Decoders with a fault each: a fuzzer that does not find them is broken."""

from __future__ import annotations

import time

from outlast.errors import ProtocolError
from tests.fuzz.engine import CPU_MAX_S
from tests.fuzz.targets import Target, run_with


def falls(data: bytes) -> None:
    """Raise what nobody documents, four bytes deep: chance alone takes 2**32 inputs to get there."""
    if len(data) > 3 and data[0] == ord("F") and data[1] == ord("A") and data[2] == ord("L") and data[3] == ord("L"):
        raise KeyError("planted")


def lingers(data: bytes) -> None:
    """Take a little too long."""
    start = time.thread_time()
    while data[:1] == b"L" and time.thread_time() < start + 1.5 * CPU_MAX_S:
        pass


def hangs(data: bytes) -> None:
    """Never return."""
    while data[:1] == b"H":
        pass


def swells(data: bytes) -> None:
    """Take much memory."""
    if data[:1] == b"M":
        bytearray(2**30)


FAULTY = tuple(
    Target(function.__name__, lambda: [b"seed"], run_with(function), (ProtocolError,), 0)
    for function in (falls, lingers, hangs, swells)
)
