"""Topic: the append path of one topic, and its chain of blocks.

Lives here: where the next entry goes, what is published to readers, when a block ends. Not
here: reading (``reader.py``), the sync itself (``syncer.py``), cursors.

Invariants:
- ``active`` is the last published block: storing it publishes it and every block before it. It
  takes the next entry as long as it has a tail.
- Blocks in ``blocks`` behind ``active`` belong to a batch that was never published.
- Once a header page of a later block may be on disk, the active block takes no more entries:
  then every block on disk whose first offset is lower than its parent's end is known to be dead.
- A topic is noted as dirty before its first write after a sync, and every block with bytes that
  no sync covers is in ``unsynced``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Optional

from walrus_core import format as fmt
from walrus_core import hot
from walrus_core.allocator import Allocator, Lease
from walrus_core.block import Block, State
from walrus_core.cursorfile import CursorPage
from walrus_core.front import Express
from walrus_core.gate import Gate, RLock, take_lock
from walrus_core.pages import BlockHeader
from walrus_core.runway import BUSY_BYTES, FIRST_BYTES, Runway
from walrus_core.syncer import Syncer

UNSEALED_MAX = 32
"""Full blocks that may wait for a sync to seal them, where nothing but reclaim asks for one: a crash
makes recovery walk so many, and one sync for all is less in the writer's way than one for each."""


