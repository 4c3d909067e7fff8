"""Files of the backend through the seam: reading, writing, syncing, links, modes, ends."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from walrus_core.backend import BACKEND_API, Backend, Capabilities, SegmentFile
from walrus_core.errors import ConfigError
from walrus_fd import backend as backend_module
from walrus_fd import files as files_module
from walrus_fd.backend import FdBackend
from walrus_fd.files import FdSegmentFile, SeekingSegmentFile
from walrus_fd.plugin import walrus_register_backends

SIZE_BYTES = 1 << 20


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0)
    os.umask(before)
    yield os.umask
    os.umask(before)


def test_the_plugin_hands_over_a_backend_of_the_current_api() -> None:
    (cls,) = walrus_register_backends()
    made = cls()
    assert cls is FdBackend and cls.name == "fd" and cls.api == BACKEND_API
    assert isinstance(made, Backend) and isinstance(made.capabilities, Capabilities)


def test_capabilities_on_linux_name_all_that_the_backend_has(file: FdSegmentFile) -> None:
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("not Linux")
    found = FdBackend().capabilities
    assert found.files and found.vectored and found.fileno and found.durable_writes
    assert found.discard and found.drop_cache and not found.memory
    assert isinstance(file, SegmentFile)
    with pytest.raises(OSError) as caught:
        file.memory(0, 10)
    assert caught.value.errno == errno.EOPNOTSUPP


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


def test_short_counts_of_reads_and_writes_go_on(file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write, real_read = os.pwrite, os.pread
    counts: list[int] = []

    def short_write(descriptor: int, data: Any, at_bytes: int) -> int:
        counts.append(real_write(descriptor, memoryview(data)[:7], at_bytes))
        return counts[-1]

    monkeypatch.setattr(os, "pwrite", short_write)
    monkeypatch.setattr(os, "pread", lambda fd, length, at: real_read(fd, min(length, 5), at))
    data = bytes(range(100))
    file.write_at(50, data)
    assert file.read_at(50, 100) == data and len(counts) == 15
    monkeypatch.undo()
    assert file.read_at(0, 200) == bytes(50) + data + bytes(50)


def test_a_write_that_writes_nothing_is_an_error(
    file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[int] = []
    monkeypatch.setattr(os, "pwrite", lambda *_: answers.pop(0))
    for counts in ([3, 0], [0]):
        answers[:] = counts
        with pytest.raises(OSError, match="wrote nothing") as caught:
            file.write_at(0, b"12345")
        assert caught.value.errno == errno.EIO and not answers


def test_an_error_in_the_middle_of_a_write_is_raised(
    file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    calls: list[int] = []

    def failing(descriptor: int, data: Any, at_bytes: int) -> int:
        calls.append(at_bytes)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, memoryview(data)[:4], at_bytes)

    monkeypatch.setattr(os, "pwrite", failing)
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
        monkeypatch.delattr(os, name)
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
    monkeypatch.delattr(os, "pwritev")
    file.write_many([(0, [b"a" * 50000, b"b" * 50000])])
    assert file.read_at(0, 100001) == b"a" * 50000 + b"b" * 50000 + b"\0"


# --- creating, opening, removing --------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX")
@pytest.mark.parametrize("mask", [0, 0o777])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: Callable[[int], int], mask: int) -> None:
    umask(mask)
    made = FdBackend(io_uring="off")
    made.make_directory(str(tmp_path / "a" / "b"))
    made.create(str(tmp_path / "a" / "b" / "f"), size_bytes=10).close()
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(tmp_path / "a" / "b").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(tmp_path / "a" / "b" / "f").st_mode) == 0o600


def test_create_is_exclusive_and_leaves_the_other_file_alone(backend: FdBackend, tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        backend.create(str(path), size_bytes=4096)
    assert path.read_bytes() == b"precious"


def test_a_create_that_fails_leaves_no_file_and_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, size_bytes: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "ftruncate", fail)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(OSError, match="full"):
        FdBackend(io_uring="off").create(str(tmp_path / "f"), size_bytes=4096)
    assert list(tmp_path.iterdir()) == []
    assert not before or len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege on Windows")
def test_links_and_what_is_no_file_are_refused(backend: FdBackend, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "symbolic").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError) as caught:
        backend.open(str(tmp_path / "symbolic"))
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(OSError, match="not a regular file"):
        backend.open(str(tmp_path / "pipe"))
    with pytest.raises(IsADirectoryError):
        backend.open(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        backend.open(str(tmp_path / "absent"))
    backend.open(str(tmp_path / "file")).close()
    os.link(tmp_path / "file", tmp_path / "hard")
    with pytest.raises(OSError, match="2 names") as caught:
        backend.open(str(tmp_path / "file"))
    assert caught.value.errno == errno.EMLINK


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege on Windows")
def test_create_does_not_follow_a_dangling_link(backend: FdBackend, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        backend.create(str(tmp_path / "dangling"), size_bytes=10)
    assert not (tmp_path / "target").exists()


def test_list_rename_and_remove(backend: FdBackend, tmp_path: Path) -> None:
    for name in ("b", "a"):
        backend.create(str(tmp_path / name), size_bytes=10).close()
    (tmp_path / "directory").mkdir()
    assert sorted(backend.list(str(tmp_path))) == ["a", "b"]
    backend.rename(str(tmp_path / "a"), str(tmp_path / "c"))
    backend.remove(str(tmp_path / "b"))
    backend.sync_dir(str(tmp_path))
    assert list(backend.list(str(tmp_path))) == ["c"]


def test_make_directory_syncs_each_new_entry_and_the_one_it_starts_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(FdBackend, "sync_dir", lambda self, directory: synced.append(directory))
    made = FdBackend(io_uring="off")
    made.make_directory(str(tmp_path / "a" / "b"))
    assert synced == [str(tmp_path.parent), str(tmp_path), str(tmp_path / "a")]
    made.make_directory(str(tmp_path / "a" / "b"))
    assert synced[3:] == [str(tmp_path / "a")], "a killed attempt may have left it undurable"


def test_make_directory_refuses_a_file_in_its_way(backend: FdBackend, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FileExistsError):
        backend.make_directory(str(tmp_path / "file"))
    with pytest.raises(FileExistsError):
        backend.make_directory(str(tmp_path / "file" / "below"))
    assert (tmp_path / "file").read_bytes() == b"x"


# --- syncs ------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="no fdatasync here")
def test_a_failed_sync_is_raised_and_never_tried_again(
    file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fail(descriptor: int) -> None:
        calls.append("sync")
        raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(os, "fdatasync", fail)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="lost"):
        file.sync()
    assert calls == ["sync"]


def test_a_failed_sync_of_a_directory_is_raised(
    backend: FdBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="lost"):
        backend.sync_dir(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="no fdatasync here")
def test_sync_many_syncs_all_and_raises_the_first_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = FdBackend(io_uring="off")
    files = [made.create(str(tmp_path / str(number)), size_bytes=4096) for number in range(4)]
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        synced.append(descriptor)
        if descriptor in (files[1].fileno(), files[2].fileno()):
            raise OSError(errno.EIO, f"lost {descriptor}")

    monkeypatch.setattr(os, "fdatasync", sync)
    with pytest.raises(OSError, match=f"lost {files[1].fileno()}"):
        made.sync_many(files)
    assert synced == [file.fileno() for file in files]
    for file in files:
        file.close()


def test_durable_writes_open_with_the_flag_of_the_system(tmp_path: Path) -> None:
    flag = getattr(os, "O_DSYNC", None) or getattr(os, "O_SYNC", None)
    if flag is None or not FdBackend().capabilities.durable_writes:
        pytest.skip("no durable writes on this system")
    path = str(tmp_path / "f")
    for durable in (True, False):
        made = FdBackend(durable_writes=durable, io_uring="off")
        file = made.create(path, size_bytes=4096) if durable else made.open(path)
        assert bool(fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & flag) is durable
        assert made.probe()["durable_writes"] is durable
        file.write_at(0, b"durable")
        file.close()


def test_options_that_cannot_be_had_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'sometimes' is not one of auto, on, off") as caught:
        FdBackend(io_uring="sometimes")
    assert caught.value.option == "io_uring"  # type: ignore[attr-defined]
    monkeypatch.setattr(backend_module, "_SYNC_FLAG_NAME", "")
    with pytest.raises(ConfigError, match="no flag for durable writes"):
        FdBackend(durable_writes=True)


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
