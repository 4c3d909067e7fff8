"""Rounds: every contender of a work once a round, in turns, in one process tree on one directory.

A first round warms up and is not counted. Each round another contender goes first, so that what a
neighbour leaves behind hits all alike. Files are removed after each sample, outside its time; what
of them was not written back yet is then never written.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Optional

from attrs import define, field, frozen

from benchmarks.available import missing
from benchmarks.children import PURE, Child
from benchmarks.model import Contender, Place, Sample, Scale, Work
from walrus_core import hot
from walrus_core.cli.machine import file_system

PURE_ROUNDS_MAX = 2
WARM_CHUNK_BYTES = 2**20

Tell = Callable[[str], None]


@frozen(kw_only=True)
class LeftOut:
    """A contender or a whole work that did not run, and why. ``failed``: it tried."""

    work: str
    contender: Optional[str]
    reason: str
    failed: bool = False


@define(kw_only=True)
class WorkResult:
    """The samples of a work by contender, in the order of the rounds."""

    work: Work
    samples: dict[str, list[Sample]] = field(factory=dict)


@define(kw_only=True)
class Suite:
    """One run of some works. ``directory`` exists; everything happens in a new one inside it."""

    works: Sequence[Work]
    scale: Scale
    rounds: int
    directory: Path
    tell: Tell
    only: Sequence[str] = ()
    """Names of contenders; empty for all."""
    with_pure: bool = True
    left_out: list[LeftOut] = field(factory=list)
    _failed: set[tuple[str, str]] = field(factory=set)
    _pure: Optional[Child] = None

    def run(self) -> list[WorkResult]:
        """Run all works. Raises: OSError: the directory takes no files."""
        results = []
        gc.collect()
        gc.freeze()  # what the libraries have loaded is not looked through again during the works
        with ExitStack() as stack:
            stack.callback(gc.unfreeze)
            base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=self.directory)))
            for work in self.works:
                if work.full_only and not self.scale.full:
                    self.left_out.append(LeftOut(work=work.name, contender=None, reason="needs --full"))
                    continue
                contenders = [one for one in work.contenders if self._can_run(work, one)]
                if hot.COMPILED and self._pure is None and any(one.pure for one in contenders):
                    self._pure = stack.enter_context(Child(**PURE))
                os.sync()  # what was written before is not written back during this
                results.append(self._run_work(work, contenders, base / work.name))
        self._pure = None
        return results

    def _can_run(self, work: Work, contender: Contender) -> bool:
        """Tell whether a contender takes part; note the reason where something is missing."""
        if self.only and contender.name not in self.only:
            return False
        if contender.pure and not self.with_pure:
            return False
        reason = next((why for need in contender.needs if (why := missing(need)) is not None), None)
        if reason is not None:
            self.left_out.append(LeftOut(work=work.name, contender=contender.name, reason=reason))
        return reason is None

    def _run_work(self, work: Work, contenders: Sequence[Contender], base: Path) -> WorkResult:
        """Prepare all, warm up, run the rounds, and leave nothing in ``base``."""
        samples: dict[str, list[Sample]] = {}
        try:
            with ExitStack() as stack:
                running = self._prepare(work, contenders, base, stack)
                for number in self._rounds_of(work):
                    for at in range(len(running)):
                        contender, place = running[(at + number) % len(running)]
                        is_out = (work.name, contender.name) in self._failed
                        if is_out or (contender.pure and number > PURE_ROUNDS_MAX):
                            continue
                        self.tell(f"{work.name}: round {number}, {contender.name}")
                        sample = self._attempt(work, contender, self._sample, place)
                        if number and sample is not None:
                            samples.setdefault(contender.name, []).append(sample)
        finally:
            shutil.rmtree(base, ignore_errors=True)
        kept = {name: found for name, found in samples.items() if (work.name, name) not in self._failed}
        return WorkResult(work=work, samples=kept)

    def _rounds_of(self, work: Work) -> range:
        """Return the numbers of the rounds; number 0 warms up and is not counted."""
        if work.rounds_max is not None:
            return range(1, min(self.rounds, work.rounds_max) + 1)
        return range(self.rounds + 1)

    def _prepare(
        self, work: Work, contenders: Sequence[Contender], base: Path, stack: ExitStack
    ) -> list[tuple[Contender, Place]]:
        """Return the contenders that are ready, each with its place. ``stack`` closes what they keep."""
        ready = []
        for number, contender in enumerate(contenders):
            self.tell(f"{work.name}: prepare {contender.name}")
            path = base / str(number)
            path.mkdir(parents=True)
            place = Place(path=path, scale=self.scale, slowness=contender.slowness, stack=stack)
            self._attempt(work, contender, _prepare, place)
            if (work.name, contender.name) not in self._failed:
                ready.append((contender, place))
        return ready

    def _attempt(
        self,
        work: Work,
        contender: Contender,
        act: Callable[[Work, Contender, Place], Optional[Sample]],
        place: Place,
    ) -> Optional[Sample]:
        """Do something for a contender. What it raises is noted, it is out of the work, the others go on."""
        try:
            return act(work, contender, place)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            out = LeftOut(work=work.name, contender=contender.name, reason=reason, failed=True)
            self.left_out.append(out)
            self._failed.add((work.name, contender.name))
            return None

    def _sample(self, work: Work, contender: Contender, place: Place) -> Sample:
        if self._pure is None or not contender.pure:
            gc.collect()
            return contender.run(place)
        answer = self._pure.ask(
            "round",
            {
                "work": work.name,
                "contender": contender.name,
                "path": str(place.path),
                "factor": self.scale.factor,
                "full": self.scale.full,
                "slowness": contender.slowness,
            },
        )
        return Sample(**answer)


def _prepare(_work: Work, contender: Contender, place: Place) -> None:
    if contender.prepare is not None:
        contender.prepare(place)


def warm_memory(directory: Path, size_bytes: int) -> int:
    """Write a file and remove it, so that the pages that the works will use have been used before.

    A virtual machine gets memory from its host when it touches it for the first time, which takes
    longer than most of what is measured. Takes at most a quarter of the free disk. Returns: bytes.
    """
    wanted = min(size_bytes, file_system(str(directory)).free_bytes // 4)
    chunk = bytes(WARM_CHUNK_BYTES)
    done = 0
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        while done < wanted:
            done += file.write(chunk)
    return done
