"""One file through the seam: reading, writing, syncing, and its end."""

from __future__ import annotations

import errno
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from walrus_fd import backend as backend_module
from walrus_fd import files as files_module
from walrus_fd.backend import FdBackend
from walrus_fd.files import FdSegmentFile, SeekingSegmentFile

SIZE_BYTES = 1 << 20


# --- reading and writing ----------------------------------------------------------------------


def test_reads_give_what_was_written_and_zeros_elsewhere(file: FdSegmentFile) -> None:
    file.write_at(1000, b"abc" * 100)
    assert file.read_at(1000, 300) == b"abc" * 100
    assert file.read_at(998, 4) == b"\0\0ab"
    assert file.read_at(1299, 3) == b"c\0\0"
    assert file.read_at(SIZE_BYTES - 10, 10) == bytes(10)
    assert file.size_bytes == SIZE_BYTES


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_written_whole(file: FdSegmentFile, kind: Callable[[bytes], Any]) -> None:
    file.write_at(0, kind(b"12345678"))
    assert file.read_at(0, 9) == b"12345678\0"


def test_a_view_of_wider_items_is_counted_in_bytes(file: FdSegmentFile) -> None:
    file.write_at(0, memoryview(b"12345678" * 4).cast("Q"))
    file.write_many([(100, [memoryview(b"12345678").cast("Q")]), (200, [b"x"])])
    assert file.read_at(0, 33) == b"12345678" * 4 + b"\0"
    assert file.read_at(100, 9) == b"12345678\0"


def test_positions_beyond_4_gib(backend: FdBackend, tmp_path: Path) -> None:
    far = 5 << 30
    file = backend.create(str(tmp_path / "far.wal"), size_bytes=far + 4096)
    file.write_at(far, b"far")
    file.write_many([(far + 100, [b"one"]), (far + 200, [b"two", b"three" * 20000][:1])])
    assert file.read_at(far, 3) == b"far"
    assert file.read_many([(far + 100, 3), (far + 200, 3), (100, 3)]) == [b"one", b"two", bytes(3)]
    assert os.stat(file.path).st_blocks * 512 < 1 << 20, "the file should be sparse"
    file.close()


@pytest.mark.parametrize(
    ("at_bytes", "length_bytes"), [(SIZE_BYTES - 1, 2), (SIZE_BYTES, 1), (SIZE_BYTES * 2, 9)]
)
def test_a_read_beyond_the_end_is_an_error(file: FdSegmentFile, at_bytes: int, length_bytes: int) -> None:
    with pytest.raises(OSError, match="end beyond the file") as caught:
        file.read_at(at_bytes, length_bytes)
    assert caught.value.errno == errno.EIO
    with pytest.raises(OSError, match="end beyond the file"):
        file.read_many([(0, 10), (at_bytes, length_bytes)])


def test_short_counts_of_reads_and_writes_go_on(
    file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch, replace_write: Any
) -> None:
    read = "pread" if hasattr(os, "pread") else "read"
    real_read = getattr(os, read)
    counts: list[int] = []

    def short(real: Any) -> Any:
        def write(descriptor: int, data: Any, at_bytes: int) -> int:
            counts.append(real(descriptor, memoryview(data)[:7], at_bytes))
            return counts[-1]

        return write

    replace_write(short)
    monkeypatch.setattr(os, read, lambda fd, length, *at: real_read(fd, min(length, 5), *at))
    data = bytes(range(100))
    file.write_at(50, data)
    assert file.read_at(50, 100) == data and len(counts) == 15
    monkeypatch.undo()
    assert file.read_at(0, 200) == bytes(50) + data + bytes(50)


def test_a_write_that_writes_nothing_is_an_error(file: FdSegmentFile, replace_write: Any) -> None:
    answers: list[int] = []
    replace_write(lambda _real: lambda *_: answers.pop(0))
    for counts in ([3, 0], [0]):
        answers[:] = counts
        with pytest.raises(OSError, match="wrote nothing") as caught:
            file.write_at(0, b"12345")
        assert caught.value.errno == errno.EIO and not answers


