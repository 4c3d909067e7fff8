"""Processes that work on a log while something happens to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import IO, Any

import pytest

CONFIGS: dict[str, dict[str, Any]] = {
    "fd each": {"backend": "fd", "schedule": "each"},
    "fd ring each": {"backend": "fd", "schedule": "each", "io_uring": "on", "threads": 2},
    "fd O_DSYNC": {"backend": "fd", "schedule": "each", "durable_writes": True},
    "fd ring O_DSYNC": {"backend": "fd", "schedule": "each", "durable_writes": True, "io_uring": "on"},
    "mmap each": {"backend": "mmap", "schedule": "each", "threads": 2},
    "fd 200 ms": {"backend": "fd", "schedule": "200"},
    "fd ring 200 ms": {"backend": "fd", "schedule": "200", "io_uring": "on"},
    "mmap 200 ms": {"backend": "mmap", "schedule": "200"},
}
"""Every way in which entries become durable."""
TOPICS = ("a", "b", "c")
_TESTS = Path(__file__).parents[1]


def full_config(name: str, random: Random, **more: Any) -> dict[str, Any]:
    """Return what a worker and a ledger need to know."""
    return {**CONFIGS[name], "topics": TOPICS, "persist_every": random.choice([1, 1, 3, 50]), **more}


def need(name: str) -> None:
    """Skip the test, by name and with the reason, where its configuration cannot run."""
    if CONFIGS[name].get("io_uring") == "on":
        from walrus_fd.backend import FdBackend

        backend = FdBackend()
        answer = str(backend.probe()["io_uring"])
        backend.close()
        if not answer.startswith("live"):
            pytest.skip(f"io_uring is {answer}")


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a child that finds what is installed and the helpers here."""
    # This folder last: what is installed must not stand behind a source tree.
    path = os.pathsep.join([*(place for place in sys.path if place), str(_TESTS)])
    return {**os.environ, "PYTHONPATH": path, "WALRUS_QUIET": "1", **more}


class Worker:
    """A running ``worker`` and its lines."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._errors = os.memfd_create("errors")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "real.worker", json.dumps(config)],
            env=environment(),
            cwd=tempfile.gettempdir(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        assert self.process.stdout is not None
        self._lines: IO[bytes] = self.process.stdout

    def line(self) -> str:
        """Return the next line; the empty one once it has ended."""
        return self._lines.readline().decode()

    def rest(self) -> list[str]:
        """End it if it still runs, and return the whole lines that are left; none the second time."""
        if self._errors < 0:
            return []
        self.process.kill()
        lines = [line.decode() for line in self._lines]
        self.process.communicate()
        problems = os.pread(self._errors, 1 << 20, 0).decode()
        os.close(self._errors)
        self._errors = -1
        assert not problems, problems
        return [line for line in lines if line.endswith("\n")]
