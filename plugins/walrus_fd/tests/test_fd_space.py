"""Reserving space, giving it back, and what a full disk leaves behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from walrus_fd import space
from walrus_fd.backend import FdBackend
from walrus_fd.files import FdSegmentFile

SIZE_BYTES = 1 << 20
PAGE = 4096


def allocated_bytes(file: FdSegmentFile) -> int:
    return os.fstat(file.fileno()).st_blocks * 512


def mounted(kind: str, tmp_path: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a small file system, or skip with the reason."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip(f"mounting a small {kind} needs root on Linux")
    place = tmp_path / kind
    place.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(place)]
    else:
        image = tmp_path / "image"
        with open(image, "wb") as made:
            made.truncate(size_bytes)
        command = ["sh", "-c", f"mkfs.{kind} -q -F {image} && mount -o loop {image} {place}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount {kind}: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(params=["tmpfs", "ext4"])
def small_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    yield from mounted(request.param, tmp_path, 8 << 20)


@pytest.fixture
def no_fallocate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that can neither reserve nor punch."""
    monkeypatch.setattr(space, "HAS_FALLOCATE", False)
    monkeypatch.setattr(space, "CAN_PUNCH", False)


# --- reserving --------------------------------------------------------------------------------


def test_reserve_takes_space_and_changes_no_byte(file: FdSegmentFile) -> None:
    file.write_at(10 * PAGE + 100, b"data")
    before = allocated_bytes(file)
    file.reserve(8 * PAGE, 16 * PAGE)
    assert allocated_bytes(file) >= before + 15 * PAGE
    assert file.size_bytes == SIZE_BYTES
    assert file.read_at(10 * PAGE + 98, 8) == b"\0\0data\0\0"
    file.reserve(8 * PAGE, 16 * PAGE)
    file.reserve(0, 0)
    assert bytes(file.read_at(8 * PAGE, 16 * PAGE)).count(b"data") == 1


def test_reserve_extends_the_file_with_zeros(file: FdSegmentFile) -> None:
    file.write_at(SIZE_BYTES - 4, b"tail")
    file.reserve(SIZE_BYTES - PAGE, 2 * PAGE)
    assert file.size_bytes == SIZE_BYTES + PAGE
    assert file.read_at(SIZE_BYTES - 4, 8) == b"tail\0\0\0\0"


@pytest.mark.usefixtures("no_fallocate")
def test_reserve_without_fallocate_writes_zeros_only_over_zeros(file: FdSegmentFile) -> None:
    file.write_at(100_000, b"A" * 700)
    file.write_at(SIZE_BYTES - 300, b"B" * 300)
    expected = bytearray(SIZE_BYTES + 5000)
    expected[100_000:100_700] = b"A" * 700
    expected[SIZE_BYTES - 300 : SIZE_BYTES] = b"B" * 300
    file.reserve(512, SIZE_BYTES + 5000 - 512)
    assert file.size_bytes == SIZE_BYTES + 5000
    assert allocated_bytes(file) >= SIZE_BYTES - PAGE
    assert file.read_at(0, SIZE_BYTES + 5000) == expected


