"""Rows W19 to W23 of the defects known of the original: each scenario, run against this engine."""

from __future__ import annotations

import os
import random

import pytest
from helpers import LOOSE, NEVER, WHOLE_BLOCK, contents, read_all

from walrus_core import CorruptionError, ReadConsistency, Walrus, WalrusError, pages
from walrus_core.errors import LockedError, OffsetOutOfRangeError
from walrus_core.format import FRAME_HEADER_SIZE, PAGE_SIZE, SEGMENT_HEADER_SIZE
from walrus_core.hot import block_key, frame_size

BLOCK = 16384


# --- W19 ------------------------------------------------------------------------------------


def forged_page(segment: bytes, path: str, slot: int) -> bytes:
    """Return a header page that would be sound in ``slot``, made by someone who read the segment."""
    header, _is_first = pages.decode_segment_header(segment[:SEGMENT_HEADER_SIZE], path, bytes(16), 1)
    key = pages.metadata_key(header.salt)
    block = pages.BlockHeader(header.sequence, slot, 1, 999, 1, 0, 0, b"forged")
    mark = pages.Mark(999, 1, 1, 8192, 50, 1000, 0, 0)
    page = bytearray(pages.encode_block_header(block, key))
    page[6 * 512 : 6 * 512 + 64] = pages.encode_mark(mark, key)
    return bytes(page)


@pytest.mark.parametrize("content", ["length", "page", "image", "random"])
def test_w19_a_payload_is_never_taken_for_structure(store, content):
    """A payload over three blocks, with something that looks like a block where each block begins."""
    wal = store.open()
    wal.append_for_topic("t", b"before")
    wal.sync()
    name = store.names(".wal")[0]
    segment = store.read_file(name)
    payload = bytearray(40_000)
    for slot in (2, 3):
        # The large entry will lie in the slots 1 to 3.
        at = (slot - 1) * BLOCK - PAGE_SIZE - FRAME_HEADER_SIZE
        filler = {
            "length": b"\xc8\x00" * 2048,
            "page": forged_page(segment, name, slot),
            "image": segment[SEGMENT_HEADER_SIZE : SEGMENT_HEADER_SIZE + BLOCK],
            "random": random.Random(19).randbytes(BLOCK),
        }[content]
        payload[at : at + len(filler)] = filler[: len(payload) - at]
    assert wal.append_for_topic("t", bytes(payload)) == 1
    wal.append_for_topic("t", b"after")
    wal.append_for_topic("other", b"x" * 1000)
    assert store.find(b"after")[0] == name
    killed = store.killed()
    wal.close()
    for state in (killed, store):
        again = state.open()
        assert again.topics() == ["other", "t"]
        assert contents(again, "t") == [b"before", bytes(payload), b"after"]
        assert contents(again, "other") == [b"x" * 1000]
        assert again.recovery_report.damages == ()


def test_w19_a_copy_of_the_block_inside_a_payload_is_no_source_of_entries(store):
    """Behind a damaged header the scan looks for the next frame; it must not find one in the payload."""
    wal = store.open()
    for number in range(4):
        wal.append_for_topic("t", b"entry-%d" % number)
    wal.sync()
    segment = store.read_file(store.names(".wal")[0])
    image = segment[SEGMENT_HEADER_SIZE + PAGE_SIZE : SEGMENT_HEADER_SIZE + PAGE_SIZE + 4 * frame_size(7)]
    assert b"entry-3" in image
    wal.append_for_topic("t", image + b"outer")
    wal.append_for_topic("t", b"genuine")
    wal.close()
    name, at = store.find(b"outer")
    store.flip(name, at - len(image) - FRAME_HEADER_SIZE + 8)
    again = store.open(on_corruption="skip")
    assert read_all(again, "t") == [*(b"entry-%d" % number for number in range(4)), b"genuine"]
    assert [(damage.first_offset, damage.end_offset) for damage in again.damages] == [(4, 5)]


