"""A sync on the ring that fails while an interrupt ends the call: the kernel tells of it once."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Optional

import pytest

from walrus_fd.backend import FdBackend
from walrus_fd.files import FdSegmentFile
from walrus_fd.ring import Ring


def answer_with(results: list[int], end: Optional[BaseException] = None) -> Callable[..., list[int]]:
    """Return what stands for ``Ring.run``: it has these results, and returns or ends otherwise."""

    def run(self: Ring, operations: object, outcome: list[int]) -> list[int]:
        outcome.extend(results)
        if end is not None:
            raise end
        return outcome

    return run


@pytest.mark.parametrize("by_ring", [True, False])
def test_a_failed_sync_goes_along_with_an_interrupt_that_ends_the_call(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch, by_ring: bool
) -> None:
    """The system tells of it once: the next sync of the file would succeed."""
    backend, file = ring_file
    if by_ring:
        monkeypatch.setattr(Ring, "run", answer_with([0, -errno.EIO, 0], KeyboardInterrupt()))
    else:
        ends: list[BaseException] = [OSError(errno.EIO, "lost"), KeyboardInterrupt()]

        def sync(descriptor: int) -> None:
            raise ends.pop(0)

        monkeypatch.setattr(Ring, "run", answer_with([]))
        monkeypatch.setattr(FdSegmentFile, "sync", lambda self: sync(0))
    with pytest.raises(KeyboardInterrupt) as caught:
        backend.sync_many([file, file, file])
    cause = caught.value.__cause__
    assert isinstance(cause, OSError) and cause.errno == errno.EIO


def test_an_interrupt_of_a_round_leaves_its_results_to_the_caller(
    ring_file: tuple[FdBackend, FdSegmentFile], ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    _backend, file = ring_file
    drive = ring._drive

    def interrupted(flight: Any) -> None:
        monkeypatch.setattr(ring, "_drive", drive)
        drive(flight)
        raise KeyboardInterrupt

    monkeypatch.setattr(ring, "_drive", interrupted)
    outcome: list[Optional[int]] = []
    with pytest.raises(KeyboardInterrupt):
        ring.run([ring.write(file.fileno(), 0, [memoryview(b"four")]), ring.sync(-1)], outcome)
    assert outcome == [4, -errno.EBADF]


def test_an_interrupt_while_another_error_is_handled_is_no_failed_sync(
    ring_file: tuple[FdBackend, FdSegmentFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as of the import of the binding, which looks for files that are not there."""
    backend, file = ring_file

    def run(self: Ring, operations: object, outcome: list[int]) -> list[int]:
        try:
            raise FileNotFoundError(errno.ENOENT, "looked for")
        except FileNotFoundError:
            raise KeyboardInterrupt  # noqa: B904

    monkeypatch.setattr(Ring, "run", run)
    with pytest.raises(KeyboardInterrupt) as caught:
        backend.sync_many([file, file, file])
    assert caught.value.__cause__ is None and caught.value.__context__ is None
