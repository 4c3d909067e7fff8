"""Reads choices out of fuzz input, and changes input at random from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

Choice = TypeVar("Choice")

NUMBERS = (
    0, 1, 2, 3, 7, 8, 31, 32, 33, 255, 256, 511, 512, 4095, 4096, 4097, 16383, 16384, 65535, 65536,
    2**31 - 1, 2**31, 2**32 - 40, 2**32 - 9, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**63 + 1,
    2**64 - 2**32, 2**64 - 4096, 2**64 - 2, 2**64 - 1,
)  # fmt: skip
"""At the edges of fields, sums and signed numbers."""


class Source:
    """Fuzz input, read from its beginning; where it is over, everything is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """Return exactly ``count`` bytes."""
        part = self._data[self._at : self._at + count]
        self._at += count
        return part.ljust(count, b"\0")

    def rest(self) -> bytes:
        """Return all that is left."""
        part = self._data[self._at :]
        self._at = len(self._data)
        return part

    def byte(self) -> int:
        """Return a number below 256."""
        return self.take(1)[0]

    def number(self) -> int:
        """Return a number below 2**64: an edge, or eight bytes as they are."""
        choice = self.byte()
        return int.from_bytes(self.take(8), "little") if choice == 255 else NUMBERS[choice % len(NUMBERS)]

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """Return one of ``choices``."""
        return choices[self.byte() % len(choices)]


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random, size_max: int = 4096) -> bytes:
    """Return ``data`` with one to five changes, now and then spliced with another input."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        at = rng.randrange(len(out) + 1)
        step = rng.randrange(8)
        if step == 0 or not out:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 16)))
        elif step == 1:
            del out[at : at + rng.choice((1, 2, 4, 8, 64))]
        elif step == 2:
            out[at - 1] ^= 1 << rng.randrange(8)
        elif step == 3:
            out[at - 1] = rng.randrange(256)
        elif step == 4:
            width = rng.choice((1, 2, 4, 8))
            out[at : at + width] = (rng.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(width, "little")
        elif step == 5:
            piece = out[at : at + rng.choice((4, 16, 64))]
            other = rng.randrange(len(out) + 1)
            out[other : other + rng.choice((0, len(piece)))] = piece
        elif step == 6 and others:
            donor = rng.choice(others)
            start = rng.randrange(len(donor) + 1)
            out[at:] = donor[start:]
        else:
            out[at : at + 4] = bytes(4)
    return bytes(out[:size_max])
