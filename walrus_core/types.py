"""Plain descriptions that cross room borders: frozen, without behaviour, no I/O.

None of them is made per entry; those live in the hot module.
"""

from __future__ import annotations

from typing import NewType, Optional

from attrs import field, frozen

Offset = NewType("Offset", int)
"""Logical place of an entry in its topic: 0-based, dense."""


@frozen(kw_only=True)
class Position:
    """Physical place: ``at_bytes`` from the start of the segment with this sequence."""

    segment_sequence: int
    at_bytes: int


@frozen(kw_only=True)
class SegmentInfo:
    """One segment file."""

    sequence: int
    path: str
    block_size_bytes: int
    slot_count: int
    checksum: str


@frozen(kw_only=True)
class BlockInfo:
    """One block: where it lies and which entries ``[first_offset, end_offset)`` it holds."""

    topic: str
    sequence: int
    position: Position
    slot_count: int
    first_offset: int
    end_offset: int
    used_bytes: int


@frozen(kw_only=True)
class Damage:
    """Bytes that no crash explains: entries ``[first_offset, end_offset)`` of the topic are lost.

    ``topic`` and the offsets are None where the damaged bytes would have told them.
    """

    kind: str
    path: str
    at_bytes: int
    topic: Optional[str] = None
    first_offset: Optional[int] = None
    end_offset: Optional[int] = None


@frozen(kw_only=True)
class Cut:
    """A torn tail that recovery cut: expected after a crash, never an acknowledged-durable entry.

    ``offset`` is where the topic continues; ``topic`` is empty where the header page that named it is
    torn. ``evidence_path`` names the copy of complete batches that lay behind the cut, where there were any.
    """

    topic: str
    offset: int
    path: str
    at_bytes: int
    reason: str
    evidence_path: Optional[str] = None


@frozen(kw_only=True)
class RecoveryReport:
    """What opening the directory found and did."""

    path: str
    clean: bool = True
    """The log had been closed; nothing was scanned."""
    segment_count: int = 0
    topic_count: int = 0
    scanned_bytes: int = 0
    duration_s: float = 0.0
    cuts: tuple[Cut, ...] = ()
    damages: tuple[Damage, ...] = ()
    clamped_cursors: tuple[str, ...] = ()
    """``topic/cursor`` of cursors that had to be set back to the end of the recovered topic."""
    foreign_files: tuple[str, ...] = field(default=())
    """Names in the directory that are not ours; they were left alone."""


@frozen(kw_only=True)
class TopicInfo:
    """What ``stats`` tells about one topic."""

    name: str
    oldest_offset: int
    next_offset: int
    durable_offset: int
    unread_count: int
    size_bytes: int
    block_count: int
