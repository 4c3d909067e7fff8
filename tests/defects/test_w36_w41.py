"""Rows W36 to W41 of the defects known of the original: each scenario, run against this engine."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from helpers import EACH, NEVER, WHOLE_BLOCK, contents, run_threads, wait_until, with_faults

from walrus_core import FsyncSchedule, ReadConsistency
from walrus_core.errors import ChecksumError, CorruptionError, DiskFullError, PoisonedError, SyncFailedError
from walrus_core.format import FRAME_HEADER_SIZE, SEGMENT_HEADER_SIZE

# --- W36 ------------------------------------------------------------------------------------


def poisoned(memory_store, schedule):
    """Return a log with three durable entries, one in doubt, and a failed sync behind it."""
    wal, backend = with_faults(memory_store, fsync_schedule=schedule)
    for number in range(3):
        wal.append_for_topic("t", b"durable-%d" % number)
    wal.sync()
    rule = backend.fail("sync", number=errno.EIO)

    def append_and_sync() -> None:
        wal.append_for_topic("t", b"in doubt")
        wal.sync()

    with pytest.raises(SyncFailedError) as caught:
        append_and_sync()
    assert (rule.acted, caught.value.errno) == (1, errno.EIO)
    backend.reset()
    return wal, backend


@pytest.mark.parametrize("schedule", [EACH, NEVER, FsyncSchedule.milliseconds(3_600_000)])
def test_w36_a_failed_sync_is_raised_and_poisons_the_log(memory_store, schedule):
    wal, backend = poisoned(memory_store, schedule)
    for call in (
        lambda: wal.append_for_topic("t", b"more"),
        lambda: wal.append_for_topic("new", b"more"),
        lambda: wal.batch_append_for_topic("t", [b"more"]),
        lambda: wal.seek("t", 1),
        lambda: wal.mark_topic_clean("t"),
    ):
        with pytest.raises(PoisonedError):
            call()
    with pytest.raises((SyncFailedError, PoisonedError)):
        wal.sync()
    assert (backend.calls["sync"], backend.calls["write"]) == (0, 0), "nothing is tried again"
    assert wal.durable_offset("t") == 3


@pytest.mark.parametrize("schedule", [EACH, NEVER])
def test_w36_reads_go_on_below_the_durable_offset_and_raise_beyond_it(memory_store, schedule):
    wal, _backend = poisoned(memory_store, schedule)
    peeked = [entry.data for entry in wal.batch_read_for_topic("t", checkpoint=False)]
    assert peeked == [b"durable-%d" % number for number in range(3)]
    assert [entry.offset for entry in wal.batch_read_for_topic("t", start_offset=1)] == [1, 2]
    assert wal.read_next("t", checkpoint=False).data == b"durable-0"
    with pytest.raises(PoisonedError):
        wal.read_next("t")
    assert wal.cursor_offset("t") == 0
    with pytest.raises(PoisonedError):
        wal.batch_read_for_topic("t", start_offset=4)
    wal.close()
    again = memory_store.open()
    assert contents(again, "t")[:3] == peeked


def test_w36_reads_beyond_the_durable_offset_of_a_poisoned_log_raise(memory_store):
    loose = ReadConsistency.at_least_once(100)
    wal, backend = with_faults(memory_store, consistency=loose, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"durable")
    wal.sync()
    backend.fail("sync", number=errno.EIO)
    wal.append_for_topic("t", b"in doubt")
    with pytest.raises(SyncFailedError):
        wal.sync()
    assert wal.read_next("t").data == b"durable"
    for _ in range(2):
        with pytest.raises(PoisonedError):
            wal.read_next("t")
        with pytest.raises(PoisonedError):
            wal.batch_read_for_topic("t")


def test_w36_everyone_who_waits_for_a_sync_learns_of_its_failure(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    wal.append_for_topic("t", b"a")
    backend.fail("sync", number=errno.EIO, times=None)

    def append(number: int) -> str:
        try:
            wal.append_for_topic(f"t{number % 3}", b"b")
        except (SyncFailedError, PoisonedError) as error:
            return type(error).__name__
        return "acknowledged"

    answers = run_threads([lambda number=number: append(number) for number in range(12)], seconds=20)
    assert set(answers) <= {"SyncFailedError", "PoisonedError"}
    assert "SyncFailedError" in answers


def test_w36_a_failing_background_sync_poisons_too_and_close_raises_nothing_twice(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=FsyncSchedule.milliseconds(1))
    backend.fail("sync", number=errno.EIO, suffix=".wal", times=None)

    def is_poisoned() -> bool:
        try:
            wal.append_for_topic("t", b"a")
        except PoisonedError:
            return True
        return False

    wait_until(is_poisoned)
    assert wal.durable_offset("t") == 0
    wal.close()
    wal.close()
    assert wal.is_closed


def test_w36_one_can_wait_until_entries_are_durable(store):
    wal = store.open(fsync_schedule=FsyncSchedule.milliseconds(3_600_000))
    wal.append_for_topic("t", b"a")
    assert wal.durable_offset("t") == 0
    wal.sync()
    assert wal.durable_offset("t") == 1


# --- W37 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("checksum", "algorithm"), [("fnv1a64", 1), ("crc32c", 2)])
def test_w37_the_layout_is_fixed_and_says_what_it_is(store, checksum, algorithm):
    """The original writes what the compiler happens to lay out, without magic or version."""
    wal = store.open(clock=lambda: 0x1122334455667788, checksum=checksum)
    wal.append_for_topic("tøpic", b"payload!")
    wal.close()
    data = store.read_file("00000000000000000001.wal")
    assert len(data) == 65536 + 4 * 16384
    for at in (0, 32768):
        assert struct.unpack_from("<8sII", data, at) == (b"WALRUSEG", 1, 0)
        assert struct.unpack_from("<QIII", data, at + 48) == (1, 16384, 4, algorithm)
    for at in (SEGMENT_HEADER_SIZE, SEGMENT_HEADER_SIZE + 1536):
        assert struct.unpack_from("<8sQII", data, at) == (b"WALRUSBK", 1, 0, 1)
        assert data[at + 64 : at + 64 + 6] == "tøpic".encode()
    frame = struct.unpack_from("<QIIBBHIQ", data, SEGMENT_HEADER_SIZE + 4096)
    assert (frame[1], *frame[3:]) == (8, 1, 1, 0, 0, 0x1122334455667788)
    assert data[SEGMENT_HEADER_SIZE + 4096 + 32 :][:8] == b"payload!"
    cursors = store.read_file("cursors.db")
    for at in (0, 4096):
        assert struct.unpack_from("<8sI", cursors, at) == (b"WALRUSCU", 1)


# --- W38 ------------------------------------------------------------------------------------


def test_w38_nothing_is_printed_and_the_environment_is_not_asked(store, capfd, monkeypatch):
    wal = store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"first")
    wal.read_next("t")
    asked = []

    class Asked(dict):
        def __getitem__(self, name):
            asked.append(name)
            return super().__getitem__(name)

        def __contains__(self, name):
            asked.append(name)
            return super().__contains__(name)

        def get(self, name, default=None):
            asked.append(name)
            return super().get(name, default)

    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", Asked(os.environ))
        patch.setattr(os, "getenv", lambda name, default=None: asked.append(name))
        for _ in range(10):
            wal.append_for_topic("t", bytes(5000))
            wal.batch_append_for_topic("t", [b"a", b"b"])
            wal.read_next("t")
            wal.batch_read_for_topic("t", 100)
        wal.sync()
    assert asked == []
    wal.close()
    store.open()
    assert capfd.readouterr() == ("", "")


# --- W39 ------------------------------------------------------------------------------------


def test_w39_a_payload_is_taken_as_it_is_at_the_call(store):
    """The speed of the checksum is measured elsewhere; here: nothing of the caller's is kept or changed."""
    wal = store.open(fsync_schedule=NEVER)
    buffer = bytearray(b"0123456789" * 30)
    view = memoryview(buffer)
    payloads = [buffer, view, view[::2], memoryview(b"\x01\x02\x03\x04").cast("H"), b"bytes"]
    expected = [bytes(buffer), bytes(buffer), bytes(buffer[::2]), b"\x01\x02\x03\x04", b"bytes"]
    for payload in payloads:
        wal.append_for_topic("t", payload)
    wal.batch_append_for_topic("t", payloads)
    assert bytes(buffer) == b"0123456789" * 30
    buffer[:] = b"?" * len(buffer)
    assert contents(wal, "t") == expected * 2
    del payloads, payload
    view.release()
    buffer.extend(b"the caller may resize it: nothing holds on to it")


