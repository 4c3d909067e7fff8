"""Laws of one open file: what is written is read, and nothing else has changed."""

from __future__ import annotations

import os
from functools import partial

from walrus_core.testing.limits import largest_file
from walrus_core.testing.subject import NotApplicable, Subject, hold, law, open_file, pattern, raises, same

SIZE_BYTES = 1 << 17
PLACES = (0, 1, 511, 512, 700, 4095, 4096, 65535, 65536, 100_000)
LENGTHS = (1, 2, 511, 512, 513, 4096, 5000)


@law()
def read_your_write(subject: Subject) -> None:
    """What was written is read, at every place and length, across sectors and pages."""
    model = bytearray(SIZE_BYTES)
    with subject.file(SIZE_BYTES) as (_, file):
        for place in PLACES:
            for length in LENGTHS:
                data = pattern(length, (place, length))
                file.write_at(place, data)
                model[place : place + length] = data
                same(file.read_at(place, length), data, f"read_at({place}, {length}) after the write of it")
        same(file.read_at(0, SIZE_BYTES), bytes(model), "the whole file after all writes")


@law()
def reads_return_exactly_what_was_asked_for(subject: Subject) -> None:
    """A read returns its length, up to many megabytes; a short count of the system is no end."""
    size = 9 << 20
    data = pattern(size, "large")
    with subject.file(size) as (_, file):
        file.write_at(0, data)
        for at, length in ((0, size), (1, size - 1), (0, 0), (size - 1, 1), (4_000_000, 5_000_001)):
            same(file.read_at(at, length), data[at : at + length], f"read_at({at}, {length})")


@law()
def unwritten_bytes_read_as_zero(subject: Subject) -> None:
    """Of a new file everything, of a written one everything beside what was written."""
    with subject.file(SIZE_BYTES) as (_, file):
        same(file.read_at(0, SIZE_BYTES), bytes(SIZE_BYTES), "a new file")
        file.write_at(5000, b"written")
        same(file.read_at(0, 5000), bytes(5000), "what is before the only write")
        same(file.read_at(5007, SIZE_BYTES - 5007), bytes(SIZE_BYTES - 5007), "what is behind the only write")


@law()
def a_write_changes_its_range_alone(subject: Subject) -> None:
    """The bytes before and behind a write are what they were."""
    model = bytearray(pattern(SIZE_BYTES, "before"))
    with subject.file(SIZE_BYTES) as (_, file):
        file.write_at(0, bytes(model))
        for place in PLACES:
            for length in (1, 100, 512, 4097):
                data = pattern(length, ("alone", place, length))
                file.write_at(place, data)
                model[place : place + length] = data
                same(file.read_at(0, SIZE_BYTES), bytes(model), f"the file after {length} bytes at {place}")


@law()
def zeros_can_be_written(subject: Subject) -> None:
    """Zeros over other bytes are zeros, not a range that was left out."""
    with subject.file(SIZE_BYTES) as (_, file):
        file.write_at(0, pattern(SIZE_BYTES, "full"))
        for at, length in ((0, 1), (600, 100), (4096, 4096), (20_000, 30_000)):
            file.write_at(at, bytes(length))
            same(file.read_at(at, length), bytes(length), f"{length} zeros written at {at}")
            same(
                file.read_at(at + length, 1),
                pattern(SIZE_BYTES, "full")[at + length :][:1],
                "the byte behind",
            )


@law()
def every_kind_of_buffer_is_written(subject: Subject) -> None:
    """bytes, bytearray, memoryview; of none, too; and the caller may use the buffer again on return."""
    with subject.file() as (_, file):
        for number, kind in enumerate((bytes, bytearray, memoryview)):
            at = 1000 * number
            file.write_at(at, kind(b"12345678"))
            same(file.read_at(at, 9), b"12345678\0", f"a {kind.__name__}")
        file.write_at(50, b"")
        same(file.read_at(48, 4), bytes(4), "a write of nothing")
        reused = bytearray(pattern(3000, "reused"))
        kept = bytes(reused)
        file.write_at(9000, memoryview(reused)[1000:2000])
        reused[:] = bytes(3000)
        same(file.read_at(9000, 1000), kept[1000:2000], "a buffer that was changed after the write")


@law()
def a_read_beyond_the_end_raises(subject: Subject) -> None:
    """Never fewer bytes, never zeros for what is not there: OSError."""
    size = 10_000
    with subject.file(size) as (_, file):
        file.write_at(size - 3, b"end")
        same(file.read_at(size - 3, 3), b"end", "the last bytes")
        for at, length in ((size - 1, 2), (size, 1), (size * 2, 9), (0, size + 1)):
            raises(OSError, f"read_at({at}, {length}) of {size} bytes", partial(file.read_at, at, length))


