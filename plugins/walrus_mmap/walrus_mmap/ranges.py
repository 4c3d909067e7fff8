"""A set of byte ranges: which parts of a file are known to have their space. No I/O."""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right


class Ranges:
    """Ranges ``[first, end)`` in bytes, kept sorted, disjoint and merged.

    Every change is one assignment, so that an interrupt leaves the set as before or as after.
    Threads: the owner's lock guards it.
    """

    __slots__ = ("_spans",)

    def __init__(self) -> None:
        """Start empty."""
        self._spans: list[tuple[int, int]] = []

    def covers(self, first: int, end: int) -> bool:
        """True where every byte of the range is in the set."""
        place = bisect_right(self._spans, (first, sys.maxsize)) - 1
        return place >= 0 and self._spans[place][1] >= end

    def missing(self, first: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of the range that are not in the set, in order."""
        found = []
        for there, there_end in self._spans[self._touching(first, end)]:
            if first < there:
                found.append((first, there))
            first = max(first, there_end)
        if first < end:
            found.append((first, end))
        return found

    def add(self, first: int, end: int) -> None:
        """Put the range into the set."""
        place = self._touching(first, end)
        near = self._spans[place]
        if near:
            first, end = min(first, near[0][0]), max(end, near[-1][1])
        self._spans[place] = [(first, end)]

    def remove(self, first: int, end: int) -> None:
        """Take the range out of the set."""
        place = self._touching(first, end)
        rest = []
        for there, there_end in self._spans[place]:
            if there < first:
                rest.append((there, min(first, there_end)))
            if there_end > end:
                rest.append((max(end, there), there_end))
        self._spans[place] = rest

    def _touching(self, first: int, end: int) -> slice:
        """Return where the spans lie that overlap the range or border on it."""
        start = bisect_left(self._spans, first, key=lambda span: span[1])
        return slice(start, max(start, bisect_right(self._spans, end, key=lambda span: span[0])))
