"""Futures that wait for entries, by themselves; the twins do the same."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import weakref
from types import SimpleNamespace

import pytest

from walrus_core import waiters


@pytest.fixture(params=["compiled", "pure"])
def twin(request):
    if request.param == "pure":
        return SimpleNamespace(Waiters=waiters.PureWaiters, Loops=waiters.PureLoops)
    if importlib.util.find_spec("walrus_core._front_c") is None:
        pytest.skip("the compiled twin is not built")
    return importlib.import_module("walrus_core._front_c")


class Topic:
    __slots__ = ("durable_offset",)

    def __init__(self, durable_offset=0):
        self.durable_offset = durable_offset


class Future:
    """A future that does something at the moment at which it is settled."""

    def __init__(self, then=lambda: None, before=lambda: None):
        self.told = None
        self.then = then
        self.before = before

    def done(self):
        self.before()
        return self.told is not None

    def set_result(self, result):
        self.told = "done"
        self.then()

    def set_exception(self, error):
        self.told = error
        self.then()


def told(futures):
    return [future.told for future in futures]


def test_those_below_the_durable_offset_are_settled_in_order(twin):
    waits, topics, order = twin.Waiters(), [Topic(), Topic()], []
    for offset in range(100):
        for name, topic in enumerate(topics):
            waits.add(topic, offset, Future(lambda name=name, offset=offset: order.append((name, offset))))
    assert waits
    topics[0].durable_offset, topics[1].durable_offset = 60, 1
    waits.settle(None)
    assert order == [(0, offset) for offset in range(60)] + [(1, 0)]
    topics[0].durable_offset = topics[1].durable_offset = 100
    waits.settle(None)
    assert waits.settle(None) is None and not waits
    assert order[61:] == [(0, offset) for offset in range(60, 100)] + [
        (1, offset) for offset in range(1, 100)
    ]


def test_a_failure_is_told_to_those_whose_entries_are_not_durable(twin):
    waits, topic, error = twin.Waiters(), Topic(2), OSError("no more")
    futures = [Future() for _ in range(5)]
    for offset, future in enumerate(futures):
        waits.add(topic, offset, future)
    futures[1].told = futures[3].told = "cancelled"
    waits.settle(error)
    assert told(futures) == ["done", "cancelled", error, "cancelled", error] and not waits


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("when", ["then", "before"])
def test_what_breaks_off_the_settling_leaves_the_others_waiting(twin, fails, when):
    strikes = [KeyboardInterrupt()]

    def strike():
        if strikes:
            raise strikes.pop()

    waits, topic = twin.Waiters(), Topic(0 if fails else 4)
    futures = [Future(**({when: strike} if offset == 1 else {})) for offset in range(4)]
    for offset, future in enumerate(futures):
        waits.add(topic, offset, future)
    error = OSError("no more") if fails else None
    with pytest.raises(KeyboardInterrupt):
        waits.settle(error)
    assert told(futures)[2:] == [None, None] and waits
    waits.settle(error)
    assert told(futures) == [error or "done"] * 4 and not waits


def test_one_may_be_added_while_others_are_settled(twin):
    """As by a signal handler: what it adds may be durable already, and many make room move."""
    waits, topic, other = twin.Waiters(), Topic(1), Topic(1)
    late = [Future() for _ in range(1000)]

    def add_more():
        topic.durable_offset = other.durable_offset = 1000
        waits.add(other, 0, more)
        for offset, future in enumerate(late[1:], start=1):
            waits.add(topic, offset, future)
        waits.settle(None)

    more = Future()
    late[0].then = add_more
    waits.add(topic, 0, late[0])
    waits.settle(None)
    waits.settle(None)
    assert told(late) == ["done"] * 1000 and more.told == "done" and not waits


def test_futures_go_with_the_loop_that_nobody_has(twin):
    """A log, a task of a loop that was dropped and a future that is in both: none holds them for ever."""
    waits, topic, future = twin.Waiters(), Topic(), Future()
    future.waits = waits
    waits.add(topic, 0, future)
    gone = weakref.ref(future)
    del future, waits
    gc.collect()
    assert gone() is None


def test_one_that_is_settled_is_let_go(twin):
    waits, topic = twin.Waiters(), Topic(2)
    gone = []
    for offset in range(3):
        future = Future()
        gone.append(weakref.ref(future))
        waits.add(topic, offset, future)
    del future
    waits.settle(None)
    gc.collect()
    assert [ref() is None for ref in gone] == [True, True, False]


@pytest.mark.parametrize("offset", [-1, 1 << 64, "1"])
def test_no_offset_is_refused_and_nothing_waits(twin, offset):
    if twin.Waiters is waiters.PureWaiters:
        pytest.skip("the pure twin takes what it is given")
    waits = twin.Waiters()
    with pytest.raises((OverflowError, TypeError)):
        waits.add(Topic(), offset, Future())
    assert not waits


def test_a_future_belongs_to_its_loop_and_may_be_settled_at_once(twin):
    gate = SimpleNamespace(failure=None, blocks_writes=False)
    settled = []

    class Loops(twin.Loops):
        def _new(self, loop):
            made = self.loops[loop] = twin.Waiters()
            return made

        def _settle(self, loop):
            settled.append(loop)
            self.loops[loop].settle(gate.failure)

    loops, topic = Loops(gate), Topic(5)

    async def run():
        loop = asyncio.get_running_loop()
        first = loops.until(loop, topic, 4)
        second = loops.until(loop, topic, 5)
        assert first.done() and not second.done() and second.get_loop() is loop
        assert len(settled) == 1 and len(loops.loops) == 1
        gate.failure = ZeroDivisionError("no more")
        third = loops.until(loop, topic, 6)
        assert isinstance(second.exception(), ZeroDivisionError)
        assert isinstance(third.exception(), ZeroDivisionError)
        gate.failure, gate.blocks_writes = None, True
        loops.until(loop, topic, 7)
        assert len(settled) == 3

    asyncio.run(run())


class Finaliser:
    """Does something when the collector finds it, which is when something is allocated."""

    def __init__(self, then):
        self.then = then
        self.me = self

    def __del__(self):
        self.then()


COLLECTED = 300
"""More lists than CPython keeps in hand for the next ones."""


@pytest.fixture
def allocate_and_collect():
    """A function: let this be called by the collector at one of the next allocations."""
    before = gc.get_threshold(), gc.isenabled()
    kept = []

    def prepare(then):
        gc.collect()
        gc.disable()

        def once():
            gc.disable()
            then()

        Finaliser(once)
        kept.extend([] for _ in range(COLLECTED))
        gc.set_threshold(1)
        gc.enable()

    yield prepare
    gc.set_threshold(*before[0])
    if before[1]:
        gc.enable()


@pytest.mark.parametrize("count", [1, 100, 3000, 100_000])
def test_a_finaliser_may_add_while_those_that_are_left_are_gathered(twin, count, allocate_and_collect):
    waits, topic, more = twin.Waiters(), Topic(1), [Future() for _ in range(count)]

    def add_more():
        for offset, future in enumerate(more, start=count):
            waits.add(topic, offset, future)

    futures = [Future() for _ in range(count)]
    futures[0].then = lambda: allocate_and_collect(add_more)
    for offset, future in enumerate(futures):
        waits.add(topic, offset, future)
    waits.settle(None)
    topic.durable_offset = 2 * count
    waits.settle(None)
    gc.collect()
    waits.settle(None)
    assert set(told(futures)) == set(told(more)) == {"done"} and not waits


def test_a_finaliser_may_add_while_a_topic_is_added(twin, allocate_and_collect):
    waits, topic, first, second = twin.Waiters(), Topic(), Future(), Future()
    allocate_and_collect(lambda: waits.add(topic, 0, first))
    waits.add(topic, 1, second)
    gc.collect()
    topic.durable_offset = 2
    waits.settle(None)
    assert told([first, second]) == ["done", "done"] and not waits
