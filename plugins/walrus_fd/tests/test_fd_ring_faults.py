"""What can go wrong with a ring: short, failing and refused operations, signals and interrupts."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest

from walrus_core.backend import Buffer
from walrus_fd import binding
from walrus_fd import ring as ring_module
from walrus_fd.backend import FdBackend
from walrus_fd.files import FdSegmentFile
from walrus_fd.ring import QUEUE_SIZE, Ring

SIZE_BYTES = 1 << 20


def live_ring(backend: FdBackend) -> Ring:
    ring = backend._uring._ring
    assert ring is not None
    return ring


# --- the ring: what can go wrong --------------------------------------------------------------


def test_short_writes_of_the_ring_are_finished(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = ring_file
    real = Ring.write

    def shortened(ring: Ring, descriptor: int, at_bytes: int, views: list[memoryview]) -> Any:
        return real(ring, descriptor, at_bytes, [view[:3] for view in views[:1]])

    monkeypatch.setattr(Ring, "write", shortened)
    data = [os.urandom(70_000) for _ in range(5)]
    file.write_many([(0, [b"0123456789"]), (100, data)])
    assert file.read_at(0, 11) == b"0123456789\0"
    assert file.read_at(100, 350_001) == b"".join(data) + b"\0"


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN])
def test_operations_that_were_interrupted_are_done_by_plain_calls(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _, file = ring_file
    monkeypatch.setattr(Ring, "run", lambda self, operations, outcome: [-number] * len(operations))
    file.write_many([(0, [b"one"]), (10, [b"two"])])
    assert file.read_many([(0, 3), (10, 4)]) == [b"one", b"two\0"]


def test_a_failed_write_of_the_ring_is_raised_after_all_are_done(
    ring_file: tuple[FdBackend, FdSegmentFile],
) -> None:
    backend, file = ring_file
    resource = pytest.importorskip("resource", reason="this system has no resource limits")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE_BYTES, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            file.write_many([(0, [b"good"]), (2 * SIZE_BYTES, [b"bad"]), (100, [b"good"])])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert file.read_many([(0, 4), (100, 4)]) == [b"good", b"good"]
    assert live_ring(backend)._flight is None


def test_a_failed_write_of_the_ring_is_not_tried_again(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write may be a sync too, under O_DSYNC: the second answer could lie."""
    _, file = ring_file
    monkeypatch.setattr(Ring, "run", lambda self, operations, outcome: [3, -errno.EIO])
    for name in ("pwrite", "pwritev"):
        monkeypatch.setattr(os, name, lambda *_arguments: pytest.fail("written once more"))
    with pytest.raises(OSError) as caught:
        file.write_many([(0, [b"one"]), (10, [b"two"])])
    assert caught.value.errno == errno.EIO


def noted(results: list[int]) -> Callable[..., None]:
    """Return what stands for ``Ring.run`` and has these results."""
    return lambda _ring, _operations, outcome: outcome.extend(results)


