"""A new block is published in one step; what fails before it has not happened, also beside a sync."""

from __future__ import annotations

import errno

import pytest
from helpers import NEVER, contents

from walrus_core.errors import StorageError
from walrus_core.runway import Runway


@pytest.mark.parametrize("count", [1, 9])
def test_what_cannot_be_made_ready_has_not_happened(memory_store, monkeypatch, count):
    """The last step that may fail comes before a new block is published, not behind."""
    wal = memory_store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"first" * 1500)
    extend = Runway.extend

    def fail(self: Runway, size_bytes: int) -> None:
        if size_bytes == 0:
            raise StorageError(path="file", operation="prepare", errno=errno.EIO, reason="no pages")
        extend(self, size_bytes)

    monkeypatch.setattr(Runway, "extend", fail)
    with pytest.raises(StorageError, match="no pages"):
        wal.batch_append_for_topic("t", [b"batch" * 1800] * count)
    monkeypatch.undo()
    assert contents(wal, "t") == [b"first" * 1500]
    assert wal.append_for_topic("t", b"next") == 1
    with memory_store.killed().open() as after:
        assert contents(after, "t") == [b"first" * 1500, b"next"]
    wal.close()


@pytest.mark.parametrize("kept", [b"", b"k" * 5000])
def test_a_block_sealed_while_a_batch_fails_keeps_its_end(memory_store, monkeypatch, kept):
    """The block before a new one has its end when it is published; a sync may seal it before that fails."""
    wal = memory_store.open(fsync_schedule=NEVER)
    expected = [b"first" * 1500, *([kept] if kept else [])]
    for data in expected:
        wal.append_for_topic("t", data)
    block = wal._engine.topics["t"].active
    extend = Runway.extend

    def sync_and_fail(self: Runway, size_bytes: int) -> None:
        if size_bytes == 0:
            wal._engine.syncer.sync()
            raise StorageError(path="file", operation="prepare", errno=errno.EIO, reason="no pages")
        extend(self, size_bytes)

    monkeypatch.setattr(Runway, "extend", sync_and_fail)
    with pytest.raises(StorageError, match="no pages"):
        wal.batch_append_for_topic("t", [b"batch" * 3000] * 2)
    monkeypatch.undo()
    assert block.is_sealed
    assert wal.next_offset("t") == len(expected)
    assert wal.append_for_topic("t", b"next") == len(expected)
    assert contents(wal, "t") == [*expected, b"next"]
    with memory_store.killed().open() as after:
        assert contents(after, "t") == [*expected, b"next"]
    wal.close()


def test_a_batch_that_fails_while_its_block_is_sealed_takes_no_end_away(memory_store, monkeypatch):
    """The sync looks at the end of the block once, and the failure leaves one there."""
    wal = memory_store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"first" * 1500)
    topic = wal._engine.topics["t"]
    block, adopt = topic.active, type(topic).adopt

    def adopt_and_fail(self, *arguments):
        adopt(self, *arguments)
        raise StorageError(path="file", operation="write", errno=errno.EIO, reason="no header")

    monkeypatch.setattr(type(topic), "adopt", adopt_and_fail)
    with pytest.raises(StorageError, match="no header"):
        wal.batch_append_for_topic("t", [b"batch" * 3000] * 2)
    monkeypatch.undo()
    assert block.final is not None and block.final.entries == 1
    wal.sync()
    assert (block.is_sealed, block.tail, wal.durable_offset("t")) == (True, None, 1)
    assert wal.append_for_topic("t", b"next") == 1
    assert contents(wal, "t") == [b"first" * 1500, b"next"]
    wal.close()
