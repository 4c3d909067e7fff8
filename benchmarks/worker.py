"""``python -m benchmarks.worker``: does tasks for the suite, a line of JSON each, until its input ends."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from attrs import asdict

from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core.cli.measure import BATCH_COUNT, append_batches, make_payload, read_batches

TOPIC = "t"
CONSUMED_ENTRY_BYTES = 64 * 1024
CONSUMED_BATCH_COUNT = 16
LOOK_EVERY_BYTES = 64 * 1024 * 1024
MIB = 2**20


def do_round(
    work: str, contender: str, path: str, factor: float, full: bool, slowness: int
) -> dict[str, Any]:
    """Run one round of a contender in this process. Returns: its sample."""
    from benchmarks.model import Place, Scale
    from benchmarks.works import WORKS

    found = next(one for one in WORKS[work].contenders if one.name == contender)
    place = Place(path=Path(path), scale=Scale(factor=factor, full=full), slowness=slowness)
    return asdict(found.run(place))


def leave_unsealed(path: str, backend: str, topic_count: int, count: int, entry_bytes: int) -> dict[str, Any]:
    """Fill the last block of some topics and end the process as a kill would. Never returns."""
    payload = make_payload(entry_bytes)
    wal = Walrus(path, backend=backend, fsync_schedule=FsyncSchedule.no_fsync())
    for number in range(topic_count):
        for at in range(0, count, BATCH_COUNT):
            append_batches(wal, f"topic-{number}", [payload] * min(BATCH_COUNT, count - at), 1)
    wal.sync()
    _answer({})
    os._exit(0)


def run_consumer(path: str, backend: str, total_bytes: int) -> dict[str, Any]:
    """Append and consume what was appended, MiB by MiB. Returns: time, memory and disk at their most."""
    batch = [make_payload(CONSUMED_ENTRY_BYTES)] * CONSUMED_BATCH_COUNT
    step_bytes = CONSUMED_ENTRY_BYTES * CONSUMED_BATCH_COUNT
    consistency = ReadConsistency.at_least_once(1000)
    anonymous, mapped, segments = [], [], []
    done = 0
    with Walrus(path, backend=backend, consistency=consistency) as wal:
        segment_bytes = wal.options.block_size_bytes * wal.options.blocks_per_segment
        started = perf_counter()
        while done < total_bytes:
            append_batches(wal, TOPIC, batch, 1)
            read_batches(wal, TOPIC, len(batch))
            if done % LOOK_EVERY_BYTES == 0 or done + step_bytes >= total_bytes:
                memory = memory_bytes()
                anonymous.append(memory["RssAnon"])
                mapped.append(memory["RssFile"] + memory["RssShmem"])
                segments.append(allocated_bytes(path) / segment_bytes)
            done += step_bytes
        seconds = perf_counter() - started
    return {
        "seconds": seconds,
        "count": done // CONSUMED_ENTRY_BYTES,
        "anonymous memory grown by, MiB": (max(anonymous) - anonymous[0]) / MIB,
        "mapped memory at most, MiB": max(mapped) / MIB,
        "segments on disk": max(segments),
    }


def memory_bytes() -> dict[str, int]:
    """Return the resident memory of this process by kind (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name: int(value.split()[0]) * 1024 for name, _, value in pairs if name.startswith("Rss")}


def allocated_bytes(directory: str) -> int:
    """Return how much disk the files of a directory take. A file may go while this looks."""
    total = 0
    for entry in os.scandir(directory):
        try:
            total += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            continue
    return total


TASKS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "round": do_round,
    "unsealed": leave_unsealed,
    "consumer": run_consumer,
}


def _answer(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Do what standard input asks for. What a task raises is its answer; the next one may follow."""
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = TASKS[asked["task"]](**asked["arguments"])
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        _answer(answer)


if __name__ == "__main__":
    main()
