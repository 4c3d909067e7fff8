"""Which frames go by a call and which into mapped pages, and what is made ready for either."""

from __future__ import annotations

import itertools
import os
from types import SimpleNamespace

import pytest

from tests.unit.conftest import FNV, KEY, make_tail, oracle_frame
from walrus_core import FsyncSchedule, Walrus, hot
from walrus_core.block import Block
from walrus_core.errors import DiskFullError, StorageError
from walrus_core.runway import (
    BUSY_MIN_BYTES,
    FILL_BYTES,
    FILL_PIECE_BYTES,
    PACE_BYTES,
    UNFILLED_BYTES,
    Runway,
)

SIZE = 12 * 1024 * 1024
AT = 4096
EMPTY = (AT, 0, 0, 2**64 - 1, 0)
LARGE = hot.CALL_BYTES_MIN


def tail_of(twin, **facts):
    return make_tail(twin, **({"end": SIZE, "state": EMPTY} | facts))


def test_frames_end_where_pages_are_ready_unless_they_are_large(twin):
    tail = tail_of(twin, window=memoryview(bytearray(SIZE)), write=lambda at, data: None)
    tail.ready = AT + 64
    assert tail.append(bytes(32)) == 0
    assert tail.append(b"") == -1 and not tail.has_room(32)
    assert tail.append(bytes(LARGE - 40)) == -1
    # Padded, this one is as long as the next.
    assert tail.has_room(hot.frame_size(LARGE - 39))
    assert tail.append(bytes(LARGE - 39)) == 1
    assert tail.state[0] == AT + 64 + LARGE
    tail.reserved = tail.state[0] + LARGE
    assert tail.has_room(LARGE) and not tail.has_room(LARGE + 8)


@pytest.fixture
def split_tail(twin, tmp_path):
    """A compiled tail whose window and descriptor are two places, so that a test sees which is used."""
    if not twin.COMPILED or os.name == "nt":
        pytest.skip("only the compiled twin writes by itself, where there is pwrite")
    window = bytearray(SIZE)
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(descriptor, SIZE)
    yield tail_of(twin, window=memoryview(window), descriptor=descriptor), window, descriptor
    os.close(descriptor)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("length", [0, 100, LARGE - 40, LARGE - 39, LARGE - 32, 70_000])
def test_an_entry_goes_by_a_call_where_it_is_large(split_tail, length, kind):
    tail, window, descriptor = split_tail
    payload = os.urandom(length)
    assert tail.append(kind(payload)) == 0
    timestamp = tail.state[3]
    frame = oracle_frame(KEY, FNV, payload, 1, 0, 0, timestamp)
    is_large = len(frame) >= LARGE
    assert bytes(window[AT : AT + len(frame)]) == (bytes(len(frame)) if is_large else frame)
    assert os.pread(descriptor, len(frame), AT) == (frame if is_large else bytes(len(frame)))


@pytest.mark.parametrize("count", [1, 55, 56, 57, 1000])
def test_a_batch_goes_by_a_call_where_it_is_large(split_tail, count):
    tail, window, descriptor = split_tail
    payloads = [os.urandom(256) for _ in range(count)]
    assert tail.append_batch(payloads) == range(count)
    timestamp = tail.state[3]
    frames = b"".join(
        oracle_frame(KEY, FNV, payload, 1 if place == 0 else 0, count - 1 - place, place, timestamp)
        for place, payload in enumerate(payloads)
    )
    is_large = len(frames) >= LARGE
    assert bytes(window[AT : AT + len(frames)]) == (bytes(len(frames)) if is_large else frames)
    assert os.pread(descriptor, len(frames), AT) == (frames if is_large else bytes(len(frames)))


def test_a_large_batch_whose_write_fails_leaves_the_tail_torn(twin, split_tail):
    _tail, window, _descriptor = split_tail
    dead = os.open(os.devnull, os.O_RDONLY)
    failing = tail_of(twin, window=memoryview(window), descriptor=dead)
    try:
        with pytest.raises(OSError):
            failing.append_batch([bytes(256)] * 100)
    finally:
        os.close(dead)
    assert failing.torn and failing.state == EMPTY


