"""Laws of a whole log on the backend: what it appends it reads, through closes, deaths and faults."""

from __future__ import annotations

import errno
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core.backend import Backend
from walrus_core.errors import DiskFullError, PoisonedError, StorageError, SyncFailedError, WalrusError
from walrus_core.testing.faults import Fault
from walrus_core.testing.faulty import FaultyBackend
from walrus_core.testing.model import TORN_SECTOR_DAMAGES
from walrus_core.testing.oracle import judge, make_payload
from walrus_core.testing.subject import NotApplicable, Subject, hold, law
from walrus_core.verify import verify_directory

TOPIC = "topic"
LENGTHS = (0, 1, 31, 200, 3000, 5500, 12_000, 40_000)
EACH = FsyncSchedule.sync_each()
NEVER = FsyncSchedule.no_fsync()


def _payload(counter: int) -> bytes:
    return make_payload(TOPIC, counter, LENGTHS[counter % len(LENGTHS)])


def payloads(first: int, end: int) -> list[bytes]:
    """Return the payloads with these counters: short ones, and some of several blocks."""
    return [_payload(counter) for counter in range(first, end)]


def open_log(subject: Subject, backend: Optional[Backend] = None, **options: Any) -> Walrus:
    """Open the log of the subject's directory, with blocks of 16 KiB so that each run fills several."""
    given = {"block_size": 16_384, "blocks_per_segment": 4, "fsync_schedule": NEVER, **options}
    return Walrus(
        subject.directory, backend=subject.make(subject.directory) if backend is None else backend, **given
    )


