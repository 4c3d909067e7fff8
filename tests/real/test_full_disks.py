"""Full disks, at many levels: never a signal, nothing acknowledged is lost, space makes it go on.

One child goes through the levels of one file system and backend, so a signal would be its status.
``WALRUS_FULL_DISKS=N`` makes N levels a test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .children import environment
from .machine import make_file_system, need_root, need_tool, new_point, run_or_skip

LEVELS = int(os.environ.get("WALRUS_FULL_DISKS", "12"))
SEED = os.environ.get("WALRUS_SEED", "full")
SIZE_BYTES = 12 << 20


@contextmanager
def small(kind: str, folder: Path) -> Iterator[Path]:
    """Give a file system of ``SIZE_BYTES``; skips the test where none can be mounted."""
    need_root()
    point = new_point(folder)
    if kind == "tmpfs":
        need_tool("mount")
        run_or_skip(
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={SIZE_BYTES}",
            "none",
            str(point),
            why="no tmpfs can be mounted",
        )
    else:
        need_tool("mount", "mkfs.ext4")
        make_file_system("ext4", folder / "small.img", SIZE_BYTES)
        run_or_skip("mount", "-o", "loop", str(folder / "small.img"), str(point), why="no loop device")
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], capture_output=True, check=False)


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with small(request.param, tmp_path) as point:
        yield point


def fill(point: Path, backend: str, schedule: str, word: str, count: int) -> int:
    """Go through ``count`` levels. Returns: how many calls were refused for want of space."""
    config = {
        "backend": backend,
        "schedule": schedule,
        "persist_every": 1 if schedule == "each" else 3,
        "seed": f"{word} {backend} {schedule}",
        "folder": str(point),
        "levels": count,
    }
    done = subprocess.run(
        [sys.executable, "-m", "real.filler", json.dumps(config)],
        env=environment(),
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"WALRUS_SEED={word!r}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    refused, levels = map(int, done.stdout.splitlines()[-1].split())
    assert levels == count
    assert refused >= count, "the disk did not get full at every level"
    return refused


@pytest.mark.parametrize("schedule", ["each", "5"])
@pytest.mark.parametrize("backend", ["fd", "mmap"])
def test_every_level_of_a_full_disk(small_disk: Path, backend: str, schedule: str) -> None:
    refused = fill(small_disk, backend, schedule, SEED, LEVELS)
    print(f"{LEVELS} levels, {refused} calls refused for want of space")
