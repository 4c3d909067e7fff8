"""Futures that wait for entries to become durable, and the event loops they belong to.

``Loops`` and ``Waiters`` are these classes or their compiled twins (``_await_c.pxi``), whichever
belong to the frame code in use; see ``hot.py``. Not here: when a loop is told (``awaiting.py``).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Optional, Protocol

from walrus_core import hot

if TYPE_CHECKING:
    import asyncio  # slow to import, and there already for whoever has a loop


class Durable(Protocol):
    """What is asked of a topic."""

    durable_offset: int


class Shut(Protocol):
    """What is asked of the gate."""

    failure: Any
    blocks_writes: bool


class PureWaiters:
    """The futures of one loop. Only the loop's thread touches them; ``is_asked`` is anybody's."""

    __slots__ = ("_by_topic", "_settling", "is_asked")

    def __init__(self) -> None:
        self._by_topic: dict[Durable, deque[tuple[int, asyncio.Future[None]]]] = {}
        """For each topic (offset, future), offsets ascending."""
        self._settling: set[Durable] = set()
        self.is_asked = False
        """The loop was asked to look and has not done so yet."""

    def __bool__(self) -> bool:
        """True where a future waits."""
        return bool(self._by_topic)

    def add(self, topic: Durable, offset: int, future: asyncio.Future[None]) -> None:
        """Take in a future for the entry at ``offset``, which is behind those of the topic that wait."""
        queue = self._by_topic.get(topic)
        if queue is None:
            # A new object may run the collector, and a finaliser this very function.
            queue = self._by_topic.setdefault(topic, deque())
        queue.append((offset, future))

    def settle(self, failure: Optional[BaseException]) -> None:
        """Settle the futures whose entries are durable; all others with ``failure``, where there is one.

        Raises: whatever an interrupt raises: the others wait on, and none is forgotten.
        """
        for topic in list(self._by_topic):
            # One that comes from a signal handler, which broke into it, leaves it to the first.
            if topic not in self._settling:
                self._settling.add(topic)
                try:
                    self._settle_topic(topic, self._by_topic[topic], failure)
                finally:
                    self._settling.discard(topic)

    def _settle_topic(
        self,
        topic: Durable,
        queue: deque[tuple[int, asyncio.Future[None]]],
        failure: Optional[BaseException],
    ) -> None:
        # Asked anew each time: one may be added whose entry has become durable only now.
        while queue and (queue[0][0] < topic.durable_offset or failure is not None):
            _settle_one(*queue[0], topic, failure)
            # Once it is settled, so that an interrupt forgets none.
            queue.popleft()
        if not queue:
            del self._by_topic[topic]


def _settle_one(
    offset: int, future: asyncio.Future[None], topic: Durable, failure: Optional[BaseException]
) -> None:
    if future.done():
        # Cancelled, by who waited.
        return
    if failure is None or offset < topic.durable_offset:
        future.set_result(None)
    else:
        future.set_exception(failure)


class PureLoops:
    """The event loops that wait for entries of one log.

    ``until`` calls ``_settle(loop)``, which a subclass has, where a sync was over before the future was
    there for it to see, and ``_new(loop)`` for a loop that has none waiting.
    """

    def __init__(self, gate: Shut) -> None:
        self._gate = gate
        self.loops: dict[asyncio.AbstractEventLoop, Waiters] = {}
        """Those that wait."""

    def until(self, loop: asyncio.AbstractEventLoop, topic: Durable, offset: int) -> asyncio.Future[None]:
        """Return a future of the loop, which runs here, that is done when the entry at ``offset`` is durable.

        It raises what says why that will never be known.
        """
        future = loop.create_future()
        # No lock: what a loop waits for is touched by its own thread only.
        waiters = self.loops.get(loop)
        if waiters is None:
            waiters = self._new(loop)
        waiters.add(topic, offset, future)
        if topic.durable_offset > offset or self._gate.failure is not None or self._gate.blocks_writes:
            # The sync was over before the future was there for it to see.
            self._settle(loop)
        return future

    def _new(self, loop: asyncio.AbstractEventLoop) -> Waiters:
        raise NotImplementedError

    def _settle(self, loop: asyncio.AbstractEventLoop) -> None:
        raise NotImplementedError


if TYPE_CHECKING or not hot.COMPILED:
    Loops = PureLoops
    Waiters = PureWaiters
else:
    from walrus_core import _front_c

    Loops = _front_c.Loops
    Waiters = _front_c.Waiters
