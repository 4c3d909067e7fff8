"""Power cuts of real file systems: what was acknowledged as durable is there, in order and whole.

A process appends, reads and syncs on an ext4 or XFS of its own while the file system is shut down
under it, journal and all, at a random moment, which may lie in the recovery from the cut before.
Its lines go through a pipe, which no cut reaches. ``WALRUS_POWER_CUTS=N`` makes N cuts a test.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random
from signal import SIGBUS, SIGKILL
from typing import Any

import pytest

from walrus_core.errors import WalrusError

from .children import CONFIGS, TOPICS, Worker, full_config, need
from .ledger import Ledger
from .machine import Volume, volume
from .steps import open_log

CUTS = int(os.environ.get("WALRUS_POWER_CUTS", "2"))
SEED = os.environ.get("WALRUS_SEED", "power")
CUTS_PER_LOG = 4
ACKNOWLEDGED_MAX = 250
"""Acknowledged appends before a cut, at most."""
INTERVAL_S = 0.2
WAKES = 2
"""How often the thread of the log must be woken for a sync: something is dirty, the interval has passed. Each
may come as late as the worst wake of a thread that only sleeps, in the same process at the same time."""
STEP_S = 0.02
"""For the rest: the switches between threads of Python (5 ms each), the lines."""


class Life:
    """One log directory on a volume, from cut to cut."""

    def __init__(self, disk: Volume, name: str, config: dict[str, Any], random: Random) -> None:
        self.disk = disk
        self.random = random
        self.config = {**config, "directory": str(disk.point / name)}
        self.ledger = Ledger(config["seed"], TOPICS, config["persist_every"])
        self.cut_count = 0
        self.loss_s = 0.0
        """The age, at a cut, of the oldest acknowledged entry that was lost."""
        self.allowed_s = 0.0
        """How old it may have been, where that was measured."""

    def run(self, only_opens: bool = False, seconds: float = 0.0) -> int:
        """Let a worker work, cut the power under it; with ``seconds``, so long after the first append.

        Returns: when the cut began (monotonic, nanoseconds).
        """
        config = {
            **self.config,
            "life": self.cut_count,
            "first_serial": self.ledger.next_serial,
            "only_opens": only_opens,
        }
        worker = Worker(config)
        self.ledger.ended = ""
        self.ledger.cut_ns = None
        try:
            self._wait(worker, only_opens, seconds)
            cut_ns = self.ledger.cut_ns = self.disk.cut()
        finally:
            lines = worker.rest()
        for line in lines:
            self.ledger.take(line)
        # A map of a file system that is gone faults, as docs/guarantees.md says: only there, only now.
        expected = (0, -SIGKILL, -SIGBUS) if self.config["backend"] == "mmap" else (0, -SIGKILL)
        assert worker.process.returncode in expected, f"status {worker.process.returncode}"
        self.cut_count += 1
        return cut_ns

    def _wait(self, worker: Worker, only_opens: bool, seconds: float) -> None:
        """Come back at a random moment of an opening, or of the work behind it."""
        while worker.line().split()[2:] != ["opening"]:
            assert worker.process.poll() is None, worker.rest()
        if only_opens:
            time.sleep(self.random.uniform(0, 0.03))
            return
        target = self.ledger.acknowledged_count + self.random.randint(0, ACKNOWLEDGED_MAX)
        end_s = 0.0
        while self.ledger.acknowledged_count < target or time.monotonic() < end_s:
            end_s = end_s or (time.monotonic() + seconds)
            line = worker.line()
            if not line:
                raise AssertionError(f"the worker ended before the cut: {worker.rest()}")
            self.ledger.take(line)
            assert not self.ledger.ended, f"before the cut: {self.ledger.ended}"
        # Most cuts come while the next steps are under way.
        time.sleep(self.random.choice([0, self.random.uniform(0, 0.002), self.random.uniform(0, 0.05)]))

    def judge(self, cut_ns: int) -> None:
        """The power is back: compare the log with what was acknowledged."""
        self.disk.restart()
        known = {topic: list(times) for topic, times in self.ledger.acknowledged_ns.items()}
        with open_log(self.config["directory"], self.config) as wal:
            self.ledger.check(wal, self.random)
        for topic, times in known.items():
            lost = times[len(self.ledger.acknowledged_ns[topic]) :]
            if lost and lost[0] < cut_ns:
                self.loss_s = max(self.loss_s, (cut_ns - lost[0]) / 1e9)


def live(disk: Volume, name: str, config: dict[str, Any], seed: str, cuts: int) -> Life:
    """Cut the power ``cuts`` times under one log, and judge it each time."""
    random = Random(seed)
    life = Life(disk, name, config, random)
    try:
        while life.cut_count < cuts:
            cut_ns = life.run()
            if life.cut_count < cuts and random.random() < 0.4:
                disk.restart()
                life.run(only_opens=True)
            life.judge(cut_ns)
    except (AssertionError, WalrusError) as error:
        raise AssertionError(f"WALRUS_SEED={SEED!r}, {config}, cut {life.cut_count}: {error}") from error
    return life


def measure_loss(disk: Volume, folder: str, name: str, seed: str) -> Life:
    """Cut the power once under a log with an interval, and see how old the oldest lost entry is."""
    more = {"seed": seed, "watch": True, "shares": {"append": 5.0, "batch": 1.0}}
    life = Life(disk, folder, full_config(name, Random(seed), **more), Random(seed))
    cut_ns = life.run(seconds=Random(seed).uniform(0.3, 0.9))
    life.judge(cut_ns)
    sync_s, late_s = life.ledger.delays.between(cut_ns - int(life.loss_s * 1e9), cut_ns)
    life.allowed_s = INTERVAL_S + sync_s + WAKES * late_s + STEP_S
    assert life.loss_s <= life.allowed_s, (
        f"seed {seed!r}: lost what was acknowledged {life.loss_s:.3f} s before the cut; "
        f"the longest sync took {sync_s:.3f} s, threads woke up to {late_s:.3f} s late"
    )
    return life


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_durable_survives_the_cut(kind: str, name: str, tmp_path: Path) -> None:
    need(name)
    done = 0
    with volume(kind, tmp_path) as disk:
        while done < CUTS:
            seed = f"{SEED} {kind} {name} {done}"
            config = full_config(name, Random(seed), seed=seed)
            done += live(disk, f"log-{done}", config, seed, min(CUTS_PER_LOG, CUTS - done)).cut_count
    print(f"{done} cuts, seed {SEED!r}")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("name", ["fd 200 ms", "mmap 200 ms"])
def test_a_cut_takes_what_the_interval_allows(kind: str, name: str, tmp_path: Path) -> None:
    """The oldest acknowledged entry that is lost is younger than the interval, one sync and late wakes."""
    losses = []
    with volume(kind, tmp_path) as disk:
        for number in range(max(1, CUTS // 2)):
            life = measure_loss(disk, f"log-{number}", name, f"{SEED} window {kind} {name} {number}")
            losses.append((round(life.loss_s, 3), round(life.allowed_s, 3)))
    print(f"oldest lost, seconds before the cut, and how old it may be: {losses}")
