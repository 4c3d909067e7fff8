"""What one completed sync proves, and for whom: found missing by the seeded bugs of tests/mutants."""

from __future__ import annotations

import pytest
from helpers import EACH, run_threads, with_faults

from walrus_core.errors import PoisonedError, StorageError
from walrus_core.syncer import Syncer


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


def test_a_sync_that_does_not_cover_its_caller_acknowledges_nothing(memory_store, monkeypatch):
    wal = memory_store.open(fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    monkeypatch.setattr(Syncer, "_sync_alone", lambda _self, _topic: True)
    with pytest.raises(StorageError, match="did not cover offset 1"):
        wal.append_for_topic("t", b"second")
    assert wal.durable_offset("t") == 1
    with pytest.raises(PoisonedError):
        wal.append_for_topic("t", b"third")
