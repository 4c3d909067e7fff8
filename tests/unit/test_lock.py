"""The lock of one who only reads: it keeps writers out, and writes nothing."""

from __future__ import annotations

import os

import pytest

from walrus_core.errors import LockedError
from walrus_core.lock import DirectoryLock


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
        from walrus_core.errors import LockedError
        from walrus_core.lock import DirectoryLock
        try:
            DirectoryLock(arguments[0])
        except LockedError as error:
            print(error.pid)
    """
    assert run_child(code, tmp_path).stdout == f"{os.getpid()}\n"
    lock.release()
    assert run_child(code, tmp_path).stdout == ""
