"""Choosing a backend: what is installed, what is asked for, and every way in which a plugin can be wrong."""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import subprocess
import sys
import types

import pytest

from walrus_core import Walrus
from walrus_core.backend import BACKEND_API
from walrus_core.errors import (
    BrokenPluginError,
    ConfigError,
    ContractError,
    DuplicateBackendError,
    IncompatibleBackendError,
    PluginError,
    UnknownBackendError,
)
from walrus_core.hookspecs import hookimpl
from walrus_core.memory import MemoryBackend
from walrus_core.plugins import backend_class, installed_plugins


def backend_named(backend_name: str, **changes):
    """Return a class of working backends of another name."""
    return type("Pretended", (MemoryBackend,), {"name": backend_name, **changes})


# --- choosing -----------------------------------------------------------------------------------


def test_a_plugin_is_found_by_name(install, tmp_path):
    install("shiny", [backend_named("shiny")])
    with Walrus(tmp_path, backend="shiny", block_size=16384, blocks_per_segment=4) as wal:
        assert wal.backend_name == "shiny"
        assert wal.append_for_topic("t", b"a") == 0


def test_one_plugin_may_register_several_classes(install, tmp_path):
    install("shiny", [backend_named("dull"), backend_named("shiny")])
    with Walrus(tmp_path, backend="shiny") as wal:
        assert wal.backend_name == "shiny"


@pytest.mark.parametrize(("installed", "chosen"), [(["mmap", "fd"], "fd"), (["mmap", "other"], "mmap")])
def test_the_default_is_fd_then_mmap(install, installed, chosen, tmp_path):
    for name in installed:
        install(name, [backend_named(name)])
    with Walrus(tmp_path) as wal:
        assert wal.backend_name == chosen


def test_the_order_of_who_decides(install, tmp_path, monkeypatch):
    for name in ("fd", "by-file", "by-environment", "by-builder"):
        install(name, [backend_named(name)])

    def chosen(**options) -> str:
        with Walrus(tmp_path, **options) as wal:
            return wal.backend_name

    assert chosen() == "fd"
    (tmp_path / "walrus.toml").write_text('backend = "by-file"\n')
    assert chosen() == "by-file"
    monkeypatch.setenv("WALRUS_BACKEND", "by-environment")
    assert chosen() == "by-environment"
    assert chosen(backend="by-builder") == "by-builder"
    assert chosen(backend=backend_named("by-object")()) == "by-object"
    monkeypatch.setenv("WALRUS_BACKEND", "")
    assert chosen() == "by-file"


def test_memory_only_by_name(install, tmp_path):
    with pytest.raises(UnknownBackendError) as caught:
        Walrus(tmp_path)
    assert "pip install walrus-fd" in str(caught.value)
    with Walrus(tmp_path, backend="memory") as wal:
        assert wal.backend_name == "memory"
    assert list(tmp_path.iterdir()) == []


def test_entry_points_of_other_groups_are_nothing_to_us(install, tmp_path):
    install("shiny", [backend_named("shiny")], group="console_scripts")
    with pytest.raises(UnknownBackendError):
        Walrus(tmp_path, backend="shiny")


# --- what is wrong --------------------------------------------------------------------------------


def test_an_unknown_backend_says_what_is_installed_and_what_to_install(install, tmp_path):
    install("shiny", [backend_named("shiny")])
    install("fd", [backend_named("fd")])
    with pytest.raises(UnknownBackendError) as caught:
        Walrus(tmp_path / "log", backend="mmap")
    message = str(caught.value)
    assert "'mmap'" in message
    assert "fd, shiny" in message
    assert "pip install walrus-mmap" in message
    assert isinstance(caught.value, LookupError)
    with pytest.raises(UnknownBackendError, match="walrus-nonsense"):
        Walrus(tmp_path / "log", backend="nonsense")
    assert not (tmp_path / "log").exists()


def test_two_distributions_with_one_name(install, tmp_path):
    install("shiny", [backend_named("shiny")], distribution="walrus-shiny")
    install("shiny", [backend_named("shiny")], distribution="other-shiny")
    install("fd", [backend_named("fd")])
    with pytest.raises(DuplicateBackendError, match="other-shiny, walrus-shiny"):
        Walrus(tmp_path / "log", backend="shiny")
    with Walrus(tmp_path / "log", backend="fd") as wal:
        assert wal.backend_name == "fd"


