"""Appends and checkpoints that survive power loss when they return. The disk decides most of it."""

from __future__ import annotations

from benchmarks import databases, limits
from benchmarks.limits import PWRITE_SYNC
from benchmarks.model import PER_SECOND, Bar, Contender, Work
from benchmarks.ours import FD, MMAP, awaited_run, in_flight_run, strict_read_run, sync_each_run

ENTRY_BYTES = 256
SYNC_COUNT = 2_000
THREAD_COUNT = 32
THREADS_SYNC_COUNT = 12_800
FLIGHT_COUNT = 200_000
TASK_COUNTS = {32: 8.0, 1_000: 20.0}
"""Tasks on one event loop, and how many times the plain loop they are to reach together."""
STRICT_COUNT = 1_000
LOGS = (FD, MMAP)
THREADS = f"{THREAD_COUNT} threads"


def _sync_each() -> list[Contender]:
    many = THREADS_SYNC_COUNT
    return [
        *(log.contender(sync_each_run(log, SYNC_COUNT, ENTRY_BYTES), label="1 thread") for log in LOGS),
        *(log.contender(sync_each_run(log, many, ENTRY_BYTES, THREAD_COUNT), label=THREADS) for log in LOGS),
        databases.lmdb_append(SYNC_COUNT, ENTRY_BYTES, slowness=2, sync=True),
        databases.rocksdb_append(SYNC_COUNT, ENTRY_BYTES, sync=True),
        databases.sqlite_append(SYNC_COUNT, ENTRY_BYTES, slowness=2, synchronous="full"),
        limits.pwrite_sync(SYNC_COUNT, ENTRY_BYTES),
    ]


def _in_flight() -> list[Contender]:
    return [
        *(log.contender(in_flight_run(log, FLIGHT_COUNT, ENTRY_BYTES)) for log in LOGS),
        limits.pwrite_sync(SYNC_COUNT, ENTRY_BYTES),
    ]


def _awaited() -> list[Contender]:
    return [
        *(
            log.contender(
                awaited_run(log, FLIGHT_COUNT // 2, ENTRY_BYTES, task_count),
                label=f"{task_count:,} tasks",
            )
            for log in LOGS
            for task_count in TASK_COUNTS
        ),
        limits.pwrite_sync(SYNC_COUNT, ENTRY_BYTES),
    ]


def _strict() -> list[Contender]:
    return [
        *(log.contender(strict_read_run(log, STRICT_COUNT, ENTRY_BYTES)) for log in LOGS),
        limits.pwrite_sync(STRICT_COUNT, ENTRY_BYTES),
    ]


def _sync_bars() -> list[Bar]:
    bars = []
    for log in LOGS:
        one, many = f"{log.name}, 1 thread", f"{log.name}, {THREADS}"
        bars += [
            Bar(ours=one, against=PWRITE_SYNC, at_least=0.95),
            Bar(ours=many, against=one, at_least=5),
            Bar(ours=many, against=PWRITE_SYNC, at_least=4.5),
        ]
    return bars


WORKS = (
    Work(
        name="sync-each",
        title="append 256 B, durable when the call returns",
        unit=PER_SECOND,
        contenders=_sync_each(),
        bars=_sync_bars(),
        note="Threads append to one topic; their rate is of all together.",
    ),
    Work(
        name="in-flight",
        title="append 256 B durably from one thread, at most 10,000 in flight",
        unit=PER_SECOND,
        contenders=_in_flight(),
        bars=tuple(Bar(ours=log.name, against=PWRITE_SYNC, at_least=150) for log in LOGS),
    ),
    Work(
        name="awaited",
        title="append 256 B, awaited until durable, on one event loop",
        unit=PER_SECOND,
        contenders=_awaited(),
        bars=tuple(
            Bar(ours=f"{log.name}, {task_count:,} tasks", against=PWRITE_SYNC, at_least=at_least)
            for log in LOGS
            for task_count, at_least in TASK_COUNTS.items()
        ),
    ),
    Work(
        name="strict-read",
        title="consume 256 B, each checkpoint durable before the read returns",
        unit=PER_SECOND,
        contenders=_strict(),
        bars=tuple(Bar(ours=log.name, against=PWRITE_SYNC, at_least=0.9) for log in LOGS),
    ),
)
