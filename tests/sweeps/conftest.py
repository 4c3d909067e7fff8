"""The sweeps take many minutes, so they run only when asked for: ``WALRUS_SWEEP=1``, or ``all``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of this folder by name, unless the environment asks for them."""
    if os.environ.get("WALRUS_SWEEP"):
        return
    reason = pytest.mark.skip(reason="takes many minutes: set WALRUS_SWEEP=1 (a sample) or all")
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(reason)