class Topic:
    """One topic of an open log.

    Threads: ``lock`` serialises writers, ``read_lock`` serialises readers of the topic and keeps
    reclaim out. ``next_offset`` and ``durable_offset`` may be read at any time.
    """

    __slots__ = (
        "_allocator",
        "_clock",
        "_express",
        "_gate",
        "_is_synced_each",
        "_resume_offset",
        "_runway",
        "_syncer",
        "active",
        "blocks",
        "burst_count",
        "durable_offset",
        "encoded",
        "is_dirty",
        "lock",
        "low_water",
        "low_water_durable",
        "name",
        "page",
        "read_lock",
        "unsynced",
    )

    def __init__(
        self,
        name: str,
        page: CursorPage,
        allocator: Allocator,
        syncer: Syncer,
        gate: Gate,
        clock: Optional[Callable[[], int]],
        express: Express,
        is_synced_each: bool,
    ) -> None:
        """A topic without entries; ``restore`` gives it what recovery found.

        ``express``: where appends may go past the lock. ``is_synced_each``: as for ``Runway``.
        """
        self._express = express
        self._is_synced_each = is_synced_each
        self.name = name
        self.encoded = name.encode("utf-8")
        self.page = page
        self._allocator = allocator
        self._syncer = syncer
        self._gate = gate
        self._clock = clock
        self.lock = threading.RLock()
        self.read_lock = threading.RLock()
        self.blocks: list[Block] = []
        self.active: Optional[Block] = None
        self.unsynced: list[Block] = []
        self.is_dirty = False
        self.low_water = 0  # no cursor goes below it any more: cursors.db may say so, and be synced by anyone
        self.low_water_durable = 0  # blocks that end at or below it may go, once nobody reads them
        self._resume_offset = 0
        self._runway: Optional[Runway] = None
        self.durable_offset = 0
        self.burst_count = 0  # entries that the last sync of the topic brought

    def restore(self, blocks: list[Block], next_offset: int, low_water: int, appendable: bool) -> None:
        """Take over what recovery found, all of it durable. Raises: StorageError.

        ``appendable`` says that the last block may go on behind its frames.
        """
        self.blocks = blocks
        self.low_water = self.low_water_durable = low_water
        self._resume_offset = next_offset
        self.durable_offset = next_offset
        if blocks:
            last = blocks[-1]
            if appendable:
                last.open_tail(last.state, last.state.at, self._clock, self._is_synced_each)
                last.final = None
            self.active = last

    # --- what others may ask at any time ----------------------------------------------------

    @property
    def next_offset(self) -> int:
        """Offset that the next entry gets; entries below it are published."""
        active = self.active
        if active is None:
            return self._resume_offset
        tail = active.tail
        return max(active.end_offset, self._resume_offset) if tail is None else tail.next_offset

    @property
    def oldest_offset(self) -> int:
        """Offset of the oldest entry that was not given back, durably, damaged or not."""
        return self.low_water_durable

    @property
    def size_bytes(self) -> int:
        """Bytes of frames in the retained blocks."""
        return sum(block.state.at - fmt.PAGE_SIZE for block in list(self.blocks))

    # --- append -----------------------------------------------------------------------------

    def append(self, data: object) -> int:
        """Write one entry and publish it. Not durable: see ``Syncer.wait``.

        Returns: its offset. Raises: InvalidPayloadError, EntryTooLargeError, DiskFullError,
        TooManyFilesError: nothing changed. StorageError: poisoned, the entry is not published.
        """
        self._gate.check_call()
        with self.lock:
            self.bar()
            self._gate.check_call()
            self.write_staged()
            active = self.active
            offset = -1
            if active is not None and active.tail is not None:
                if not self.is_dirty:
                    self.note_dirty(active)
                offset = self._append_here(active, data)
            if offset < 0:
                payload = hot.as_payload(data)
                self._make_room(hot.frame_size(len(payload)))
                assert self.active is not None, "there is room now"
                offset = self._append_here(self.active, payload)
            self.admit()
            return offset

    def bar(self) -> None:
        """Keep appends out of the express way. Called first by whoever has taken the lock."""
        self._express.bar_tail(self.name)

    def admit(self) -> None:
        """Let appends take the express way, as long as nobody takes the lock. The caller holds it.

        What they do then is all that ``append`` would: the topic is noted as dirty, its block has room.
        """
        active = self.active
        tail = None if active is None else active.tail
        if self.is_dirty and tail is not None:
            self._express.admit_tail(self.name, tail)

    def write_staged(self, for_sync: bool = False) -> None:
        """Write the entries in flight that wait in memory; only the active block has such. Called
        before any other write to the topic, and by a sync that will vouch for them.

        Raises: SyncFailedError (for a sync), StorageError: poisoned. DiskFullError (else): they wait on.
        """
        active = self.active
        tail = None if active is None else active.tail
        if active is None or tail is None:
            return
        try:
            tail.write_staged()
        except OSError as error:
            failed = self._gate.sync_failed if for_sync else self._gate.write_failed
            raise failed(error, active.file.path, "write") from error

    def _append_here(self, block: Block, data: object) -> int:
        tail = block.tail
        if tail is None:
            return -1
        try:
            return tail.append(data)
        except OSError as error:
            raise self._gate.write_failed(error, block.file.path, "write") from error

    def note_dirty(self, block: Block) -> None:
        """Tell the syncer, before the first write after a sync, that ``block`` will need one."""
        self._syncer.leave_clean()
        if block not in self.unsynced:
            self.unsynced.append(block)
        self.is_dirty = self._syncer.note(self)

    def _make_room(self, size: int) -> None:
        """Reserve space for a frame of ``size`` bytes, in the active block or a new one."""
        self._allocator.check_frame(size)
        active = self.active
        if active is not None and self.can_continue(size):
            self.extend_reservation(active, size)
            return
        first_bytes = FIRST_BYTES if active is None else BUSY_BYTES
        lease = self._allocator.lease(size, fmt.PAGE_SIZE + max(size, first_bytes - fmt.PAGE_SIZE))
        self.publish([self.adopt(lease, self.next_offset, self.last_sequence())], None, size)

    def can_continue(self, size: int) -> bool:
        """True where the active block has ``size`` bytes left and nothing torn stands in them."""
        active = self.active
        tail = None if active is None else active.tail
        if tail is None or tail.torn or self.blocks[-1] is not active:
            return False
        return tail.state[0] + size <= tail.end

    def extend_reservation(self, block: Block, size: int) -> None:
        """Reserve ``size`` bytes behind the frames of ``block``, and some more. Raises: DiskFullError."""
        tail = block.tail
        assert tail is not None
        if not tail.has_room(size):
            burst_count = max(self.burst_count, self.next_offset - self.durable_offset)
            self._runway_of(block, tail).extend(size, burst_count)

    def _runway_of(self, block: Block, tail: hot.Tail) -> Runway:
        runway = self._runway
        if runway is None or runway.block is not block:
            runway = self._runway = Runway(block, tail.reserved, self._is_synced_each)
        return runway

    def last_sequence(self) -> int:
        """Sequence of the block that a new one follows (0: none); drops what was never published."""
        self._drop_unpublished()
        return self.blocks[-1].sequence if self.blocks else 0

    def _drop_unpublished(self) -> None:
        """Give up blocks of a batch that was interrupted before it was published."""
        while self.blocks and self.blocks[-1] is not self.active:
            self._give_up(self.blocks.pop())

    def _give_up(self, block: Block) -> None:
        block.close_tail()
        if block in self.unsynced:
            self.unsynced.remove(block)
        self._allocator.give_up(block.segment, block.header.slot, block.header.slots)

    def adopt(self, lease: Lease, first_offset: int, previous_sequence: int) -> Block:
        """Turn a lease into an unpublished block of this topic: header page, tail, list.

        From here on the block before it takes no more entries. Raises: StorageError, DiskFullError:
        the slots are given up.
        """
        self._syncer.leave_clean()
        tail = None if self.active is None else self.active.tail  # once: a sync may be sealing it
        if tail is not None:
            tail.claim(tail.end + 1)
        segment = lease.segment
        header = BlockHeader(
            segment.sequence,
            lease.slot,
            lease.slots,
            lease.sequence,
            self.page.identity.incarnation,
            first_offset,
            previous_sequence,
            self.encoded,
        )
        block = Block(segment, header)
        try:
            segment.write_header(header)
            if lease.slots > 1:
                # Payload will stand where the header pages of the other slots would: a crash must
                # not leave it there without the header page that covers it.
                segment.file.sync()
            block.open_tail(
                State(fmt.PAGE_SIZE, 0, 0, 2**64 - 1, 0), lease.reserved, self._clock, self._is_synced_each
            )
            self.unsynced.append(block)
            self.blocks.append(block)
        except BaseException:
            if block in self.blocks:
                self.blocks.remove(block)
            self._give_up(block)
            raise
        return block

    def publish(self, blocks: Sequence[Block], final: Optional[State], size_bytes: int = 0) -> None:
        """Make new blocks the end of the topic, in one store.

        ``final`` is the state of the block before them, None for as it stands; all new ones but the last
        have their own. ``size_bytes``: of a frame that comes next. Raises: StorageError: none is published.
        """
        before = self.active
        tail = None if before is None else before.tail
        if before is not None and tail is not None:
            before.final = State(*tail.state) if final is None else final
            if before not in self.unsynced:
                # Nothing of this batch went into it, but it has a seal to get.
                self.unsynced.append(before)
        self.is_dirty = self._syncer.note(self)
        # All that may fail comes before the store: what is published has happened.
        last = blocks[-1]
        if last.tail is not None:
            left, runway = self._runway, self._runway_of(last, last.tail)
            runway.extend(size_bytes)
            if left is not None and left is not runway:
                left.leave()
        self.active = last
        if len(self.unsynced) > UNSEALED_MAX:
            self._syncer.urge()

    def withdraw(self, blocks: Sequence[Block]) -> None:
        """Give up blocks that were adopted and not published, after a failure.

        Does nothing where they are published: the failure came after the batch had happened.
        """
        active = self.active
        if active in blocks:
            return
        tail = None if active is None else active.tail
        if blocks and active is not None and tail is not None:
            # It has taken no entries since the first of them was adopted, and a sync may be sealing it.
            active.final = State(*tail.state)
        for block in reversed(blocks):
            if block in self.blocks:
                self.blocks.remove(block)
                self._give_up(block)

    # --- sync -------------------------------------------------------------------------------

    def begin_sync(self) -> tuple[int, list[tuple[Block, State]]]:
        """Return the published end and the published blocks with bytes below it that are not synced.

        The end is read first: a block may be one too many. (Others may be given up meanwhile.) What waits
        in memory is written last, so that the file has all of it. Raises: SyncFailedError: poisoned.
        """
        end_offset, active = self.next_offset, self.active
        last_sequence = 0 if active is None else active.sequence
        blocks = [(block, block.state) for block in list(self.unsynced) if block.sequence <= last_sequence]
        self.write_staged(for_sync=True)
        return end_offset, blocks

    def end_sync(self, end_offset: int, blocks: Sequence[tuple[Block, State]]) -> None:
        """Forget what a completed sync covered.

        A topic that is being written stays dirty; its next sync will find it as it is then.
        """
        held: list[RLock] = []
        try:
            if not take_lock(self.lock, held):
                return
            # First of all: an entry that went past the lock after the looks below would be forgotten.
            self.bar()
            for block, _state in blocks:
                if block.is_sealed and block in self.unsynced:
                    self.unsynced.remove(block)
            if self.next_offset != end_offset or self.unsynced not in ([], [self.active]):
                self.admit()
                return
            # The flag first: should an interrupt come in between, the topic is synced once too often.
            self.is_dirty = False
            self.unsynced.clear()
            self._syncer.forget(self)
        finally:
            if held:
                held[0].release()

    def close_tails(self) -> None:
        """Let go of all files, at close. No append may follow."""
        with self.lock:
            self.bar()
            self.settle()
            for block in self.blocks:
                block.close_tail()

    def settle(self) -> None:
        """Undo what an interrupted batch left in memory: only published blocks remain."""
        active = self.active
        if self.blocks and self.blocks[-1] is not active:
            if active is not None and active.tail is not None:
                active.final = State(*active.tail.state)
            self._drop_unpublished()
