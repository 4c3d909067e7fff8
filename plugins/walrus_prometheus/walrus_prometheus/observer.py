"""``PrometheusObserver``: counts what a log announces. Several logs share the metrics of one registry."""

from __future__ import annotations

import threading
import weakref
from typing import Optional

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from walrus_core.hookspecs import hookimpl
from walrus_core.types import BlockInfo, Damage, RecoveryReport, SegmentInfo

# From a flash disk that answers from its cache to a disk that is being retried.
SYNC_BUCKETS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)


class _Metrics:
    """The metrics of one registry, each with the label ``log``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"walrus_{name}", help_text, ("log", *labels), registry=registry)

        def gauge(name: str, help_text: str) -> Gauge:
            return Gauge(f"walrus_{name}", help_text, ("log",), registry=registry)

        self.sync_duration = Histogram(
            "walrus_sync_duration_seconds",
            "Duration of completed syncs.",
            ("log",),
            buckets=SYNC_BUCKETS_S,
            registry=registry,
        )
        self.synced_files = counter("synced_files_total", "Files made durable by completed syncs.")
        self.segments_created = counter("segments_created_total", "Segment files created.")
        self.segments_reclaimed = counter("segments_reclaimed_total", "Segment files removed.")
        self.blocks_sealed = counter("blocks_sealed_total", "Blocks that are full and durable.")
        self.sealed_entries = counter("sealed_entries_total", "Entries in sealed blocks.")
        self.corruptions = counter("corruptions_found_total", "Damages met, by kind.", "kind")
        self.recoveries = counter("recoveries_total", "Times a log was opened, by its state then.", "state")
        self.recovery_cuts = counter("recovery_cuts_total", "Torn tails cut by recoveries.")
        self.recovery_duration = gauge("recovery_duration_seconds", "Duration of the last recovery.")
        self.poisoned = gauge("poisoned", "1 while the log takes no more writes after a failure.")


_metrics: weakref.WeakKeyDictionary[CollectorRegistry, _Metrics] = weakref.WeakKeyDictionary()
"""A registry takes each name once, so all observers of one share what stands in it."""
_metrics_lock = threading.Lock()


def _metrics_of(registry: CollectorRegistry) -> _Metrics:
    with _metrics_lock:
        found = _metrics.get(registry)
        if found is None:
            found = _metrics[registry] = _Metrics(registry)
        return found


class PrometheusObserver:
    """An observer of one log; give it to ``WalrusBuilder.observer``.

    Threads: the hooks are called from any; the metrics have their own locks, which no append takes.
    """

    def __init__(self, *, path: str, registry: Optional[CollectorRegistry] = None) -> None:
        """Count into ``registry`` (None: the default one) under the label ``log="<path>"``.

        With the log's absolute directory as ``path`` a ``TopicCollector`` has the same label.

        Raises: ValueError: something else in the registry has the name of one of the metrics.
        """
        metrics = _metrics_of(REGISTRY if registry is None else registry)
        self._corruptions, self._recoveries, self._log = metrics.corruptions, metrics.recoveries, path
        # With these a metric stands at zero from the beginning, and is no gap until the first event.
        self._sync_duration = metrics.sync_duration.labels(path)
        self._synced_files = metrics.synced_files.labels(path)
        self._segments_created = metrics.segments_created.labels(path)
        self._segments_reclaimed = metrics.segments_reclaimed.labels(path)
        self._blocks_sealed = metrics.blocks_sealed.labels(path)
        self._sealed_entries = metrics.sealed_entries.labels(path)
        self._recovery_cuts = metrics.recovery_cuts.labels(path)
        self._recovery_duration = metrics.recovery_duration.labels(path)
        self._poisoned = metrics.poisoned.labels(path)

    @hookimpl
    def walrus_recovered(self, report: RecoveryReport) -> None:
        """Count the opening; a log that was just opened is not poisoned."""
        self._recoveries.labels(self._log, "clean" if report.clean else "crashed").inc()
        self._recovery_cuts.inc(len(report.cuts))
        self._recovery_duration.set(report.duration_s)
        self._poisoned.set(0)

    @hookimpl
    def walrus_segment_created(self, info: SegmentInfo) -> None:
        """Count it."""
        self._segments_created.inc()

    @hookimpl
    def walrus_segment_reclaimed(self, info: SegmentInfo) -> None:
        """Count it."""
        self._segments_reclaimed.inc()

    @hookimpl
    def walrus_block_sealed(self, info: BlockInfo) -> None:
        """Count it and its entries."""
        self._blocks_sealed.inc()
        self._sealed_entries.inc(info.end_offset - info.first_offset)

    @hookimpl
    def walrus_synced(self, file_count: int, duration_s: float) -> None:
        """Count the files, and put the time into its bucket."""
        self._synced_files.inc(file_count)
        self._sync_duration.observe(duration_s)

    @hookimpl
    def walrus_corruption_found(self, damage: Damage) -> None:
        """Count it under its kind."""
        self._corruptions.labels(self._log, damage.kind).inc()

    @hookimpl
    def walrus_poisoned(self, error: Exception) -> None:
        """Show it until the log is opened again."""
        self._poisoned.set(1)
