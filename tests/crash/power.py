"""One run of a random workload on a disk that fails: ``run(seed)`` is the same every time.

A run opens a log, works, and ends by a power loss, the death of the process, a failed sync or a
close, several times over on the same disk; after each open the whole log is compared with the
oracle. Threads, clock and randomness are the run's own, so that a seed replays.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core.errors import DiskFullError, PoisonedError, StorageError, SyncFailedError
from walrus_core.testing import TORN_SECTOR_DAMAGES, PowerLoss, SimulatedBackend, SimulatedDisk, TopicModel

from .still import determined
from .workload import Workload

DIRECTORY = "/sim"
ATTEMPTS = 6
TRACE_SHOWN = int(os.environ.get("WALRUS_CRASH_TRACE", "60"))


class Failed(AssertionError):
    """A law was broken; says with which seed, and what went before."""


def run(seed: int) -> Counter[str]:
    """Run one random workload. Returns: how often the log was opened, and what ended before that.

    Raises: Failed: a law was broken.
    """
    random = Random(f"walrus {seed}")
    machine = Machine(random)
    try:
        with determined(random):
            machine.run()
    except Exception as error:
        steps = "\n  ".join(machine.steps[-TRACE_SHOWN:])
        raise Failed(
            f"seed {seed} ({machine.describe()}): {type(error).__name__}: {error}\n  {steps}"
        ) from error
    finally:
        machine.drop()
    return machine.counts


def check_opened(wal: Walrus, topics: list[TopicModel], random: Random, all_survives: bool) -> None:
    """Compare a freshly opened log with the models, which then know what it holds."""
    report = wal.recovery_report
    harmful = [damage for damage in report.damages if damage.kind not in TORN_SECTOR_DAMAGES]
    assert harmful == [], f"a crash is reported as damage: {harmful}"
    assert report.clamped_cursors == (), f"cursors beyond the end: {report.clamped_cursors}"
    for topic in topics:
        topic.check(wal, random, all_survives)
    names = sorted(topic.name for topic in topics if topic.entries)
    assert wal.topics() == names, f"topics are {wal.topics()}, not {names}"


class Machine(Workload):
    """A log that is opened, used and lost, several times over."""

    def run(self) -> None:
        """Open, work and fail, several times over."""
        for _ in range(self.epochs):
            self.open()
            self.check()
            self.work()
        self.open()
        self.check()
        self.wal.close()

    # --- open and end ------------------------------------------------------------------------

    def _now(self) -> int:
        self.clock += self.random.randint(0, 1000)
        return self.clock

    def start_on(self, disk: SimulatedDisk, random: Random) -> Walrus:
        """Open the log as it lies on a disk."""
        schedules = {
            "each": FsyncSchedule.sync_each(),
            "interval": FsyncSchedule.milliseconds(60_000),
            "never": FsyncSchedule.no_fsync(),
        }
        return Walrus(
            DIRECTORY,
            backend=SimulatedBackend(disk),
            block_size=self.block_size,
            durable_writes=self.writes_durably,
            blocks_per_segment=self.blocks,
            checksum=self.checksum,
            fsync_schedule=schedules[self.schedule],
            consistency=ReadConsistency(self.persist_every),
            random_bytes=random.randbytes,
            clock=self._now,
        )

    def open(self) -> None:
        """Open the log; power may fail, or a sync, while it recovers."""
        if not self.keeps_options:
            self.choose_options()
        for attempt in range(ATTEMPTS):
            is_last = attempt + 1 == ATTEMPTS
            if not is_last and self.random.random() < self.open_faults_share:
                self.disk.stop_in(self.random.choice([self.random.randint(1, 8), self.random.randint(1, 50)]))
            if not is_last and self.random.random() < 0.05:
                self.disk.sync_fails_in = self.random.randint(1, 4)
            fails = self.disk.sync_fails_in
            self.note(f"open, fuse {self.disk.fuse}")
            self.disk.writes_durably = self.writes_durably
            try:
                self.wal = self.start_on(self.disk, self.random)
            except PowerLoss:
                self.lose()
                continue
            except SyncFailedError:
                if fails is None:
                    raise
                self.all_survives = False
                self._replace(self.disk.after_death())
                continue
            self.disk.fuse = self.disk.sync_fails_in = None
            return
        raise AssertionError("the last attempt has no faults")

    def _replace(self, disk: SimulatedDisk) -> None:
        self.disk.is_dead = True
        disk.trace = self.steps
        self.disk = disk

    def lose(self) -> None:
        """The machine or the process stops here."""
        if self.random.random() < self.power_loss_share:
            self.note("power loss")
            self.counts["power losses"] += 1
            self.all_survives = False
            self._replace(self.disk.after_power_loss())
        else:
            self.note("death of the process")
            self._replace(self.disk.after_death())

    def drop(self) -> None:
        """Abandon the instance as a dead process would."""
        if hasattr(self, "wal"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                self.wal.__del__()

    def check(self) -> None:
        """Compare the freshly opened log with the oracle."""
        self.counts["opens compared"] += 1
        self.note(f"opened: {len(self.wal.recovery_report.cuts)} cuts, {self._offsets()}")
        check_opened(self.wal, self.topics, self.random, self.all_survives)
        self.all_survives = True

    def _offsets(self) -> str:
        wal = self.wal
        names = [topic.name for topic in self.topics]
        facts = [(wal.oldest_offset(name), wal.durable_offset(name), wal.next_offset(name)) for name in names]
        return " ".join(f"{name[:2]}{offsets}" for name, offsets in zip(names, facts, strict=True))

    # --- work --------------------------------------------------------------------------------

    def work(self) -> None:
        """Do random steps until something stops them; then end the instance one way or another."""
        random = self.random
        if random.random() < 0.8:
            self.disk.stop_in(int(2 ** random.uniform(0, 9)))
        if random.random() < 0.15:
            self.disk.sync_fails_in = int(2 ** random.uniform(0, 5))
        elif random.random() < 0.1:
            self.disk.write_fails_in = int(2 ** random.uniform(0, 6))
        try:
            for _ in range(int(2 ** random.uniform(0, self.steps_power))):
                if not self.step():
                    break
            if random.random() < 0.5:
                self.close()
                return
        except PowerLoss:
            self.lose()
            self.drop()
            return
        self.lose()
        self.drop()

    def step(self) -> bool:
        """Do one step. Returns: False where the log is poisoned and the instance must end."""
        action: Callable[[TopicModel], Any] = self.random.choices(
            list(self.weights), weights=list(self.weights.values())
        )[0]
        try:
            action(self.random.choice(self.topics))
        except DiskFullError:
            self.note("not done for want of space")
            self.disk.full_for = 0
        except StorageError as error:
            self._check_fault(error)
        if self.wal._engine.gate.failure is not None:
            self._check_fault(self.wal._engine.gate.failure)
            self.poisoned()
            return False
        for inode in self.disk.names.values():
            inode.look_at_windows()
        for topic in self.topics:
            topic.observe(self.wal)
        return True

    def _check_fault(self, error: StorageError) -> None:
        """An error needs a fault that was put in; on a full disk a write that failed half-way will do."""
        faults = ["fails"] + ["disk full"] * self.disk.writes_need_space
        recent = "".join(self.steps[-40:])
        assert any(fault in recent for fault in faults), f"failed and should not have: {error}"

    def poisoned(self) -> None:
        """A sync failed: nothing more is taken, what is durable can be read."""
        self.note("poisoned")
        self.all_survives = False
        for topic in self.topics:
            durable = self.wal.durable_offset(topic.name)
            assert durable >= topic.durable, f"{topic.name[:3]}: durable_offset went back"
            for call in (
                self.wal.append_for_topic,
                lambda name, data: self.wal.batch_append_for_topic(name, [data]),
            ):
                try:
                    call(topic.name, b"refused")
                except PoisonedError:
                    continue
                raise AssertionError("a poisoned log took an entry")
            known = min(durable, len(topic.entries))
            if self.wal.oldest_offset(topic.name) < known:
                offset = self.random.randrange(self.wal.oldest_offset(topic.name), known)
                data = self.wal.batch_read_for_topic(topic.name, start_offset=offset, max_entries=1)[0].data
                assert data == topic.entries[offset], f"{topic.name[:3]}[{offset}] is wrong on a poisoned log"

    def close(self) -> None:
        """Close the log; a fault may still strike."""
        self.note("close")
        self.disk.full_for = 0
        poisoned = not self.all_survives
        for topic in self.topics:
            for cursor in topic.cursors.values():
                cursor.may_move(cursor.position)
        try:
            self.wal.close()
        except StorageError as error:
            self._check_fault(error)
            self.all_survives = False
            self._replace(self.disk.after_death())
            return
        if not poisoned:
            for topic in self.topics:
                topic.durable = len(topic.entries)
                for cursor in topic.cursors.values():
                    cursor.pinned(cursor.position)
        if self.random.random() < 0.5:
            self.all_survives = not poisoned
            self.note("power loss after close")
            self.counts["power losses"] += 1
            self._replace(self.disk.after_power_loss())
        else:
            self._replace(self.disk.after_death())
