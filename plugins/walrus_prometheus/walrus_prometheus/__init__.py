"""Prometheus metrics of a walrus log: an observer that counts, and a collector that asks."""

from __future__ import annotations

from walrus_prometheus.collector import TopicCollector
from walrus_prometheus.observer import PrometheusObserver

__all__ = ["PrometheusObserver", "TopicCollector"]
