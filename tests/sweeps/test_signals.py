"""Signals that call the log or break into it: it works or says no, and everything is there.

Every scenario runs in a process of its own, with a timer of a millisecond that calls the log from a signal
handler, or with real interrupts at random moments.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .children import POSIX_ONLY, PRELUDE, RunChild, skip_if_missing

pytestmark = POSIX_ONLY

WATCHDOG = """
import faulthandler
faulthandler.dump_traceback_later(float(arguments[3]) + 60, exit=True)
"""

HANDLER = """
wal = open_log(consistency=ReadConsistency.at_least_once(3))
appended, read, refused, worked, inside = {}, [], [0], [0], []
chance = random.Random(5)

def note(offset, data):
    assert offset not in appended, f"offset {offset} twice: {data!r} and {appended[offset]!r}"
    appended[offset] = data

def attempt(call):
    try:
        return call()
    except ReentrantCallError:
        refused[0] += 1

def handle(number, frame):
    # A handler that interrupts itself would note what it got in another order than it got it.
    if not inside:
        inside.append(True)
        use()
        inside.clear()

def use():
    data = b"h%d " % worked[0] + b"h" * chance.randrange(3000)
    offset = attempt(lambda: wal.append_for_topic("t", data))
    if offset is not None:
        worked[0] += 1
        note(offset, data)
    entry = attempt(lambda: wal.read_next("t", cursor="handler"))
    if entry is not None:
        read.append(entry)
    attempt(lambda: wal.read_next("t", checkpoint=False))
    if chance.random() < 0.2:
        attempt(lambda: wal.sync())
    if chance.random() < 0.2:
        offsets = attempt(lambda: wal.batch_append_for_topic("t", [b"hb", b"hc" * 4000]))
        if offsets is not None:
            note(offsets[0], b"hb")
            note(offsets[1], b"hc" * 4000)

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
end_s = time.monotonic() + float(arguments[3])
count, mine = 0, []
while time.monotonic() < end_s:
    count += 1
    data = b"m%d " % count + b"m" * chance.randrange(2000)
    note(wal.append_for_topic("t", data), data)
    if count % 7 == 0:
        batch = [b"b%d %d" % (count, place) * 300 for place in range(12)]
        for offset, payload in zip(wal.batch_append_for_topic("t", batch), batch):
            note(offset, payload)
    if count % 5 == 0:
        mine.extend(wal.batch_read_for_topic("t", max_entries=8))
        entry = wal.read_next("t")
        mine.extend([entry] if entry is not None else [])
    if count % 11 == 0:
        wal.sync()
    # Outside the log, where the handler's calls work.
    pause_s = time.perf_counter() + 0.0005
    while time.perf_counter() < pause_s:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
assert worked[0] > 5 and count > 5, f"{worked[0]} calls of the handler worked, {refused[0]} were refused"
assert sorted(appended) == list(range(wal.next_offset("t")))
for entries in (mine, read):
    assert [entry.offset for entry in entries] == list(range(len(entries))), "out of order, skipped or twice"
    assert all(appended[entry.offset] == entry.data for entry in entries)
wal.sync()
assert wal.durable_offset("t") == wal.next_offset("t")
backend = wal._engine.backend
oldest = wal.oldest_offset("t")
assert oldest <= min(len(mine), len(read))
expected = [(offset, appended[offset]) for offset in range(oldest, len(appended))]
assert contents(wal, "t") == expected
assert wal.append_for_topic("t", b"last") == len(appended)
wal.close()
with open_log(MemoryBackend(store=backend.store) if kind == "memory" else None) as wal:
    assert contents(wal, "t") == [pair for pair in expected + [(len(appended), b"last")] if pair[0] >= wal.oldest_offset("t")]
    assert wal.recovery_report.damages == ()
"""


@pytest.mark.parametrize("schedule", ["never", "each", "2"])
@pytest.mark.parametrize("kind", ["memory", "fd", "mmap"])
def test_a_handler_that_calls_the_log(
    kind: str, schedule: str, tmp_path: Path, run_child: RunChild, file_kind: Callable[[str], Any]
) -> None:
    skip_if_missing(kind, file_kind)
    seconds = 20.0 if os.environ.get("WALRUS_SWEEP") == "all" else 1.0
    run_child(PRELUDE + WATCHDOG + HANDLER, tmp_path / "log", kind, schedule, seconds)


INTERRUPTS = """
backend = make_backend()
chance = random.Random(int(arguments[4]))
certain, attempts, number = [], {}, 0

