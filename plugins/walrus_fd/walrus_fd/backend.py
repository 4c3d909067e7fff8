"""``FdBackend``: directories and the files in them; what one file does is in ``files``.

When the ring is used, and which flags files are opened with, is decided here.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from attrs import evolve

from walrus_core.backend import Capabilities, SegmentFile
from walrus_core.errors import ConfigError
from walrus_fd import space
from walrus_fd.files import HAS_GATHER, FdSegmentFile, RingUse, SeekingSegmentFile
from walrus_fd.uring import Uring

_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_IO_URING_MODES = ("auto", "on", "off")

# From how many on the ring is faster than plain calls, measured on ext4, Linux 6.18, 2 cores (us, ring
# against plain): 3 files synced 315/825, 2 files 435/520; 4 cold reads of 4 KiB 105/162, 2 80/63; 16
# durable writes of 64 KiB 1197/2680, of 4 KiB 2344/2200. Into the page cache plain writes always won
# (16 x 4 KiB 142/36, 16 x 1 MiB 1942/959), so there "auto" uses them.
_SYNCS_FROM = 3
_READS_FROM = 4
_DURABLE_WRITES_FROM = 2
_NEVER = sys.maxsize
_FORCED_FROM = 2
"""With ``io_uring="on"``; a single extent is a single system call anyway."""

_DIRECTORY_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_OPEN_FLAGS = os.O_RDWR
for _name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NOCTTY", "O_BINARY", "O_NOINHERIT"):
    _OPEN_FLAGS |= getattr(os, _name, 0)

_HAS_POSITIONAL = hasattr(os, "pread") and hasattr(os, "pwrite")
_HAS_ADVICE = hasattr(os, "posix_fadvise")
# macOS answers a write under O_DSYNC from the cache of the drive, so there it promises nothing.
_SYNC_FLAG_NAMES = ("O_DSYNC", "O_SYNC") if sys.platform != "darwin" else ()
_SYNC_FLAG_NAME = next((name for name in _SYNC_FLAG_NAMES if hasattr(os, name)), "")

_CAPABILITIES = Capabilities(
    files=True,
    discard=space.CAN_PUNCH,
    drop_cache=_HAS_ADVICE,
    vectored=True,
    memory=False,
    fileno=_HAS_POSITIONAL,
    durable_writes=bool(_SYNC_FLAG_NAME),
    read_only=True,
)

_Descriptors = list[int]
"""Under a name of its own, because ``list`` is a method in the class below."""

_FILE_CLASS: type[FdSegmentFile] = FdSegmentFile if _HAS_POSITIONAL else SeekingSegmentFile


def _refused(result: int, path: Optional[str]) -> OSError:
    """Return the error of an operation on the ring that ended with ``result``, a negative errno."""
    return OSError(-result, os.strerror(-result), path)


def _check_regular(found: os.stat_result, path: str) -> None:
    """Refuse what is not a plain file with one name. Raises: OSError."""
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    if found.st_nlink > 1:
        raise OSError(errno.EMLINK, f"the file has {found.st_nlink} names (hard links)", path)


class FdBackend:
    """Files of a directory by descriptor. See ``walrus_core.backend.Backend`` for the contract."""

    name = "fd"
    api = 1

    def __init__(self, *, durable_writes: bool = False, io_uring: str = "auto") -> None:
        """Choose how to write.

        Args:
            durable_writes: Open files so that each write is durable on return.
            io_uring: ``auto`` uses it where it works and is faster, ``on`` insists on it and uses
                it for all that is more than one, ``off`` never does.

        Raises: ConfigError where an option cannot be had here.
        """
        if io_uring not in _IO_URING_MODES:
            reason = f"{io_uring!r} is not one of {', '.join(_IO_URING_MODES)}"
            raise ConfigError(option="io_uring", reason=reason)
        if durable_writes and not _SYNC_FLAG_NAME:
            reason = f"{sys.platform} has no flag for durable writes"
            raise ConfigError(option="durable_writes", reason=reason)
        self._open_flags = _OPEN_FLAGS | (getattr(os, _SYNC_FLAG_NAME) if durable_writes else 0)
        self._durable_writes = durable_writes
        # With durable writes the core must not write by itself: it would hold the GIL for a whole sync.
        self._capabilities = evolve(_CAPABILITIES, fileno=_CAPABILITIES.fileno and not durable_writes)
        self._uring = Uring(enabled=io_uring != "off")
        if io_uring == "on":
            self._ring_use = RingUse(_FORCED_FROM, _FORCED_FROM, _FORCED_FROM)
        else:
            writes_from = _DURABLE_WRITES_FROM if durable_writes else _NEVER
            self._ring_use = RingUse(writes_from, _READS_FROM, _SYNCS_FROM)
        if io_uring == "on" and self._uring.reason:
            raise ConfigError(option="io_uring", reason=f"it is on, but {self._uring.reason}")

    @property
    def capabilities(self) -> Capabilities:
        """What this system can do."""
        return self._capabilities

    # --- directories ----------------------------------------------------------------------

    def make_directory(self, path: str) -> None:
        """Create the directory and missing parents, mode 0700 whatever the umask, each durable."""
        found = os.path.abspath(path)
        missing = []
        while not os.path.isdir(found) and os.path.dirname(found) != found:
            missing.append(found)
            found = os.path.dirname(found)
        # An earlier attempt may have been killed before the directory that it made was durable.
        # A mount point was not made so, nor anything in a parent that we may not write to.
        parent = os.path.dirname(found)
        if not os.path.ismount(found) and os.access(parent, os.W_OK):
            self.sync_dir(parent)
        for directory in reversed(missing):
            try:
                os.mkdir(directory, _DIRECTORY_MODE)
            except FileExistsError:
                # Another process made it meanwhile; anything but a directory is an error.
                if not os.path.isdir(directory):
                    raise
            else:
                os.chmod(directory, _DIRECTORY_MODE)
            self.sync_dir(os.path.dirname(directory))

    def list(self, directory: str) -> Iterable[str]:
        """Return the names of everything in the directory that is not a directory."""
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]

    def rename(self, old_path: str, new_path: str) -> None:
        """Rename within a directory. Durable after ``sync_dir``."""
        os.replace(old_path, new_path)

    def remove(self, path: str) -> None:
        """Unlink a file that is not open. Durable after ``sync_dir``."""
        os.unlink(path)

    def sync_dir(self, directory: str) -> None:
        """Make creations, renames and removals durable.

        On Windows this does nothing: a directory cannot be opened there, and NTFS keeps its
        entries by a journal of its own.
        """
        if os.name == "nt":
            return
        descriptor = os.open(directory, _DIRECTORY_FLAGS)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # --- files ----------------------------------------------------------------------------

    def create(self, path: str, *, size_bytes: int) -> FdSegmentFile:
        """Create a sparse file that must not exist, mode 0600 whatever the umask.

        Raises: OSError; no file is left behind, unless removing it is what failed.
        """
        file = _FILE_CLASS(path, self._uring, self._ring_use)
        descriptors: list[int] = []
        try:
            self._open_into(descriptors, path, self._open_flags | os.O_CREAT | os.O_EXCL)
            file.adopt(descriptors[0])
            if hasattr(os, "fchmod"):
                os.fchmod(descriptors[0], _FILE_MODE)
            else:
                os.chmod(path, _FILE_MODE)
            os.ftruncate(descriptors[0], size_bytes)
            return file
        except BaseException:
            if descriptors:
                file.adopt(descriptors[0])
                file.close()
                os.unlink(path)
            raise

    def open(self, path: str) -> FdSegmentFile:
        """Open an existing regular file for reading and writing.

        Raises: OSError: ELOOP for a symbolic link, EINVAL for anything else that is no regular
            file, EMLINK for a file that has other names (whose owner did not ask for our bytes).
        """
        return self._open_existing(path, self._open_flags)

    def open_read_only(self, path: str) -> FdSegmentFile:
        """Open an existing regular file for reading. Raises: as ``open``."""
        return self._open_existing(path, self._open_flags & ~os.O_RDWR | os.O_RDONLY)

    def _open_existing(self, path: str, flags: int) -> FdSegmentFile:
        # Looked at before it is opened, since opening some devices does something; and again below,
        # because the name may stand for another file by then.
        _check_regular(os.lstat(path), path)
        file = _FILE_CLASS(path, self._uring, self._ring_use)
        descriptors: list[int] = []
        try:
            self._open_into(descriptors, path, flags)
            file.adopt(descriptors[0])
            _check_regular(os.fstat(descriptors[0]), path)
            return file
        except BaseException:
            if descriptors:
                file.adopt(descriptors[0])
                file.close()
            raise

    def _open_into(self, descriptors: _Descriptors, path: str, flags: int) -> None:
        # One call from C: an interrupt comes before the file is opened or after it is noted.
        descriptors.extend(map(os.open, (path,), (flags,), (_FILE_MODE,)))

    def sync_many(self, files: Sequence[SegmentFile]) -> None:
        """Sync several files, side by side where there is a ring.

        Raises: OSError, the first failure, after all have been waited for; none is tried again.
        """
        outcome: list[Optional[int]] = []
        failures: list[OSError] = []
        ours = [file for file in files if isinstance(file, FdSegmentFile)]
        try:
            if len(ours) == len(files) >= self._ring_use.syncs_from:
                _sync_by_ring(self._uring, ours, outcome)
            for file, result in zip(files, outcome or [None] * len(files), strict=True):
                try:
                    if result is None:
                        file.sync()
                    elif result < 0:
                        raise _refused(result, getattr(file, "path", None))
                except OSError as error:
                    failures.append(error)
        except BaseException as interrupt:
            # The system tells of a failure once: it goes along with what ended the call.
            failures += [_refused(result, None) for result in outcome if result is not None and result < 0]
            if failures:
                interrupt.__cause__ = failures[0]
            raise
        if failures:
            raise failures[0]

    # --- end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the ring back. All files have been closed before."""
        self._uring.close()

    def probe(self) -> dict[str, Any]:
        """Return what is in use here and why. Makes the ring, unless it is switched off."""
        ring = self._uring.describe()
        live = ring.startswith("live")
        plain = "pwritev" if HAS_GATHER else "pwrite"
        sync = "fdatasync" if hasattr(os, "fdatasync") else "fsync"
        use = self._ring_use
        by_ring = live and use.writes_from != _NEVER
        return {
            "io_uring": ring,
            "writes": f"io_uring from {use.writes_from} extents, else {plain}" if by_ring else plain,
            "reads": f"io_uring from {use.reads_from} extents, else pread" if live else "pread",
            "syncs": f"io_uring from {use.syncs_from} files, else {sync}" if live else sync,
            "o_sync": _SYNC_FLAG_NAME or "none",
            "durable_writes": self._durable_writes,
            "reserve": "posix_fallocate" if space.HAS_FALLOCATE else "zeros",
            "discard": "fallocate" if space.CAN_PUNCH else "none",
        }


def _sync_by_ring(uring: Uring, files: Sequence[FdSegmentFile], outcome: list[Optional[int]]) -> None:
    """Sync files side by side, where there is a ring; ``outcome`` has the results, whatever ends it."""
    try:
        uring.run(lambda ring: [ring.sync(file.fileno()) for file in files], outcome)
    except BaseException as interrupt:
        # It may have come while an error of the import of the binding, or of a busy queue, was handled.
        # Those are no failures of a sync, and whoever looks along with what ended the call for one would
        # think so: failures of syncs are in the outcome.
        interrupt.__context__ = None
        raise
