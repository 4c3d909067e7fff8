"""Reads, writes and windows of one open file, and its end; natively and portably."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from walrus_mmap import file as file_module
from walrus_mmap import system
from walrus_mmap.file import PAGE_BYTES

MIB = 1 << 20


def peek(path):
    """Return the bytes of a file, read by other means than the backend's."""
    return path.read_bytes()


def descriptors():
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here to count descriptors in")
    return len(os.listdir("/proc/self/fd"))


def used_bytes(path):
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("write", ["write_at", "memory"])
@pytest.mark.parametrize("is_reserved", [True, False])
def test_what_was_written_is_read_by_every_way(make_file, tmp_path, write, is_reserved):
    file = make_file(4 * PAGE_BYTES)
    data = bytes(range(256)) * 20
    at = PAGE_BYTES - 100
    if is_reserved or write == "memory":
        file.reserve(at, len(data))
    if write == "memory":
        with file.memory(at, len(data)) as window:
            window[:] = data
    else:
        file.write_at(at, data)
    assert file.read_at(at, len(data)) == data
    with file.memory(at, len(data)) as window:
        assert window == data
    assert peek(tmp_path / "file")[at : at + len(data)] == data
    assert file.read_at(0, at) == bytes(at)


@pytest.mark.parametrize("way", ["write_at", "write_many"])
def test_short_counts_of_writes_go_on(make_file, needs, monkeypatch, way):
    """The system may write less than it was given: 2 GiB are over, or a signal came."""
    needs("pwrite and pwritev")
    file = make_file(PAGE_BYTES)
    pwrite, pwritev = os.pwrite, os.pwritev
    monkeypatch.setattr(os, "pwrite", lambda number, data, at: pwrite(number, data[:3], at))
    monkeypatch.setattr(os, "pwritev", lambda number, some, at: pwritev(number, [b"".join(some)[:5]], at))
    if way == "write_at":
        file.write_at(8, b"0123456789")
    else:
        file.write_many([(8, [b"0123", b"", b"456", b"789"])])
    assert file.read_at(0, 32) == bytes(8) + b"0123456789" + bytes(14)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("I")])
def test_every_buffer_is_written_and_may_be_reused(make_file, wrap):
    file = make_file(PAGE_BYTES)
    file.write_at(8, wrap(b"abcdefgh"))
    own = bytearray(b"12345678")
    file.write_at(16, own)
    own[:] = b"........"
    assert file.read_at(8, 16) == b"abcdefgh12345678"


def test_never_written_bytes_read_as_zero(make_file):
    file = make_file(3 * PAGE_BYTES + 5)
    assert file.size_bytes == 3 * PAGE_BYTES + 5
    assert file.read_at(0, file.size_bytes) == bytes(file.size_bytes)
    with file.memory(1, 2 * PAGE_BYTES) as window:
        assert window == bytes(2 * PAGE_BYTES)


def test_a_new_file_is_sparse(make_file, tmp_path):
    make_file(64 * MIB)
    assert used_bytes(tmp_path / "file") < MIB


@pytest.mark.parametrize(("at", "length"), [(90, 11), (101, 0), (-1, 5), (5, -1), (1 << 40, 1)])
def test_ranges_outside_the_file_are_refused(make_file, at, length):
    file = make_file(100)
    with pytest.raises(OSError, match="not inside the file"):
        file.read_at(at, length)
    with pytest.raises(OSError, match="not inside the file"):
        file.memory(at, length)
    with pytest.raises(OSError, match="not inside the file"):
        file.discard(at, length)
    if length >= 0:
        with pytest.raises(OSError, match="not inside the file"):
            file.write_at(at, bytes(length))
    assert file.size_bytes == 100


def test_empty_ranges_are_fine(make_file):
    file = make_file(0)
    assert file.read_at(0, 0) == b""
    file.write_at(0, b"")
    file.reserve(0, 0)
    file.discard(0, 0)
    file.memory(0, 0).release()
    file.sync()
    assert file.size_bytes == 0


def test_growing_with_a_window_out(make_file, system_kind):
    file = make_file(PAGE_BYTES)
    file.reserve(0, PAGE_BYTES)
    window = file.memory(0, PAGE_BYTES)
    window[:5] = b"first"
    if system_kind == "portable":
        with pytest.raises(OSError, match="window") as caught:
            file.reserve(PAGE_BYTES, PAGE_BYTES)
        assert caught.value.errno == errno.EBUSY
        assert file.size_bytes == PAGE_BYTES
        window.release()
        file.reserve(PAGE_BYTES, PAGE_BYTES)
        assert file.read_at(0, 5) == b"first"
        return
    file.reserve(PAGE_BYTES, 3 * PAGE_BYTES)
    with file.memory(0, 4 * PAGE_BYTES) as longer:
        longer[-3:] = b"end"
        window[:5] = b"again"
        assert longer[:5] == b"again"
    file.write_at(0, b"write")
    assert window[:5] == b"write"
    window.release()
    assert file.read_at(4 * PAGE_BYTES - 3, 3) == b"end"


def test_old_maps_are_closed_once_their_windows_are_gone(make_file):
    file = make_file(PAGE_BYTES)
    before = descriptors()
    for pages in range(1, 40):
        file.reserve(0, pages * PAGE_BYTES)
        file.memory(0, pages * PAGE_BYTES).release()
    assert descriptors() <= before + 1


def test_many_windows_need_one_descriptor(make_file):
    file = make_file(64 * PAGE_BYTES)
    before = descriptors()
    windows = [file.memory(at, PAGE_BYTES) for at in range(0, 64 * PAGE_BYTES, PAGE_BYTES)]
    assert descriptors() <= before + 1
    for window in windows:
        window.release()


