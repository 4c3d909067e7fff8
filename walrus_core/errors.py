"""Every error this project raises: one tree, four roots, by whose fault it is.

* ``UsageError``: the caller broke the contract; nothing was changed.
* ``StorageError``: the machine failed; ``__cause__`` is the ``OSError`` where there was one.
* ``CorruptionError``: bytes on the medium break the format in a way no crash of ours explains.
* ``PluginError``: an extension broke its contract.

Facts are attributes (keyword arguments of the constructor); each class turns its own facts
into the sentence that people read. All errors can be pickled.
"""

from __future__ import annotations

import errno as _errno
from typing import Any, ClassVar, Optional


def _rebuild(cls: type[WalrusError], facts: dict[str, Any]) -> WalrusError:
    return cls(**facts)


class WalrusError(Exception):
    """Root of all errors; ``except WalrusError`` catches everything we raise.

    Subclasses set ``sentence``, a format string over their facts.
    """

    sentence: ClassVar[str] = "{message}"

    def __init__(self, message: str = "", **facts: Any) -> None:
        self._facts: dict[str, Any] = dict(facts)
        if message:
            self._facts["message"] = message
        self.__dict__.update(facts)
        self.message = message
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        if self.message:
            return self.message
        return self.sentence.format(**self.__dict__)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._facts)


# --- the caller's fault -------------------------------------------------------------------


class UsageError(WalrusError):
    """The caller broke the contract; nothing was changed."""


class InvalidTopicError(UsageError, ValueError):
    """A name of a topic or cursor that is empty, no str, too long, or not encodable."""

    sentence = "invalid name {topic!r}: {reason}"


class InvalidPayloadError(UsageError, TypeError):
    """A payload that is not a bytes-like object."""

    sentence = "{reason}"


class ConfigError(UsageError, ValueError):
    """An option, key or configuration file with a value that cannot be used."""

    sentence = "{option}: {reason}"


class EntryTooLargeError(UsageError, ValueError):
    """A payload larger than one segment can hold."""

    sentence = "entry of {length_bytes} bytes is larger than a segment holds ({limit_bytes} bytes)"


class BatchTooLargeError(UsageError, ValueError):
    """A batch with too many entries or too many bytes."""

    sentence = "batch of {found} {unit} is over the limit of {limit} {unit}"


class OffsetOutOfRangeError(UsageError, LookupError):
    """An offset below the oldest retained entry or beyond the end of the topic."""

    sentence = "offset {offset} of topic {topic!r} is outside the retained range [{oldest}, {next}]"


class UnknownTopicError(UsageError, LookupError):
    """An operation that needs the topic to exist, on one that does not."""

    sentence = "topic {topic!r} does not exist"


class ClosedError(UsageError):
    """The log has been closed."""

    sentence = "the log at {path} is closed"


class ForkedError(UsageError):
    """The log was opened by a parent process; open it anew in this one."""

    sentence = (
        "the log at {path} was opened before fork(); a child process cannot use it "
        "(close it in the parent first, then open it in the child)"
    )


class ReentrantCallError(UsageError):
    """A signal handler, finaliser or observer called the log while the same thread was inside it."""

    sentence = (
        "{operation} was refused: a signal handler, finaliser or observer called the log "
        "while its thread was inside another call"
    )


# --- the machine's fault ------------------------------------------------------------------


class StorageError(WalrusError):
    """A call to the operating system failed.

    Attributes: ``path``, ``operation``, ``errno`` (of the ``OSError`` in ``__cause__``), ``reason``.
    """

    sentence = "{operation} {path}: {reason}"
    path: str
    operation: str
    errno: Optional[int]


class DiskFullError(StorageError):
    """ENOSPC, EDQUOT or EFBIG: nothing was changed, the log goes on when there is space."""

    sentence = "no space left to {operation} {path}: {reason}"