def abandon(wal: Walrus) -> None:
    """Let go of a log as the death of the process would: nothing is written, nothing synced.

    Waits for what the background thread is at: until it is done the directory is nobody else's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        wal.__del__()
    wal._engine._flusher.stop(wait=True)


def check_log(wal: Walrus, expected: list[bytes], *, least: Optional[int] = None, ends: Any = None) -> None:
    """Compare all that the log holds with what was appended, and its recovery with a crash at most.

    Raises: BrokenLaw.
    """
    found = [(entry.offset, entry.data) for entry in wal.topic(TOPIC)] if TOPIC in wal.topics() else []
    findings = judge(TOPIC, expected, found, least=least, ends=ends)
    hold(not findings, "; ".join(map(str, findings[:5])))
    damages = [damage for damage in wal.recovery_report.damages if damage.kind not in TORN_SECTOR_DAMAGES]
    hold(not damages, f"the log found damage where nothing was damaged: {damages[:3]}")


@contextmanager
def _dying(subject: Subject, backend: Optional[Backend] = None, **options: Any) -> Iterator[Walrus]:
    """Open the log; at the end its process dies, unless it was closed before."""
    wal = open_log(subject, backend, **options)
    try:
        yield wal
    finally:
        abandon(wal)


@contextmanager
def _opened(subject: Subject, backend: Optional[Backend] = None, **options: Any) -> Iterator[Walrus]:
    wal = open_log(subject, backend, **options)
    try:
        yield wal
    finally:
        wal.close()


def _fill(wal: Walrus) -> list[bytes]:
    """Append single entries and a batch that is longer than a segment. Returns: all of them."""
    for data in payloads(0, 12):
        wal.append_for_topic(TOPIC, data)
    wal.batch_append_for_topic(TOPIC, payloads(12, 40))
    return payloads(0, 40)


@law()
def a_log_reads_what_it_appended(subject: Subject) -> None:
    """Single entries and batches over several segments, before and after a close, found clean."""
    for schedule in (NEVER, EACH, FsyncSchedule.milliseconds(20)):
        below = Subject(subject.make, f"{subject.directory}/{schedule.kind}")
        with _opened(below, fsync_schedule=schedule) as wal:
            expected = _fill(wal)
            check_log(wal, expected)
            wal.sync()
            hold(
                wal.durable_offset(TOPIC) == 40,
                f"after sync() {wal.durable_offset(TOPIC)} entries are durable",
            )
        with _opened(below, fsync_schedule=schedule) as wal:
            hold(wal.recovery_report.clean, f"a closed log was not found clean: {wal.recovery_report}")
            check_log(wal, expected)


@law()
def a_log_reads_back_strictly(subject: Subject) -> None:
    """Strictly-at-once: each entry once, the cursor durable before the read returns, over deaths."""
    read: list[tuple[int, bytes]] = []
    with _opened(subject) as wal:
        expected = _fill(wal)
    for _ in range(3):
        with _dying(subject, consistency=ReadConsistency.strictly_at_once()) as wal:
            for _ in range(5):
                entry = wal.read_next(TOPIC)
                hold(entry is not None, "the log ended early")
                if entry is not None:
                    read.append((entry.offset, entry.data))
    with _opened(subject) as wal:
        read += [(entry.offset, entry.data) for entry in wal.batch_read_for_topic(TOPIC, 1 << 24)]
        hold(wal.read_next(TOPIC) is None, "there is more than was appended")
    findings = judge(TOPIC, expected, read)
    hold(not findings, "; ".join(map(str, findings[:5])))


@law()
def cursors_are_kept(subject: Subject) -> None:
    """Positions, marks and counts are there after a close; passed blocks are given back."""
    with _opened(subject) as wal:
        _fill(wal)
        wal.seek(TOPIC, 20, cursor="slow")
        for _ in range(30):
            wal.read_next(TOPIC)
        wal.mark_topic_clean(TOPIC)
    with _opened(subject) as wal:
        hold(wal.cursor_offset(TOPIC, "slow") == 20, f"cursor slow is at {wal.cursor_offset(TOPIC, 'slow')}")
        hold(wal.topic_entry_count(TOPIC) == 10, f"{wal.topic_entry_count(TOPIC)} entries are unread, not 10")
        hold(wal.topic_is_clean(TOPIC), "the clean mark is lost")
        oldest = wal.oldest_offset(TOPIC)
        hold(0 < oldest <= 20, f"the oldest entry is {oldest} though all cursors have passed 20")
        entries = wal.batch_read_for_topic(TOPIC, 1 << 24, start_offset=oldest)
        hold(
            [entry.data for entry in entries] == payloads(oldest, 40),
            "entries changed when blocks were given back",
        )
        wal.append_for_topic(TOPIC, b"into a block that was given back")


@law()
def a_dropped_log_loses_nothing(subject: Subject) -> None:
    """Without close: what was appended is there for the next open, even with no sync at all."""
    expected: list[bytes] = []
    for _ in range(3):
        with _dying(subject) as wal:
            check_log(wal, expected)
            more = payloads(len(expected), len(expected) + 9)
            wal.batch_append_for_topic(TOPIC, more[:4])
            for data in more[4:]:
                wal.append_for_topic(TOPIC, data)
            expected += more
    with _opened(subject) as wal:
        check_log(wal, expected)


@law("files")
def a_killed_log_loses_nothing(subject: Subject) -> None:
    """The same with a process that really dies: SIGKILL in the middle of appends."""
    if not hasattr(os, "fork"):
        raise NotApplicable("this system has no fork")
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Other threads may run here; the child uses nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            wal = open_log(subject)
            for counter in range(100_000):
                wal.append_for_topic(TOPIC, _payload(counter))
                os.write(writer, b".")
        finally:
            os._exit(1)
    os.close(writer)
    try:
        counted = 0
        deadline = time.monotonic() + 60
        while counted < 60 and time.monotonic() < deadline:
            dots = os.read(reader, 60)
            hold(dots, f"the child died after {counted} appends")
            counted += len(dots)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while dots := os.read(reader, 4096):
            counted += len(dots)
        os.close(reader)
    with _opened(subject) as wal:
        check_log(wal, payloads(0, counted + 1), least=counted)


@law()
def a_sound_log_verifies(subject: Subject) -> None:
    """``walrus verify`` finds nothing in what was written, and every entry."""
    with _opened(subject) as wal:
        _fill(wal)
    backend = subject.make(subject.directory)
    try:
        report = verify_directory(backend, subject.directory)
    finally:
        backend.close()
    hold(report.is_sound, f"verify found {report}")


# --- faults -----------------------------------------------------------------------------------


@law()
def no_space_is_a_typed_error_and_the_log_goes_on(subject: Subject) -> None:
    """DiskFullError from a reserve; nothing is lost, and with space again appends go on."""
    faulty = FaultyBackend(subject.make(subject.directory))
    with _opened(subject, faulty) as wal:
        expected = _fill(wal)
        faulty.fail("reserve", number=errno.ENOSPC, times=None)
        refused = 0
        for data in payloads(40, 60):
            try:
                wal.append_for_topic(TOPIC, data)
                expected.append(data)
            except DiskFullError:
                refused += 1
        hold(refused, "no append needed space")
        faulty.reset()
        more = payloads(60, 70)
        wal.batch_append_for_topic(TOPIC, more)
        check_log(wal, expected + more)
    with _opened(subject) as wal:
        check_log(wal, expected + more)


@law()
def a_failed_sync_poisons_and_loses_nothing_durable(subject: Subject) -> None:
    """SyncFailedError, then PoisonedError; what was durable before is there after the next open."""
    faulty = FaultyBackend(subject.make(subject.directory))
    expected = payloads(0, 10)
    with _dying(subject, faulty, fsync_schedule=EACH) as wal:
        for data in expected:
            wal.append_for_topic(TOPIC, data)
        faulty.fail("sync", number=errno.EIO)
        for kind in (SyncFailedError, PoisonedError):
            try:
                wal.append_for_topic(TOPIC, _payload(10))
            except kind:
                continue
            hold(False, f"an append after a failed sync raised no {kind.__name__}")
        found = wal.batch_read_for_topic(TOPIC, 1 << 24, max_entries=10, start_offset=0)
        hold(
            [entry.data for entry in found] == expected, "durable entries cannot be read after a failed sync"
        )
    with _opened(subject, fsync_schedule=EACH) as wal:
        check_log(wal, payloads(0, 11), least=10)
        wal.append_for_topic(TOPIC, b"goes on")


@law()
def whichever_call_fails_nothing_is_lost(subject: Subject) -> None:
    """A short run, once for each call it makes, which fails half-way: typed errors, nothing durable lost."""
    for place in range(1, 1000):
        number, schedule = ((errno.EIO, EACH), (errno.ENOSPC, NEVER))[place % 2]
        below = Subject(subject.make, f"{subject.directory}/{place}")
        faulty = FaultyBackend(below.make(below.directory))
        faulty.fault = Fault(place, number, part=0.5)
        least, attempted = _run_with_faults(below, faulty, schedule)
        with _opened(below) as wal:
            check_log(wal, payloads(0, attempted), least=least, ends={0, 1, 2, 5, 6, attempted})
        if not faulty.failed:
            return
    hold(False, "a short run makes more than 1000 calls")


def _run_with_faults(subject: Subject, faulty: FaultyBackend, schedule: FsyncSchedule) -> tuple[int, int]:
    """Open, append 2, 3 at once and 1, read, close. Returns: entries that must be there, and that may be."""
    least = attempted = 0
    try:
        with _dying(subject, faulty, fsync_schedule=schedule) as wal:
            for first, end in ((0, 1), (1, 2), (2, 5), (5, 6)):
                attempted = end
                wal.batch_append_for_topic(TOPIC, payloads(first, end))
                least = end
            wal.read_next(TOPIC)
            wal.close()
    except WalrusError as error:
        hold(isinstance(error, StorageError), f"a failing backend became {type(error).__name__}: {error}")
    return least, attempted


@law()
def a_log_survives_power_cuts(subject: Subject) -> None:
    """After each append, on every state that a cut may leave: a prefix, with all that was durable."""
    subject.require_hook("power_loss", "so no power can be cut")
    cut = subject.power_loss
    for schedule in (EACH, NEVER):
        below = Subject(subject.make, f"{subject.directory}/{schedule.kind}")
        backend = below.make(below.directory)
        ends = {0}
        with _dying(below, backend, fsync_schedule=schedule) as wal:
            for first, end in ((0, 1), (1, 4), (4, 5), (5, 12), (12, 13), (13, 30)):
                wal.batch_append_for_topic(TOPIC, payloads(first, end))
                ends.add(end)
                if end == 5:
                    wal.sync()
                for after in cut(backend, below.directory) if cut is not None else ():
                    with _opened(below, after) as found:
                        check_log(found, payloads(0, end), least=wal.durable_offset(TOPIC), ends=ends)