def test_an_error_in_the_middle_of_a_write_is_raised(file: FdSegmentFile, replace_write: Any) -> None:
    calls: list[int] = []

    def failing(real: Any) -> Any:
        def write(descriptor: int, data: Any, at_bytes: int) -> int:
            calls.append(at_bytes)
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, "full")
            return int(real(descriptor, memoryview(data)[:4], at_bytes))

        return write

    replace_write(failing)
    with pytest.raises(OSError, match="full") as caught:
        file.write_at(0, b"12345678")
    assert caught.value.errno == errno.ENOSPC and calls == [0, 4]


def test_threads_read_beside_a_write_to_another_range(file: FdSegmentFile) -> None:
    file.write_at(0, b"r" * 4096)
    wrong: list[object] = []

    def read() -> None:
        for _ in range(300):
            if file.read_at(0, 4096) != b"r" * 4096:
                wrong.append("read")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(300):
        file.write_at(8192 + number, b"w")
    for reader in readers:
        reader.join()
    assert not wrong and file.read_at(8192, 300) == b"w" * 300


# --- without positional calls -----------------------------------------------------------------


def test_the_file_without_positional_calls_does_the_same(
    backend: FdBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "_FILE_CLASS", SeekingSegmentFile)
    for name in ("pread", "pwrite", "pwritev"):
        monkeypatch.delattr(os, name, raising=False)
    off = FdBackend(io_uring="off")
    file = off.create(str(tmp_path / "seek.wal"), size_bytes=SIZE_BYTES)
    file.write_at(10, b"ten")
    file.write_many([(100, [b"one" * 30000, b"two"]), (7, [b"seven"[:3]])])
    assert file.read_at(7, 6) == b"sevten"
    assert file.read_many([(100, 90003), (10, 3)]) == [b"one" * 30000 + b"two", b"ten"]
    with pytest.raises(OSError, match="end beyond the file"):
        file.read_at(SIZE_BYTES, 1)
    file.close()


def test_gathered_writes_without_pwritev(file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "HAS_GATHER", False)
    monkeypatch.delattr(os, "pwritev", raising=False)
    file.write_many([(0, [b"a" * 50000, b"b" * 50000])])
    assert file.read_at(0, 100001) == b"a" * 50000 + b"b" * 50000 + b"\0"


# --- syncs ------------------------------------------------------------------------------------


def test_a_failed_sync_is_raised_and_never_tried_again(
    file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fail(descriptor: int) -> None:
        calls.append("sync")
        raise OSError(errno.EIO, "lost")

    if hasattr(os, "fdatasync"):
        monkeypatch.setattr(os, "fdatasync", fail)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="lost"):
        file.sync()
    assert calls == ["sync"]


# --- ends -------------------------------------------------------------------------------------


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_descriptors_are_not_inherited(file: FdSegmentFile) -> None:
    assert not os.get_inheritable(file.fileno())


def test_close_gives_the_descriptor_up_before_closing_and_does_not_sync(
    file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.close
    seen: list[int] = []

    def close(descriptor: int) -> None:
        seen.append(file.fileno())
        real(descriptor)

    descriptor = file.fileno()
    monkeypatch.setattr(os, "close", close)
    monkeypatch.setattr(os, "fsync", pytest.fail)
    file.close()
    file.close()
    assert seen == [-1] and not is_open(descriptor)


def test_a_dropped_file_closes_its_descriptor_without_io(
    backend: FdBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = backend.create(str(tmp_path / "dropped"), size_bytes=10)
    descriptor = file.fileno()
    monkeypatch.setattr(os, "fsync", pytest.fail)
    monkeypatch.setattr(os, "fdatasync", pytest.fail, raising=False)
    del file
    gc.collect()
    assert not is_open(descriptor)


def test_a_file_that_was_never_opened_can_be_dropped() -> None:
    half_built = FdSegmentFile.__new__(FdSegmentFile)
    half_built.__del__()
    assert half_built.fileno() == -1
