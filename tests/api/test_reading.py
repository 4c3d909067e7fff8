"""Reading: entries, cursors, peeking, seeking, handles, counts and sizes."""

from __future__ import annotations

import copy
import pickle

import pytest
from helpers import EACH, LOOSE, NEVER, WHOLE_BLOCK, contents, read_all

from walrus_core import Entry, FsyncSchedule
from walrus_core.errors import OffsetOutOfRangeError
from walrus_core.format import FRAME_HEADER_SIZE

# --- Entry ----------------------------------------------------------------------------------


def test_an_entry_is_immutable_comparable_hashable_and_picklable(store):
    wal = store.open(clock=lambda: 77)
    wal.append_for_topic("t", b"data")
    entry = wal.read_next("t", checkpoint=False)
    again = wal.batch_read_for_topic("t")[0]
    assert entry == again == Entry(0, 77, b"data")
    assert hash(entry) == hash(again)
    assert len({entry, again}) == 1
    assert entry != Entry(1, 77, b"data")
    assert entry != Entry(0, 78, b"data")
    assert entry != Entry(0, 77, b"other")
    assert entry != (0, 77, b"data")
    assert (entry.offset, entry.timestamp, entry.data) == (0, 77, b"data")
    assert type(entry.data) is bytes
    for name in ("offset", "timestamp", "data", "other"):
        with pytest.raises(AttributeError):
            setattr(entry, name, 1)
    with pytest.raises(AttributeError):
        del entry.data
    assert pickle.loads(pickle.dumps(entry)) == copy.copy(entry) == copy.deepcopy(entry) == entry
    assert "offset=0" in repr(entry)
    assert "data" in repr(entry)


def test_entries_outlive_the_log(store):
    wal = store.open()
    wal.append_for_topic("t", b"data" * 1000)
    entry = wal.read_next("t")
    wal.close()
    assert entry.data == b"data" * 1000


def test_timestamps_are_those_of_the_clock_and_a_batch_shares_one(store):
    now = iter(range(1000, 2000))
    wal = store.open(clock=lambda: next(now))
    wal.append_for_topic("t", b"a")
    wal.batch_append_for_topic("t", [b"b"] * 3 + [bytes(WHOLE_BLOCK)] * 2)
    wal.append_for_topic("t", b"c")
    stamps = [entry.timestamp for entry in wal.topic("t")]
    assert stamps[0] < stamps[1] < stamps[-1]
    assert len(set(stamps[1:6])) == 1


# --- consuming and peeking -------------------------------------------------------------------


def test_read_next_consumes_in_order_and_peeking_does_not(store):
    wal = store.open()
    wal.batch_append_for_topic("t", [b"a", b"b"])
    for _ in range(3):
        assert wal.read_next("t", checkpoint=False).data == b"a"
        assert wal.read_next("t", False).offset == 0
    assert wal.read_next("t").data == b"a"
    assert wal.read_next("t", True).data == b"b"
    assert wal.read_next("t") is None
    wal.append_for_topic("t", b"c")
    assert wal.read_next("t").data == b"c"


@pytest.mark.parametrize("schedule", [NEVER, EACH, FsyncSchedule.milliseconds(3_600_000)])
def test_readers_see_an_entry_at_once(store, schedule):
    wal = store.open(fsync_schedule=schedule)
    for number in range(30):
        wal.append_for_topic("t", b"%d" % number * 400)
        assert wal.read_next("t").data == b"%d" % number * 400


def test_single_and_batch_reads_share_the_cursor(store):
    wal = store.open()
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(100)])
    assert wal.read_next("t").offset == 0
    assert [entry.offset for entry in wal.batch_read_for_topic("t", max_entries=3)] == [1, 2, 3]
    assert wal.read_next("t", checkpoint=False).offset == 4
    assert wal.batch_read_for_topic("t", max_entries=2, checkpoint=False)[0].offset == 4
    assert wal.read_next("t").offset == 4
    assert [entry.offset for entry in wal.batch_read_for_topic("t")] == list(range(5, 100))


