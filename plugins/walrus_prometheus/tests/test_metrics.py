"""What the metrics say, of logs to which things happen."""

from __future__ import annotations

import gc
import re
import threading
import weakref

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from walrus_core import FsyncSchedule, Walrus
from walrus_core.errors import SyncFailedError
from walrus_core.memory import MemoryBackend, MemoryStore
from walrus_core.testing import FaultyBackend
from walrus_prometheus import PrometheusObserver, TopicCollector
from walrus_prometheus.collector import Log

BLOCK_BYTES = 16384


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def open_log(registry):
    """A function that opens a log in memory with an observer; ``open_log("orders", store=...)``."""
    opened = []

    def open_log(name="log", *, store=None, backend=None, **options):
        options = {"block_size": BLOCK_BYTES, "blocks_per_segment": 4, **options}
        observer = PrometheusObserver(path=name, registry=registry)
        backend = backend or MemoryBackend(store=store)
        opened.append(Walrus(name, backend=backend, observers=(observer,), **options))
        return opened[-1]

    yield open_log
    for wal in opened:
        wal.close()


def value(registry, name, **labels):
    return registry.get_sample_value(f"walrus_{name}", {"log": "log", **labels})


def test_syncs_are_counted_and_timed(open_log, registry):
    wal = open_log(fsync_schedule=FsyncSchedule.no_fsync())
    assert value(registry, "sync_duration_seconds_count") == 0
    before = value(registry, "synced_files_total")
    wal.append_for_topic("t", b"entry")
    wal.sync()
    assert value(registry, "sync_duration_seconds_count") == 1
    assert value(registry, "sync_duration_seconds_sum") > 0
    assert value(registry, "sync_duration_seconds_bucket", le="+Inf") == 1
    assert value(registry, "synced_files_total") == before + 1


