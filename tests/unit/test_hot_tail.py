"""Tail: one entry after another into a block, through memory, a descriptor or the backend."""

from __future__ import annotations

import array
import random
import struct
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walrus_core.errors import InvalidPayloadError

FNV = 1
CRC = 2
KEY = 0xFEDCBA9876543210
BLOCK_SIZE = 1 << 20
ALGORITHMS = pytest.mark.parametrize("algorithm", [FNV, CRC], ids=["fnv1a64", "crc32c"])


# --- what is written ----------------------------------------------------------------------


@ALGORITHMS
def test_frames_stand_where_they_belong(make, oracle, algorithm):
    ticks = iter([50, 30, 40, 60])
    block = make(algorithm=algorithm, clock=lambda: next(ticks))
    payloads = [b"first", b"", b"x" * 1000, b"y" * 4064]
    expected, at = b"", 64
    for place, (payload, stamp) in enumerate(zip(payloads, [50, 30, 40, 60], strict=True)):
        assert block.tail.next_offset == 1000 + place
        assert block.tail.append(payload) == 1000 + place
        frame = oracle.frame(KEY, algorithm, payload, 1, 0, place, stamp)
        expected += frame
        at += len(frame)
        assert block.tail.state[:2] == (at, place + 1)
        assert not block.tail.torn
        assert block.tail.claimed == at
    assert block.content(64, len(expected)) == expected
    assert block.tail.state == (at, 4, sum(map(len, payloads)), 30, 60)


@ALGORITHMS
@pytest.mark.parametrize("length", [4063, 4064, 4065, 65495, 65496, 65497, 65504, 65505, 100_001])
def test_around_the_sizes_where_the_way_changes(make, oracle, algorithm, length):
    block = make(algorithm=algorithm, clock=lambda: 9)
    payload = random.Random(length).randbytes(length)
    assert block.tail.append(payload) == 1000
    assert block.tail.append(bytearray(payload)) == 1001
    assert block.tail.append(b"behind") == 1002
    expected = b"".join(
        oracle.frame(KEY, algorithm, data, 1, 0, place, 9)
        for place, data in enumerate([payload, payload, b"behind"])
    )
    assert block.content(64, len(expected)) == expected
    assert block.content(0, 64) in (bytes(64), b"")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), lengths=st.lists(st.integers(0, 600), min_size=1, max_size=20))
def test_what_was_appended_is_decoded(twin, block_class, seed, lengths):
    source = random.Random(seed)
    payloads = [source.randbytes(length) for length in lengths]
    for kind in ("window", "descriptor", "call"):
        block = block_class(twin, kind, size=65536)
        assert [block.tail.append(payload) for payload in payloads] == [*range(1000, 1000 + len(payloads))]
        entries, *rest = twin.decode(block.content(0, 65536), 64, KEY, FNV, 1000, 0, 2**32, 2**40, 2**40)
        assert [entry.data for entry in entries] == payloads
        assert rest[:2] == [*block.tail.state[:2]]
        assert block.tail.state[3] == min(entry.timestamp for entry in entries)
        assert block.tail.state[4] == max(entry.timestamp for entry in entries)
        block.close()


# --- payloads -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_payload",
    [
        lambda: bytearray(b"abcdefgh"),
        lambda: array.array("H", [25185, 25699, 26213, 26727]),
        lambda: memoryview(b"a-b-c-d-e-f-g-h-")[::2],
        lambda: memoryview(b"hgfedcba")[::-1],
        lambda: memoryview(b"abcdefgh").cast("B", (2, 4)),
        lambda: type("Bytes", (bytes,), {})(b"abcdefgh"),
    ],
    ids=["bytearray", "array", "stride", "reversed", "two dimensions", "subclass"],
)
def test_any_buffer_is_a_payload(make, twin, make_payload):
    block = make()
    assert block.tail.append(make_payload()) == 1000
    ((entry,), *_) = twin.decode(block.content(0, 200), 64, KEY, FNV, 1000, 0, 1, 99, 9)
    assert entry.data == b"abcdefgh"


@pytest.mark.parametrize("length", [8, 5000, 100_000])
def test_a_buffer_may_change_and_go_after_the_call(make, twin, length):
    block = make()
    source = bytearray(b"s" * length)
    block.tail.append(source)
    source[:] = b"t" * length
    source.clear()  # raises BufferError while anything holds on to it
    ((entry,), *_) = twin.decode(block.content(0, length + 200), 64, KEY, FNV, 1000, 0, 1, 2**20, 9)
    assert entry.data == b"s" * length


@pytest.mark.parametrize("value", ["text", None, 5, [b"x"], object()], ids=lambda value: type(value).__name__)
def test_what_is_no_payload_changes_nothing(make, value):
    block = make()
    block.tail.append(b"before")
    before = block.tail.state
    with pytest.raises(InvalidPayloadError, match="encode" if isinstance(value, str) else "bytes-like"):
        block.tail.append(value)
    assert block.tail.state == before and not block.tail.torn
    assert block.tail.append(b"after") == 1001


def test_a_released_view_is_no_payload(make):
    block = make()
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(ValueError, match="released"):
        block.tail.append(view)
    assert block.tail.append(b"after") == 1000


