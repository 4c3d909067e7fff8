"""From entry points to one backend object and to observers; every plugin error is raised here.

Discovery reads metadata only: nothing is imported but the plugin that was chosen, so a broken
plugin cannot stop another. pluggy would hide a second entry point of one name, so the list is
made here.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from typing import Any, Optional

from attrs import frozen

from walrus_core import hookspecs
from walrus_core.backend import BACKEND_API, BACKEND_API_OLDEST, Backend, Capabilities
from walrus_core.config import Options, shown
from walrus_core.errors import (
    BrokenPluginError,
    ConfigError,
    ContractError,
    DuplicateBackendError,
    DuplicateObserverError,
    IncompatibleBackendError,
    PluginError,
    UnknownBackendError,
    UnknownObserverError,
    WalrusError,
    storage_error,
)
from walrus_core.events import hooks_of
from walrus_core.memory import MemoryBackend

ENTRY_POINT_GROUP = "walrus"
OBSERVER_GROUP = "walrus.observers"
DEFAULT_ORDER = ("fd", "mmap")
_KNOWN_PACKAGES = {"fd": "walrus-fd", "mmap": "walrus-mmap"}
_REQUIRED = (
    "make_directory",
    "list",
    "create",
    "open",
    "rename",
    "remove",
    "sync_dir",
    "sync_many",
    "close",
    "probe",
)


@frozen(kw_only=True)
class InstalledPlugin:
    """One entry point of the group, not imported."""

    name: str
    distribution: str
    version: str
    entry_point: EntryPoint


class BackendOptions(dict[str, Any]):
    """Options of a backend and who gave them, for the error of a backend that refuses them."""

    def __init__(self, options: Mapping[str, Any], given_by: str) -> None:
        """``given_by`` is the path of a configuration file, or what else a user looks for."""
        super().__init__(options)
        self.given_by = given_by


def entry_points(*, group: str) -> Iterable[EntryPoint]:
    """Return what ``importlib.metadata`` finds, which reads a file of each installed distribution:
    remembered until a folder that modules come from changes, by an installation or a removal."""
    return _read_entry_points(group, tuple((folder, _stamp(folder or os.curdir)) for folder in sys.path))


@functools.lru_cache(maxsize=8)
def _read_entry_points(group: str, _stamps: object) -> tuple[EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=group))


def _stamp(folder: str) -> Optional[tuple[int, int, int]]:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def installed_plugins(
    blocked: Iterable[str] = (), group: str = ENTRY_POINT_GROUP
) -> dict[str, list[InstalledPlugin]]:
    """Return the installed plugins of a group by name, without importing any; no blocked ones."""
    found: dict[str, list[InstalledPlugin]] = {}
    skip = set(blocked)
    for point in entry_points(group=group):
        if point.name in skip:
            continue
        distribution = point.dist.name if point.dist is not None else "unknown distribution"
        version = point.dist.version if point.dist is not None else "?"
        plugin = InstalledPlugin(
            name=point.name, distribution=distribution, version=version, entry_point=point
        )
        # The same distribution may be seen twice, installed and in the source tree.
        others = found.setdefault(point.name, [])
        if all(other.distribution != distribution for other in others):
            others.append(plugin)
    return found


def _look_again(blocked: Iterable[str], group: str = ENTRY_POINT_GROUP) -> dict[str, list[InstalledPlugin]]:
    """Return the installed plugins as they are now, before an error says that one is missing.

    An installation may have been under way at the last look: what comes into the folder of a
    distribution later does not change the folder that modules come from.
    """
    _read_entry_points.cache_clear()
    return installed_plugins(blocked, group)


def choose_backend_name(
    requested: Optional[str], configured: Optional[str], blocked: Iterable[str] = ()
) -> str:
    """Return the backend's name: requested, else WALRUS_BACKEND, else configured, else installed.

    Raises: UnknownBackendError: nothing was asked for and nothing is installed.
    """
    name = requested or os.environ.get("WALRUS_BACKEND") or configured
    if name:
        return name
    found = installed_plugins(blocked)
    if not any(default in found for default in DEFAULT_ORDER):
        found = _look_again(blocked)
    for default in DEFAULT_ORDER:
        if default in found:
            return default
    facts = {"name": DEFAULT_ORDER[0], "available": _names(found), "hint": "pip install walrus-fd"}
    hidden = [default for default in DEFAULT_ORDER if default in installed_plugins()]
    if hidden:
        raise UnknownBackendError(_blocked_message("backend", hidden, found), **facts)
    raise UnknownBackendError(**facts)


def load_backend(
    name: str, *, options: Mapping[str, Any], durable_writes: bool = False, blocked: Iterable[str] = ()
) -> Backend:
    """Import the plugin that registers ``name``, check it, and return a new backend object.

    Raises: UnknownBackendError, DuplicateBackendError, BrokenPluginError, IncompatibleBackendError,
    ContractError, ConfigError (options that it does not take), StorageError (it met an ``OSError``).
    """
    if name == MemoryBackend.name:
        return make_backend(MemoryBackend, options, durable_writes)
    plugin = _backend_plugin(name, blocked)
    cls = _class_of(plugin)
    try:
        return make_backend(cls, options, durable_writes)
    except WalrusError:
        raise
    except OSError as error:
        what = error.filename or "its options"
        raise storage_error(error, what, f"make the backend {name!r} with") from error
    except Exception as error:
        raise _broken(plugin, error) from error


def backend_class(name: str, blocked: Iterable[str] = ()) -> type[Any]:
    """Import the plugin that registers ``name`` and return its backend class. Raises as above."""
    return _class_of(_backend_plugin(name, blocked))


def _backend_plugin(name: str, blocked: Iterable[str]) -> InstalledPlugin:
    return _only_plugin(name, blocked, ENTRY_POINT_GROUP, UnknownBackendError, DuplicateBackendError)


def _class_of(plugin: InstalledPlugin) -> type[Any]:
    classes = _register(plugin)
    matching = [cls for cls in classes if getattr(cls, "name", None) == plugin.name]
    if len(matching) != 1:
        names = ", ".join(repr(getattr(cls, "name", None)) for cls in classes) or "none"
        reason = f"entry point {plugin.name!r} of {plugin.distribution} registers {names}"
        raise ContractError(name=plugin.name, reason=reason)
    return matching[0]


def _only_plugin(
    name: str,
    blocked: Iterable[str],
    group: str,
    unknown: type[PluginError],
    duplicate: type[PluginError],
) -> InstalledPlugin:
    """Return the one installed plugin of a group that has ``name``. Raises: ``unknown``, ``duplicate``."""
    found = installed_plugins(blocked, group)
    if name not in found:
        found = _look_again(blocked, group)
    candidates = found.get(name, [])
    if not candidates:
        facts = {"name": name, "available": _names(found), "hint": _hint(name, blocked)}
        if name in installed_plugins((), group):
            kind = "observer" if group == OBSERVER_GROUP else "backend"
            raise unknown(_blocked_message(kind, [name], found), **facts)
        raise unknown(**facts)
    if len(candidates) > 1:
        distributions = ", ".join(sorted(plugin.distribution for plugin in candidates))
        raise duplicate(name=name, distributions=distributions)
    return candidates[0]


def _register(plugin: InstalledPlugin) -> list[type[Any]]:
    import pluggy

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin.entry_point.load(), name=plugin.name)
        manager.check_pending()
        answers = manager.hook.walrus_register_backends()
        # Here too, code of the plugin may run: an answer may be a generator.
        return [cls for answer in answers for cls in _classes_in(answer, plugin)]
    except ContractError:
        raise
    except Exception as error:
        raise _broken(plugin, error) from error


def _classes_in(answer: Any, plugin: InstalledPlugin) -> list[type[Any]]:
    is_listed = isinstance(answer, Iterable) and not isinstance(answer, (str, type))
    classes = list(answer) if is_listed else []
    if not is_listed or not all(isinstance(cls, type) for cls in classes):
        given = shown(classes if is_listed else answer)
        reason = (
            f"walrus_register_backends of {plugin.distribution} returns {given}, and not a list of classes"
        )
        raise ContractError(name=plugin.name, reason=reason)
    return classes


def _broken(plugin: InstalledPlugin, error: Exception) -> BrokenPluginError:
    reason = f"{type(error).__name__}: {error}"
    return BrokenPluginError(name=plugin.name, distribution=plugin.distribution, reason=reason)


def make_backend(cls: type[Any], options: Mapping[str, Any], durable_writes: bool) -> Backend:
    """Construct a backend and check what it says of itself.

    Raises: IncompatibleBackendError, ContractError, ConfigError; whatever else its constructor does.
    """
    name = getattr(cls, "name", cls.__name__)
    found = getattr(cls, "api", None)
    if not isinstance(found, int) or not BACKEND_API_OLDEST <= found <= BACKEND_API:
        raise _incompatible(name, found)
    try:
        backend: Backend = cls(durable_writes=durable_writes, **options)
    except WalrusError as error:
        if type(error) is ConfigError and error._facts.get("option") in options:
            reason = f"{error._facts.get('reason')}{_given(options)}"
            raise ConfigError(option=error._facts["option"], reason=reason) from error
        raise
    except (TypeError, ValueError) as error:
        reason = f"backend {name!r} refuses them{_given(options)}: {error}"
        raise ConfigError(option="backend_options", reason=reason) from error
    check_backend_object(backend, durable_writes)
    return backend


def _given(options: Mapping[str, Any]) -> str:
    if not options:
        return " (none are given)"
    return f" (given by {options.given_by})" if isinstance(options, BackendOptions) else ""


def check_backend_object(backend: Backend, durable_writes: bool) -> None:
    """Raises: ContractError, IncompatibleBackendError, ConfigError: the object cannot serve."""
    name = getattr(backend, "name", type(backend).__name__)
    api = getattr(backend, "api", None)
    if not isinstance(api, int) or not BACKEND_API_OLDEST <= api <= BACKEND_API:
        raise _incompatible(name, api)
    missing = [method for method in _REQUIRED if not callable(getattr(backend, method, None))]
    if missing:
        raise ContractError(name=name, reason=f"it has no {', '.join(missing)}")
    capabilities: object = getattr(backend, "capabilities", None)
    if not isinstance(capabilities, Capabilities):
        found = type(capabilities).__name__
        reason = f"its attribute capabilities is of type {found}, not walrus_core.backend.Capabilities"
        raise ContractError(name=name, reason=reason)
    if durable_writes and not capabilities.durable_writes:
        raise ConfigError(option="durable_writes", reason=f"backend {name!r} has no durable writes")


def _incompatible(name: str, found: object) -> IncompatibleBackendError:
    is_newer = isinstance(found, int) and found > BACKEND_API
    hint = f"upgrade {'walrus-core' if is_newer else 'the distribution of the backend'}"
    return IncompatibleBackendError(
        name=name, found=found, wanted=f"{BACKEND_API_OLDEST} to {BACKEND_API}", hint=hint
    )


def _names(found: Mapping[str, object]) -> str:
    return ", ".join(sorted(found)) or "none"


def _hint(name: str, blocked: Iterable[str]) -> str:
    if name in set(blocked):
        return f"plugin {name!r} is blocked by configuration"
    return f"pip install {_KNOWN_PACKAGES.get(name, f'walrus-{name}')}"


def _blocked_message(kind: str, names: list[str], found: Mapping[str, object]) -> str:
    what = f"plugin {names[0]!r} is" if len(names) == 1 else f"plugins {' and '.join(map(repr, names))} are"
    return (
        f"{what} blocked by configuration (also installed: {_names(found)}); "
        f"ask for another {kind}, or change blocked_plugins"
    )


def backend_of(options: Options) -> Any:
    """Return the backend that ``options`` name, or the object that they hold.

    Raises: PluginError, ContractError: no backend, or one that does not do what is asked.
    """
    if options.backend is None or isinstance(options.backend, str):
        return load_backend(
            choose_backend_name(options.backend, None, options.blocked_plugins),
            options=options.backend_options,
            durable_writes=options.durable_writes,
            blocked=options.blocked_plugins,
        )
    check_backend_object(options.backend, options.durable_writes)
    return options.backend


def observers_of(options: Options) -> tuple[object, ...]:
    """Return the observers that ``options`` hold, those named loaded and made for the log's directory.

    A name counts once: builder and configuration file may both give it. Raises: UnknownObserverError,
    DuplicateObserverError, BrokenPluginError, ConfigError: an object that is given twice.
    """
    found: list[object] = []
    names: set[str] = set()
    for one in options.observers:
        if isinstance(one, str):
            if one in names:
                continue
            names.add(one)
            one = _load_observer(one, options.path, options.blocked_plugins)
        if any(one is other for other in found):
            reason = f"{shown(one)} is given twice, and would hear everything twice: give it once"
            raise ConfigError(option="observers", reason=reason)
        found.append(one)
    return tuple(found)


def _load_observer(name: str, path: str, blocked: Iterable[str]) -> object:
    """Import the plugin of the observer and call what its entry point names with the log's ``path``."""
    plugin = _only_plugin(name, blocked, OBSERVER_GROUP, UnknownObserverError, DuplicateObserverError)
    try:
        observer: object = plugin.entry_point.load()(path=path)
        hooks_of(observer)
    except Exception as error:
        raise _broken(plugin, error) from error
    return observer
