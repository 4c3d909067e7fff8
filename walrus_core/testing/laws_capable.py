"""Laws of the capabilities, and of parity: what one way writes, every other way reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from walrus_core.backend import Buffer, CapableBackend, CapableFile
from walrus_core.testing.subject import (
    SECTOR_BYTES,
    NotApplicable,
    Subject,
    hold,
    law,
    open_file,
    pattern,
    raises,
    same,
)

SIZE_BYTES = 1 << 17

Write = Callable[[CapableFile, int, bytes], None]
Read = Callable[[CapableFile, int, int], Any]


def _write_window(file: CapableFile, at: int, data: bytes) -> None:
    with file.memory(at, len(data)) as window:
        window[:] = data


def _read_window(file: CapableFile, at: int, length: int) -> bytes:
    with file.memory(at, length) as window:
        return bytes(window)


def _write_vector(file: CapableFile, at: int, data: bytes) -> None:
    # The extents meet at a sector's edge: in what order two of them reach one sector is not promised.
    middle = (at + len(data) // 2) // SECTOR_BYTES * SECTOR_BYTES - at
    if middle <= 0:
        file.write_many([(at, [data[:3], b"", memoryview(data)[3:]])])
    else:
        file.write_many(
            [
                (at, [data[: min(3, middle)], b"", memoryview(data)[min(3, middle) : middle]]),
                (at + middle, [data[middle:]]),
            ]
        )


def _write_descriptor(file: CapableFile, at: int, data: bytes) -> None:
    count = os.pwrite(file.fileno(), data, at)
    hold(count == len(data), f"pwrite on fileno wrote {count} of {len(data)} bytes")


WRITES: dict[str, tuple[str, Write]] = {
    "write_at": ("", lambda file, at, data: file.write_at(at, data)),
    "write_many": ("vectored", _write_vector),
    "memory": ("memory", _write_window),
    "fileno": ("fileno", _write_descriptor),
}
READS: dict[str, tuple[str, Read]] = {
    "read_at": ("", lambda file, at, length: file.read_at(at, length)),
    "read_many": ("vectored", lambda file, at, length: file.read_many([(at, length)])[0]),
    "memory": ("memory", _read_window),
    "fileno": ("fileno", lambda file, at, length: os.pread(file.fileno(), length, at)),
}


def ways(backend: CapableBackend, table: dict[str, Any]) -> dict[str, Any]:
    """Return the ways of reading or writing that a backend declares."""
    declared = backend.capabilities
    return {name: way for name, (flag, way) in table.items() if not flag or getattr(declared, flag)}


@law()
def what_one_way_writes_every_way_reads(subject: Subject) -> None:
    """write_at, write_many, windows, the descriptor: all are views of the same bytes, at once."""
    with subject.file(SIZE_BYTES) as (backend, file):
        file.reserve(0, SIZE_BYTES)
        model = bytearray(SIZE_BYTES)
        at = 3
        for turn in range(3):
            for writer, write in ways(backend, WRITES).items():
                data = pattern(3000 + turn, (writer, turn))
                write(file, at, data)
                model[at : at + len(data)] = data
                for reader, read in ways(backend, READS).items():
                    same(read(file, at, len(data)), data, f"written by {writer}, read by {reader}")
                    same(
                        read(file, 0, SIZE_BYTES), bytes(model), f"the whole file by {reader} after {writer}"
                    )
                # The next way goes over the second half of this one.
                at += 1500
        file.sync()
        same(file.read_at(0, SIZE_BYTES), bytes(model), "the file after its sync")
        if subject.peek is not None:
            same(subject.peek(subject.path("one")), bytes(model), "the file as peek reads it after the sync")


@law("vectored")
def the_buffers_of_an_extent_follow_each_other(subject: Subject) -> None:
    """``write_many`` puts the buffers of an extent behind each other in order, however many there are."""
    many: list[Buffer] = [pattern(n % 23, n) for n in range(3000)]
    large: list[Buffer] = [pattern(3 << 20, "large"), memoryview(pattern(1 << 20, "larger"))]
    extents: list[tuple[int, list[Buffer]]] = [
        (7_000_000, [b"last ", bytearray(b"extent")]),
        (100, many),
        (1_000_000, large),
        (50, [b""]),
        (60, []),
    ]
    with subject.file(8 << 20) as (_, file):
        file.write_many(extents)
        model = bytearray(8 << 20)
        for at, buffers in extents:
            joined = b"".join(bytes(buffer) for buffer in buffers)
            model[at : at + len(joined)] = joined
        same(file.read_at(0, 8 << 20), bytes(model), "the file after one write_many")
        file.write_many([])


@law("vectored")
def read_many_answers_in_the_order_asked(subject: Subject) -> None:
    """As ``read_at`` for each: overlapping, unsorted, empty; one beyond the end raises."""
    data = pattern(SIZE_BYTES, "all")
    with subject.file(SIZE_BYTES) as (_, file):
        file.write_at(0, data)
        asked = [(n * 7919 % 100_000, n * 13 % 5000) for n in range(80)]
        found = file.read_many(asked)
        hold(len(found) == len(asked), f"{len(asked)} extents were asked for, {len(found)} came")
        for (at, length), got in zip(asked, found, strict=True):
            same(got, data[at : at + length], f"the extent ({at}, {length}) of read_many")
        hold(list(file.read_many([])) == [], "read_many of nothing")
        raises(OSError, "read_many beyond the end", lambda: file.read_many([(0, 10), (SIZE_BYTES - 1, 2)]))


@law("vectored")
def the_buffers_are_free_on_return(subject: Subject) -> None:
    """``write_many`` has nothing in flight when it returns: a buffer that changes then changes no file."""
    buffers = [bytearray(pattern(5000, n)) for n in range(20)]
    kept = [bytes(buffer) for buffer in buffers]
    with subject.file(SIZE_BYTES) as (_, file):
        file.write_many([(n * 6000, [buffer]) for n, buffer in enumerate(buffers)])
        for buffer in buffers:
            buffer[:] = bytes(len(buffer))
        for n, data in enumerate(kept):
            same(file.read_at(n * 6000, 5000), data, f"extent {n} after its buffer changed")


@law("memory")
def a_window_stays_a_view_of_the_file(subject: Subject) -> None:
    """Through other writes and syncs, until it is released; then the file can grow."""
    with subject.file(16_384) as (_, file):
        file.reserve(0, 16_384)
        window = file.memory(4096, 8192)
        try:
            hold(
                isinstance(window, memoryview) and not window.readonly,
                "memory must return a writable memoryview",
            )
            hold(window.nbytes == 8192, f"a window of 8192 bytes has {window.nbytes}")
            same(window, bytes(8192), "a window onto what nobody wrote")
            file.write_at(5000, b"by write_at")
            same(window[904:915], b"by write_at", "the window after a write_at")
            file.sync()
            window[0:6] = b"window"
            same(file.read_at(4096, 6), b"window", "the file after a write to the window")
        finally:
            window.release()
        file.reserve(16_384, 1 << 16)
        with file.memory(0, 16_384 + (1 << 16)) as wider:
            same(wider[4096:4102], b"window", "a window made later")


@law("memory")
def a_window_survives_close(subject: Subject) -> None:
    """What was written through a window is in the file when window and file are closed."""
    with subject.backend() as backend:
        with open_file(backend.create(subject.path("one"), size_bytes=8192)) as file:
            file.reserve(0, 8192)
            _write_window(file, 100, b"through a window")
        with open_file(backend.open(subject.path("one"))) as file:
            same(file.read_at(98, 20), b"\0\0through a window\0\0", "opened again")


@law("discard")
def discarded_bytes_read_as_zero(subject: Subject) -> None:
    """To the byte, at any place; the bytes beside stay, and the range can be reserved and written again."""
    model = bytearray(pattern(SIZE_BYTES, "full"))
    with subject.file(SIZE_BYTES) as (backend, file):
        file.write_at(0, bytes(model))
        for at, length in (
            (4096, 8192),
            (20_001, 1),
            (30_100, 5000),
            (SIZE_BYTES - 700, 700),
            (50, 0),
            (0, 512),
        ):
            file.discard(at, length)
            model[at : at + length] = bytes(length)
            for reader, read in ways(backend, READS).items():
                same(
                    read(file, 0, SIZE_BYTES),
                    bytes(model),
                    f"the file by {reader} after discard({at}, {length})",
                )
        hold(file.size_bytes == SIZE_BYTES, f"discard made {SIZE_BYTES} bytes {file.size_bytes}")
        file.reserve(4096, 8192)
        file.write_at(5000, b"written again")
        model[5000:5013] = b"written again"
        same(file.read_at(0, SIZE_BYTES), bytes(model), "the file, written again where it was discarded")


@law("drop_cache")
def dropping_the_cache_loses_nothing(subject: Subject) -> None:
    """Synced bytes are read again from the medium, and so are those that were only written."""
    with subject.file(SIZE_BYTES) as (_, file):
        file.write_at(0, pattern(50_000, "synced"))
        file.sync()
        file.drop_cache()
        same(file.read_at(0, 50_000), pattern(50_000, "synced"), "synced bytes after drop_cache")
        file.write_at(60_000, b"not synced")
        file.drop_cache()
        same(file.read_at(59_999, 12), b"\0not synced\0", "written bytes after drop_cache")


@law("paging")
def paging_hints_change_no_byte(subject: Subject) -> None:
    """``prepare`` and ``unload`` say something about memory, nothing about the file."""
    data = pattern(60_000, "paged")
    with subject.file(SIZE_BYTES) as (_, file):
        file.reserve(0, SIZE_BYTES)
        with file.memory(0, 65_536) as window:
            file.prepare(0, 65_536)
            window[:60_000] = data
            file.unload(0, 32_768)
            same(window[:60_000], data, "the window after unload")
            same(file.read_at(0, 65_536), data + bytes(5536), "the file after unload")


@law("read_only")
def a_file_opened_to_read_is_read(subject: Subject) -> None:
    """``open_read_only`` tells the same bytes, sees later writes, and makes no file."""
    with subject.file(20_000) as (backend, file):
        file.write_at(100, pattern(9000, "read"))
        with open_file(backend.open_read_only(subject.path("one"))) as reader:
            hold(reader.size_bytes == 20_000, f"its size is {reader.size_bytes}")
            for name, read in ways(backend, READS).items():
                if name != "memory":
                    same(
                        read(reader, 0, 20_000),
                        bytes(100) + pattern(9000, "read") + bytes(10_900),
                        f"read by {name}",
                    )
            file.write_at(0, b"later")
            same(reader.read_at(0, 5), b"later", "what was written after it was opened")
            raises(OSError, "a read beyond the end", lambda: reader.read_at(19_999, 2))
        raises(
            FileNotFoundError, "open_read_only of no file", lambda: backend.open_read_only(subject.path("no"))
        )


@law("read_only", "files")
def a_file_that_may_not_be_written_can_be_read(subject: Subject) -> None:
    """That is what ``open_read_only`` is for."""
    if os.name == "nt" or os.geteuid() == 0:
        raise NotApplicable("whoever runs this may write to every file")
    with subject.backend() as backend:
        with open_file(backend.create(subject.path("one"), size_bytes=10)) as file:
            file.write_at(0, b"0123456789")
        os.chmod(subject.path("one"), 0o400)
        raises(
            PermissionError,
            "open of a file without the right to write",
            lambda: backend.open(subject.path("one")),
        )
        with open_file(backend.open_read_only(subject.path("one"))) as reader:
            same(reader.read_at(0, 10), b"0123456789", "a file without the right to write")


@law("fileno")
def the_descriptor_is_a_plain_one(subject: Subject) -> None:
    """The core's own pread, pwrite and search for data work on it, and it is not inherited by children."""
    with subject.file(SIZE_BYTES) as (_, file):
        descriptor = file.fileno()
        hold(isinstance(descriptor, int) and descriptor >= 0, f"fileno returned {descriptor!r}")
        hold(not os.get_inheritable(descriptor), "the descriptor is inherited by children")
        hold(os.fstat(descriptor).st_size == SIZE_BYTES, "the descriptor is of a file of another size")
        file.write_at(100_000, b"data")
        if hasattr(os, "SEEK_DATA"):
            found = os.lseek(descriptor, 0, os.SEEK_DATA)
            hold(found <= 100_000, f"the search for data passed byte 100000 and stopped at {found}")


@law("durable_writes")
def durable_writes_are_had_when_asked_for(subject: Subject) -> None:
    """Made with ``durable_writes=True`` it still declares them, and reads and writes the same."""
    with subject.backend(durable_writes=True) as backend:
        hold(backend.capabilities.durable_writes, "made with durable_writes=True it declares none")
        with open_file(backend.create(subject.path("one"), size_bytes=SIZE_BYTES)) as file:
            file.write_at(700, pattern(5000, "durable"))
            file.reserve(SIZE_BYTES, 10)
            if backend.capabilities.vectored:
                file.write_many([(20_000, [b"a", b"b"]), (30_000, [b"c"])])
                same(file.read_at(20_000, 2), b"ab", "durable write_many")
                same(file.read_at(30_000, 1), b"c", "durable write_many")
            same(file.read_at(700, 5000), pattern(5000, "durable"), "a durable write")
            if subject.peek is not None:
                found = subject.peek(subject.path("one"))[700:5700]
                same(found, pattern(5000, "durable"), "a durable write, peeked at without a sync")
