"""Block: a run of slots leased to one topic, and the frames in it.

Knows where its bytes lie and how far they go. Not here: which topic it serves next, when to
sync. Positions are bytes from the start of the block unless a name says otherwise.

Invariants: entries ``[first_offset, first_offset + state.entries)`` lie in ``[PAGE_SIZE, state.at)``;
``final``, once set, is what holds of a block that takes no more entries.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable
from typing import NamedTuple, Optional

from walrus_core import format as fmt
from walrus_core import hot
from walrus_core.backend import Buffer
from walrus_core.files import Decoded
from walrus_core.pages import BlockHeader, Mark
from walrus_core.segment import Segment
from walrus_core.types import BlockInfo, Position

PLACE_SPACING_BYTES = 64 * 1024
NO_TIMESTAMP = 2**64 - 1


class State(NamedTuple):
    """How far a block is filled: end of its frames, their count, and totals over them."""

    at: int
    entries: int
    payload_bytes: int
    low_ns: int
    high_ns: int


EMPTY = State(fmt.PAGE_SIZE, 0, 0, NO_TIMESTAMP, 0)


class Block:
    """One leased block. Threads: the topic's lock guards ``final`` and ``tail``; marks belong to
    whoever holds the sync lock; ``places`` belongs to readers of the topic."""

    __slots__ = (
        "file",
        "final",
        "generation",
        "header",
        "is_clean",
        "is_sealed",
        "key",
        "marked_at",
        "places",
        "recent_place",
        "segment",
        "tail",
    )

    def __init__(self, segment: Segment, header: BlockHeader) -> None:
        """``header`` is what the header page says or will say."""
        self.segment = segment
        self.file = segment.file
        self.header = header
        self.key = hot.block_key(segment.header.salt, header.sequence)
        self.tail: Optional[hot.Tail] = None
        self.final: Optional[State] = None
        self.is_sealed = False
        self.is_clean = False
        """The newest mark on the medium says that nothing stands behind it."""
        self.generation = 0
        self.marked_at = 0
        """End of the frames as the newest written mark has it."""
        self.places: list[tuple[int, int]] = [(0, fmt.PAGE_SIZE)]
        """Known (index, at) pairs, ascending, about every PLACE_SPACING_BYTES."""
        self.recent_place = (0, fmt.PAGE_SIZE)
        """Where the last read ended: the next one mostly begins there."""

    @property
    def sequence(self) -> int:
        """The block's own number, never used twice in a log."""
        return self.header.sequence

    @property
    def first_offset(self) -> int:
        """Offset of the first entry."""
        return self.header.first_offset

    @property
    def algorithm(self) -> int:
        """Checksum algorithm of its segment."""
        return self.segment.header.algorithm

    @property
    def length_bytes(self) -> int:
        """Size of all slots of the block."""
        return self.header.slots * self.segment.header.block_size_bytes

    @property
    def base(self) -> int:
        """Position of the block in its segment."""
        return self.segment.slot_at(self.header.slot)

    @property
    def state(self) -> State:
        """How far the block is filled now."""
        # The tail first: it goes only after ``final`` has come.
        tail = self.tail
        final = self.final
        if final is not None:
            return final
        return EMPTY if tail is None else State(*tail.state)

    @property
    def end_offset(self) -> int:
        """Offset behind the last entry."""
        return self.first_offset + self.state.entries

    def info(self, topic: str) -> BlockInfo:
        """Facts for people and observers."""
        return BlockInfo(
            topic=topic,
            sequence=self.sequence,
            position=Position(segment_sequence=self.segment.sequence, at_bytes=self.base),
            slot_count=self.header.slots,
            first_offset=self.first_offset,
            end_offset=self.end_offset,
            used_bytes=self.state.at,
        )

    def read(self, at: int, length: int) -> Buffer:
        """Return ``length`` bytes from ``at``. Raises: StorageError."""
        return self.file.read(self.base + at, length)

    def decode(self, at: int, length: int, *frames: int) -> Decoded:
        """Read and decode frames from ``at``; see ``LogFile.decode``. Raises: StorageError."""
        return self.file.decode(self.base + at, length, *frames)

    def skip_hole(self, at: int) -> int:
        """Return the first place from ``at`` on, at most the end, that is not known to be a hole. It may
        be one all the same. Raises: StorageError."""
        found = self.file.skip_hole(self.base + at) - self.base
        return min(max(found, at), max(self.length_bytes, at))

    def write(self, at: int, data: Buffer) -> None:
        """Write ``data`` at ``at``. Raises: DiskFullError; StorageError: poisoned."""
        self.file.write(self.base + at, data)

    def reserve(self, at: int, length: int) -> None:
        """Reserve space. Raises: DiskFullError: undone."""
        self.file.reserve(self.base + at, length)

    def open_tail(
        self, state: State, reserved: int, clock: Optional[Callable[[], int]], is_synced_each: bool
    ) -> hot.Tail:
        """Make the block ready for appends behind ``state``; its file stays open until ``close_tail``.

        ``is_synced_each``: every append waits for a sync. So prefer a descriptor to a map, whose pages a
        sync protects from writing, so that each append behind one meets a fault; and let frames wait in
        memory for the sync that writes them all (not where the write is the sync).

        Raises: StorageError: as before.
        """
        handle = self.file.hold()
        capabilities = self.file.backend_capabilities
        try:
            maps = capabilities.memory and not (is_synced_each and capabilities.fileno)
            window = self.file.memory(self.base, self.length_bytes) if maps else None
            descriptor = handle.fileno() if capabilities.fileno else -1
            self.tail = hot.Tail(
                write=self.write,
                window=window,
                descriptor=descriptor,
                base=self.base,
                clock=clock,
                key=self.key,
                algorithm=self.algorithm,
                first_offset=self.first_offset,
                end=self.length_bytes,
                reserved=reserved,
                state=state,
                stages=is_synced_each and not self.file.writes_sync,
            )
        except BaseException:
            self.file.let_go()
            raise
        return self.tail

    def close_tail(self) -> None:
        """Freeze the block at its state and let its file go; idempotent."""
        tail = self.tail
        if tail is None:
            return
        if self.final is None:
            self.final = State(*tail.state)
        self.tail = None
        tail.release()
        self.file.let_go()

    def write_mark(self, state: State, flags: int) -> None:
        """Write the next mark: ``state`` is durable. The mark itself is not yet. Raises: StorageError."""
        mark = Mark(
            self.sequence,
            self.generation + 1,
            flags,
            state.at,
            state.entries,
            state.payload_bytes,
            state.low_ns,
            state.high_ns,
        )
        self.segment.write_mark(self.header.slot, mark)
        self.generation += 1
        self.marked_at = state.at
        self.is_clean = bool(flags & fmt.MARK_CLEAN)
        self.is_sealed = bool(flags & fmt.MARK_SEALED)

    def place_before(self, index: int) -> tuple[int, int]:
        """Return the nearest known (index, at) at or before ``index``."""
        if self.recent_place[0] == index:
            return self.recent_place
        places = self.places
        return places[bisect_right(places, (index, fmt.BLOCK_SIZE_MAX * fmt.BLOCKS_PER_SEGMENT_MAX)) - 1]

    def remember_place(self, index: int, at: int) -> None:
        """Keep a place that a reader came by, for good if it is far enough behind the last one kept."""
        self.recent_place = (index, at)
        if at >= self.places[-1][1] + PLACE_SPACING_BYTES:
            self.places.append((index, at))

    def insert_place(self, index: int, at: int) -> None:
        """Keep the place of a frame that was found behind damage."""
        if (index, at) not in self.places:
            insort(self.places, (index, at))