def test_segments_and_blocks_are_counted(open_log, registry):
    wal = open_log(fsync_schedule=FsyncSchedule.no_fsync())
    # Twelve entries to three quarters of a block each: as many blocks, and three segments at least.
    for _ in range(12):
        wal.append_for_topic("t", bytes(BLOCK_BYTES // 4 * 3 - 4096))
        wal.append_for_topic("t", bytes(BLOCK_BYTES // 4 * 3 - 4096))
    wal.sync()
    created = value(registry, "segments_created_total")
    assert created >= 3
    assert value(registry, "segments_reclaimed_total") == 0
    sealed, entries = value(registry, "blocks_sealed_total"), value(registry, "sealed_entries_total")
    assert sealed >= 11
    assert entries >= sealed
    while wal.read_next("t"):
        pass
    wal.sync()
    wal.close()
    assert 1 <= value(registry, "segments_reclaimed_total") < value(registry, "segments_created_total")


def test_recoveries_tell_in_what_state_the_log_was(open_log, registry):
    store = MemoryStore()
    open_log(store=store).close()
    clean = value(registry, "recoveries_total", state="clean")
    open_log(store=store).close()
    assert value(registry, "recoveries_total", state="clean") == clean + 1
    assert value(registry, "recovery_duration_seconds") > 0
    assert value(registry, "recovery_cuts_total") == 0


def test_a_crash_with_a_torn_tail(tmp_path, registry):
    store = MemoryStore()
    wal = Walrus("log", backend=MemoryBackend(store=store), block_size=BLOCK_BYTES, blocks_per_segment=4)
    wal.append_for_topic("t", b"whole entry")
    wal.append_for_topic("t", b"torn entry")
    crashed = MemoryStore()
    with store.lock:
        crashed.files = {path: bytearray(data) for path, data in store.files.items()}
        crashed.directories = set(store.directories)
    wal.close()
    (name,) = (path for path in crashed.files if path.endswith(".wal"))
    at = crashed.files[name].find(b"torn entry")
    crashed.files[name][at : at + 4] = b"TORN"
    observer = PrometheusObserver(path="log", registry=registry)
    with Walrus("log", backend=MemoryBackend(store=crashed), observers=(observer,)) as wal:
        assert wal.next_offset("t") == 1
    assert value(registry, "recoveries_total", state="crashed") == 1
    assert value(registry, "recovery_cuts_total") == 1


def test_corruption_is_counted_by_kind(open_log, registry):
    store = MemoryStore()
    wal = open_log(store=store, fsync_schedule=FsyncSchedule.sync_each())
    wal.append_for_topic("t", b"to be damaged")
    wal.append_for_topic("t", b"sound")
    wal.close()
    (name,) = (path for path in store.files if path.endswith(".wal"))
    at = store.files[name].find(b"to be damaged")
    store.files[name][at] ^= 1
    wal = open_log(store=store, on_corruption="skip")
    entry = wal.read_next("t")
    assert entry is not None and entry.data == b"sound"
    found = [
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "walrus_corruptions_found_total"
    ]
    assert [(sample.labels["log"], sample.value) for sample in found] == [("log", 1)]
    assert found[0].labels["kind"]


def test_poisoned_until_it_is_opened_again(open_log, registry):
    store = MemoryStore()
    backend = FaultyBackend(MemoryBackend(store=store))
    wal = open_log(backend=backend, fsync_schedule=FsyncSchedule.no_fsync())
    assert value(registry, "poisoned") == 0
    wal.append_for_topic("t", b"entry")
    backend.fail("sync")
    with pytest.raises(SyncFailedError):
        wal.sync()
    assert value(registry, "poisoned") == 1
    wal.close()
    assert value(registry, "poisoned") == 1
    open_log(store=store)
    assert value(registry, "poisoned") == 0


def test_several_logs_share_a_registry(open_log, registry):
    open_log("one").append_for_topic("t", b"entry")
    open_log("two")
    for name in ("one", "two"):
        assert registry.get_sample_value("walrus_poisoned", {"log": name}) == 0


def test_a_registry_that_is_gone_keeps_nothing(registry):
    other = CollectorRegistry()
    PrometheusObserver(path="log", registry=other)
    from walrus_prometheus import observer

    gone = weakref.ref(other)
    assert other in observer._metrics
    del other
    gc.collect()
    assert gone() is None


def test_by_name_into_the_default_registry(tmp_path):
    (tmp_path / "walrus.toml").write_text('observers = ["prometheus"]\n')
    with Walrus(tmp_path, backend="memory") as wal:
        assert REGISTRY.get_sample_value("walrus_poisoned", {"log": wal.path}) == 0


# --- topics -----------------------------------------------------------------------------------


def test_topics_are_asked_for_at_every_scrape(open_log, registry):
    wal = open_log(fsync_schedule=FsyncSchedule.no_fsync())
    registry.register(TopicCollector(wal))
    assert value(registry, "topics") == 0
    wal.append_for_topic("t", b"one")
    wal.append_for_topic("t", b"two")
    wal.read_next("t")
    assert value(registry, "topics") == 1
    facts = {
        "oldest_offset": 0,
        "next_offset": 2,
        "unread_entries": 1,
        "blocks": 1,
        "stored_bytes": wal.topic_size("t"),
        "durable_offset": wal.durable_offset("t"),
    }
    for name, expected in facts.items():
        assert value(registry, f"topic_{name}", topic="t") == expected
    wal.sync()
    assert value(registry, "topic_durable_offset", topic="t") == 2


def test_a_closed_log_has_no_topics(open_log, registry):
    one, two = open_log("one"), open_log("two")
    collector = TopicCollector(one)
    registry.register(collector)
    collector.add(two)
    two.append_for_topic("t", b"entry")
    one.close()
    assert registry.get_sample_value("walrus_topics", {"log": "one"}) is None
    assert registry.get_sample_value("walrus_topics", {"log": "two"}) == 1
    collector.remove(two)
    assert registry.get_sample_value("walrus_topics", {"log": "two"}) is None


def test_a_log_that_is_given_twice_is_shown_once(open_log, registry):
    """A sample that stands twice in an answer makes Prometheus refuse all of it."""
    wal = open_log()
    wal.append_for_topic("t", b"entry")
    collector = TopicCollector(wal, wal)
    collector.add(wal)
    registry.register(collector)
    shown = [line for line in generate_latest(registry).decode().splitlines() if "walrus_topics{" in line]
    assert shown == ['walrus_topics{log="log"} 1.0']
    collector.remove(wal)
    assert value(registry, "topics") is None


def test_topics_that_nobody_can_count(open_log, registry):
    wal = open_log()
    for number in range(5):
        wal.append_for_topic(f"t{number}", b"entry")
    registry.register(TopicCollector(wal, topics_max=2))
    assert value(registry, "topics") == 5
    shown = [number for number in range(5) if value(registry, "topic_blocks", topic=f"t{number}") is not None]
    assert shown == [0, 1]
    with pytest.raises(ValueError, match="negative"):
        TopicCollector(wal, topics_max=-1)


def test_two_collectors_in_one_registry_are_refused(open_log, registry):
    wal = open_log()
    registry.register(TopicCollector(wal))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(TopicCollector(wal))


def test_scrapes_beside_appends(open_log, registry):
    wal: Log = open_log()
    registry.register(TopicCollector(wal))
    done = threading.Event()
    failures = []

    def scrape():
        while not done.is_set():
            try:
                generate_latest(registry)
            except Exception as error:  # of another thread: to be raised in this one
                failures.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        for number in range(300):
            wal.append_for_topic(f"t{number % 50}", bytes(number))
    finally:
        done.set()
        thread.join()
    assert failures == []


# --- conventions ------------------------------------------------------------------------------


def test_names_and_texts_follow_the_conventions(open_log, registry):
    wal = open_log(fsync_schedule=FsyncSchedule.no_fsync())
    wal.append_for_topic("t", b"entry")
    registry.register(TopicCollector(wal))
    families = list(text_string_to_metric_families(generate_openmetrics(registry).decode()))
    assert len(families) >= 17
    for family in families:
        assert re.fullmatch(r"walrus(_[a-z]+)+", family.name)
        assert family.documentation.endswith(".")
        assert all("log" in sample.labels for sample in family.samples)
        if family.type == "counter":
            assert not family.name.endswith(("_count", "_sum", "_total"))
        if "duration" in family.name:
            assert family.name.endswith("_seconds")
        assert not re.search(r"_(ms|us|ns|kb|mb)\b", family.name)


def test_the_readme_names_every_metric(open_log, registry):
    from pathlib import Path

    wal = open_log()
    registry.register(TopicCollector(wal))
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    for family in registry.collect():
        name = (
            family.name.removeprefix("walrus").removeprefix("_topic")
            if "_topic_" in family.name
            else family.name
        )
        assert f"{name}_total`" in readme or f"{name}`" in readme, family.name


def test_the_examples_of_the_readme_give_a_log_one_label(tmp_path, monkeypatch, capsys):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    (_, example) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert {"walrus_topics", "walrus_synced_files_total"} <= set(re.findall(r"^(\w+){", shown, re.MULTILINE))
    assert set(re.findall(r'log="([^"]*)"', shown)) == {str(tmp_path / "data")}
