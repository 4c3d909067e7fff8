"""``TopicCollector``: asks an open log for its topics whenever Prometheus asks for the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from walrus_core.errors import ClosedError, ForkedError, UnknownTopicError
from walrus_core.types import TopicInfo

TOPICS_MAX = 1000
_GAUGES = (
    ("oldest_offset", "oldest_offset", "Offset of the oldest retained entry."),
    ("next_offset", "next_offset", "Offset that the next entry gets."),
    ("durable_offset", "durable_offset", "Offset below which entries survive power loss."),
    ("unread_entries", "unread_count", "Entries that the default cursor has not consumed."),
    ("stored_bytes", "size_bytes", "Bytes of frames in retained blocks."),
    ("blocks", "block_count", "Retained blocks."),
)


class Log(Protocol):
    """What is asked of a log; ``Walrus`` has it."""

    @property
    def path(self) -> str:
        """The directory, the value of the label ``log``."""

    def topics(self) -> Sequence[str]:
        """The names of the topics."""

    def topic_info(self, topic: str) -> TopicInfo:
        """The facts of one topic."""


class TopicCollector(Collector):
    """Gauges of the topics of one open log; ``registry.register(TopicCollector(wal))``.

    A registry takes one collector, because each brings metrics of the same names; it takes logs in
    addition by ``add``. A closed log has no metrics.

    Cost: a few dictionary look-ups for each topic, on the thread that asks; no I/O.
    """

    def __init__(self, *logs: Log, topics_max: int = TOPICS_MAX) -> None:
        """Show at most ``topics_max`` topics of each log, the first by name."""
        if topics_max < 0:
            raise ValueError(f"topics_max must not be negative: {topics_max}")
        self._logs: list[Log] = []
        self._topics_max = topics_max
        for log in logs:
            self.add(log)

    def add(self, log: Log) -> None:
        """Show this log too; one that is shown already is left as it is."""
        # Prometheus refuses a whole answer in which a sample stands twice.
        if not any(one is log for one in self._logs):
            self._logs = [*self._logs, log]

    def remove(self, log: Log) -> None:
        """Show this log no more; one that is not shown is left out without a word."""
        self._logs = [one for one in self._logs if one is not log]

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Name the metrics without asking any log, so that the registry finds two of a name."""
        return self._families().values()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Ask every log. A log or topic that is gone meanwhile is left out."""
        families = self._families()
        for log in self._logs:
            try:
                names = log.topics()
                families["topics"].add_metric([log.path], len(names))
                for name in names[: self._topics_max]:
                    self._add(families, log, name)
            except (ClosedError, ForkedError):
                continue
        return families.values()

    def _families(self) -> dict[str, GaugeMetricFamily]:
        found = {"topics": GaugeMetricFamily("walrus_topics", "Topics of the log.", labels=["log"])}
        for name, _, help_text in _GAUGES:
            found[name] = GaugeMetricFamily(f"walrus_topic_{name}", help_text, labels=["log", "topic"])
        return found

    def _add(self, families: dict[str, GaugeMetricFamily], log: Log, name: str) -> None:
        try:
            info = log.topic_info(name)
        except UnknownTopicError:
            return  # listed, and gone before it was asked for
        for gauge, fact, _ in _GAUGES:
            families[gauge].add_metric([log.path, name], getattr(info, fact))
