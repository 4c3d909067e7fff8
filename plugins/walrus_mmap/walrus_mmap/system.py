"""Calls that only some systems have, each with what stands in for it elsewhere.

Every function looks its call up when it runs, so that a test can take the call away and prove
that the stand-in serves. Nothing here knows of maps or of the log; what is not needed for
correctness (hole punching, advice, dropping the cache) says so by ``can_...``.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Any, Optional

from walrus_core.backend import Buffer

CHUNK_BYTES = 64 * 1024
"""Zeros are written in pieces of this length: the cache pages that larger writes make are slow to
write to in small steps later."""
BUFFERS_MAX = 1024
"""How many buffers every system takes in one call."""
SECTOR_BYTES = 512
"""No file system allocates less: where one byte of a sector was written, all of it has space."""

# What a file system answers that does not offer a call at all.
UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

_KEEP_SIZE_AND_PUNCH_HOLE = 1 | 2


def open_flags() -> int:
    """Return the flags of every open: read and write, closed on exec, no links, bytes as they are."""
    flags = os.O_RDWR
    for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NOCTTY", "O_BINARY", "O_NOINHERIT"):
        flags |= getattr(os, name, 0)
    return flags


def check_regular(path: str) -> None:
    """Refuse what is not a plain file with one name, before it is opened.

    Raises: OSError: ELOOP for a symbolic link, EMLINK for a second hard link, EINVAL for the rest.
    """
    check_status(os.lstat(path), path)


def check_status(status: os.stat_result, path: str) -> None:
    """The same for a status that is known already, as that of the open descriptor."""
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "symbolic links are refused", path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    if status.st_nlink != 1:
        raise OSError(errno.EMLINK, f"the file has {status.st_nlink} names, links are refused", path)


def sync_file(descriptor: int) -> None:
    """Make the file durable with its size. Raises: OSError; what is durable is unknown then."""
    if sys.platform.startswith("linux") and hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
        return
    if sys.platform == "darwin":
        import fcntl

        # fsync there leaves the bytes in the drive's cache.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        return
    os.fsync(descriptor)


def syncs_maps() -> bool:
    """True where ``sync_file`` also covers bytes written through maps, as Linux guarantees."""
    return sys.platform.startswith("linux") and hasattr(os, "fdatasync")


def sync_directory(path: str) -> None:
    """Make the names in a directory durable; on Windows there is nothing to call.

    Raises: OSError; what is durable is unknown then.
    """
    if os.name == "nt":
        return
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_positional() -> bool:
    """True where reads need no file position, so that they may run beside each other."""
    return hasattr(os, "pread")


def read_exactly(descriptor: int, at_bytes: int, length_bytes: int) -> bytes:
    """Return ``length_bytes`` from the file.

    Raises: OSError, EIO where the file ends before.
    Threads: only with ``is_positional`` beside other calls on the descriptor.
    """
    parts = []
    while length_bytes:
        if is_positional():
            part = os.pread(descriptor, length_bytes, at_bytes)
        else:
            os.lseek(descriptor, at_bytes, os.SEEK_SET)
            part = os.read(descriptor, length_bytes)
        if not part:
            raise OSError(errno.EIO, f"the file ends at byte {at_bytes}")
        parts.append(part)
        at_bytes += len(part)
        length_bytes -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def has_one_cache() -> bool:
    """True where writes by system calls and maps of a file are two views of the same pages."""
    return hasattr(os, "pwritev") and sys.platform in ("linux", "darwin")


def write_exactly(descriptor: int, at_bytes: int, data: Buffer) -> None:
    """Write all of ``data``. Raises: OSError; part of it may be written."""
    done = os.pwrite(descriptor, data, at_bytes)
    if type(data) is bytes and done == len(data):
        return  # as nearly always
    with memoryview(data).cast("B") as view:
        while done < len(view):
            count = os.pwrite(descriptor, view[done:], at_bytes + done)
            if not count:
                raise OSError(errno.EIO, "a write wrote nothing")
            done += count


def write_run(descriptor: int, at_bytes: int, buffers: Sequence[Buffer]) -> None:
    """Write buffers one behind the other. Raises: OSError; part of them may be written."""
    for first in range(0, len(buffers), BUFFERS_MAX):
        some = buffers[first : first + BUFFERS_MAX]
        done = os.pwritev(descriptor, some, at_bytes)
        for data in some:
            if done < len(data):
                # Short, as where a signal came or 2 GiB are over.
                write_exactly(descriptor, at_bytes + done, memoryview(data)[done:])
            done = max(0, done - len(data))
            at_bytes += len(data)


def zero(descriptor: int, at_bytes: int, length_bytes: int) -> None:
    """Write zeros over the range, in pieces. Raises: OSError; part of it may be zero.

    Threads: none may write to the range.
    """
    zeros = memoryview(bytes(min(CHUNK_BYTES, length_bytes)))
    os.lseek(descriptor, at_bytes, os.SEEK_SET)
    while length_bytes:
        count = os.write(descriptor, zeros[:length_bytes])
        if not count:
            raise OSError(errno.EIO, "a write of zeros wrote nothing")
        length_bytes -= count


def fill_with_zeros(descriptor: int, at_bytes: int, length_bytes: int) -> None:
    """Write zeros where the range reads as zeros: that takes the space and changes no byte.

    Raises: OSError; part of the range has its space. Threads: none may write to the range.
    """
    end = at_bytes + length_bytes
    for first in range(at_bytes, end, CHUNK_BYTES):
        chunk = read_exactly(descriptor, first, min(CHUNK_BYTES, end - first))
        if chunk == bytes(len(chunk)):
            zero(descriptor, first, len(chunk))
            continue
        for place in range(0, len(chunk), SECTOR_BYTES):
            sector = chunk[place : place + SECTOR_BYTES]
            if sector == bytes(len(sector)):
                zero(descriptor, first + place, len(sector))


def allocate(descriptor: int, first: int, end: int) -> None:
    """Give ``[first, end)`` its space and extend the file to ``end`` where it is shorter.

    Raises: OSError; part of the range may have its space and the size may have grown.
    Threads: none may write to the range.
    """
    posix_fallocate: Optional[Callable[[int, int, int], None]] = getattr(os, "posix_fallocate", None)
    if posix_fallocate is not None:
        try:
            posix_fallocate(descriptor, first, end - first)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        else:
            return
    if os.fstat(descriptor).st_size < end:
        os.ftruncate(descriptor, end)
    fill_with_zeros(descriptor, first, end - first)


def holes(descriptor: int, first: int, end: int) -> list[tuple[int, int]]:
    """Return the parts of the range that are known to hold no written byte; [] where unknown.

    Space that was reserved and never written counts as a hole.
    """
    if not hasattr(os, "SEEK_DATA"):
        return []
    found = []
    while first < end:
        try:
            data = min(os.lseek(descriptor, first, os.SEEK_DATA), end)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return []
            if error.errno != errno.ENXIO:
                raise
            data = end  # ENXIO: no data up to the end of the file
        if first < data:
            found.append((first, data))
        first = os.lseek(descriptor, data, os.SEEK_HOLE) if data < end else end
    return found


@functools.cache
def _fallocate() -> Optional[Any]:
    """Return the function of the C library, or None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    # The 64-bit name serves 32-bit systems; musl has only the plain one, which is 64-bit there.
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        function.restype = ctypes.c_int
    return function


