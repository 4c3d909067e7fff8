"""Runs one workload over and over, and kills it or breaks one of its system calls each time.

    LD_PRELOAD=shim.so python -m real.breaker CONFIG      (JSON; tests/ is on the path)

Each run is a child of fork, so that it costs no start of an interpreter. Whatever is left of it is
judged here. The workload is the same each time: it opens a log that a kill left (recovery),
appends single entries and batches over several blocks and segments, reads with two cursors so that
blocks are given back, syncs, closes, opens again and goes on.

The last line is JSON: {"calls", "hits", "outcomes"}.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from walrus_core import Walrus
from walrus_core.errors import PoisonedError, StorageError, SyncFailedError, WalrusError

from . import shim
from .children import TOPICS
from .ledger import Ledger
from .steps import Reporter, Steps, open_log

STEPS = (230, 60)
"""Steps before and after the log is closed and opened in between; about 200 of them append."""
TAIL_STEPS = 40
SHARES = {"append": 10.0, "batch": 1.5, "read": 2.0, "read_batch": 1.5, "sync": 0.3}
FAULTS: dict[str, tuple[int, int, int, int]] = {
    # name: (action, kinds, argument, how often)
    "short write": (shim.SHORT, shim.WRITE, 0, 1),
    "write of one byte": (shim.SHORT, shim.WRITE, 1, 1),
    "short writes for ever": (shim.SHORT, shim.WRITE, 0, shim.FOR_EVER),
    "write ENOSPC": (shim.FAIL, shim.WRITE, errno.ENOSPC, 1),
    "write EDQUOT": (shim.FAIL, shim.WRITE, errno.EDQUOT, 2),
    "write EIO": (shim.FAIL, shim.WRITE, errno.EIO, 1),
    "write EINTR": (shim.FAIL, shim.WRITE, errno.EINTR, 1),
    "space ENOSPC": (shim.FAIL, shim.SPACE, errno.ENOSPC, 1),
    "space EDQUOT": (shim.FAIL, shim.SPACE, errno.EDQUOT, 3),
    "space EIO": (shim.FAIL, shim.SPACE, errno.EIO, 1),
    "sync EIO": (shim.FAIL, shim.SYNC, errno.EIO, 1),
    "sync EIO for ever": (shim.FAIL, shim.SYNC, errno.EIO, shim.FOR_EVER),
    "open EMFILE": (shim.FAIL, shim.OPEN, errno.EMFILE, 1),
    "name EIO": (shim.FAIL, shim.NAME, errno.EIO, 1),
}
HARMLESS = ("short write", "write of one byte", "short writes for ever", "write EINTR")
"""The system may do this at any time: nobody may notice."""
KILLS = {"before": shim.KILL_BEFORE, "after": shim.KILL_AFTER}


class Run:
    """One child: the workload with one thing that happens to it."""

    def __init__(self, config: dict[str, Any], directory: str) -> None:
        self.config = config
        self.directory = directory

    def steps(self, wal: Walrus, life: int, say: Reporter) -> Steps:
        config = self.config
        random = Random(f"{config['seed']} {life}")
        return Steps(wal, random, TOPICS, config["seed"], 10_000 * (1 + life), say, SHARES)

    def take(self, steps: Steps, count: int) -> None:
        """Take steps; a full disk or too many open files end only the step."""
        for _ in range(count):
            try:
                steps.step()
            except StorageError as error:
                steps.say("failed", type(error).__name__)
                if isinstance(error, (SyncFailedError, PoisonedError)):
                    raise

    def workload(self, say: Reporter) -> None:
        """Open, work, close, open, work, close."""
        for life, count in enumerate(STEPS):
            wal = open_log(self.directory, self.config)
            steps = self.steps(wal, life, say)
            steps.opened()
            try:
                self.take(steps, count)
            finally:
                wal.close()
            say("closed")

    def child(self, arm: Callable[[], None], descriptor: int, disarm: Callable[[], int]) -> None:
        """Run in the child of fork; its end is its status: 0 done, 3 a typed error, 1 a defect."""
        say = Reporter(descriptor)
        status = 1
        try:
            arm()
            try:
                self.workload(say)
                status = 0
            except WalrusError as error:
                say("ended", type(error).__name__, " ".join(str(error).split()))
                status = 3
            say("counted", disarm())
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def run(self, arm: Callable[[], None], disarm: Callable[[], int]) -> tuple[int, list[str]]:
        """Run the child. Returns: (its exit status, -9 for a kill, and its lines)."""
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            self.child(arm, writer, disarm)
        os.close(writer)
        with open(reader, "rb") as source:
            lines = [line.decode() for line in source if line.endswith(b"\n")]
        _pid, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), lines


class Breaker:
    """All runs of one configuration."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.folder = config["folder"]
        self.shim = shim.Shim(os.path.join(self.folder, "log"))
        self.base = os.path.join(self.folder, "base")
        self.outcomes: Counter[str] = Counter()
        self.hits = 0
        self.ledger_lines: list[str] = []
        self.prepare()

    def prepare(self) -> None:
        """Make the log that every run begins with: a kill has left it."""
        reader, writer = os.pipe()

        def work() -> None:
            wal = open_log(self.base, self.config)
            seed = self.config["seed"]
            steps = Steps(wal, Random(seed), TOPICS, seed, 0, Reporter(writer), SHARES)
            for _ in range(TAIL_STEPS):
                steps.step()
            os._exit(9)

        child = os.fork()
        if not child:
            work()
        os.close(writer)
        with open(reader, "rb") as source:
            self.ledger_lines = [line.decode() for line in source]
        os.waitpid(child, 0)
        assert len(self.ledger_lines) > TAIL_STEPS, "the first kill left nothing"

    def ledger(self) -> Ledger:
        """Return what is known of the log that every run begins with."""
        ledger = Ledger(self.config["seed"], TOPICS, self.config["persist_every"], all_survives=True)
        for line in self.ledger_lines:
            ledger.take(line)
        return ledger

    def once(self, name: str, arm: Callable[[], None]) -> tuple[int, int]:
        """Run once and judge what is left. Returns: (status, calls counted, 0 after a kill)."""
        directory = os.path.join(self.folder, "log")
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.base, directory)
        status, lines = Run(self.config, directory).run(arm, self.shim.disarm)
        assert status in (0, 3, -9), f"{name}: status {status}"
        ledger = self.ledger()
        counted = 0
        for line in lines:
            word = line.split()[2]
            if word == "counted":
                counted = int(line.split()[3])
            elif word not in ("failed", "closed"):
                ledger.take(line)
        self.outcomes["done" if status == 0 else ledger.ended.split()[0] if status == 3 else "killed"] += 1
        with open_log(directory, self.config) as wal:
            ledger.check(wal, Random(name))
        return status, counted

    def count(self, kinds: int) -> int:
        """Return how many calls of these kinds the workload makes."""
        status, counted = self.once("count", partial(self.shim.arm, shim.COUNT, kinds, 0))
        assert status == 0 and counted, f"status {status}, {counted} calls"
        return counted


