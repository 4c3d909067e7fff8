"""One run of a random workload on a disk that fails: ``run(seed)`` is the same every time.

A run opens a log, works, and ends by a power loss, the death of the process, a failed sync or a
close, several times over on the same disk; after each open the whole log is compared with the
oracle. Threads, clock and randomness are the run's own, so that a seed replays.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from walrus_core import FsyncSchedule, ReadConsistency, Walrus, engine, syncer
from walrus_core.errors import DiskFullError, PoisonedError, StorageError, SyncFailedError

from .oracle import TopicModel
from .simdisk import PowerLoss, SimBackend, SimDisk

DIRECTORY = "/sim"
BLOCK_SIZE = 16384
TRACE_SHOWN = int(os.environ.get("WALRUS_CRASH_TRACE", "60"))
TOLERATED = {
    "block header",
    "block header, read from its copy",
    "cursor state, read from the older one",
}


class StillFlusher:
    """Stands in for the flusher's thread: remembers that it was woken; the run calls ``tick``."""

    def __init__(self, worker: object, interval_s: float) -> None:
        self.is_woken = False

    def wake(self) -> None:
        """Note it."""
        self.is_woken = True

    def stop(self, wait: bool) -> None:
        """Nothing runs."""


@contextlib.contextmanager
def determined(random: Random) -> Iterator[None]:
    """Take thread and clock out of the core for the time of a run."""
    now_s = [0.0]

    def monotonic() -> float:
        now_s[0] += random.choice([0.001, 0.06])
        return now_s[0]

    with (
        mock.patch.object(engine, "Flusher", StillFlusher),
        mock.patch.object(syncer, "time", SimpleNamespace(monotonic=monotonic)),
    ):
        yield


class Failed(AssertionError):
    """A law was broken; says with which seed, and what went before."""


def run(seed: int) -> None:
    """Raises: Failed: a law was broken."""
    random = Random(f"walrus {seed}")
    machine = Machine(random)
    try:
        with determined(random):
            machine.run()
    except Exception as error:
        steps = "\n  ".join(machine.steps[-TRACE_SHOWN:])
        raise Failed(f"seed {seed} ({machine.describe()}): {type(error).__name__}: {error}\n  {steps}") from error
    finally:
        machine.drop()


