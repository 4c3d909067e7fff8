"""Every block of code in the pages is what it says it is: Python runs, shell and the rest can be read.

The blocks of a page run one after the other in one namespace, in an empty folder. The commands of the
README run in `.ci/fresh.py`, on machines that have nothing yet.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

markdown_it = pytest.importorskip(
    "markdown_it", reason="markdown-it-py is not installed (it comes with rich)"
)

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"python", "sh", "bash", "console", "toml", "json", "text"}


def pages() -> list[Path]:
    found = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/decisions").glob("*.md")]
    return sorted([*found, *ROOT.glob("plugins/*/README.md")])


def blocks(path: Path) -> list[tuple[str, int, str]]:
    """Return (kind, line, text) of each block of a page; directives of the page builder are none."""
    found = []
    for token in markdown_it.MarkdownIt().parse(path.read_text(encoding="utf-8")):
        if token.type == "fence" and not token.info.startswith("{"):
            found.append((token.info.strip(), token.map[0] + 1, token.content))
        assert token.type != "code_block", f"line {token.map[0] + 1}: an indented block says no kind"
    return found


every_page = pytest.mark.parametrize("path", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())


@every_page
def test_every_block_says_its_kind(path):
    assert [(kind, line) for kind, line, _ in blocks(path) if kind.partition(" ")[0] not in KINDS] == []


@every_page
def test_python_runs(path, tmp_path, monkeypatch):
    texts = [(line, text) for kind, line, text in blocks(path) if kind == "python"]
    if not texts:
        pytest.skip("no Python in this page")
    if path.parent.parent.name == "plugins":
        pytest.importorskip(path.parent.name, reason=f"{path.parent.name} is not installed here")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, text in texts:
        # Padded, so that a traceback names the line of the page.
        exec(compile("\n" * line + text, str(path), "exec"), namespace)


@every_page
def test_the_rest_can_be_read(path):
    for kind, line, text in blocks(path):
        if kind in ("sh", "bash"):
            done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
            assert done.returncode == 0, f"line {line}: {done.stderr}"
        elif kind == "toml":
            tomllib.loads(text)
        elif kind == "json":
            json.loads(text)


def test_the_readme_has_code_that_runs():
    assert [kind for kind, _, _ in blocks(ROOT / "README.md")].count("python") >= 1