@law()
def the_size_is_told(subject: Subject) -> None:
    """``size_bytes`` is what the file was created with, to the byte, after writes and opened again, too."""
    with subject.backend() as backend:
        for number, size in enumerate((0, 1, 511, 512, 4096, 10_001)):
            path = subject.path(f"sized-{number}")
            with open_file(backend.create(path, size_bytes=size)) as file:
                hold(
                    file.size_bytes == size, f"size_bytes of a new file of {size} bytes is {file.size_bytes}"
                )
                if size:
                    file.write_at(size - 1, b"e")
                hold(file.size_bytes == size, f"a write inside made {size} bytes {file.size_bytes}")
            with open_file(backend.open(path)) as file:
                hold(file.size_bytes == size, f"opened again, {size} bytes are {file.size_bytes}")


@law()
def reserve_keeps_what_is_written(subject: Subject) -> None:
    """Reserving a range, again and in part, changes no byte of it, and makes no file shorter."""
    data = pattern(30_000, "kept")
    with subject.file(SIZE_BYTES) as (_, file):
        file.write_at(1000, data)
        for at, length in ((0, SIZE_BYTES), (1000, 100), (1500, 4096), (0, SIZE_BYTES), (0, 1)):
            file.reserve(at, length)
            hold(
                file.size_bytes == SIZE_BYTES,
                f"reserve({at}, {length}) made {file.size_bytes} bytes of {SIZE_BYTES}",
            )
            expected = bytes(1000) + data + bytes(SIZE_BYTES - 31_000)
            same(file.read_at(0, SIZE_BYTES), expected, f"the file after reserve({at}, {length})")
        file.write_at(40_000, data)
        same(file.read_at(40_000, 30_000), data, "what was written into the reserved range")


@law()
def reserve_extends_with_zeros(subject: Subject) -> None:
    """Where the range ends beyond the file it grows to the end of the range; new bytes are zeros."""
    with subject.file(5000) as (_, file):
        file.write_at(0, pattern(5000, "old"))
        size = 5000
        steps = ((4000, 1500), (5500, 131), (5631, 1), (5632, 1), (SIZE_BYTES, 700), (0, SIZE_BYTES + 701))
        for at, length in steps:
            file.reserve(at, length)
            size = max(size, at + length)
            hold(
                file.size_bytes == size,
                f"after reserve({at}, {length}) the size is {file.size_bytes}, not {size}",
            )
            expected = pattern(5000, "old") + bytes(size - 5000)
            same(file.read_at(0, size), expected, f"the file after reserve({at}, {length})")
        file.write_at(size - 5, b"there")
        same(file.read_at(size - 5, 5), b"there", "the end of what was reserved")


@law("files")
def a_failed_reserve_changes_nothing(subject: Subject) -> None:
    """All or nothing: after an OSError the size and every byte are what they were, and the file goes on."""
    with subject.file(8192) as (_, file):
        file.write_at(0, pattern(8192, "old"))
        with largest_file(1 << 20):
            raises(OSError, "a reserve beyond the largest file allowed", lambda: file.reserve(0, 2 << 20))
        hold(file.size_bytes == 8192, f"after a failed reserve the size is {file.size_bytes}, not 8192")
        same(file.read_at(0, 8192), pattern(8192, "old"), "the file after a failed reserve")
        file.reserve(0, 16_384)
        same(file.read_at(8192, 8192), bytes(8192), "what a later reserve adds")


@law("files")
def a_create_that_fails_leaves_no_file(subject: Subject) -> None:
    """A file that would be too large is not there afterwards, not even an empty one."""
    with subject.backend() as backend:
        with largest_file(1 << 20):
            raises(
                OSError,
                "creating a file larger than allowed",
                lambda: backend.create(subject.path("large"), size_bytes=4 << 20),
            )
        hold(list(backend.list(subject.directory)) == [], "a failed create left a file behind")
        backend.create(subject.path("large"), size_bytes=4096).close()


