"""MemoryError at every allocation of an operation: no crash, and it happens wholly or not at all.

CPython's own test module can make the n-th allocation from now fail. The operations are those of the
interrupts, in a forked child, so that a crash is a failed test. WALRUS_SWEEP=all fails every allocation of
every operation, else a seeded choice; WALRUS_SWEEP_SEED takes another one, WALRUS_SWEEP_AT=number
one allocation only.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import random
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from walrus_core import hot, syncer
from walrus_core.backend import SegmentFile
from walrus_core.errors import WalrusError
from walrus_core.flusher import Flusher
from walrus_core.memory import MemoryBackend, MemoryFile, MemoryStore

from .ledger import Effect, Images, Ledger
from .scenarios import SCENARIOS, SCHEDULES, SMALL, Scenario
from .state import checksums_once

PLACES = 8 if hot.COMPILED else 3
"""Allocations failed for each operation, where not all are."""
SEED = int(os.environ.get("WALRUS_SWEEP_SEED", "1"))
QUIET_RUN = 40
"""So many allocations in a row whose failure shows nowhere are behind the end of the operation."""
CASES = [(name, schedule) for name in SCENARIOS for schedule in SCHEDULES if "thread" not in name]

pytestmark = [
    pytest.mark.timeout(3600 if os.environ.get("WALRUS_SWEEP") == "all" else 300),
    pytest.mark.skipif(
        importlib.util.find_spec("_testcapi") is None,
        reason="this Python has no _testcapi to fail allocations",
    ),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
]


@pytest.fixture(autouse=True)
def _same_in_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flusher, "wake", lambda _self: None)
    monkeypatch.setattr(syncer, "MARK_INTERVAL_S", 0.0)
    for module, name, replacement in checksums_once():
        monkeypatch.setattr(module, name, replacement)


class SteadyBackend(MemoryBackend):
    """A memory backend whose calls are atomic like those of a system, also when memory runs out."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store=store)
        self.open_files: weakref.WeakSet[MemoryFile] = weakref.WeakSet()

    def create(self, path: str, *, size_bytes: int) -> SegmentFile:
        data = bytearray(size_bytes)
        file = MemoryFile(data, self.store.lock)
        if path in self.store.files:
            raise FileExistsError(path)
        self.store.files[path] = data
        return file

    def rename(self, old_path: str, new_path: str) -> None:
        files = dict(self.store.files)
        files[new_path] = files.pop(old_path)
        self.store.files = files


def fill_free_tuples() -> None:
    """Let the interpreter keep tuples of three for use without an allocation.

    It makes one to call ``__exit__`` of a lock; where that fails the lock stays held, and no Python code can
    help it: ``with`` is the only way to take a lock that no signal can tear apart. Mostly there are some.
    """
    made = [tuple([number, number, number]) for number in range(64)]
    del made


class MemorySweep:
    """One scenario under one schedule, whose allocations fail one after the other."""

    def __init__(self, scenario: Scenario, schedule: str) -> None:
        self.scenario = scenario
        self.options: dict[str, Any] = {**SMALL, "fsync_schedule": SCHEDULES[schedule], **scenario.options}
        self.images = Images(self.options)
        base = Ledger(self.options)
        base.open()
        scenario.build(base)
        self.store, self.model = base.killed(), base.model
        base.close()
        if not scenario.is_killed:
            self.store = base.killed()

    def run(self, number: int) -> bool:
        """Fail allocation ``number`` of the operation and check everything. Returns: whether it showed."""
        import _testcapi

        ledger = Ledger(self.options, self.store, self.model)
        backend: Any = SteadyBackend(ledger.store)
        ledger.backend = backend
        if self.scenario.is_open:
            ledger.open()
            self.scenario.warm(ledger)
        has_shown = False
        fill_free_tuples()
        try:
            _testcapi.set_nomemory(number, number + 1)
            try:
                self.scenario.act(ledger)
            finally:
                _testcapi.remove_mem_hooks()
        except (MemoryError, WalrusError):
            has_shown = True
        except (RuntimeError, SystemError) as error:
            # The interpreter's ways to say it: of a lock, and, up to 3.11, of a frame of Python code.
            if "allocate lock" not in str(error) and str(error) != "error return without exception set":
                raise
            has_shown = True
        self._check(ledger, self.scenario.effect, not has_shown)
        return has_shown

    def _check(self, ledger: Ledger, effect: Effect, happened: bool) -> None:
        self.images.check(ledger.killed(), ledger.model, effect, "killed at once")
        is_reopened = ledger.wal is None or ledger.wal.is_closed
        if is_reopened:
            if ledger.wal is not None:
                ledger.close()
            ledger.open()
        ledger.settle(effect, happened, is_reopened)
        ledger.go_on()
        self.images.check(ledger.killed(), ledger.model, Effect(), "killed later")
        ledger.sync()
        ledger.close()
        assert ledger.open().recovery_report.damages == ()
        ledger.append("a", b"last")
        ledger.close()

    def numbers(self, name: str) -> Iterator[int]:
        """Yield the numbers of the allocations to fail."""
        if "WALRUS_SWEEP_AT" in os.environ:
            yield int(os.environ["WALRUS_SWEEP_AT"])
            return
        if os.environ.get("WALRUS_SWEEP") != "all":
            end = 16
            while any(self.run(number) for number in range(end, end + 4)):
                end *= 2
            yield from sorted(random.Random(f"{SEED} {name}").sample(range(1, end), PLACES))
            return
        number = quiet = 0
        while quiet < QUIET_RUN:
            number += 1
            yield number
            quiet = quiet + 1 if not self.has_shown else 0

    failed = 0
    """So many allocations were failed."""
    has_shown = False
    """The allocation failed last was missed by the operation."""

    def failures(self, name: str) -> list[str]:
        """Fail them all. Returns: what went wrong."""
        found: list[str] = []
        number = 0
        try:
            for number in self.numbers(name):
                self.has_shown = self.run(number)
                self.failed += 1
        except Exception as error:
            found.append(f"allocation {number}: {type(error).__name__}: {error}"[:1000])
        return found


def in_child(work: Callable[[], list[str]]) -> list[str]:
    """Run ``work`` in a forked child. Returns: what it returns, or how the child died."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _work_and_exit(work, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _pid, status = os.waitpid(child, 0)
    if status:
        return [f"the child died: {os.waitstatus_to_exitcode(status)}"]
    found: list[str] = pickle.loads(answer)
    return found


def _work_and_exit(work: Callable[[], list[str]], writing: int) -> NoReturn:
    sys.unraisablehook = lambda _facts: None  # no memory inside a finaliser: nobody can be told
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(work()))
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize(("name", "schedule"), CASES, ids=lambda value: value)
def test_no_memory_at_any_allocation(name: str, schedule: str) -> None:
    sweep = MemorySweep(SCENARIOS[name], schedule)
    assert in_child(lambda: sweep.failures(f"{name} {schedule}")) == []
