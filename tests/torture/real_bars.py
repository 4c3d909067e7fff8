"""The harnesses of ``tests/real`` as bars: real file systems, devices, system calls and processes.

What a machine lacks for them (root, loop devices, FUSE, a compiler) is the reason why they are skipped.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from walrus_core import hot

from ..real import test_broken_calls as calls
from ..real import test_crash_states as states
from ..real import test_failed_syncs as syncs
from ..real import test_full_disks as disks
from ..real import test_power_cuts as power
from ..real import test_processes as processes
from ..real import test_refused_ring as ring
from ..real.children import CONFIGS, full_config, need
from ..real.machine import clean_stale, need_root, need_tool, volume
from ..real.recorder import need_fuse
from .bar import Bar, Unable

CUTS = 4
STATES = 20
FAILURES = 3
LEVELS = 10
RACES = 20
CALL_PARTS = 60
"""All calls of a workload are cut into so many seeds."""


def reason(*needs: Callable[[], None]) -> str:
    """Return why one of these would skip a test; empty where none would."""
    if not hot.COMPILED:
        return "tests on real file systems run with the compiled twin only"
    try:
        for one in needs:
            one()
    except pytest.skip.Exception as skipped:
        return str(skipped)
    return ""


def need_compiler() -> None:
    """Skip where the shim cannot be compiled."""
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        pytest.skip("no C compiler is installed")


def need_file_system(kind: str) -> None:
    """Skip where no such file system can be made and mounted."""
    need_root()
    need_tool("mount", f"mkfs.{kind}")


@contextmanager
def place() -> Iterator[Path]:
    """Give a folder. What would skip a test in it is why the bar cannot run."""
    clean_stale()
    with tempfile.TemporaryDirectory(prefix="walrus-real-bar-") as folder:
        try:
            yield Path(folder)
        except pytest.skip.Exception as skipped:
            raise Unable(str(skipped)) from None


def _config_of(seed: int) -> str:
    return list(CONFIGS)[seed % len(CONFIGS)]


def run_power_cuts(kind: str, seed: int) -> Mapping[str, int]:
    """One log, whose power is cut several times; seeds take the ways to write in turn."""
    name = _config_of(seed)
    word = f"power {kind} {name} {seed}"
    with place() as folder, volume(kind, folder) as disk:
        need(name)
        life = power.live(disk, "log", full_config(name, Random(word), seed=word), word, CUTS)
    return {"power cuts": life.cut_count, "appends acknowledged": life.ledger.acknowledged_count}


def run_loss_window(kind: str, seed: int) -> Mapping[str, int]:
    """One cut under the 200 ms schedule: how old is what it takes?"""
    name = ("fd 200 ms", "mmap 200 ms")[seed % 2]
    with place() as folder, volume(kind, folder) as disk:
        power.measure_loss(disk, "log", name, f"window {kind} {name} {seed}")
    return {"power cuts": 1}


def run_crash_states(seed: int) -> Mapping[str, int]:
    """One log on the recorded disk, and crashes of that disk."""
    name = _config_of(seed)
    with place() as folder:
        need(name)
        states.judge_states(folder, name, f"states {name} {seed}", count=STATES)
    return {"crash states": STATES}


def run_failed_syncs(name: str, seed: int) -> Mapping[str, int]:
    """Some logs whose disk fails them, each in another way."""
    with place() as folder:
        need(name)
        same_mount = syncs.fail_syncs(folder, name, f"syncs {seed}", FAILURES)
    return {"failed syncs": FAILURES, "reopened on the same mount": same_mount}


def run_full_disks(kind: str, backend: str, seed: int) -> Mapping[str, int]:
    """Some levels of free space."""
    with place() as folder, disks.small(kind, folder) as point:
        refused = disks.fill(point, backend, ("each", "5")[seed % 2], f"full {kind} {seed}", LEVELS)
    return {"levels": LEVELS, "calls refused": refused}


def run_calls(what: str, name: str, seed: int) -> Mapping[str, int]:
    """One part in ``CALL_PARTS`` of all calls of a workload."""
    with place() as folder:
        found = calls.break_calls(folder, what, name, 0, f"{seed}/{CALL_PARTS}")
    return {"kills" if what == "kills" else "faults": found["hits"]}


def run_races(backend: str, seed: int) -> Mapping[str, int]:
    """Races of eight processes for one directory."""
    with place() as folder:
        processes.run_races(folder, backend, f"race {seed}", RACES)
    return {"races": RACES}


def run_forks(seed: int) -> Mapping[str, int]:
    """Three children beside a log, which end in one of the ways there are."""
    name = processes.FORKING_NAMES[seed % len(processes.FORKING_NAMES)]
    end = processes.ENDS[seed // len(processes.FORKING_NAMES) % len(processes.ENDS)]
    with place() as folder:
        need(name)
        processes.fork_beside(folder, name, end, f"forks {seed}")
    return {"forks": 3}


def run_refused_ring(seed: int) -> Mapping[str, int]:
    """A log under a filter that refuses io_uring."""
    with place() as folder:
        ring.refuse_ring(folder, ring.ANSWERS[seed % 2], ("each", "5")[seed // 2 % 2])
    return {"logs": 1}


def _word(name: str) -> str:
    return name.lower().replace(" ", "-").replace("_", "-")


def _bar(name: str, backend: str, title: str, run: Any, *needs: Callable[[], None], **sizes: int) -> Bar:
    return Bar(name, backend, title, run, **sizes, reason_to_skip=partial(reason, *needs))


REAL_BARS = [
    *(
        _bar(
            "power-cuts",
            kind,
            "a real file system is shut down under the log, its journal unwritten; in recovery too",
            partial(run_power_cuts, kind),
            partial(need_file_system, kind),
            shard_seeds=16,
            release_seeds=504,
        )
        for kind in ("ext4", "xfs")
    ),
    *(
        _bar(
            "loss-window",
            kind,
            "what a cut takes with the 200 ms schedule is no older than the interval and one sync",
            partial(run_loss_window, kind),
            partial(need_file_system, kind),
            shard_seeds=20,
            release_seeds=200,
        )
        for kind in ("ext4", "xfs")
    ),
    _bar(
        "crash-states",
        "ext4",
        "a recorded disk keeps any subset of the writes since its last flush, out of order and torn",
        run_crash_states,
        need_fuse,
        shard_seeds=4,
        release_seeds=152,
    ),
    *(
        _bar(
            "failed-syncs",
            _word(name),
            "the device answers EIO to writes or flushes: nothing succeeds any more, nothing durable is lost",
            partial(run_failed_syncs, name),
            need_fuse,
            shard_seeds=10,
            release_seeds=67,
        )
        for name in syncs.NAMES
    ),
    *(
        _bar(
            "full-disks",
            f"{kind}-{backend}",
            "levels of free space: no signal, nothing acknowledged is lost, space makes it go on",
            partial(run_full_disks, kind, backend),
            need_root,
            shard_seeds=5,
            release_seeds=20,
        )
        for kind in ("tmpfs", "ext4")
        for backend in ("fd", "mmap")
    ),
    *(
        _bar(
            bar,
            _word(name),
            title,
            partial(run_calls, what, name),
            need_compiler,
            shard_seeds=1,
            release_seeds=CALL_PARTS,
        )
        for bar, what, title in (
            ("exact-kills", "kills", "SIGKILL before and after every system call of a workload"),
            (
                "broken-calls",
                "faults",
                "every system call of a workload fails, or writes less",
            ),
        )
        for name in calls.CONFIGS
    ),
    *(
        _bar(
            "races",
            backend,
            "eight processes open one directory: exactly one has it",
            partial(run_races, backend),
            shard_seeds=5,
            release_seeds=50,
        )
        for backend in ("fd", "mmap")
    ),
    _bar(
        "forks",
        "fd-mmap",
        "children of a log that goes on use it, exit and exec",
        run_forks,
        shard_seeds=12,
        release_seeds=168,
    ),
    _bar(
        "refused-ring",
        "fd",
        "a kernel that refuses io_uring",
        run_refused_ring,
        shard_seeds=4,
        release_seeds=4,
    ),
]