@pytest.mark.parametrize("batch", [True, False])
def test_w39_a_large_immutable_payload_is_not_copied_by_a_batch(memory_store, batch):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER, block_size=1 << 20)
    payload = os.urandom(300_000)
    written = []
    real = backend._wrap

    def wrap(inner, path):
        file = real(inner, path)
        write = file.write_at
        file.write_at = lambda at_bytes, data: (written.append(data), write(at_bytes, data))[1]
        return file

    backend._wrap = wrap
    if batch:
        wal.batch_append_for_topic("t", [payload, b"b"])
        assert any(data is payload for data in written)
    else:
        wal.append_for_topic("t", payload)
        assert sum(len(data) for data in written if len(data) >= 300_000) <= 300_100
    assert contents(wal, "t")[0] == payload


@pytest.mark.parametrize("checksum", ["fnv1a64", "crc32c"])
def test_w39_every_flipped_bit_of_a_frame_is_noticed(memory_store, checksum):
    wal = memory_store.open(fsync_schedule=NEVER, checksum=checksum)
    wal.append_for_topic("t", b"ahead")
    wal.append_for_topic("t", b"suffix-of-3")
    wal.append_for_topic("t", b"behind")
    wal.sync()
    name, at = memory_store.find(b"suffix-of-3")
    files = memory_store._memory.files
    data = next(files[path] for path in files if path.endswith(name))
    for bit in range((FRAME_HEADER_SIZE + 11) * 8):
        place = at - FRAME_HEADER_SIZE + bit // 8
        data[place] ^= 1 << bit % 8
        with pytest.raises(CorruptionError) as caught:
            wal.batch_read_for_topic("t", start_offset=1)
        assert (caught.value.offset, caught.value.end_offset) == (1, 2), f"bit {bit}"
        assert isinstance(caught.value, ChecksumError) or bit < FRAME_HEADER_SIZE * 8
        assert wal.batch_read_for_topic("t", start_offset=1, on_corruption="skip")[0].data == b"behind"
        data[place] ^= 1 << bit % 8
    assert contents(wal, "t") == [b"ahead", b"suffix-of-3", b"behind"]


