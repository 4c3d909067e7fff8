"""Futures of event loops: each loop is asked once, and one that was closed is forgotten."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from walrus_core import awaiting


class Topic:
    durable_offset = 0


class Struck:
    """Stands for a future whose settling is interrupted once, before it has happened."""

    def __init__(self, future, is_struck):
        self.future = future
        self.is_struck = is_struck

    def done(self):
        if self.is_struck:
            self.is_struck = False
            raise KeyboardInterrupt
        return self.future.done()

    def __getattr__(self, name):
        return getattr(self.future, name)


class Loop:
    """A loop that runs what it is asked for when the test says so."""

    ends_now = False
    struck = None
    """Which of its futures are interrupted; None for futures as they are."""
    count = 0

    def __init__(self) -> None:
        self.asked = []
        self.is_ended = False
        self.futures = asyncio.new_event_loop()

    def create_future(self):
        made = self.futures.create_future()
        if self.struck is None:
            return made
        self.count += 1
        return Struck(made, self.count - 1 in self.struck)

    def is_closed(self):
        return self.is_ended

    def call_soon(self, call, *arguments):
        self.asked.append((call, arguments))

    def call_soon_threadsafe(self, call, *arguments):
        if self.is_ended or self.ends_now:
            raise RuntimeError("Event loop is closed")
        self.asked.append((call, arguments))

    def run(self):
        asked, self.asked = self.asked, []
        for call, arguments in asked:
            call(*arguments)


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.futures.close()


@pytest.fixture
def failures():
    return []


@pytest.fixture
def waits(failures):
    gate = SimpleNamespace(failure=None, blocks_writes=False)
    return awaiting.Awaiting(gate, lambda: failures[0] if failures else None)


def test_a_loop_is_asked_once_until_it_has_looked(waits, loop):
    topic = Topic()
    first, second = waits.until(loop, topic, 0), waits.until(loop, topic, 1)
    topic.durable_offset = 1
    waits.tell()
    waits.tell()
    assert len(loop.asked) == 1 and not first.done()
    loop.run()
    assert first.done() and not second.done() and waits.loops
    topic.durable_offset = 2
    waits.tell()
    loop.run()
    assert second.result() is None and not waits.loops


@pytest.mark.parametrize("how", ["before", "before it has looked", "while it is asked"])
def test_a_loop_that_was_closed_is_forgotten(waits, loop, how):
    waits.until(loop, Topic(), 0)
    if how == "before it has looked":
        waits.tell()
    if how == "while it is asked":
        loop.ends_now = True
    else:
        loop.is_ended = True
    waits.tell()
    assert not waits.loops


@pytest.mark.parametrize("fails", [False, True])
def test_an_interrupt_while_futures_are_settled_forgets_none(waits, loop, failures, fails):
    """The loop is asked again by itself: no other sync may come."""
    topic = Topic()
    loop.struck = [1]
    made = [waits.until(loop, topic, offset) for offset in range(3)]
    if fails:
        failures.append(ZeroDivisionError("no more"))
    else:
        topic.durable_offset = 3
    waits.tell()
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    futures = [future.future for future in made]
    assert futures[0].done() and not futures[1].done()
    loop.run()
    assert all(future.done() for future in futures) and not waits.loops
    assert all((future.exception() is not None) == fails for future in futures)


def test_an_interrupt_before_a_loop_has_looked_keeps_it_asked(waits, loop, monkeypatch):
    future = waits.until(loop, topic := Topic(), 0)
    topic.durable_offset = 1
    settle, struck = awaiting.Awaiting._settle_now, []

    def interrupted(self, of):
        if not struck:
            struck.append(of)
            raise KeyboardInterrupt
        settle(self, of)

    monkeypatch.setattr(awaiting.Awaiting, "_settle_now", interrupted)
    waits.tell()
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    loop.run()
    assert future.done()


def test_a_loop_that_was_forgotten_before_it_looked_settles_nothing(waits, loop):
    future = waits.until(loop, Topic(), 0)
    waits.tell()
    loop.is_ended = True
    waits.loops[loop].is_asked = False
    waits.tell()
    loop.run()
    assert not future.done()


def test_who_has_given_up_is_passed_over_by_success_and_failure(waits, loop, failures):
    topics = [Topic() for _ in range(2)]
    gone, there = waits.until(loop, topics[0], 0), waits.until(loop, topics[0], 1)
    lost, failed = waits.until(loop, topics[1], 0), waits.until(loop, topics[1], 1)
    gone.cancel()
    lost.cancel()
    topics[0].durable_offset = 2
    failures.append(ZeroDivisionError("no more"))
    waits.tell()
    loop.run()
    assert there.result() is None
    assert isinstance(failed.exception(), ZeroDivisionError)
    assert gone.cancelled() and lost.cancelled() and not waits.loops
