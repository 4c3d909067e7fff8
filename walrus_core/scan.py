"""Walking over the frames of a block that nothing vouches for yet, in bounded memory.

What a file says of itself is only believed once a checksum has passed, and even then a frame may be
said to be gigabytes long, or a block to be so in a file that is one large hole: bytes are looked at in
pieces, and holes are stepped over where the file system can tell them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Optional

from walrus_core import format as fmt
from walrus_core import hot
from walrus_core.backend import Buffer
from walrus_core.block import Block, State

SCAN_BYTES = 1024 * 1024
LARGE_BYTES = 16 * 1024 * 1024
"""Frames from this size on are verified piece by piece."""
SEARCH_BYTES = 256 * 1024 * 1024
_FRAME = struct.Struct(fmt.FRAME_STRUCT)


def scan(block: Block, start: State, remaining: int, limit_index: int) -> tuple[State, int]:
    """Verify frames behind ``start`` until the first that is not sound, or ``limit_index``.

    Returns: (the state behind the last sound frame, entries of its batch still to come).
    """
    state = start
    length = SCAN_BYTES
    while state.at + fmt.FRAME_HEADER_SIZE <= block.length_bytes:
        if block.skip_hole(state.at) >= state.at + fmt.FRAME_HEADER_SIZE:
            break  # no header is all zero
        view = block.read(state.at, min(length, block.length_bytes - state.at))
        at, index, remaining, payload_bytes, low, high, status, need = hot.walk(
            view, 0, block.key, block.algorithm, state.entries, remaining, limit_index
        )
        state = State(
            state.at + at,
            index,
            state.payload_bytes + payload_bytes,
            min(state.low_ns, low),
            max(state.high_ns, high),
        )
        if status != hot.SHORT or state.at + need > block.length_bytes:
            break
        length = SCAN_BYTES
        if need < LARGE_BYTES:
            length = max(need, SCAN_BYTES)
            continue
        # The walk has found that the header is sound and the next one; the rest is its checksum.
        found = _large_frame(block, state, need)
        if found is None:
            break
        state, remaining = found
    return state, remaining


def _large_frame(block: Block, before: State, size: int) -> Optional[tuple[State, int]]:
    """Return what ``scan`` knows behind the frame of ``size`` bytes, None where its checksum is wrong."""
    head = bytes(block.read(before.at, fmt.FRAME_HEADER_SIZE))
    checksum, length, _check, _kind, _flags, left, index, timestamp = _FRAME.unpack(head)
    if hot.frame_size(length) != size or index != before.entries:
        return None
    start = before.at + fmt.FRAME_HEADER_SIZE
    if block.algorithm == fmt.CHECKSUM_FNV1A64:
        found = hot.fnv1a64(head[8:], block.key)
        for piece in pieces(block, start, start + length):
            found = hot.fnv1a64(piece, found)
    else:
        found = hot.crc32c(head[8:])
        for piece in pieces(block, start, start + length):
            found = hot.crc32c(piece, found)
        found |= hot.mix64((block.key + index) % 2**64) >> 32 << 32
    if found != checksum:
        return None
    low, high = min(before.low_ns, timestamp), max(before.high_ns, timestamp)
    return State(before.at + size, index + 1, before.payload_bytes + length, low, high), left


def pieces(block: Block, at: int, end: int) -> Iterator[Buffer]:
    """Yield the bytes ``[at, end)`` of a block, up to SCAN_BYTES at once. Raises: StorageError."""
    while at < end:
        length = min(SCAN_BYTES, end - at)
        yield block.read(at, length)
        at += length


def rest_is_zero(block: Block, at: int) -> bool:
    """True where nothing but zeros stands from ``at`` to the end of the block."""
    return next_written(block, at) == block.length_bytes


def next_written(block: Block, at: int) -> int:
    """Return the start of the first piece from ``at`` on that is not all zero, or the block's end.

    Cost: reads up to there, but not what the file system knows to be a hole.
    """
    end = block.length_bytes
    while (at := block.skip_hole(at)) < end:
        length = min(SCAN_BYTES, end - at)
        if not hot.is_zero(block.read(at, length)):
            return at
        at += length
    return end


def sound_behind(block: Block, state: State) -> bool:
    """True where a sound frame stands behind the torn one at which the block was cut.

    In what is longer than SEARCH_BYTES, frames longer than half of that may go unseen.
    """
    at = state.at + fmt.FRAME_ALIGN
    while (at := next_written(block, at)) < block.length_bytes:
        # Frames that begin in the first half of a window lie in it, unless they are longer than half of it.
        at -= at % fmt.FRAME_ALIGN
        length = min(SEARCH_BYTES, block.length_bytes - at)
        if hot.find_frame(block.read(at, length), 0, block.key, state.entries + 1, 2**32)[0] >= 0:
            return True
        at += SEARCH_BYTES // 2
    return False


def has_whole_batch(block: Block) -> bool:
    """True where a block that is cut off holds at least one complete batch."""
    at, index, expected = fmt.PAGE_SIZE, 0, -1
    while at + fmt.FRAME_HEADER_SIZE <= block.length_bytes:
        header = hot.peek_header(block.read(at, fmt.FRAME_HEADER_SIZE), 0, block.key)
        if header is None or header[1] != index or expected not in (-1, header[2]):
            return False
        if header[2] == 0:
            return True
        at += hot.frame_size(header[0])
        index += 1
        expected = header[2] - 1
    return False
