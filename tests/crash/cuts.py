"""Power cuts before every operation of a random workload, many disks for each, and cuts in recovery.

``run_cuts(seed)`` runs one short workload: appends, batches, reads with checkpoints, seeks, syncs,
marks, reclaim, a full disk, a close. Before each operation that would change the disk, in the first open
and in the close too, it goes through disks that a power cut may leave there: nothing unsynced, all,
in order with the last write torn at a sector, reversed, random subsets. What one operation leaves half
done is unsynced until the next sync, so those of its states are among the ones before the next operation.

Each disk is opened and the whole log compared with the model; operations in flight count as either.
Of some disks the recovery is cut as well, before each of its own operations, and what that leaves is
opened and compared in turn. Disks of equal bytes are opened once for what the model knows at the time.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from walrus_core.errors import StorageError
from walrus_core.testing import SimulatedDisk, TopicModel

from .power import TRACE_SHOWN, Failed, Machine, check_opened
from .still import determined

SUBSETS = 20
"""Disks for each power cut in the workload."""
SUBSETS_IN_RECOVERY = 2
RECOVERY_SHARE = 0.015
"""Of this share of the disks the recovery is cut too."""
STEPS = 28


class Cutter(Machine):
    """A log that is used once, on a disk that is looked at before each operation."""

    def __init__(self, random: Random, subsets: int) -> None:
        super().__init__(random)
        self._subsets = subsets
        self._draws = Random(random.random())
        """Apart from the workload's, which is the same whatever the number of subsets."""
        self._seen: set[int] = set()
        # Each of thousands of disks is opened: a few segments tell as much as many.
        self.batch_max, self.large_share = 8, min(self.large_share, 0.02)
        if random.random() < 0.6:
            self._consume_much()

    def _consume_much(self) -> None:
        """In so few steps: fill blocks, read them, checkpoint, give them back."""
        self.persist_every = self.random.choice([1, 1, 2])
        self.fixed_length = self.random.choice([3000, 6000, 11_000])
        self.weights.update(
            {self.append: 6, self.append_batch: 1, self.read_next: 2, self.read_batch: 6, self.sync: 1.5}
        )
        self.cursors, self.topics = self.cursors[:1], self.topics[: self.random.choice([1, 2])]

    def run(self) -> None:
        """Open, work, close."""
        self.disk.writes_durably = self.writes_durably
        self.disk.watcher = self.cut
        self.all_survives = False
        self.wal = self.start_on(self.disk, self.random)
        for _ in range(STEPS):
            if not self.step():
                break
        self.disk.full_for = 0
        for topic in self.topics:
            for cursor in topic.cursors.values():
                cursor.may_move(cursor.position)
        is_sound = self.wal._engine.gate.failure is None
        self.wal.close()
        # A log that was poisoned, say by a full disk, writes nothing more: its close covers nothing.
        for topic in self.topics if is_sound else []:
            topic.durable = len(topic.entries)
        self.cut("closed")
        self.counts["workloads"] += 1

    def cut(self, what: str) -> None:
        """Go through what a power cut here may leave; ``what`` is the operation that has not begun."""
        self.counts["cuts"] += 1
        kind = what.split()[0]
        if kind in ("sync", "discard", "remove"):
            self.counts[f"cuts at a {kind}"] += 1
        elif kind == "write" and "cursors.db" in what:
            self.counts["cuts at a write to cursors.db"] += 1
        for disk in self.disk.power_loss_states(self._subsets, self._draws):
            self.counts["states"] += 1
            self._check(disk, what)

    def _check(self, disk: SimulatedDisk, what: str) -> None:
        """Open one disk and compare; perhaps with cuts of its recovery."""
        if not self._is_new(disk):
            return
        self.counts["distinct"] += 1
        models = self.topics
        if self._draws.random() < RECOVERY_SHARE:
            disk.watcher = lambda step: self._cut_recovery(disk, models, f"{what}, recovery at {step}")
        self._open_and_compare(disk, models, f"power cut before {what}")

    def _cut_recovery(self, disk: SimulatedDisk, models: list[TopicModel], what: str) -> None:
        self.counts["cuts in recovery"] += 1
        for later in disk.power_loss_states(SUBSETS_IN_RECOVERY, self._draws):
            # Not only the first patterns: each cut of a recovery goes on where the last one was.
            self.counts["states"] += 1
            self.counts["states in recovery"] += 1
            if self._is_new(later):
                self.counts["distinct"] += 1
                self._open_and_compare(later, models, what)

    def _is_new(self, disk: SimulatedDisk) -> bool:
        """Return whether this disk was not yet opened with the model as it is."""
        facts = tuple(topic.facts() for topic in self.topics)
        key = hash((facts, disk.digest()))
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new

    def _open_and_compare(self, disk: SimulatedDisk, models: list[TopicModel], what: str) -> None:
        disk.writes_durably = self.writes_durably
        try:
            wal = self.start_on(disk, self._draws)
            disk.watcher = None
            try:
                check_opened(wal, [topic.copy() for topic in models], self._draws, all_survives=False)
            finally:
                wal._engine.abandon()
        except (AssertionError, StorageError) as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def run_cuts(seed: int, subsets: int = SUBSETS) -> Counter[str]:
    """Run one workload and cut everywhere. Raises: Failed: a law was broken."""
    random = Random(f"walrus cuts {seed}")
    cutter = Cutter(random, subsets)
    try:
        with determined(random):
            cutter.run()
    except Exception as error:
        steps = "\n  ".join(cutter.steps[-TRACE_SHOWN:])
        raise Failed(
            f"seed {seed} ({cutter.describe()}): {type(error).__name__}: {error}\n  {steps}"
        ) from error
    finally:
        cutter.drop()
    return cutter.counts