class Machine:
    """A disk, a log on it that opens and fails, and the oracle."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.steps: list[str] = []
        self.disk = SimDisk(random, discards=random.random() < 0.5, vectored=random.random() < 0.5)
        self.disk.trace = self.steps
        self.schedule = random.choice(["each", "interval", "never"])
        self.persist_every = random.choice([1, 1, 2, 3, 10, 50])
        self.checksum = random.choice(["fnv1a64", "crc32c"])
        self.blocks = random.choice([2, 2, 3, 4])
        self.topics = [TopicModel(name) for name in ["a", "b", "ü" * 3, "d" * 1024][: random.choice([1, 2, 2, 4])]]
        self.cursors = ["default", "other"][: random.choice([1, 1, 2])]
        self.weights = {
            self.append: random.choice([3, 6]),
            self.append_batch: random.choice([1, 3]),
            self.read_next: random.choice([0, 3, 8]),
            self.read_batch: random.choice([0, 2, 8]),
            self.peek: 0.3,
            self.seek: 0.4,
            self.sync: random.choice([0.0, 0.5, 2]),
            self.tick: random.choice([0.3, 2]),
            self.mark: 0.3,
            self.fill_disk: 0.3,
        }
        self.large_share = random.choice([0.0, 0.02, 0.1])
        # Entries of one length: what is torn off one life fits exactly behind what the next one writes.
        self.fixed_length = random.choice([None, None, random.choice([8, 40, 500, 3000])])
        self.epochs = random.choice([2, 3, 3, 5, 8])
        self.steps_power = 7.0
        if random.random() < 0.2:
            self._watch_tails()
        self.serial = 0
        self.clock = 1_700_000_000_000_000_000
        self.all_survives = True
        self.wal: Walrus

    def _watch_tails(self) -> None:
        """Crash often with a few unsynced entries, which fit exactly where others were torn off."""
        self.schedule = self.random.choice(["interval", "never"])
        self.topics = self.topics[: self.random.choice([1, 2])]
        self.fixed_length = self.random.choice([300, 480, 1000])
        self.large_share = 0.0
        self.epochs, self.steps_power = 12, 3.5
        self.weights.update({self.append: 20, self.append_batch: 1})

    def describe(self) -> str:
        """Name the options of the run."""
        return f"{self.schedule}, persist_every {self.persist_every}, {self.blocks} blocks, {self.checksum}"

    def note(self, step: str) -> None:
        """Keep a step for the message of a failure."""
        self.steps.append(f"- {step}")

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

    def _start(self) -> Walrus:
        schedules = {
            "each": FsyncSchedule.sync_each(),
            "interval": FsyncSchedule.milliseconds(60_000),
            "never": FsyncSchedule.no_fsync(),
        }
        return Walrus(
            DIRECTORY,
            backend=SimBackend(self.disk),
            block_size=BLOCK_SIZE,
            blocks_per_segment=self.blocks,
            checksum=self.checksum,
            fsync_schedule=schedules[self.schedule],
            consistency=ReadConsistency(self.persist_every),
            random_bytes=self.random.randbytes,
            clock=self._now,
        )

    def open(self) -> None:
        """Open the log; power may fail, or a sync, while it recovers."""
        for attempt in range(4):
            if attempt < 3 and self.random.random() < 0.35:
                self.disk.stop_in(self.random.choice([self.random.randint(1, 8), self.random.randint(1, 50)]))
            if attempt < 3 and self.random.random() < 0.05:
                self.disk.sync_fails_in = self.random.randint(1, 4)
            fails = self.disk.sync_fails_in
            self.note(f"open, fuse {self.disk.fuse}")
            try:
                self.wal = self._start()
            except PowerLoss:
                self.lose()
                continue
            except SyncFailedError:
                assert fails is not None, "a sync failed that should not"
                self.all_survives = False
                self._replace(self.disk.after_death())
                continue
            self.disk.fuse = self.disk.sync_fails_in = None
            return
        raise AssertionError("the last attempt has no faults")

    def _replace(self, disk: SimDisk) -> None:
        self.disk.is_dead = True
        disk.trace = self.steps
        self.disk = disk

    def lose(self) -> None:
        """The machine or the process stops here."""
        if self.random.random() < 0.7:
            self.note("power loss")
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
        report = self.wal.recovery_report
        self.note(f"opened: {len(report.cuts)} cuts, {self._offsets()}")
        harmful = [damage for damage in report.damages if damage.kind not in TOLERATED]
        assert harmful == [], f"a crash is reported as damage: {harmful}"
        assert report.clamped_cursors == (), f"cursors beyond the end: {report.clamped_cursors}"
        for topic in self.topics:
            topic.check(self.wal, self.random, self.all_survives)
        names = sorted(topic.name for topic in self.topics if topic.entries)
        assert self.wal.topics() == names, f"topics are {self.wal.topics()}, not {names}"
        self.all_survives = True

    def _offsets(self) -> str:
        wal = self.wal
        parts = (
            f"{t.name[:2]}[{wal.oldest_offset(t.name)}, {wal.durable_offset(t.name)}, {wal.next_offset(t.name)})"
            for t in self.topics
        )
        return " ".join(parts)

    # --- work --------------------------------------------------------------------------------

    def work(self) -> None:
        """Do random steps until something stops them; then end the instance one way or another."""
        random = self.random
        if random.random() < 0.8:
            self.disk.stop_in(int(2 ** random.uniform(0, 9)))
        if random.random() < 0.15:
            self.disk.sync_fails_in = int(2 ** random.uniform(0, 5))
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
        except SyncFailedError:
            assert "fails" in "".join(self.steps[-40:]), "a sync failed that should not"
            self.poisoned()
            return False
        for topic in self.topics:
            topic.observe(self.wal)
        return True

    def poisoned(self) -> None:
        """A sync failed: nothing more is taken, what is durable can be read."""
        self.note("poisoned")
        self.all_survives = False
        for topic in self.topics:
            durable = self.wal.durable_offset(topic.name)
            assert durable >= topic.durable, f"{topic.name}: durable_offset went back"
            for call in (self.wal.append_for_topic, lambda name, data: self.wal.batch_append_for_topic(name, [data])):
                try:
                    call(topic.name, b"refused")
                except PoisonedError:
                    continue
                raise AssertionError("a poisoned log took an entry")
            if self.wal.oldest_offset(topic.name) < durable:
                offset = self.random.randrange(self.wal.oldest_offset(topic.name), durable)
                data = self.wal.batch_read_for_topic(topic.name, start_offset=offset, max_entries=1)[0].data
                assert data == topic.entries[offset], f"{topic.name}[{offset}] is wrong on a poisoned log"

    def close(self) -> None:
        """Close the log; a fault may still strike."""
        self.note("close")
        self.disk.full_for = 0
        poisoned = not self.all_survives
        for topic in self.topics:
            for cursor in topic.cursors.values():
                cursor.in_doubt.add(cursor.position)
        try:
            self.wal.close()
        except SyncFailedError:
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
            self._replace(self.disk.after_power_loss())
        else:
            self._replace(self.disk.after_death())

    # --- steps -------------------------------------------------------------------------------

    def payload(self) -> bytes:
        """Return a payload that names itself; some hold zeros or bytes of the log's own files."""
        random = self.random
        limit = self.blocks * BLOCK_SIZE - 4096 - 32
        if random.random() < self.large_share:
            length = random.choice([random.randint(20_000, 40_000), limit])
        elif self.fixed_length is not None:
            length = self.fixed_length
        else:
            length = random.choice([0, random.randint(0, 60), random.randint(0, 60), random.randint(0, 6000)])
        length = min(length, limit)
        self.serial += 1
        name = b"<%d %d>" % (self.serial, length)
        kind = random.random()
        if kind < 0.1:
            filler = bytes(length)
        elif kind < 0.2 and self.disk.names:
            data = random.choice(list(self.disk.names.values())).live
            at = random.randrange(0, max(1, len(data) - length), 8)
            filler = bytes(data[at : at + length])
        else:
            filler = random.randbytes(length)
        return (name + filler)[:length].ljust(length, b".")

    def append(self, topic: TopicModel) -> None:
        """Append one entry."""
        data = self.payload()
        self.note(f"append {topic.name[:2]}[{len(topic.entries)}] {len(data)} bytes")
        topic.pending.append([data])
        try:
            offset = self.wal.append_for_topic(topic.name, data)
        except DiskFullError:
            self.disk.full_for = 0
            topic.pending.pop()
            return
        assert offset == len(topic.entries), f"append returned {offset}, not {len(topic.entries)}"
        self._appended(topic)

    def append_batch(self, topic: TopicModel) -> None:
        """Append a batch."""
        count = self.random.choice([1, 2, 3, self.random.randint(1, 12), self.random.randint(1, 60)])
        batch = [self.payload() for _ in range(count)]
        self.note(f"batch {topic.name[:2]}[{len(topic.entries)}] {[len(data) for data in batch]}")
        topic.pending.append(batch)
        try:
            offsets = self.wal.batch_append_for_topic(topic.name, batch)
        except DiskFullError:
            self.disk.full_for = 0
            topic.pending.pop()
            return
        expected = range(len(topic.entries), len(topic.entries) + count)
        assert offsets == expected, f"batch returned {offsets}, not {expected}"
        self._appended(topic)

    def _appended(self, topic: TopicModel) -> None:
        topic.appended(topic.pending.pop())
        if self.schedule == "each":
            assert self.wal.durable_offset(topic.name) == len(topic.entries), "returned and not durable"

    def _visible(self, topic: TopicModel, cursor: str, count: int) -> list[bytes]:
        start = topic.cursor(self.wal, cursor).position
        return topic.entries[start : start + count]

    def read_next(self, topic: TopicModel) -> None:
        """Consume one entry."""
        name = self.random.choice(self.cursors)
        cursor = topic.cursor(self.wal, name)
        self.note(f"read {topic.name[:2]}[{cursor.position}] {name}")
        expected = self._visible(topic, name, 1)
        cursor.in_doubt.add(cursor.position + len(expected))
        try:
            entry = self.wal.read_next(topic.name, cursor=name)
        except DiskFullError:
            self.disk.full_for = 0
            return
        self._consumed(topic, name, expected, [] if entry is None else [entry])

    def read_batch(self, topic: TopicModel) -> None:
        """Consume entries up to a budget."""
        name = self.random.choice(self.cursors)
        cursor = topic.cursor(self.wal, name)
        max_bytes = self.random.choice([1, 1000, 20_000, 1 << 20])
        max_entries = self.random.choice([1, 3, 100])
        self.note(f"batch read {topic.name[:2]}[{cursor.position}] {name}, {max_bytes} bytes, {max_entries} entries")
        expected: list[bytes] = []
        for data in self._visible(topic, name, max_entries):
            if expected and sum(map(len, expected)) + len(data) > max_bytes:
                break
            expected.append(data)
        cursor.in_doubt.add(cursor.position + len(expected))
        try:
            entries = self.wal.batch_read_for_topic(topic.name, max_bytes, max_entries=max_entries, cursor=name)
        except DiskFullError:
            self.disk.full_for = 0
            return
        self._consumed(topic, name, expected, entries)

    def _consumed(self, topic: TopicModel, name: str, expected: list[bytes], entries: list[Any]) -> None:
        cursor = topic.cursors[name]
        found = [entry.data for entry in entries]
        assert found == expected, f"read {len(found)} entries, not {len(expected)}, or other ones"
        assert [entry.offset for entry in entries] == list(range(cursor.position, cursor.position + len(found)))
        cursor.moved(cursor.position + len(found), self.persist_every)
        cursor.in_doubt.clear()

    def peek(self, topic: TopicModel) -> None:
        """Look at the next entry."""
        name = self.random.choice(self.cursors)
        expected = self._visible(topic, name, 1)
        entry = self.wal.read_next(topic.name, checkpoint=False, cursor=name)
        assert ([] if entry is None else [entry.data]) == expected, "peek shows another entry"

    def seek(self, topic: TopicModel) -> None:
        """Set a cursor."""
        if not topic.entries:
            return
        name = self.random.choice(self.cursors)
        cursor = topic.cursor(self.wal, name)
        target = self.random.randint(self.wal.oldest_offset(topic.name), len(topic.entries))
        self.note(f"seek {topic.name[:2]} {name} from {cursor.position} to {target}")
        cursor.in_doubt.add(target)
        try:
            self.wal.seek(topic.name, target, name)
        except DiskFullError:
            self.disk.full_for = 0
            return
        cursor.is_kept = True
        cursor.pinned(target)
        cursor.in_doubt.clear()

    def sync(self, _topic: TopicModel) -> None:
        """Sync everything."""
        self.note("sync")
        try:
            self.wal.sync()
        except DiskFullError:
            self.disk.full_for = 0
            return
        for topic in self.topics:
            assert self.wal.durable_offset(topic.name) == len(topic.entries), "sync returned and not durable"
            for cursor in topic.cursors.values():
                cursor.pinned(cursor.position)
            topic.check_space(self.wal)

    def tick(self, _topic: TopicModel) -> None:
        """Let the flusher do what it was woken for."""
        flusher = self.wal._engine._flusher
        if flusher.is_woken:
            self.note("tick")
            flusher.is_woken = self.wal._engine.tick()
            failure = self.wal._engine.gate.failure
            if failure is not None:
                raise failure

    def mark(self, topic: TopicModel) -> None:
        """Mark the topic clean, or dirty again."""
        if not topic.entries:
            return
        target = None if self.random.random() < 0.3 else len(topic.entries)
        self.note(f"mark {topic.name[:2]} clean at {target}")
        topic.clean_at.add(target)
        call = self.wal.mark_topic_dirty if target is None else self.wal.mark_topic_clean
        call(topic.name)
        assert self.wal.topic_is_clean(topic.name) == (target is not None), "the mark is not what was set"
        topic.clean_at = {target}

    def fill_disk(self, _topic: TopicModel) -> None:
        """Let the next requests for space fail."""
        self.disk.full_for = self.random.choice([1, 1, 2, 5])


__all__ = ["Failed", "StorageError", "run"]
