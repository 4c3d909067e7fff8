"""Announces rare events to observers, by the hooks of hookspecs.py. Never on the append path.

pluggy is imported only where there are observers. What an observer raises is logged and goes
no further: neither to who announced the event, nor to the other observers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from walrus_core.errors import ConfigError
from walrus_core.types import BlockInfo, Damage, RecoveryReport, SegmentInfo

logger = logging.getLogger("walrus_core")


def hooks_of(observer: object) -> Any:
    """Return the hooks of one observer alone, to be called.

    Raises: TypeError: it is a class or None. Whatever pluggy raises: it implements a hook that does
    not exist, or one with an argument that the hook does not have.
    """
    import pluggy

    from walrus_core import hookspecs

    if isinstance(observer, type):
        # Its methods would fail at every event, for want of an object.
        raise TypeError("the observer is a class, not an object of it")
    if observer is None:
        raise TypeError("the observer is None")
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(observer, name=_name(observer))
    manager.check_pending()
    return manager.hook


class Events:
    """The observers of one log, told in the order in which they were given. Threads: called from any."""

    def __init__(self, observers: Sequence[object], quiet: bool) -> None:
        """Raises: ConfigError: one of them can be told of nothing."""
        self._quiet = quiet
        # Hooks for each, and not for all together: what one raises would end the call of them all.
        self._observers = tuple((observer, _given_hooks(observer)) for observer in observers)

    @property
    def has_observers(self) -> bool:
        """False where whatever is announced is heard by nobody."""
        return bool(self._observers)

    def _call(self, hook: str, **facts: object) -> None:
        for observer, hooks in self._observers:
            try:
                getattr(hooks, hook)(**facts)
            except BaseException as error:
                # In the background SystemExit, too, is only that of the observer, and would end syncing. On
                # the main thread both may come from a signal handler, and an observer that hangs may be why.
                if isinstance(error, (KeyboardInterrupt, SystemExit)) and _on_main_thread():
                    raise
                if not self._quiet:
                    logger.exception("the observer %s failed in %s", _name(observer), hook)

    def recovered(self, report: RecoveryReport) -> None:
        """A log was opened."""
        self._call("walrus_recovered", report=report)

    def segment_created(self, info: SegmentInfo) -> None:
        """A segment is durable."""
        self._call("walrus_segment_created", info=info)

    def segment_reclaimed(self, info: SegmentInfo) -> None:
        """A segment file was removed."""
        self._call("walrus_segment_reclaimed", info=info)

    def block_sealed(self, info: BlockInfo) -> None:
        """A block is full and durable."""
        self._call("walrus_block_sealed", info=info)

    def synced(self, file_count: int, duration_s: float) -> None:
        """A sync completed."""
        self._call("walrus_synced", file_count=file_count, duration_s=duration_s)

    def corruption_found(self, damage: Damage) -> None:
        """Damaged bytes were met."""
        self._call("walrus_corruption_found", damage=damage)

    def poisoned(self, error: Exception) -> None:
        """The log takes no more writes."""
        self._call("walrus_poisoned", error=error)


def _given_hooks(observer: object) -> Any:
    try:
        return hooks_of(observer)
    except Exception as error:
        why = " ".join(str(error).split())
        reason = f"{_name(observer)} cannot observe: {why}; walrus_core.hookspecs says what an observer is"
        raise ConfigError(option="observers", reason=reason) from error


def _name(observer: object) -> str:
    """Return the name of the class: what an observer shows of itself is code of others."""
    return (observer if isinstance(observer, type) else type(observer)).__qualname__


def _on_main_thread() -> bool:
    # By number: asked for its object, a thread that is none of threading's gets one made.
    return threading.get_ident() == threading.main_thread().ident
