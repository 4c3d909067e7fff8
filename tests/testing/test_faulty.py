"""The faulty backend does what it is told, to any backend, and nothing else."""

from __future__ import annotations

import errno
import subprocess
import sys
from typing import Any

import pytest

from walrus_core import Walrus
from walrus_core.errors import CorruptionError, DiskFullError, PoisonedError, SyncFailedError
from walrus_core.testing import Fault, FaultyBackend

SIZE = 4096


def one_file() -> tuple[FaultyBackend, Any]:
    """Return a backend and a file of it, with all counts at nothing."""
    backend = FaultyBackend()
    file = backend.create("/d/f", size_bytes=SIZE)
    backend.reset()
    return backend, file


def test_it_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = sys.modules['hypothesis'] = None; import walrus_core.testing"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_rule_acts_after_some_calls_once_or_for_ever() -> None:
    backend, file = one_file()
    backend.fail("sync", number=errno.EIO, skip=1)
    backend.fail("write", number=errno.ENOSPC, times=None)
    file.sync()
    with pytest.raises(OSError, match="Input/output") as caught:
        file.sync()
    assert caught.value.errno == errno.EIO
    file.sync()
    for _ in range(3):
        with pytest.raises(OSError, match="space"):
            file.write_at(0, b"x")
    assert backend.calls["sync"] == 3
    with pytest.raises(ValueError, match="none of"):
        backend.fail("telepathy")


@pytest.mark.parametrize(("written", "left"), [(0, b""), (1, b"a"), (-1, b"abc"), (-9, b"")])
def test_a_short_write_leaves_its_first_bytes(written: int, left: bytes) -> None:
    backend, file = one_file()
    backend.fail("write", number=errno.EIO, written=written)
    with pytest.raises(OSError, match="Input"):
        file.write_at(100, b"abcd")
    assert bytes(file.read_at(100, 4)) == left.ljust(4, b"\0")


@pytest.mark.parametrize(
    ("part", "more", "left"), [(0.0, 1, 1), (1.0, -1, 7), (0.5, 0, 4), (1.0, 9, 8), (0.0, -3, 0)]
)
def test_the_nth_call_fails_whatever_it_is(part: float, more: int, left: int) -> None:
    backend, file = one_file()
    backend.fault = Fault(2, errno.EINTR, True, part, more)
    file.sync()
    with pytest.raises(InterruptedError):
        file.write_at(0, b"12345678")
    file.sync()
    assert bytes(file.read_at(0, 8)).rstrip(b"\0") == b"12345678"[:left]
    with pytest.raises(InterruptedError):
        file.write_at(0, b"12345678")
    assert backend.failed == ["write", "write"]
    assert [operation for operation, _name in backend.log] == ["sync", "write", "sync", "read", "write"]


def test_a_disk_of_a_size() -> None:
    backend = FaultyBackend()
    backend.capacity_bytes = 3 * SIZE
    file = backend.create("/d/f", size_bytes=SIZE)
    other = backend.create("/d/g", size_bytes=SIZE)
    file.reserve(0, 2 * SIZE)
    with pytest.raises(OSError, match="space"):
        other.reserve(SIZE, 1)
    with pytest.raises(OSError, match="space"):
        backend.create("/d/h", size_bytes=1)
    file.reserve(0, 2 * SIZE)
    backend.rename("/d/f", "/d/h")
    backend.remove("/d/h")
    other.reserve(SIZE, SIZE)


def test_a_read_that_lies() -> None:
    backend, file = one_file()
    backend.lie(8 * 3 + 1, skip=1, times=2)
    reads = [bytes(file.read_at(0, 8)) for _ in range(4)]
    assert reads == [bytes(8), b"\0\0\0\2\0\0\0\0", b"\0\0\0\2\0\0\0\0", bytes(8)]


def test_a_log_on_it_says_what_happened() -> None:
    backend = FaultyBackend()
    small: dict[str, Any] = {"block_size": 16384, "blocks_per_segment": 2}
    with Walrus("/log", backend=backend, **small) as wal:
        wal.append_for_topic("t", b"x" * 500)
        backend.capacity_bytes = 1
        wal.append_for_topic("t", b"y" * 12_000)
        with pytest.raises(DiskFullError):
            wal.append_for_topic("t", b"y" * 12_000)
    backend.reset()
    wal = Walrus("/log", backend=backend, **small)
    backend.lie(8 * 50, times=None)
    with pytest.raises(CorruptionError):
        wal.read_next("t")
    backend.reset()
    wal.append_for_topic("t", b"z")
    backend.fail("sync", number=errno.EIO)
    with pytest.raises(SyncFailedError):
        wal.sync()
    with pytest.raises(PoisonedError):
        wal.append_for_topic("t", b"refused")
    wal.close()
