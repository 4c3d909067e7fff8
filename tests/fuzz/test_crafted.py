"""Files that were built to hurt: sound checksums over lies, and holes of terabytes.

Each is opened in a process of its own with little memory and little time. It ends in a typed error or in
a log that reads and appends.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from walrus_core import format as fmt
from walrus_core import hot, pages
from walrus_core.chain import Found, choose
from walrus_core.hot import fnv1a64

from .craft import LOG_ID, SALT, frame

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="sparse files and limits are POSIX's"),
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        "WALRUS_SANITIZED" in os.environ, reason="AddressSanitizer needs more memory than a child gets here"
    ),
]
MEMORY_BYTES = 150 << 20
SECONDS = 20
GIB = 1 << 30
KEY = pages.metadata_key(SALT)

CHILD = """
import json, resource, time
from walrus_core import Walrus, FsyncSchedule
from walrus_core.errors import WalrusError
import walrus_fd.backend, walrus_mmap.backend
kind, path, memory = arguments[0], arguments[1], int(arguments[2])
# Maps of files are no memory of ours: what a process makes itself is limited for the backend that maps.
limit = resource.RLIMIT_AS if kind == "fd" else resource.RLIMIT_DATA
resource.setrlimit(limit, (memory + (200 << 20),) * 2)
began = time.process_time()
answer = {}
try:
    with Walrus(path, backend=kind, fsync_schedule=FsyncSchedule.no_fsync(), on_corruption="skip",
                block_size=16384, blocks_per_segment=4) as wal:
        answer["topics"] = len(wal.topics())
        answer["damages"] = sorted({damage.kind for damage in wal.recovery_report.damages})
        answer["next"] = {name: wal.next_offset(name) for name in wal.topics()[:4]}
        answer["read"] = {}
        for name in wal.topics()[:4]:
            try:
                answer["read"][name] = sum(1 for _ in wal.topic(name))
            except MemoryError:
                pass  # an entry larger than what there is
        offset = wal.append_for_topic("new", b"appended")
        answer["new"] = wal.batch_read_for_topic("new", start_offset=offset)[0].data.decode()
        try:
            wal.append_for_topic("new", b"x" * 40_000)
        except WalrusError as error:
            answer["refused"] = f"{type(error).__name__}: {error}"
        wal.append_for_topic("new", b"once more")
        if "t" in wal.topics() and wal.next_offset("t") == 1:
            wal.append_for_topic("t", b"x" * 14_000)  # a block behind the one that was found
except WalrusError as error:
    answer["error"] = type(error).__name__
answer["seconds"] = time.process_time() - began
print(json.dumps(answer))
"""


@pytest.fixture(params=["fd", "mmap"])
def opened(request, run_child, tmp_path, file_kind):
    """A function that opens the directory in a child of few means and returns what it found."""
    file_kind(request.param)

    def open_it() -> dict[str, Any]:
        import json

        done = run_child(CHILD, request.param, tmp_path / "log", MEMORY_BYTES)
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer.pop("seconds") < SECONDS
        return answer

    (tmp_path / "log").mkdir(mode=0o700)
    return open_it


def write_at(path: Path, at: int, data: bytes, size_bytes: int = 0) -> None:
    """Write into a file that may not be there yet, and extend it to ``size_bytes`` by a hole."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, data, at)
        if size_bytes > os.fstat(descriptor).st_size:
            try:
                os.ftruncate(descriptor, size_bytes)
            except OSError as error:
                pytest.skip(f"no file of {size_bytes} bytes here: {error}")
    finally:
        os.close(descriptor)


def make_cursors(directory: Path, *, floor: int = 16, page_count: int = 16, reserved: int = 2**20) -> None:
    """Write a cursors.db with a log page that says these things."""
    path = directory / "cursors.db"
    write_at(path, 0, pages.encode_cursors_header(LOG_ID), page_count * fmt.PAGE_SIZE)
    write_cursor_page(path, 2, fmt.PAGE_LOG, b"", pages.PageState(1, reserved, floor))


