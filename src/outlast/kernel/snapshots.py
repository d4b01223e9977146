"""Snapshots: the buckets of the store as sets, taken once for all sessions that compare them at a time.

A set of a million entries takes 44 MB and a second; twenty neighbours who connect at once share one. It lives as long
as a session uses it.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from weakref import WeakValueDictionary

from outlast.kernel.setrec import SetView
from outlast.kernel.store import Scope, Store, in_order


class Snapshot(NamedTuple):
    """Which set: what of a bucket counts, in the state that it had at ``version``."""

    space: bytes
    day: int
    scope: Scope
    version: tuple[object, ...]


class Snapshots:
    """The sets that are in use."""

    def __init__(self, store: Store) -> None:
        """None are taken yet."""
        self._store = store
        self._views: WeakValueDictionary[Snapshot, SetView] = WeakValueDictionary()
        self._making: dict[Snapshot, asyncio.Task[SetView]] = {}

    async def take(self, space: bytes, day: int, scope: Scope) -> SetView:
        """The set of a bucket as it is now; entries that come meanwhile may be in it or not."""
        name = Snapshot(space, day, scope, self._store.version(space, day))
        view = self._views.get(name)
        if view is None:
            task = self._making.get(name)
            if task is None:
                task = self._making[name] = asyncio.create_task(self._make(name))
                task.add_done_callback(lambda _: self._making.pop(name, None))
            # Who stops waiting does not stop the others.
            view = await asyncio.shield(task)
        return view

    async def _make(self, name: Snapshot) -> SetView:
        slices = []
        for part in self._store.slices(name.space, name.day, name.scope):
            slices.append(part)
            await asyncio.sleep(0)  # others have their turn while a large bucket is read
        view = await asyncio.to_thread(lambda: SetView.from_sorted(*in_order(slices)))
        self._views[name] = view
        return view
