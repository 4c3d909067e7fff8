"""Entries and batches too large for one piece, also on what a killed process left."""

from __future__ import annotations

import random

import pytest
from helpers import NEVER, contents

from walrus_core import batch as batch_module
from walrus_core import scan

PIECE_BYTES = 4096
SIZES = (10, 6000, 5000, 0, 9000, 4060, 300)


@pytest.fixture
def small_pieces(monkeypatch):
    """What holds for pieces of a MiB holds for smaller ones, which the pure twin reads in no time."""
    monkeypatch.setattr(scan, "SCAN_BYTES", PIECE_BYTES)
    monkeypatch.setattr(scan, "LARGE_BYTES", PIECE_BYTES)


def killed_log(store, checksum):
    wal = store.open(fsync_schedule=NEVER, block_size=65536, checksum=checksum)
    payloads = [random.Random(size).randbytes(size) for size in SIZES]
    for payload in payloads:
        wal.append_for_topic("t", payload)
    return store.killed(), payloads


@pytest.mark.parametrize("checksum", ["fnv1a64", "crc32c"])
def test_entries_of_many_pieces_are_found(store, small_pieces, checksum):
    killed, payloads = killed_log(store, checksum)
    wal = killed.open()
    assert contents(wal, "t") == payloads
    assert wal.recovery_report.cuts == wal.recovery_report.damages == ()


@pytest.mark.parametrize("at", [0, PIECE_BYTES, 8999])
@pytest.mark.parametrize("checksum", ["fnv1a64", "crc32c"])
def test_a_flipped_bit_in_any_of_their_pieces_is_noticed(store, small_pieces, checksum, at):
    killed, payloads = killed_log(store, checksum)
    name, start = killed.find(payloads[4])
    killed.flip(name, start + at)
    wal = killed.open()
    assert contents(wal, "t") == payloads[:4]
    assert [(cut.topic, cut.offset) for cut in wal.recovery_report.cuts] == [("t", 4)]


def test_a_batch_that_is_written_in_many_pieces(store, monkeypatch):
    monkeypatch.setattr(batch_module, "CHUNK_BYTES", 2000)
    payloads = [random.Random(number).randbytes(number * 97) for number in range(60)]
    wal = store.open(fsync_schedule=NEVER)
    assert wal.batch_append_for_topic("t", payloads) == range(60)
    assert contents(wal, "t") == payloads
    assert contents(store.killed().open(), "t") == payloads