def write_cursor_page(path: Path, number: int, kind: int, topic: bytes, state: pages.PageState) -> None:
    """Write a page of cursors.db whose checksums fit."""
    key = fnv1a64(LOG_ID + number.to_bytes(8, "little"))
    sector = pages.encode_state(state, key).ljust(fmt.SECTOR_SIZE, b"\0")
    identity = pages.encode_identity(pages.PageIdentity(kind, number, 0, topic, b""), key)
    write_at(path, number * fmt.PAGE_SIZE, sector + sector + identity)


def make_segment(directory: Path, number: int, block_size: int, slots: int, *, whole: bool = True) -> Path:
    """Write a segment header, in a file as large as it says or of 64 KiB."""
    path = directory / f"{number:020d}.wal"
    header = pages.SegmentHeader(LOG_ID, number, block_size, slots, fmt.CHECKSUM_FNV1A64, SALT, 0)
    data = pages.encode_segment_header(header).ljust(fmt.SEGMENT_HEADER_SIZE, b"\0")
    write_at(path, 0, data, header.size_bytes if whole else 0)
    return path


def put_block(
    path: Path,
    block_size: int,
    slot: int,
    sequence: int,
    *,
    slots: int = 1,
    topic: bytes = b"t",
    first: int = 0,
    previous: int = 0,
    data: bytes = b"",
    incarnation: int = 0,
) -> int:
    """Write a header page without marks, and ``data`` behind it. Returns: where that is."""
    header = pages.BlockHeader(int(path.stem), slot, slots, sequence, incarnation, first, previous, topic)
    at = fmt.SEGMENT_HEADER_SIZE + slot * block_size
    write_at(path, at, pages.encode_block_header(header, KEY) + data)
    return at + fmt.PAGE_SIZE


def test_a_small_file_that_says_it_has_64_tebibytes(opened, tmp_path):
    make_cursors(tmp_path / "log")
    make_segment(tmp_path / "log", 1, GIB, 65536, whole=False)
    answer = opened()
    # The file is extended as far as the header says, unless the file system cannot.
    assert answer.get("error") in (None, "DiskFullError", "StorageError")


def test_blocks_of_gigabytes_in_a_file_of_terabytes(opened, tmp_path):
    make_cursors(tmp_path / "log")
    path = make_segment(tmp_path / "log", 1, GIB, 4096)
    for number in range(512):
        slots = 4 if number % 2 else 1
        entry = frame(number + 1, 0, b"sound")
        topic = b"t%d" % number
        put_block(path, GIB, number * 8, number + 1, slots=slots, topic=topic, data=entry)
    answer = opened()
    assert (
        answer["topics"] == 512
        and set(answer["next"].values()) == {1}
        and set(answer["read"].values()) == {1}
    )
    assert answer["damages"] == [] and answer["new"] == "appended"


def test_a_block_larger_than_any_entry(opened, tmp_path):
    make_cursors(tmp_path / "log")
    path = make_segment(tmp_path / "log", 1, GIB, 4096)
    put_block(path, GIB, 0, 1, slots=4096, data=frame(1, 0, b"sound"))
    put_block(path, GIB, 8, 2, topic=b"u", data=frame(2, 0, b"sound"))
    answer = opened()
    assert answer["next"] == {"u": 1}


