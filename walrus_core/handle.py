"""TopicHandle: one topic of a log as an object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Optional

from walrus_core.config import DEFAULT_CURSOR
from walrus_core.errors import OffsetOutOfRangeError
from walrus_core.hot import Entry

if TYPE_CHECKING:
    from walrus_core.walrus import Walrus

ITERATION_BYTES = 1 << 20


class TopicHandle:
    """Append to and read from one topic. Cheap to make; keeps the log alive, not open."""

    __slots__ = ("_wal", "name")

    def __init__(self, wal: Walrus, name: str) -> None:
        """Use ``Walrus.topic``."""
        self._wal = wal
        self.name = name

    def append(self, data: Any) -> int:
        """Append one entry; see ``Walrus.append_for_topic``."""
        return self._wal.append_for_topic(self.name, data)

    def append_nowait(self, data: Any) -> int:
        """Append one entry and do not wait for it; ``Walrus.append_nowait`` says what it survives."""
        return self._wal.append_nowait(self.name, data)

    async def append_async(self, data: Any) -> int:
        """Append one entry and await that it is durable; see ``Walrus.append_async``."""
        return await self._wal.append_async(self.name, data)

    def wait_durable(self, offset: int) -> None:
        """Wait until the entry at ``offset`` is durable; see ``Walrus.wait_durable``."""
        self._wal.wait_durable(self.name, offset)

    def append_batch(self, batch: Iterable[Any]) -> range:
        """Append all entries or none; see ``Walrus.batch_append_for_topic``."""
        return self._wal.batch_append_for_topic(self.name, batch)

    def read(self, checkpoint: bool = True, *, cursor: str = DEFAULT_CURSOR) -> Optional[Entry]:
        """Return the next unconsumed entry or None; see ``Walrus.read_next``."""
        return self._wal.read_next(self.name, checkpoint, cursor=cursor)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries from the oldest to the end as it is now. Moves no cursor.

        Entries that are reclaimed while the iteration is under way are passed over. Raises:
        CorruptionError: at damage, unless the log skips it.
        """
        wal = self._wal
        offset = wal.oldest_offset(self.name)
        end_offset = wal.next_offset(self.name)
        while offset < end_offset:
            try:
                entries = wal.batch_read_for_topic(self.name, ITERATION_BYTES, start_offset=offset)
            except OffsetOutOfRangeError:
                oldest = wal.oldest_offset(self.name)
                if oldest <= offset:
                    raise
                offset = oldest
                continue
            if not entries:
                return
            for entry in entries:
                if entry.offset >= end_offset:
                    return
                yield entry
            offset = entries[-1].offset + 1

    def __len__(self) -> int:
        """Return how many entries are retained: next offset less oldest offset."""
        # The oldest first: both only grow, so that the difference is never below zero.
        oldest_offset = self._wal.oldest_offset(self.name)
        return self._wal.next_offset(self.name) - oldest_offset

    def __bool__(self) -> bool:
        """A handle is true even where its topic is empty."""
        return True

    def __repr__(self) -> str:
        """Name the topic and its log."""
        return f"<topic {self.name!r} of {self._wal!r}>"
