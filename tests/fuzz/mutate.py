"""Mutations that keep an input's form: a fuzzer that only flips bytes seldom gets past a format's first check."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

DEEP = 3000
"""Levels of a nesting that no recursive reader goes down."""
INTERESTING: tuple[Any, ...] = (
    0,
    1,
    -1,
    2**31 - 1,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
    None,
    True,
    1.5,
    float("inf"),
    b"",
    bytes(32),
    b"\xff" * 32,
    "",
    "a" * 65,
    "\u202e\0",
    [],
    [[]],
    {},
    {"a": []},
    msgspec.msgpack.Ext(5, b"x"),
)


def mutate(data: bytes, max_size: int, seed: int, flip: Callable[[bytes, int], bytes]) -> bytes:
    """``data`` changed within what msgpack can say, or by ``flip`` (libFuzzer's own); at most ``max_size`` bytes."""
    chance = Random(seed)
    found = _unpacked(data) if chance.random() < 0.6 else None
    if found is None:
        return flip(data, max_size)
    try:
        changed = msgspec.msgpack.encode(_changed(found, chance, max_size, flip))
    except (OverflowError, RecursionError):
        return flip(data, max_size)
    return changed if len(changed) <= max_size else flip(data, max_size)


def _unpacked(data: bytes) -> list[Any] | None:
    try:
        found = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return found if isinstance(found, list) and found else None


def _changed(node: Any, chance: Random, room: int, flip: Callable[[bytes, int], bytes]) -> Any:
    """``node`` with one change somewhere in it."""
    if isinstance(node, list) and node:
        place = chance.randrange(len(node))
        if chance.random() < 0.7:
            return [*node[:place], _changed(node[place], chance, room, flip), *node[place + 1 :]]
        return _rearranged(node, place, chance)
    if isinstance(node, dict) and node:
        key = chance.choice([*node])
        return {**node, key: _changed(node[key], chance, room, flip)}
    if chance.random() < 0.1:
        return _replaced(chance)
    if isinstance(node, bytes) and node:
        # What lies in bytes is often msgpack again, behind a byte that names its type or by itself.
        for skip in (0, 1):
            inner = _unpacked(node[skip:])
            if inner is not None and chance.random() < 0.7:
                try:
                    return node[:skip] + msgspec.msgpack.encode(_changed(inner, chance, room, flip))
                except (OverflowError, RecursionError):
                    break
        return flip(node, min(room, 2 * len(node) + 8))
    if isinstance(node, str) and node:
        return flip(node.encode("utf-8", "replace"), min(room, 2 * len(node) + 8)).decode("utf-8", "replace")
    if isinstance(node, int):
        return chance.choice((node + 1, node - 1, node ^ 1 << chance.randrange(33), -node))
    return _replaced(chance)


def _rearranged(node: list[Any], place: int, chance: Random) -> list[Any]:
    match chance.randrange(5):
        case 0:
            return [*node[:place], *node[place + 1 :]]
        case 1:
            return [*node[: place + 1], *node[place:]]
        case 2:
            other = chance.randrange(len(node))
            swapped = [*node]
            swapped[place], swapped[other] = node[other], node[place]
            return swapped
        case 3:
            return node[:place]
        case _:
            return [*node[:place], _replaced(chance), *node[place:]]


def _replaced(chance: Random) -> Any:
    if chance.random() < 0.1:
        return msgspec.Raw(b"\x91" * DEEP + b"\x90")
    return chance.choice(INTERESTING)
