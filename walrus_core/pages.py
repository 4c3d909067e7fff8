"""Encode and decode the metadata pages of the disk format: bytes in, facts out, no I/O.

Segment headers, block header pages with their marks, and the pages of cursors.db, as
docs/format.md lays them out. Every decoder checks before it believes: it returns None (or
raises UnsupportedVersionError) for anything that is not sound, and never raises otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, Optional, Union

from walrus_core import format as fmt
from walrus_core.errors import UnsupportedVersionError
from walrus_core.hot import FNV_BASIS, fnv1a64, is_zero

Buffer = Union[bytes, bytearray, memoryview]

_SEGMENT = struct.Struct(fmt.SEGMENT_STRUCT)
_BLOCK = struct.Struct(fmt.BLOCK_STRUCT)
_MARK = struct.Struct(fmt.MARK_STRUCT)
_CURSORS = struct.Struct(fmt.CURSORS_STRUCT)
_STATE = struct.Struct(fmt.STATE_STRUCT)
_IDENTITY = struct.Struct(fmt.IDENTITY_STRUCT)
_U64 = struct.Struct("<Q")
_NAMED = {fmt.PAGE_TOPIC: (True, False), fmt.PAGE_CURSOR: (True, True), fmt.PAGE_LOG: (False, False)}
"""Which pages of cursors.db have the name of a topic, and which that of a cursor."""
_SUM_SIZE = _U64.size

assert _MARK.size + _SUM_SIZE == fmt.MARK_SIZE
assert _STATE.size + _SUM_SIZE == fmt.STATE_SIZE


def _seal(body: bytes, size: int, state: int) -> bytes:
    """Return ``body`` padded with zeros to ``size`` bytes, the last 8 being its checksum."""
    padded = body.ljust(size - _SUM_SIZE, b"\0")
    return padded + _U64.pack(fnv1a64(padded, state))


def _is_sound(data: Buffer, at: int, size: int, state: int) -> bool:
    if at + size > len(data):
        return False
    body = bytes(data[at : at + size - _SUM_SIZE])
    stored: int = _U64.unpack_from(data, at + size - _SUM_SIZE)[0]
    return stored == fnv1a64(body, state)


def _is_name(name: bytes) -> bool:
    """True where ``name`` could be that of a topic or cursor, or is empty: UTF-8 without NUL."""
    try:
        return "\0" not in name.decode("utf-8")
    except UnicodeDecodeError:
        return False


def metadata_key(salt: int) -> int:
    """Return the state from which checksums of a segment's header pages start."""
    return fnv1a64(_U64.pack(salt))


# --- segment ------------------------------------------------------------------------------


class SegmentHeader(NamedTuple):
    """Facts of one segment file."""

    log_id: bytes
    sequence: int
    block_size_bytes: int
    slot_count: int
    algorithm: int
    salt: int
    created_ns: int

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""
        return fmt.SEGMENT_HEADER_SIZE + self.slot_count * self.block_size_bytes

    def slot_at(self, slot: int) -> int:
        """Position of a slot in the file."""
        return fmt.SEGMENT_HEADER_SIZE + slot * self.block_size_bytes


def encode_segment_header(header: SegmentHeader) -> bytes:
    """Return the header area: the header and, behind it, its copy."""
    # In the order of the header's fields, with the reserved ones between.
    body = _SEGMENT.pack(fmt.SEGMENT_MAGIC, fmt.VERSION, 0, 0, 0, *header[:5], 0, *header[5:])
    sealed = _seal(body, fmt.SEGMENT_HEADER_USED, FNV_BASIS)
    return sealed.ljust(fmt.SEGMENT_COPY_AT, b"\0") + sealed


