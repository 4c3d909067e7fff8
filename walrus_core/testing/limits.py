"""What the operating system is asked to refuse for a while, so that a law sees what a backend makes of it.

Each limit is of the whole process and is lifted again; what ``cut_descriptors`` does to a file stays.
Where a system has no such limit the law that wants it is not applicable, and says so.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

from walrus_core.testing.subject import NotApplicable

DESCRIPTORS = 40
"""So many are left to a backend that must give them back; for itself it needs fewer."""
DESCRIPTORS_MAX = 4096
"""Descriptors of a file are looked for below this number; the system gives the lowest that is free."""


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a file system that is full."""
    try:
        import resource
        import signal
    except ImportError:
        raise NotApplicable("this system cannot limit the size of files") from None
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if threading.current_thread() is not threading.main_thread():
        raise NotApplicable(
            "the signal of a file that grows too large can be ignored by the main thread only"
        )
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@contextmanager
def few_descriptors(count: int) -> Iterator[None]:
    """Let this process open so many descriptors more and no others. Raises: NotApplicable."""
    try:
        import resource
    except ImportError:
        raise NotApplicable("this system cannot limit how many files are open") from None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on their numbers: it stands behind so many that are free.
    free = (number for number in itertools.count() if _status(number) is None)
    limit = next(itertools.islice(free, count, None))
    if soft != resource.RLIM_INFINITY and limit > soft:
        raise NotApplicable(f"this process may open fewer than {count} files more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _status(descriptor: int) -> Optional[os.stat_result]:
    try:
        return os.fstat(descriptor)
    except OSError:
        return None


def cut_descriptors(path: str) -> bool:
    """Have every descriptor of this process onto a file lead to a pipe, which nobody can sync, for good.

    Whoever has such a descriptor closes it as before.

    Returns: True where writes were durable on return by one of them, so that a sync may have nothing to do.
    Raises: NotApplicable: there is none, or this system is not of POSIX.
    """
    try:
        import fcntl
    except ImportError:
        raise NotApplicable("descriptors of this system cannot be made to fail") from None
    wanted = os.stat(path)
    found = [
        number
        for number in range(DESCRIPTORS_MAX)
        if (seen := _status(number)) is not None and os.path.samestat(seen, wanted)
    ]
    if not found:
        raise NotApplicable(
            "the backend keeps no descriptor of an open file, so its syncs cannot be made to fail"
        )
    durably = getattr(os, "O_SYNC", 0) | getattr(os, "O_DSYNC", 0)
    is_durable = any(fcntl.fcntl(number, fcntl.F_GETFL) & durably for number in found)
    reading, writing = os.pipe()
    try:
        for number in found:
            os.dup2(reading, number, inheritable=False)
    finally:
        os.close(reading)
        os.close(writing)
    return is_durable
