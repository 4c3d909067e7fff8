"""Power cuts before every operation, and in recoveries: each disk that may be left opens as it must.

WALRUS_CUT_SEEDS is how many workloads are cut, or a range such as 100:200; a failure names its seed.
`python tests/torture --bar power-loss` runs a million disks.
"""

from __future__ import annotations

import os
from unittest import mock

import pytest

from walrus_core import cursor, files, hot

from .cuts import run_cuts
from .power import Failed
from .test_power import checkpoint_first, no_file_sync

COUNT = 21 if hot.COMPILED else 2
MUTANT_SEEDS = 40


def seeds() -> range:
    first, _, last = os.environ.get("WALRUS_CUT_SEEDS", str(COUNT)).rpartition(":")
    return range(int(first or 0), int(last))


@pytest.mark.parametrize("seed", seeds())
def test_seed(seed: int) -> None:
    counts = run_cuts(seed)
    assert counts["states"] >= 20 * counts["cuts"] > 400
    assert counts["distinct"] > 50


def test_syncs_and_recoveries_are_cut() -> None:
    """What a workload does is drawn; a few of them together do everything."""
    counts = sum((run_cuts(seed, subsets=1) for seed in range(11)), start=run_cuts(11, subsets=1))
    assert counts["workloads"] == 12
    assert counts["cuts at a sync"] > 100
    assert counts["cuts at a discard"] > 5
    assert counts["cuts at a remove"] > 0
    assert counts["cuts at a write to cursors.db"] > 100
    assert counts["states in recovery"] > 5


MUTANTS = {
    "no sync of files": (files.FileCache, "sync", no_file_sync),
    "checkpoint before its entries": (cursor.Cursor, "persist", checkpoint_first),
}


@pytest.mark.skipif(
    not hot.COMPILED, reason="what is noticed does not depend on the twin: see the compiled run"
)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_engine_is_noticed(name: str) -> None:
    """A defect put into the engine must fail one of a few workloads."""
    target, attribute, replacement = MUTANTS[name]
    with mock.patch.object(target, attribute, replacement):
        for seed in range(MUTANT_SEEDS):
            try:
                run_cuts(seed, subsets=4)
            except Failed:
                return
    pytest.fail(f"{MUTANT_SEEDS} workloads did not notice: {name}")
