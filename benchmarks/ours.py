"""This project's contenders: a log of some backend and checksum, and what is done with it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any, Optional

from attrs import frozen

from benchmarks.available import COMPILED
from benchmarks.model import OURS, Contender, Place, Run, Sample, bandwidth, rate
from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core.cli.measure import (
    BATCH_COUNT,
    READ_BYTES,
    append_batches,
    append_each,
    make_payload,
    read_batches,
    read_each,
    run_threads,
)

TOPIC = "t"
PERSIST_EVERY = 10_000
PENDING_MAX = 10_000
PURE_SLOWNESS = 20


@frozen(kw_only=True)
class Log:
    """A kind of log: backend, checksum, and which twin of the frame code writes and reads it."""

    backend: str
    checksum: str = "fnv1a64"
    pure: bool = False

    @property
    def name(self) -> str:
        """What the report calls it."""
        parts = [self.backend]
        parts += ["CRC-32C"] if self.checksum == "crc32c" else []
        parts += ["pure Python"] if self.pure else []
        return ", ".join(parts)

    @contextmanager
    def open(
        self,
        path: Path,
        *,
        schedule: Optional[FsyncSchedule] = None,
        persist_every: int = PERSIST_EVERY,
        **options: Any,
    ) -> Iterator[Walrus]:
        """Open a log without syncs of its own, unless a schedule says otherwise. Sizes are the defaults."""
        with Walrus(
            str(path),
            backend=self.backend,
            checksum=self.checksum,
            fsync_schedule=schedule or FsyncSchedule.no_fsync(),
            consistency=ReadConsistency.at_least_once(persist_every),
            **options,
        ) as wal:
            yield wal

    def contender(self, run: Run, *, label: str = "", needs: tuple[str, ...] = (), **more: Any) -> Contender:
        """Return a contender that runs ``run`` on this kind of log."""
        twin = () if self.pure else (COMPILED,)
        return Contender(
            name=f"{self.name}, {label}" if label else self.name,
            group=OURS,
            run=run,
            slowness=PURE_SLOWNESS if self.pure else 1,
            needs=(f"backend {self.backend}", *twin, *needs),
            pure=self.pure,
            **more,
        )


FD, MMAP = Log(backend="fd"), Log(backend="mmap")
FD_CRC, MMAP_CRC = Log(backend="fd", checksum="crc32c"), Log(backend="mmap", checksum="crc32c")
COMPILED_LOGS = (MMAP, MMAP_CRC, FD, FD_CRC)
PURE_LOGS = (Log(backend="mmap", pure=True), Log(backend="fd", pure=True))
ALL_LOGS = (*COMPILED_LOGS, *PURE_LOGS)


# --- append ---------------------------------------------------------------------------------------


def append_run(log: Log, whole: int, entry_bytes: int) -> Run:
    """Append entries, one call each."""

    def run(place: Place) -> Sample:
        count = place.count(whole)
        payload = make_payload(entry_bytes)
        with place.fresh() as directory, log.open(directory / "log") as wal:
            wal.append_for_topic(TOPIC, payload)  # the topic and its first block are there
            return rate(count, append_each(wal, TOPIC, payload, count))

    return run


def batch_run(log: Log, whole: int, entry_bytes: int, batch_count: int, *, as_bandwidth: bool = False) -> Run:
    """Append entries in batches."""

    def run(place: Place) -> Sample:
        count = place.count(whole, batch_count)
        batch = [make_payload(entry_bytes)] * batch_count
        with place.fresh() as directory, log.open(directory / "log") as wal:
            wal.append_for_topic(TOPIC, b"")
            seconds = append_batches(wal, TOPIC, batch, count // batch_count)
        return bandwidth(count, entry_bytes, seconds) if as_bandwidth else rate(count, seconds)

    return run


# --- read -----------------------------------------------------------------------------------------


def fill(wal: Walrus, count: int, entry_bytes: int, batch_count: int = BATCH_COUNT) -> None:
    """Append ``count`` entries, a multiple of ``batch_count``, and make them durable."""
    append_batches(wal, TOPIC, [make_payload(entry_bytes)] * batch_count, count // batch_count)
    wal.sync()


def read_next_run(log: Log, whole: int, entry_bytes: int, persist_every: int = PERSIST_EVERY) -> Run:
    """Consume durable entries one by one, a durable checkpoint every ``persist_every``."""

    def run(place: Place) -> Sample:
        count = place.count(whole, BATCH_COUNT)
        with (
            place.fresh() as directory,
            log.open(directory / "log", persist_every=persist_every) as wal,
        ):
            fill(wal, count, entry_bytes)
            return rate(count, read_each(wal, TOPIC, count))

    return run


def batch_read_run(
    log: Log, whole: int, entry_bytes: int, batch_count: int = BATCH_COUNT, *, as_bandwidth: bool = False
) -> Run:
    """Consume durable entries by batch reads of 1 MiB."""

    def run(place: Place) -> Sample:
        count = place.count(whole, batch_count)
        with place.fresh() as directory, log.open(directory / "log") as wal:
            fill(wal, count, entry_bytes, batch_count)
            seconds = read_batches(wal, TOPIC, count, READ_BYTES)
        return bandwidth(count, entry_bytes, seconds) if as_bandwidth else rate(count, seconds)

    return run


def strict_read_run(log: Log, whole: int, entry_bytes: int) -> Run:
    """Consume durable entries one by one, each checkpoint durable before the read returns."""

    def run(place: Place) -> Sample:
        count = place.count(whole)
        batch = [make_payload(entry_bytes)] * count
        with place.fresh() as directory, log.open(directory / "log", persist_every=1) as wal:
            append_batches(wal, TOPIC, batch, 1)
            wal.sync()
            return rate(count, read_each(wal, TOPIC, count))

    return run


# --- durable appends --------------------------------------------------------------------------------


def sync_each_run(log: Log, whole: int, entry_bytes: int, thread_count: int = 1) -> Run:
    """Append entries that are durable when the call returns, from some threads into one topic."""

    def run(place: Place) -> Sample:
        count = place.count(whole, thread_count)
        payload = make_payload(entry_bytes)
        schedule = FsyncSchedule.sync_each()
        with place.fresh() as directory, log.open(directory / "log", schedule=schedule) as wal:
            wal.append_for_topic(TOPIC, payload)
            if thread_count == 1:
                return rate(count, append_each(wal, TOPIC, payload, count))
            share = count // thread_count
            seconds = run_threads(lambda: _drop(append_each(wal, TOPIC, payload, share)), thread_count)
            return rate(count, seconds)

    return run


def _drop(_seconds: float) -> None:
    """Take a result that nobody needs."""


def in_flight_run(log: Log, whole: int, entry_bytes: int) -> Run:
    """Append durable entries from one thread, at most PENDING_MAX not known to be durable."""

    def run(place: Place) -> Sample:
        count = place.count(whole)
        payload = make_payload(entry_bytes)
        schedule = FsyncSchedule.sync_each()
        with place.fresh() as directory, log.open(directory / "log", schedule=schedule) as wal:
            append, wait = wal.append_nowait, wal.wait_durable
            told = 0
            started = perf_counter()
            for _ in repeat(None, count):
                offset = append(TOPIC, payload)
                if offset + 1 - told >= PENDING_MAX:
                    wait(TOPIC, told)
                    told = wal.durable_offset(TOPIC)
            wait(TOPIC, count - 1)
            seconds = perf_counter() - started
            if wal.durable_offset(TOPIC) != count:
                raise RuntimeError("told of a durable entry that is not")
            return rate(count, seconds)

    return run


def awaited_run(log: Log, whole: int, entry_bytes: int, task_count: int) -> Run:
    """Await durable appends in some tasks on one event loop."""

    def run(place: Place) -> Sample:
        count = place.count(whole, task_count)
        payload = make_payload(entry_bytes)
        schedule = FsyncSchedule.sync_each()
        with place.fresh() as directory, log.open(directory / "log", schedule=schedule) as wal:
            append = wal.append_async

            async def task() -> None:
                for _ in repeat(None, count // task_count):
                    await append(TOPIC, payload)

            async def all_tasks() -> float:
                started = perf_counter()
                await asyncio.gather(*(task() for _ in repeat(None, task_count)))
                return perf_counter() - started

            return rate(count, asyncio.run(all_tasks()))

    return run


def descriptors_in(path: Path) -> int:
    """Return how many descriptors of this process are open on files below a directory (Linux)."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one with which the directory was listed
            continue
        count += Path(target).is_relative_to(path)
    return count
