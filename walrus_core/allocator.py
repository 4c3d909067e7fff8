"""Leases blocks to topics: picks free slots, creates segments, hands out block sequences.

Invariants: no slot is leased twice; a block sequence is never handed out twice, not even after
a crash that loses the lease, because a durable reservation covers every sequence before use
(stale frames of a lost lease would pass the checksums of a new block of the same sequence).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Optional

from attrs import frozen

from walrus_core import format as fmt
from walrus_core.config import Options
from walrus_core.cursorfile import LOG_PAGE, CursorFile
from walrus_core.errors import EntryTooLargeError, StorageError, WalrusError
from walrus_core.files import FileCache
from walrus_core.pages import SegmentHeader
from walrus_core.segment import Segment, create_segment, remove_segment
from walrus_core.types import SegmentInfo

SEQUENCES_RESERVED = 1024


@frozen
class Lease:
    """Slots that belong to the holder, their first bytes reserved; no header page yet."""

    segment: Segment
    slot: int
    slots: int
    sequence: int
    reserved: int
    """Reserved bytes from the start of the block."""


SPARE_SLOTS_MAX = 8
"""Slots that keep their space when they are given back, to be leased again soon."""
SPARE_BYTES_MIN = 1024 * 1024
"""Smaller slots never do: their space is given back in microseconds."""


class Allocator:
    """The segments of a log and their free slots. Threads: any; one lock guards everything."""

    def __init__(
        self,
        files: FileCache,
        cursors: CursorFile,
        options: Options,
        random_bytes: Callable[[int], bytes],
        now: Callable[[], int],
        created: Callable[[SegmentInfo], None],
        reclaimed: Callable[[SegmentInfo], None],
    ) -> None:
        """``created`` and ``reclaimed`` announce segments to observers."""
        self._files = files
        self._cursors = cursors
        self._options = options
        self._random_bytes = random_bytes
        self._now = now
        self._created = created
        self._reclaimed = reclaimed
        self._lock = threading.RLock()
        self.segments: dict[int, Segment] = {}
        self.highest_sequence = 0
        """Highest segment sequence that any file name in the directory has had."""
        self._next_block = 0
        self._reserved_blocks = 0
        self._unwiped: dict[tuple[Segment, int, int], None] = {}
        """(segment, slot, slots) given up, header page not durably zero yet."""

    def start(self, segments: list[Segment], highest_sequence: int, highest_block: int) -> None:
        """Take over what recovery found.

        ``highest_block`` is the highest block sequence in the segments. It lies below the reservation,
        unless cursors.db is an older one than the segments: a block that follows one of a higher
        sequence would be no block for the next open.
        """
        self.segments = {segment.sequence: segment for segment in segments}
        self.highest_sequence = highest_sequence
        reserved = self._cursors.pages[LOG_PAGE].state.offset
        self._next_block = self._reserved_blocks = max(reserved, highest_block + 1)

    @property
    def entry_bytes_max(self) -> int:
        """Largest payload that a segment of the present options holds."""
        size = self._options.block_size_bytes * self._options.blocks_per_segment
        return min(size - fmt.PAGE_SIZE - fmt.FRAME_HEADER_SIZE, 2**32 - 1) & -fmt.FRAME_ALIGN

    def check_frame(self, size: int) -> None:
        """Raises: EntryTooLargeError: no segment holds a frame of ``size`` bytes."""
        limit = self.entry_bytes_max
        if size > fmt.FRAME_HEADER_SIZE + limit:
            raise EntryTooLargeError(length_bytes=size - fmt.FRAME_HEADER_SIZE, limit_bytes=limit)

    def slots_for(self, frame_bytes: int) -> int:
        """How many slots a block needs to hold frames of ``frame_bytes`` together."""
        return -(-(frame_bytes + fmt.PAGE_SIZE) // self._options.block_size_bytes)

    @property
    def block_size_bytes(self) -> int:
        """Size of one slot of new segments."""
        return self._options.block_size_bytes

    def lease(self, frame_bytes: int, reserve_bytes: int) -> Lease:
        """Take a block that holds a frame of ``frame_bytes`` and reserve its first bytes.

        Returns: the lease, whose header page is durably zero. Raises: DiskFullError,
        TooManyFilesError: nothing leased. StorageError, SyncFailedError: poisoned.
        Cost: one directory and two file syncs where a segment must be created.
        """
        with self._lock:
            sequence = self._take_sequence()
            segment, slot, slots = self._find(frame_bytes)
            length = min(reserve_bytes, slots * segment.header.block_size_bytes)
            segment.file.reserve(segment.slot_at(slot), length)
            segment.free.difference_update(range(slot, slot + slots))
            segment.spare.difference_update(range(slot, slot + slots))
            segment.live = segment.header.slot_count - len(segment.free)
            return Lease(segment, slot, slots, sequence, length)

    def _take_sequence(self) -> int:
        if self._next_block >= self._reserved_blocks:
            until = self._next_block + SEQUENCES_RESERVED
            self._check_number(until)
            self._cursors.write_state(self._cursors.pages[LOG_PAGE], offset=until)
            self._cursors.sync()
            self._reserved_blocks = until
        sequence = self._next_block
        self._next_block = sequence + 1
        return sequence

    def _find(self, frame_bytes: int) -> tuple[Segment, int, int]:
        """Return (segment, slot, slots), creating a segment where no free slots fit."""
        for segment in self.segments.values():
            slots = -(-(frame_bytes + fmt.PAGE_SIZE) // segment.header.block_size_bytes)
            slot = segment.adjacent_free(slots)
            if slot is not None:
                return segment, slot, slots
        segment = self._create()
        slots = self.slots_for(frame_bytes)
        slot = segment.adjacent_free(slots)
        assert slot is not None, "an entry that fits a segment fits a new one"
        return segment, slot, slots

    def _create(self) -> Segment:
        salt = int.from_bytes(self._random_bytes(8), "little")
        sequence = self.highest_sequence + 1
        self._check_number(sequence)
        header = SegmentHeader(
            self._cursors.log_id,
            sequence,
            self._options.block_size_bytes,
            self._options.blocks_per_segment,
            fmt.CHECKSUMS[self._options.checksum],
            salt,
            self._now(),
        )
        self.highest_sequence = sequence
        segment = create_segment(self._files, self._options.path, header)
        self.segments[sequence] = segment
        self._created(segment.info)
        return segment

    def _check_number(self, number: int) -> None:
        """Raises: StorageError: a file or page names a number so high that none is left; nothing changed."""
        if number > fmt.NUMBER_MAX:
            reason = "no sequence number is left"
            raise StorageError(path=self._options.path, operation="grow", errno=None, reason=reason)

    def give_back(self, lease: Lease) -> None:
        """Return a lease whose header page was never written, and the space reserved for it."""
        segment = lease.segment
        with self._lock:
            if self._files.backend.capabilities.discard:
                try:
                    segment.file.discard(segment.slot_at(lease.slot), lease.reserved)
                except WalrusError as error:
                    self._files.gate.warn("space of an unused block was not given back: %s", error)
            segment.free.update(range(lease.slot, lease.slot + lease.slots))
            segment.live = segment.header.slot_count - len(segment.free)

    def give_up(self, segment: Segment, slot: int, slots: int) -> None:
        """Return slots whose header page may hold something; they become free by ``wipe``."""
        # Without the lock: whoever holds it may be waiting for a lock that the caller holds.
        self._unwiped.setdefault((segment, slot, slots))

    @property
    def has_unwiped(self) -> bool:
        """True where slots wait for ``wipe``."""
        return bool(self._unwiped)

    def wipe(self) -> None:
        """Zero the header pages of slots given up, durably, free them, and remove empty segments.

        Safe to interrupt and to repeat. Raises: StorageError: the rest waits for the next call.
        """
        with self._lock:
            batch = list(self._unwiped)
            if not batch:
                return
            for segment, slot, slots in batch:
                segment.wipe_marks(slot, slots)
            self._files.sync(segment.file for segment, _slot, _slots in batch)
            kept = self._wipe_pages(batch)
            self._files.sync(segment.file for segment, _slot, _slots in batch)
            for item in batch:
                segment, slot, slots = item
                self._unwiped.pop(item, None)
                segment.free.update(range(slot, slot + slots))
                if item in kept:
                    segment.spare.update(range(slot, slot + slots))
                segment.live = segment.header.slot_count - len(segment.free)
            self._remove_empty()

    def _wipe_pages(self, batch: list[tuple[Segment, int, int]]) -> list[tuple[Segment, int, int]]:
        """Zero the header pages of slots and give their space back, but for a few large ones.

        Returns: those that keep their space. To punch a large block takes the file system milliseconds, in
        which every sync of the directory waits; to write where there was a block before takes less than
        to write into new space.
        """
        can_discard = self._files.backend.capabilities.discard
        room = SPARE_SLOTS_MAX - sum(len(segment.spare) for segment in self.segments.values())
        kept = []
        for item in batch:
            segment, slot, slots = item
            # The zeros first, so that the slots are free whatever the backend's discard does.
            segment.wipe(slot)
            if can_discard and segment.header.block_size_bytes >= SPARE_BYTES_MIN and slots <= room:
                room -= slots
                kept.append(item)
            elif can_discard:
                segment.discard(slot, slots)
        return kept

    def discard_spares(self) -> None:
        """Give the space of all spare slots back, at close. Raises: StorageError: some are still spare."""
        with self._lock:
            for segment in self.segments.values():
                while segment.spare:
                    slot = min(segment.spare)
                    segment.discard(slot, 1)
                    segment.spare.discard(slot)

    def _remove_empty(self) -> None:
        """Remove segments without a leased block; the newest stays, so that sequences only grow."""
        newest = max(self.segments, default=0)
        waiting = {segment.sequence for segment, _slot, _slots in list(self._unwiped)}
        for segment in list(self.segments.values()):
            if segment.live or segment.sequence == newest or segment.sequence in waiting:
                continue
            info = segment.info
            del self.segments[segment.sequence]
            remove_segment(self._files, self._options.path, segment)
            self._reclaimed(info)


def new_log_id(random_bytes: Optional[Callable[[int], bytes]]) -> bytes:
    """Return 16 random bytes that name a log for good."""
    return (random_bytes or os.urandom)(16)
