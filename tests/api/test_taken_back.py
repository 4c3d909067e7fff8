"""What must not stay behind: of a failed call, of an earlier block, of a size that is not durable.

Each of these was found missing by a seeded bug of tests/mutants.
"""

from __future__ import annotations

import errno
import os

import pytest
from helpers import NEVER, WHOLE_BLOCK, contents, with_faults

from walrus_core import format as fmt
from walrus_core import pages
from walrus_core.cursorfile import LOG_PAGE, PAGES_AT_CREATION, cursor_page_key
from walrus_core.errors import DiskFullError


def pages_named(wal, data: bytes) -> int:
    """Return how many pages the log page of these bytes of cursors.db says there are."""
    page = bytes(data[LOG_PAGE * fmt.PAGE_SIZE : (LOG_PAGE + 1) * fmt.PAGE_SIZE])
    state, _damaged, _lost = pages.decode_states(page, cursor_page_key(wal._engine.cursors.log_id, LOG_PAGE))
    return 0 if state is None else state.floor


def test_the_log_page_names_no_size_that_is_not_durable(memory_store):
    """A power cut may keep the log page and take the size, and the file would look cut by others."""
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    path = os.path.join(memory_store.path, fmt.CURSORS_NAME)
    named: list[tuple[int, int]] = []

    def look() -> None:
        size = len(backend.synced_store().files[path]) // fmt.PAGE_SIZE
        named.append((pages_named(wal, memory_store._memory.files[path]), size))

    backend.during("write", look, suffix=fmt.CURSORS_NAME, times=None)
    for number in range(PAGES_AT_CREATION):
        wal.append_for_topic(f"topic-{number}", b"x")
    assert {count for count, _size in named} == {PAGES_AT_CREATION, 2 * PAGES_AT_CREATION}
    assert all(count <= size for count, size in named), named


def test_a_mark_of_the_block_that_was_here_before_vouches_for_nothing(memory_store):
    """A lost write may leave the marks of the old block behind the header of the new one."""
    wal = memory_store.open(fsync_schedule=NEVER)
    for number in range(3):
        wal.append_for_topic("t", b"old-%d" % number)
    old = wal._engine.topics["t"].active
    for _ in range(2):
        wal.append_for_topic("t", bytes(WHOLE_BLOCK))
    wal.sync()
    name = memory_store.names(".wal")[0]
    marks_at = old.base + fmt.MARK_AT[0]
    marks = memory_store.read_file(name)[marks_at : old.base + fmt.PAGE_SIZE]
    assert any(marks), "the old block has no mark"
    for _ in range(5):
        wal.read_next("t")
    wal.sync()
    wal.append_for_topic("u", b"new-0")
    new = wal._engine.topics["u"].active
    assert new.base == old.base, "the slot was not leased again"
    killed = memory_store.killed()
    killed.patch(name, marks_at, marks)
    with killed.open() as after:
        assert after.next_offset("u") == 1
        assert contents(after, "u") == [b"new-0"]
        assert after.append_for_topic("u", b"new-1") == 1


def test_the_blocks_of_a_failed_batch_are_free_after_the_next_sync(memory_store):
    """Nobody has to use the topic again before others get its slots."""
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    before = wal.topic_info("t")
    # It goes on in three more blocks, and the segment has no slot beyond them. Their header pages are
    # written, and the first frame; then the disk is full.
    rule = backend.fail("write", suffix=".wal", skip=4)
    with pytest.raises(DiskFullError):
        wal.batch_append_for_topic("t", [b"%d" % number * WHOLE_BLOCK for number in range(4)])
    assert rule.acted
    assert wal.topic_info("t") == before
    wal.sync()
    backend.fail("create", times=None)
    for topic in ("u", "v", "w"):
        wal.append_for_topic(topic, b"in a slot of the batch")
    assert len(memory_store.names(".wal")) == 1
    with memory_store.killed().open() as after:
        assert contents(after, "t") == [b"before"]
        assert after.topics() == ["t", "u", "v", "w"]


@pytest.mark.parametrize("call", ["read", "seek"])
def test_a_position_that_could_not_be_written_is_not_found_after_a_crash(memory_store, call):
    """The bytes may have reached the file before the error: then the old position is put over them."""
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    for number in range(4):
        wal.append_for_topic("t", b"%d" % number)
    wal.read_next("t")
    rule = backend.fail("write", number=errno.ENOSPC, suffix=fmt.CURSORS_NAME, written=fmt.SECTOR_SIZE)
    calls = {"read": lambda: wal.read_next("t"), "seek": lambda: wal.seek("t", 3)}
    with pytest.raises(DiskFullError):
        calls[call]()
    assert rule.acted
    assert wal.cursor_offset("t") == 1
    with memory_store.killed().open() as after:
        assert after.read_next("t").data == b"1"
    assert wal.read_next("t").data == b"1", "nothing was poisoned"
