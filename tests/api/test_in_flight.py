"""Appends that nobody waits for, and those that are awaited on an event loop."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from helpers import EACH, NEVER, contents, run_threads, wait_until, with_faults

from walrus_core import FsyncSchedule
from walrus_core.errors import (
    ClosedError,
    OffsetOutOfRangeError,
    PoisonedError,
    StorageError,
    SyncFailedError,
)
from walrus_core.flusher import Flusher
from walrus_core.group import FOLLOW_S

SOON = FsyncSchedule.milliseconds(5)
SCHEDULES = pytest.mark.parametrize("schedule", [EACH, SOON, NEVER], ids=["each", "interval", "never"])


@SCHEDULES
def test_what_is_in_flight_arrives(store, schedule):
    wal = store.open(fsync_schedule=schedule)
    payloads = [b"%d" % number * (number % 700) for number in range(500)]
    offsets = [wal.append_nowait("t", payload) for payload in payloads]
    assert offsets == list(range(500))
    assert wal.next_offset("t") == 500
    wal.wait_durable("t", 499)
    assert wal.durable_offset("t") == 500
    assert contents(wal, "t") == payloads
    wal.close()
    assert contents(store.open(), "t") == payloads


def test_the_log_syncs_by_itself_what_is_in_flight(store):
    wal = store.open(fsync_schedule=EACH)
    for number in range(50):
        wal.append_nowait("t", b"%d" % number)
    wait_until(lambda: wal.durable_offset("t") == 50)
    # It was idle in between.
    wal.append_nowait("t", b"later")
    wait_until(lambda: wal.durable_offset("t") == 51)


def test_with_sync_each_nothing_is_visible_before_it_is_durable(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    begun, gate = threading.Event(), threading.Event()
    backend.during("sync", lambda: (begun.set(), gate.wait(20)))
    wal.append_nowait("t", b"second")
    assert begun.wait(20)
    assert wal.next_offset("t") == 2
    assert contents(wal, "t") == [b"first"]
    gate.set()
    wal.wait_durable("t", 1)
    assert contents(wal, "t") == [b"first", b"second"]


def test_entries_below_the_durable_offset_survive_a_power_cut(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    for number in range(200):
        wal.append_nowait("t", b"%d" % number * 100)
        if number % 20 == 7:
            durable = wal.durable_offset("t")
            memory = type(memory_store)("memory", memory_store.path)
            memory._memory = backend.synced_store()
            with memory.open() as after:
                found = contents(after, "t")
                assert len(found) >= durable
                assert found == [b"%d" % place * 100 for place in range(len(found))]


@pytest.mark.parametrize("offset", [2, -1, 10**30, True, "0", None])
def test_only_an_entry_can_be_waited_for(memory_store, offset):
    wal = memory_store.open(fsync_schedule=NEVER)
    wal.append_nowait("t", b"a")
    wal.append_nowait("t", b"b")
    with pytest.raises(OffsetOutOfRangeError):
        wal.wait_durable("t", offset)
    with pytest.raises(OffsetOutOfRangeError):
        wal.wait_durable("unknown", 0)
    assert wal.durable_offset("t") == 0


def test_a_failed_sync_reaches_everyone_who_waits(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    backend.fail("sync", times=None)

    async def main() -> list[object]:
        tasks = [wal.append_async("t", b"%d" % number) for number in range(20)]
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    answers = asyncio.run(main())
    assert {type(answer) for answer in answers} <= {SyncFailedError, PoisonedError}
    assert SyncFailedError in {type(answer) for answer in answers}
    with pytest.raises(SyncFailedError):
        wal.wait_durable("t", 1)
    with pytest.raises(PoisonedError):
        wal.append_nowait("t", b"never")
    assert [entry.data for entry in wal.batch_read_for_topic("t", start_offset=0)] == [b"first"]


@pytest.mark.parametrize("end", ["tick", "close"])
def test_who_awaits_is_told_of_a_failure_that_was_no_sync(memory_store, monkeypatch, end):
    wal = memory_store.open(fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    monkeypatch.setattr(Flusher, "wake", lambda _self: True)

    async def main() -> None:
        task = asyncio.ensure_future(wal.append_async("t", b"second"))
        await asyncio.sleep(0)
        wal._engine.gate.poison(StorageError(path="file", operation="write", errno=5, reason="broken"))
        wal._engine.tick() if end == "tick" else wal.close()
        with pytest.raises(PoisonedError, match="broken"):
            await asyncio.wait_for(task, 5)

    asyncio.run(main())


# --- on event loops ---------------------------------------------------------------------------


@SCHEDULES
def test_awaited_appends_are_durable(store, schedule):
    wal = store.open(fsync_schedule=schedule)
    order: list[int] = []

    async def append(number: int) -> None:
        for step in range(5):
            offset = await wal.append_async("t", b"%d.%d" % (number, step))
            assert wal.durable_offset("t") > offset
            order.append(offset)

    async def main() -> None:
        await asyncio.gather(*(append(number) for number in range(30)))

    asyncio.run(main())
    assert sorted(order) == list(range(150))
    wal.close()
    assert len(contents(store.open(), "t")) == 150


def test_a_handle_does_the_same(memory_store):
    wal = memory_store.open(fsync_schedule=EACH)
    topic = wal.topic("t")
    assert topic.append_nowait(b"a") == 0
    topic.wait_durable(0)
    assert asyncio.run(topic.append_async(b"b")) == 1
    assert wal.durable_offset("t") == 2


def test_several_loops_may_wait(memory_store):
    wal = memory_store.open(fsync_schedule=EACH)

    def run() -> list[int]:
        async def main() -> list[int]:
            return await asyncio.gather(*(wal.append_async("t", b"x") for _ in range(40)))

        return asyncio.run(main())

    answers = run_threads([run] * 4, seconds=30)
    assert sorted(offset for answer in answers for offset in answer) == list(range(160))


def test_a_cancelled_append_has_happened(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    gate = threading.Event()
    backend.during("sync", lambda: gate.wait(20))

    async def main() -> int:
        task = asyncio.ensure_future(wal.append_async("t", b"cancelled"))
        await asyncio.sleep(0.01)
        task.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await wal.append_async("t", b"next")

    assert asyncio.run(main()) == 2
    assert contents(wal, "t") == [b"first", b"cancelled", b"next"]


def test_a_loop_that_is_gone_is_in_nobodys_way(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    gate = threading.Event()
    backend.during("sync", lambda: gate.wait(20))

    async def leave() -> None:
        task = asyncio.ensure_future(wal.append_async("t", b"left"))
        await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(leave())
    gate.set()
    assert asyncio.run(wal.append_async("t", b"next")) == 2
    wal.sync()
    assert wal.durable_offset("t") == 3


def test_after_close_every_way_is_closed(memory_store):
    wal = memory_store.open(fsync_schedule=EACH)
    for number in range(30):
        wal.append_nowait("t", b"%d" % number)
    wal.close()
    for call in (
        lambda: wal.append_nowait("t", b"x"),
        lambda: asyncio.run(wal.append_async("t", b"x")),
        lambda: wal.wait_durable("t", 0),
    ):
        with pytest.raises(ClosedError):
            call()
    assert len(contents(memory_store.open(), "t")) == 30


def test_threads_append_and_wait_beside_each_other(store):
    wal = store.open(fsync_schedule=EACH)

    def work() -> None:
        for _ in range(25):
            offsets = [wal.append_nowait("t", b"n" * 50) for _ in range(4)]
            wal.wait_durable("t", offsets[-1])
            assert wal.durable_offset("t") > offsets[-1]
            assert wal.append_for_topic("t", b"w") < wal.durable_offset("t")

    run_threads([work] * 6, seconds=60)
    assert wal.next_offset("t") == wal.durable_offset("t") == 6 * 25 * 5


def test_who_waits_for_a_slow_sync_waits_in_one_place(memory_store):
    """A sync that outlasts the followers' patience must not find each of them several times."""
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    begun, gate = threading.Event(), threading.Event()
    backend.during("sync", lambda: (begun.set(), gate.wait(20)))
    group = wal._engine.syncer.group
    threads = [threading.Thread(target=wal.append_for_topic, args=("t", b"x")) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    wait_until(lambda: group.waiting == 3)
    time.sleep(3.5 * FOLLOW_S)
    assert group.waiting == 3
    gate.set()
    for thread in threads:
        thread.join(20)
    assert wal.durable_offset("t") == 5
    assert group.waiting == 0


def test_what_follows_a_durable_append_is_looked_after(store):
    """The topic is noted and its tail admitted, and nobody is at work in the background."""
    wal = store.open(fsync_schedule=EACH)
    for number in range(4):
        wal.append_for_topic("t", b"waited for")
        wal.append_nowait("t", b"not waited for")
        wait_until(lambda end=2 * number + 2: wal.durable_offset("t") == end)


def test_topics_that_rest_are_synced_no_more(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    for name in "abcd":
        for _ in range(3):
            wal.append_for_topic(name, b"x")
    assert wal._engine.syncer.is_idle
    backend.reset()
    for _ in range(5):
        wal.append_for_topic("d", b"x")
    assert backend.calls["sync"] == 5
    assert len(wal._engine.syncer._dirty) == 1
    wal.append_for_topic("a", b"again")
    assert wal.durable_offset("a") == 4


def test_awaiting_without_a_loop_of_asyncio_appends_nothing(memory_store):
    """Such as under another framework: who tries again must not append twice."""
    wal = memory_store.open(fsync_schedule=EACH)
    with pytest.raises(RuntimeError, match="no running event loop"):
        wal.append_async("t", b"x").send(None)
    assert wal.topics() == []


def test_awaits_where_no_thread_can_be_had_are_over_all_the_same(memory_store, monkeypatch):
    """Who cannot be helped by the background thread syncs by itself."""
    wal = memory_store.open(fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    monkeypatch.setattr(Flusher, "wake", lambda _self: False)

    async def main() -> list[int]:
        one = await asyncio.wait_for(wal.append_async("t", b"one"), 20)
        return [one, *await asyncio.gather(*(wal.append_async("t", b"x") for _ in range(5)))]

    assert asyncio.run(main()) == [1, 2, 3, 4, 5, 6]


def test_the_next_append_asks_again_where_no_thread_could_be_had(store, monkeypatch):
    wal = store.open(fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    wal.append_for_topic("t", b"second")
    wake, answers = Flusher.wake, [False]

    def refuse_once(flusher):
        return answers.pop() if answers else wake(flusher)

    monkeypatch.setattr(Flusher, "wake", refuse_once)
    for _ in range(2):
        wal.append_nowait("t", b"x")
    wait_until(lambda: wal.durable_offset("t") == 4)


def test_awaits_without_a_thread_where_no_schedule_syncs(memory_store, monkeypatch):
    wal = memory_store.open(fsync_schedule=NEVER)
    monkeypatch.setattr(Flusher, "wake", lambda _self: False)
    assert asyncio.run(asyncio.wait_for(wal.append_async("t", b"x"), 20)) == 0
    assert wal.durable_offset("t") == 1


def test_a_sync_that_is_over_before_its_request_returns_leaves_the_next_append_to_ask(store, monkeypatch):
    wal = store.open(fsync_schedule=EACH)
    for _ in range(2):
        wal.append_for_topic("t", b"x")
    wake = Flusher.wake

    def wake_and_wait(flusher):
        answer = wake(flusher)
        wait_until(lambda: wal.durable_offset("t") == wal.next_offset("t"))
        return answer

    monkeypatch.setattr(Flusher, "wake", wake_and_wait)
    for end in range(3, 6):
        wal.append_nowait("t", b"x")
        wait_until(lambda end=end: wal.durable_offset("t") == end)
