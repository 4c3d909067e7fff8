"""The background thread of one log: interval syncs, seals of full blocks, reclaim.

It holds no strong reference to the log, so a log that is dropped can go; it starts when there
is first something to do, and does nothing while nothing is dirty.
"""

from __future__ import annotations

import _thread
import threading
import time
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol


class Worker(Protocol):
    """What the flusher works for."""

    def tick(self) -> bool:
        """Do what is due. Returns: whether something is left for the next interval."""

    def fail(self, error: BaseException) -> None:
        """Take note that ``tick`` has raised: what is due will not be done."""


class Flusher:
    """Starts and stops the thread. Threads: any thread may call any method."""

    def __init__(self, worker: Worker, interval_s: float, warn: Callable[..., None]) -> None:
        """``interval_s`` is how long to wait after something became dirty (0: not at all)."""
        self._warn = warn
        self._has_warned = False
        # Queues of this kind, not events: a signal handler may put into one that it interrupted.
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._stops: SimpleQueue[None] = SimpleQueue()
        wakes = self._wakes
        self._worker = weakref.ref(worker, lambda _gone: wakes.put(None))
        self._interval_s = interval_s
        self._threads: list[int] = []
        """The thread's identity, once it runs."""
        self._ended = threading.Lock()
        """Held from before the start of the thread to its end."""
        self._working = threading.Lock()
        """Held while the thread is at work."""
        self._last: list[Callable[[], None]] = []
        self._lock = threading.RLock()

    def wake(self) -> bool:
        """Tell that there is something to do. Returns: whether the thread runs, or was stopped.

        Where no thread can be started what called goes on without: the next wake tries again.
        """
        if not self._threads:
            try:
                self._start()
            except RuntimeError as error:
                if not self._has_warned:
                    self._has_warned = True
                    self._warn("no background thread, which syncs and gives space back: %s", error)
                return False
        if not self._wakes.qsize():
            self._wakes.put(None)
        return True

    def _start(self) -> None:
        """Start the thread, unless the log was stopped.

        Not by ``threading.Thread``, whose start waits in Python code: an interrupt there leaves a
        thread that nobody knows of. The start and the note of it here are one step.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]
            # A signal handler, inside the start.
            return
        with self._lock:
            if self._threads or self._stops.qsize():
                return
            if not self._ended.locked():
                self._ended.acquire()
            work = (self._worker, self._wakes, self._stops, self._interval_s, self._working, self._last)
            arguments = (self._ended, *work)
            self._threads.extend(map(_thread.start_new_thread, (_run,), (arguments,)))

    def stop(self, wait: bool) -> None:
        """End the thread; with ``wait``, after it has finished what it is at. Idempotent."""
        self._stops.put(None)
        self._wakes.put(None)
        if wait and self._threads and self._threads[0] != threading.get_ident():
            with self._ended:
                pass

    def end(self) -> list[BaseException]:
        """Stop the thread and wait for its end, however often that is interrupted.

        Returns: the interrupts; for the caller to raise. After a MemoryError the thread may still be ending.
        """
        interrupts: list[BaseException] = []
        while True:
            try:
                self.stop(wait=True)
                return interrupts
            except MemoryError as error:
                return [*interrupts, error]
            except BaseException as error:
                interrupts.append(error)

    def run_last(self, call: Callable[[], None]) -> None:
        """Run ``call`` when no work is under way: now, or on the thread when it is done with what it is at.

        Waits for nothing, so that a finaliser may call it. Call ``stop`` first.
        """
        self._last.append(call)
        _run_last(self._working, self._last)

    def forget_in_child(self) -> None:
        """In a forked child, which has no such thread and must not wait for it."""
        self._stops.put(None)
        self._threads.clear()


def _run(ended: threading.Lock, *work: Any) -> None:
    try:
        _work(*work)
    finally:
        ended.release()


def _work(
    worker: weakref.ref[Worker],
    wakes: SimpleQueue[None],
    stops: SimpleQueue[None],
    interval_s: float,
    working: threading.Lock,
    last: list[Callable[[], None]],
) -> None:
    wait_s = interval_s
    while True:
        wakes.get()
        if stops.qsize() or (wait_s > 0 and _stopped_within(stops, wait_s)):
            return
        while wakes.qsize():
            wakes.get()
        if stops.qsize():
            # Looked at after the draining, which may have taken the wake of the stop.
            return
        target = worker()
        if target is None:
            return
        started_s = time.monotonic()
        try:
            with working:
                again = target.tick()
        except BaseException as error:
            target.fail(error)
            again = False
        finally:
            _run_last(working, last)
        del target
        wait_s = interval_s
        if again:
            # What is left may have been written right after the sync began: its interval runs since then.
            wait_s -= time.monotonic() - started_s
            wakes.put(None)


def _run_last(working: threading.Lock, last: list[Callable[[], None]]) -> None:
    """Run what is to come last, unless work is under way: then the thread does it after that."""
    # Looked at again after the release: who came in between was refused.
    while last and working.acquire(blocking=False):
        try:
            while last:
                last.pop()()
        finally:
            working.release()


def _stopped_within(stops: SimpleQueue[None], interval_s: float) -> bool:
    """Wait for the interval to pass. Returns: whether the end came instead."""
    try:
        stops.get(timeout=interval_s)
    except Empty:
        return False
    return True
