"""Observers: chosen by name, imported only then, told of rare events; a wrong one is a typed error."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest
from helpers import NEVER, WHOLE_BLOCK, with_faults

from walrus_core import Walrus, plugins
from walrus_core.errors import (
    BrokenPluginError,
    ConfigError,
    DuplicateObserverError,
    PluginError,
    SyncFailedError,
    UnknownObserverError,
)
from walrus_core.hookspecs import hookimpl


class Observer:
    """Keeps what it was made with and what it was told."""

    made: ClassVar[list[Observer]] = []

    def __init__(self, *, path: str) -> None:
        self.path, self.recovered = path, 0
        self.made.append(self)

    @hookimpl
    def walrus_recovered(self, report):
        self.recovered += 1


class Misled:
    """Implements a hook that does not exist."""

    def __init__(self, *, path: str) -> None:
        """Take what every observer is made with."""

    @hookimpl
    def walrus_no_such_hook(self):
        """Nothing calls this."""


@pytest.fixture
def offer(monkeypatch):
    """A function that pretends that a distribution offers an observer, beside what is installed."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(Observer, "made", [])
    installed = plugins.entry_points

    def entry_points(*, group):
        return [*installed(group=group), *(point for point in points if point.group == group)]

    monkeypatch.setattr(plugins, "entry_points", entry_points)

    def offer(name, made=Observer, *, distribution=None):
        module = types.ModuleType(f"pretended_{name}")
        module.make = made
        monkeypatch.setitem(sys.modules, module.__name__, module)
        point = EntryPoint(name=name, value=f"{module.__name__}:make", group="walrus.observers")
        about = types.SimpleNamespace(name=distribution or f"walrus-{name}", version="1.0", metadata={})
        points.append(point._for(about))
        return module.__name__

    return offer


@pytest.mark.parametrize("given", ["watcher", ["watcher"], ("watcher",)])
def test_by_name(offer, tmp_path, given):
    offer("watcher")
    with Walrus(tmp_path, backend="memory", observers=given) as wal:
        (observer,) = Observer.made
        assert (observer.path, observer.recovered) == (wal.path, 1)


def test_by_builder_beside_objects_and_those_of_the_file(offer, tmp_path):
    offer("watcher")
    offer("other")
    (tmp_path / "walrus.toml").write_text('observers = ["other"]\n')
    own = Observer(path="mine")
    builder = Walrus.builder().data_dir(tmp_path).backend("memory").observer("watcher").observer(own)
    assert len(Observer.made) == 1
    builder.build().close()
    assert [observer.recovered for observer in Observer.made] == [1, 1, 1]


def test_only_the_chosen_one_is_imported(offer, tmp_path, monkeypatch):
    offer("watcher")
    other = offer("other")
    monkeypatch.delitem(sys.modules, other)
    Walrus(tmp_path, backend="memory", observers=["watcher"]).close()
    Walrus(tmp_path, backend="memory").close()
    assert len(Observer.made) == 1
    assert other not in sys.modules


def test_every_log_has_its_own(offer, tmp_path):
    offer("watcher")
    for name in ("one", "two"):
        Walrus(tmp_path / name, backend="memory", observers=["watcher"]).close()
    assert [observer.path for observer in Observer.made] == [str(tmp_path / "one"), str(tmp_path / "two")]


def test_unknown(offer, tmp_path):
    offer("watcher")
    with pytest.raises(
        UnknownObserverError, match=r"installed: .*watcher.*pip install walrus-nope"
    ) as caught:
        Walrus(tmp_path / "log", backend="fd", observers=["nope"])
    assert isinstance(caught.value, (PluginError, LookupError))
    assert not (tmp_path / "log").exists()


def test_blocked(offer, tmp_path):
    offer("watcher")
    with pytest.raises(UnknownObserverError, match="'watcher' is blocked by configuration"):
        Walrus(tmp_path, backend="memory", observers=["watcher"], blocked_plugins=["watcher"])
    assert Observer.made == []


def test_two_distributions(offer, tmp_path):
    offer("watcher", distribution="walrus-watcher")
    offer("watcher", distribution="other-watcher")
    with pytest.raises(DuplicateObserverError, match="other-watcher, walrus-watcher; uninstall one"):
        Walrus(tmp_path, backend="memory", observers=["watcher"])


def test_one_that_cannot_be_imported(offer, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, offer("watcher"))
    with pytest.raises(BrokenPluginError, match="reinstall or upgrade walrus-watcher") as caught:
        Walrus(tmp_path / "log", backend="fd", observers=["watcher"])
    assert isinstance(caught.value.__cause__, ImportError)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("made", [object, Misled, None])
def test_one_that_cannot_be_made(offer, tmp_path, made):
    offer("watcher", made)
    with pytest.raises(BrokenPluginError, match="walrus-watcher"):
        Walrus(tmp_path, backend="memory", observers=["watcher"])


