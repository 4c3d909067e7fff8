"""Exact system calls: the process is killed before or after each, or the system breaks it.

By default a seeded sample of the calls of the workload in ``breaker``. ``WALRUS_EXACT_KILLS`` and
``WALRUS_BROKEN_CALLS`` say how many a test, or ``all``; with ``WALRUS_PART=I/N`` this run takes every
N-th from the I-th on (from 0), so that long runs can be cut up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from .children import environment
from .shim import compile_shim

SEED = os.environ.get("WALRUS_SEED", "calls")
PART = os.environ.get("WALRUS_PART", "0/1")
CONFIGS: dict[str, dict[str, Any]] = {
    "fd each": {"backend": "fd", "schedule": "each", "persist_every": 3},
    "mmap each": {"backend": "mmap", "schedule": "each", "persist_every": 1},
    "fd never": {"backend": "fd", "schedule": "never", "persist_every": 3},
}


def number_of(name: str, default: int) -> int:
    """Return how many points a test takes; 0 for all."""
    word = os.environ.get(name, str(default))
    return 0 if word == "all" else int(word)


def break_calls(folder: Path, what: str, name: str, points_max: int, share: str = PART) -> dict[str, Any]:
    """Run the breaker. Returns: what it reports; raises AssertionError with what it found."""
    part, parts = map(int, share.split("/"))
    # Death of a process takes nothing from any file system, so the fastest will do.
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(folder)
    more = {"what": what, "seed": f"{SEED} {name}", "points_max": points_max, "part": part, "parts": parts}
    config = {**CONFIGS[name], **more, "parent": parent}
    done = subprocess.run(
        [sys.executable, "-m", "real.breaker", json.dumps(config)],
        env=environment(LD_PRELOAD=str(compile_shim(folder))),
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"WALRUS_SEED={SEED!r}\n{done.stdout}\n{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{what} of {name}: {found}")
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_killed_at_exact_calls(name: str, tmp_path: Path) -> None:
    found = break_calls(tmp_path, "kills", name, number_of("WALRUS_EXACT_KILLS", 50))
    assert found["calls"] > 300, "the workload makes too few calls to be worth it"
    # A background thread may make a call more or less: the last points may not be reached.
    assert found["hits"] and found["outcomes"].get("done", 0) <= 1 + found["hits"] // 10


@pytest.mark.parametrize("name", CONFIGS)
def test_calls_that_fail_or_write_less(name: str, tmp_path: Path) -> None:
    found = break_calls(tmp_path, "faults", name, number_of("WALRUS_BROKEN_CALLS", 50))
    assert found["outcomes"].get("done", 0) > 4, "short writes and full disks end nothing"
    assert found["outcomes"].get("killed", 0) == 0
    assert found["hits"]
