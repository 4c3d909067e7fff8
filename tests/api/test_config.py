"""Options: constructors, builder, environment, configuration file, defaults, and what is refused."""

from __future__ import annotations

import os

import pytest
from helpers import contents

from walrus_core import FsyncSchedule, ReadConsistency, Walrus, WalrusBuilder
from walrus_core.config import Options
from walrus_core.errors import ConfigError, StorageError
from walrus_core.memory import MemoryBackend
from walrus_core.paths import absolute, key_directory

SMALL = {"block_size": 16384, "blocks_per_segment": 4}
"""Where entries are appended: a segment of the default size is a gigabyte, also in memory."""


@pytest.fixture
def in_directory(tmp_path, monkeypatch):
    """The current directory is a new one; the backend is memory unless a test says otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WALRUS_BACKEND", "memory")
    return tmp_path


# --- defaults and constructors ------------------------------------------------------------------


def test_the_documented_defaults(in_directory):
    with Walrus() as wal:
        options = wal.options
    assert options.path == "wal_files"
    assert options.block_size_bytes == 10_485_760
    assert options.blocks_per_segment == 100
    assert options.checksum == "fnv1a64"
    assert options.fsync_schedule == FsyncSchedule.milliseconds(200)
    assert options.consistency == ReadConsistency.strictly_at_once()
    assert options.on_corruption == "raise"
    assert options.open_files_max == 256
    assert not options.durable_writes


LOOSE = ReadConsistency.at_least_once(7)
EACH = FsyncSchedule.sync_each()


@pytest.mark.parametrize(
    ("build", "key", "consistency", "schedule"),
    [
        (Walrus, None, None, None),
        (lambda: Walrus.builder().build(), None, None, None),
        (lambda: Walrus.with_consistency(LOOSE), None, LOOSE, None),
        (lambda: Walrus.with_consistency_and_schedule(LOOSE, EACH), None, LOOSE, EACH),
        (lambda: Walrus.new_for_key("k"), "k", None, None),
        (lambda: Walrus(key="k"), "k", None, None),
        (lambda: Walrus.with_consistency_for_key("k", LOOSE), "k", LOOSE, None),
        (lambda: Walrus.with_consistency_and_schedule_for_key("k", LOOSE, EACH), "k", LOOSE, EACH),
        (lambda: Walrus.builder().key("k").consistency(LOOSE).fsync_schedule(EACH).build(), "k", LOOSE, EACH),
    ],
)
def test_constructors(in_directory, build, key, consistency, schedule):
    with build() as wal:
        expected = "wal_files" if key is None else os.path.join("wal_files", key_directory(key))
        assert wal.path == wal.options.path == expected
        assert wal.options.consistency == (consistency or ReadConsistency.strictly_at_once())
        assert wal.options.fsync_schedule == (schedule or FsyncSchedule.milliseconds(200))
        assert wal.topics() == []


def test_open_is_the_constructor_by_another_name(tmp_path):
    with Walrus.open(tmp_path / "a", backend="memory", block_size=16384) as wal:
        assert (wal.path, wal.options.block_size_bytes) == (str(tmp_path / "a"), 16384)
    with Walrus.open(str(tmp_path / "a"), key="k", backend="memory") as wal:
        assert wal.path == str(tmp_path / "a" / key_directory("k"))
    with Walrus.from_options(wal.options) as wal:
        assert wal.path == str(tmp_path / "a" / key_directory("k"))


def test_the_builder_sets_everything(tmp_path):
    observer = object()
    builder = (
        Walrus.builder()
        .data_dir(tmp_path)
        .key("tenant-123")
        .backend("memory")
        .consistency(LOOSE)
        .fsync_schedule(EACH)
        .checksum("crc32c")
        .block_size(32768)
        .blocks_per_segment(8)
        .on_corruption("skip")
        .durable_writes(False)
        .observer(observer)
        .clock(lambda: 5)
        .set(open_files_max=16)
    )
    assert isinstance(builder, WalrusBuilder)
    options = builder.options()
    assert options.path == os.path.join(str(tmp_path), key_directory("tenant-123"))
    assert (options.checksum, options.block_size_bytes, options.blocks_per_segment) == ("crc32c", 32768, 8)
    assert (options.consistency, options.fsync_schedule, options.on_corruption) == (LOOSE, EACH, "skip")
    assert (options.open_files_max, options.observers) == (16, (observer,))
    with builder.build() as wal:
        wal.append_for_topic("t", b"a")
        assert wal.read_next("t").timestamp == 5


def test_a_builder_can_build_more_than_once(tmp_path):
    builder = Walrus.builder().backend("memory").data_dir(tmp_path).set(**SMALL)
    with builder.build() as first, builder.build() as second:
        first.append_for_topic("t", b"a")
        assert second.topics() == []


def test_options_are_frozen(tmp_path):
    options = Walrus.builder().data_dir(tmp_path).backend("memory").options()
    with pytest.raises(AttributeError):
        options.path = "elsewhere"
    for value in (LOOSE, EACH):
        with pytest.raises(AttributeError):
            value.kind = "x"


# --- environment ----------------------------------------------------------------------------------


def test_the_environment_names_directory_and_namespace(in_directory, monkeypatch):
    monkeypatch.setenv("WALRUS_DATA_DIR", "from-environment")
    with Walrus() as wal:
        assert wal.path == "from-environment"
    monkeypatch.setenv("WALRUS_INSTANCE_KEY", "key-of-environment")
    with Walrus() as wal:
        assert wal.path == os.path.join("from-environment", key_directory("key-of-environment"))
    with Walrus(key="mine") as wal:
        assert wal.path == os.path.join("from-environment", key_directory("mine"))
    with Walrus(in_directory / "explicit") as wal:
        assert wal.path == str(in_directory / "explicit")
    with Walrus(in_directory / "explicit", key="mine") as wal:
        assert wal.path == str(in_directory / "explicit" / key_directory("mine"))
    monkeypatch.setenv("WALRUS_DATA_DIR", "")
    monkeypatch.setenv("WALRUS_INSTANCE_KEY", "")
    with Walrus() as wal:
        assert wal.path == "wal_files"


def test_the_environment_is_read_at_each_construction(in_directory, monkeypatch):
    paths = []
    for name in ("one", "two"):
        monkeypatch.setenv("WALRUS_DATA_DIR", name)
        wal = Walrus()
        monkeypatch.setenv("WALRUS_DATA_DIR", "changed-meanwhile")
        paths.append(wal.path)
        wal.close()
    assert paths == ["one", "two"]


@pytest.mark.parametrize("kind", ["fd", "mmap"])
def test_keys_keep_logs_apart(kind, tmp_path, file_kind):
    for key in ("a", "A", "a/b", "a b"):
        with Walrus(tmp_path, key=key, backend=file_kind(kind)()) as wal:
            wal.append_for_topic("t", key.encode())
    for key in ("a", "A", "a/b", "a b"):
        with Walrus(tmp_path, key=key, backend=file_kind(kind)()) as wal:
            assert contents(wal, "t") == [key.encode()]
    assert len(list(tmp_path.iterdir())) == 4


def test_the_name_of_a_namespace_is_stable():
    """Directories of today must be found by the releases of tomorrow."""
    assert key_directory("tenant-123") == "ns-tenant-123-" + key_directory("tenant-123")[-32:]
    assert key_directory("") == "ns--cae66941d9efbd404e4d88758ea67670"
    assert key_directory("a/b").startswith("ns-a_b-")


# --- configuration file -----------------------------------------------------------------------------

FILE = """
backend = "memory"
consistency = "at_least_once"
persist_every = 50
fsync = "each"
checksum = "crc32c"
block_size = 65536
blocks_per_segment = 10
on_corruption = "skip"
open_files_max = 32
blocked_plugins = ["other"]
[backend_options]
"""


def test_a_configuration_file_in_the_data_directory(tmp_path):
    (tmp_path / "walrus.toml").write_text(FILE)
    with Walrus(tmp_path) as wal:
        options = wal.options
    assert wal.backend_name == "memory"
    assert options.consistency == ReadConsistency.at_least_once(50)
    assert options.fsync_schedule == FsyncSchedule.sync_each()
    assert (options.checksum, options.block_size_bytes, options.blocks_per_segment) == ("crc32c", 65536, 10)
    assert (options.on_corruption, options.open_files_max) == ("skip", 32)
    assert options.blocked_plugins == ("other",)


def test_the_builder_wins_over_the_file(tmp_path):
    (tmp_path / "walrus.toml").write_text(FILE)
    schedule = FsyncSchedule.milliseconds(5)
    with Walrus(tmp_path, checksum="fnv1a64", fsync_schedule=schedule, block_size=16384) as wal:
        assert (wal.options.checksum, wal.options.block_size_bytes) == ("fnv1a64", 16384)
        assert wal.options.fsync_schedule == schedule
        assert wal.options.blocks_per_segment == 10


def test_a_file_given_by_path(tmp_path):
    (tmp_path / "elsewhere.toml").write_text('backend = "memory"\nfsync = 7\n')
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "walrus.toml").write_text('fsync = "each"\nblock_size = 32768\n')
    with Walrus(tmp_path / "log", config_file=tmp_path / "elsewhere.toml") as wal:
        assert wal.options.fsync_schedule == FsyncSchedule.milliseconds(7)
        assert wal.options.block_size_bytes == 10 << 20
    builder = Walrus.builder().data_dir(tmp_path / "log").config_file(tmp_path / "elsewhere.toml")
    assert builder.options().fsync_schedule == FsyncSchedule.milliseconds(7)
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        Walrus(tmp_path / "log", config_file=tmp_path / "missing.toml")


def test_a_namespace_uses_the_file_of_its_data_directory(tmp_path):
    (tmp_path / "walrus.toml").write_text('backend = "memory"\nfsync = "never"\n')
    with Walrus(tmp_path, key="k") as wal:
        assert wal.options.fsync_schedule == FsyncSchedule.no_fsync()


@pytest.mark.parametrize(
    "text",
    [
        "unknown_key = 1",
        "Backend = 'fd'",
        "[fsync]\nms = 3",
        "backend = 5",
        "backend = ''",
        "fsync = 'sometimes'",
        "fsync = 0",
        "fsync = -5",
        "fsync = 1.5",
        "fsync = true",
        "consistency = 'exactly_once'",
        "consistency = 'at_least_once'",
        "consistency = 'strictly_at_once'\npersist_every = 3",
        "persist_every = 0",
        "persist_every = 'many'",
        "checksum = 'md5'",
        "checksum = 1",
        "block_size = 1000",
        "block_size = 16385",
        "block_size = '16384'",
        "block_size = true",
        "blocks_per_segment = 1",
        "blocks_per_segment = 2.5",
        "on_corruption = 'ignore'",
        "open_files_max = 1",
        "durable_writes = 'yes'",
        "durable_writes = true",
        "blocked_plugins = 'fd'",
        "blocked_plugins = 5",
        "blocked_plugins = [5]",
        "backend_options = 5",
        "backend_options = ['a']",
        "this is not toml",
        "a = ",
    ],
)
def test_what_a_configuration_file_may_not_say(tmp_path, text):
    path = tmp_path / "walrus.toml"
    path.write_text(text + "\n" if "backend" in text else 'backend = "memory"\n' + text + "\n")
    with pytest.raises(ConfigError) as caught:
        Walrus(tmp_path)
    assert isinstance(caught.value, ValueError)
    assert [found.name for found in tmp_path.iterdir()] == ["walrus.toml"]


def test_unknown_keys_are_named(tmp_path):
    (tmp_path / "walrus.toml").write_text("colour = 1\nsize = 2\n")
    with pytest.raises(ConfigError, match=r"colour, size.*known are backend, "):
        Walrus(tmp_path)


def test_a_configuration_file_that_is_no_text(tmp_path):
    (tmp_path / "walrus.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError):
        Walrus(tmp_path)


# --- values -------------------------------------------------------------------------------------------


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
