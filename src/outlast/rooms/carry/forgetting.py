"""How letters go from a person's own vault: when their time is over, or because the person removes them.

A letter is not shown from the moment on at which its time ends; right after that its row, what the search index has of
it, and its file are destroyed. So are texts in groups, with what stands sealed of them in this node's store. A letter
that is removed is not shown at once, and can be restored for ten minutes; then it goes the same way. Copies of other
people, and what else stands sealed in the stores of nodes, is not reached by this.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from outlast.errors import LockedError, NotFoundError, StorageError
from outlast.kernel import Delete, Node, Person, RowChange, Transaction
from outlast.rooms.carry import file_view, files, group_view, view
from outlast.rooms.carry.private import is_here, remember

RESTORE_MS: Final = 10 * 60 * 1000
"""So long a letter that was removed can be restored."""
LOOK_S: Final = 60.0
"""A clock that was put right meanwhile is noticed after so long."""
RETRY_S: Final = 1.0

_REMOVE: Final = (
    f"UPDATE {view.MESSAGE} SET back_ms = ifnull(until_ms, 0), until_ms = min(ifnull(until_ms, ?1), ?1)"
    " WHERE back_ms IS NULL AND (until_ms IS NULL OR until_ms > ?2) AND "
)
_RESTORE: Final = (
    f"UPDATE {view.MESSAGE} SET until_ms = nullif(back_ms, 0), back_ms = NULL"
    " WHERE back_ms IS NOT NULL AND until_ms > ? AND peer = ?"
)


async def remove(node: Node, person: Person, letter: bytes) -> None:
    """Remove one letter; raises NotFoundError."""
    if not await _update(node, person, _REMOVE + "letter = ?3", _removing(node, letter)):
        raise NotFoundError("there is no such message here")


async def remove_all(node: Node, person: Person, peer: bytes) -> int:
    """Remove all letters from and to somebody; how many these are."""
    return await _update(node, person, _REMOVE + "peer = ?3", _removing(node, peer))


async def restore(node: Node, person: Person, peer: bytes) -> int:
    """Show again what was removed of a conversation in the last ten minutes; how many letters these are."""
    return await _update(node, person, _RESTORE, (node.now_ms(), peer))


def removed(person: Person, peer: bytes, now_ms: int) -> tuple[int, int]:
    """How many letters of a conversation can be restored, and until when all of them can; two zeros for none."""
    rows = person.query(
        f"SELECT count(*), ifnull(min(until_ms), 0) FROM {view.MESSAGE}"
        " WHERE back_ms IS NOT NULL AND until_ms > ? AND peer = ?",
        (now_ms, peer),
    )
    return rows[0][0], rows[0][1]


async def run(node: Node) -> None:
    """While the node is open: destroy letters as soon as their time is over."""
    while True:
        revision = node.revision
        for person in list(node.people.values()):
            with contextlib.suppress(StorageError, LockedError):  # with the next look there may be room, or nobody
                await destroy(node, person)
        ends = [end for person in node.people.values() if (end := _next_end(person)) is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until_next_look_s(ends, node.now_ms())):
                await node.wait(revision)


def until_next_look_s(ends_ms: Sequence[int], now_ms: int) -> float:
    """In how many seconds to look again: what is over and could not be destroyed is not tried without a pause."""
    return min([LOOK_S, *((end - now_ms) / 1000 if end > now_ms else RETRY_S for end in ends_ms)])


async def destroy(node: Node, person: Person) -> int:
    """Destroy the person's letters, and texts of their groups, whose time is over; how many these were.

    Files of texts that were taken away, and of groups that were left, go too.
    """
    said = group_view.over(person, node.now_ms())
    over = said + [bytes(row[0]) for row in person.query(*_over(node.now_ms()))]
    ended = file_view.ended(person)
    if not (over or ended) or not is_here(node, person):
        return 0
    for text in said:
        await node.drop_content(text)
    await files.free(node, person, [*file_view.named(person, over), *ended])
    gone: list[RowChange] = [Delete(table, {"letter": letter}) for letter in over for table in view.OF_LETTERS]
    gone += [Delete(file_view.FILE, {"letter": file.letter}) for file in ended]
    gone += [Delete(group_view.SAID, {"id": text}) for text in said]
    gone += [Delete(group_view.HEARING, {"said": text}) for text in said]
    await remember(node, person, gone)
    await node.write(person.vault.forget_deleted)
    return len(over)


def _over(now_ms: int) -> tuple[str, tuple[int]]:
    return f"SELECT letter FROM {view.MESSAGE} WHERE until_ms <= ?", (now_ms,)


def _next_end(person: Person) -> int | None:
    ends = [
        person.query(f"SELECT min(until_ms) FROM {table} WHERE until_ms IS NOT NULL")[0][0]
        for table in (view.MESSAGE, group_view.SAID)
    ]
    return min((end for end in ends if end is not None), default=None)


def _removing(node: Node, what: bytes) -> tuple[int, int, bytes]:
    now = node.now_ms()
    return now + RESTORE_MS, now, what


async def _update(node: Node, person: Person, sql: str, args: Sequence[int | bytes]) -> int:
    def act(tx: Transaction) -> int:
        return tx.execute(sql, args)

    changed = await node.write(lambda: person.vault.write(act))
    node.touch()
    return changed
