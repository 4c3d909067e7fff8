"""Rows W1 to W5 of the defects known of the original: each scenario, run against this engine."""

from __future__ import annotations

import errno
import threading

import pytest
from helpers import NEVER, contents, read_all, with_faults

from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core.errors import DiskFullError, PoisonedError, StorageError
from walrus_core.format import FRAME_HEADER_SIZE
from walrus_core.memory import MemoryBackend

# --- W1 -------------------------------------------------------------------------------------


def test_w01_polling_an_empty_topic_does_not_rewind_the_cursor(store):
    wal = store.open()
    for data in (b"a", b"b", b"c"):
        wal.append_for_topic("t", data)
    assert read_all(wal, "t") == [b"a", b"b", b"c"]
    for _ in range(5):
        assert wal.read_next("t") is None
        assert wal.batch_read_for_topic("t") == []
    killed = store.killed().open()
    assert killed.read_next("t") is None
    assert killed.topic_entry_count("t") == 0
    wal.close()
    again = store.open()
    assert again.read_next("t") is None
    assert again.cursor_offset("t") == 3


def test_w01_polling_writes_nothing_and_the_cursor_survives_power_loss(memory_store):
    wal, backend = with_faults(memory_store)
    wal.append_for_topic("t", b"a")
    assert read_all(wal, "t") == [b"a"]
    backend.reset()
    for _ in range(5):
        assert wal.read_next("t") is None
    assert (backend.calls["write"], backend.calls["sync"]) == (0, 0)
    after = Walrus(memory_store.path, backend=MemoryBackend(store=backend.synced_store()))
    with after:
        assert after.next_offset("t") == 1
        assert after.read_next("t") is None


def test_w01_no_crash_point_of_a_checkpoint_replays_or_skips(memory_store):
    """The original writes (block, 0) before the offset: a crash between the two replays the block."""
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    for number in range(3):
        wal.append_for_topic("t", b"%d" % number)
    wal.sync()
    images = []
    backend.during("write", lambda: images.append(memory_store.killed()), suffix="cursors.db", times=None)
    assert wal.read_next("t").data == b"0"
    images.append(memory_store.killed())
    assert wal.read_next("t").data == b"1"
    offsets = [image.open().cursor_offset("t") for image in images]
    assert len(images) >= 3
    assert offsets == sorted(offsets)
    assert set(offsets) == {0, 1}
    assert memory_store.killed().open().cursor_offset("t") == 2


# --- W2 -------------------------------------------------------------------------------------


def test_w02_at_least_once_saves_syncs(memory_store):
    wal, backend = with_faults(
        memory_store, fsync_schedule=NEVER, consistency=ReadConsistency.at_least_once(100_000)
    )
    for number in range(500):
        wal.append_for_topic("t", b"%d" % number)
    wal.sync()
    backend.reset()
    assert len(read_all(wal, "t")) == 500
    assert (backend.calls["write"], backend.calls["sync"]) == (0, 0)


@pytest.mark.parametrize("schedule", [NEVER, FsyncSchedule.milliseconds(200), FsyncSchedule.sync_each()])
def test_w02_at_least_once_bounds_the_replay(store, schedule):
    wal = store.open(consistency=ReadConsistency.at_least_once(2), fsync_schedule=schedule)
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(100)])
    for _ in range(89):
        wal.read_next("t")
    assert store.killed().open().cursor_offset("t") in (88, 89)
    wal.read_next("t")
    assert store.killed().open().cursor_offset("t") in (89, 90)


def test_w02_batch_reads_count_and_persist_like_single_reads(store):
    wal = store.open(consistency=ReadConsistency.at_least_once(1), fsync_schedule=NEVER)
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(100)])
    assert len(wal.batch_read_for_topic("t", max_entries=75)) == 75
    assert store.killed().open().cursor_offset("t") == 75


@pytest.mark.parametrize("persist_every", [1, 2, 7, 10])
def test_w02_fewer_than_n_entries_are_replayed_after_power_loss(memory_store, persist_every):
    wal, backend = with_faults(
        memory_store, fsync_schedule=NEVER, consistency=ReadConsistency.at_least_once(persist_every)
    )
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(60)])
    for step in range(20):
        if step % 3:
            wal.read_next("t")
        else:
            wal.batch_read_for_topic("t", max_entries=5)
        with Walrus(memory_store.path, backend=MemoryBackend(store=backend.synced_store())) as after:
            assert after.cursor_offset("t") > wal.cursor_offset("t") - persist_every
            assert after.next_offset("t") >= after.cursor_offset("t")


def test_w02_close_and_sync_persist_all_cursors(store):
    wal = store.open(consistency=ReadConsistency.at_least_once(1000))
    wal.batch_append_for_topic("t", [b"x"] * 50)
    wal.batch_read_for_topic("t", max_entries=10)
    wal.batch_read_for_topic("t", max_entries=20, cursor="other")
    wal.sync()
    killed = store.killed().open()
    assert (killed.cursor_offset("t"), killed.cursor_offset("t", "other")) == (10, 20)
    wal.batch_read_for_topic("t", max_entries=5)
    wal.close()
    assert store.open().cursor_offset("t") == 15


# --- W3 -------------------------------------------------------------------------------------


