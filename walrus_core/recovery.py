"""Opening a directory: what is found becomes a log that can be used.

The only room that cuts anything, and it keeps evidence: complete batches behind a cut are
copied aside before their header page is wiped. Idempotent, and safe to interrupt anywhere:
each step can be done again on what the step before left. docs/format.md, "Recovery".
"""

from __future__ import annotations

import os
import time
from functools import partial

from attrs import define, evolve, field

from walrus_core import format as fmt
from walrus_core import hot, pages
from walrus_core.allocator import SEQUENCES_RESERVED, Allocator
from walrus_core.block import Block
from walrus_core.chain import TORN_TAIL, Chain, Found, resolve
from walrus_core.cursorfile import LOG_PAGE, CursorFile, CursorPage, create_cursor_file, open_cursor_file
from walrus_core.errors import CorruptionError
from walrus_core.files import FileCache, LogFile, wrap_directory_call
from walrus_core.inventory import Inventory, read_blocks, segment_names, take_inventory
from walrus_core.paths import cut_name, parse_segment_name
from walrus_core.scan import SCAN_BYTES, has_whole_batch, next_written, sound_behind
from walrus_core.segment import Segment
from walrus_core.types import Cut, Damage, RecoveryReport


@define
class RecoveredTopic:
    """One topic, ready to be used once ``finish`` is done."""

    name: str
    page: CursorPage
    chain: Chain
    next_offset: int
    low_water: int
    cursors: list[CursorPage] = field(factory=list)


@define
class Recovered:
    """Everything that open found."""

    cursors: CursorFile
    inventory: Inventory
    topics: list[RecoveredTopic]
    report: RecoveryReport


def open_cursors(
    files: FileCache, directory: str, names: list[str], log_id: bytes
) -> tuple[CursorFile, list[Damage]]:
    """Open or create cursors.db and load its pages.

    Raises: CorruptionError: missing beside segments, or unreadable. UnsupportedVersionError.
    """
    path = os.path.join(directory, fmt.CURSORS_NAME)
    if segment_names(names):
        return _load_cursors(files, directory)
    # It is durable before the first segment: without one, anything unsound was never finished.
    if fmt.CURSORS_NAME in names:
        try:
            return _load_cursors(files, directory)
        except CorruptionError as error:
            files.gate.warn("%s was never finished and is made anew: %s", path, error)
        files.close()
        wrap_directory_call(files.gate, path, "remove", lambda: files.backend.remove(path), poisons=False)
    cursors = create_cursor_file(files, directory, log_id)
    parent = os.path.dirname(os.path.abspath(directory))
    if files.backend.capabilities.files:
        # A process that was killed between making the directory and making that durable left this to us.
        wrap_directory_call(files.gate, parent, "sync", lambda: files.backend.sync_dir(parent), poisons=True)
    return cursors, []


def _load_cursors(files: FileCache, directory: str) -> tuple[CursorFile, list[Damage]]:
    """Read cursors.db. Raises: CorruptionError, UnsupportedVersionError, StorageError."""
    path = os.path.join(directory, fmt.CURSORS_NAME)
    damages: list[Damage] = []
    cursors = open_cursor_file(files, directory)
    lost, single, stained = cursors.load()
    log_page = cursors.check_log_page()
    if any(hot.is_zero(cursors.file.read(at, fmt.SECTOR_SIZE)) for at in (0, fmt.PAGE_SIZE)):
        # A power cut tore the first write of the header: one more bad sector must not cost the log.
        cursors.file.write(0, pages.encode_cursors_header(cursors.log_id))
    if LOG_PAGE in single:
        # The state that is left may be one write old: sequences of the reservation that it does not
        # know may be in use, and it may say clean from before the first write.
        state = log_page.state
        log_page.state = state._replace(offset=state.offset + SEQUENCES_RESERVED, clean_plus_one=0)
    cursors.is_clean = log_page.state.clean_plus_one == 1
    for item in lost:
        at = item.identity.page * fmt.PAGE_SIZE
        topic = item.identity.topic.decode("utf-8", "replace")
        damages.append(Damage(kind="cursor states", path=path, at_bytes=at, topic=topic))
    for number in single:
        damages.append(
            Damage(kind="cursor state, read from the older one", path=path, at_bytes=number * fmt.PAGE_SIZE)
        )
    for number in stained:
        damages.append(Damage(kind="free cursor page", path=path, at_bytes=number * fmt.PAGE_SIZE))
    return cursors, damages


def recover(files: FileCache, directory: str, names: list[str], log_id: bytes) -> Recovered:
    """Read the directory and decide; nothing of a segment is changed yet, see ``finish``.

    ``log_id`` is the name that a new log gets.
    Raises: CorruptionError, UnsupportedVersionError, StorageError, SyncFailedError.
    """
    started_s = time.monotonic()
    cursors, damages = open_cursors(files, directory, names, log_id)
    inventory = take_inventory(files, directory, names, cursors)
    _check_own(cursors, inventory)
    settle_cache(files, inventory)
    topics = _group(cursors, inventory)
    report = RecoveryReport(
        path=directory,
        clean=all(item.chain.scanned_bytes == 0 and item.chain.cut_at is None for item in topics),
        segment_count=len(inventory.segments),
        topic_count=len(topics),
        scanned_bytes=sum(item.chain.scanned_bytes for item in topics),
        duration_s=time.monotonic() - started_s,
        damages=(*damages, *inventory.damages, *(d for item in topics for d in item.chain.damages)),
        foreign_files=tuple(inventory.foreign),
    )
    return Recovered(cursors, inventory, topics, report)


