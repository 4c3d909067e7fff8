"""What a batch read costs: as many reads of files as it needs, and none to learn that it is done."""

from __future__ import annotations

import random

import pytest
from helpers import NEVER

from walrus_core.files import LogFile


@pytest.fixture
def reads(monkeypatch):
    """Counts reads of files."""
    seen: list[str] = []
    read = LogFile._read

    def counted(self, call):
        seen.append(self.path)
        return read(self, call)

    monkeypatch.setattr(LogFile, "_read", counted)
    return seen


def filled(store, size_bytes, count):
    wal = store.open(fsync_schedule=NEVER, block_size=2**20)
    payloads = [random.Random(number).randbytes(size_bytes) for number in range(count)]
    wal.batch_append_for_topic("t", payloads)
    return wal, payloads


@pytest.mark.parametrize(("size_bytes", "each"), [(64 * 1024, 4), (100, 50)], ids=["large", "small"])
@pytest.mark.parametrize("by", ["max_bytes", "max_entries"])
def test_a_batch_that_ends_within_a_block_is_read_at_once(store, reads, size_bytes, each, by):
    wal, payloads = filled(store, size_bytes, 3 * each + 1)
    limit = {by: each * size_bytes if by == "max_bytes" else each}
    got = []
    for count in (each, each, each, 1):
        reads.clear()
        entries = wal.batch_read_for_topic("t", **limit)
        got += [entry.data for entry in entries]
        assert len(entries) == count and len(reads) == 1
    assert got == payloads


def test_a_batch_over_two_blocks_is_read_by_two(store, reads):
    wal = store.open(fsync_schedule=NEVER, block_size=64 * 1024)
    payloads = [random.Random(number).randbytes(1000) for number in range(100)]
    for payload in payloads:
        wal.append_for_topic("t", payload)
    assert len(wal._engine.topics["t"].blocks) == 2
    reads.clear()
    entries = wal.batch_read_for_topic("t")
    assert [entry.data for entry in entries] == payloads and len(reads) == 2


def test_a_budget_that_is_used_up_still_takes_what_is_empty(store):
    wal, _payloads = filled(store, 10, 2)
    wal.batch_append_for_topic("t", [b"", b"", b"x"])
    sizes = [len(entry.data) for entry in wal.batch_read_for_topic("t", max_bytes=20)]
    assert sizes == [10, 10, 0, 0]
