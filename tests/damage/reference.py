"""Small directories that are damaged over and over, and what is known of every byte in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from random import Random
from typing import Any

from attrs import frozen

from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core.backend import Buffer
from walrus_core.format import FRAME_HEADER_SIZE, SEGMENT_HEADER_SIZE
from walrus_core.memory import MemoryBackend, MemoryFile, MemoryStore
from walrus_core.testing import make_payload

PATH = "/log"
SLOT = 16384
SLOTS = 4
CURSOR = "other"
NAMES = ("a", "żółw")
STATES = ("closed", "killed")
CHECKSUMS = ("fnv1a64", "crc32c")

Files = dict[str, bytes]
"""Bytes by path."""


@frozen
class Frame:
    """Where an entry lies: ``block`` is the position of its block in the file."""

    path: str
    block: int
    at: int
    end: int


@frozen
class Reference:
    """A directory, what it holds, and two more that pieces of others are taken from."""

    files: Files
    older: Files
    """The same log at an earlier time."""
    foreign: Files
    """Another log of the same shape."""
    entries: dict[str, list[bytes]]
    ends: dict[str, set[int]]
    durable: dict[str, int]
    """Entries below must be there, or be reported."""
    cursors: dict[tuple[str, str], int]
    frames: dict[tuple[str, int], Frame]
    options: dict[str, Any]
    is_killed: bool
    """As a killed process left it."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))

    def place(self, number: int) -> tuple[str, int]:
        """Return (path, position) of byte ``number`` of all files, one after the other."""
        for path, data in sorted(self.files.items()):
            if number < len(data):
                return path, number
            number -= len(data)
        raise IndexError(number)

    def payload_at(self, path: str, at: int) -> bool:
        """Return whether this byte belongs to a payload."""
        return any(
            frame.path == path and frame.at + FRAME_HEADER_SIZE <= at < frame.end
            for frame in self.frames.values()
        )


class WatchedFile(MemoryFile):
    """A file of a store that notes what is read of it."""

    def __init__(self, inner: MemoryFile, path: str, seen: dict[str, bytearray]) -> None:
        super().__init__(inner._data, inner._lock)
        self._seen = seen.setdefault(path, bytearray(len(inner._data)))

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        self._seen[at_bytes : at_bytes + length_bytes] = b"\1" * length_bytes
        return super().read_at(at_bytes, length_bytes)


class StillBackend(MemoryBackend):
    """A memory backend whose clock and randomness are the caller's; notes reads into ``seen``."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(store=MemoryStore())
        self.store.files = {path: bytearray(data) for path, data in files.items()}
        self.seen: dict[str, bytearray] = {}
        self.notes_reads = False

    def open(self, path: str) -> Any:
        file: Any = super().open(path)
        return WatchedFile(file, path, self.seen) if self.notes_reads else file

    def image(self) -> Files:
        """Return all bytes as they are."""
        return {path: bytes(data) for path, data in self.store.files.items()}


def open_log(backend: Any, options: Mapping[str, Any], path: str = PATH) -> Walrus:
    """Open the log as it lies there; nothing runs in the background, randomness is the same each time."""
    return Walrus(
        path, backend=backend, random_bytes=Random(1).randbytes, clock=lambda: 1_700_000_000, **options
    )


def build(state: str, checksum: str, seed: int = 1) -> Reference:
    """Return a directory of one segment and cursors.db, closed or as a killed process leaves it."""
    random = Random(f"reference {seed}")
    options: dict[str, Any] = {
        "block_size": SLOT,
        "blocks_per_segment": SLOTS,
        "checksum": checksum,
        "fsync_schedule": FsyncSchedule.no_fsync(),
        "consistency": ReadConsistency.strictly_at_once(),
    }
    backend = StillBackend({})
    wal = Walrus(PATH, backend=backend, random_bytes=random.randbytes, clock=lambda: 1, **options)
    entries: dict[str, list[bytes]] = {name: [] for name in NAMES}
    ends: dict[str, set[int]] = {name: {0} for name in NAMES}

    def add(name: str, lengths: list[int]) -> None:
        start = len(entries[name])
        batch = [make_payload(name, start + place, length) for place, length in enumerate(lengths)]
        wal.batch_append_for_topic(name, batch)
        entries[name] += batch
        ends[name].add(len(entries[name]))

    add(NAMES[1], [60] * 4)
    for number in range(16):
        add(NAMES[0], [[40, 333, 800, 77][number % 4]] * [1, 3, 1, 2][number % 4])
    wal.sync()
    older = backend.image()
    # Over the end of the block, by a batch that lies in both.
    add(NAMES[0], [1500, 1500, 1500, 0, 9, 1500])
    for number in range(12):
        add(NAMES[0], [64 + number])
        add(NAMES[1], [200])
    wal.seek(NAMES[0], 5)
    wal.seek(NAMES[0], 30, CURSOR)
    wal.read_next(NAMES[1])
    cursors = {place: wal.cursor_offset(*place) for place in ((NAMES[0], "default"), (NAMES[0], CURSOR))}
    wal.sync()
    durable = {name: len(found) for name, found in entries.items()}
    if state == "killed":
        # Nobody synced this: a scan finds it, and damage in it is a torn tail.
        add(NAMES[0], [50, 50])
        files = backend.image()
        wal._engine.abandon()
    else:
        wal.close()
        files = backend.image()
    foreign = files if seed != 1 else build(state, checksum, seed + 1).files
    frames = {
        (name, offset): locate(files, data)
        for name, known in entries.items()
        for offset, data in enumerate(known)
        if len(data) >= 32
    }
    return Reference(
        files, older, foreign, entries, ends, durable, cursors, frames, options, state == "killed"
    )


def locate(files: Files, payload: bytes) -> Frame:
    """Return where the one frame with this payload lies."""
    for path, data in files.items():
        at = data.find(payload)
        if at >= 0 and os.path.basename(path) != "cursors.db":
            block = SEGMENT_HEADER_SIZE + (at - SEGMENT_HEADER_SIZE) // SLOT * SLOT
            return Frame(path, block, at - FRAME_HEADER_SIZE, at + len(payload))
    raise LookupError(payload[:20])