# --- W40 ------------------------------------------------------------------------------------


def test_w40_a_clean_mark_is_durable_at_once(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"a")
    assert not wal.topic_is_clean("t")
    wal.mark_topic_clean("t")
    assert wal.topic_is_clean("t")
    for store in (memory_store.killed(), power_loss(memory_store, backend)):
        again = store.open()
        assert again.topic_is_clean("t")
        assert again.next_offset("t") == 1
    wal.mark_topic_dirty("t")
    for store in (memory_store.killed(), power_loss(memory_store, backend)):
        assert not store.open().topic_is_clean("t")


def power_loss(memory_store, backend):
    """Return a store that holds what syncs have covered and nothing else."""
    after = memory_store.killed()
    after._memory.files = backend.synced_store().files
    return after


def test_w40_a_failing_append_leaves_the_mark(memory_store):
    wal, backend = with_faults(memory_store)
    wal.append_for_topic("t", b"a")
    wal.mark_topic_clean("t")
    with pytest.raises(TypeError):
        wal.append_for_topic("t", "text")
    with pytest.raises(ValueError):
        wal.append_for_topic("t", bytes(70_000))
    with pytest.raises(ValueError):
        wal.batch_append_for_topic("t", [b"x"] * 2001)
    backend.fail("reserve")
    with pytest.raises(DiskFullError):
        wal.append_for_topic("t", bytes(WHOLE_BLOCK + 250))
    wal.batch_append_for_topic("t", [])
    wal.read_next("t")
    wal.sync()
    assert wal.topic_is_clean("t")
    wal.append_for_topic("t", b"b")
    assert not wal.topic_is_clean("t")
    assert not memory_store.killed().open().topic_is_clean("t")


def test_w40_asking_for_unknown_topics_creates_nothing(store):
    wal = store.open()
    wal.append_for_topic("t", b"a")
    wal.sync()
    before = {name: store.read_file(name) for name in store.names()}
    known = len(wal._engine.topics)
    for number in range(500):
        name = f"unknown-{number}"
        assert wal.read_next(name) is None
        assert wal.batch_read_for_topic(name) == []
        assert wal.topic_entry_count(name) == wal.topic_size(name) == 0
        assert wal.next_offset(name) == wal.durable_offset(name) == wal.oldest_offset(name) == 0
        assert wal.cursor_offset(name) == 0
        assert wal.topic_is_clean(name)
        wal.mark_topic_clean(name)
        assert list(wal.topic(name)) == []
    assert wal.topics() == ["t"]
    assert len(wal._engine.topics) == known
    assert {name: store.read_file(name) for name in store.names()} == before


# --- W41 ------------------------------------------------------------------------------------


def test_w41_what_the_original_has_no_call_for(store):
    """The row is about the API: positions, reading from one, acknowledging later, several
    consumers, listing topics, sync and close. Deleting a topic is not part of this API yet."""
    wal = store.open()
    assert wal.append_for_topic("t", b"a") == 0
    assert wal.batch_append_for_topic("t", [b"b", b"c"]) == range(1, 3)
    assert wal.topics() == ["t"]
    entries = wal.batch_read_for_topic("t", checkpoint=False)
    assert [entry.offset for entry in entries] == [0, 1, 2]
    wal.seek("t", entries[1].offset + 1)
    assert wal.batch_read_for_topic("t", start_offset=1)[0].data == b"b"
    assert wal.read_next("t").data == b"c"
    assert wal.read_next("t", cursor="second").data == b"a"
    wal.sync()
    assert wal.durable_offset("t") == 3
    wal.close()
    again = store.open()
    assert (again.cursor_offset("t"), again.cursor_offset("t", "second")) == (3, 1)
