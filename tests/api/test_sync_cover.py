"""What one completed sync proves, and for whom: found missing by the seeded bugs of tests/mutants."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from helpers import EACH, NEVER, contents, run_threads, with_faults

from walrus_core import batch, pages
from walrus_core import format as fmt
from walrus_core.errors import DiskFullError, PoisonedError, StorageError
from walrus_core.files import FileCache
from walrus_core.gate import Gate
from walrus_core.syncer import Syncer
from walrus_core.testing import FaultyBackend
from walrus_core.topic import Topic


def test_a_sync_covers_what_was_there_when_it_began(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    seen: list[int] = []

    def meanwhile() -> None:
        seen.append(wal.durable_offset("t"))
        if len(seen) == 1:
            run_threads([lambda: wal.append_nowait("t", b"meanwhile")])

    backend.during("sync", meanwhile, times=2)
    wal.append_for_topic("t", b"second")
    wal.wait_durable("t", 2)
    # The second sync begins, and of what the first one met on its way nothing is durable yet.
    assert seen == [1, 2]


@pytest.mark.timeout(20)
def test_a_sync_that_does_not_cover_its_caller_acknowledges_nothing(memory_store, monkeypatch):
    wal = memory_store.open(fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    monkeypatch.setattr(Syncer, "_sync_alone", lambda _self, _topic: True)
    with pytest.raises(StorageError, match="did not cover offset 1"):
        wal.append_for_topic("t", b"second")
    assert wal.durable_offset("t") == 1
    with pytest.raises(PoisonedError):
        wal.append_for_topic("t", b"third")


def test_a_sync_seals_no_block_of_a_batch_that_fails_meanwhile(memory_store, monkeypatch):
    """Its end would count as that of the topic, and what is acknowledged after it be left out."""
    options = {"block_size": 16384, "blocks_per_segment": 8}
    wal, backend = with_faults(memory_store, fsync_schedule=EACH, **options)
    wal.append_for_topic("u", b"x")
    wal.append_for_topic("t", b"first" * 2000)
    under_way, failed = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: wal.append_for_topic("u", b"y"))

    def sync_goes_on() -> None:
        under_way.set()
        assert failed.wait(20)

    def full(*_arguments: object) -> None:
        backend.during("sync", sync_goes_on)
        other.start()
        assert under_way.wait(20)
        raise DiskFullError(path="x", operation="write", errno=errno.ENOSPC, reason="full")

    with monkeypatch.context() as patch:
        patch.setattr(batch, "_write_file", full)
        with pytest.raises(DiskFullError):
            wal.batch_append_for_topic("t", [b"a" * 10_000, b"b" * 1000])
    failed.set()
    other.join(timeout=20)
    assert not other.is_alive()
    for number in (1, 2):
        assert wal.append_for_topic("t", b"%d" % number) == number
    with memory_store.killed().open(**options) as again:
        assert contents(again, "t") == [b"first" * 2000, b"1", b"2"]


def test_a_sync_vouches_for_no_block_that_is_not_published(memory_store):
    wal = memory_store.open(fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    engine = wal._engine
    topic = engine.topics["t"]
    with topic.lock:
        topic.bar()
        # As a batch leaves it whose last step is still to come: written, and in a block of its own.
        lease = engine.allocator.lease(4096, 8192)
        block = topic.adopt(lease, topic.next_offset, topic.last_sequence())
        assert block.tail.append(b"may yet fail") == 1
        topic.unsynced[:] = [block]
        wal.sync()
        assert topic.durable_offset == topic.next_offset == 1
        topic.withdraw([block])
    assert wal.append_for_topic("t", b"second") == 1


def test_a_mark_vouches_for_nothing_that_came_while_its_sync_began(memory_store, monkeypatch):
    wal = memory_store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"first")
    begin_sync = Topic.begin_sync

    def begin_slowly(topic):
        end_offset = topic.next_offset
        run_threads([lambda: wal.append_for_topic("t", b"meanwhile")])
        return end_offset, begin_sync(topic)[1]

    monkeypatch.setattr(Topic, "begin_sync", begin_slowly)
    wal.sync()
    monkeypatch.undo()
    assert wal.durable_offset("t") == 1
    block = wal._engine.topics["t"].active
    page = memory_store.read_file(memory_store.names(".wal")[0])[block.base : block.base + fmt.PAGE_SIZE]
    mark, _is_newest = pages.decode_mark(page, block.segment.key, block.sequence, block.length_bytes)
    assert mark is None or mark.entry_count <= 1


def test_an_open_makes_the_names_of_what_it_found_durable(memory_store):
    """Who was killed between making a segment and the sync of the directory leaves that to the next."""
    wal = memory_store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"t")
    killed = memory_store.killed()
    backend = FaultyBackend(killed.backend())
    rule = backend.during("sync_dir", lambda: None, suffix=os.path.basename(killed.path))
    with killed.open(backend=backend):
        assert rule.acted == 1


def test_a_file_stays_open_until_its_bytes_are_synced(memory_store):
    """A write-back error is told to the descriptors that were open: another one may never hear of it."""
    backend = memory_store.backend()
    backend.make_directory(memory_store.path)
    files = FileCache(backend, 1, Gate(memory_store.path, lambda _error: None, True, ()))
    paths = [os.path.join(memory_store.path, name) for name in ("written", "read")]
    written, _read = (files.add(path, backend.create(path, size_bytes=4096)) for path in paths)
    written.write(0, b"bytes")
    handle = written.handle
    others = [files.add(paths[1]) for _ in range(3)]
    for other in others:
        other.read(0, 1)
    assert written.handle is handle
    written.sync()
    files.add(paths[1]).read(0, 1)
    assert written.handle is None
    files.close()


@pytest.mark.parametrize("alone", [True, False])
def test_a_write_beside_a_sync_needs_another_one(memory_store, alone):
    backend = FaultyBackend(memory_store.backend())
    backend.make_directory(memory_store.path)
    files = FileCache(backend, 10, Gate(memory_store.path, lambda _error: None, True, ()))
    path = os.path.join(memory_store.path, "file")
    file = files.add(path, backend.create(path, size_bytes=4096))
    sync = (lambda: files.sync_one(file)) if alone else (lambda: files.sync([file]))
    file.write(0, b"first")
    backend.during("sync", lambda: file.write(8, b"meanwhile"))
    sync()
    assert file.is_dirty
    sync()
    assert not file.is_dirty
    files.close()
