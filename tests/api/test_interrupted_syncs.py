"""A failed sync that an interrupt meets: the system tells of it once, so it must not be forgotten."""

from __future__ import annotations

import errno
import os

import pytest
from helpers import contents

from walrus_core import FsyncSchedule, Walrus
from walrus_core.errors import PoisonedError, SyncFailedError
from walrus_core.gate import Gate

EIO = OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture(params=["fd", "mmap"])
def wal(request, tmp_path):
    pytest.importorskip(f"walrus_{request.param}")
    made = Walrus(tmp_path / "log", backend=request.param, fsync_schedule=FsyncSchedule.sync_each())
    made.append_for_topic("t", b"0")
    yield made
    if not made.is_closed:
        made.close()


def fail_once(monkeypatch, error: BaseException) -> None:
    """Let the next sync of a file fail as the system lets it fail: once, and never again."""
    sync = os.fdatasync

    def failing(descriptor):
        monkeypatch.setattr(os, "fdatasync", sync)
        raise error

    monkeypatch.setattr(os, "fdatasync", failing)


def interrupt_once(monkeypatch, name: str) -> None:
    """Let an interrupt come at the begin of the next call of this method of a gate."""
    method = getattr(Gate, name)

    def interrupted(self, *arguments):
        monkeypatch.setattr(Gate, name, method)
        raise KeyboardInterrupt

    monkeypatch.setattr(Gate, name, interrupted)


needs_fdatasync = pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="the system has no fdatasync")


@needs_fdatasync
@pytest.mark.parametrize("place", ["sync_failed", "poison", "_block_calls"])
@pytest.mark.parametrize("topics", [1, 2])
def test_a_failed_sync_whose_handling_is_interrupted_poisons(wal, monkeypatch, place, topics):
    for number in range(1, topics):
        # Stays noted until a sync finds nothing new in it; no thread of the library comes for it.
        wal.append_for_topic(f"other {number}", b"x")
    fail_once(monkeypatch, EIO)
    interrupt_once(monkeypatch, place)
    with pytest.raises(KeyboardInterrupt):
        wal.append_for_topic("t", b"1")
    for _ in range(2):
        with pytest.raises(PoisonedError):
            wal.append_for_topic("t", b"2")
    assert wal.durable_offset("t") == 1
    assert [entry.data for entry in wal.batch_read_for_topic("t", start_offset=0)] == [b"0"]
    wal.close()


@needs_fdatasync
def test_a_failed_sync_is_told_once_all_the_same(wal, monkeypatch):
    told = []
    monkeypatch.setattr(wal._engine.gate, "_announce", told.append)
    fail_once(monkeypatch, EIO)
    interrupt_once(monkeypatch, "_block_calls")
    with pytest.raises(KeyboardInterrupt):
        wal.append_for_topic("t", b"1")
    assert len(told) == 1 and isinstance(told[0], SyncFailedError)


@needs_fdatasync
def test_an_interrupt_alone_poisons_nothing_whatever_the_caller_is_handling(wal, monkeypatch):
    fail_once(monkeypatch, KeyboardInterrupt())
    try:
        raise EIO
    except OSError:
        with pytest.raises(KeyboardInterrupt):
            wal.append_for_topic("t", b"1")
    assert wal.append_for_topic("t", b"2") == 2
    assert contents(wal, "t") == [b"0", b"1", b"2"]