@pytest.mark.skipif(not hot.COMPILED, reason="checksums of 400 MiB in Python take minutes")
@pytest.mark.parametrize(
    ("opened", "algorithm"),
    [("fd", fmt.CHECKSUM_FNV1A64), ("mmap", fmt.CHECKSUM_CRC32C)],
    indirect=["opened"],
)
def test_frames_that_say_they_are_larger_than_memory(opened, tmp_path, algorithm):
    """The first is sound, and 400 MiB of zeros; behind it stands one that is not."""
    directory = tmp_path / "log"
    make_cursors(directory)
    path = make_segment(directory, 1, GIB, 4)
    header = pages.SegmentHeader(LOG_ID, 1, GIB, 4, algorithm, SALT, 0)
    write_at(path, 0, pages.encode_segment_header(header))
    length = 400 << 20
    zeros = bytes(1 << 20)
    whole = bytearray(frame(1, 0, b"", length=length, algorithm=algorithm))
    key = pages.fnv1a64(struct.pack("<QQ", SALT, 1))
    from walrus_core import _hot_py as pure
    from walrus_core.hot import crc32c

    found = (
        fnv1a64(bytes(whole[8:32]), key) if algorithm == fmt.CHECKSUM_FNV1A64 else crc32c(bytes(whole[8:32]))
    )
    for _ in range(400):
        found = fnv1a64(zeros, found) if algorithm == fmt.CHECKSUM_FNV1A64 else crc32c(zeros, found)
    if algorithm == fmt.CHECKSUM_CRC32C:
        found |= pure.mix64(key) >> 32 << 32
    struct.pack_into("<Q", whole, 0, found)
    at = put_block(path, GIB, 0, 1, data=bytes(whole))
    write_at(path, at + 32 + length, frame(1, 1, b"", length=300 << 20, algorithm=algorithm)[:32])
    put_block(path, GIB, 1, 2, topic=b"u", data=frame(2, 0, b"sound", algorithm=algorithm))
    answer = opened()
    assert answer["next"] == {"t": 1, "u": 1} and answer["read"]["u"] == 1 and answer["new"] == "appended"


def test_a_chain_of_thousands_of_blocks(opened, tmp_path):
    directory = tmp_path / "log"
    make_cursors(directory)
    count = 600
    path = make_segment(directory, 1, fmt.BLOCK_SIZE_MIN, 2 * count)
    for number in range(count):
        put_block(
            path, fmt.BLOCK_SIZE_MIN, number, number + 1, first=number, previous=number,
            data=frame(number + 1, 0, b"x"),
        )  # fmt: skip
    for number in range(count, 2 * count):
        # All of them follow the same block, and the youngest counts.
        put_block(path, fmt.BLOCK_SIZE_MIN, number, number + 1, topic=b"u", first=0)
    answer = opened()
    assert answer["next"] == {"t": count} and answer["read"] == {"t": count}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["marked", "followers", "chain"])
def test_the_choice_of_blocks_is_linear(kind):
    """Of 20 000 blocks that one segment may hold, a step for each pair would take minutes."""
    count = 20_000
    found = []
    for number in range(1, count + 1):
        header = SimpleNamespace(
            previous_sequence={"marked": 0, "followers": min(1, number - 1), "chain": number - 1}[kind]
        )
        block = SimpleNamespace(sequence=number, header=header, first_offset=number)
        mark = pages.Mark(number, 1, 0, 4096, 0, 0, 0, 0) if kind == "marked" or number == 1 else None
        found.append(Found(block, mark))
    chosen, dropped = choose(found, 0)
    length = {"marked": count, "followers": 2, "chain": count}[kind]
    assert len(chosen) == length and len(dropped) == count - length
    assert chosen[-1].block.sequence == count


def test_dropped_blocks_of_gigabytes_are_copied_aside_in_pieces(opened, tmp_path):
    directory = tmp_path / "log"
    make_cursors(directory)
    path = make_segment(directory, 1, GIB, 64)
    for number in range(8):
        # Roots of one topic: the youngest is the topic, the rest is dropped, with whole batches in it.
        put_block(path, GIB, 4 * number, number + 1, slots=4, data=frame(number + 1, 0, b"sound"))
    write_at(path, fmt.SEGMENT_HEADER_SIZE + 3 * GIB, b"far behind")
    answer = opened()
    assert answer["next"] == {"t": 1}
    copies = {name.name: name.stat() for name in directory.glob("*.cut")}
    assert len(copies) == 7
    sizes = sorted(status.st_size for status in copies.values())
    assert sizes[:6] == [2 * fmt.PAGE_SIZE] * 6 and sizes[6] == 3 * GIB + fmt.PAGE_SIZE


