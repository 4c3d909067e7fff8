"""Types of the compiled twin: those of the pure one, which has the same names."""

from typing import Literal

from walrus_core._hot_py import (
    BAD_HEADER as BAD_HEADER,
    BAD_PAYLOAD as BAD_PAYLOAD,
    CALL_BYTES_MIN as CALL_BYTES_MIN,
    DONE as DONE,
    FNV_BASIS as FNV_BASIS,
    FNV_PRIME as FNV_PRIME,
    GATHER_BYTES_MIN as GATHER_BYTES_MIN,
    READS_FILES as READS_FILES,
    SHORT as SHORT,
    Entry as Entry,
    Tail as Tail,
    as_payload as as_payload,
    block_key as block_key,
    crc32c as crc32c,
    decode as decode,
    decode_file as decode_file,
    encode_batch as encode_batch,
    encode_header as encode_header,
    entry_in as entry_in,
    fill as fill,
    find_frame as find_frame,
    fnv1a64 as fnv1a64,
    frame_size as frame_size,
    header_check as header_check,
    is_zero as is_zero,
    measure as measure,
    mix64 as mix64,
    payload_bytes as payload_bytes,
    peek_header as peek_header,
    seek as seek,
    verify as verify,
    walk as walk,
)

COMPILED: Literal[True]

class Stage:
    """Memory for frames that wait for a sync. Nothing in it has a name in Python, nor a pure twin."""