armed = []

def interrupt(_number, _frame):
    # Another thread may take the signal late, when the timer has been stopped.
    if armed:
        raise KeyboardInterrupt

def arm():
    armed.append(True)
    signal.setitimer(signal.ITIMER_REAL, chance.choice([0.00002, 0.0001, 0.0003, 0.001, 0.004]) * chance.random() + 1e-6)

def work(wal):
    global number
    number += 1
    kind = chance.random()
    if kind < 0.5:
        batch = [b"%d." % number + b"x" * chance.randrange(1500)]
        attempts[number] = batch
        arm()
        wal.append_for_topic("t", batch[0])
    elif kind < 0.75:
        batch = [b"%d.%d " % (number, place) * chance.randrange(1, 300) for place in range(9)]
        attempts[number] = batch
        arm()
        wal.batch_append_for_topic("t", batch)
    elif kind < 0.85:
        arm()
        wal.read_next("t")
        return
    elif kind < 0.9:
        arm()
        wal.sync()
        return
    else:
        arm()
        wal.batch_read_for_topic("t", max_entries=20)
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    certain.append(number)

def interrupted(call):
    "Run; an interrupt is caught, and one that is late does not come. Returns: whether one came."
    try:
        try:
            call()
        finally:
            armed.clear()
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        armed.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return True
    return False

def check(wal):
    "What was acknowledged is there in order; what was interrupted is there whole or not at all."
    def ends():
        # Under sync-each an interrupted append may be there and not be seen yet.
        return wal.oldest_offset("t"), wal.durable_offset("t") if schedule == "each" else wal.next_offset("t")
    oldest, end, pairs = -1, -1, []
    while (oldest, end) != ends():  # the thread gives blocks back meanwhile, and syncs
        oldest, end = ends()
        pairs = contents(wal, "t")
    assert [offset for offset, _data in pairs] == list(range(oldest, end))
    found, seen, place = [data for _offset, data in pairs], [], 0
    while place < len(found):
        which = int(found[place].split(b".")[0])
        batch = attempts[which]
        if not seen and found[place] != batch[0]:
            tail = next(n for n in range(len(batch)) if found[place : place + len(batch) - n] == batch[n:])
            place += len(batch) - tail  # its first entries were consumed and given back
        else:
            assert found[place : place + len(batch)] == batch, f"part of batch {which} only"
            place += len(batch)
        seen.append(which)
    assert seen == sorted(set(seen)), "twice, or out of order"
    missing = [which for which in certain if seen and which > seen[0] and which not in seen]
    assert not missing, f"acknowledged and gone: {missing[:5]}"

signal.signal(signal.SIGALRM, interrupt)
wal = open_log(backend)
came = rounds = 0
end_s = time.monotonic() + float(arguments[3])
while time.monotonic() < end_s:
    rounds += 1
    came += interrupted(lambda: work(wal))
    if rounds % 50 == 0:
        check(wal)
    if rounds % 200 == 0:
        def close():
            arm()
            wal.close()
        came += interrupted(close)
        wal.close()
        def reopen():
            global wal
            arm()
            wal = open_log(backend)
        wal = None
        came += interrupted(reopen)
        if wal is None:
            import gc
            gc.collect()
            wal = open_log(backend)
        check(wal)
wal.sync()
assert wal.durable_offset("t") == wal.next_offset("t")
check(wal)
wal.close()
assert came > 10, f"{came} interrupts in {rounds} calls"
with open_log(backend) as wal:
    check(wal)
    assert wal.recovery_report.damages == ()
"""


@pytest.mark.parametrize("schedule", ["never", "each", "2"])
@pytest.mark.parametrize("kind", ["memory", "fd", "mmap"])
def test_real_interrupts_at_random_moments(
    kind: str, schedule: str, tmp_path: Path, run_child: RunChild, file_kind: Callable[[str], Any]
) -> None:
    skip_if_missing(kind, file_kind)
    seconds = 30.0 if os.environ.get("WALRUS_SWEEP") == "all" else 1.0
    seed = os.environ.get("WALRUS_SWEEP_SEED", "1")
    code = (
        "import warnings\nwarnings.filterwarnings('ignore', 'unclosed log')\n"
        + PRELUDE
        + WATCHDOG
        + INTERRUPTS
    )
    run_child(code, tmp_path / "log", kind, schedule, seconds, seed)


# --- the end of the process -----------------------------------------------------------------------
