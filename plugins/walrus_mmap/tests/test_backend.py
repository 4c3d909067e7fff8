"""Files and directories: creation, modes, links, names, durability of directories, the plugin."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walrus_core.backend import BACKEND_API, BACKEND_API_OLDEST, Backend, Capabilities
from walrus_core.errors import ConfigError
from walrus_mmap import plugin, system
from walrus_mmap.backend import MmapBackend
from walrus_mmap.file import MmapFile
from walrus_mmap.ranges import Ranges


@pytest.fixture
def umask():
    """Return a function that sets the umask for this test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_create_refuses_an_existing_file(backend, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        backend.create(str(tmp_path / "file"), size_bytes=10)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_failed_create_leaves_no_file(backend, tmp_path):
    with pytest.raises(OSError, match="Invalid argument"):
        backend.create(str(tmp_path / "file"), size_bytes=-1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(backend, tmp_path, umask, mask):
    umask(mask)
    backend.create(str(tmp_path / "file"), size_bytes=1).close()
    backend.make_directory(str(tmp_path / "a" / "b"))
    assert mode(tmp_path / "file") == 0o600
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700


def test_modes_under_a_umask_that_takes_everything(tmp_path, umask):
    umask(0o777)
    backend = MmapBackend()
    backend.create(str(tmp_path / "file"), size_bytes=1).close()
    backend.make_directory(str(tmp_path / "a" / "b"))
    assert mode(tmp_path / "file") == 0o600
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700


def test_an_existing_directory_is_left_as_it_is(backend, tmp_path):
    (tmp_path / "there").mkdir(mode=0o755)
    os.chmod(tmp_path / "there", 0o755)
    backend.make_directory(str(tmp_path / "there"))
    backend.make_directory(str(tmp_path / "there" / "below"))
    assert mode(tmp_path / "there") == 0o755


def test_every_new_directory_is_made_durable_in_its_parent(backend, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(system, "sync_directory", synced.append)
    backend.make_directory(str(tmp_path / "a" / "b" / "c"))
    above = str(tmp_path.parent)  # tmp_path itself may be of an attempt that was killed
    assert synced == [above, str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]


def test_a_file_in_the_way_of_a_directory(backend, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        backend.make_directory(str(tmp_path / "file"))
    with pytest.raises(FileExistsError):
        backend.make_directory(str(tmp_path / "file" / "below"))


def test_links_are_refused(backend, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "symbolic").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="link") as caught:
        backend.open(str(tmp_path / "symbolic"))
    assert caught.value.errno == errno.ELOOP
    os.link(tmp_path / "file", tmp_path / "hard")
    with pytest.raises(OSError, match="link") as caught:
        backend.open(str(tmp_path / "hard"))
    assert caught.value.errno == errno.EMLINK
    (tmp_path / "nowhere").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        backend.create(str(tmp_path / "nowhere"), size_bytes=1)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system has no O_NOFOLLOW")
def test_a_link_put_there_between_look_and_open_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "symbolic").symlink_to(tmp_path / "file")
    monkeypatch.setattr(system, "check_regular", lambda path: None)
    with pytest.raises(OSError, match="symbolic") as caught:
        MmapBackend().open(str(tmp_path / "symbolic"))
    assert caught.value.errno == errno.ELOOP
    (tmp_path / "hard").hardlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="names"):
        MmapBackend().open(str(tmp_path / "hard"))


def test_what_is_no_regular_file_is_refused(backend, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "directory"):
        with pytest.raises(OSError, match="not a regular file"):
            backend.open(str(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        backend.open(str(tmp_path / "missing"))


def test_descriptors_are_not_inherited(backend, tmp_path):
    file = backend.create(str(tmp_path / "file"), size_bytes=1)
    try:
        assert not os.get_inheritable(file._descriptor)
    finally:
        file.close()


def test_open_finds_what_was_written(backend, tmp_path):
    file = backend.create(str(tmp_path / "file"), size_bytes=10_000)
    file.write_at(9_000, b"there")
    file.close()
    file = backend.open(str(tmp_path / "file"))
    assert file.size_bytes == 10_000
    assert file.read_at(8_999, 7) == b"\0there\0"
    file.close()


def test_list_rename_remove(backend, tmp_path):
    for name in ("a", "b"):
        backend.create(str(tmp_path / name), size_bytes=1).close()
    (tmp_path / "directory").mkdir()
    assert sorted(backend.list(str(tmp_path))) == ["a", "b"]
    backend.rename(str(tmp_path / "a"), str(tmp_path / "c"))
    backend.remove(str(tmp_path / "b"))
    backend.sync_dir(str(tmp_path))
    assert list(backend.list(str(tmp_path))) == ["c"]
    with pytest.raises(FileNotFoundError):
        backend.remove(str(tmp_path / "b"))
    with pytest.raises(FileNotFoundError):
        backend.list(str(tmp_path / "missing"))


def test_a_failed_directory_sync_is_raised(backend, tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        backend.sync_dir(str(tmp_path))


def test_sync_many_raises_the_first_failure(backend):
    synced = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def sync(self):
            synced.append(self.name)
            if self.name == "bad":
                raise OSError(errno.EIO, "bad")

    with pytest.raises(OSError, match="bad"):
        backend.sync_many([Fake("good"), Fake("bad"), Fake("later")])
    assert synced == ["good", "bad"]
    backend.sync_many([])


def test_the_plugin_registers_the_backend():
    assert plugin.walrus_register_backends() == [MmapBackend]
    assert MmapBackend.name == "mmap"
    assert BACKEND_API_OLDEST <= MmapBackend.api <= BACKEND_API
    assert isinstance(MmapBackend(durable_writes=False), Backend)


def test_durable_writes_are_refused():
    assert not MmapBackend().capabilities.durable_writes
    with pytest.raises(ConfigError, match="durable_writes"):
        MmapBackend(durable_writes=True)


def test_every_declared_capability_has_its_methods(backend):
    methods = {
        "discard": ["discard"],
        "drop_cache": ["drop_cache"],
        "vectored": ["write_many", "read_many"],
        "memory": ["memory"],
        "paging": ["prepare", "unload"],
        "fileno": ["fileno"],
    }
    for capability, names in methods.items():
        if getattr(backend.capabilities, capability):
            assert all(callable(getattr(MmapFile, name, None)) for name in names), capability


def test_capabilities_and_facts_follow_the_system(backend, system_kind):
    if system_kind == "portable":
        assert backend.capabilities == Capabilities(memory=True, read_only=True)
        assert backend.probe()["reserve"] == "zeros written ahead"
        assert backend.probe()["sync"] == "flush of the map, then fsync"
    else:
        assert backend.capabilities.memory
        assert backend.capabilities.discard == (backend.probe()["hole punching"] == "yes")
    backend.close()


spans = st.tuples(st.integers(0, 40), st.integers(1, 15)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(st.tuples(st.booleans(), spans)), spans)
def test_ranges_agree_with_a_set_of_numbers(changes, asked):
    ranges, model = Ranges(), set()
    for is_added, (first, end) in changes:
        if is_added:
            ranges.add(first, end)
            model |= set(range(first, end))
        else:
            ranges.remove(first, end)
            model -= set(range(first, end))
    missing = ranges.missing(*asked)
    assert [n for first, end in missing for n in range(first, end)] == sorted(set(range(*asked)) - model)
    assert all(first < end for first, end in missing)
    assert ranges.covers(*asked) == (set(range(*asked)) <= model)
    assert all(a[1] < b[0] for a, b in zip(ranges._spans, ranges._spans[1:], strict=False))
