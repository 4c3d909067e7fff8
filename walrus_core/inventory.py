"""What lies in the directory at open: names, segment headers, header pages. Changes nothing but
the size of a segment that others cut short.

Damage is listed, never raised, except where going on could do harm: a newer format.
"""

from __future__ import annotations

import os
from functools import partial

from attrs import define, field

from walrus_core import format as fmt
from walrus_core import pages
from walrus_core.block import Block
from walrus_core.chain import Found
from walrus_core.cursorfile import CursorFile
from walrus_core.files import FileCache, LogFile
from walrus_core.hot import is_zero
from walrus_core.paths import is_free_name, is_own_name, parse_segment_name
from walrus_core.segment import Segment
from walrus_core.types import Damage

HEADER_DAMAGE = "block header"


@define
class Inventory:
    """The directory as found."""

    log_is_clean: bool
    """Clean flags of marks can be believed."""
    segments: list[Segment] = field(factory=list)
    found: list[Found] = field(factory=list)
    damages: list[Damage] = field(factory=list)
    foreign: list[str] = field(factory=list)
    leftovers: list[LogFile] = field(factory=list)
    """Segments that were never finished: nothing is in them."""
    torn_slots: list[tuple[Segment, int]] = field(factory=list)
    """Slots whose lease a crash tore: no mark says that anything in them was ever durable."""
    highest_sequence: int = 0

    @property
    def in_use(self) -> tuple[list[Segment], int, int]:
        """The segments, the highest number that a file name has, the highest sequence of a sound block."""
        highest_block = max((item.block.sequence for item in self.found), default=0)
        return self.segments, self.highest_sequence, highest_block


def segment_names(names: list[str]) -> dict[int, str]:
    """Return the names of segment files by sequence."""
    parsed = ((parse_segment_name(name), name) for name in names)
    return {sequence: name for sequence, name in parsed if sequence is not None}


def take_inventory(files: FileCache, directory: str, names: list[str], cursors: CursorFile) -> Inventory:
    """Read the headers of all segments. Raises: UnsupportedVersionError, StorageError."""
    inventory = Inventory(log_is_clean=cursors.is_clean)
    by_sequence = segment_names(names)
    inventory.highest_sequence = max(by_sequence, default=0)
    for name in sorted(names):
        if is_free_name(name):
            inventory.leftovers.append(files.add(os.path.join(directory, name)))
        elif parse_segment_name(name) is None and not is_own_name(name):
            inventory.foreign.append(name)
    for sequence, name in sorted(by_sequence.items()):
        read_segment(files, os.path.join(directory, name), sequence, cursors.log_id, inventory)
    for segment in inventory.segments:
        read_blocks(segment, inventory)
    return inventory


def read_segment(files: FileCache, path: str, sequence: int, log_id: bytes, inventory: Inventory) -> None:
    """Read the header of one segment file and enter it into the inventory, as what it turns out to be.

    Raises: UnsupportedVersionError, StorageError: nothing was entered.
    """
    file = files.add(path)
    size = file.size_bytes()
    area = bytes(file.read(0, min(size, fmt.SEGMENT_HEADER_SIZE)))
    header, is_first = pages.decode_segment_header(area, path, log_id, sequence)
    if header is None:
        inventory.damages.append(Damage(kind="segment header", path=path, at_bytes=0))
        return
    if header.log_id != log_id:
        inventory.foreign.append(os.path.basename(path))
        return
    if header.sequence != sequence:
        inventory.damages.append(Damage(kind="segment name", path=path, at_bytes=0))
        return
    if not is_first:
        inventory.damages.append(Damage(kind="segment header, read from its copy", path=path, at_bytes=0))
    if size < header.size_bytes:
        inventory.damages.append(Damage(kind="segment truncated", path=path, at_bytes=size))
        file.reserve(header.size_bytes - 1, 1)
    inventory.segments.append(Segment(file, header))


def read_blocks(segment: Segment, inventory: Inventory) -> None:
    """Read the header pages of a segment anew: its blocks, its free, torn and quarantined slots."""
    inventory.found = [item for item in inventory.found if item.block.segment is not segment]
    inventory.torn_slots = [torn for torn in inventory.torn_slots if torn[0] is not segment]
    inventory.damages = [damage for damage in inventory.damages if not _is_block_damage(damage, segment)]
    segment.free.clear()
    segment.quarantined.clear()
    slot = 0
    while slot < segment.header.slot_count:
        at = segment.slot_at(slot)
        # A file that is one large hole may say that it has any number of slots.
        data_at = segment.file.skip_hole(at)
        if data_at >= at + fmt.PAGE_SIZE:
            first, slot = slot, max(slot + 1, segment.slot_of(data_at))
            segment.free.update(range(first, min(slot, segment.header.slot_count)))
            continue
        page = bytes(segment.read_page(slot))
        if is_zero(page):
            segment.free.add(slot)
            slot += 1
            continue
        header, is_first = pages.decode_block_header(page, segment.key, partial(_fits, segment, slot))
        was_marked = not is_zero(page[fmt.MARK_AT[0] :])
        if header is None:
            if was_marked:
                inventory.damages.append(Damage(kind=HEADER_DAMAGE, path=segment.file.path, at_bytes=at))
                segment.quarantined.add(slot)
            else:
                inventory.torn_slots.append((segment, slot))
            slot += 1
            continue
        if not is_first and was_marked:
            kind = f"{HEADER_DAMAGE}, read from its copy"
            topic = header.topic.decode("utf-8")
            inventory.damages.append(Damage(kind=kind, path=segment.file.path, at_bytes=at, topic=topic))
        block = Block(segment, header)
        mark, is_newest = pages.decode_mark(page, segment.key, header.sequence, block.length_bytes)
        if mark is not None:
            block.generation = mark.generation
            block.marked_at = mark.durable_bytes
            block.is_sealed = mark.is_sealed
            block.is_clean = mark.is_clean
        inventory.found.append(Found(block, mark, is_newest and inventory.log_is_clean))
        slot += header.slots
    segment.live = segment.header.slot_count - len(segment.free)


def _is_block_damage(damage: Damage, segment: Segment) -> bool:
    return damage.path == segment.file.path and damage.kind.startswith(HEADER_DAMAGE)


def _fits(segment: Segment, slot: int, header: pages.BlockHeader) -> bool:
    return (
        header.segment_sequence == segment.sequence
        and header.slot == slot
        # No block is larger than the largest frame needs.
        and (header.slots - 1) * segment.header.block_size_bytes < fmt.PAGE_SIZE + fmt.FRAME_BYTES_MAX
        and slot + header.slots <= segment.header.slot_count
    )
