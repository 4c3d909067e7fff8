"""Appends that survive the death of the process: one by one and in batches."""

from __future__ import annotations

from benchmarks import databases, limits, queues
from benchmarks.databases import LMDB, LMDB_PUTMULTI
from benchmarks.limits import FILE_WRITE, PWRITE
from benchmarks.model import MIB_PER_SECOND, PER_SECOND, Bar, Contender, Work
from benchmarks.ours import ALL_LOGS, COMPILED_LOGS, FD, FD_CRC, MMAP, MMAP_CRC, append_run, batch_run
from walrus_core.cli.measure import BATCH_COUNT

COUNT = 200_000
SMALL_BYTES = 256
SMALLER_BYTES = 100
LARGE_BYTES = 64 * 1024
LARGE_BATCH_COUNT = 100
LARGE_COUNT = 2_000


def _append_small() -> list[Contender]:
    return [
        *(log.contender(append_run(log, COUNT, SMALL_BYTES)) for log in ALL_LOGS),
        databases.lmdb_append(COUNT, SMALL_BYTES),
        databases.rocksdb_append(COUNT, SMALL_BYTES),
        databases.sqlite_append(COUNT, SMALL_BYTES),
        *queues.queue_appends(COUNT, SMALL_BYTES),
        limits.file_write(COUNT, SMALL_BYTES),
        limits.pwrite(COUNT, SMALL_BYTES),
    ]


def _append_smaller() -> list[Contender]:
    return [
        *(log.contender(append_run(log, COUNT, SMALLER_BYTES)) for log in COMPILED_LOGS),
        databases.lmdb_append(COUNT, SMALLER_BYTES),
        limits.file_write(COUNT, SMALLER_BYTES),
        limits.pwrite(COUNT, SMALLER_BYTES),
    ]


def _batch_small() -> list[Contender]:
    return [
        *(log.contender(batch_run(log, COUNT, SMALL_BYTES, BATCH_COUNT)) for log in ALL_LOGS),
        databases.lmdb_batch(COUNT, SMALL_BYTES, BATCH_COUNT),
        databases.lmdb_batch(COUNT, SMALL_BYTES, BATCH_COUNT, putmulti=True),
        databases.rocksdb_batch(COUNT, SMALL_BYTES, BATCH_COUNT),
        databases.sqlite_batch(COUNT, SMALL_BYTES, BATCH_COUNT),
        *queues.queue_batches(COUNT, SMALL_BYTES),
        limits.pwrite_batches(COUNT, SMALL_BYTES, BATCH_COUNT),
    ]


def _batch_large() -> list[Contender]:
    size = (LARGE_COUNT, LARGE_BYTES, LARGE_BATCH_COUNT)
    return [
        *(log.contender(batch_run(log, *size, as_bandwidth=True)) for log in COMPILED_LOGS),
        databases.lmdb_batch(*size, as_bandwidth=True),
        limits.pwrite(*size, as_bandwidth=True),
    ]


WORKS = (
    Work(
        name="append-256",
        title="append 256 B, an entry a call",
        unit=PER_SECOND,
        contenders=_append_small(),
        bars=(
            Bar(ours=MMAP.name, against=LMDB, at_least=5),
            Bar(ours=MMAP.name, against=FILE_WRITE, at_least=0.8),
            Bar(ours=MMAP_CRC.name, against=LMDB, at_least=12),
            Bar(ours=MMAP_CRC.name, against=FILE_WRITE, at_least=2),
            Bar(ours=FD.name, against=PWRITE, at_least=0.75),
            Bar(ours=FD_CRC.name, against=PWRITE, at_least=1),
        ),
    ),
    Work(
        name="append-100",
        title="append 100 B, an entry a call",
        unit=PER_SECOND,
        contenders=_append_smaller(),
        bars=(Bar(ours=MMAP_CRC.name, against=FILE_WRITE, at_least=1.4),),
    ),
    Work(
        name="batch-256",
        title="append 256 B in batches of 1,000",
        unit=PER_SECOND,
        contenders=_batch_small(),
        bars=(
            Bar(ours=MMAP.name, against=LMDB, at_least=6.5),
            Bar(ours=MMAP_CRC.name, against=LMDB, at_least=13),
            Bar(ours=FD.name, against=LMDB, at_least=4.5),
            Bar(ours=FD_CRC.name, against=LMDB, at_least=7),
        ),
        references=(LMDB_PUTMULTI, PWRITE),
        note="LMDB: a put per entry, one transaction per batch; putmulti: all entries in one call; "
        f"{PWRITE}: the bytes alone, joined before, a call for each batch.",
    ),
    Work(
        name="batch-64k",
        title="append 64 KiB in batches of 100",
        unit=MIB_PER_SECOND,
        contenders=_batch_large(),
        bars=(
            Bar(ours=MMAP_CRC.name, against=PWRITE, at_least=0.8),
            Bar(ours=FD_CRC.name, against=PWRITE, at_least=0.8),
        ),
    ),
)
