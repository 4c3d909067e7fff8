"""Going to a place behind damage, or into it, without having read what lies before."""

from __future__ import annotations

import pytest
from helpers import NEVER

from walrus_core import CorruptionError
from walrus_core.format import FRAME_HEADER_SIZE

COUNT = 40


def entry(number):
    return b"<entry %d>" % number + bytes(number * 7)


@pytest.fixture
def damaged(store):
    """A log of which the frame headers of two entries in a row, and that of the last one, are damaged."""
    with store.open(fsync_schedule=NEVER) as wal:
        for number in range(COUNT):
            wal.append_for_topic("t", entry(number))
    for number in (10, 11, COUNT - 1):
        name, at = store.find(entry(number)[:10])
        store.flip(name, at - FRAME_HEADER_SIZE + 9)
    return store


def read_one(wal):
    return wal.read_next("t").data


def read_batch(wal):
    return wal.batch_read_for_topic("t", 1 << 20)[0].data


@pytest.mark.parametrize("read", [read_one, read_batch])
@pytest.mark.parametrize("target", [9, 12, 25, COUNT - 2])
def test_entries_behind_a_damaged_header_are_found(damaged, read, target):
    wal = damaged.open()
    wal.seek("t", target)
    assert read(wal) == entry(target)


@pytest.mark.parametrize("read", [read_one, read_batch])
@pytest.mark.parametrize(("target", "end"), [(10, 12), (11, 12), (COUNT - 1, COUNT)])
def test_the_entry_of_a_damaged_header_is_told(damaged, read, target, end):
    wal = damaged.open()
    wal.seek("t", target)
    for _ in range(2):
        with pytest.raises(CorruptionError) as caught:
            read(wal)
        assert (caught.value.offset, caught.value.end_offset) == (target, end)
    assert wal.cursor_offset("t") == target
