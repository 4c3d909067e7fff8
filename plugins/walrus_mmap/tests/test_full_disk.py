"""A full disk is an error with everything as before; through a map it would be a signal."""

from __future__ import annotations

import errno
import shutil

import pytest

MIB = 1 << 20


def free_bytes(directory):
    return shutil.disk_usage(directory).free


@pytest.mark.parametrize("kind", ["tmpfs", "ext4-4096", "ext4-1024"])
def test_a_reservation_that_does_not_fit_changes_nothing(backend, mounted, kind, system_kind):
    directory = mounted(kind, 16 * MIB)
    file = backend.create(str(directory / "file"), size_bytes=64 * MIB)
    try:
        file.write_at(MIB, b"kept")
        file.sync()
        before = free_bytes(directory)
        with pytest.raises(OSError, match="No space") as caught:
            file.reserve(0, 32 * MIB)
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="No space"):
            file.reserve(63 * MIB, 32 * MIB)
        assert file.size_bytes == 64 * MIB
        assert file.read_at(0, 4 * MIB) == bytes(MIB) + b"kept" + bytes(3 * MIB - 4)
        if system_kind == "native":
            file.sync()
            assert free_bytes(directory) >= before - 65536  # ext4 keeps a block or two of its own
            file.reserve(0, 2 * MIB)
    finally:
        file.close()


@pytest.mark.parametrize("kind", ["tmpfs", "ext4-4096", "ext4-1024"])
def test_a_write_to_a_sparse_range_of_a_full_disk_is_an_error(run_child, mounted, fill_up, kind):
    directory = mounted(kind, 16 * MIB)
    path = directory / "file"
    run_child("backend.create(arguments[0], size_bytes=64 << 20).close()", path)
    fill_up(directory)
    run_child(
        """
        file = backend.open(arguments[0])
        for at in range(0, 64 << 20, 16 << 20):
            try:
                file.write_at(at, b"x" * 100000)
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
            else:
                raise AssertionError("written to a full disk")
        assert file.read_at(0, 64 << 20) == bytes(64 << 20)
        """,
        path,
    )


@pytest.mark.parametrize("kind", ["tmpfs", "ext4-4096", "ext4-1024"])
def test_reserved_ranges_take_writes_on_a_full_disk(run_child, mounted, kind, tmp_path):
    """Down to single bytes in pages of which no other byte was reserved, and across a reopen."""
    directory = mounted(kind, 16 * MIB)
    (tmp_path / "script").write_text(
        "path = __import__('pathlib').Path(arguments[0]).parent / 'filler'\n"
        "sink = open(path, 'wb', buffering=0)\n"
        "length = 1 << 20\n"
        "while length >= 256:\n"
        "    try:\n"
        "        sink.write(bytes([1]) * length)\n"
        "    except OSError:\n"
        "        length //= 2\n"
        "sink.close()\n"
    )
    run_child(
        """
        file = backend.create(arguments[0], size_bytes=8 << 20)
        places = [5000, 1 << 20, (2 << 20) + 1023, (8 << 20) - 1]
        for at in places:
            file.reserve(at, 1)
        file.reserve(3 << 20, 1 << 20)
        exec(open(arguments[1]).read())
        for at in places:
            with file.memory(at, 1) as window:
                window[0] = 7
        file.write_at(3 << 20, b"z" * (1 << 20))
        file.sync()
        file.close()
        file = backend.open(arguments[0])
        file.write_at(3 << 20, b"y" * (1 << 20))
        file.sync()
        assert [file.read_at(at, 1) for at in places] == [bytes([7])] * 4
        assert file.read_at(3 << 20, 1 << 20) == b"y" * (1 << 20)
        file.close()
        """,
        directory / "file",
        tmp_path / "script",
    )


def test_a_full_disk_takes_writes_again_when_there_is_space(backend, mounted, fill_up):
    directory = mounted("tmpfs", 4 * MIB)
    file = backend.create(str(directory / "file"), size_bytes=MIB)
    try:
        filler = fill_up(directory)
        with pytest.raises(OSError, match="No space"):
            file.write_at(0, b"x" * 100)
        filler.unlink()
        file.write_at(0, b"x" * 100)
        assert file.read_at(0, 101) == b"x" * 100 + b"\0"
    finally:
        file.close()
