"""Crashes of a disk that keeps any of the writes since its last flush: nothing durable is lost.

A process works on an ext4 whose disk keeps a journal of its requests; its lines say how long that
journal was. For a random moment, the disk is rebuilt with a subset of the writes since the last
flush, out of order and torn, then mounted and judged. ``WALRUS_CRASH_STATES=N``: N states a test.
"""

from __future__ import annotations

import copy
import os
import subprocess
from pathlib import Path
from random import Random

import pytest

from walrus_core.errors import WalrusError

from .children import CONFIGS, TOPICS, Worker, full_config, need
from .ledger import Ledger
from .machine import new_point, run_or_skip, unmount
from .recorder import States, read_journal, recorder
from .steps import open_log

STATES = int(os.environ.get("WALRUS_CRASH_STATES", "8"))
SEED = os.environ.get("WALRUS_SEED", "states")
STEPS = 120


def work(folder: Path, name: str, seed: str, mode: str = "ok") -> tuple[Path, Path, list[str], int]:
    """Let a worker work on a recorded disk. Returns: (image, journal, its lines, persist_every)."""
    config = full_config(name, Random(seed), seed=seed, life=0, first_serial=0)
    with recorder(folder) as disk:
        disk.set_mode(mode)
        config.update(directory=str(disk.point / "log"), journal=str(disk.journal))
        worker = Worker(config)
        lines = []
        count = 0
        while count < STEPS and (line := worker.line()):
            lines.append(line)
            count += line.split()[2] in ("appended", "moved")
        lines += worker.rest()
        assert count == STEPS, lines[-1]
        disk.unmount()
        return disk.image, disk.journal, lines, config["persist_every"]


def judge_states(folder: Path, name: str, seed: str, mode: str = "ok", count: int = STATES) -> int:
    """Work once, then judge ``count`` crashes. Returns: how many violations there were.

    With the mode ``ok`` the first one is raised.
    """
    image, journal, lines, persist_every = work(folder, name, seed, mode)
    requests = read_journal(journal)
    random = Random(seed)
    moments = sorted(random.randrange(len(requests) + 1) for _ in range(count))
    states = States(image, requests)
    ledger = Ledger(seed, TOPICS, persist_every)
    point = new_point(folder)
    crashed = folder / "crashed.img"
    taken = violations = 0
    for number, moment in enumerate(moments):
        size_bytes = states.advance(moment)
        while taken < len(lines) and int(lines[taken].split()[0]) <= size_bytes:
            ledger.take(lines[taken])
            taken += 1
        how, disk = states.draw(random)
        crashed.write_bytes(disk)
        run_or_skip("mount", "-o", "loop", str(crashed), str(point), why="a crashed image cannot be mounted")
        try:
            with open_log(str(point / "log"), {**CONFIGS[name], "persist_every": persist_every}) as wal:
                copy.deepcopy(ledger).check(wal, random)
        except (AssertionError, WalrusError) as error:
            violations += 1
            if mode == "ok":
                where = f"{seed!r} (WALRUS_SEED={SEED!r}), state {number}: request {moment}, {how}"
                raise AssertionError(f"{where}: {error}") from error
        finally:
            unmount(point)
    print(f"{count} states of {len(requests)} requests, {violations} violations")
    return violations


@pytest.mark.parametrize("name", CONFIGS)
def test_no_crash_of_the_disk_takes_what_is_durable(name: str, tmp_path: Path) -> None:
    need(name)
    judge_states(tmp_path, name, f"{SEED} {name}")


def test_a_disk_that_ignores_flushes_would_be_noticed(tmp_path: Path) -> None:
    """The test of this test: nothing keeps entries on such a drive, and the states must show it."""
    assert judge_states(tmp_path, "fd each", f"{SEED} lie", mode="lie") > 0


def test_nothing_is_left_mounted(tmp_path: Path) -> None:
    with recorder(tmp_path) as disk:
        assert os.path.ismount(disk.point)
        (disk.point / "file").write_bytes(b"x" * 5000)
        os.sync()
    assert not os.path.ismount(disk.point) and not os.path.ismount(disk.disk_point)
    used = subprocess.run(["losetup", "--list"], capture_output=True, text=True).stdout
    assert str(disk.disk_point) not in used
