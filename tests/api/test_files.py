"""Files that were cut short, overwritten or exchanged: what opening the directory makes of them."""

from __future__ import annotations

import os

import pytest
from helpers import LOOSE, NEVER, WHOLE_BLOCK, contents, read_all, two_topics, with_faults, with_version

from walrus_core import CorruptionError
from walrus_core.errors import UnsupportedVersionError
from walrus_core.findings import DAMAGE
from walrus_core.format import (
    BLOCK_COPY_AT,
    FRAME_HEADER_SIZE,
    MARK_AT,
    PAGE_SIZE,
    SEGMENT_COPY_AT,
    SEGMENT_HEADER_SIZE,
    SEGMENT_HEADER_USED,
)
from walrus_core.verify import verify_directory

FIRST = "00000000000000000001.wal"


# --- versions and features ---------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 2**32 - 1])
def test_a_newer_segment_is_refused_as_such_and_left_alone(store, version):
    two_topics(store)
    data = store.read_file(FIRST)
    for at in (0, SEGMENT_COPY_AT):
        store.patch(FIRST, at, with_version(data, at, SEGMENT_HEADER_USED, version))
    before = {name: store.read_file(name) for name in store.names()}
    with pytest.raises(UnsupportedVersionError) as caught:
        store.open()
    assert (caught.value.found, caught.value.supported) == (version, 1)
    assert caught.value.path.endswith(FIRST)
    assert not isinstance(caught.value, CorruptionError)
    assert {name: store.read_file(name) for name in store.names()} == before


@pytest.mark.parametrize("at", [16, 24])
def test_unknown_features_are_refused(store, at):
    two_topics(store)
    data = bytearray(store.read_file(FIRST))
    data[at] = 1
    for place in (0, SEGMENT_COPY_AT):
        store.patch(FIRST, place, with_version(bytes(data), 0, SEGMENT_HEADER_USED, 1))
    with pytest.raises(UnsupportedVersionError):
        store.open()


# --- segments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 8, 100, 511])
def test_a_segment_header_is_read_from_its_copy(store, place):
    two_topics(store)
    store.flip(FIRST, place)
    wal = store.open()
    assert [damage.kind for damage in wal.recovery_report.damages] == ["segment header, read from its copy"]
    assert contents(wal, "u") == [b"u"]
    assert wal.next_offset("t") == 6


def test_a_segment_whose_header_is_lost_is_reported_and_left_alone(store):
    two_topics(store)
    store.flip(FIRST, 40)
    store.flip(FIRST, SEGMENT_COPY_AT + 40)
    before = store.read_file(FIRST)
    wal = store.open(on_corruption="skip", consistency=LOOSE)
    damages = {(damage.kind, damage.topic) for damage in wal.recovery_report.damages}
    assert ("segment header", None) in damages
    assert ("missing block", "t") in damages
    assert wal.next_offset("t") == 6
    assert [entry.offset for entry in wal.batch_read_for_topic("t", 1 << 20)] == [4, 5]
    for number in range(8):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    read_all(wal, "t")
    wal.close()
    assert store.read_file(FIRST) == before


@pytest.mark.parametrize(
    "size", [0, 1, 600, 33_000, SEGMENT_HEADER_SIZE, SEGMENT_HEADER_SIZE + 20_000, 131_071]
)
def test_a_truncated_segment_is_reported_and_what_is_left_is_read(store, size):
    two_topics(store)
    store.write_file(FIRST, store.read_file(FIRST)[:size])
    wal = store.open(on_corruption="skip", consistency=LOOSE)
    kinds = {damage.kind for damage in wal.recovery_report.damages}
    assert kinds & {"segment truncated", "segment header", "segment header, read from its copy"}
    assert wal.next_offset("t") == 6
    found = {entry.offset: entry.data for entry in wal.batch_read_for_topic("t", 1 << 20, start_offset=4)}
    assert found == {4: bytes([4]) * WHOLE_BLOCK, 5: bytes([5]) * WHOLE_BLOCK}
    for entry in wal.topic("t"):
        assert entry.data == bytes([entry.offset]) * WHOLE_BLOCK
    assert wal.append_for_topic("t", b"after") == 6
    wal.close()
    assert contents(store.open(on_corruption="skip"), "t")[-1] == b"after"