@pytest.mark.parametrize("max_bytes", [1, 10, 11, 29, 30, 31, 1000])
def test_the_budget_of_bytes(store, max_bytes):
    wal = store.open()
    wal.batch_append_for_topic("t", [bytes(10)] * 3)
    entries = wal.batch_read_for_topic("t", max_bytes, checkpoint=False)
    assert len(entries) == max(1, min(3, max_bytes // 10))
    assert [entry.offset for entry in entries] == list(range(len(entries)))


def test_a_first_entry_over_the_budget_comes_alone(store):
    wal = store.open()
    wal.batch_append_for_topic("t", [bytes(50_000), b"b", b"", b"c"])
    assert [len(entry.data) for entry in wal.batch_read_for_topic("t", 10)] == [50_000]
    assert [entry.data for entry in wal.batch_read_for_topic("t", 1)] == [b"b", b""]


def test_the_default_budget_is_a_mebibyte_and_2000_entries(store):
    wal = store.open(fsync_schedule=NEVER, block_size=1 << 20)
    wal.batch_append_for_topic("t", [b"x"] * 2000)
    wal.append_for_topic("t", b"x")
    assert len(wal.batch_read_for_topic("t")) == 2000
    wal.batch_append_for_topic("t", [bytes(100_000)] * 15)
    assert len(wal.batch_read_for_topic("t")) == 1 + 10


def test_max_entries(store):
    wal = store.open(fsync_schedule=NEVER)
    wal.batch_append_for_topic("t", [bytes(100)] * 1000)
    for count in (1, 2, 90, 300):
        start = wal.cursor_offset("t")
        entries = wal.batch_read_for_topic("t", max_entries=count)
        assert [entry.offset for entry in entries] == list(range(start, start + count))


def test_a_batch_may_be_handed_out_over_several_reads(store):
    wal = store.open()
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(10)])
    assert len(wal.batch_read_for_topic("t", 4)) == 4
    wal.close()
    assert [entry.offset for entry in store.open().batch_read_for_topic("t")] == [4, 5, 6, 7, 8, 9]


# --- cursors --------------------------------------------------------------------------------


def test_cursors_by_name_are_independent_and_survive(store):
    wal = store.open()
    wal.batch_append_for_topic("t", [b"a", b"b", b"c"])
    assert wal.read_next("t", cursor="one").data == b"a"
    assert wal.read_next("t", cursor="two").data == b"a"
    assert wal.read_next("t", cursor="two").data == b"b"
    assert [entry.data for entry in wal.batch_read_for_topic("t", cursor="ünï")] == [b"a", b"b", b"c"]
    expected = {"default": 0, "one": 1, "two": 2, "ünï": 3, "never used": 0}
    killed = store.killed()
    assert {name: wal.cursor_offset("t", name) for name in expected} == expected
    wal.close()
    for state in (killed, store):
        again = state.open()
        assert {name: again.cursor_offset("t", name) for name in expected} == expected
    assert wal.is_closed


def test_the_same_cursor_name_in_two_topics_is_two_cursors(store):
    wal = store.open()
    for topic in ("a", "b"):
        wal.batch_append_for_topic(topic, [b"x"] * 3)
    wal.read_next("a", cursor="c")
    assert (wal.cursor_offset("a", "c"), wal.cursor_offset("b", "c")) == (1, 0)


def test_counts_are_those_of_the_default_cursor(store):
    wal = store.open()
    wal.batch_append_for_topic("t", [b"x"] * 5)
    wal.batch_append_for_topic("u", [b"x"] * 2)
    wal.read_next("t", cursor="other")
    wal.read_next("t", checkpoint=False)
    assert wal.topic_entry_counts() == {"t": 5, "u": 2}
    wal.read_next("t")
    wal.batch_read_for_topic("u")
    assert wal.topic_entry_counts() == {"t": 4, "u": 0}
    assert (wal.topic_entry_count("t"), wal.topic_entry_count("u")) == (4, 0)
    wal.close()
    again = store.open()
    assert again.topic_entry_counts() == {"t": 4, "u": 0}


def test_seek_forwards_and_back(store):
    wal = store.open()
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(10)])
    wal.read_next("t")
    wal.seek("t", 7)
    assert wal.read_next("t").offset == 7
    wal.seek("t", 2)
    assert wal.read_next("t", checkpoint=False).offset == 2
    assert wal.topic_entry_count("t") == 8
    assert store.killed().open().cursor_offset("t") == 2
    wal.seek("t", 10)
    assert wal.read_next("t") is None
    wal.seek("t", 3, "other")
    assert wal.read_next("t", cursor="other").offset == 3
    assert wal.cursor_offset("t") == 10


def test_seek_refuses_what_was_given_back(store):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(6):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.batch_read_for_topic("t", 4 * WHOLE_BLOCK)
    wal.sync()
    assert wal.oldest_offset("t") == 4
    for offset in (0, 3):
        with pytest.raises(OffsetOutOfRangeError) as caught:
            wal.seek("t", offset)
        assert (caught.value.oldest, caught.value.next) == (4, 6)
        with pytest.raises(OffsetOutOfRangeError):
            wal.batch_read_for_topic("t", start_offset=offset)
    wal.seek("t", 4)
    assert wal.read_next("t").offset == 4
    assert wal.cursor_offset("t", "new") == 4
    assert wal.read_next("t", cursor="new").offset == 4


