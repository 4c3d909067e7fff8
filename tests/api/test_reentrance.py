"""Calls that come while the same thread is inside the log, and exceptions that break into it.

A signal handler or a finaliser may call the log at any moment of another call; an interrupt may
end one at any moment. Both are made to happen inside every call of the backend, one by one.
"""

from __future__ import annotations

import gc
import os
import threading

import pytest
from helpers import EACH, NEVER, WHOLE_BLOCK, contents

from walrus_core import FsyncSchedule, Walrus, hot
from walrus_core.allocator import Allocator
from walrus_core.errors import ClosedError, ReentrantCallError
from walrus_core.files import LogFile
from walrus_core.flusher import Flusher
from walrus_core.testing import FaultyBackend

SWEEP = os.environ.get("WALRUS_SWEEP") == "all"
"""With WALRUS_SWEEP=all every call inside every other is tried, at every place: some minutes."""
STEP = 3 if SWEEP else 9 if hot.COMPILED else 21
BACKGROUND = FsyncSchedule.milliseconds(1)
PLACES_MAX = 120

OUTER = {
    "append": lambda wal: wal.append_for_topic("t", b"outer"),
    "append to a new topic": lambda wal: wal.append_for_topic("new", b"outer"),
    "append into a new block": lambda wal: wal.append_for_topic("t", b"outer" * 2300),
    "batch": lambda wal: wal.batch_append_for_topic("t", [b"outer"] * 3),
    "batch over blocks": lambda wal: wal.batch_append_for_topic("t", [b"outer" * 1500] * 9),
    "read_next": lambda wal: wal.read_next("t"),
    "batch_read": lambda wal: wal.batch_read_for_topic("t"),
    "first read of a cursor": lambda wal: wal.read_next("t", cursor="another"),
    "sync": lambda wal: wal.sync(),
    "seek": lambda wal: wal.seek("t", 3),
    "mark clean": lambda wal: wal.mark_topic_clean("t"),
    "close": lambda wal: wal.close(),
}
INNER = {
    "append": lambda wal: wal.append_for_topic("t", b"inner"),
    "append elsewhere": lambda wal: wal.append_for_topic("elsewhere", b"inner"),
    "append large": lambda wal: wal.append_for_topic("t", b"inner" * 2300),
    "batch": lambda wal: wal.batch_append_for_topic("t", [b"inner" * 1500] * 9),
    "read_next": lambda wal: wal.read_next("t"),
    "peek": lambda wal: wal.read_next("t", checkpoint=False),
    "batch_read": lambda wal: wal.batch_read_for_topic("t"),
    "iterate": lambda wal: list(wal.topic("t")),
    "sync": lambda wal: wal.sync(),
    "seek": lambda wal: wal.seek("t", 2),
    "mark clean": lambda wal: wal.mark_topic_clean("t"),
    "facts": lambda wal: (
        wal.topics(),
        wal.topic_entry_counts(),
        wal.topic_info("t"),
        wal.durable_offset("t"),
    ),
    "close": lambda wal: wal.close(),
}

USUAL = {
    *("append into a new block", "batch over blocks", "first read of a cursor", "sync", "close"),
    *("append", "batch_read", "peek", "seek"),
}


def tried(calls) -> list[str]:
    """Return the names of the calls that are tried in this run."""
    return [name for name in calls if SWEEP or name in USUAL]


def start(store, schedule) -> tuple[Walrus, FaultyBackend]:
    """Open a new log with some entries, part of them consumed and ready to be given back."""
    store._memory.files.clear()
    backend = FaultyBackend(store.backend())
    wal = Walrus(store.path, backend=backend, fsync_schedule=schedule, block_size=16384, blocks_per_segment=4)
    wal.append_for_topic("u", b"u")
    for number in range(4):
        wal.append_for_topic("t", b"%d" % number * (WHOLE_BLOCK if number < 2 else 10))
    wal.batch_read_for_topic("t", 2 * WHOLE_BLOCK)
    return wal, backend


def check_after(store, wal: Walrus, backend: FaultyBackend) -> None:
    """The log works or is closed; what is in it is whole, in order, and found again."""
    backend.rules.clear()
    if not wal.is_closed:
        wal.sync()
        check_contents(wal)
        end = wal.next_offset("t")
        assert wal.append_for_topic("t", b"after") == end
        assert wal.batch_read_for_topic("t", 1 << 20, start_offset=end)[0].data == b"after"
        wal.read_next("t")
        wal.sync()
        wal.close()
    assert backend.open_files == set()
    with Walrus(store.path, backend=backend) as again:
        check_contents(again)
        assert again.recovery_report.damages == ()
        assert again.append_for_topic("t", b"again") == again.next_offset("t") - 1


