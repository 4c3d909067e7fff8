"""Options of a log: validated once, here, at the boundary.

Lives here: the consistency models, the sync schedules, limits on names and numbers. Not here:
where options come from (``builder.py``) and what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional, Union

from attrs import field, frozen

from walrus_core import format as fmt
from walrus_core.errors import ConfigError, InvalidTopicError

ON_CORRUPTION = ("raise", "skip")
SCHEDULES = ("each", "interval", "never")
INTERVAL_MS_MAX = 86_400_000
OPEN_FILES_DEFAULT = 256
OPEN_FILES_MIN = 8
DEFAULT_CURSOR = "default"
_SHOWN_MAX = 200
_DIGITS_MAX = 20


def shown(value: object) -> str:
    """Return a value as text for a message, cut where it is long: configuration files hold any number."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # More digits than Python turns into text.
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


def _whole_number(option: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(option=option, reason=f"must be a whole number, not {shown(value)}")
    if not low <= value <= high:
        raise ConfigError(option=option, reason=f"must be between {low} and {high}, not {shown(value)}")
    return value


def _check_persist_every(_instance: object, _attribute: object, value: Any) -> None:
    _whole_number("persist_every", value, 1, 2**32)


@frozen
class ReadConsistency:
    """When a consumed entry's checkpoint becomes durable.

    Strictly-at-once: before every consuming read returns. At-least-once: whenever a read returns,
    fewer than ``persist_every`` consumed entries lack a durable checkpoint, so a crash hands out
    at most ``persist_every - 1`` of them again.
    """

    persist_every: int = field(validator=_check_persist_every)

    @classmethod
    def strictly_at_once(cls) -> ReadConsistency:
        """Each checkpoint is durable before the read that made it returns."""
        return cls(1)

    @classmethod
    def at_least_once(cls, persist_every: int) -> ReadConsistency:
        """A durable checkpoint at least every ``persist_every`` consumed entries (1: strict)."""
        return cls(persist_every)

    @property
    def is_strict(self) -> bool:
        """True where no consumed entry may be handed out again after a crash."""
        return self.persist_every == 1


def _check_kind(_instance: object, _attribute: object, value: Any) -> None:
    if value not in SCHEDULES:
        raise ConfigError(option="fsync", reason=f"its kind is one of {list(SCHEDULES)}, not {shown(value)}")


@frozen
class FsyncSchedule:
    """When appended entries become durable: after each append, every N milliseconds, or never."""

    kind: str = field(validator=_check_kind)
    """"each", "interval" or "never"."""
    interval_ms: int = 0
    """0 where there is no interval."""

    def __attrs_post_init__(self) -> None:
        if self.kind == "interval":
            _whole_number("fsync_ms", self.interval_ms, 1, INTERVAL_MS_MAX)
        elif self.interval_ms != 0 or isinstance(self.interval_ms, bool):
            reason = f"a schedule {self.kind!r} has no interval, not {shown(self.interval_ms)}"
            raise ConfigError(option="fsync_ms", reason=reason)

    @classmethod
    def sync_each(cls) -> FsyncSchedule:
        """An append returns when its entry survives power loss."""
        return cls("each")

    @classmethod
    def milliseconds(cls, interval_ms: int) -> FsyncSchedule:
        """Sync in the background every ``interval_ms``; power loss takes at most what came later."""
        return cls("interval", interval_ms)

    @classmethod
    def no_fsync(cls) -> FsyncSchedule:
        """Entries survive the death of the process only; full blocks are synced before their seal."""
        return cls("never")

    @classmethod
    def parse(cls, text: object) -> FsyncSchedule:
        """Read "each", "never", or a whole number of milliseconds, as configuration files have them."""
        if text == "each":
            return cls.sync_each()
        if text == "never":
            return cls.no_fsync()
        if isinstance(text, str) and text.isdecimal() and len(text) <= _DIGITS_MAX:
            return cls.milliseconds(int(text))
        if isinstance(text, int) and not isinstance(text, bool):
            return cls.milliseconds(text)
        raise ConfigError(
            option="fsync", reason=f"must be 'each', 'never' or milliseconds, not {shown(text)}"
        )


def _check_backend(_instance: object, _attribute: object, value: object) -> None:
    if value is None or (isinstance(value, str) and value):
        return
    if isinstance(value, (str, type)) or not hasattr(value, "capabilities"):
        raise ConfigError(option="backend", reason=f"must be a name or a backend object, not {shown(value)}")


def _check_size(_instance: object, _attribute: object, value: object) -> None:
    size = _whole_number("block_size", value, fmt.BLOCK_SIZE_MIN, fmt.BLOCK_SIZE_MAX)
    if size % fmt.PAGE_SIZE:
        raise ConfigError(
            option="block_size", reason=f"must be a multiple of {fmt.PAGE_SIZE}, not {shown(size)}"
        )


def _check_blocks(_instance: object, _attribute: object, value: object) -> None:
    _whole_number("blocks_per_segment", value, fmt.BLOCKS_PER_SEGMENT_MIN, fmt.BLOCKS_PER_SEGMENT_MAX)


def _check_open_files(_instance: object, _attribute: object, value: object) -> None:
    _whole_number("open_files_max", value, OPEN_FILES_MIN, 1_000_000)


def _check_checksum(_instance: object, _attribute: object, value: object) -> None:
    if not isinstance(value, str) or value not in fmt.CHECKSUMS:
        raise ConfigError(
            option="checksum", reason=f"must be one of {sorted(fmt.CHECKSUMS)}, not {shown(value)}"
        )


def check_on_corruption(value: object) -> None:
    """Raise ConfigError unless ``value`` is "raise" or "skip"."""
    if value not in ON_CORRUPTION:
        raise ConfigError(
            option="on_corruption", reason=f"must be one of {list(ON_CORRUPTION)}, not {shown(value)}"
        )


def _check_observers(_instance: object, _attribute: object, value: object) -> None:
    if not isinstance(value, tuple) or any(one is None or one == "" for one in value):
        raise ConfigError(option="observers", reason=f"must be names and objects, not {shown(value)}")


def _check_policy(_instance: object, _attribute: object, value: object) -> None:
    check_on_corruption(value)


def _check_callable(_instance: object, attribute: Any, value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigError(option=attribute.name, reason=f"must be callable, not {shown(value)}")


def _check_type(cls: type, option: str) -> Callable[[object, object, object], None]:
    def check(_instance: object, _attribute: object, value: object) -> None:
        if not isinstance(value, cls):
            raise ConfigError(option=option, reason=f"must be a {cls.__name__}, not {shown(value)}")

    return check


def _check_path(_instance: object, _attribute: object, value: Any) -> None:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigError(option="data_dir", reason=f"must be a path as str, not {shown(value)}")


@frozen(kw_only=True)
class Options:
    """Everything that a log is opened with. Raises ConfigError for a value that cannot be used.

    ``clock`` (nanoseconds since the epoch) and ``random_bytes`` are injected by tests; ``clock``
    None means the system's. ``observers`` are objects with hook implementations (hookspecs.py), or
    names of installed ones.
    """

    path: str = field(validator=_check_path)
    backend: Union[str, Any, None] = field(default=None, validator=_check_backend)
    backend_options: Mapping[str, Any] = field(factory=dict)
    blocked_plugins: tuple[str, ...] = ()
    consistency: ReadConsistency = field(
        factory=ReadConsistency.strictly_at_once, validator=_check_type(ReadConsistency, "consistency")
    )
    fsync_schedule: FsyncSchedule = field(
        factory=lambda: FsyncSchedule.milliseconds(200),
        validator=_check_type(FsyncSchedule, "fsync_schedule"),
    )
    durable_writes: bool = field(default=False, validator=_check_type(bool, "durable_writes"))
    checksum: str = field(default="fnv1a64", validator=_check_checksum)
    block_size_bytes: int = field(default=fmt.BLOCK_SIZE_DEFAULT, validator=_check_size)
    blocks_per_segment: int = field(default=fmt.BLOCKS_PER_SEGMENT_DEFAULT, validator=_check_blocks)
    on_corruption: str = field(default="raise", validator=_check_policy)
    open_files_max: int = field(default=OPEN_FILES_DEFAULT, validator=_check_open_files)
    clock: Optional[Callable[[], int]] = field(default=None, validator=_check_callable)
    random_bytes: Optional[Callable[[int], bytes]] = field(default=None, validator=_check_callable)
    observers: tuple[object, ...] = field(default=(), validator=_check_observers)

    def __attrs_post_init__(self) -> None:
        if self.durable_writes and self.fsync_schedule.kind != "each":
            raise ConfigError(option="durable_writes", reason="needs the schedule FsyncSchedule.sync_each()")


def _encode_name(name: object, what: str, limit_bytes: int) -> bytes:
    if not isinstance(name, str):
        raise InvalidTopicError(topic=name, reason=f"a {what} name is a str, not {type(name).__name__}")
    if not name:
        raise InvalidTopicError(topic=name, reason=f"a {what} name is not empty")
    if "\0" in name:
        raise InvalidTopicError(topic=name, reason=f"a {what} name has no NUL")
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidTopicError(topic=name, reason="lone surrogates cannot be encoded as UTF-8") from None
    if len(encoded) > limit_bytes:
        reason = f"a {what} name has at most {limit_bytes} bytes in UTF-8, not {len(encoded)}"
        raise InvalidTopicError(topic=name[:40], reason=reason)
    return encoded


def encode_topic(topic: object) -> bytes:
    """Return the UTF-8 bytes of a valid topic name. Raises: InvalidTopicError."""
    return _encode_name(topic, "topic", fmt.TOPIC_NAME_MAX_BYTES)


def encode_cursor(cursor: object) -> bytes:
    """Return the UTF-8 bytes of a valid cursor name. Raises: InvalidTopicError."""
    return _encode_name(cursor, "cursor", fmt.CURSOR_NAME_MAX_BYTES)
