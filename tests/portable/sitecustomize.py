"""Take away what only POSIX systems have, before anything else is imported.

`tox -e portable` puts this folder on PYTHONPATH, which Python's children inherit, so that whole programs
run as where these calls do not exist. `os.name` and `sys.platform` stay: the standard library goes by
them. What cannot be shown this way is what Windows does instead; that is for a machine with Windows.
"""

import ctypes
import fcntl
import mmap
import os
import shutil
import subprocess  # before msvcrt is there, by which some versions know Windows
import sys
import types

CALLS = (
    "pread pwrite preadv pwritev readv writev fdatasync posix_fallocate posix_fadvise fchmod lockf sendfile "
    "statvfs fstatvfs sysconf sched_getaffinity sched_setaffinity fork forkpty register_at_fork"
)
FLAGS = (
    "SEEK_DATA SEEK_HOLE O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_NOCTTY O_DSYNC O_SYNC O_NONBLOCK "
    "O_PATH O_TMPFILE POSIX_FADV_DONTNEED"
)
MODULES = ("fcntl", "resource", "liburing", "grp", "pwd")


def _disk_usage(path, _statvfs=os.statvfs):
    """What shutil has on every system, each by a call of its own."""
    found = _statvfs(path)
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    return shutil._ntuple_diskusage(total, total - free, free)


shutil.disk_usage = _disk_usage  # type: ignore[assignment]
for _name in ("_USE_CP_SENDFILE", "_USE_CP_COPY_FILE_RANGE"):  # by which its copies know sendfile
    setattr(shutil, _name, False)
for _name in [*CALLS.split(), *FLAGS.split()]:
    if hasattr(os, _name):
        delattr(os, _name)
for _name in [_name for _name in vars(mmap) if _name.startswith("MADV_")]:
    delattr(mmap, _name)
for _name in MODULES:
    sys.modules[_name] = None  # type: ignore[assignment]


class _Library(ctypes.CDLL):
    """A C library that cannot punch holes."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("fallocate"):
            raise AttributeError(name)
        return super().__getattr__(name)


ctypes.CDLL = _Library  # type: ignore[misc]


def _locking(descriptor, _mode, _length_bytes, _flock=fcntl.flock, _flags=fcntl.LOCK_EX | fcntl.LOCK_NB):
    """Lock as Windows does in its own way: one holder, no waiting, gone with the process."""
    _flock(descriptor, _flags)


_msvcrt = types.ModuleType("msvcrt")
_msvcrt.LK_NBLCK, _msvcrt.locking = 2, _locking  # type: ignore[attr-defined]
sys.modules["msvcrt"] = _msvcrt
os.environ["WALRUS_PORTABLE"] = "1"
del ctypes, fcntl, mmap, subprocess
