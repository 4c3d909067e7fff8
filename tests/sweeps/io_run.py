"""A run in which one call of the backend fails, once or for ever, beside a model that says what is legal."""

from __future__ import annotations

import errno
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Optional

import pytest

from walrus_core.errors import (
    DiskFullError,
    PoisonedError,
    StorageError,
    SyncFailedError,
    TooManyFilesError,
    WalrusError,
)
from walrus_core.memory import MemoryBackend
from walrus_core.testing import Fault, FaultyBackend

from .counted import CHANGES, NUMBERS, PARTS, SPACE, SYNCS, WRITES
from .ledger import DEFAULT, PATH, Effect, Images, Ledger, Place, check_log
from .scenarios import BIG, SCHEDULES, SMALL, unclean

TYPES = {errno.ENOSPC: DiskFullError, errno.EDQUOT: DiskFullError, errno.EMFILE: TooManyFilesError}


class Run:
    """One run with one fault: operations beside the model, each one allowed to fail as it must."""

    def __init__(self, base: Base, fault: Optional[Fault]) -> None:
        self.ledger = Ledger(base.options, base.store, base.model)
        self.backend = FaultyBackend(MemoryBackend(store=self.ledger.store), emulates=True)
        self.backend.open_files = weakref.WeakSet()
        self.ledger.backend = self.backend
        self.backend.fault = fault
        self.fault = fault
        self.durable: dict[str, int] = {}
        self.effect = Effect(tears=fault is not None and fault.more != 0)
        self.since_open = 0
        """How many failures there were when the log was opened."""

    # --- what the log says of itself ----------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """The log is open."""
        return self.ledger.wal is not None and not self.ledger.wal.is_closed

    @property
    def is_poisoned(self) -> bool:
        """The open log takes no more writes."""
        return self.is_open and self.ledger.wal._engine.gate.failure is not None

    def must_be_poisoned(self) -> bool:
        """A failed sync poisons; so does a write that fails otherwise than for space."""
        failed = set(self.backend.failed[self.since_open :])
        if failed & set(SYNCS):
            return True
        fault, failure = self.fault, self.ledger.wal._engine.gate.failure
        if fault is None or not failed & set(CHANGES):
            return False
        if fault.number not in SPACE:
            return True
        # A checkpoint that was perhaps written and cannot be taken back either: the one failure for
        # want of space after which nobody knows what a crash would find.
        return failure is not None and failure.path.endswith("cursors.db") and fault.stays

    def check_living(self) -> None:
        """The open log holds what was acknowledged and nothing else; a poisoned one what is durable."""
        if not self.is_open:
            return
        assert self.is_poisoned == self.must_be_poisoned(), (
            f"poisoned: {self.is_poisoned}, {self.ledger.wal._engine.gate.failure!r} after {self.backend.failed}"
        )
        watched, self.backend.is_watched = self.backend.is_watched, False
        wal, model = self.ledger.wal, self.ledger.model
        for topic in {*model.entries, *model.maybe}:
            entries, oldest = model.entries.get(topic, []), wal.oldest_offset(topic)
            durable = self.durable[topic] = wal.durable_offset(topic)
            if self.is_poisoned:
                self._check_poisoned(topic, entries, oldest, durable)
                continue
            assert wal.next_offset(topic) == len(entries), f"{topic} ends at {wal.next_offset(topic)}"
            assert [entry.data for entry in wal.topic(topic)] == entries[oldest:], topic
            assert durable <= len(entries)
        self.backend.is_watched = watched

    def _check_poisoned(self, topic: str, entries: list[bytes], oldest: int, durable: int) -> None:
        """What is below the durable offset can be read, what is behind it raises."""
        wal = self.ledger.wal
        # A sync may have covered an entry before the failure that its append reported.
        known = [entries, *(entries + way for way in self.ledger.model.maybe.get(topic, []))]
        if oldest < durable:
            found = [entry.data for entry in wal.batch_read_for_topic(topic, start_offset=oldest)]
            assert found in [way[oldest:durable] for way in known], topic
        if durable < wal.next_offset(topic):
            with pytest.raises(PoisonedError):
                wal.batch_read_for_topic(topic, start_offset=durable + 1)

    # --- one operation ------------------------------------------------------------------------

    def attempt(self, call: Callable[[], object]) -> bool:
        """Run one operation. Returns: whether it went well; an error that is not legal is not caught."""
        before = len(self.backend.failed)
        try:
            call()
        except WalrusError as error:
            self._check_error(error, self.backend.failed[before:])
            self.check_living()
            return False
        self.check_living()
        return True

    def _check_error(self, error: WalrusError, failed: list[str]) -> None:
        """The type tells what happened; ``failed`` are the operations that failed in this call."""
        assert self.fault is not None, f"without a fault: {error!r}"
        assert isinstance(error, StorageError), f"{error!r} for a failure of the machine"
        if isinstance(error, PoisonedError):
            # The log that says so may be closed by now: the first failure of a close may be a
            # mark, which only poisons, and what follows is refused.
            assert self.ledger.wal._engine.gate.failure is not None, "told to be poisoned, and is not"
            return
        assert failed, f"{error!r}, but nothing failed in this call"
        if isinstance(error, SyncFailedError):
            assert set(failed) & set(SYNCS), f"{error!r} after {failed}"
            return
        assert type(error) is TYPES.get(self.fault.number, StorageError), f"{error!r}, {failed}"
        assert error.errno == self.fault.number
        assert isinstance(error.__cause__, OSError)

    def add(self, topic: str, payloads: list[bytes], call: Callable[[], object]) -> None:
        """Append, or find that nothing changed."""
        self.ledger.model.maybe.setdefault(topic, []).append(payloads)
        if self.attempt(call):
            assert topic not in self.ledger.model.maybe

    def append(self, topic: str, data: bytes) -> None:
        """Append one entry."""
        self.add(topic, [data], lambda: self.ledger.append(topic, data))

    def batch(self, topic: str, payloads: list[bytes]) -> None:
        """Append a batch."""
        self.add(topic, payloads, lambda: self.ledger.batch(topic, payloads))

    def move(self, place: Place, to: int, call: Callable[[], object]) -> None:
        """Move a cursor, or find it where it was."""
        model = self.ledger.model
        before = model.position.get(place, 0)
        if not self.is_open or self.attempt(call):
            return
        model.position[place] = before
        model.saved[place] = min(model.saved.get(place, 0), before, to)
        model.in_doubt.setdefault(place, set()).add(to)
        found = self.ledger.wal.cursor_offset(*place)
        assert found == before, f"{place} moved to {found} by a call that failed"

    def read(self, topic: str, cursor: str = DEFAULT) -> None:
        """Consume one entry, if there is one."""
        place = (topic, cursor)
        position = self.ledger.model.position.get(place, 0)
        if position < len(self.ledger.model.entries.get(topic, ())):
            self.move(place, position + 1, lambda: self.ledger.read(topic, 1, cursor))

    def consume(self, topic: str) -> None:
        """Set the cursor before the last entry, if it is not there."""
        offset = len(self.ledger.model.entries.get(topic, ())) - 1
        if self.is_open and self.ledger.wal.oldest_offset(topic) <= offset:
            self.move((topic, DEFAULT), offset, lambda: self.ledger.seek(topic, offset))

    def open(self) -> None:
        """Open, or stay closed; what an earlier failure left in doubt is decided then."""
        self.since_open = len(self.backend.failed)
        self.ledger.wal = None
        if self.attempt_open():
            watched, self.backend.is_watched = self.backend.is_watched, False
            check_log(self.ledger.wal, self.ledger.model, self.effect, "opened again", None)
            self.ledger.adopt()
            self.backend.is_watched = watched
            self.check_living()

    def attempt_open(self) -> bool:
        """Open. Returns: whether it went well. A log that cannot be opened leaves no file open."""
        before = len(self.backend.failed)
        try:
            self.ledger.open()
        except WalrusError as error:
            self._check_error(error, self.backend.failed[before:])
            return False
        return True

    def close(self) -> None:
        """Close: an error comes once, and the log is closed all the same."""
        if self.is_open:
            self.attempt(self.ledger.wal.close)
            assert self.ledger.wal.is_closed
            self.ledger.close()

    # --- the runs -----------------------------------------------------------------------------

    def work(self, turn: int) -> None:
        """Every operation of an open log."""
        ledger = self.ledger
        self.append("a", b"a%d" % turn)
        self.append("b", b"b%d" % turn)
        self.batch("a", [b"x" * 40, b"", b"y"])
        self.read("a")
        self.batch("a", [b"x", BIG, BIG, b"y"])
        self.batch("new", [BIG, BIG[:3000]])
        self.attempt(ledger.wal.sync)
        self.read("a")
        self.read("b", "other")
        self.append("a", b"z")
        self.consume("a")
        self.attempt(ledger.wal.sync)
        self.attempt(lambda: ledger.wal.mark_topic_clean("a"))
        self.append("b", BIG + BIG)
        for _ in range(6):
            self.append("q", BIG)
        self.attempt(ledger.wal.sync)
        self.consume("q")
        self.attempt(ledger.wal._engine.tick)
        self.append("a", b"last")
        self.append("b", BIG)

    def go(self) -> None:
        """Open, work, close, twice."""
        for turn in range(2):
            self.open()
            if self.is_open:
                self.work(turn)
            if not turn:
                self.close()

    def check_end(self, images: Images) -> None:
        """Kill and power cut where the run stands; then the fault goes by, and the log goes on."""
        ledger = self.ledger
        images.check(ledger.killed(), ledger.model, self.effect, "killed")
        images.check(self.backend.synced_store(), ledger.model, self.effect, "power cut", self.durable)
        self.fault = self.backend.fault = None
        self.backend.is_watched = False
        if self.is_poisoned:
            with pytest.raises(PoisonedError):
                ledger.wal.append_for_topic("a", b"no")
            with pytest.raises(PoisonedError):
                ledger.wal.sync()
        elif self.is_open:
            ledger.go_on()
        if self.is_open:
            ledger.close()
        for _ in range(2):
            self.open()
            ledger.go_on()
            ledger.sync()
            ledger.close()