@pytest.mark.usefixtures("no_fallocate")
def test_reserve_without_fallocate_never_writes_where_bytes_are(
    file: FdSegmentFile, replace_write: Any
) -> None:
    file.write_at(5 * 512, b"x")
    file.write_at(100 * 512, b"y" * 512)
    written: set[int] = set()

    def noting(real: Any) -> Any:
        def write(descriptor: int, data: Any, at_bytes: int) -> int:
            written.update(range(at_bytes // 512, (at_bytes + len(data) + 511) // 512))
            return int(real(descriptor, data, at_bytes))

        return write

    replace_write(noting)
    file.reserve(0, 200 * 512)
    assert written == set(range(200)) - {5, 100}


@pytest.mark.usefixtures("no_fallocate")
def test_a_failed_reserve_without_fallocate_restores_the_size(
    file: FdSegmentFile, replace_write: Any
) -> None:
    def full(real: Any) -> Any:
        def write(descriptor: int, data: Any, at_bytes: int) -> int:
            if at_bytes > SIZE_BYTES + 100_000:
                raise OSError(errno.ENOSPC, "full")
            return int(real(descriptor, data, at_bytes))

        return write

    replace_write(full)
    with pytest.raises(OSError, match="full"):
        file.reserve(SIZE_BYTES, 300_000)
    assert file.size_bytes == SIZE_BYTES


@pytest.mark.skipif(not space.HAS_FALLOCATE, reason="this system has no posix_fallocate")
def test_a_file_system_without_fallocate_gets_zeros(
    file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, at_bytes: int, length_bytes: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    file.reserve(0, 100_000)
    assert allocated_bytes(file) >= 100_000


@pytest.mark.skipif(not space.HAS_FALLOCATE, reason="this system has no posix_fallocate")
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failed_reserve_gives_back_what_it_took_and_no_more(
    file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    if space.holes(file.fileno(), 0, PAGE) is None or not space.CAN_PUNCH:
        pytest.skip("this file system has no extent map")
    file.reserve(16 * PAGE, 8 * PAGE)
    file.write_at(40 * PAGE, b"data")
    before = space.holes(file.fileno(), 0, SIZE_BYTES * 2)
    real = os.posix_fallocate

    def partly(descriptor: int, at_bytes: int, length_bytes: int) -> None:
        real(descriptor, at_bytes, length_bytes * 3 // 4)
        raise error

    monkeypatch.setattr(os, "posix_fallocate", partly)
    with pytest.raises(type(error)):
        file.reserve(8 * PAGE, 128 * PAGE)
    with pytest.raises(type(error)):
        file.reserve(0, SIZE_BYTES * 2)
    assert file.size_bytes == SIZE_BYTES
    assert file.read_at(40 * PAGE, 4) == b"data"
    assert space.holes(file.fileno(), 0, SIZE_BYTES * 2) == before
    assert space.holes(file.fileno(), 16 * PAGE, 8 * PAGE) == [], "an earlier reservation was taken back"


def test_a_full_disk_undoes_the_reserve_and_writes_to_reserved_space_go_on(small_place: Path) -> None:
    pytest.importorskip("fcntl", reason="without an extent map space inside a file is not given back")
    backend = FdBackend(io_uring="off")
    file = backend.create(str(small_place / "f"), size_bytes=64 << 20)
    file.reserve(0, 1 << 20)
    file.write_at(2 << 20, b"data" * 1024)
    # What the file system allocates late and for itself is settled first.
    file.sync()
    before = allocated_bytes(file)
    for at_bytes, length_bytes in ((512 << 10, 32 << 20), (1 << 20, 63 << 20), (60 << 20, 40 << 20)):
        with pytest.raises(OSError) as caught:
            file.reserve(at_bytes, length_bytes)
        assert caught.value.errno == errno.ENOSPC
        assert file.size_bytes == 64 << 20
        file.sync()
        assert abs(allocated_bytes(file) - before) <= 64 << 10
    assert file.read_at(2 << 20, 4096) == b"data" * 1024
    filler = backend.create(str(small_place / "filler"), size_bytes=0)
    with pytest.raises(OSError) as caught:
        filler.write_at(0, b"x" * (16 << 20))
    assert caught.value.errno == errno.ENOSPC
    for at_bytes in range(0, 1 << 20, 64 << 10):
        file.write_at(at_bytes, b"r" * (64 << 10))
    file.sync()
    with pytest.raises(OSError) as caught:
        file.write_at(20 << 20, b"y" * (8 << 20))
    assert caught.value.errno == errno.ENOSPC
    assert file.read_at(0, 1 << 20) == b"r" * (1 << 20)
    file.close()
    filler.close()


@pytest.mark.skipif(not hasattr(os, "O_DSYNC"), reason="this system has no flag for durable writes")
def test_a_full_disk_in_the_middle_of_batched_writes(small_place: Path) -> None:
    for mode in ("off", "auto"):
        backend = FdBackend(io_uring=mode, durable_writes=True)
        file = backend.create(str(small_place / mode), size_bytes=64 << 20)
        with pytest.raises(OSError) as caught:
            file.write_many([(number << 22, [b"z" * (3 << 20)]) for number in range(6)])
        assert caught.value.errno == errno.ENOSPC
        file.close()
        backend.remove(file.path)
        backend.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE as on Linux")
def test_a_file_size_limit_is_an_error_that_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="this system has no resource limits")
    program = """
        import errno, resource, sys
        from walrus_fd.backend import FdBackend
        backend = FdBackend(io_uring=sys.argv[2])
        file = backend.create(sys.argv[1], size_bytes=65536)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for call in (
            lambda: file.reserve(0, 200_000),
            lambda: file.write_at(0, b"x" * 200_000),
            lambda: file.write_many([(10, [b"x"]), (65536, [b"y" * 100_000])]),
            lambda: backend.create(sys.argv[1] + "2", size_bytes=200_000),
        ):
            size_bytes = file.size_bytes
            try:
                call()
            except OSError as error:
                assert error.errno == errno.EFBIG, error
            else:
                raise AssertionError("no error")
        assert size_bytes == 100_000
        file.close()
        backend.close()
        import os
        assert not os.path.exists(sys.argv[1] + "2")
        print("done", os.path.getsize(sys.argv[1]))
    """
    for number, mode in enumerate(("off", "auto")):
        path = str(tmp_path / str(number))
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), path, mode]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        # Not in this folder: the source tree must not stand in front of what is installed.
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout == "done 100000\n", done.stderr


# --- giving back ------------------------------------------------------------------------------


@pytest.mark.skipif(not space.CAN_PUNCH, reason="this system cannot punch holes")
def test_discarded_space_is_free_and_reads_as_zero(file: FdSegmentFile) -> None:
    file.write_at(0, b"k" * (64 * PAGE))
    file.sync()
    before = allocated_bytes(file)
    file.discard(16 * PAGE, 32 * PAGE)
    assert allocated_bytes(file) <= before - 30 * PAGE
    assert file.size_bytes == SIZE_BYTES
    assert file.read_at(16 * PAGE - 1, 32 * PAGE + 2) == b"k" + bytes(32 * PAGE) + b"k"
    file.reserve(16 * PAGE, 32 * PAGE)
    file.write_at(16 * PAGE, b"again")
    assert file.read_at(16 * PAGE, 6) == b"again\0"


def test_discard_fills_with_zeros_where_the_file_system_cannot_punch(
    file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, at_bytes: int, length_bytes: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(space, "punch", unsupported)
    file.write_at(0, b"k" * 300_000)
    file.discard(1, 299_000)
    assert file.read_at(0, 300_000) == b"k" + bytes(299_000) + b"k" * 999


def test_a_discard_that_fails_is_raised(file: FdSegmentFile) -> None:
    file.close()
    with pytest.raises(OSError) as caught:
        file.discard(0, PAGE)
    assert caught.value.errno == errno.EBADF


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system has no posix_fadvise")
def test_drop_cache_keeps_every_byte(file: FdSegmentFile) -> None:
    file.write_at(0, b"synced")
    file.sync()
    file.write_at(PAGE, b"not synced")
    file.drop_cache()
    assert file.read_at(0, 6) == b"synced"
    assert file.read_at(PAGE, 10) == b"not synced"


def test_holes_are_what_has_no_space_whether_written_or_only_reserved(file: FdSegmentFile) -> None:
    if space.holes(file.fileno(), 0, PAGE) is None:
        pytest.skip("this file system, or this system, has no extent map")
    file.reserve(4 * PAGE, 4 * PAGE)
    for number in range(100, 240, 2):
        file.write_at(number * PAGE, b"x")
    file.sync()
    expected = [(0, 4 * PAGE), (8 * PAGE, 100 * PAGE)]
    expected += [(number * PAGE, (number + 1) * PAGE) for number in range(101, 239, 2)]
    expected += [(239 * PAGE, SIZE_BYTES)]
    assert space.holes(file.fileno(), 0, SIZE_BYTES) == expected
    assert space.holes(file.fileno(), 5 * PAGE, 4 * PAGE) == [(8 * PAGE, 9 * PAGE)]


def test_a_reservation_that_fails_takes_nothing_from_one_beside_it(
    file: FdSegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cuts the file to the size that it found, which must be so still."""
    size_bytes, taken = file.size_bytes, threading.Event()
    allocate = space._allocate

    def fail_late(descriptor: int, at_bytes: int, *rest: Any) -> None:
        if at_bytes:
            allocate(descriptor, at_bytes, *rest)
            return
        other.start()
        taken.wait(0.3)  # the other must not get there meanwhile
        raise OSError(errno.ENOSPC, "full")

    def reserve_and_write() -> None:
        file.reserve(size_bytes, 8192)
        file.write_at(size_bytes, b"x" * 8192)
        taken.set()

    other = threading.Thread(target=reserve_and_write)
    monkeypatch.setattr(space, "_allocate", fail_late)
    with pytest.raises(OSError, match="full"):
        file.reserve(0, size_bytes + 4096)
    other.join()
    assert file.size_bytes == size_bytes + 8192
    assert bytes(file.read_at(size_bytes, 8192)) == b"x" * 8192
