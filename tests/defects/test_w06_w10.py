"""Rows W6 to W10 of the defects known of the original: each scenario, run against this engine."""

from __future__ import annotations

import _thread
import errno
import threading

import pytest
from helpers import LOOSE, NEVER, WHOLE_BLOCK, contents, wait_until

from walrus_core import FsyncSchedule, Walrus
from walrus_core.errors import (
    BatchTooLargeError,
    InvalidTopicError,
    PoisonedError,
    SyncFailedError,
    WalrusError,
)
from walrus_core.testing import FaultyBackend


def consume_in_batches(wal: Walrus, topic: str, max_bytes: int, **options) -> list[int]:
    """Consume everything through batch reads; return the offsets."""
    found: list[int] = []
    while entries := wal.batch_read_for_topic(topic, max_bytes, **options):
        found.extend(entry.offset for entry in entries)
    return found


# --- W6 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [1, 99, 100, 250, 10_000, 13_000, 1 << 20])
def test_w06_batch_read_under_a_budget_skips_nothing(memory_store, max_bytes):
    """The original, at the end of its budget in a sealed block, went on in the active one."""
    wal = memory_store.open(fsync_schedule=NEVER, consistency=LOOSE)
    for start in range(0, 1200, 300):
        wal.batch_append_for_topic("t", [b"%0100d" % number for number in range(start, start + 300)])
    assert wal.topic_info("t").block_count > 10
    assert consume_in_batches(wal, "t", max_bytes) == list(range(1200))
    assert wal.topic_entry_count("t") == 0


def test_w06_on_every_backend(store):
    wal = store.open(fsync_schedule=NEVER, consistency=LOOSE)
    wal.batch_append_for_topic("t", [b"%0100d" % number for number in range(1000)])
    assert consume_in_batches(wal, "t", 1000) == list(range(1000))
    first = wal.batch_read_for_topic("t", 1000, start_offset=990)
    assert [entry.offset for entry in first] == list(range(990, 1000))


# --- W7 -------------------------------------------------------------------------------------


def test_w07_peek_then_commit_deletes_nothing_unread(store):
    wal = store.open(fsync_schedule=NEVER)
    payloads = [bytes([number]) * WHOLE_BLOCK for number in range(101)]
    for payload in payloads:
        wal.append_for_topic("t", payload)
    for number in range(60):
        assert [entry.offset for entry in wal.batch_read_for_topic("t", 1, checkpoint=False)] == [number]
        assert [entry.offset for entry in wal.batch_read_for_topic("t", 1, checkpoint=True)] == [number]
    assert wal.topic_entry_count("t") == 41
    wal.sync()
    wal.close()
    again = store.open()
    assert [entry.data for entry in again.batch_read_for_topic("t", 1 << 21)] == payloads[60:]


def test_w07_peeking_gives_nothing_back(store):
    wal = store.open(fsync_schedule=NEVER)
    for topic in range(10):
        wal.append_for_topic(f"t{topic}", bytes(WHOLE_BLOCK))
    for _ in range(100):
        assert wal.read_next("t0", checkpoint=False).offset == 0
        assert len(wal.batch_read_for_topic("t0", checkpoint=False)) == 1
    wal.sync()
    for topic in range(10):
        assert wal.read_next(f"t{topic}").data == bytes(WHOLE_BLOCK)


# --- W8 -------------------------------------------------------------------------------------


def others(wal: Walrus) -> list[bytes]:
    """Append to another topic, acknowledged by a sync."""
    for number in range(5):
        wal.append_for_topic("other", b"other-%d" % number)
    wal.sync()
    return [b"other-%d" % number for number in range(5)]


def check_survives(store, expected: dict[str, list[bytes]]) -> None:
    """The topics are there after a kill and after a close."""
    for state in (store.killed(), store):
        if state is store:
            store.close()
        wal = state.open()
        assert wal.topics() == sorted(expected)
        assert wal.recovery_report.damages == ()
        assert {topic: contents(wal, topic) for topic in expected} == expected


def test_w08_a_first_entry_larger_than_a_block(store):
    wal = store.open()
    wal.append_for_topic("big", b"x" * 30_000)
    check_survives(store, {"big": [b"x" * 30_000], "other": others(wal)})


def test_w08_b_rejected_append_as_first_use_of_a_topic(store):
    wal = store.open()
    with pytest.raises(InvalidTopicError):
        wal.append_for_topic("n" * 1025, b"x")
    with pytest.raises(InvalidTopicError):
        wal.append_for_topic("", b"x")
    check_survives(store, {"other": others(wal)})


def test_w08_c_empty_or_rejected_batch_as_first_use_of_a_topic(store):
    wal = store.open()
    assert wal.batch_append_for_topic("empty", []) == range(0, 0)
    with pytest.raises(BatchTooLargeError):
        wal.batch_append_for_topic("rejected", [b"x"] * 2001)
    assert store.names(".wal") == []
    check_survives(store, {"other": others(wal)})


def test_w08_d_entry_of_zeros_over_several_blocks(store):
    wal = store.open()
    wal.append_for_topic("zeros", bytes(40_000))
    check_survives(store, {"zeros": [bytes(40_000)], "other": others(wal)})


