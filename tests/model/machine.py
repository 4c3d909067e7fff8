"""A log driven by random steps beside a plain list of what was appended.

Blocks of 16 KiB and segments of two to four of them, so that a batch crosses both in every run.
Nothing happens in the background: the flusher stands still, and ``tick`` is a step of its own.
"""

from __future__ import annotations

import gc
import warnings
from typing import Any, ClassVar, Optional, Union
from unittest import mock

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from walrus_core import FsyncSchedule, ReadConsistency, Walrus, engine
from walrus_core.errors import OffsetOutOfRangeError, UnknownTopicError
from walrus_core.testing import CursorModel, TopicModel, make_payload

from ..crash.still import StillFlusher
from .places import Place

BLOCK_SIZE = 16384
NAMES = ["plain", "żółw €", "n" * 1024, "fourth"]
CURSORS = ["default", "ś"]
SCHEDULES = {
    "each": FsyncSchedule.sync_each(),
    "interval": FsyncSchedule.milliseconds(60_000),
    "never": FsyncSchedule.no_fsync(),
}
LARGE = st.integers(20_000, 40_000)
LENGTHS = st.one_of(st.integers(0, 60), st.integers(0, 6000))
BUDGETS = st.one_of(st.sampled_from([1, 6000, 1 << 20]), st.tuples(st.integers(1, 5), st.integers(-1, 1)))
"""Payload bytes; a pair stands for what so many entries have together, and one byte more or less."""


