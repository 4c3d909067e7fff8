"""Space of a file: reserving it, undoing what failed, giving it back; natively and portably."""

from __future__ import annotations

import errno
import os
import random

import pytest

from walrus_mmap import system
from walrus_mmap.file import PAGE_BYTES

MIB = 1 << 20


def used_bytes(path):
    return path.stat().st_blocks * 512


def peek(path):
    """Return the bytes of a file, read by other means than the backend's."""
    return path.read_bytes()


def test_reserve_grows_the_file_by_zeros(make_file, tmp_path):
    file = make_file(0)
    file.reserve(0, 100)
    file.write_at(0, b"x" * 100)
    file.reserve(PAGE_BYTES + 7, 5)
    assert file.size_bytes == PAGE_BYTES + 12
    file.write_at(PAGE_BYTES + 7, b"hello")
    assert peek(tmp_path / "file") == b"x" * 100 + bytes(PAGE_BYTES - 93) + b"hello"


def test_reserve_takes_the_space_and_keeps_every_byte(make_file, tmp_path):
    file = make_file(2 * MIB)
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    expected = bytearray(2 * MIB)
    with open(tmp_path / "file", "r+b") as other:  # written by others: nothing is known to be reserved
        for _ in range(200):
            at, data = chance.randrange(2 * MIB - 3000), chance.randbytes(chance.randrange(1, 3000))
            other.seek(at)
            other.write(data)
            expected[at : at + len(data)] = data
    file.reserve(4096 * 3 + 11, MIB + 77)
    assert peek(tmp_path / "file") == expected, f"seed {seed}"
    assert used_bytes(tmp_path / "file") >= MIB + 77, f"seed {seed}"


def test_a_reserved_range_may_be_named_again(make_file):
    file = make_file(MIB)
    file.reserve(0, 5000)
    file.write_at(0, b"y" * 5000)
    file.reserve(0, 5000)
    file.reserve(4000, 10_000)
    assert file.read_at(0, 5001) == b"y" * 5000 + b"\0"


def test_negative_reservations_are_refused(make_file):
    file = make_file(10)
    for at, length in ((-1, 2), (0, -1)):
        with pytest.raises(OSError, match="no range"):
            file.reserve(at, length)


def test_a_failed_reservation_is_undone(make_file, tmp_path, monkeypatch):
    file = make_file(4 * MIB)
    file.write_at(MIB, b"kept")
    before = used_bytes(tmp_path / "file")
    allocate = system.allocate

    def allocate_half(descriptor, first, end):
        allocate(descriptor, first, (first + end) // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(system, "allocate", allocate_half)
    with pytest.raises(OSError, match="No space"):
        file.reserve(0, 3 * MIB)
    with pytest.raises(OSError, match="No space"):
        file.reserve(3 * MIB, 5 * MIB)
    assert file.size_bytes == 4 * MIB
    assert file.read_at(0, 4 * MIB) == bytes(MIB) + b"kept" + bytes(3 * MIB - 4)
    if system.can_punch():
        assert used_bytes(tmp_path / "file") == before
    monkeypatch.undo()
    file.reserve(0, 3 * MIB)  # nothing of the failed attempt counts as reserved
    assert used_bytes(tmp_path / "file") >= 3 * MIB


def test_a_file_size_limit_is_an_error_that_changes_nothing(tmp_path, run_child):
    pytest.importorskip("resource", reason="this system has no resource limits")
    run_child(
        """
        import resource
        file = backend.create(arguments[0], size_bytes=65536)
        resource.setrlimit(resource.RLIMIT_FSIZE, (131072, 131072))
        file.reserve(65536, 65536)
        try:
            file.reserve(131072, 1)
        except OSError as error:
            assert error.errno == errno.EFBIG, error
        else:
            raise AssertionError("grew beyond the limit")
        assert file.size_bytes == 131072
        file.write_at(0, b"goes on")
        file.close()
        try:
            backend.create(arguments[1], size_bytes=131073)
        except OSError as error:
            assert error.errno == errno.EFBIG, error
        assert not os.path.exists(arguments[1])
        """,
        tmp_path / "file",
        tmp_path / "other",
    )


def test_discard_zeroes_and_gives_the_space_back(make_file, tmp_path, needs):
    needs("fallocate")
    file = make_file(4 * MIB)
    file.reserve(0, 4 * MIB)
    file.write_at(0, b"z" * (4 * MIB))
    file.sync()
    file.discard(MIB, 2 * MIB)
    assert file.read_at(0, 4 * MIB) == b"z" * MIB + bytes(2 * MIB) + b"z" * MIB
    assert used_bytes(tmp_path / "file") < 3 * MIB
    assert file.size_bytes == 4 * MIB


def test_discard_where_no_space_can_be_given_back(make_file, monkeypatch):
    def refuse(descriptor, at, length):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(system, "punch", refuse)
    file = make_file(MIB)
    file.write_at(0, b"z" * MIB)
    file.discard(5, MIB - 10)
    assert file.read_at(0, MIB) == b"z" * 5 + bytes(MIB - 10) + b"z" * 5


def test_discarded_space_is_reserved_again_before_a_write(make_file, needs, monkeypatch):
    needs("fallocate")
    file = make_file(8 * PAGE_BYTES)
    file.write_at(0, b"z" * 8 * PAGE_BYTES)
    file.discard(PAGE_BYTES + 10, 2 * PAGE_BYTES)
    allocated = []
    monkeypatch.setattr(system, "allocate", lambda descriptor, first, end: allocated.append((first, end)))
    file.write_at(0, b"z" * 8 * PAGE_BYTES)
    assert allocated == [(PAGE_BYTES, 4 * PAGE_BYTES)]
