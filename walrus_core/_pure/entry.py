"""Checksums and the entry, in pure Python: the parts of the frame code without positions.

``frames.py`` builds on them; docs/format.md, "Frame", says what is computed over which bytes.
"""

from __future__ import annotations

import struct
from typing import Any, Union

Buffer = Union[bytes, bytearray, memoryview]

FNV_BASIS = 0xCBF29CE484222325
FNV_PRIME = 0x00000100000001B3
_MASK64 = (1 << 64) - 1


class Entry:
    """One entry as a reader gets it: immutable, owns its bytes.

    ``offset`` is its place in the topic, ``timestamp`` the nanoseconds since the epoch at which
    it was appended (informative, orders nothing), ``data`` the payload.
    """

    __slots__ = ("data", "offset", "timestamp")

    offset: int
    timestamp: int
    data: bytes

    def __init__(self, offset: int, timestamp: int, data: bytes) -> None:
        set_field = object.__setattr__
        set_field(self, "offset", offset)
        set_field(self, "timestamp", timestamp)
        set_field(self, "data", data)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Entry is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Entry is immutable: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return (self.offset, self.timestamp, self.data) == (other.offset, other.timestamp, other.data)

    def __hash__(self) -> int:
        return hash((self.offset, self.timestamp, self.data))

    def __repr__(self) -> str:
        return f"Entry(offset={self.offset}, timestamp={self.timestamp}, data={self.data!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # By way of hot.py, so that what one twin pickled the other can load.
        from walrus_core.hot import make_entry

        return make_entry, (self.offset, self.timestamp, self.data)


def fnv1a64(data: Buffer, state: int = FNV_BASIS) -> int:
    """Return FNV-1a 64 of ``data``, continued from ``state`` (draft-eastlake-fnv)."""
    for byte in bytes(data):
        state = ((state ^ byte) * FNV_PRIME) & _MASK64
    return state


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE = _crc32c_table()


def crc32c(data: Buffer, state: int = 0) -> int:
    """Return CRC-32C (Castagnoli, RFC 3720 B.4) of ``data``, continued from the CRC ``state``."""
    table = _CRC_TABLE
    value = state ^ 0xFFFFFFFF
    for byte in bytes(data):
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def mix64(value: int) -> int:
    """Return a bijective mix of 64 bits (the finaliser of SplitMix64; Steele, Lea, Flood 2014)."""
    value ^= value >> 30
    value = (value * 0xBF58476D1CE4E5B9) & _MASK64
    value ^= value >> 27
    value = (value * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def block_key(salt: int, block_sequence: int) -> int:
    """Return the 64-bit key of all frames of a block: FNV-1a 64 of salt and sequence."""
    return fnv1a64(struct.pack("<QQ", salt, block_sequence))


def header_check(key: int, length: int, word: int, index: int, timestamp: int) -> int:
    """Return the 32-bit check of a frame header.

    ``word`` is the little-endian u32 of kind, flags and batch_remaining (bytes 16 to 19).
    """
    value = mix64(key ^ (length | (word << 32)))
    value = mix64(value ^ timestamp)
    value = mix64((value + index) & _MASK64)
    return value >> 32