def check_contents(wal: Walrus) -> None:
    entries = list(wal.topic("t"))
    assert [entry.offset for entry in entries] == list(range(wal.oldest_offset("t"), wal.next_offset("t")))
    for part in (b"outer", b"inner"):
        batch = [entry.offset for entry in entries if entry.data == part * 1500]
        # Its first blocks may have been consumed and given back.
        assert len(batch) in (0, 9) or batch[0] == wal.oldest_offset("t"), (
            "a batch is there whole or not at all"
        )
    assert [entry.data for entry in entries].count(b"outer") in (0, 1, 3)
    assert contents(wal, "u") == [b"u"]


@pytest.mark.parametrize("inner", tried(INNER))
@pytest.mark.parametrize("outer", tried(OUTER))
def test_a_call_inside_a_call_works_or_is_refused_and_never_hangs(memory_store, outer, inner):
    for first, schedule in enumerate((BACKGROUND, EACH, NEVER)):
        # Other places for each, so that a sweep covers all of them together.
        for place in range(first, PLACES_MAX, STEP):
            wal, backend = start(memory_store, schedule)
            answers: list[object] = []

            def call(wal=wal, answers=answers) -> None:
                try:
                    answers.append(INNER[inner](wal))
                except (ReentrantCallError, ClosedError) as error:
                    answers.append(error)

            countdown = backend.interrupt(place, call)
            try:
                OUTER[outer](wal)
            except ClosedError:
                assert inner == "close"
            backend.countdown = None
            if answers and isinstance(answers[0], ReentrantCallError) and not wal.is_closed:
                wal.sync()
                payloads = [data for topic in wal.topics() for data in contents(wal, topic)]
                assert not any(data.startswith(b"inner") for data in payloads), (
                    "refused, and done all the same"
                )
            check_after(memory_store, wal, backend)
            if not countdown.is_over:
                break
        assert place < PLACES_MAX - STEP, "more calls than places were tried"


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest would take for its own."""


@pytest.mark.parametrize("error", [Interrupted, MemoryError])
@pytest.mark.parametrize("outer", tried(OUTER))
def test_an_interrupt_leaves_the_operation_done_or_not_done(memory_store, outer, error):
    for first, schedule in enumerate((BACKGROUND, EACH, NEVER)):
        for place in range(first, PLACES_MAX, STEP):
            wal, backend = start(memory_store, schedule)
            before = wal.next_offset("t")

            def fail() -> None:
                raise error("break in")

            countdown = backend.interrupt(place, fail)
            try:
                OUTER[outer](wal)
            except error:
                added = {"batch": 3, "batch over blocks": 9}.get(outer, 1)
                assert wal.is_closed or wal.next_offset("t") - before in (0, added)
            backend.countdown = None
            check_after(memory_store, wal, backend)
            if not countdown.is_over:
                break
        assert place < PLACES_MAX - STEP, "more calls than places were tried"


def test_a_block_that_readers_can_find_is_not_wiped(memory_store, monkeypatch):
    """Reclaim is interrupted where it gives slots up, and goes on while somebody reads the topic."""
    # Before the log is opened, which holds on to it: this thread is the one that reclaims.
    monkeypatch.setattr(Flusher, "wake", lambda _self: None)
    wal, _backend = start(memory_store, NEVER)
    give_up = Allocator.give_up

    def give_up_and_fail(self: Allocator, *slots: object) -> None:
        give_up(self, *slots)
        monkeypatch.undo()
        raise Interrupted

    monkeypatch.setattr(Allocator, "give_up", give_up_and_fail)
    with pytest.raises(Interrupted):
        wal.sync()
    entered, left = threading.Event(), threading.Event()

    def read() -> None:
        with wal._engine.topics["t"].read_lock:
            entered.set()
            left.wait(20)

    reader = threading.Thread(target=read)
    reader.start()
    assert entered.wait(20)
    wal._engine.reclaimer.run()
    left.set()
    reader.join()
    check_contents(wal)
    wal.sync()
    assert wal.oldest_offset("t") > 0
    wal.close()


@pytest.mark.parametrize("number", range(3))
def test_a_topic_whose_creation_was_interrupted_keeps_what_comes_later(memory_store, monkeypatch, number):
    """The interrupt comes right behind a write of cursors.db: the page must not get a second owner."""
    wal, _backend = start(memory_store, NEVER)
    write = LogFile.write
    countdown = [number]

    def write_and_fail(file: LogFile, at_bytes: int, data: object) -> None:
        write(file, at_bytes, data)
        if threading.current_thread() is threading.main_thread():
            countdown[0] -= file.path.endswith("cursors.db")
        if countdown[0] < 0:
            monkeypatch.undo()
            raise Interrupted

    monkeypatch.setattr(LogFile, "write", write_and_fail)
    happened = attempt(lambda: wal.append_for_topic("new", b"first"), Interrupted)
    monkeypatch.undo()
    wal.append_for_topic("new", b"second")
    with memory_store.killed().open() as again:
        assert contents(again, "new") == [b"first", b"second"][not happened :]
    wal.close()
    assert happened == (number > 0), "the page's identity is the one write"


@pytest.mark.parametrize("error", [Interrupted, MemoryError])
def test_an_interrupted_open_leaves_nothing_open(memory_store, error):
    wal, backend = start(memory_store, NEVER)
    killed = memory_store.killed()
    wal.close()
    everything = [b"%d" % number * (WHOLE_BLOCK if number < 2 else 10) for number in range(4)]
    for place in range(PLACES_MAX):
        state = killed.killed()
        backend = FaultyBackend(state.backend())

        def fail() -> None:
            raise error("break in")

        countdown = backend.interrupt(place, fail)
        if not attempt(lambda state=state, backend=backend: state.open(backend=backend), error):
            assert backend.open_files == set()
        backend.countdown = None
        state.close()
        again = state.open()
        # What has been consumed may have been given back.
        assert contents(again, "t") in [everything[first:] for first in range(3)]
        assert again.recovery_report.damages == ()
        again.close()
        if not countdown.is_over:
            break
    assert 5 < place < PLACES_MAX - 1


def attempt(call, error) -> bool:
    """Return whether the call came back."""
    try:
        call()
    except error:
        return False
    return True


UNDER_SIGNALS = """
import random, signal, time
from walrus_core import FsyncSchedule, Walrus
from walrus_core.errors import ReentrantCallError
sys.path.insert(0, arguments[2])
import conftest

