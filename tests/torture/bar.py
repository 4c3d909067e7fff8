"""What a harness is to the runner: a name, and a function from a seed to counts.

A new harness is a few lines in ``bars.py``::

    Bar("kills", "fd", "child processes killed", run_kill_shard, shard_seeds=1, release_seeds=500)

``run`` does everything that the seed stands for, and raises where a law is broken; the same seed does
the same again. What it counts is its own affair; counts of one bar and backend are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen


class Unable(Exception):
    """This machine cannot run the bar; the message says why. No failure, and nothing was counted."""


def always() -> str:
    """No reason not to run."""
    return ""


@frozen
class Bar:
    """One harness on one backend."""

    name: str
    backend: str
    title: str
    """What it does, for the table."""
    run: Callable[[int], Mapping[str, int]]
    shard_seeds: int
    """Seeds that one process runs: a minute's worth, or so."""
    release_seeds: int
    """Seeds from 0 that a release needs."""
    reason_to_skip: Callable[[], str] = always
    """Why it cannot run here; empty where it can."""

    @property
    def key(self) -> str:
        """The name under which its counts are kept."""
        return f"{self.name}/{self.backend}"

    def shards(self) -> list[range]:
        """Return the seeds of a release, cut into shards."""
        firsts = range(0, self.release_seeds, self.shard_seeds)
        return [range(first, min(first + self.shard_seeds, self.release_seeds)) for first in firsts]
