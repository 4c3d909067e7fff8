"""The entry point of walrus-mmap: hands the backend's class to the core."""

from __future__ import annotations

from walrus_core.hookspecs import hookimpl
from walrus_mmap.backend import MmapBackend


@hookimpl
def walrus_register_backends() -> list[type[MmapBackend]]:
    """Return the one backend of this distribution."""
    return [MmapBackend]
