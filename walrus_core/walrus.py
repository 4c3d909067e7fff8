"""Walrus: the public surface of a log. Reads as a table of contents; the work is in the rooms.

append   ``Walrus.append_for_topic`` → ``Topic.append`` → (block full: lease) → encode → write → Syncer
read     ``Walrus.read_next`` → Cursor → reader → frames → Entry
open     lock → plugin → headers → recovery → cursors → ready
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Optional, Union

from walrus_core.batch import append_batch, check_batch
from walrus_core.config import (
    DEFAULT_CURSOR,
    FsyncSchedule,
    Options,
    ReadConsistency,
    check_on_corruption,
    encode_cursor,
    encode_topic,
)
from walrus_core.cursor import Cursor
from walrus_core.engine import Engine
from walrus_core.errors import OffsetOutOfRangeError, PoisonedError, UnknownTopicError, UsageError
from walrus_core.gate import FORKED, OPEN, refuse_reentry
from walrus_core.hot import Entry
from walrus_core.reader import ReadResult, corruption_error, read_entries
from walrus_core.topic import Topic
from walrus_core.types import Damage, RecoveryReport, TopicInfo

if TYPE_CHECKING:
    from walrus_core.builder import WalrusBuilder
    from walrus_core.handle import TopicHandle

MAX_BYTES_DEFAULT = 1 << 20
MAX_ENTRIES_DEFAULT = 2000


class Walrus:
    """A log: named topics of entries in one directory, open for one writer process.

    Durability: what a returned append survives depends on the schedule (docs/guarantees.md);
    ``sync`` and ``durable_offset`` tell exactly. Threads: every method may be called from any
    thread; appends to one topic queue up, and so do reads through one topic's cursors.
    After ``fork`` a child gets ForkedError from every method.
    """

    def __init__(
        self, path: Union[str, Any, None] = None, *, key: Optional[str] = None, **options: Any
    ) -> None:
        """Open the log in ``path``; the keywords are those of ``WalrusBuilder.set``.

        Without ``path``: ``$WALRUS_DATA_DIR`` or ``./wal_files``, and there the namespace
        ``$WALRUS_INSTANCE_KEY`` if it is set. With ``key``: the namespace of that key.

        Raises: ConfigError, PluginError, LockedError, CorruptionError, UnsupportedVersionError,
        StorageError: nothing stays open.
        """
        from walrus_core.builder import WalrusBuilder

        builder = WalrusBuilder().set(**options)
        if path is not None:
            builder.data_dir(path)
        if key is not None:
            builder.key(key)
        self._start(builder.options())

    def _start(self, options: Options) -> None:
        self._engine = Engine(options)
        self._topics = self._engine.topics
        self._waits = options.fsync_schedule.kind == "each"
        self._persist_every = options.consistency.persist_every
        self._on_corruption = options.on_corruption

    # --- constructors -------------------------------------------------------------------------

    @staticmethod
    def builder() -> WalrusBuilder:
        """Return a builder: every option by name, then ``build()``."""
        from walrus_core.builder import WalrusBuilder

        return WalrusBuilder()

    @classmethod
    def from_options(cls, options: Options) -> Walrus:
        """Open the log that validated ``options`` describe. Raises as the constructor."""
        wal = cls.__new__(cls)
        wal._start(options)
        return wal

    @classmethod
    def open(cls, path: Union[str, Any], **options: Any) -> Walrus:
        """Open the log in ``path``. Same as the constructor."""
        return cls(path, **options)

    @classmethod
    def with_consistency(cls, consistency: ReadConsistency) -> Walrus:
        """Open the default directory with a consistency model."""
        return cls(consistency=consistency)

    @classmethod
    def with_consistency_and_schedule(cls, consistency: ReadConsistency, schedule: FsyncSchedule) -> Walrus:
        """Open the default directory with a consistency model and a sync schedule."""
        return cls(consistency=consistency, fsync_schedule=schedule)

    @classmethod
    def new_for_key(cls, key: str) -> Walrus:
        """Open the namespace of ``key`` in the default directory."""
        return cls(key=key)

    @classmethod
    def with_consistency_for_key(cls, key: str, consistency: ReadConsistency) -> Walrus:
        """Open the namespace of ``key`` with a consistency model."""
        return cls(key=key, consistency=consistency)

    @classmethod
    def with_consistency_and_schedule_for_key(
        cls, key: str, consistency: ReadConsistency, schedule: FsyncSchedule
    ) -> Walrus:
        """Open the namespace of ``key`` with a consistency model and a sync schedule."""
        return cls(key=key, consistency=consistency, fsync_schedule=schedule)

    # --- append -------------------------------------------------------------------------------

    def append_for_topic(self, topic: str, data: Any) -> int:
        """Append one entry; a new topic begins with its first entry.

        Args:
            topic: 1 to 1 024 bytes of UTF-8 without NUL.
            data: any bytes-like object; it may be reused when the call returns.

        Returns: the offset of the entry in its topic.

        Raises: InvalidTopicError, InvalidPayloadError, EntryTooLargeError, DiskFullError,
        TooManyFilesError: nothing changed. SyncFailedError (sync-each): the entry is in doubt and
        not visible, the log is poisoned. StorageError: poisoned. PoisonedError, ClosedError.

        Durability: sync-each: survives power loss on return. Else survives the death of the process.
        """
        found = self._lookup(topic)
        if found is None:
            found = self._new_topic(topic, data)
        offset = found.append(data)
        if self._waits:
            self._engine.syncer.wait(found, offset + 1)
        return offset

    def batch_append_for_topic(self, topic: str, batch: Iterable[Any]) -> range:
        """Append all entries of ``batch`` or none, for readers at any moment and after any crash.

        Args:
            batch: up to 2 000 payloads, together up to 10 GiB. An empty batch changes nothing.

        Returns: the offsets of the entries.

        Raises: as ``append_for_topic``, and BatchTooLargeError: nothing changed.
        """
        encode_topic(topic)
        payloads = check_batch(batch)
        self._engine.gate.check_call()
        found = self._lookup(topic)
        if not payloads:
            next_offset = 0 if found is None else found.next_offset
            return range(next_offset, next_offset)
        if found is None:
            found = self._new_topic(topic, max(payloads, key=len))
        offsets = append_batch(found, payloads, self._engine.allocator, self._engine.gate)
        if self._waits:
            self._engine.syncer.wait(found, offsets.stop)
        return offsets

    def _new_topic(self, topic: str, data: Any) -> Topic:
        """Make a topic for an entry that could be appended; nothing for one that could not."""
        from walrus_core import hot

        encoded = encode_topic(topic)
        self._engine.gate.check_call()
        payload = hot.as_payload(data)
        self._engine.allocator.check_frame(hot.frame_size(len(payload)))
        return self._engine.make_topic(topic, encoded)

    # --- read ---------------------------------------------------------------------------------

    def read_next(
        self,
        topic: str,
        checkpoint: bool = True,
        *,
        cursor: str = DEFAULT_CURSOR,
        on_corruption: Optional[str] = None,
    ) -> Optional[Entry]:
        """Return the next entry that the cursor has not consumed, or None.

        Args:
            checkpoint: consume it. False peeks: nothing moves, nothing is written.
            cursor: name of the reader's position; each name reads the whole topic for itself.
            on_corruption: "raise" or "skip" for this call; None takes the log's option.

        Raises: CorruptionError: damage stands at the cursor, which has not moved; with "skip" the
        damage is passed and listed in ``damages``. StorageError: the cursor has not moved.

        Durability: strictly-at-once: the checkpoint is durable before the call returns (and if it
        never returns, the entry counts as read). At-least-once: every ``persist_every`` entries.
        """
        found = self._find(topic)
        if found is None:
            encode_cursor(cursor)
            return None
        refuse_reentry(found.read_lock, "a read")
        with found.read_lock:
            position, end_offset = self._ready_cursor(found, cursor)
            skips = self._skips(on_corruption)
            result = position.next_entry(end_offset)
            passed = position.offset
            while not result.entries and result.damage is not None:
                passed = self._pass_damage(result.damage, skips)
                result = self._read(found, passed, end_offset, MAX_BYTES_DEFAULT, 1)
            if result.entries:
                passed = result.entries[0].offset + 1
            if checkpoint and passed > position.offset:
                self._engine.keep_cursor(position)
                position.advance(passed, self._persist_every)
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
        skips = self._skips(on_corruption)
        found = self._find(topic)
        if found is None:
            return self._read_nothing(topic, start_offset)
        refuse_reentry(found.read_lock, "a read")
        with found.read_lock:
            if start_offset is not None:
                return self._read_from(found, start_offset, max_bytes, max_entries, skips)
            position, end_offset = self._ready_cursor(found, cursor)
            start = position.start_offset()
            entries, passed = self._read_on(found, start, end_offset, max_bytes, max_entries, skips)
            if checkpoint and passed > position.offset:
                self._engine.keep_cursor(position)
                position.advance(passed, self._persist_every)
        if checkpoint and entries:
            self._engine.request_reclaim(found)
        return entries

    def _find(self, topic: str) -> Optional[Topic]:
        gate = self._engine.gate
        if gate.state != OPEN:
            gate.check_open()
        return self._lookup(topic)

    def _lookup(self, topic: str) -> Optional[Topic]:
        """Return the topic, None where it does not exist. Raises: InvalidTopicError: it never could."""
        try:
            found = self._topics.get(topic)
        except TypeError:
            found = None
        if found is None:
            encode_topic(topic)
        return found

    def _ready_cursor(self, topic: Topic, name: str) -> tuple[Cursor, int]:
        """Return the cursor and the offset below which it may read. The caller holds the read lock."""
        engine = self._engine
        engine.gate.check_open()
        if name != DEFAULT_CURSOR:
            encode_cursor(name)
        position = engine.cursor(topic, name)
        position.check()
        end_offset = engine.visible_end(topic)
        if engine.gate.failure is not None and position.start_offset() >= end_offset:
            raise PoisonedError(
                path=engine.gate.path, reason=str(engine.gate.failure)
            ) from engine.gate.failure
        return position, end_offset

    def _skips(self, on_corruption: Optional[str]) -> bool:
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
        if not min(oldest, end_offset) <= offset <= end_offset:
            if engine.gate.failure is not None and offset <= topic.next_offset:
                raise PoisonedError(
                    path=engine.gate.path, reason=str(engine.gate.failure)
                ) from engine.gate.failure
            raise OffsetOutOfRangeError(topic=topic.name, offset=offset, oldest=oldest, next=end_offset)
        return self._read_on(topic, offset, end_offset, max_bytes, max_entries, skips)[0]

    def _read_nothing(self, topic: str, start_offset: Optional[int]) -> list[Entry]:
        if start_offset:
            raise OffsetOutOfRangeError(topic=topic, offset=start_offset, oldest=0, next=0)
        return []

    # --- positions ----------------------------------------------------------------------------

    def cursor_offset(self, topic: str, cursor: str = DEFAULT_CURSOR) -> int:
        """Return the offset that the cursor reads next; 0 for an unknown topic."""
        found = self._find(topic)
        if found is None:
            return 0
        with found.read_lock:
            return self._ready_position(found, cursor)

    def _ready_position(self, topic: Topic, name: str) -> int:
        self._engine.gate.check_open()
        encode_cursor(name)
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
        refuse_reentry(found.read_lock, "a read")
        with found.read_lock:
            self._engine.gate.check_call()
            end_offset = self._engine.visible_end(found)
            oldest = found.oldest_offset
            if isinstance(offset, bool) or not isinstance(offset, int) or not oldest <= offset <= end_offset:
                raise OffsetOutOfRangeError(topic=topic, offset=offset, oldest=oldest, next=end_offset)
            position = self._engine.cursor(found, cursor)
            self._engine.keep_cursor(position)
            position.seek(offset)
        self._engine.request_reclaim(found)

    def next_offset(self, topic: str) -> int:
        """Return the offset that the next entry of the topic gets; 0 for an unknown topic."""
        found = self._find(topic)
        return 0 if found is None else found.next_offset

    def oldest_offset(self, topic: str) -> int:
        """Return the offset of the oldest retained entry; the next offset where none is retained."""
        found = self._find(topic)
        return 0 if found is None else found.oldest_offset

    def durable_offset(self, topic: str) -> int:
        """Return the offset below which entries survive power loss; 0 for an unknown topic."""
        found = self._find(topic)
        return 0 if found is None else found.durable_offset

    def sync(self) -> None:
        """Make every entry that was appended before the call, and every cursor, durable.

        Raises: SyncFailedError: what was not durable before is in doubt, the log is poisoned.
        PoisonedError, ClosedError.
        """
        self._engine.sync()

    # --- facts --------------------------------------------------------------------------------

    def topics(self) -> list[str]:
        """Return the names of all topics that ever had an entry, sorted."""
        self._engine.gate.check_open()
        return sorted(topic.name for topic in self._engine.live_topics())

    def topic_entry_count(self, topic: str) -> int:
        """Return how many entries the default cursor has not consumed; 0 for an unknown topic."""
        found = self._find(topic)
        return 0 if found is None else self._unread(found)

    def _unread(self, topic: Topic) -> int:
        position = self._engine.cursor(topic, DEFAULT_CURSOR)
        return max(0, self._engine.visible_end(topic) - position.start_offset())

    def topic_entry_counts(self) -> dict[str, int]:
        """Return ``topic_entry_count`` of every topic."""
        self._engine.gate.check_open()
        return {topic.name: self._unread(topic) for topic in self._engine.live_topics()}

    def topic_size(self, topic: str) -> int:
        """Return the stored bytes (frames) of the topic's retained blocks; 0 for an unknown topic."""
        found = self._find(topic)
        return 0 if found is None else found.size_bytes

    def topic_info(self, topic: str) -> TopicInfo:
        """Return offsets, counts and sizes of a topic. Raises: UnknownTopicError."""
        found = self._find(topic)
        if found is None or found.next_offset == 0:
            raise UnknownTopicError(topic=topic)
        return TopicInfo(
            name=topic,
            oldest_offset=found.oldest_offset,
            next_offset=found.next_offset,
            durable_offset=found.durable_offset,
            unread_count=self._unread(found),
            size_bytes=found.size_bytes,
            block_count=len(found.blocks),
        )

    def topic_is_clean(self, topic: str) -> bool:
        """Return whether nothing was appended since the topic was marked clean.

        A topic without entries is clean; any append makes it dirty again.
        """
        found = self._find(topic)
        if found is None or found.next_offset == 0:
            return True
        return found.page.state.clean_plus_one == found.next_offset + 1

    def mark_topic_clean(self, topic: str) -> None:
        """Mark the topic clean as it is now. An unknown topic is clean already.

        Raises: StorageError: the mark is as before. Durability: durable on return, entries too.
        """
        found = self._find(topic)
        if found is None or found.next_offset == 0:
            return
        self._engine.gate.check_call()
        end_offset = found.next_offset
        self._engine.syncer.wait(found, end_offset)
        self._write_clean(found, end_offset + 1)

    def mark_topic_dirty(self, topic: str) -> None:
        """Take the clean mark back. Raises: UnknownTopicError, StorageError: the mark is as before."""
        found = self._find(topic)
        if found is None or found.next_offset == 0:
            raise UnknownTopicError(topic=topic)
        self._engine.gate.check_call()
        self._write_clean(found, 0)

    def _write_clean(self, topic: Topic, clean_plus_one: int) -> None:
        self._engine.cursors.write_state(topic.page, clean_plus_one=clean_plus_one)
        self._engine.cursors.sync()

    @property
    def path(self) -> str:
        """The directory of this log."""
        return self._engine.options.path

    @property
    def options(self) -> Options:
        """What the log was opened with."""
        return self._engine.options

    @property
    def backend_name(self) -> str:
        """Name of the backend in use."""
        name: str = self._engine.backend.name
        return name

    @property
    def recovery_report(self) -> RecoveryReport:
        """What opening the directory found and did."""
        return self._engine.report

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Damage that recovery and reads have met so far, skipped or not (at most 1 000 kept)."""
        return tuple(self._engine.damages)

    # --- handle, context, end -------------------------------------------------------------------

    def topic(self, name: str) -> TopicHandle:
        """Return a handle for one topic; nothing is created before the first append."""
        from walrus_core.handle import TopicHandle

        encode_topic(name)
        return TopicHandle(self, name)

    @property
    def is_closed(self) -> bool:
        """True after ``close``."""
        return self._engine.gate.state != OPEN

    def close(self) -> None:
        """Sync what is written, persist cursors, join the thread, release the directory. Idempotent.

        Raises: ForkedError in a forked child. SyncFailedError, StorageError: once; the log is
        closed all the same, and what was not durable is in doubt.
        """
        if self._engine.gate.state == FORKED:
            self._engine.gate.check_open()
        self._engine.close()

    def __enter__(self) -> Walrus:
        """Return the log itself; the end of the block closes it."""
        self._engine.gate.check_open()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the log."""
        self._engine.close()

    def __repr__(self) -> str:
        """Name directory, backend and state."""
        engine = self._engine
        return f"<Walrus {engine.options.path!r} backend={engine.backend.name} {engine.gate.state}>"

    def __del__(self) -> None:
        """Warn about a log that was dropped open; no I/O happens here."""
        engine = getattr(self, "_engine", None)
        if engine is not None and engine.gate.state == OPEN:
            warnings.warn(f"unclosed log {engine.options.path!r}", ResourceWarning, stacklevel=2, source=self)
            engine.abandon()


def _check_positive(option: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{option} must be a whole number, not {value!r}")
    if value <= 0:
        raise UsageError(f"{option} must be positive, not {value}")
