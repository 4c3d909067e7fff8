"""A log agrees with a plain list, on every backend, over closes and kills (hypothesis, stateful).

WALRUS_EXAMPLES is the number of runs for each backend. A failure prints the steps and, as
``@reproduce_failure(...)``, what repeats them.
"""

from __future__ import annotations

import os
import unittest

import pytest
from hypothesis import HealthCheck, settings

from walrus_core import hot

from .machine import LogMachine
from .places import FolderPlace, MemoryPlace, find_class

# Making a failure small may take hypothesis five minutes; cut off before, it would say nothing.
pytestmark = pytest.mark.timeout(900)

EXAMPLES = int(os.environ.get("WALRUS_EXAMPLES", "60" if hot.COMPILED else "20"))

settings.register_profile(
    "walrus-model",
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def run_machine(machine: type[LogMachine]) -> type[unittest.TestCase]:
    case: type[unittest.TestCase] = machine.TestCase
    case.settings = settings.get_profile("walrus-model")  # type: ignore[attr-defined]
    return case


def on_folder(module: str, name: str) -> type[unittest.TestCase]:
    """Return the test for a backend that is a plugin, skipped by name where it is not installed."""
    backend_class = find_class(module, name)
    if backend_class is None:
        case = type(name, (unittest.TestCase,), {"runTest": lambda self: None})
        return pytest.mark.skip(reason=f"{module} is not installed")(case)
    machine = type(f"{name}Machine", (LogMachine,), {"make_place": lambda _self: FolderPlace(backend_class)})
    return run_machine(machine)


class MemoryMachine(LogMachine):
    """The log in a store in memory."""

    make_place = MemoryPlace


TestMemory = run_machine(MemoryMachine)
TestFd = on_folder("walrus_fd", "FdBackend")
TestMmap = on_folder("walrus_mmap", "MmapBackend")
