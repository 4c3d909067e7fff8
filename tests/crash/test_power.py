"""Power loss on a simulated disk: laws 1 to 5 after any crash, in recovery too, several in a row.

WALRUS_CRASH_SEEDS chooses the runs: a count (default 400, fewer with the pure twin) or a range such
as 1000:2000. A failure names its seed; `pytest "tests/crash/test_power.py::test_seed[17]"` or
WALRUS_CRASH_SEEDS=17:18 repeats it alone. WALRUS_CRASH_TRACE is how many steps the message shows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from walrus_core import allocator, chain, cursor, files, hot, recovery, segment, syncer

from .power import Failed, run

COUNT = 400 if hot.COMPILED else 100
MUTANT_SEEDS = 400


def seeds() -> range:
    first, _, last = os.environ.get("WALRUS_CRASH_SEEDS", str(COUNT)).rpartition(":")
    return range(int(first or 0), int(last))


@pytest.mark.parametrize("seed", seeds())
def test_seed(seed: int) -> None:
    run(seed)


# --- would the runs notice? ------------------------------------------------------------------


def no_file_sync(_self: files.FileCache, targets: Any) -> int:
    """Say that everything is durable, and do nothing."""
    for file in targets:
        file.synced = file.written
    return 1


def no_directory_sync(gate: Any, path: str, operation: str, call: Callable[[], Any], poisons: bool) -> Any:
    """Leave out the sync of the directory after a segment was made or removed."""
    return None if operation == "sync" else files.wrap_directory_call(gate, path, operation, call, poisons)


def checkpoint_first(self: cursor.Cursor, offset: int) -> None:
    """Make a checkpoint durable without the entries that it passes."""
    self.write_state(offset)
    self._cursors.sync()
    self.saved_offset = offset


def lazy_checkpoint(self: cursor.Cursor, offset: int, _persist_every: int) -> None:
    """Leave the checkpoint to sync and close."""
    self.ready.move(offset)


def trusting_tail(_block: Any, _at: int) -> bool:
    """Take it for granted that nothing stands behind the last good frame."""
    return True


def cached_truth(*_arguments: Any) -> None:
    """Believe the cache after a failed sync or the death of a process."""


def left_clean(_self: syncer.Syncer) -> None:
    """Write behind a clean mark that the next open will believe."""


def sequences_in_memory(self: allocator.Allocator) -> int:
    """Hand out block sequences without making a reservation durable first."""
    sequence = max(self._next_block, 1)
    self._next_block = sequence + 1
    return sequence


def partial_batches(found: Any, place: int, _starts: Any, _remaining: int, reason: str) -> None:
    """Cut behind the last sound frame, in the middle of a batch."""
    for later in found.kept[place + 1 :]:
        found.states.pop(later.block.sequence, None)
        found.dropped.append(later)
    del found.kept[place + 1 :]
    item = found.kept[place]
    found.cut_at = (item, found.states[item.block.sequence], reason)


@contextmanager
def patched(target: Any, name: str, replacement: Any) -> Iterator[None]:
    with mock.patch.object(target, name, replacement):
        yield


MUTANTS = {
    "no sync of files": (files.FileCache, "sync", no_file_sync),
    "no sync of the directory": (segment, "wrap_directory_call", no_directory_sync),
    "checkpoint before its entries": (cursor.Cursor, "persist", checkpoint_first),
    "checkpoint not persisted": (cursor.Cursor, "advance", lazy_checkpoint),
    "torn tail taken for clean": (chain, "rest_is_zero", trusting_tail),
    "recovery believes the cache": (recovery, "settle_cache", cached_truth),
    "clean marks believed too long": (syncer.Syncer, "leave_clean", left_clean),
    "block sequences not reserved": (allocator.Allocator, "_take_sequence", sequences_in_memory),
    "batches cut in the middle": (chain, "_cut", partial_batches),
}


@pytest.mark.skipif(
    not hot.COMPILED, reason="what is noticed does not depend on the twin: see the compiled run"
)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_engine_is_noticed(name: str) -> None:
    """Each of these defects, put into the engine, must fail some run."""
    target, attribute, replacement = MUTANTS[name]
    with patched(target, attribute, replacement):
        for seed in range(MUTANT_SEEDS):
            try:
                run(seed)
            except Failed:
                return
    pytest.fail(f"{MUTANT_SEEDS} runs did not notice: {name}")