class TellingTail:
    """Stands in for a tail; notes what is made ready."""

    def __init__(self, at: int = AT, entries: int = 0) -> None:
        self.state = (at, entries)
        self.end = SIZE
        self.reserved = BUSY_MIN_BYTES
        self.ready = 2**64 - 1
        self.prepared: list[tuple[int, int]] = []

    def prepare(self, start: int, stop: int) -> None:
        self.prepared.append((start, stop))


def runway_of(tail: TellingTail) -> tuple[Runway, list[str]]:
    calls: list[str] = []
    file = SimpleNamespace(
        backend_capabilities=SimpleNamespace(memory=True, paging=True, fileno=False),
        prepare=lambda at, length: calls.append("prepare"),
        unload=lambda at, length: calls.append("unload"),
    )
    block = SimpleNamespace(
        tail=tail, file=file, base=0, length_bytes=SIZE, reserve=lambda at, length: calls.append("reserve")
    )
    return Runway(block, SIZE, is_synced_each=False), calls


def test_nothing_is_made_ready_for_large_batches():
    tail = TellingTail()
    runway, calls = runway_of(tail)
    runway.extend(LARGE)
    assert (tail.prepared, calls) == ([], [])
    assert (tail.reserved, tail.ready) == (SIZE, AT)


def test_a_block_that_came_with_a_batch_waits_for_its_first_small_entry():
    tail = TellingTail(at=AT + LARGE, entries=3)
    runway, calls = runway_of(tail)
    runway.extend(0)
    assert (tail.prepared, calls, tail.ready) == ([], [], AT + LARGE)
    runway.extend(100)
    at = AT + LARGE
    assert tail.prepared == [(at, at + 2 * PACE_BYTES)] and tail.ready == at + PACE_BYTES


def test_pages_that_are_ready_stay_so_over_a_large_batch():
    tail = TellingTail()
    runway, _calls = runway_of(tail)
    runway.extend(0)
    assert tail.prepared == [(AT, AT + 2 * PACE_BYTES)] and tail.ready == AT + PACE_BYTES
    tail.state = (AT + 1000, 5)
    runway.extend(LARGE)
    assert tail.ready == AT + PACE_BYTES and len(tail.prepared) == 1


# --- zeros ahead of appends that are synced one by one ----------------------------------------------


def filling_runway(tail, capabilities=None, writes_sync=False) -> tuple[Runway, list[tuple[int, bytes]]]:
    writes: list[tuple[int, bytes]] = []
    file = SimpleNamespace(
        backend_capabilities=SimpleNamespace(**(capabilities or {"memory": True, "fileno": True})),
        writes_sync=writes_sync,
    )
    block = SimpleNamespace(
        tail=tail,
        file=file,
        base=0,
        length_bytes=SIZE,
        reserve=lambda at, length: None,
        write=lambda at, data: writes.append((at, bytes(data))),
    )
    return Runway(block, SIZE, is_synced_each=True), writes


def extent_of(writes: list[tuple[int, bytes]]) -> tuple[int, int]:
    """Return where a run of writes begins and ends; each goes on where the one before ends, all zero."""
    for (at, data), (following, _data) in itertools.pairwise(writes):
        assert at + len(data) == following
    assert all(not any(data) and len(data) <= FILL_PIECE_BYTES for _at, data in writes)
    last_at, last = writes[-1]
    return writes[0][0], last_at + len(last)


def test_zeros_go_ahead_of_small_frames_never_over_them():
    tail = TellingTail()
    runway, writes = filling_runway(tail)
    runway.extend(0)
    assert extent_of(writes) == (AT, AT + FILL_PIECE_BYTES) and tail.ready == AT + FILL_PIECE_BYTES
    writes.clear()
    # The last frame does not fit before what is filled ends.
    tail.state = (tail.ready - 88, 70)
    runway.extend(288, burst_count=3)
    assert extent_of(writes)[0] == AT + FILL_PIECE_BYTES
    assert extent_of(writes)[1] == tail.ready > tail.state[0] + 288
    writes.clear()
    tail.state = (4096 * 1000 + 1, 14_000)
    runway.extend(288)
    assert extent_of(writes) == (4096 * 1001, 4096 * 1001 + FILL_BYTES)


