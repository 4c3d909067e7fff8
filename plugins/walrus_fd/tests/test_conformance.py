"""The backend goes through the kit: as the system has it, without the ring, and with durable writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import pytest

from walrus_core.testing.suite import BackendSuite
from walrus_fd.backend import FdBackend


class TestFdBackend(BackendSuite):
    options: ClassVar[dict[str, Any]] = {}

    def make_backend(self, path: str, **options: Any) -> FdBackend:
        return FdBackend(**{**self.options, **options})

    def peek(self, path: str) -> bytes:
        return Path(path).read_bytes()


class TestFdBackendWithoutRing(TestFdBackend):
    options: ClassVar[dict[str, Any]] = {"io_uring": "off"}


@pytest.mark.usefixtures("needs_ring")
class TestFdBackendByRing(TestFdBackend):
    options: ClassVar[dict[str, Any]] = {"io_uring": "on"}


@pytest.mark.skipif(not hasattr(os, "O_DSYNC"), reason="this system has no flag for durable writes")
class TestFdBackendWithDurableWrites(TestFdBackend):
    options: ClassVar[dict[str, Any]] = {"durable_writes": True}