@law()
def no_space_leaves_old_bytes(subject: Subject) -> None:
    """On a full medium a write or reserve raises OSError; what was there before is there still."""
    if subject.small_directory is None:
        raise NotApplicable("no small_directory was given, so nothing can be filled up")
    directory = subject.small_directory(2 << 20)
    small = Subject(subject.make, directory)
    old = pattern(100_000, "old")
    with small.file(32 << 20) as (backend, file):
        file.reserve(0, 100_000)
        file.write_at(0, old)
        raises(OSError, "reserve beyond a full medium", lambda: file.reserve(0, 32 << 20))
        same(file.read_at(0, 200_000), old + bytes(100_000), "the file after a reserve found no space")
        raises(
            OSError, "a write beyond a full medium", lambda: file.write_at(1 << 20, pattern(8 << 20, "lost"))
        )
        same(file.read_at(0, 100_000), old, "the old bytes after a write found no space")
        hold(file.size_bytes == 32 << 20, f"the size is {file.size_bytes} after a write found no space")
        file.write_at(10, b"goes on")
        file.sync()
        same(file.read_at(10, 7), b"goes on", "a write to reserved bytes on a full medium")
        hold("one" in list(backend.list(directory)), "the file is not listed any more")


@law("files")
def positions_beyond_4_gib(subject: Subject) -> None:
    """Places that 32 bits cannot hold; the file is sparse, so that it costs nothing."""
    far = (5 << 30) + 17
    with subject.file(far + 10_000) as (_, file):
        file.write_at(far, b"far away")
        same(file.read_at(far, 8), b"far away", f"what was written at {far}")
        same(file.read_at(far % (1 << 32), 8), bytes(8), "the place that the lower 32 bits name")
        hold(file.size_bytes == far + 10_000, f"the size is {file.size_bytes}")


@law()
def a_read_may_outlive_close(subject: Subject) -> None:
    """Bytes that were handed out can be looked at after ``close``."""
    with subject.backend() as backend:
        with open_file(backend.create(subject.path("one"), size_bytes=10_000)) as file:
            file.write_at(0, b"looked at later")
            found = file.read_at(0, 15)
        same(found, b"looked at later", "bytes of a file that was closed since")


@law()
def close_is_idempotent(subject: Subject) -> None:
    """A second ``close`` of a file or backend does nothing, and harms no other file."""
    with subject.backend() as backend:
        first = backend.create(subject.path("first"), size_bytes=4096)
        first.close()
        second = backend.create(subject.path("second"), size_bytes=4096)
        first.close()
        second.write_at(0, b"second")
        second.sync()
        same(second.read_at(0, 6), b"second", "a file opened between two closes of another")
        second.close()
        second.close()
    backend.close()


@law()
def closed_bytes_are_found_again(subject: Subject) -> None:
    """What was written is there for whoever opens the file next, with this backend or a new one."""
    data = pattern(20_000, "again")
    with subject.backend() as backend:
        with open_file(backend.create(subject.path("one"), size_bytes=SIZE_BYTES)) as file:
            file.write_at(700, data)
        with open_file(backend.open(subject.path("one"))) as file:
            same(file.read_at(700, 20_000), data, "opened again")
            file.write_at(0, b"more")
    with subject.backend() as other, open_file(other.open(subject.path("one"))) as file:
        same(file.read_at(0, 4), b"more", "opened by a new backend")
        same(file.read_at(700, 20_000), data, "opened by a new backend")


@law()
def a_returned_write_survives_the_process(subject: Subject) -> None:
    """What ``write_at`` returned from lies with the system: nobody need sync, flush or close."""
    with subject.file() as (_, file):
        file.write_at(123, b"no sync, no close")
        with subject.backend() as other, open_file(other.open(subject.path("one"))) as seen:
            same(seen.read_at(123, 17), b"no sync, no close", "what another backend reads meanwhile")


@law()
def synced_bytes_are_on_the_medium(subject: Subject) -> None:
    """After ``sync``, whoever reads the file by other means finds the bytes."""
    subject.require_hook("peek", "so nothing can look past the backend")
    peek = subject.peek
    with subject.file(20_000) as (_, file):
        file.write_at(5000, pattern(9000, "peek"))
        file.sync()
        expected = bytes(5000) + pattern(9000, "peek") + bytes(6000)
        same(peek(subject.path("one")) if peek else b"", expected, "the file as peek reads it")


@law()
def sync_many_syncs_them_all(subject: Subject) -> None:
    """Several files, one, none: afterwards the bytes of each are on the medium."""
    with subject.backend() as backend:
        backend.sync_many([])
        files = [backend.create(subject.path(f"f{number}"), size_bytes=5000) for number in range(5)]
        try:
            for number, file in enumerate(files):
                file.write_at(number, pattern(100, number))
            backend.sync_many(files)
            backend.sync_many(files[:1])
            for number, file in enumerate(files):
                same(file.read_at(number, 100), pattern(100, number), f"file {number}")
                if subject.peek is not None:
                    found = subject.peek(os.fspath(subject.path(f"f{number}")))
                    same(found[number : number + 100], pattern(100, number), f"file {number}, peeked at")
        finally:
            for file in files:
                file.close()