class LogMachine(RuleBasedStateMachine):
    """The steps. A subclass says where the log lives."""

    make_place: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.still = mock.patch.object(engine, "Flusher", StillFlusher)
        self.still.start()
        self.place: Place = self.make_place()
        self.topics: list[TopicModel] = []
        self.serial = 0
        self.wal: Optional[Walrus] = None

    @initialize(
        schedule=st.sampled_from(sorted(SCHEDULES)),
        persist_every=st.sampled_from([1, 1, 2, 5, 100]),
        checksum=st.sampled_from(["fnv1a64", "crc32c"]),
        blocks=st.integers(2, 4),
        topic_count=st.integers(2, 4),
    )
    def start(self, schedule: str, persist_every: int, checksum: str, blocks: int, topic_count: int) -> None:
        """Open a new log, and append a batch that is longer than a segment."""
        self.schedule, self.persist_every, self.checksum, self.blocks = (
            schedule,
            persist_every,
            checksum,
            blocks,
        )
        self.topics = [TopicModel(name) for name in NAMES[:topic_count]]
        self.wal = self.opened()
        assert self.wal.topics() == []
        self.append_batch(0, [5500] * 12)
        assert self.wal.topic_info(NAMES[0]).block_count > blocks

    def teardown(self) -> None:
        """Close what is open."""
        try:
            if self.wal is not None:
                self.wal.close()
        finally:
            self.still.stop()
            self.place.remove()

    @property
    def log(self) -> Walrus:
        """The open log."""
        assert self.wal is not None
        return self.wal

    def opened(self) -> Walrus:
        """Open the log as it lies there."""
        return Walrus(
            self.place.path,
            backend=self.place.backend(),
            block_size=BLOCK_SIZE,
            blocks_per_segment=self.blocks,
            checksum=self.checksum,
            fsync_schedule=SCHEDULES[self.schedule],
            consistency=ReadConsistency(self.persist_every),
        )

    def topic(self, number: int) -> TopicModel:
        """Return one of the topics."""
        return self.topics[number % len(self.topics)]

    def visible(self, topic: TopicModel) -> int:
        """Return the offset below which readers see entries: all, or with sync-each the durable ones."""
        return topic.durable if self.schedule == "each" else len(topic.entries)

    def payload(self, topic: TopicModel, length: int) -> bytes:
        """Return a payload that says whose it is; none is longer than a segment holds."""
        self.serial += 1
        return make_payload(topic.name, self.serial, min(length, self.blocks * BLOCK_SIZE - 4096 - 32))

    # --- append ------------------------------------------------------------------------------

    @rule(number=st.integers(0, 3), length=st.one_of(LENGTHS, LENGTHS, LARGE))
    def append(self, number: int, length: int) -> None:
        """Append one entry."""
        topic = self.topic(number)
        data = self.payload(topic, length)
        assert self.log.append_for_topic(topic.name, data) == len(topic.entries)
        self.took(topic, [data])

    @rule(
        number=st.integers(0, 3),
        lengths=st.lists(LENGTHS, max_size=12),
        large=st.one_of(st.none(), st.none(), LARGE),
    )
    def append_batch(self, number: int, lengths: list[int], large: Optional[int] = None) -> None:
        """Append a batch, sometimes with an entry of several slots, sometimes of none."""
        topic = self.topic(number)
        batch = [self.payload(topic, length) for length in [*lengths, *([] if large is None else [large])]]
        start = len(topic.entries)
        assert self.log.batch_append_for_topic(topic.name, batch) == range(start, start + len(batch))
        if batch:
            self.took(topic, batch)

    def took(self, topic: TopicModel, batch: list[bytes]) -> None:
        """Note what was acknowledged."""
        topic.appended(batch)
        topic.clean_at = {None}
        if self.schedule == "each":
            assert self.log.durable_offset(topic.name) == len(topic.entries)
            topic.durable = len(topic.entries)

    # --- read --------------------------------------------------------------------------------

    def expected(self, topic: TopicModel, start: int, max_bytes: int, max_entries: int) -> list[bytes]:
        """Return what a batch read must return: the first entry, and more while the budget lasts."""
        taken: list[bytes] = []
        for data in topic.entries[start : min(self.visible(topic), start + max_entries)]:
            if taken and sum(map(len, taken)) + len(data) > max_bytes:
                break
            taken.append(data)
        return taken

    def budget(self, topic: TopicModel, start: int, budget: Union[int, tuple[int, int]]) -> int:
        """Return how many payload bytes a read from ``start`` may return."""
        if isinstance(budget, int):
            return budget
        count, more = budget
        return max(1, sum(map(len, topic.entries[start : start + count])) + more)

    def compare(self, entries: list[Any], expected: list[bytes], start: int) -> None:
        """Compare offsets and bytes."""
        assert [entry.offset for entry in entries] == list(range(start, start + len(expected)))
        assert [entry.data for entry in entries] == expected

    def consumed(self, cursor: CursorModel, count: int) -> None:
        """Move the model of a cursor."""
        if count:
            cursor.moved(cursor.position + count, self.persist_every)

    @rule(number=st.integers(0, 3), name=st.sampled_from(CURSORS), checkpoint=st.booleans())
    def read_next(self, number: int, name: str, checkpoint: bool) -> None:
        """Consume the next entry, or peek at it."""
        topic = self.topic(number)
        cursor = topic.cursor(self.log, name)
        entry = self.log.read_next(topic.name, checkpoint, cursor=name)
        expected = self.expected(topic, cursor.position, 1, 1)
        self.compare([] if entry is None else [entry], expected, cursor.position)
        if checkpoint:
            self.consumed(cursor, len(expected))

    @rule(
        number=st.integers(0, 3),
        name=st.sampled_from(CURSORS),
        budget=BUDGETS,
        max_entries=st.sampled_from([1, 3, 2000]),
        checkpoint=st.sampled_from([True, True, False]),
    )
    def read_batch(self, number: int, name: str, budget: Any, max_entries: int, checkpoint: bool) -> None:
        """Consume entries up to a budget, or peek at them."""
        topic = self.topic(number)
        cursor = topic.cursor(self.log, name)
        max_bytes = self.budget(topic, cursor.position, budget)
        expected = self.expected(topic, cursor.position, max_bytes, max_entries)
        entries = self.log.batch_read_for_topic(
            topic.name, max_bytes, checkpoint, max_entries=max_entries, cursor=name
        )
        self.compare(entries, expected, cursor.position)
        if checkpoint:
            self.consumed(cursor, len(expected))

    @rule(number=st.integers(0, 3), share=st.floats(-0.2, 1.2), budget=BUDGETS)
    def read_from(self, number: int, share: float, budget: Any) -> None:
        """Read from an offset; no cursor is asked or moved."""
        topic = self.topic(number)
        oldest, end = self.log.oldest_offset(topic.name), self.visible(topic)
        start = oldest + int(share * (end - oldest + 1))
        max_bytes = self.budget(topic, max(start, 0), budget)
        if not oldest <= start <= end:
            with pytest.raises(OffsetOutOfRangeError):
                self.log.batch_read_for_topic(topic.name, max_bytes, start_offset=start)
            return
        entries = self.log.batch_read_for_topic(topic.name, max_bytes, start_offset=start)
        self.compare(entries, self.expected(topic, start, max_bytes, 2000), start)

    @rule(number=st.integers(0, 3), name=st.sampled_from(CURSORS), share=st.floats(-0.1, 1.1))
    def seek(self, number: int, name: str, share: float) -> None:
        """Set a cursor."""
        topic = self.topic(number)
        oldest, end = self.log.oldest_offset(topic.name), self.visible(topic)
        target = oldest + int(share * (end - oldest + 1))
        if not topic.entries or not oldest <= target <= end:
            with pytest.raises(OffsetOutOfRangeError if topic.entries else UnknownTopicError):
                self.log.seek(topic.name, target, name)
            return
        cursor = topic.cursor(self.log, name)
        self.log.seek(topic.name, target, name)
        cursor.is_kept = True
        cursor.pinned(target)

    # --- durability and marks ------------------------------------------------------------------

    @rule()
    def sync(self) -> None:
        """Make everything durable; blocks that every cursor has passed may be given back."""
        self.log.sync()
        self.everything_is_durable()
        for topic in self.topics:
            topic.check_space(self.log)

    def everything_is_durable(self) -> None:
        """Note what sync and close promise."""
        for topic in self.topics:
            topic.durable = len(topic.entries)
            for cursor in topic.cursors.values():
                cursor.pinned(cursor.position)

    @rule()
    def tick(self) -> None:
        """Do what the flusher would do."""
        self.log._engine.tick()

    @rule(number=st.integers(0, 3), is_clean=st.booleans())
    def mark(self, number: int, is_clean: bool) -> None:
        """Mark a topic clean or dirty."""
        topic = self.topic(number)
        if is_clean:
            self.log.mark_topic_clean(topic.name)
        elif topic.entries:
            self.log.mark_topic_dirty(topic.name)
        else:
            with pytest.raises(UnknownTopicError):
                self.log.mark_topic_dirty(topic.name)
        topic.clean_at = {len(topic.entries) if is_clean else None}

    # --- end and begin -------------------------------------------------------------------------

    @rule(pick=st.randoms(use_true_random=False))
    def reopen(self, pick: Any) -> None:
        """Close and open: nothing is lost, nothing needs to be scanned."""
        self.log.close()
        self.everything_is_durable()
        self.wal = self.opened()
        report = self.wal.recovery_report
        assert report.clean, report
        self.check(pick)

    @precondition(lambda self: self.wal is not None)
    @rule(pick=st.randoms(use_true_random=False))
    def kill(self, pick: Any) -> None:
        """Drop the instance without close, and open what it has left."""
        self.place.kill()
        self.wal = self.drop()
        self.wal = self.opened()
        self.check(pick)

    def drop(self) -> None:
        """Let go of the instance; it warns, as it should."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            self.wal = None
            gc.collect()

    def check(self, pick: Any) -> None:
        """Compare everything with the model."""
        report = self.log.recovery_report
        assert (report.damages, report.cuts, report.clamped_cursors) == ((), (), ())
        for topic in self.topics:
            topic.check(self.log, pick, all_survives=True)
            assert len(self.log.topic(topic.name)) == len(topic.entries) - topic.oldest
            assert [entry.data for entry in self.log.topic(topic.name)] == topic.entries[topic.oldest :]

    # --- what always holds ---------------------------------------------------------------------

    @invariant()
    def facts_agree(self) -> None:
        """Offsets, counts, names and marks agree with the model."""
        if self.wal is None:
            return
        wal = self.wal
        live = [topic for topic in self.topics if topic.entries]
        assert wal.topics() == sorted(topic.name for topic in live)
        unread: dict[str, int] = {}
        for topic in self.topics:
            topic.observe(wal)
            count = self.visible(topic) - topic.cursor(wal, "default").position
            assert wal.topic_entry_count(topic.name) == count
            assert wal.topic_is_clean(topic.name) == (
                not topic.entries or topic.clean_at == {len(topic.entries)}
            )
            if topic.entries:
                unread[topic.name] = count
                kept = sum(map(len, topic.entries[topic.oldest :]))
                assert wal.topic_size(topic.name) >= kept + 32 * (len(topic.entries) - topic.oldest)
        assert wal.topic_entry_counts() == unread
