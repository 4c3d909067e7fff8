"""Mistakes of those who write or configure plugins: a typed error that names whose it is and what to do."""

from __future__ import annotations

import errno
import pickle
import sys
import types

import pytest

from walrus_core import Walrus
from walrus_core.backend import Capabilities
from walrus_core.errors import (
    BrokenPluginError,
    ConfigError,
    ContractError,
    StorageError,
    UnknownBackendError,
    UnknownObserverError,
)
from walrus_core.hookspecs import hookimpl
from walrus_core.memory import MemoryBackend
from walrus_core.plugins import BackendOptions, load_backend, make_backend


def backend_named(backend_name: str, **changes):
    return type("Pretended", (MemoryBackend,), {"name": backend_name, **changes})


def taking(seen):
    """Return what makes a class note its options."""

    def __init__(self, *, durable_writes=False, **options):
        seen.append((self.name, options))
        MemoryBackend.__init__(self)

    return __init__


# --- what a plugin registers --------------------------------------------------------------------


def registering(answer):
    module = types.ModuleType("registering")

    @hookimpl
    def walrus_register_backends():
        return answer() if isinstance(answer, types.FunctionType) else answer

    module.walrus_register_backends = walrus_register_backends
    return module


@pytest.mark.parametrize(
    "answer",
    [MemoryBackend, MemoryBackend(), [MemoryBackend()], "shiny", 5, [None], [lambda: None]],
    ids=["class", "object", "objects", "text", "number", "nothing", "function"],
)
def test_what_is_no_list_of_classes(install, tmp_path, answer):
    install("shiny", module=registering(answer))
    with pytest.raises(ContractError, match=r"'shiny'.* of walrus-shiny returns .*list of classes"):
        Walrus(tmp_path / "log", backend="shiny")
    assert not (tmp_path / "log").exists()


def test_an_answer_that_fails_on_the_way(install, tmp_path):
    def classes():
        yield backend_named("shiny")
        raise LookupError("no more")

    install("shiny", module=registering(classes))
    with pytest.raises(BrokenPluginError, match=r"upgrade walrus-shiny: LookupError: no more"):
        Walrus(tmp_path, backend="shiny")


def test_an_answer_may_be_any_iterable(install, tmp_path):
    install("shiny", module=registering(lambda: iter([backend_named("shiny")])))
    with Walrus(tmp_path, backend="shiny") as wal:
        assert wal.backend_name == "shiny"


@pytest.mark.parametrize(
    "capabilities",
    [{}, Capabilities, None, lambda self: Capabilities()],
    ids=["table", "class", "none", "method"],
)
def test_capabilities_that_are_none(install, tmp_path, capabilities):
    cls = backend_named("shiny", capabilities=capabilities)
    install("shiny", [cls])
    for backend in ("shiny", cls()):
        with pytest.raises(ContractError, match=r"'shiny'.*capabilities is of type .*Capabilities"):
            Walrus(tmp_path / "log", backend=backend)


@pytest.mark.parametrize("error", [ImportError("no such library"), AttributeError("x"), RuntimeError("x")])
def test_a_constructor_that_fails(install, tmp_path, error):
    def __init__(self, *, durable_writes=False):
        raise error

    install("shiny", [backend_named("shiny", __init__=__init__)])
    with pytest.raises(BrokenPluginError, match=r"'shiny'.*walrus-shiny") as caught:
        Walrus(tmp_path / "log", backend="shiny")
    assert caught.value.__cause__ is error


def test_a_constructor_that_the_system_fails(install, tmp_path):
    def __init__(self, *, durable_writes=False, key_file=None):
        if key_file is None:
            raise OSError(errno.EMFILE, "Too many open files")
        with open(key_file):
            raise AssertionError

    install("shiny", [backend_named("shiny", __init__=__init__)])
    missing = str(tmp_path / "key")
    with pytest.raises(StorageError, match="make the backend 'shiny' with") as caught:
        Walrus(tmp_path / "log", backend="shiny", backend_options={"key_file": missing})
    assert (caught.value.path, caught.value.errno) == (missing, errno.ENOENT)
    with pytest.raises(StorageError, match="'shiny' with its options: Too many open files"):
        Walrus(tmp_path / "log", backend="shiny")


# --- whose options ------------------------------------------------------------------------------


@pytest.fixture
def seen(install, monkeypatch):
    """What backends of three names are made with."""
    made = []
    for name in ("fd", "other", "third"):
        install(name, [backend_named(name, __init__=taking(made))])
    monkeypatch.delenv("WALRUS_BACKEND", raising=False)
    return made


def test_options_of_the_file_are_for_the_backend_of_the_file(seen, tmp_path, monkeypatch):
    file = tmp_path / "walrus.toml"
    file.write_text('backend = "other"\n[backend_options]\nsize = 3\n')
    Walrus(tmp_path).close()
    Walrus(tmp_path, backend="other").close()
    Walrus(tmp_path, backend="third").close()
    Walrus(tmp_path, backend="third", backend_options={"colour": "red"}).close()
    Walrus(tmp_path, backend=MemoryBackend()).close()
    monkeypatch.setenv("WALRUS_BACKEND", "fd")
    Walrus(tmp_path).close()
    monkeypatch.setenv("WALRUS_BACKEND", "other")
    Walrus(tmp_path).close()
    assert seen == [
        ("other", {"size": 3}),
        ("other", {"size": 3}),
        ("third", {}),
        ("third", {"colour": "red"}),
        ("fd", {}),
        ("other", {"size": 3}),
    ]


