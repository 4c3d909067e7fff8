"""Takes threads and clocks out of the core, so that a run is the same every time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from random import Random
from types import SimpleNamespace
from unittest import mock

from walrus_core import engine, syncer


class StillFlusher:
    """Stands in for the flusher's thread: remembers that it was woken; the run calls ``tick``."""

    def __init__(self, worker: object, interval_s: float, warn: object) -> None:
        self.is_woken = False

    def wake(self) -> bool:
        """Note it. Returns: whether the thread comes."""
        self.is_woken = True
        return True

    def stop(self, wait: bool) -> None:
        """Nothing runs."""

    def end(self) -> list[BaseException]:
        """Nothing runs, and nothing is interrupted."""
        return []

    def run_last(self, call: Callable[[], None]) -> None:
        """Run it: no work is under way."""
        call()


@contextlib.contextmanager
def determined(random: Random) -> Iterator[None]:
    """Take thread and clock out of the core for the time of a run."""
    now_s = [0.0]

    def monotonic() -> float:
        now_s[0] += random.choice([0.001, 0.06])
        return now_s[0]

    with (
        mock.patch.object(engine, "Flusher", StillFlusher),
        mock.patch.object(syncer, "time", SimpleNamespace(monotonic=monotonic)),
    ):
        yield
