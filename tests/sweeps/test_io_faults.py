"""Every call of the backend fails once or for ever: typed errors, a legal state, and on again.

A fixed run uses every operation of a log; its backend calls are numbered, and each one is made to
fail with EIO, ENOSPC, EDQUOT and EMFILE, writes with none, half or all of their bytes written. What may
follow is law: no bare OSError; no space or no descriptors changes nothing and goes by; a failed sync
and a write that fails otherwise poison; nothing acknowledged is lost, no half batch, no lost slot.

WALRUS_SWEEP=all fails every call in every way, else a seeded choice; WALRUS_SWEEP_SEED takes another
one, WALRUS_SWEEP_AT=place one place only, in every way.
"""

from __future__ import annotations

import errno
import os
import random

import pytest

from walrus_core import hot, syncer
from walrus_core.flusher import Flusher
from walrus_core.testing import Fault

from .counted import SPACE
from .every_fault import ShortBase, run_faults
from .io_run import TYPES, Base
from .ledger import Effect, Ledger, check_log
from .scenarios import BIG, SCHEDULES, SMALL
from .state import checksums_once

SHORT_PARTS = 8
FAULTS = 60 if hot.COMPILED else 20
"""Faults tried for each run and schedule, where not all are."""
SEED = int(os.environ.get("WALRUS_SWEEP_SEED", "1"))
FAILURES_SHOWN = 8
EVERY_OPERATION = set(
    [
        "make_directory",
        "list",
        "create",
        "open",
        "rename",
        "remove",
        "sync_dir",
        "sync",
        "sync_many",
        "read",
        "write",
        "write_many",
        "reserve",
        "discard",
        "close",
        "drop_cache",
    ]
)

pytestmark = pytest.mark.timeout(7200 if os.environ.get("WALRUS_SWEEP") == "all" else 300)


@pytest.fixture(autouse=True)
def _same_in_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the background thread does is done where the run says so: a number names a call."""
    monkeypatch.setattr(Flusher, "wake", lambda _self: None)
    monkeypatch.setattr(syncer, "MARK_INTERVAL_S", 0.0)
    for module, name, replacement in checksums_once():
        monkeypatch.setattr(module, name, replacement)


def chosen(base: Base, name: str) -> list[Fault]:
    """Return the faults to try."""
    faults = base.faults()
    if "WALRUS_SWEEP_AT" in os.environ:
        return [fault for fault in faults if fault.place == int(os.environ["WALRUS_SWEEP_AT"])]
    if os.environ.get("WALRUS_SWEEP") == "all":
        return faults
    return random.Random(f"{SEED} {name}").sample(faults, min(len(faults), FAULTS))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["new", "unclean"])
def test_any_call_fails(name: str, schedule: str) -> None:
    base = Base(name, schedule)
    operations = {operation for operation, _path in base.calls}
    assert operations == EVERY_OPERATION
    failures: list[str] = []
    for fault in chosen(base, f"{name} {schedule}"):
        try:
            run = base.run(fault)
            assert run.backend.failed or fault.place > len(base.calls)
        except AssertionError as error:
            failures.append(f"{error}"[:600])
            if len(failures) >= FAILURES_SHOWN:
                break
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("operation", ["reserve", "create", "write"])
@pytest.mark.parametrize("number", SPACE, ids=errno.errorcode.get)
def test_a_disk_that_is_full_for_long_costs_nothing(operation: str, number: int) -> None:
    """Hundreds of refused appends take no slot, no file and no number that is not given back."""
    ledger = Ledger({**SMALL, "fsync_schedule": SCHEDULES["never"]})
    ledger.open()
    for _ in range(3):
        ledger.append("a", BIG)
    files = set(ledger.store.files)
    ledger.backend.fail(operation, number=number, suffix=(".wal", ".free"), times=None, written=2000)
    refused = 0
    for count in range(300):
        try:
            if count % 3:
                ledger.append("a", BIG)
            else:
                ledger.batch("a", [b"x", BIG, b"y"])
        except TYPES[number]:
            refused += 1
            assert ledger.wal.next_offset("a") == len(ledger.model.entries["a"])
    assert refused > 290
    assert len(set(ledger.store.files) - files) <= 1
    ledger.backend.rules.clear()
    ledger.go_on()
    ledger.sync()
    ledger.close()
    wal = ledger.open()
    check_log(wal, ledger.model, Effect(), "opened again", None)
    assert [entry.data for entry in wal.topic("a")] == ledger.model.entries["a"][wal.oldest_offset("a") :]
    ledger.close()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_call_fails_in_every_way(schedule: str) -> None:
    """A short run, and of its calls each one with each error, short by a byte and to a byte, once and for
    ever."""
    base = ShortBase("unclean", schedule)
    assert {operation for operation, _path in base.calls} == EVERY_OPERATION
    # All of them where nothing is synced by itself, a share of the others: `python tests/torture` runs all.
    parts = SHORT_PARTS * (1 if schedule == "never" else 4) * (1 if hot.COMPILED else 4)
    tried = sum(run_faults(schedule, part, parts)["faults"] for part in range(SHORT_PARTS))
    assert tried >= len(base.faults()) * SHORT_PARTS // parts - SHORT_PARTS
