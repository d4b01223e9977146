"""Chunks laid into the heap before the commit that names them: whatever becomes of it, no slot is lost or shared."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from threading import Barrier, Thread

import pytest

from outlast.errors import StorageError
from outlast.kernel.chunks import Cut
from outlast.kernel.heap import Heap
from outlast.kernel.store import Laid, Store
from tests.unit.kernel.entries import DAY, KEY, SPACE

SLOT_BYTES = 12 + 4 + 65_536 + 16


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store.db", KEY)
    opened.put_space(SPACE)
    yield opened
    opened.close()


def cuts(*letters: str) -> list[Cut]:
    return [Cut(sha256(letter.encode()).digest(), letter.encode()) for letter in letters]


def slots(laid: Laid) -> list[int]:
    return sorted(laid.values())


def gaps(store: Store) -> list[int]:
    return [n for (n,) in store.query("SELECT n FROM gap ORDER BY n")]


def named(store: Store) -> list[int]:
    assert store.look_at_chunks(0, 10_000)[1], "each chunk stands in the slot that the store names"
    return [n for (n,) in store.query("SELECT n FROM chunk ORDER BY n")]


def keep(store: Store, stage: int, *letters: str) -> None:
    with store.laying() as laid:
        store.stage_chunks(laid, stage, 0, cuts(*letters))


def test_a_batch_that_is_not_named_leaves_its_slots_to_the_next(store: Store) -> None:
    stage = store.open_stage(SPACE, DAY)
    with store.laying() as laid:
        store.reserve_stage(laid, stage, cuts("a", "b"))
        store.lay(laid, cuts("a", "b"))
        assert slots(laid) == [1, 2]
    with store.laying() as laid:
        store.reserve_stage(laid, stage, cuts("c", "d"))
        assert slots(laid) == [1, 2]


def test_batches_at_once_have_slots_of_their_own_in_whatever_order_they_are_named(store: Store) -> None:
    first, second, third = (store.open_stage(SPACE, DAY) for _ in range(3))
    with ExitStack() as stack:
        a, b, c = (stack.enter_context(store.laying()) for _ in range(3))
        for laid, stage, letters in ((a, first, "ab"), (b, second, "cd"), (c, third, "ef")):
            store.reserve_stage(laid, stage, cuts(*letters))
            store.lay(laid, cuts(*letters))
        assert (slots(a), slots(b), slots(c)) == ([1, 2], [3, 4], [5, 6])
        store.stage_chunks(c, third, 0, cuts("e", "f"))
        assert (named(store), gaps(store)) == ([5, 6], [1, 2, 3, 4])
        store.stage_chunks(a, first, 0, cuts("a", "b"))
        assert (named(store), gaps(store)) == ([1, 2, 5, 6], [3, 4])
    keep(store, second, "g", "h", "i")
    assert (named(store), gaps(store)) == ([1, 2, 3, 4, 5, 6, 7], [])


def test_what_two_batches_bring_is_held_once(store: Store) -> None:
    first, second = store.open_stage(SPACE, DAY), store.open_stage(SPACE, DAY)
    with store.laying() as a, store.laying() as b:
        for laid, stage in ((a, first), (b, second)):
            store.reserve_stage(laid, stage, cuts("a", "b", "a"))
            store.lay(laid, cuts("a", "b", "a"))
        store.stage_chunks(b, second, 0, cuts("a", "b", "a"))
        store.stage_chunks(a, first, 0, cuts("a", "b", "a"))
    assert (named(store), gaps(store)) == ([3, 4], [1, 2])


def test_a_chunk_that_was_let_go_of_after_the_others_were_laid_is_laid_too(store: Store) -> None:
    old, new = store.open_stage(SPACE, DAY), store.open_stage(SPACE, DAY)
    keep(store, old, "a", "b")
    with store.laying() as laid:
        store.reserve_stage(laid, new, cuts("b", "c"))
        store.lay(laid, cuts("b", "c"))
        assert slots(laid) == [3]
        store.close_stage(old)
        store.free_chunks()
        store.stage_chunks(laid, new, 0, cuts("b", "c"))
    assert len(named(store)) == 2


def test_the_disk_gets_nothing_back_that_is_being_laid(store: Store, tmp_path: Path) -> None:
    old, new = store.open_stage(SPACE, DAY), store.open_stage(SPACE, DAY)
    keep(store, old, "a", "b")
    with store.laying() as laid:
        store.reserve_stage(laid, new, cuts("c"))
        store.lay(laid, cuts("c"))
        store.close_stage(old)
        store.free_chunks()
        store.stage_chunks(laid, new, 0, cuts("c"))
    assert (named(store), gaps(store)) == ([3], [1, 2])
    assert (tmp_path / "store.chunks").stat().st_size == 3 * SLOT_BYTES


def test_what_was_laid_and_never_named_is_gone_with_the_next_start(store: Store, tmp_path: Path) -> None:
    stage = store.open_stage(SPACE, DAY)
    keep(store, stage, "a")
    laid: Laid = {}  # nobody is left to let go of it
    store.reserve_stage(laid, stage, cuts("b", "c"))
    store.lay(laid, cuts("b", "c"))
    heap = tmp_path / "store.chunks"
    assert heap.stat().st_size == 3 * SLOT_BYTES
    store.close()
    again = Store.open(tmp_path / "store.db", KEY)
    assert (named(again), gaps(again), heap.stat().st_size) == ([1], [], SLOT_BYTES)
    again.close()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_becomes_of_batches_each_slot_is_named_once_or_free(tmp_path: Path, seed: int) -> None:
    chance, store = random.Random(seed), Store.open(tmp_path / "store.db", KEY)
    store.put_space(SPACE)
    open_batches: list[tuple[ExitStack, Laid, int, list[Cut]]] = []
    stages: list[int] = []
    for _ in range(150):
        match chance.randrange(5):
            case 0 | 1 if len(open_batches) < 4:
                batch, stage = ExitStack(), store.open_stage(SPACE, DAY)
                laid = batch.enter_context(store.laying())
                chunks = cuts(*(str(chance.randrange(60)) for _ in range(chance.randint(1, 8))))
                store.reserve_stage(laid, stage, chunks)
                if chance.random() < 0.8:
                    store.lay(laid, chunks)
                    open_batches.append((batch, laid, stage, chunks))
                else:
                    batch.close()
            case 2 | 3 if open_batches:
                batch, laid, stage, chunks = open_batches.pop(chance.randrange(len(open_batches)))
                with batch:
                    if chance.random() < 0.8:
                        store.stage_chunks(laid, stage, 0, chunks)
                        stages.append(stage)
            case 4 if stages:
                store.close_stage(stages.pop(chance.randrange(len(stages))))
                store.free_chunks()
        held = named(store)
        assert sorted(held + gaps(store)) == list(range(1, max(held, default=0) + 1))
    for batch, *_ in open_batches:
        batch.close()
    store.close()


def test_a_disk_that_fails_takes_all_with_it_that_were_putting_at_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heap, both, failed = Heap.open(tmp_path / "store.chunks", KEY), Barrier(2), list[int]()
    sync = os.fdatasync
    troubles = [OSError(5, "the disk")]

    def fails_once(descriptor: int) -> None:
        if troubles:
            raise troubles.pop()
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", fails_once)

    def put(slot: int) -> None:
        def chunks() -> Iterator[tuple[int, bytes, bytes]]:
            both.wait(10)  # both have begun
            yield slot, sha256(b"a").digest(), b"a"

        try:
            heap.put(chunks())
        except StorageError:
            failed.append(slot)

    threads = [Thread(target=put, args=(slot,)) for slot in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(failed) == [1, 2]
    put_later = [(3, sha256(b"a").digest(), b"a")]
    heap.put(put_later)
    heap.close()
