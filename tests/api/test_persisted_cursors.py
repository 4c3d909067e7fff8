"""Positions that ``sync`` and ``close`` make durable: of cursors that move, go back, were interrupted."""

from __future__ import annotations

import errno
import threading

import pytest
from helpers import NEVER, WHOLE_BLOCK, with_faults

from walrus_core import CorruptionError, FsyncSchedule, ReadConsistency
from walrus_core import format as fmt
from walrus_core.cursorfile import CursorFile
from walrus_core.errors import DiskFullError, OffsetOutOfRangeError, PoisonedError, SyncFailedError

GROWTHS_MAX = 3
"""How often cursors.db may double meanwhile, each time with two syncs."""
NOW_AND_THEN = {"fsync_schedule": NEVER, "consistency": ReadConsistency.at_least_once(100)}


def test_a_sync_beside_a_seek_back_leaves_where_it_sought_to(memory_store, monkeypatch):
    """Else blocks behind it would be given back, unread."""
    wal = memory_store.open(**NOW_AND_THEN)
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(50)])
    wal.sync()
    assert len(wal.batch_read_for_topic("t")) == 50
    written, sought = threading.Event(), threading.Event()
    sync = CursorFile.sync

    def late(cursors):
        sync(cursors)
        if threading.current_thread().name == "syncs":
            written.set()
            assert sought.wait(20)

    monkeypatch.setattr(CursorFile, "sync", late)
    syncing = threading.Thread(target=wal.sync, name="syncs")
    syncing.start()
    assert written.wait(20)
    wal.seek("t", 10)
    sought.set()
    syncing.join(timeout=20)
    assert not syncing.is_alive()
    position = wal._engine.cursor(wal._engine.topics["t"], "default")
    assert (position.offset, position.saved_offset, position.page.state.offset) == (10, 10, 10)
    assert memory_store.killed().open().read_next("t").offset == 10


def test_a_sync_persists_a_cursor_that_is_ahead_of_what_is_durable_as_far_as_that_goes(
    memory_store, monkeypatch
):
    """A reader at the end of a busy topic is always ahead."""
    wal = memory_store.open(**NOW_AND_THEN)
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(20)])
    syncer = wal._engine.syncer
    sync = syncer.sync

    def and_then_more():
        sync()
        wal._engine.topics["t"].append(b"more")
        wal._engine.express.bar_tail("t")
        position.ready.move(21)

    assert len(wal.batch_read_for_topic("t")) == 20
    position = wal._engine.cursor(wal._engine.topics["t"], "default")
    with monkeypatch.context() as patch:
        patch.setattr(syncer, "sync", and_then_more)
        wal.sync()
    assert wal.cursor_offset("t") == 21
    assert memory_store.killed().open().cursor_offset("t") == 20


@pytest.mark.parametrize("how", ["a batch read", "a seek"])
def test_a_close_after_an_interrupted_checkpoint_leaves_the_cursor_where_it_stood(
    memory_store, monkeypatch, how
):
    wal = memory_store.open(fsync_schedule=NEVER, consistency=ReadConsistency.at_least_once(2))
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(500)])
    wal.sync()
    wal.seek("t", 2)
    if how == "a seek":
        wal.seek("t", 400)
    stood = wal.cursor_offset("t")
    sync = CursorFile.sync

    def interrupted(_cursors):
        monkeypatch.setattr(CursorFile, "sync", sync)
        raise KeyboardInterrupt

    monkeypatch.setattr(CursorFile, "sync", interrupted)
    call = wal.seek if how == "a seek" else wal.batch_read_for_topic
    with pytest.raises(KeyboardInterrupt):
        call("t", 7)
    assert wal.cursor_offset("t") == stood
    wal.close()
    with memory_store.open() as again:
        assert again.cursor_offset("t") == stood
        assert again.read_next("t").offset == stood


def interrupt_after(monkeypatch, name: str) -> None:
    """Let the next call of this method of cursors.db end with an interrupt, once it has done its work."""
    method = getattr(CursorFile, name)

    def interrupted(self, *arguments):
        monkeypatch.setattr(CursorFile, name, method)
        method(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(CursorFile, name, interrupted)


@pytest.mark.parametrize("name", ["_write_sector", "sync"])
def test_a_seek_that_was_interrupted_is_not_there_after_a_kill(memory_store, monkeypatch, name):
    wal = memory_store.open(**NOW_AND_THEN)
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(50)])
    wal.sync()
    wal.seek("t", 5)
    interrupt_after(monkeypatch, name)
    with pytest.raises(KeyboardInterrupt):
        wal.seek("t", 20)
    assert wal.read_next("t").offset == 5
    assert memory_store.killed().open().read_next("t").offset == 5


