"""The table of seeded bugs in docs/testing.md."""

from __future__ import annotations

from pathlib import Path

from .bug import Bug
from .bugs import BUGS

BEGIN = "<!-- seeded bugs: table -->"
END = "<!-- seeded bugs: end -->"


def short(test: str) -> str:
    """Return a test as the page names it: without what every path has in common."""
    path, _, name = test.partition("::")
    path = path.removeprefix("tests/").removesuffix(".py").removeprefix("plugins/")
    return f"`{path}::{name}`" if name else f"`{path}`"


def row(bug: Bug) -> str:
    tests = ", ".join(short(test) for test in bug.caught_by)
    return f"| {bug.name} | `{bug.room}` | {bug.why} | {tests} |"


def table() -> str:
    """Return the table as Markdown."""
    lines = ["| bug | room | what is wrong with it | caught by |", "|---|---|---|---|"]
    return "\n".join([*lines, *(row(bug) for bug in BUGS)])


def written(page: Path) -> str:
    """Return the table that the page has."""
    return page.read_text(encoding="utf-8").partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]


def write(page: Path) -> None:
    """Put the table between its two marks. Raises: ValueError: the page has no marks."""
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page} has no place for the table")
    head, rest = text.split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")
