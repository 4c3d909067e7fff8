"""The closed loop: one process after the other on one log, killed or closed, judged, and on again."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from ..real.children import environment
from .books import Books
from .log import open_log

LIFE_S_MAX = 3.0
SILENCE_S_MAX = 60.0
"""A process that says nothing for so long hangs."""
RATE_EVERY_S = 10.0
SCHEDULES = ("each", "1", "20", "200", "never")
CLOSES = 0.3
"""Share of the lives that end with a close instead of a kill."""


class Soak:
    """One log on one backend. The seed chooses what each life is like; the threads take their own ways."""

    def __init__(self, backend: str, seed: str, folder: Path, tell: Callable[[str], None] = print) -> None:
        self.backend = backend
        self.seed = seed
        self.random = Random(f"soak {backend} {seed}")
        self.directory = folder / "log"
        self.books = Books()
        self.counts: Counter[str] = Counter()
        self._tell = tell
        self.block_size = self.random.choice([16384, 65536, 1 << 20])
        self.persist_every = 1

    def config(self) -> dict[str, Any]:
        """Return what the next life is like."""
        random = self.random
        self.persist_every = random.choice([1, 7, 100])
        schedule = random.choice(SCHEDULES)
        return {
            "backend": self.backend,
            "directory": str(self.directory),
            "schedule": schedule,
            "durable_writes": self.backend == "fd" and schedule == "each" and random.random() < 0.5,
            "io_uring": random.choice(["auto", "off"]),
            "persist_every": self.persist_every,
            "block_size": self.block_size,
            "open_files_max": random.choice([8, 64]),
            "seed": self.seed,
            "life": self.counts["lives"],
        }

    def run(self, seconds: float, lives_max: float = math.inf) -> Counter[str]:
        """Go on for so long. Returns: counts. Raises: AssertionError: a law was broken."""
        started_s = told_s = time.monotonic()
        while time.monotonic() < started_s + seconds and self.counts["lives"] < lives_max:
            config = self.config()
            try:
                self.live(config)
            except Exception as error:
                where = f"seed {self.seed!r}, {self.backend}, life {self.counts['lives']}, {config}"
                raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
            if time.monotonic() > told_s + RATE_EVERY_S:
                told_s = time.monotonic()
                self._tell(self.rate(told_s - started_s))
        self.counts.update(appended=self.books.appended, consumed=self.books.consumed)
        return self.counts

    def rate(self, seconds: float) -> str:
        """Return what was done so far in one line."""
        books, counts = self.books, self.counts
        return (
            f"{seconds:.0f} s, {self.backend}: {books.appended} appended, {books.consumed} consumed "
            f"({(books.appended + books.consumed) / seconds:.0f} a second), {counts['kills']} kills, "
            f"{counts['closes']} closes, {counts['entries compared']} entries compared, 0 violations"
        )

    def live(self, config: dict[str, Any]) -> None:
        """One process, its end, and the judgement."""
        kills = self.random.random() >= CLOSES
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "soak.worker", json.dumps(config)],
                env=environment(),
                cwd=tempfile.gettempdir(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            try:
                self._follow(process, self.random.uniform(0.02, LIFE_S_MAX), kills)
            finally:
                process.kill()
                process.communicate()
                errors.seek(0)
                problems = errors.read().decode()
        assert not problems, problems
        assert process.returncode == (-signal.SIGKILL if kills else 0), f"status {process.returncode}"
        assert self.books.is_closed != kills
        with open_log(config) as wal:
            self.counts["entries compared"] += self.books.check(wal, self.persist_every)
        self.counts["lives"] += 1
        self.counts["kills" if kills else "closes"] += 1

    def _follow(self, process: subprocess.Popen[bytes], seconds: float, kills: bool) -> None:
        """Take the lines of a process over; end it when its time has come, counted from its first line."""
        assert process.stdout is not None and process.stdin is not None
        descriptor = process.stdout.fileno()
        end_s = heard_s = time.monotonic()
        rest = b""
        has_begun = has_ended = False
        while True:
            if select.select([descriptor], [], [], 0.01)[0]:
                data = os.read(descriptor, 1 << 16)
                if not data:
                    break
                heard_s = time.monotonic()
                if not has_begun:
                    has_begun, end_s = True, heard_s + seconds
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.books.take(line.decode())
            assert time.monotonic() < heard_s + SILENCE_S_MAX, "it hangs"
            if has_begun and not has_ended and time.monotonic() >= end_s:
                has_ended = True
                if kills:
                    process.kill()
                else:
                    process.stdin.write(b".")
                    process.stdin.flush()
        process.wait()