def decode_segment_header(
    data: Buffer, path: str, log_id: Optional[bytes] = None, sequence: Optional[int] = None
) -> tuple[Optional[SegmentHeader], bool]:
    """Return (header, whether it is the first of the two); header None if neither is sound.

    One of this sequence, and of this log where that is known, goes before another one: a sector that was
    meant for another place is sound, too.
    Raises: UnsupportedVersionError: sound, but of a newer version or with unknown features.
    """
    other: Optional[SegmentHeader] = None
    for at in (0, fmt.SEGMENT_COPY_AT):
        if not _is_sound(data, at, fmt.SEGMENT_HEADER_USED, FNV_BASIS):
            continue
        fields = _SEGMENT.unpack_from(data, at)
        magic, version, _z, incompatible, read_only = fields[:5]
        found_id, found_sequence, size, slots, algorithm, _z2, salt, created = fields[5:]
        if magic != fmt.SEGMENT_MAGIC:
            continue
        if version > fmt.VERSION or incompatible or read_only:
            raise UnsupportedVersionError(path=path, found=version, supported=fmt.VERSION)
        if found_sequence > fmt.NUMBER_MAX or not _is_plausible(size, slots, algorithm):
            continue
        header = SegmentHeader(found_id, found_sequence, size, slots, algorithm, salt, created)
        if found_sequence == sequence and log_id in (None, found_id):
            return header, at == 0
        other = other or header
    return other, other is not None


def _is_plausible(block_size: int, slots: int, algorithm: int) -> bool:
    return (
        fmt.BLOCK_SIZE_MIN <= block_size <= fmt.BLOCK_SIZE_MAX
        and block_size % fmt.PAGE_SIZE == 0
        and fmt.BLOCKS_PER_SEGMENT_MIN <= slots <= fmt.BLOCKS_PER_SEGMENT_MAX
        and algorithm in fmt.CHECKSUM_NAMES
    )


# --- block --------------------------------------------------------------------------------


class BlockHeader(NamedTuple):
    """Who owns a block and where it stands in its topic's chain."""

    segment_sequence: int
    slot: int
    slots: int
    sequence: int
    incarnation: int
    first_offset: int
    previous_sequence: int
    topic: bytes


class Mark(NamedTuple):
    """What of a block was durable when the mark was written.

    ``durable_bytes`` is the end of the frames, from the start of the block.
    """

    sequence: int
    generation: int
    flags: int
    durable_bytes: int
    entry_count: int
    payload_bytes: int
    low_ns: int
    high_ns: int

    @property
    def is_sealed(self) -> bool:
        """The block takes no more entries."""
        return bool(self.flags & fmt.MARK_SEALED)

    @property
    def is_clean(self) -> bool:
        """Nothing stands behind the marked bytes: the log was closed after it."""
        return bool(self.flags & fmt.MARK_CLEAN)


def encode_block_header(header: BlockHeader, key: int) -> bytes:
    """Return a whole header page: the header, its copy, two empty mark sectors."""
    body = _BLOCK.pack(
        fmt.BLOCK_MAGIC,
        header.segment_sequence,
        header.slot,
        header.slots,
        header.sequence,
        header.incarnation,
        header.first_offset,
        header.previous_sequence,
        len(header.topic),
        0,
        0,
    )
    sealed = _seal(body + header.topic, fmt.BLOCK_HEADER_SIZE, key)
    return (sealed + sealed).ljust(fmt.PAGE_SIZE, b"\0")


def decode_block_header(
    page: Buffer, key: int, fits: Callable[[BlockHeader], bool] = lambda _header: True
) -> tuple[Optional[BlockHeader], bool]:
    """Return (header, whether it is the first of the two); header None if neither is sound and ``fits``."""
    for at in (0, fmt.BLOCK_COPY_AT):
        if not _is_sound(page, at, fmt.BLOCK_HEADER_SIZE, key):
            continue
        (magic, segment, slot, slots, sequence, incarnation, first, previous, name_length, _z, _z2) = (
            _BLOCK.unpack_from(page, at)
        )
        if (
            magic != fmt.BLOCK_MAGIC
            or not 0 < name_length <= fmt.TOPIC_NAME_MAX_BYTES
            or not slots
            # Sequences only grow; anything else could lead a chain in a circle.
            or previous >= sequence
            or sequence > fmt.NUMBER_MAX
            or first > fmt.OFFSET_MAX
        ):
            continue
        name_at = at + _BLOCK.size
        topic = bytes(page[name_at : name_at + name_length])
        if not _is_name(topic):
            continue
        header = BlockHeader(segment, slot, slots, sequence, incarnation, first, previous, topic)
        if fits(header):
            return header, at == 0
    return None, False


