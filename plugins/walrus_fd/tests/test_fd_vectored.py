"""Batches of extents and files: the same with the ring and without it, and which is used when."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import pytest

from walrus_fd import extents
from walrus_fd import ring as ring_module
from walrus_fd.backend import FdBackend
from walrus_fd.files import FdSegmentFile
from walrus_fd.ring import QUEUE_SIZE, Operation, Ring

SIZE_BYTES = 1 << 20


def noted_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let every run of a ring note how many operations it was given."""
    ran: list[int] = []
    real = Ring.run

    def noting(
        ring: Ring, operations: Sequence[Operation], outcome: Optional[list[Optional[int]]] = None
    ) -> list[Optional[int]]:
        ran.append(len(operations))
        return real(ring, operations, outcome)

    monkeypatch.setattr(Ring, "run", noting)
    return ran


# --- the same results with and without the ring -----------------------------------------------


def test_extents_of_any_shape_are_written_and_read_back(backend: FdBackend, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    file = backend.create(str(tmp_path / "any"), size_bytes=8 * SIZE_BYTES)
    model = bytearray(8 * SIZE_BYTES)
    for _ in range(12):
        writes: list[tuple[int, list[bytes]]] = []
        at_bytes = 0
        for _ in range(chance.choice([1, 2, 3, 40])):
            at_bytes += chance.randrange(1, 9000)
            buffers = [
                chance.randbytes(chance.choice([0, 1, 100, 5000, 70000 if chance.random() < 0.1 else 50]))
                for _ in range(chance.choice([0, 1, 2, 59, 61, 130]))
            ]
            if at_bytes + sum(map(len, buffers)) > len(model):
                break
            writes.append((at_bytes, buffers))
            for buffer in buffers:
                model[at_bytes : at_bytes + len(buffer)] = buffer
                at_bytes += len(buffer)
        file.write_many(writes)
        reads = [(at, sum(map(len, buffers))) for at, buffers in writes]
        assert file.read_many(reads) == [model[at : at + length] for at, length in reads], f"seed {seed}"
    assert file.read_at(0, len(model)) == model, f"seed {seed}"
    file.close()


def test_more_extents_than_the_queue_takes(file: FdSegmentFile) -> None:
    count = 2 * QUEUE_SIZE + 7
    file.write_many([(number * 512, [b"%06d" % number]) for number in range(count)])
    found = file.read_many([(number * 512, 7) for number in range(count)])
    assert found == [b"%06d\0" % number for number in range(count)]


def test_buffers_that_cannot_be_written_to_or_may_change_later(file: FdSegmentFile) -> None:
    mutable = bytearray(b"m" * 70000)
    file.write_many([(0, [b"constant"]), (100, [memoryview(b"view")[1:3], mutable]), (300_000, [mutable])])
    mutable[:] = b"x" * 70000
    mutable.append(1)
    assert file.read_at(0, 9) == b"constant\0"
    assert file.read_at(100, 70003) == b"ie" + b"m" * 70000 + b"\0"


def test_nothing_to_do_is_done(file: FdSegmentFile, backend: FdBackend) -> None:
    file.write_many([])
    file.write_many([(0, []), (10, [b"", b""])])
    assert file.read_many([]) == []
    assert file.read_many([(0, 0), (5, 0)]) == [b"", b""]
    backend.sync_many([])


def test_an_extent_longer_than_one_operation_is_split(
    file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extents, "PIECE_BYTES", 1000)
    monkeypatch.setattr(extents, "JOIN_BYTES", 0)
    data = os.urandom(7300)
    file.write_many([(5, [data[:1], data[1:2100], data[2100:]]), (9000, [b"end"])])
    assert file.read_at(0, 7306) == bytes(5) + data + b"\0"
    cuts = [piece.length_bytes for piece in extents.cut([(0, [data])], buffers_max=60)]
    assert cuts == [1000] * 7 + [300]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_several_files_are_synced(backend: FdBackend, tmp_path: Path, count: int) -> None:
    files = [backend.create(str(tmp_path / str(number)), size_bytes=4096) for number in range(count)]
    for file in files:
        file.write_at(0, b"data")
    backend.sync_many(files)
    for file in files:
        file.close()


@pytest.mark.skipif(not hasattr(os, "O_DSYNC"), reason="this system has no flag for durable writes")
def test_durable_files_take_batches(tmp_path: Path) -> None:
    backend = FdBackend(durable_writes=True)
    file = backend.create(str(tmp_path / "durable"), size_bytes=SIZE_BYTES)
    file.write_many([(number * 100_000, [b"%d" % number]) for number in range(5)])
    assert file.read_many([(number * 100_000, 1) for number in range(5)]) == [b"0", b"1", b"2", b"3", b"4"]
    file.close()
    backend.close()


def test_a_closed_file_is_an_error_not_a_write_elsewhere(backend: FdBackend, file: FdSegmentFile) -> None:
    file.close()
    with pytest.raises(OSError) as caught:
        file.write_many([(0, [b"a"]), (10, [b"b"])])
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError):
        file.read_many([(0, 1), (10, 1)])
    with pytest.raises((OSError, ValueError)):
        backend.sync_many([file, file, file])


# --- the ring: what is used when --------------------------------------------------------------


@pytest.mark.usefixtures("needs_ring")
def test_by_default_the_ring_serves_what_it_makes_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = noted_runs(monkeypatch)
    backend = FdBackend()
    files = [backend.create(str(tmp_path / str(number)), size_bytes=SIZE_BYTES) for number in range(3)]
    files[0].write_many([(0, [b"a"]), (10, [b"b"])])
    files[0].read_many([(0, 1), (10, 1)])
    backend.sync_many(files[:2])
    assert ran == [] and backend._uring._ring is None, "the probe must wait until the ring is of use"
    files[0].read_many([(0, 1)] * 4)
    backend.sync_many(files)
    assert ran[-2:] == [4, 3]
    for file in files:
        file.close()
    backend.close()


def test_every_extent_is_one_entry_of_the_ring(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = noted_runs(monkeypatch)
    _, file = ring_file
    file.write_many([(0, [b"a"] * 60), (100, [b"b" * 100_000]), (200_000, [b"c" * 40_000] * 5)])
    assert ran == [3]


def test_long_operations_run_beside_the_thread_that_submits(
    ring_file: tuple[FdBackend, FdSegmentFile], ring: Ring
) -> None:
    _, file = ring_file
    long = memoryview(bytearray(ring_module.ASYNC_FROM_BYTES))
    for view, flags in ((long, 16), (long[1:], 0)):
        assert ring.write(file.fileno(), 0, [view]).flags == flags
        assert ring.write(file.fileno(), 0, [view[:5], view[5:]]).flags == flags
        assert ring.read(file.fileno(), 0, view).flags == flags


def test_a_ring_that_is_busy_is_not_waited_for(ring_file: tuple[FdBackend, FdSegmentFile]) -> None:
    backend, file = ring_file
    with backend._uring._lock:
        file.write_many([(0, [b"a"]), (10, [b"b"])])
    assert file.read_at(0, 11) == b"a" + bytes(9) + b"b"


def test_threads_share_the_backend(ring_file: tuple[FdBackend, FdSegmentFile]) -> None:
    _, file = ring_file
    wrong: list[object] = []

    def work(number: int) -> None:
        mine = [(number * 100_000 + index * 1000, bytes([number]) * 900) for index in range(20)]
        for _ in range(20):
            file.write_many([(at, [data]) for at, data in mine])
            if file.read_many([(at, 900) for at, _ in mine]) != [data for _, data in mine]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
