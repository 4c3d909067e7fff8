"""What may be used again, and when: slots, sequences, the space of entries that were read.

Found missing by the seeded bugs of tests/mutants: at random these faults need several rare things at once.
"""

from __future__ import annotations

import os

import pytest
from helpers import LOOSE, NEVER, WHOLE_BLOCK, contents, read_all, with_faults

from walrus_core import format as fmt
from walrus_core import pages
from walrus_core.cursorfile import LOG_PAGE, cursor_page_key
from walrus_core.errors import DiskFullError
from walrus_core.flusher import Flusher


def block_of(wal, topic):
    return wal._engine.topics[topic].active


def test_frames_of_the_block_that_was_here_before_are_no_entries(memory_store):
    """A power cut may leave the header page and first frame of a new block over the bytes of an old one."""
    wal = memory_store.open(fsync_schedule=NEVER)
    for number in range(3):
        wal.append_for_topic("t", b"old-%d" % number)
    old = block_of(wal, "t")
    name = memory_store.names(".wal")[0]
    before = memory_store.read_file(name)[old.base : old.base + old.state.at]
    for _ in range(2):
        wal.append_for_topic("t", bytes(WHOLE_BLOCK))
    for _ in range(5):
        wal.read_next("t")
    wal.sync()
    wal.append_for_topic("u", b"new-0")
    new = block_of(wal, "u")
    assert new.base == old.base, "the slot was not leased again"
    assert new.sequence != old.sequence
    # Of equal length: behind the new frame the old ones stand where the next ones would.
    killed = memory_store.killed()
    killed.patch(name, new.base + new.state.at, before[new.state.at :])
    with killed.open() as after:
        assert contents(after, "u") == [b"new-0"]


def test_a_sequence_is_reserved_durably_before_a_block_has_it(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    reserved: list[int] = []

    def look() -> None:
        data = backend.synced_store().files[os.path.join(memory_store.path, fmt.CURSORS_NAME)]
        page = bytes(data[LOG_PAGE * fmt.PAGE_SIZE : (LOG_PAGE + 1) * fmt.PAGE_SIZE])
        state, _damaged, _lost = pages.decode_states(
            page, cursor_page_key(wal._engine.cursors.log_id, LOG_PAGE)
        )
        reserved.append(0 if state is None else state.offset)

    backend.during("write", look, suffix=".wal", times=None)
    wal.append_for_topic("t", b"first")
    assert reserved
    assert min(reserved) > block_of(wal, "t").sequence


def test_a_sequence_that_a_crash_has_lost_is_not_used_again(memory_store):
    wal = memory_store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"t")
    wal.append_for_topic("u", b"u")
    lost = block_of(wal, "u")
    killed = memory_store.killed()
    killed.patch(killed.names(".wal")[0], lost.base, bytes(fmt.PAGE_SIZE))
    with killed.open() as after:
        assert after.topics() == ["t"]
        after.append_for_topic("v", b"v")
        assert block_of(after, "v").sequence > lost.sequence


def test_nothing_is_given_back_that_a_cursor_may_read_again(memory_store):
    wal = memory_store.open(fsync_schedule=NEVER, consistency=LOOSE)
    expected = [bytes([number]) * WHOLE_BLOCK for number in range(6)]
    for data in expected:
        wal.append_for_topic("t", data)
    wal.sync()
    for _ in range(5):
        wal.read_next("t")
    # The background thread syncs and gives back; only a checkpoint would save the cursor.
    wal._engine.tick()
    assert wal.oldest_offset("t") == 0
    with memory_store.killed().open() as after:
        assert after.read_next("t").data == expected[0]
        assert contents(after, "t") == expected


def test_a_block_of_a_batch_that_failed_is_not_taken_for_the_one_that_came_next(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    # The header page of a new block is written, and then the first frame is not.
    rule = backend.fail("write", suffix=".wal", skip=1)
    with pytest.raises(DiskFullError):
        wal.batch_append_for_topic("t", [b"1" * WHOLE_BLOCK, b"2" * WHOLE_BLOCK])
    assert rule.acted
    # Into a block of its own: behind the first one bytes of the batch may stand.
    wal.append_for_topic("t", b"after")
    assert len(wal._engine.topics["t"].blocks) == 2
    # No sync was there to wipe the blocks of the batch, or to mark the one that counts.
    with memory_store.killed().open() as again:
        assert contents(again, "t") == [b"before", b"after"]


def test_a_segment_that_was_removed_does_not_come_back(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    for number in range(6):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.sync()
    assert len(memory_store.names(".wal")) == 2
    removed = backend.during("remove", lambda: None, suffix=".wal")
    while wal.read_next("t") is not None:
        continue
    wal.sync()
    assert removed.acted == 1
    survivors = [os.path.basename(path) for path in backend.synced_store().files if path.endswith(".wal")]
    assert survivors == memory_store.names(".wal")
    assert len(survivors) == 1


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("blocks_per_segment", [2, 8])
def test_an_empty_block_of_an_interrupted_append_waits_for_its_seal(
    memory_store, monkeypatch, blocks_per_segment
):
    """The block after it begins at the same offset, so by offsets alone it could go when that one is read."""
    monkeypatch.setattr(Flusher, "wake", lambda _self: None)
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER, blocks_per_segment=blocks_per_segment)
    wal.append_for_topic("t", b"0" * WHOLE_BLOCK)
    # The header page of the next block is written, and then the frame is not.
    rule = backend.during("write", interrupt, suffix=".wal", skip=1)
    with pytest.raises(KeyboardInterrupt):
        wal.append_for_topic("t", b"1" * WHOLE_BLOCK)
    assert rule.acted
    wal.sync()
    empty = block_of(wal, "t")
    wal.append_for_topic("t", b"after")
    assert empty is not block_of(wal, "t")
    assert empty.first_offset == block_of(wal, "t").first_offset == 1
    assert wal.read_next("t").offset == 0
    wal._engine.reclaimer.run()
    assert wal.oldest_offset("t") == 1
    # Its slot is nobody else's while its seal is to come.
    wal.append_for_topic("u", b"u")
    assert (block_of(wal, "u").segment, block_of(wal, "u").base) != (empty.segment, empty.base)
    wal.sync()
    wal.sync()
    assert empty not in wal._engine.topics["t"].blocks
    assert read_all(wal, "t") == [b"after"]
    with memory_store.killed().open() as again:
        assert again.recovery_report.damages == ()
        assert contents(again, "t") == [b"after"]
        assert contents(again, "u") == [b"u"]


def test_a_block_that_a_reader_passes_on_meanwhile_is_given_up_too(memory_store, monkeypatch):
    monkeypatch.setattr(Flusher, "wake", lambda _self: None)
    wal = memory_store.open(fsync_schedule=NEVER)
    for topic in ("t", "u"):
        for number in range(2):
            wal.append_for_topic(topic, bytes([number]) * WHOLE_BLOCK)
    wal.sync()
    reclaimer, allocator = wal._engine.reclaimer, wal._engine.allocator
    for topic in ("t", "u"):
        wal.read_next(topic)
    give_up, given_up = allocator.give_up, []

    def slowly(segment, slot, slots):
        give_up(segment, slot, slots)
        if not given_up:
            # As if another thread's reader had let go of its topic just now.
            reclaimer._detached.append(late)
        given_up.append((segment.sequence, slot))

    late = wal._engine.topics["u"].blocks.pop(0)
    monkeypatch.setattr(allocator, "give_up", slowly)
    reclaimer.run()
    assert sorted(given_up) == [(1, 0), (1, 2)]
    assert not reclaimer._detached