def test_one_distribution_seen_twice_is_one(install, tmp_path):
    for _ in range(2):
        install("shiny", [backend_named("shiny")], distribution="walrus-shiny")
    with Walrus(tmp_path, backend="shiny") as wal:
        assert wal.backend_name == "shiny"


@pytest.mark.parametrize("name", ["fd", "shiny"])
def test_a_plugin_that_fails_to_import(install, tmp_path, name):
    target = install(name, module=ImportError("not importable"))
    install("mmap", [backend_named("mmap")])
    with pytest.raises(BrokenPluginError) as caught:
        Walrus(tmp_path / "log", backend=name)
    assert isinstance(caught.value.__cause__, ImportError)
    assert target in str(caught.value)
    assert f"walrus-{name}" in str(caught.value)
    assert not (tmp_path / "log").exists()
    with Walrus(tmp_path / "log", backend="mmap") as wal:
        assert wal.backend_name == "mmap"


def test_a_default_that_is_installed_and_broken_is_an_error_and_no_silent_change(install, tmp_path):
    install("fd", module=ImportError("not importable"))
    install("mmap", [backend_named("mmap")])
    with pytest.raises(BrokenPluginError):
        Walrus(tmp_path / "log")


def test_only_the_chosen_plugin_is_imported(install, tmp_path, monkeypatch):
    target = install("other", [backend_named("other")])
    install("shiny", [backend_named("shiny")])
    monkeypatch.delitem(sys.modules, target)
    with Walrus(tmp_path, backend="shiny") as wal:
        assert wal.backend_name == "shiny"
    assert target not in sys.modules


def raising_hook():
    module = types.ModuleType("raising")

    @hookimpl
    def walrus_register_backends():
        raise ValueError("cannot register")

    module.walrus_register_backends = walrus_register_backends
    return module


def unknown_hook():
    module = types.ModuleType("unknown")

    @hookimpl
    def walrus_no_such_hook():
        """Nothing calls this."""

    module.walrus_no_such_hook = walrus_no_such_hook
    return module


@pytest.mark.parametrize("make_module", [raising_hook, unknown_hook])
def test_a_plugin_that_fails_to_register(install, tmp_path, make_module):
    install("shiny", module=make_module())
    with pytest.raises(BrokenPluginError):
        Walrus(tmp_path / "log", backend="shiny")


@pytest.mark.parametrize(
    "classes", [[], [backend_named("other")], [backend_named("shiny"), backend_named("shiny")]]
)
def test_a_plugin_that_does_not_register_what_it_is_named_for(install, tmp_path, classes):
    install("shiny", classes)
    with pytest.raises(ContractError, match="shiny"):
        Walrus(tmp_path / "log", backend="shiny")


@pytest.mark.parametrize("api", [BACKEND_API + 1, 0, None, "1"])
def test_an_api_version_that_does_not_fit(install, tmp_path, api):
    install("shiny", [backend_named("shiny", api=api)])
    with pytest.raises(IncompatibleBackendError) as caught:
        Walrus(tmp_path / "log", backend="shiny")
    assert (caught.value.name, caught.value.found) == ("shiny", api)
    with pytest.raises(PluginError):
        Walrus(tmp_path / "log", backend=backend_named("shiny", api=api)())


@pytest.mark.parametrize("method", ["create", "open", "list", "sync_many", "make_directory", "close"])
def test_a_backend_that_lacks_a_method(install, tmp_path, method):
    install("shiny", [backend_named("shiny", **{method: None})])
    with pytest.raises(ContractError, match=method):
        Walrus(tmp_path / "log", backend="shiny")


@pytest.mark.parametrize("error", [TypeError("no such option"), ValueError("bad value")])
def test_options_that_a_backend_refuses(install, tmp_path, error):
    def __init__(self, *, durable_writes=False, **options):
        raise error

    install("shiny", [backend_named("shiny", __init__=__init__)])
    with pytest.raises(ConfigError, match="shiny"):
        Walrus.builder().data_dir(tmp_path / "log").backend("shiny", size=3).build()