def test_a_missing_segment_is_reported(store):
    two_topics(store)
    names = store.names(".wal")
    assert len(names) == 2
    if store.kind == "memory":
        del store._memory.files[os.path.join(store.path, FIRST)]
    else:
        os.unlink(os.path.join(store.path, FIRST))
    wal = store.open()
    assert ("missing block", "t") in {(damage.kind, damage.topic) for damage in wal.recovery_report.damages}
    with pytest.raises(CorruptionError):
        wal.read_next("t")
    assert wal.read_next("t", on_corruption="skip").offset == 4


def test_a_segment_under_the_name_of_another_is_not_believed(store):
    two_topics(store)
    store.write_file("00000000000000000007.wal", store.read_file(FIRST))
    wal = store.open()
    assert [damage.kind for damage in wal.recovery_report.damages] == ["segment name"]
    assert len(contents(wal, "t")) == 6
    wal.close()
    assert "00000000000000000007.wal" in store.names()


def test_a_segment_of_another_log_is_reported_and_left_alone(make_store, store):
    other = make_store("memory", "other")
    wal = other.open()
    wal.append_for_topic("t", b"of the other log")
    wal.close()
    stranger = other.read_file(FIRST)
    two_topics(store)
    store.write_file("00000000000000000005.wal", stranger)
    for _ in range(2):
        wal = store.open()
        assert wal.recovery_report.foreign_files == ("00000000000000000005.wal",)
        assert wal.recovery_report.damages == ()
        for number in range(4):
            wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
        assert b"of the other log" not in contents(wal, "t")
        wal.close()
    read_all(store.open(consistency=LOOSE), "t")
    assert store.read_file("00000000000000000005.wal") == stranger


def test_swapped_segments_are_noticed(store):
    two_topics(store)
    first, second = store.names(".wal")
    data = store.read_file(first)
    store.write_file(first, store.read_file(second))
    store.write_file(second, data)
    wal = store.open(on_corruption="skip")
    assert [damage.kind for damage in wal.recovery_report.damages][:2] == ["segment name", "segment name"]
    assert all(entry.data == bytes([entry.offset]) * WHOLE_BLOCK for entry in wal.topic("t"))


@pytest.mark.parametrize("copy", [0, 1536])
def test_swapped_blocks_are_noticed(store, copy):
    """Whole slots exchanged: each header names the slot that it was written for."""
    two_topics(store)
    data = store.read_file(FIRST)
    slots = [data[SEGMENT_HEADER_SIZE + slot * 16384 :][:16384] for slot in range(2)]
    for slot in range(2):
        store.patch(FIRST, SEGMENT_HEADER_SIZE + slot * 16384, slots[1 - slot])
        store.flip(FIRST, SEGMENT_HEADER_SIZE + slot * 16384 + copy)
    wal = store.open(on_corruption="skip")
    assert [damage.kind for damage in wal.recovery_report.damages][:2] == ["block header", "block header"]
    assert all(entry.data == bytes([entry.offset]) * WHOLE_BLOCK for entry in wal.topic("t"))


def test_swapped_bodies_are_noticed(memory_store):
    two_topics(memory_store)
    data = memory_store.read_file(FIRST)
    bodies = [
        data[SEGMENT_HEADER_SIZE + slot * 16384 + PAGE_SIZE :][: 16384 - PAGE_SIZE] for slot in range(2)
    ]
    for slot in range(2):
        memory_store.patch(FIRST, SEGMENT_HEADER_SIZE + slot * 16384 + PAGE_SIZE, bodies[1 - slot])
    wal = memory_store.open()
    for offset in (0, 1):
        with pytest.raises(CorruptionError) as caught:
            wal.batch_read_for_topic("t", start_offset=offset)
        assert (caught.value.offset, caught.value.end_offset) == (offset, offset + 1)
    assert wal.batch_read_for_topic("t", 1, start_offset=2)[0].data == bytes([2]) * WHOLE_BLOCK


