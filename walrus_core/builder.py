"""Where options come from: builder, environment, configuration file, defaults, in this order.

The builder collects; ``options()`` resolves and validates; nothing is opened before ``build()``.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

from walrus_core.config import FsyncSchedule, Options, ReadConsistency, shown
from walrus_core.errors import ConfigError
from walrus_core.paths import CONFIG_NAME, default_data_dir, key_directory
from walrus_core.plugins import BackendOptions, choose_backend_name

if TYPE_CHECKING:
    from walrus_core.walrus import Walrus

CONFIG_BYTES_MAX = 1024 * 1024
_FILE_KEYS: Mapping[str, str] = {
    "backend": "backend_from_file",
    "backend_options": "options_from_file",
    "blocked_plugins": "blocked_plugins",
    "consistency": "consistency",
    "persist_every": "persist_every",
    "fsync": "fsync_schedule",
    "durable_writes": "durable_writes",
    "checksum": "checksum",
    "block_size": "block_size",
    "blocks_per_segment": "blocks_per_segment",
    "on_corruption": "on_corruption",
    "open_files_max": "open_files_max",
    "observers": "observers_from_file",
}
_RENAMED = {"block_size": "block_size_bytes"}
_SETTABLE = {
    "backend",
    "backend_options",
    "blocked_plugins",
    "consistency",
    "fsync_schedule",
    "durable_writes",
    "checksum",
    "block_size",
    "blocks_per_segment",
    "on_corruption",
    "open_files_max",
    "clock",
    "random_bytes",
    "observers",
    "config_file",
}


class WalrusBuilder:
    """Collects options for a log; every method returns the builder."""

    def __init__(self) -> None:
        """Start with nothing set."""
        self._data_dir: Optional[str] = None
        self._key: Optional[str] = None
        self._set: dict[str, Any] = {}

    def data_dir(self, path: Union[str, os.PathLike[str]]) -> WalrusBuilder:
        """Keep the log under ``path``; WALRUS_DATA_DIR and WALRUS_INSTANCE_KEY are then ignored."""
        text = os.fspath(path)
        if not isinstance(text, str) or not text or "\0" in text:
            raise ConfigError(option="data_dir", reason=f"must be a path as str, not {path!r}")
        self._data_dir = text
        return self

    def key(self, key: str) -> WalrusBuilder:
        """Use the namespace of ``key``: a directory of its own under the data directory."""
        key_directory(key)
        self._key = key
        return self

    def backend(self, backend: Union[str, Any], **options: Any) -> WalrusBuilder:
        """Choose the backend by name ("fd", "mmap", "memory", ...) with its options, or give an object.

        Options that were set before are for the backend that was chosen before, and are forgotten.
        """
        self._set["backend"] = backend
        self._set.pop("backend_options", None)
        if options:
            self._set["backend_options"] = options
        return self

    def consistency(self, model: ReadConsistency) -> WalrusBuilder:
        """Choose when checkpoints become durable (default: strictly-at-once)."""
        return self.set(consistency=model)

    def fsync_schedule(self, schedule: FsyncSchedule) -> WalrusBuilder:
        """Choose when appended entries become durable (default: every 200 ms)."""
        return self.set(fsync_schedule=schedule)

    def durable_writes(self, wanted: bool = True) -> WalrusBuilder:
        """With sync-each: open files with O_DSYNC, so that each write is durable by itself."""
        return self.set(durable_writes=wanted)

    def checksum(self, name: str) -> WalrusBuilder:
        """Choose "fnv1a64" (default) or "crc32c" for new segments."""
        return self.set(checksum=name)

    def block_size(self, size_bytes: int) -> WalrusBuilder:
        """Size of a block in new segments (default 10 MiB, a multiple of 4 096)."""
        return self.set(block_size=size_bytes)

    def blocks_per_segment(self, count: int) -> WalrusBuilder:
        """Blocks in a new segment file (default 100)."""
        return self.set(blocks_per_segment=count)

    def on_corruption(self, policy: str) -> WalrusBuilder:
        """What reads do at damage: "raise" (default) or "skip"."""
        return self.set(on_corruption=policy)

    def observer(self, observer: Union[str, object]) -> WalrusBuilder:
        """Add an object with hook implementations (walrus_core.hookspecs), or an installed one by name."""
        self._set["observers"] = (*self._set.get("observers", ()), observer)
        return self

    def clock(self, now: Callable[[], int]) -> WalrusBuilder:
        """Stamp entries with ``now()``, nanoseconds since the epoch."""
        return self.set(clock=now)

    def config_file(self, path: Union[str, os.PathLike[str]]) -> WalrusBuilder:
        """Read options from this TOML file instead of ``walrus.toml`` in the data directory."""
        return self.set(config_file=os.fspath(path))

    def set(self, **options: Any) -> WalrusBuilder:
        """Set several options by name; None leaves an option unset.

        Raises: ConfigError: unknown name, or observers that are no list.
        """
        for name, value in options.items():
            if name not in _SETTABLE:
                raise ConfigError(
                    option=name, reason=f"is no option; known are {', '.join(sorted(_SETTABLE))}"
                )
            if value is not None:
                self._set[name] = _listed(value) if name == "observers" else value
        return self

    def options(self) -> Options:
        """Resolve and validate. Raises: ConfigError, UnknownBackendError."""
        base = self._data_dir if self._data_dir is not None else default_data_dir()
        values = self._from_file(base)
        values.update({name: value for name, value in self._set.items() if name != "config_file"})
        blocked = values["blocked_plugins"] = _names("blocked_plugins", values.get("blocked_plugins", ()))
        self._choose_backend(values, blocked)
        named = _names("observers", values.pop("observers_from_file", ()))
        values["observers"] = (*named, *values.get("observers", ()))
        for name, field in _RENAMED.items():
            if name in values:
                values[field] = values.pop(name)
        return Options(path=self._directory(base), **values)

    def build(self) -> Walrus:
        """Open the log. Raises as ``Walrus``."""
        from walrus_core.walrus import Walrus

        return Walrus.from_options(self.options())

    def _choose_backend(self, values: dict[str, Any], blocked: tuple[str, ...]) -> None:
        """Put the backend and its options into ``values``, in the place of what the file says of them."""
        configured = values.pop("backend_from_file", None)
        from_file = values.pop("options_from_file", None)
        backend = values.get("backend")
        if backend == "":
            raise ConfigError(option="backend", reason="must be a name, not ''")
        if backend is None or isinstance(backend, str):
            backend = values["backend"] = choose_backend_name(backend, configured, blocked)
        if "backend_options" in values:
            values["backend_options"] = _options_of(values["backend_options"], "the builder")
        elif from_file is not None and (configured is None or backend == configured):
            # Those of another backend than the one that was chosen over it mean nothing here.
            values["backend_options"] = from_file

    def _directory(self, base: str) -> str:
        key = self._key
        if key is None and self._data_dir is None:
            key = os.environ.get("WALRUS_INSTANCE_KEY") or None
        if key is None:
            return base
        directory = os.path.join(base, key_directory(key))
        if os.path.islink(directory):
            raise ConfigError(option="key", reason=f"{directory} is a link, which is not followed")
        return directory

    def _from_file(self, base: str) -> dict[str, Any]:
        given = self._set.get("config_file")
        if given is not None:
            return read_config(given)
        path = os.path.join(base, CONFIG_NAME)
        # Links there are not followed, as with every file of the log; a file that is named may be one.
        return read_config(path, is_ours=True) if os.path.lexists(path) else {}


def _listed(observers: object) -> tuple[object, ...]:
    """Return observers as they are kept: one name stands for itself."""
    if isinstance(observers, str):
        return (observers,)
    if isinstance(observers, Iterable) and not isinstance(observers, (bytes, Mapping)):
        return tuple(observers)
    reason = f"must be a list of names and objects, not {shown(observers)}"
    raise ConfigError(option="observers", reason=reason)


def _options_of(options: object, given_by: str) -> BackendOptions:
    if not isinstance(options, Mapping):
        raise ConfigError(option="backend_options", reason=f"must be a table, not {shown(options)}")
    return BackendOptions(options, given_by)


def _check_name(backend: object, path: object) -> None:
    # Anything that is not true, such as an empty list, would pass for a backend that is not named.
    if not isinstance(backend, str) or not backend:
        raise ConfigError(option="backend", reason=f"must be a name, not {shown(backend)} (given by {path})")


def _names(option: str, value: object) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ConfigError(option=option, reason=f"must be a list of names, not {shown(value)}")


def _open_unfollowed(path: str, flags: int) -> int:
    """Open a plain file of the data directory to read. Raises: OSError: a link, or no file at all."""
    for name in ("O_NOFOLLOW", "O_NONBLOCK"):
        flags |= getattr(os, name, 0)
    # Looked at first for systems without these flags, where opening a pipe waits for ever; again, because
    # the name may be another's by then.
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "a link in the data directory is not followed; name the file instead")
    if stat.S_ISREG(mode):
        descriptor = os.open(path, flags)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


def _read_text(path: str, is_ours: bool) -> str:
    """Read a configuration file. Raises: OSError, ValueError: no UTF-8, or too large."""
    with open(path, "rb", opener=_open_unfollowed if is_ours else None) as file:
        data = file.read(CONFIG_BYTES_MAX + 1)
    if len(data) > CONFIG_BYTES_MAX:
        raise ValueError(f"larger than {CONFIG_BYTES_MAX} bytes")
    return data.decode("utf-8")


def read_config(path: str, is_ours: bool = False) -> dict[str, Any]:
    """Read a ``walrus.toml`` into builder options; ``is_ours``: the one in the data directory.

    Raises: ConfigError: unreadable, no plain file where it is ours, unknown keys.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(_read_text(path, is_ours))
    except (OSError, ValueError, RecursionError) as error:
        # ValueError: no UTF-8, no TOML, too large, a number too long. RecursionError: nested too deep.
        raise ConfigError(option=path, reason=str(error)) from error
    unknown = sorted(set(table) - set(_FILE_KEYS))
    if unknown:
        reason = f"unknown keys {', '.join(unknown)}; known are {', '.join(sorted(_FILE_KEYS))}"
        raise ConfigError(option=path, reason=reason)
    values = {_FILE_KEYS[key]: value for key, value in table.items()}
    if "backend_from_file" in values:
        _check_name(values["backend_from_file"], path)
    if "options_from_file" in values:
        values["options_from_file"] = _options_of(values["options_from_file"], str(path))
    if "fsync_schedule" in values:
        values["fsync_schedule"] = FsyncSchedule.parse(values["fsync_schedule"])
    consistency = _consistency(path, values.pop("consistency", None), values.pop("persist_every", None))
    if consistency is not None:
        values["consistency"] = consistency
    return values


def _consistency(path: str, name: object, persist_every: Any) -> Optional[ReadConsistency]:
    if name is None and persist_every is None:
        return None
    if name == "strictly_at_once" and persist_every is None:
        return ReadConsistency.strictly_at_once()
    if name in (None, "at_least_once") and persist_every is not None:
        return ReadConsistency.at_least_once(persist_every)
    reason = "consistency is 'strictly_at_once', or 'at_least_once' with persist_every"
    raise ConfigError(option=path, reason=reason)
