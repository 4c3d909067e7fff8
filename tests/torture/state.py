"""What was run, kept in a file: shards that are done, what they counted, seeds that failed."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .bar import Bar


class State:
    """The file, and what is in it: by version, then by bar.

    It is replaced as a whole after each shard, so a run can be stopped at any moment.
    """

    def __init__(self, path: Path, version: str) -> None:
        """Read the file, if it is there. ``version`` is that of the code that runs."""
        self.path = path
        self.version = version
        self.versions: dict[str, dict[str, Any]] = {}
        self.load()

    def load(self) -> None:
        """Read the file anew."""
        if self.path.exists():
            self.versions = json.loads(self.path.read_text())

    def _bar(self, key: str) -> dict[str, Any]:
        bars = self.versions.setdefault(self.version, {})
        bar: dict[str, Any] = bars.setdefault(key, {"shards": {}, "failed": {}, "seconds": 0.0})
        return bar

    def is_done(self, bar: Bar, seeds: range) -> bool:
        """Return whether this shard was run by this version, and nothing failed."""
        return name_of(seeds) in self._bar(bar.key)["shards"]

    def done(self, bar: Bar, seeds: range, counts: dict[str, int], seconds: float) -> None:
        """Note a shard."""
        known = self._bar(bar.key)
        known["shards"][name_of(seeds)] = counts
        known["failed"].pop(name_of(seeds), None)
        known["seconds"] += seconds
        self.save()

    def failed(self, bar: Bar, seeds: range, message: str) -> None:
        """Note a failure; the shard is run again next time."""
        self._bar(bar.key)["failed"][name_of(seeds)] = message
        self.save()

    def totals(self, key: str) -> Counter[str]:
        """Return the counts of a bar, added up."""
        total: Counter[str] = Counter()
        for counts in self._bar(key)["shards"].values():
            total.update(counts)
        return total

    def facts(self, key: str) -> tuple[int, int, float]:
        """Return how many shards are done and failed, and the seconds that they took."""
        bar = self._bar(key)
        return len(bar["shards"]), len(bar["failed"]), bar["seconds"]

    @contextmanager
    def kept_by_us(self) -> Iterator[None]:
        """Keep other runs away from the file. Raises: BlockingIOError: one is using it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def save(self) -> None:
        """Replace the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.versions, indent=1, sort_keys=True))
        os.replace(new, self.path)


def name_of(seeds: range) -> str:
    """Return a range of seeds as it is written on the command line."""
    return f"{seeds.start}:{seeds.stop}"
