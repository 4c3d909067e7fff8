"""The backend goes through the kit, as this system has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from walrus_core.testing.suite import BackendSuite
from walrus_mmap.backend import MmapBackend


class TestMmapBackend(BackendSuite):
    def make_backend(self, path: str, **options: Any) -> MmapBackend:
        return MmapBackend(**options)

    def peek(self, path: str) -> bytes:
        return Path(path).read_bytes()
