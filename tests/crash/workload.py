"""Random steps on a log, each compared with the oracle as it is made."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from walrus_core import Walrus
from walrus_core.backend import Capabilities
from walrus_core.errors import DiskFullError
from walrus_core.testing import SimulatedDisk, TopicModel, make_payload


class Workload:
    """A disk, a log on it, the oracle, and the steps that use the three."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.steps: list[str] = []
        self.counts: Counter[str] = Counter()
        has_memory = random.random() < 0.3
        capabilities = Capabilities(
            files=False,
            drop_cache=True,
            durable_writes=not has_memory,
            discard=random.random() < 0.5,
            vectored=random.random() < 0.5,
            memory=has_memory,
        )
        self.disk = SimulatedDisk(random, capabilities)
        self.disk.trace = self.steps
        self.choose_options()
        self.keeps_options = random.random() < 0.7
        self.topics = [
            TopicModel(name) for name in ["a", "b", "ü" * 3, "d" * 1024][: random.choice([1, 2, 2, 4])]
        ]
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
        self.batch_max = 60
        self.epochs = random.choice([2, 3, 3, 5, 8])
        self.open_faults_share = random.choice([0.1, 0.35, 0.35, 0.8])
        self.power_loss_share = random.choice([0.3, 0.7, 0.7, 1.0])
        self.steps_power = 7.0
        if random.random() < 0.2:
            self._watch_tails()
        self.serial = 0
        self.clock = 1_700_000_000_000_000_000
        self.all_survives = True
        self.wal: Walrus

    def choose_options(self) -> None:
        """Choose how the log is opened."""
        random = self.random
        self.schedule = random.choice(["each", "interval", "never"])
        may_write_durably = self.schedule == "each" and self.disk.capabilities.durable_writes
        self.writes_durably = may_write_durably and random.random() < 0.3
        self.persist_every = random.choice([1, 1, 2, 3, 10, 50])
        self.checksum = random.choice(["fnv1a64", "crc32c"])
        self.block_size = random.choice([16384, 16384, 20480, 32768])
        self.blocks = random.choice([2, 2, 3, 4])

    def _watch_tails(self) -> None:
        """Crash often with a few unsynced entries, which fit exactly where others were torn off."""
        self.schedule, self.writes_durably = self.random.choice(["interval", "never"]), False
        self.keeps_options = True
        self.topics = self.topics[: self.random.choice([1, 2])]
        self.fixed_length = self.random.choice([300, 480, 1000])
        self.large_share = 0.0
        self.epochs, self.steps_power = 12, 3.5
        self.weights.update({self.append: 20, self.append_batch: 1})

    def describe(self) -> str:
        """Name the options of the run."""
        schedule = self.schedule + ", O_DSYNC" * self.writes_durably
        return f"{schedule}, persist_every {self.persist_every}, {self.blocks} blocks, {self.checksum}"

    def note(self, step: str) -> None:
        """Keep a step for the message of a failure."""
        self.steps.append(f"- {step}")

    # --- steps -------------------------------------------------------------------------------

    def payload(self, topic: TopicModel) -> bytes:
        """Return a payload that names itself; some hold zeros or bytes of the log's own files."""
        random = self.random
        limit = self.blocks * self.block_size - 4096 - 32
        if random.random() < self.large_share:
            length = random.choice([random.randint(20_000, 40_000), limit])
        elif self.fixed_length is not None:
            length = self.fixed_length
        else:
            length = random.choice([0, random.randint(0, 60), random.randint(0, 60), random.randint(0, 6000)])
        length = min(length, limit)
        self.serial += 1
        kind = random.random()
        if kind < 0.1:
            filler = bytes(length)
        elif kind < 0.2 and self.disk.names:
            data = random.choice(list(self.disk.names.values())).live
            at = random.randrange(0, max(1, len(data) - length), 8)
            filler = bytes(data[at : at + length]).ljust(length, b".")
        else:
            filler = random.randbytes(length)
        return make_payload(topic.name, self.serial, length, filler)

    def append(self, topic: TopicModel) -> None:
        """Append one entry."""
        data = self.payload(topic)
        self.note(f"append {topic.name[:2]}[{len(topic.entries)}] {len(data)} bytes")
        topic.in_doubt.append((len(topic.entries), [data]))
        try:
            offset = self.wal.append_for_topic(topic.name, data)
        except DiskFullError:
            self._not_appended(topic)
            return
        assert offset == len(topic.entries), f"append returned {offset}, not {len(topic.entries)}"
        self._appended(topic)

    def append_batch(self, topic: TopicModel) -> None:
        """Append a batch."""
        count = self.random.choice([1, 2, 3, self.random.randint(1, 12), self.random.randint(1, 60)])
        count = min(count, self.batch_max)
        batch = [self.payload(topic) for _ in range(count)]
        self.note(f"batch {topic.name[:2]}[{len(topic.entries)}] {[len(data) for data in batch]}")
        topic.in_doubt.append((len(topic.entries), batch))
        try:
            offsets = self.wal.batch_append_for_topic(topic.name, batch)
        except DiskFullError:
            self._not_appended(topic)
            return
        expected = range(len(topic.entries), len(topic.entries) + count)
        assert offsets == expected, f"batch returned {offsets}, not {expected}"
        self._appended(topic)

    def _not_appended(self, topic: TopicModel) -> None:
        """The disk was full. What was reserved in vain left nothing, but a write that failed half-way
        may have written all that counts: the rest may be zeros."""
        self.disk.full_for = 0
        if not self.disk.writes_need_space:
            topic.in_doubt.pop()

    def _appended(self, topic: TopicModel) -> None:
        topic.appended(topic.in_doubt.pop()[1])
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
        cursor.may_move(cursor.position + len(expected))
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
        self.note(
            f"batch read {topic.name[:2]}[{cursor.position}] {name}, {max_bytes} bytes, {max_entries} entries"
        )
        expected: list[bytes] = []
        for data in self._visible(topic, name, max_entries):
            if expected and sum(map(len, expected)) + len(data) > max_bytes:
                break
            expected.append(data)
        cursor.may_move(cursor.position + len(expected))
        try:
            entries = self.wal.batch_read_for_topic(
                topic.name, max_bytes, max_entries=max_entries, cursor=name
            )
        except DiskFullError:
            self.disk.full_for = 0
            return
        self._consumed(topic, name, expected, entries)

    def _consumed(self, topic: TopicModel, name: str, expected: list[bytes], entries: list[Any]) -> None:
        cursor = topic.cursors[name]
        found = [entry.data for entry in entries]
        assert found == expected, f"read {len(found)} entries, not {len(expected)}, or other ones"
        assert [entry.offset for entry in entries] == list(
            range(cursor.position, cursor.position + len(found))
        )
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
        cursor.may_move(target)
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
        has_space = not self.disk.full_for
        try:
            self.wal.sync()
        except DiskFullError:
            self.disk.full_for = 0
            return
        for topic in self.topics:
            assert self.wal.durable_offset(topic.name) == len(topic.entries), "sync returned and not durable"
            for cursor in topic.cursors.values():
                cursor.pinned(cursor.position)
            if has_space:
                topic.check_space(self.wal)

    def tick(self, _topic: TopicModel) -> None:
        """Let the flusher do what it was woken for."""
        flusher: Any = self.wal._engine._flusher
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
        # Under O_DSYNC a failed write is a failed sync, whatever the reason.
        self.disk.writes_need_space = not self.writes_durably and self.random.random() < 0.5
