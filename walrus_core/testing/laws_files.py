"""Laws of files that others see, too: descriptors, limits and failures of the operating system."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from functools import partial

from walrus_core.backend import SegmentFile
from walrus_core.testing.laws_capable import WRITES, ways
from walrus_core.testing.limits import DESCRIPTORS, cut_descriptors, few_descriptors, largest_file
from walrus_core.testing.subject import (
    BrokenLaw,
    NotApplicable,
    Subject,
    hold,
    law,
    open_file,
    pattern,
    raises,
    same,
)

# --- descriptors ------------------------------------------------------------------------------


@law("files")
def a_closed_file_keeps_no_descriptor(subject: Subject) -> None:
    """More files can be created, opened and closed than may be open at once."""
    # They are kept: an object that gives its descriptor back only when it dies has not been closed.
    closed: list[SegmentFile] = []
    with subject.backend() as backend, few_descriptors(DESCRIPTORS):
        try:
            for number in range(2 * DESCRIPTORS):
                path = subject.path(f"f{number}")
                closed.append(_used(backend.create(path, size_bytes=8192)))
                closed.append(_used(backend.open(path)))
                if backend.capabilities.read_only:
                    with open_file(backend.open_read_only(path)) as reader:
                        same(reader.read_at(0, 4), b"used", "a file opened to be read")
                    closed.append(reader)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise BrokenLaw(f"{len(closed)} files were closed, and kept descriptors: {error}") from error
            raise


def _used(file: SegmentFile) -> SegmentFile:
    """Have a file do what needs a descriptor or a map, and close it."""
    with open_file(file):
        file.reserve(0, 8192)
        file.write_at(0, b"used")
        same(file.read_at(0, 8192)[:4], b"used", "what was written")
    return file


# --- what the system does -----------------------------------------------------------------------


@law("files")
def the_size_is_that_of_now(subject: Subject) -> None:
    """Others may cut a file while it is open: ``size_bytes`` is what the file system tells then."""
    with subject.file(10_000) as (_, file):
        hold(file.size_bytes == 10_000, f"size_bytes of a new file of 10000 bytes is {file.size_bytes}")
        path = subject.path("one")
        # It is longer than that where the backend keeps something of its own in it.
        there = os.stat(path).st_size
        try:
            os.truncate(path, there // 2)
        except OSError as error:
            raise NotApplicable(f"this system does not cut a file that is open: {error}") from error
        now = file.size_bytes
        hold(
            now == 5000 if there == 10_000 else now < 10_000,
            f"size_bytes is {now} after others have cut the file from {there} to {there // 2} bytes",
        )


@law("files")
def a_write_is_whole_or_raises(subject: Subject) -> None:
    """Where the system takes a part only: the backend brings the rest there, or says that it could not."""
    # The last of the extents of write_many is cut: one that lies beyond the limit is refused whole.
    limit, length = 1 << 20, 40_000
    start, at = limit - 35_000, limit - 25_000
    old, new = pattern(60_000, "old"), pattern(length, "new")
    with subject.file(start + len(old)) as (backend, file):
        for writer, write in ways(backend, WRITES).items():
            if writer not in ("write_at", "write_many"):
                continue
            file.write_at(start, old)
            try:
                with largest_file(limit):
                    write(file, at, new)
            except OSError:
                pass
            else:
                same(file.read_at(at, length), new, f"a {writer} that returned")
            same(file.read_at(start, 10_000), old[:10_000], f"what is before a {writer} that was cut short")
            same(file.read_at(at + length, 10_000), old[-10_000:], f"what is behind a {writer}")
            write(file, at, new)
            same(file.read_at(at, length), new, f"a later {writer}")


# --- failed syncs -------------------------------------------------------------------------------


@law("files")
def a_failed_sync_is_raised(subject: Subject) -> None:
    """By ``sync``, and by ``sync_many`` wherever the file stands among others that can be synced."""
    with subject.backend() as backend, ExitStack() as stack:
        paths = [subject.path(f"f{number}") for number in range(5)]
        files = [stack.enter_context(open_file(backend.create(path, size_bytes=4096))) for path in paths]
        for file in files:
            file.write_at(0, b"to be synced")
        is_durable = cut_descriptors(paths[0])
        _fail_a_sync(files[0], is_durable)
        for place in range(len(files)):
            order = [*files[1 : place + 1], files[0], *files[place + 1 :]]
            raises(
                OSError,
                f"sync_many of {len(order)} files, of which number {place + 1} cannot be synced,",
                partial(backend.sync_many, order),
            )
        backend.sync_many(files[1:])


def _fail_a_sync(file: SegmentFile, is_durable: bool) -> None:
    """Sync a file whose descriptors lead elsewhere. Raises: BrokenLaw; NotApplicable: it needs none."""
    try:
        file.sync()
    except OSError:
        return
    try:
        file.write_at(0, b"where to?")
    except OSError as error:
        # Durable writes leave a sync nothing to do that could fail.
        if not is_durable:
            raise BrokenLaw("sync returned, though the descriptors of the file cannot be synced") from error
    raise NotApplicable("the backend syncs without a descriptor of the file: nothing can make that fail")
