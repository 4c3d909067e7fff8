"""Queue libraries for Python that keep their entries on disk. What they append survives the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.available import module_of
from benchmarks.model import DATABASE, Contender, Place, Run, Sample, rate
from walrus_core.cli.measure import BATCH_COUNT, make_payload

DISKCACHE = "diskcache.Deque"
PERSIST_QUEUE = "persist-queue"
CHUNK_COUNT = 10_000
"""Entries in a file of persist-queue, which syncs a file when it is full."""


@contextmanager
def _deque(path: Path) -> Iterator[Any]:
    deque = module_of("diskcache").Deque(directory=str(path))
    try:
        yield deque
    finally:
        deque.cache.close()


@contextmanager
def _queue(path: Path) -> Iterator[Any]:
    """The queue on files, faster than the ones on SQLite; what is put is in a file on return."""
    path.mkdir()
    queue = module_of("persist-queue").Queue(str(path), chunksize=CHUNK_COUNT, tempdir=str(path))
    try:
        yield queue
    finally:
        for name in ("headf", "tailf"):  # it has no close of its own
            getattr(queue, name).close()


Step = Callable[[Any, bytes, int], None]


def _queue_run(
    open_queue: Callable[[Path], Any], whole: int, entry_bytes: int, before: Step, timed: Step
) -> Run:
    def run(place: Place) -> Sample:
        count = place.count(whole)
        payload = make_payload(entry_bytes)
        with place.fresh() as directory, open_queue(directory / "queue") as queue:
            before(queue, payload, count)
            started = perf_counter()
            timed(queue, payload, count)
            return rate(count, perf_counter() - started)

    return run


def _append_each(queue: Any, payload: bytes, count: int) -> None:
    for _ in repeat(None, count):
        queue.append(payload)


def _extend(queue: Any, payload: bytes, count: int) -> None:
    for at in range(0, count, BATCH_COUNT):
        with queue.transact():
            queue.extend(repeat(payload, min(BATCH_COUNT, count - at)))


def _pop_each(queue: Any, _payload: bytes, count: int) -> None:
    for _ in repeat(None, count):
        queue.popleft()


def _put_each(queue: Any, payload: bytes, count: int) -> None:
    for _ in repeat(None, count):
        queue.put(payload)


def _get_each(queue: Any, _payload: bytes, count: int) -> None:
    for _ in repeat(None, count):
        queue.get()
    queue.task_done()  # saves the position once


def _nothing(_queue: Any, _payload: bytes, _count: int) -> None:
    """Nothing has to be there before."""


def _diskcache(whole: int, entry_bytes: int, slowness: int, before: Step, timed: Step) -> Contender:
    run = _queue_run(_deque, whole, entry_bytes, before, timed)
    return Contender(name=DISKCACHE, group=DATABASE, run=run, slowness=slowness, needs=("diskcache",))


def _persist_queue(whole: int, entry_bytes: int, slowness: int, before: Step, timed: Step) -> Contender:
    run = _queue_run(_queue, whole, entry_bytes, before, timed)
    return Contender(name=PERSIST_QUEUE, group=DATABASE, run=run, slowness=slowness, needs=("persist-queue",))


def queue_appends(whole: int, entry_bytes: int) -> list[Contender]:
    """Append one by one."""
    return [
        _diskcache(whole, entry_bytes, 100, _nothing, _append_each),
        _persist_queue(whole, entry_bytes, 100, _nothing, _put_each),
    ]


def queue_batches(whole: int, entry_bytes: int) -> list[Contender]:
    """Append 1 000 in one transaction; persist-queue's file queue has no batches."""
    return [_diskcache(whole, entry_bytes, 40, _nothing, _extend)]


def queue_reads(whole: int, entry_bytes: int) -> list[Contender]:
    """Take entries out one by one."""
    return [
        _diskcache(whole, entry_bytes, 100, _extend, _pop_each),
        _persist_queue(whole, entry_bytes, 100, _put_each, _get_each),
    ]
