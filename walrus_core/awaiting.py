"""Futures of event loops that wait for entries to become durable.

A sync may end on any thread; a future belongs to the thread of its loop. So a completed sync only
asks each loop with waiters, once, to look: the loop then settles all futures that the sync covered.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Optional, Protocol

from walrus_core.gate import Gate

if TYPE_CHECKING:
    import asyncio  # slow to import, and there already for whoever has a loop


def _running_loop() -> asyncio.AbstractEventLoop:
    """Return the running loop; after the first call by ``asyncio`` itself."""
    global _running_loop
    from asyncio import get_running_loop

    _running_loop = get_running_loop
    return get_running_loop()


class Durable(Protocol):
    """What is asked of a topic."""

    durable_offset: int


class Waiters:
    """The futures of one loop. Only the loop's thread touches them."""

    __slots__ = ("by_topic", "is_asked")

    def __init__(self) -> None:
        self.by_topic: dict[Durable, deque[tuple[int, asyncio.Future[None]]]] = {}
        """For each topic (offset, future), offsets ascending."""
        self.is_asked = False


class Awaiting:
    """All event loops that wait for entries of one log."""

    def __init__(self, gate: Gate, failure: Callable[[], Optional[BaseException]]) -> None:
        """``failure`` says why nothing becomes durable any more, or None."""
        self._gate = gate
        self._failure = failure
        self.loops: dict[asyncio.AbstractEventLoop, Waiters] = {}
        """Those that wait."""
        self._lock = threading.RLock()

    def until(self, topic: Durable, offset: int) -> asyncio.Future[None]:
        """Return a future of the running loop that is done when the entry at ``offset`` is durable.

        It raises what ``failure`` says where that will never be known.
        """
        loop = _running_loop()
        future = loop.create_future()
        # No lock: what a loop waits for is touched by its own thread only.
        waiters = self.loops.get(loop)
        if waiters is None:
            with self._lock:
                waiters = self.loops[loop] = Waiters()
        queue = waiters.by_topic.get(topic)
        if queue is None:
            queue = waiters.by_topic[topic] = deque()
        queue.append((offset, future))
        if topic.durable_offset > offset or self._gate.failure is not None or self._gate.blocks_writes:
            # The sync was over before the future was there for it to see.
            self._settle(loop)
        return future

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
            if waiters is None:
                return
            waiters.is_asked = False
            failure = self._failure()
            for topic, queue in list(waiters.by_topic.items()):
                durable_offset = topic.durable_offset
                # Taken out once it is settled, so that an interrupt forgets none.
                while queue and queue[0][0] < durable_offset:
                    future = queue[0][1]
                    if not future.done():
                        future.set_result(None)
                    queue.popleft()
                while queue and failure is not None:
                    future = queue[0][1]
                    if not future.done():
                        future.set_exception(failure)
                    queue.popleft()
                if not queue:
                    del waiters.by_topic[topic]
            if not waiters.by_topic:
                del self.loops[loop]
