"""The hot path in pure Python: frames, checksums, entries, and the append into one block.

The compiled twin ``_hot_c.pyx`` has the same names, arguments and results; ``hot.py`` picks one.
The tests run both and compare them. This twin, in the folder ``_pure``, is the one to read. It
knows positions inside a frame and nothing of files, topics or syncs.
"""

from __future__ import annotations

from walrus_core._pure.entry import (
    FNV_BASIS,
    FNV_PRIME,
    Entry,
    block_key,
    crc32c,
    fnv1a64,
    header_check,
    mix64,
)
from walrus_core._pure.frames import (
    BAD_HEADER,
    BAD_PAYLOAD,
    DONE,
    GATHER_BYTES_MIN,
    READS_FILES,
    SHORT,
    as_payload,
    decode,
    decode_file,
    encode_batch,
    encode_header,
    entry_in,
    fill,
    find_frame,
    frame_size,
    is_zero,
    measure,
    payload_bytes,
    peek_header,
    seek,
    verify,
    walk,
)
from walrus_core._pure.tail import CALL_BYTES_MIN, Tail

COMPILED = False

__all__ = [
    "BAD_HEADER",
    "BAD_PAYLOAD",
    "CALL_BYTES_MIN",
    "COMPILED",
    "DONE",
    "FNV_BASIS",
    "FNV_PRIME",
    "GATHER_BYTES_MIN",
    "READS_FILES",
    "SHORT",
    "Entry",
    "Tail",
    "as_payload",
    "block_key",
    "crc32c",
    "decode",
    "decode_file",
    "encode_batch",
    "encode_header",
    "entry_in",
    "fill",
    "find_frame",
    "fnv1a64",
    "frame_size",
    "header_check",
    "is_zero",
    "measure",
    "mix64",
    "payload_bytes",
    "peek_header",
    "seek",
    "verify",
    "walk",
]
