"""The express way past a topic's locks, or rather its absence: the pure twin of ``_front_c.pyx``.

In pure Python nothing is faster than the long way, and no step is whole for other threads without
a lock. So this twin admits nothing; it says what the names mean, and every call takes the long way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Optional

from walrus_core import hot
from walrus_core.hot import Entry, Tail


class Ready:
    """Where a cursor stands, and the frames read ahead of it.

    ``offset`` is the cursor's next offset; an express read may take the entry there while
    ``offset`` is below ``limit``. The frames are verified when they come; each becomes an entry
    when it is taken, so that what is read ahead costs its bytes and no objects.

    Threads: the caller holds the topic's read lock.
    """

    __slots__ = ("_at", "_end", "_next", "_run", "limit", "offset")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.limit = 0
        self.drop()

    def move(self, offset: int) -> None:
        """Set the cursor's next offset."""
        self.offset = offset

    def fill(self, run: bytes, at: int, offset: int, end_offset: int) -> None:
        """Take over verified frames, entries ``[offset, end_offset)``, in ``run`` from ``at`` on."""
        if not 0 <= at <= len(run):
            raise ValueError(f"no place in a run of {len(run)} bytes: {at}")
        self._run, self._at, self._next, self._end = run, at, offset, end_offset

    def drop(self) -> None:
        """Forget the frames."""
        self._run, self._at, self._next, self._end = b"", 0, 0, 0

    def peek(self, offset: int) -> Optional[Entry]:
        """Return the entry at ``offset``, or None where it is not among them; earlier ones are dropped."""
        while self._next < self._end:
            if self._next > offset:
                return None
            entry = hot.entry_in(self._run, self._at, self._next)
            if entry is None or self._next == offset:
                return entry
            self._at += hot.frame_size(len(entry.data))
            self._next += 1
        return None


class Express:
    """Which tails and cursors of one log may be used without their locks.

    ``blocked`` says that none may: the log is poisoned, closed, or inherited by a forked child.
    ``watched``: somebody will look for what goes this way and is not durable. Who makes it False
    syncs next; the first append after that asks for the next sync.
    """

    def __init__(self) -> None:
        self.blocked = False
        self.watched = True

    def admit_tail(self, topic: str, tail: Tail) -> None:
        """Let appends to the topic go into ``tail`` directly; the caller holds the topic's lock."""

    def bar_tail(self, topic: str) -> None:
        """Let no append go past the topic's lock any more; the caller has just taken it."""

    def admit_cursor(self, topic: str, ready: Ready) -> None:
        """Let the topic's default cursor take from ``ready``; the caller holds the read lock."""

    def bar_cursor(self, topic: str) -> None:
        """Let no read go past the read lock any more; the caller has just taken it."""


class Front:
    """Base of Walrus: the calls that have an express way."""

    _express: Express
    _in_flight: Express
    _group: Any
    _door: Any

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
        return self._append_entry(topic, data)

    def append_nowait(self, topic: str, data: Any) -> int:
        """Append one entry and return its offset at once, whatever the schedule is.

        With sync-each the log syncs in the background what is in flight, and the entry is visible
        once it is durable. ``wait_durable`` waits for that, ``durable_offset`` tells, and
        ``append_async`` is awaited until then. Else the same as ``append_for_topic``.

        Durability: sync-each: none on return, not even against the death of the process, since the
        entry may wait in memory for its sync. Else survives the death of the process.

        Raises: as ``append_for_topic``; a sync that fails later poisons the log.
        """
        return self._append_in_flight(topic, data)

    def batch_append_for_topic(self, topic: str, batch: Iterable[Any]) -> range:
        """Append all entries of ``batch`` or none, for readers at any moment and after any crash.

        Args:
            batch: up to 2 000 payloads, together up to 10 GiB. An empty batch changes nothing.

        Returns: the offsets of the entries.

        Raises: as ``append_for_topic``, and BatchTooLargeError: nothing changed.
        """
        return self._append_batch(topic, batch)

    def read_next(
        self,
        topic: str,
        checkpoint: bool = True,
        *,
        cursor: str = "default",
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
        never returns, the entry counts as read). At-least-once: every ``persist_every`` entries,
        and at the first one that a new name reads.
        """
        return self._read_one(topic, checkpoint, cursor, on_corruption)

    def _request_sync(self) -> bool:
        raise NotImplementedError

    # --- the long way, which ``Walrus`` and its bases have ------------------------------------------

    def _append_entry(self, topic: str, data: Any) -> int:
        raise NotImplementedError

    def _append_in_flight(self, topic: str, data: Any) -> int:
        raise NotImplementedError

    def _append_batch(self, topic: str, batch: Iterable[Any]) -> range:
        raise NotImplementedError

    def _read_one(
        self, topic: str, checkpoint: bool, cursor: str, on_corruption: Optional[str]
    ) -> Optional[Entry]:
        raise NotImplementedError