@pytest.mark.parametrize("name", ["_write_sector", "sync"])
def test_an_interrupted_reclaim_takes_nothing_that_a_cursor_was_set_back_to(memory_store, monkeypatch, name):
    """What cursors.db may say is the oldest is the oldest for everyone, from before it may say so."""
    wal = memory_store.open(block_size=16384, blocks_per_segment=4, **NOW_AND_THEN)
    for number in range(6):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.sync()
    wal.batch_read_for_topic("t", max_bytes=2**30)
    wal._engine.persist_cursors()
    topic = wal._engine.topics["t"]
    assert wal._engine.reclaimer.request(topic) and topic.low_water == 0
    interrupt_after(monkeypatch, name)
    with pytest.raises(KeyboardInterrupt):
        wal._engine.reclaimer.run()
    oldest = topic.low_water
    # Nobody is told so before it is durable.
    assert oldest == 5 and wal.oldest_offset("t") == 0 and len(topic.blocks) == 6
    with pytest.raises(OffsetOutOfRangeError):
        wal.seek("t", 3)
    wal.seek("t", oldest)
    killed = memory_store.killed().open()
    assert killed.read_next("t").offset == oldest and not killed.recovery_report.damages
    wal.close()
    with memory_store.open() as again:
        assert again.oldest_offset("t") == oldest == again.cursor_offset("t")
        assert again.read_next("t").data == bytes([5]) * WHOLE_BLOCK


def test_an_interrupted_seek_of_a_cursor_whose_position_is_lost_leaves_none_in_its_place(
    memory_store, monkeypatch
):
    """Neither the seek nor the close after it may pretend that it stood at the beginning."""
    with memory_store.open(**NOW_AND_THEN) as wal:
        wal.batch_append_for_topic("t", [b"%d" % number for number in range(50)])
        wal.seek("t", 30)
        number = wal._engine.cursor(wal._engine.topics["t"], "default").page.identity.page
    for at in fmt.STATE_AT:
        memory_store.patch("cursors.db", number * fmt.PAGE_SIZE + at, b"\xa5" * 8)
    wal = memory_store.open(**NOW_AND_THEN)
    with pytest.raises(CorruptionError):
        wal.read_next("t")
    interrupt_after(monkeypatch, "sync")
    with pytest.raises(KeyboardInterrupt):
        wal.seek("t", 20)
    with pytest.raises(CorruptionError):
        wal.read_next("t")
    wal.close()
    with memory_store.open() as again:
        assert again.cursor_offset("t") == 20


def test_a_named_cursor_is_there_after_a_crash_from_its_first_move_on(memory_store):
    """Else it would hold back no reclaim, and go on behind entries that it never read."""
    options = {"fsync_schedule": FsyncSchedule.sync_each(), "consistency": ReadConsistency.at_least_once(100)}
    wal = memory_store.open(**options)
    for number in range(12):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    assert [wal.read_next("t", cursor="slow").offset for _ in range(3)] == [0, 1, 2]
    killed = memory_store.killed()
    wal = killed.open(**options)
    assert wal.cursor_offset("t", "slow") == 1
    assert len(wal.batch_read_for_topic("t", 1 << 30)) == 12
    wal.sync()
    assert wal.oldest_offset("t") <= 1
    assert wal.read_next("t", cursor="slow").offset == 1


def test_a_first_move_that_was_not_made_durable_is_made_so_by_the_next(memory_store):
    wal, backend = with_faults(memory_store, **NOW_AND_THEN)
    wal.batch_append_for_topic("t", [b"%d" % number for number in range(5)])
    wal.sync()
    backend.fail("write", number=errno.ENOSPC, skip=1, times=1)  # of the state, behind the identity
    with pytest.raises(DiskFullError):
        wal.read_next("t", cursor="new")
    assert wal.cursor_offset("t", "new") == 0
    assert wal.read_next("t", cursor="new").offset == 0
    assert memory_store.killed().open().cursor_offset("t", "new") == 1


def test_many_new_cursors_are_persisted_with_two_syncs(memory_store):
    """One for what their pages are, one for where they stand."""
    wal, backend = with_faults(memory_store, **NOW_AND_THEN)
    for number in range(100):
        wal.append_for_topic(f"t{number}", b"x")
        wal.read_next(f"t{number}")
    wal.sync()
    for number in range(100):
        wal.append_for_topic(f"u{number}", b"x")
        wal.read_next(f"u{number}")
    wal._engine.syncer.sync()
    before = backend.calls["sync"]
    assert wal._engine.persist_cursors() is None
    assert backend.calls["sync"] - before <= 2 + 2 * GROWTHS_MAX
    assert memory_store.killed().open().cursor_offset("u99") == 1


@pytest.mark.parametrize("call", ["read", "batch", "seek"])
def test_a_new_cursor_that_was_refused_holds_back_nothing(memory_store, call):
    wal, backend = with_faults(memory_store, **NOW_AND_THEN)
    for number in range(12):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.sync()
    calls = {
        "read": lambda: wal.read_next("t", cursor="new"),
        "batch": lambda: wal.batch_read_for_topic("t", cursor="new"),
        "seek": lambda: wal.seek("t", 1, "new"),
    }
    backend.fail("write", number=errno.ENOSPC, times=1)
    with pytest.raises(DiskFullError):
        calls[call]()
    assert len(wal.batch_read_for_topic("t", 1 << 30)) == 12
    wal.sync()
    assert wal.oldest_offset("t") >= 11
    assert wal.read_next("t", cursor="new").offset == wal.oldest_offset("t")


def test_a_new_cursor_reads_what_is_durable_of_a_poisoned_log(memory_store):
    wal, backend = with_faults(memory_store, **NOW_AND_THEN)
    wal.append_for_topic("t", b"durable")
    wal.sync()
    wal.append_for_topic("t", b"in doubt")
    backend.fail("sync")
    with pytest.raises(SyncFailedError):
        wal.sync()
    assert wal.read_next("t", cursor="new").data == b"durable"
    with pytest.raises(PoisonedError):
        wal.read_next("t", cursor="new")
