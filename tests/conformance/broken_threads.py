"""Backends whose files are sound for one thread, and lose or mix up what several do at once."""

from __future__ import annotations

import threading
import time
from typing import Any

from walrus_core.backend import Buffer

from .broken import AroundFile, breaks, patch


@breaks("readers_run_beside_a_writer")
class SharesOnePlace(AroundFile):
    """As with a seek and a read that others can come between."""

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        self.place = at_bytes
        time.sleep(0)  # another thread may go on here
        return bytes(self.inner.read_at(self.place, length_bytes))


@breaks("writers_of_several_blocks_run_side_by_side")
class SharesOnePlaceOfWrites(AroundFile):
    def write_at(self, at_bytes: int, data: Buffer) -> None:
        self.place = at_bytes
        time.sleep(0)  # another thread may go on here
        self.inner.write_at(self.place, data)


@breaks("writers_of_neighbouring_sectors_lose_nothing")
class PatchesPages(AroundFile):
    """Nothing keeps two threads from patching one page at once: the later one puts old bytes back."""

    chunk_bytes = 4096

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        first, _, after = patch(self, at_bytes, data, self.chunk_bytes)
        self.inner.write_at(first, after)


@breaks("writers_of_neighbouring_sectors_lose_nothing")
class PatchesChunks(PatchesPages):
    chunk_bytes = 16_384


@breaks("writers_of_neighbouring_sectors_lose_nothing")
class PatchesChunksUnderLocksOfPages(PatchesChunks):
    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.locks = [threading.Lock() for _ in range(8)]

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        with self.locks[at_bytes // 4096 % 8]:
            super().write_at(at_bytes, data)
