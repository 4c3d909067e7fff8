"""KeyboardInterrupt at every bytecode of every operation: it happens wholly or not at all.

After each interrupt the same log is used on, on this and on another thread, and compared with a
list; so are the images that a kill and that a power cut would leave right then and later. Or it is closed,
or dropped, at once. Nothing may hang, no slot may stay lost behind a reopen, no file open behind a close.

WALRUS_SWEEP=all strikes every place (an hour), else a seeded choice of them; WALRUS_SWEEP_SEED
takes another choice, WALRUS_SWEEP_AT=number strikes one place only.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import sys
import warnings
import weakref
from collections.abc import Iterator
from typing import Any, Optional

import pytest

from walrus_core import hot, syncer
from walrus_core.errors import LockedError
from walrus_core.flusher import Flusher
from walrus_core.front import Express

from .ledger import WHOLE_BLOCK, Effect, Images, Ledger, Model
from .points import CAN_SWEEP, Struck, strike
from .scenarios import SCENARIOS, SCHEDULES, SMALL, Scenario
from .state import checksums_once, digest

PLACES = 12 if hot.COMPILED else 5
"""Places struck for each operation, where not all are."""
SEED = int(os.environ.get("WALRUS_SWEEP_SEED", "1"))
FAILURES_SHOWN = 5
WATCHDOG_S = 120.0

CASES = [(name, schedule) for name in SCENARIOS for schedule in SCHEDULES]

pytestmark = [
    pytest.mark.timeout(0),  # each place has a watchdog of its own
    pytest.mark.skipif(not CAN_SWEEP, reason="CPython 3.11 or later: its table of handlers is asked"),
]


@pytest.fixture(autouse=True)
def _same_in_each_run(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Every run of an operation takes the same path, so that a number names a place."""
    for module, name, replacement in checksums_once():
        monkeypatch.setattr(module, name, replacement)
    # Whether a mark is due is a question of time: here it always is.
    monkeypatch.setattr(syncer, "MARK_INTERVAL_S", 0.0)
    if "append_wakes_thread" not in request.node.name:
        monkeypatch.setattr(Flusher, "wake", lambda _self: None)


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    yield
    faulthandler.cancel_dump_traceback_later()


