"""What the entry point of this distribution names: it hands the backend class to the core."""

from __future__ import annotations

from walrus_core.hookspecs import hookimpl
from walrus_fd.backend import FdBackend


@hookimpl
def walrus_register_backends() -> list[type[FdBackend]]:
    """Return the backend of this distribution."""
    return [FdBackend]
