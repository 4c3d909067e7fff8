"""Rows W11 to W15 of the defects known of the original: each scenario, run against this engine."""

from __future__ import annotations

import errno

import pytest
from helpers import NEVER, WHOLE_BLOCK, contents, read_all, with_faults

from walrus_core import FsyncSchedule
from walrus_core.errors import ChecksumError, DiskFullError, EntryTooLargeError, InvalidTopicError
from walrus_core.format import FRAME_HEADER_SIZE, PAGE_SIZE, SEGMENT_HEADER_SIZE

LARGEST = 4 * 16384 - PAGE_SIZE - FRAME_HEADER_SIZE
"""Payload bytes that a segment of 4 blocks of 16 KiB holds."""


# --- W11 ------------------------------------------------------------------------------------


def test_w11_entries_behind_a_large_entry_in_its_block_survive(store):
    wal = store.open()
    wal.append_for_topic("big", b"x" * 20_000)
    for number in range(5):
        wal.append_for_topic("big", b"behind-%d" % number)
    assert wal.topic_info("big").block_count == 1
    expected = [b"x" * 20_000, *(b"behind-%d" % number for number in range(5))]
    assert contents(store.killed().open(), "big") == expected
    wal.close()
    assert contents(store.open(), "big") == expected


def test_w11_the_empty_topic_name_is_refused(store):
    """The original accepts topic "" and drops it at the next open."""
    wal = store.open()
    for call in (
        lambda: wal.append_for_topic("", b"x"),
        lambda: wal.batch_append_for_topic("", [b"x"]),
        lambda: wal.read_next(""),
        lambda: wal.batch_read_for_topic(""),
        lambda: wal.topic(""),
    ):
        with pytest.raises(InvalidTopicError):
            call()
    assert wal.topics() == []


# --- W12 ------------------------------------------------------------------------------------


def test_w12_live_corruption_is_raised_and_can_be_passed(store):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(6):
        wal.append_for_topic("t", b"payload-%d" % number)
    wal.close()
    name, at = store.find(b"payload-2")
    store.flip(name, at + 3)
    wal = store.open()
    assert [entry.offset for entry in wal.batch_read_for_topic("t")] == [0, 1]
    for _ in range(3):
        with pytest.raises(ChecksumError) as caught:
            wal.read_next("t")
        assert (caught.value.topic, caught.value.offset, caught.value.end_offset) == ("t", 2, 3)
        with pytest.raises(ChecksumError):
            wal.batch_read_for_topic("t")
        assert wal.cursor_offset("t") == 2
    assert wal.read_next("t", on_corruption="skip").data == b"payload-3"
    assert read_all(wal, "t") == [b"payload-4", b"payload-5"]
    assert [(damage.first_offset, damage.end_offset) for damage in wal.damages] == [(2, 3)]


@pytest.mark.parametrize("close_first", [True, False])
def test_w12_after_a_restart_nothing_vanishes_silently(store, close_first):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(6):
        wal.append_for_topic("t", b"payload-%d" % number)
    wal.sync()
    broken = store
    if close_first:
        wal.close()
    else:
        broken = store.killed()
    name, at = broken.find(b"payload-2")
    broken.flip(name, at + 3)
    again = broken.open(on_corruption="skip")
    assert again.next_offset("t") == 6
    assert read_all(again, "t") == [b"payload-%d" % number for number in (0, 1, 3, 4, 5)]


def header_bytes_of_first_block() -> range:
    return range(SEGMENT_HEADER_SIZE, SEGMENT_HEADER_SIZE + 3 * 512)


@pytest.mark.parametrize("at", [0, 9, 17, 25, 33, 41, 49, 57, 64, 65, 1500, 1535])
def test_w12_a_bit_flipped_in_a_block_header_moves_nothing_to_another_topic(store, at):
    wal = store.open()
    wal.append_for_topic("topic-a", b"a")
    wal.append_for_topic("topic-b", b"b")
    wal.close()
    store.flip(store.names(".wal")[0], header_bytes_of_first_block()[at])
    wal = store.open()
    assert wal.topics() == ["topic-a", "topic-b"]
    assert (contents(wal, "topic-a"), contents(wal, "topic-b")) == ([b"a"], [b"b"])
    assert [damage.kind for damage in wal.recovery_report.damages] == ["block header, read from its copy"]


