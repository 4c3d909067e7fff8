"""One open file of the backend: a lazily made map over all of it, and the space behind the map.

A map turns a full disk into a signal that kills the process, so two things are kept apart here:
bytes whose space is known to be there go through the map, all others through file I/O, which
answers with an error. (Even to *read* a hole through a map takes space on a tmpfs.)
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, Optional

from walrus_core.backend import Buffer
from walrus_mmap import system
from walrus_mmap.ranges import Ranges

PAGE_BYTES = max(4096, mmap.PAGESIZE)

GROWTH_NEEDS_NO_MAP = os.name == "nt"
"""Windows does not resize a file while it is mapped."""


def _new_map(descriptor: int, length_bytes: int) -> mmap.mmap:
    options: dict[str, Any] = {"access": mmap.ACCESS_WRITE}
    if sys.version_info >= (3, 13) and os.name == "posix":
        options["trackfd"] = False  # else every map duplicates the descriptor
    try:
        return mmap.mmap(descriptor, length_bytes, **options)
    except (ValueError, OverflowError) as error:
        # The file was cut since its size was read, or it does not fit the address space.
        raise OSError(errno.EINVAL, f"cannot map {length_bytes} bytes: {error}") from error


class MmapFile:
    """An open file.

    Invariants: bytes in ``_reserved`` have their space; ``_map`` is never longer than the file,
    unless others cut it; ``_old_maps`` are maps that a longer one replaced while windows onto
    them were out, each closed once its windows are released.
    Threads: every method may be called from any thread. ``_lock`` guards the maps and the
    ranges; it is not held while a sync waits for the medium.
    """

    __slots__ = (
        "__weakref__",
        "_descriptor",
        "_lock",
        "_map",
        "_old_maps",
        "_reads_ahead",
        "_reserved",
        "_size_seen",
    )

    def __init__(self, descriptor: int) -> None:
        """Take over an open descriptor, for reading and writing; ``close`` closes it."""
        self._descriptor = descriptor
        self._lock = threading.RLock()
        self._map: Optional[mmap.mmap] = None
        self._old_maps: list[mmap.mmap] = []
        self._reserved = Ranges()
        self._reads_ahead = True
        """The system may read more of the file than it is asked for: until something is reserved."""
        self._size_seen = 0
        """The size of the file when it was last asked for."""

    @property
    def size_bytes(self) -> int:
        """Size of the file now, as the file system tells."""
        return os.fstat(self._descriptor).st_size

    def status(self) -> os.stat_result:
        """Return what the file system says of the open file."""
        return os.fstat(self._descriptor)

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        """Return exactly ``length_bytes``; never-written bytes read as zero.

        Returns: a view of the map where the range was reserved or written here, which shows what is
        written later; else a copy. Raises: OSError: EIO where the range ends beyond the file or the
        medium fails. Cost: nothing is copied, or one pread.
        """
        end = at_bytes + length_bytes
        with self._lock:
            size_bytes = self._check(at_bytes, length_bytes)
            if self._reserved.covers(at_bytes, end):
                return memoryview(self._map_up_to(end, size_bytes))[at_bytes:end].toreadonly()
            if not system.is_positional():
                return system.read_exactly(self._descriptor, at_bytes, length_bytes)
        return system.read_exactly(self._descriptor, at_bytes, length_bytes)

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        """Write all of ``data``, after making sure that the range has its space.

        By a system call where maps show at once what it writes: it is cheaper than a fault for each
        page, and the pages of a map cost something at the next sync. Else by a copy into the map.

        Raises: OSError: EIO where the range ends beyond the file; ENOSPC and the like: nothing was
        written. Durability: none until ``sync``. Cost: one copy; the first write to a page that was
        not reserved takes a system call more.
        """
        length_bytes = len(data) if isinstance(data, bytes) else memoryview(data).nbytes
        end = at_bytes + length_bytes
        by_map = not system.has_one_cache()
        with self._lock:
            if by_map or at_bytes < 0 or end > self._size_seen or not self._reserved.covers(at_bytes, end):
                size_bytes = self._check(at_bytes, length_bytes)
                if length_bytes and not self._reserved.covers(at_bytes, end):
                    self._reserve(at_bytes, end, size_bytes)
                if by_map:
                    if length_bytes:
                        self._map_up_to(end, size_bytes)[at_bytes:end] = data
                    return
        system.write_exactly(self._descriptor, at_bytes, data)

    def write_many(self, writes: Sequence[tuple[int, Sequence[Buffer]]]) -> None:
        """Write several extents, each the concatenation of its buffers.

        Raises: OSError as ``write_at``; any part may be written. Cost: a system call an extent.
        """
        for at_bytes, buffers in writes:
            end = at_bytes + sum(len(data) for data in buffers)
            with self._lock:
                if at_bytes < 0 or end > self._size_seen or not self._reserved.covers(at_bytes, end):
                    size_bytes = self._check(at_bytes, end - at_bytes)
                    if not self._reserved.covers(at_bytes, end):
                        self._reserve(at_bytes, end, size_bytes)
            system.write_run(self._descriptor, at_bytes, buffers)

    def read_many(self, reads: Sequence[tuple[int, int]]) -> list[Buffer]:
        """Read several extents; as ``read_at`` for each."""
        return [self.read_at(at_bytes, length_bytes) for at_bytes, length_bytes in reads]

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        """Make sure that later writes to the range cannot fail for want of space.

        Whole pages are reserved: to write one byte through a map, the system needs the space of
        its page. Extends the file where the range ends beyond it.

        Raises: OSError: ENOSPC, EDQUOT, EFBIG; space that the attempt took is given back and
            the size is as before. EBUSY on Windows, where a file with a window out cannot grow.
        """
        if at_bytes < 0 or length_bytes < 0:
            raise OSError(errno.EINVAL, f"no range: {length_bytes} bytes at {at_bytes}")
        with self._lock:
            size_bytes = os.fstat(self._descriptor).st_size
            if length_bytes:
                self._reserve(at_bytes, at_bytes + length_bytes, size_bytes)

    def memory(self, at_bytes: int, length_bytes: int) -> memoryview:
        """Return a writable window onto the file, to be released before ``close``.

        It stays valid when the file grows. Touch only bytes that were reserved or written: on a
        full disk a write to any other, and on a full tmpfs a read as well, ends in SIGBUS.

        Raises: OSError: EIO where the range ends beyond the file; EMFILE, ENOMEM: no map.
        """
        end = at_bytes + length_bytes
        with self._lock:
            size_bytes = self._check(at_bytes, length_bytes)
            if not length_bytes:
                return memoryview(bytearray())
            mapping = self._map_up_to(end, size_bytes)
            if system.can_advise():
                # Else the first touch of a page would have megabytes around it read ahead.
                system.advise(mapping, mmap.MADV_RANDOM, at_bytes, end)
            return memoryview(mapping)[at_bytes:end]

    def fileno(self) -> int:
        """Return the descriptor: what is written to it shows in the maps at once."""
        return self._descriptor

    def prepare(self, at_bytes: int, length_bytes: int) -> None:
        """Let the system make pages of the range ready in large steps again; see ``memory``.

        Raises: OSError: EIO where the range ends beyond the file.
        """
        end = at_bytes + length_bytes
        with self._lock:
            self._check(at_bytes, length_bytes)
            for mapping in self._maps():
                system.advise(mapping, mmap.MADV_NORMAL, at_bytes, end)

    def unload(self, at_bytes: int, length_bytes: int) -> None:
        """Take the pages of a range out of the map; the system's cache keeps them, changes included.

        Raises: OSError: EIO where the range ends beyond the file. Cost: about 50 ns a page.
        """
        end = at_bytes + length_bytes
        with self._lock:
            self._check(at_bytes, length_bytes)
            for mapping in self._maps():
                system.advise(mapping, mmap.MADV_DONTNEED, at_bytes, end)

    def sync(self) -> None:
        """Make every byte written before the call durable, through maps and otherwise.

        Raises: OSError; what is durable is unknown, and a second call would not tell.
        """
        if system.syncs_maps():
            os.fdatasync(self._descriptor)
            return
        with self._lock:
            for mapping in self._maps():
                mapping.flush()
        system.sync_file(self._descriptor)

    def discard(self, at_bytes: int, length_bytes: int) -> None:
        """Give the space of a range back; it reads as zero from then on.

        On a file system without hole punching the range is zeroed and keeps its space.

        Raises: OSError: EIO where the range ends beyond the file.
        """
        end = at_bytes + length_bytes
        with self._lock:
            self._check(at_bytes, length_bytes)
            if not length_bytes:
                return
            # Before the call: after a failure it is not known which pages still have their space.
            self._reserved.remove(at_bytes - at_bytes % PAGE_BYTES, end + -end % PAGE_BYTES)
            try:
                system.punch(self._descriptor, at_bytes, length_bytes)
            except OSError as error:
                if error.errno not in system.UNSUPPORTED:
                    raise
                system.zero(self._descriptor, at_bytes, length_bytes)

    def drop_cache(self) -> None:
        """Sync the file and forget its cached pages, so that the next read tells what the medium holds.

        Raises: OSError: EBUSY while a window is out, because mapped pages stay in the cache.
        """
        self.sync()
        with self._lock:
            self._unmap()
            system.drop_cache(self._descriptor)

    def close(self) -> None:
        """Close the maps and the descriptor. Does not make anything durable.

        A map with a view out, such as of a read that is being decoded, goes with its last view.
        """
        with self._lock:
            for mapping in self._maps():
                _is_closable(mapping)
            self._map = None
            self._old_maps = []
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def __del__(self) -> None:
        """Close what was dropped unclosed, without a sync. Maps go with their last window."""
        descriptor, self._descriptor = getattr(self, "_descriptor", -1), -1
        if descriptor >= 0:
            os.close(descriptor)

    # --- below, the caller holds the lock ---------------------------------------------------

    def _maps(self) -> list[mmap.mmap]:
        return [*self._old_maps, *([] if self._map is None else [self._map])]

    def _check(self, at_bytes: int, length_bytes: int) -> int:
        """Return the size of the file; raise where the range is not inside it.

        The size is asked for every time: a file that others cut must not be touched through a
        map that is still as long as it was. (But not before a write by system call: where the
        system keeps fine timestamps, a write that follows a look at them changes them, and the
        sync behind it must write them as well: 195 instead of 130 microseconds.)
        """
        size_bytes = self._size_seen = os.fstat(self._descriptor).st_size
        if at_bytes < 0 or length_bytes < 0 or at_bytes + length_bytes > size_bytes:
            message = f"{length_bytes} bytes at {at_bytes} are not inside the file of {size_bytes} bytes"
            raise OSError(errno.EIO, message)
        return size_bytes

    def _map_up_to(self, end: int, size_bytes: int) -> mmap.mmap:
        """Return a map that reaches ``end``, made over the whole file where there is none."""
        current = self._map
        if current is not None and len(current) >= end:
            return current
        self._map = _new_map(self._descriptor, size_bytes)
        if current is not None:
            self._old_maps.append(current)
            self._old_maps = [mapping for mapping in self._old_maps if not _is_closable(mapping)]
        return self._map

    def _unmap(self) -> None:
        """Close all maps. Raises: OSError: EBUSY, a window is out; nothing was lost."""
        self._old_maps = [mapping for mapping in self._old_maps if not _is_closable(mapping)]
        if self._map is not None and _is_closable(self._map):
            self._map = None
        if self._map is not None or self._old_maps:
            raise OSError(errno.EBUSY, "a window onto the file is still out")

    def _reserve(self, first: int, end: int, size_bytes: int) -> None:
        self._reserved.remove(size_bytes, sys.maxsize)  # the file may have been cut by others
        first -= first % PAGE_BYTES
        end = max(end, min(end + -end % PAGE_BYTES, size_bytes))
        missing = self._reserved.missing(first, end)
        if not missing:
            return
        if end > size_bytes and GROWTH_NEEDS_NO_MAP:
            self._unmap()
        if self._reads_ahead:
            # What is read ahead comes into the cache in large pieces, and one of them may reach from reserved
            # bytes into a hole. A store to it then takes space for all of it: on a full disk, a signal.
            system.stop_reading_ahead(self._descriptor)
            self._reads_ahead = False
        empty = [
            hole
            for start, stop in missing
            for hole in system.holes(self._descriptor, start, min(stop, size_bytes))
        ]
        try:
            for start, stop in missing:
                system.allocate(self._descriptor, start, stop)
        except BaseException:
            self._give_back(size_bytes, empty)
            raise
        self._reserved.add(first, end)

    def _give_back(self, size_bytes: int, empty: list[tuple[int, int]]) -> None:
        """Undo a failed reservation: the size, and the space of what held nothing before."""
        if os.fstat(self._descriptor).st_size > size_bytes:
            os.ftruncate(self._descriptor, size_bytes)
        for start, stop in empty:
            try:
                system.punch(self._descriptor, start, stop - start)
            except OSError as error:
                # Where space cannot be given back it is kept; what the file reads is the same.
                if error.errno not in system.UNSUPPORTED:
                    raise


class ReadOnlyFile(MmapFile):
    """A file that was opened for reading: nothing is reserved in it, so it is read without a map."""

    __slots__ = ()

    def drop_cache(self) -> None:
        """Forget cached pages that are on the medium; bytes never synced stay."""
        system.drop_cache(self._descriptor)


def _is_closable(mapping: mmap.mmap) -> bool:
    """Close the map unless a window onto it is out."""
    try:
        mapping.close()
    except BufferError:
        return False
    return True
