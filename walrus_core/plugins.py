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
from walrus_core.backend import BACKEND_API, BACKEND_API_OLDEST, Backend
from walrus_core.config import Options
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
)
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
    raise UnknownBackendError(name=DEFAULT_ORDER[0], available=_names(found), hint="pip install walrus-fd")


def load_backend(
    name: str, *, options: Mapping[str, Any], durable_writes: bool = False, blocked: Iterable[str] = ()
) -> Backend:
    """Import the plugin that registers ``name``, check it, and return a new backend object.

    Raises: UnknownBackendError, DuplicateBackendError, BrokenPluginError,
    IncompatibleBackendError, ContractError, ConfigError (options that it does not take).
    """
    if name == MemoryBackend.name:
        return make_backend(MemoryBackend, options, durable_writes)
    return make_backend(backend_class(name, blocked), options, durable_writes)


def backend_class(name: str, blocked: Iterable[str] = ()) -> type[Any]:
    """Import the plugin that registers ``name`` and return its backend class. Raises as above."""
    plugin = _only_plugin(name, blocked, ENTRY_POINT_GROUP, UnknownBackendError, DuplicateBackendError)
    classes = _register(plugin)
    matching = [cls for cls in classes if getattr(cls, "name", None) == name]
    if len(matching) != 1:
        names = ", ".join(repr(getattr(cls, "name", None)) for cls in classes) or "none"
        reason = f"entry point {name!r} of {plugin.distribution} registers {names}"
        raise ContractError(name=name, reason=reason)
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
        raise unknown(name=name, available=_names(found), hint=_hint(name, blocked))
    if len(candidates) > 1:
        distributions = ", ".join(sorted(plugin.distribution for plugin in candidates))
        raise duplicate(name=name, distributions=distributions)
    return candidates[0]


def _manager() -> Any:
    import pluggy

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _register(plugin: InstalledPlugin) -> list[type[Any]]:
    manager = _manager()
    try:
        manager.register(plugin.entry_point.load(), name=plugin.name)
        manager.check_pending()
        answers = manager.hook.walrus_register_backends()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise BrokenPluginError(name=plugin.name, distribution=plugin.distribution, reason=reason) from error
    return [cls for answer in answers for cls in answer]


def make_backend(cls: type[Any], options: Mapping[str, Any], durable_writes: bool) -> Backend:
    """Construct a backend and check what it says of itself. Raises as ``load_backend``."""
    name = getattr(cls, "name", cls.__name__)
    found = getattr(cls, "api", None)
    if not isinstance(found, int) or not BACKEND_API_OLDEST <= found <= BACKEND_API:
        raise _incompatible(name, found)
    try:
        backend: Backend = cls(durable_writes=durable_writes, **options)
    except WalrusError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(
            option="backend_options", reason=f"backend {name!r} refuses them: {error}"
        ) from error
    check_backend_object(backend, durable_writes)
    return backend


def check_backend_object(backend: Backend, durable_writes: bool) -> None:
    """Raises: ContractError, IncompatibleBackendError, ConfigError: the object cannot serve."""
    name = getattr(backend, "name", type(backend).__name__)
    api = getattr(backend, "api", None)
    if not isinstance(api, int) or not BACKEND_API_OLDEST <= api <= BACKEND_API:
        raise _incompatible(name, api)
    missing = [method for method in _REQUIRED if not callable(getattr(backend, method, None))]
    if missing:
        raise ContractError(name=name, reason=f"it has no {', '.join(missing)}")
    if durable_writes and not backend.capabilities.durable_writes:
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

    Raises: UnknownObserverError, DuplicateObserverError, BrokenPluginError.
    """
    return tuple(
        _load_observer(one, options.path, options.blocked_plugins) if isinstance(one, str) else one
        for one in options.observers
    )


def _load_observer(name: str, path: str, blocked: Iterable[str]) -> object:
    """Import the plugin of the observer and call what its entry point names with the log's ``path``."""
    plugin = _only_plugin(name, blocked, OBSERVER_GROUP, UnknownObserverError, DuplicateObserverError)
    try:
        observer: object = plugin.entry_point.load()(path=path)
        manager = _manager()
        manager.register(observer, name=name)
        manager.check_pending()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise BrokenPluginError(name=name, distribution=plugin.distribution, reason=reason) from error
    return observer
