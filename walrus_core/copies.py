"""Are both copies of every header, mark and cursor page sound? Bytes in, findings out.

The log itself is content with one sound copy; whoever wants to know whether a directory is whole
is not. The decoders are those of ``pages.py``: each copy is shown to them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Optional

from attrs import evolve

from walrus_core import format as fmt
from walrus_core import pages
from walrus_core.allocator import SEQUENCES_RESERVED
from walrus_core.block import Block
from walrus_core.cursorfile import LOG_PAGE, cursor_page_key
from walrus_core.findings import DAMAGE, OPEN, REBUILD, REPAIR, RESET, TORN, Finding

SEGMENT_KIND = "segment header"
BLOCK_KIND = "block header"
MARK_KIND = "block mark"
CURSORS_KIND = "cursors.db header"
IDENTITY_KIND = "cursor page identity"
FREE_KIND = "free cursor page"
STATE_KIND = "cursor state"
STATES_KIND = "cursor states"
LOG_KIND = "cursors.db log page"
TRUNCATED_KIND = "cursors.db truncated"


def only(data: bytes, at: int, size: int) -> bytes:
    """Return ``data`` with zeros everywhere but in ``[at, at + size)``."""
    return bytes(at) + data[at : at + size] + bytes(max(len(data) - at - size, 0))


def _pair(
    data: bytes, places: tuple[int, int], size: int, is_sound: Callable[[bytes], bool], finding: Finding
) -> list[Finding]:
    """Return what is wrong with two copies: neither sound (one finding, at the first), or one."""
    first, second = places
    sound = [at for at in places if is_sound(only(data, at, size))]
    if not sound:
        return [evolve(finding, at_bytes=finding.at_bytes + first)]
    good = data[sound[0] : sound[0] + size]
    if len(sound) == 2 and data[second : second + size] == good:
        return []
    bad = second if sound[0] == first else first
    kind = f"{finding.kind}, one of two copies"
    return [evolve(finding, kind=kind, at_bytes=finding.at_bytes + bad, mended=good, remedy=REPAIR)]


def segment_header_findings(path: str, area: bytes, log_id: Optional[bytes], sequence: int) -> list[Finding]:
    """Look at the header area of the segment with this sequence, of this log where that is known.

    A copy that was meant for another place is not sound, where the other one is of this place.
    Raises: UnsupportedVersionError: it is of a newer format.
    """
    best, _is_first = pages.decode_segment_header(area, path, log_id, sequence)
    return _pair(
        area,
        (0, fmt.SEGMENT_COPY_AT),
        fmt.SEGMENT_HEADER_USED,
        lambda alone: best is not None and pages.decode_segment_header(alone, path)[0] == best,
        Finding(category=DAMAGE, kind=SEGMENT_KIND, path=path),
    )


def block_findings(block: Block, page: bytes, log_is_clean: bool) -> list[Finding]:
    """Look at the header page of a block of which a header is sound."""
    key = block.segment.key
    topic = block.header.topic.decode("utf-8")
    base = Finding(category=DAMAGE, kind=BLOCK_KIND, path=block.file.path, at_bytes=block.base, topic=topic)
    found = _pair(
        page,
        (0, fmt.BLOCK_COPY_AT),
        fmt.BLOCK_HEADER_SIZE,
        lambda alone: pages.decode_block_header(alone, key)[0] == block.header,
        base,
    )
    if not any(page[fmt.MARK_AT[0] :]):
        # A lease that a crash tore: the next open writes it anew or wipes it.
        found = [evolve(finding, category=TORN, remedy=None, mended=None) for finding in found]
    return found + _mark_findings(block, page, evolve(base, kind=MARK_KIND), log_is_clean)


def _mark_findings(block: Block, page: bytes, base: Finding, log_is_clean: bool) -> list[Finding]:
    """A sector is written whole or not at all, so an unsound one is damage. An empty one beside a mark
    that is not the first may be the work of a power cut, where the log was not closed."""
    key, sequence = block.segment.key, block.sequence
    newest, _is_newest = pages.decode_mark(page, key, sequence, block.length_bytes)
    found = []
    for at in fmt.MARK_AT:
        sector = page[at : at + fmt.SECTOR_SIZE]
        alone, _ = pages.decode_mark(only(page, at, fmt.SECTOR_SIZE), key, sequence, block.length_bytes)
        if alone is not None:
            continue
        if any(sector) or (newest is not None and newest.generation > 1 and log_is_clean):
            found.append(evolve(base, at_bytes=base.at_bytes + at))
    if newest is None:
        # Recovery scans the block from its beginning, and marks it.
        return [evolve(finding, remedy=OPEN) for finding in found]
    # The lost one may have been newer, so that something may stand behind what is left of the marks.
    again = newest._replace(generation=newest.generation + 1, flags=newest.flags & fmt.MARK_SEALED)
    place = block.base + fmt.MARK_AT[again.generation % 2]
    mended = pages.encode_mark(again, key).ljust(fmt.SECTOR_SIZE, b"\0")
    return [
        evolve(finding, remedy=REPAIR, mended=mended) if finding.at_bytes == place else finding
        for finding in found
    ]


# --- cursors.db ---------------------------------------------------------------------------


def cursor_file_findings(path: str, data: bytes, log_id: Optional[bytes]) -> list[Finding]:
    """Look at all of cursors.db. ``log_id`` is the log that it belongs to if its header does not say.

    Raises: UnsupportedVersionError: it is of a newer format.
    """
    header = Finding(category=DAMAGE, kind=CURSORS_KIND, path=path, remedy=REBUILD)
    own = pages.decode_cursors_header(data, path)
    found = _pair(
        data,
        (0, fmt.PAGE_SIZE),
        fmt.SECTOR_SIZE,
        lambda alone: own is not None and pages.decode_cursors_header(alone, path) == own,
        header,
    )
    if found and own is not None and not any(data[found[0].at_bytes :][: fmt.SECTOR_SIZE]):
        # As a power cut leaves the first write of it: the next open writes both.
        found = [evolve(found[0], category=TORN)]
    log_id = own or log_id
    if log_id is None or not data:
        return found
    for number in range(fmt.CURSORS_FIRST_PAGE, -(-len(data) // fmt.PAGE_SIZE)):
        # The last page may be cut short: then the rest is lost.
        page = data[number * fmt.PAGE_SIZE : (number + 1) * fmt.PAGE_SIZE].ljust(fmt.PAGE_SIZE, b"\0")
        if any(page) or number == LOG_PAGE:
            found.extend(_page_findings(path, log_id, number, page))
    return found + list(_size_findings(path, log_id, data))


def _size_findings(path: str, log_id: bytes, data: bytes) -> Iterator[Finding]:
    """The log page knows how long the file was made."""
    page = data[LOG_PAGE * fmt.PAGE_SIZE : (LOG_PAGE + 1) * fmt.PAGE_SIZE]
    state = pages.decode_states(page, cursor_page_key(log_id, LOG_PAGE))[0] if page else None
    if page and state is not None and state.floor > len(data) // fmt.PAGE_SIZE:
        yield Finding(category=DAMAGE, kind=TRUNCATED_KIND, path=path, at_bytes=len(data), remedy=REBUILD)
    if not page:
        yield Finding(category=DAMAGE, kind=LOG_KIND, path=path, at_bytes=len(data), remedy=REBUILD)


def _page_findings(path: str, log_id: bytes, number: int, page: bytes) -> list[Finding]:
    key = cursor_page_key(log_id, number)
    at = number * fmt.PAGE_SIZE
    identity = pages.decode_identity(page, key)
    if identity is not None and identity.page != number:
        identity = None
    state, is_damaged, _both = pages.decode_states(page, key)
    has_state = state is not None or is_damaged
    is_log = number == LOG_PAGE
    if identity is None:
        if is_log:
            return [Finding(category=DAMAGE, kind=LOG_KIND, path=path, at_bytes=at, remedy=REBUILD)]
        kind = IDENTITY_KIND
        if not has_state:
            # A page that a crash tore while it got its owner: it counts as free.
            return [Finding(category=TORN, kind=kind, path=path, at_bytes=at + fmt.IDENTITY_AT)]
        written = [
            place
            for place in range(0, fmt.PAGE_SIZE, fmt.SECTOR_SIZE)
            if any(page[place : place + fmt.SECTOR_SIZE])
        ]
        if len(written) == 1:
            # An owner has more than one sector: the page is free, and was written to by nobody of ours.
            free = Finding(category=DAMAGE, kind=FREE_KIND, path=path, at_bytes=at + written[0])
            return [evolve(free, remedy=REPAIR, mended=bytes(fmt.SECTOR_SIZE))]
        return [Finding(category=DAMAGE, kind=kind, path=path, at_bytes=at + fmt.IDENTITY_AT, remedy=REBUILD)]
    base = Finding(
        category=DAMAGE if has_state else TORN,
        kind=IDENTITY_KIND,
        path=path,
        at_bytes=at,
        topic=identity.topic.decode("utf-8") or None,
        cursor=identity.cursor.decode("utf-8") or None,
    )
    found = _pair(
        page,
        (fmt.IDENTITY_AT, fmt.IDENTITY_COPY_AT),
        fmt.IDENTITY_SIZE,
        lambda alone: pages.decode_identity(alone, key) is not None,
        base,
    )
    return found + _state_findings(page, key, evolve(base, kind=STATE_KIND), state, is_log)


def _state_findings(
    page: bytes, key: int, base: Finding, newest: Optional[pages.PageState], is_log: bool
) -> list[Finding]:
    sectors = {at: page[at : at + fmt.SECTOR_SIZE] for at in fmt.STATE_AT}
    sound = {
        at for at in fmt.STATE_AT if pages.decode_states(only(page, at, fmt.SECTOR_SIZE), key)[0] is not None
    }
    unsound = [at for at in fmt.STATE_AT if at not in sound and any(sectors[at])]
    if newest is None:
        if len(unsound) == len(sectors):
            remedy = REBUILD if is_log else RESET
            return [evolve(base, kind=LOG_KIND if is_log else STATES_KIND, category=DAMAGE, remedy=remedy)]
        # The first state of a page that was never finished: the page counts as new.
        if is_log:
            return [evolve(base, kind=LOG_KIND, category=DAMAGE, remedy=REBUILD)]
        # An open takes the page for a new one; so it is, once the sector is empty.
        lone = evolve(base, category=DAMAGE, remedy=REPAIR, mended=bytes(fmt.SECTOR_SIZE))
        return [evolve(lone, at_bytes=base.at_bytes + at) for at in unsound]
    # The first state is in both sectors before there is a third.
    lost = [at for at in fmt.STATE_AT if at not in sound and (any(sectors[at]) or newest.generation > 2)]
    again = newest._replace(generation=newest.generation + 1)
    if is_log:
        # The state that is left may be one write old, as for the open that finds it so.
        again = again._replace(offset=again.offset + SEQUENCES_RESERVED, clean_plus_one=0)
    mended = pages.encode_state(again, key).ljust(fmt.SECTOR_SIZE, b"\0")
    place = fmt.STATE_AT[again.generation % 2]
    return [
        evolve(
            base,
            category=DAMAGE,
            at_bytes=base.at_bytes + at,
            remedy=REPAIR,
            mended=mended if at == place else None,
        )
        for at in lost
    ]
