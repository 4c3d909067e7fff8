"""Which frames go by a call and which into mapped pages, and what is made ready for either."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from tests.unit.conftest import FNV, KEY, make_tail, oracle_frame
from walrus_core import hot
from walrus_core.runway import BUSY_MIN_BYTES, PACE_BYTES, Runway

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
        backend_capabilities=SimpleNamespace(paging=True),
        prepare=lambda at, length: calls.append("prepare"),
        unload=lambda at, length: calls.append("unload"),
    )
    block = SimpleNamespace(
        tail=tail, file=file, base=0, length_bytes=SIZE, reserve=lambda at, length: calls.append("reserve")
    )
    return Runway(block, SIZE, is_paced=True), calls


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
