"""The harnesses that ``python tests/torture`` runs. One more is one more ``Bar``."""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from ..crash.cuts import run_cuts
from ..crash.power import run
from ..damage.reference import CHECKSUMS, STATES
from ..damage.sweep import run_bits, run_bits_on_disk, run_kinds
from ..model.places import FolderPlace, MemoryPlace, find_class
from ..mutants.bugs import BUGS
from ..sweeps.every_fault import SCHEDULES, run_faults, still
from ..sweeps.io_run import Base
from ..sweeps.points import CAN_SWEEP
from ..sweeps.test_interrupts import CASES, CASES_OF_OPEN_LOGS, CloseSweep, DropSweep, Sweep
from ..sweeps.test_memory import CASES as MEMORY_CASES
from .bar import Bar
from .real_bars import REAL_BARS

LONG_PARTS = 24
FUZZ_SECONDS = 10.0
FUZZ_TARGETS = ("frames", "pages", "directory", "cursors", "names", "config")
SOAK_SECONDS = 30.0
INTERRUPTS = {
    "used": (Sweep, CASES),
    "closed": (CloseSweep, CASES_OF_OPEN_LOGS),
    "dropped": (DropSweep, CASES_OF_OPEN_LOGS),
}
CLASSES = {"fd": "FdBackend", "mmap": "MmapBackend"}


def _not_installed(backend: str) -> str:
    missing = importlib.util.find_spec(f"walrus_{backend}") is None
    return f"walrus-{backend} is not installed" if missing else ""


def _not_killable(backend: str) -> str:
    return _not_installed(backend) or ("" if hasattr(signal, "SIGKILL") else "this system has no SIGKILL")


def run_random(seed: int) -> Mapping[str, int]:
    """A random workload with crashes, failing syncs and recoveries one after the other."""
    return run(seed)


def run_model(backend: str, seed: int) -> Mapping[str, int]:
    """Hypothesis, from a seed of its own, over one backend."""
    from ..model.machine import LogMachine
    from ..model.seeded import run_seeded

    backend_class = None if backend == "memory" else find_class(f"walrus_{backend}", CLASSES[backend])

    def make(_self: Any) -> Any:
        return MemoryPlace() if backend_class is None else FolderPlace(backend_class)

    return run_seeded(type("Machine", (LogMachine,), {"make_place": make}), seed)


def run_kills(backend: str, seed: int) -> Mapping[str, int]:
    """A child that copies files into a log, killed at acknowledged lines until it is done."""
    from ..crash.test_kill import Ingestion, odd_file

    random = Random(f"kills {backend} {seed}")
    with tempfile.TemporaryDirectory(prefix="walrus-kills-") as folder:
        files = []
        for number in range(4):
            files.append(Path(folder) / f"file{number}.log")
            files[-1].write_bytes(odd_file(random, random.randint(100, 400)))
        ingestion = Ingestion(Path(folder) / "log", files, random)
        schedule = random.choice(["each", "interval", "never"])
        threads = random.choice([1, 4])
        rounds = random.randint(6, 12)
        while not ingestion.run_child(backend, schedule, threads, ingestion.kill_count < rounds):
            continue
        ingestion.check(backend)
        return {"kills": ingestion.kill_count, "entries": sum(ingestion.acknowledged.values())}


def run_long_faults(name: str, schedule: str, seed: int) -> Mapping[str, int]:
    """One part in ``LONG_PARTS`` of the faults of a long run."""
    with still():
        base = Base(name, schedule)
        faults = base.faults()[seed::LONG_PARTS]
        for fault in faults:
            base.run(fault)
    return {"faults": len(faults)}


def run_interrupts(then: str, seed: int) -> Mapping[str, int]:
    """One operation, struck at every bytecode that tells something; what ``then`` becomes of the log."""
    from ..sweeps.scenarios import SCENARIOS

    sweep_class, cases = INTERRUPTS[then]
    name, schedule = cases[seed]
    wakes = nullcontext() if name == "append_wakes_thread" else still()
    with wakes:
        sweep = sweep_class(SCENARIOS[name], schedule)
        telling = sweep.run(0).telling()
        for number in telling:
            sweep.run(number)
    faulthandler.cancel_dump_traceback_later()
    return {"operations": 1, "interrupts": len(telling)}


def run_seeded_bug(seed: int) -> Mapping[str, int]:
    """One bug of the table, in a copy of the library: some test must fail there."""
    from ..mutants.seeding import check_caught

    return {"caught" if check_caught(BUGS[seed]) else "untried": 1}


def run_memory(seed: int) -> Mapping[str, int]:
    """One operation, of which every allocation fails."""
    from ..sweeps import test_memory as memory
    from ..sweeps.scenarios import SCENARIOS

    name, schedule = memory.CASES[seed]
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(memory.Flusher, "wake", return_value=None))
        stack.enter_context(mock.patch.object(memory.syncer, "MARK_INTERVAL_S", 0.0))
        for module, attribute, replacement in memory.checksums_once():
            stack.enter_context(mock.patch.object(module, attribute, replacement))
        stack.enter_context(mock.patch.dict(os.environ, {"WALRUS_SWEEP": "all"}))
        sweep = memory.MemorySweep(SCENARIOS[name], schedule)
        found = memory.in_child(lambda: [*sweep.failures(f"{name} {schedule}"), f"{sweep.failed} failed"])
    *problems, last = found
    if problems or not last.endswith(" failed"):
        raise AssertionError(f"{name} {schedule}: {found}")
    return {"operations": 1, "allocations failed": int(last.split()[0])}