def test_w08_a_free_unit_in_front_of_others_hides_nothing(store):
    """What the four cases come down to: recovery must look behind a unit that holds nothing."""
    wal = store.open()
    for number in range(3):
        wal.append_for_topic("consumed", b"%d" % number * WHOLE_BLOCK)
    expected = {"other": others(wal)}
    for _ in range(3):
        wal.read_next("consumed")
    wal.sync()
    expected["consumed"] = [b"2" * WHOLE_BLOCK]
    name = store.names(".wal")[0]
    page_at = store.find(b"other-0")[1] // 4096 * 4096 - 4096
    assert not any(store.read_file(name)[65536 : 65536 + 100]), "the first block has been given back"
    assert page_at > 65536
    check_survives(store, expected)


# --- W9 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_bytes", [216, 217, 1023, 1024])
def test_w09_long_topic_names_work_in_appends_and_batches(store, length_bytes):
    topic = "é" * (length_bytes // 2) + "x" * (length_bytes % 2)
    wal = store.open()
    assert list(wal.batch_append_for_topic(topic, [b"a", b"b"])) == [0, 1]
    assert wal.append_for_topic(topic, b"c") == 2
    assert contents(store.killed().open(), topic) == [b"a", b"b", b"c"]


def test_w09_a_name_over_the_limit_is_refused_and_holds_no_lock(store):
    wal = store.open()
    for topic in ("x" * 1025, "é" * 513):
        with pytest.raises(InvalidTopicError):
            wal.batch_append_for_topic(topic, [b"a"])
        with pytest.raises(InvalidTopicError):
            wal.append_for_topic(topic, b"a")
    done = []
    thread = threading.Thread(target=lambda: done.append(wal.append_for_topic("t", b"a")))
    thread.start()
    thread.join(10)
    assert done == [0]
    assert wal.topics() == ["t"]


# --- W10 ------------------------------------------------------------------------------------


WITHOUT_RING = """
import time
if arguments[1] == "no binding":
    # As where liburing is not installed, or refuses to work under the policy of a container.
    sys.modules["liburing"] = None
synced = []
for name in ("fdatasync", "fsync"):
    if hasattr(os, name):
        real = getattr(os, name)
        setattr(os, name, lambda descriptor, real=real: (synced.append(descriptor), real(descriptor)))
from walrus_core import FsyncSchedule, Walrus
from walrus_fd.backend import FdBackend

backend = FdBackend(io_uring="off" if arguments[1] == "off" else "auto")
assert "live" not in str(backend.probe()["io_uring"])
options = dict(block_size=16384, blocks_per_segment=4, fsync_schedule=FsyncSchedule.milliseconds(5))
with Walrus(arguments[0], backend=backend, **options) as wal:
    for number in range(20):
        for topic in range(8):
            wal.append_for_topic(f"t{topic}", b"%d" % (number % 10) * 1000)
    before = len(synced)
    wal.sync()
    assert len(synced) > before
    assert all(wal.durable_offset(f"t{topic}") == 20 for topic in range(8))
    wal.append_for_topic("t0", b"later")
    end_s = time.monotonic() + 20
    while wal.durable_offset("t0") < 21:
        assert time.monotonic() < end_s, "nothing syncs in the background"
        time.sleep(0.005)
    names = set(name for name in os.listdir(arguments[0]) if name.endswith(".wal"))
    for topic in range(8):
        assert len(wal.batch_read_for_topic(f"t{topic}")) >= 20
    wal.sync()
    left = set(name for name in os.listdir(arguments[0]) if name.endswith(".wal"))
    assert left < names, "consumed segments are not given back"
"""


@pytest.mark.parametrize("reason", ["off", "no binding"])
def test_w10_without_io_uring_everything_is_still_synced(reason, tmp_path, file_kind, run_child):
    file_kind("fd")
    run_child(WITHOUT_RING, tmp_path / "log", reason)


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "input/output error"), RuntimeError("a defect of a backend")]
)
def test_w10_a_failure_in_the_background_is_not_silent(memory_store, error, caplog):
    backend = FaultyBackend(memory_store.backend())
    wal = memory_store.open(backend=backend, fsync_schedule=FsyncSchedule.milliseconds(1))
    wal.append_for_topic("t", b"a")
    wait_until(lambda: wal.durable_offset("t") == 1)

    def fail() -> None:
        raise error

    backend.during("sync", fail)
    wal.append_for_topic("t", b"b")

    def is_poisoned() -> bool:
        try:
            wal.append_for_topic("t", b"c")
        except PoisonedError:
            return True
        return False

    wait_until(is_poisoned)
    assert wal.durable_offset("t") == 1
    # Said right after writes are refused, by the thread that failed.
    wait_until(lambda: "poisoned" in caplog.text)
    with pytest.raises((SyncFailedError, PoisonedError)):
        wal.sync()


def test_w10_nothing_in_the_background_may_be_needed_for_an_answer(memory_store):
    """Where no thread can be started, the caller learns it or goes on; it never waits for ever."""
    threads = _thread._count()
    wal = memory_store.open(fsync_schedule=FsyncSchedule.sync_each())
    assert wal.append_for_topic("t", b"a") == 0
    assert wal.durable_offset("t") == 1
    assert _thread._count() == threads
    with pytest.raises(WalrusError):
        wal.seek("t", 5)
