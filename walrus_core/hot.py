"""Picks the compiled twin of the frame code where it is installed, else the pure one.

``WALRUS_PURE=1`` in the environment forces the pure twin; ``COMPILED`` says which is in use.
A compiled module that is present but fails to load is an error, not a silent change of speed.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

_wants_pure = os.environ.get("WALRUS_PURE", "") not in ("", "0")

if TYPE_CHECKING or _wants_pure or importlib.util.find_spec("walrus_core._hot_c") is None:
    from walrus_core import _hot_py as twin
else:
    from walrus_core import _hot_c as twin

COMPILED: bool = twin.COMPILED
READS_FILES: bool = twin.READS_FILES
DONE, SHORT, BAD_HEADER, BAD_PAYLOAD = twin.DONE, twin.SHORT, twin.BAD_HEADER, twin.BAD_PAYLOAD
FNV_BASIS = twin.FNV_BASIS
CALL_BYTES_MIN = twin.CALL_BYTES_MIN

Entry = twin.Entry
Tail = twin.Tail
as_payload = twin.as_payload
block_key = twin.block_key
crc32c = twin.crc32c
decode = twin.decode
decode_file = twin.decode_file
encode_batch = twin.encode_batch
entry_in = twin.entry_in
fill = twin.fill
find_frame = twin.find_frame
fnv1a64 = twin.fnv1a64
frame_size = twin.frame_size
is_zero = twin.is_zero
measure = twin.measure
mix64 = twin.mix64
payload_bytes = twin.payload_bytes
peek_header = twin.peek_header
seek = twin.seek
verify = twin.verify
walk = twin.walk


def make_entry(offset: int, timestamp: int, data: bytes) -> Entry:
    """Rebuild a pickled entry with the twin in use here."""
    return Entry(offset, timestamp, data)


def describe() -> str:
    """Return "compiled" or "pure", with the module's name, for people."""
    return f"{'compiled' if COMPILED else 'pure Python'} ({twin.__name__})"
