"""Hook specifications (pluggy) for plugins and observers.

Hooks register backends and announce rare events. Nothing on the append or read path goes
through a hook: a hook call costs some thirty times a method call.

Event hooks run on the thread where the event happens, outside the locks of the append path;
they must return quickly and must not call the log. What one raises is logged and ignored: the log
goes on, and the other observers are told as well. Only KeyboardInterrupt and SystemExit go on, on the main
thread, where a signal handler may have raised them.

An observer is an object with methods under ``@hookimpl``, given to ``WalrusBuilder.observer``. A
distribution can offer one by name: its entry point in the group ``walrus.observers`` names a
callable, which is called as ``make(path=...)`` with the log's directory when a log is opened with
``observer("name")``, or with that name under ``observers`` in ``walrus.toml``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from walrus_core.types import BlockInfo, Damage, RecoveryReport, SegmentInfo

PROJECT = "walrus"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def walrus_register_backends() -> Iterable[type[Any]]:  # type: ignore[empty-body]
    """Return the backend classes of this plugin. Called once, when the backend is chosen."""


@hookspec
def walrus_recovered(report: RecoveryReport) -> None:
    """A log was opened; the report says what was found, cut and set aside."""


@hookspec
def walrus_segment_created(info: SegmentInfo) -> None:
    """A segment file was created and is durable."""


@hookspec
def walrus_segment_reclaimed(info: SegmentInfo) -> None:
    """A segment file was removed, because every cursor had passed all of its blocks."""


@hookspec
def walrus_block_sealed(info: BlockInfo) -> None:
    """A block is full and durable, and takes no more entries."""


@hookspec
def walrus_synced(file_count: int, duration_s: float) -> None:
    """A sync of ``file_count`` files completed after ``duration_s`` seconds."""


@hookspec
def walrus_corruption_found(damage: Damage) -> None:
    """A read or the recovery met damaged bytes."""


@hookspec
def walrus_poisoned(error: Exception) -> None:
    """A sync or write failed; the log takes no more writes. Called once."""
