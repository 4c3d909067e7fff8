"""Makes log directories whose checksums fit and whose fields lie.

``Image`` is a directory in memory, a file being a dict of pieces, so that files of terabytes cost nothing.
``sound_image`` has what a log leaves behind. ``reseal_*`` give a page of it the checksum that fits after
its fields were changed: what somebody could do who has read the segment and knows its salt.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import Any, Optional

from walrus_core import FsyncSchedule, Walrus, pages
from walrus_core import _hot_py as pure
from walrus_core import format as fmt
from walrus_core.hot import FNV_BASIS, block_key, fnv1a64
from walrus_core.memory import MemoryBackend, MemoryStore

BLOCK_SIZE = 16384
SLOTS = 3
SALT = 0x0123456789ABCDEF
LOG_ID = bytes(range(16))
DIRECTORY = "log"
GEOMETRY = {"block_size": BLOCK_SIZE, "blocks_per_segment": SLOTS}
TOPICS = ("alpha", "beta", "gamma")


def payload(topic: str, offset: int, length: int) -> bytes:
    """Return a payload that says whose it is."""
    text = f"{topic}/{offset}/".encode()
    return (text * (length // len(text) + 1))[: max(length, len(text))]


def length_of(topic: str, offset: int) -> int:
    """Length of an entry of the sound image: mostly short, some of blocks of their own."""
    return 20_000 if topic == "gamma" and offset == 1 else 40 + 900 * (offset % 4)


def random_bytes(count: int) -> bytes:
    """Injected randomness: every segment has SALT, so that whoever crafts knows it."""
    return (SALT.to_bytes(8, "little") * 2)[:count] if count == 8 else LOG_ID[:count]


def open_memory(store: MemoryStore, **options: Any) -> Walrus:
    """Open the log of a store."""
    options = {"backend": MemoryBackend(store=store), "fsync_schedule": FsyncSchedule.no_fsync(), **options}
    return Walrus(
        DIRECTORY, random_bytes=random_bytes, clock=lambda: 1_700_000_000_000_000_000, **GEOMETRY, **options
    )


@functools.cache
def sound_files(is_closed: bool) -> dict[str, bytes]:
    """Return the files of a log of three topics over several segments, closed or killed."""
    store = MemoryStore()
    wal = open_memory(store)
    for offset in range(12):
        for topic in TOPICS:
            if topic == "beta" and offset == 6:
                wal.batch_append_for_topic(
                    topic, [payload(topic, n, length_of(topic, n)) for n in range(6, 12)]
                )
            elif topic != "beta" or offset < 6:
                wal.append_for_topic(topic, payload(topic, offset, length_of(topic, offset)))
        if offset == 5:
            wal.sync()
    for _ in range(3):
        wal.read_next("alpha")
        wal.read_next("beta", cursor="second")
    if is_closed:
        wal.close()
    files = {os.path.basename(path): bytes(data) for path, data in store.files.items()}
    wal.close()
    return files


class Image:
    """Files that are changed in place and then opened."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = {name: bytearray(data) for name, data in files.items()}

    def segments(self) -> list[str]:
        """Names of the segments, oldest first."""
        return sorted(name for name in self.files if name.endswith(fmt.SEGMENT_SUFFIX))

    def store(self, size_max: int) -> MemoryStore:
        """Return the image as a medium on which no file grows beyond ``size_max``."""
        store = MemoryStore()
        store.files = {
            f"{DIRECTORY}/{name}": CappedBytes(data, size_max) for name, data in self.files.items()
        }
        return store

    def write(self, name: str, at: int, data: bytes) -> None:
        """Overwrite bytes, as far as the file goes."""
        file = self.files[name]
        data = data[: max(0, len(file) - at)]
        file[at : at + len(data)] = data


class CappedBytes(bytearray):
    """A file of a medium that has only so much space."""

    def __init__(self, data: bytes, size_max: int) -> None:
        super().__init__(data)
        self.size_max = size_max

    def extend(self, data: Any) -> None:
        """Grow, or raise as a full disk does."""
        if len(self) + len(data) > self.size_max:
            raise OSError(28, "no space left on this medium")
        super().extend(data)


