"""Is a log sound, asked beside its running writer: without a lock, without a change.

Only what the writer has promised is judged: frames below a mark, header pages with marks,
cursors.db. What looks damaged is looked at again until it is gone or has stayed through every
look; and before a frame counts as damaged, its block must still be there, because the writer zeroes the
marks of a block before it touches anything else of it.

Not judged: frames above the marks, torn tails, leases, whether cursors point past the end.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

from walrus_core import format as fmt
from walrus_core import pages
from walrus_core.backend import Backend
from walrus_core.block import Block
from walrus_core.chain import Found
from walrus_core.copies import block_findings, cursor_file_findings, segment_header_findings
from walrus_core.cursorfile import cursor_page_key
from walrus_core.errors import StorageError
from walrus_core.findings import DAMAGE, NOTE, UNREADABLE, Finding, VerifyReport
from walrus_core.inventory import Inventory, read_blocks, read_segment, segment_names
from walrus_core.look import Look, Progress, finding_of, open_look, show_nothing
from walrus_core.mend import log_id_of_cursors
from walrus_core.paths import is_free_name, is_own_name
from walrus_core.verify import FOREIGN_KIND, FROM_COPY, MISSING_KIND

PAUSES_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Between the looks at what seems damaged. Long in the end: a writer may be kept from going on by others."""
FRAME_PAUSES_S = PAUSES_S[:3]
"""The same for frames, where the block's header page tells at once whether the writer has been there."""
GAP_KIND = "missing block"
_FAULTS = (DAMAGE, UNREADABLE)


def verify_live(backend: Backend, directory: str, *, progress: Progress = show_nothing) -> VerifyReport:
    """Read a log directory beside its writer, and say what of it is damaged.

    Args:
        backend: How to read; it stays open, and only its reading methods are called.
        directory: Where the log is. Segments and blocks may come and go meanwhile.
        progress: Called after each piece of a block.

    Raises: UsageError: there is no log. UnsupportedVersionError, StorageError: it cannot be verified.
    Cost: reads what is stored below the marks once; seconds more for each file that seems damaged.
    """
    with open_look(backend, directory, progress, from_medium=False) as look:
        names = look.names()
        look.findings.extend(settle(lambda: _cursor_findings(look)))
        found = _check_segments(look, names)
        marked = [item for item in found if item.mark is not None]
        look.bytes_total = sum(item.marked_state.at for item in marked)
        for item in marked:
            look.findings.extend(_check_frames(look, item))
        orphans = list(_orphans(found))
        if orphans:
            look.findings.extend(settle(lambda: _gaps(look, orphans)))
        return look.report(live=True, closed_cleanly=False)


def settle(examine: Callable[[], list[Finding]], pauses_s: Optional[Sequence[float]] = None) -> list[Finding]:
    """Return the damage that every one of several looks finds; mostly the first one finds none."""
    found = examine()
    for pause_s in PAUSES_S if pauses_s is None else pauses_s:
        if not any(finding.category in _FAULTS for finding in found):
            break
        time.sleep(pause_s)
        again = {finding.place: finding for finding in examine()}
        found = [again[finding.place] for finding in found if finding.place in again]
    return [finding for finding in found if finding.category in (*_FAULTS, NOTE)]


def _is_gone(error: StorageError) -> bool:
    return error.errno == errno.ENOENT


def _cursor_findings(look: Look) -> list[Finding]:
    path = look.path(fmt.CURSORS_NAME)
    try:
        return cursor_file_findings(path, look.read_file(path), None)
    except StorageError as error:
        if not _is_gone(error):
            raise
        return [Finding(category=DAMAGE, kind=MISSING_KIND, path=path)]


def _check_segments(look: Look, names: list[str]) -> list[Found]:
    """Note what is damaged of segment headers and header pages. Returns: the blocks that are there."""
    log_id = log_id_of_cursors(look.files, look.directory, names)
    blocks: list[Found] = []
    segments = segment_names(names)
    for sequence, name in sorted(segments.items()):
        segment = _SegmentLook(look, look.path(name), sequence, log_id)
        look.findings.extend(settle(segment.examine))
        look.segment_count += bool(segment.inventory.segments)
        blocks.extend(segment.inventory.found)
    for name in sorted(set(names) - set(segments.values())):
        if not is_own_name(name) and not is_free_name(name):
            look.findings.append(Finding(category=NOTE, kind="foreign file", path=look.path(name)))
    return blocks


