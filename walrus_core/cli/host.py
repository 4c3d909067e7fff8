"""What a directory's system can do: file system, space, limits, sync latency. Asked, not guessed.

Everything that needs a file uses one without a name, or one that is unlinked at once: a log that is
open in the directory never notices. No directory is made.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from attrs import frozen

FILE_SYSTEMS = {
    0xEF53: "ext2/ext3/ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0xCA451A4E: "bcachefs",
    0xF2F52010: "f2fs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlayfs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0x517B: "smb",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x01021997: "9p",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0x01161970: "gfs2",
    0x7461636F: "ocfs2",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
    0x7366746E: "ntfs3",
    0xF15F: "ecryptfs",
}
"""By the magic number that statfs(2) gives."""
NETWORK_MAGICS = frozenset({0x6969, 0x517B, 0xFF534D42, 0xFE534D42, 0x01021997, 0x00C36400, 0x5346414F})
MEMORY_MAGICS = frozenset({0x01021994, 0x858458F6})
FUSE_MAGIC = 0x65735546
OVERLAY_MAGIC = 0x794C7630
COPY_ON_WRITE_MAGICS = frozenset({0x9123683E, 0x2FC12FC1, 0xCA451A4E})

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_PROBE_BYTES = 1024 * 1024
_SYNC_BYTES = 4096
_SYNCS_MAX = 100
_SYNC_SECONDS_MAX = 1.5


def nearest_directory(path: str) -> str:
    """Return ``path``, or the lowest parent of it that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def file_system_magic(directory: str) -> Optional[int]:
    """Return f_type of statfs(2); None where the system has no such call. Raises: OSError."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    # The structure begins with f_type, as wide as a long on all but s390x; 512 bytes are more than all of it.
    buffer = ctypes.create_string_buffer(512)
    if library.statfs(os.fsencode(directory), buffer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), directory)
    return ctypes.c_uint32.from_buffer(buffer, 0 if sys.byteorder == "little" else 4).value


@contextmanager
def probe_file(directory: str) -> Iterator[int]:
    """Yield a descriptor of an empty file without a name in the directory. Raises: OSError."""
    with tempfile.TemporaryFile(dir=directory, prefix=".walrus-doctor-") as file:
        yield file.fileno()


def write_at(descriptor: int, data: bytes, at_bytes: int) -> None:
    """Write by position, also where the system knows only where a file stands. Raises: OSError."""
    if hasattr(os, "pwrite"):
        os.pwrite(descriptor, data, at_bytes)
        return
    os.lseek(descriptor, at_bytes, os.SEEK_SET)
    os.write(descriptor, data)


@frozen(kw_only=True)
class SpaceFacts:
    """How files get their space here; each None where it works, else why not."""

    reserve_problem: Optional[str]
    punch_problem: Optional[str]


def probe_space(descriptor: int) -> SpaceFacts:
    """Reserve space and punch it out again. Raises: OSError: not even a write works."""
    reserve = _fallocate(descriptor, 0, 0, _PROBE_BYTES)
    write_at(descriptor, b"\1" * _PROBE_BYTES, 0)
    os.fsync(descriptor)
    before = getattr(os.fstat(descriptor), "st_blocks", 0)
    punch = _fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, 0, _PROBE_BYTES)
    if punch is None:
        os.fsync(descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        if any(os.read(descriptor, _PROBE_BYTES)):
            punch = "the hole does not read as zeros"
        elif before and os.fstat(descriptor).st_blocks >= before:
            punch = "no space came back"
    return SpaceFacts(reserve_problem=reserve, punch_problem=punch)


def _fallocate(descriptor: int, mode: int, at_bytes: int, length_bytes: int) -> Optional[str]:
    """Call fallocate(2), which unlike posix_fallocate emulates nothing. Returns: why it failed."""
    if not sys.platform.startswith("linux"):
        return "this system has no such call"
    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is None:
        return "the C library has no such call"
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if function(descriptor, mode, at_bytes, length_bytes) == 0:
        return None
    return os.strerror(ctypes.get_errno())


@frozen(kw_only=True)
class SyncFacts:
    """How long a write of one page and its sync take, in milliseconds, over ``count`` of them."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def probe_sync(descriptor: int) -> SyncFacts:
    """Measure for at most about a second. Raises: OSError: a sync failed."""
    sync = getattr(os, "fdatasync", os.fsync)
    page = os.urandom(_SYNC_BYTES)
    write_at(descriptor, bytes(_SYNC_BYTES * _SYNCS_MAX), 0)
    os.fsync(descriptor)
    times: list[float] = []
    end_s = time.perf_counter() + _SYNC_SECONDS_MAX
    for number in range(_SYNCS_MAX):
        started_s = time.perf_counter()
        write_at(descriptor, page, number * _SYNC_BYTES)
        sync(descriptor)
        times.append(time.perf_counter() - started_s)
        if time.perf_counter() > end_s:
            break
    times.sort()

    def at(share: float) -> float:
        return 1000 * times[min(int(share * len(times)), len(times) - 1)]

    return SyncFacts(count=len(times), p50_ms=at(0.5), p99_ms=at(0.99), max_ms=1000 * times[-1])


def probe_lock(descriptor: int) -> Optional[str]:
    """Take and drop the kind of lock that keeps a second writer out. Returns: why that failed."""
    try:
        import fcntl
    except ImportError:
        return None  # msvcrt.locking, which every Windows file system has
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError as error:
        return error.strerror or str(error)
    return None


def limits() -> dict[str, Optional[int]]:
    """Return the soft limits of open files and of the size of a file; None for none."""
    try:
        import resource
    except ImportError:
        return {"open_files": None, "file_bytes": None}
    found = {"open_files": resource.RLIMIT_NOFILE, "file_bytes": resource.RLIMIT_FSIZE}
    soft = {name: resource.getrlimit(number)[0] for name, number in found.items()}
    return {name: None if value == resource.RLIM_INFINITY else value for name, value in soft.items()}


def space_facts(directory: str) -> dict[str, Optional[int]]:
    """Return bytes and inodes that are free, and bytes of the whole file system; None inodes where nothing
    counts them. Raises: OSError.
    """
    usage = shutil.disk_usage(directory)
    inodes = None
    if hasattr(os, "statvfs"):
        found = os.statvfs(directory)
        # Some (Btrfs) have no fixed number of inodes and say 0 of 0.
        inodes = found.f_favail if found.f_files else None
    return {"free_bytes": usage.free, "total_bytes": usage.total, "free_inodes": inodes}


def is_read_only(error: OSError) -> bool:
    """True for the error of a write to a medium or a directory that may not be written."""
    return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def has_fine_timestamps(release: str, kind: str) -> bool:
    """True where Linux gives a file a finer timestamp once somebody looked at it (since 6.13)."""
    match = re.match(r"(\d+)\.(\d+)", release)
    is_new = match is not None and (int(match[1]), int(match[2])) >= (6, 13)
    return sys.platform.startswith("linux") and is_new and kind in ("ext4", "xfs", "btrfs", "tmpfs")


def as_text(value: Any) -> str:
    """Return a limit for people."""
    return "none" if value is None else f"{value:,}"
