"""A disk that is full: a typed error before anything changed, and everything else goes on."""

from __future__ import annotations

import errno
import os
import shutil

import pytest
from helpers import EACH, LOOSE, NEVER, contents, read_all, with_faults

from walrus_core import FsyncSchedule, Walrus
from walrus_core.errors import DiskFullError, PoisonedError, StorageError, TooManyFilesError
from walrus_core.testing import FaultyBackend

GEOMETRY = {"block_size": 1 << 16, "blocks_per_segment": 8}
SCHEDULES = [EACH, NEVER, FsyncSchedule.milliseconds(1)]


def free_bytes(path: str) -> int:
    return shutil.disk_usage(path).free


def fill(wal: Walrus, topic: str, payload_bytes: int = 20_000) -> list[bytes]:
    """Append until the disk is full. Returns what was acknowledged."""
    payloads = []
    for number in range(1000):
        payload = b"%03d" % number * (payload_bytes // 3)
        try:
            wal.append_for_topic(topic, payload)
        except DiskFullError:
            return payloads
        payloads.append(payload)
    raise AssertionError("the disk does not get full")


@pytest.fixture(params=["fd", "mmap"])
def open_log(request, mounted, file_kind):
    """A function that opens a log on a disk of 2 MiB; ``open_log.path`` is its directory.

    ``open_log.gives_back``: space in the middle of a file can be given back.
    """
    make_backend = file_kind(request.param)
    path = str(mounted(2 << 20) / "log")
    logs = []

    def open_it(**options):
        logs.append(Walrus(path, backend=make_backend(), **{**GEOMETRY, **options}))
        return logs[-1]

    open_it.path, open_it.gives_back = path, make_backend().capabilities.discard
    yield open_it
    for wal in logs:
        wal.close()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_appends_fail_and_everything_else_goes_on(open_log, schedule):
    wal = open_log(fsync_schedule=schedule)
    wal.append_for_topic("other", b"before")
    payloads = fill(wal, "t")
    assert len(payloads) > 30
    for _ in range(3):
        with pytest.raises(DiskFullError) as caught:
            wal.append_for_topic("t", bytes(60_000))
        assert caught.value.errno == errno.ENOSPC
        assert isinstance(caught.value.__cause__, OSError)
    wal.sync()
    assert contents(wal, "t") == payloads
    assert wal.read_next("t").data == payloads[0]
    assert wal.read_next("other").data == b"before"
    wal.close()
    wal = open_log(fsync_schedule=schedule)
    assert wal.recovery_report.damages == ()
    assert wal.read_next("t").data == payloads[1]
    assert contents(wal, "t")[-1] == payloads[-1]


def test_space_that_is_given_back_can_be_used_again(open_log):
    wal = open_log(fsync_schedule=NEVER, consistency=LOOSE)
    for _ in range(4):
        start = wal.next_offset("t")
        payloads = fill(wal, "t")
        assert len(payloads) > 20
        assert [
            entry.data for entry in wal.batch_read_for_topic("t", 1 << 30, start_offset=start)
        ] == payloads
        read_all(wal, "t")
        wal.sync()
    wal.close()
    wal = open_log()
    assert wal.recovery_report.damages == ()
    assert wal.append_for_topic("t", b"after") == wal.next_offset("t") - 1


def test_a_batch_that_does_not_fit_takes_nothing(open_log):
    wal = open_log(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    wal.sync()
    before = free_bytes(open_log.path)
    for _ in range(5):
        with pytest.raises(DiskFullError):
            wal.batch_append_for_topic("t", [bytes(50_000)] * 60)
        assert wal.next_offset("t") == 1
    wal.sync()
    # Where space cannot be given back, what the batch took stays with its file, for later appends.
    assert not open_log.gives_back or free_bytes(open_log.path) >= before - 3 * (1 << 16) - (1 << 17)
    assert wal.batch_append_for_topic("t", [bytes(50_000)] * 10) == range(1, 11)
    wal.close()
    assert open_log().next_offset("t") == 11


def count_refused(calls):
    count = 0
    for call in calls:
        try:
            call()
        except DiskFullError:
            count += 1
    return count


def test_new_topics_and_cursors_on_a_full_disk(open_log):
    wal = open_log(fsync_schedule=NEVER, consistency=LOOSE)
    wal.append_for_topic("t", b"first")
    wal.read_next("t")
    wal.sync()
    others = [f"u-{number}" for number in range(10)]
    for other in others:
        wal.append_for_topic(other, b"one")
    payloads = [b"first", *fill(wal, "t")]
    known = wal.topics()
    for number in range(40):
        try:
            wal.append_for_topic(f"new-{number}", bytes(30_000))
        except DiskFullError:
            assert f"new-{number}" not in wal.topics()
    new_cursors = [lambda number=number: wal.read_next("t", cursor=f"c-{number}") for number in range(40)]
    assert count_refused(new_cursors), "forty cursors cannot all have had a place"
    wal.read_next("t")
    for other in others:
        assert wal.read_next(other).data == b"one"
    assert count_refused([wal.sync, wal.close]), "nor forty more"
    wal.close()
    wal = open_log()
    assert wal.topics() == known
    assert contents(wal, "t") == payloads
    assert wal.cursor_offset("t") == 2, "a cursor that had its place was persisted all the same"


def test_the_disk_is_full_from_the_start(mounted, file_kind):
    directory = mounted(1 << 16)
    for kind in ("fd", "mmap"):
        try:
            wal = Walrus(directory / kind, backend=file_kind(kind)(), **GEOMETRY)
        except DiskFullError:
            continue
        with wal:
            with pytest.raises(DiskFullError):
                wal.append_for_topic("t", b"a")
            assert wal.topics() == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("operation", ["create", "reserve"])
def test_what_changes_nothing_poisons_nothing(memory_store, operation, number):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"a")
    backend.fail(operation, number=number, times=3)
    expected = TooManyFilesError if number in (errno.EMFILE, errno.ENFILE) else DiskFullError
    for payload in (bytes(60_000), bytes(55_000), bytes(50_000)):
        with pytest.raises(expected) as caught:
            wal.append_for_topic("t", payload)
        assert caught.value.errno == number
    assert wal.next_offset("t") == 1
    assert wal.append_for_topic("t", bytes(60_000)) == 1
    wal.sync()
    assert memory_store.killed().open().next_offset("t") == 2


@pytest.mark.parametrize("operation", ["write", "sync", "reserve", "create"])
def test_other_errors_of_a_write_or_sync_poison(memory_store, operation):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    wal.append_for_topic("t", b"a")
    backend.fail(operation, number=errno.EIO)
    with pytest.raises(StorageError):
        wal.append_for_topic("t", bytes(60_000))
    assert wal.next_offset("t") in (1, 2)
    assert contents(wal, "t") == [b"a"]
    if operation in ("write", "sync"):
        with pytest.raises(PoisonedError):
            wal.append_for_topic("t", b"b")
    wal.close()
    again = memory_store.open()
    assert contents(again, "t")[0] == b"a"
    assert again.append_for_topic("t", b"b") == again.next_offset("t") - 1


@pytest.mark.parametrize("place", range(24))
def test_a_full_disk_at_every_write_of_an_opening(memory_store, place):
    """Recovery that cannot write is a typed error, and the next opening finds everything."""
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    for number in range(5):
        wal.append_for_topic("t", b"%d" % number * 4000)
    killed = memory_store.killed()
    name, at = killed.find(b"4" * 4000)
    killed.patch(name, at, b"torn")
    backend = FaultyBackend(killed.backend())
    operations = ("write", "reserve") if place % 2 else ("create", "write")
    rules = [backend.fail(operation, skip=place // 2) for operation in operations]
    try:
        wal = killed.open(backend=backend)
    except DiskFullError:
        assert any(rule.acted for rule in rules)
    else:
        backend.reset()
        wal.close()
    assert backend.open_files == set()
    again = killed.open()
    assert contents(again, "t") == [b"%d" % number * 4000 for number in range(4)]
    assert again.recovery_report.damages == ()


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EIO])
@pytest.mark.parametrize("schedule", [NEVER, FsyncSchedule.milliseconds(1)])
def test_a_block_that_cannot_be_mapped_is_a_typed_error(make_store, monkeypatch, schedule, number):
    store = make_store("mmap")
    wal = store.open(fsync_schedule=schedule)
    wal.append_for_topic("t", b"a")

    def fail(file, at_bytes, length_bytes):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("walrus_mmap.file.MmapFile.memory", fail)
        for call in (
            lambda: wal.append_for_topic("u", b"x"),
            lambda: wal.append_for_topic("t", bytes(30_000)),
            lambda: wal.batch_append_for_topic("t", [bytes(10_000)] * 3),
        ):
            with pytest.raises(StorageError) as caught:
                call()
            assert caught.value.errno == number
    assert wal.append_for_topic("t", b"b") == 1
    assert wal.append_for_topic("u", b"x") == 0
    wal.close()
    wal = store.open()
    assert contents(wal, "t") == [b"a", b"b"]
    assert wal.recovery_report.damages == ()


@pytest.mark.parametrize("batch", [[b"refused"], [b"refused", b"too"], [b"refused" * 1500, b"too" * 3000]])
def test_what_was_refused_in_the_middle_of_its_write_comes_back_whole_or_never(memory_store, batch):
    """All of its bytes may have been written before the error: then a crash may find it at the end of its
    topic. It never stands before an entry that was appended, nor in part."""
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    # Of the last of them the frames are in two blocks; the header page of the new one is the first write.
    backend.fail("write", suffix=".wal", skip=2 if len(batch[-1]) > 1000 else 0, written=1 << 20)
    with pytest.raises(DiskFullError):
        wal.batch_append_for_topic("t", batch)
    assert backend.rules[0].acted
    assert contents(wal, "t") == [b"before"] and wal.next_offset("t") == 1
    with memory_store.killed().open() as after:
        assert contents(after, "t") in ([b"before"], [b"before", *batch])
    wal.append_for_topic("t", b"next")
    with memory_store.killed().open() as after:
        assert contents(after, "t") == [b"before", b"next"]
        assert after.recovery_report.damages == ()
