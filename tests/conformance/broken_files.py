"""Backends that break one law each of those that ask the operating system, made of the one of the guide."""

from __future__ import annotations

import os
import re
import stat
from functools import partial
from pathlib import Path
from typing import Any

from walrus_core.backend import Buffer, Capabilities

from .broken import Around, AroundFile, Broken, breaks

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "writing-a-backend.md"
SOURCE = re.compile(r"^```python file=walrus_plain/backend.py\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def plain_backend() -> Any:
    """Return the class of the backend on the guide's page: plain files, nothing declared, sound."""
    found = SOURCE.search(GUIDE.read_text(encoding="utf-8"))
    assert found is not None, f"{GUIDE.name} has no walrus_plain/backend.py"
    names: dict[str, Any] = {"__name__": "walrus_plain.backend"}
    exec(compile(found[1], str(GUIDE), "exec"), names)
    return names["PlainBackend"]


BROKEN_ON_FILES: Broken = {}
"""As ``BROKEN``, of those that go around the backend of the guide."""

LEFT_OPEN: list[int] = []
"""Descriptors that nobody closes: whoever runs a backend of this file does, afterwards."""

breaks_on_files = partial(breaks, into=BROKEN_ON_FILES)


@breaks_on_files("a_closed_file_keeps_no_descriptor")
class ClosesNothing(AroundFile):
    def close(self) -> None:
        if self.inner._descriptor not in LEFT_OPEN:
            LEFT_OPEN.append(self.inner._descriptor)


@breaks_on_files("a_refused_open_keeps_no_descriptor")
class KeepsWhatItRefuses(Around):
    def open(self, path: str) -> AroundFile:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            LEFT_OPEN.append(descriptor)
            raise OSError("not a regular file")
        os.close(descriptor)
        return super().open(path)


@breaks_on_files("the_size_is_that_of_now")
class KnowsItsSize(AroundFile):
    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.size = int(inner.size_bytes)

    @property
    def size_bytes(self) -> int:
        return self.size

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        self.inner.reserve(at_bytes, length_bytes)
        self.size = max(self.size, at_bytes + length_bytes)


@breaks_on_files("a_write_is_whole_or_raises")
class TakesAnyCount(AroundFile):
    def write_at(self, at_bytes: int, data: Buffer) -> None:
        os.pwrite(self.inner._descriptor, data, at_bytes)


class GathersFile(AroundFile):
    def write_many(self, writes: Any) -> None:
        for at_bytes, buffers in writes:
            os.pwrite(self.inner._descriptor, b"".join(buffers), at_bytes)

    def read_many(self, reads: Any) -> Any:
        return [self.read_at(*each) for each in reads]


@breaks_on_files("a_write_is_whole_or_raises")
class TakesAnyCountOfMany(Around):
    file_class = GathersFile

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(vectored=True)


@breaks_on_files("a_failed_sync_is_raised")
class SyncsWithoutALook(AroundFile):
    def sync(self) -> None:
        try:
            self.inner.sync()
        except OSError:
            return


@breaks_on_files("a_failed_sync_is_raised")
class SyncsManyWithoutALook(Around):
    def sync_many(self, files: Any) -> None:
        for file in files:
            try:
                file.sync()
            except OSError:
                continue


@breaks_on_files("a_failed_sync_is_raised")
class TellsOfTheLastSync(Around):
    def sync_many(self, files: Any) -> None:
        failure = None
        for file in files:
            try:
                file.sync()
                failure = None
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure
