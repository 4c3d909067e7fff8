"""An observer that fails: nobody else feels it, neither the log nor the other observers."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from helpers import EACH, NEVER, WHOLE_BLOCK, wait_until, with_faults

from walrus_core import FsyncSchedule, Walrus
from walrus_core.errors import PoisonedError, SyncFailedError
from walrus_core.events import Events
from walrus_core.hookspecs import hookimpl

SOON = FsyncSchedule.milliseconds(1)
RAISED = [RuntimeError, GeneratorExit, asyncio.CancelledError, MemoryError]
FROM_HANDLERS = [KeyboardInterrupt, SystemExit]


class Everywhere:
    """Notes every event that it is told of, then does with it what a subclass does."""

    def __init__(self) -> None:
        self.told = []

    def then(self) -> None:
        pass

    def note(self, event: str) -> None:
        self.told.append(event)
        self.then()

    @hookimpl
    def walrus_recovered(self):
        self.note("recovered")

    @hookimpl
    def walrus_segment_created(self):
        self.note("created")

    @hookimpl
    def walrus_segment_reclaimed(self):
        self.note("reclaimed")

    @hookimpl
    def walrus_block_sealed(self):
        self.note("sealed")

    @hookimpl
    def walrus_synced(self):
        self.note("synced")

    @hookimpl
    def walrus_corruption_found(self):
        self.note("corruption")

    @hookimpl
    def walrus_poisoned(self):
        self.note("poisoned")


class Failing(Everywhere):
    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error

    def then(self) -> None:
        raise self.error("of the observer")


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("schedule", [EACH, NEVER, SOON], ids=lambda schedule: schedule.kind)
def test_whatever_it_raises_the_log_and_the_other_observers_go_on(memory_store, caplog, schedule, error):
    first, failing, last = Everywhere(), Failing(error), Everywhere()
    wal, backend = with_faults(memory_store, fsync_schedule=schedule, observers=(first, failing, last))
    for number in range(5):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.sync()
    assert wal.durable_offset("t") == 5
    assert len(wal.batch_read_for_topic("t", 1 << 20)) == 5
    wal.sync()
    backend.fail("sync")
    with pytest.raises((SyncFailedError, PoisonedError)):
        append_and_sync(wal)
    wal.close()
    assert set(first.told) == {"recovered", "created", "sealed", "synced", "reclaimed", "poisoned"}
    # Sorted: two threads may each be telling of an event at the same time.
    assert sorted(first.told) == sorted(failing.told) == sorted(last.told)
    failures = [message for message in caplog.messages if message.startswith("the observer Failing failed")]
    assert len(failures) == len(failing.told)
    assert f"{error.__name__}: of the observer" in caplog.text


def append_and_sync(wal: Walrus) -> None:
    wal.append_for_topic("t", b"x")
    wal.sync()


@pytest.mark.parametrize("error", [*RAISED, *FROM_HANDLERS])
def test_what_it_raises_on_the_background_thread_does_not_end_that(memory_store, error):
    class InBackground(Failing):
        def then(self):
            if threading.get_ident() != threading.main_thread().ident:
                super().then()

    failing = InBackground(error)
    wal = memory_store.open(fsync_schedule=SOON, observers=(failing,))
    for end_offset in range(1, 4):
        wal.append_for_topic("t", b"x")
        wait_until(lambda end_offset=end_offset: wal.durable_offset("t") == end_offset)
    assert failing.told.count("synced") >= 3
    wal.close()


@pytest.mark.parametrize("error", FROM_HANDLERS)
def test_what_a_signal_handler_raises_on_the_main_thread_goes_on(memory_store, caplog, error):
    interrupted = Failing(error)
    interrupted.then = lambda: None
    wal = memory_store.open(fsync_schedule=NEVER, observers=(interrupted,))
    wal.append_for_topic("t", b"x")
    del interrupted.then
    with pytest.raises(error):
        wal.sync()
    interrupted.then = lambda: None
    wal.sync()
    assert wal.durable_offset("t") == 1
    assert "failed" not in caplog.text


def test_quiet_says_nothing(caplog):
    events = Events([Failing(MemoryError)], quiet=True)
    events.synced(1, 0.0)
    assert caplog.messages == []


def test_observers_are_told_in_the_order_in_which_they_were_given():
    order = []

    class Numbered(Everywhere):
        def __init__(self, number):
            super().__init__()
            self.then = lambda: order.append(number)

    Events([Numbered(number) for number in range(3)], quiet=False).synced(1, 0.0)
    assert order == [0, 1, 2]


def test_without_observers_an_event_asks_nobody():
    events = Events([], quiet=False)
    events.synced(1, 0.0)
    assert not events.has_observers
    assert Events([Everywhere()], quiet=False).has_observers


# --- the background thread ------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("schedule", [SOON, NEVER], ids=lambda schedule: schedule.kind)
def test_the_background_thread_does_not_end_in_silence(memory_store, monkeypatch, caplog, schedule, error):
    """What reaches it stops the log, and who waits for the next sync learns that none will come."""
    observer = Everywhere()
    wal = memory_store.open(fsync_schedule=schedule, observers=(observer,))

    def sync_in_flight(*_):
        assert threading.current_thread() is not threading.main_thread()
        raise error("of the work")

    monkeypatch.setattr(wal._engine.syncer, "sync_in_flight", sync_in_flight)

    async def wait() -> None:
        await asyncio.wait_for(wal.append_async("t", b"x"), timeout=20)

    with caplog.at_level(logging.ERROR), pytest.raises(PoisonedError, match=error.__name__):
        asyncio.run(wait())
    assert f"is poisoned: sync {wal.path}: {error.__name__}('of the work')" in caplog.text
    assert observer.told.count("poisoned") == 1
    with pytest.raises(PoisonedError, match="of the work"):
        wal.append_for_topic("t", b"y")
    wal.close()
