"""The background thread of one log: interval syncs, seals of full blocks, reclaim.

It holds no strong reference to the log, so a log that is dropped can go; it starts when there
is first something to do, and does nothing while nothing is dirty.
"""

from __future__ import annotations

import threading
import weakref
from queue import Empty, SimpleQueue
from typing import Optional, Protocol


class Worker(Protocol):
    """What the flusher works for."""

    def tick(self) -> bool:
        """Do what is due. Returns: whether something is left for the next interval."""


class Flusher:
    """Starts and stops the thread. Threads: any thread may call any method."""

    def __init__(self, worker: Worker, interval_s: float) -> None:
        """``interval_s`` is how long to wait after something became dirty (0: not at all)."""
        # Queues of this kind, not events: a signal handler may put into one that it interrupted.
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._stops: SimpleQueue[None] = SimpleQueue()
        wakes = self._wakes
        self._worker = weakref.ref(worker, lambda _gone: wakes.put(None))
        self._interval_s = interval_s
        self._thread: Optional[threading.Thread] = None
        self._lock = threading.RLock()

    def wake(self) -> None:
        """Tell that there is something to do."""
        if self._thread is None:
            self._start()
        if not self._wakes.qsize():
            self._wakes.put(None)

    def _start(self) -> None:
        if self._lock._is_owned():  # type: ignore[attr-defined]
            # A signal handler, inside the start.
            return
        with self._lock:
            if self._thread is not None or self._stops.qsize():
                return
            thread = threading.Thread(
                target=_run,
                args=(self._worker, self._wakes, self._stops, self._interval_s),
                name="walrus-flusher",
                daemon=True,
            )
            thread.start()
            self._thread = thread

    def stop(self, wait: bool) -> None:
        """End the thread; with ``wait``, after it has finished what it is at. Idempotent."""
        self._stops.put(None)
        self._wakes.put(None)
        thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()


def _run(
    worker: weakref.ref[Worker], wakes: SimpleQueue[None], stops: SimpleQueue[None], interval_s: float
) -> None:
    try:
        _work(worker, wakes, stops, interval_s)
    finally:
        # Pass the end on: an interrupted start may have left a thread that nobody joins.
        wakes.put(None)


def _work(
    worker: weakref.ref[Worker], wakes: SimpleQueue[None], stops: SimpleQueue[None], interval_s: float
) -> None:
    while True:
        wakes.get()
        if stops.qsize() or (interval_s and _stopped_within(stops, interval_s)):
            return
        while wakes.qsize():
            wakes.get()
        if stops.qsize():
            # Looked at after the draining, which may have taken the wake of the stop.
            return
        target = worker()
        if target is None:
            return
        again = target.tick()
        del target
        if again:
            wakes.put(None)


def _stopped_within(stops: SimpleQueue[None], interval_s: float) -> bool:
    """Wait for the interval to pass. Returns: whether the end came instead."""
    try:
        stops.get(timeout=interval_s)
    except Empty:
        return False
    stops.put(None)
    return True
