"""walrus: an embedded log engine. Topics of entries, appended durably, read through cursors.

Importing the package loads nothing; a name loads its room when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "CorruptionError",
    "Entry",
    "FsyncSchedule",
    "ReadConsistency",
    "Walrus",
    "WalrusBuilder",
    "WalrusError",
    "__version__",
]

if TYPE_CHECKING:
    from walrus_core.builder import WalrusBuilder
    from walrus_core.config import FsyncSchedule, ReadConsistency
    from walrus_core.errors import CorruptionError, WalrusError
    from walrus_core.hot import Entry
    from walrus_core.walrus import Walrus

_ROOMS = {
    "CorruptionError": "errors",
    "Entry": "hot",
    "FsyncSchedule": "config",
    "ReadConsistency": "config",
    "Walrus": "walrus",
    "WalrusBuilder": "builder",
    "WalrusError": "errors",
}


def __getattr__(name: str) -> Any:
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module 'walrus_core' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"walrus_core.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
