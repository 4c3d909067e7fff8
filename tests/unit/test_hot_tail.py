"""Tail: one entry after another into a block, through memory, a descriptor or the backend."""

from __future__ import annotations

import array
import errno
import gc
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walrus_core.errors import InvalidPayloadError

FNV = 1
CRC = 2
BASE = 4096
KEY = 0xFEDCBA9876543210
BLOCK_SIZE = 1 << 20
ALGORITHMS = pytest.mark.parametrize("algorithm", [FNV, CRC], ids=["fnv1a64", "crc32c"])
NEEDS_PWRITE = pytest.mark.skipif(not hasattr(os, "pwrite"), reason="this system has no positional write")


class Block:
    """A block of some kind and the tail over it; ``content()`` is what stands in it."""

    def __init__(self, twin, kind, *, algorithm=FNV, size=BLOCK_SIZE, reserved=None, at=64, clock=None, index=0):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.memory = bytearray(size) if kind == "window" else None
        self.window = None if self.memory is None else memoryview(self.memory)
        self.calls: list[int] = []
        self.tail = twin.Tail(
            write=self.write,
            window=self.window,
            descriptor=self.file.fileno() if kind == "descriptor" else -1,
            base=BASE,
            clock=clock,
            key=KEY,
            algorithm=algorithm,
            first_offset=1000,
            end=size,
            reserved=size if reserved is None else reserved,
            state=(at, index, 0, 2**64 - 1, 0),
        )

    def write(self, at, data):
        self.calls.append(at)
        if self.memory is not None:
            self.memory[at : at + len(data)] = data
            return
        self.file.seek(BASE + at)
        self.file.write(data)
        self.file.flush()

    def content(self, at, length):
        if self.memory is not None:
            return bytes(self.memory[at : at + length])
        self.file.seek(BASE + at)
        return self.file.read(length)

    def close(self):
        self.tail.release()
        self.file.close()


@pytest.fixture(params=["window", "descriptor", "call"])
def kind(request):
    """How the tail of the test writes."""
    return request.param


@pytest.fixture
def make(twin, kind):
    """Make blocks of the twin and kind under test, and close them after it."""
    made = []

    def make_block(**options):
        made.append(Block(twin, kind, **options))
        return made[-1]

    yield make_block
    for block in made:
        block.close()


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
@pytest.mark.parametrize("length", [4063, 4064, 4065, 65495, 65496, 65497, 65504, 65505, 100_001, 400_000])
def test_around_the_sizes_where_the_way_changes(make, oracle, algorithm, length):
    block = make(algorithm=algorithm, clock=lambda: 9)
    payload = random.Random(length).randbytes(length)
    assert block.tail.append(payload) == 1000
    assert block.tail.append(bytearray(payload)) == 1001
    assert block.tail.append(b"behind") == 1002
    expected = b"".join(
        oracle.frame(KEY, algorithm, data, 1, 0, place, 9) for place, data in enumerate([payload, payload, b"behind"])
    )
    assert block.content(64, len(expected)) == expected
    assert block.content(0, 64) in (bytes(64), b"")


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), lengths=st.lists(st.integers(0, 600), min_size=1, max_size=20))
def test_what_was_appended_is_decoded(twin, seed, lengths):
    source = random.Random(seed)
    payloads = [source.randbytes(length) for length in lengths]
    for kind in ("window", "descriptor", "call"):
        block = Block(twin, kind, size=65536)
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


def test_the_window_itself_may_be_the_payload(twin):
    block = Block(twin, "window", clock=lambda: 1)
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
    "state", [(1, 2, 3, 4), (1, 2, 3, 4, 5, 6), (1, 2, 3, 4, "5"), (1, 2, 3, 4, -5), (2**64, 0, 0, 0, 0), None]
)
def test_the_compiled_state_changes_whole_or_not(twin, state):
    if not twin.COMPILED:
        pytest.skip("the pure twin keeps the tuple it is given")
    block = Block(twin, "window")
    with pytest.raises((TypeError, ValueError, OverflowError)):
        block.tail.advance(state)
    assert block.tail.state == (64, 0, 0, 2**64 - 1, 0)
    block.close()


def test_read_only_facts(make):
    tail = make(algorithm=CRC).tail
    assert (tail.key, tail.algorithm, tail.first_offset) == (KEY, CRC, 1000)
    assert (tail.end, tail.reserved, tail.claimed) == (BLOCK_SIZE, BLOCK_SIZE, 64)


# --- failing writes -----------------------------------------------------------------------------


class Refused(Exception):
    pass


def test_a_failing_call_leaves_the_tail_torn(twin):
    block = Block(twin, "call")
    block.tail.append(b"good")
    before = block.tail.state

    def fail(at, data):
        assert block.tail.torn and block.tail.state == before
        assert block.tail.append(b"inside") == -1
        raise Refused

    tail = twin.Tail(
        write=fail,
        window=None,
        descriptor=-1,
        base=0,
        clock=None,
        key=KEY,
        algorithm=FNV,
        first_offset=1000,
        end=BLOCK_SIZE,
        reserved=BLOCK_SIZE,
        state=before,
    )
    block.close()
    block.tail = tail
    with pytest.raises(Refused):
        tail.append(b"bad")
    assert tail.torn and tail.claimed == before[0] + 40
    assert tail.state == before
    assert tail.append(b"after") == -1


