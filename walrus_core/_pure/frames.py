"""Frames in pure Python: encode, decode, walk, search. docs/format.md, "Frame", is the source.

Invariant: a function here never trusts a length whose header check has not passed, and never
reads outside the buffer it was given.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Any, Optional, Union

from walrus_core._pure.entry import (
    Entry,
    crc32c,
    fnv1a64,
    header_check,
    mix64,
)
from walrus_core.errors import InvalidPayloadError
from walrus_core.format import (
    CHECKSUM_FNV1A64,
    FLAG_FIRST,
    FRAME_ALIGN,
    FRAME_HEADER_SIZE,
    FRAME_STRUCT,
    KIND_ENTRY,
)

Buffer = Union[bytes, bytearray, memoryview]

_MASK64 = (1 << 64) - 1

# Ways a decode or a walk ends.
DONE = 0
"""The limit, the budget or (walk) the end of the region was reached."""
SHORT = 1
"""The next frame goes on beyond the buffer; ``need`` tells how many bytes from its start."""
BAD_HEADER = 2
"""No sound header with the expected index stands here."""
BAD_PAYLOAD = 3
"""The header is sound, the checksum over header and payload is not."""

READS_FILES: bool = hasattr(os, "pread")
"""Whether ``decode_file`` works here."""

GATHER_BYTES_MIN = 64 * 1024
"""Immutable payloads of this size and more are handed to the backend without a copy."""

_FRAME = struct.Struct(FRAME_STRUCT)
_HEADER_TAIL = struct.Struct("<IIBBHIQ")
_ZEROS = bytes(FRAME_ALIGN)


def frame_size(length_bytes: int) -> int:
    """Return the bytes that a payload of ``length_bytes`` takes on disk: header, payload, padding."""
    return (FRAME_HEADER_SIZE + length_bytes + FRAME_ALIGN - 1) & -FRAME_ALIGN


def _checksum(key: int, algorithm: int, header_rest: bytes, payload: Buffer, index: int) -> int:
    """Return the frame checksum over header bytes 8.. and the payload."""
    if algorithm == CHECKSUM_FNV1A64:
        return fnv1a64(payload, fnv1a64(header_rest, key))
    tag = mix64((key + index) & _MASK64) >> 32
    return (tag << 32) | crc32c(payload, crc32c(header_rest))


# --- encode -------------------------------------------------------------------------------


def as_payload(data: object) -> bytes:
    """Return the payload as immutable bytes; anything but ``bytes`` is copied.

    Raises: InvalidPayloadError: not a buffer; a str is told to encode itself.
    """
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        raise InvalidPayloadError(reason="a payload is bytes, not str: encode it first, as in text.encode()")
    try:
        return memoryview(data).tobytes()  # type: ignore[arg-type]
    except TypeError:
        kind = type(data).__name__
        raise InvalidPayloadError(reason=f"a payload is a bytes-like object, not {kind}") from None


def measure(payloads: Union[list[Any], tuple[Any, ...]]) -> tuple[int, int]:
    """Return (bytes of all payloads, bytes of the longest), or (-1, -1) unless all are exact ``bytes``."""
    lengths = [len(payload) for payload in payloads if type(payload) is bytes]
    if len(lengths) != len(payloads):
        return -1, -1
    return sum(lengths), max(lengths, default=0)


def fill(payloads: list[bytes], start: int, end: int, room_bytes: int) -> tuple[int, int, int]:
    """Find how many payloads of ``[start, end)`` have frames that fit into ``room_bytes`` together.

    Returns: (place behind the last of them, bytes of their frames, bytes of the payloads).
    """
    stop, size_bytes, payload_bytes = start, 0, 0
    for payload in payloads[start:end]:
        size = frame_size(len(payload))
        if size_bytes + size > room_bytes:
            break
        size_bytes += size
        payload_bytes += len(payload)
        stop += 1
    return stop, size_bytes, payload_bytes


def encode_header(
    key: int, algorithm: int, payload: Buffer, flags: int, remaining: int, index: int, timestamp: int
) -> bytes:
    """Return the 32 bytes that stand in front of ``payload``."""
    length = len(payload)
    word = KIND_ENTRY | (flags << 8) | (remaining << 16)
    check = header_check(key, length, word, index, timestamp)
    rest = _HEADER_TAIL.pack(length, check, KIND_ENTRY, flags, remaining, index, timestamp)
    return _checksum(key, algorithm, rest, payload, index).to_bytes(8, "little") + rest


def encode_batch(
    key: int,
    algorithm: int,
    payloads: list[bytes],
    start: int,
    stop: int,
    index: int,
    timestamp: int,
) -> list[Buffer]:
    """Encode entries ``[start, stop)`` of a batch as one run of frames.

    ``index`` is that of the first of them in its block. Entry 0 carries the first-of-batch flag,
    and batch_remaining counts down to the last of ``payloads``, wherever the run stops.

    Returns: buffers whose concatenation is the run. Payloads of GATHER_BYTES_MIN and more are
    among them as they are, not copied.
    """
    out: list[Buffer] = []
    run = bytearray()
    last = len(payloads) - 1
    for place in range(start, stop):
        payload = payloads[place]
        flags = FLAG_FIRST if place == 0 else 0
        run += encode_header(key, algorithm, payload, flags, last - place, index + place - start, timestamp)
        if len(payload) >= GATHER_BYTES_MIN:
            out += (run, payload)
            run = bytearray()
        else:
            run += payload
        run += _ZEROS[: -len(payload) % FRAME_ALIGN]
    if run:
        out.append(run)
    return out


# --- decode -------------------------------------------------------------------------------


def _read_header(view: Buffer, at: int, end: int, key: int) -> Optional[tuple[int, int, int, int, int, int]]:
    """Return (checksum, length, flags, remaining, index, timestamp) of a sound header, or None."""
    if at + FRAME_HEADER_SIZE > end:
        return None
    checksum, length, check, kind, flags, remaining, index, timestamp = _FRAME.unpack_from(view, at)
    if kind == 0:
        return None
    word = kind | (flags << 8) | (remaining << 16)
    if check != header_check(key, length, word, index, timestamp):
        return None
    return checksum, length, flags, remaining, index, timestamp


def peek_header(view: Buffer, at: int, key: int) -> Optional[tuple[int, int, int]]:
    """Return (length_bytes, index, batch_remaining) of the sound header at ``at``, or None."""
    found = _read_header(view, at, len(view), key)
    return None if found is None else (found[1], found[4], found[3])


def decode(
    view: Buffer,
    at: int,
    key: int,
    algorithm: int,
    first_offset: int,
    index: int,
    limit_index: int,
    max_bytes: int,
    max_entries: int,
) -> tuple[list[Entry], int, int, int, int]:
    """Decode frames ``[index, limit_index)`` of one block, whose first stands at ``at``.

    Stops before the entry with which the payload sum would exceed ``max_bytes`` (the first entry
    is always taken) and after ``max_entries``.

    Returns: (entries, at, index, status, need): place and index of the next frame, one of DONE,
    SHORT, BAD_HEADER, BAD_PAYLOAD for what stands there, and for SHORT the bytes needed from ``at``.
    """
    entries: list[Entry] = []
    end = len(view)
    total = 0
    while index < limit_index and len(entries) < max_entries:
        if at + FRAME_HEADER_SIZE > end:
            return entries, at, index, SHORT, FRAME_HEADER_SIZE
        found = _read_header(view, at, end, key)
        if found is None or found[4] != index:
            return entries, at, index, BAD_HEADER, 0
        checksum, length, _flags, _remaining, _index, timestamp = found
        if entries and total + length > max_bytes:
            break
        size = frame_size(length)
        if at + size > end:
            return entries, at, index, SHORT, size
        data = bytes(view[at + FRAME_HEADER_SIZE : at + FRAME_HEADER_SIZE + length])
        if checksum != _checksum(key, algorithm, bytes(view[at + 8 : at + FRAME_HEADER_SIZE]), data, index):
            return entries, at, index, BAD_PAYLOAD, size
        entries.append(Entry(first_offset + index, timestamp, data))
        total += length
        at += size
        index += 1
    return entries, at, index, DONE, 0


def decode_file(
    descriptor: int,
    position: int,
    size: int,
    key: int,
    algorithm: int,
    first_offset: int,
    index: int,
    limit_index: int,
    max_bytes: int,
    max_entries: int,
) -> tuple[list[Entry], int, int, int, int]:
    """Read and decode frames ``[index, limit_index)`` that stand in ``size`` bytes of a file at ``position``.

    Each payload is read into its entry, not copied there: for large ones. Otherwise as ``decode``, with
    ``at`` from ``position``. Raises: OSError. Cost: one system call a frame, without the GIL.
    """
    entries: list[Entry] = []
    at = total = 0
    while index < limit_index and len(entries) < max_entries:
        view = _read_exactly(descriptor, position + at, min(FRAME_HEADER_SIZE, size - at))
        ahead = peek_header(view, 0, key)
        if ahead is not None and ahead[1] == index:
            if entries and total + ahead[0] > max_bytes:
                break
            view = _read_exactly(descriptor, position + at, min(frame_size(ahead[0]), size - at))
        found, step, index, status, need = decode(
            view, 0, key, algorithm, first_offset, index, index + 1, max_bytes, 1
        )
        if status != DONE:
            return entries, at, index, status, need
        entries += found
        at += step
        total += len(found[0].data)
    return entries, at, index, DONE, 0


def _read_exactly(descriptor: int, position: int, length: int) -> bytes:
    parts = []
    while length:
        part = os.pread(descriptor, length, position)
        if not part:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        parts.append(part)
        position += len(part)
        length -= len(part)
    return b"".join(parts)


def verify(
    run: bytes, at: int, key: int, algorithm: int, index: int, limit_index: int
) -> tuple[int, int, int, int]:
    """Verify frames ``[index, limit_index)`` of one block, whose first stands at ``at``.

    Returns: (at, index, status, need) as in ``decode``.
    """
    end = len(run)
    while index < limit_index:
        if at + FRAME_HEADER_SIZE > end:
            return at, index, SHORT, FRAME_HEADER_SIZE
        found = _read_header(run, at, end, key)
        if found is None or found[4] != index:
            return at, index, BAD_HEADER, 0
        size = frame_size(found[1])
        if at + size > end:
            return at, index, SHORT, size
        payload = memoryview(run)[at + FRAME_HEADER_SIZE : at + FRAME_HEADER_SIZE + found[1]]
        if found[0] != _checksum(key, algorithm, run[at + 8 : at + FRAME_HEADER_SIZE], payload, index):
            return at, index, BAD_PAYLOAD, size
        at += size
        index += 1
    return at, index, DONE, 0


def entry_in(run: bytes, at: int, offset: int) -> Optional[Entry]:
    """Return the entry of the verified frame at ``at`` of a run, or None where no frame fits there."""
    if at < 0 or at + FRAME_HEADER_SIZE > len(run):
        return None
    _checksum, length, *_fields, timestamp = _FRAME.unpack_from(run, at)
    if at + frame_size(length) > len(run):
        return None
    return Entry(offset, timestamp, run[at + FRAME_HEADER_SIZE : at + FRAME_HEADER_SIZE + length])


def payload_bytes(entries: list[Entry]) -> int:
    """Return the payload bytes of all entries together."""
    return sum([len(entry.data) for entry in entries])


def seek(view: Buffer, at: int, key: int, index: int, target_index: int) -> tuple[int, int, int, int]:
    """Step from frame ``index`` at ``at`` towards ``target_index`` by headers alone.

    Returns: (at, index, status, need) as in ``decode``; DONE means that ``target_index`` was reached.
    """
    end = len(view)
    while index < target_index:
        if at + FRAME_HEADER_SIZE > end:
            return at, index, SHORT, FRAME_HEADER_SIZE
        found = _read_header(view, at, end, key)
        if found is None or found[4] != index:
            return at, index, BAD_HEADER, 0
        size = frame_size(found[1])
        if at + size > end:
            return at, index, SHORT, size
        at += size
        index += 1
    return at, index, DONE, 0


def find_frame(view: Buffer, at: int, key: int, index_min: int, index_end: int) -> tuple[int, int]:
    """Search forward in steps of 8 bytes for a sound header with index in ``[index_min, index_end)``.

    Returns: (at, index) of the first, or (-1, -1). Cost: one check per non-zero step.
    """
    end = len(view)
    while at + FRAME_HEADER_SIZE <= end:
        found = _read_header(view, at, end, key)
        if found is not None and index_min <= found[4] < index_end and at + frame_size(found[1]) <= end:
            return at, found[4]
        at += FRAME_ALIGN
    return -1, -1


def walk(
    view: Buffer, at: int, key: int, algorithm: int, index: int, remaining: int, limit_index: int
) -> tuple[int, int, int, int, int, int, int, int]:
    """Verify frames from ``at`` until the first that is not the continuation.

    ``remaining`` is how many entries of a begun batch must still come (0: a new batch starts).
    Stops at ``limit_index``, at the end of the buffer, at anything unsound, and where a frame
    does not fit the batch it stands in.

    Returns: (at, index, remaining, payload_bytes, low, high, status, need): the place behind the
    last sound frame, and totals of the frames walked (timestamps low 2**64 - 1 and high 0 for none).
    """
    end = len(view)
    payload_bytes, low, high = 0, _MASK64, 0
    while index < limit_index:
        if at + FRAME_HEADER_SIZE > end:
            return at, index, remaining, payload_bytes, low, high, SHORT, FRAME_HEADER_SIZE
        found = _read_header(view, at, end, key)
        if found is None or found[4] != index:
            return at, index, remaining, payload_bytes, low, high, BAD_HEADER, 0
        checksum, length, flags, left, _index, timestamp = found
        begins = bool(flags & FLAG_FIRST)
        if begins != (remaining == 0) or (remaining and left != remaining - 1):
            return at, index, remaining, payload_bytes, low, high, BAD_HEADER, 0
        size = frame_size(length)
        if at + size > end:
            return at, index, remaining, payload_bytes, low, high, SHORT, size
        payload = view[at + FRAME_HEADER_SIZE : at + FRAME_HEADER_SIZE + length]
        if checksum != _checksum(
            key, algorithm, bytes(view[at + 8 : at + FRAME_HEADER_SIZE]), payload, index
        ):
            return at, index, remaining, payload_bytes, low, high, BAD_PAYLOAD, size
        remaining = left
        payload_bytes += length
        low, high = min(low, timestamp), max(high, timestamp)
        at += size
        index += 1
    return at, index, remaining, payload_bytes, low, high, DONE, 0


def is_zero(view: Buffer) -> bool:
    """True where every byte is zero."""
    return not any(bytes(view).strip(b"\0"))