def test_readers_run_beside_a_growing_file(make_file):
    file = make_file(PAGE_BYTES)
    file.write_at(0, b"a" * PAGE_BYTES)
    stop = threading.Event()
    failures = []

    def read_on():
        try:
            while not stop.is_set():
                assert file.read_at(0, PAGE_BYTES) == b"a" * PAGE_BYTES
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for page in range(1, 60):
            file.reserve(page * PAGE_BYTES, PAGE_BYTES)
            file.write_at(page * PAGE_BYTES, b"b" * PAGE_BYTES)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_positions_beyond_4_gib(make_file, tmp_path):
    at = (5 << 30) + 123
    file = make_file(6 << 30)
    file.write_at(at, b"far away")
    with file.memory(at - 1, 10) as window:
        assert window == b"\0far away\0"
    file.reserve(at + 8, 8)
    assert file.read_at(at, 9) == b"far away\0"
    with open(tmp_path / "file", "rb") as other:
        other.seek(at)
        assert other.read(8) == b"far away"
    assert file.size_bytes == 6 << 30
    assert used_bytes(tmp_path / "file") < MIB


def test_what_was_read_outlives_the_file(make_file):
    file = make_file(PAGE_BYTES)
    file.write_at(0, b"0123456789")
    before = descriptors()
    view = file.read_at(2, 5)
    with pytest.raises(TypeError, match=r"read-only|does not support item assignment"):
        view[0] = 0
    file.close()
    assert bytes(view) == b"23456"
    del view
    assert descriptors() < before


def test_close_releases_every_descriptor(backend, tmp_path):
    before = descriptors()
    file = backend.create(str(tmp_path / "file"), size_bytes=PAGE_BYTES)
    file.write_at(0, b"x")
    file.close()
    file.close()
    assert descriptors() == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read_at(0, 1)


def test_a_dropped_file_is_closed_without_a_sync(backend, tmp_path, monkeypatch):
    before = descriptors()
    file = backend.create(str(tmp_path / "file"), size_bytes=PAGE_BYTES)
    file.write_at(0, b"x")

    def refuse(descriptor):
        raise AssertionError("synced")

    monkeypatch.setattr(system, "sync_file", refuse)
    monkeypatch.setattr(os, "fdatasync", refuse, raising=False)
    del file
    assert descriptors() == before
    assert peek(tmp_path / "file")[:1] == b"x"


def test_pages_that_were_let_go_keep_their_bytes(make_file, tmp_path, needs):
    needs("MADV_DONTNEED")
    file = make_file(4 * MIB)
    file.reserve(0, 4 * MIB)
    window = file.memory(0, 4 * MIB)
    window[:] = bytes(range(256)) * (4 * MIB // 256)
    before = mapped_bytes(tmp_path / "file")
    file.prepare(0, 4 * MIB)
    file.unload(5, 3 * MIB)
    assert mapped_bytes(tmp_path / "file") <= before - 3 * MIB + 2 * PAGE_BYTES
    assert bytes(window) == bytes(range(256)) * (4 * MIB // 256)
    assert file.read_at(0, 4 * MIB) == peek(tmp_path / "file")
    window[100:103] = b"new"
    assert file.read_at(100, 3) == b"new"
    file.unload(0, 0)
    file.unload(7, 100)
    with pytest.raises(OSError, match="not inside"):
        file.unload(3 * MIB, 2 * MIB)
    window.release()


@pytest.mark.parametrize(
    ("number", "is_told"), [(errno.ENOMEM, False), (errno.EAGAIN, False), (errno.EIO, True)]
)
def test_advice_that_finds_no_room_is_left_out(number, is_told):
    class Crowded:
        def __len__(self):
            return MIB

        def madvise(self, *_arguments):
            raise OSError(number, "no advice")

    if is_told:
        with pytest.raises(OSError, match="no advice"):
            system.advise(Crowded(), 1, 0, MIB)
    else:
        system.advise(Crowded(), 1, 0, MIB)


def mapped_bytes(path):
    """Return how much of the file this process has in its page tables."""
    if not os.path.exists("/proc/self/smaps"):
        pytest.skip("no /proc here to look at maps in")
    total_kib, is_ours = 0, False
    with open("/proc/self/smaps") as lines:
        for line in lines:
            first, *rest = line.split()
            if "-" in first and len(rest) >= 4:
                is_ours = line.rstrip().endswith(str(path))
            elif is_ours and first == "Rss:":
                total_kib += int(rest[0])
    return total_kib * 1024


def test_a_file_cut_by_others_is_an_error_not_a_signal(tmp_path, run_child):
    run_child(
        """
        file = backend.create(arguments[0], size_bytes=1 << 20)
        file.write_at(0, b"z" * (1 << 20))
        os.truncate(arguments[0], 5000)
        for call in (
            lambda: file.read_at(8192, 10), lambda: file.write_at(8192, b"x"), lambda: file.memory(8192, 1)
        ):
            try:
                call()
            except OSError as error:
                assert error.errno == errno.EIO, error
            else:
                raise AssertionError("nothing was raised")
        assert file.read_at(4990, 10) == b"z" * 10
        file.reserve(0, 1 << 20)
        file.write_at(8192, b"again")
        assert file.read_at(8192, 6) == b"again" + bytes(1)
        """,
        tmp_path / "file",
    )


def test_growth_on_windows_is_told_by_the_name_of_the_system():
    expected = os.name == "nt"
    assert expected == file_module.GROWTH_NEEDS_NO_MAP