@pytest.mark.parametrize("seed", range(60))
def test_w19_random_bytes_anywhere_give_entries_or_typed_errors(memory_store, seed):
    random_source = random.Random(seed)
    wal = memory_store.open(fsync_schedule=NEVER)
    expected = {}
    for topic in ("a", "b"):
        expected[topic] = [
            random_source.randbytes(random_source.choice([0, 5, 300, 20_000])) for _ in range(15)
        ]
        wal.batch_append_for_topic(topic, expected[topic])
    wal.read_next("a")
    if seed % 2:
        wal.close()
    broken = memory_store.killed()
    for _ in range(random_source.choice([1, 3, 10])):
        name = random_source.choice(broken.names())
        size = len(broken.read_file(name))
        length = random_source.choice([1, 8, 600, 5000])
        at = random_source.randrange(max(1, size - length))
        broken.patch(name, at, random_source.randbytes(min(length, size - at)))
    try:
        again = broken.open(on_corruption="skip")
    except WalrusError:
        return
    for topic, payloads in expected.items():
        for entry in again.topic(topic):
            assert entry.data == payloads[entry.offset]
        try:
            assert again.cursor_offset(topic) <= (1 if topic == "a" else 0), "a cursor may only fall back"
            read_all(again, topic)
        except CorruptionError:
            again.seek(topic, again.oldest_offset(topic))
    offset = again.append_for_topic("a", b"after")
    assert again.batch_read_for_topic("a", start_offset=offset)[0].data == b"after"


@pytest.mark.parametrize("keep_bytes", [0, 100, 4096, 8192, 8192 + 4096, 30_000])
def test_w19_a_truncated_index_is_an_error_not_a_fresh_start(store, keep_bytes):
    """The original starts from zero, silently, where its index is damaged or too short."""
    wal = store.open()
    wal.append_for_topic("t", b"a")
    wal.read_next("t")
    wal.close()
    store.write_file("cursors.db", store.read_file("cursors.db")[:keep_bytes])
    with pytest.raises(CorruptionError) as caught:
        store.open()
    assert "cursors.db" in caught.value.path


# --- W20 ------------------------------------------------------------------------------------


def test_w20_empty_payloads_are_entries(store):
    wal = store.open()
    wal.append_for_topic("t", b"")
    wal.batch_append_for_topic("t", [b"", b"x", b""])
    assert [entry.data for entry in wal.batch_read_for_topic("t", checkpoint=False)] == [b"", b"", b"x", b""]
    killed = store.killed().open()
    assert [entry.offset for entry in killed.batch_read_for_topic("t", 1)] == [0, 1, 2, 3]
    assert wal.read_next("t").data == b""
    assert wal.topic_entry_count("t") == 3


def test_w20_a_batch_of_only_empty_entries_is_not_the_end(store):
    wal = store.open()
    wal.batch_append_for_topic("t", [b""] * 700)
    assert len(wal.batch_read_for_topic("t", 1)) == 700
    assert wal.batch_read_for_topic("t", 1) == []


# --- W21 ------------------------------------------------------------------------------------


def test_w21_stateless_reads_start_at_exactly_the_offset(store):
    """The original takes a byte offset, hides short leading entries and may cut a payload."""
    wal = store.open(fsync_schedule=NEVER)
    payloads = [b"%d" % number * (1 + number % 40) for number in range(400)]
    wal.batch_append_for_topic("t", payloads)
    assert wal.topic_info("t").block_count > 1
    for offset in (0, 1, 150, 211, 399):
        entries = wal.batch_read_for_topic("t", 5000, start_offset=offset)
        assert entries[0].offset == offset
        assert [entry.data for entry in entries] == payloads[offset : offset + len(entries)]
    assert wal.batch_read_for_topic("t", start_offset=400) == []
    for offset in (401, -1, 2**70):
        with pytest.raises(OffsetOutOfRangeError):
            wal.batch_read_for_topic("t", start_offset=offset)


