"""What the tests on real file systems need of the machine, and what they leave behind on it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest

from walrus_core import hot

from .machine import clean_own, clean_stale


@pytest.fixture(autouse=True, scope="session")
def _mounts() -> Iterator[None]:
    if os.name == "posix" and hasattr(os, "geteuid") and os.geteuid() == 0 and os.path.exists("/proc/self"):
        clean_stale()
        yield
        clean_own()
    else:
        yield


@pytest.fixture(autouse=True)
def _compiled_only() -> None:
    """These tests are about the disk: the pure twin makes the same calls and is tested by the others."""
    if not hot.COMPILED:
        pytest.skip("tests on real file systems run with the compiled twin only")
    for name in ("walrus_fd", "walrus_mmap"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
