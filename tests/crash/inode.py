"""One file of a simulated disk: what is durable, what the cache holds, and what a power cut leaves.

Of every 512-byte sector a power cut leaves the durable bytes or any later state that the sector was
in, of the size the durable one or any since. ``surviving`` draws one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple, Optional

SECTOR = 512
PAGE = 4096


class Change(NamedTuple):
    """One change of a file that no sync has covered: bytes at a place, or (``data`` None) a size."""

    at: int
    data: Optional[bytes]


class Inode:
    """One file. ``live`` is what a reader sees, ``durable`` what the medium holds."""

    def __init__(self) -> None:
        self.live = bytearray()
        self.durable = bytearray()
        self.changes: list[Change] = []
        self.lies = False
        """A sync failed: some of ``live`` is neither durable nor going to be."""
        self.windows: set[tuple[int, int]] = set()
        """Ranges that somebody writes to without telling us."""
        self.seen = bytearray()
        """``live`` as it was when its windows were last looked at."""

    def write(self, at: int, data: bytes) -> None:
        self.look_at_windows()
        self._note(at, data)
        self.live[at : at + len(data)] = data

    def _note(self, at: int, data: bytes) -> None:
        self.changes.append(Change(at, data))
        if self.windows:
            self.seen[at : at + len(data)] = data

    def write_durably(self, at: int, data: bytes) -> None:
        """Write as O_DSYNC does: the sectors that are touched are durable, others are as they were."""
        self.write(at, data)
        start, stop = at // SECTOR * SECTOR, -(-(at + len(data)) // SECTOR) * SECTOR
        apply(self.durable, Change(start, bytes(self.live[start:stop])))
        self.changes = [piece for change in self.changes for piece in outside(change, start, stop)]

    def open_window(self, at: int, length: int) -> memoryview:
        """Return the bytes themselves. ``live`` cannot grow any more."""
        if not self.windows:
            self.seen = bytearray(self.live)
        self.windows.add((at, length))
        return memoryview(self.live)[at : at + length]

    def look_at_windows(self) -> None:
        """Note what was written through windows, sector by sector."""
        for at, length in self.windows:
            if self.live[at : at + length] == self.seen[at : at + length]:
                continue
            if self.lies:
                # A page is dirty even where the bytes did not change: what the cache lied about is true now.
                self._note(at, bytes(self.live[at : at + length]))
                continue
            for start in range(at, at + length, SECTOR):
                data = bytes(self.live[start : start + SECTOR])
                if data != self.seen[start : start + SECTOR]:
                    self._note(start, data)

    def grow(self, size: int) -> None:
        if size > len(self.live):
            self.live.extend(bytes(size - len(self.live)))
            self.changes.append(Change(size, None))

    def sync(self) -> None:
        self.look_at_windows()
        for change in self.changes:
            apply(self.durable, change)
        self.changes.clear()

    def drop_cache(self) -> None:
        """Forget clean pages: what a failed sync pretended to have written is gone."""
        self.look_at_windows()
        if self.lies:
            self.live = bytearray(self.durable)
            for change in self.changes:
                apply(self.live, change)
            self.lies = False


def outside(change: Change, start: int, stop: int) -> list[Change]:
    """Return the parts of a change that do not lie in ``[start, stop)``."""
    at, data = change
    if data is None:
        return [change]
    pieces = [Change(at, data[: max(0, start - at)]), Change(max(at, stop), data[max(0, stop - at) :])]
    return [piece for piece in pieces if piece.data]


def apply(data: bytearray, change: Change) -> None:
    size = change.at if change.data is None else change.at + len(change.data)
    if size > len(data):
        data.extend(bytes(size - len(data)))
    if change.data is not None:
        data[change.at : change.at + len(change.data)] = change.data


# --- what a power cut leaves ---------------------------------------------------------------


def kept_of_each(random: Random, changes: list[Change], unit: int) -> Callable[[int, int], int]:
    """Return a function (unit number, count) -> how many of a unit's changes are kept.

    A cache holds whole sectors, so a sector never has a later write without the earlier ones.
    """
    mode = random.choice(["none", "all", "mixed", "mixed", "rare", "most", "first", "last"])
    if mode == "mixed":
        return lambda _number, count: random.randint(0, count)
    if mode == "rare":
        return lambda _number, count: count if random.random() < 0.1 else 0
    if mode == "most":
        return lambda _number, count: count if random.random() < 0.9 else random.randint(0, count)
    if mode in ("first", "last"):
        edge = random.randint(0, max(((c.at + len(c.data or b"")) // unit for c in changes), default=0))
        if mode == "first":
            return lambda number, count: count if number < edge else 0
        return lambda number, count: count if number >= edge else 0
    return lambda _number, count: count if mode == "all" else 0


def surviving(random: Random, inode: Inode) -> bytearray:
    """Return what a power cut leaves of one file."""
    inode.look_at_windows()
    data = bytearray(inode.durable)
    changes = inode.changes
    if not changes:
        return data
    unit = random.choice([SECTOR, SECTOR, PAGE])
    kept = kept_of_each(random, changes, unit)
    by_unit: dict[int, list[Change]] = {}
    sizes = [len(data)]
    for change in changes:
        if change.data is None:
            sizes.append(change.at)
            continue
        for number in range(change.at // unit, -(-(change.at + len(change.data)) // unit)):
            by_unit.setdefault(number, []).append(change)
    size = random.choice([sizes[-1], sizes[-1], random.choice(sizes)])
    for number, touching in sorted(by_unit.items()):
        for change in touching[: kept(number, len(touching))]:
            assert change.data is not None
            start = max(change.at, number * unit)
            stop = min(change.at + len(change.data), (number + 1) * unit)
            apply(data, Change(start, change.data[start - change.at : stop - change.at]))
    data.extend(bytes(max(0, size - len(data))))
    del data[size:]
    return data
