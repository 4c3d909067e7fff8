"""What the machine can do without a library: plain loops of calls on one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


def preadv(whole: int, entry_bytes: int, step: int) -> Contender:
    """Read the same bytes from a file that is in the page cache, into one buffer of 1 MiB."""

    def prepare(place: Place) -> None:
        payload = make_payload(entry_bytes)
        with open(place.path / "file", "wb") as file:
            for _ in repeat(None, place.count(whole, step)):
                file.write(payload)
            file.flush()
            os.fsync(file.fileno())

    def run(place: Place) -> Sample:
        count = place.count(whole, step)
        buffers = [bytearray(READ_BYTES)]
        with _descriptor(place.path / "file") as descriptor:
            call = os.preadv
            started = perf_counter()
            for at in range(0, count * entry_bytes, READ_BYTES):
                call(descriptor, buffers, at)
            return bandwidth(count, entry_bytes, perf_counter() - started)

    return Contender(name=PREADV, group=LIMIT, run=run, prepare=prepare)