def choose(config: dict[str, Any], points: list[Any]) -> list[Any]:
    """Return this part's share of the points, a seeded sample where there are too many."""
    random = Random(f"{config['seed']} sample")
    if config["points_max"]:
        points = sorted(random.sample(points, min(len(points), config["points_max"])), key=str)
    return points[config["part"] :: config["parts"]]


def kills(breaker: Breaker) -> int:
    """Kill before and after calls. Returns: how many calls the workload makes."""
    calls = breaker.count(shim.ALL)
    points = [(when, call) for call in range(1, calls + 1) for when in KILLS]
    for when, call in choose(breaker.config, points):
        name = f"killed {when} call {call}"
        try:
            status, _ = breaker.once(name, partial(breaker.shim.arm, KILLS[when], shim.ALL, call))
        except (AssertionError, WalrusError) as error:
            raise AssertionError(f"{name} of {calls}: {error!r}") from error
        breaker.hits += status == -9
    return calls


def faults(breaker: Breaker) -> int:
    """Break single calls. Returns: how many calls of all kinds there were to break."""
    counts = {kinds: breaker.count(kinds) for kinds in {fault[1] for fault in FAULTS.values()}}
    points = [(name, call) for name, fault in FAULTS.items() for call in range(1, counts[fault[1]] + 1)]
    for name, call in choose(breaker.config, points):
        action, kinds, argument, times = FAULTS[name]
        place = f"{name} at call {call}"
        try:
            status, _ = breaker.once(place, partial(breaker.shim.arm, action, kinds, call, argument, times))
            assert status == 0 or name not in HARMLESS, "it was noticed"
        except (AssertionError, WalrusError) as error:
            raise AssertionError(f"{place} of {counts[kinds]}: {error!r}") from error
        breaker.hits += 1
    return sum(counts.values())


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=settings["parent"], prefix="broken-") as folder:
        made = Breaker({**settings, "folder": folder})
        total = kills(made) if settings["what"] == "kills" else faults(made)
        print(json.dumps({"calls": total, "hits": made.hits, "outcomes": dict(made.outcomes)}))
