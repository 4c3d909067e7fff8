"""Whether the log still takes calls: open, poisoned, closed, or inherited by a forked child.

One object per log; every room asks it, so that a failure anywhere stops writes everywhere.

Invariants: a poisoned gate never opens again; ``blocks_writes`` is False only while the log is
open and sound, or closing; ``blocks_calls`` is True wherever it is; the first poisoning error is
the one that is remembered.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, Optional, Protocol, TypeVar

from walrus_core.errors import (
    ClosedError,
    ForkedError,
    PoisonedError,
    ReentrantCallError,
    StorageError,
    SyncFailedError,
    WalrusError,
    is_harmless,
    storage_error,
)

logger = logging.getLogger("walrus_core")

Result = TypeVar("Result")
RLock = Any
"""``threading.RLock`` is a function and no type."""

OPEN, CLOSED, FORKED = "open", "closed", "forked"


class Barrier(Protocol):
    """What the gate closes along with itself: the express way past the locks."""

    blocked: bool


class Gate:
    """State of one log that all of its rooms share. Reads of its attributes need no lock."""

    __slots__ = (
        "_announce",
        "_express",
        "_is_told",
        "blocks_calls",
        "blocks_writes",
        "failure",
        "path",
        "quiet",
        "state",
        "writes_sync",
    )

    def __init__(
        self,
        path: str,
        announce: Callable[[Exception], None],
        quiet: bool,
        express: tuple[Barrier, ...],
        writes_sync: bool = False,
    ) -> None:
        """``announce`` is told once about the failure that poisons the log. ``writes_sync`` says
        that a write is a sync too (O_DSYNC), so that any failed write is a failed sync."""
        self.writes_sync = writes_sync
        self._express = express
        self.path = path
        self.state = OPEN
        self.failure: Optional[StorageError] = None
        self.blocks_calls = False
        """No new append, read or checkpoint of a caller may begin."""
        self.blocks_writes = False
        """No byte may be written."""
        self.quiet = quiet
        self._announce = announce
        self._is_told = False

    def check_open(self) -> None:
        """Raises: ClosedError, ForkedError: the log cannot be used at all."""
        if self.state != OPEN:
            raise self.ended()

    def ended(self) -> WalrusError:
        """Return the error that says how the log ended, once it has."""
        return (ForkedError if self.state == FORKED else ClosedError)(path=self.path)

    def check_call(self) -> None:
        """Raises: ClosedError, ForkedError, PoisonedError: a call that changes the log cannot begin."""
        if self.blocks_calls:
            self.check_open()
            raise PoisonedError(path=self.path, reason=str(self.failure)) from self.failure

    def check_write(self) -> None:
        """Raises: ClosedError, ForkedError, PoisonedError: nothing was written."""
        if self.blocks_writes:
            if self.failure is not None:
                raise PoisonedError(path=self.path, reason=str(self.failure)) from self.failure
            self.check_open()

    def _block_calls(self) -> None:
        for express in self._express:
            express.blocked = True
        self.blocks_calls = True

    def shut(self) -> None:
        """Let no new call begin; what is under way may still write."""
        self._block_calls()
        self.state = CLOSED

    def leave(self, state: str) -> None:
        """Close the gate for good: CLOSED or FORKED."""
        self._block_calls()
        self.blocks_writes = True
        self.state = state

    def poison(self, error: StorageError) -> None:
        """Refuse every later write, sync and checkpoint; reads go on below durable offsets."""
        # Again where there is a failure: an interrupt may have ended the first call half-way.
        if self.failure is None:
            self.failure = error
        self._block_calls()
        self.blocks_writes = True
        if self._is_told:
            return
        self._is_told = True
        if not self.quiet:
            logger.error("log at %s is poisoned: %s", self.path, self.failure)
        self._announce(self.failure)

    def sync_failed(self, error: OSError, path: object, operation: str = "sync") -> SyncFailedError:
        """Poison, and return the error to raise: a failed sync is never retried."""
        reason = error.strerror or str(error)
        failure = SyncFailedError(path=str(path), operation=operation, errno=error.errno, reason=reason)
        self.poison(failure)
        return failure

    def run_sync(self, call: Callable[[], Result], path: object) -> Result:
        """Return what ``call`` returns, which makes something durable. Raises: SyncFailedError: poisoned."""
        before = sys.exc_info()[1]
        try:
            try:
                return call()
            except OSError as error:
                raise self.sync_failed(error, path) from error
        except BaseException as error:
            self.keep_failure(error, before, path)
            raise

    def keep_failure(
        self, error: Optional[BaseException], before: Optional[BaseException], path: object
    ) -> None:
        """Poison where ``error`` ended a sync after the system had reported its failure.

        Such as an interrupt that came between the two: the system reports a failure once, and the next
        sync would succeed. ``before`` is what was being handled when the sync began.
        """
        while error is not None and error is not before:
            if isinstance(error, OSError):
                self.sync_failed(error, path)
                return
            error = error.__cause__ or error.__context__

    def write_failed(self, error: OSError, path: object, operation: str) -> StorageError:
        """Return the error to raise; poison unless it only says that space or files ran out."""
        if self.writes_sync and operation == "write":
            return self.sync_failed(error, path)
        failure = storage_error(error, path, operation)
        if not is_harmless(error):
            self.poison(failure)
        return failure

    def warn(self, message: str, *details: object) -> None:
        """Log a warning, unless WALRUS_QUIET is set."""
        if not self.quiet:
            logger.warning(message, *details)


def take_lock(lock: RLock, held: list[RLock]) -> bool:
    """Take ``lock`` if no thread has it, this one included, and note it in ``held``.

    Returns: whether it was taken. Taking and noting are one step: an interrupt finds both or
    neither, and no call stands before that of release in ``if held: held[0].release()``.
    """
    if lock._is_owned():
        return False
    held.extend(itertools.compress((lock,), map(lock.acquire, (False,))))
    return bool(held) and held[-1] is lock


class Door(threading.local):
    """Lets a thread into the log once: a call that comes while the same thread is inside is refused.

    Such calls come from signal handlers, finalisers and observers. Going on would see half-made
    state; waiting, for any lock of the log, could be for ever. Each thread has a lock of its own,
    because ``with`` takes and gives back a lock of the interpreter in one step for every interrupt.
    """

    def __init__(self) -> None:
        self.inside: RLock = threading.RLock()
        """Held while the thread is inside."""

    def enter(self, operation: str) -> RLock:
        """Return what ``with`` holds during the call. Raises: ReentrantCallError: nothing changed."""
        inside = self.inside
        if inside._is_owned():
            raise ReentrantCallError(operation=operation)
        return inside