def test_options_of_a_file_that_names_no_backend_are_for_any(seen, tmp_path, monkeypatch):
    (tmp_path / "walrus.toml").write_text("[backend_options]\nsize = 3\n")
    Walrus(tmp_path).close()
    Walrus(tmp_path, backend="third").close()
    monkeypatch.setenv("WALRUS_BACKEND", "other")
    Walrus(tmp_path).close()
    assert seen == [(name, {"size": 3}) for name in ("fd", "third", "other")]


def test_another_choice_of_the_builder_forgets_the_options_of_the_first(seen, tmp_path):
    builder = Walrus.builder().data_dir(tmp_path).backend("other", size=3).backend("third")
    builder.build().close()
    builder.backend("other", size=4).build().close()
    builder.backend("other").build().close()
    assert seen == [("third", {}), ("other", {"size": 4}), ("other", {})]


def refusing(self, *, durable_writes=False, size=0):
    if size < 0:
        raise ConfigError(option="size", reason="is negative")
    MemoryBackend.__init__(self)


def test_who_gave_the_options_that_are_refused(install, tmp_path):
    install("shiny", [backend_named("shiny", __init__=refusing)])
    file = tmp_path / "walrus.toml"

    def refusal(**options):
        with pytest.raises(ConfigError) as caught:
            Walrus(tmp_path, backend="shiny", **options)
        return str(caught.value)

    assert "'shiny' refuses them (given by the builder): " in refusal(backend_options={"depth": 1})
    assert refusal(backend_options={"size": -1}) == "size: is negative (given by the builder)"
    file.write_text("[backend_options]\ndepth = 1\n")
    assert f"'shiny' refuses them (given by {file}): " in refusal()
    file.write_text("[backend_options]\nsize = -1\n")
    assert refusal() == f"size: is negative (given by {file})"
    given = tmp_path / "given.toml"
    given.write_text("[backend_options]\nsize = -1\n")
    assert refusal(config_file=given) == f"size: is negative (given by {given})"
    with pytest.raises(ConfigError, match="refuses them: "):
        load_backend("shiny", options={"depth": 1})


def test_a_backend_that_wants_options_and_gets_none():
    def __init__(self, *, durable_writes=False, key):
        MemoryBackend.__init__(self)

    with pytest.raises(ConfigError, match=r"'shiny' refuses them \(none are given\): .*'key'"):
        make_backend(backend_named("shiny", __init__=__init__), {}, False)


def test_options_keep_who_gave_them():
    options = BackendOptions({"size": 3}, "the builder")
    assert options == {"size": 3}
    again = pickle.loads(pickle.dumps(options))
    assert (again, again.given_by) == (options, "the builder")


@pytest.mark.parametrize("given", ["[]", "{}", "0", "false", "0.0", "''", "5", "['fd']", "true"])
def test_a_backend_that_is_no_name_in_the_file(seen, tmp_path, given):
    file = tmp_path / "walrus.toml"
    file.write_text(f"backend = {given}\n")
    for options in ({}, {"backend": "other"}):
        with pytest.raises(ConfigError, match="backend: must be a name, not ") as caught:
            Walrus(tmp_path, **options)
        assert str(file) in str(caught.value)
    assert seen == []


# --- what is blocked ------------------------------------------------------------------------------


def test_blocked_is_not_missing(install, tmp_path):
    for name in ("fd", "mmap", "other"):
        install(name, [backend_named(name)])
    blocked = ["fd", "mmap"]
    with pytest.raises(UnknownBackendError) as caught:
        Walrus(tmp_path / "log", blocked_plugins=blocked)
    message = str(caught.value)
    assert "plugins 'fd' and 'mmap' are blocked by configuration (also installed: other)" in message
    assert message.endswith("; ask for another backend, or change blocked_plugins")
    assert "pip install" not in message and "no backend" not in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message
    with pytest.raises(UnknownBackendError, match=r"^plugin 'fd' is blocked by configuration"):
        Walrus(tmp_path / "log", backend="fd", blocked_plugins=blocked)
    with pytest.raises(UnknownBackendError, match=r"'nope' is installed \(installed: other\); pip install"):
        Walrus(tmp_path / "log", backend="nope", blocked_plugins=[*blocked])
    with pytest.raises(UnknownBackendError, match=r"'nope' is installed .*'nope' is blocked"):
        Walrus(tmp_path / "log", backend="nope", blocked_plugins=[*blocked, "nope"])
    install("watcher", module=sys, group="walrus.observers")
    with pytest.raises(UnknownObserverError, match=r"^plugin 'watcher' is blocked .* another observer"):
        Walrus(tmp_path / "log", backend="other", observers=["watcher"], blocked_plugins=["watcher"])


def test_what_is_neither_installed_nor_blocked_is_to_be_installed(install, tmp_path):
    with pytest.raises(UnknownBackendError, match="pip install walrus-fd"):
        Walrus(tmp_path, blocked_plugins=["mmap"])
    install("mmap", [backend_named("mmap")])
    with pytest.raises(UnknownBackendError, match=r"^plugin 'mmap' is blocked"):
        Walrus(tmp_path, blocked_plugins=["mmap"])
