"""What the suite is made of: works, contenders, bars; and what a round gives: samples."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Optional

from attrs import define, field, frozen

OURS = "ours"
DATABASE = "database"
LIMIT = "limit"
"""Groups of contenders: this project; other libraries; what the machine itself can do."""

PER_SECOND = "entries/s"
MIB_PER_SECOND = "MiB/s"
MILLISECONDS = "ms"


@frozen(kw_only=True)
class Sample:
    """One contender in one round: its figure, how long it ran, and other facts it met by name."""

    value: float
    seconds: float
    count: int
    facts: Mapping[str, float] = field(factory=dict)


def rate(count: int, seconds: float) -> Sample:
    """Return the sample of ``count`` entries in ``seconds``."""
    return Sample(value=count / seconds, seconds=seconds, count=count)


def bandwidth(count: int, entry_bytes: int, seconds: float) -> Sample:
    """Return the sample of ``count`` entries in ``seconds``, as MiB of payload a second."""
    return Sample(value=count * entry_bytes / seconds / 2**20, seconds=seconds, count=count)


@frozen(kw_only=True)
class Scale:
    """How much a run does: ``factor`` of the counts, and whether the large works are done in full."""

    factor: float = 1.0
    full: bool = False

    def count(self, whole: int, at_least: int = 1) -> int:
        """Return the share of a count."""
        return max(round(whole * self.factor), at_least)


@define(kw_only=True)
class Place:
    """Where one contender of one work lives through all rounds: a directory, and what it keeps open."""

    path: Path
    scale: Scale
    slowness: int = 1
    kept: dict[str, Any] = field(factory=dict)
    stack: ExitStack = field(factory=ExitStack)
    _numbers: Iterator[int] = field(factory=itertools.count)

    def count(self, whole: int, step: int = 1) -> int:
        """Return how many of ``whole`` this contender does, in whole steps: slow ones do fewer."""
        return max(round(whole * self.scale.factor / self.slowness / step), 1) * step

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """Give an empty directory that is gone afterwards, and with it what nobody wrote back yet."""
        directory = self.path / f"fresh-{next(self._numbers)}"
        directory.mkdir(parents=True)
        try:
            yield directory
        finally:
            shutil.rmtree(directory)


Run = Callable[[Place], Sample]


@frozen(kw_only=True)
class Contender:
    """One way to do a work. ``slowness``: it does so many times fewer entries (rates stay rates).

    ``prepare`` runs once before the rounds. ``needs`` names what must be there (``available.py``).
    """

    name: str
    group: str
    run: Run
    slowness: int = 1
    needs: Sequence[str] = ()
    prepare: Optional[Callable[[Place], None]] = None
    pure: bool = False
    """Runs in a child process with the pure twin of the frame code, in fewer rounds."""


@frozen(kw_only=True)
class Bar:
    """What a contender is to reach: a ratio to another one, or a limit of its own figure or fact.

    Exactly one of ``at_least`` and ``at_most``. ``fact``: a fact of the samples instead of the
    figure. ``full_only``: stated for the sizes of a full run.
    """

    ours: str
    against: Optional[str] = None
    at_least: Optional[float] = None
    at_most: Optional[float] = None
    fact: Optional[str] = None
    full_only: bool = False


@frozen(kw_only=True)
class Work:
    """One row of the table: what is done, by whom, in what unit, and what is to be reached."""

    name: str
    title: str
    unit: str
    contenders: Sequence[Contender]
    bars: Sequence[Bar] = ()
    references: Sequence[str] = ()
    """Contenders to which the report gives ratios, besides those that bars name."""
    note: str = ""
    full_only: bool = False
    rounds_max: Optional[int] = None
    """Where one round is long enough to say something: no more rounds than this, and none to warm up."""

    @property
    def higher_is_better(self) -> bool:
        """True for rates, False for times."""
        return self.unit != MILLISECONDS