def can_punch() -> bool:
    """True where the system has hole punching; a file system may still refuse it."""
    return _fallocate() is not None


def punch(descriptor: int, at_bytes: int, length_bytes: int) -> None:
    """Give the space of a range back; it reads as zeros, the size stays.

    Raises: OSError, one of UNSUPPORTED where it cannot be done here at all.
    """
    function = _fallocate()
    if function is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    while function(descriptor, _KEEP_SIZE_AND_PUNCH_HOLE, at_bytes, length_bytes):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def can_advise() -> bool:
    """True where ``advise`` works. Elsewhere MADV_DONTNEED is known to mean other things."""
    return sys.platform == "linux" and hasattr(mmap, "MADV_DONTNEED")


def advise(mapping: mmap.mmap, advice: int, at_bytes: int, end: int) -> None:
    """Give advice on the whole pages of a range, as far as the map goes. It changes no byte: what
    MADV_DONTNEED takes out of a shared map of a file stays in the system's cache. Where the system
    has no room to note it (a process may have only so many maps) it is not given."""
    page = mmap.PAGESIZE
    first = at_bytes + -at_bytes % page
    end = min(end, len(mapping))
    length_bytes = end - end % page - first
    if length_bytes > 0:
        try:
            mapping.madvise(advice, first, length_bytes)
        except OSError as error:
            if error.errno not in (errno.ENOMEM, errno.EAGAIN):
                raise


def can_drop_cache() -> bool:
    """True where the page cache of a file can be emptied."""
    return sys.platform.startswith("linux") and hasattr(os, "posix_fadvise")


def drop_cache(descriptor: int) -> None:
    """Forget the clean, unmapped cached pages of the file."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def stop_reading_ahead(descriptor: int) -> None:
    """Let reads of the file bring no more into the cache than they are asked for, and forget what was."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
