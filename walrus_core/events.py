"""Announces rare events to observers, by the hooks of hookspecs.py. Never on the append path.

pluggy is imported only where there are observers. What an observer raises is logged and goes
no further.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Optional

from walrus_core.types import BlockInfo, Damage, RecoveryReport, SegmentInfo

logger = logging.getLogger("walrus_core")


class Events:
    """The observers of one log. Threads: called from any."""

    def __init__(self, observers: Sequence[object], quiet: bool) -> None:
        """Raises: pluggy.PluginValidationError: an observer implements a hook that does not exist."""
        self._quiet = quiet
        self._manager: Optional[Any] = None
        if observers:
            import pluggy

            from walrus_core import hookspecs

            self._manager = pluggy.PluginManager(hookspecs.PROJECT)
            self._manager.add_hookspecs(hookspecs)
            for observer in observers:
                self._manager.register(observer)
            self._manager.check_pending()

    @property
    def has_observers(self) -> bool:
        """False where whatever is announced is heard by nobody."""
        return self._manager is not None

    def _call(self, hook: str, **facts: object) -> None:
        if self._manager is None:
            return
        try:
            getattr(self._manager.hook, hook)(**facts)
        except Exception:
            if not self._quiet:
                logger.exception("an observer failed in %s", hook)

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
