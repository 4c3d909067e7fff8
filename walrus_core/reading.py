"""TopicReads: reading through cursors and from offsets, and what is done about damage."""

from __future__ import annotations

from typing import Optional

from walrus_core.config import DEFAULT_CURSOR, check_on_corruption, encode_cursor
from walrus_core.cursor import Cursor
from walrus_core.errors import OffsetOutOfRangeError, PoisonedError, UnknownTopicError, UsageError
from walrus_core.facts import TopicFacts
from walrus_core.gate import OPEN
from walrus_core.hot import Entry
from walrus_core.reader import ReadResult, corruption_error, read_entries
from walrus_core.topic import Topic
from walrus_core.types import Damage

MAX_BYTES_DEFAULT = 1 << 20
MAX_ENTRIES_DEFAULT = 2000


class TopicReads(TopicFacts):
    """Reads of an open log. Reads through one topic's cursors queue up."""

    _persist_every: int
    _on_corruption: str

    def _read_one(
        self, topic: str, checkpoint: bool, cursor: str, on_corruption: Optional[str]
    ) -> Optional[Entry]:
        """Read and consume the next entry, the long way; see ``read_next``."""
        found = self._find(topic)
        skips = self._check_arguments(cursor, on_corruption)
        if found is None:
            return None
        with self._engine.door.enter("a read"), found.read_lock:
            position, end_offset = self._ready_cursor(found, cursor, checkpoint)
            result = position.next_entry(end_offset)
            passed = position.offset
            while not result.entries and result.damage is not None:
                passed = self._pass_damage(result.damage, skips)
                result = self._read(found, passed, end_offset, MAX_BYTES_DEFAULT, 1)
            if result.entries:
                passed = result.entries[0].offset + 1
            if checkpoint and passed > position.offset:
                self._advance(position, passed)
                self._admit(found, position)
            entry = result.entries[0] if result.entries else None
        if checkpoint and entry is not None:
            self._engine.request_reclaim(found)
        return entry

    def batch_read_for_topic(
        self,
        topic: str,
        max_bytes: int = MAX_BYTES_DEFAULT,
        checkpoint: bool = True,
        start_offset: Optional[int] = None,
        *,
        max_entries: int = MAX_ENTRIES_DEFAULT,
        cursor: str = DEFAULT_CURSOR,
        on_corruption: Optional[str] = None,
    ) -> list[Entry]:
        """Return entries in order, from the cursor or from ``start_offset`` on.

        Args:
            max_bytes: budget of payload bytes; a first entry larger than it comes alone.
            checkpoint: consume what is returned (ignored with ``start_offset``).
            start_offset: read from this offset instead; no cursor is asked or moved.
            max_entries: how many at most.

        Returns: the sound entries up to the budget, the end, or damage.

        Raises: CorruptionError: damage stands at the very start; the cursor has not moved.
        OffsetOutOfRangeError, UsageError: nothing changed. StorageError.
        """
        _check_positive("max_bytes", max_bytes)
        _check_positive("max_entries", max_entries)
        found = self._find(topic)
        skips = self._check_arguments(cursor, on_corruption)
        if found is None:
            return self._read_nothing(topic, start_offset)
        with self._engine.door.enter("a read"), found.read_lock:
            if start_offset is not None:
                return self._read_from(found, start_offset, max_bytes, max_entries, skips)
            position, end_offset = self._ready_cursor(found, cursor, checkpoint)
            start = position.start_offset()
            entries, passed = self._read_on(found, start, end_offset, max_bytes, max_entries, skips)
            if checkpoint and passed > position.offset:
                self._advance(position, passed)
        if checkpoint and entries:
            self._engine.request_reclaim(found)
        return entries

    def _ready_cursor(self, topic: Topic, name: str, moves: bool) -> tuple[Cursor, int]:
        """Return the cursor and the offset below which it may read. The caller holds the read lock.

        One that ``moves`` is kept before it reads: nothing ahead of it may be given back meanwhile.
        """
        engine = self._engine
        engine.express.bar_cursor(topic.name)
        if engine.gate.state != OPEN:
            engine.gate.check_open()
        position = engine.cursor(topic, name)
        if position.lost:
            position.check()
        end_offset = engine.visible_end(topic)
        has_entries = position.start_offset() < end_offset
        if moves and has_entries:
            engine.keep_cursor(position)
        if engine.gate.failure is not None and not has_entries:
            raise PoisonedError(
                path=engine.gate.path, reason=str(engine.gate.failure)
            ) from engine.gate.failure
        return position, end_offset

    def _advance(self, position: Cursor, offset: int) -> None:
        try:
            position.advance(offset, self._persist_every)
        except BaseException:
            self._engine.forget_unmoved(position)
            raise

    def _admit(self, topic: Topic, position: Cursor) -> None:
        """Let reads take what is decoded ahead past the lock, up to where a checkpoint is due."""
        if position.name == DEFAULT_CURSOR and self._persist_every > 1:
            position.ready.limit = position.saved_offset + self._persist_every - 1
            self._engine.express.admit_cursor(topic.name, position.ready)

    def _check_arguments(self, cursor: str, on_corruption: Optional[str]) -> bool:
        """Return whether damage is to be skipped. Raises: InvalidTopicError, ConfigError."""
        if cursor != DEFAULT_CURSOR:
            encode_cursor(cursor)
        if on_corruption is None:
            return self._on_corruption == "skip"
        check_on_corruption(on_corruption)
        return on_corruption == "skip"

    def _read(
        self, topic: Topic, offset: int, end_offset: int, max_bytes: int, max_entries: int
    ) -> ReadResult:
        return read_entries(topic, offset, end_offset, max_bytes, max_entries)

    def _pass_damage(self, damage: Damage, skips: bool) -> int:
        """Return the offset behind the damage, or raise it."""
        self._engine.note_damage(damage)
        if not skips or damage.end_offset is None:
            raise corruption_error(damage)
        return damage.end_offset

    def _read_on(
        self, topic: Topic, offset: int, end_offset: int, max_bytes: int, max_entries: int, skips: bool
    ) -> tuple[list[Entry], int]:
        """Return (entries from ``offset`` on, offset behind the last of them or of the damage passed)."""
        while True:
            result = self._read(topic, offset, end_offset, max_bytes, max_entries)
            if result.entries:
                return result.entries, result.entries[-1].offset + 1
            if result.damage is None:
                return [], offset
            offset = self._pass_damage(result.damage, skips)

    def _read_from(
        self, topic: Topic, offset: int, max_bytes: int, max_entries: int, skips: bool
    ) -> list[Entry]:
        engine = self._engine
        engine.gate.check_open()
        end_offset = engine.visible_end(topic)
        oldest = topic.oldest_offset
        if isinstance(offset, bool) or not isinstance(offset, int):
            raise UsageError(f"start_offset must be a whole number, not {offset!r}")
        failure = engine.gate.failure
        if failure is not None and end_offset <= offset <= topic.next_offset != end_offset:
            # Not the end of the topic: what was published behind it is in doubt.
            raise PoisonedError(path=engine.gate.path, reason=str(failure)) from failure
        if not min(oldest, end_offset) <= offset <= end_offset:
            raise OffsetOutOfRangeError(topic=topic.name, offset=offset, oldest=oldest, next=end_offset)
        return self._read_on(topic, offset, end_offset, max_bytes, max_entries, skips)[0]

    def _read_nothing(self, topic: str, start_offset: Optional[int]) -> list[Entry]:
        if start_offset:
            raise OffsetOutOfRangeError(topic=topic, offset=start_offset, oldest=0, next=0)
        return []

    def cursor_offset(self, topic: str, cursor: str = DEFAULT_CURSOR) -> int:
        """Return the offset that the cursor reads next; 0 for an unknown topic."""
        found = self._find(topic)
        encode_cursor(cursor)
        if found is None:
            return 0
        with self._engine.door.enter("a question after a cursor"), found.read_lock:
            return self._ready_position(found, cursor)

    def _ready_position(self, topic: Topic, name: str) -> int:
        self._engine.gate.check_open()
        position = self._engine.cursor(topic, name)
        position.check()
        return position.start_offset()

    def seek(self, topic: str, offset: int, cursor: str = DEFAULT_CURSOR) -> None:
        """Set the cursor so that ``offset`` is read next: acknowledge up to it, or go back.

        Raises: UnknownTopicError, OffsetOutOfRangeError, PoisonedError: nothing changed.
        StorageError: the cursor has not moved. Durability: durable on return.
        """
        found = self._find(topic)
        if found is None or found.next_offset == 0:
            raise UnknownTopicError(topic=topic)
        encode_cursor(cursor)
        with self._engine.door.enter("a seek"), found.read_lock, self._engine.reclaimer.lock:
            self._engine.express.bar_cursor(found.name)
            self._engine.gate.check_call()
            end_offset = self._engine.visible_end(found)
            oldest = found.low_water
            if isinstance(offset, bool) or not isinstance(offset, int) or not oldest <= offset <= end_offset:
                raise OffsetOutOfRangeError(topic=topic, offset=offset, oldest=oldest, next=end_offset)
            position = self._engine.cursor(found, cursor)
            self._engine.keep_cursor(position)
            try:
                position.seek(offset)
            except BaseException:
                self._engine.forget_unmoved(position)
                raise
        self._engine.request_reclaim(found)


def _check_positive(option: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{option} must be a whole number, not {value!r}")
    if value <= 0:
        raise UsageError(f"{option} must be positive, not {value}")
