"""``FdSegmentFile``: one file, read and written by position on a descriptor.

Every result of a system call is looked at; a failed sync is raised and never tried again.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from walrus_core.backend import Buffer
from walrus_fd import space
from walrus_fd.extents import PIECE_BYTES, Piece, after, byte_view, cut
from walrus_fd.ring import BUFFERS_MAX, Operation, Ring
from walrus_fd.uring import Uring

HAS_GATHER = hasattr(os, "pwritev")
_GATHER_MAX = 1024
"""Buffers of one pwritev: IOV_MAX of Linux, macOS and the BSDs."""


_HAS_PLAIN_SYNC = sys.platform != "darwin" and hasattr(os, "fdatasync")


def _sync_descriptor(descriptor: int) -> None:
    """Make data, size and allocation durable by the cheapest call that does."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            # Not a failed sync: this file system does not know the request.
            if error.errno not in (errno.ENOTSUP, errno.ENOTTY):
                raise
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def _nothing_written(path: str, at_bytes: int) -> OSError:
    return OSError(errno.EIO, f"a write at byte {at_bytes} wrote nothing", path)


class RingUse(NamedTuple):
    """From how many extents or files on the ring is used, where there is one."""

    writes_from: int
    reads_from: int
    syncs_from: int


class FdSegmentFile:
    """One open file.

    **Invariants**
    * Positional calls only: no file position is shared, so threads may read beside a write.
    * The descriptor is given up before it is closed, so it is never used after its number
      may belong to another file.
    """

    _descriptor = -1

    def __init__(self, path: str, uring: Uring, ring_use: RingUse) -> None:
        """Stand ready for ``adopt``; ``uring`` is the one of the backend."""
        self.path = path
        self._uring = uring
        self._ring_use = ring_use
        self._reserving = threading.RLock()
        """Held by a reservation: one that fails cuts the file to the size that it found."""

    def adopt(self, descriptor: int) -> None:
        """Take an open descriptor over: it is closed with this object."""
        self._descriptor = descriptor

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path!r} descriptor={self._descriptor}>"

    # --- single calls ---------------------------------------------------------------------

    def _pread(self, length_bytes: int, at_bytes: int) -> bytes:
        return os.pread(self._descriptor, length_bytes, at_bytes)

    def _pwrite(self, data: Buffer, at_bytes: int) -> int:
        return os.pwrite(self._descriptor, data, at_bytes)

    def _pwritev(self, views: Sequence[memoryview], at_bytes: int) -> int:
        if len(views) == 1 or not HAS_GATHER:
            return self._pwrite(views[0], at_bytes)
        return os.pwritev(self._descriptor, views, at_bytes)

    # --- required -------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """Size of the file now."""
        return os.fstat(self._descriptor).st_size

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        """Return exactly ``length_bytes``.

        Raises: OSError, EIO where the range ends beyond the file.
        Cost: one pread where the system gives all at once.
        """
        found = self._pread(min(length_bytes, PIECE_BYTES), at_bytes)
        if len(found) == length_bytes:
            return found
        parts = [found]
        done_bytes = len(found)
        while done_bytes < length_bytes:
            if not parts[-1]:
                reason = f"bytes [{at_bytes}, {at_bytes + length_bytes}) of {self.path} end beyond the file"
                raise OSError(errno.EIO, reason)
            parts.append(self._pread(min(length_bytes - done_bytes, PIECE_BYTES), at_bytes + done_bytes))
            done_bytes += len(parts[-1])
        return b"".join(parts)

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        """Write all of ``data``.

        Raises: OSError; then any part of the range may be written.
        Cost: one pwrite where the system takes all at once. Durability: only under ``durable_writes``.
        """
        length_bytes = len(data) if type(data) is bytes else memoryview(data).nbytes
        if length_bytes > PIECE_BYTES:
            self._write_views(at_bytes, [byte_view(data)])
            return
        count = self._pwrite(data, at_bytes)
        if count != length_bytes:
            if count == 0:
                raise _nothing_written(self.path, at_bytes)
            self._write_views(at_bytes + count, [byte_view(data)[count:]])

    def _write_views(self, at_bytes: int, views: Sequence[memoryview]) -> None:
        for piece in cut([(at_bytes, views)], buffers_max=_GATHER_MAX):
            self._write_piece(piece, 0)

    def _write_piece(self, piece: Piece, done_bytes: int) -> None:
        """Write what is left of a piece after its first ``done_bytes``, however short the counts."""
        while done_bytes < piece.length_bytes:
            left = after(piece.views, done_bytes) if done_bytes else piece.views
            count = self._pwritev(left, piece.at_bytes + done_bytes)
            if count == 0:
                raise _nothing_written(self.path, piece.at_bytes + done_bytes)
            done_bytes += count

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        """Make sure that later writes to the range find space; see ``space.reserve``.

        Raises: OSError; size and space are as before. Durability: none before ``sync``.
        """
        with self._reserving:
            space.reserve(self._descriptor, at_bytes, length_bytes, self._pread, self._pwrite)

    def sync(self) -> None:
        """Make every byte written before the call durable, with size and allocation.

        Raises: OSError; what was written since the last sync is in doubt. Never tried again here.
        """
        if _HAS_PLAIN_SYNC:
            # At once, and not by way of the function: this is what a durable append waits for.
            os.fdatasync(self._descriptor)
        else:
            _sync_descriptor(self._descriptor)

    def close(self) -> None:
        """Release the descriptor; does not sync. A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            os.close(descriptor)

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        # No I/O in a finaliser: the file may be half built, and whoever dropped it waits for nothing.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            _close(descriptor)

    # --- by capability --------------------------------------------------------------------

    def discard(self, at_bytes: int, length_bytes: int) -> None:
        """Give the space of a range back; where the file system cannot, fill it with zeros.

        Raises: OSError; any part of the range may read as zero.
        """
        space.discard(self._descriptor, at_bytes, length_bytes, self._pread, self._pwrite)

    def drop_cache(self) -> None:
        """Forget cached bytes that are on the medium; bytes never synced stay."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def fileno(self) -> int:
        """Return the descriptor, for positional calls only."""
        return self._descriptor

    def memory(self, at_bytes: int, length_bytes: int) -> memoryview:
        """Refuse: there are no windows here (the capability says so); present to complete the protocol.

        Raises: OSError, EOPNOTSUPP; nothing was done.
        """
        raise OSError(errno.EOPNOTSUPP, "files of the backend fd have no memory windows", self.path)

    def write_many(self, writes: Sequence[tuple[int, Sequence[Buffer]]]) -> None:
        """Write several extents, each the concatenation of its buffers.

        Raises: OSError, of the first extent that failed; any part of any extent may be written.
            Whatever is raised, nothing is in flight.
        Cost: one entry of the ring an extent where the ring is used, else one pwritev an extent.
        """
        if len(writes) >= self._ring_use.writes_from and self._write_by_ring(writes):
            return
        for piece in cut(writes, buffers_max=_GATHER_MAX):
            self._write_piece(piece, 0)

    def _write_by_ring(self, writes: Sequence[tuple[int, Sequence[Buffer]]]) -> bool:
        """Return False where there is no ring now and nothing was written."""
        pieces = list(cut(writes, buffers_max=BUFFERS_MAX))
        outcome = self._uring.run(lambda ring: self._write_operations(ring, pieces))
        if outcome is None:
            return False
        counts = [_count(result) for result in outcome]
        for piece, count in zip(pieces, counts, strict=True):
            self._write_piece(piece, count)
        return True

    def _write_operations(self, ring: Ring, pieces: Sequence[Piece]) -> list[Operation]:
        return [ring.write(self._descriptor, piece.at_bytes, piece.views) for piece in pieces]

    def read_many(self, reads: Sequence[tuple[int, int]]) -> list[Buffer]:
        """Return each ``(at_bytes, length_bytes)``, in order, as ``read_at``.

        Cost: as ``write_many``; extents that are not cached are fetched side by side by the ring.
        """
        if len(reads) >= self._ring_use.reads_from and all(0 < length <= PIECE_BYTES for _, length in reads):
            buffers = [bytearray(length_bytes) for _, length_bytes in reads]
            outcome = self._uring.run(lambda ring: self._read_operations(ring, reads, buffers))
            if outcome is not None:
                return [
                    self._complete(at_bytes, buffer, _count(result))
                    for (at_bytes, _), buffer, result in zip(reads, buffers, outcome, strict=True)
                ]
        return [self.read_at(at_bytes, length_bytes) for at_bytes, length_bytes in reads]

    def _read_operations(
        self, ring: Ring, reads: Sequence[tuple[int, int]], buffers: Sequence[bytearray]
    ) -> list[Operation]:
        return [
            ring.read(self._descriptor, at_bytes, memoryview(buffer))
            for (at_bytes, _), buffer in zip(reads, buffers, strict=True)
        ]

    def _complete(self, at_bytes: int, buffer: bytearray, count: int) -> bytearray:
        if count < len(buffer):
            buffer[count:] = self.read_at(at_bytes + count, len(buffer) - count)
        return buffer


def _count(result: Optional[int]) -> int:
    """Turn the ring's answer into bytes done; what was not taken or was interrupted did nothing.

    Raises: OSError for any other failure.
    """
    if result is None or result in (-errno.EINTR, -errno.EAGAIN):
        return 0
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


class SeekingSegmentFile(FdSegmentFile):
    """The same where the system has no positional calls: the shared position is under a lock."""

    def __init__(self, path: str, uring: Uring, ring_use: RingUse) -> None:
        super().__init__(path, uring, ring_use)
        self._position_lock = threading.Lock()

    def _pread(self, length_bytes: int, at_bytes: int) -> bytes:
        with self._position_lock:
            os.lseek(self._descriptor, at_bytes, os.SEEK_SET)
            return os.read(self._descriptor, length_bytes)

    def _pwrite(self, data: Buffer, at_bytes: int) -> int:
        with self._position_lock:
            os.lseek(self._descriptor, at_bytes, os.SEEK_SET)
            return os.write(self._descriptor, data)

    def _pwritev(self, views: Sequence[memoryview], at_bytes: int) -> int:
        return self._pwrite(views[0], at_bytes)
