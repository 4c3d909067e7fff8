"""What must hold of a log after a crash: laws 1 to 5 as a model that is kept beside it.

The model knows every entry that was acknowledged, which of them the log has called durable, where
batches end, and where each cursor may stand. ``TopicModel.check`` compares an opened log with it
and then takes over what is there, so that a run can go on and crash again.
"""

from __future__ import annotations

from random import Random
from typing import Optional

from walrus_core import Walrus
from walrus_core.testing.oracle import judge

DEFAULT_CURSOR = "default"
TORN_SECTOR_DAMAGES = frozenset(
    {"block header", "block header, read from its copy", "cursor state, read from the older one"}
)
"""Kinds of damage that a recovery may report although no medium failed: a wipe that was interrupted, or a
write that ended inside a sector of the cache. Nothing is lost by them."""


class CursorModel:
    """A cursor stands at ``position`` in memory; what is durable lies in ``[floor, position]``."""

    def __init__(self, position: int, is_kept: bool) -> None:
        self.position = position
        self.floor = position
        self.in_doubt: set[int] = set()
        """Positions that a call which never returned may have made durable."""
        self.is_kept = is_kept
        """It holds back the reclaim of blocks: the default cursor, and every one that has moved."""
        self.may_be_kept = is_kept
        """It may have come to be kept by a call that did not return, or be there after a crash."""
        self.is_saved = is_kept
        """It is there after a crash; one that was never made durable begins at the oldest entry again."""

        self.may_be_saved = is_kept
        """A call that a crash ended may have made it be there."""

    def copy(self) -> CursorModel:
        """Return a model that knows the same, to be compared with one of several ends."""
        other = CursorModel(self.position, self.is_kept)
        other.__dict__.update(self.__dict__)
        other.in_doubt = set(self.in_doubt)
        return other

    def may_move(self, position: int) -> None:
        """A call begins that may make ``position`` durable."""
        self.in_doubt.add(position)
        self.may_be_kept = True

    def moved(self, position: int, persist_every: int) -> None:
        """A consuming read returned."""
        has_moved = position > self.position
        self.is_kept = self.is_kept or has_moved
        self.position = position
        self.floor = max(self.floor, position - persist_every + 1)
        if has_moved and not self.is_saved:
            # Its first move is durable, so that it holds back reclaim after a crash as well.
            if not self.may_be_saved:
                self.floor = position
            self.is_saved = True

    def pinned(self, position: int) -> None:
        """A seek or a sync returned: this very position is durable."""
        self.position = self.floor = position
        self.is_saved = self.is_kept

    def allows(self, found: int, oldest: int, end: int) -> bool:
        """True where a cursor may be found at ``found`` after a crash, in a log that holds [oldest, end)."""
        is_new = not self.is_saved and found == oldest
        return self.floor <= found <= min(self.position, end) or found in self.in_doubt or is_new


