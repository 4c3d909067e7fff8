"""Target ``pages``: any bytes as header pages, marks and pages of cursors.db."""

from __future__ import annotations

from walrus_core import format as fmt
from walrus_core import pages
from walrus_core.errors import UnsupportedVersionError
from walrus_core.hot import FNV_BASIS

from .bytesource import Source
from .craft import LOG_ID, SALT, reseal, reseal_block, reseal_cursor_page, reseal_segment

KEY = pages.metadata_key(SALT)
KINDS = ("segment", "block", "cursors", "page")


def run(data: bytes) -> None:
    """Decode the bytes as one kind of page, with checksums that fit or as they are."""
    source = Source(data)
    kind = source.pick(KINDS)
    seals = source.byte() % 4 != 0
    globals()[f"_{kind}"](source, seals)


def _segment(source: Source, seals: bool) -> None:
    area = bytearray(source.rest()[: fmt.SEGMENT_HEADER_USED].ljust(fmt.SEGMENT_HEADER_USED, b"\0"))
    if seals:
        area[:8] = fmt.SEGMENT_MAGIC
        area[8:12] = fmt.VERSION.to_bytes(4, "little") if area[8] < 250 else area[8:12]
        reseal(area, 0, fmt.SEGMENT_HEADER_USED, FNV_BASIS)
    for whole in (area, area[:100], bytes(fmt.SEGMENT_COPY_AT) + area):
        try:
            header, is_first = pages.decode_segment_header(whole, "path", LOG_ID, 1)
        except UnsupportedVersionError:
            continue
        if header is None:
            continue
        if (header.log_id, header.sequence) == (LOG_ID, 1):
            assert is_first == (whole is area)
        assert header.size_bytes <= fmt.SEGMENT_HEADER_SIZE + fmt.BLOCK_SIZE_MAX * fmt.BLOCKS_PER_SEGMENT_MAX
        assert header.slot_at(header.slot_count) == header.size_bytes and header.sequence <= 2**63
        again = bytearray(pages.encode_segment_header(header))
        reseal_segment(again)
        assert pages.decode_segment_header(again, "path", header.log_id, header.sequence) == (header, True)


def _block(source: Source, seals: bool) -> None:
    size_bytes = (source.byte() + 1) * fmt.BLOCK_SIZE_MIN
    page = bytearray(source.rest()[: fmt.PAGE_SIZE].ljust(fmt.PAGE_SIZE, b"\0"))
    if seals:
        page[:8] = fmt.BLOCK_MAGIC
        reseal_block(page, 0)
    header, _is_first = pages.decode_block_header(page, KEY)
    if header is None:
        return
    assert header.previous_sequence < header.sequence <= 2**63 and header.slots > 0
    assert header.first_offset <= 2**63
    text = header.topic.decode("utf-8")
    assert text and "\0" not in text and len(header.topic) <= fmt.TOPIC_NAME_MAX_BYTES
    assert pages.decode_block_header(pages.encode_block_header(header, KEY), KEY) == (header, True)
    mark, is_newest = pages.decode_mark(page, KEY, header.sequence, size_bytes)
    assert mark is not None or not is_newest
    if mark is not None:
        frames_bytes = mark.durable_bytes - fmt.PAGE_SIZE
        assert fmt.PAGE_SIZE <= mark.durable_bytes <= size_bytes and mark.sequence == header.sequence
        assert mark.entry_count * fmt.FRAME_HEADER_SIZE + mark.payload_bytes <= frames_bytes
        sealed = pages.encode_mark(mark, KEY)
        again = bytes(fmt.MARK_AT[0]) + sealed.ljust(2 * fmt.SECTOR_SIZE, b"\0")
        assert pages.decode_mark(again, KEY, header.sequence, size_bytes)[0] == mark


def _cursors(source: Source, seals: bool) -> None:
    page = bytearray(source.rest()[: 2 * fmt.PAGE_SIZE])
    if seals and len(page) >= fmt.SECTOR_SIZE:
        page[:8] = fmt.CURSORS_MAGIC
        reseal(page, 0, fmt.SECTOR_SIZE, FNV_BASIS)
    try:
        log_id = pages.decode_cursors_header(page, "path")
    except UnsupportedVersionError:
        return
    assert (
        log_id is None or pages.decode_cursors_header(pages.encode_cursors_header(log_id), "path") == log_id
    )


def _page(source: Source, seals: bool) -> None:
    page = bytearray(source.rest()[: fmt.PAGE_SIZE].ljust(fmt.PAGE_SIZE, b"\0"))
    key = pages.fnv1a64(bytes(range(16)) + (0).to_bytes(8, "little"))
    if seals:
        page[fmt.IDENTITY_AT : fmt.IDENTITY_AT + 8] = fmt.IDENTITY_MAGIC
        reseal_cursor_page(page, 0)
    state, is_damaged, lost_both = pages.decode_states(page, key)
    assert is_damaged or not lost_both
    if state is not None:
        assert max(state.offset, state.floor, state.clean_plus_one) <= 2**63 and not lost_both
        assert (
            pages.decode_states(pages.encode_state(state, key).ljust(fmt.PAGE_SIZE, b"\0"), key)[0] == state
        )
    identity = pages.decode_identity(page, key)
    if identity is not None:
        names = {
            fmt.PAGE_TOPIC: (True, False),
            fmt.PAGE_CURSOR: (True, True),
            fmt.PAGE_LOG: (False, False),
        }
        assert (bool(identity.topic), bool(identity.cursor)) == names[identity.kind]
        again = bytes(fmt.IDENTITY_AT) + pages.encode_identity(identity, key)
        assert pages.decode_identity(again, key) == identity
