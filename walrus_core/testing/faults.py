"""Which calls of a backend fail, and how: what a ``FaultyBackend`` is told."""

from __future__ import annotations

import errno as errno_names
import os
import threading
from collections.abc import Callable
from typing import Optional, Union

from attrs import define, field, frozen

OPERATIONS = (
    "make_directory",
    "list",
    "create",
    "open",
    "rename",
    "remove",
    "sync_dir",
    "read",
    "write",
    "write_many",
    "reserve",
    "discard",
    "drop_cache",
    "sync",
    "sync_many",
    "close",
)


@define
class Rule:
    """Fails or watches calls of one operation on paths that end with ``suffix`` (or one of several).

    ``skip`` calls pass first; then it acts ``times`` times (None: for ever). ``written`` bytes of
    a failing write still reach the file, as a short write before the error would leave them (negative:
    all but so many). ``lies`` flips this bit of what a read returns, modulo its length.
    """

    operation: str
    suffix: Union[str, tuple[str, ...]] = ""
    skip: int = 0
    times: Optional[int] = 1
    number: int = 0
    action: Optional[Callable[[], object]] = None
    written: int = 0
    lies: Optional[int] = None
    seen: int = field(default=0, init=False)
    acted: int = field(default=0, init=False)

    def matches(self, operation: str, path: str) -> bool:
        """Return whether the rule acts on this call, which it counts."""
        if operation != self.operation or not path.endswith(self.suffix):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.times is not None and self.acted >= self.times):
            return False
        self.acted += 1
        return True


@frozen
class Fault:
    """The ``place``-th call of a run (from 1) fails, with it all later ones of its kind if it ``stays``.

    A failing write leaves ``part`` of its bytes in the file (a share: nothing, half, all of them) and
    ``more`` bytes beyond it: (0.0, 1) is a short write of one byte, (1.0, -1) of all but one.
    """

    place: int
    number: int
    stays: bool = False
    part: float = 0.0
    more: int = 0

    def written(self, length: int) -> int:
        """Return how many bytes of a failing write reach the file."""
        return min(max(int(length * self.part) + self.more, 0), length)

    def __str__(self) -> str:
        name = errno_names.errorcode[self.number]
        written = f"{self.part:.0%}{f' {self.more:+} bytes' if self.more else ''} written"
        return f"call {self.place}, {name}{', for ever' if self.stays else ''}, {written}"


@define
class Countdown:
    """Runs ``action`` once, inside call number ``left`` (from 0) that one thread makes."""

    left: int
    action: Callable[[], object]
    thread: int = field(factory=threading.get_ident, init=False)
    is_over: bool = field(default=False, init=False)

    def count(self) -> None:
        """Count one call of the backend."""
        if self.is_over or threading.get_ident() != self.thread:
            return
        self.left -= 1
        if self.left < 0:
            self.is_over = True
            self.action()


def failure(number: int, path: str) -> OSError:
    """Return the OSError that the system would raise."""
    return OSError(number, os.strerror(number), path)
