"""TopicFacts: what a log tells about its topics: offsets, counts, sizes, clean marks.

The first layer of the public surface; ``reading.py`` and ``walrus.py`` build on it.
"""

from __future__ import annotations

from typing import Optional

from walrus_core.config import DEFAULT_CURSOR, Options, encode_topic
from walrus_core.engine import Engine
from walrus_core.errors import UnknownTopicError
from walrus_core.front import Front
from walrus_core.gate import OPEN
from walrus_core.topic import Topic
from walrus_core.types import Damage, RecoveryReport, TopicInfo


class TopicFacts(Front):
    """Answers about an open log. Every method raises ClosedError and ForkedError."""

    _engine: Engine
    _topics: dict[str, Topic]

    def _find(self, topic: str) -> Optional[Topic]:
        gate = self._engine.gate
        if gate.state != OPEN:
            gate.check_open()
        return self._lookup(topic)

    def _lookup(self, topic: str) -> Optional[Topic]:
        """Return the topic, None where it does not exist. Raises: InvalidTopicError: it never could."""
        try:
            found = self._topics.get(topic)
        except TypeError:
            found = None
        if found is None:
            encode_topic(topic)
        return found

    def next_offset(self, topic: str) -> int:
        """Return the offset that the next entry of the topic gets; 0 for an unknown topic."""
        found = self._find(topic)
        return 0 if found is None else found.next_offset

    def oldest_offset(self, topic: str) -> int:
        """Return the offset of the oldest retained entry; the next offset where none is retained."""
        found = self._find(topic)
        return 0 if found is None else found.oldest_offset

    def durable_offset(self, topic: str) -> int:
        """Return the offset below which entries survive power loss; 0 for an unknown topic."""
        found = self._find(topic)
        return 0 if found is None else found.durable_offset

    def topics(self) -> list[str]:
        """Return the names of all topics that ever had an entry, sorted."""
        self._engine.gate.check_open()
        return sorted(topic.name for topic in self._engine.live_topics())

    def topic_entry_count(self, topic: str) -> int:
        """Return how many entries the default cursor has not consumed; 0 for an unknown topic."""
        found = self._find(topic)
        return 0 if found is None else self._unread(found)

    def _unread(self, topic: Topic) -> int:
        position = self._engine.cursor(topic, DEFAULT_CURSOR)
        return max(0, self._engine.visible_end(topic) - position.start_offset())

    def topic_entry_counts(self) -> dict[str, int]:
        """Return ``topic_entry_count`` of every topic."""
        self._engine.gate.check_open()
        return {topic.name: self._unread(topic) for topic in self._engine.live_topics()}

    def topic_size(self, topic: str) -> int:
        """Return the stored bytes (frames) of the topic's retained blocks; 0 for an unknown topic."""
        found = self._find(topic)
        return 0 if found is None else found.size_bytes

    def topic_info(self, topic: str) -> TopicInfo:
        """Return offsets, counts and sizes of a topic. Raises: UnknownTopicError."""
        found = self._find(topic)
        if found is None or found.next_offset == 0:
            raise UnknownTopicError(topic=topic)
        return TopicInfo(
            name=topic,
            oldest_offset=found.oldest_offset,
            next_offset=found.next_offset,
            durable_offset=found.durable_offset,
            unread_count=self._unread(found),
            size_bytes=found.size_bytes,
            block_count=len(found.blocks),
        )

    def topic_is_clean(self, topic: str) -> bool:
        """Return whether nothing was appended since the topic was marked clean.

        A topic without entries is clean; any append makes it dirty again.
        """
        found = self._find(topic)
        if found is None or found.next_offset == 0:
            return True
        return found.page.state.clean_plus_one == found.next_offset + 1

    def mark_topic_clean(self, topic: str) -> None:
        """Mark the topic clean as it is now. An unknown topic is clean already.

        Raises: StorageError: the mark is as before. Durability: durable on return, entries too.
        """
        found = self._find(topic)
        if found is None or found.next_offset == 0:
            return
        with self._engine.door.enter("a clean mark"):
            self._engine.gate.check_call()
            end_offset = found.next_offset
            self._engine.syncer.wait(found, end_offset)
            self._write_clean(found, end_offset + 1)

    def mark_topic_dirty(self, topic: str) -> None:
        """Take the clean mark back. Raises: UnknownTopicError, StorageError: the mark is as before."""
        found = self._find(topic)
        if found is None or found.next_offset == 0:
            raise UnknownTopicError(topic=topic)
        with self._engine.door.enter("a clean mark"):
            self._engine.gate.check_call()
            self._write_clean(found, 0)

    def _write_clean(self, topic: Topic, clean_plus_one: int) -> None:
        self._engine.cursors.write_state(topic.page, clean_plus_one=clean_plus_one)
        self._engine.cursors.sync()

    @property
    def entry_bytes_max(self) -> int:
        """Length of the largest payload that new segments of this log can hold."""
        return self._engine.allocator.entry_bytes_max

    @property
    def path(self) -> str:
        """The directory of this log."""
        return self._engine.options.path

    @property
    def options(self) -> Options:
        """What the log was opened with."""
        return self._engine.options

    @property
    def backend_name(self) -> str:
        """Name of the backend in use."""
        name: str = self._engine.backend.name
        return name

    @property
    def recovery_report(self) -> RecoveryReport:
        """What opening the directory found and did."""
        return self._engine.report

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Damage that recovery and reads have met so far, skipped or not (at most 1 000 kept)."""
        return tuple(self._engine.damages)
