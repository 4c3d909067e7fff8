"""One look at a log directory: how it is read without a change, and what has been found so far."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Optional

from attrs import define, field

from walrus_core import format as fmt
from walrus_core.backend import Backend
from walrus_core.block import Block, State
from walrus_core.copies import MARK_KIND
from walrus_core.errors import StorageError, UsageError, storage_error
from walrus_core.files import FileCache
from walrus_core.findings import DAMAGE, UNREADABLE, Finding, TopicCount, VerifyReport
from walrus_core.gate import Gate
from walrus_core.inventory import segment_names
from walrus_core.overlay import OverlayBackend
from walrus_core.reader import walk_block
from walrus_core.types import Damage

OPEN_FILES_MAX = 64
READ_BYTES = 1024 * 1024
READ_ENTRIES = 10_000

Progress = Callable[[str, int, int, int], None]
"""``(topic, bytes_done, bytes_total, entry_count)``."""


def show_nothing(topic: str, bytes_done: int, bytes_total: int, entry_count: int) -> None:
    """A progress that nobody watches."""


@define
class Look:
    """What is read, through which files, and what came of it."""

    files: FileCache
    backend: OverlayBackend
    directory: str
    progress: Progress = show_nothing
    started_s: float = field(factory=time.monotonic)
    findings: list[Finding] = field(factory=list)
    topics: dict[str, TopicCount] = field(factory=dict)
    block_count: int = 0
    segment_count: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    entry_count: int = 0

    def path(self, name: str) -> str:
        """Return the path of a file of the directory."""
        return os.path.join(self.directory, name)

    def names(self) -> list[str]:
        """Return the names in the directory, sorted. Raises: StorageError; UsageError: no log is there."""
        try:
            names = sorted(self.backend.list(self.directory))
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise storage_error(error, self.directory, "list") from error
        if fmt.CURSORS_NAME not in names and not segment_names(names):
            raise UsageError(f"there is no log in {self.directory}")
        return names

    def read_file(self, path: str, bytes_max: Optional[int] = None) -> bytes:
        """Return the bytes of a file, or the first of them. Raises: StorageError."""
        file = self.files.add(path)
        size = file.size_bytes()
        return bytes(file.read(0, size if bytes_max is None else min(size, bytes_max)))

    def read_frames(
        self, topic: str, block: Block, state: State, stop_offset: int, *, counts: bool = True
    ) -> list[Finding]:
        """Read every frame of a block below ``stop_offset``.

        Args:
            topic: Whose block it is.
            block: One that no frames were read of yet.
            state: How far the block goes, as far as anybody knows.
            stop_offset: Offset behind the last entry that must be there.
            counts: False for another look at frames that are counted already.

        Returns: what is damaged or cannot be read. Raises: StorageError: the file is gone.
        """
        block.final = state
        found: list[Finding] = []
        offset = block.first_offset
        count = payload_bytes = 0
        try:
            for entries, damage in walk_block(topic, block, stop_offset, READ_BYTES, READ_ENTRIES):
                count += len(entries)
                payload_bytes += sum(len(entry.data) for entry in entries)
                offset = entries[-1].offset + 1 if entries else offset
                if damage is not None:
                    found.append(finding_of(damage))
                    offset = damage.end_offset or offset
                place = block.recent_place[1] - fmt.PAGE_SIZE
                self.progress(topic, self.bytes_done + place, self.bytes_total, self.entry_count + count)
        except StorageError as error:
            if error.errno == errno.ENOENT:
                raise
            lost = Damage(
                kind=str(error),
                path=block.file.path,
                at_bytes=block.base,
                topic=topic,
                first_offset=offset,
                end_offset=stop_offset,
            )
            found.append(finding_of(lost, UNREADABLE))
        is_whole = not found and stop_offset == block.first_offset + state.entries
        if is_whole and block.recent_place != (state.entries, state.at):
            # The frames are sound and are not those that the mark counts.
            found.append(
                Finding(
                    category=DAMAGE, kind=MARK_KIND, path=block.file.path, at_bytes=block.base, topic=topic
                )
            )
        if counts:
            self._count(topic, block, stop_offset, count, payload_bytes)
            self.bytes_done += state.at
        return found

    def _count(self, topic: str, block: Block, end_offset: int, entry_count: int, payload_bytes: int) -> None:
        old = self.topics.get(topic)
        self.entry_count += entry_count
        self.topics[topic] = TopicCount(
            name=topic,
            first_offset=min(block.first_offset, old.first_offset if old else block.first_offset),
            next_offset=max(end_offset, old.next_offset if old else 0),
            block_count=1 + (old.block_count if old else 0),
            entry_count=entry_count + (old.entry_count if old else 0),
            payload_bytes=payload_bytes + (old.payload_bytes if old else 0),
        )

    def report(self, *, live: bool, closed_cleanly: bool) -> VerifyReport:
        """Return what has been found."""
        return VerifyReport(
            path=self.directory,
            live=live,
            closed_cleanly=closed_cleanly,
            findings=tuple(dict.fromkeys(self.findings)),
            topics=tuple(topic for _name, topic in sorted(self.topics.items())),
            segment_count=self.segment_count,
            block_count=self.block_count,
            checked_bytes=self.bytes_done,
            duration_s=time.monotonic() - self.started_s,
        )


@contextmanager
def open_look(
    backend: Backend, directory: str, progress: Progress = show_nothing, *, from_medium: bool
) -> Iterator[Look]:
    """Look at a directory through an overlay over ``backend``; its files are closed at the end.

    ``from_medium``: let clean pages be read from the medium, where the backend can.
    """
    overlay = OverlayBackend(backend, from_medium=from_medium)
    files = FileCache(overlay, OPEN_FILES_MAX, Gate(directory, _do_nothing, True, ()))
    try:
        yield Look(files, overlay, directory, progress)
    finally:
        files.close()


def _do_nothing(_fact: Any) -> None:
    """Nobody listens."""


def finding_of(damage: Damage, category: str = DAMAGE) -> Finding:
    """Return damage as a finding."""
    return Finding(
        category=category,
        kind=damage.kind,
        path=damage.path,
        at_bytes=damage.at_bytes,
        topic=damage.topic,
        first_offset=damage.first_offset,
        end_offset=damage.end_offset,
    )