@pytest.mark.parametrize("sector", [6, 7])
def test_a_lost_mark_is_made_up_for_by_a_scan(store, sector):
    two_topics(store)
    for name in store.names(".wal"):
        for slot in range(4):
            store.patch(name, SEGMENT_HEADER_SIZE + slot * 16384 + sector * 512, b"\xff" * 64)
    wal = store.open()
    assert wal.next_offset("t") == 6
    assert contents(wal, "t") == [bytes([number]) * WHOLE_BLOCK for number in range(6)]
    assert contents(wal, "u") == [b"u"]


def test_both_marks_lost(store):
    two_topics(store)
    for name in store.names(".wal"):
        for slot in range(4):
            if any(store.read_file(name)[SEGMENT_HEADER_SIZE + slot * 16384 :][:100]):
                store.patch(name, SEGMENT_HEADER_SIZE + slot * 16384 + 6 * 512, b"\xff" * 1024)
    wal = store.open()
    assert contents(wal, "t") == [bytes([number]) * WHOLE_BLOCK for number in range(6)]
    assert contents(wal, "u") == [b"u"]


# --- what a crash leaves -------------------------------------------------------------------------


def test_garbage_behind_the_last_frame_is_a_torn_tail(store):
    wal = store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"sound")
    wal.append_for_topic("t", b"torn off")
    killed = store.killed()
    name, at = killed.find(b"torn off")
    killed.patch(name, at + 4, bytes(4))
    again = killed.open()
    assert contents(again, "t") == [b"sound"]
    report = again.recovery_report
    assert report.damages == ()
    assert not report.clean
    assert [(cut.topic, cut.offset, cut.reason) for cut in report.cuts] == [("t", 1, "torn tail")]
    assert again.append_for_topic("t", b"next") == 1
    again.close()
    again = killed.open()
    assert again.recovery_report.cuts == ()
    assert contents(again, "t") == [b"sound", b"next"]


@pytest.mark.parametrize("holds_frames", [True, False])
def test_frames_behind_a_torn_header_page_do_not_vanish_without_a_word(store, holds_frames):
    """Without a mark it may be a lease that the crash tore, or a block whose header copies are damaged."""
    wal = store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"t")
    wal.append_for_topic("u", b"lost with its block")
    killed = store.killed()
    name, at = killed.find(b"lost with its block")
    base = at - FRAME_HEADER_SIZE - PAGE_SIZE
    killed.patch(name, base, b"\xff" * MARK_AT[0])
    if not holds_frames:
        killed.patch(name, base + PAGE_SIZE, bytes(100))
    again = killed.open()
    assert again.topics() == ["t"] or contents(again, "u") == []
    report = again.recovery_report
    found = [(cut.topic, os.path.basename(cut.path), cut.at_bytes, cut.reason) for cut in report.cuts]
    expected = [("", name, base, "frames behind a header page that is torn")]
    assert found == (expected if holds_frames else [])
    again.append_for_topic("v", b"in its slot")
    again.close()
    assert killed.open().recovery_report.cuts == ()


def test_sound_frames_behind_a_cut_are_copied_aside(store):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(6):
        wal.append_for_topic("t", b"entry-%d" % number)
    killed = store.killed()
    name, at = killed.find(b"entry-3")
    killed.patch(name, at, b"ENTRY")
    again = killed.open()
    assert contents(again, "t") == [b"entry-0", b"entry-1", b"entry-2"]
    cut = again.recovery_report.cuts[0]
    assert cut.offset == 3
    evidence = killed.read_file(os.path.basename(cut.evidence_path))
    for number in (0, 4, 5):
        assert b"entry-%d" % number in evidence
    assert again.recovery_report.foreign_files == ()
    for number in range(9):
        again.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    again.close()
    assert killed.open().recovery_report.damages == ()
    assert killed.read_file(os.path.basename(cut.evidence_path)) == evidence


