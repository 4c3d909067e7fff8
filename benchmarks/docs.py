"""Writes the report and the chart into the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.chart import PANELS, draw
from benchmarks.report import markdown

BEGIN = "<!-- figures: begin, written by `python -m benchmarks --write-docs` -->"
END = "<!-- figures: end -->"
PAGE = "benchmarks.md"
CHART = "benchmarks.svg"


def write_docs(figures: dict[str, Any], folder: Path) -> None:
    """Replace what stands between the markers of the page, and the chart beside it.

    Raises: ValueError: the page has no markers, or figures of no work that the chart shows;
    nothing was changed. OSError.
    """
    if not PANELS.keys() & {work["name"] for work in figures["works"]}:
        raise ValueError(f"the chart needs at least one of the works {', '.join(PANELS)}")
    page = folder / PAGE
    old = page.read_text(encoding="utf-8")
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise ValueError(f"{page} needs the lines {BEGIN!r} and {END!r}, each once and in this order")
    before, after = old[: old.index(BEGIN)], old[old.index(END) :]
    image = f"![Entries per second of walrus and other libraries]({CHART})"
    (folder / CHART).write_text(draw(figures), encoding="utf-8")
    page.write_text(f"{before}{BEGIN}\n{image}\n\n{markdown(figures)}{after}", encoding="utf-8")
