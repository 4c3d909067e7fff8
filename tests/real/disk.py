"""A disk of one file, served from memory by FUSE, that keeps a journal of what it is asked to do.

    python disk.py POINT IMAGE JOURNAL CONTROL

POINT/disk begins as a copy of IMAGE; a file system in it is mounted through a loop device. JOURNAL
gets every write and every flush, in order, before it is answered. CONTROL says how, looked at
for every request: ``ok``; ``eio-write``, ``eio-flush``, ``eio-read``: requests of that kind fail
and change nothing; ``eio-data FIRST END ...``: writes that touch these ranges of bytes fail; ``lie``:
flushes are answered and not noted, as by a drive that ignores them.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from pathlib import Path
from typing import Any

import mfusepy

HEADER = struct.Struct("<cQI")
"""Kind (``W`` or ``F``), position in bytes, length in bytes; a write is followed by its bytes."""


class Disk(mfusepy.Operations):
    """The file system with the one file. Single-threaded: requests are answered in order."""

    use_ns = True

    def __init__(self, image: str, journal: str, control: str) -> None:
        self.data = bytearray(Path(image).read_bytes())
        self.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.control = control

    def _mode(self) -> list[str]:
        with open(self.control, encoding="ascii") as source:
            return source.read().split()

    def _fail_if(self, word: str) -> None:
        if self._mode()[0] == word:
            raise mfusepy.FuseOSError(errno.EIO)

    def _fail_data(self, first: int, end: int) -> None:
        word, *numbers = self._mode()
        if word == "eio-data":
            bounds = list(map(int, numbers))
            for range_first, range_end in zip(bounds[::2], bounds[1::2], strict=True):
                if first < range_end and range_first < end:
                    raise mfusepy.FuseOSError(errno.EIO)

    def _note(self, *parts: bytes) -> None:
        length = sum(map(len, parts))
        if os.writev(self.journal, parts) != length:
            raise mfusepy.FuseOSError(errno.EIO)

    def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path != "/disk":
            raise mfusepy.FuseOSError(errno.ENOENT)
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": len(self.data)}

    def readdir(self, path: str, fh: Any) -> list[str]:
        return [".", "..", "disk"]

    def open(self, path: str, flags: int) -> int:
        return 1

    def read(self, path: str, size: int, offset: int, fh: Any) -> bytes:
        self._fail_if("eio-read")
        return bytes(self.data[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: Any) -> int:
        self._fail_if("eio-write")
        self._fail_data(offset, offset + len(data))
        self._note(HEADER.pack(b"W", offset, len(data)), data)
        self.data[offset : offset + len(data)] = data
        return len(data)

    def fsync(self, path: str, datasync: int, fh: Any) -> int:
        self._fail_if("eio-flush")
        if self._mode()[0] != "lie":
            self._note(HEADER.pack(b"F", 0, 0))
        return 0

    def flush(self, path: str, fh: Any) -> int:
        return 0


if __name__ == "__main__":
    point, *paths = sys.argv[1:]
    mfusepy.FUSE(Disk(*paths), point, foreground=True, nothreads=True)
