"""The read path: offset, block, place, frames, entries. Moves no cursor, changes nothing.

Damage stops a read; the sound prefix before it is returned with a description of what is lost,
and the caller decides whether to raise or to step over it.

Invariant: every entry handed out passed its checksum, has the offset that was asked for, and
lies below the topic's visible end. Threads: the caller holds the topic's ``read_lock``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple, Optional, Union

from walrus_core import hot
from walrus_core.backend import Buffer
from walrus_core.block import Block
from walrus_core.errors import ChecksumError, CorruptionError
from walrus_core.format import FRAME_ALIGN, FRAME_HEADER_SIZE, PAGE_SIZE
from walrus_core.topic import Topic
from walrus_core.types import Damage

READ_BYTES_MIN = 64 * 1024
READ_BYTES_MAX = 1024 * 1024
AHEAD_BYTES = 128 * 1024
"""Read ahead of a cursor at once: about what stays in the processor's cache until it is taken."""
LARGE_BYTES = 16 * 1024
"""Mean payload from which a system call for each costs less than to copy it out of what was read."""
PAYLOAD_KIND = "payload checksum"
HEADER_KIND = "frame header"
BLOCK_KIND = "missing block"


class ReadResult(NamedTuple):
    """``entries`` in order, and what stopped the read, if it was damage."""

    entries: list[hot.Entry]
    damage: Optional[Damage]


class Ahead(NamedTuple):
    """Verified frames that stand in ``run`` from its start on: the entries up to ``end_offset``, none
    where it is the offset that was asked for; then ``damage`` says what stopped the read."""

    run: bytes
    end_offset: int
    damage: Optional[Damage]


def read_ahead(topic: Topic, offset: int, end_offset: int) -> Ahead:
    """Read and verify some of the entries ``[offset, end_offset)``, at least one, and make nothing of them.

    Returns: what one read of about AHEAD_BYTES brings, of one block. Raises: StorageError: a read failed.
    """
    walk = _find_walk(topic.name, list(topic.blocks), offset, end_offset)
    return Ahead(b"", offset, walk) if isinstance(walk, Damage) else walk.read_ahead(offset)


def read_entries(topic: Topic, offset: int, end_offset: int, max_bytes: int, max_entries: int) -> ReadResult:
    """Read entries ``[offset, end_offset)`` until the budget is used up.

    ``max_bytes`` counts payload; a first entry larger than it is returned alone.

    Returns: the sound entries from ``offset`` on, and the damage that stopped the read, if any.
    Raises: StorageError: a read failed. Cost: reads what it returns and up to READ_BYTES_MIN behind
    it; from an offset where no read ended lately, up to READ_BYTES_MIN more to find its place.
    """
    # A copy: a writer may append blocks, and take back those of a batch that fails.
    blocks = list(topic.blocks)
    entries: list[hot.Entry] = []
    while offset < end_offset and len(entries) < max_entries:
        budget = max_bytes - hot.payload_bytes(entries)
        if entries and budget < 0:
            break
        walk = _find_walk(topic.name, blocks, offset, end_offset)
        if isinstance(walk, Damage):
            return ReadResult(entries, walk)
        damage = walk.read(offset, budget, max_entries, entries)
        if damage is not None:
            return ReadResult(entries, damage)
        if not entries or entries[-1].offset + 1 < walk.stop_offset:
            # Within the block only a limit stops it.
            break
        offset = walk.stop_offset
    return ReadResult(entries, None)


def walk_block(
    topic: str, block: Block, stop_offset: int, max_bytes: int, max_entries: int
) -> Iterator[ReadResult]:
    """Read all entries of one block below ``stop_offset``, in pieces, stepping over damage.

    Raises: StorageError: a read failed.
    """
    offset = block.first_offset
    while offset < stop_offset:
        entries: list[hot.Entry] = []
        damage = _BlockWalk(topic, block, stop_offset).read(offset, max_bytes, max_entries, entries)
        yield ReadResult(entries, damage)
        if damage is not None and damage.end_offset is not None:
            offset = damage.end_offset
        elif entries:
            offset = entries[-1].offset + 1
        else:
            return


def _find_walk(topic: str, blocks: list[Block], offset: int, end_offset: int) -> Union[_BlockWalk, Damage]:
    """Return a walk through the block that holds ``offset``, or the gap where none does."""
    following = bisect_right(blocks, offset, key=lambda block: block.first_offset)
    is_last = following == len(blocks)
    stop = end_offset if is_last else min(blocks[following].first_offset, end_offset)
    block = blocks[following - 1] if following else None
    if block is None or (is_last and offset >= block.end_offset):
        path = block.file.path if block is not None else topic
        return Damage(
            kind=BLOCK_KIND, path=path, at_bytes=0, topic=topic, first_offset=offset, end_offset=stop
        )
    return _BlockWalk(topic, block, stop)


