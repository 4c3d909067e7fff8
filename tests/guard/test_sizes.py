"""No file and no function so long that nobody reads it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60


def sources() -> list[Path]:
    folders = [ROOT / "walrus_core", ROOT / "plugins"]
    ours = [p for folder in folders for p in folder.rglob("*.py*") if p.suffix in (".py", ".pyx")]
    ours += (ROOT / "walrus_core").glob("*.pxi")
    return sorted(p for p in ours if "build" not in p.relative_to(ROOT).parts)


def python_functions(text: str) -> dict[str, int]:
    """Return the length in lines of each function, docstring included, decorators not."""
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found[f"{node.name}:{node.lineno}"] = (node.end_lineno or node.lineno) - node.lineno + 1
    return found


def cython_functions(text: str) -> dict[str, int]:
    """Return the same for a Cython source, told by indentation."""
    lines = text.splitlines()
    found = {}
    for number, line in enumerate(lines):
        start = re.match(r"(\s*)(?:async\s+)?(?:def|cdef|cpdef)\b[^=:]*?\b(\w+)\(", line)
        if not start or re.match(r"\s*cdef\s+(extern|class|struct|enum)\b", line):
            continue
        last = number
        in_signature = not re.search(r":\s*(#.*)?$", line)
        for below in range(number + 1, len(lines)):
            text_below = lines[below]
            if in_signature:
                in_signature = not re.search(r":\s*(#.*)?$", text_below)
            elif text_below.strip() and len(text_below) - len(text_below.lstrip()) <= len(start[1]):
                break
            if text_below.strip():
                last = below
        found[f"{start[2]}:{number + 1}"] = last - number + 1
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_is_not_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_functions_are_not_too_long(path):
    text = path.read_text(encoding="utf-8")
    lengths = cython_functions(text) if path.suffix in (".pyx", ".pxi") else python_functions(text)
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES_MAX} == {}


def test_lengths_are_counted():
    python = "def short():\n    return 1\n\n\ndef long():\n" + "    x = 1\n" * 60
    assert python_functions(python) == {"short:1": 2, "long:5": 61}
    cython = (
        "cdef class Tail:\n    cdef int at\n\n"
        "    cdef inline int seek(\n        self, int at\n    ) except -1:\n"
        + "        x = 1\n" * 60
        + "\n    def next(self):\n        return 1\n\ncdef int total = count(3)\n"
    )
    assert cython_functions(cython) == {"seek:4": 63, "next:68": 2}