@pytest.mark.parametrize("persist_every", [1, 1000])
def test_w21_a_stateless_read_moves_no_cursor(store, persist_every):
    wal = store.open(consistency=ReadConsistency.at_least_once(persist_every))
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(10)])
    wal.read_next("t")
    assert len(wal.batch_read_for_topic("t", checkpoint=True, start_offset=5)) == 5
    assert (wal.cursor_offset("t"), wal.topic_entry_count("t")) == (1, 9)
    assert wal.read_next("t").data == b"1"


# --- W22 ------------------------------------------------------------------------------------


def test_w22_a_clock_that_steps_back_reverses_nothing(store):
    now = [2_000_000_000_000_000_000]
    for run in range(4):
        wal = store.open(clock=lambda: now[0])
        wal.append_for_topic("t", b"run-%d" % run * 2000)
        wal.append_for_topic("t", b"again-%d" % run * 2000)
        wal.close()
        now[0] -= 86_400_000_000_000
    wal = store.open(clock=lambda: 0)
    runs = [part for run in range(4) for part in (b"run-%d" % run, b"again-%d" % run)]
    assert contents(wal, "t") == [part * 2000 for part in runs]
    stamps = [entry.timestamp for entry in wal.topic("t")]
    assert stamps == sorted(stamps, reverse=True)
    names = store.names(".wal")
    assert names == [f"{number:020d}.wal" for number in range(1, len(names) + 1)]


def test_w22_a_segment_never_replaces_a_file_that_is_there(file_store):
    wal = file_store.open()
    wal.append_for_topic("t", b"a")
    path = os.path.join(file_store.path, "00000000000000000002")
    for suffix in (".wal", ".free"):
        with open(path + suffix, "wb") as other:
            other.write(b"of another process")

    def append_until_a_segment_is_needed() -> None:
        for number in range(9):
            wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)

    with pytest.raises(WalrusError):
        append_until_a_segment_is_needed()
    for suffix in (".wal", ".free"):
        with open(path + suffix, "rb") as other:
            assert other.read() == b"of another process"
    assert contents(wal, "t")[0] == b"a"


# --- W23 ------------------------------------------------------------------------------------


def test_w23_a_second_log_on_the_directory_is_refused_in_one_process(store):
    wal = store.open()
    wal.append_for_topic("t", b"one")
    with pytest.raises(LockedError) as caught:
        store.open()
    assert caught.value.pid == os.getpid()
    assert str(os.getpid()) in str(caught.value)
    assert wal.append_for_topic("t", b"two") == 1
    wal.close()
    assert contents(store.open(), "t") == [b"one", b"two"]


def test_w23_two_paths_to_one_directory_are_one(file_store, tmp_path):
    file_store.open()
    link = tmp_path / "link"
    link.symlink_to(file_store.path)
    with pytest.raises(LockedError):
        Walrus(str(link), backend=file_store.backend())


IN_ANOTHER_PROCESS = """
from walrus_core import Walrus
from walrus_core.errors import LockedError
from walrus_fd.backend import FdBackend
try:
    Walrus(arguments[0], backend=FdBackend())
except LockedError as error:
    assert error.pid == int(arguments[1]), error
    assert arguments[1] in str(error)
    print("refused")
"""


def test_w23_another_process_is_refused_and_told_who_has_it(file_store, file_kind, run_child):
    file_kind("fd")
    wal = file_store.open()
    wal.append_for_topic("t", b"one")
    assert run_child(IN_ANOTHER_PROCESS, file_store.path, os.getpid()).stdout == "refused\n"
    assert wal.append_for_topic("t", b"two") == 1
    wal.close()
    assert run_child(IN_ANOTHER_PROCESS, file_store.path, 0).stdout == ""


def test_w23_a_failed_attempt_leaves_the_lock_as_it_was(store):
    first = store.open(consistency=LOOSE)
    for _ in range(3):
        with pytest.raises(LockedError):
            store.open()
    first.close()
    for _ in range(3):
        store.open().close()


def test_w23_keys_of_blocks_differ_between_logs_and_blocks():
    """What keeps bytes of one log, or of an earlier block, from being taken for those of another."""
    keys = {block_key(salt, sequence) for salt in range(40) for sequence in range(40)}
    assert len(keys) == 1600