store = conftest.Store(arguments[1], arguments[0])
wal = store.open(fsync_schedule=FsyncSchedule.milliseconds(1))
source = random.Random(7)
counts = {"worked": 0, "refused": 0}
calls = [
    lambda: wal.append_for_topic("t", b"signal"),
    lambda: wal.batch_append_for_topic("t", [b"signal" * 500] * 5),
    lambda: wal.read_next("t"),
    lambda: wal.read_next("t", checkpoint=False),
    lambda: wal.batch_read_for_topic("t", 1000),
    lambda: wal.sync(),
    lambda: wal.durable_offset("t"),
    lambda: wal.mark_topic_clean("t"),
]

def handle(number, frame):
    try:
        source.choice(calls)()
        counts["worked"] += 1
    except ReentrantCallError:
        counts["refused"] += 1
    # One at a time: the next comes when this one is over.
    signal.setitimer(signal.ITIMER_REAL, source.uniform(0.0005, 0.004))

wal.append_for_topic("t", b"first")
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.003)
end_s = time.monotonic() + 60
own = random.Random(8)
# As many as an idle machine does in two seconds; a busy one takes longer.
while counts["worked"] + counts["refused"] < 600 and time.monotonic() < end_s:
    try:
        own.choice(calls)()
    except ReentrantCallError:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        raise AssertionError("refused outside a handler")
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert counts["worked"] > 50, counts
offsets = [entry.offset for entry in wal.topic("t")]
oldest = wal.oldest_offset("t")  # what was consumed may be given back meanwhile
assert [offset for offset in offsets if offset >= oldest] == list(range(oldest, wal.next_offset("t")))
wal.close()
wal = store.open()
assert wal.recovery_report.damages == ()
entries = list(wal.topic("t"))
assert [entry.offset for entry in entries] == list(range(wal.oldest_offset("t"), wal.next_offset("t")))
store.close()
print(counts)
"""


@pytest.mark.parametrize("kind", ["memory", "fd", "mmap"])
def test_a_log_may_be_called_from_signal_handlers(kind, tmp_path, run_child, make_store):
    make_store(kind)  # Skips here, not in the child, where it is not installed.
    answer = run_child(UNDER_SIGNALS, tmp_path / "log", kind, os.path.join(os.path.dirname(__file__), ".."))
    assert "worked" in answer.stdout


def test_a_finaliser_may_call_the_log(memory_store):
    """Garbage is collected at any allocation, also at one inside the log."""
    wal = memory_store.open(fsync_schedule=NEVER)
    answers = []

    class Last:
        def __del__(self):
            try:
                answers.append(wal.append_for_topic("t", b"last words"))
            except ReentrantCallError:
                answers.append(None)

    for number in range(200):
        last = Last()
        last.itself = last
        del last
        wal.append_for_topic("t", b"%d" % number)
        if number % 10 == 0:
            gc.collect()
    gc.collect()
    assert len(answers) == 200
    assert wal.next_offset("t") == 200 + sum(answer is not None for answer in answers)
