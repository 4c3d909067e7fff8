"""What the tests of the backend share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from walrus_fd.backend import FdBackend
from walrus_fd.files import FdSegmentFile
from walrus_fd.ring import Ring

SIZE_BYTES = 1 << 20
Write = Callable[[int, Any, int], int]
"""``write(descriptor, data, at_bytes)``, as os.pwrite."""


@pytest.fixture
def needs_ring() -> None:
    """Skip the test, by name and with the reason, where there is no io_uring."""
    if not sys.platform.startswith("linux"):
        pytest.skip("io_uring is of Linux")
    backend = FdBackend()
    answer = str(backend.probe()["io_uring"])
    backend.close()
    if not answer.startswith("live"):
        pytest.skip(f"io_uring is {answer}")


@pytest.fixture(params=["off", "on"])
def backend(request: pytest.FixtureRequest) -> Iterator[FdBackend]:
    """A backend, once without the ring and once with the ring for all that can use it."""
    if request.param == "on":
        request.getfixturevalue("needs_ring")
    made = FdBackend(io_uring=request.param)
    yield made
    made.close()


@pytest.fixture
def file(backend: FdBackend, tmp_path: Path) -> Iterator[FdSegmentFile]:
    """A file of ``SIZE_BYTES`` zeros."""
    made = backend.create(str(tmp_path / "one.wal"), size_bytes=SIZE_BYTES)
    yield made
    made.close()


@pytest.fixture
def replace_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Write], Write]], None]:
    """A function that puts another write at a position in the place of the system's, which it is given."""

    def replace(make: Callable[[Write], Write]) -> None:
        if hasattr(os, "pwrite"):
            monkeypatch.setattr(os, "pwrite", make(os.pwrite))
            return
        system_write = os.write
        write = make(lambda descriptor, data, _at_bytes: system_write(descriptor, data))

        def at_its_position(descriptor: int, data: Any) -> int:
            return write(descriptor, data, os.lseek(descriptor, 0, os.SEEK_CUR))

        monkeypatch.setattr(os, "write", at_its_position)

    return replace


@pytest.fixture
def ring_file(needs_ring: None, tmp_path: Path) -> Iterator[tuple[FdBackend, FdSegmentFile]]:
    """A backend that insists on the ring, and a file of ``SIZE_BYTES``."""
    backend = FdBackend(io_uring="on")
    file = backend.create(str(tmp_path / "ring.wal"), size_bytes=SIZE_BYTES)
    yield backend, file
    file.close()
    backend.close()


@pytest.fixture
def ring(ring_file: tuple[FdBackend, FdSegmentFile]) -> Ring:
    """The live ring of ``ring_file``."""
    found = ring_file[0]._uring._ring
    assert found is not None
    return found
