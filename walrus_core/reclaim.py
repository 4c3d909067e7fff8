"""Gives blocks back that every cursor has passed; the only room that does.

The order is the whole point: the low-water offset of a topic is durable before any of its
blocks loses a byte, the header page of a slot is durably zero before the slot is leased again.
Every step may be interrupted and repeated; recovery finishes what a crash left.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable

from walrus_core.allocator import Allocator
from walrus_core.block import Block
from walrus_core.cursor import Cursor
from walrus_core.cursorfile import CursorFile
from walrus_core.gate import RLock, take_lock
from walrus_core.topic import Topic


def _is_done(topic: Topic, block: Block) -> bool:
    """True where neither an append nor a sync will touch the block any more."""
    return block is not topic.active and block.tail is None and block not in topic.unsynced


class Reclaimer:
    """Frees consumed blocks. Threads: any; runs one at a time."""

    def __init__(
        self,
        cursors: CursorFile,
        allocator: Allocator,
        cursors_of: Callable[[Topic], Iterable[Cursor]],
    ) -> None:
        """``cursors_of`` lists the cursors of a topic, the default one always among them."""
        self._cursors = cursors
        self._allocator = allocator
        self._cursors_of = cursors_of
        self._requested: dict[Topic, None] = {}
        self._detached: list[Block] = []
        """Blocks that no topic has any more, to be given up."""
        self.lock = threading.RLock()
        """Held from the decision what is given back until the low water is durable: whoever brings a new
        cursor, or sets one back, holds it, so that none of them finds its entries gone."""

    def request(self, topic: Topic) -> bool:
        """Note the topic for the next run if its oldest block could be given back. Cheap.

        Called by readers after they have let go of the topic: who reads without pause would else hold
        it whenever the background thread looks, and nothing would ever be given back.

        Returns: whether there is something for the next run.
        """
        if len(topic.blocks) < 2 and not self._detached:
            return False
        self._detach(topic)
        # A copy: another thread may give blocks back meanwhile.
        blocks = topic.blocks[:2]
        if len(blocks) < 2 or blocks[0] is topic.active or self._passed(topic) < blocks[1].first_offset:
            return bool(self._detached)
        self._requested[topic] = None
        return True

    def _passed(self, topic: Topic) -> int:
        """Offset that every cursor has passed durably; 0 where a cursor's position is lost."""
        if topic.page.damaged:
            return 0
        return min(
            (0 if cursor.lost else cursor.saved_offset for cursor in self._cursors_of(topic)), default=0
        )

    def run(self) -> int:
        """Give back what can be given back of the topics requested. Returns: how many blocks.

        Raises: StorageError: the rest is done by the next call or the next open.
        """
        with self.lock:
            requested = list(self._requested)
            found = [
                (topic, end)
                for topic in requested
                if (end := self._passed_end(topic)) > topic.low_water_durable
            ]
            for topic, end in found:
                # First, so that no cursor is set below what cursors.db may say once this is interrupted.
                topic.low_water = end
                self._cursors.write_state(topic.page, offset=end, floor=max(topic.page.state.floor, end))
            if found:
                self._cursors.sync()
            for topic, end in found:
                topic.low_water_durable = end
            for topic in requested:
                self._detach(topic)
            count = len(self._detached)
            self._give_up_detached()
            if self._allocator.has_unwiped:
                self._allocator.wipe()
            for topic in requested:
                # A block that is not sealed yet waits for a later run.
                if not self.request(topic):
                    self._requested.pop(topic, None)
            return count

    def _give_up_detached(self) -> None:
        """Give up the slots of detached blocks. After an interrupt one of them is given up once more,
        which changes nothing as long as nothing was wiped in between."""
        while self._detached:
            # The first: readers add others at the end meanwhile.
            block = self._detached[0]
            self._allocator.give_up(block.segment, block.header.slot, block.header.slots)
            del self._detached[0]

    def _passed_end(self, topic: Topic) -> int:
        """Return the end of the leading blocks that all cursors have passed and that are synced; 0: none."""
        passed = self._passed(topic)
        end = 0
        for block, following in itertools.pairwise(list(topic.blocks)):
            if not _is_done(topic, block) or following.first_offset > passed:
                break
            end = following.first_offset
        return end

    def _detach(self, topic: Topic) -> None:
        """Take the blocks below the low water, which is durable, out of readers' sight.

        Never waits: a topic that is in use, by whatever thread, is left for whoever comes next.
        (Waiting while holding locks could be for ever, if the holder is interrupted by a signal handler
        that needs one of them.)
        """
        following = topic.blocks[1:2]
        if not following or following[0].first_offset > topic.low_water_durable:
            return
        held: list[RLock] = []
        try:
            # Writers need not be kept out: they change the other end of the list.
            if not take_lock(topic.read_lock, held):
                return
            while len(topic.blocks) > 1 and topic.blocks[1].first_offset <= topic.low_water_durable:
                # One that an interrupted append left empty ends at the low water and may be yet to seal.
                if not _is_done(topic, topic.blocks[0]):
                    return
                # Out of the topic and into the list in one step: an interrupt loses no block, and
                # none is given up that a reader can still find.
                self._detached.extend(map(topic.blocks.pop, (0,)))
        finally:
            if held:
                held[0].release()
