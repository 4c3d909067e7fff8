"""Group commit: one thread syncs for everybody who wrote before, and the others wait for it.

``Group`` is this class or its compiled twin (``_group_c.pxi``), whichever belongs to the frame code
in use; see ``hot.py``. Lives here: who syncs, who waits, who is let go. Not here: the sync.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Optional, Protocol

from walrus_core import hot
from walrus_core.gate import RLock, take_lock

FOLLOW_S = 0.1
"""After so long a follower looks by itself whether there is a leader."""


class Durable(Protocol):
    """What is asked of a topic."""

    durable_offset: int


class PureGroup:
    """Whoever finds nobody syncing leads; the others wait, each on a lock of its own.

    A leader lets go of those whose entries are durable and of one more, who leads next. Nobody
    queues up for a lock that someone syncs under.
    """

    def __init__(self, sync: Callable[[Optional[Durable], int], None]) -> None:
        """``sync`` makes all that was written before durable, or raises; it is told for what
        (topic, offset) this thread leads, or (None, 0)."""
        self._sync = sync
        self._lock = threading.RLock()
        self._followers: deque[tuple[Optional[Durable], int, threading.Lock]] = deque()

    @property
    def waiting(self) -> int:
        """How many threads wait for a leader."""
        return len(self._followers)

    def wait(self, topic: Durable, offset: int) -> None:
        """Return when entries of ``topic`` below ``offset`` are durable. Raises: what the sync raises."""
        while topic.durable_offset < offset:
            if not self._lead(topic, offset):
                self._follow(topic, offset)

    def lead(self) -> None:
        """Return when a sync has ended that began after the call. Raises: what the sync raises."""
        try:
            with self._lock:
                self._sync(None, 0)
        finally:
            self._hand_over()

    def wait_idle(self) -> None:
        """Return when the sync that is under way has ended."""
        try:
            with self._lock:
                pass
        finally:
            self._hand_over()

    def _lead(self, topic: Durable, offset: int) -> bool:
        """Sync for everybody, unless somebody is at it. Returns: whether this thread did."""
        held: list[RLock] = []
        try:
            if not take_lock(self._lock, held):
                return False
            if topic.durable_offset < offset:
                self._sync(topic, offset)
            return True
        finally:
            if held:
                held[0].release()
                if self._followers:
                    self._hand_over()

    def _follow(self, topic: Durable, offset: int) -> None:
        """Wait until a leader lets go of this thread, because its entries are durable or it is to lead."""
        released = threading.Lock()
        released.acquire()
        self._followers.append((topic, offset, released))
        # Again, now that a leader who ends can see this thread: the one before may have ended already.
        while not self._lead(topic, offset):
            # Not for ever: an interrupt may have ended the one who was to lead.
            if released.acquire(timeout=FOLLOW_S) or topic.durable_offset >= offset:
                return

    def _hand_over(self) -> None:
        """Let go of the followers who need not wait any more, and of one who will lead the others."""
        waiting: list[tuple[Optional[Durable], int, threading.Lock]] = []
        for _ in range(len(self._followers)):
            try:
                follower = self._followers.popleft()
            except IndexError:
                # Somebody else who has led hands over at the same time.
                break
            topic, offset, released = follower
            if topic is not None and topic.durable_offset >= offset:
                released.release()
            else:
                waiting.append(follower)
        if waiting:
            self._followers.extend(waiting[1:])
            waiting[0][2].release()


if TYPE_CHECKING or not hot.COMPILED:
    Group = PureGroup
else:
    from walrus_core import _front_c

    Group = _front_c.Group
