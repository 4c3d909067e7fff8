"""Several processes and one directory: races to open it, and forks beside an io_uring.

``tests/sweeps/test_ends.py`` has the ways in which a process and its children may end; here are a
race of real processes, and the children of a log that writes by way of a ring. ``WALRUS_RACES=N``
makes N races a backend.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import pytest

from .children import environment, full_config, need
from .steps import open_log

RACES = int(os.environ.get("WALRUS_RACES", "20"))
RACERS = 8
SEED = os.environ.get("WALRUS_SEED", "race")

RACER = """
import json, os, sys
from walrus_core.errors import LockedError
from real.steps import open_log

config, number = json.loads(sys.argv[1]), int(sys.argv[2])
for line in sys.stdin:
    try:
        wal = open_log(line.strip(), config)
    except LockedError as error:
        print("locked", error.pid, flush=True)
        sys.stdin.readline()
        continue
    wal.append_for_topic("t", b"of racer %d" % number)
    print("won", os.getpid(), flush=True)
    sys.stdin.readline()  # nobody may have it until all others have tried
    wal.close()
    print("closed", flush=True)
"""


class Racer:
    """A process that opens what it is told to open."""

    def __init__(self, config: dict[str, object], number: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RACER, json.dumps(config), str(number)],
            env=environment(),
            cwd=tempfile.gettempdir(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.tell_it = self.process.stdin
        self.answers = self.process.stdout

    def tell(self, line: str) -> None:
        """Send a line."""
        self.tell_it.write(line + "\n")
        self.tell_it.flush()

    def answer(self) -> list[str]:
        """Return the words of its next line."""
        return self.answers.readline().split()


def run_races(folder: Path, backend: str, word: str, count: int) -> None:
    """Race ``count`` times: on a new directory, and again on the one that the winner has just left."""
    random = Random(f"{word} {backend}")
    config = full_config(f"{backend} 200 ms", random)
    racers = [Racer(config, number) for number in range(RACERS)]
    try:
        for race in range(count):
            directory = str(folder / f"log-{race // 2}")
            order = random.sample(racers, RACERS)
            for racer in order:
                racer.tell(directory)
            answers = {racer: racer.answer() for racer in order}
            winners = [racer for racer in order if answers[racer][:1] == ["won"]]
            told = f"WALRUS_SEED={word!r} race {race}: {list(answers.values())}"
            assert len(winners) == 1, told
            # Who has just locked may not have told its number yet; whoever had the lock before is not told.
            holders = ("None", str(winners[0].process.pid))
            assert all(answer[0] == "won" or answer[1] in holders for answer in answers.values()), told
            for racer in order:
                racer.tell("go on")
            assert winners[0].answer() == ["closed"]
            with open_log(directory, config) as wal:
                assert wal.recovery_report.damages == () and wal.recovery_report.clean
                assert wal.next_offset("t") == race % 2 + 1
    finally:
        for racer in racers:
            racer.process.kill()
            racer.process.communicate()


@pytest.mark.parametrize("backend", ["fd", "mmap"])
def test_of_eight_processes_exactly_one_wins(backend: str, tmp_path: Path) -> None:
    run_races(tmp_path, backend, SEED, RACES)


FORKER = """
import json, os, sys, time, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from walrus_core.errors import ForkedError, LockedError
from real.steps import open_log

config, directory, end = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
wal = open_log(directory, config)
batch = [b"%d" % number * 900 for number in range(40)]  # several extents: the ring writes them
count = 0

def work():
    global count
    assert wal.batch_append_for_topic("t", batch) == range(count, count + 40)
    count += 40
    wal.sync()

work()
children = []
waits, go = os.pipe()  # neither is inherited over exec as such
for turn in range(3):
    child = os.fork()
    if not child:
        try:
            wal.append_for_topic("t", b"of the child")
        except ForkedError:
            pass
        else:
            os._exit(77)
        if end == "exec":
            os.dup2(waits, 0)
            code = "import sys; sys.stdin.read(); sys.exit(5)"
            os.execv(sys.executable, [sys.executable, "-c", code])
        if end == "os._exit":
            os._exit(5)
        if end == "drop":
            del wal
        sys.exit(5)
    work()
    if end == "exec":
        children.append(child)
    else:
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 5, status
    work()
wal.close()
with open_log(directory, config) as wal:
    assert wal.recovery_report.clean and wal.recovery_report.damages == ()
    assert [entry.data for entry in wal.topic("t")] == batch * (count // 40)
os.close(go)
for child in children:
    # They lived through all of that, and held neither the lock nor the ring.
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 5, status
print("done", count)
"""


FORKING_NAMES = ("fd ring each", "fd ring 200 ms", "mmap each")
ENDS = ("sys.exit", "os._exit", "exec", "drop")


def fork_beside(folder: Path, name: str, end: str, word: str) -> None:
    """Let three children of a log end in this way while it goes on."""
    config = full_config(name, Random(word))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKER, json.dumps(config), str(folder / "log"), end],
        env=environment(),
        cwd=tempfile.gettempdir(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.startswith("done")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", FORKING_NAMES)
def test_children_leave_a_log_with_a_ring_alone(name: str, end: str, tmp_path: Path) -> None:
    need(name)
    fork_beside(tmp_path, name, end, SEED)