def _check_own(cursors: CursorFile, inventory: Inventory) -> None:
    """Raises: CorruptionError: all segments are of another log than cursors.db, which was copied or restored
    into the wrong directory. Going on would begin a new log beside entries that nobody sees any more."""
    names = [name for name in inventory.foreign if parse_segment_name(name) is not None]
    # Those that nobody can read may be of this log; who has most is believed, as in ``log_ids_of_segments``.
    unknown_count = sum(damage.kind == "segment header" for damage in inventory.damages)
    if len(names) > unknown_count and not inventory.segments:
        raise CorruptionError(
            message=f"{cursors.file.path} is of another log than the segments beside it, such as {names[0]}: "
            "put the right one in its place, make it anew with walrus repair --rebuild-cursors, or take "
            "the segments away",
            kind="cursors.db of another log",
            path=cursors.file.path,
            at_bytes=0,
            topic=None,
            offset=None,
            end_offset=None,
        )


def settle_cache(files: FileCache, inventory: Inventory) -> None:
    """Make the cache of what a crash may have left durable, drop it, and read header pages again.

    After the death of a process the dirty cache is the data; after a failed sync it may lie. A seal
    that is only in the cache proves as little as anything else there, so without a clean close that
    is every segment with a block in it.
    """
    touched = {
        item.block.segment.sequence
        for item in inventory.found
        if not (inventory.log_is_clean and item.is_settled)
    }
    touched.update(segment.sequence for segment, _slot in inventory.torn_slots)
    segments = [segment for segment in inventory.segments if segment.sequence in touched]
    files.sync(segment.file for segment in segments)
    for segment in segments:
        segment.file.drop_cache()
        read_blocks(segment, inventory)


def _group(cursors: CursorFile, inventory: Inventory) -> list[RecoveredTopic]:
    """Bring blocks, topic pages and cursor pages together, one RecoveredTopic a name."""
    by_name: dict[bytes, list[Found]] = {}
    for item in inventory.found:
        by_name.setdefault(item.block.header.topic, []).append(item)
    topic_pages = {
        page.identity.topic: page for page in cursors.pages.values() if page.identity.kind == fmt.PAGE_TOPIC
    }
    cursor_pages: dict[tuple[bytes, int], list[CursorPage]] = {}
    for cursor_page in cursors.pages.values():
        identity = cursor_page.identity
        if identity.kind == fmt.PAGE_CURSOR:
            cursor_pages.setdefault((identity.topic, identity.incarnation), []).append(cursor_page)
    topics: list[RecoveredTopic] = []
    for name in sorted(set(by_name) | set(topic_pages)):
        blocks = by_name.get(name, [])
        page = topic_pages.get(name)
        if page is None:
            # The page was not durable yet when the blocks were: the youngest block knows the incarnation.
            incarnation = max(blocks, key=lambda item: item.block.sequence).block.header.incarnation
            page = cursors.add(fmt.PAGE_TOPIC, incarnation, name)
        incarnation = page.identity.incarnation
        live = [item for item in blocks if item.block.header.incarnation == incarnation]
        low_water = page.state.offset
        chain = resolve(name.decode("utf-8"), live, low_water, page.is_old)
        chain.dropped.extend(item for item in blocks if item.block.header.incarnation != incarnation)
        next_offset = max(chain.end_offset, page.state.floor, low_water)
        if next_offset != chain.end_offset:
            chain.appendable = False
            start = max(chain.end_offset, low_water)
            if start < next_offset:
                chain.damages.append(_missing_end(cursors, page, start, next_offset))
        own = cursor_pages.get((name, incarnation), [])
        topics.append(RecoveredTopic(name.decode("utf-8"), page, chain, next_offset, low_water, own))
    return topics


def _missing_end(cursors: CursorFile, page: CursorPage, start: int, end: int) -> Damage:
    """The topic's page knows of entries that no block holds: the last one is lost, header page and all."""
    topic = page.identity.topic.decode("utf-8")
    at = page.identity.page * fmt.PAGE_SIZE
    return Damage(
        kind="missing block",
        path=cursors.file.path,
        at_bytes=at,
        topic=topic,
        first_offset=start,
        end_offset=end,
    )


