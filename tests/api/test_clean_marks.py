"""The clean mark of a topic: set by a call, there after a close or a kill, gone with an append."""

from __future__ import annotations

import pytest
from helpers import NEVER

from walrus_core import batch


def test_clean_marks(store):
    wal = store.open()
    assert wal.topic_is_clean("t")
    wal.append_for_topic("t", b"a")
    assert not wal.topic_is_clean("t")
    wal.mark_topic_clean("t")
    assert wal.topic_is_clean("t")
    assert wal.durable_offset("t") == 1
    wal.read_next("t")
    assert wal.topic_is_clean("t")
    wal.close()
    wal = store.open()
    assert wal.topic_is_clean("t")
    wal.batch_append_for_topic("t", [b"b"])
    assert not wal.topic_is_clean("t")
    wal.mark_topic_clean("t")
    wal.mark_topic_dirty("t")
    assert not wal.topic_is_clean("t")
    wal.mark_topic_dirty("t")
    wal.mark_topic_clean("t")
    killed = store.killed().open()
    assert killed.topic_is_clean("t")
    wal.append_for_topic("t", b"c")
    assert not store.killed().open().topic_is_clean("t")


def test_a_clean_mark_belongs_to_its_topic(store):
    wal = store.open()
    for topic in ("t", "u"):
        wal.append_for_topic(topic, b"a")
    wal.mark_topic_clean("t")
    assert (wal.topic_is_clean("t"), wal.topic_is_clean("u")) == (True, False)


def test_a_clean_close_leaves_out_a_batch_that_was_interrupted(store, monkeypatch):
    """All of its frames may stand there, behind the last one that counts."""
    wal = store.open(fsync_schedule=NEVER, block_size=4 * 2**20)
    wal.append_for_topic("t", b"first")
    final = batch._final

    def interrupted(*arguments):
        final(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "_final", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wal.batch_append_for_topic("t", [b"%05d" % number * 20_000 for number in range(20)])
    monkeypatch.undo()
    assert wal.next_offset("t") == 1
    wal.close()
    with store.open() as again:
        assert again.recovery_report.clean
        assert again.next_offset("t") == 1
        assert again.append_for_topic("t", b"second") == 1
    with store.open() as again:
        assert [entry.data for entry in again.topic("t")] == [b"first", b"second"]


def test_a_clean_mark_from_before_vouches_for_no_block_that_a_batch_has_torn(store, monkeypatch):
    """The first write after a clean open is a batch that is interrupted: the mark is at the same place."""
    with store.open(fsync_schedule=NEVER, block_size=4 * 2**20) as wal:
        wal.append_for_topic("t", b"first")
    wal = store.open(fsync_schedule=NEVER, block_size=4 * 2**20)
    assert wal._engine.topics["t"].active.is_clean

    def interrupted(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch, "_final", interrupted)
        with pytest.raises(KeyboardInterrupt):
            wal.batch_append_for_topic("t", [b"%05d" % number * 20_000 for number in range(20)])
    wal.close()
    with store.open() as again:
        block = again._engine.topics["t"].active
        assert block.is_sealed and block.tail is None
        assert again.append_for_topic("t", b"second") == 1
        assert again._engine.topics["t"].active is not block
