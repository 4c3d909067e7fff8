"""Where a log of the model test lives: how to open it, and what the death of its process leaves."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

from walrus_core.memory import MemoryBackend, MemoryStore


class Place(Protocol):
    """A directory in memory or on disk."""

    path: str

    def backend(self) -> Any:
        """Return a new backend object for one open."""

    def kill(self) -> None:
        """Go on with a copy of what is there now, as it is while the log is open."""

    def remove(self) -> None:
        """Clean up. Called last."""


class MemoryPlace:
    """A store; the copy is a store of its own, so the killed instance can do nothing to it."""

    path = "/model"

    def __init__(self) -> None:
        self.store = MemoryStore()

    def backend(self) -> MemoryBackend:
        """Return a backend on the present store."""
        return MemoryBackend(store=self.store)

    def kill(self) -> None:
        """Copy the files."""
        copy = MemoryStore()
        copy.files = {path: bytearray(data) for path, data in self.store.files.items()}
        copy.directories = set(self.store.directories)
        self.store = copy

    def remove(self) -> None:
        """Nothing to do."""


class FolderPlace:
    """A real directory; the copy is made while the log is open."""

    def __init__(self, backend_class: type[Any]) -> None:
        self._class = backend_class
        self._root = Path(tempfile.mkdtemp(prefix="walrus-model-"))
        self._number = 0
        self.path = str(self._root / "0")

    def backend(self) -> Any:
        """Return a new backend."""
        return self._class()

    def kill(self) -> None:
        """Copy the directory. The old one is left to the instance that still has it open."""
        self._number += 1
        copy = str(self._root / str(self._number))
        shutil.copytree(self.path, copy)
        self.path = copy

    def remove(self) -> None:
        """Remove every directory there was."""
        shutil.rmtree(self._root)


def find_class(module: str, name: str) -> Any:
    """Return a plugin's backend class, or None where the plugin is not installed."""
    if importlib.util.find_spec(module) is None:
        return None
    return getattr(importlib.import_module(f"{module}.backend"), name)