# --- pages ------------------------------------------------------------------------------------------


def reseal(file: bytearray, at: int, size: int, key: int) -> None:
    """Give the page part ``[at, at + size)`` the checksum that fits."""
    if at + size <= len(file):
        body = bytes(file[at : at + size - 8])
        struct.pack_into("<Q", file, at + size - 8, fnv1a64(body, key))


def reseal_segment(file: bytearray) -> None:
    """Reseal both headers of a segment."""
    for at in (0, fmt.SEGMENT_COPY_AT):
        reseal(file, at, fmt.SEGMENT_HEADER_USED, FNV_BASIS)


def reseal_block(file: bytearray, at: int, salt: int = SALT) -> None:
    """Reseal the header page at ``at``: the header, its copy and the marks that are there."""
    key = pages.metadata_key(salt)
    for part in (0, fmt.BLOCK_COPY_AT):
        reseal(file, at + part, fmt.BLOCK_HEADER_SIZE, key)
    for part in fmt.MARK_AT:
        if any(file[at + part : at + part + fmt.MARK_SIZE]):
            reseal(file, at + part, fmt.MARK_SIZE, key)


def reseal_cursor_page(file: bytearray, number: int, log_id: bytes = LOG_ID) -> None:
    """Reseal a page of cursors.db: the states that are there, and the identity."""
    key = fnv1a64(log_id + number.to_bytes(8, "little"))
    start = number * fmt.PAGE_SIZE
    for part, size in (
        (0, 56),
        (512, 56),
        (fmt.IDENTITY_AT, fmt.IDENTITY_SIZE),
        (fmt.IDENTITY_COPY_AT, fmt.IDENTITY_SIZE),
    ):
        if any(file[start + part : start + part + size]):
            reseal(file, start + part, size, key)


def reseal_frame(file: bytearray, at: int, block_sequence: int, algorithm: int, salt: int = SALT) -> None:
    """Give what stands at ``at`` a sound frame header, and a sound checksum where the payload is there."""
    if at + fmt.FRAME_HEADER_SIZE > len(file):
        return
    key = block_key(salt, block_sequence)
    _sum, length, _check, kind, flags, remaining, index, timestamp = struct.unpack_from(
        fmt.FRAME_STRUCT, file, at
    )
    kind = kind or fmt.KIND_ENTRY
    word = kind | flags << 8 | remaining << 16
    check = pure.header_check(key, length, word, index, timestamp)
    rest = struct.pack("<IIBBHIQ", length, check, kind, flags, remaining, index, timestamp)
    body = bytes(file[at + fmt.FRAME_HEADER_SIZE : at + fmt.FRAME_HEADER_SIZE + length])
    total = fnv1a64(body, fnv1a64(rest, key))
    if algorithm == fmt.CHECKSUM_CRC32C:
        from walrus_core.hot import crc32c

        total = pure.mix64((key + index) % 2**64) >> 32 << 32 | crc32c(body, crc32c(rest))
    file[at : at + fmt.FRAME_HEADER_SIZE] = struct.pack("<Q", total) + rest


def frame(
    block_sequence: int,
    index: int,
    data: bytes,
    *,
    remaining: int = 0,
    flags: int = 1,
    length: Optional[int] = None,
    salt: int = SALT,
    algorithm: int = fmt.CHECKSUM_FNV1A64,
) -> bytes:
    """Return a frame; ``length`` is what its header says instead of the truth."""
    file = bytearray(32) + data + bytes(-len(data) % 8)
    said = len(data) if length is None else length
    struct.pack_into(fmt.FRAME_STRUCT, file, 0, 0, said, 0, fmt.KIND_ENTRY, flags, remaining, index, 7)
    reseal_frame(file, 0, block_sequence, algorithm, salt)
    return bytes(file)
