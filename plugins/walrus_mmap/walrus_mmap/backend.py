"""The backend ``mmap``: files and directories. What happens inside a file is in ``file.py``.

It needs nothing that only POSIX has: where a call is missing, as on Windows, ``system.py`` has
a stand-in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from walrus_core.backend import Capabilities, SegmentFile
from walrus_core.errors import ConfigError
from walrus_mmap import system
from walrus_mmap.file import PAGE_BYTES, MmapFile, ReadOnlyFile


class MmapBackend:
    """Access to files by memory maps.

    Threads: as the contract says. The instance holds nothing that changes.
    """

    name = "mmap"
    api = 1

    def __init__(self, *, durable_writes: bool = False) -> None:
        """Make a backend; it has no options.

        Raises: ConfigError: ``durable_writes`` is asked for: a write to a map is never durable
            on return.
        """
        if durable_writes:
            raise ConfigError(
                option="durable_writes", reason="the backend mmap cannot do it; use fd, or group commit"
            )
        self._capabilities = Capabilities(
            memory=True,
            fileno=system.has_one_cache(),
            vectored=system.has_one_cache(),
            paging=system.can_advise(),
            discard=system.can_punch(),
            drop_cache=system.can_drop_cache(),
            read_only=True,
        )

    @property
    def capabilities(self) -> Capabilities:
        """Windows everywhere; space given back and the cache dropped where the system can."""
        return self._capabilities

    def make_directory(self, path: str) -> None:
        """Create the directory and missing parents, mode 0700 whatever the umask, durably.

        Raises: OSError: FileExistsError where a name on the way is no directory. Parents that
            were made stay.
        """
        path = os.path.abspath(path)
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        # The lowest existing one may be of an attempt that was killed before it was durable. It
        # was not ours to make where we may not write beside it.
        parent = os.path.dirname(path)
        if not os.path.ismount(path) and os.access(parent, os.R_OK | os.W_OK):
            self.sync_dir(parent)
        for directory in reversed(missing):
            try:
                os.mkdir(directory, 0o700)
            except FileExistsError:
                if not os.path.isdir(directory):
                    raise
                # Made by someone else meanwhile: theirs to set the mode of, ours to make durable.
            else:
                os.chmod(directory, 0o700)
            self.sync_dir(os.path.dirname(directory))

    def list(self, directory: str) -> Iterable[str]:
        """Return the names in the directory that are not directories. Raises: OSError."""
        with os.scandir(directory) as found:
            return [item.name for item in found if not item.is_dir(follow_symlinks=False)]

    def create(self, path: str, *, size_bytes: int) -> MmapFile:
        """Create a sparse file that must not exist, mode 0600 whatever the umask.

        Raises: OSError: FileExistsError; EFBIG, ENOSPC; no file is left behind.
        Durability: after ``sync`` of the file and ``sync_dir``.
        """
        descriptor = os.open(path, system.open_flags() | os.O_CREAT | os.O_EXCL, 0o600)
        file = MmapFile(descriptor)
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(descriptor, 0o600)
            else:
                os.chmod(path, 0o600)
            os.ftruncate(descriptor, size_bytes)
        except BaseException:
            file.close()
            os.remove(path)
            raise
        return file

    def open(self, path: str) -> MmapFile:
        """Open an existing regular file with one name.

        Raises: OSError: FileNotFoundError; ELOOP and EMLINK for links; EINVAL for what is no
            regular file.
        """
        return self._open_existing(path, MmapFile, system.open_flags())

    def open_read_only(self, path: str) -> MmapFile:
        """Open an existing regular file with one name for reading, without a map: what others do
        to the file cannot end in a signal. Raises: as ``open``."""
        flags = system.open_flags() & ~os.O_RDWR | os.O_RDONLY
        return self._open_existing(path, ReadOnlyFile, flags)

    def _open_existing(self, path: str, file_class: type[MmapFile], flags: int) -> MmapFile:
        system.check_regular(path)
        file = file_class(os.open(path, flags))
        try:
            # Again, because the name may stand for another file by now.
            system.check_status(file.status(), path)
        except BaseException:
            file.close()
            raise
        return file

    def rename(self, old_path: str, new_path: str) -> None:
        """Rename a closed file, replacing what has the new name. Durable after ``sync_dir``."""
        os.replace(old_path, new_path)

    def remove(self, path: str) -> None:
        """Unlink a closed file. Durable after ``sync_dir``. Raises: OSError: nothing was removed."""
        os.remove(path)

    def sync_dir(self, directory: str) -> None:
        """Make creations, renames and removals durable; on Windows the system sees to that.

        Raises: OSError; what is durable is unknown.
        """
        system.sync_directory(directory)

    def sync_many(self, files: Sequence[SegmentFile]) -> None:
        """Sync the files one after the other; the first failure ends it.

        Raises: OSError; the files from the failing one on are not known to be durable.
        """
        for file in files:
            file.sync()

    def close(self) -> None:
        """Nothing to release: every file releases its own."""

    def probe(self) -> dict[str, Any]:
        """Return facts about this machine: how bytes get their space and become durable here."""
        reserves = "posix_fallocate" if hasattr(os, "posix_fallocate") else "zeros written ahead"
        syncs = "fdatasync" if system.syncs_maps() else "flush of the map, then fsync"
        return {
            "files": "one shared map per open file",
            "reserve": reserves,
            "sync": syncs,
            "hole punching": "yes" if system.can_punch() else "no call for it on this system",
            "drop cache": "posix_fadvise" if system.can_drop_cache() else "no call for it on this system",
            "page_bytes": PAGE_BYTES,
        }
