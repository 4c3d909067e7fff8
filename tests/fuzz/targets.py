"""The fuzz targets by name. A target takes bytes and raises for a defect; anything else is well."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Optional

from . import directory, frames, names, pagebytes
from .bytesource import mutate

TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frames.run,
    "pages": pagebytes.run,
    "directory": directory.run,
    "cursors": directory.run_cursors,
    "names": names.run,
    "config": names.run_config,
}
CORPUS = Path(__file__).with_name("corpus")
INPUT_SECONDS_MAX = 10.0
"""No input may take longer."""


class Finding(AssertionError):
    """A target failed on an input; the message repeats it."""


def corpus(target: str) -> list[bytes]:
    """Return the inputs that are kept for a target."""
    return [path.read_bytes() for path in sorted((CORPUS / target).glob("*"))]


def try_input(target: str, data: bytes) -> None:
    """Run one input. Raises: Finding: it fails, or takes too long."""
    began = time.monotonic()
    try:
        TARGETS[target](data)
    except Exception as error:
        raise Finding(f"{target} fails on {data!r}: {type(error).__name__}: {error}") from error
    seconds = time.monotonic() - began
    if seconds > INPUT_SECONDS_MAX:
        raise Finding(f"{target} takes {seconds:.1f} s on {data!r}")


def hunt(target: str, seed: int, seconds: float, count_max: Optional[int] = None) -> int:
    """Run mutated inputs until the time or the count is over; each depends on seed and number alone.

    Returns: how many. Raises: Finding, with the seed and the number of the input.
    """
    known = corpus(target) or [b""]
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until and (count_max is None or number < count_max):
        try:
            try_input(target, make_input(known, seed, number))
        except Finding as finding:
            raise Finding(f"seed {seed}, input {number}: {finding}") from finding.__cause__
        number += 1
    return number


def make_input(known: list[bytes], seed: int, number: int) -> bytes:
    """Return input ``number`` of a seed: one of the corpus after several rounds of changes, or noise."""
    rng = random.Random(f"{seed}:{number}")
    if rng.randrange(8) == 0:
        return rng.randbytes(rng.randrange(1, 200))
    data = rng.choice(known)
    for _ in range(rng.randrange(1, 5)):
        data = mutate(data, known, rng)
    return data