class _SegmentLook:
    """The headers of one segment file, as often as need be."""

    def __init__(self, look: Look, path: str, sequence: int, log_id: Optional[bytes]) -> None:
        self._look = look
        self._path = path
        self._sequence = sequence
        self._log_id = log_id
        self.inventory = Inventory(log_is_clean=False)

    def examine(self) -> list[Finding]:
        """Read everything anew. Returns: nothing, once the file is gone."""
        self.inventory = Inventory(log_is_clean=False)
        try:
            return list(self._examine(self.inventory))
        except StorageError as error:
            if not _is_gone(error):
                raise
            self.inventory = Inventory(log_is_clean=False)
            return []

    def _examine(self, inventory: Inventory) -> Iterator[Finding]:
        area = self._look.read_file(self._path, fmt.SEGMENT_HEADER_SIZE)
        log_id = self._log_id
        found = segment_header_findings(self._path, area, log_id, self._sequence)
        if log_id is None:
            header, _is_first = pages.decode_segment_header(area, self._path, None, self._sequence)
            log_id = b"" if header is None else header.log_id
        read_segment(self._look.files, self._path, self._sequence, log_id, inventory)
        if inventory.foreign:
            yield Finding(category=NOTE, kind=FOREIGN_KIND, path=self._path)
            return
        yield from found
        for segment in inventory.segments:
            read_blocks(segment, inventory)
        known = {finding.place for finding in found}
        for damage in inventory.damages:
            finding = finding_of(damage)
            if not damage.kind.endswith(FROM_COPY) and finding.place not in known:
                yield finding
        for item in inventory.found:
            page = bytes(item.block.segment.read_page(item.block.header.slot))
            if _is_there(item.block, page):
                yield from block_findings(item.block, page, False)


def _is_there(block: Block, page: bytes) -> bool:
    """True where this is the header page of the block and still has a mark: before the writer touches
    anything else of a block that it gives back, it zeroes the marks."""
    header, _is_first = pages.decode_block_header(page, block.segment.key)
    mark, _is_newest = pages.decode_mark(page, block.segment.key, block.sequence, block.length_bytes)
    return header == block.header and mark is not None


def _check_frames(look: Look, item: Found) -> list[Finding]:
    """Read the frames below a block's mark. Damage counts if the block is still there afterwards."""
    block, state = item.block, item.marked_state
    topic = block.header.topic.decode("utf-8")
    stop_offset = block.first_offset + state.entries

    def examine() -> list[Finding]:
        fresh = Block(block.segment, block.header)
        found = look.read_frames(topic, fresh, state, stop_offset, counts=False)
        page = bytes(block.segment.read_page(block.header.slot))
        return found if _is_there(block, page) else []

    try:
        found = look.read_frames(topic, block, state, stop_offset)
        look.block_count += 1
        return settle(examine, FRAME_PAUSES_S) if found else []
    except StorageError as error:
        if not _is_gone(error):
            raise
        return []


def _orphans(found: list[Found]) -> Iterator[Block]:
    """Return marked blocks of which the block before them was not seen: given back, or lost."""
    sequences = {item.block.sequence for item in found}
    for item in found:
        if item.mark is not None and item.block.header.previous_sequence not in (0, *sequences):
            yield item.block


def _gaps(look: Look, orphans: list[Block]) -> list[Finding]:
    """Return the orphans that lost their parent: it is not there now, and it was not given back.

    The order matters: a block is below the durable low water before it goes, so the low water is
    read after the blocks.
    """
    names = look.names()
    log_id = log_id_of_cursors(look.files, look.directory, names)
    blocks: dict[int, Found] = {}
    for sequence, name in segment_names(names).items():
        segment = _SegmentLook(look, look.path(name), sequence, log_id)
        segment.examine()
        blocks.update((item.block.sequence, item) for item in segment.inventory.found)
    lows = _low_waters(look)
    gaps = []
    for block in orphans:
        incarnation, low = lows.get(block.header.topic, (0, 0))
        is_there = block.sequence in blocks and incarnation == block.header.incarnation
        if not is_there or block.header.previous_sequence in blocks or block.first_offset <= low:
            continue
        ends = [item.marked_end for item in blocks.values() if _is_before(item.block, block)]
        gaps.append(
            Finding(
                category=DAMAGE,
                kind=GAP_KIND,
                path=block.file.path,
                at_bytes=block.base,
                topic=block.header.topic.decode("utf-8"),
                first_offset=min(max([low, *ends]), block.first_offset),
                end_offset=block.first_offset,
            )
        )
    return gaps


def _is_before(one: Block, other: Block) -> bool:
    return one.header.topic == other.header.topic and one.first_offset < other.first_offset


def _low_waters(look: Look) -> dict[bytes, tuple[int, int]]:
    """Return (incarnation, low water) by topic, as far as the pages of cursors.db can be read now."""
    path = look.path(fmt.CURSORS_NAME)
    data = look.read_file(path)
    log_id = pages.decode_cursors_header(data, path)
    lows: dict[bytes, tuple[int, int]] = {}
    for number in range(fmt.CURSORS_FIRST_PAGE, len(data) // fmt.PAGE_SIZE if log_id is not None else 0):
        page = data[number * fmt.PAGE_SIZE : (number + 1) * fmt.PAGE_SIZE]
        key = cursor_page_key(log_id or b"", number)
        identity = pages.decode_identity(page, key)
        state, is_damaged, _both = pages.decode_states(page, key)
        if identity is not None and identity.kind == fmt.PAGE_TOPIC and (state is not None or not is_damaged):
            lows[identity.topic] = identity.incarnation, 0 if state is None else state.offset
    return lows