def test_options_reach_the_backend(install, tmp_path):
    seen = {}

    def __init__(self, *, durable_writes=False, **options):
        seen.update(options, durable_writes=durable_writes)
        MemoryBackend.__init__(self)

    install("shiny", [backend_named("shiny", __init__=__init__)])
    Walrus.builder().data_dir(tmp_path).backend("shiny", size=3, colour="red").build().close()
    assert seen == {"size": 3, "colour": "red", "durable_writes": False}
    Walrus(tmp_path, backend="shiny", backend_options={"size": 4}).close()
    assert seen["size"] == 4
    (tmp_path / "walrus.toml").write_text("[backend_options]\nsize = 5\n")
    Walrus(tmp_path, backend="shiny").close()
    assert seen["size"] == 5


def test_blocked_plugins_are_not_there(install, tmp_path):
    install("fd", [backend_named("fd")])
    install("mmap", [backend_named("mmap")])
    with Walrus(tmp_path, blocked_plugins=("fd",)) as wal:
        assert wal.backend_name == "mmap"
    with pytest.raises(UnknownBackendError, match="blocked"):
        Walrus(tmp_path, backend="fd", blocked_plugins=("fd",))
    (tmp_path / "walrus.toml").write_text('blocked_plugins = ["fd"]\n')
    with Walrus(tmp_path) as wal:
        assert wal.backend_name == "mmap"


@pytest.mark.parametrize(
    "backend", ["", 5, MemoryBackend, object()], ids=["empty", "number", "class", "object"]
)
def test_what_is_no_backend(tmp_path, backend):
    with pytest.raises((ConfigError, PluginError)):
        Walrus(tmp_path / "log", backend=backend)
    assert not (tmp_path / "log").exists()


def test_durable_writes_need_a_backend_that_has_them(tmp_path):
    from walrus_core import FsyncSchedule

    with pytest.raises(ConfigError, match="durable"):
        Walrus(
            tmp_path / "log", backend="memory", fsync_schedule=FsyncSchedule.sync_each(), durable_writes=True
        )
    with pytest.raises(ConfigError, match="durable"):
        Walrus(tmp_path / "log", backend="memory", durable_writes=True)


def test_importing_the_package_loads_no_plugin_and_little_else(tmp_path):
    code = (
        "import sys, walrus_core\n"
        "loaded = {name.split('.')[0] for name, module in sys.modules.items() if module}\n"
        "assert not loaded & {'walrus_fd', 'walrus_mmap', 'liburing', 'pluggy', 'attr', 'attrs'}, loaded\n"
        "assert walrus_core.__version__ and 'Walrus' in dir(walrus_core)\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    # Not in this folder: the source tree must not stand in front of what is installed.
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_public_names():
    import walrus_core

    for name in walrus_core.__all__:
        assert getattr(walrus_core, name) is not None
    with pytest.raises(AttributeError):
        walrus_core.no_such_name  # noqa: B018


def test_what_is_installed_is_read_again_once_a_folder_has_changed(tmp_path, monkeypatch):
    read: list[str] = []
    found = importlib.metadata.entry_points

    def entry_points(*, group):
        read.append(group)
        return found(group=group)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "late" not in installed_plugins()
    assert "late" not in installed_plugins() and len(read) == 1
    info = tmp_path / "late-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[walrus]\nlate = nowhere\n")
    importlib.invalidate_caches()
    assert [plugin.distribution for plugin in installed_plugins()["late"]] == ["late"] and len(read) == 2
    shutil.rmtree(info)
    assert "late" not in installed_plugins()


def test_an_installation_under_way_at_the_first_look_is_seen_before_an_error(tmp_path, monkeypatch):
    """Its folder was there already: what comes into it does not change the folder that holds it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    info = tmp_path / "late-1.dist-info"
    info.mkdir()
    with pytest.raises(UnknownBackendError):
        backend_class("late")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[walrus]\nlate = nowhere_to_be_found\n")
    importlib.invalidate_caches()
    with pytest.raises(BrokenPluginError, match="nowhere_to_be_found"):
        backend_class("late")
