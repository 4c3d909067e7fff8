"""A short workload with every operation of a log, of which each backend call fails in every way.

Small enough to try all of them at each test run: errors of all kinds, writes cut short by one byte or to
one byte, once and for ever. The longer runs of test_io_faults.py are sampled.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from walrus_core import syncer
from walrus_core.flusher import Flusher
from walrus_core.testing import Fault

from .counted import NUMBERS, WRITES
from .io_run import Base, Run
from .ledger import Images
from .scenarios import BIG, SCHEDULES, SMALL

SHORT = ((0.0, 1), (1.0, -1))
"""Of a failing write, (share written, bytes more): one byte, all but one."""


class ShortRun(Run):
    """Open what a killed process left, work a little, close, open again."""

    def work(self, turn: int) -> None:
        """Every operation once, on topics that reach over blocks and segments."""
        ledger = self.ledger
        self.append("b", b"b%d" % turn)
        self.batch("a", [b"x", BIG, b"y"])
        self.attempt(ledger.wal.sync)
        self.read("b", "other")
        self.append("b", BIG + BIG)
        self.consume("a")
        self.attempt(ledger.wal.sync)
        self.attempt(ledger.wal._engine.tick)
        self.attempt(lambda: ledger.wal.mark_topic_clean("a"))
        self.append("a", b"last")

    def go(self) -> None:
        """Once is enough."""
        self.open()
        if self.is_open:
            self.work(0)
        self.close()

    def check_end(self, images: Images) -> None:
        """Kill and power cut; the fault goes by; the log opens and goes on."""
        images.check(self.ledger.killed(), self.ledger.model, self.effect, "killed")
        synced = self.backend.synced_store()
        images.check(synced, self.ledger.model, self.effect, "power cut", self.durable)
        self.fault = self.backend.fault = None
        self.backend.is_watched = False
        self.open()
        self.append("a", b"after")
        self.append("fresh", b"f")
        self.attempt(self.ledger.wal.sync)
        self.close()


class ShortBase(Base):
    """The directory that the run starts from, and its calls."""

    run_class = ShortRun

    def faults(self) -> list[Fault]:
        """Every call in every way."""
        found: list[Fault] = []
        for place, (operation, _name) in enumerate(self.calls, 1):
            for stays in (False, True):
                for number in NUMBERS:
                    found.append(Fault(place, number, stays))
                    if operation in WRITES and number in (errno.EIO, errno.ENOSPC):
                        found += [Fault(place, number, stays, *part) for part in SHORT]
        return found


@contextmanager
def still() -> Iterator[None]:
    """Nothing happens in the background or by the clock: a number names a call."""
    with mock.patch.object(Flusher, "wake"), mock.patch.object(syncer, "MARK_INTERVAL_S", 0.0):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged meanwhile, and afterwards what was logged before."""
    logger = logging.getLogger("walrus_core")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def run_faults(schedule: str, seed: int, parts: int = 16) -> Counter[str]:
    """Run one part of all faults. Raises: AssertionError: a law was broken; says with which fault."""
    counts: Counter[str] = Counter()
    with still(), quiet():
        base = ShortBase("unclean", schedule)
        for fault in base.faults()[seed::parts]:
            base.run(fault)
            counts["faults"] += 1
    return counts


__all__ = ["SCHEDULES", "SMALL", "ShortBase", "run_faults"]
