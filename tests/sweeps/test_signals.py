"""Signals, forks and the end of the process: the log works or says no, and everything is there.

Every scenario runs in a process of its own, with a timer of a millisecond that calls the log from a signal
handler, with real interrupts at random moments, or with one of the ways in which a process may end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunChild = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and forks as POSIX has them")

PRELUDE = """
import random, signal, threading, time
from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core.errors import ForkedError, LockedError, ReentrantCallError
from walrus_core.memory import MemoryBackend

path, kind, schedule = arguments[:3]

def make_backend():
    if kind == "memory":
        return MemoryBackend()
    if kind == "fd":
        from walrus_fd.backend import FdBackend
        return FdBackend()
    from walrus_mmap.backend import MmapBackend
    return MmapBackend()

OPTIONS = dict(block_size=16384, blocks_per_segment=3, fsync_schedule=FsyncSchedule.parse(schedule))

def open_log(backend=None, **more):
    return Walrus(path, backend=backend or make_backend(), **{**OPTIONS, **more})

def contents(wal, topic):
    return [(entry.offset, entry.data) for entry in wal.topic(topic)]
"""

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


def skip_if_missing(kind: str, file_kind: Callable[[str], Any]) -> None:
    """Skip where a backend is not installed."""
    if kind != "memory":
        file_kind(kind)


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
    oldest, pairs = -1, []
    while oldest != wal.oldest_offset("t"):  # blocks are given back meanwhile
        oldest = wal.oldest_offset("t")
        pairs = contents(wal, "t")
    # Under sync-each an interrupted append may be there and not be seen yet.
    assert [offset for offset, _data in pairs] == list(range(oldest, oldest + len(pairs)))
    assert oldest + len(pairs) == (wal.durable_offset("t") if schedule == "each" else wal.next_offset("t"))
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

ENDS = {
    "return": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "uncaught": ("raise RuntimeError('the end')", 1),
    "inside with": ("with wal:\n    append(50)\n    sys.exit(4)", 4),
    "daemon appends": (
        "def go():\n    while True:\n        append(1)\n"
        "threading.Thread(target=go, daemon=True).start()\ntime.sleep(0.05)\nsys.exit(5)",
        5,
    ),
    "thread goes on": (
        "def go():\n    time.sleep(0.1)\n    append(40)\nthreading.Thread(target=go).start()\nsys.exit(6)",
        6,
    ),
    "sys.exit in a thread": (
        "def go():\n    append(5)\n    sys.exit(9)\n"
        "thread = threading.Thread(target=go)\nthread.start()\nthread.join()\nappend(5)",
        0,
    ),
    "handler exits": (
        "# handler exits\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()\nwhile True:\n    append(1)",
        7,
    ),
    "at exit": ("import atexit\natexit.register(lambda: append(10))", 0),
    "interrupt": ("os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)", -signal.SIGINT),
}
DEATHS = {
    "os._exit": ("os._exit(8)", 8),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "os._exit in a thread": (
        "def go():\n    while True:\n        append(1)\nthreading.Thread(target=go).start()\ntime.sleep(0.05)\nos._exit(9)",
        9,
    ),
}

WRITER = """
out = os.open(arguments[3], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
lock = threading.Lock()
count = [0]
wal = open_log()

def append(times):
    for _ in range(times):
        with lock:
            data = b"%d " % count[0] * 20
            offset = wal.append_for_topic("t", data)
            assert offset == count[0]
            count[0] += 1
            os.write(out, b"%d\\n" % offset)

append(300)
wal.read_next("t")
"""

READER = """
acknowledged = int(arguments[3])
with open_log() as wal:
    entries = contents(wal, "t")
    assert len(entries) in (acknowledged, acknowledged + 1), f"{len(entries)} of {acknowledged}"
    assert entries == [(n, b"%d " % n * 20) for n in range(len(entries))]
    assert wal.cursor_offset("t") == 1
    assert wal.recovery_report.damages == ()
    was_closed = wal.recovery_report.clean and not wal.recovery_report.cuts
    # An append that the end broke into leaves bytes behind the frames, which are looked at once more.
    assert was_closed or arguments[4] != "closed", wal.recovery_report
    wal.append_for_topic("t", b"on")
"""


def check_end(
    code: str, status: int, is_killed: bool, kind: str, schedule: str, path: Path, run_child: RunChild
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end, then look for what it had acknowledged."""
    written = path / "acknowledged"
    done = run_child(PRELUDE + WRITER + code, path / "log", kind, schedule, written, status=status)
    acknowledged = len(written.read_text().splitlines())
    assert acknowledged >= 300
    end = "killed" if is_killed else "broken into" if "handler exits" in code else "closed"
    run_child(PRELUDE + READER, path / "log", kind, schedule, acknowledged, end)
    return done


@pytest.mark.parametrize("schedule", ["never", "each", "5"])
@pytest.mark.parametrize("kind", ["fd", "mmap"])
@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_process_closes_the_log(
    end: str, kind: str, schedule: str, tmp_path: Path, run_child: RunChild, file_kind: Callable[[str], Any]
) -> None:
    skip_if_missing(kind, file_kind)
    code, status = ENDS[end]
    done = check_end(code, status, False, kind, schedule, tmp_path, run_child)
    assert "Fatal" not in done.stderr
    assert "ResourceWarning" not in done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr


@pytest.mark.parametrize("schedule", ["never", "each", "5"])
@pytest.mark.parametrize("kind", ["fd", "mmap"])
@pytest.mark.parametrize("end", DEATHS)
def test_the_death_of_a_process_takes_nothing_that_was_acknowledged(
    end: str, kind: str, schedule: str, tmp_path: Path, run_child: RunChild, file_kind: Callable[[str], Any]
) -> None:
    skip_if_missing(kind, file_kind)
    code, status = DEATHS[end]
    check_end(code, status, True, kind, schedule, tmp_path, run_child)


# --- forks ------------------------------------------------------------------------------------------

FORKS = {
    "sys.exit": "sys.exit(0)",
    "uncaught": "raise RuntimeError('child')",
    "return": "pass",
    "os._exit": "os._exit(0)",
    "uses the log": "for call in (wal.sync, wal.close, lambda: wal.append_for_topic('t', b'x')):\n"
    "        try:\n            call()\n        except ForkedError:\n            continue\n"
    "        os._exit(77)\n    sys.exit(0)",
    "drops the log": "del wal\n    import gc\n    gc.collect()\n    sys.exit(0)",
    "with": "with_fails()\n    sys.exit(0)",
}

FORKER = """
import warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
wal = open_log()
for number in range(100):
    wal.append_for_topic("t", b"%d" % number * 50)
wal.read_next("t")

def with_fails():
    try:
        with wal:
            pass
    except ForkedError:
        return
    os._exit(78)

def child():
    global wal
    CHILD

for number in range(3):
    pid = os.fork()
    if not pid:
        child()
        sys.exit(0)
    wal.append_for_topic("t", b"beside the child")
    _pid, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 1), os.waitstatus_to_exitcode(status)
    assert wal.append_for_topic("t", b"after the child") == 101 + 2 * number
    wal.sync()
    try:
        open_log()
    except LockedError:
        pass
    else:
        raise AssertionError("the child gave the parent's lock away")
import subprocess
other = subprocess.run([sys.executable, "-c", "import sys\\narguments = sys.argv[1:]\\n" + sys.argv[4], *sys.argv[1:4]])
assert other.returncode == 55, "another process may open the log"
assert wal.durable_offset("t") == 106
wal.close()
with open_log() as wal:
    assert len(contents(wal, "t")) == 106
    assert wal.recovery_report.damages == () and not wal.recovery_report.cuts
    assert wal.cursor_offset("t") == 1
"""

OTHER = PRELUDE + "\ntry:\n    open_log()\nexcept LockedError:\n    sys.exit(55)\n"


@pytest.mark.parametrize("schedule", ["never", "each", "5"])
@pytest.mark.parametrize("kind", ["fd", "mmap"])
@pytest.mark.parametrize("end", FORKS)
def test_a_forked_child_leaves_the_parent_alone(
    end: str, kind: str, schedule: str, tmp_path: Path, run_child: RunChild, file_kind: Callable[[str], Any]
) -> None:
    skip_if_missing(kind, file_kind)
    code = PRELUDE + FORKER.replace("CHILD", FORKS[end])
    run_child(code, tmp_path / "log", kind, schedule, OTHER)


SPAWNER = """
import subprocess
wal = open_log()
wal.append_for_topic("t", b"a")
sleeper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, close_fds=False)
wal.append_for_topic("t", b"b")
wal.sync()
wal.close()
with open_log() as wal:  # the sleeper has inherited no lock
    assert contents(wal, "t") == [(0, b"a"), (1, b"b")]
    assert subprocess.run(["true"], close_fds=False).returncode == 0
    wal.append_for_topic("t", b"c")
assert sleeper.poll() is None
sleeper.communicate(b"")
import multiprocessing
if __name__ == "__main__":
    with open_log() as wal:
        context = multiprocessing.get_context("spawn")
        assert context.Process is not None
        assert len(contents(wal, "t")) == 3
"""


@pytest.mark.parametrize("kind", ["fd", "mmap"])
def test_a_spawned_process_inherits_nothing(
    kind: str, tmp_path: Path, run_child: RunChild, file_kind: Callable[[str], Any]
) -> None:
    skip_if_missing(kind, file_kind)
    run_child(PRELUDE + SPAWNER, tmp_path / "log", kind, "5")


def test_the_child_would_be_noticed(tmp_path: Path, run_child: RunChild) -> None:
    """A process that hangs or loses entries fails these tests."""
    started_s = time.monotonic()
    run_child("sys.exit(12)", status=12)
    assert time.monotonic() - started_s < 60
    with pytest.raises(AssertionError, match="status 1"):
        run_child(PRELUDE + WRITER.replace("300", "x"), tmp_path / "log", "memory", "never", tmp_path / "a")
