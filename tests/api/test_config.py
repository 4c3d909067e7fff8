"""Options: constructors, builder, environment, configuration file, defaults, and what is refused."""

from __future__ import annotations

import os

import pytest
from helpers import contents

from walrus_core import FsyncSchedule, ReadConsistency, Walrus, WalrusBuilder
from walrus_core.errors import ConfigError
from walrus_core.paths import key_directory

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
