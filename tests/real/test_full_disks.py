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
from pathlib import Path

import pytest

from .children import environment
from .machine import make_file_system, need_root, need_tool, new_point, run_or_skip

LEVELS = int(os.environ.get("WALRUS_FULL_DISKS", "12"))
SEED = os.environ.get("WALRUS_SEED", "full")
SIZE_BYTES = 12 << 20


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of ``SIZE_BYTES``."""
    need_root()
    point = new_point(tmp_path)
    if request.param == "tmpfs":
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
        make_file_system("ext4", tmp_path / "small.img", SIZE_BYTES)
        run_or_skip("mount", "-o", "loop", str(tmp_path / "small.img"), str(point), why="no loop device")
    yield point
    subprocess.run(["umount", "--lazy", str(point)], capture_output=True, check=False)


@pytest.mark.parametrize("schedule", ["each", "5"])
@pytest.mark.parametrize("backend", ["fd", "mmap"])
def test_every_level_of_a_full_disk(small_disk: Path, backend: str, schedule: str) -> None:
    config = {
        "backend": backend,
        "schedule": schedule,
        "persist_every": 1 if schedule == "each" else 3,
        "seed": f"{SEED} {backend} {schedule}",
        "folder": str(small_disk),
        "levels": LEVELS,
    }
    done = subprocess.run(
        [sys.executable, "-m", "real.filler", json.dumps(config)],
        env=environment(),
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"WALRUS_SEED={SEED!r}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    refused, levels = map(int, done.stdout.splitlines()[-1].split())
    assert levels == LEVELS
    assert refused >= LEVELS, "the disk did not get full at every level"
    print(f"{levels} levels, {refused} calls refused for want of space")
