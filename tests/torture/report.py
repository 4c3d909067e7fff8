"""The table of totals, for the terminal and for docs/testing.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .bar import Bar
from .state import State

BEGIN = "<!-- torture: totals -->"
END = "<!-- torture: end -->"


def table(state: State, bars: Iterable[Bar]) -> str:
    """Return the totals of one version as a Markdown table; bars that never ran are left out."""
    lines = [
        f"Version {state.version}:",
        "",
        "| bar | backend | what | of a release | counted | failures | CPU minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for bar in bars:
        done, failed, seconds = state.facts(bar.key)
        if not done and not failed:
            continue
        totals = sorted(state.totals(bar.key).items())
        counted = ", ".join(f"{count:,}".replace(",", " ") + f" {name}" for name, count in totals)
        part = "all" if done >= len(bar.shards()) else f"{done} of {len(bar.shards())} shards"
        cells = [bar.name, bar.backend, bar.title, part, counted, str(failed), f"{seconds / 60:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_docs(page: Path, text: str) -> None:
    """Put ``text`` between the markers of a page. Raises: ValueError: they are not there."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no markers {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
