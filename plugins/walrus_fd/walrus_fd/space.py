"""Space of a file: reserving it, giving it back, and finding out what is allocated.

Reserving never changes a byte and is undone on failure. What was allocated before the attempt is
asked of the file system by extent map (FIEMAP), not by SEEK_HOLE: the latter takes extents that
were reserved but never written for holes, so that an undo by it would take reservations back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Callable
from typing import Any, Optional

CHUNK_BYTES = 64 * 1024
"""Length of one read or write of zeros: pages made by larger writes are slow to write into later."""
_SECTOR_BYTES = 512
_ZEROS = bytes(CHUNK_BYTES)

_KEEP_SIZE_AND_PUNCH_HOLE = 1 | 2
_FIEMAP_REQUEST = 0xC020660B
_FIEMAP_HEADER = struct.Struct("=QQIIII")  # start, length, flags, mapped, wanted, reserved
_FIEMAP_EXTENT = struct.Struct("=QQQQQIIII")  # logical, physical, length, 2 reserved, flags, 3 reserved
_FIEMAP_COUNT = 64
_FIEMAP_LAST = 1

_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

Read = Callable[[int, int], bytes]
"""``read(length_bytes, at_bytes)``, as os.pread without the descriptor."""
Write = Callable[[bytes, int], int]
"""``write(data, at_bytes)``, as os.pwrite without the descriptor."""


def _load_fallocate() -> Optional[Callable[..., int]]:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    # fallocate64 takes 64-bit positions on 32-bit systems too; musl has only the plain name.
    function: Any = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if function is None:
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


_fallocate = _load_fallocate()

CAN_PUNCH = _fallocate is not None
HAS_FALLOCATE = hasattr(os, "posix_fallocate")


def punch(descriptor: int, at_bytes: int, length_bytes: int) -> None:
    """Give the space of a range back; it reads as zero. The size of the file stays.

    Raises: OSError, EOPNOTSUPP where the file system cannot.
    """
    if _fallocate is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    while _fallocate(descriptor, _KEEP_SIZE_AND_PUNCH_HOLE, at_bytes, length_bytes) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def discard(descriptor: int, at_bytes: int, length_bytes: int, read: Read, write: Write) -> None:
    """Give the space of a range back, or at least make it read as zero where that cannot be done."""
    try:
        punch(descriptor, at_bytes, length_bytes)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        for first in range(at_bytes, at_bytes + length_bytes, CHUNK_BYTES):
            chunk_bytes = min(CHUNK_BYTES, at_bytes + length_bytes - first)
            if _read_known(first, chunk_bytes, read) != _ZEROS[:chunk_bytes]:
                _write_zeros(first, chunk_bytes, write)


def holes(descriptor: int, at_bytes: int, length_bytes: int) -> Optional[list[tuple[int, int]]]:
    """Return the parts of a range that have no space, as ``[first, last)``; None where unknown."""
    try:
        import fcntl
    except ImportError:
        return None
    found: list[tuple[int, int]] = []
    first, end = at_bytes, at_bytes + length_bytes
    request = bytearray(_FIEMAP_HEADER.size + _FIEMAP_COUNT * _FIEMAP_EXTENT.size)
    while first < end:
        _FIEMAP_HEADER.pack_into(request, 0, first, end - first, 0, 0, _FIEMAP_COUNT, 0)
        try:
            fcntl.ioctl(descriptor, _FIEMAP_REQUEST, request)
        except OSError:
            # Not an error: tmpfs and others have no extent map. They undo failures themselves.
            return None
        mapped_count = _FIEMAP_HEADER.unpack_from(request, 0)[3]
        is_last = mapped_count < _FIEMAP_COUNT
        for number in range(mapped_count):
            extent = _FIEMAP_EXTENT.unpack_from(request, _FIEMAP_HEADER.size + number * _FIEMAP_EXTENT.size)
            if extent[0] > first:
                found.append((first, min(extent[0], end)))
            first = max(first, extent[0] + extent[2])
            is_last = is_last or bool(extent[5] & _FIEMAP_LAST)
        if is_last:
            break
    if first < end:
        found.append((first, end))
    return found


def reserve(descriptor: int, at_bytes: int, length_bytes: int, read: Read, write: Write) -> None:
    """Make sure that later writes to the range find space; extend the file where it is shorter.

    Args:
        descriptor: The file.
        at_bytes, length_bytes: The range.
        read, write: Positional I/O on the file, for systems that cannot reserve as such.

    Raises: OSError; the size is as before and space that the attempt took is given back (in the
        middle of a file only where there is an extent map and hole punching, or where the file
        system does it).
    """
    if length_bytes <= 0:
        return
    size_bytes = os.fstat(descriptor).st_size
    inside_bytes = min(at_bytes + length_bytes, size_bytes) - at_bytes
    gaps = holes(descriptor, at_bytes, inside_bytes) if inside_bytes > 0 else []
    try:
        _allocate(descriptor, at_bytes, length_bytes, size_bytes, read, write)
    except BaseException:
        if os.fstat(descriptor).st_size > size_bytes:
            os.ftruncate(descriptor, size_bytes)
        if CAN_PUNCH:
            for first, last in gaps or ():
                punch(descriptor, first, last - first)
        raise


def _allocate(
    descriptor: int, at_bytes: int, length_bytes: int, size_bytes: int, read: Read, write: Write
) -> None:
    if HAS_FALLOCATE:
        try:
            os.posix_fallocate(descriptor, at_bytes, length_bytes)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    first, end = at_bytes, at_bytes + length_bytes
    while first < end:
        chunk_bytes = min(CHUNK_BYTES, end - first)
        _fill(first, chunk_bytes, size_bytes, read, write)
        first += chunk_bytes


def _fill(at_bytes: int, length_bytes: int, size_bytes: int, read: Read, write: Write) -> None:
    """Write zeros where the file reads as zero, which takes space and changes nothing.

    A part with other bytes in it is halved until a sector is left: a sector that was written has
    its space.
    """
    end = at_bytes + length_bytes
    known_bytes = min(end, size_bytes) - at_bytes
    if known_bytes > 0 and _read_known(at_bytes, known_bytes, read) != _ZEROS[:known_bytes]:
        if length_bytes > _SECTOR_BYTES:
            half_bytes = length_bytes // 2
            _fill(at_bytes, half_bytes, size_bytes, read, write)
            _fill(at_bytes + half_bytes, length_bytes - half_bytes, size_bytes, read, write)
            return
        at_bytes += known_bytes
    _write_zeros(at_bytes, end - at_bytes, write)


def _read_known(at_bytes: int, length_bytes: int, read: Read) -> bytes:
    found = read(length_bytes, at_bytes)
    while len(found) < length_bytes:
        more = read(length_bytes - len(found), at_bytes + len(found))
        if not more:
            raise OSError(errno.EIO, f"the file ended while bytes from {at_bytes} were read")
        found += more
    return found


def _write_zeros(at_bytes: int, length_bytes: int, write: Write) -> None:
    end = at_bytes + length_bytes
    while at_bytes < end:
        count = write(_ZEROS[: min(CHUNK_BYTES, end - at_bytes)], at_bytes)
        if count == 0:
            raise OSError(errno.EIO, f"a write at byte {at_bytes} wrote nothing")
        at_bytes += count