class TooManyFilesError(StorageError):
    """EMFILE or ENFILE: nothing was changed."""

    sentence = "too many open files to {operation} {path}: {reason}"


class LockedError(StorageError):
    """Another has the directory open. ``pid`` is None where its number is not told: a reader never does."""

    sentence = "{path} is already open in {holder}"


class SyncFailedError(StorageError):
    """A sync failed: what was not durable yet is in doubt, and the log is poisoned."""

    sentence = "sync of {path} failed: {reason}; reopen the log to see what is durable"


class PoisonedError(StorageError):
    """An earlier sync or write failed, so this log takes no more writes until it is reopened."""

    sentence = "the log at {path} takes no more writes after an earlier failure ({reason}); reopen it"


class UnsupportedVersionError(StorageError):
    """The bytes were written by a newer version of the format: not broken, only unknown."""

    sentence = "{path} has format version {found}; this release reads up to {supported}"


# --- broken bytes -------------------------------------------------------------------------


class CorruptionError(WalrusError):
    """Bytes on the medium break the format.

    Attributes where they are known: ``topic``; ``offset`` and ``end_offset``, the half-open
    range of entries that is lost; ``path`` and ``at_bytes``, the place; ``kind``, what is wrong.
    """

    sentence = (
        "{kind} in {path} at byte {at_bytes}: entries [{offset}, {end_offset}) of topic {topic!r} are lost"
    )
    topic: Optional[str] = None
    offset: Optional[int] = None
    end_offset: Optional[int] = None
    path: str
    at_bytes: int
    kind: str


class ChecksumError(CorruptionError):
    """A payload does not match its checksum; only its own entry is lost."""


# --- an extension's fault -----------------------------------------------------------------


class PluginError(WalrusError):
    """An installed extension broke its contract."""


class UnknownBackendError(PluginError, LookupError):
    """No installed distribution provides this backend."""

    sentence = "no backend {name!r} is installed (installed: {available}); {hint}"


class DuplicateBackendError(PluginError):
    """Two distributions register the same backend name."""

    sentence = (
        "backend {name!r} is registered by more than one distribution: {distributions}; uninstall one of them"
    )


class IncompatibleBackendError(PluginError):
    """A backend was written for another version of the backend API."""

    sentence = "backend {name!r} implements backend API {found}, this core needs {wanted}; {hint}"


class UnknownObserverError(PluginError, LookupError):
    """No installed distribution provides this observer."""

    sentence = "no observer {name!r} is installed (installed: {available}); {hint}"


class DuplicateObserverError(PluginError):
    """Two distributions register the same observer name."""

    sentence = (
        "more than one distribution registers the observer {name!r}: {distributions}; uninstall one of them"
    )


class BrokenPluginError(PluginError):
    """A plugin failed to import or to register; ``__cause__`` is its exception."""

    sentence = "plugin {name!r} cannot be loaded, reinstall or upgrade {distribution}: {reason}"


class ContractError(PluginError):
    """A backend answered something its contract does not allow."""

    sentence = "backend {name!r} broke its contract: {reason}"


# --- from errno to type -------------------------------------------------------------------

_FULL = {_errno.ENOSPC, _errno.EFBIG} | ({_errno.EDQUOT} if hasattr(_errno, "EDQUOT") else set())
_FILES = {_errno.EMFILE, _errno.ENFILE}


def storage_error(error: OSError, path: object, operation: str) -> StorageError:
    """Turn an ``OSError`` of a backend call into our type; the caller raises it ``from error``."""
    cls: type[StorageError] = StorageError
    if error.errno in _FULL:
        cls = DiskFullError
    elif error.errno in _FILES:
        cls = TooManyFilesError
    reason = error.strerror or str(error)
    return cls(path=str(path), operation=operation, errno=error.errno, reason=reason)


def is_harmless(error: OSError) -> bool:
    """True where the failed call changed nothing that matters: no space, no descriptors."""
    return error.errno in _FULL or error.errno in _FILES
