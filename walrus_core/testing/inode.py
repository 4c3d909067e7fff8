"""One file of a simulated disk: what is durable, what the cache holds, and what a power cut leaves.

Of every 512-byte sector a power cut leaves the durable bytes or any later state that the sector was
in, of the size the durable one or any since. ``surviving`` draws one of these, at random or after a
pattern. A cache holds whole sectors, so a sector never has a later write without the earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple, Optional

SECTOR = 512
PAGE = 4096

NONE, ALL, IN_ORDER, REVERSED = "none", "all", "in order", "reversed"
PATTERNS = (NONE, ALL, IN_ORDER, REVERSED)
"""What a power cut is made to leave: nothing unsynced, everything, what was written up to a moment (the
last write torn at a sector), only what was written after a moment."""


class Change(NamedTuple):
    """One change of a file that no sync has covered: bytes at a place, or (``data`` None) a size."""

    at: int
    data: Optional[bytes]


class Inode:
    """One file. ``live`` is what a reader sees, ``durable`` what the medium holds.

    Disks that a power cut leaves share the bytes that are the same on all of them: either is copied
    before it is changed in place.
    """

    def __init__(self) -> None:
        self.live = bytearray()
        self.durable = bytearray()
        self._shares_live = self._shares_durable = False
        self._digest: Optional[int] = None
        self.changes: list[Change] = []
        self.lies = False
        """A sync failed: some of ``live`` is neither durable nor going to be."""
        self.windows: set[tuple[int, int]] = set()
        """Ranges that somebody writes to without telling us."""
        self.seen = bytearray()
        """``live`` as it was when its windows were last looked at."""

    @classmethod
    def of_medium(cls, data: bytearray) -> Inode:
        """Return a file whose bytes are all durable."""
        inode = cls()
        inode.durable = inode.live = data
        inode._shares_live = inode._shares_durable = True
        return inode

    def after_power_loss(self, random: Random, pattern: Optional[str]) -> Inode:
        """Return what a power cut leaves of the file."""
        self.look_at_windows()
        if self.changes and pattern != NONE:
            return Inode.of_medium(surviving(random, self, pattern))
        self._shares_durable = True
        after = Inode.of_medium(self.durable)
        after._digest = self.digest()
        return after

    def digest(self) -> int:
        """Return a digest of the durable bytes; not the same in each process."""
        if self._digest is None:
            self._digest = hash(bytes(self.durable))
        return self._digest

    def settle(self, data: bytearray) -> None:
        """Say what is durable now. Nothing else is going to be."""
        self.durable, self._shares_durable, self._digest = data, False, None
        self.changes.clear()

    def _own_durable(self) -> bytearray:
        if self._shares_durable:
            self.durable, self._shares_durable = bytearray(self.durable), False
        self._digest = None
        return self.durable

    def _own_live(self) -> bytearray:
        if self._shares_live:
            self.live, self._shares_live = bytearray(self.live), False
        return self.live

    def write(self, at: int, data: bytes) -> None:
        """Write into the cache."""
        self.look_at_windows()
        self._note(at, data)
        self._own_live()
        self.live[at : at + len(data)] = data

    def _note(self, at: int, data: bytes) -> None:
        self.changes.append(Change(at, data))
        if self.windows:
            self.seen[at : at + len(data)] = data

    def write_durably(self, at: int, data: bytes) -> None:
        """Write as O_DSYNC does: the sectors that are touched are durable, others are as they were."""
        self.write(at, data)
        start, stop = at // SECTOR * SECTOR, -(-(at + len(data)) // SECTOR) * SECTOR
        apply(self._own_durable(), Change(start, bytes(self.live[start:stop])))
        self.changes = [piece for change in self.changes for piece in outside(change, start, stop)]

    def open_window(self, at: int, length: int) -> memoryview:
        """Return the bytes themselves. ``live`` cannot grow any more."""
        self._own_live()
        if not self.windows:
            self.seen = bytearray(self.live)
        # Whole sectors, so that what is noted of two windows that meet in one never tears inside it.
        start = at // SECTOR * SECTOR
        self.windows.add((start, -(-(at + length) // SECTOR) * SECTOR - start))
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
        """Make the file at least ``size`` bytes long, in the cache."""
        if size > len(self.live):
            self._own_live().extend(bytes(size - len(self.live)))
            if self.windows:
                self.seen.extend(bytes(size - len(self.seen)))
            self.changes.append(Change(size, None))

    def sync(self) -> None:
        """Make everything durable."""
        self.look_at_windows()
        durable = self._own_durable() if self.changes else self.durable
        for change in self.changes:
            apply(durable, change)
        self.changes.clear()

    def drop_cache(self) -> None:
        """Forget clean pages: what a failed sync pretended to have written is gone."""
        self.look_at_windows()
        if self.lies:
            self.live, self._shares_live = bytearray(self.durable), False
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
    """Carry a change out on the bytes of a file."""
    size = change.at if change.data is None else change.at + len(change.data)
    if size > len(data):
        data.extend(bytes(size - len(data)))
    if change.data is not None:
        data[change.at : change.at + len(change.data)] = change.data


Naming = tuple[str, str, Optional[Inode]]
"""("create", path, inode), ("remove", path, None) or ("rename", "old\\0new", None)."""


def rename_in(names: dict[str, Inode], naming: Naming) -> None:
    """Carry out one change of names."""
    kind, path, inode = naming
    if kind == "create" and inode is not None:
        names[path] = inode
    elif kind == "remove":
        names.pop(path, None)
    elif kind == "rename":
        old, new = path.split("\0")
        if old in names:
            names[new] = names.pop(old)


# --- what a power cut leaves ---------------------------------------------------------------

Kept = Callable[[int, list[int]], int]
"""(number of a unit, the changes that touch it, by their places in time) -> how many of them are kept."""

MIXED, RARE, MOST, FIRST, LAST = "mixed", "rare", "most", "first", "last"
MODES = (NONE, ALL, MIXED, MIXED, RARE, MOST, FIRST, LAST, IN_ORDER, REVERSED)


def kept_of_each(random: Random, changes: list[Change], unit: int, mode: str) -> Kept:
    """Return how many of a unit's changes are kept, for one way of writing a cache back.

    NONE, ALL; IN_ORDER: the earlier changes, the last of these torn; REVERSED: only what was changed
    late; FIRST, LAST: only places before or behind an edge; MIXED, RARE, MOST: each unit by itself.
    """
    if mode == MIXED:
        return lambda _number, times: random.randint(0, len(times))
    if mode == RARE:
        return lambda _number, times: len(times) if random.random() < 0.1 else 0
    if mode == MOST:
        return lambda _number, times: len(times) if random.random() < 0.9 else random.randint(0, len(times))
    if mode in (FIRST, LAST):
        edge = random.randint(0, max(((c.at + len(c.data or b"")) // unit for c in changes), default=0))
        if mode == FIRST:
            return lambda number, times: len(times) if number < edge else 0
        return lambda number, times: len(times) if number >= edge else 0
    if mode == REVERSED:
        since = random.randrange(len(changes))
        return lambda _number, times: len(times) if times[-1] >= since else 0
    if mode == IN_ORDER:
        until = random.randrange(len(changes))
        torn = changes[until]
        tear = random.randint(torn.at // unit, (torn.at + len(torn.data or b"")) // unit)
        return lambda number, times: sum(time < until or (time == until and number < tear) for time in times)
    return lambda _number, times: len(times) if mode == ALL else 0


def surviving(random: Random, inode: Inode, mode: Optional[str] = None) -> bytearray:
    """Return what a power cut leaves of one file; ``mode`` None draws the way it is written back, too."""
    inode.look_at_windows()
    data = bytearray(inode.durable)
    changes = inode.changes
    if not changes or mode == NONE:
        return data
    if mode == ALL:
        for change in changes:
            apply(data, change)
        return data
    unit = random.choice([SECTOR, SECTOR, PAGE]) if mode is None else SECTOR
    kept = kept_of_each(random, changes, unit, random.choice(MODES) if mode is None else mode)
    by_unit: dict[int, list[int]] = {}
    sizes = [len(data)]
    for time, change in enumerate(changes):
        if change.data is None:
            sizes.append(change.at)
            continue
        for number in range(change.at // unit, -(-(change.at + len(change.data)) // unit)):
            by_unit.setdefault(number, []).append(time)
    size = random.choice([sizes[-1], sizes[-1], random.choice(sizes)])
    for number, times in sorted(by_unit.items()):
        for time in times[: kept(number, times)]:
            at, written = changes[time]
            assert written is not None
            start, stop = max(at, number * unit), min(at + len(written), (number + 1) * unit)
            apply(data, Change(start, written[start - at : stop - at]))
    data.extend(bytes(max(0, size - len(data))))
    del data[size:]
    return data
