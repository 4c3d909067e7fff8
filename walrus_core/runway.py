"""Runway: what lies ready ahead of the frames of an active block: space, pages, the express limit.

Space is reserved in steps that grow with the block, so that an append cannot fail for want of it.
Where the backend maps the block, the writer moves along a short stretch of mapped pages: those
ahead of it are made ready in the background, those behind it are let go. Both ends matter: a page
that is new costs the writer a fault; a page that is still mapped when the system writes it back
costs that a look into the map and an interrupt of the other processors, and the writer waits.

Where each append is synced, zeros are written ahead of the frames: the first sync of a page that
is only reserved has to go through the journal of the file system too, which later ones need not.

Threads: the caller holds the topic's lock.
"""

from __future__ import annotations

from walrus_core import hot
from walrus_core.block import Block
from walrus_core.errors import DiskFullError, TooManyFilesError
from walrus_core.format import PAGE_SIZE

FIRST_BYTES = 64 * 1024
BUSY_BYTES = 16 * 1024 * 1024
"""Reserved at once, as far as its block goes, for a topic that has filled a block: each reservation may
have to wait for a sync of the same file."""
STEP_MAX_BYTES = 8 * 1024 * 1024
BUSY_MIN_BYTES = 256 * 1024
"""A block with less space than this belongs to a topic that is not busy: nothing is made ready for it."""
PACE_BYTES = 2 * 1024 * 1024
"""The stretch. A sync writes what is ready and not used yet as zeros, so it is short."""
FILL_BYTES = 64 * 1024
"""Filled with zeros at once, and as much as may be synced together where filling still pays."""
UNFILLED_BYTES = 256 * 1024
"""Left as they are at once, where it does not pay."""
FILL_PIECE_BYTES = 16 * 1024
"""Of one write: the system keeps what is written at once as one piece, and large ones sync slowly."""
_ZEROS = bytes(FILL_PIECE_BYTES)


class Runway:
    """The runway of one block with a tail."""

    __slots__ = ("_filled", "_fills", "_is_paced", "_ready", "_reserved", "_unloaded", "block")

    def __init__(self, block: Block, reserved_bytes: int, is_synced_each: bool) -> None:
        """``is_synced_each``: every append waits for a sync."""
        self.block = block
        capabilities = block.file.backend_capabilities
        self._is_paced = capabilities.memory and not is_synced_each
        writes_by_call = capabilities.fileno or not capabilities.memory
        self._fills = is_synced_each and writes_by_call and not block.file.writes_sync
        self._reserved = reserved_bytes
        self._ready = self._unloaded = self._filled = 0

    def extend(self, size_bytes: int, burst_count: int = 0) -> None:
        """Make room for ``size_bytes`` behind the frames, and some more; 0 stands for a new block that
        came with a batch. ``burst_count`` entries are synced together.

        Raises: DiskFullError, StorageError: the tail ends where it did.
        """
        tail = self.block.tail
        assert tail is not None, "a block that is written has a tail"
        at = tail.state[0]
        needed = at + size_bytes
        if needed > self._reserved:
            step = min(max(self._reserved, FIRST_BYTES), STEP_MAX_BYTES)
            target = min(tail.end, max(needed, self._reserved + step))
            self.block.reserve(self._reserved, target - self._reserved)
            self._reserved = target
        tail.reserved = self._reserved
        if not self._fills and (not self._is_paced or self._reserved < BUSY_MIN_BYTES):
            return
        came_with_batch = size_bytes == 0 and tail.state[1] > 0
        if size_bytes >= hot.CALL_BYTES_MIN or came_with_batch:
            # Written by calls, to which mapped pages are only in the way.
            tail.ready = min(tail.ready, max(at, self._ready))
        elif self._fills:
            burst_bytes = burst_count * (at - PAGE_SIZE) // max(tail.state[1], 1)
            self._ready = max(needed, self._fill(at, burst_bytes))
            tail.ready = self._ready
        else:
            self._pace(tail, at, needed)

    def _fill(self, at: int, burst_bytes: int) -> int:
        """Write zeros behind the frames, which end at ``at``. Returns: the end of what is ready now.

        A sync that covers much does without: it goes through the journal once for all of it.
        """
        start = max(self._filled, at + -at % PAGE_SIZE)
        if burst_bytes > FILL_BYTES:
            return min(start + UNFILLED_BYTES, self._reserved)
        end = min(start + max(FILL_PIECE_BYTES, min(at, FILL_BYTES)), self._reserved)
        end -= end % PAGE_SIZE
        try:
            for place in range(start, end, FILL_PIECE_BYTES):
                self.block.write(place, _ZEROS[: end - place])
        except (DiskFullError, TooManyFilesError):
            # Some file systems take space for reserved bytes too (Btrfs). Entries may still fit.
            return min(start + UNFILLED_BYTES, self._reserved)
        self._filled = max(start, end)
        return end

    def _pace(self, tail: hot.Tail, at: int, needed: int) -> None:
        """Have the pages of the next stretch made ready, and let go of those behind the frames."""
        self._prepare()
        self._unload(at)
        tail.ready = min(self._reserved, max(needed, at + PACE_BYTES))
        ready = min(self._reserved, tail.ready + PACE_BYTES)
        tail.prepare(max(self._ready, at), ready)
        self._ready = ready

    def leave(self) -> None:
        """The block takes no more entries: let all of its pages go."""
        if self._is_paced and self.block.tail is not None:
            self._prepare()  # whoever reads it will read on
            self._unload(self.block.length_bytes)

    def _prepare(self) -> None:
        if not self._ready and self.block.file.backend_capabilities.paging:
            self.block.file.prepare(self.block.base, self.block.length_bytes)

    def _unload(self, until: int) -> None:
        if until > self._unloaded and self.block.file.backend_capabilities.paging:
            self.block.file.unload(self.block.base + self._unloaded, until - self._unloaded)
            self._unloaded = until