def test_the_window_itself_may_be_the_payload(twin, block_class):
    block = block_class(twin, "window", clock=lambda: 1)
    block.memory[1000:1010] = b"0123456789"
    assert block.tail.append(memoryview(block.memory)[90:1100]) == 1000
    ((entry,), *_) = twin.decode(block.memory, 64, KEY, FNV, 1000, 0, 1, 9999, 9)
    assert len(entry.data) == 1010
    block.close()


# --- room ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size_left", [0, 8, 31, 32, 39, 40])
def test_a_full_block_takes_nothing(make, size_left):
    block = make(size=4096, reserved=4096 - 40 + size_left, at=4096 - 40)
    before = block.tail.state
    expected = 1000 if size_left == 40 else -1
    assert block.tail.append(b"12345678") == expected
    assert (block.tail.state == before) == (expected == -1)
    assert not block.tail.torn
    written = block.content(4096 - 40, 40)
    assert (written in (b"", bytes(40))) == (expected == -1)


def test_room_is_added_by_reserving_more(make):
    block = make(size=8192, reserved=128)
    assert block.tail.append(b"x" * 100) == -1
    block.tail.reserved = 8192
    assert block.tail.append(b"x" * 100) == 1000
    assert block.tail.append(bytes(10_000)) == -1
    assert block.tail.append(bytearray(100_000)) == -1
    assert block.tail.append(b"x") == 1001


def test_a_clock_is_not_asked_for_what_does_not_fit(make):
    block = make(size=4096, clock=lambda: pytest.fail("asked"))
    assert block.tail.append(bytes(5000)) == -1


# --- time -----------------------------------------------------------------------------------


def test_the_time_is_now(make):
    block = make()
    before = time.time_ns()
    stamps = [block.tail.now()]
    block.tail.append(b"x")
    stamps += block.tail.state[3:]
    assert before <= stamps[0] <= stamps[1] == stamps[2] <= time.time_ns()


@pytest.mark.parametrize("now", [-1, 2**64])
def test_a_time_beyond_its_field_changes_nothing(make, now):
    times = iter([now, 2**64 - 1])
    block = make(clock=lambda: next(times))
    before = block.tail.state
    with pytest.raises((OverflowError, struct.error)):
        block.tail.append(b"x")
    assert block.tail.state == before and not block.tail.torn
    assert block.tail.append(b"x") == 1000
    assert block.tail.state[3:] == (2**64 - 1, 2**64 - 1)


def test_a_failing_clock_changes_nothing(make):
    def clock():
        raise RuntimeError("stopped")

    block = make(clock=clock)
    with pytest.raises(RuntimeError, match="stopped"):
        block.tail.append(b"x")
    assert not block.tail.torn and block.tail.state[:2] == (64, 0)
    with pytest.raises(RuntimeError, match="stopped"):
        block.tail.now()


# --- batches written by others ----------------------------------------------------------------


def test_claim_and_advance(make, oracle):
    block = make(clock=lambda: 3)
    block.tail.append(b"one")
    frames = oracle.batch(KEY, FNV, [b"two", b"three"], 1, 4)
    at = block.tail.state[0]
    block.tail.claim(at + len(frames))
    assert block.tail.torn
    assert block.tail.append(b"meanwhile") == -1
    block.write(at, frames)
    block.tail.advance((at + len(frames), 3, 11, 3, 4))
    assert not block.tail.torn
    assert block.tail.state == (at + len(frames), 3, 11, 3, 4)
    assert block.tail.next_offset == 1003
    assert block.tail.append(b"four") == 1003


@pytest.mark.parametrize(
    "state",
    [(1, 2, 3, 4), (1, 2, 3, 4, 5, 6), (1, 2, 3, 4, "5"), (1, 2, 3, 4, -5), (2**64, 0, 0, 0, 0), None],
)
def test_the_compiled_state_changes_whole_or_not(twin, block_class, state):
    if not twin.COMPILED:
        pytest.skip("the pure twin keeps the tuple it is given")
    block = block_class(twin, "window")
    with pytest.raises((TypeError, ValueError, OverflowError)):
        block.tail.advance(state)
    assert block.tail.state == (64, 0, 0, 2**64 - 1, 0)
    block.close()


def test_read_only_facts(make):
    tail = make(algorithm=CRC).tail
    assert (tail.key, tail.algorithm, tail.first_offset) == (KEY, CRC, 1000)
    assert (tail.end, tail.reserved, tail.claimed) == (BLOCK_SIZE, BLOCK_SIZE, 64)


# --- threads ----------------------------------------------------------------------------------


def test_state_is_read_whole_by_other_threads(make):
    block = make(clock=lambda: 1)
    wrong, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            at, index, payload_bytes, low, high = block.tail.state
            if (
                at != 64 + index * 70_032
                or payload_bytes != 70_000 * index
                or (index and (low, high) != (1, 1))
            ):
                wrong.append((at, index, payload_bytes, low, high))

    thread = threading.Thread(target=watch)
    thread.start()
    for place in range(10):
        assert block.tail.append(bytes(70_000)) == 1000 + place
    stop.set()
    thread.join()
    assert wrong == []