def test_zeros_end_with_the_space_and_a_frame_may_go_beyond_them():
    tail = TellingTail(at=SIZE - 4096 - 8, entries=9)
    runway, writes = filling_runway(tail)
    runway.extend(4096)
    assert extent_of(writes) == (SIZE - 4096, SIZE)
    tail.state = (SIZE - 8, 10)
    writes.clear()
    runway.extend(8)
    assert not writes and tail.ready == SIZE


def test_no_zeros_where_many_entries_wait_for_one_sync():
    tail = TellingTail(at=AT + 10 * 1024, entries=10)
    runway, writes = filling_runway(tail)
    # It is what the entries of the block take that counts, not the batch that comes now.
    runway.extend(100, burst_count=FILL_BYTES // 1024 + 1)
    assert not writes and tail.ready > tail.state[0] + FILL_BYTES
    runway.extend(10_000, burst_count=FILL_BYTES // 1024)
    assert writes


@pytest.mark.parametrize(
    "facts",
    [{"writes_sync": True}, {"capabilities": {"memory": True, "fileno": False}}],
    ids=["a write is a sync", "written by way of a map"],
)
def test_no_zeros_where_they_would_cost_more_than_they_spare(facts):
    tail = TellingTail()
    runway, writes = filling_runway(tail, **facts)
    runway.extend(288)
    assert not writes and tail.ready == 2**64 - 1


def test_zeros_that_find_the_disk_full_are_done_without():
    """Some file systems take space for reserved bytes too. An entry may still fit, and says it if not."""
    tail = TellingTail()
    runway, writes = filling_runway(tail)

    def fail(at: int, data: bytes) -> None:
        raise DiskFullError(path="x", operation="write", errno=28, reason="full")

    write, runway.block.write = runway.block.write, fail
    runway.extend(288)
    assert tail.ready == AT + UNFILLED_BYTES
    runway.block.write = write
    tail.state = (tail.ready - 100, 900)
    runway.extend(288)
    assert extent_of(writes)[0] >= tail.state[0]


def test_no_zeros_for_a_new_block_whose_first_frame_is_large():
    tail = TellingTail()
    runway, writes = filling_runway(tail)
    runway.extend(LARGE)
    assert not writes


def test_a_fill_that_fails_is_done_again():
    tail = TellingTail()
    runway, writes = filling_runway(tail)

    def fail(at: int, data: bytes) -> None:
        raise StorageError(path="x", operation="write", errno=5, reason="broken")

    write, runway.block.write = runway.block.write, fail
    with pytest.raises(StorageError):
        runway.extend(288)
    assert tail.ready == 2**64 - 1
    runway.block.write = write
    runway.extend(288)
    assert extent_of(writes) == (AT, AT + FILL_PIECE_BYTES)


def test_a_log_fills_the_file_ahead_of_each_synced_append(tmp_path, monkeypatch):
    pytest.importorskip("walrus_fd")
    payload = os.urandom(256)
    filled: list[int] = []
    write = Block.write

    def note(self: Block, at: int, data: bytes) -> None:
        # The pure twin writes its frames this way too; those have a header.
        if not any(data):
            filled.append(at)
        write(self, at, data)

    monkeypatch.setattr(Block, "write", note)
    with Walrus(tmp_path / "log", backend="fd", fsync_schedule=FsyncSchedule.sync_each()) as wal:
        for _ in range(500):
            wal.append_for_topic("t", payload)
        wal.batch_append_for_topic("t", [payload] * 500)
        for _ in range(500):
            wal.append_for_topic("t", payload)
        entries = wal.batch_read_for_topic("t", max_entries=2000)
        assert [entry.data for entry in entries] == [payload] * 1500
    assert filled == sorted(filled) and len(filled) >= 500 * 288 // FILL_PIECE_BYTES
    with Walrus(tmp_path / "log", backend="fd") as wal:
        assert wal.next_offset("t") == 1500 and not wal.recovery_report.damages
