"""Many threads on one log: dense offsets, every entry once, nothing seen before its time."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from helpers import EACH, LOOSE, NEVER, WHOLE_BLOCK, contents, run_threads, wait_until

from walrus_core import FsyncSchedule, flusher
from walrus_core.errors import ClosedError, OffsetOutOfRangeError, UsageError

BACKGROUND = FsyncSchedule.milliseconds(1)


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Let threads take turns at nearly every byte code, so that races have a chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("schedule", [EACH, NEVER, BACKGROUND])
def test_concurrent_appends_are_dense_and_unduplicated(store, schedule):
    wal = store.open(fsync_schedule=schedule)

    def write(writer: int) -> dict[str, list[int]]:
        offsets: dict[str, list[int]] = {"shared": [], f"own-{writer}": []}
        for number in range(30):
            for topic, mine in offsets.items():
                if number % 5:
                    mine.append(wal.append_for_topic(topic, b"%d %d" % (writer, number) * 50))
                else:
                    mine += wal.batch_append_for_topic(topic, [b"%d %d" % (writer, number) * 50] * 4)
        return offsets

    answers = run_threads([lambda writer=writer: write(writer) for writer in range(5)])
    count = 24 + 6 * 4
    assert sorted(offset for answer in answers for offset in answer["shared"]) == list(range(5 * count))
    shared = contents(wal, "shared")
    for writer, answer in enumerate(answers):
        assert answer["shared"] == sorted(answer["shared"])
        assert answer[f"own-{writer}"] == list(range(count))
        mine = contents(wal, f"own-{writer}")
        assert [shared[offset] for offset in answer["shared"]] == mine
    wal.sync()
    assert all(wal.durable_offset(topic) == wal.next_offset(topic) for topic in wal.topics())
    killed = store.killed().open()
    assert contents(killed, "shared") == shared


@pytest.mark.parametrize("schedule", [NEVER, BACKGROUND])
def test_concurrent_consumers_of_one_cursor_get_each_entry_once(store, schedule):
    wal = store.open(fsync_schedule=schedule, consistency=LOOSE)
    total = 1500
    taken: list[list[int]] = [[] for _ in range(4)]
    done = threading.Event()

    def consume(mine: list[int], in_batches: bool) -> None:
        while True:
            was_done = done.is_set()
            if in_batches:
                found = wal.batch_read_for_topic("t", 500)
            else:
                entry = wal.read_next("t")
                found = [] if entry is None else [entry]
            assert all(entry.data == b"%d" % entry.offset * 30 for entry in found)
            mine.extend(entry.offset for entry in found)
            if was_done and not found:
                return

    def produce() -> None:
        for number in range(total):
            wal.append_for_topic("t", b"%d" % number * 30)
        done.set()

    run_threads(
        [
            produce,
            *(
                lambda mine=mine, place=place: consume(mine, place % 2 == 0)
                for place, mine in enumerate(taken)
            ),
        ]
    )
    assert sorted(offset for mine in taken for offset in mine) == list(range(total))
    assert all(mine == sorted(mine) for mine in taken)
    assert wal.topic_entry_count("t") == 0


def test_strict_consumers_get_each_entry_once(store):
    wal = store.open(fsync_schedule=NEVER)
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(60)])

    def consume() -> list[int]:
        found = []
        while (entry := wal.read_next("t")) is not None:
            found.append(entry.offset)
        return found

    answers = run_threads([consume] * 3)
    assert sorted(offset for answer in answers for offset in answer) == list(range(60))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2])
def test_readers_writers_and_reclaim_beside_each_other(store, seed):
    """Two cursors follow a writer whose blocks are sealed, synced and given back all the time."""
    wal = store.open(fsync_schedule=BACKGROUND, consistency=LOOSE, open_files_max=8)
    end_s = time.monotonic() + 2.5
    written = [1]
    done = threading.Event()

    def payload(number: int) -> bytes:
        return b"%d." % number * (1 + number * 7919 % 700)

    wal.append_for_topic("t", payload(0))
    # A cursor that has never moved does not hold back reclaim.
    wal.seek("t", 0, cursor="other")

    def write() -> None:
        source = random.Random(seed)
        while time.monotonic() < end_s:
            if source.random() < 0.2:
                count = source.choice([2, 30])
                wal.batch_append_for_topic("t", [payload(written[0] + place) for place in range(count)])
                written[0] += count
            else:
                wal.append_for_topic("t", payload(written[0]))
                written[0] += 1
            if source.random() < 0.05:
                wal.append_for_topic(f"side-{source.randrange(5)}", bytes(WHOLE_BLOCK))
        done.set()

    def follow(cursor: str) -> int:
        expected = 0
        while not done.is_set() or expected < written[0]:
            if expected % 3:
                found = wal.batch_read_for_topic("t", 20_000, cursor=cursor)
            else:
                entry = wal.read_next("t", cursor=cursor)
                found = [] if entry is None else [entry]
            for entry in found:
                assert (entry.offset, entry.data) == (expected, payload(expected))
                expected += 1
        return expected

    def look() -> None:
        source = random.Random(-seed)
        while time.monotonic() < end_s:
            offset = source.randrange(written[0] + 1)
            try:
                entries = wal.batch_read_for_topic("t", 3000, start_offset=offset)
            except OffsetOutOfRangeError:
                continue
            assert [entry.offset for entry in entries] == list(range(offset, offset + len(entries)))
            assert all(entry.data == payload(entry.offset) for entry in entries)
            wal.topic_entry_counts()
            assert wal.oldest_offset("t") <= wal.next_offset("t")
            wal.topic_info("t") if wal.next_offset("t") else None

    def sync_and_consume() -> None:
        while time.monotonic() < end_s:
            wal.sync()
            for side in range(5):
                wal.batch_read_for_topic(f"side-{side}", 1 << 20)

    works = [write, lambda: follow("default"), lambda: follow("other"), look, sync_and_consume]
    answers = run_threads(works, seconds=90)
    assert answers[1] == answers[2] == written[0] == wal.next_offset("t")
    assert written[0] > 100
    assert wal.damages == ()
    wal.sync()
    assert wal.oldest_offset("t") > 0, "consumed blocks were given back"
    wal.close()
    again = store.open()
    assert (again.next_offset("t"), again.topic_entry_count("t")) == (written[0], 0)
    assert again.recovery_report.damages == ()


def test_a_reader_never_takes_a_block_that_is_being_sealed_for_damaged(memory_store):
    wal = memory_store.open(fsync_schedule=EACH)
    stop = threading.Event()

    def read() -> int:
        """Read everything again and again, the last time after the last append."""
        while True:
            is_last, count = stop.is_set(), 0
            for entry in wal.topic("t"):
                assert entry.data == b"%d" % entry.offset * 3000
                count += 1
            if is_last:
                return count

    def write() -> None:
        for number in range(60):
            wal.append_for_topic("t", b"%d" % number * 3000)
        stop.set()

    answers = run_threads([write, read, read])
    assert answers[1:] == [60, 60]
    assert wal.damages == ()


def test_many_topics_made_at_once(store):
    wal = store.open(fsync_schedule=NEVER)
    barrier = threading.Barrier(6)

    def make() -> list[int]:
        barrier.wait()
        return [wal.append_for_topic(f"t{number}", b"x") for number in range(25)]

    answers = run_threads([make] * 6)
    assert sorted(zip(*answers, strict=True).__next__()) == list(range(6))
    assert all(sorted(offsets) == list(range(6)) for offsets in zip(*answers, strict=True))
    assert len(wal.topics()) == 25
    wal.close()
    assert store.open().topic_entry_counts() == {f"t{number}": 6 for number in range(25)}


def test_few_open_files_are_enough(file_store):
    wal = file_store.open(fsync_schedule=NEVER, open_files_max=8, blocks_per_segment=2)

    def write(writer: int) -> None:
        for number in range(20):
            wal.append_for_topic(f"t{writer}", b"%d" % number * 4000)

    run_threads([lambda writer=writer: write(writer) for writer in range(6)])
    assert len(file_store.names(".wal")) > 12
    for writer in range(6):
        assert contents(wal, f"t{writer}") == [b"%d" % number * 4000 for number in range(20)]


def test_closing_in_the_middle_of_everything(store):
    for turn in range(5):
        wal = store.open(fsync_schedule=[EACH, BACKGROUND][turn % 2])
        start = wal.next_offset("t")
        acknowledged = [0]

        def write(wal=wal, acknowledged=acknowledged) -> None:
            try:
                while True:
                    wal.append_for_topic("t", b"x" * 700)
                    acknowledged[0] += 1
            except ClosedError:
                return

        def read(wal=wal) -> None:
            try:
                while True:
                    wal.read_next("t")
                    wal.batch_read_for_topic("t", checkpoint=False)
            except ClosedError:
                return

        def close(wal=wal, acknowledged=acknowledged) -> None:
            wait_until(lambda: acknowledged[0] > 15)
            wal.close()

        run_threads([write, read, close])
        again = store.open()
        assert again.next_offset("t") >= start + acknowledged[0]
        assert again.recovery_report.damages == ()
        again.close()


def test_errors_are_per_call_and_not_sticky(memory_store):
    wal = memory_store.open()
    wal.append_for_topic("t", b"a")

    def misuse() -> int:
        count = 0
        for _ in range(50):
            for call in (lambda: wal.append_for_topic("t", "text"), lambda: wal.batch_read_for_topic("t", 0)):
                with pytest.raises(UsageError):
                    call()
                count += 1
        return count

    def use() -> None:
        for _ in range(50):
            wal.append_for_topic("t", b"b")

    assert run_threads([misuse, use, misuse, use])[0] == 100
    assert wal.next_offset("t") == 101


@pytest.mark.parametrize("how", [RuntimeError("can't start new thread"), KeyboardInterrupt()])
def test_a_background_thread_that_could_not_be_started_is_started_later(
    memory_store, monkeypatch, how, caplog
):
    """What was appended meanwhile is synced then, and no call fails for want of the thread."""
    start, struck = flusher._thread.start_new_thread, []

    def fail_first(*arguments):
        if len(struck) < 3:
            struck.append(arguments)
            raise how
        return start(*arguments)

    monkeypatch.setattr(flusher._thread, "start_new_thread", fail_first)
    wal = memory_store.open(fsync_schedule=BACKGROUND)
    for number in range(20):
        if isinstance(how, RuntimeError):
            wal.append_for_topic("t", b"%d" % number)
        else:
            with contextlib.suppress(KeyboardInterrupt):
                wal.append_for_topic("t", b"%d" % number)
    assert len(struck) == 3
    wait_until(lambda: wal.durable_offset("t") == wal.next_offset("t"))
    assert wal.next_offset("t") == (20 if isinstance(how, RuntimeError) else 17)
    warned = [message for message in caplog.messages if "background thread" in message]
    assert len(warned) == isinstance(how, RuntimeError)


def test_a_length_is_never_below_zero_beside_a_consumer(memory_store, monkeypatch):
    """Whatever is appended and given back between the two looks."""
    wal = memory_store.open(fsync_schedule=NEVER)
    handle = wal.topic("t")
    wal.append_for_topic("t", b"0" * WHOLE_BLOCK)
    next_offset, oldest_offset = wal.next_offset, wal.oldest_offset

    def turn_over():
        for _ in range(4):
            wal.append_for_topic("t", b"1" * WHOLE_BLOCK)
        wal.batch_read_for_topic("t", 1 << 30)
        wal.sync()

    def then(look):
        def looked(topic):
            found = look(topic)
            monkeypatch.undo()
            turn_over()
            return found

        return looked

    for name, look in (("next_offset", next_offset), ("oldest_offset", oldest_offset)):
        monkeypatch.setattr(type(wal), name, lambda _wal, topic, look=look: then(look)(topic))
        assert len(handle) >= 0
