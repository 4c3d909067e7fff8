"""What is not a loop of calls: opening, a log that is consumed as it grows, many topics, importing."""

from __future__ import annotations

import subprocess
import sys
from itertools import repeat
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.children import child_environment, one_task
from benchmarks.model import (
    MIB_PER_SECOND,
    MILLISECONDS,
    OURS,
    PER_SECOND,
    Bar,
    Contender,
    Place,
    Sample,
    Work,
    rate,
)
from benchmarks.ours import FD, MMAP, Log, descriptors_in
from walrus_core.cli.measure import append_batches, make_payload

MIB = 2**20
LOGS = (FD, MMAP)

OPEN_FULL_BYTES = 2048 * MIB
OPEN_BYTES = 256 * MIB
OPEN_ENTRY_BYTES = 64 * 1024
UNSEALED_COUNT = 4
UNSEALED_ENTRIES = 32_000
UNSEALED_ENTRY_BYTES = 256
OPEN_MS_MAX = 20.0

CONSUMER_BYTES = 10 * 1024 * MIB

TOPIC_COUNT = 10_000
TOPICS_APPEND_COUNT = 100_000
TOPICS_ENTRY_BYTES = 256

IMPORT_REPEATS = 3
IMPORT = "import walrus_core"
IMPORT_AND_OPEN = "import and open"


# --- open -----------------------------------------------------------------------------------------


def _open_time(log: Log, path: Path) -> float:
    """Open a log and close it. Returns: seconds of the opening alone."""
    started = perf_counter()
    with log.open(path):
        return perf_counter() - started


def open_sealed(log: Log, share: float, label: str) -> Contender:
    """Open a log of blocks that are full and sealed, closed the last time: ``share`` of the size."""

    def prepare(place: Place) -> None:
        whole = OPEN_FULL_BYTES if place.scale.full else OPEN_BYTES
        count = place.count(round(whole * share / OPEN_ENTRY_BYTES))
        payload = make_payload(OPEN_ENTRY_BYTES)
        with log.open(place.path / "log") as wal:
            for at in range(0, count, 100):
                append_batches(wal, "t", [payload] * min(100, count - at), 1)
        place.kept["mib"] = count * OPEN_ENTRY_BYTES / MIB

    def run(place: Place) -> Sample:
        seconds = _open_time(log, place.path / "log")
        return Sample(value=seconds * 1000, seconds=seconds, count=1, facts={"log, MiB": place.kept["mib"]})

    return log.contender(run, label=label, prepare=prepare)


def open_unsealed(log: Log) -> Contender:
    """Open a log whose process was killed, with the last block of some topics nearly full."""

    def run(place: Place) -> Sample:
        count = place.count(UNSEALED_ENTRIES)
        with place.fresh() as directory:
            path = directory / "log"
            one_task(
                "unsealed",
                {
                    "path": str(path),
                    "backend": log.backend,
                    "topic_count": UNSEALED_COUNT,
                    "count": count,
                    "entry_bytes": UNSEALED_ENTRY_BYTES,
                },
            )
            seconds = _open_time(log, path)
        over_ms = max(seconds * 1000 - OPEN_MS_MAX, 0.0)
        facts = {"ms over 20 a block": over_ms / UNSEALED_COUNT}
        return Sample(value=seconds * 1000, seconds=seconds, count=1, facts=facts)

    return log.contender(run, label=f"{UNSEALED_COUNT} unsealed blocks")


def _open_bars() -> list[Bar]:
    bars = []
    for log in LOGS:
        whole, tenth = f"{log.name}, sealed", f"{log.name}, a tenth of it"
        bars += [
            Bar(ours=whole, at_most=OPEN_MS_MAX, full_only=True),
            Bar(ours=whole, against=tenth, at_most=12, full_only=True),
            Bar(
                ours=f"{log.name}, {UNSEALED_COUNT} unsealed blocks",
                fact="ms over 20 a block",
                at_most=10,
            ),
        ]
    return bars


# --- a consumer that keeps up -----------------------------------------------------------------------


def consumer(log: Log) -> Contender:
    """Append and consume, in a process of its own, and watch its memory and the disk."""

    def run(place: Place) -> Sample:
        total_bytes = place.count(CONSUMER_BYTES, MIB)
        with place.fresh() as directory:
            told = one_task(
                "consumer",
                {"path": str(directory / "log"), "backend": log.backend, "total_bytes": total_bytes},
            )
        seconds = told.pop("seconds")
        return Sample(
            value=total_bytes / MIB / seconds, seconds=seconds, count=int(told.pop("count")), facts=told
        )

    return log.contender(run)


