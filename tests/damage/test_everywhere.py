"""One bit of every byte that holds something, and random damage of every kind: contained and reported.

Of each damaged directory everything is read. No payload is wrong, repeated or made up; what is lost lay
in a damaged block and is reported; a cursor skips nothing; a flip inside a payload costs its own entry.
`python tests/torture --bar bit-flips` flips every bit.
"""

from __future__ import annotations

from unittest import mock

import pytest

from walrus_core import hot
from walrus_core.cursorfile import CursorFile
from walrus_core.engine import Engine

from .disks import BACKENDS, FolderDisks
from .reference import CHECKSUMS, STATES, build
from .sweep import flip_one_bit_each, reference, run_kinds, structured

EMPTY_EACH = 61
"""Of bytes in the middle of zeros, one in so many."""
SHARE = 1 if hot.COMPILED else 8
DRAWS = 12 if hot.COMPILED else 3
PARTS = 6
FILES_STEP = 41
"""Of bytes that hold something, one in so many, where each directory is written to files."""


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(("state", "step"), [("closed", 1), ("killed", 5)])
def test_one_bit_of_every_byte(state: str, step: int, part: int) -> None:
    """Of a log that was closed; of one that a killed process left, of every fifth byte."""
    found = reference(state, "fnv1a64")
    empty = range(0, found.size_bytes, EMPTY_EACH * SHARE)
    places = sorted({*structured(found)[:: step * SHARE], *empty})[part::PARTS]
    counts = flip_one_bit_each(state, "fnv1a64", places)
    assert counts["flips"] == len(places)
    assert counts["payload flips"] > 50
    one = counts["payload flips that cost one entry"]
    assert one == counts["payload flips"] if state == "closed" else 2 * one > counts["payload flips"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_bit_of_some_bytes_of_files(backend: str) -> None:
    """In a folder, under a real backend, a sample of the same."""
    pytest.importorskip(f"walrus_{backend}")
    places = structured(reference("closed", "fnv1a64"))[:: FILES_STEP * SHARE]
    disks = FolderDisks(backend)
    try:
        counts = flip_one_bit_each("closed", "fnv1a64", places, disks)
    finally:
        disks.remove()
    assert counts["flips"] == len(places)
    assert counts["payload flips"] == counts["payload flips that cost one entry"] > 10


@pytest.mark.parametrize("checksum", CHECKSUMS)
@pytest.mark.parametrize("state", STATES)
def test_damage_of_every_kind(state: str, checksum: str) -> None:
    counts = run_kinds(state, checksum, 0, DRAWS)
    assert counts["directories"] >= DRAWS * 8
    assert counts["entries lost"] > 0


def test_a_directory_is_what_it_says_it_is() -> None:
    found = build("closed", "crc32c")
    assert found.size_bytes >= 64 << 10
    assert found.payload_at(*next((frame.path, frame.end - 1) for frame in found.frames.values()))
    assert {path.rpartition(".")[2] for path in found.files} == {"db", "wal"}


def forgetful(_self: Engine, _topic: object) -> None:
    """Close without a note of where the topic ends."""


def refusing(self: CursorFile, _page: object, number: int) -> None:
    raise self._corrupt("refused", "cursor page identity", number)


MUTANTS = {
    "a close forgets where topics end": (Engine, "_mark_clean", forgetful),
    "a stained page refuses the log": (CursorFile, "_check_unowned", refusing),
}


def damage_all() -> None:
    for seed in range(40):
        run_kinds("closed", "fnv1a64", seed, 12)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_engine_is_noticed(name: str) -> None:
    """Damage that is not reported, and a directory that is refused for it, fail the examination."""
    target, attribute, replacement = MUTANTS[name]
    reference.cache_clear()
    try:
        with mock.patch.object(target, attribute, replacement), pytest.raises(AssertionError):
            damage_all()
    finally:
        reference.cache_clear()
