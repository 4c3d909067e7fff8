"""Marks vouch only for what is published, and each leaves the one before it alone."""

from __future__ import annotations

from helpers import NEVER, WHOLE_BLOCK, contents, with_faults

from walrus_core import format as fmt


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


def test_a_lost_mark_leaves_the_one_before_it(memory_store, monkeypatch):
    monkeypatch.setattr("walrus_core.syncer.MARK_INTERVAL_S", 0.0)
    wal = memory_store.open(fsync_schedule=NEVER)
    for number in range(4):
        wal.append_for_topic("t", b"entry-%d" % number)
        wal.sync()
    block = wal._engine.topics["t"].active
    killed = memory_store.killed()
    newest_at = block.base + fmt.MARK_AT[block.generation % 2]
    killed.patch(killed.names(".wal")[0], newest_at, b"\xff" * fmt.SECTOR_SIZE)
    killed.flip(*killed.find(b"entry-0"))
    with killed.open() as after:
        # Without any mark the damaged frame would be a torn tail, and all of them cut off.
        assert after.next_offset("t") == 4
        assert after.batch_read_for_topic("t", start_offset=1)[0].data == b"entry-1"
