"""The end of a process, and its children: what was acknowledged is there, and nobody is in the way.

Every scenario runs in a process of its own, with one of the ways in which a process may end or fork.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from walrus_core import hot

from .children import POSIX_ONLY, PRELUDE, RunChild, skip_if_missing

pytestmark = POSIX_ONLY
SCHEDULES = ["never", "each", "5"] if hot.COMPILED else ["each"]
"""An interpreter ends in the same way with either twin."""


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


@pytest.mark.parametrize("schedule", SCHEDULES)
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


@pytest.mark.parametrize("schedule", SCHEDULES)
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


@pytest.mark.parametrize("schedule", SCHEDULES)
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
