"""When to sync, what a completed sync proves, and who is told.

One thread at a time syncs, for everybody who wrote before: see ``group.py``.

Invariant: ``durable_offset`` of a topic moves only to the end that was published when a sync
of every dirty file holding its bytes began. A failed sync poisons the log; nothing is retried.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Optional, Protocol

from walrus_core import format as fmt
from walrus_core.awaiting import Awaiting
from walrus_core.block import Block, State
from walrus_core.cursorfile import CursorFile
from walrus_core.errors import PoisonedError, StorageError, SyncFailedError, WalrusError
from walrus_core.files import FileCache, LogFile
from walrus_core.gate import Gate
from walrus_core.group import Durable, Group

MARK_INTERVAL_S = 0.1
"""Marks only shorten recovery and tell damage from a torn tail, so a busy tail gets few."""


ROUNDS_MAX = 16
"""Syncs in a row for what is in flight, before blocks are given back and a stop is looked for."""


class Watched(Protocol):
    """What is asked of the way that appends in flight go."""

    watched: bool
    """Somebody will look for what goes this way; the first append that finds it False asks for it."""


class Syncable(Protocol):
    """What the syncer asks of a topic."""

    durable_offset: int
    burst_count: int
    active: Optional[Block]
    """The block that takes entries; what its tail has written is published."""
    unsynced: list[Block]
    """Blocks with bytes that no sync covers."""

    @property
    def next_offset(self) -> int:
        """End of what is published."""

    def begin_sync(self) -> tuple[int, Sequence[tuple[Block, State]]]:
        """Return (published end, blocks with bytes that no sync covers, with their states now), all
        of which the files have."""

    def write_staged(self, for_sync: bool = False) -> None:
        """Give the file what waits in memory. Raises: SyncFailedError: poisoned."""

    def end_sync(self, end_offset: int, blocks: Sequence[tuple[Block, State]]) -> None:
        """Drop what the sync covered, and ``forget`` the topic where nothing is dirty any more."""


class Syncer:
    """Makes dirty topics durable. Threads: any thread may call any method."""

    def __init__(
        self,
        files: FileCache,
        cursors: CursorFile,
        gate: Gate,
        synced: Optional[Callable[[int, float], None]],
        sealed: Callable[[Block, Syncable], None],
        wake: Callable[[], bool],
        urge: Callable[[], object],
        durable_writes: bool,
        keeps_noted: bool,
    ) -> None:
        """``synced`` and ``sealed`` announce (None: nobody listens). ``wake`` tells the flusher that
        something became dirty, and returns whether it will come; ``urge``, that a full block waits for
        its seal. With ``durable_writes`` every write was durable when it returned, so what is published
        needs no sync. With ``keeps_noted`` a topic that is written stays dirty until a sync finds nothing
        new in it: where each append is synced, noting and forgetting it every time would cost more than
        the append."""
        self._files = files
        self._cursors = cursors
        self._cursor_file = cursors.file
        self._gate = gate
        self._synced = synced
        self._sealed = sealed
        self._wake = wake
        self.urge = urge
        self._durable_writes = durable_writes
        self._keeps_noted = keeps_noted
        self._dirty: dict[Syncable, None] = {}
        self.group = Group(self._sync_for)
        self.awaiting = Awaiting(gate, self.failure)
        self._marked_s = 0.0
        self._clean_lock = threading.RLock()

    @property
    def is_idle(self) -> bool:
        """True where no topic has bytes that wait for a sync."""
        if self._keeps_noted:
            return all(topic.next_offset == topic.durable_offset for topic in list(self._dirty))
        return not self._dirty

    def note(self, topic: Syncable) -> bool:
        """Tell that the topic is about to be written. Called before the write.

        Returns: whether the schedule will come for it; else it is to be told again.
        """
        self._dirty[topic] = None
        return self._wake()

    def leave_clean(self) -> None:
        """Take back, durably, that the log was closed cleanly. Called before the first write.

        From then on the next open looks behind every mark. Raises: StorageError: nothing changed.
        Cost: one sync of cursors.db for the first call after an open, then one comparison.
        """
        if self._cursors.is_clean:
            with self._clean_lock:
                if self._cursors.is_clean:
                    self._cursors.set_clean(False)

    def forget(self, topic: Syncable) -> None:
        """Take back ``note``. The caller holds the topic's lock, so that no write comes in between."""
        self._dirty.pop(topic, None)

    def wait(self, topic: Syncable, offset: int) -> None:
        """Return when entries below ``offset`` survive power loss.

        Raises: SyncFailedError, PoisonedError: whether they do is in doubt.
        """
        if topic.durable_offset < offset:
            self.group.wait(topic, offset)

    def sync(self) -> None:
        """Make everything that was written before the call durable. Raises as ``wait``."""
        self.group.lead()

    def sync_in_flight(self, express: Watched, asks: bool) -> None:
        """Sync; where appends in flight ask for a sync, again as long as one asked beside it.

        At most ``ROUNDS_MAX`` times: the caller has other work, and comes again for what asked meanwhile.
        Raises as ``wait``.
        """
        for _ in range(ROUNDS_MAX):
            # What goes the express way from here on asks for the next sync.
            express.watched = not asks
            self.group.lead()
            if not (asks and express.watched):
                return

    def end(self) -> None:
        """Wait for the sync that is under way; the gate lets no other begin. Who still waits is told so.

        Before it returns nothing may be taken away that a sync vouches for. Can be done again.
        """
        self.group.wait_idle()
        self.awaiting.tell()

    def _sync_for(self, topic: Optional[Durable], offset: int) -> None:
        """Sync for everybody, on the thread that leads; ``topic`` and ``offset`` are what it waits for."""
        try:
            if self._gate.failure is not None or self._gate.blocks_writes:
                failure = self.failure()
                if failure is not None:
                    raise failure
            topics = list(self._dirty)
            if len(topics) != 1 or not self._sync_alone(topics[0]):
                self._sync_topics(topics)
            if topic is not None and topic.durable_offset < offset:
                raise self._uncovered(offset)
        finally:
            if self.awaiting.loops:
                self.awaiting.tell()

    def _uncovered(self, offset: int) -> StorageError:
        """A sync that proves nothing for its own caller is a defect of ours: take no more writes."""
        reason = f"a completed sync did not cover offset {offset - 1}"
        failure = StorageError(path=self._gate.path, operation="sync", errno=None, reason=reason)
        self._gate.poison(failure)
        return failure

    def failure(self) -> Optional[WalrusError]:
        """Return the error for those who wait for a sync that will not come, None where it may.

        Who waits while somebody else's sync fails learns the same: its entries are in doubt. So are those
        of who still waits when a close was interrupted before its own sync: ClosedError.
        """
        has_ended, failure = self._gate.blocks_writes, self._gate.failure
        if failure is None:
            return self._gate.ended() if has_ended else None
        again: StorageError = PoisonedError(path=self._gate.path, reason=str(failure))
        if isinstance(failure, SyncFailedError):
            again = SyncFailedError(
                path=failure.path,
                operation=failure.operation,
                errno=failure.errno,
                reason=failure._facts["reason"],
            )
        again.__cause__ = failure
        return again

    def _sync_alone(self, topic: Syncable) -> bool:
        """Sync the only dirty topic, where all that is new lies in its active block.

        Returns: whether it was so; else nothing was done. Raises: SyncFailedError.

        Stands between an append and its acknowledgement, where after each sync no code is in the
        processor's cache any more: so it asks few others, and looks into their objects by itself.
        """
        blocks = list(topic.unsynced)
        if not self._keeps_noted or len(blocks) != 1:
            return False
        block, cursor_file = blocks[0], self._cursor_file
        tail = block.tail
        if tail is None or block.final is not None or cursor_file.written != cursor_file.synced:
            return False
        end_offset = tail.next_offset
        # Asked after the end: what an unpublished block of a batch says of its end is no end of the topic.
        if topic.active is not block or end_offset <= topic.durable_offset:
            return False
        started_s = time.monotonic()
        marks_due = started_s - self._marked_s >= MARK_INTERVAL_S
        state = block.state if marks_due else None
        try:
            tail.write_staged()
        except OSError as error:
            raise self._gate.sync_failed(error, block.file.path, "write") from error
        if not self._durable_writes:
            self._files.sync_one(block.file)
            if self._synced is not None:
                self._synced(1, time.monotonic() - started_s)
        topic.burst_count = end_offset - topic.durable_offset
        topic.durable_offset = end_offset
        if state is not None:
            self._mark(topic, [(block, state)], True)
            self._marked_s = started_s
        return True

    def _sync_topics(self, topics: Sequence[Syncable]) -> None:
        begun = [(topic, *topic.begin_sync()) for topic in topics]
        if self._keeps_noted:
            begun = [item for item in begun if not self._forget_settled(*item)]
        files: dict[LogFile, None] = {}
        if begun and self._cursors.file.is_dirty:
            files[self._cursors.file] = None
        for _topic, _end, blocks in begun:
            for block, _state in blocks:
                files[block.file] = None
        if files and not self._durable_writes:
            started_s = time.monotonic()
            count = self._files.sync(files)
            now_s = time.monotonic()
            if self._synced is not None:
                self._synced(count, now_s - started_s)
        else:
            now_s = time.monotonic()
        marks_due = now_s - self._marked_s >= MARK_INTERVAL_S
        for topic, end_offset, blocks in begun:
            topic.burst_count = max(end_offset - topic.durable_offset, 0)
            topic.durable_offset = max(topic.durable_offset, end_offset)
            self._mark(topic, blocks, marks_due)
            if not (self._keeps_noted and _goes_on(blocks)):
                topic.end_sync(end_offset, blocks)
        if marks_due:
            self._marked_s = now_s

    def _forget_settled(
        self, topic: Syncable, end_offset: int, blocks: Sequence[tuple[Block, State]]
    ) -> bool:
        """Let a topic go that has had nothing new since the last sync. Returns: whether it was so."""
        if end_offset > topic.durable_offset or not _goes_on(blocks):
            return False
        topic.end_sync(end_offset, blocks)
        return True

    def _mark(self, topic: Syncable, blocks: Sequence[tuple[Block, State]], marks_due: bool) -> None:
        """Write what the sync proved: seals always, marks of open blocks now and then.

        A mark that cannot be written is no failure of the sync, whose entries are durable: the next
        sync tries again (or the log is poisoned by now).
        """
        for block, state in blocks:
            # Looked at once: a batch that fails takes it back.
            final = block.final
            if final is None and not marks_due:
                continue
            # A mark vouches for whole batches: nothing of a block that is not published yet.
            if block.is_sealed or block.first_offset + state.entries > topic.durable_offset:
                continue
            try:
                if final is not None and block.first_offset + final.entries <= topic.durable_offset:
                    block.write_mark(final, fmt.MARK_SEALED)
                    block.close_tail()
                    self._sealed(block, topic)
                elif final is None and state.entries and state.at > block.marked_at:
                    block.write_mark(state, 0)
            except StorageError as error:
                self._gate.warn("a mark of %s was not written: %s", block.file.path, error)


def _goes_on(blocks: Sequence[tuple[Block, State]]) -> bool:
    """True where the bytes that no sync covers lie in one block, which takes more entries."""
    return len(blocks) == 1 and blocks[0][0].final is None
