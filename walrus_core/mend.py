"""Making cursors.db usable again from what is left of it and from the header pages of the blocks.

Works on whatever backend the files belong to; whoever only wants to know gives it an overlay.
What cannot be known any more is set so that nothing is lost: a cursor goes back to the oldest
entry, a topic's low water to its oldest block, block sequences jump beyond all that was used.

Idempotent: every page that is sound stays where it is and as it is.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Optional

from walrus_core import format as fmt
from walrus_core import pages
from walrus_core.chain import Found, choose
from walrus_core.cursorfile import LOG_PAGE, CursorFile, CursorPage, create_cursor_file, cursor_page_key
from walrus_core.files import FileCache
from walrus_core.inventory import Inventory, segment_names, take_inventory

SEQUENCES_SKIPPED = 2**32
"""How far block sequences jump where nobody knows which were used: no log gets that far otherwise."""
_ANY_LOW_WATER = 2**64


def log_ids_of_segments(
    files: FileCache, directory: str, names: list[str], own: Optional[bytes]
) -> list[bytes]:
    """Return the log ids that segments with a sound header name, the most frequent one first.

    ``own``: what cursors.db names; where the two copies of a header differ that one counts, and headers that
    nobody can read count for it unless more name another log.

    Raises: StorageError, UnsupportedVersionError.
    """
    counts: Counter[bytes] = Counter()
    unknown_count = 0
    for sequence, name in sorted(segment_names(names).items()):
        path = os.path.join(directory, name)
        file = files.add(path)
        area = bytes(file.read(0, min(file.size_bytes(), fmt.SEGMENT_HEADER_SIZE)))
        header, _is_first = pages.decode_segment_header(area, path, own, sequence)
        if header is not None:
            counts[header.log_id] += 1
        else:
            unknown_count += 1
    if own is not None and unknown_count and unknown_count >= max(counts.values(), default=0):
        counts[own] += unknown_count
    return [log_id for log_id, _count in counts.most_common()]


def log_id_of_cursors(files: FileCache, directory: str, names: list[str]) -> Optional[bytes]:
    """Return the log id that cursors.db names; None where it is missing or names none.

    Raises: StorageError, UnsupportedVersionError.
    """
    if fmt.CURSORS_NAME not in names:
        return None
    path = os.path.join(directory, fmt.CURSORS_NAME)
    file = files.add(path)
    head = file.read(0, min(file.size_bytes(), (LOG_PAGE + 1) * fmt.PAGE_SIZE))
    return pages.decode_cursors_header(head, path)


def mend_cursors(
    files: FileCache, directory: str, names: list[str], log_id: bytes, *, rebuilds: bool, resets: bool
) -> None:
    """Make cursors.db one that opens.

    Args:
        log_id: The log that the segments belong to.
        rebuilds: Make anew what has no sound copy: the file, its header, the log page, pages of topics;
            clear pages that have no owner.
        resets: Set anew the pages of which both states are bad.

    Raises: StorageError, UnsupportedVersionError. CorruptionError: it needs what is not allowed.
    """
    cursors = _open(files, directory, names, log_id, rebuilds)
    is_new = cursors.pages.get(LOG_PAGE) is not None  # what is created here is loaded already
    if rebuilds and not is_new:
        _clear_unowned(cursors)
    if not is_new:
        cursors.load()
    is_lost = is_new or _is_lost(cursors)
    if rebuilds:
        _mend_log_page(cursors, 1)
    cursors.check_log_page()
    inventory = take_inventory(files, directory, names, cursors)
    topics = _oldest_offsets(inventory, cursors)
    if rebuilds:
        if is_lost:
            used = max((item.block.sequence for item in inventory.found), default=0)
            _mend_log_page(cursors, used + SEQUENCES_SKIPPED)
        for topic, (incarnation, oldest) in sorted(topics.items()):
            if cursors.find(fmt.PAGE_TOPIC, topic) is None:
                page = cursors.add(fmt.PAGE_TOPIC, incarnation, topic)
                cursors.write_state(page, offset=oldest, floor=oldest)
    if resets:
        for page in [page for page in cursors.pages.values() if page.damaged]:
            _reset(cursors, page, topics)
    files.sync(files.dirty_files())


def _open(files: FileCache, directory: str, names: list[str], log_id: bytes, rebuilds: bool) -> CursorFile:
    """Return cursors.db with a sound header and whole pages, not loaded."""
    path = os.path.join(directory, fmt.CURSORS_NAME)
    found = log_id_of_cursors(files, directory, names)
    if rebuilds and (fmt.CURSORS_NAME not in names or found not in (None, log_id)):
        if fmt.CURSORS_NAME in names:
            files.backend.remove(path)
        return create_cursor_file(files, directory, log_id)
    file = files.add(path)
    size = file.size_bytes()
    if rebuilds:
        whole = max(-(-size // fmt.PAGE_SIZE), fmt.CURSORS_FIRST_PAGE + 2) * fmt.PAGE_SIZE
        if whole != size:
            file.reserve(0, whole)
            size = whole
        if found is None:
            file.write(0, pages.encode_cursors_header(log_id))
    return CursorFile(files, file, log_id, size // fmt.PAGE_SIZE)


def _is_lost(cursors: CursorFile) -> bool:
    page = cursors.pages.get(LOG_PAGE)
    return page is None or page.damaged or not page.state.offset


def _clear_unowned(cursors: CursorFile) -> None:
    """Zero pages that hold a state and do not say whose; an unsound log page as well."""
    file = cursors.file
    for number in range(fmt.CURSORS_FIRST_PAGE, file.size_bytes() // fmt.PAGE_SIZE):
        page = bytes(file.read(number * fmt.PAGE_SIZE, fmt.PAGE_SIZE))
        identity = pages.decode_identity(page, cursor_page_key(cursors.log_id, number))
        is_owned = identity is not None and identity.page == number
        if number == LOG_PAGE:
            is_owned = is_owned and identity is not None and identity.kind == fmt.PAGE_LOG
        if not is_owned and any(page):
            file.write(number * fmt.PAGE_SIZE, bytes(fmt.PAGE_SIZE))


def _mend_log_page(cursors: CursorFile, next_sequence: int) -> None:
    """Let the log page say how long the file is and that ``next_sequence`` was never handed out."""
    page = cursors.pages.get(LOG_PAGE) or cursors.add(fmt.PAGE_LOG, 0, b"")
    count = cursors.file.size_bytes() // fmt.PAGE_SIZE
    if page.state.floor != count or page.state.offset < next_sequence or page.damaged:
        offset = max(page.state.offset, next_sequence)
        cursors.write_state(page, offset=offset, floor=count, clean_plus_one=0)


def _oldest_offsets(inventory: Inventory, cursors: CursorFile) -> dict[bytes, tuple[int, int]]:
    """Return (incarnation, first offset of the oldest block) of every topic that has blocks."""
    by_name: dict[bytes, list[Found]] = {}
    for item in inventory.found:
        by_name.setdefault(item.block.header.topic, []).append(item)
    topics = {}
    for name, found in by_name.items():
        page = cursors.find(fmt.PAGE_TOPIC, name)
        youngest = max(found, key=lambda item: item.block.sequence)
        incarnation = youngest.block.header.incarnation if page is None else page.identity.incarnation
        own = [item for item in found if item.block.header.incarnation == incarnation]
        chain, _rest = choose(own, _ANY_LOW_WATER)
        if chain:
            topics[name] = incarnation, chain[0].block.first_offset
    return topics


def _reset(cursors: CursorFile, page: CursorPage, topics: dict[bytes, tuple[int, int]]) -> None:
    """Write a first state: of a topic from its blocks, of a cursor at the topic's oldest entry."""
    identity = page.identity
    if identity.kind == fmt.PAGE_TOPIC:
        _incarnation, oldest = topics.get(identity.topic, (0, 0))
        cursors.write_state(page, offset=oldest, floor=oldest)
    elif identity.kind == fmt.PAGE_CURSOR:
        _incarnation, oldest = topics.get(identity.topic, (0, 0))
        owner = cursors.find(fmt.PAGE_TOPIC, identity.topic)
        cursors.write_state(page, offset=oldest if owner is None or owner.damaged else owner.state.offset)
