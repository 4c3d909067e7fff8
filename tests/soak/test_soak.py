"""A short soak of each backend, and the test of its books: what they must not let pass."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from walrus_core import Walrus, hot
from walrus_core.memory import MemoryBackend, MemoryStore

from .books import Books
from .log import CLASSES
from .loop import Soak
from .payloads import payload

LIVES = 5


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("backend", CLASSES)
def test_a_short_soak(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hot.COMPILED:
        pytest.skip("processes are killed while the compiled twin runs; the pure one makes the same calls")
    if importlib.util.find_spec(f"walrus_{backend}") is None:
        pytest.skip(f"walrus-{backend} is not installed")
    monkeypatch.setattr("tests.soak.loop.LIFE_S_MAX", 0.5)
    counts = Soak(backend, "short", tmp_path).run(100, LIVES)
    assert counts["lives"] == LIVES, "it is too slow"
    assert counts["kills"] and counts["closes"], "another seed has both"
    assert counts["appended"] > 100 and counts["consumed"] > 100, counts


class Log:
    """A log in memory, and the books of one process that appended to it and read from it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.books = Books()
        self.wal = self.open()

    def open(self) -> Walrus:
        return Walrus("soak", backend=MemoryBackend(store=self.store))

    def append(self, writer: int, counter: int, count: int, told: bool = True) -> None:
        """Append a batch; ``told``: the line behind it came through."""
        self.books.take(f"try a {writer} {counter} {count}")
        batch = [payload("a", writer, counter + place) for place in range(count)]
        offset = self.wal.batch_append_for_topic("a", batch).start
        if told:
            self.books.take(f"ack a {writer} {counter} {count} {offset}")

    def check(self, persist_every: int = 1) -> int:
        """Close the log, open it again and let the books compare."""
        self.wal.close()
        with self.open() as wal:
            return self.books.check(wal, persist_every)


@pytest.fixture
def log() -> Log:
    made = Log()
    made.append(0, 0, 3)
    made.append(1, 0, 2)
    made.append(0, 3, 1)
    return made


def test_what_was_told_and_what_was_under_way_is_well(log: Log) -> None:
    log.append(1, 2, 4, told=False)
    for entry in log.wal.batch_read_for_topic("a", max_entries=5):
        at = entry.offset + 1
    log.books.take(f"moved a default {at}")
    assert log.check() == 10
    assert log.books.topics["a"].end == 10 and log.books.topics["a"].at["default"] == 5
    log.wal = log.open()
    log.append(0, 4, 1)
    assert log.check() == 11


def nobodys(log: Log) -> None:
    log.wal.append_for_topic("a", payload("a", 0, 7))


def half(log: Log) -> None:
    log.books.take("try a 1 2 2")
    log.wal.append_for_topic("a", payload("a", 1, 2))


def lost(log: Log) -> None:
    log.books.take("try a 1 2 1")
    log.books.take("ack a 1 2 1 6")


def other_bytes(log: Log) -> None:
    log.books.take("try a 1 2 1")
    log.books.take("ack a 1 2 1 6")
    log.wal.append_for_topic("a", payload("a", 1, 2)[:-1] + b"?")


def out_of_order(log: Log) -> None:
    log.append(0, 9, 1)


def skipped(log: Log) -> None:
    log.books.take("moved a default 0")
    log.wal.seek("a", 6)


def back(log: Log) -> None:
    log.books.take("moved a default 5")


def beside(log: Log) -> None:
    log.wal.append_for_topic("z", b"")


@pytest.mark.parametrize("wrong", [nobodys, half, lost, other_bytes, out_of_order, back, beside])
def test_the_books_notice(log: Log, wrong: Callable[[Log], None]) -> None:
    wrong(log)
    with pytest.raises(AssertionError):
        log.check()


def test_the_books_notice_a_cursor_that_skips(log: Log) -> None:
    skipped(log)
    log.books.is_closed = True
    with pytest.raises(AssertionError, match="allowed"):
        log.check()