class Base:
    """What a run starts from, and what it calls without a fault."""

    run_class: ClassVar[type[Run]] = Run

    def __init__(self, name: str, schedule: str) -> None:
        self.options: dict[str, Any] = {**SMALL, "fsync_schedule": SCHEDULES[schedule]}
        self.images = Images(self.options)
        first = Ledger(self.options)
        if name == "unclean":
            first.open()
            unclean(first)
            first.store.files[f"{PATH}/00000000000000000099.free"] = bytearray(100)
        self.store, self.model = first.killed(), first.model
        if first.wal is not None:
            first.close()
        self.calls = self.run(None).backend.log
        """What the run calls, from 1 on."""

    def run(self, fault: Optional[Fault]) -> Run:
        """Run with one fault. Raises: AssertionError, and whatever is not legal."""
        run = self.run_class(self, fault)
        try:
            run.go()
            run.check_end(self.images)
        except Exception as error:
            call = run.backend.log[fault.place - 1] if fault and fault.place <= len(run.backend.log) else ""
            raise AssertionError(f"{fault} {call}: {type(error).__name__}: {error}") from error
        finally:
            if run.is_open:
                run.ledger.wal._engine.abandon()
        return run

    def faults(self) -> list[Fault]:
        """Return all faults worth a run."""
        found: list[Fault] = []
        for place, (operation, _name) in enumerate(self.calls, 1):
            parts = PARTS if operation in WRITES else PARTS[:1]
            for number in NUMBERS:
                found += [Fault(place, number, stays, *part) for stays in (False, True) for part in parts]
        return found
