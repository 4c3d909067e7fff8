"""Reads from memory that was written just before: one by one and in batches, consuming what is read."""

from __future__ import annotations

from benchmarks import databases, limits, queues
from benchmarks.databases import LMDB
from benchmarks.limits import PREAD, PREAD_SLICES, PREADV, READ_BYTES
from benchmarks.model import MIB_PER_SECOND, PER_SECOND, Bar, Contender, Work
from benchmarks.ours import (
    ALL_LOGS,
    COMPILED_LOGS,
    FD,
    FD_CRC,
    MMAP,
    MMAP_CRC,
    PERSIST_EVERY,
    batch_read_run,
    read_next_run,
)
from walrus_core.reading import MAX_ENTRIES_DEFAULT

COUNT = 200_000
SMALL_BYTES = 256
LARGE_BYTES = 64 * 1024
LARGE_BATCH_COUNT = 100
LARGE_COUNT = 2_000
OFTEN = 1_000


def _iterations() -> list[Contender]:
    return [
        databases.lmdb_iterate(COUNT, SMALL_BYTES),
        databases.rocksdb_iterate(COUNT, SMALL_BYTES),
        databases.sqlite_iterate(COUNT, SMALL_BYTES),
    ]


def _read_next() -> list[Contender]:
    often = [
        log.contender(read_next_run(log, COUNT, SMALL_BYTES, OFTEN), label=f"checkpoint every {OFTEN:,}")
        for log in (MMAP, FD)
    ]
    return [
        *(log.contender(read_next_run(log, COUNT, SMALL_BYTES)) for log in ALL_LOGS),
        *often,
        *_iterations(),
        *queues.queue_reads(COUNT, SMALL_BYTES),
    ]


def _batch_read() -> list[Contender]:
    return [
        *(log.contender(batch_read_run(log, COUNT, SMALL_BYTES)) for log in ALL_LOGS),
        *_iterations(),
        limits.pread_slices(COUNT, SMALL_BYTES, MAX_ENTRIES_DEFAULT),
    ]


def _batch_read_large() -> list[Contender]:
    size = (LARGE_COUNT, LARGE_BYTES, LARGE_BATCH_COUNT)
    return [
        *(log.contender(batch_read_run(log, *size, as_bandwidth=True)) for log in COMPILED_LOGS),
        limits.pread(LARGE_COUNT, LARGE_BYTES, READ_BYTES // LARGE_BYTES),
        limits.preadv(*size),
    ]


WORKS = (
    Work(
        name="read-next-256",
        title=f"consume 256 B, an entry a call, a durable checkpoint every {PERSIST_EVERY:,}",
        unit=PER_SECOND,
        contenders=_read_next(),
        bars=tuple(
            Bar(ours=log.name, against=LMDB, at_least=at_least)
            for log, at_least in ((MMAP, 1.25), (MMAP_CRC, 1.9), (FD, 1.25), (FD_CRC, 1.9))
        ),
        note="LMDB, RocksDB and SQLite iterate and keep no position; the queues take entries out.",
    ),
    Work(
        name="read-batch-256",
        title="consume 256 B by batch reads",
        unit=PER_SECOND,
        contenders=_batch_read(),
        bars=tuple(
            Bar(ours=log.name, against=LMDB, at_least=at_least)
            for log, at_least in ((MMAP, 1.7), (MMAP_CRC, 2.8), (FD, 1.7), (FD_CRC, 2.8))
        ),
        references=(PREAD_SLICES,),
        note=f"{PREAD_SLICES}: as many at once, cut out by Python; no frames, no checksums, no position.",
    ),
    Work(
        name="read-batch-64k",
        title="consume 64 KiB by batch reads of 1 MiB",
        unit=MIB_PER_SECOND,
        contenders=_batch_read_large(),
        bars=(
            Bar(ours=FD_CRC.name, against=PREADV, at_least=0.5),
            Bar(ours=MMAP_CRC.name, against=PREADV, at_least=0.6),
        ),
        references=(PREAD,),
        note=f"{PREAD}: each entry into an object of its own, as all but {PREADV} do.",
    ),
)