class TopicModel:
    """One topic: its entries by offset, and what is known of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: list[bytes] = []
        self.ends: set[int] = {0}
        """Offsets behind complete batches: only there may the topic end."""
        self.durable = 0
        self.oldest = 0
        self.in_doubt: list[tuple[int, list[bytes]]] = []
        """Batches, with their first offsets, that may be there after a crash or not: the append was
        interrupted, or failed half-way."""
        self.cursors = {DEFAULT_CURSOR: CursorModel(0, is_kept=True)}
        self.clean_at: set[Optional[int]] = {None}
        """Offsets one of which the durable clean mark names (None: there is none)."""

    def copy(self) -> TopicModel:
        """Return a model that knows the same, to be compared with one of several ends."""
        other = TopicModel(self.name)
        other.__dict__.update(self.__dict__)
        other.entries, other.ends = list(self.entries), set(self.ends)
        other.in_doubt, other.clean_at = list(self.in_doubt), set(self.clean_at)
        other.cursors = {name: cursor.copy() for name, cursor in self.cursors.items()}
        return other

    def facts(self) -> tuple[object, ...]:
        """Return all that is known, but for the entries and where their batches end: these only grow."""
        cursors = tuple(
            (
                name,
                *(value for key, value in sorted(vars(cursor).items()) if key != "in_doubt"),
                *sorted(cursor.in_doubt),
            )
            for name, cursor in sorted(self.cursors.items())
        )
        marks = tuple(sorted(-1 if mark is None else mark for mark in self.clean_at))
        doubts = tuple((start, len(batch)) for start, batch in self.in_doubt)
        return (self.name, len(self.entries), self.durable, self.oldest, doubts, cursors, marks)

    def appended(self, batch: list[bytes]) -> None:
        """An append returned."""
        self.entries += batch
        self.ends.add(len(self.entries))

    def cursor(self, wal: Walrus, name: str) -> CursorModel:
        """Return the model of a cursor; a new one starts at the oldest entry."""
        oldest = wal.oldest_offset(self.name)
        cursor = self.cursors.setdefault(name, CursorModel(oldest, is_kept=False))
        if not cursor.is_kept:
            found = wal.cursor_offset(self.name, name)
            assert found in (oldest, cursor.position), (
                f"{self.name[:3]}: cursor {name} moved to {found} by itself"
            )
            cursor.position = cursor.floor = found
        return cursor

    def passed(self) -> int:
        """Return the offset up to which every cursor that counts has read, or may have read."""
        counting = [cursor for cursor in self.cursors.values() if cursor.is_kept]
        return min(max(cursor.position, *cursor.in_doubt, 0) for cursor in counting)

    def observe(self, wal: Walrus) -> None:
        """Compare the offsets that the running log tells with the model."""
        durable, end = wal.durable_offset(self.name), wal.next_offset(self.name)
        assert end == len(self.entries), (
            f"{self.name[:3]}: next_offset is {end}, {len(self.entries)} were appended"
        )
        assert self.durable <= durable <= end, (
            f"{self.name[:3]}: durable_offset {durable} was {self.durable}, end {end}"
        )
        assert durable in self.ends, f"{self.name[:3]}: durable_offset {durable} lies inside a batch"
        oldest = wal.oldest_offset(self.name)
        passed = self.passed()
        assert self.oldest <= oldest <= max(passed, self.oldest), (
            f"{self.name[:3]}: oldest {oldest}, read up to {passed}"
        )
        self.durable, self.oldest = durable, oldest

    def check_space(self, wal: Walrus) -> None:
        """After a sync: what every cursor has passed is given back, up to the block that is being written."""
        counting = [cursor for cursor in self.cursors.values() if cursor.may_be_kept or cursor.is_kept]
        if self.entries and all(
            cursor.is_kept and cursor.position == len(self.entries) for cursor in counting
        ):
            count = wal.topic_info(self.name).block_count
            assert count <= 1, f"{self.name[:3]}: everything is consumed and {count} blocks are kept"

    # --- after a crash -------------------------------------------------------------------------

    def check(self, wal: Walrus, random: Random, all_survives: bool) -> None:
        """Compare the topic of a log that was opened after a crash, then take over what it says.

        ``all_survives``: only the process died, so every acknowledged entry is there.
        """
        found = wal.next_offset(self.name)
        oldest = wal.oldest_offset(self.name)
        self._check_end(wal, found, len(self.entries) if all_survives else self.durable)
        assert wal.durable_offset(self.name) == found, f"{self.name[:3]}: not durable after open"
        self._check_oldest(oldest, found)
        self.oldest = oldest
        self._check_entries(wal, random, oldest, found)
        for name, cursor in self.cursors.items():
            position = wal.cursor_offset(self.name, name)
            assert cursor.allows(position, oldest, found), (
                f"{self.name[:3]}: cursor {name} at {position}, allowed [{cursor.floor}, {cursor.position}] "
                f"or {sorted(cursor.in_doubt)}, end {found}"
            )
            cursor.is_kept = cursor.is_kept and cursor.is_saved
            cursor.may_be_saved = cursor.may_be_saved or bool(cursor.in_doubt)
            cursor.pinned(position)
            cursor.in_doubt.clear()
        self._check_clean(wal, found)
        self.durable = found

    def _check_end(self, wal: Walrus, found: int, least: int) -> None:
        """Take over the end of the topic: a prefix of what was appended, whole batches only."""
        known = len(self.entries)
        assert found >= least, f"{self.name[:3]}: ends at {found}, must go to {least} at least (of {known})"
        for start, batch in self.in_doubt:
            if least <= start and start + len(batch) == found and self._holds(wal, start, batch):
                del self.entries[start:]
                self.appended(batch)
        self.in_doubt.clear()
        assert found in self.ends, f"{self.name[:3]}: ends at {found}, inside a batch or beyond {known}"
        del self.entries[found:]
        self.ends = {end for end in self.ends if end <= found}

    def _holds(self, wal: Walrus, start: int, batch: list[bytes]) -> bool:
        """True where a batch in doubt is what stands at ``start``."""
        if wal.oldest_offset(self.name) > start:
            return False
        found = wal.batch_read_for_topic(self.name, 1 << 30, start_offset=start, max_entries=len(batch))
        return [entry.data for entry in found] == batch

    def _check_oldest(self, oldest: int, found: int) -> None:
        consumed = self.passed()
        assert self.oldest <= oldest <= min(max(consumed, self.oldest), found), (
            f"{self.name[:3]}: oldest is {oldest}, was {self.oldest}, read up to {consumed}, end {found}"
        )

    def _check_entries(self, wal: Walrus, random: Random, oldest: int, found: int) -> None:
        offset = oldest
        read: list[tuple[int, bytes]] = []
        while offset < found:
            max_bytes = random.choice([1, 5000, 100_000, 1 << 20])
            entries = wal.batch_read_for_topic(self.name, max_bytes, start_offset=offset)
            assert entries, f"{self.name[:3]}: nothing at {offset} of [{oldest}, {found})"
            read += [(entry.offset, entry.data) for entry in entries]
            offset = entries[-1].offset + 1
        findings = judge(self.name, self.entries, read, oldest=oldest, ends=self.ends)
        assert not findings, f"{self.name[:3]}: {'; '.join(map(str, findings[:5]))}"
        assert wal.batch_read_for_topic(self.name, start_offset=found) == [], (
            f"{self.name[:3]}: entries behind the end"
        )

    def _check_clean(self, wal: Walrus, found: int) -> None:
        is_clean = wal.topic_is_clean(self.name)
        allowed = {found == 0 or mark == found for mark in self.clean_at}
        assert is_clean in allowed, f"{self.name[:3]}: clean is {is_clean} at {found}, marks {self.clean_at}"