def test_a_name_that_file_and_builder_give_counts_once(offer, tmp_path):
    """The counters of a second one would count everything twice."""
    offer("watcher")
    (tmp_path / "walrus.toml").write_text('observers = ["watcher", "watcher"]\n')
    Walrus.builder().data_dir(tmp_path).backend("memory").observer("watcher").build().close()
    assert [observer.recovered for observer in Observer.made] == [1]


class Misspelt:
    @hookimpl
    def walrus_syncd(self):
        """Nothing calls this."""


class Demanding:
    @hookimpl
    def walrus_synced(self, files):
        """There is no such argument."""


class Plain:
    @hookimpl
    def walrus_synced(self):
        """Hear of it."""


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([Misspelt()], "Misspelt cannot observe: .*walrus_syncd.*walrus_core.hookspecs"),
        ([Demanding()], "Demanding cannot observe: .*files.*walrus_core.hookspecs"),
        ([Plain], "Plain cannot observe: .* is a class, not an object"),
        (Plain(), "list of names and objects, not .*Plain"),
        (5, "list of names and objects, not 5"),
        (b"watcher", "list of names and objects, not b'watcher'"),
    ],
    ids=["hook", "argument", "class", "no list", "number", "bytes"],
)
def test_what_cannot_observe_is_told_by_its_name(tmp_path, given, why):
    with pytest.raises(ConfigError, match=f"^observers: .*{why}"):
        Walrus(tmp_path / "log", backend="memory", observers=given)
    assert not (tmp_path / "log").exists()


def test_one_object_twice(tmp_path):
    twice = Plain()
    builder = Walrus.builder().data_dir(tmp_path).backend("memory").observer(twice).observer(twice)
    with pytest.raises(ConfigError, match=r"^observers: .*Plain.* is given twice.*: give it once"):
        builder.build()
    Walrus(tmp_path, backend="memory", observers=[Plain(), Plain()]).close()


def test_the_builder_adds_to_a_name_and_builds_again_from_what_is_given_once(offer, tmp_path):
    offer("watcher")
    builder = Walrus.builder().data_dir(tmp_path).backend("memory").set(observers="watcher").observer(Plain())
    assert len(builder.options().observers) == 2
    builder.set(observers=(one for one in [Plain()]))
    assert len(builder.options().observers) == len(builder.options().observers) == 1


@pytest.mark.parametrize(("made", "why"), [(None, "is None"), (Plain, "is a class")])
def test_one_whose_plugin_makes_no_object(offer, tmp_path, made, why):
    offer("watcher", lambda *, path: made)
    with pytest.raises(BrokenPluginError, match=f"upgrade walrus-watcher: .*{why}"):
        Walrus(tmp_path, backend="memory", observers=["watcher"])


@pytest.mark.parametrize("given", [[""], [None], ""])
def test_what_is_no_observer(tmp_path, given):
    with pytest.raises(ConfigError, match="observers"):
        Walrus(tmp_path / "log", backend="memory", observers=given)


@pytest.mark.parametrize("given", ["3", '"watcher"', "[1]"])
def test_what_the_file_may_not_say(tmp_path, given):
    (tmp_path / "walrus.toml").write_text(f"observers = {given}\n")
    with pytest.raises(ConfigError, match="observers"):
        Walrus(tmp_path, backend="memory")


def test_observers_are_told_of_rare_events(memory_store):
    told = []

    class Observer:
        @hookimpl
        def walrus_recovered(self, report):
            told.append(("recovered", report.topic_count))

        @hookimpl
        def walrus_segment_created(self, info):
            told.append(("created", info.sequence))

        @hookimpl
        def walrus_segment_reclaimed(self, info):
            told.append(("reclaimed", info.sequence))

        @hookimpl
        def walrus_block_sealed(self, info):
            told.append(("sealed", info.topic, info.first_offset, info.end_offset))

        @hookimpl
        def walrus_synced(self, file_count, duration_s):
            told.append(("synced", file_count >= 1 and duration_s >= 0))

        @hookimpl
        def walrus_poisoned(self, error):
            told.append(("poisoned", type(error).__name__))

    wal, backend = with_faults(memory_store, fsync_schedule=NEVER, observers=(Observer(),))
    assert told == [("recovered", 0)]
    for number in range(5):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.batch_read_for_topic("t", 1 << 20)
    wal.sync()
    events = {event[0] for event in told}
    assert events == {"recovered", "created", "sealed", "synced", "reclaimed"}
    assert [event for event in told if event[0] == "created"] == [("created", 1), ("created", 2)]
    assert sorted(event for event in told if event[0] == "sealed") == [
        ("sealed", "t", n, n + 1) for n in range(4)
    ]
    assert ("reclaimed", 1) in told
    assert ("synced", True) in told
    backend.fail("sync", number=5)
    with pytest.raises(SyncFailedError):
        append_and_sync(wal)
    assert [event for event in told if event[0] == "poisoned"] == [("poisoned", "SyncFailedError")]


def append_and_sync(wal: Walrus) -> None:
    wal.append_for_topic("t", b"x")
    wal.sync()
