"""Rows W24 to W29 of the defects known of the original: each scenario, run against this engine."""

from __future__ import annotations

import _thread
import errno
import gc
import os
import warnings

import pytest
from helpers import LOOSE, NEVER, WHOLE_BLOCK, contents, read_all, run_threads, wait_until, with_faults

from walrus_core import FsyncSchedule, Walrus
from walrus_core.errors import DiskFullError, StorageError, TooManyFilesError
from walrus_core.format import PAGE_SIZE, SEGMENT_HEADER_SIZE
from walrus_core.memory import MemoryBackend


def open_descriptors() -> dict[str, str]:
    """Return what the descriptors of this process stand for, but for those that nobody has any more."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not list descriptors in /proc/self/fd")
    gc.collect()
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
    return found


# --- W24 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["create", "reserve", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
def test_w24_a_failed_creation_leaves_no_lock_behind(memory_store, operation, number):
    wal, backend = with_faults(memory_store)
    for _ in range(4):
        wal.append_for_topic("t", bytes(WHOLE_BLOCK))
    rule = backend.fail(operation, number=number, suffix=".free")
    expected = DiskFullError if number == errno.ENOSPC else TooManyFilesError
    with pytest.raises(expected):
        wal.append_for_topic("t", bytes(WHOLE_BLOCK))
    assert rule.acted == 1
    assert memory_store.names(".free") == []
    works = [lambda topic=topic: wal.append_for_topic(topic, b"x" * WHOLE_BLOCK) for topic in ("t", "u", "v")]
    assert run_threads(works, seconds=20) == [4, 0, 0]
    assert len(contents(wal, "t")) == 5
    assert contents(memory_store.killed().open(), "u") == [b"x" * WHOLE_BLOCK]


def test_w24_creation_that_fails_for_other_reasons(memory_store):
    wal, backend = with_faults(memory_store)
    wal.append_for_topic("t", b"a")
    backend.fail("create", number=errno.EACCES)
    with pytest.raises(StorageError):
        wal.append_for_topic("t", b"x" * 40_000 + b"y" * 20_000)
    assert run_threads([lambda: wal.append_for_topic("t", b"b")], seconds=20) == [1]
    assert wal.append_for_topic("t", b"x" * 60_000) == 2


# --- W25 ------------------------------------------------------------------------------------


def test_w25_open_and_close_leak_nothing(file_store):
    file_store.open().close()
    threads, descriptors = _thread._count(), open_descriptors()
    for number in range(20):
        wal = file_store.open(fsync_schedule=FsyncSchedule.milliseconds(1))
        wal.append_for_topic("t", b"%d" % number)
        wal.read_next("t")
        wal.close()
        wal.close()
    wait_until(lambda: _thread._count() == threads)
    assert open_descriptors() == descriptors
    assert file_store.names() == ["00000000000000000001.wal", "cursors.db"]


def test_w25_logs_dropped_unclosed_leak_nothing_either(file_store):
    file_store.open().close()
    threads, descriptors = _thread._count(), open_descriptors()
    for number in range(20):
        wal = Walrus(
            file_store.path, backend=file_store.backend(), fsync_schedule=FsyncSchedule.milliseconds(1)
        )
        wal.append_for_topic("t", b"%d" % number)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del wal
            gc.collect()
        assert [warning.category for warning in caught] == [ResourceWarning]
        # A caught warning knows its source, and so keeps the log.
        caught.clear()
    wait_until(lambda: _thread._count() == threads)
    assert open_descriptors() == descriptors
    assert [data for data in contents(file_store.open(), "t")] == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("schedule", [NEVER, FsyncSchedule.milliseconds(60_000), FsyncSchedule.sync_each()])
def test_w25_close_makes_everything_durable(memory_store, schedule):
    wal, backend = with_faults(memory_store, fsync_schedule=schedule, consistency=LOOSE)
    payloads = [bytes([number]) * 3000 for number in range(30)]
    for payload in payloads:
        wal.append_for_topic("t", payload)
    for _ in range(7):
        wal.read_next("t")
    wal.close()
    assert not backend.open_files
    with Walrus(memory_store.path, backend=MemoryBackend(store=backend.synced_store())) as after:
        assert after.recovery_report.scanned_bytes == 0
        assert (after.next_offset("t"), after.cursor_offset("t")) == (30, 7)
        assert contents(after, "t")[-23:] == payloads[7:]


def test_w25_deleted_files_are_closed(file_store):
    wal = file_store.open(fsync_schedule=NEVER)
    for number in range(12):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    assert len(file_store.names(".wal")) == 3
    assert len(read_all(wal, "t")) == 12
    wal.sync()
    assert file_store.names(".wal") == ["00000000000000000003.wal"]
    assert not [
        target
        for target in open_descriptors().values()
        if file_store.path in target and target.endswith(" (deleted)")
    ]
    if os.path.exists("/proc/self/maps"):
        with open("/proc/self/maps") as maps:
            assert not [line for line in maps if file_store.path in line and line.endswith(" (deleted)\n")]


# --- W26 ------------------------------------------------------------------------------------


def test_w26_opening_takes_no_space(store):
    wal = store.open()
    wal.append_for_topic("t", b"a")
    wal.close()
    names = store.names()
    for number in range(20):
        wal = store.open()
        wal.append_for_topic("t", b"%d" % number)
        wal.close()
    assert store.names() == names
    assert store.open().topic_info("t").block_count == 1


def test_w26_reading_unknown_topics_and_opening_empty_logs_makes_no_segment(store):
    for _ in range(5):
        wal = store.open()
        wal.read_next("unknown")
        wal.close()
    assert store.names() == ["cursors.db"]


def test_w26_one_idle_topic_pins_only_its_own_block(store):
    wal = store.open(fsync_schedule=NEVER)
    wal.append_for_topic("idle", b"unread")
    for number in range(80):
        wal.append_for_topic("busy", bytes([number]) * WHOLE_BLOCK)
        assert wal.read_next("busy").offset == number
        if number % 8 == 7:
            wal.sync()
            assert len(store.names(".wal")) <= 4
    wal.sync()
    assert len(store.names(".wal")) <= 2
    wal.close()
    again = store.open()
    assert contents(again, "idle") == [b"unread"]
    again.append_for_topic("busy", b"next")
    assert len(store.names(".wal")) <= 2


def test_w26_the_space_of_consumed_blocks_inside_a_file_is_given_back(file_store):
    wal = file_store.open(fsync_schedule=NEVER, blocks_per_segment=64)
    wal.append_for_topic("idle", b"unread")
    for number in range(50):
        wal.append_for_topic("busy", bytes([number]) * WHOLE_BLOCK)
    wal.sync()
    path = os.path.join(file_store.path, file_store.names(".wal")[0])
    before = os.stat(path).st_blocks * 512
    assert len(read_all(wal, "busy")) == 50
    wal.sync()
    if not wal._engine.backend.capabilities.discard:
        pytest.skip(f"backend {wal.backend_name} cannot give back space here")
    assert os.stat(path).st_blocks * 512 < before - 40 * WHOLE_BLOCK


# --- W27 ------------------------------------------------------------------------------------

LARGE = {"block_size": 1 << 18, "blocks_per_segment": 8}


def test_w27_opening_after_a_close_scans_nothing(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER, **LARGE)
    for _ in range(60):
        wal.append_for_topic("t", bytes(100_000))
    wal.seek("t", 0, "slow")
    wal.batch_read_for_topic("t", 1 << 30)
    wal.close()
    segments = len(memory_store.names(".wal"))
    assert segments >= 3
    wal, backend = with_faults(memory_store, **LARGE)
    assert wal.recovery_report.scanned_bytes == 0
    assert wal.recovery_report.clean
    metadata = segments * (SEGMENT_HEADER_SIZE + 2 * LARGE["blocks_per_segment"] * PAGE_SIZE)
    assert backend.read_bytes <= metadata + 2 * len(memory_store.read_file("cursors.db"))
    assert backend.read_bytes < 0.2 * 60 * 100_000


def test_w27_opening_after_a_kill_scans_only_what_no_mark_covers(memory_store):
    wal, _backend = with_faults(memory_store, fsync_schedule=NEVER, **LARGE)
    for _ in range(60):
        wal.append_for_topic("t", bytes(100_000))
    wal.sync()
    killed = memory_store.killed()
    wal, backend = with_faults(killed, **LARGE)
    assert wal.recovery_report.scanned_bytes <= LARGE["block_size"]
    assert backend.read_bytes < 0.5 * 60 * 100_000
    assert wal.next_offset("t") == 60


# --- W28 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic_count", [1, 300])
def test_w28_a_strict_read_is_one_small_write_and_one_sync(memory_store, topic_count):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    for topic in range(topic_count):
        wal.append_for_topic(f"t{topic}", b"a")
        wal.read_next(f"t{topic}")
    wal.batch_append_for_topic("t0", [b"x"] * 20)
    wal.sync()
    backend.reset()
    for _ in range(10):
        assert wal.read_next("t0") is not None
    assert (backend.calls["write"], backend.calls["sync"]) == (10, 10)
    assert backend.written_bytes <= 10 * 512
    backend.reset()
    for _ in range(10):
        wal.read_next("t0", checkpoint=False)
    wal.batch_read_for_topic("t0", checkpoint=False)
    assert (backend.calls["write"], backend.calls["sync"]) == (0, 0)


def test_w28_a_batch_read_is_one_checkpoint(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.batch_append_for_topic("t", [b"x"] * 500)
    wal.read_next("t")
    wal.sync()
    backend.reset()
    assert len(wal.batch_read_for_topic("t")) == 499
    assert (backend.calls["write"], backend.calls["sync"]) == (1, 1)


def test_w28_names_are_durable_with_their_directory(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=FsyncSchedule.sync_each())
    for number in range(6):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
        after = Walrus(memory_store.path, backend=MemoryBackend(store=backend.synced_store()))
        assert len(contents(after, "t")) == number + 1
        after.close()
    assert backend.calls["sync_dir"] >= 3


def test_w28_an_error_of_a_checkpoint_is_raised_and_the_cursor_stays(memory_store):
    wal, backend = with_faults(memory_store)
    wal.batch_append_for_topic("t", [b"a", b"b"])
    wal.read_next("t")
    backend.fail("sync", number=errno.EIO, suffix="cursors.db")
    with pytest.raises(StorageError):
        wal.read_next("t")
    assert wal.cursor_offset("t") == 1


# --- W29 ------------------------------------------------------------------------------------

KEYS = [
    *("a", "A", "a/b", "a:b", "a b", "a_b", "..", ".", "../..", "", "/", "/etc", "___", "ключ", "ключи"),
    *("x" * 40, "x" * 41, "x" * 300, "con", "NUL", "a\\b", "a\nb", "~", "$HOME", "\u00e9", "e\u0301"),
]


def test_w29_different_keys_have_different_directories_inside_the_data_directory(tmp_path):
    outside = tmp_path / "outside"
    base = outside / "data"
    directories = {}
    for key in KEYS:
        options = Walrus.builder().data_dir(base).key(key).backend(MemoryBackend()).options()
        directories[key] = options.path
        assert os.path.dirname(os.path.realpath(options.path)) == os.path.realpath(base)
        assert len(os.path.basename(options.path).encode()) <= 255
    folded = {path.lower() for path in directories.values()}
    assert len(folded) == len(KEYS)


def test_w29_a_key_that_climbs_does_not(tmp_path, file_kind):
    base = tmp_path / "outside" / "data"
    for key in ("..", "../..", "."):
        with Walrus(base, key=key, backend=file_kind("fd")()) as wal:
            wal.append_for_topic("t", key.encode())
    assert sorted(path.name for path in (tmp_path / "outside").iterdir()) == ["data"]
    assert all(path.is_dir() and path.name.startswith("ns-") for path in base.iterdir())
    for key in ("..", "../..", "."):
        with Walrus(base, key=key, backend=file_kind("fd")()) as wal:
            assert contents(wal, "t") == [key.encode()]


def test_w29_faulty_keys_are_refused():
    for key in (5, b"a", None, "\ud800"):
        with pytest.raises((TypeError, ValueError)):
            Walrus.builder().key(key)
