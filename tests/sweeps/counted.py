"""A faulty backend that numbers every call and fails the n-th one, once or for ever."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from attrs import evolve, frozen
from faults import FaultyBackend, FaultyFile, Rule, failure

from walrus_core.backend import Buffer, Capabilities, SegmentFile
from walrus_core.memory import MemoryBackend, MemoryStore

SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE)
NUMBERS = (errno.EIO, *SPACE)
WRITES = ("write", "write_many")
SYNCS = ("sync", "sync_many", "sync_dir", "close")
"""Calls whose failure says that what was written may be lost."""
CHANGES = (*WRITES, "reserve", "discard")


@frozen
class Fault:
    """The ``place``-th call of a run (from 1) fails, with it all later ones of its kind if it ``stays``.

    A failing write leaves ``part`` of its bytes in the file: nothing, half, or all of them.
    """

    place: int
    number: int
    stays: bool = False
    part: float = 0.0

    def __str__(self) -> str:
        name = errno.errorcode[self.number]
        return f"call {self.place}, {name}{', for ever' if self.stays else ''}, {self.part:.0%} written"


class CountedFile(FaultyFile):
    """One file; several extents and several files are calls of their own kind."""

    def write_many(self, writes: Sequence[tuple[int, Sequence[Buffer]]]) -> None:
        backend: Any = self._backend
        joined = [(at_bytes, b"".join(map(bytes, buffers))) for at_bytes, buffers in writes]
        rule = backend.rule_for("write_many", self.path)
        left = sum(len(data) for _at, data in joined)
        left = left if rule is None else int(left * backend.fault.part)
        for at_bytes, data in joined:
            self.inner.write_at(at_bytes, data[:left])
            left -= len(data[:left])
        if rule is not None:
            raise failure(rule.number, self.path)

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        backend: Any = self._backend
        rule = backend.rule_for("write", self.path)
        if rule is None:
            self.inner.write_at(at_bytes, data)
            return
        self.inner.write_at(at_bytes, bytes(data)[: int(len(data) * backend.fault.part)])
        raise failure(rule.number, self.path)

    def drop_cache(self) -> None:
        self._backend.note("drop_cache", self.path)


class CountedBackend(FaultyBackend):
    """Fails calls as ``fault`` says. ``log`` lists all calls as (operation, name of the file)."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(MemoryBackend(store=store))
        self.fault: Optional[Fault] = None
        self.log: list[tuple[str, str]] = []
        self.failed: list[str] = []
        """Operations that were made to fail."""
        self.is_watched = True
        """Calls count and may fail."""
        self.open_files = weakref.WeakSet()  # type: ignore[assignment]

    @property
    def capabilities(self) -> Capabilities:
        return evolve(super().capabilities, vectored=True, drop_cache=True)

    def rule_for(self, operation: str, path: str) -> Optional[Rule]:
        if not self.is_watched:
            return None
        self.log.append((operation, os.path.basename(path)))
        fault = self.fault
        if fault is None:
            return None
        place = len(self.log)
        if place == fault.place or (fault.stays and place > fault.place and operation in self.failed):
            self.failed.append(operation)
            return Rule(operation=operation, number=fault.number)
        return None

    def _wrap(self, inner: SegmentFile, path: str) -> CountedFile:
        file = CountedFile(self, inner, path)
        self.open_files.add(file)
        return file

    def make_directory(self, path: str) -> None:
        self.note("make_directory", path)
        super().make_directory(path)

    def list(self, directory: str) -> Iterable[str]:
        return list(super().list(directory))

    def sync_many(self, files: Sequence[FaultyFile]) -> None:
        self.note("sync_many", "several")
        for file in files:
            image = self.image_of(file)
            file.inner.sync()
            self.keep(file.path, image)
