"""What callers may pass, and what they get for what they may not: a typed error, nothing changed."""

from __future__ import annotations

import array
import ctypes
import mmap

import pytest
from helpers import NEVER, contents

from walrus_core import WalrusError
from walrus_core import format as fmt
from walrus_core.errors import (
    BatchTooLargeError,
    ConfigError,
    EntryTooLargeError,
    InvalidPayloadError,
    InvalidTopicError,
    OffsetOutOfRangeError,
    UnknownTopicError,
    UsageError,
)

BAD_TOPICS = [
    "",
    "x" * 1025,
    "é" * 513,
    "a\0b",
    "\0",
    "\ud800",
    "ok\udfff",
    5,
    None,
    b"bytes",
    [],
    {},
    ("t",),
]


def topic_calls(wal):
    return [
        lambda topic: wal.append_for_topic(topic, b"x"),
        lambda topic: wal.batch_append_for_topic(topic, [b"x"]),
        lambda topic: wal.batch_append_for_topic(topic, []),
        wal.read_next,
        wal.batch_read_for_topic,
        lambda topic: wal.batch_read_for_topic(topic, start_offset=0),
        wal.cursor_offset,
        lambda topic: wal.seek(topic, 0),
        wal.next_offset,
        wal.oldest_offset,
        wal.durable_offset,
        wal.topic_entry_count,
        wal.topic_size,
        wal.topic_info,
        wal.topic_is_clean,
        wal.mark_topic_clean,
        wal.mark_topic_dirty,
        wal.topic,
    ]


@pytest.mark.parametrize("topic", BAD_TOPICS, ids=lambda topic: repr(topic)[:12])
def test_invalid_topics_are_refused_by_every_method(memory_store, topic):
    wal = memory_store.open()
    before = {name: memory_store.read_file(name) for name in memory_store.names()}
    for call in topic_calls(wal):
        with pytest.raises(InvalidTopicError) as caught:
            call(topic)
        assert isinstance(caught.value, ValueError)
        assert str(caught.value)
    assert wal.topics() == []
    assert {name: memory_store.read_file(name) for name in memory_store.names()} == before


@pytest.mark.parametrize("topic", ["x", " ", "a/b", "..", "x" * 1024, "é" * 512, "\n", "😀" * 256, "default"])
def test_any_other_text_is_a_topic(store, topic):
    wal = store.open()
    assert wal.append_for_topic(topic, b"a") == 0
    wal.close()
    wal = store.open()
    assert wal.topics() == [topic]
    assert wal.read_next(topic).data == b"a"


# --- payloads -------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["t", "new"])
def test_text_is_no_payload_and_the_message_says_what_to_do(store, topic):
    wal = store.open()
    wal.append_for_topic("t", b"a")
    for call in (
        lambda: wal.append_for_topic(topic, "text"),
        lambda: wal.batch_append_for_topic(topic, [b"fine", "text"]),
        lambda: wal.topic(topic).append("text"),
    ):
        with pytest.raises(InvalidPayloadError, match="encode") as caught:
            call()
        assert isinstance(caught.value, TypeError)
    assert wal.topics() == ["t"]
    assert contents(wal, "t") == [b"a"]


@pytest.mark.parametrize("payload", [None, 5, 1.5, [1, 2], object, {"a": 1}], ids=repr)
def test_what_is_no_buffer_is_no_payload(memory_store, payload):
    wal = memory_store.open()
    with pytest.raises(InvalidPayloadError):
        wal.append_for_topic("t", payload)
    with pytest.raises(InvalidPayloadError):
        wal.batch_append_for_topic("t", [b"a", payload])
    assert wal.topics() == []


@pytest.mark.parametrize(
    "batch",
    [b"bytes", "text", bytearray(b"x"), memoryview(b"x"), None, 5],
    ids=lambda batch: type(batch).__name__,
)
def test_a_batch_is_an_iterable_of_payloads(memory_store, batch):
    wal = memory_store.open()
    with pytest.raises((InvalidPayloadError, TypeError)):
        wal.batch_append_for_topic("t", batch)
    assert wal.topics() == []


def test_every_buffer_is_a_payload(store):
    wal = store.open()
    with mmap.mmap(-1, 16) as area:
        area[:4] = b"mmap"
        buffers = [
            b"bytes",
            bytearray(b"bytearray"),
            memoryview(b"view"),
            memoryview(bytes(range(20)))[::-3],
            memoryview(bytes(range(24))).cast("B", (4, 6)),
            array.array("i", [1, 2, 3]),
            (ctypes.c_char * 3)(b"a", b"b", b"c"),
            area,
        ]
        expected = [memoryview(buffer).tobytes() for buffer in buffers]
        for buffer in buffers:
            wal.append_for_topic("t", buffer)
        wal.batch_append_for_topic("t", (buffer for buffer in buffers))
        del buffer, buffers
    assert contents(wal, "t") == expected * 2


def test_a_payload_whose_buffer_raises_changes_nothing(memory_store):
    wal = memory_store.open()
    view = memoryview(bytearray(b"gone"))
    view.release()
    with pytest.raises((ValueError, TypeError)):
        wal.append_for_topic("t", view)
    with pytest.raises((ValueError, TypeError)):
        wal.batch_append_for_topic("t", [b"a", view])
    assert wal.topics() == []


def test_an_iterable_that_raises_changes_nothing(memory_store):
    wal = memory_store.open()

    def broken():
        yield b"a"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        wal.batch_append_for_topic("t", broken())
    assert wal.topics() == []
    assert wal.append_for_topic("t", b"b") == 0


# --- limits ---------------------------------------------------------------------------------

LARGEST = 4 * 16384 - fmt.PAGE_SIZE - fmt.FRAME_HEADER_SIZE


@pytest.mark.parametrize("length", [LARGEST + 1, LARGEST + 8, 1 << 20])
def test_an_entry_that_no_segment_holds_is_refused(store, length):
    wal = store.open()
    wal.append_for_topic("t", b"a")
    for call in (
        lambda: wal.append_for_topic("t", bytes(length)),
        lambda: wal.append_for_topic("new", bytes(length)),
        lambda: wal.batch_append_for_topic("t", [b"b", bytes(length), b"c"]),
        lambda: wal.batch_append_for_topic("new", [bytes(length)]),
    ):
        with pytest.raises(EntryTooLargeError) as caught:
            call()
        assert isinstance(caught.value, ValueError)
        assert caught.value.limit_bytes == LARGEST
        assert caught.value.length_bytes >= length
    assert wal.topics() == ["t"]
    assert contents(wal, "t") == [b"a"]


def test_a_batch_of_2000_entries_fits_and_one_more_does_not(store):
    wal = store.open(fsync_schedule=NEVER)
    assert wal.batch_append_for_topic("t", [b"x"] * 2000) == range(0, 2000)
    for too_many in ([b"x"] * 2001, (b"x" for _ in range(3000))):
        with pytest.raises(BatchTooLargeError) as caught:
            wal.batch_append_for_topic("t", too_many)
        assert (caught.value.limit, caught.value.unit) == (2000, "entries")
    assert wal.next_offset("t") == 2000


def test_an_endless_iterable_is_refused_in_bounded_time(memory_store):
    def endless():
        while True:
            yield b"x"

    wal = memory_store.open()
    with pytest.raises(BatchTooLargeError):
        wal.batch_append_for_topic("t", endless())
    assert wal.topics() == []


def test_a_batch_over_the_limit_of_bytes_is_refused(memory_store, monkeypatch):
    monkeypatch.setattr(fmt, "BATCH_BYTES_MAX", 1000)
    wal = memory_store.open()
    assert wal.batch_append_for_topic("t", [bytes(500), bytes(500)]) == range(0, 2)
    with pytest.raises(BatchTooLargeError) as caught:
        wal.batch_append_for_topic("t", [bytes(500), bytes(501)])
    assert (caught.value.limit, caught.value.unit) == (1000, "bytes")
    assert wal.next_offset("t") == 2


def test_an_empty_batch_creates_nothing(store):
    wal = store.open()
    assert wal.batch_append_for_topic("new", []) == range(0, 0)
    assert wal.batch_append_for_topic("new", iter(())) == range(0, 0)
    assert wal.topics() == []
    assert store.names(".wal") == []
    wal.append_for_topic("t", b"a")
    assert wal.batch_append_for_topic("t", []) == range(1, 1)


# --- reading --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, -(10**30), True, 1.5, "100", None], ids=repr)
@pytest.mark.parametrize("option", ["max_bytes", "max_entries"])
def test_budgets_are_positive_whole_numbers(memory_store, option, value):
    wal = memory_store.open()
    wal.append_for_topic("t", b"a")
    for topic in ("t", "unknown"):
        with pytest.raises(UsageError):
            wal.batch_read_for_topic(topic, **{option: value})
        with pytest.raises(UsageError):
            wal.batch_read_for_topic(topic, start_offset=0, **{option: value})
    assert wal.cursor_offset("t") == 0


