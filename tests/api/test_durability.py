"""What is durable when: schedules, sync, checkpoints, clean marks; power is cut after every step."""

from __future__ import annotations

import os
import threading
import time

import pytest
from helpers import EACH, LOOSE, NEVER, WHOLE_BLOCK, contents, run_threads, wait_until, with_faults

from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core.errors import OffsetOutOfRangeError
from walrus_core.flusher import Flusher
from walrus_core.memory import MemoryBackend
from walrus_core.topic import UNSEALED_MAX

RARELY = FsyncSchedule.milliseconds(3_600_000)


def after_power_cut(store, backend) -> Walrus:
    """Open what syncs had covered, and nothing else."""
    return Walrus(store.path, backend=MemoryBackend(store=backend.synced_store()))


# --- schedules -----------------------------------------------------------------------------------


def test_sync_each_is_durable_on_return(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    expected = {"t": [], "u": []}
    for number in range(12):
        topic = "tu"[number % 2]
        if number % 3:
            wal.append_for_topic(topic, b"%d" % number * 2000)
            expected[topic].append(b"%d" % number * 2000)
        else:
            batch = [b"%d-%d" % (number, place) * 900 for place in range(8)]
            wal.batch_append_for_topic(topic, batch)
            expected[topic] += batch
        assert wal.durable_offset(topic) == wal.next_offset(topic)
        with after_power_cut(memory_store, backend) as after:
            assert {name: contents(after, name) for name in after.topics()} == {
                name: found for name, found in expected.items() if found
            }
            assert after.recovery_report.damages == ()


def test_an_interval_makes_durable_in_the_background(store):
    wal = store.open(fsync_schedule=FsyncSchedule.milliseconds(5))
    for number in range(10):
        wal.append_for_topic("t", bytes([number]) * 3000)
        wal.append_for_topic("u", b"x")
    wait_until(lambda: wal.durable_offset("t") == 10 and wal.durable_offset("u") == 10)
    wal.append_for_topic("t", b"later")
    wait_until(lambda: wal.durable_offset("t") == 11)


def test_nothing_is_synced_while_nothing_is_dirty(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=FsyncSchedule.milliseconds(1))
    wal.append_for_topic("t", b"a")
    wait_until(lambda: wal.durable_offset("t") == 1)
    wait_until(lambda: wal._engine.syncer.is_idle)
    backend.reset()
    time.sleep(0.1)
    assert (backend.calls["sync"], backend.calls["write"]) == (0, 0)


@pytest.mark.parametrize("schedule", [NEVER, RARELY])
def test_without_a_sync_nothing_is_promised_and_durable_offset_says_so(memory_store, schedule):
    wal, backend = with_faults(memory_store, fsync_schedule=schedule)
    wal.append_for_topic("t", b"a")
    assert (wal.next_offset("t"), wal.durable_offset("t")) == (1, 0)
    with after_power_cut(memory_store, backend) as after:
        assert after.next_offset("t") == 0
    assert memory_store.killed().open().next_offset("t") == 1
    wal.sync()
    assert wal.durable_offset("t") == 1
    with after_power_cut(memory_store, backend) as after:
        assert contents(after, "t") == [b"a"]


def test_never_syncs_full_blocks_in_the_background(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    for number in range(UNSEALED_MAX + 2):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wait_until(lambda: wal.durable_offset("t") > UNSEALED_MAX)
    with after_power_cut(memory_store, backend) as after:
        assert after.next_offset("t") > UNSEALED_MAX


@pytest.mark.parametrize("schedule", [NEVER, RARELY])
def test_entries_below_durable_offset_survive_a_power_cut_at_any_moment(memory_store, schedule):
    wal, backend = with_faults(memory_store, fsync_schedule=schedule)
    payloads = {"t": [], "u": []}
    for number in range(40):
        topic = "tu"[number % 3 == 0]
        payloads[topic].append(b"%d" % number * (number * 113 % 3000))
        wal.append_for_topic(topic, payloads[topic][-1])
        if number % 7 == 6:
            wal.sync()
        durable = {name: wal.durable_offset(name) for name in payloads}
        with after_power_cut(memory_store, backend) as after:
            for name, found in payloads.items():
                kept = contents(after, name)
                assert durable[name] <= len(kept)
                assert kept == found[: len(kept)]
            assert after.recovery_report.damages == ()


def test_after_open_everything_found_is_durable(store):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(5):
        wal.append_for_topic("t", b"%d" % number * 4000)
    again = store.killed().open(fsync_schedule=NEVER)
    assert again.durable_offset("t") == again.next_offset("t") == 5
    again.append_for_topic("t", b"more")
    assert again.durable_offset("t") == 5


def test_what_recovery_found_survives_a_power_cut_right_after_it(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    for number in range(5):
        wal.append_for_topic("t", b"%d" % number * 4000)
    killed = memory_store.killed()
    again, backend = with_faults(killed, fsync_schedule=NEVER)
    with after_power_cut(killed, backend) as after:
        assert contents(after, "t") == [b"%d" % number * 4000 for number in range(5)]
    assert again.next_offset("t") == 5


@pytest.mark.skipif(not hasattr(os, "O_DSYNC"), reason="this system has no flag for durable writes")
def test_durable_writes_are_durable_without_a_sync(make_store):
    store = make_store("fd")
    wal = store.open(fsync_schedule=EACH, durable_writes=True)
    for number in range(10):
        wal.append_for_topic("t", bytes([number]) * 3000)
        assert wal.durable_offset("t") == number + 1
    wal.batch_append_for_topic("t", [bytes(5000)] * 6)
    assert wal.durable_offset("t") == 16
    assert len(contents(wal, "t")) == 16
    killed = store.killed().open()
    assert killed.next_offset("t") == 16
    wal.close()
    assert len(contents(store.open(), "t")) == 16


def test_entries_wait_for_the_interval_and_one_sync_at_most(memory_store):
    """Also those that come just after a slow sync began: the interval runs from there on."""
    interval_s, sync_s = 0.2, 0.15
    wal, backend = with_faults(memory_store, fsync_schedule=FsyncSchedule.milliseconds(200))
    wal.append_for_topic("t", b"first")
    backend.during("sync", lambda: time.sleep(sync_s), suffix=".wal", times=None)
    appended_s, late_s = [], [0.0]
    oldest_s = 0.0
    end_s = time.monotonic() + 1.5

    def sleeper() -> None:
        """How late a thread wakes here: the background thread wakes as late, twice for each sync."""
        while (started_s := time.monotonic()) < end_s:
            time.sleep(0.01)
            late_s[0] = max(late_s[0], time.monotonic() - started_s - 0.01)

    thread = threading.Thread(target=sleeper)
    thread.start()
    while (now_s := time.monotonic()) < end_s:
        appended_s.append(now_s)
        wal.append_for_topic("t", b"next")
        durable = wal.durable_offset("t")
        if durable <= wal.next_offset("t") - 1:
            oldest_s = max(oldest_s, time.monotonic() - appended_s[max(0, durable - 1)])
        time.sleep(0.002)
    thread.join()
    assert wal.durable_offset("t") > 100
    assert oldest_s > interval_s, "the sync is too fast for this test"
    assert oldest_s < interval_s + sync_s + 0.1 + 3 * late_s[0], (
        f"{oldest_s:.3f} s, threads {late_s[0]:.3f} late"
    )


# --- group commit -----------------------------------------------------------------------------------


def test_those_who_wait_share_a_sync(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    wal.append_for_topic("t", b"a")
    backend.reset()

    def write() -> None:
        for _ in range(25):
            wal.append_for_topic("t", b"x")

    # A sync that takes a while, as on a disk: the others queue up behind it.
    backend.during("sync", lambda: time.sleep(0.002), times=None)
    run_threads([write] * 8)
    assert wal.next_offset("t") == 201
    assert wal.durable_offset("t") == 201
    assert backend.calls["sync"] < 150
    with after_power_cut(memory_store, backend) as after:
        assert after.next_offset("t") == 201


def test_an_acknowledged_entry_has_no_gap_below_it(memory_store):
    """A topic over two segments: an acknowledgement waits for both files."""
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)

    def write(writer: int) -> None:
        for number in range(12):
            wal.append_for_topic("t", b"%d-%d" % (writer, number) * 1500)
            with after_power_cut(memory_store, backend) as after:
                assert after.recovery_report.damages == ()
                assert b"%d-%d" % (writer, number) * 1500 in contents(after, "t")

    run_threads([lambda writer=writer: write(writer) for writer in range(3)])
    assert wal.next_offset("t") == 36


# --- checkpoints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [NEVER, RARELY, EACH])
def test_a_strict_checkpoint_is_durable_on_return_and_never_before_its_entry(memory_store, schedule):
    wal, backend = with_faults(memory_store, fsync_schedule=schedule)
    for number in range(8):
        wal.append_for_topic("t", b"%d" % number * 2500)
    for number in range(8):
        assert wal.read_next("t").offset == number
        with after_power_cut(memory_store, backend) as after:
            assert after.cursor_offset("t") == number + 1
            assert after.next_offset("t") >= number + 1
            assert after.recovery_report.clamped_cursors == ()


def test_a_cursor_never_points_past_the_log_at_any_crash_point(memory_store):
    wal, backend = with_faults(
        memory_store, fsync_schedule=NEVER, consistency=ReadConsistency.at_least_once(3)
    )
    images = []
    for operation in ("write", "sync"):
        backend.during(operation, lambda: images.append(backend.synced_store()), times=None)
    for number in range(30):
        wal.append_for_topic("t", b"%d" % number * 700)
        if number % 4 == 3:
            wal.batch_read_for_topic("t", max_entries=3)
    wal.close()
    for image in images:
        with Walrus(memory_store.path, backend=MemoryBackend(store=image)) as after:
            assert after.recovery_report.clamped_cursors == ()
            assert after.recovery_report.damages == ()
            assert after.cursor_offset("t") <= after.next_offset("t")


@pytest.mark.parametrize("cursor", ["default", "other"])
def test_a_seek_is_durable_on_return(memory_store, cursor):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.batch_append_for_topic("t", [b"x"] * 10)
    for offset in (7, 3, 10, 0):
        wal.seek("t", offset, cursor)
        with after_power_cut(memory_store, backend) as after:
            assert after.cursor_offset("t", cursor) == offset


# --- reclaim ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("comes", ["a new cursor", "a seek back"])
def test_blocks_are_not_given_back_under_a_cursor_that_comes_meanwhile(memory_store, monkeypatch, comes):
    """Between the decision to give blocks back and the deed lies a sync: time for a cursor to come."""
    # Else the background thread may have given back before anybody can come.
    monkeypatch.setattr(Flusher, "wake", lambda _self: None)
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    for number in range(6):
        wal.append_for_topic("t", b"%d" % number * 4000)
    wal.sync()
    read = []
    cursor = "late" if comes == "a new cursor" else "default"

    def come() -> None:
        try:
            if comes == "a seek back":
                wal.seek("t", 0)
        except OffsetOutOfRangeError:
            # It came too late, and is told so.
            wal.seek("t", wal.oldest_offset("t"))
        read.append(wal.read_next("t", cursor=cursor).offset)

    threads = [threading.Thread(target=come)]

    def meanwhile() -> None:
        threads[0].start()
        threads[0].join(0.2)

    for _ in range(6):
        wal.read_next("t")
    backend.during("sync", meanwhile, suffix="cursors.db", times=1)
    wal.sync()
    assert threads[0].ident, "nothing was given back"
    threads[0].join()
    wal.sync()
    with after_power_cut(memory_store, backend) as after:
        assert after.cursor_offset("t", cursor) == wal.cursor_offset("t", cursor)
    while (entry := wal.read_next("t", cursor=cursor)) is not None:
        read.append(entry.offset)
    assert read == list(range(read[0], 6)), "unread entries were skipped"


def test_nothing_given_back_is_missed_after_a_power_cut(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    images = []
    for operation in ("write", "sync", "discard", "remove", "sync_dir"):
        backend.during(operation, lambda: images.append(backend.synced_store()), times=None)
    for number in range(14):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
        if number % 2:
            wal.read_next("t")
            wal.sync()
    wal.close()
    assert wal.is_closed
    for image in images:
        with Walrus(memory_store.path, backend=MemoryBackend(store=image)) as after:
            assert after.recovery_report.damages == ()
            cursor = after.cursor_offset("t")
            entries = after.batch_read_for_topic("t", 1 << 20, checkpoint=False)
            assert [entry.offset for entry in entries] == list(range(cursor, after.next_offset("t")))
            assert all(entry.data == bytes([entry.offset]) * WHOLE_BLOCK for entry in entries)


def test_a_block_of_several_slots_is_wiped_without_a_trace_of_damage(memory_store):
    """Killed inside the wipe: what lies where later slots begin is payload, and looks like nothing."""
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"\xff" * 40_000)
    wal.append_for_topic("t", b"next" * 3000)
    wal.sync()
    killed = []
    for operation in ("write", "sync", "discard"):
        backend.during(operation, lambda: killed.append(memory_store.killed()), times=None)
    wal.read_next("t")
    wal.sync()
    assert wal.oldest_offset("t") == 1 and backend.calls["discard"], "nothing was given back"
    wal.close()
    for store in killed:
        with store.open() as after:
            assert after.recovery_report.damages == ()
            assert contents(after, "t")[-1] == b"next" * 3000


def test_slots_are_leased_again_and_old_bytes_never_come_back(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER, consistency=LOOSE)
    wal.append_for_topic("idle", b"keeps the first segment")
    for number in range(40):
        wal.append_for_topic("t", b"%03d" % number * 4000)
        wal.read_next("t")
        wal.sync()
    assert len(memory_store.names(".wal")) <= 2
    again = memory_store.killed().open()
    assert contents(again, "t") == [b"039" * 4000]
    assert again.next_offset("t") == 40
    assert backend.calls["discard"] > 20
