"""What fork and the end of the interpreter mean for open logs. Holds no log alive."""

from __future__ import annotations

import atexit
import os
import weakref
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