class Sweep:
    """One scenario under one schedule, struck at one place after the other."""

    def __init__(self, scenario: Scenario, schedule: str) -> None:
        self.scenario = scenario
        self.options: dict[str, Any] = {**SMALL, "fsync_schedule": SCHEDULES[schedule], **scenario.options}
        self.images = Images(self.options)
        self._seen: set[bytes] = set()
        base = Ledger(self.options)
        base.open()
        scenario.build(base)
        self.store = base.killed()
        base.close()
        if not scenario.is_killed:
            self.store = base.killed()
        self.model: Model = base.model

    def run(self, number: int) -> Struck:
        """Strike place ``number`` (0: none) and check everything. Raises: AssertionError."""
        faulthandler.dump_traceback_later(WATCHDOG_S, exit=True, file=sys.__stderr__)
        ledger = Ledger(self.options, self.store, self.model)
        try:
            return self._run(ledger, number)
        finally:
            if ledger.wal is not None and not ledger.wal.is_closed:
                ledger.wal._engine.abandon()

    def _run(self, ledger: Ledger, number: int) -> Struck:
        scenario, effect = self.scenario, self.scenario.effect
        if scenario.is_open:
            ledger.open()
            scenario.warm(ledger)
        before = durable_offsets(ledger)
        with warnings.catch_warnings():
            # A log that is opened and not handed to the caller any more is dropped unclosed.
            warnings.simplefilter("ignore" if not scenario.is_open else "error", ResourceWarning)
            # The express way runs no bytecode: what it would do is swept on the long way. (With a wait
            # for the sync it does, and is swept too.)
            wal = ledger.wal
            ways = [Express()] if wal is None else [wal._express, wal._in_flight]
            if scenario.name != "append_express":
                for express in ways:
                    express.blocked = True
            struck = strike(number, lambda: scenario.act(ledger))
            if wal is not None and ledger.wal is wal:
                for express in ways:
                    express.blocked = wal._engine.gate.blocks_calls
            del wal
        state = digest(ledger.wal, ledger.backend)
        if state in self._seen:
            return struck
        try:
            self._check(ledger, effect, before, happened=not struck.is_struck)
        except BaseException as error:
            raise AssertionError(
                f"place {number}, {struck.place}: {type(error).__name__}: {error}"
            ) from error
        self._seen.add(state)
        return struck

    def _check(self, ledger: Ledger, effect: Effect, before: dict[str, int], happened: bool) -> None:
        durable = {**before, **durable_offsets(ledger)}
        self.images.check(ledger.killed(), ledger.model, effect, "killed at once")
        self.images.check(ledger.backend.synced_store(), ledger.model, effect, "power cut at once", durable)
        is_reopened = ledger.wal is None or ledger.wal.is_closed
        if is_reopened:
            self._open_again(ledger)
        ledger.settle(effect, happened, is_reopened)
        ledger.go_on()
        self.images.check(ledger.killed(), ledger.model, Effect(), "killed later")
        ledger.sync()
        self._check_synced(ledger)
        ledger.append("a", b"last")
        ledger.close()

    def _check_synced(self, ledger: Ledger) -> None:
        """Right after a sync: what a power cut leaves, and what is there after a close. Leaves the log open."""
        durable = {topic: len(entries) for topic, entries in ledger.model.entries.items()}
        self.images.check(ledger.backend.synced_store(), ledger.model, Effect(), "power cut later", durable)
        ledger.close()
        assert ledger.open().recovery_report.damages == ()
        self.images.check(ledger.killed(), ledger.model, Effect(), "opened again")

    def _open_again(self, ledger: Ledger) -> None:
        """Open behind a struck close or open."""
        if ledger.wal is not None:
            ledger.close()
        try:
            ledger.open()
        except LockedError:
            assert not self.scenario.is_open, "a struck close keeps the directory locked"
            # Struck between the end of the opening and the caller's assignment: nobody can close
            # that log, it goes with the garbage collector.
            gc.collect()
            ledger.open()


def durable_offsets(ledger: Ledger) -> dict[str, int]:
    """Return what the log says is durable now, nothing where it is not open."""
    wal = ledger.wal
    if wal is None or wal.is_closed:
        return {}
    return {topic: wal.durable_offset(topic) for topic in wal.topics()}


def places(whole: Struck, name: str, count: int = PLACES) -> list[int]:
    """Return the numbers of the places to strike: all, or a choice of ``count``."""
    if "WALRUS_SWEEP_AT" in os.environ:
        return [int(os.environ["WALRUS_SWEEP_AT"])]
    telling = whole.telling()
    if os.environ.get("WALRUS_SWEEP") == "all":
        return telling
    return sorted(random.Random(f"{SEED} {name}").sample(telling, min(len(telling), count)))


def strike_all(sweep: Sweep, numbers: list[int]) -> None:
    """Strike these places. Raises: AssertionError: what went wrong at the first few of them."""
    failures: list[str] = []
    for number in numbers:
        try:
            assert sweep.run(number).is_struck
        except Exception as error:
            failures.append(f"{error}"[:600])
            if len(failures) >= FAILURES_SHOWN:
                break
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize(("name", "schedule"), CASES, ids=lambda value: value)
def test_an_interrupt_at_any_place(name: str, schedule: str) -> None:
    sweep = Sweep(SCENARIOS[name], schedule)
    whole = sweep.run(0)
    assert whole.count > 20, "nothing was swept"
    strike_all(sweep, places(whole, f"{name} {schedule}"))


class SlotSweep(Sweep):
    """Asks only how many slots are in use after the next sync: as many as without the interrupt."""

    live: Optional[int] = None

    def _check(self, ledger: Ledger, effect: Effect, before: dict[str, int], happened: bool) -> None:
        ledger.sync()
        live = sum(segment.live for segment in ledger.wal._engine.allocator.segments.values())
        self.live = live if self.live is None else self.live
        assert live == self.live, f"{live} slots are in use, not {self.live}"