def test_every_cursor_holds_back_what_it_has_not_passed(store):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(8):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.read_next("t", cursor="slow")
    read_all(wal, "t")
    wal.sync()
    assert wal.oldest_offset("t") == 1
    wal.close()
    wal = store.open()
    assert wal.oldest_offset("t") == 1
    assert [entry.offset for entry in wal.batch_read_for_topic("t", 1 << 20, cursor="slow")] == list(
        range(1, 8)
    )
    wal.sync()
    assert wal.oldest_offset("t") == 7


# --- handles --------------------------------------------------------------------------------


def test_a_handle_appends_reads_iterates_and_counts(store):
    wal = store.open()
    handle = wal.topic("t")
    assert len(handle) == 0
    assert bool(handle)
    assert list(handle) == []
    assert wal.topics() == []
    assert handle.append(b"a") == 0
    assert handle.append_batch([b"b", b"c"]) == range(1, 3)
    assert len(handle) == 3
    assert [entry.data for entry in handle] == [b"a", b"b", b"c"]
    assert handle.read(checkpoint=False).data == b"a"
    assert handle.read().data == b"a"
    assert handle.read(cursor="other").data == b"a"
    assert wal.cursor_offset("t") == 1
    assert "'t'" in repr(handle)
    assert handle.name == "t"


def test_iteration_ends_at_the_end_as_it_was_at_its_start(store):
    wal = store.open(fsync_schedule=NEVER)
    handle = wal.topic("t")
    handle.append_batch([b"%d" % number * 500 for number in range(50)])
    seen = []
    for entry in handle:
        seen.append(entry.offset)
        handle.append(b"more")
    assert seen == list(range(50))
    assert len(handle) == 100
    assert wal.cursor_offset("t") == 0


def test_iteration_passes_over_what_is_given_back_meanwhile(store):
    wal = store.open(fsync_schedule=NEVER, consistency=LOOSE, block_size=1 << 19)
    handle = wal.topic("t")
    for number in range(12):
        handle.append(b"%d" % number * 300_000)
    iteration = iter(handle)
    assert next(iteration).offset == 0
    wal.batch_read_for_topic("t", 1 << 30)
    wal.sync()
    assert wal.oldest_offset("t") > 5
    rest = [entry.offset for entry in iteration]
    assert rest == sorted(rest)
    assert rest[-1] == 11


def test_len_is_what_is_retained(store):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(6):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.batch_read_for_topic("t", 4 * WHOLE_BLOCK)
    wal.sync()
    assert len(wal.topic("t")) == 2
    assert [entry.offset for entry in wal.topic("t")] == [4, 5]


# --- facts ----------------------------------------------------------------------------------


def test_sizes_count_frames_of_retained_blocks(store):
    wal = store.open()
    wal.append_for_topic("t", b"x" * 100)
    assert wal.topic_size("t") == FRAME_HEADER_SIZE + 104
    wal.batch_append_for_topic("t", [b"", b"y"])
    assert wal.topic_size("t") == 136 + 32 + 40
    wal.close()
    again = store.open()
    assert again.topic_size("t") == 208
    info = again.topic_info("t")
    assert (info.name, info.oldest_offset, info.next_offset, info.durable_offset) == ("t", 0, 3, 3)
    assert (info.unread_count, info.size_bytes, info.block_count) == (3, 208, 1)


def test_sizes_shrink_with_what_is_given_back(store):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(5):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    assert wal.topic_size("t") == 5 * (WHOLE_BLOCK + 32)
    read_all(wal, "t")
    wal.sync()
    assert wal.topic_size("t") == WHOLE_BLOCK + 32
    assert wal.topic_info("t").block_count == 1
    assert wal.next_offset("t") == 5
    assert contents(wal, "t") == [bytes([4]) * WHOLE_BLOCK]


def test_topics_are_listed_sorted(store):
    wal = store.open()
    for topic in ("b", "a", "ä", "c"):
        wal.append_for_topic(topic, b"x")
    assert wal.topics() == ["a", "b", "c", "ä"]
    wal.close()
    assert store.open().topics() == ["a", "b", "c", "ä"]


def test_a_fully_consumed_topic_keeps_its_offsets(store):
    wal = store.open()
    wal.batch_append_for_topic("t", [bytes(WHOLE_BLOCK)] * 5)
    read_all(wal, "t")
    wal.close()
    for _ in range(3):
        wal = store.open()
        assert (wal.next_offset("t"), wal.topic_entry_count("t"), wal.topics()) == (5, 0, ["t"])
        wal.close()
    wal = store.open()
    assert wal.append_for_topic("t", b"a") == 5
    assert wal.read_next("t").offset == 5
