"""What the operating system is asked to refuse for a while, so that a law sees what a backend makes of it.

Each limit is of the whole process and is lifted again. Where a system has no such limit the law that
wants it is not applicable, and says so.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from walrus_core.testing.subject import NotApplicable


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
