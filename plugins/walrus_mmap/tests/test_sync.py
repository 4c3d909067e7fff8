"""Making bytes durable, and finding out what the medium holds; natively and portably."""

from __future__ import annotations

import errno
import mmap
import os
import threading

import pytest

from walrus_mmap import system
from walrus_mmap.file import PAGE_BYTES

MIB = 1 << 20


def test_a_sync_error_is_raised_once_and_not_retried(make_file, monkeypatch, system_kind):
    file = make_file(PAGE_BYTES)
    file.write_at(0, b"x")
    calls = []

    def fail(descriptor):
        calls.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync" if system_kind == "portable" else "fdatasync", fail)
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    assert len(calls) == 1


def test_a_flush_error_is_a_sync_error(make_file, monkeypatch):
    """Where a sync of the file does not cover its maps, they are flushed first."""
    monkeypatch.setattr(system, "syncs_maps", lambda: False)
    file = make_file(PAGE_BYTES)
    file.write_at(0, b"x")
    synced = []
    monkeypatch.setattr(system, "sync_file", synced.append)

    class FailingMap:
        def flush(self):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(type(file), "_maps", lambda self: [FailingMap()])
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
    assert synced == []
    file.sync()
    assert len(synced) == 1


def test_sync_runs_beside_writes(make_file):
    file = make_file(64 * PAGE_BYTES)
    stop = threading.Event()
    failures = []

    def sync_on():
        try:
            while not stop.is_set():
                file.sync()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=sync_on)
    thread.start()
    try:
        for page in range(64):
            file.write_at(page * PAGE_BYTES, bytes([page]) * PAGE_BYTES)
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert file.read_at(63 * PAGE_BYTES, 3) == b"???"


def resident_bytes(path):
    """Return how much of a file is in the page cache, as mincore tells."""
    import ctypes

    with open(path, "r+b") as source, mmap.mmap(source.fileno(), 0) as mapping:
        first = ctypes.c_char.from_buffer(mapping)
        flags = (ctypes.c_ubyte * (len(mapping) // mmap.PAGESIZE))()
        try:
            address = ctypes.c_void_p(ctypes.addressof(first))
            status = ctypes.CDLL(None).mincore(address, ctypes.c_size_t(len(mapping)), flags)
        finally:
            del first
        assert status == 0
        return sum(flag & 1 for flag in flags) * mmap.PAGESIZE


def test_drop_cache_empties_the_page_cache(make_file, tmp_path, needs):
    needs("posix_fadvise")
    file = make_file(MIB)
    file.write_at(0, b"z" * MIB)
    assert resident_bytes(tmp_path / "file") == MIB
    file.drop_cache()
    if resident_bytes(tmp_path / "file") == MIB:
        pytest.skip("the file system of the temporary directory has no medium behind its cache")
    assert resident_bytes(tmp_path / "file") == 0
    assert file.read_at(0, MIB) == b"z" * MIB


def test_drop_cache_makes_durable_first(make_file, needs, monkeypatch):
    """Dirty pages stay in the cache: what they hold would be taken for what the medium holds."""
    needs("posix_fadvise")

    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = make_file(MIB)
    file.write_at(0, b"z" * MIB)
    monkeypatch.setattr(system, "sync_file", fail)
    monkeypatch.setattr(os, "fdatasync", fail, raising=False)
    with pytest.raises(OSError, match="Input/output"):
        file.drop_cache()


def test_drop_cache_is_honest_about_windows(make_file, needs):
    needs("posix_fadvise")
    file = make_file(MIB)
    file.write_at(0, b"z" * MIB)
    with file.memory(0, 10) as window:
        with pytest.raises(OSError, match="window") as caught:
            file.drop_cache()
        assert caught.value.errno == errno.EBUSY
        assert window == b"z" * 10
    file.drop_cache()