def test_a_failed_sync_of_the_ring_is_raised_and_not_tried_again(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, file = ring_file
    monkeypatch.setattr(Ring, "run", noted([0, -errno.EIO, -errno.ENOSPC]))
    monkeypatch.setattr(os, "fdatasync", pytest.fail)
    monkeypatch.setattr(os, "fsync", pytest.fail)
    with pytest.raises(OSError) as caught:
        backend.sync_many([file, file, file])
    assert caught.value.errno == errno.EIO and caught.value.filename == file.path


def ring_over(monkeypatch: pytest.MonkeyPatch, backend: FdBackend, **replaced: Any) -> Ring:
    ring = live_ring(backend)
    ring._api = types.SimpleNamespace(**{**vars(ring._api), **replaced})
    monkeypatch.setattr(ring_module, "_SUBMIT_PAUSE_S", 0.0)
    monkeypatch.setattr(ring_module, "_SUBMIT_TRIES", 20)
    return ring


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN, errno.EBUSY])
def test_a_submit_that_is_refused_for_a_while_is_tried_again(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    backend, file = ring_file
    real = binding.load().io_uring_submit
    refusals = [OSError(number, "refused")] * 10

    def submit(ring: object) -> int:
        if refusals:
            raise refusals.pop()
        return int(real(ring))

    ring_over(monkeypatch, backend, io_uring_submit=submit)
    file.write_many([(0, [b"one"]), (10, [b"two"])])
    assert file.read_at(0, 13) == b"one" + bytes(7) + b"two" and not refusals
    assert str(backend.probe()["io_uring"]).startswith("live")


def test_a_ring_that_takes_nothing_more_is_given_up_and_plain_calls_go_on(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, file = ring_file
    refused: list[int] = []

    def submit(ring: object) -> int:
        refused.append(1)
        raise OSError(errno.EBUSY, "refused")

    ring = ring_over(monkeypatch, backend, io_uring_submit=submit)
    count = QUEUE_SIZE + 5
    file.write_many([(number * 100, [b"%d" % number]) for number in range(count)])
    assert file.read_at((count - 1) * 100, 4) == b"260\0"
    assert 20 <= len(refused) <= 30
    assert "took no submissions" in str(backend.probe()["io_uring"])
    assert not ring._open
    backend.sync_many([file] * 3)
    assert file.read_many([(0, 1), (100, 1)]) == [b"0", b"1"]


def test_what_the_kernel_took_before_it_refused_is_not_done_twice(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, _ = ring_file
    real = binding.load().io_uring_submit
    ring = live_ring(backend)
    calls: list[int] = []

    def submit(handle: object) -> int:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.EBUSY, "refused")
        return int(real(handle))

    # A synthetic half: a second round is queued while the first is on its way.
    ring_over(monkeypatch, backend, io_uring_submit=submit)
    descriptor = os.memfd_create("half")
    assert ring.run([ring.write(descriptor, 0, [memoryview(b"x")])]) == [1]
    assert ring.run([ring.write(descriptor, 1, [memoryview(b"y")])]) == [None]
    assert os.pread(descriptor, 10, 0) == b"x" and ring.broken
    os.close(descriptor)


def test_what_was_given_up_is_not_submitted_with_a_later_round(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, _ = ring_file
    real = binding.load().io_uring_submit
    refused: list[int] = []

    def submit(handle: object) -> int:
        refused.append(1)
        if len(refused) <= 21:
            raise OSError(errno.EBUSY, "refused")
        return int(real(handle))

    ring = ring_over(monkeypatch, backend, io_uring_submit=submit)
    monkeypatch.setattr(ring_module, "QUEUE_SIZE", 4)
    descriptor = os.memfd_create("rounds")
    assert ring.run([ring.write(descriptor, at, [memoryview(b"x")]) for at in range(6)]) == [None] * 6
    assert len(refused) == 21 and os.fstat(descriptor).st_size == 0
    os.close(descriptor)


# --- interrupts -------------------------------------------------------------------------------


def interrupt_at(number: int, codes: set[types.CodeType], work: Callable[[], object]) -> bool:
    """Run ``work`` with a KeyboardInterrupt at the n-th opcode of ``codes``; False if it has fewer."""
    seen = 0

    def trace(frame: types.FrameType, event: str, _: object) -> Optional[Any]:
        nonlocal seen
        if frame.f_code not in codes:
            return None
        # In this order: 3.13 looks for f_trace when opcodes are asked for.
        frame.f_trace = trace
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            seen += 1
            if seen == number:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    # 3.12 traces opcodes only where some frame asked for it before the tracing began.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def codes_of(*functions: Any) -> set[types.CodeType]:
    return {function.__code__ for function in functions}


def test_an_interrupt_at_any_point_leaves_nothing_in_flight(
    ring_file: tuple[FdBackend, FdSegmentFile],
) -> None:
    backend, file = ring_file
    ring = live_ring(backend)
    codes = codes_of(Ring._run_round, Ring._settle, Ring._drive, Ring._submit, Ring._reap, Ring.run)
    codes |= codes_of(Ring._nothing_queued, Ring._is_ours)
    codes |= codes_of(FdSegmentFile.write_many, FdSegmentFile._write_by_ring)
    number = 0
    while True:
        number += 1
        writes: list[tuple[int, list[Buffer]]]
        writes = [(0, [bytearray(b"%08d" % number)]), (50, [b"b" * 90_000])]
        if not interrupt_at(number, codes, functools.partial(file.write_many, writes)):
            break
        flight = ring._flight
        assert flight is None or flight.is_over, number
        assert ring._api.io_uring_sq_ready(ring._ring) == 0, number
        # A completion that was left in the queue must not be taken for that of another operation.
        views = [memoryview(b"fours"[:length]) for length in (4, 3)]
        assert ring.run([ring.write(file.fileno(), 400, [view]) for view in views]) == [4, 3], number
        assert ring._api.io_uring_cq_ready(ring._ring) == 0, number
        found = file.read_at(0, 8)
        # A later write that is not the ring's must not be overtaken by a leftover.
        file.write_at(0, b"later!!!")
        file.write_many([(200, [b"next"]), (300, [b"%d" % number])])
        assert file.read_many([(0, 8), (200, 4)]) == [b"later!!!", b"next"], number
        assert found in (b"%08d" % number, b"later!!!", bytes(8)), number
    assert number > 100, "the sweep met too few points"


def test_a_second_interrupt_while_the_first_is_handled_leaves_nothing_in_flight(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, file = ring_file
    ring = live_ring(backend)
    real_settle, real_drive = ring._settle, ring._drive
    settled: list[bool] = []

    def interrupted_drive(flight: object) -> None:
        monkeypatch.setattr(ring, "_drive", real_drive)
        ring._submit()
        raise KeyboardInterrupt

    def interrupted_settle() -> None:
        settled.append(ring._flight is None)
        if len(settled) == 2:
            raise KeyboardInterrupt
        real_settle()

    monkeypatch.setattr(ring, "_drive", interrupted_drive)
    monkeypatch.setattr(ring, "_settle", interrupted_settle)
    with pytest.raises(KeyboardInterrupt):
        file.write_many([(0, [b"both"]), (100, [b"done" * 50_000])])
    assert settled == [True, False, False]
    assert ring._flight is None and ring._api.io_uring_cq_ready(ring._ring) == 0
    assert file.read_many([(0, 4), (200_096, 5)]) == [b"both", b"done\0"]


def test_a_completion_left_by_an_interrupt_is_not_taken_for_that_of_a_later_operation(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, file = ring_file
    real = binding.load().io_uring_cqe_seen
    arrivals: list[type[BaseException]] = [KeyboardInterrupt]

    def seen(handle: object, completion: object) -> None:
        if arrivals:
            raise arrivals.pop()
        real(handle, completion)

    ring = ring_over(monkeypatch, backend, io_uring_cqe_seen=seen)
    with pytest.raises(KeyboardInterrupt):
        ring.run([ring.write(file.fileno(), 0, [memoryview(b"12345678")])])
    assert ring._flight is None and ring._api.io_uring_cq_ready(ring._ring) == 1
    # Nothing comes out of the pipe before the timer, so an answer before it is that of the write.
    receiving, sending = os.pipe()
    timer = threading.Timer(0.05, os.write, (sending, b"now"))
    timer.start()
    assert ring.run([ring.read(receiving, 0, memoryview(bytearray(10)))]) == [3]
    timer.join()
    os.close(receiving)
    os.close(sending)


def test_an_interrupt_at_any_point_of_create_leaves_no_file_or_a_whole_one(tmp_path: Path) -> None:
    backend = FdBackend(io_uring="off")
    path = tmp_path / "f"
    descriptor_count = len(os.listdir("/proc/self/fd"))
    number = whole_count = 0
    codes = codes_of(FdBackend.create, FdBackend._open_into, FdSegmentFile.adopt, FdSegmentFile.__init__)
    while interrupt_at(number + 1, codes, lambda: backend.create(str(path), size_bytes=100).close()):
        number += 1
        assert len(os.listdir("/proc/self/fd")) == descriptor_count, number
        if path.exists():
            # Only where the interrupt comes with the very return of a create that is complete.
            whole_count += 1
            assert os.stat(path).st_size == 100 and os.stat(path).st_mode & 0o777 == 0o600
            path.unlink()
    assert number > 20 and whole_count <= 1 and path.exists()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer here")
def test_signals_during_batches_lose_and_repeat_nothing(ring_file: tuple[FdBackend, FdSegmentFile]) -> None:
    backend, file = ring_file
    arrived: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: arrived.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for turn in range(60):
            writes = [(number * 3000, [bytes([turn]) * 2900]) for number in range(300)]
            file.write_many(writes)
            assert file.read_many([(at, 2900) for at, _ in writes]) == [data[0] for _, data in writes]
            backend.sync_many([file, file, file])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert arrived and live_ring(backend)._flight is None


def test_interrupts_in_a_storm_leave_nothing_in_flight(ring_file: tuple[FdBackend, FdSegmentFile]) -> None:
    backend, file = ring_file

    def interrupt(number: int, frame: Optional[types.FrameType]) -> None:
        # In finalisers and callbacks of weak references the interpreter would swallow it.
        code = frame.f_code if frame is not None else None
        if code and code.co_name != "__del__" and Path(code.co_filename).parent.name == "walrus_fd":
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, 0.00002)

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for turn in range(200):
            writes = [(number * 3000, [bytearray(bytes([turn]) * 2900)]) for number in range(100)]
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + turn * 0.00002)
                file.write_many(writes)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
                ring = live_ring(backend)
                assert ring._flight is None or ring._flight.is_over
                assert ring._api.io_uring_sq_ready(ring._ring) == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    file.write_many([(0, [b"after"]), (100, [b"all"])])
    assert file.read_many([(0, 5), (100, 3)]) == [b"after", b"all"]
    assert interrupted > 10
