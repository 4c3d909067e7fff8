"""What the operating system is asked to refuse for a while, so that a law sees what a backend makes of it.

Each limit is of the whole process and is lifted again.
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
