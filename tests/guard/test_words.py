"""Words this project does not use; docs/glossary.md says which ones it uses instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("walrus_core", "plugins", "tests", "docs", "benchmarks", ".ci")
SUFFIXES = {".py", ".pyx", ".pxd", ".pxi", ".pyi", ".md", ".toml", ".ini", ".in", ".sh", ".yml", ".yaml"}
SCRIPTS = {"quickstart", "check", "run"}

# Written in pieces so that this file passes its own test. The verb ("recorded") is fine; the
# noun stands for four different things in four well-known logs, so here it stands for none.
NOUN = "rec" + "ord"
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "X" + "XX")
# Names of other people's interfaces that hold the noun.
FOREIGN = (f"Log{NOUN.capitalize()}", f"caplog.{NOUN}s", f"{NOUN}_property", f"catch_warnings({NOUN}=True)")
# The one page that must name the banned noun in order to ban it.
MAY_NAME_IT = {
    "docs/glossary.md",
    "tests/packages/test_artifacts.py",
}  # the second: a file of that name in wheels


def texts() -> list[Path]:
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    found = []
    for path in [*ROOT.iterdir(), *below]:
        parts = path.relative_to(ROOT).parts
        built = {"build", "__pycache__", ".pytest_cache", ".tox", "golden"} & set(parts)
        if not built and path.is_file() and (path.suffix in SUFFIXES or path.name in SCRIPTS):
            found.append(path)
    return sorted(found)


def parts_of_words(line: str) -> set[str]:
    """Return the lower-case parts of all words and identifiers: snake_case and CamelCase are split."""
    for name in FOREIGN:
        line = line.replace(name, " ")
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", line)}


def lines_with_noun(text: str) -> list[int]:
    banned = {NOUN, NOUN + "s"}
    return [n for n, line in enumerate(text.splitlines(), 1) if parts_of_words(line) & banned]


def lines_unfinished(text: str) -> list[int]:
    pattern = re.compile(r"\b(" + "|".join(UNFINISHED) + r")\b")
    return [n for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)]


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_words(path):
    text = path.read_text(encoding="utf-8")
    assert lines_unfinished(text) == [], "finish it, or write an issue"
    if path.relative_to(ROOT).as_posix() not in MAY_NAME_IT:
        assert lines_with_noun(text) == [], "say entry, frame or page"


def test_banned_words_are_seen():
    bad = [
        f"next_{NOUN}",
        f"{NOUN.capitalize()}Reader",
        f"the {NOUN}s",
        f"{NOUN.upper()}_SIZE",
        f"read{NOUN.capitalize()}",
    ]
    assert lines_with_noun("\n".join(bad)) == [1, 2, 3, 4, 5]
    assert lines_with_noun(f"{NOUN}ed, a {NOUN}ing, caplog.{NOUN}s") == []
    assert lines_unfinished("# " + UNFINISHED[0] + ": later") == [1]
