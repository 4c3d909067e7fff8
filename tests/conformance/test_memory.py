"""The reference backend goes through the kit that every backend goes through."""

from __future__ import annotations

from typing import Any

from walrus_core.memory import MemoryBackend, MemoryStore
from walrus_core.testing.suite import BackendSuite


class TestMemoryBackend(BackendSuite):
    def setup_method(self) -> None:
        self.store = MemoryStore()

    def make_backend(self, path: str, **options: Any) -> MemoryBackend:
        return MemoryBackend(store=self.store, **options)

    def peek(self, path: str) -> bytes:
        return bytes(self.store.files[path])