class CloseSweep(Sweep):
    """Closes at once, as the end of a ``with`` block does, and opens again."""

    def _check(self, ledger: Ledger, effect: Effect, before: dict[str, int], happened: bool) -> None:
        # A close that was struck itself may have synced nothing.
        ends = {topic: len(entries) for topic, entries in ledger.model.entries.items()}
        durable = before if ledger.wal.is_closed else ends
        ledger.close()
        self.images.check(ledger.killed(), ledger.model, effect, "closed")
        self.images.check(ledger.backend.synced_store(), ledger.model, effect, "power cut, closed", durable)
        assert ledger.open().recovery_report.damages == ()
        ledger.settle(effect, happened, is_reopened=True)
        ledger.close()


class DropSweep(Sweep):
    """Drops the log unclosed, as a program does that ends by the interrupt, and opens again."""

    def _check(self, ledger: Ledger, effect: Effect, before: dict[str, int], happened: bool) -> None:
        dropped = weakref.ref(ledger.wal)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            ledger.wal = None
            gc.collect()
        assert dropped() is None, "somebody keeps the log"
        assert not ledger.backend.open_files, "files stay open behind a log that nobody has"
        self.images.check(ledger.killed(), ledger.model, effect, "dropped")
        assert ledger.open().recovery_report.damages == ()
        ledger.settle(effect, happened, is_reopened=True)
        ledger.close()


CASES_OF_OPEN_LOGS = [case for case in CASES if SCENARIOS[case[0]].is_open]


@pytest.mark.parametrize(("name", "schedule"), CASES_OF_OPEN_LOGS, ids=lambda value: value)
def test_a_log_dropped_right_after_an_interrupt_leaves_nothing_open(name: str, schedule: str) -> None:
    sweep = DropSweep(SCENARIOS[name], schedule)
    whole = sweep.run(0)
    # Fewer: each collects all garbage of the process.
    strike_all(sweep, places(whole, f"drop {name} {schedule}", PLACES // 3))


@pytest.mark.parametrize(("name", "schedule"), CASES_OF_OPEN_LOGS, ids=lambda value: value)
def test_a_close_right_after_an_interrupt_leaves_nothing_open(name: str, schedule: str) -> None:
    sweep = CloseSweep(SCENARIOS[name], schedule)
    whole = sweep.run(0)
    strike_all(sweep, places(whole, f"close {name} {schedule}"))


class ReclaimSweep(Sweep):
    """Syncs, goes on, reads what was synced and gives it back: what the interrupt left is met before its seal."""

    def _check(self, ledger: Ledger, effect: Effect, before: dict[str, int], happened: bool) -> None:
        ledger.wal.sync()
        ledger.settle(effect, happened)
        ledger.read("a", ledger.wal.durable_offset("a") - ledger.wal.cursor_offset("a"))
        ledger.wal._engine.reclaimer.run()
        # Takes a slot, if one is free too early.
        ledger.append("elsewhere", b"e" * WHOLE_BLOCK)
        ledger.sync()
        ledger.sync()
        self._check_synced(ledger)
        ledger.close()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "name", ["append_leases", "append_creates_segment", "append_two_slots", "batch_blocks", "batch_segments"]
)
def test_what_an_interrupt_left_is_not_given_back_before_its_seal(name: str, schedule: str) -> None:
    sweep = ReclaimSweep(SCENARIOS[name], schedule)
    whole = sweep.run(0)
    numbers = set(places(whole, f"reclaim {name} {schedule}"))
    # All between the new block and its first frame, of which a choice hits few.
    numbers |= {number for number in whole.telling() if whole.functions[number - 1] == "_append_here"}
    strike_all(sweep, sorted(numbers))


@pytest.mark.parametrize(
    ("sweep_class", "function"),
    [(SlotSweep, "_detach"), (Sweep, "take_lock")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_interrupt_at_every_place_where_two_steps_must_be_one(
    sweep_class: type[Sweep], function: str
) -> None:
    """The choice above hits few places of one function: these have every place struck."""
    sweep = sweep_class(SCENARIOS["sync_reclaims"], "never")
    whole = sweep.run(0)
    numbers = [number for number in whole.telling() if whole.functions[number - 1] == function]
    assert len(numbers) > 5, f"{function} was not swept"
    strike_all(sweep, numbers)
