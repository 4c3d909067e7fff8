"""Measuring: loops over the public API of a log that say how long they took, and what times add up to.

Shared by ``walrus bench`` and the suite in ``benchmarks/``. Every loop does its work and nothing
else between two looks at the clock; what it works with is made before. Times are seconds.
"""

from __future__ import annotations

import random
import statistics
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from time import perf_counter
from typing import Any, Optional

from attrs import frozen

from walrus_core.reading import MAX_ENTRIES_DEFAULT
from walrus_core.walrus import Walrus

BATCH_COUNT = 1000
READ_BYTES = 1 << 20
PAYLOAD_SEED = 20_260_101


@frozen(kw_only=True)
class Spread:
    """Median and range of a figure over several rounds."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Sum up at least one value."""
        found = sorted(values)
        return cls(median=statistics.median(found), low=found[0], high=found[-1], count=len(found))


@frozen(kw_only=True)
class Latencies:
    """How long single calls took, in microseconds. ``p999_us`` of fewer than 1 000 calls is the longest."""

    p50_us: float
    p99_us: float
    p999_us: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latencies:
        """Sum up at least one time."""
        found = sorted(seconds)
        return cls(
            p50_us=percentile(found, 0.5) * 1e6,
            p99_us=percentile(found, 0.99) * 1e6,
            p999_us=percentile(found, 0.999) * 1e6,
            count=len(found),
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the ordered values do not exceed."""
    # Whole numbers: 0.999 * 1000 is a little more than 999 in floating point.
    rank = -(-round(share * 1_000_000) * len(ordered) // 1_000_000)
    return ordered[max(rank, 1) - 1]


def make_payload(length_bytes: int) -> bytes:
    """Return bytes that no compression makes smaller, the same in every run."""
    return random.Random(PAYLOAD_SEED).randbytes(length_bytes)


def append_each(wal: Walrus, topic: str, payload: bytes, count: int) -> float:
    """Append ``count`` entries, one call each. Returns: seconds."""
    append = wal.append_for_topic
    started = perf_counter()
    for _ in repeat(None, count):
        append(topic, payload)
    return perf_counter() - started


def append_batches(wal: Walrus, topic: str, batch: Sequence[bytes], count: int) -> float:
    """Append the batch ``count`` times. Returns: seconds."""
    append = wal.batch_append_for_topic
    started = perf_counter()
    for _ in repeat(None, count):
        append(topic, batch)
    return perf_counter() - started


def read_each(wal: Walrus, topic: str, count: int) -> float:
    """Consume ``count`` entries that are there, one call each. Returns: seconds.

    Raises: EOFError: there were fewer; the time would mean nothing.
    """
    read = wal.read_next
    entry: Optional[object] = None
    started = perf_counter()
    for _ in repeat(None, count):
        entry = read(topic)
    seconds = perf_counter() - started
    if count and entry is None:
        raise EOFError(f"topic {topic!r} has fewer than {count} entries")
    return seconds


def read_batches(wal: Walrus, topic: str, count: int, max_bytes: int = READ_BYTES) -> float:
    """Consume ``count`` entries that are there, by batch reads of ``max_bytes``. Returns: seconds.

    Raises: EOFError: there were fewer.
    """
    read = wal.batch_read_for_topic
    left = count
    started = perf_counter()
    while left > 0:
        entries = read(topic, max_bytes, max_entries=min(left, MAX_ENTRIES_DEFAULT))
        if not entries:
            raise EOFError(f"topic {topic!r} has fewer than {count} entries")
        left -= len(entries)
    return perf_counter() - started


def time_each(call: Callable[[], Any], count: int, seconds_max: float = float("inf")) -> list[float]:
    """Call up to ``count`` times, at least once, for about ``seconds_max``. Returns: seconds of each."""
    times = []
    at = perf_counter()
    stop = at + seconds_max
    for _ in repeat(None, count):
        call()
        now = perf_counter()
        times.append(now - at)
        at = now
        if now >= stop:
            break
    return times


def run_threads(call: Callable[[], None], thread_count: int) -> float:
    """Run ``call`` once in each of several threads, all let go at once.

    Returns: seconds from the first start to the last end.
    Raises: what the first failing call raised, when all have ended.
    """
    barrier = threading.Barrier(thread_count)
    times: list[tuple[float, float]] = []
    errors: list[BaseException] = []

    def work() -> None:
        barrier.wait()
        started = perf_counter()
        try:
            call()
        except BaseException as error:
            errors.append(error)
        times.append((started, perf_counter()))

    threads = [threading.Thread(target=work, name=f"measured-{number}") for number in range(thread_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return max(ended for _, ended in times) - min(started for started, _ in times)


def rate_text(per_second: float) -> str:
    """Return a rate for people: three digits, such as "1.23 M/s", "456 k/s" and "78.9 /s"."""
    for limit, factor, unit in ((999_500, 1e6, "M/s"), (999.5, 1e3, "k/s")):
        if per_second >= limit:
            return f"{three_digits(per_second / factor)} {unit}"
    return f"{three_digits(per_second)} /s"


def duration_text(microseconds: float) -> str:
    """Return a time for people: "150 µs", "2.31 ms", "1.20 s"."""
    for limit, factor, unit in ((999_500, 1e6, "s"), (999.5, 1e3, "ms")):
        if microseconds >= limit:
            return f"{three_digits(microseconds / factor)} {unit}"
    return f"{three_digits(microseconds)} µs"


def three_digits(value: float) -> str:
    """Return a number with three significant digits where it has them, and thousands apart."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
