"""Ways to damage a directory: single bits, and everything that media and people do besides."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from attrs import frozen

from walrus_core.format import SEGMENT_HEADER_SIZE

from .examine import Ranges
from .reference import SLOT, SLOTS, Files, Reference

SECTOR = 512
PAGE = 4096


@frozen
class Damaged:
    """A damaged directory. ``may_refuse``: so much is gone that it need not open. ``takes_header``: perhaps
    both copies of a block's header are gone."""

    kind: str
    files: Files
    ranges: Ranges
    may_refuse: bool = False
    takes_header: bool = False


def patched(files: Files, path: str, at: int, data: bytes) -> Files:
    """Return the files with other bytes at one place."""
    old = files[path]
    return {**files, path: old[:at] + data + old[at + len(data) :]}


def flipped(files: Files, path: str, at: int, bit: int) -> Files:
    """Return the files with one bit flipped."""
    return patched(files, path, at, bytes([files[path][at] ^ 1 << bit]))


def _somewhere(reference: Reference, random: Random, unit: int) -> tuple[str, int]:
    """Return (path, position) of a unit; two of three times of one that holds something."""
    for _ in range(50):
        path, at = reference.place(random.randrange(reference.size_bytes))
        at -= at % unit
        if random.random() < 0.3 or any(reference.files[path][at : at + unit]):
            break
    return path, at


def bits(reference: Reference, random: Random) -> Damaged:
    """Several bits within one sector."""
    path, at = _somewhere(reference, random, SECTOR)
    data = bytearray(reference.files[path][at : at + SECTOR])
    for _ in range(random.choice([2, 3, 8, 64])):
        data[random.randrange(SECTOR)] ^= 1 << random.randrange(8)
    return Damaged("bits", patched(reference.files, path, at, bytes(data)), [(path, at, at + SECTOR)])


def junk(reference: Reference, random: Random) -> Damaged:
    """Random bytes over a range of any length inside a sector."""
    path, at = _somewhere(reference, random, SECTOR)
    length = random.randint(1, SECTOR)
    at += random.randint(0, SECTOR - length)
    files = patched(reference.files, path, at, random.randbytes(length))
    return Damaged("junk", files, [(path, at, at + length)])


def filled_sector(reference: Reference, random: Random) -> Damaged:
    """A sector of zeros or ones."""
    path, at = _somewhere(reference, random, SECTOR)
    files = patched(reference.files, path, at, random.choice([b"\0", b"\0", b"\xff"]) * SECTOR)
    return Damaged("filled sector", files, [(path, at, at + SECTOR)])


def swapped_sectors(reference: Reference, random: Random) -> Damaged:
    """Two sectors in each other's place."""
    (path, at), (other, there) = (_somewhere(reference, random, SECTOR) for _ in range(2))
    here = reference.files[path][at : at + SECTOR]
    files = patched(reference.files, path, at, reference.files[other][there : there + SECTOR])
    files = patched(files, other, there, here)
    # Both in one page of cursors.db may be the identity and its copy.
    is_page = path == other and at // PAGE == there // PAGE
    is_shared = is_page and path.endswith("cursors.db")
    ranges = [(path, at, at + SECTOR), (other, there, there + SECTOR)]
    return Damaged("swapped sectors", files, ranges, may_refuse=is_shared, takes_header=is_page)


def misdirected_sector(reference: Reference, random: Random) -> Damaged:
    """A sector that was written to the place of another one."""
    (path, at), (other, there) = (_somewhere(reference, random, SECTOR) for _ in range(2))
    files = patched(reference.files, path, at, reference.files[other][there : there + SECTOR])
    return Damaged("misdirected sector", files, [(path, at, at + SECTOR)])


def stale_sector(reference: Reference, random: Random) -> Damaged:
    """A sector as it was at an earlier time."""
    path, at = _somewhere(reference, random, SECTOR)
    old = reference.older.get(path, b"")[at : at + SECTOR].ljust(SECTOR, b"\0")
    return Damaged("stale sector", patched(reference.files, path, at, old), [(path, at, at + SECTOR)])


def spliced_sector(reference: Reference, random: Random) -> Damaged:
    """The same sector of another log."""
    path, at = _somewhere(reference, random, SECTOR)
    other = reference.foreign.get(path, b"")[at : at + SECTOR].ljust(SECTOR, b"\0")
    files = patched(reference.files, path, at, other)
    # The header of cursors.db says which log this is. A sound one of another log makes it that one.
    is_name = path.endswith("cursors.db") and at == 0
    return Damaged("spliced sector", files, [(path, at, at + SECTOR)], may_refuse=is_name)


def _slot(reference: Reference, random: Random) -> tuple[str, int]:
    path = random.choice([path for path in sorted(reference.files) if path.endswith(".wal")])
    return path, SEGMENT_HEADER_SIZE + random.randrange(SLOTS) * SLOT


def spliced_slot(reference: Reference, random: Random) -> Damaged:
    """A slot of another log, or of another place."""
    (path, at), (other, there) = (_slot(reference, random) for _ in range(2))
    source = random.choice([reference.foreign, reference.files])
    data = source.get(other, b"")[there : there + SLOT].ljust(SLOT, b"\0")
    return Damaged("spliced slot", patched(reference.files, path, at, data), [(path, at, at + SLOT)])


def swapped_slots(reference: Reference, random: Random) -> Damaged:
    """Two slots in each other's place."""
    (path, at), (other, there) = (_slot(reference, random) for _ in range(2))
    here = reference.files[path][at : at + SLOT]
    files = patched(reference.files, path, at, reference.files[other][there : there + SLOT])
    files = patched(files, other, there, here)
    return Damaged("swapped slots", files, [(path, at, at + SLOT), (other, there, there + SLOT)])


def other_length(reference: Reference, random: Random) -> Damaged:
    """A file that was cut off, or that something was written behind."""
    path = random.choice(sorted(reference.files))
    data = reference.files[path]
    if random.random() < 0.7:
        unit = random.choice([1, SECTOR, PAGE])
        length = random.randrange(len(data) // unit) * unit
        files = {**reference.files, path: data[:length]}
        return Damaged("cut off", files, [(path, length, len(data))], may_refuse=True)
    length = random.choice([1, SECTOR, PAGE, SLOT])
    more = random.choice([bytes(length), random.randbytes(length)])
    return Damaged("extended", {**reference.files, path: data + more}, [], may_refuse=True)


KINDS: tuple[Callable[[Reference, Random], Damaged], ...] = (
    bits,
    junk,
    filled_sector,
    swapped_sectors,
    misdirected_sector,
    stale_sector,
    spliced_sector,
    spliced_slot,
    swapped_slots,
    other_length,
)
