"""One writer per directory: across processes by a lock file, inside one by a registry.

The LOCK file is never removed and never closed while the log is open; its lock goes with the
process. flock belongs to the open file, so no other descriptor's close can drop it (POSIX
lockf would). The registry beside it is keyed by device and inode, so that two paths to one
directory are one; it exists because a clear message needs the owner's name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Optional

from walrus_core import format as fmt
from walrus_core.errors import LockedError, is_harmless, storage_error


class Holder:
    """One lock, as the registry knows it."""

    __slots__ = ("is_leaving",)

    def __init__(self) -> None:
        self.is_leaving = False
        """It will be given up as soon as the background thread is done with what it is at."""


_registry: dict[Hashable, Holder] = {}
"""Who holds a directory in this process, by what names it."""
_registry_lock = threading.RLock()
_locks: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()
"""Every lock there is, also of logs that are being opened, closed, or were dropped."""
LEAVING_S_MAX = 10.0
"""How long to wait for a lock that is being given up."""
LEAVING_PAUSE_S = 0.001
_PID_MAX_BYTES = 32
_LOCK_BYTE_AT = 1 << 30
"""Where Windows locks its one byte: behind the process number, which others may read."""


def _lock_descriptor(descriptor: int, is_shared: bool) -> None:
    """Take the lock or raise OSError at once. Windows has no shared one here."""
    try:
        import fcntl
    except ImportError:
        _lock_windows(descriptor)
        return
    fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _unlock_descriptor(descriptor: int) -> None:
    """Give the lock up for every process that has the open file. On Windows the close does."""
    # Where it fails the close does, too, for all but such a child.
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _lock_windows(descriptor: int) -> None:
    import msvcrt

    os.lseek(descriptor, _LOCK_BYTE_AT, os.SEEK_SET)
    msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    os.lseek(descriptor, 0, os.SEEK_SET)


def _read_pid(descriptor: int) -> Optional[int]:
    """Return the process that says that it holds the lock; None where none does, or it is gone."""
    with contextlib.suppress(OSError, ValueError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        pid = int(os.read(descriptor, _PID_MAX_BYTES))
        return pid if _is_alive(pid) else None
    return None


def _is_alive(pid: int) -> bool:
    """Say whether a process has this number; where the system cannot be asked, that one does."""
    if os.name == "nt":
        # There ``kill`` ends a process, whatever the signal.
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        # Somebody else's.
        return True
    return pid > 0


def _check_regular(status: os.stat_result, path: str) -> None:
    """Raises: OSError: no plain file, or one with a second name: what we wrote would be in another's file."""
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "symbolic links are refused", path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    if status.st_nlink > 1:
        raise OSError(errno.EMLINK, f"the file has {status.st_nlink} names (hard links)", path)


def _find_others(status: os.stat_result) -> str:
    """Return who besides the owner may write in a directory; "" for nobody, and where modes say nothing."""
    if os.name == "nt":
        return ""
    return (
        "everybody" if status.st_mode & stat.S_IWOTH else "its group" if status.st_mode & stat.S_IWGRP else ""
    )