class _BlockWalk:
    """Reads entries of one block below ``stop_offset``."""

    def __init__(self, topic: str, block: Block, stop_offset: int) -> None:
        self._topic = topic
        self._block = block
        self.stop_offset = stop_offset
        self._stop_index = stop_offset - block.first_offset
        state = block.state
        # Where damage hid the true end from recovery, frames may go on to the end of the block.
        self._end_at = state.at if self._stop_index <= state.entries else block.length_bytes
        self._state = state

    def read(self, offset: int, budget: int, max_entries: int, entries: list[hot.Entry]) -> Optional[Damage]:
        """Append entries from ``offset`` on to ``entries``. Returns: the damage met, if any."""
        target = offset - self._block.first_offset
        place = self._locate(target)
        if isinstance(place, Damage):
            return place
        return self._decode(target, place, budget, max_entries, entries)

    def read_ahead(self, offset: int) -> Ahead:
        """Return verified frames from ``offset`` on, as bytes of their own."""
        block = self._block
        target = offset - block.first_offset
        place = self._locate(target)
        if isinstance(place, Damage):
            return Ahead(b"", offset, place)
        length = AHEAD_BYTES
        while True:
            # A copy where it is a view: others could change what stands there after it was verified.
            run = bytes(self._bytes(place, length))
            at, index, status, need = hot.verify(run, 0, block.key, block.algorithm, target, self._stop_index)
            if index > target:
                block.remember_place(index, place + at)
                return Ahead(run, block.first_offset + index, None)
            if status != hot.SHORT or place + need > self._end_at:
                return Ahead(b"", offset, self._describe(place, target, status, need))
            length = need

    def _locate(self, target: int) -> Union[int, Damage]:
        """Return where frame ``target`` stands, or the damage that hides it."""
        block = self._block
        index, at = block.place_before(target)
        length = READ_BYTES_MIN
        while index < target:
            view = self._bytes(at, length)
            step, index, status, need = hot.seek(view, 0, block.key, index, target)
            at += step
            block.remember_place(index, at)
            if status == hot.SHORT and at + need <= self._end_at:
                length = max(need, READ_BYTES_MIN)
            elif status != hot.DONE:
                next_at, next_index = self._resume(at, index + 1)
                if next_index < 0 or next_index > target:
                    end_index = self._stop_index if next_index < 0 else next_index
                    return self._damage(HEADER_KIND, at, target, end_index)
                index, at = next_index, next_at
        return at

    def _decode(
        self, index: int, at: int, budget: int, max_entries: int, entries: list[hot.Entry]
    ) -> Optional[Damage]:
        block = self._block
        length = self._guess(budget, max_entries)
        while index < self._stop_index and len(entries) < max_entries:
            frames = (
                block.key,
                block.algorithm,
                block.first_offset,
                index,
                self._stop_index,
                max(budget, 0),
                max_entries - len(entries),
            )
            is_large = self._has_large_entries
            if entries or not is_large:
                view = self._bytes(at, FRAME_HEADER_SIZE if is_large else length)
            if entries:
                ahead = hot.peek_header(view, 0, block.key)
                if ahead is not None and ahead[0] > budget:
                    return None
            if is_large:
                found, step, index, status, need = block.decode(at, self._end_at - at, *frames)
            else:
                found, step, index, status, need = hot.decode(view, 0, *frames)
            entries.extend(found)
            budget -= hot.payload_bytes(found)
            at += step
            block.remember_place(index, at)
            if status == hot.DONE:
                return None
            if status != hot.SHORT or at + need > self._end_at:
                return self._describe(at, index, status, need)
            length = max(need, self._guess(budget, max_entries - len(entries)))
        return None

    @property
    def _has_large_entries(self) -> bool:
        """True where each payload is to be read into its entry, with a system call of its own."""
        state = self._state
        return (
            state.payload_bytes >= LARGE_BYTES * state.entries > 0
            and hot.READS_FILES
            and self._block.file.backend_capabilities.fileno
        )

    def _guess(self, budget: int, count: int) -> int:
        """Return how many bytes of frames will be about enough, as frames of this block go."""
        state = self._state
        if state.entries and state.payload_bytes:
            frames_bytes = state.at - PAGE_SIZE
            budget = min(budget * frames_bytes // state.payload_bytes, count * frames_bytes // state.entries)
            budget += budget // 16
        return min(max(budget, READ_BYTES_MIN), READ_BYTES_MAX)

    def _bytes(self, at: int, length: int) -> Buffer:
        return self._block.read(at, max(min(length, self._end_at - at), 0))

    def _describe(self, at: int, index: int, status: int, need: int) -> Damage:
        """Say what is lost at ``at``, where frame ``index`` should stand, and remember what follows."""
        if status == hot.BAD_PAYLOAD:
            self._block.insert_place(index + 1, at + need)
            return self._damage(PAYLOAD_KIND, at, index, index + 1)
        _next_at, next_index = self._resume(at, index + 1)
        if next_index < 0:
            return self._damage(HEADER_KIND, at, index, self._stop_index)
        return self._damage(HEADER_KIND, at, index, next_index)

    def _resume(self, at: int, index_min: int) -> tuple[int, int]:
        """Find the next sound frame behind a damaged header; (-1, -1) where there is none."""
        view = self._bytes(at, self._end_at - at)
        found_at, index = hot.find_frame(view, FRAME_ALIGN, self._block.key, index_min, self._stop_index)
        if found_at < 0:
            return -1, -1
        self._block.insert_place(index, at + found_at)
        return at + found_at, index

    def _damage(self, kind: str, at: int, first_index: int, end_index: int) -> Damage:
        block = self._block
        return Damage(
            kind=kind,
            path=block.file.path,
            at_bytes=block.base + at,
            topic=self._topic,
            first_offset=block.first_offset + first_index,
            end_offset=block.first_offset + end_index,
        )


def corruption_error(damage: Damage) -> CorruptionError:
    """Return the error that tells of ``damage``."""
    cls = ChecksumError if damage.kind == PAYLOAD_KIND else CorruptionError
    return cls(
        kind=damage.kind,
        path=damage.path,
        at_bytes=damage.at_bytes,
        topic=damage.topic,
        offset=damage.first_offset,
        end_offset=damage.end_offset,
    )
