"""A backend over a backend that lets nothing through but reads: what is written stays in memory.

With it the code that opens a log can be run on a directory of which no byte may change: what it
writes, it reads again, and ``changes`` tells afterwards what it would have written.

Invariant: of the backend below, only ``list``, opening and reading methods, and ``close`` are called.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from typing import Any, Optional, cast

from attrs import define, field, frozen

from walrus_core.backend import BACKEND_API, Backend, Buffer, Capabilities, CapableBackend, CapableFile
from walrus_core.backend import SegmentFile as BaseFile
from walrus_core.format import PAGE_SIZE


@frozen(kw_only=True)
class Change:
    """Bytes that the file does not hold yet: ``data`` at ``at_bytes``; one run of pages."""

    path: str
    at_bytes: int
    data: bytes


@define
class _Image:
    """What of one file is other than the file below."""

    is_new: bool = False
    """There is no file below, or it counts no longer."""
    size_bytes: int = 0
    """The file reads as at least this long, zeros behind its own bytes."""
    pages: dict[int, bytearray] = field(factory=dict)
    """Written pages, by number."""


class OverlayFile:
    """One open file. Threads: one."""

    def __init__(self, image: _Image, base: Optional[BaseFile], path: str) -> None:
        """``base`` is the file below, None where there is none."""
        self._image = image
        self._base = base
        self._path = path

    def _base_bytes(self) -> int:
        return 0 if self._base is None else self._base.size_bytes

    @property
    def size_bytes(self) -> int:
        """Size of the file as it would be."""
        return max(self._base_bytes(), self._image.size_bytes)

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        """Return exactly ``length_bytes``: written pages, the file below, zeros behind its end."""
        end = at_bytes + length_bytes
        size = self._base_bytes()
        if at_bytes < 0 or length_bytes < 0 or end > max(size, self._image.size_bytes):
            raise OSError(errno.EIO, f"[{at_bytes}, {end}) ends beyond the file", self._path)
        if self._base is not None and end <= size and not self._image.pages:
            return self._base.read_at(at_bytes, length_bytes)
        data = bytearray(length_bytes)
        below = max(min(end, size) - at_bytes, 0)
        if self._base is not None and below:
            data[:below] = self._base.read_at(at_bytes, below)
        for number in self._written(at_bytes, end):
            first, stop = max(number * PAGE_SIZE, at_bytes), min((number + 1) * PAGE_SIZE, end)
            page = self._image.pages[number]
            data[first - at_bytes : stop - at_bytes] = page[first % PAGE_SIZE : stop - number * PAGE_SIZE]
        return data

    def _written(self, at_bytes: int, end: int) -> Iterable[int]:
        pages = self._image.pages
        numbers = range(at_bytes // PAGE_SIZE, -(-end // PAGE_SIZE))
        return (
            [number for number in numbers if number in pages]
            if len(numbers) < len(pages)
            else [number for number in sorted(pages) if number in numbers]
        )

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        """Keep ``data`` in memory."""
        view = memoryview(data).cast("B")
        end = at_bytes + len(view)
        if at_bytes < 0 or end > self.size_bytes:
            raise OSError(errno.EIO, f"[{at_bytes}, {end}) ends beyond the file", self._path)
        for number in range(at_bytes // PAGE_SIZE, -(-end // PAGE_SIZE)):
            start = number * PAGE_SIZE
            if number not in self._image.pages:
                length = min(PAGE_SIZE, self.size_bytes - start)
                self._image.pages[number] = bytearray(self.read_at(start, length)).ljust(PAGE_SIZE, b"\0")
            first, stop = max(start, at_bytes), min(start + PAGE_SIZE, end)
            self._image.pages[number][first - start : stop - start] = view[first - at_bytes : stop - at_bytes]

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        """Let the file read as long enough."""
        self._image.size_bytes = max(self._image.size_bytes, at_bytes + length_bytes)

    def sync(self) -> None:
        """Nothing to do: nothing becomes durable here."""

    def drop_cache(self) -> None:
        """Let the file below be read from the medium; by capability only."""
        if self._base is not None:
            cast(CapableFile, self._base).drop_cache()

    def close(self) -> None:
        """Close the file below; what was written is kept."""
        if self._base is not None:
            self._base.close()


class OverlayBackend:
    """See the module. Threads: one."""

    name = "overlay"
    api = BACKEND_API

    def __init__(self, inner: Backend, *, from_medium: bool = False) -> None:
        """``from_medium``: empty the cache of each file that is opened, where the backend can, so that
        its clean pages are read from the medium. It costs whoever else reads the file."""
        self._inner = inner
        self._drops = from_medium and inner.capabilities.drop_cache
        self._images: dict[str, _Image] = {}
        self._removed: set[str] = set()

    @property
    def capabilities(self) -> Capabilities:
        """Nothing but what reading needs; no real files, so that no lock and no directory is made."""
        return Capabilities(files=False, drop_cache=self._inner.capabilities.drop_cache)

    def make_directory(self, path: str) -> None:
        """Nothing to do."""

    def list(self, directory: str) -> Iterable[str]:
        """Return the names as they would be."""
        parent = os.path.normpath(directory)
        ours = [path for path, image in self._images.items() if image.is_new]
        names = {os.path.basename(path) for path in ours if os.path.dirname(path) == parent}
        below = {name for name in self._inner.list(directory)}
        return names | {name for name in below if os.path.join(parent, name) not in self._removed}

    def create(self, path: str, *, size_bytes: int) -> OverlayFile:
        """Make a file in memory."""
        path = os.path.normpath(path)
        if not self._is_gone(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        image = _Image(is_new=True, size_bytes=size_bytes)
        self._images[path] = image
        return OverlayFile(image, None, path)

    def _is_gone(self, path: str) -> bool:
        image = self._images.get(path)
        if image is not None and image.is_new:
            return False
        directory, name = os.path.split(path)
        return path in self._removed or name not in self._inner.list(directory)

    def open(self, path: str) -> OverlayFile:
        """Open an existing file of either kind."""
        path = os.path.normpath(path)
        image = self._images.setdefault(path, _Image())
        if image.is_new:
            return OverlayFile(image, None, path)
        if path in self._removed:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        base = open_to_read(self._inner, path)
        if self._drops:
            cast(CapableFile, base).drop_cache()
        return OverlayFile(image, base, path)

    def rename(self, old_path: str, new_path: str) -> None:
        """Refuse: nobody who only looks at a log renames anything."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), old_path)

    def remove(self, path: str) -> None:
        """Let the file be gone."""
        path = os.path.normpath(path)
        if self._is_gone(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._images.pop(path, None)
        self._removed.add(path)

    def sync_dir(self, directory: str) -> None:
        """Nothing to do."""

    def sync_many(self, files: Sequence[BaseFile]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Close the backend below."""
        self._inner.close()

    def probe(self) -> dict[str, Any]:
        """Say what is below."""
        return {"writes": "kept in memory", **self._inner.probe()}

    def changes(self) -> Sequence[Change]:
        """Return what was written and is not in the files below, runs of pages in order of file and place."""
        found: list[Change] = []
        for path, image in sorted(self._images.items()):
            if not image.pages:
                continue
            base = None if image.is_new else open_to_read(self._inner, path)
            try:
                found.extend(_differences(path, image, base))
            finally:
                if base is not None:
                    base.close()
        return found

    def is_new(self, path: str) -> bool:
        """True where the file below, if there is one, is replaced as a whole."""
        image = self._images.get(os.path.normpath(path))
        return image is not None and image.is_new


def _differences(path: str, image: _Image, base: Optional[BaseFile]) -> list[Change]:
    found: list[Change] = []
    size = 0 if base is None else base.size_bytes
    for number in sorted(image.pages):
        start = number * PAGE_SIZE
        old = b""
        if base is not None and start < size:
            old = bytes(base.read_at(start, min(PAGE_SIZE, size - start)))
        if old == image.pages[number]:
            continue
        if found and found[-1].at_bytes + len(found[-1].data) == start:
            found[-1] = Change(
                path=path, at_bytes=found[-1].at_bytes, data=found[-1].data + image.pages[number]
            )
        else:
            found.append(Change(path=path, at_bytes=start, data=bytes(image.pages[number])))
    return found


def open_to_read(backend: Backend, path: str) -> BaseFile:
    """Open a file without the right to write, where the backend can. Raises: OSError."""
    if backend.capabilities.read_only:
        return cast(CapableBackend, backend).open_read_only(path)
    return backend.open(path)
