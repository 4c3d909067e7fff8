"""The background thread of one log: interval syncs, seals of full blocks, reclaim.

It holds no strong reference to the log, so a log that is dropped can go; it starts when there
is first something to do, and does nothing while nothing is dirty.
"""

from __future__ import annotations

import threading
import weakref
from typing import Optional, Protocol


class Worker(Protocol):
    """What the flusher works for."""

    def tick(self) -> bool:
        """Do what is due. Returns: whether something is left for the next interval."""


class Flusher:
    """Starts and stops the thread. Threads: any thread may call any method."""

    def __init__(self, worker: Worker, interval_s: float) -> None:
        """``interval_s`` is how long to wait after something became dirty (0: not at all)."""
        self._event = threading.Event()
        self._stop = threading.Event()
        event = self._event
        self._worker = weakref.ref(worker, lambda _gone: event.set())
        self._interval_s = interval_s
        self._thread: Optional[threading.Thread] = None
        self._lock = threading.Lock()

    def wake(self) -> None:
        """Tell that there is something to do."""
        if self._thread is None:
            self._start()
        self._event.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._stop.is_set():
                return
            thread = threading.Thread(
                target=_run,
                args=(self._worker, self._event, self._stop, self._interval_s),
                name="walrus-flusher",
                daemon=True,
            )
            thread.start()
            self._thread = thread

    def stop(self, wait: bool) -> None:
        """End the thread; with ``wait``, after it has finished what it is at. Idempotent."""
        self._stop.set()
        self._event.set()
        thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()


def _run(
    worker: weakref.ref[Worker], event: threading.Event, stop: threading.Event, interval_s: float
) -> None:
    while True:
        event.wait()
        if stop.is_set():
            return
        if interval_s:
            stop.wait(interval_s)
            if stop.is_set():
                return
        event.clear()
        target = worker()
        if target is None:
            return
        again = target.tick()
        del target
        if again:
            event.set()
