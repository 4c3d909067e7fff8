"""Tail where things go wrong: failing and short writes, windows that end or go away, odd clocks."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import tempfile
import weakref

import pytest

from tests.unit.conftest import make_tail

FNV = 1
KEY = 0xFEDCBA9876543210
BLOCK_SIZE = 1 << 20
NEEDS_PWRITE = pytest.mark.skipif(not hasattr(os, "pwrite"), reason="this system has no positional write")


class Refused(Exception):
    pass


def test_a_failing_call_leaves_the_tail_torn(twin, block_class):
    block = block_class(twin, "call")
    block.tail.append(b"good")
    before = block.tail.state

    def fail(at, data):
        assert block.tail.torn and block.tail.state == before
        assert block.tail.append(b"inside") == -1
        raise Refused

    tail = make_tail(twin, write=fail, first_offset=1000, state=before)
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
            tail = make_tail(twin, descriptor=descriptor)
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
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # Not in this folder: the source tree must not stand in front of what is installed.
    done = subprocess.run(
        command, env=environment, cwd=tempfile.gettempdir(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(errno.EFBIG), "True", "True", str(limit), "-1"]


# --- the window -------------------------------------------------------------------------------


def test_release_lets_go_of_the_window(twin, block_class):
    block = block_class(twin, "window")
    block.tail.append(b"x")
    block.tail.release()
    block.tail.release()
    block.window.release()
    block.memory.clear()  # raises BufferError while anything holds on to it
    if twin.COMPILED:
        assert block.tail.append(b"y") == -1
    assert block.tail.state[:2] == (104, 1)
    block.file.close()


def test_a_dropped_tail_lets_go_of_the_window(twin, block_class):
    block = block_class(twin, "window")
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
    owner.tail = make_tail(
        twin, write=owner.write, window=memoryview(owner.memory), end=4096, state=(0, 0, 0, 0, 0)
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
        make_tail(twin, window=window, end=4096, state=(0, 0, 0, 0, 0))


@pytest.mark.parametrize("at", [4096, 4064, 8192, 2**40, 2**63, 2**64 - 2**20])
@pytest.mark.parametrize("length", [8, 70_000])
def test_the_compiled_tail_never_leaves_its_window(twin, block_class, at, length):
    if not twin.COMPILED:
        pytest.skip("the pure twin does not use the window")
    block = block_class(twin, "window", size=4096)
    block.tail.end = block.tail.reserved = 2**64 - 1
    block.tail.claim(at)
    block.tail.advance((at, 1, 0, 0, 0))
    with pytest.raises((ValueError, OverflowError)):
        block.tail.append(bytes(length))
    assert not block.tail.torn
    assert block.memory == bytes(4096)
    block.close()


@pytest.mark.parametrize("length", [8, 70_000])
def test_nothing_is_written_outside_the_reserved_space(twin, block_class, length):
    block = block_class(twin, "window", size=BLOCK_SIZE, reserved=BLOCK_SIZE)
    block.memory[:] = b"\xaa" * BLOCK_SIZE
    block.tail.end = 64 + twin.frame_size(length)
    block.tail.reserved = 2**40
    if twin.COMPILED:
        assert block.tail.append(bytes(length + 8)) == -1
    assert block.tail.append(bytes(length)) == 1000
    assert block.memory[:64] == b"\xaa" * 64
    assert set(block.memory[block.tail.end :]) == {0xAA}
    block.close()


@pytest.mark.parametrize(
    ("room", "expected"), [(80, (1001, (144, 2, 10, 5, 5))), (40, (-1, (104, 1, 5, 5, 5)))]
)
def test_the_compiled_tail_meets_a_clock_that_uses_it(twin, make, room, expected):
    if not twin.COMPILED:
        pytest.skip("the pure twin looks at its state before it asks for the time")
    asked = []

    def clock():
        asked.append(1)
        if len(asked) == 1:
            assert block.tail.append(b"inner") == 1000
        return 5

    block = make(clock=clock, reserved=64 + room)
    assert (block.tail.append(b"outer"), block.tail.state) == expected
