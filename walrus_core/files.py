"""Open files, kept by LRU, and the one place where a backend's OSError becomes our error.

``LogFile`` is a file that may be open or not; callers name ranges, never descriptors. Files
with writes that no sync has covered yet, and files in use, are never closed to make room:
a later sync through another descriptor might not be told of a write-back error.
"""

from __future__ import annotations

import errno
import itertools
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional, TypeVar, cast

from walrus_core import hot
from walrus_core.backend import Backend, Buffer, Capabilities, CapableFile, SegmentFile
from walrus_core.errors import ContractError, storage_error
from walrus_core.gate import Gate

Result = TypeVar("Result")
Decoded = tuple[list[hot.Entry], int, int, int, int]
"""Entries, place and index of the next frame, status, and bytes needed: see ``hot.decode``."""


def _capable(handle: SegmentFile) -> CapableFile:
    """View the file as one that has the methods which its backend's capabilities declare."""
    return cast(CapableFile, handle)


def _next_data(descriptor: int, at_bytes: int) -> int:
    try:
        return os.lseek(descriptor, at_bytes, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole up to the end
            return max(at_bytes, os.fstat(descriptor).st_size)
        if error.errno in (errno.EINVAL, errno.ENOTSUP):  # this file system cannot tell
            return at_bytes
        raise


class LogFile:
    """One file of the log directory.

    Invariants: ``written`` is a ticket that changes before and after every write, and ``synced``
    is the ticket that the last completed sync found when it began, so they are equal only if every
    write is covered. ``holds`` counts the operations and tails that need the file open.
    """

    __slots__ = ("_files", "_ticket", "handle", "holds", "path", "synced", "written")

    def __init__(self, files: FileCache, path: str, handle: Optional[SegmentFile] = None) -> None:
        """``handle`` is the open file where the caller has just created it."""
        self._files = files
        self.path = path
        self.handle = handle
        self.holds = 0
        self._ticket = itertools.count(1).__next__
        self.written = 0
        self.synced = 0

    @property
    def is_dirty(self) -> bool:
        """True where a write is not covered by a completed sync."""
        return self.written != self.synced

    @property
    def writes_sync(self) -> bool:
        """True where a write is durable when it returns."""
        return self._files.gate.writes_sync

    def _read(self, call: Callable[[SegmentFile], Result]) -> Result:
        handle = self._files.hold(self)
        try:
            return call(handle)
        except OSError as error:
            raise storage_error(error, self.path, "read") from error
        finally:
            self._files.let_go(self)

    def _write(self, call: Callable[[SegmentFile], object], operation: str) -> None:
        gate = self._files.gate
        gate.check_write()
        handle = self._files.hold(self)
        try:
            self.written = self._ticket()
            call(handle)
            # Once more: a sync that began while the call was under way may not have covered it.
            self.written = self._ticket()
        except OSError as error:
            raise gate.write_failed(error, self.path, operation) from error
        finally:
            self._files.let_go(self)

    def size_bytes(self) -> int:
        """Size now. Raises: StorageError."""
        return self._read(lambda handle: handle.size_bytes)

    def read(self, at_bytes: int, length_bytes: int) -> Buffer:
        """Return exactly ``length_bytes``. Raises: StorageError, ContractError."""
        data = self._read(lambda handle: handle.read_at(at_bytes, length_bytes))
        if len(data) != length_bytes:
            reason = f"read_at returned {len(data)} bytes, not {length_bytes}"
            raise ContractError(name=self._files.backend.name, reason=reason)
        return data

    def decode(self, at_bytes: int, length_bytes: int, *frames: int) -> Decoded:
        """Read and decode frames in a range, for backends with ``fileno``; see ``hot.decode_file``.

        Raises: StorageError.
        """
        return self._read(
            lambda handle: hot.decode_file(_capable(handle).fileno(), at_bytes, length_bytes, *frames)
        )

    def skip_hole(self, at_bytes: int) -> int:
        """Return the first place from ``at_bytes`` on that the file system does not know to be a hole,
        where it can be asked; the end of the file for none. Raises: StorageError.

        Threads: only while the log is being opened, since it moves the descriptor's position.
        """
        if not (self.backend_capabilities.fileno and hasattr(os, "SEEK_DATA")):
            return at_bytes
        return self._read(lambda handle: _next_data(_capable(handle).fileno(), at_bytes))

    def write(self, at_bytes: int, data: Buffer) -> None:
        """Write all of ``data``.

        Raises: DiskFullError, TooManyFilesError: part may be written. StorageError: poisoned.
        """
        self._write(lambda handle: handle.write_at(at_bytes, data), "write")

    def write_held(self, at_bytes: int, data: Buffer) -> None:
        """Do what ``write`` does, for whoever holds the file: it stands between a read and its answer.

        Cost: nothing beside the write itself. Raises: as ``write``.
        """
        gate, handle = self._files.gate, self.handle
        if gate.blocks_writes or handle is None:
            self.write(at_bytes, data)
            return
        try:
            self.written = self._ticket()
            handle.write_at(at_bytes, data)
            self.written = self._ticket()
        except OSError as error:
            raise gate.write_failed(error, self.path, "write") from error

    def write_many(self, writes: Sequence[tuple[int, Sequence[Buffer]]]) -> None:
        """Write several extents, each the concatenation of its buffers; errors as ``write``."""
        if self._files.backend.capabilities.vectored:
            self._write(lambda handle: _capable(handle).write_many(writes), "write")
            return
        for at_bytes, buffers in writes:
            for data in buffers:
                self.write(at_bytes, data)
                at_bytes += len(data)

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        """Make later writes to the range safe from a full disk; errors as ``write``, undone."""
        self._write(lambda handle: handle.reserve(at_bytes, length_bytes), "reserve")

    def discard(self, at_bytes: int, length_bytes: int) -> None:
        """Give the space of a range back; only where the backend can."""
        self._write(lambda handle: _capable(handle).discard(at_bytes, length_bytes), "discard")

    def memory(self, at_bytes: int, length_bytes: int) -> memoryview:
        """Return a writable window onto a range; only where the backend can. Raises: StorageError."""
        return self._read(lambda handle: _capable(handle).memory(at_bytes, length_bytes))

    def prepare(self, at_bytes: int, length_bytes: int) -> None:
        """Tell that a range of a window will soon be written all along. Raises: StorageError."""
        self._read(lambda handle: _capable(handle).prepare(at_bytes, length_bytes))

    def unload(self, at_bytes: int, length_bytes: int) -> None:
        """Let the memory behind a range of a window go. Raises: StorageError."""
        self._read(lambda handle: _capable(handle).unload(at_bytes, length_bytes))

    def drop_cache(self) -> None:
        """Make the next read come from the medium, where the backend can. Raises: StorageError."""
        if self._files.backend.capabilities.drop_cache:
            self._read(lambda handle: _capable(handle).drop_cache())

    def sync(self) -> None:
        """Make all bytes written to this file durable. Raises: SyncFailedError: poisoned."""
        self._files.sync([self])

    @property
    def backend_capabilities(self) -> Capabilities:
        """What the file can do beyond the required methods."""
        return self._files.backend.capabilities

    def hold(self) -> CapableFile:
        """Keep the file open until ``let_go``. Raises: StorageError."""
        return _capable(self._files.hold(self))

    def let_go(self) -> None:
        """End one ``hold``."""
        self._files.let_go(self)


class FileCache:
    """At most ``limit`` open files, the least recently used closed first.

    Threads: every method may be called from any thread.
    """

    def __init__(self, backend: Backend, limit: int, gate: Gate) -> None:
        """``limit`` is soft: files in use or with unsynced writes stay open beyond it."""
        self.backend = backend
        self.gate = gate
        self._limit = limit
        self._lock = threading.RLock()
        self._open: OrderedDict[LogFile, None] = OrderedDict()

    def add(self, path: str, handle: Optional[SegmentFile] = None) -> LogFile:
        """Return the file at ``path``, which is opened at its first use unless ``handle`` is."""
        file = LogFile(self, path, handle)
        if handle is not None:
            with self._lock:
                self._open[file] = None
                self._make_room(file)
        return file

    def hold(self, file: LogFile) -> SegmentFile:
        """Open ``file`` if need be and keep it open until ``let_go``. Raises: StorageError."""
        with self._lock:
            # Noted before it is open: ``close`` must know of it whenever an interrupt comes.
            self._open[file] = None
            self._open.move_to_end(file)
            if file.handle is None:
                try:
                    file.handle = self.backend.open(file.path)
                except OSError as error:
                    del self._open[file]
                    raise storage_error(error, file.path, "open") from error
                self._make_room(file)
            file.holds += 1
            return file.handle

    def let_go(self, file: LogFile) -> None:
        """End one ``hold``."""
        with self._lock:
            file.holds -= 1

    def _make_room(self, newest: LogFile) -> None:
        excess = len(self._open) - self._limit
        if excess <= 0:
            return
        for file in list(self._open):
            if file.holds == 0 and not file.is_dirty and file is not newest:
                self._close(file)
                excess -= 1
                if excess <= 0:
                    return

    def _close(self, file: LogFile) -> None:
        handle, file.handle = file.handle, None
        self._open.pop(file, None)
        if handle is not None:
            # It may report a write-back error of bytes that were never promised durable.
            self.gate.run_sync(handle.close, file.path)

    def sync(self, files: Iterable[LogFile]) -> int:
        """Make every byte written to these files before the call durable.

        Returns: how many files needed it. Raises: SyncFailedError: the log is poisoned, nothing
        is known of what is durable. Cost: one submission where the backend can.
        """
        self.gate.check_write()
        targets = [(file, file.written) for file in dict.fromkeys(files)]
        held: list[SegmentFile] = []
        taken: list[LogFile] = []
        try:
            for file, _count in targets:
                held.append(file.hold())
                taken.append(file)
            if len(held) == 1:
                self.gate.run_sync(held[0].sync, taken[0].path)
            elif held:
                paths = ", ".join(file.path for file in taken)
                self.gate.run_sync(lambda: self.backend.sync_many(held), paths)
            for file, count in targets:
                file.synced = max(file.synced, count)
        finally:
            for file in taken:
                file.let_go()
        return len(targets)

    def sync_one(self, file: LogFile) -> None:
        """Make every byte written to one file before the call durable.

        Raises: SyncFailedError: as for ``sync``. Cost: nothing beside the sync itself, which is why it
        is there: it stands between an append and its acknowledgement.
        """
        if self.gate.blocks_writes:
            self.gate.check_write()
        handle, ticket = file.handle, file.written
        if handle is None or not (file.holds or ticket != file.synced):
            # It may be closed meanwhile to make room.
            self.sync([file])
            return
        before = sys.exc_info()[1]
        try:
            # As in ``Gate.run_sync``.
            try:
                handle.sync()
            except OSError as error:
                raise self.gate.sync_failed(error, file.path) from error
        except BaseException as error:
            self.gate.keep_failure(error, before, file.path)
            raise
        if ticket > file.synced:
            file.synced = ticket

    def dirty_files(self) -> list[LogFile]:
        """Return the files with writes that no sync has covered."""
        with self._lock:
            return [file for file in self._open if file.is_dirty]

    def forget(self, file: LogFile) -> None:
        """Close a file that is about to be removed. Raises: StorageError."""
        with self._lock:
            self._close(file)

    def close(self) -> None:
        """Close every file; the first error is raised after all of them are closed."""
        first: Optional[BaseException] = None
        with self._lock:
            for file in list(self._open):
                try:
                    self._close(file)
                except BaseException as error:
                    first = first or error
        if first is not None:
            raise first


def wrap_directory_call(gate: Gate, path: str, operation: str, call: Callable[[], Any], poisons: bool) -> Any:
    """Run a directory operation of the backend; ``poisons`` says that a failure is a failed sync.

    Raises: StorageError, SyncFailedError.
    """
    if poisons:
        return gate.run_sync(call, path)
    try:
        return call()
    except OSError as error:
        raise storage_error(error, path, operation) from error
