"""A store to bytes that are reserved needs no space, whatever the system has read ahead around them.

Large pieces of a file come into the cache at once, and one may reach from reserved bytes into a hole. The
first store to any page of it then takes space for the whole piece, and where there is none that is SIGBUS.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .children import environment
from .machine import volume

STORES = """
import os, sys
from walrus_mmap.backend import MmapBackend

folder, reserved = sys.argv[1], int(sys.argv[2]) << 10
written = 100 << 10
backend = MmapBackend()
file = backend.create(folder + "/file", size_bytes=16 << 20)
file.reserve(0, written)
file.write_at(0, b"x" * written)
file.sync()
file.close()
file = backend.open(folder + "/file")
file.drop_cache()
for at in range(0, written, 16384):
    file.read_at(at, min(16384, written - at))
file.reserve(written, reserved)
for at in range(0, written, 16384):
    file.read_at(at, min(16384, written - at))
with open(folder + "/fill", "wb") as fill:
    at = 0
    for step in (1 << 20, 4096):
        try:
            while True:
                os.posix_fallocate(fill.fileno(), at, step)
                at += step
        except OSError:
            pass
memory = file.memory(0, 16 << 20)
for at in range(written, written + reserved, 4096):
    memory[at] = 7
memory.release()
print("stored")
"""


@pytest.fixture(params=["ext4", "xfs"])
def point(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with volume(request.param, tmp_path) as made:
        yield made.point


@pytest.mark.parametrize("reserved_kib", [4, 28, 52, 100, 412])
def test_reserved_bytes_take_stores_on_a_full_disk(point: Path, reserved_kib: int) -> None:
    pytest.importorskip("walrus_mmap")
    command = [sys.executable, "-c", STORES, str(point), str(reserved_kib)]
    done = subprocess.run(
        command, env=environment(), cwd=tempfile.gettempdir(), capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "stored\n"), done.stderr
