"""Directories that cannot be used, and what is left alone in those that can."""

from __future__ import annotations

import errno
import os
import stat
import subprocess

import pytest
from helpers import contents

from walrus_core import Walrus
from walrus_core.errors import StorageError


def test_a_directory_that_is_a_file(file_store):
    with open(file_store.path, "wb") as file:
        file.write(b"mine")
    with pytest.raises(StorageError) as caught:
        file_store.open()
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(StorageError):
        Walrus(os.path.join(file_store.path, "below"), backend=file_store.backend())
    with open(file_store.path, "rb") as file:
        assert file.read() == b"mine"


def test_a_directory_that_cannot_be_written(file_store):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    os.mkdir(file_store.path)
    os.chmod(file_store.path, stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(StorageError):
            file_store.open()
        with pytest.raises(StorageError):
            Walrus(os.path.join(file_store.path, "below"), backend=file_store.backend())
    finally:
        os.chmod(file_store.path, stat.S_IRWXU)
    file_store.open()


@pytest.mark.parametrize("kind", ["fd", "mmap"])
def test_a_file_system_that_is_mounted_read_only(kind, mounted, file_kind):
    point = mounted(4 << 20)
    options = {"block_size": 16384, "blocks_per_segment": 4}
    with Walrus(point / "log", backend=file_kind(kind)(), **options) as wal:
        wal.append_for_topic("t", b"a")
    subprocess.run(["mount", "-o", "remount,ro", str(point)], check=True)
    for path in (point / "log", point / "new"):
        with pytest.raises(StorageError) as caught:
            Walrus(path, backend=file_kind(kind)(), **options)
        assert caught.value.errno == errno.EROFS
    subprocess.run(["mount", "-o", "remount,rw", str(point)], check=True)
    with Walrus(point / "log", backend=file_kind(kind)(), **options) as wal:
        assert contents(wal, "t") == [b"a"]


def test_a_directory_where_our_names_are_taken_by_directories(file_store):
    os.makedirs(os.path.join(file_store.path, "cursors.db"))
    with pytest.raises(StorageError):
        file_store.open()
    os.rmdir(os.path.join(file_store.path, "cursors.db"))
    os.mkdir(os.path.join(file_store.path, "00000000000000000001.wal"))
    wal = file_store.open()
    with pytest.raises(StorageError):
        wal.append_for_topic("t", b"a")
    wal.close()
    os.rmdir(os.path.join(file_store.path, "00000000000000000001.wal"))
    assert file_store.open().append_for_topic("t", b"a") == 0


def test_links_are_not_followed(file_store, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"of someone else")
    os.mkdir(file_store.path)
    os.symlink(elsewhere, os.path.join(file_store.path, "cursors.db"))
    with pytest.raises(StorageError):
        file_store.open()
    os.unlink(os.path.join(file_store.path, "cursors.db"))
    os.unlink(os.path.join(file_store.path, "LOCK"))
    os.symlink(elsewhere, os.path.join(file_store.path, "LOCK"))
    with pytest.raises(StorageError):
        file_store.open()
    assert elsewhere.read_bytes() == b"of someone else"


def test_missing_parents_are_made_and_files_are_private(file_store):
    path = os.path.join(file_store.path, "a", "b", "c")
    with Walrus(path, backend=file_store.backend()) as wal:
        wal.append_for_topic("t", b"a")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    for name in os.listdir(path):
        assert stat.S_IMODE(os.stat(os.path.join(path, name)).st_mode) == 0o600, name