def test_w12_a_block_whose_header_is_lost_is_reported_and_left_alone(store):
    wal = store.open()
    wal.append_for_topic("topic-a", b"payload of a")
    wal.append_for_topic("topic-b", b"b")
    wal.close()
    name, at = store.find(b"payload of a")
    page_at = SEGMENT_HEADER_SIZE + (at - SEGMENT_HEADER_SIZE) // 16384 * 16384
    store.flip(name, page_at + 60)
    store.flip(name, page_at + 1536 + 60)
    wal = store.open()
    assert [damage.kind for damage in wal.recovery_report.damages] == ["block header", "missing block"]
    assert [(damage.topic, damage.end_offset) for damage in wal.recovery_report.damages][1] == ("topic-a", 1)
    assert wal.recovery_report.damages[0].at_bytes == page_at
    assert contents(wal, "topic-b") == [b"b"]
    for number in range(20):
        wal.append_for_topic("topic-c", bytes([number]) * WHOLE_BLOCK)
    wal.sync()
    assert store.find(b"payload of a") == (name, at)


# --- W13 ------------------------------------------------------------------------------------


def test_w13_a_cursor_stays_where_it_is_when_the_first_file_is_deleted(store):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(8):
        wal.append_for_topic("gone", bytes([number]) * WHOLE_BLOCK)
    payloads = [bytes([number]) * 4000 for number in range(9)]
    wal.batch_append_for_topic("t", payloads)
    for number in range(4):
        assert wal.read_next("t").offset == number
    first = store.names(".wal")[0]
    assert len(read_all(wal, "gone")) == 8
    wal.sync()
    assert first not in store.names(".wal")
    assert wal.oldest_offset("t") == 3, "the first block of t is gone too, the second is not"
    assert wal.read_next("t").offset == 4
    wal.close()
    again = store.open()
    assert again.oldest_offset("t") == 3
    assert read_all(again, "t") == payloads[5:]


@pytest.mark.parametrize("read", ["read_next", "batch"])
def test_w13_b_a_large_entry_of_another_topic_shifts_no_cursor(store, read):
    wal = store.open()
    for number in range(2):
        wal.append_for_topic("t", b"%d" % number)
    wal.append_for_topic("large", b"x" * 40_000)
    for number in range(2, 5):
        wal.append_for_topic("t", b"%d" % number * WHOLE_BLOCK)
    for _ in range(4):
        wal.read_next("t")
    killed = store.killed()
    wal.close()
    for state in (killed, store):
        again = state.open()
        if read == "batch":
            assert [entry.offset for entry in again.batch_read_for_topic("t")] == [4]
        else:
            assert again.read_next("t").offset == 4
        assert again.read_next("t") is None


# --- W14 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [False, True])
def test_w14_an_oversized_append_changes_nothing(store, batch):
    wal = store.open()
    wal.append_for_topic("t", b"a")
    wal.append_for_topic("t", b"b")
    before = wal.topic_info("t")

    def append() -> None:
        if batch:
            wal.batch_append_for_topic("t", [b"small", bytes(LARGEST + 1)])
        else:
            wal.append_for_topic("t", bytes(LARGEST + 1))

    for _ in range(3):
        with pytest.raises(EntryTooLargeError) as caught:
            append()
        assert caught.value.limit_bytes == LARGEST
    assert wal.topic_info("t") == before
    assert [segment.live for segment in wal._engine.allocator.segments.values()] == [1]
    assert wal.append_for_topic("t", b"c") == 2
    assert read_all(wal, "t") == [b"a", b"b", b"c"]
    assert wal.read_next("t") is None


# --- W15 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["reserve", "create", "write"])
@pytest.mark.parametrize("skip", range(14))
def test_w15_a_failed_batch_over_blocks_is_undone(memory_store, operation, skip):
    wal, backend = with_faults(memory_store, fsync_schedule=FsyncSchedule.sync_each())
    wal.append_for_topic("t", b"before")
    rule = backend.fail(operation, number=errno.ENOSPC, suffix=(".wal", ".free"), skip=skip)
    batch = [b"%d" % number * WHOLE_BLOCK for number in range(1, 6)]
    try:
        wal.batch_append_for_topic("t", batch)
        expected = [b"before", *batch, b"after"]
    except DiskFullError:
        expected = [b"before", b"after"]
        assert rule.acted
        assert wal.next_offset("t") == 1
    backend.rules.clear()
    assert wal.append_for_topic("t", b"after") == len(expected) - 1
    assert contents(wal, "t") == expected
    assert contents(memory_store.killed().open(), "t") == expected
    assert read_all(wal, "t") == expected
    wal.append_for_topic("t", b"x" * WHOLE_BLOCK)
    read_all(wal, "t")
    wal.sync()
    held = {slot for segment in wal._engine.allocator.segments.values() for slot in [segment.live] if slot}
    assert held == {1}, "only the active block is held, and no block of the failed batch"
    assert len(memory_store.names(".wal")) <= 2
    wal.close()
    assert len(contents(memory_store.open(), "t")) >= 1
