"""Cursor: a named reader's next offset in one topic, and its checkpoints.

Invariants: ``offset`` never moves back by itself and never passes the topic's visible end;
``saved_offset`` is durable, and so is every entry below it; whenever a consuming read returns,
``offset - saved_offset`` is less than the consistency model's ``persist_every``.

Threads: the caller holds the topic's ``read_lock``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Optional

from walrus_core.config import DEFAULT_CURSOR
from walrus_core.cursorfile import CursorFile, CursorPage
from walrus_core.errors import CorruptionError, DiskFullError, StorageError, TooManyFilesError
from walrus_core.format import PAGE_CURSOR
from walrus_core.front import Ready
from walrus_core.reader import ReadResult, read_ahead
from walrus_core.syncer import Syncer
from walrus_core.topic import Topic


class Cursor:
    """One cursor. Its page exists from its first checkpoint on; for a named one that is its first move."""

    __slots__ = ("_cursors", "_syncer", "is_there", "lost", "name", "page", "ready", "saved_offset", "topic")

    def __init__(
        self, name: str, topic: Topic, cursors: CursorFile, syncer: Syncer, page: Optional[CursorPage]
    ) -> None:
        """``page`` None: nothing was ever consumed through this cursor."""
        self.name = name
        self.topic = topic
        self._cursors = cursors
        self._syncer = syncer
        self.page = page
        self.saved_offset = 0 if page is None else page.state.offset
        self.ready = Ready(self.saved_offset)
        self.lost = page is not None and page.damaged
        """Both states of the page were unreadable: reads raise until ``seek``."""
        self.is_there = page is not None or name == DEFAULT_CURSOR
        """It is there after a crash, as its page is durable; the default one always is."""

    @property
    def offset(self) -> int:
        """Offset that is read next."""
        return self.ready.offset

    def check(self) -> None:
        """Raises: CorruptionError: the position is lost; ``Walrus.seek`` sets a new one."""
        if self.lost:
            raise CorruptionError(
                message=f"the position of cursor {self.name!r} of topic {self.topic.name!r} is damaged; "
                "set it anew with seek()",
                kind="cursor states",
                path=self._cursors.file.path,
                at_bytes=0,
                topic=self.topic.name,
                offset=None,
                end_offset=None,
            )

    def start_offset(self) -> int:
        """Return the next offset to read; what was reclaimed is behind every cursor."""
        return max(self.ready.offset, self.topic.low_water)

    def next_entry(self, end_offset: int) -> ReadResult:
        """Return the next entry below ``end_offset`` as a result of none or one. Moves nothing."""
        offset = self.start_offset()
        if offset >= end_offset:
            return ReadResult([], None)
        entry = self.ready.peek(offset)
        if entry is None:
            ahead = read_ahead(self.topic, offset, end_offset)
            self.ready.fill(ahead.run, 0, offset, ahead.end_offset)
            entry = self.ready.peek(offset)
            if entry is None:
                return ReadResult([], ahead.damage)
        return ReadResult([entry], None)

    def advance(self, offset: int, persist_every: int) -> None:
        """Move to ``offset``, durably where the consistency model asks for it.

        Raises: StorageError: the cursor stands where it stood.
        """
        if offset - self.saved_offset >= persist_every or self._must_come():
            self.persist(offset)
        self.ready.move(offset)

    def _must_come(self) -> bool:
        """True for one that is not there after a crash, where it would hold back no reclaim: what it had not
        read yet could go, and it would begin behind that. (A poisoned log gives nothing back.)"""
        return not self.is_there and self._syncer.failure() is None

    def seek(self, offset: int) -> None:
        """Set the position, forwards or back, durably. Raises: StorageError: as before."""
        self.persist(offset)
        self.ready.drop()
        self.ready.move(offset)
        self.lost = False

    def persist(self, offset: int) -> None:
        """Make ``offset`` the durable position, after the entries below it are durable.

        Raises: SyncFailedError, StorageError: the old position holds in memory.
        Cost: one small write and one sync, and a sync of the entries where they need it.
        """
        self._syncer.wait(self.topic, offset)
        try:
            self.write_state(offset)
            self._cursors.sync()
        except BaseException:
            # After an interrupt the page may be ahead of the cursor, and be durable with any other sync.
            if self._syncer.failure() is None and self.differs(self.saved_offset):
                self.write_state(self.saved_offset)
            raise
        self.note_saved(offset)

    def note_saved(self, offset: int) -> None:
        """Note that ``offset`` is durable on its page."""
        # First: an interrupt before the second leaves one that is kept, at an offset that is durable too.
        self.is_there = True
        self.saved_offset = offset

    def differs(self, offset: int) -> bool:
        """True where the page says something else than ``offset``: behind it, or ahead of it where an
        interrupt came between the write and the move. Never where the position is lost: a seek sets it."""
        if self.page is None or self.lost:
            return self.page is None and offset > 0
        return self.page.state.offset != offset

    def write_state(self, offset: int) -> None:
        """Write the position without a sync. The entries below it must be durable."""
        self._cursors.write_state(self.make_page(), offset=offset)

    def make_page(self) -> CursorPage:
        """Return its page, made where there is none; not durable. Raises: StorageError: nothing changed."""
        if self.page is None:
            topic = self.topic
            incarnation = topic.page.identity.incarnation
            self.page = self._cursors.add(PAGE_CURSOR, incarnation, topic.encoded, self.name.encode("utf-8"))
        return self.page


def persist_moved(
    topics: Sequence[Topic], cursors_of: Callable[[Topic], Sequence[Cursor]], cursors: CursorFile
) -> Optional[StorageError]:
    """Make the position of every cursor of these topics durable, with one sync; with another before it where
    some have no page yet. The entries below them must be durable. Takes the topics' read locks.

    Returns: the first error of a cursor for whose page there was no space; the others are durable.
    Raises: SyncFailedError, StorageError, PoisonedError: the old positions hold in memory.
    """
    # All pages before all states: the first state syncs, so that every page is settled.
    _for_moved(topics, cursors_of, lambda cursor, _offset: cursor.make_page())
    moved, failures = _for_moved(topics, cursors_of, Cursor.write_state)
    if cursors.file.is_dirty:
        cursors.sync()
    for cursor, offset in moved:
        with cursor.topic.read_lock:
            if not cursor.differs(offset):  # as after a seek meanwhile
                cursor.note_saved(offset)
    return failures[0] if failures else None


def _for_moved(
    topics: Sequence[Topic],
    cursors_of: Callable[[Topic], Sequence[Cursor]],
    call: Callable[[Cursor, int], object],
) -> tuple[list[tuple[Cursor, int]], list[StorageError]]:
    """Call with every cursor whose page says something else, and its offset.

    Returns: with which it went well, and the errors of those for which there was no space.
    """
    done: list[tuple[Cursor, int]] = []
    failures: list[StorageError] = []
    for topic in topics:
        with topic.read_lock:
            for cursor in cursors_of(topic):
                offset = min(cursor.offset, topic.durable_offset)  # once: reads go on past the lock
                if cursor.differs(offset):
                    try:
                        call(cursor, offset)
                        done.append((cursor, offset))
                    except (DiskFullError, TooManyFilesError) as error:
                        failures.append(error)
    return done, failures
