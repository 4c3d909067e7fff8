"""Numbers of disk format version 1; docs/format.md is the normative text.

Only constants and checks of their relations: no function, no I/O. All integers on disk are
little-endian.
"""

from __future__ import annotations

VERSION = 1
NUMBER_MAX = 2**63
"""Greatest sequence, offset or generation that a page may name; counting up never gets there."""
OFFSET_MAX = NUMBER_MAX - 2**32
"""Greatest offset at which a block may begin, so that those in it stay below NUMBER_MAX."""
STATE_GENERATION_MAX = NUMBER_MAX - 2**32
"""Greatest generation of a state that is believed, so that every one that is written from there on is too."""
SECTOR_SIZE = 512
PAGE_SIZE = 4096

# --- segment ------------------------------------------------------------------------------
SEGMENT_MAGIC = b"WALRUSEG"
SEGMENT_HEADER_SIZE = 65536
SEGMENT_COPY_AT = 32768
SEGMENT_HEADER_USED = 512
# magic, version, zero, incompatible flags, read-only-compatible flags, log id, segment sequence,
# block size, blocks per segment, checksum algorithm, zero, salt, creation time in ns
SEGMENT_STRUCT = "<8sIIQQ16sQIIIIQQ"
SEGMENT_SUFFIX = ".wal"
FREE_SUFFIX = ".free"
CUT_SUFFIX = ".cut"

BLOCK_SIZE_DEFAULT = 10 * 1024 * 1024
BLOCK_SIZE_MIN = 16 * 1024
BLOCK_SIZE_MAX = 1024 * 1024 * 1024
BLOCKS_PER_SEGMENT_DEFAULT = 100
BLOCKS_PER_SEGMENT_MIN = 2
BLOCKS_PER_SEGMENT_MAX = 65536

# --- block --------------------------------------------------------------------------------
BLOCK_MAGIC = b"WALRUSBK"
BLOCK_HEADER_SIZE = 3 * SECTOR_SIZE
BLOCK_COPY_AT = 3 * SECTOR_SIZE
MARK_AT = (6 * SECTOR_SIZE, 7 * SECTOR_SIZE)
# magic, segment sequence, slot, slots, block sequence, incarnation, first offset,
# previous block sequence (0: none), length of the topic's name, zero
BLOCK_STRUCT = "<8sQIIQQQQHHI"
MARK_SIZE = 64
# block sequence, generation, flags, durable bytes, entries, zero, payload bytes,
# lowest timestamp, highest timestamp
MARK_STRUCT = "<QIIQIIQQQ"
MARK_GENERATION_MAX = 2**32 - 2**28
"""A mark's generation has 32 bits; a block has room for fewer than 2**28 entries, so for no more marks."""
MARK_SEALED = 1
MARK_CLEAN = 2

TOPIC_NAME_MAX_BYTES = 1024
CURSOR_NAME_MAX_BYTES = 255

# --- frame --------------------------------------------------------------------------------
FRAME_HEADER_SIZE = 32
FRAME_ALIGN = 8
# checksum, length, header check, kind, flags, batch remaining, index, timestamp
FRAME_STRUCT = "<QIIBBHIQ"
KIND_ENTRY = 1
FLAG_FIRST = 1

FRAME_BYTES_MAX = FRAME_HEADER_SIZE + 2**32
"""Size of the frame of the longest payload that a header can tell of."""

BATCH_COUNT_MAX = 2000
BATCH_BYTES_MAX = 10 * 1024**3

CHECKSUM_FNV1A64 = 1
CHECKSUM_CRC32C = 2
CHECKSUMS = {"fnv1a64": CHECKSUM_FNV1A64, "crc32c": CHECKSUM_CRC32C}
CHECKSUM_NAMES = {number: name for name, number in CHECKSUMS.items()}

# --- cursors.db ---------------------------------------------------------------------------
CURSORS_NAME = "cursors.db"
CURSORS_MAGIC = b"WALRUSCU"
CURSORS_PAGES_MAX = 2**22
"""A million topics and three cursors of each: reading them takes a minute."""
CURSORS_FIRST_PAGE = 2
"""Page 0 is the header, page 1 its copy."""
# magic, version, zero, log id
CURSORS_STRUCT = "<8sII16s"
STATE_AT = (0, SECTOR_SIZE)
STATE_SIZE = 56
# generation, low water (cursor page: offset), floor, clean offset + 1, flags, zero
STATE_STRUCT = "<QQQQIIQ"
IDENTITY_AT = 2 * SECTOR_SIZE
IDENTITY_COPY_AT = 5 * SECTOR_SIZE
IDENTITY_SIZE = 3 * SECTOR_SIZE
# magic, kind, zero, page number, incarnation, length of topic name, length of cursor name, zero
IDENTITY_STRUCT = "<8sIIQQHHI"
IDENTITY_MAGIC = b"WALRUSID"
PAGE_TOPIC = 1
PAGE_CURSOR = 2
PAGE_LOG = 3

LOCK_NAME = "LOCK"

assert SEGMENT_HEADER_SIZE % PAGE_SIZE == 0 and SEGMENT_COPY_AT + SEGMENT_HEADER_USED <= SEGMENT_HEADER_SIZE
assert BLOCK_SIZE_MIN % PAGE_SIZE == 0 and BLOCK_SIZE_DEFAULT % PAGE_SIZE == 0
assert MARK_AT[0] == BLOCK_COPY_AT + BLOCK_HEADER_SIZE and MARK_AT[1] + SECTOR_SIZE == PAGE_SIZE
assert IDENTITY_AT + IDENTITY_SIZE == IDENTITY_COPY_AT and IDENTITY_COPY_AT + IDENTITY_SIZE == PAGE_SIZE
