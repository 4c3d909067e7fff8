"""One segment file: its header, its slots, and the header pages of the blocks in them.

Lives here: creating and opening a segment, reading and writing header pages and marks, which
slots are free. Not here: which topic gets a block (``allocator.py``), frames.

Invariants: a slot in ``free`` has a header page that reads as zeros, durably; ``spare`` is a part of
``free``; a slot is leased by at most one block; ``quarantined`` slots are never leased.
"""

from __future__ import annotations

import os
from typing import Optional

from walrus_core import format as fmt
from walrus_core import pages
from walrus_core.backend import Backend, Buffer
from walrus_core.errors import StorageError
from walrus_core.files import FileCache, LogFile, wrap_directory_call
from walrus_core.paths import free_name, segment_name
from walrus_core.types import SegmentInfo


class Segment:
    """An existing segment. Threads: the allocator's lock guards ``free`` and ``live``."""

    __slots__ = ("file", "free", "header", "key", "live", "quarantined", "spare")

    def __init__(self, file: LogFile, header: pages.SegmentHeader) -> None:
        """``header`` is what the file says of itself."""
        self.file = file
        self.header = header
        self.key = pages.metadata_key(header.salt)
        self.free: set[int] = set()
        self.spare: set[int] = set()
        """Free slots that kept their space; they are leased before others."""
        self.live = 0
        """Slots that a block has leased or that are quarantined."""
        self.quarantined: set[int] = set()

    @property
    def sequence(self) -> int:
        """Place of the segment in the order of creation."""
        return self.header.sequence

    @property
    def info(self) -> SegmentInfo:
        """Facts for people and observers."""
        return SegmentInfo(
            sequence=self.header.sequence,
            path=self.file.path,
            block_size_bytes=self.header.block_size_bytes,
            slot_count=self.header.slot_count,
            checksum=fmt.CHECKSUM_NAMES[self.header.algorithm],
        )

    def slot_at(self, slot: int) -> int:
        """Position of a slot in the file."""
        return self.header.slot_at(slot)

    def slot_of(self, at_bytes: int) -> int:
        """The slot in which a position of the file lies; that may be behind the last."""
        return (at_bytes - fmt.SEGMENT_HEADER_SIZE) // self.header.block_size_bytes

    def adjacent_free(self, count: int) -> Optional[int]:
        """Return the first of ``count`` adjacent free slots, or None."""
        if count == 1:
            return min(self.spare or self.free, default=None)
        run = 0
        for slot in sorted(self.free):
            run = run + 1 if slot - 1 in self.free else 1
            if run == count:
                return slot - count + 1
        return None

    def read_page(self, slot: int) -> Buffer:
        """Return the header page of a slot. Raises: StorageError."""
        return self.file.read(self.slot_at(slot), fmt.PAGE_SIZE)

    def write_header(self, header: pages.BlockHeader) -> None:
        """Write a block's header page, marks empty. Not durable. Raises: StorageError."""
        if header.first_offset > fmt.OFFSET_MAX:
            raise StorageError(
                path=self.file.path, operation="append to", errno=None, reason="no offset is left for a block"
            )
        self.file.write(self.slot_at(header.slot), pages.encode_block_header(header, self.key))

    def write_mark(self, slot: int, mark: pages.Mark) -> None:
        """Write a mark into its sector. Not durable. Raises: StorageError."""
        at = self.slot_at(slot) + fmt.MARK_AT[mark.generation % 2]
        self.file.write(at, pages.encode_mark(mark, self.key).ljust(fmt.SECTOR_SIZE, b"\0"))

    def wipe_marks(self, slot: int, slots: int) -> None:
        """Zero the marks of a block that is given up, and the first pages of its later slots.

        Not durable. Raises: StorageError. Durable before ``wipe``: after a crash in the middle of
        that, the header page may be torn, and the slots behind it are nobody's. Without marks the
        one is crash residue, and without payload the others are free; neither is damage.
        """
        at = self.slot_at(slot) + fmt.MARK_AT[0]
        self.file.write(at, bytes(fmt.PAGE_SIZE - fmt.MARK_AT[0]))
        for each in range(slot + 1, slot + slots):
            self.file.write(self.slot_at(each), bytes(fmt.PAGE_SIZE))

    def wipe(self, slot: int) -> None:
        """Zero the header page of a block, after ``wipe_marks``. Not durable. Raises: StorageError."""
        self.file.write(self.slot_at(slot), bytes(fmt.PAGE_SIZE))

    def discard(self, slot: int, slots: int) -> None:
        """Give the space of slots back. Not durable. Raises: StorageError."""
        self.file.discard(self.slot_at(slot), slots * self.header.block_size_bytes)


def create_segment(files: FileCache, directory: str, header: pages.SegmentHeader) -> Segment:
    """Create a segment file, durably: made under another name, written and synced, then renamed.

    So a file that has a segment's name has a durable header. What a crash leaves under the other
    name is removed by the next open.

    Returns: the segment, all slots free. Raises: DiskFullError, TooManyFilesError, StorageError:
    no segment was made. SyncFailedError: poisoned.
    """
    path = os.path.join(directory, free_name(header.sequence))
    final_path = os.path.join(directory, segment_name(header.sequence))
    gate, backend = files.gate, files.backend
    gate.check_write()
    handle = wrap_directory_call(
        gate, path, "create", lambda: backend.create(path, size_bytes=header.size_bytes), poisons=False
    )
    file = files.add(path, handle)
    try:
        file.reserve(0, fmt.SEGMENT_HEADER_SIZE)
        file.write(0, pages.encode_segment_header(header))
        files.sync([file])
        # Closed first: an open file cannot be renamed everywhere.
        files.forget(file)
        wrap_directory_call(gate, path, "rename", lambda: backend.rename(path, final_path), poisons=False)
    except BaseException:
        _remove_quietly(files, backend, file)
        raise
    wrap_directory_call(gate, directory, "sync", lambda: backend.sync_dir(directory), poisons=True)
    segment = Segment(files.add(final_path), header)
    segment.free.update(range(header.slot_count))
    return segment


def _remove_quietly(files: FileCache, backend: Backend, file: LogFile) -> None:
    """Remove a half-made segment; where even that fails, recovery deals with it."""
    file.synced = file.written
    try:
        files.forget(file)
        backend.remove(file.path)
    except Exception as error:
        files.gate.warn("half-made segment %s could not be removed: %s", file.path, error)


def remove_segment(files: FileCache, directory: str, segment: Segment) -> None:
    """Close and unlink a segment, durably. Raises: StorageError, SyncFailedError: poisoned."""
    gate, backend = files.gate, files.backend
    gate.check_write()
    segment.file.synced = segment.file.written
    files.forget(segment.file)
    wrap_directory_call(
        gate, segment.file.path, "remove", lambda: backend.remove(segment.file.path), poisons=False
    )
    wrap_directory_call(gate, directory, "sync", lambda: backend.sync_dir(directory), poisons=True)
