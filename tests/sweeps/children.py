"""What tests that run a log in a process of its own share: the beginning of its program."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

RunChild = Callable[..., "subprocess.CompletedProcess[str]"]
POSIX_ONLY = pytest.mark.skipif(os.name != "posix", reason="signals and forks as POSIX has them")

PRELUDE = """
import random, signal, threading, time
from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core.errors import ForkedError, LockedError, ReentrantCallError
from walrus_core.memory import MemoryBackend

path, kind, schedule = arguments[:3]

def make_backend():
    if kind == "memory":
        return MemoryBackend()
    if kind == "fd":
        from walrus_fd.backend import FdBackend
        return FdBackend()
    from walrus_mmap.backend import MmapBackend
    return MmapBackend()

OPTIONS = dict(block_size=16384, blocks_per_segment=3, fsync_schedule=FsyncSchedule.parse(schedule))

def open_log(backend=None, **more):
    return Walrus(path, backend=backend or make_backend(), **{**OPTIONS, **more})

def contents(wal, topic):
    return [(entry.offset, entry.data) for entry in wal.topic(topic)]
"""


def skip_if_missing(kind: str, file_kind: Callable[[str], Any]) -> None:
    """Skip where a backend is not installed."""
    if kind != "memory":
        file_kind(kind)
