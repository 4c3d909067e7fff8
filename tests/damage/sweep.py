"""Damage of all kinds, in portions that a seed names: ``run_bits`` and ``run_kinds`` count what they did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from random import Random

from .disks import FolderDisks, MakeDisk, memory_disk
from .examine import examine
from .kinds import KINDS, Damaged, flipped, spliced_slot, swapped_slots
from .reference import Reference, build

STRIPE_BYTES = 1024
"""Bytes of which one seed of ``run_bits`` flips every bit."""
DRAWS = 50
THOROUGH_EACH = 16
"""One in so many damaged directories is also written to, closed and opened again."""

NOT_KILLED = (spliced_slot, swapped_slots)
"""Not on what a killed process leaves: a block that nobody marked is vouched for by its header page alone.
Where that is gone with its copy, nothing says that the block was ever there; see also ``takes_header``."""

reference = cache(build)


def flip(
    found: Reference, path: str, at: int, bit: int, counts: Counter[str], make_disk: MakeDisk = memory_disk
) -> None:
    """Flip one bit and look. Raises: AssertionError: a law was broken."""
    counts["flips"] += 1
    thorough = counts["flips"] % THOROUGH_EACH == 0
    try:
        files = flipped(found.files, path, at, bit)
        outcome = examine(
            found, files, [(path, at, at + 1)], may_refuse=False, thorough=thorough, make_disk=make_disk
        )
    except Exception as error:
        raise AssertionError(f"bit {bit} of byte {at} of {path}: {type(error).__name__}: {error}") from error
    if found.payload_at(path, at):
        counts["payload flips"] += 1
        counts["payload flips that cost one entry"] += outcome.lost == 1
    counts["entries lost"] += outcome.lost


def run_bits(state: str, checksum: str, seed: int, make_disk: MakeDisk = memory_disk) -> Counter[str]:
    """Flip every bit of ``STRIPE_BYTES`` bytes of a directory, one at a time."""
    found = reference(state, checksum)
    counts: Counter[str] = Counter()
    for number in range(seed * STRIPE_BYTES, min((seed + 1) * STRIPE_BYTES, found.size_bytes)):
        path, at = found.place(number)
        for bit in range(8):
            flip(found, path, at, bit, counts, make_disk)
    return counts


def run_bits_on_disk(backend: str, seed: int) -> Counter[str]:
    """Do the same with the files of a closed log in a folder, opened by a real backend."""
    disks = FolderDisks(backend)
    try:
        return run_bits("closed", "fnv1a64", seed, disks)
    finally:
        disks.remove()


def flip_one_bit_each(
    state: str, checksum: str, places: Iterable[int], make_disk: MakeDisk = memory_disk
) -> Counter[str]:
    """Flip one bit of each of these bytes."""
    found = reference(state, checksum)
    counts: Counter[str] = Counter()
    for number in places:
        path, at = found.place(number)
        flip(found, path, at, number * 5 % 8, counts, make_disk)
    return counts


def structured(found: Reference) -> list[int]:
    """Return the bytes that hold something, or lie beside something that does."""
    places: list[int] = []
    first = 0
    for _path, data in sorted(found.files.items()):
        for at in range(0, len(data), 16):
            if any(data[max(0, at - 8) : at + 24]):
                places += range(first + at, first + min(at + 16, len(data)))
        first += len(data)
    return places


def run_kinds(state: str, checksum: str, seed: int, draws: int = DRAWS) -> Counter[str]:
    """Damage a directory in each way, ``draws`` times. Raises: AssertionError: a law was broken."""
    found = reference(state, checksum)
    random = Random(f"damage {state} {checksum} {seed}")
    counts: Counter[str] = Counter()
    for kind in KINDS:
        if state == "killed" and kind in NOT_KILLED:
            continue
        for _ in range(draws):
            _draw(found, kind, random, counts)
    return counts


def _draw(
    found: Reference, kind: Callable[[Reference, Random], Damaged], random: Random, counts: Counter[str]
) -> None:
    damaged = kind(found, random)
    if damaged.takes_header and found.is_killed:
        return
    counts["directories"] += 1
    thorough = counts["directories"] % THOROUGH_EACH == 0
    try:
        outcome = examine(
            found, damaged.files, damaged.ranges, may_refuse=damaged.may_refuse, thorough=thorough
        )
    except Exception as error:
        where = f"{damaged.kind} {damaged.ranges}"
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    counts["refused"] += outcome.is_refused
    counts["entries lost"] += outcome.lost
