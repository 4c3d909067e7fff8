"""What the core finds by the entry point ``sealed`` of the group ``walrus``."""

from __future__ import annotations

from walrus_core.hookspecs import hookimpl
from walrus_sealed.backend import SealedBackend


@hookimpl
def walrus_register_backends() -> list[type[SealedBackend]]:
    """Hand the backend over."""
    return [SealedBackend]