def encode_mark(mark: Mark, key: int) -> bytes:
    """Return the bytes of a mark; they go to sector ``MARK_AT[generation % 2]`` of the page."""
    body = _MARK.pack(
        mark.sequence,
        mark.generation,
        mark.flags,
        mark.durable_bytes,
        mark.entry_count,
        0,
        mark.payload_bytes,
        mark.low_ns,
        mark.high_ns,
    )
    return _seal(body, fmt.MARK_SIZE, key)


def decode_mark(page: Buffer, key: int, sequence: int, block_bytes: int) -> tuple[Optional[Mark], bool]:
    """Return (the newest sound mark of the block with this sequence or None, whether it is the newest).

    It may not be where the other sector is unsound, or empty although an older mark must be in it:
    then what the mark says of bytes behind it ("clean") cannot be relied on.
    """
    newest: Optional[Mark] = None
    lost = 0
    for at in fmt.MARK_AT:
        if not _is_sound(page, at, fmt.MARK_SIZE, key):
            lost += 1 if is_zero(page[at : at + fmt.SECTOR_SIZE]) else 2
            continue
        (owner, generation, flags, durable, entries, _z, payload, low, high) = _MARK.unpack_from(page, at)
        mark = Mark(owner, generation, flags, durable, entries, payload, low, high)
        if (
            owner == sequence
            and _mark_fits(mark, block_bytes)
            and (newest is None or generation > newest.generation)
        ):
            newest = mark
    is_newest = newest is not None and (lost == 0 or (lost == 1 and newest.generation == 1))
    return newest, is_newest


def _mark_fits(mark: Mark, block_bytes: int) -> bool:
    """True where so many entries with so many bytes of payload can end where the mark says."""
    least = fmt.PAGE_SIZE + mark.entry_count * fmt.FRAME_HEADER_SIZE + mark.payload_bytes
    most = least + mark.entry_count * (fmt.FRAME_ALIGN - 1)
    return (
        least <= mark.durable_bytes <= min(most, block_bytes) and mark.generation <= fmt.MARK_GENERATION_MAX
    )


# --- cursors.db ---------------------------------------------------------------------------


class PageState(NamedTuple):
    """The changing half of a page. Topic page: low water, floor, clean mark. Cursor page: offset.

    ``clean_plus_one`` is one more than the next offset at which the topic was marked clean
    (0: never, or marked dirty since).
    """

    generation: int
    offset: int
    floor: int = 0
    clean_plus_one: int = 0


class PageIdentity(NamedTuple):
    """Whose page it is. ``cursor`` is empty for a topic page."""

    kind: int
    page: int
    incarnation: int
    topic: bytes
    cursor: bytes


def encode_cursors_header(log_id: bytes) -> bytes:
    """Return page 0 and its copy, page 1."""
    sealed = _seal(_CURSORS.pack(fmt.CURSORS_MAGIC, fmt.VERSION, 0, log_id), fmt.SECTOR_SIZE, FNV_BASIS)
    page = sealed.ljust(fmt.PAGE_SIZE, b"\0")
    return page + page