def run_fuzz(target: str, seed: int) -> Mapping[str, int]:
    """Some seconds of new inputs for one parser."""
    from ..fuzz.targets import hunt

    return {"inputs": hunt(target, seed, FUZZ_SECONDS)}


def run_soak(backend: str, seed: int) -> Mapping[str, int]:
    """Half a minute of threads, kills and closes on one log."""
    from ..soak.loop import Soak

    with tempfile.TemporaryDirectory(prefix="walrus-soak-") as folder:
        return Soak(backend, f"torture {seed}", Path(folder), lambda _line: None).run(SOAK_SECONDS)


def _no_failing_allocations() -> str:
    missing = importlib.util.find_spec("_testcapi") is None
    return "this Python has no _testcapi to fail allocations" if missing else ""


def _not_swept() -> str:
    return "" if CAN_SWEEP else "CPython 3.11 or later: its table of handlers is asked"


BARS = [
    Bar(
        "power-loss",
        "simulated",
        "power cut before every operation of a workload and of some recoveries, 20 disks each",
        run_cuts,
        shard_seeds=10,
        release_seeds=450,
    ),
    Bar(
        "crashes",
        "simulated",
        "random lives of a log: power loss, death, failing syncs and writes, full disk, in recovery too",
        run_random,
        shard_seeds=1000,
        release_seeds=40_000,
    ),
    *(
        Bar(
            "bit-flips",
            f"{state}-{checksum}",
            "every bit of a directory of 192 KiB, one at a time",
            partial(run_bits, state, checksum),
            shard_seeds=4,
            release_seeds=192,
        )
        for state in STATES
        for checksum in CHECKSUMS
    ),
    *(
        Bar(
            "bit-flips",
            backend,
            "the same with the files of closed-fnv1a64 in a folder",
            partial(run_bits_on_disk, backend),
            shard_seeds=4,
            release_seeds=192,
            reason_to_skip=partial(_not_installed, backend),
        )
        for backend in CLASSES
    ),
    *(
        Bar(
            "damage",
            f"{state}-{checksum}",
            "junk, filled, swapped, stale, misdirected and spliced sectors and slots, cut and extended files",
            partial(run_kinds, state, checksum),
            shard_seeds=10,
            release_seeds=100,
        )
        for state in STATES
        for checksum in CHECKSUMS
    ),
    *(
        Bar(
            "failing-calls",
            f"memory-{schedule}",
            "every backend call of a workload fails in every way, once and for ever",
            partial(run_faults, schedule),
            shard_seeds=4,
            release_seeds=16,
        )
        for schedule in SCHEDULES
    ),
    *(
        Bar(
            "failing-calls",
            f"memory-long-{name}-{schedule}",
            "every backend call of a run with two opens, on a new log and on what a killed process left",
            partial(run_long_faults, name, schedule),
            shard_seeds=1,
            release_seeds=LONG_PARTS,
        )
        for name in ("new", "unclean")
        for schedule in SCHEDULES
    ),
    *(
        Bar(
            "interrupts",
            f"memory-{then}",
            f"KeyboardInterrupt at every bytecode of every operation; the log is {then} after it",
            partial(run_interrupts, then),
            shard_seeds=2,
            release_seeds=len(INTERRUPTS[then][1]),
            reason_to_skip=_not_swept,
        )
        for then in INTERRUPTS
    ),
    Bar(
        "memory-errors",
        "memory",
        "MemoryError at every allocation of every operation",
        run_memory,
        shard_seeds=2,
        release_seeds=len(MEMORY_CASES),
        reason_to_skip=_no_failing_allocations,
    ),
    *(
        Bar(
            "fuzz",
            target,
            "any bytes as what this reads",
            partial(run_fuzz, target),
            shard_seeds=3,
            release_seeds=360,
        )
        for target in FUZZ_TARGETS
    ),
    *(
        Bar(
            "soak",
            backend,
            "writers, readers, syncs, reclaim, kills, closes and reopenings, with threads, in a closed loop",
            partial(run_soak, backend),
            shard_seeds=2,
            release_seeds=60,
            reason_to_skip=partial(_not_killable, backend),
        )
        for backend in CLASSES
    ),
    *(
        Bar(
            "model",
            backend,
            "Hypothesis state machine against a list",
            partial(run_model, backend),
            shard_seeds=2,
            release_seeds=200 if backend == "memory" else 40,
            reason_to_skip=(lambda: "") if backend == "memory" else partial(_not_installed, backend),
        )
        for backend in ("memory", *CLASSES)
    ),
    *(
        Bar(
            "kills",
            backend,
            "SIGKILL at acknowledged lines, then on in the same directory",
            partial(run_kills, backend),
            shard_seeds=10,
            release_seeds=500,
            reason_to_skip=partial(_not_killable, backend),
        )
        for backend in CLASSES
    ),
    Bar(
        "seeded-bugs",
        "copies",
        "a bug put into a copy of the library, where a test of the ordinary run must fail",
        run_seeded_bug,
        shard_seeds=4,
        release_seeds=len(BUGS),
    ),
    *REAL_BARS,
]