def test_opening_again_changes_nothing_more(store):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(5):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.append_for_topic("u", b"u")
    killed = store.killed()
    killed.open().close()
    before = {name: killed.read_file(name) for name in killed.names()}
    for _ in range(3):
        wal = killed.open()
        assert wal.recovery_report.clean
        assert wal.recovery_report.scanned_bytes == 0
        wal.close()
    assert {name: killed.read_file(name) for name in killed.names()} == before


def test_a_large_entry_whose_header_page_is_lost_is_reported_and_left_alone(memory_store):
    """No crash does that: the header page is durable before the first byte of the entry is written."""
    wal = memory_store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    wal.sync()
    wal.append_for_topic("u", b"\x5a" * 40_000)
    killed = memory_store.killed()
    killed.patch(FIRST, SEGMENT_HEADER_SIZE + 16384, bytes(PAGE_SIZE))
    before = killed.read_file(FIRST)[SEGMENT_HEADER_SIZE + 16384 :]
    again = killed.open()
    assert {damage.kind for damage in again.recovery_report.damages} == {"block header"}
    assert contents(again, "t") == [b"before"]
    assert again.topics() == ["t"]
    assert again.append_for_topic("u", b"\x5b" * 40_000) == 0
    again.sync()
    assert killed.read_file(FIRST)[SEGMENT_HEADER_SIZE + 2 * 16384 :] == before[16384:]


@pytest.mark.parametrize(("length", "syncs"), [(100, 0), (40_000, 1)])
def test_a_block_of_several_slots_syncs_its_header_page_first(memory_store, length, syncs):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    backend.reset()
    wal.append_for_topic("u", bytes(length))
    assert backend.calls["sync"] == syncs


@pytest.mark.parametrize("copy", [0, 1])
def test_a_header_of_cursors_db_that_a_power_cut_tore_is_whole_after_the_next_open(memory_store, copy):
    """One of its copies was never written: another bad sector must not cost the log."""
    with memory_store.open(fsync_schedule=NEVER) as wal:
        wal.append_for_topic("t", b"a")
    whole = memory_store.read_file("cursors.db")[: 2 * PAGE_SIZE]
    memory_store.patch("cursors.db", copy * PAGE_SIZE, bytes(PAGE_SIZE))
    assert not [
        found
        for found in verify_directory(memory_store.backend(), memory_store.path).findings
        if found.category == DAMAGE
    ]
    with memory_store.open() as wal:
        assert wal.recovery_report.damages == ()
    assert memory_store.read_file("cursors.db")[: 2 * PAGE_SIZE] == whole
    assert verify_directory(memory_store.backend(), memory_store.path).is_sound


@pytest.mark.parametrize("copy", [0, 1])
def test_a_block_header_that_a_power_cut_tore_is_whole_after_the_next_open(memory_store, copy):
    wal = memory_store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"a")
    block = wal._engine.topics["t"].active
    killed = memory_store.killed()
    name, at = block.file.path.rsplit("/", 1)[1], block.base
    header = killed.read_file(name)[at : at + MARK_AT[0]]
    killed.patch(name, at + copy * BLOCK_COPY_AT, bytes(BLOCK_COPY_AT))
    assert killed.read_file(name)[at : at + MARK_AT[0]] != header
    with killed.open() as again:
        assert [entry.data for entry in again.topic("t")] == [b"a"]
    assert killed.read_file(name)[at : at + MARK_AT[0]] == header
    assert verify_directory(killed.backend(), killed.path).is_sound
