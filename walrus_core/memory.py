"""MemoryBackend: the reference implementation of the seam, and the backend of most tests.

Nothing is durable beyond the process; a ``MemoryStore`` plays the medium. Keep the store and
open a new log on it, and what was written is there again, as after the death of a process.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from walrus_core.backend import BACKEND_API, Buffer, Capabilities, SegmentFile


class MemoryStore:
    """Files by path. Shared by all backends that are given the same store."""

    def __init__(self) -> None:
        """Start empty."""
        self.files: dict[str, bytearray] = {}
        self.directories: set[str] = set()
        self.lock = threading.RLock()


class MemoryFile:
    """One open file of a store."""

    def __init__(self, data: bytearray, lock: threading.RLock) -> None:
        """``data`` is the store's own bytearray, not a copy."""
        self._data = data
        self._lock = lock

    @property
    def size_bytes(self) -> int:
        """Size of the file now."""
        return len(self._data)

    def _check(self, at_bytes: int, length_bytes: int) -> None:
        if at_bytes < 0 or length_bytes < 0 or at_bytes + length_bytes > len(self._data):
            raise OSError(errno.EIO, f"[{at_bytes}, {at_bytes + length_bytes}) ends beyond the file")

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        """Return exactly ``length_bytes``."""
        with self._lock:
            self._check(at_bytes, length_bytes)
            return bytes(self._data[at_bytes : at_bytes + length_bytes])

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        """Write all of ``data``."""
        with self._lock:
            self._check(at_bytes, len(data))
            self._data[at_bytes : at_bytes + len(data)] = data

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        """Extend the file where the range ends beyond it."""
        with self._lock:
            missing = at_bytes + length_bytes - len(self._data)
            if missing > 0:
                self._data.extend(bytes(missing))

    def sync(self) -> None:
        """Nothing to do: what is written survives as long as the store."""

    def close(self) -> None:
        """Nothing to release."""

    def discard(self, at_bytes: int, length_bytes: int) -> None:
        """Zero the range."""
        self.write_at(at_bytes, bytes(length_bytes))


class MemoryBackend:
    """Backend over a ``MemoryStore``; the store outlives it."""

    name = "memory"
    api = BACKEND_API

    def __init__(self, *, durable_writes: bool = False, store: Optional[MemoryStore] = None) -> None:
        """``store`` None starts with an empty one. ``durable_writes`` is not supported."""
        if durable_writes:
            raise ValueError("MemoryBackend has no durable writes")
        self.store = MemoryStore() if store is None else store

    @property
    def capabilities(self) -> Capabilities:
        """Only what the reference needs: no files, space can be given back."""
        return Capabilities(files=False, discard=True)

    def make_directory(self, path: str) -> None:
        """Note the directory."""
        self.store.directories.add(os.path.normpath(path))

    def list(self, directory: str) -> Iterable[str]:
        """Return the names of the files directly in ``directory``."""
        parent = os.path.normpath(directory)
        with self.store.lock:
            return [os.path.basename(path) for path in self.store.files if os.path.dirname(path) == parent]

    def create(self, path: str, *, size_bytes: int) -> SegmentFile:
        """Create a file of zeros that must not exist."""
        path = os.path.normpath(path)
        with self.store.lock:
            if path in self.store.files:
                raise FileExistsError(errno.EEXIST, "file exists", path)
            data = bytearray(size_bytes)
            self.store.files[path] = data
        return MemoryFile(data, self.store.lock)

    def open(self, path: str) -> SegmentFile:
        """Open an existing file."""
        with self.store.lock:
            data = self.store.files.get(os.path.normpath(path))
        if data is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return MemoryFile(data, self.store.lock)

    def rename(self, old_path: str, new_path: str) -> None:
        """Rename a file, replacing what has the new name."""
        with self.store.lock:
            data = self.store.files.pop(os.path.normpath(old_path), None)
            if data is None:
                raise FileNotFoundError(errno.ENOENT, "no such file", old_path)
            self.store.files[os.path.normpath(new_path)] = data

    def remove(self, path: str) -> None:
        """Remove a file."""
        with self.store.lock:
            if self.store.files.pop(os.path.normpath(path), None) is None:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)

    def sync_dir(self, directory: str) -> None:
        """Nothing to do."""

    def sync_many(self, files: Sequence[SegmentFile]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """The store lives on."""

    def probe(self) -> dict[str, Any]:
        """Say that nothing is durable."""
        return {"medium": "memory of this process", "durable": False}
