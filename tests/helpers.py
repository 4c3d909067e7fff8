"""Small things that tests of the whole log share: read everything, wait, run several threads."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core.hot import FNV_BASIS, fnv1a64
from walrus_core.testing import FaultyBackend

NEVER = FsyncSchedule.no_fsync()
EACH = FsyncSchedule.sync_each()
LOOSE = ReadConsistency.at_least_once(10_000)
WHOLE_BLOCK = 12_000
"""An entry of this length has a block of 16 KiB for itself."""


def contents(wal: Walrus, topic: str) -> list[bytes]:
    """Return all retained payloads; no cursor moves."""
    return [entry.data for entry in wal.topic(topic)]


def read_all(wal: Walrus, topic: str, **options: Any) -> list[bytes]:
    """Consume everything through ``read_next``."""
    found = []
    while (entry := wal.read_next(topic, **options)) is not None:
        found.append(entry.data)
    return found


def with_faults(store: Any, **options: Any) -> tuple[Walrus, FaultyBackend]:
    """Open the log of a store through a faulty backend."""
    backend = FaultyBackend(store.backend())
    return store.open(backend=backend, **options), backend


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for another thread to make ``condition`` true."""
    event = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        event.wait(0.005)
    raise AssertionError(f"not so after {seconds} s")


def run_threads(works: Sequence[Callable[[], object]], seconds: float = 60.0) -> list[Any]:
    """Run every callable in a thread of its own; return what they returned, raise what one raised."""
    results: list[Any] = [None] * len(works)
    errors: list[BaseException] = []

    def run(place: int) -> None:
        try:
            results[place] = works[place]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]
    return results


def two_topics(store: Any, **options: Any) -> None:
    """Fill a log with topics t (6 blocks, of which a slow cursor has read nothing) and u; close it."""
    wal = store.open(fsync_schedule=NEVER, **options)
    for number in range(6):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.append_for_topic("u", b"u")
    wal.seek("t", 0, cursor="slow")
    wal.read_next("t")
    wal.read_next("t")
    wal.close()


def with_version(data: bytes, at: int, size: int, version: int) -> bytes:
    """Return a header of which only the version is another, with a checksum that fits."""
    body = bytearray(data[at : at + size - 8])
    struct.pack_into("<I", body, 8, version)
    return bytes(body) + struct.pack("<Q", fnv1a64(bytes(body), FNV_BASIS))
