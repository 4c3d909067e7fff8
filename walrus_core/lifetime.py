"""What the end of a log, a fork and the end of the interpreter mean for what it holds. Keeps no log alive."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable, Iterable
from typing import Protocol

from walrus_core import lock as lock_module
from walrus_core.errors import WalrusError
from walrus_core.gate import Gate


class OpenLog(Protocol):
    """What is asked of an open log."""

    gate: Gate

    def close(self) -> None:
        """Sync and release; nothing where that has been done."""

    def after_fork(self) -> None:
        """In a forked child: refuse every call from now on."""


_open_logs: weakref.WeakSet[OpenLog] = weakref.WeakSet()


def watch(log: OpenLog) -> None:
    """Tell ``log`` of forks, and close it at exit if it is still there."""
    _open_logs.add(log)


def give_back(steps: Iterable[Callable[[], object]]) -> list[BaseException]:
    """Run every step of giving back what a log holds, whatever comes in between.

    A step that an interrupt has ended is done again; it must allow that.

    Returns: the errors and interrupts that came, for the caller to raise.
    """
    errors: list[BaseException] = []
    for step in steps:
        while not _is_ended(step, errors):
            continue
    return errors


def _is_ended(step: Callable[[], object], errors: list[BaseException]) -> bool:
    try:
        step()
    except BaseException as error:
        errors.append(error)
        return isinstance(error, Exception)
    return True


def _after_fork_in_child() -> None:
    lock_module.forget_all_in_child()
    for log in list(_open_logs):
        log.after_fork()


def _close_at_exit() -> None:
    """Do the last sync of logs that were left open; starts no thread."""
    for log in list(_open_logs):
        try:
            log.close()
        except WalrusError as error:
            log.gate.warn("closing %s at exit: %s", log.gate.path, error)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_at_exit)
