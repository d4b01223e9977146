"""Trusting this node: the switch of the encrypted door for phones, and what they install to know the node."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from outlast.edges.https import authority
from outlast.edges.https.authority import Authority
from outlast.errors import UsageError
from outlast.kernel import Node
from outlast.ui.operation import Call, Nothing, Operation

HTTPS_SETTING: Final = "web/https"
PORT_SETTING: Final = "web/https-port"


class Trust(msgspec.Struct, frozen=True):
    """The encrypted door: whether it is open, where, and what phones install.

    ``name`` and what follows are None until the door was opened for the first time. ``fingerprint`` is the SHA-256 of
    the certificate, ``words`` the same as six words, ``ends_ms`` when it is over.
    """

    on: bool
    name: str | None = None
    url: str | None = None
    fingerprint: str | None = None
    words: str | None = None
    ends_ms: int | None = None


class Trusting(msgspec.Struct, frozen=True):
    """Whether the encrypted door is open from now on; ``anew``: with a new name and certificate for phones."""

    on: bool
    anew: bool = False


def is_on(node: Node) -> bool:
    """Whether the encrypted door is to be open, as far as the store is."""
    return node.store is not None and node.store.meta(HTTPS_SETTING) == b"1"


def found(node: Node) -> Authority | None:
    """This node's authority, or None before its door was opened first."""
    return authority.read(node.home.path / authority.FOLDER)


async def switch(node: Node, on: bool, *, anew: bool = False) -> None:
    """Open or close the encrypted door from now on; the first time, and ``anew``, certificates are made."""
    store = node.open_store
    if anew and not on:
        raise UsageError("certificates are made anew for an open door: open it")
    if on:
        now, folder = authority.now_utc(node.now_ms()), node.home.path / authority.FOLDER
        if anew or await asyncio.to_thread(authority.read, folder) is None:
            await asyncio.to_thread(authority.issue, folder, authority.new_name(), now)
    await node.write(lambda: store.set_meta(HTTPS_SETTING, b"1" if on else b"0"))
    node.touch()


def told(node: Node) -> Trust:
    """How it stands with the encrypted door."""
    one, store = found(node), node.open_store
    if one is None:
        return Trust(False)
    port = int(store.meta(PORT_SETTING) or 0)
    url = f"https://{one.name}:{port}" if port else None
    return Trust(is_on(node), one.name, url, one.fingerprint, " ".join(one.words), int(one.ends.timestamp() * 1000))


async def trust_get(call: Call[Nothing]) -> Trust:
    """What phones install."""
    return await asyncio.to_thread(told, call.node)


async def trust_set(call: Call[Trusting]) -> Trust:
    """Open or close the door."""
    await switch(call.node, call.params.on, anew=call.params.anew)
    return await asyncio.to_thread(told, call.node)


OPERATIONS: Final[list[Operation[Any, Any]]] = [
    Operation("trust.get", Nothing, Trust, trust_get, "The encrypted door for phones, and what they install"),
    Operation("trust.set", Trusting, Trust, trust_set, "Open or close the encrypted door for phones", unsafe=True),
]
