"""Marks vouch only for what is published: a sync in the middle of a batch proves nothing of it."""

from __future__ import annotations

from helpers import NEVER, WHOLE_BLOCK, contents, with_faults


def test_a_sync_in_the_middle_of_a_batch_marks_none_of_its_blocks(memory_store, monkeypatch):
    monkeypatch.setattr("walrus_core.syncer.MARK_INTERVAL_S", 0.0)
    wal, _backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"before")
    images = []
    topic = wal._engine.topics["t"]
    adopt = topic.adopt.__func__

    def adopt_and_sync(self, *arguments):
        block = adopt(self, *arguments)
        wal._engine.syncer.sync()
        images.append(memory_store.killed())
        return block

    monkeypatch.setattr(type(topic), "adopt", adopt_and_sync)
    batch = [b"%d" % number * WHOLE_BLOCK for number in range(4)]
    wal.batch_append_for_topic("t", batch)
    images.append(memory_store.killed())
    assert len(images) == 4
    for image in images[:-1]:
        assert contents(image.open(), "t") == [b"before"]
    assert contents(images[-1].open(), "t") == [b"before", *batch]