def finish(files: FileCache, directory: str, recovered: Recovered, allocator: Allocator) -> RecoveryReport:
    """Carry out what ``recover`` decided, durably. Returns: the final report.

    Raises: StorageError, SyncFailedError: the log is not usable; the next open starts over.
    """
    cuts: list[Cut] = []
    touched: dict[LogFile, None] = {}
    for leftover in recovered.inventory.leftovers:
        files.forget(leftover)
        path = leftover.path
        remove = partial(files.backend.remove, path)
        wrap_directory_call(files.gate, path, "remove", remove, poisons=False)
    for segment, slot in recovered.inventory.torn_slots:
        cuts.extend(_torn_lease(segment, slot))
        allocator.give_up(segment, slot, 1)
    for topic in recovered.topics:
        cuts.extend(_finish_topic(files, directory, topic, allocator, touched))
    # Always: a process may have been killed after it made a segment and before it synced the directory.
    wrap_directory_call(
        files.gate, directory, "sync", lambda: files.backend.sync_dir(directory), poisons=True
    )
    clamped = _clamp(recovered)
    if recovered.cursors.file.is_dirty:
        touched[recovered.cursors.file] = None
    if touched:
        files.sync(touched)
    allocator.wipe()
    return evolve(recovered.report, cuts=tuple(cuts), clamped_cursors=tuple(clamped))


def _torn_lease(segment: Segment, slot: int) -> list[Cut]:
    """Report a slot whose header page is torn and that holds something; whose it was nobody can tell.

    A power cut may do that to a lease of which nothing was durable. So may damage, to both copies of a
    header that no mark stands beside yet, and entries must not vanish without a word.
    """
    at = segment.slot_at(slot)
    if hot.is_zero(segment.file.read(at + fmt.PAGE_SIZE, fmt.FRAME_HEADER_SIZE)):
        return []
    reason = "frames behind a header page that is torn"
    return [Cut(topic="", offset=0, path=segment.file.path, at_bytes=at, reason=reason)]


def _finish_topic(
    files: FileCache,
    directory: str,
    topic: RecoveredTopic,
    allocator: Allocator,
    touched: dict[LogFile, None],
) -> list[Cut]:
    chain = topic.chain
    cuts: list[Cut] = []
    evidence = None
    for item in chain.dropped:
        if item.block.first_offset >= topic.low_water and has_whole_batch(item.block):
            evidence = _copy_aside(files, directory, item.block)
        allocator.give_up(item.block.segment, item.block.header.slot, item.block.header.slots)
    if chain.cut_at is not None:
        item, state, reason = chain.cut_at
        if evidence is None and reason == TORN_TAIL and sound_behind(item.block, state):
            evidence = _copy_aside(files, directory, item.block)
        cuts.append(
            Cut(
                topic=topic.name,
                offset=topic.next_offset,
                path=item.block.file.path,
                at_bytes=item.block.base + state.at,
                reason=reason,
                evidence_path=evidence,
            )
        )
    for place, item in enumerate(chain.kept):
        block = item.block
        state = chain.states[block.sequence]
        block.final = state
        is_tail = chain.appendable and place + 1 == len(chain.kept)
        if block.is_sealed or (is_tail and item.mark is not None and item.marked_state == state):
            continue
        if (
            place + 1 < len(chain.kept)
            and block.first_offset + state.entries != chain.kept[place + 1].block.first_offset
        ):
            # Damage hides how far the block goes: it keeps the marks it has.
            continue
        if item.mark is None:
            # A power cut may have torn it, and left one of its copies.
            block.segment.write_header(block.header)
        block.write_mark(state, 0 if is_tail else fmt.MARK_SEALED)
        touched[block.file] = None
    return cuts


def _copy_aside(files: FileCache, directory: str, block: Block) -> str:
    """Copy the used part of a block to a file of its own, durably. Returns: its path."""
    header = block.header
    path = os.path.join(directory, cut_name(header.segment_sequence, header.slot, header.sequence))
    used: list[tuple[int, int]] = []
    at = 0
    while (at := next_written(block, at)) < block.length_bytes:
        used.append((at, min(SCAN_BYTES, block.length_bytes - at)))
        at += used[-1][1]
    at, length = used[-1] if used else (0, 0)
    end = at + len(bytes(block.read(at, length)).rstrip(b"\0"))
    size = -(-end // fmt.PAGE_SIZE) * fmt.PAGE_SIZE
    try:
        handle = files.backend.create(path, size_bytes=size)
    except FileExistsError:
        # Left by an open that was interrupted before it wiped the block; write it again, whole.
        handle = None
    except OSError as error:
        raise files.gate.write_failed(error, path, "create") from error
    copy = files.add(path, handle)
    copy.reserve(0, size)
    for at, length in used:
        copy.write(at, bytes(block.read(at, min(length, size - at))))
    files.sync([copy])
    files.forget(copy)
    return path


def _clamp(recovered: Recovered) -> list[str]:
    """Set cursors back that point past the end; forget pages of topics that are gone."""
    recovered.cursors.remove_surplus()
    clamped: list[str] = []
    owned: set[int] = set()
    for topic in recovered.topics:
        for page in topic.cursors:
            owned.add(page.identity.page)
            if not page.damaged and page.state.offset > topic.next_offset:
                end = topic.next_offset
                recovered.cursors.write_state(page, offset=end)
                clamped.append(f"{topic.name}/{page.identity.cursor.decode('utf-8')}")
    for page in list(recovered.cursors.pages.values()):
        if page.identity.kind == fmt.PAGE_CURSOR and page.identity.page not in owned:
            recovered.cursors.remove(page)
    return clamped
