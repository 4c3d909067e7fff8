"""The loop of the background thread, on the thread of the test: when it works, waits and ends."""

from __future__ import annotations

import threading
import weakref
from queue import Empty, SimpleQueue

import pytest

from walrus_core import flusher

INTERVAL_S = 0.2


class Stops:
    """In the place of the queue of stops: notes how long somebody would wait for one, and passes no time."""

    def __init__(self) -> None:
        self.waits_s = []
        self.stopped = 0
        self.during_wait = lambda: None

    def qsize(self):
        return self.stopped

    def get(self, timeout):
        self.waits_s.append(round(timeout, 6))
        self.during_wait()
        if not self.stopped:
            raise Empty


class Work:
    """What is to be done: a tick takes the seconds that it is given, and says whether something is left."""

    def __init__(self, loop: Loop, ticks) -> None:
        self.loop = loop
        self.ticks = list(ticks)
        self.done = 0

    def tick(self):
        took_s, again = self.ticks.pop(0)
        self.loop.now_s += took_s
        self.done += 1
        if not self.ticks:
            self.loop.stops.stopped = 1
        if not self.ticks or not again:
            self.loop.wakes.put(None)
        return again


class Loop:
    def __init__(self, monkeypatch) -> None:
        self.now_s = 100.0
        self.wakes = SimpleQueue()
        self.stops = Stops()
        self.ended = threading.Lock()
        monkeypatch.setattr(flusher.time, "monotonic", lambda: self.now_s)

    def run(self, worker, interval_s=INTERVAL_S):
        """Run to the end, which must come."""
        self.ended.acquire()
        flusher._run(self.ended, worker, self.wakes, self.stops, interval_s, threading.Lock(), [])
        assert not self.ended.locked()


@pytest.fixture
def loop(monkeypatch):
    return Loop(monkeypatch)


def test_what_is_left_waits_for_the_interval_from_the_beginning_of_the_last_work(loop):
    work = Work(loop, [(0.05, True), (0.15, True), (0.0, False), (0.0, False)])
    loop.wakes.put(None)
    loop.run(weakref.ref(work))
    assert work.done == 4
    assert loop.stops.waits_s == [0.2, 0.15, 0.05, 0.2]


def test_work_that_took_longer_than_the_interval_goes_on_at_once(loop):
    work = Work(loop, [(0.3, True), (0.0, False)])
    loop.wakes.put(None)
    loop.run(weakref.ref(work))
    assert work.done == 2 and loop.stops.waits_s == [0.2]


def test_without_an_interval_nothing_is_waited_for_and_many_wakes_are_one(loop):
    work = Work(loop, [(0.0, False)])
    for _ in range(5):
        loop.wakes.put(None)
    loop.run(weakref.ref(work), interval_s=0.0)
    assert work.done == 1 and loop.stops.waits_s == []


def test_a_stop_before_or_in_the_wait_ends_it_without_work(loop):
    work = Work(loop, [(0.0, False)])
    loop.wakes.put(None)
    loop.stops.during_wait = lambda: setattr(loop.stops, "stopped", 1)
    loop.run(weakref.ref(work))
    loop.wakes.put(None)
    loop.run(weakref.ref(work))
    assert work.done == 0 and loop.stops.waits_s == [0.2]


def test_a_stop_whose_wake_is_drained_with_the_others_is_seen(loop):
    work = Work(loop, [(0.0, False)])
    loop.wakes.put(None)

    class Draining:
        """The stop comes after the look for one, before its wake is drained with that of somebody else."""

        def __init__(self):
            self.left = 1

        def get(self):
            return None

        def qsize(self):
            loop.stops.stopped = 1
            self.left -= 1
            return self.left + 1

    loop.wakes = Draining()
    loop.run(weakref.ref(work), interval_s=0.0)
    assert work.done == 0


