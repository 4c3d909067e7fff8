"""Group commit by itself: who syncs, who waits, who is let go; the twins do the same."""

from __future__ import annotations

import importlib
import importlib.util
import signal
import threading
import time

import pytest
from helpers import run_threads, wait_until

from walrus_core.errors import ReentrantCallError
from walrus_core.group import PureGroup


class Topic:
    __slots__ = ("durable_offset", "written")

    def __init__(self) -> None:
        self.durable_offset = 0
        self.written = 0


@pytest.fixture(params=["compiled", "pure"])
def make_group(request):
    if request.param == "pure":
        return PureGroup
    if importlib.util.find_spec("walrus_core._front_c") is None:
        pytest.skip("the compiled twin is not built")
    return importlib.import_module("walrus_core._front_c").Group


class Disk:
    """A sync that can be held up, and that covers what was written when it began."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.is_held = True
        self.syncs = 0
        self.failure: BaseException | None = None

    def sync(self, _topic: object, _offset: int) -> None:
        covered = self.topic.written
        self.syncs += 1
        self.begun.release()
        if self.is_held:
            assert self.may_end.acquire(timeout=20)
        if self.failure is not None:
            raise self.failure
        self.topic.durable_offset = covered


def start(*calls) -> list[threading.Thread]:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a thread waits for ever"


def test_one_sync_serves_all_who_wrote_before_it_began(make_group):
    topic = Topic()
    disk = Disk(topic)
    group = make_group(disk.sync)
    topic.written = 1
    threads = start(lambda: group.wait(topic, 1))
    assert disk.begun.acquire(timeout=20)
    topic.written = 9
    threads += start(*[lambda offset=offset: group.wait(topic, offset) for offset in range(2, 10)])
    wait_until(lambda: group.waiting == 8)
    assert disk.syncs == 1
    disk.may_end.release()
    assert disk.begun.acquire(timeout=20)
    assert topic.durable_offset == 1
    disk.may_end.release()
    join(threads)
    assert (disk.syncs, group.waiting, topic.durable_offset) == (2, 0, 9)


def test_who_wants_a_sync_gets_one_that_began_afterwards(make_group):
    topic = Topic()
    disk = Disk(topic)
    group = make_group(disk.sync)
    topic.written = 1
    threads = start(lambda: group.wait(topic, 1))
    assert disk.begun.acquire(timeout=20)
    topic.written = 2
    ended: list[int] = []
    threads += start(lambda: (group.lead(), ended.append(topic.durable_offset)))
    time.sleep(0.05)
    disk.may_end.release()
    assert disk.begun.acquire(timeout=20)
    assert not ended
    disk.may_end.release()
    join(threads)
    assert ended == [2]


def test_a_failed_sync_leaves_nobody_waiting(make_group):
    topic = Topic()
    disk = Disk(topic)
    group = make_group(disk.sync)
    topic.written = 9
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            group.wait(topic, 9)
        except ValueError as error:
            raised.append(error)

    threads = start(wait)
    assert disk.begun.acquire(timeout=20)
    threads += start(*[wait] * 7)
    wait_until(lambda: group.waiting == 7)
    disk.failure, disk.is_held = ValueError("broken"), False
    disk.may_end.release()
    join(threads)
    assert len(raised) == 8 and group.waiting == 0


def test_an_interrupted_follower_leaves_and_the_others_are_served(make_group):
    """The main thread follows, is interrupted while it waits, and takes nobody along."""
    topic = Topic()
    disk = Disk(topic)
    group = make_group(disk.sync)
    topic.written = 1
    threads = start(lambda: group.wait(topic, 1))
    assert disk.begun.acquire(timeout=20)
    topic.written = 3

    def interrupt() -> None:
        wait_until(lambda: group.waiting == 1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threads += start(interrupt)
    with pytest.raises(KeyboardInterrupt):
        group.wait(topic, 2)
    threads += start(lambda: group.wait(topic, 3))
    time.sleep(0.05)
    disk.is_held = False
    disk.may_end.release(2)
    join(threads)
    assert topic.durable_offset == 3


def test_an_interrupted_leader_hands_over(make_group):
    topic = Topic()
    disk = Disk(topic)
    group = make_group(disk.sync)
    topic.written = 5
    threads: list[threading.Thread] = []

    def sync(_topic: object, _offset: int) -> None:
        if not threads:
            threads.extend(
                start(*[lambda offset=offset: group.wait(topic, offset) for offset in range(1, 6)])
            )
            wait_until(lambda: group.waiting == 5)
            raise KeyboardInterrupt
        topic.durable_offset = 5

    group = make_group(sync)
    with pytest.raises(KeyboardInterrupt):
        group.wait(topic, 5)
    join(threads)
    assert group.waiting == 0


def test_many_threads_wait_for_what_they_wrote(make_group):
    topic = Topic()
    disk = Disk(topic)
    disk.is_held = False
    group = make_group(disk.sync)
    lock = threading.Lock()

    def work() -> None:
        for _ in range(200):
            with lock:
                topic.written += 1
                offset = topic.written
            group.wait(topic, offset)
            assert topic.durable_offset >= offset

    run_threads([work] * 16, seconds=60)
    assert topic.durable_offset == 3200 and group.waiting == 0


def test_whoever_waits_for_it_to_be_idle_syncs_nothing_and_lets_the_next_one_lead(make_group):
    topic = Topic()
    disk = Disk(topic)
    group = make_group(disk.sync)
    topic.written = 1
    leader = start(lambda: group.wait(topic, 1))
    assert disk.begun.acquire(timeout=20)
    topic.written = 2
    idle: list[int] = []
    # In this order: who waits for it to be idle is the one that the leader lets go of first.
    others = start(lambda: (group.wait_idle(), idle.append(disk.syncs)))
    time.sleep(0.05)
    others += start(lambda: group.wait(topic, 2))
    time.sleep(0.05)
    assert not idle
    disk.is_held = False
    disk.may_end.release()
    for thread in leader + others:
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert topic.durable_offset == 2 and disk.syncs == 2 and group.waiting == 0
    group.wait_idle()
    assert disk.syncs == 2


def test_a_sync_inside_the_sync_of_the_same_thread_is_refused():
    front = pytest.importorskip("walrus_core._front_c")
    topic = Topic()
    refused: list[ReentrantCallError] = []

    def sync(_topic: object, _offset: int) -> None:
        for call in (group.lead, lambda: group.wait(topic, 1)):
            with pytest.raises(ReentrantCallError) as caught:
                call()
            refused.append(caught.value)
        topic.durable_offset = 1

    group = front.Group(sync)
    group.wait(topic, 1)
    assert len(refused) == 2


def test_two_leaders_hand_over_at_the_same_time():
    """A second one takes the followers away between two looks of the first; both go their ways."""
    group = PureGroup(lambda _topic, _offset: None)

    class Disturbed:
        looks = 0

        @property
        def durable_offset(self) -> int:
            self.looks += 1
            if self.looks == 1:
                group._hand_over()
            return 5

    topic = Disturbed()
    locks = [threading.Lock() for _ in range(3)]
    for lock in locks:
        lock.acquire()
        group._followers.append((topic, 5, lock))
    group._hand_over()
    assert group.waiting == 0 and not any(lock.locked() for lock in locks)