def test_a_cursor_file_of_terabytes(opened, tmp_path):
    directory = tmp_path / "log"
    make_cursors(directory, page_count=2**28)
    for number in range(5000):
        write_cursor_page(
            directory / "cursors.db", 40 + number, fmt.PAGE_TOPIC, b"t%d" % number, pages.PageState(1, 0)
        )
    answer = opened()
    # Pages that the log page does not know of are not ours.
    assert answer["topics"] == 0 and answer["new"] == "appended"


@pytest.mark.parametrize("floor", [0, 2, 17, 2**22 + 1, 2**62])
def test_a_log_page_that_names_a_wrong_number_of_pages(opened, tmp_path, floor):
    make_cursors(tmp_path / "log", floor=floor, page_count=16)
    make_segment(tmp_path / "log", 1, fmt.BLOCK_SIZE_MIN, 4)
    assert opened()["error"] == "CorruptionError"


def test_many_topics(opened, tmp_path):
    directory = tmp_path / "log"
    count = 5000
    make_cursors(directory, floor=8192, page_count=8192)
    for number in range(count):
        state = pages.PageState(1, number, number)
        write_cursor_page(directory / "cursors.db", 3 + number, fmt.PAGE_TOPIC, b"t%d" % number, state)
    answer = opened()
    assert answer["topics"] == count - 1  # the first has no entry


def test_a_file_with_the_highest_number(opened, tmp_path):
    directory = tmp_path / "log"
    make_cursors(directory)
    make_segment(directory, 1, fmt.BLOCK_SIZE_MIN, 2)
    write_at(directory / f"{2**63:020d}.wal", 0, b"")
    answer = opened()
    # The one segment serves as long as it has room. Then no number is left, and nothing is lost.
    assert answer["new"] == "appended" and answer["refused"].startswith("StorageError: grow")
    assert sorted(path.name for path in directory.glob("*.wal")) == [f"{1:020d}.wal", f"{2**63:020d}.wal"]


@pytest.mark.parametrize("reserved", [1, 2**63 - 1, 2**63, 2**63 + 1])
def test_block_sequences_at_the_edges(opened, tmp_path, reserved):
    """A log page that knows of fewer blocks than there are: a new one must still be the youngest."""
    directory = tmp_path / "log"
    make_cursors(directory, reserved=reserved)
    path = make_segment(directory, 1, fmt.BLOCK_SIZE_MIN, 4)
    put_block(path, fmt.BLOCK_SIZE_MIN, 0, 5000, data=frame(5000, 0, b"sound"))
    answer = opened()
    if reserved > 2**63:
        assert answer["error"] == "CorruptionError"
        return
    again = opened()
    if reserved == 1:
        assert answer["new"] == again["new"] == "appended"
        assert again["next"] == {"new": 3, "t": 2} == again["read"] and again["damages"] == []
    else:
        assert answer["error"] == again["error"] == "StorageError"


def test_headers_alone_of_many_segments(opened, tmp_path):
    directory = tmp_path / "log"
    make_cursors(directory)
    for number in range(1, 9):
        make_segment(directory, number, fmt.BLOCK_SIZE_MIN, 65536, whole=False)
    answer = opened()
    assert answer["damages"] == ["segment truncated"] and answer["new"] == "appended"


def test_a_header_that_only_fits_another_page(opened, tmp_path):
    """Sound pages of cursors.db and of segments in wrong places are nobody's."""
    directory = tmp_path / "log"
    make_cursors(directory)
    data = (directory / "cursors.db").read_bytes()
    write_at(directory / "cursors.db", 5 * fmt.PAGE_SIZE, data[2 * fmt.PAGE_SIZE : 3 * fmt.PAGE_SIZE])
    make_segment(directory, 1, fmt.BLOCK_SIZE_MIN, 4)
    assert opened()["error"] == "CorruptionError"
