"""What the machine can do without a library: plain loops of calls on one file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from time import perf_counter

from benchmarks.model import LIMIT, Contender, Place, Run, Sample, bandwidth, rate
from walrus_core.cli.measure import make_payload

READ_BYTES = 1 << 20
SYNC_FILE_BYTES = 4 * 1024 * 1024

FILE_WRITE = "file.write"
PWRITE = "os.pwrite"
PWRITE_SYNC = "pwrite + fdatasync"
PREADV = "os.preadv, one buffer"
PREAD = "os.pread"
PREAD_SLICES = "os.pread and slices"


@contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def limit(name: str, run: Run) -> Contender:
    """Return a contender of this group."""
    return Contender(name=name, group=LIMIT, run=run)


def file_write(whole: int, entry_bytes: int) -> Contender:
    """Write through Python's buffered file, flushed at the end."""

    def run(place: Place) -> Sample:
        count = place.count(whole)
        payload = make_payload(entry_bytes)
        with place.fresh() as directory, open(directory / "file", "wb") as file:
            write = file.write
            started = perf_counter()
            for _ in repeat(None, count):
                write(payload)
            file.flush()
            return rate(count, perf_counter() - started)

    return limit(FILE_WRITE, run)


def pwrite(whole: int, entry_bytes: int, step: int = 1, *, as_bandwidth: bool = False) -> Contender:
    """Write each entry with one system call."""

    def run(place: Place) -> Sample:
        count = place.count(whole, step)
        payload = make_payload(entry_bytes)
        with place.fresh() as directory, _descriptor(directory / "file") as descriptor:
            call = os.pwrite
            started = perf_counter()
            for at in range(0, count * entry_bytes, entry_bytes):
                call(descriptor, payload, at)
            seconds = perf_counter() - started
        return bandwidth(count, entry_bytes, seconds) if as_bandwidth else rate(count, seconds)

    return limit(PWRITE, run)


def pwrite_batches(whole: int, entry_bytes: int, step: int) -> Contender:
    """Write the bytes of ``step`` entries, joined before, with one system call."""

    def run(place: Place) -> Sample:
        count = place.count(whole, step)
        batch_bytes = step * entry_bytes
        batch = make_payload(batch_bytes)
        with place.fresh() as directory, _descriptor(directory / "file") as descriptor:
            call = os.pwrite
            started = perf_counter()
            for at in range(0, count * entry_bytes, batch_bytes):
                call(descriptor, batch, at)
            return rate(count, perf_counter() - started)

    return limit(PWRITE, run)


def pwrite_sync(whole: int, entry_bytes: int) -> Contender:
    """Write each entry with one system call and make it durable with another.

    The file is there in full and durable before, so that no sync pays for its growth.
    """

    def run(place: Place) -> Sample:
        count = place.count(whole)
        payload = make_payload(entry_bytes)
        size_bytes = max(SYNC_FILE_BYTES, count * entry_bytes)
        with place.fresh() as directory, _descriptor(directory / "file") as descriptor:
            for at in range(0, size_bytes, SYNC_FILE_BYTES):
                os.pwrite(descriptor, bytes(SYNC_FILE_BYTES), at)
            os.fsync(descriptor)
            call, sync = os.pwrite, os.fdatasync
            started = perf_counter()
            for at in range(0, count * entry_bytes, entry_bytes):
                call(descriptor, payload, at)
                sync(descriptor)
            return rate(count, perf_counter() - started)

    return limit(PWRITE_SYNC, run)


def _filler(whole: int, entry_bytes: int, step: int) -> Callable[[Place], None]:
    """Return what puts a file of so many entries into the page cache, before the first round."""

    def prepare(place: Place) -> None:
        payload = make_payload(entry_bytes)
        with open(place.path / "file", "wb") as file:
            for _ in repeat(None, place.count(whole, step)):
                file.write(payload)
            file.flush()
            os.fsync(file.fileno())

    return prepare


def preadv(whole: int, entry_bytes: int, step: int) -> Contender:
    """Read the same bytes from a file that is in the page cache, into one buffer of 1 MiB."""

    def run(place: Place) -> Sample:
        count = place.count(whole, step)
        buffers = [bytearray(READ_BYTES)]
        with _descriptor(place.path / "file") as descriptor:
            call = os.preadv
            started = perf_counter()
            for at in range(0, count * entry_bytes, READ_BYTES):
                call(descriptor, buffers, at)
            return bandwidth(count, entry_bytes, perf_counter() - started)

    return Contender(name=PREADV, group=LIMIT, run=run, prepare=_filler(whole, entry_bytes, step))


def pread(whole: int, entry_bytes: int, step: int) -> Contender:
    """Read each entry of the same bytes with one system call, into a list of ``step``."""

    def run(place: Place) -> Sample:
        count = place.count(whole, step)
        with _descriptor(place.path / "file") as descriptor:
            call, stop, batch_bytes = os.pread, count * entry_bytes, step * entry_bytes
            started = perf_counter()
            for start in range(0, stop, batch_bytes):
                ends = min(start + batch_bytes, stop)
                [call(descriptor, entry_bytes, at) for at in range(start, ends, entry_bytes)]
            return bandwidth(count, entry_bytes, perf_counter() - started)

    return Contender(name=PREAD, group=LIMIT, run=run, prepare=_filler(whole, entry_bytes, step))


def pread_slices(whole: int, entry_bytes: int, step: int) -> Contender:
    """Read the bytes of ``step`` entries with one system call, and cut them into a list."""

    def run(place: Place) -> Sample:
        count = place.count(whole)
        with _descriptor(place.path / "file") as descriptor:
            call, batch_bytes = os.pread, step * entry_bytes
            started = perf_counter()
            for start in range(0, count * entry_bytes, batch_bytes):
                read = call(descriptor, batch_bytes, start)
                [read[at : at + entry_bytes] for at in range(0, len(read), entry_bytes)]
            return rate(count, perf_counter() - started)

    return Contender(name=PREAD_SLICES, group=LIMIT, run=run, prepare=_filler(whole, entry_bytes, 1))
