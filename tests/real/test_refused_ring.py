"""A kernel that refuses io_uring (containers do): a whole log works by plain calls and says why.

``plugins/walrus_fd/tests/test_fd_uring.py`` has the backend alone.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .children import environment

PROGRAM = """
import ctypes, errno, struct, sys
from random import Random
from real.ledger import Ledger
from real.steps import Steps, open_log

LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
REFUSE, ALLOW = 0x00050000, 0x7FFF0000
SETUP = 425
number = getattr(errno, sys.argv[2])
program = [(LOAD, 0, 0, 0), (JUMP_EQUAL, 0, 1, SETUP)]
program += [(RETURN, 0, 0, REFUSE | number), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, filter_mode, header, 0, 0):
    print("no seccomp", ctypes.get_errno())
    sys.exit()

config = {"backend": "fd", "io_uring": "auto", "schedule": sys.argv[3], "persist_every": 1}
config["durable_writes"] = sys.argv[3] == "each"
ledger = Ledger("refused", ["a", "b"], 1, all_survives=True)
wal = open_log(sys.argv[1], config)

def say(*words):
    ledger.take(" ".join(map(str, (0, 0, *words))))

steps = Steps(wal, Random(1), ["a", "b"], "refused", 0, say)
for _ in range(150):
    steps.step()
answers = wal._engine.backend.probe()
wal.close()
with open_log(sys.argv[1], config) as wal:
    ledger.check(wal, Random(2))
print(answers["io_uring"])
print(answers["writes"], answers["syncs"])
"""


def refuse_ring(folder: Path, answer: str, schedule: str) -> None:
    """Run a log where ``io_uring_setup`` answers so; skips the test where no filter can be set."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(folder / "log"), answer, schedule],
        env=environment(),
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("no seccomp"):
        pytest.skip(f"this kernel takes no filter: {os.strerror(int(done.stdout.split()[-1]))}")
    first, second = done.stdout.splitlines()
    assert first.startswith(f"off: io_uring_setup answers {answer}"), first
    assert "io_uring" not in second


ANSWERS = ("EPERM", "ENOSYS")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="io_uring and seccomp are of Linux")
@pytest.mark.skipif(platform.architecture()[0] != "64bit", reason="a filter for 64-bit system calls")
@pytest.mark.parametrize("schedule", ["each", "5"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_log_works_where_io_uring_is_refused(answer: str, schedule: str, tmp_path: Path) -> None:
    refuse_ring(tmp_path, answer, schedule)
