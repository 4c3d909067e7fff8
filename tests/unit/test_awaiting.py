"""Futures of event loops: each loop is asked once, and one that was closed is forgotten."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from walrus_core import awaiting


class Topic:
    durable_offset = 0


class Loop:
    """A loop that runs what it is asked for when the test says so."""

    def __init__(self) -> None:
        self.asked = []
        self.is_closed = False
        self.futures = asyncio.new_event_loop()

    def create_future(self):
        return self.futures.create_future()

    def call_soon_threadsafe(self, call, *arguments):
        if self.is_closed:
            raise RuntimeError("Event loop is closed")
        self.asked.append((call, arguments))

    def run(self):
        asked, self.asked = self.asked, []
        for call, arguments in asked:
            call(*arguments)


@pytest.fixture
def loop(monkeypatch):
    made = Loop()
    monkeypatch.setattr(awaiting, "_running_loop", lambda: made)
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
    first, second = waits.until(topic, 0), waits.until(topic, 1)
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


def test_a_loop_that_was_closed_is_forgotten(waits, loop):
    waits.until(Topic(), 0)
    loop.is_closed = True
    waits.tell()
    assert not waits.loops


def test_a_loop_that_was_forgotten_before_it_looked_settles_nothing(waits, loop):
    future = waits.until(Topic(), 0)
    waits.tell()
    loop.is_closed = True
    waits.loops[loop].is_asked = False
    waits.tell()
    loop.run()
    assert not future.done()


def test_who_has_given_up_is_passed_over_by_success_and_failure(waits, loop, failures):
    topics = [Topic() for _ in range(2)]
    gone, there = waits.until(topics[0], 0), waits.until(topics[0], 1)
    lost, failed = waits.until(topics[1], 0), waits.until(topics[1], 1)
    gone.cancel()
    lost.cancel()
    topics[0].durable_offset = 2
    failures.append(ZeroDivisionError("no more"))
    waits.tell()
    loop.run()
    assert there.result() is None
    assert isinstance(failed.exception(), ZeroDivisionError)
    assert gone.cancelled() and lost.cancelled() and not waits.loops
