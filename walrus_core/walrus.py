"""Walrus: the public surface of a log. Reads as a table of contents; the work is in the rooms.

append   ``Walrus.append_for_topic`` → ``Topic.append`` → (block full: lease) → encode → write → Syncer
read     ``Walrus.read_next`` → Cursor → reader → frames → Entry
open     lock → plugin → headers → recovery → cursors → ready
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Optional, Union

from walrus_core import hot
from walrus_core.batch import append_batch, check_batch
from walrus_core.config import FsyncSchedule, Options, ReadConsistency, encode_topic
from walrus_core.engine import Engine
from walrus_core.errors import OffsetOutOfRangeError, StorageError
from walrus_core.gate import FORKED, OPEN
from walrus_core.reading import TopicReads
from walrus_core.topic import Topic

if TYPE_CHECKING:
    import asyncio

    from walrus_core.builder import WalrusBuilder
    from walrus_core.handle import TopicHandle


def _running_loop() -> asyncio.AbstractEventLoop:
    """Return the running loop; after the first call by ``asyncio`` itself, which is slow to import."""
    global _running_loop
    from asyncio import get_running_loop

    _running_loop = get_running_loop
    return get_running_loop()


class Walrus(TopicReads):
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
        self._express = self._engine.express
        self._in_flight = self._engine.express_in_flight
        self._waits = options.fsync_schedule.kind == "each"
        self._door = self._engine.door
        self._group = self._engine.syncer.group if self._waits and hot.COMPILED else None
        self._until = self._engine.syncer.awaiting.until
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

    def _append_entry(self, topic: str, data: Any) -> int:
        """Append one entry, the long way; see ``append_for_topic``."""
        with self._engine.door.enter("an append"):
            found = self._topic_for(topic, data)
            offset = found.append(data)
            if self._waits:
                self._engine.syncer.wait(found, offset + 1)
            return offset

    def _append_in_flight(self, topic: str, data: Any) -> int:
        """Append one entry and do not wait, the long way; see ``append_nowait``."""
        with self._engine.door.enter("an append"):
            offset = self._topic_for(topic, data).append(data)
        if self._waits:
            self._engine.request_sync()
        return offset

    def _request_sync(self) -> bool:
        """Ask for a sync of what went the express way. Returns: whether it will come."""
        return self._engine.request_sync()

    def _topic_for(self, topic: str, data: Any) -> Topic:
        """Return the topic, made for an entry that could be appended. Raises: nothing changed."""
        found = self._lookup(topic)
        return self._new_topic(topic, data) if found is None else found

    def _append_batch(self, topic: str, batch: Iterable[Any]) -> range:
        """Append a batch, the long way; see ``batch_append_for_topic``."""
        encode_topic(topic)
        payloads = check_batch(batch)
        engine = self._engine
        with engine.door.enter("an append"):
            engine.gate.check_call()
            found = self._lookup(topic)
            if not payloads:
                next_offset = 0 if found is None else found.next_offset
                return range(next_offset, next_offset)
            if found is None:
                found = self._new_topic(topic, max(payloads, key=len))
            offsets = append_batch(found, payloads, engine.allocator, engine.gate)
            if self._waits:
                engine.syncer.wait(found, offsets.stop)
            return offsets

    def _write_error(self, topic: str, error: OSError) -> StorageError:
        """Return what to raise for a write that failed on the express way; as ``Topic.append`` does."""
        active = self._topics[topic].active
        path = self._engine.options.path if active is None else active.file.path
        return self._engine.gate.write_failed(error, path, "write")

    def _new_topic(self, topic: str, data: Any) -> Topic:
        """Make a topic for an entry that could be appended; nothing for one that could not."""
        encoded = encode_topic(topic)
        self._engine.gate.check_call()
        payload = hot.as_payload(data)
        self._engine.allocator.check_frame(hot.frame_size(len(payload)))
        return self._engine.make_topic(topic, encoded)

    # --- durability ---------------------------------------------------------------------------

    async def append_async(self, topic: str, data: Any) -> int:
        """Append one entry and return its offset once it survives power loss; for ``asyncio``.

        Many may be under way on one event loop: a sync serves them all. With an interval schedule
        the next one does, with the others one is begun at once. A call that is cancelled has
        appended its entry all the same; ``append_nowait`` says what that survives.

        Raises: as ``append_nowait``; SyncFailedError: the entry is in doubt, the log is poisoned.
        RuntimeError: no ``asyncio`` loop runs here; nothing changed.
        """
        # First: where none runs nothing is appended.
        loop = _running_loop()
        offset = self.append_nowait(topic, data)
        found = self._topics[topic]
        if found.durable_offset <= offset:
            # With sync-each it was asked for by now, unless there was no thread to ask.
            if not (self._waits and self._in_flight.watched) and not self._engine.request_sync():
                self.wait_durable(topic, offset)
            await self._until(loop, found, offset)
        return offset

    def wait_durable(self, topic: str, offset: int) -> None:
        """Return when the entry at ``offset``, and so every one before it, survives power loss.

        Syncs by itself unless somebody is at it. Raises: OffsetOutOfRangeError: there is no such
        entry yet. SyncFailedError: what was not durable before is in doubt. PoisonedError, ClosedError.
        """
        found = self._find(topic)
        next_offset = 0 if found is None else found.next_offset
        if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < next_offset:
            raise OffsetOutOfRangeError(topic=topic, offset=offset, oldest=0, next=next_offset)
        if found is not None and found.durable_offset <= offset:
            with self._engine.door.enter("a wait for a sync"):
                self._engine.gate.check_open()
                self._engine.syncer.wait(found, offset + 1)

    def sync(self) -> None:
        """Make every entry that was appended before the call, and every cursor, durable.

        Raises: SyncFailedError: what was not durable before is in doubt, the log is poisoned.
        PoisonedError, ClosedError.
        """
        self._engine.sync()

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

        An interrupt ends the syncing, not the giving back: it is raised when the background thread and
        every other sync have ended and the directory is free. Whoever still waits for entries to become
        durable gets ClosedError: they may be there after the next open, or not.

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