def test_w03_concurrent_read_next_delivers_each_entry_once(store):
    wal = store.open(fsync_schedule=NEVER, consistency=ReadConsistency.at_least_once(500))
    for start in range(0, 4000, 500):
        wal.batch_append_for_topic("t", [b"%d" % number for number in range(start, start + 500)])
    delivered: list[list[int]] = [[], [], [], []]

    def consume(mine: list[int]) -> None:
        while (entry := wal.read_next("t")) is not None:
            assert entry.data == b"%d" % entry.offset
            mine.append(entry.offset)

    threads = [threading.Thread(target=consume, args=(mine,)) for mine in delivered]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(offset for mine in delivered for offset in mine) == list(range(4000))
    assert all(mine == sorted(mine) for mine in delivered)


# --- W4 -------------------------------------------------------------------------------------


def test_w04_a_batch_with_a_damaged_frame_is_lost_whole(store):
    wal = store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    wal.batch_append_for_topic("t", [b"batch-entry-%d" % number for number in range(5)])
    killed = store.killed()
    name, at = killed.find(b"batch-entry-2")
    killed.patch(name, at - FRAME_HEADER_SIZE, bytes(FRAME_HEADER_SIZE))
    again = killed.open()
    assert contents(again, "t") == [b"before"]
    assert again.next_offset("t") == 1
    assert [(cut.topic, cut.offset) for cut in again.recovery_report.cuts] == [("t", 1)]
    assert again.append_for_topic("t", b"after") == 1
    assert contents(again, "t") == [b"before", b"after"]


@pytest.mark.parametrize("entry_bytes", [40, 3000, 20_000])
def test_w04_a_batch_is_all_or_nothing_at_every_crash_point(memory_store, entry_bytes):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    batch = [bytes([number]) * entry_bytes for number in range(1, 9)]
    images = []
    for operation in ("write", "sync", "reserve", "create"):
        backend.during(operation, lambda: images.append(memory_store.killed()), times=None)
    wal.batch_append_for_topic("t", batch)
    wal.sync()
    images.append(memory_store.killed())
    found = [contents(image.open(), "t") for image in images]
    assert {len(payloads) for payloads in found} == {1, 9}
    assert all(payloads in ([b"before"], [b"before", *batch]) for payloads in found)


def test_w04_a_short_write_of_a_batch_leaves_nothing_of_it(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    backend.fail("write", number=errno.EIO, suffix=".wal", written=700)
    with pytest.raises(StorageError):
        wal.batch_append_for_topic("t", [b"%0100d" % number for number in range(20)])
    assert wal.next_offset("t") == 1
    again = memory_store.killed().open()
    assert contents(again, "t") == [b"before"]
    assert again.append_for_topic("t", b"after") == 1


def test_w04_no_reader_sees_a_part_of_a_batch(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    seen = []

    def look() -> None:
        thread = threading.Thread(target=lambda: seen.append((contents(wal, "t"), wal.next_offset("t"))))
        thread.start()
        thread.join()

    backend.during("write", look, suffix=".wal", times=None)
    wal.batch_append_for_topic("t", [bytes(5000)] * 12)
    assert len(seen) > 5
    assert all(found == ([b"before"], 1) for found in seen)
    backend.rules.clear()
    assert len(contents(wal, "t")) == 13


# --- W5 -------------------------------------------------------------------------------------


def test_w05_a_failed_write_is_an_error_and_the_entry_is_not_there(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    backend.fail("write", number=errno.EIO, suffix=".wal")
    with pytest.raises(StorageError) as caught:
        wal.append_for_topic("t", b"lost")
    assert (caught.value.errno, type(caught.value.__cause__)) == (errno.EIO, OSError)
    assert wal.next_offset("t") == 1
    with pytest.raises(PoisonedError):
        wal.append_for_topic("t", b"more")


@pytest.mark.parametrize("written", [0, 3, 40, 60])
def test_w05_a_short_write_on_a_full_disk_changes_nothing(memory_store, written):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    backend.fail("write", number=errno.ENOSPC, suffix=".wal", written=written)
    with pytest.raises(DiskFullError):
        wal.append_for_topic("t", b"x" * 40)
    assert contents(wal, "t") == [b"before"]
    assert wal.append_for_topic("t", b"after") == 1
    assert contents(wal, "t") == [b"before", b"after"]
    killed = memory_store.killed().open()
    assert contents(killed, "t") == [b"before", b"after"]


def test_w05_a_failed_read_is_an_error_not_zeros(memory_store):
    wal, backend = with_faults(memory_store)
    wal.append_for_topic("t", b"a")
    backend.fail("read", number=errno.EIO, suffix=".wal")
    with pytest.raises(StorageError):
        wal.read_next("t")
    assert wal.cursor_offset("t") == 0
    assert wal.read_next("t").data == b"a"


@pytest.mark.parametrize("kind", ["fd", "mmap"])
def test_w05_a_full_disk_is_a_typed_error_and_what_was_acknowledged_stays(kind, mounted, file_kind):
    path = str(mounted(2 << 20) / "log")
    options = {"block_size": 1 << 18, "blocks_per_segment": 16, "fsync_schedule": FsyncSchedule.sync_each()}
    acknowledged = []
    with Walrus(path, backend=file_kind(kind)(), **options) as wal:
        for number in range(10, 70):
            payload = b"%d" % number * 25_000
            try:
                wal.append_for_topic("t", payload)
                acknowledged.append(payload)
            except DiskFullError:
                continue
        assert 10 < len(acknowledged) < 60
        assert contents(wal, "t") == acknowledged
    with Walrus(path, backend=file_kind(kind)(), **options) as wal:
        assert contents(wal, "t") == acknowledged
        assert read_all(wal, "t") == acknowledged
        wal.sync()
        assert wal.append_for_topic("t", bytes(50_000)) == len(acknowledged)
