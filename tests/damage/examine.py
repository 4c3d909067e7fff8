"""One damaged directory: what is read, what is lost, what is reported, and whether that is right."""

from __future__ import annotations

import os
from typing import Optional

from attrs import define, field

from walrus_core import Walrus
from walrus_core.errors import CorruptionError, UnknownTopicError, WalrusError
from walrus_core.testing import judge
from walrus_core.types import Damage

from .disks import Disk, MakeDisk, memory_disk
from .reference import SLOT, Files, Frame, Reference, open_log

Ranges = list[tuple[str, int, int]]
"""(path, first, end) of damaged bytes."""


@define
class Outcome:
    """What became of one damaged directory."""

    lost: int = 0
    """Entries that could not be read; all of them lay in a damaged block and were reported."""
    is_reported: bool = False
    is_refused: bool = False
    """The directory could not be opened; the error says why."""
    found: dict[str, list[tuple[int, bytes]]] = field(factory=dict)


def examine(
    reference: Reference,
    files: Files,
    ranges: Ranges,
    *,
    may_refuse: bool,
    thorough: bool,
    make_disk: MakeDisk = memory_disk,
) -> Outcome:
    """Open, read everything, and compare.

    Args:
        reference: What the directory was.
        files: What it is.
        ranges: Where it was damaged.
        may_refuse: A typed refusal at open is legal.
        thorough: Also append, close, open again and compare.
        make_disk: What the files are put on.

    Raises: AssertionError: a law was broken.
    """
    disk = make_disk(files)
    outcome = Outcome()
    try:
        wal = open_log(disk.backend, {**reference.options, "on_corruption": "skip"}, disk.path)
    except WalrusError as error:
        if not may_refuse:
            raise AssertionError(f"refused: {error}") from error
        outcome.is_refused = True
        return outcome
    try:
        for topic in reference.entries:
            _examine_topic(reference, wal, topic, ranges, outcome)
        _examine_cursors(reference, wal, outcome)
        outcome.is_reported = bool(wal.damages or wal.recovery_report.cuts)
        if thorough:
            _go_on(reference, wal, disk, make_disk, outcome)
    finally:
        wal._engine.abandon()
    return outcome


def read_topic(wal: Walrus, topic: str) -> list[tuple[int, bytes]]:
    """Return (offset, payload) of all that can be read, passing damage."""
    found: list[tuple[int, bytes]] = []
    try:
        offset, end = wal.oldest_offset(topic), wal.next_offset(topic)
    except UnknownTopicError:
        return found
    while offset < end:
        entries = wal.batch_read_for_topic(topic, 1 << 30, start_offset=offset)
        if not entries:
            break
        found += [(entry.offset, entry.data) for entry in entries]
        assert entries[-1].offset >= offset, "a read went back"
        offset = entries[-1].offset + 1
    return found


def _examine_topic(reference: Reference, wal: Walrus, topic: str, ranges: Ranges, outcome: Outcome) -> None:
    expected, durable = reference.entries[topic], reference.durable[topic]
    found = outcome.found[topic] = read_topic(wal, topic)
    there = {offset for offset, _data in found}
    lost = [offset for offset in range(durable) if offset not in there]
    for offset in lost:
        assert _is_reported(reference, wal, topic, offset), f"{topic}[{offset}] is lost and nobody says so"
        frame = _frame_of(reference, topic, offset)
        assert _is_hit(frame, ranges), f"{topic}[{offset}] is lost, and lies in a block that is sound"
    gone = set(lost) | {offset for offset in range(durable, len(expected)) if offset not in there}
    # What nobody synced ends where the damage is, and always behind a whole batch.
    end = found[-1][0] + 1 if found else 0
    ends = reference.ends[topic] if end > durable else None
    findings = judge(topic, expected, found, least=durable, ends=ends, gone=gone)
    assert not findings, f"{topic}: {'; '.join(map(str, findings[:5]))}"
    outcome.lost += len(lost)


def _frame_of(reference: Reference, topic: str, offset: int) -> Frame:
    """Return where an entry lies; one too short to be found lies with its neighbour."""
    while (topic, offset) not in reference.frames:
        offset -= 1
    return reference.frames[topic, offset]


def _is_hit(frame: Frame, ranges: Ranges) -> bool:
    return any(
        path == frame.path and first < frame.block + SLOT and end > frame.block for path, first, end in ranges
    )


def _is_reported(reference: Reference, wal: Walrus, topic: str, offset: int) -> bool:
    """Return whether a lost entry is named by a damage or a cut, or lies in a block that is."""
    frame = _frame_of(reference, topic, offset)
    if any(_covers(damage, frame, topic, offset) for damage in wal.damages):
        return True
    return any(cut.topic == topic and cut.offset <= offset for cut in wal.recovery_report.cuts)


def _covers(damage: Damage, frame: Frame, topic: str, offset: int) -> bool:
    if damage.topic == topic and damage.first_offset is not None and damage.end_offset is not None:
        return damage.first_offset <= offset < damage.end_offset
    if os.path.basename(damage.path) != os.path.basename(frame.path):
        return False
    if damage.kind == "segment header":
        return True
    if damage.kind == "segment truncated":
        return damage.at_bytes < frame.end
    return frame.block <= damage.at_bytes < frame.block + SLOT


def _examine_cursors(reference: Reference, wal: Walrus, outcome: Outcome) -> None:
    """A cursor never skips an entry that was not read; where it went back, that was reported."""
    for (topic, name), position in reference.cursors.items():
        found: Optional[int] = None
        try:
            found = wal.cursor_offset(topic, name)
        except (CorruptionError, UnknownTopicError):
            outcome.is_reported = True
        if found is None or found == position:
            continue
        assert found < position, f"cursor {topic}/{name} skipped from {position} to {found}"
        told = bool(wal.damages) or bool(wal.recovery_report.clamped_cursors or wal.recovery_report.cuts)
        assert told, f"cursor {topic}/{name} went back from {position} to {found} and nobody says so"


def _go_on(reference: Reference, wal: Walrus, disk: Disk, make_disk: MakeDisk, outcome: Outcome) -> None:
    """Append, close, open again: the same entries, and the new ones behind them."""
    added: dict[str, int] = {}
    for topic, found in outcome.found.items():
        added[topic] = wal.append_for_topic(topic, b"after")
        assert added[topic] >= (found[-1][0] + 1 if found else 0), "an offset was used twice"
    wal.close()
    disk = make_disk(disk.image())
    again = open_log(disk.backend, {**reference.options, "on_corruption": "skip"}, disk.path)
    try:
        for topic, found in outcome.found.items():
            expected = [*found, (added[topic], b"after")]
            now = read_topic(again, topic)
            assert now == expected, f"{topic}: opened again, {len(now)} entries, not {len(expected)}"
    finally:
        again._engine.abandon()