def test_a_worker_that_is_gone_ends_it(loop):
    work = Work(loop, [(0.0, False)])
    worker = weakref.ref(work)
    del work
    loop.wakes.put(None)
    loop.run(worker)
    assert loop.stops.waits_s == [INTERVAL_S]


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, GeneratorExit])
def test_an_error_of_the_work_is_told_and_the_thread_goes_on(loop, error):
    """Or the log would take writes that nobody syncs, without a word."""
    told = []

    class Broken:
        def tick(self):
            raise error

        def fail(self, failure):
            told.append(type(failure))
            loop.stops.stopped = len(told) == 2
            loop.wakes.put(None)

    work = Broken()
    loop.wakes.put(None)
    loop.run(weakref.ref(work))
    assert told == [error, error] and not loop.ended.locked()


def test_an_error_that_cannot_be_told_ends_it_and_who_waits_for_the_end_goes_on(loop):
    class Broken:
        def tick(self):
            raise ZeroDivisionError

        def fail(self, failure):
            raise failure

    work = Broken()
    loop.wakes.put(None)
    with pytest.raises(ZeroDivisionError):
        loop.run(weakref.ref(work))
    assert not loop.ended.locked()


def no_warning(message, *details):
    raise AssertionError(message % details)


def test_where_no_thread_can_be_started_it_says_so_once_and_tries_again(monkeypatch):
    started, warnings = [], []

    def start(run, rest):
        if len(warnings) + len(started) < 1 or is_short:
            raise RuntimeError("can't start new thread")
        started.append(run)
        return 7

    is_short = True
    monkeypatch.setattr(flusher._thread, "start_new_thread", start)
    work = SimpleQueue()
    thread = flusher.Flusher(work, INTERVAL_S, lambda message, *details: warnings.append(message % details))
    assert not thread.wake()
    assert not thread.wake()
    assert len(warnings) == 1 and "can't start new thread" in warnings[0]
    is_short = False
    assert thread.wake() and thread.wake() and len(started) == 1
    thread._ended.release()
    thread.stop(wait=False)


def test_it_starts_once_not_after_a_stop_and_not_inside_its_own_start(monkeypatch):
    started = []
    monkeypatch.setattr(flusher._thread, "start_new_thread", lambda run, rest: started.append(run) or 7)

    class Nothing:
        def tick(self):
            raise AssertionError

    work = Nothing()
    begun = flusher.Flusher(work, INTERVAL_S, no_warning)
    with begun._lock:
        # As from a signal handler, which came in the middle of the start.
        begun.wake()
    assert not started
    begun.wake()
    begun.wake()
    assert len(started) == 1
    begun.forget_in_child()
    begun.wake()
    assert len(started) == 1
    begun.stop(wait=True)
    del work


def test_what_comes_last_waits_for_the_work_and_comes_even_if_that_fails():
    """Asked for in the middle of the work it is done behind it; asked for at rest, at once."""
    done = []

    class Failing:
        def tick(self):
            thread.run_last(lambda: done.append("last"))
            done.append("work")
            raise RuntimeError

        def fail(self, error):
            raise error

    worker = Failing()
    thread = flusher.Flusher(worker, 0, no_warning)
    thread._wakes.put(None)
    thread._ended.acquire()
    with pytest.raises(RuntimeError):
        flusher._run(
            thread._ended,
            thread._worker,
            thread._wakes,
            thread._stops,
            0,
            thread._working,
            thread._last,
        )
    assert done == ["work", "last"]
    thread.run_last(lambda: done.append("at rest"))
    assert done == ["work", "last", "at rest"]


def test_an_end_is_waited_for_however_often_that_is_interrupted(monkeypatch):
    """And what interrupted it is told."""
    thread = flusher.Flusher(SimpleQueue(), 0, no_warning)
    interrupts = [KeyboardInterrupt(), TimeoutError(), None]

    def stop(self, wait):
        assert wait
        if (found := interrupts.pop(0)) is not None:
            raise found

    monkeypatch.setattr(flusher.Flusher, "stop", stop)
    assert [type(found) for found in thread.end()] == [KeyboardInterrupt, TimeoutError]
    assert interrupts == []
    interrupts.append(MemoryError())
    assert [type(found) for found in thread.end()] == [MemoryError]
