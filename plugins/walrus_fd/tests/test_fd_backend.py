"""The backend through the seam: options, directories, creating and opening files, syncing several."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from walrus_core.backend import BACKEND_API, Backend, Capabilities, SegmentFile
from walrus_core.errors import ConfigError
from walrus_fd import backend as backend_module
from walrus_fd.backend import FdBackend
from walrus_fd.files import FdSegmentFile
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
        pytest.skip("this system has no posix_fadvise: it does not have all")
    found = FdBackend().capabilities
    assert found.files and found.vectored and found.fileno and found.durable_writes
    assert found.discard and found.drop_cache and not found.memory
    assert isinstance(file, SegmentFile)
    with pytest.raises(OSError) as caught:
        file.memory(0, 10)
    assert caught.value.errno == errno.EOPNOTSUPP


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
def test_a_file_that_changes_between_the_look_and_the_open_is_refused(
    backend: FdBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, look = tmp_path / "file", os.lstat
    path.write_bytes(b"x")

    def then_linked(looked_at: str) -> os.stat_result:
        found = look(looked_at)
        os.link(path, tmp_path / "hard")
        return found

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    monkeypatch.setattr(backend_module.os, "lstat", then_linked)
    with pytest.raises(OSError, match="2 names") as caught:
        backend.open(str(path))
    monkeypatch.undo()
    assert caught.value.errno == errno.EMLINK
    assert not before or len(os.listdir("/proc/self/fd")) == before


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


def test_a_failed_sync_of_a_directory_is_raised(
    backend: FdBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="lost"):
        backend.sync_dir(str(tmp_path))


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

    monkeypatch.setattr(os, "fdatasync" if hasattr(os, "fdatasync") else "fsync", sync)
    with pytest.raises(OSError, match=f"lost {files[1].fileno()}"):
        made.sync_many(files)
    assert synced == [file.fileno() for file in files]
    for file in files:
        file.close()


def test_durable_writes_open_with_the_flag_of_the_system(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl", reason="this system cannot tell how a file was opened")
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
