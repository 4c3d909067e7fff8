"""Is a log directory that nobody writes to sound? All of it is read, not a byte of it is written.

The code that opens a log runs on an overlay, so a directory is judged by what an open would make
of it; then both copies of every header, every mark, every cursor page and every frame are looked
at. Beside a running writer see ``livecheck.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from walrus_core import format as fmt
from walrus_core.backend import Backend
from walrus_core.copies import block_findings, cursor_file_findings, segment_header_findings
from walrus_core.cursorfile import CursorPage
from walrus_core.findings import DAMAGE, NOTE, REBUILD, REPAIR, RESET, TORN, Finding, VerifyReport
from walrus_core.inventory import Inventory, segment_names
from walrus_core.look import Look, Progress, finding_of, open_look, show_nothing
from walrus_core.mend import log_id_of_cursors, log_ids_of_segments, mend_cursors
from walrus_core.recovery import Recovered, RecoveredTopic, recover
from walrus_core.types import Damage

NO_LOG_ID = bytes(16)
MISSING_KIND = "cursors.db missing"
OTHER_LOG_KIND = "cursors.db of another log"
FOREIGN_KIND = "segment of another log"
PAST_END_KIND = "entries missing at the end"
FRAME_KIND = "frame"
FROM_COPY = "read from its copy"


def verify_directory(
    backend: Backend, directory: str, *, reads_frames: bool = True, progress: Progress = show_nothing
) -> VerifyReport:
    """Read a log directory that nobody writes to, and say what of it is sound.

    Args:
        backend: How to read; it stays open, and only its reading methods are called.
        directory: The caller keeps writers out of it.
        reads_frames: False leaves out the frames that marks vouch for.
        progress: Called after each piece of a block.

    Raises: UsageError: there is no log. UnsupportedVersionError, StorageError: it cannot be verified.
    Cost: reads every stored byte, and once more what was not closed cleanly.
    """
    with open_look(backend, directory, progress, from_medium=True) as look:
        recovered = judge(look)
        look.block_count = sum(len(topic.chain.kept) for topic in recovered.topics)
        if reads_frames:
            look.bytes_total = sum(
                state.at for topic in recovered.topics for state in topic.chain.states.values()
            )
            for topic in recovered.topics:
                _read_topic(look, topic)
        return look.report(live=False, closed_cleanly=recovered.cursors.is_clean)


def judge(look: Look) -> Recovered:
    """Find all but damaged frames below the marks. Returns: what an open would begin with.

    Raises: as ``verify_directory``.
    """
    names = look.names()
    judge_cursors(look, names)
    recovered = recover(look.files, look.directory, names, NO_LOG_ID)
    look.segment_count = len(recovered.inventory.segments)
    look.findings.extend(_file_findings(look, names, recovered.inventory))
    look.findings.extend(_header_findings(look, recovered.inventory))
    for topic in recovered.topics:
        look.findings.extend(_topic_findings(topic, look.path(fmt.CURSORS_NAME)))
    return recovered


def judge_cursors(look: Look, names: list[str]) -> None:
    """Look at cursors.db, and make it one that opens in the overlay. Raises: as ``verify_directory``."""
    path = look.path(fmt.CURSORS_NAME)
    own = log_id_of_cursors(look.files, look.directory, names)
    log_ids = log_ids_of_segments(look.files, look.directory, names, own)
    if fmt.CURSORS_NAME not in names:
        found = [Finding(category=DAMAGE, kind=MISSING_KIND, path=path, remedy=REBUILD)]
    elif own is not None and log_ids and own not in log_ids:
        found = [Finding(category=DAMAGE, kind=OTHER_LOG_KIND, path=path, remedy=REBUILD)]
    else:
        found = cursor_file_findings(path, look.read_file(path), log_of_directory(own, log_ids))
    needs_rebuild = any(finding.remedy == REBUILD for finding in found)
    if needs_rebuild and not segment_names(names):
        # It is durable before the first segment: without one, anything unsound was never finished.
        look.findings.append(Finding(category=TORN, kind="cursors.db never finished", path=path))
        return
    look.findings.extend(found)
    if needs_rebuild or any(finding.remedy == RESET for finding in found):
        mend_cursors(
            look.files,
            look.directory,
            names,
            log_of_directory(own, log_ids),
            rebuilds=needs_rebuild,
            resets=True,
        )
        look.files.close()


def log_of_directory(own: Optional[bytes], log_ids: list[bytes]) -> bytes:
    """Return the log that a directory is: what cursors.db says if a segment agrees, else what most say."""
    if own is not None and (own in log_ids or not log_ids):
        return own
    return log_ids[0] if log_ids else NO_LOG_ID


def _file_findings(look: Look, names: list[str], inventory: Inventory) -> Iterator[Finding]:
    """What the names in the directory tell."""
    segments = set(segment_names(names).values())
    for name in inventory.foreign:
        is_segment = name in segments
        kind = FOREIGN_KIND if is_segment else "foreign file"
        yield Finding(category=NOTE, kind=kind, path=look.path(name), remedy=REPAIR if is_segment else None)
    for leftover in inventory.leftovers:
        yield Finding(category=TORN, kind="segment never finished", path=leftover.path)
    for name in names:
        if name.endswith(fmt.CUT_SUFFIX):
            yield Finding(category=NOTE, kind="copy that recovery set aside", path=look.path(name))


def _header_findings(look: Look, inventory: Inventory) -> Iterator[Finding]:
    """What the headers of segments and blocks tell."""
    for damage in inventory.damages:
        if not damage.kind.endswith(FROM_COPY):  # each copy is looked at below
            yield finding_of(damage)
    for segment, slot in inventory.torn_slots:
        yield Finding(
            category=TORN, kind="torn lease", path=segment.file.path, at_bytes=segment.slot_at(slot)
        )
    for segment in inventory.segments:
        path = segment.file.path
        area = look.read_file(path, fmt.SEGMENT_HEADER_SIZE)
        yield from segment_header_findings(path, area, segment.header.log_id, segment.sequence)
    for item in inventory.found:
        page = bytes(item.block.segment.read_page(item.block.header.slot))
        yield from block_findings(item.block, page, inventory.log_is_clean)


def _topic_findings(topic: RecoveredTopic, cursors_path: str) -> Iterator[Finding]:
    """What the chain of a topic tells, and its cursors."""
    gaps = [damage for damage in topic.chain.damages if damage.kind != FRAME_KIND]
    for damage in topic.chain.damages:
        if damage in gaps or not any(_covers(gap, damage) for gap in gaps):
            yield finding_of(damage)
    if topic.chain.cut_at is not None:
        item, state, reason = topic.chain.cut_at
        yield Finding(
            category=TORN,
            kind=reason,
            path=item.block.file.path,
            at_bytes=item.block.base + state.at,
            topic=topic.name,
            first_offset=topic.next_offset,
        )
    # A checkpoint is never durable before the entries it passes, nor is a clean mark.
    ends = [(page.state.offset, page) for page in topic.cursors if not page.damaged]
    end_offset, page = max([*ends, (topic.page.state.clean_plus_one - 1, topic.page)], key=_first_of)
    if end_offset > topic.next_offset:
        yield Finding(
            category=DAMAGE,
            kind=PAST_END_KIND,
            path=cursors_path,
            at_bytes=page.identity.page * fmt.PAGE_SIZE,
            topic=topic.name,
            cursor=page.identity.cursor.decode("utf-8") or None,
            first_offset=topic.next_offset,
            end_offset=end_offset,
        )


def _covers(gap: Damage, damage: Damage) -> bool:
    """True where ``damage`` is what a missing block looks like from the block before it."""
    first, end = gap.first_offset or 0, gap.end_offset or 0
    return first <= (damage.first_offset or 0) and (damage.end_offset or 0) <= end


def _first_of(pair: tuple[int, CursorPage]) -> int:
    return pair[0]


def _read_topic(look: Look, topic: RecoveredTopic) -> None:
    """Read all frames of a topic; what is found of a block says more than what its chain says."""
    chain = topic.chain
    for place, item in enumerate(chain.kept):
        block = item.block
        state = chain.states[block.sequence]
        stop_offset = block.first_offset + state.entries
        if place + 1 < len(chain.kept):
            following = chain.kept[place + 1].block
            if following.header.previous_sequence == block.sequence:
                stop_offset = following.first_offset
        found = look.read_frames(topic.name, block, state, stop_offset)
        look.findings = [old for old in look.findings if not _is_told_better(old, found)]
        look.findings.extend(found)


def _is_told_better(old: Finding, found: list[Finding]) -> bool:
    """True for the range that a chain found missing in a block, where its frames have been read."""
    return old.kind == FRAME_KIND and any(
        new.path == old.path
        and new.topic == old.topic
        and old.first_offset <= new.first_offset < old.end_offset
        for new in found
        if new.first_offset is not None and old.first_offset is not None and old.end_offset is not None
    )