def decode_cursors_header(data: Buffer, path: str) -> Optional[bytes]:
    """Return the log id, or None if neither copy is sound. Raises: UnsupportedVersionError.

    Of copies that differ (one is of another log) that one counts under which the log page is sound.
    """
    found: list[bytes] = []
    for at in (0, fmt.PAGE_SIZE):
        if not _is_sound(data, at, fmt.SECTOR_SIZE, FNV_BASIS):
            continue
        magic, version, _z, log_id = _CURSORS.unpack_from(data, at)
        if magic != fmt.CURSORS_MAGIC:
            continue
        if version > fmt.VERSION:
            raise UnsupportedVersionError(path=path, found=version, supported=fmt.VERSION)
        found.append(log_id)
    at, number = fmt.CURSORS_FIRST_PAGE * fmt.PAGE_SIZE, fmt.CURSORS_FIRST_PAGE.to_bytes(8, "little")
    page = data[at : at + fmt.PAGE_SIZE]
    own = [log_id for log_id in found if decode_identity(page, fnv1a64(log_id + number)) is not None]
    return next(iter(own + found), None)


def encode_state(state: PageState, key: int) -> bytes:
    """Return a state; it goes to sector ``STATE_AT[generation % 2]`` of its page."""
    body = _STATE.pack(state.generation, state.offset, state.floor, state.clean_plus_one, 0, 0, 0)
    return _seal(body, fmt.STATE_SIZE, key)


def decode_states(page: Buffer, key: int) -> tuple[Optional[PageState], bool, bool]:
    """Return (the newest sound state or None, whether a sector is unsound, or both are).

    One unsound sector beside an empty one is a first state that was never finished: None stands for the
    state of a new page. An empty one beside a state that is none of the first two has lost its state.
    """
    newest: Optional[PageState] = None
    damaged = empty = 0
    for at in fmt.STATE_AT:
        if is_zero(page[at : at + fmt.SECTOR_SIZE]):
            empty += 1
            continue
        if not _is_sound(page, at, fmt.STATE_SIZE, key):
            damaged += 1
            continue
        generation, offset, floor, clean, _z, _z2, _z3 = _STATE.unpack_from(page, at)
        if generation > fmt.STATE_GENERATION_MAX or max(offset, floor, clean) > fmt.NUMBER_MAX:
            damaged += 1
            continue
        if newest is None or generation > newest.generation:
            newest = PageState(generation, offset, floor, clean)
    if newest is not None and newest.generation > 2:
        damaged += empty
    return newest, damaged > 0, damaged == len(fmt.STATE_AT)


def encode_identity(identity: PageIdentity, key: int) -> bytes:
    """Return the identity and its copy, as they stand from ``IDENTITY_AT`` of the page."""
    body = _IDENTITY.pack(
        fmt.IDENTITY_MAGIC,
        identity.kind,
        0,
        identity.page,
        identity.incarnation,
        len(identity.topic),
        len(identity.cursor),
        0,
    )
    sealed = _seal(body + identity.topic + identity.cursor, fmt.IDENTITY_SIZE, key)
    return sealed + sealed


def decode_identity(page: Buffer, key: int) -> Optional[PageIdentity]:
    """Return whose page it is, from either copy, or None."""
    for at in (fmt.IDENTITY_AT, fmt.IDENTITY_COPY_AT):
        if not _is_sound(page, at, fmt.IDENTITY_SIZE, key):
            continue
        magic, kind, _z, number, incarnation, topic_length, cursor_length, _z2 = _IDENTITY.unpack_from(
            page, at
        )
        if (
            magic != fmt.IDENTITY_MAGIC
            or topic_length > fmt.TOPIC_NAME_MAX_BYTES
            or cursor_length > fmt.CURSOR_NAME_MAX_BYTES
            or _NAMED.get(kind) != (topic_length > 0, cursor_length > 0)
        ):
            continue
        name_at = at + _IDENTITY.size
        topic = bytes(page[name_at : name_at + topic_length])
        cursor = bytes(page[name_at + topic_length : name_at + topic_length + cursor_length])
        if not (_is_name(topic) and _is_name(cursor)):
            continue
        return PageIdentity(kind, number, incarnation, topic, cursor)
    return None