def test_huge_budgets_are_fine(memory_store):
    wal = memory_store.open()
    wal.append_for_topic("t", b"a")
    assert len(wal.batch_read_for_topic("t", 2**80, max_entries=2**80, checkpoint=False)) == 1
    assert len(wal.batch_read_for_topic("t", 2**80, start_offset=0)) == 1


@pytest.mark.parametrize("offset", [3, 4, -1, 2**64, -(2**80)])
def test_a_start_offset_outside_the_log_is_refused(store, offset):
    wal = store.open()
    wal.batch_append_for_topic("t", [b"a", b"b"])
    with pytest.raises(OffsetOutOfRangeError) as caught:
        wal.batch_read_for_topic("t", start_offset=offset)
    assert isinstance(caught.value, LookupError)
    assert (caught.value.offset, caught.value.oldest, caught.value.next) == (offset, 0, 2)
    with pytest.raises(OffsetOutOfRangeError):
        wal.batch_read_for_topic("unknown", start_offset=offset)
    assert wal.batch_read_for_topic("t", start_offset=2) == []
    assert wal.batch_read_for_topic("unknown", start_offset=0) == []


@pytest.mark.parametrize("offset", ["0", 1.0, True, b"0"], ids=repr)
def test_a_start_offset_is_a_whole_number(memory_store, offset):
    wal = memory_store.open()
    wal.batch_append_for_topic("t", [b"a", b"b"])
    for topic in ("t", "unknown"):
        with pytest.raises(UsageError):
            wal.batch_read_for_topic(topic, start_offset=offset)


@pytest.mark.parametrize(
    "cursor", ["", "x" * 256, "a\0", "\ud800", 5, None, [], b"c"], ids=lambda name: repr(name)[:9]
)
def test_invalid_cursor_names_are_refused(memory_store, cursor):
    wal = memory_store.open()
    wal.append_for_topic("t", b"a")
    before = memory_store.read_file("cursors.db")
    for topic in ("t", "unknown"):
        for call in (
            lambda topic=topic: wal.read_next(topic, cursor=cursor),
            lambda topic=topic: wal.batch_read_for_topic(topic, cursor=cursor),
            lambda topic=topic: wal.cursor_offset(topic, cursor),
        ):
            with pytest.raises(InvalidTopicError):
                call()
    with pytest.raises(InvalidTopicError):
        wal.seek("t", 0, cursor)
    assert memory_store.read_file("cursors.db") == before


@pytest.mark.parametrize("policy", ["ignore", "", 5, True])
def test_unknown_corruption_policies_are_refused(memory_store, policy):
    wal = memory_store.open()
    wal.append_for_topic("t", b"a")
    for topic in ("t", "unknown"):
        with pytest.raises(ConfigError):
            wal.read_next(topic, on_corruption=policy)
        with pytest.raises(ConfigError):
            wal.batch_read_for_topic(topic, on_corruption=policy)
    assert wal.cursor_offset("t") == 0


@pytest.mark.parametrize("offset", [-1, 3, 2**70, "1", 1.0, True, None], ids=repr)
def test_seek_stays_inside_the_log(memory_store, offset):
    wal = memory_store.open()
    wal.batch_append_for_topic("t", [b"a", b"b"])
    with pytest.raises(UsageError):
        wal.seek("t", offset)
    assert wal.cursor_offset("t") == 0
    with pytest.raises(UnknownTopicError):
        wal.seek("unknown", 0)


def test_unknown_topics_are_empty_and_stay_unknown(store):
    wal = store.open()
    assert wal.read_next("u") is None
    assert wal.read_next("u", checkpoint=False) is None
    assert wal.batch_read_for_topic("u") == []
    assert wal.batch_read_for_topic("u", start_offset=0) == []
    assert wal.topic_entry_count("u") == wal.topic_size("u") == 0
    assert wal.next_offset("u") == wal.oldest_offset("u") == wal.durable_offset("u") == 0
    assert wal.topic_is_clean("u")
    assert wal.mark_topic_clean("u") is None
    for call in (wal.topic_info, wal.mark_topic_dirty):
        with pytest.raises(UnknownTopicError):
            call("u")
    assert wal.topics() == []
    assert wal.topic_entry_counts() == {}
    assert len(wal.topic("u")) == 0


def test_all_usage_errors_are_walrus_errors():
    for cls in (UsageError, InvalidTopicError, OffsetOutOfRangeError, UnknownTopicError, ConfigError):
        assert issubclass(cls, WalrusError)
        assert issubclass(cls, UsageError)
