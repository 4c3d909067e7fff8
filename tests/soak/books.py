"""What the lines of ``worker`` say must hold of the log, and the comparison with what is there.

The judge of single payloads is ``walrus_core.testing``; here is what two writers of a topic and its
readers add: whose entry stands at which offset, and where the cursors may stand.
"""

from __future__ import annotations

from typing import Optional

from walrus_core import Walrus
from walrus_core.testing import identify, judge
from walrus_core.testing.oracle import topic_digest

from .payloads import CURSORS, READ_MAX, TOPICS, WRITERS, follows, name_of, payload


class Topic:
    """One topic, as far as the lines have told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.whose: dict[int, tuple[int, int]] = {}
        """Offset → (writer, counter) of the entries that are known and not given back."""
        self.end = 0
        self.oldest = 0
        self.pending: dict[int, Optional[tuple[int, int]]] = dict.fromkeys(WRITERS)
        """(counter, count) of the append that has not returned."""
        self.at = dict.fromkeys(CURSORS, 0)
        """Where each cursor was when its last read returned."""
        self.has_moved = dict.fromkeys(CURSORS, False)

    def acknowledged(self, writer: int, counter: int, count: int, offset: int) -> None:
        """An append returned."""
        assert self.pending[writer] == (counter, count), f"{self.name}: nobody tried {counter}"
        self.pending[writer] = None
        self.note(offset, writer, counter, count)

    def note(self, offset: int, writer: int, counter: int, count: int) -> None:
        """A batch stands at ``offset``."""
        for place in range(count):
            assert offset + place not in self.whose, f"{self.name}: {offset + place} was given twice"
            self.whose[offset + place] = (writer, counter + place)
        self.end = max(self.end, offset + count)

    # --- after the end of a process ---------------------------------------------------------------

    def check(self, wal: Walrus, persist_every: int, was_closed: bool) -> int:
        """Compare the topic of an opened log, then take over what is there. Returns: entries looked at."""
        oldest, end = wal.oldest_offset(self.name), wal.next_offset(self.name)
        assert end >= self.end, f"{self.name}: ends at {end}, {self.end} were acknowledged"
        assert wal.durable_offset(self.name) == end, f"{self.name}: not durable after open"
        positions = {cursor: wal.cursor_offset(self.name, cursor) for cursor in CURSORS}
        self._check_cursors(positions, oldest, end, 1 if was_closed else persist_every, was_closed)
        found = [(entry.offset, entry.data) for entry in wal.topic(self.name)]
        self._take_pending(found, oldest, end)
        expected = [payload(self.name, *self.whose[offset]) for offset in range(oldest, end)]
        findings = judge(self.name, expected, [(offset - oldest, data) for offset, data in found])
        assert not findings, f"{self.name} from {oldest}: {'; '.join(map(str, findings[:5]))}"
        self._check_order(oldest, end)
        for offset in range(self.oldest, oldest):
            self.whose.pop(offset, None)
        self.oldest, self.end = oldest, end
        self.at = positions
        return len(found)

    def _check_cursors(
        self, positions: dict[str, int], oldest: int, end: int, persist_every: int, was_closed: bool
    ) -> None:
        for cursor, position in positions.items():
            at = self.at[cursor]
            least = max(oldest, at - persist_every + 1) if self.has_moved[cursor] else oldest
            # A read that was under way may have gone on, and have said so to nobody.
            most = min(end, max(at if was_closed else at + READ_MAX, oldest))
            assert least <= position <= most, (
                f"{self.name}: cursor {cursor} at {position}, was at {at}, [{least}, {most}] is allowed"
            )
            # Only what every cursor that has ever moved has passed may be given back.
            assert oldest <= position or not self.has_moved[cursor], f"{self.name}: {cursor} lost entries"

    def _take_pending(self, found: list[tuple[int, bytes]], oldest: int, end: int) -> None:
        """Find the appends that were under way among what no line told of: whole, or not there."""
        data_at = dict(found)
        for offset in range(max(oldest, self.oldest), end):
            if offset in self.whose:
                continue
            assert offset in data_at, f"{self.name}: nothing at {offset} of [{oldest}, {end})"
            whose = identify(data_at[offset])
            for writer, tried in self.pending.items():
                if tried and whose == (topic_digest(name_of(self.name, writer)), tried[0]):
                    self.note(offset, writer, *tried)
                    self.pending[writer] = None
                    break
            else:
                raise AssertionError(f"{self.name}: {whose} at {offset} is of nobody")
        assert self.end <= end, f"{self.name}: ends at {end}, inside a batch that goes to {self.end}"
        self.pending = dict.fromkeys(WRITERS)

    def _check_order(self, oldest: int, end: int) -> None:
        """The entries of each writer stand in the order in which it appended them, none left out."""
        last: dict[int, int] = {}
        for offset in range(oldest, end):
            writer, counter = self.whose[offset]
            assert follows(counter, last.get(writer)), f"{self.name}: {counter} of {writer} at {offset}"
            last[writer] = counter


class Books:
    """All topics, and what was counted."""

    def __init__(self) -> None:
        self.topics = {name: Topic(name) for name in TOPICS}
        self.is_closed = False
        self.appended = self.consumed = 0

    def take(self, line: str) -> None:
        """Take over what one line says."""
        word, *rest = line.split()
        if word == "closed":
            self.is_closed = True
            return
        topic = self.topics[rest[0]]
        if word == "moved":
            cursor, at = rest[1], int(rest[2])
            self.consumed += max(0, at - topic.at[cursor])
            topic.at[cursor] = at
            topic.has_moved[cursor] = True
            return
        writer, counter, count = map(int, rest[1:4])
        if word == "try":
            topic.pending[writer] = (counter, count)
            return
        assert word == "ack", line
        topic.acknowledged(writer, counter, count, int(rest[4]))
        self.appended += count

    def check(self, wal: Walrus, persist_every: int) -> int:
        """Compare a log that was opened after the end of the process. Returns: entries looked at."""
        report = wal.recovery_report
        assert report.damages == () and report.clamped_cursors == (), report
        assert report.clean or not self.is_closed, f"it was closed, and is not clean: {report}"
        assert set(wal.topics()) <= set(TOPICS)
        looked_at = sum(topic.check(wal, persist_every, self.is_closed) for topic in self.topics.values())
        self.is_closed = False
        return looked_at