@NEEDS_PWRITE
@pytest.mark.parametrize("length", [10, 10_000, 100_000])
def test_a_failing_descriptor_leaves_the_tail_torn(twin, length):
    if not twin.COMPILED:
        pytest.skip("the pure twin writes by way of the backend alone")
    with tempfile.NamedTemporaryFile() as file:
        descriptor = os.open(file.name, os.O_RDONLY)
        try:
            tail = twin.Tail(
                write=None,
                window=None,
                descriptor=descriptor,
                base=0,
                clock=None,
                key=KEY,
                algorithm=FNV,
                first_offset=0,
                end=BLOCK_SIZE,
                reserved=BLOCK_SIZE,
                state=(64, 0, 0, 0, 0),
            )
            with pytest.raises(OSError, match="descriptor") as caught:
                tail.append(bytes(length))
            assert caught.value.errno == errno.EBADF
            assert tail.torn and tail.state == (64, 0, 0, 0, 0)
            assert tail.append(b"after") == -1
        finally:
            os.close(descriptor)


SHORT_WRITE = """
import os, resource, sys, importlib, tempfile
twin = importlib.import_module("walrus_core." + sys.argv[1])
length, limit = int(sys.argv[2]), int(sys.argv[3])
with tempfile.TemporaryFile(buffering=0) as file:
    def write(at, data):
        view = memoryview(data)
        while view:
            count = os.pwrite(file.fileno(), view, 4096 + at)
            view, at = view[count:], at + count
    tail = twin.Tail(write=write, window=None, descriptor=file.fileno(), base=4096, clock=None, key=1,
                     algorithm=1, first_offset=0, end=1 << 20, reserved=1 << 20, state=(64, 0, 0, 0, 0))
    tail.append(b"good")
    state = tail.state
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        tail.append(bytes([7]) * length)
    except OSError as error:
        print(error.errno, tail.torn, tail.state == state, os.fstat(file.fileno()).st_size, tail.append(b""))
"""


@NEEDS_PWRITE
@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
@pytest.mark.parametrize("length", [3000, 20_000, 200_000])
@pytest.mark.parametrize("written", [0, 8, 32, 40, 2999])
def test_a_short_write_goes_on_until_it_fails(twin, length, written):
    # The limit lets a first part through: a short count, then EFBIG for what remains.
    limit = 4096 + 64 + 40 + written
    command = [sys.executable, "-c", SHORT_WRITE, twin.__name__.rpartition(".")[2], str(length), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), "True", "True", str(limit), "-1"]


# --- the window -------------------------------------------------------------------------------


def test_release_lets_go_of_the_window(twin):
    block = Block(twin, "window")
    block.tail.append(b"x")
    block.tail.release()
    block.tail.release()
    block.window.release()
    block.memory.clear()  # raises BufferError while anything holds on to it
    if twin.COMPILED:
        assert block.tail.append(b"y") == -1
    assert block.tail.state[:2] == (104, 1)
    block.file.close()


def test_a_dropped_tail_lets_go_of_the_window(twin):
    block = Block(twin, "window")
    memory = block.memory
    block.file.close()
    del block
    gc.collect()
    memory.clear()  # raises BufferError while anything holds on to it


def test_a_tail_in_a_cycle_is_collected(twin):
    class Owner:
        def write(self, at, data):
            raise NotImplementedError

    owner = Owner()
    owner.memory = bytearray(4096)
    owner.tail = twin.Tail(
        write=owner.write,
        window=memoryview(owner.memory),
        descriptor=-1,
        base=0,
        clock=None,
        key=1,
        algorithm=FNV,
        first_offset=0,
        end=4096,
        reserved=4096,
        state=(0, 0, 0, 0, 0),
    )
    seen = weakref.ref(owner)
    del owner
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("window", [memoryview(bytes(4096)), memoryview(bytearray(4095)), 5])
def test_the_compiled_tail_checks_its_window(twin, window):
    if not twin.COMPILED:
        pytest.skip("the pure twin does not use the window")
    with pytest.raises((BufferError, ValueError, TypeError)):
        twin.Tail(
            write=None,
            window=window,
            descriptor=-1,
            base=0,
            clock=None,
            key=1,
            algorithm=FNV,
            first_offset=0,
            end=4096,
            reserved=4096,
            state=(0, 0, 0, 0, 0),
        )


@pytest.mark.parametrize("length", [8, 70_000])
def test_nothing_is_written_outside_the_reserved_space(twin, length):
    block = Block(twin, "window", size=BLOCK_SIZE, reserved=BLOCK_SIZE)
    block.memory[:] = b"\xaa" * BLOCK_SIZE
    block.tail.end = 64 + twin.frame_size(length)
    block.tail.reserved = 2**40
    if twin.COMPILED:
        assert block.tail.append(bytes(length + 8)) == -1
    assert block.tail.append(bytes(length)) == 1000
    assert block.memory[:64] == b"\xaa" * 64
    assert set(block.memory[block.tail.end :]) == {0xAA}
    block.close()


def test_a_clock_that_uses_the_tail(make):
    depth = []

    def clock():
        depth.append(1)
        if len(depth) == 1:
            assert block.tail.append(b"inner") == 1000
        return 5

    block = make(clock=clock)
    offset = block.tail.append(b"outer")
    if block.tail.__class__.__module__.endswith("_hot_c"):
        assert offset == 1001
        assert block.tail.state == (144, 2, 10, 5, 5)
    assert not block.tail.torn


# --- threads ----------------------------------------------------------------------------------


def test_state_is_read_whole_by_other_threads(make):
    block = make(clock=lambda: 1)
    wrong, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            at, index, payload_bytes, low, high = block.tail.state
            if at != 64 + index * 70_032 or payload_bytes != 70_000 * index or (index and (low, high) != (1, 1)):
                wrong.append((at, index, payload_bytes, low, high))

    thread = threading.Thread(target=watch)
    thread.start()
    for place in range(10):
        assert block.tail.append(bytes(70_000)) == 1000 + place
    stop.set()
    thread.join()
    assert wrong == []
