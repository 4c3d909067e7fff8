"""Futures of event loops that wait for entries to become durable.

A sync may end on any thread; a future belongs to the thread of its loop. So a completed sync only
asks each loop with waiters, once, to look: the loop then settles all futures that the sync covered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Optional

from walrus_core.gate import Gate
from walrus_core.waiters import Loops, Waiters

if TYPE_CHECKING:
    import asyncio  # slow to import, and there already for whoever has a loop


class Awaiting(Loops):
    """All event loops that wait for entries of one log."""

    def __init__(self, gate: Gate, failure: Callable[[], Optional[BaseException]]) -> None:
        """``failure`` says why nothing becomes durable any more, or None."""
        super().__init__(gate)
        self._failure = failure
        self._lock = threading.RLock()

    def _new(self, loop: asyncio.AbstractEventLoop) -> Waiters:
        with self._lock:
            return self.loops.setdefault(loop, Waiters())

    def tell(self) -> None:
        """Something became durable, or nothing will any more. Called on any thread."""
        with self._lock:
            for loop, waiters in list(self.loops.items()):
                if loop.is_closed():
                    # Nobody waits on it any more.
                    del self.loops[loop]
                    continue
                if waiters.is_asked:
                    continue
                try:
                    loop.call_soon_threadsafe(self._settle, loop)
                    # Afterwards: an interrupt in between asks twice, and not never.
                    waiters.is_asked = True
                except RuntimeError:
                    # It was closed just now.
                    del self.loops[loop]

    def _settle(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the loop's own thread: settle the futures whose entries are durable, or all of them."""
        try:
            self._settle_now(loop)
        except BaseException:
            # An interrupt: the loop may run on, and no other sync may come.
            loop.call_soon(self._settle, loop)
            raise

    def _settle_now(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            waiters = self.loops.get(loop)
            if waiters is not None:
                waiters.is_asked = False
                waiters.settle(self._failure())
                if not waiters:
                    del self.loops[loop]
