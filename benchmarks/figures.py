"""From samples to the plain dictionary that is the JSON output; report and chart are made of it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from attrs import asdict

from benchmarks.available import versions
from benchmarks.model import OURS, Bar, Sample, Scale, Work
from benchmarks.suite import Suite, WorkResult
from walrus_core.cli.machine import file_system, machine_facts
from walrus_core.cli.measure import Spread

SCHEMA = 1

Samples = Mapping[str, Sequence[Sample]]
Figures = dict[str, Any]


def all_figures(
    suite: Suite, results: Sequence[WorkResult], *, started: str, seconds: float, warmed_bytes: int
) -> Figures:
    """Return everything that a run has to say.

    Args:
        started: when, as ISO 8601.
        seconds: how long all of it took.
        warmed_bytes: how much memory was used once before the first work.
    """
    return {
        "schema": SCHEMA,
        "started": started,
        "seconds": seconds,
        "machine": machine_facts(),
        "file_system": asdict(file_system(str(suite.directory))),
        "versions": versions(),
        "run": {
            "rounds": suite.rounds,
            "factor": suite.scale.factor,
            "full": suite.scale.full,
            "warmed_bytes": warmed_bytes,
        },
        "works": [work_figures(result, suite.scale) for result in results],
        "left_out": [asdict(out) for out in suite.left_out],
    }


def work_figures(result: WorkResult, scale: Scale) -> Figures:
    """Return the figures of one work."""
    work = result.work
    ours = {one.name for one in work.contenders if one.group == OURS}
    named = [bar.against for bar in work.bars if bar.against is not None and bar.against not in ours]
    references = list(dict.fromkeys([*named, *work.references]))
    return {
        "name": work.name,
        "title": work.title,
        "unit": work.unit,
        "note": work.note,
        "references": references,
        "contenders": [
            contender_figures(work, one.name, one.group, result.samples, references)
            for one in work.contenders
            if result.samples.get(one.name)
        ],
        "bars": [bar_figures(bar, result.samples, scale) for bar in work.bars],
    }


def contender_figures(
    work: Work, name: str, group: str, samples: Samples, references: Sequence[str]
) -> Figures:
    """Return the figures of one contender: spread, its rounds, ratios to the references, other facts."""
    own = samples[name]
    ratios = {
        reference: asdict(ratio_spread(own, samples[reference]))
        for reference in references
        if samples.get(reference)
    }
    return {
        "name": name,
        "group": group,
        **asdict(Spread.of(sample.value for sample in own)),
        "rounds": [sample.value for sample in own],
        "seconds": Spread.of(sample.seconds for sample in own).median,
        "entries": own[0].count,
        "ratios": ratios,
        "facts": {fact: max(sample.facts[fact] for sample in own) for fact in own[0].facts},
    }


def ratio_spread(own: Sequence[Sample], other: Sequence[Sample]) -> Spread:
    """Return the ratios of the rounds: each of a pair that ran within the same moments."""
    return Spread.of(mine.value / theirs.value for mine, theirs in zip(own, other, strict=False))


def bar_figures(bar: Bar, samples: Samples, scale: Scale) -> Figures:
    """Return a bar with what was measured, and whether that meets it.

    None: it was not measured, or with fewer entries or smaller sizes than the bar is stated for.
    """
    measured = _measured(bar, samples)
    met: Optional[bool] = None
    is_stated = scale.factor >= 1 and (scale.full or not bar.full_only)
    if measured is not None and is_stated:
        if bar.at_least is not None:
            met = measured.median >= bar.at_least
        else:
            assert bar.at_most is not None, "a bar has one of the two"
            met = measured.median <= bar.at_most
    return {**asdict(bar), "measured": None if measured is None else asdict(measured), "met": met}


def _measured(bar: Bar, samples: Samples) -> Optional[Spread]:
    own = samples.get(bar.ours)
    if not own:
        return None
    if bar.fact is not None:
        return Spread.of(sample.facts[bar.fact] for sample in own)
    if bar.against is None:
        return Spread.of(sample.value for sample in own)
    other = samples.get(bar.against)
    return ratio_spread(own, other) if other else None
