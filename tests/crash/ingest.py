"""A child process that copies files into a log, a topic a file, and can be killed at any line.

    python ingest.py DIRECTORY BACKEND SCHEDULE THREADS FILE...

An entry is a line with its end. Where to go on is what ``next_offset`` says. It tells on standard
output what it found (``at TOPIC NEXT``), then after every append or batch that returned what is
acknowledged (``ack TOPIC NEXT``), and ``done`` at the end. It does one append for each byte that it
reads from standard input, so the parent decides how far it can come.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from pathlib import Path
from random import Random

from walrus_core import FsyncSchedule, Walrus

CLASSES = {"fd": ("walrus_fd.backend", "FdBackend"), "mmap": ("walrus_mmap.backend", "MmapBackend")}
SCHEDULES = {
    "each": FsyncSchedule.sync_each(),
    "interval": FsyncSchedule.milliseconds(5),
    "never": FsyncSchedule.no_fsync(),
}


def open_log(directory: str, backend: str, schedule: str) -> Walrus:
    """Open the log with small blocks, so that a small file crosses blocks and segments."""
    module, name = CLASSES[backend]
    made = getattr(importlib.import_module(module), name)()
    return Walrus(
        directory, backend=made, block_size=16384, blocks_per_segment=4, fsync_schedule=SCHEDULES[schedule]
    )


def say(*words: object) -> None:
    """Write one line at once: a line that was begun is whole, even if the next thing is SIGKILL."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def lines_of(path: Path) -> list[bytes]:
    """Return the lines of a file with their ends; only ``\\n`` ends a line."""
    *whole, rest = path.read_bytes().split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


def ingest(wal: Walrus, paths: list[Path]) -> None:
    """Append what is missing of each file, in turn, one entry or a batch at a time."""
    random = Random()
    missing = {path: lines_of(path)[wal.next_offset(path.name) :] for path in paths}
    while missing:
        path = random.choice(list(missing))
        lines = missing[path]
        if not lines:
            del missing[path]
            continue
        if not os.read(0, 1):
            return
        if random.random() < 0.5:
            next_offset = wal.append_for_topic(path.name, lines[0]) + 1
            del lines[0]
        else:
            count = random.choice([1, 5, random.randint(1, 30)])
            next_offset = wal.batch_append_for_topic(path.name, lines[:count]).stop
            del lines[:count]
        say("ack", path.name, next_offset)


def main() -> None:
    directory, backend, schedule, threads = sys.argv[1:5]
    paths = [Path(name) for name in sys.argv[5:]]
    wal = open_log(directory, backend, schedule)
    for path in paths:
        say("at", path.name, wal.next_offset(path.name))
    count = int(threads)
    workers = [threading.Thread(target=ingest, args=(wal, paths[place::count])) for place in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wal.close()
    say("done")


if __name__ == "__main__":
    main()
