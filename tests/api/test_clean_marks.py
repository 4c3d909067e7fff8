"""The clean mark of a topic: set by a call, there after a close or a kill, gone with an append."""

from __future__ import annotations


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
