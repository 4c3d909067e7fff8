"""Where a damaged directory lies while it is examined: in memory, or in a folder under a real backend."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

from ..model.places import find_class
from .reference import PATH, Files, StillBackend

BACKENDS = {"fd": "FdBackend", "mmap": "MmapBackend"}
RAM = "/dev/shm"


@frozen
class Disk:
    """A directory that a backend is about to open."""

    backend: Any
    path: str
    image: Callable[[], Files]
    """Return all bytes as they are, by the paths of the reference."""


MakeDisk = Callable[[Files], Disk]


def memory_disk(files: Files) -> Disk:
    """Put files into a store of their own."""
    backend = StillBackend(files)
    return Disk(backend, PATH, backend.image)


class FolderDisks:
    """Makes one disk after the other in the same folder, in memory where the system has such folders."""

    def __init__(self, backend: str) -> None:
        """Make the folder. ``backend`` is ``"fd"`` or ``"mmap"``, and installed."""
        self._class = find_class(f"walrus_{backend}", BACKENDS[backend])
        self._folder = Path(
            tempfile.mkdtemp(prefix="walrus-damage-", dir=RAM if Path(RAM).is_dir() else None)
        )

    def __call__(self, files: Files) -> Disk:
        """Take away what was there, and put files there."""
        for path in self._folder.iterdir():
            path.unlink()
        for name, data in files.items():
            (self._folder / Path(name).name).write_bytes(data)
        return Disk(self._class(), str(self._folder), self._image)

    def _image(self) -> Files:
        return {
            f"{PATH}/{path.name}": path.read_bytes()
            for path in self._folder.iterdir()
            if path.suffix in (".db", ".wal")
        }

    def remove(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self._folder)
