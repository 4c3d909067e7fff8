"""Extents of buffers cut into pieces that one gathering system call takes; no I/O here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from walrus_core.backend import Buffer

PIECE_BYTES = 1 << 30
"""Longest single operation: a call moves at most 2 GiB less a page."""
JOIN_BYTES = 64 * 1024
"""Extents of several buffers up to this length are joined: the copy costs less than a vector."""


class Piece(NamedTuple):
    """Byte views that follow one another from a position on; none is empty."""

    at_bytes: int
    views: list[memoryview]
    length_bytes: int


def byte_view(data: Buffer) -> memoryview:
    """Return the buffer as single bytes. Raises: TypeError where it is not contiguous."""
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")


def cut(writes: Sequence[tuple[int, Sequence[Buffer]]], *, buffers_max: int) -> Iterator[Piece]:
    """Yield pieces of at most ``buffers_max`` buffers and ``PIECE_BYTES``, extent by extent."""
    for at_bytes, buffers in writes:
        views = list(map(byte_view, buffers))
        if len(views) > 1 and sum(map(len, views)) <= JOIN_BYTES:
            views = [memoryview(b"".join(views))]
        yield from _cut_extent(at_bytes, views, buffers_max)


def _cut_extent(at_bytes: int, views: list[memoryview], buffers_max: int) -> Iterator[Piece]:
    gathered: list[memoryview] = []
    length_bytes = 0
    for view in views:
        while len(view):
            part = view[: PIECE_BYTES - length_bytes]
            gathered.append(part)
            length_bytes += len(part)
            view = view[len(part) :]
            if len(gathered) == buffers_max or length_bytes == PIECE_BYTES:
                yield Piece(at_bytes, gathered, length_bytes)
                at_bytes += length_bytes
                gathered, length_bytes = [], 0
    if gathered:
        yield Piece(at_bytes, gathered, length_bytes)


def after(views: Sequence[memoryview], done_bytes: int) -> list[memoryview]:
    """Return what is left of the views when their first ``done_bytes`` are done."""
    left = []
    for view in views:
        if done_bytes < len(view):
            left.append(view[done_bytes:])
            done_bytes = 0
        else:
            done_bytes -= len(view)
    return left
