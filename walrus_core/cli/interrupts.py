"""SIGINT and SIGTERM while lines are in hand that nobody can read a second time.

An interrupt that is raised anywhere can lose what a read took from a pipe a moment before. So
while lines are taken from one, interrupts are kept, and raised where nothing is lost: before the
next wait, or in it.
"""

from __future__ import annotations

import io
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Optional


class Interrupts:
    """What SIGINT and SIGTERM do to one run of a command: KeyboardInterrupt, at once or when it suits.

    Invariant: an interrupt that was kept is raised before ``kept`` ends, unless that ends with an error.
    A second one is never kept: who asks twice wants the end more than the lines.
    """

    def __init__(self, keeps: bool) -> None:
        """``keeps`` False: nothing is ever kept, each interrupt is raised at once."""
        self.keeps = keeps
        self._is_kept = False
        self.number: Optional[int] = None
        """The signal that came."""

    def receive(self, number: int, _frame: Optional[FrameType]) -> None:
        """Take a signal. Raises: KeyboardInterrupt: at once."""
        is_second = self.number is not None
        self.number = number
        if is_second or not self._is_kept:
            raise KeyboardInterrupt

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what comes in the block. Raises: KeyboardInterrupt: at its end, if something came."""
        self._is_kept = self.keeps
        try:
            yield
        finally:
            self._is_kept = False
        self._raise()

    @property
    def is_pending(self) -> bool:
        """True where an interrupt came and is kept."""
        return self._is_kept and self.number is not None

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Inside ``kept``: raise what came, and at once what comes in the block, which must lose nothing."""
        self._is_kept = False
        self._raise()
        yield
        self._is_kept = self.keeps

    def _raise(self) -> None:
        if self.keeps and self.number is not None:
            raise KeyboardInterrupt


@contextmanager
def receiving(keeps: bool) -> Iterator[Interrupts]:
    """Let SIGINT and SIGTERM go to the ``Interrupts`` that is yielded, for the time of the block.

    SIGTERM does what it did before once the block has ended: all that was taken is in its place then.
    """
    interrupts = Interrupts(keeps)
    before = {}
    if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # as ignored as before, as under nohup
                before[number] = signal.signal(number, interrupts.receive)
    try:
        try:
            yield interrupts
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    except KeyboardInterrupt:
        if interrupts.number == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
        raise


def has_input(file: io.FileIO, timeout_ms: Optional[int] = 0) -> bool:
    """Tell whether a read would return at once, and wait for that (None: for ever); nothing is taken.

    Returns: False, too, and without a wait, where the system does not tell: Windows, for pipes. There
    what is in hand is appended before each read, and interrupts come when the read returns.
    """
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(timeout_ms))
