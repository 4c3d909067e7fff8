"""The lock: of one who only reads, who writes nothing; and whose process number a second one is told."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from walrus_core.errors import LockedError, StorageError
from walrus_core.lock import DirectoryLock, forget_all_in_child


def test_a_reader_makes_no_file_and_changes_none(tmp_path):
    lock = DirectoryLock(str(tmp_path), read_only=True)
    lock.check_overtaken()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "LOCK").write_text("12345")
    lock = DirectoryLock(str(tmp_path), read_only=True)
    lock.check_overtaken()
    lock.release()
    assert (tmp_path / "LOCK").read_text() == "12345"


@pytest.mark.parametrize("read_only", [True, False])
def test_one_at_a_time_in_a_process(tmp_path, read_only):
    writer = DirectoryLock(str(tmp_path))
    with pytest.raises(LockedError):
        DirectoryLock(str(tmp_path), read_only=True)
    writer.release()
    reader = DirectoryLock(str(tmp_path), read_only=True)
    with pytest.raises(LockedError):
        DirectoryLock(str(tmp_path), read_only=read_only)
    reader.release()
    DirectoryLock(str(tmp_path)).release()


def test_a_writer_that_was_there_without_a_file_to_hold_is_told(tmp_path):
    reader = DirectoryLock(str(tmp_path), read_only=True)
    (tmp_path / "LOCK").touch()
    with pytest.raises(LockedError, match="meanwhile"):
        reader.check_overtaken()
    reader.release()


def test_the_lock_outlives_another_descriptor_of_its_file(tmp_path, run_child):
    """A lock of the process, as lockf takes it, would go with the first descriptor that is closed."""
    lock = DirectoryLock(str(tmp_path))
    assert (tmp_path / "LOCK").read_bytes() == str(os.getpid()).encode()
    code = """
        from walrus_core.errors import LockedError, StorageError
        from walrus_core.lock import DirectoryLock
        try:
            DirectoryLock(arguments[0])
        except LockedError as error:
            print(error.pid)
    """
    assert run_child(code, tmp_path).stdout == f"{os.getpid()}\n"
    lock.release()
    assert run_child(code, tmp_path).stdout == ""


def told_pid(lock_folder):
    """Return the process number that one is told where the holder has not told its own."""
    fcntl = pytest.importorskip("fcntl", reason="flock is of POSIX systems")
    reader = os.open(lock_folder / "LOCK", os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_EX)
    try:
        with pytest.raises(LockedError) as caught:
            DirectoryLock(str(lock_folder))
    finally:
        os.close(reader)
    assert (f"(pid {caught.value.pid})" in str(caught.value)) == (caught.value.pid is not None)
    return caught.value.pid


def test_who_gave_the_lock_up_is_not_told_as_its_holder(tmp_path):
    """The next holder has the lock a moment before it has told its number."""
    DirectoryLock(str(tmp_path)).release()
    assert told_pid(tmp_path) is None


def test_a_lock_that_was_only_dropped_leaves_its_file_as_it_is(tmp_path):
    lock = DirectoryLock(str(tmp_path))
    lock.drop()
    assert told_pid(tmp_path) == os.getpid()
    lock.release()
    assert (tmp_path / "LOCK").read_text() == str(os.getpid())


def test_who_is_refused_leaves_the_number_of_the_holder(tmp_path, run_child):
    holder = DirectoryLock(str(tmp_path))
    code = """
        import gc
        from walrus_core.errors import LockedError, StorageError
        from walrus_core.lock import DirectoryLock
        for turn in range(3):
            try:
                DirectoryLock(arguments[0])
            except LockedError as error:
                print(error.pid)
            gc.collect()
    """
    assert run_child(code, tmp_path).stdout == f"{os.getpid()}\n" * 3
    holder.release()


def test_a_process_that_was_killed_is_not_told_as_the_holder(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (tmp_path / "LOCK").write_text(str(child.pid))
    assert told_pid(tmp_path) is None


@pytest.mark.parametrize("text", ["", "0", "-1", "junk", "9" * 30])
def test_what_is_no_process_number_is_not_told(tmp_path, text):
    (tmp_path / "LOCK").write_text(text)
    assert told_pid(tmp_path) is None


def test_a_process_of_somebody_else_is_told(tmp_path, monkeypatch):
    def refuse(_pid, _signal):
        raise PermissionError

    monkeypatch.setattr("walrus_core.lock.os.kill", refuse)
    (tmp_path / "LOCK").write_text("4711")
    assert told_pid(tmp_path) == 4711


def test_a_number_that_cannot_be_taken_out_does_not_stop_a_release(tmp_path, monkeypatch):
    lock = DirectoryLock(str(tmp_path))
    with monkeypatch.context() as patch:

        def fail(_descriptor, _size):
            raise OSError(errno.EIO, "no")

        patch.setattr("walrus_core.lock.os.ftruncate", fail)
        lock.release()
    DirectoryLock(str(tmp_path)).release()


@pytest.mark.parametrize(("number", "holds"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_number_that_cannot_be_written(tmp_path, monkeypatch, number, holds):
    """On a full disk the lock holds all the same."""

    def fail(_descriptor, _data):
        raise OSError(number, "no")

    with monkeypatch.context() as patch:
        patch.setattr("walrus_core.lock.os.write", fail)
        if holds:
            lock = DirectoryLock(str(tmp_path))
            assert told_pid_of_us(tmp_path) == os.getpid()
            lock.release()
        else:
            with pytest.raises(StorageError) as caught:
                DirectoryLock(str(tmp_path))
            assert caught.value.errno == number
    DirectoryLock(str(tmp_path)).release()


def told_pid_of_us(folder):
    with pytest.raises(LockedError) as caught:
        DirectoryLock(str(folder))
    return caught.value.pid


def test_a_file_that_another_process_makes_meanwhile_is_taken_as_it_is(tmp_path, monkeypatch):
    real = os.lstat

    def come_first(path):
        monkeypatch.setattr("walrus_core.lock.os.lstat", real)
        (tmp_path / "LOCK").write_text("")
        raise FileNotFoundError(errno.ENOENT, "not there yet", path)

    monkeypatch.setattr("walrus_core.lock.os.lstat", come_first)
    lock = DirectoryLock(str(tmp_path))
    assert (tmp_path / "LOCK").read_text() == str(os.getpid())
    lock.release()


def test_giving_up_the_lock_leaves_it_with_nobody_who_has_the_open_file(tmp_path):
    """Such as a child that was forked, by another thread, while the file was being opened."""
    fcntl = pytest.importorskip("fcntl")
    lock = DirectoryLock(str(tmp_path))
    of_a_child = os.dup(lock._descriptor)
    try:
        lock.release()
        DirectoryLock(str(tmp_path)).release()
        with open(tmp_path / "LOCK", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(of_a_child)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_closes_what_it_has_and_leaves_the_lock_to_its_parent(tmp_path):
    lock = DirectoryLock(str(tmp_path))
    of_the_parent = os.dup(lock._descriptor)
    forget_all_in_child()
    lock.drop()
    with pytest.raises(LockedError):
        DirectoryLock(str(tmp_path))
    os.close(of_the_parent)
    DirectoryLock(str(tmp_path)).release()
