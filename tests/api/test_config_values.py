"""Values of options and paths: which are taken, which are refused, and what a path means."""

from __future__ import annotations

import os

import pytest
from helpers import contents

from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core.config import Options
from walrus_core.errors import ConfigError, StorageError
from walrus_core.memory import MemoryBackend
from walrus_core.paths import absolute

SMALL = {"block_size": 16384, "blocks_per_segment": 4}
"""Where entries are appended: a segment of the default size is a gigabyte, also in memory."""


@pytest.mark.parametrize(
    "options",
    [
        {"block_size": 0},
        {"block_size": 8192},
        {"block_size": 16384 + 1},
        {"block_size": (1 << 30) + 4096},
        {"block_size": 16384.0},
        {"blocks_per_segment": 1},
        {"blocks_per_segment": 65537},
        {"checksum": "sha256"},
        {"checksum": []},
        {"on_corruption": "delete"},
        {"open_files_max": 0},
        {"fsync_schedule": "each"},
        {"fsync_schedule": 200},
        {"consistency": 5},
        {"consistency": "strictly_at_once"},
        {"durable_writes": "no"},
        {"blocked_plugins": "fd"},
        {"backend_options": 5},
        {"clock": 5},
        {"random_bytes": b"x"},
        {"no_such_option": 1},
        {"block_size_bytes": 16384},
    ],
    ids=repr,
)
def test_options_with_values_that_cannot_be_used(tmp_path, options):
    with pytest.raises(ConfigError) as caught:
        Walrus(tmp_path / "log", **{"backend": "memory", **options})
    assert next(iter(options)).replace("block_size", "block") in str(caught.value).replace(
        "block_size", "block"
    )
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", None, 2**40])
def test_models_check_their_numbers(value):
    with pytest.raises(ConfigError):
        ReadConsistency.at_least_once(value)
    with pytest.raises(ConfigError):
        FsyncSchedule.milliseconds(value)


def test_models_are_values():
    assert ReadConsistency.at_least_once(1) == ReadConsistency.strictly_at_once()
    assert ReadConsistency.strictly_at_once().is_strict
    assert not ReadConsistency.at_least_once(2).is_strict
    assert len({FsyncSchedule.sync_each(), FsyncSchedule.sync_each(), FsyncSchedule.no_fsync()}) == 2


@pytest.mark.parametrize("path", ["", "a\0b", b"bytes", 5, [], object])
def test_paths_that_cannot_be_used(path):
    with pytest.raises((ConfigError, TypeError)):
        Walrus(path, backend="memory")


def test_none_leaves_an_option_unset(tmp_path):
    with Walrus(tmp_path, backend="memory", checksum=None, fsync_schedule=None, clock=None) as wal:
        assert wal.options.checksum == "fnv1a64"


def test_another_geometry_goes_on_with_the_segments_that_are_there(store):
    payloads = [bytes([number]) * 5000 for number in range(12)]
    for turn, size in enumerate((16384, 32768, 65536, 16384)):
        wal = store.open(block_size=size, checksum=["fnv1a64", "crc32c"][turn % 2])
        for payload in payloads[turn * 3 : turn * 3 + 3]:
            wal.append_for_topic("t", payload)
        wal.batch_append_for_topic("u", [bytes(3000)] * 10)
        wal.close()
    wal = store.open()
    assert contents(wal, "t") == payloads
    assert wal.next_offset("u") == 40
    assert wal.recovery_report.damages == ()


def test_a_backend_object_serves_one_log_after_another(tmp_path):
    backend = MemoryBackend()
    for number in range(3):
        with Walrus(tmp_path, backend=backend, **SMALL) as wal:
            assert wal.append_for_topic("t", b"a") == number


@pytest.mark.parametrize("kind", [None, "each ", "sync_each", "ms", 200])
def test_a_schedule_of_no_kind_is_refused(kind):
    """It would be one that never syncs."""
    with pytest.raises(ConfigError, match="its kind is one of"):
        FsyncSchedule(kind)


@pytest.mark.parametrize(
    ("kind", "interval_ms"),
    [
        ("interval", 0),
        ("interval", -5),
        ("interval", "20"),
        ("interval", 86_400_001),
        ("each", 5),
        ("never", 1),
    ],
)
def test_an_interval_that_is_none_is_refused(kind, interval_ms):
    with pytest.raises(ConfigError, match="fsync_ms"):
        FsyncSchedule(kind, interval_ms)


@pytest.mark.parametrize("persist_every", [0, -3, 1.5, "3", True, None])
def test_a_consistency_that_is_none_is_refused(persist_every):
    with pytest.raises(ConfigError, match="persist_every"):
        ReadConsistency(persist_every)


@pytest.mark.parametrize("path", [5, b"log", None, "", "nul\0"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(ConfigError, match="data_dir"):
        Options(path=path)


def test_a_path_with_a_parent_in_it_means_what_the_system_says(tmp_path, monkeypatch):
    (tmp_path / "far" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "inner")
    monkeypatch.chdir(tmp_path)
    path = absolute(os.path.join("link", "..", "log"))
    assert os.path.isabs(path)
    if os.name != "nt":
        assert os.path.realpath(path) == str(tmp_path / "far" / "log")


def test_a_directory_that_is_gone_has_no_relative_path(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    try:
        (tmp_path / "gone").rmdir()
    except OSError:
        pytest.skip("this system keeps the current directory")
    try:
        with pytest.raises(StorageError, match="current directory"):
            absolute("log")
    finally:
        monkeypatch.undo()


def test_the_path_of_a_backend_without_files_is_its_own(memory_store):
    """It may be anything, such as the address of a bucket."""
    with Walrus("store://bucket/log", backend=memory_store.backend(), **SMALL) as wal:
        assert wal.path == "store://bucket/log"


def test_a_relative_path_means_what_it_means_at_the_open(tmp_path, monkeypatch, file_kind):
    options = Walrus.builder().data_dir("log").backend(file_kind("fd")()).set(**SMALL).options()
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path / "later")
    with Walrus.from_options(options) as wal:
        assert wal.path == wal.options.path == str(tmp_path / "later" / "log")