# --- many topics ------------------------------------------------------------------------------------


def topics(log: Log, whole_topics: int, label: str) -> Contender:
    """Append to topics in turn; each has its first block before the clock starts."""

    def prepare(place: Place) -> None:
        payload = make_payload(TOPICS_ENTRY_BYTES)
        names = [f"topic-{number:06d}" for number in range(place.scale.count(whole_topics))]
        wal = place.stack.enter_context(log.open(place.path / "log"))
        for name in names:
            wal.append_for_topic(name, payload)
        place.kept.update(wal=wal, names=names)

    def run(place: Place) -> Sample:
        payload = make_payload(TOPICS_ENTRY_BYTES)
        names = place.kept["names"]
        append = place.kept["wal"].append_for_topic
        turns = max(place.count(TOPICS_APPEND_COUNT) // len(names), 1)
        started = perf_counter()
        for _ in repeat(None, turns):
            for name in names:
                append(name, payload)
        seconds = perf_counter() - started
        facts = {"topics": float(len(names)), "descriptors": float(descriptors_in(place.path))}
        sample = rate(turns * len(names), seconds)
        return Sample(value=sample.value, seconds=seconds, count=sample.count, facts=facts)

    return log.contender(run, label=label, prepare=prepare)


# --- import -----------------------------------------------------------------------------------------


def _python(code: str, *arguments: str) -> float:
    """Run code in a new interpreter. Returns: seconds from start to end."""
    command = [sys.executable, "-c", code, *arguments]
    environment = child_environment()
    # As where people work: what is imported was compiled by an earlier run.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = perf_counter()
    subprocess.run(command, check=True, env=environment)
    return perf_counter() - started


def importing(name: str, code: str, needs: tuple[str, ...] = ()) -> Contender:
    """Start an interpreter that runs ``code``, beside one that does nothing."""

    def run(place: Place) -> Sample:
        plain, ours = [], []
        with place.fresh() as directory:
            for number in range(IMPORT_REPEATS):
                plain.append(_python("pass"))
                ours.append(_python(code, str(directory / f"log-{number}")))
        value = median(ours) * 1000
        facts = {"ms more than python -c pass": value - median(plain) * 1000}
        return Sample(value=value, seconds=sum(plain) + sum(ours), count=IMPORT_REPEATS, facts=facts)

    return Contender(name=name, group=OURS, run=run, needs=needs)


# Ends without closing the log: its time is not that of opening.
OPEN_CODE = """
import os, sys
from walrus_core import Walrus
wal = Walrus(sys.argv[1], backend="fd")
os._exit(0)
"""

WORKS = (
    Work(
        name="open",
        title="open a log of 2 GiB (256 MiB without --full)",
        unit=MILLISECONDS,
        contenders=[
            contender
            for log in LOGS
            for contender in (
                open_sealed(log, 1, "sealed"),
                open_sealed(log, 0.1, "a tenth of it"),
                open_unsealed(log),
            )
        ],
        bars=_open_bars(),
    ),
    Work(
        name="consumer",
        title="append 10 GiB through a consumer that keeps up (2 rounds)",
        unit=MIB_PER_SECOND,
        contenders=[consumer(log) for log in LOGS],
        bars=[
            bar
            for log in LOGS
            for bar in (
                Bar(ours=log.name, fact="anonymous memory grown by, MiB", at_most=64, full_only=True),
                Bar(ours=log.name, fact="segments on disk", at_most=3, full_only=True),
            )
        ],
        full_only=True,
        rounds_max=2,
    ),
    Work(
        name="topics",
        title="append 256 B to 10,000 topics in turn",
        unit=PER_SECOND,
        contenders=[
            contender
            for log in LOGS
            for contender in (topics(log, TOPIC_COUNT, "many topics"), topics(log, 1, "one topic"))
        ],
        bars=[
            bar
            for log in LOGS
            for bar in (
                Bar(ours=f"{log.name}, many topics", against=f"{log.name}, one topic", at_least=0.65),
                Bar(ours=f"{log.name}, many topics", fact="descriptors", at_most=256),
            )
        ],
    ),
    Work(
        name="import",
        title="start an interpreter and import",
        unit=MILLISECONDS,
        contenders=[
            importing(IMPORT, "import walrus_core"),
            importing(IMPORT_AND_OPEN, OPEN_CODE, needs=("backend fd",)),
        ],
        bars=[
            Bar(ours=IMPORT, fact="ms more than python -c pass", at_most=30),
            Bar(ours=IMPORT_AND_OPEN, at_most=160),
        ],
    ),
)