class DirectoryLock:
    """The lock on one directory, held from construction to ``release``.

    ``identity`` names a directory that is no real one (MemoryBackend); then no file is made.
    """

    # Defaults of the class: a lock whose construction was interrupted can still be dropped.
    _opened: Any = ()
    _key: Optional[Hashable] = None
    _is_writer = False
    """The lock of the file is ours alone, so what stands in it is ours to write."""

    def __init__(
        self,
        path: str,
        identity: Optional[Hashable] = None,
        warn: Optional[Callable[[str, str, str], None]] = None,
        *,
        read_only: bool = False,
    ) -> None:
        """``read_only`` keeps writers out without writing a byte: the file is neither made nor changed.
        ``warn(format, path, who)`` is told where others may write in the directory.

        Raises: LockedError: someone else holds it, nothing changed. StorageError.
        """
        self._path = path
        self._read_only = read_only
        self._token = Holder()
        self._opened = []
        """The descriptor of the file, where there is one: opening and noting it are one step."""
        on_disk = identity is None
        others = ""
        if on_disk:
            try:
                status = os.stat(path)
            except OSError as error:
                raise storage_error(error, path, "open") from error
            others = _find_others(status)
            identity = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)
        _locks.add(self)
        # The key first: whatever interrupts from here on, ``drop`` finds what is ours.
        self._key = identity
        holder = self._register(identity)
        if holder is not self._token:
            raise LockedError(path=path, pid=os.getpid(), holder=f"this process (pid {os.getpid()})")
        if not on_disk:
            return
        try:
            self._take_file()
        except BaseException:
            self.drop()
            raise
        if others and warn is not None:
            warn("the directory %s can be written to by %s, who could replace files of the log", path, others)

    @property
    def _descriptor(self) -> int:
        return self._opened[-1] if self._opened else -1

    def _open(self, path: str, flags: int) -> None:
        # One call from C: neither an interrupt nor a fork of another thread finds it open and unknown.
        self._opened.extend(map(os.open, (path,), (flags,), (0o600,)))

    def _close(self) -> None:
        # As in ``_open``.
        self._opened.extend(filter(None, map(os.close, map(self._opened.pop, (-1,)))))

    def _register(self, key: Hashable) -> Holder:
        """Enter the registry, unless somebody else is there. Returns: who is.

        A log that was dropped unclosed is waited for: its last step is nobody's to call.
        """
        deadline_s = time.monotonic() + LEAVING_S_MAX
        while True:
            with _registry_lock:
                holder = _registry.setdefault(key, self._token)
            if holder is self._token or not holder.is_leaving or time.monotonic() >= deadline_s:
                return holder
            time.sleep(LEAVING_PAUSE_S)

    def _take_file(self) -> None:
        path = os.path.join(self._path, fmt.LOCK_NAME)
        try:
            self._open_file(path)
        except OSError as error:
            if self._read_only and isinstance(error, FileNotFoundError):
                # No writer has been here since the directory was made or copied; see ``check_overtaken``.
                return
            raise storage_error(error, path, "open") from error
        try:
            _lock_descriptor(self._descriptor, self._read_only)
        except OSError as error:
            pid = _read_pid(self._descriptor)
            holder = "another process" if pid is None else f"another process (pid {pid})"
            raise LockedError(path=self._path, pid=pid, holder=holder) from error
        if self._read_only:
            return
        self._is_writer = True
        try:
            # Who looks in between finds none, which is better than that of a process which had it before.
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, str(os.getpid()).encode())
        except OSError as error:
            # The number only helps people: on a full disk the lock holds all the same.
            if not is_harmless(error):
                raise storage_error(error, path, "write") from error

    def check_overtaken(self) -> None:
        """Raises: LockedError: a read-only lock found no LOCK file to hold, and now a writer made one."""
        path = os.path.join(self._path, fmt.LOCK_NAME)
        if self._read_only and self._descriptor < 0 and os.path.exists(path):
            raise LockedError(path=self._path, pid=None, holder="a process that came meanwhile")

    def _open_file(self, path: str) -> None:
        """Open the lock file, made with mode 0600 whatever the umask. Raises: OSError."""
        flags = 0
        for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NOCTTY", "O_NOINHERIT"):
            flags |= getattr(os, name, 0)
        try:
            # Looked at before it is opened, since opening a pipe waits and some devices do something;
            # and again below, because the name may stand for another file by then.
            _check_regular(os.lstat(path), path)
            self._open(path, flags | (os.O_RDONLY if self._read_only else os.O_RDWR))
        except FileNotFoundError:
            if self._read_only:
                raise
            self._make_file(path, flags)
        _check_regular(os.fstat(self._descriptor), path)

    def _make_file(self, path: str, flags: int) -> None:
        try:
            self._open(path, flags | os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            # Another process made it meanwhile; what it is, the caller looks at.
            self._open(path, flags | os.O_RDWR)
        else:
            if hasattr(os, "fchmod"):
                os.fchmod(self._descriptor, 0o600)
            else:
                os.chmod(path, 0o600)

    def release(self) -> None:
        """Give the lock up, and take our number out of the file, which is for others now; idempotent."""
        if self._is_writer and self._descriptor >= 0:
            # The number only helps people, as where it is written.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
        self.drop()

    def leave(self) -> None:
        """Tell that ``drop`` will come soon: whoever wants the directory waits for it."""
        self._token.is_leaving = True

    def drop(self) -> None:
        """Give the lock up without a change of the file; idempotent."""
        # The file first: who finds the registry empty takes it.
        if self._opened:
            # Not only by the close: a child that was forked while the file was being opened has it as well.
            _unlock_descriptor(self._descriptor)
            self._close()
        key = self._key
        if key is not None:
            with _registry_lock:
                if _registry.get(key) is self._token:
                    del _registry[key]
        # Forgotten last: what an interrupt leaves undone, the next call does.
        self._key = None

    def forget_in_child(self) -> None:
        """After fork, in the child: drop the inherited descriptor, so that the parent's close
        really releases the lock."""
        self._key = None
        if self._opened:
            self._close()

    def __del__(self) -> None:
        # A log that was dropped unclosed: the descriptor is all there is to give back, no I/O.
        self.drop()


def forget_all_in_child() -> None:
    """After fork, in the child: no log of the parent is open here, and none of its locks is held."""
    global _registry_lock
    _registry_lock = threading.RLock()
    _registry.clear()
    for lock in list(_locks):
        lock.forget_in_child()
