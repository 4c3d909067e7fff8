"""Who may import whom: every module of the core has a rank and imports only lower ones.

A new module must be given a rank here; a wrong arrow is a design decision to be made, not to
be slipped in. Imports inside functions and under TYPE_CHECKING count like any other.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A package in PACKAGES is one room: its modules share its rank and may import each other.
PACKAGES = {"walrus_core._pure", "walrus_core.cli", "walrus_core.testing"}
RANKS = {
    "walrus_core.errors": 0,
    "walrus_core.format": 0,
    "walrus_core.config": 1,
    "walrus_core.types": 1,
    "walrus_core._hot_c": 2,
    "walrus_core._pure": 1,
    "walrus_core._hot_py": 2,
    "walrus_core._front_c": 3,
    "walrus_core._front_py": 4,
    "walrus_core.front": 5,
    "walrus_core.group": 5,
    "walrus_core.waiters": 5,
    "walrus_core.backend": 2,
    "walrus_core.hookspecs": 2,
    "walrus_core.events": 3,
    "walrus_core.gate": 3,
    "walrus_core.hot": 3,
    "walrus_core.lock": 3,
    "walrus_core.memory": 3,
    "walrus_core.paths": 3,
    "walrus_core.files": 4,
    "walrus_core.flusher": 4,
    "walrus_core.lifetime": 4,
    "walrus_core.pages": 4,
    "walrus_core.plugins": 4,
    "walrus_core.cursorfile": 5,
    "walrus_core.segment": 5,
    "walrus_core.allocator": 6,
    "walrus_core.awaiting": 6,
    "walrus_core.block": 6,
    "walrus_core.scan": 7,
    "walrus_core.chain": 8,
    "walrus_core.runway": 7,
    "walrus_core.syncer": 7,
    "walrus_core.inventory": 9,
    "walrus_core.topic": 8,
    "walrus_core.batch": 9,
    "walrus_core.reader": 9,
    "walrus_core.recovery": 10,
    "walrus_core.cursor": 10,
    "walrus_core.reclaim": 11,
    "walrus_core.engine": 12,
    "walrus_core.facts": 13,
    "walrus_core.reading": 14,
    "walrus_core.walrus": 15,
    "walrus_core.builder": 16,
    "walrus_core.handle": 16,
    "walrus_core.overlay": 3,
    "walrus_core.findings": 2,
    "walrus_core.copies": 7,
    "walrus_core.mend": 10,
    "walrus_core.look": 10,
    "walrus_core.verify": 11,
    "walrus_core.livecheck": 12,
    "walrus_core.repair": 12,
    "walrus_core": 17,
    "walrus_core.cli": 18,
    # On top: the library never imports what breaks it.
    "walrus_core.testing": 18,
}
# Arrows against the order, each with its reason.
EXCEPTIONS = {
    ("walrus_core._hot_c", "walrus_core.hot"): "a pickled entry names the room that picks the twin",
    ("walrus_core._pure", "walrus_core.hot"): "the same",
    ("walrus_core.walrus", "walrus_core.builder"): "Walrus.builder() is the front door; imported when called",
    ("walrus_core.walrus", "walrus_core.handle"): "Walrus.topic() hands it out; imported when called",
}

PLUGINS = {"walrus_fd", "walrus_mmap", "walrus_prometheus"}
SEAMS = {"walrus_core.backend", "walrus_core.errors", "walrus_core.hookspecs", "walrus_core.types"}


def module_name(path: Path, root: Path) -> str:
    parts = list(path.relative_to(root).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def room(module: str) -> str:
    """Return the name under which a module stands in the table."""
    for package in PACKAGES:
        if module == package or module.startswith(package + "."):
            return package
    return module


def is_module(name: str) -> bool:
    if name in RANKS:
        return True
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or any(path.with_suffix(suffix).exists() for suffix in (".py", ".pyx"))


def from_targets(base: str, names: list[str]) -> set[str]:
    """Return what ``from base import names`` imports: the submodules named, else base itself."""
    return {f"{base}.{name}" if is_module(f"{base}.{name}") else base for name in names}


def python_imports(text: str, package: str) -> set[str]:
    """Return the modules a Python source imports; ``package`` resolves relative imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            found |= from_targets(base, [alias.name for alias in node.names])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.add(node.args[0].value)
    return found


def cython_imports(text: str) -> set[str]:
    """Return the modules a Cython source imports or cimports (absolute ones, the only ones allowed)."""
    found: set[str] = set()
    for line in text.splitlines():
        if match := re.match(r"\s*from\s+(\S+)\s+c?import\s+(.+)", line):
            names = [part.split()[0] for part in match[2].strip("() ").split(",") if part.strip("() ")]
            found |= from_targets(match[1], names or [""])
        elif match := re.match(r"\s*c?import\s+(\S+)", line):
            found.add(match[1])
    return found


def imports(path: Path, root: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".pyx":
        return cython_imports(text)
    module = module_name(path, root)
    return python_imports(text, module if path.name == "__init__.py" else module.rpartition(".")[0])


def core_sources() -> list[Path]:
    return sorted(p for p in (ROOT / "walrus_core").rglob("*.py*") if p.suffix in (".py", ".pyx"))


def plugin_sources() -> list[tuple[str, Path]]:
    return [(name, p) for name in sorted(PLUGINS) for p in (ROOT / "plugins" / name / name).rglob("*.py")]


def upward(module: str, targets: set[str]) -> list[str]:
    """Return the imports of one module that break the order."""
    here = room(module)
    wrong = []
    for target in sorted(targets):
        there = room(target)
        if not there.startswith("walrus_core") or there == here or (here, there) in EXCEPTIONS:
            continue
        if RANKS.get(there, -1) >= RANKS.get(here, -1):
            wrong.append(f"{module} (rank {RANKS.get(here)}) imports {there} (rank {RANKS.get(there)})")
    return wrong


def test_every_core_module_has_a_rank():
    rooms = {room(module_name(path, ROOT)) for path in core_sources()}
    assert rooms - RANKS.keys() == set(), "give these modules a rank in tests/guard/test_ranks.py"


def test_no_rank_is_left_over():
    rooms = {room(module_name(path, ROOT)) for path in core_sources()}
    assert RANKS.keys() - rooms == set(), "these modules are gone: take them out of the table"


@pytest.mark.parametrize("path", core_sources(), ids=lambda path: module_name(path, ROOT))
def test_core_imports_only_lower_ranks(path):
    assert upward(module_name(path, ROOT), imports(path, ROOT)) == []


@pytest.mark.parametrize("path", core_sources(), ids=lambda path: module_name(path, ROOT))
def test_core_never_imports_a_plugin(path):
    assert {target.split(".")[0] for target in imports(path, ROOT)} & PLUGINS == set()


@pytest.mark.parametrize(
    ("plugin", "path"), plugin_sources(), ids=lambda value: getattr(value, "stem", value)
)
def test_plugins_import_only_the_seams(plugin, path):
    of_core = {target for target in imports(path, path.parents[1]) if target.split(".")[0] == "walrus_core"}
    assert of_core - SEAMS == set()
    assert {target.split(".")[0] for target in imports(path, path.parents[1])} & (PLUGINS - {plugin}) == set()


def test_an_upward_import_is_seen():
    text = (
        "def late():\n    from walrus_core import recovery\n"
        "import importlib\nimportlib.import_module('walrus_core.cli.main')\n"
        "from . import walrus\nfrom .errors import WalrusError\n"
    )
    found = python_imports(text, "walrus_core")
    assert {
        "walrus_core.recovery",
        "walrus_core.cli.main",
        "walrus_core.walrus",
        "walrus_core.errors",
    } <= found
    assert len(upward("walrus_core.topic", found)) == 3


def test_an_upward_cimport_is_seen():
    text = (
        "from libc.string cimport memcpy\n"
        "from walrus_core.topic cimport Topic\n"
        "import walrus_core.segment as segment\n"
    )
    assert cython_imports(text) >= {"walrus_core.topic", "walrus_core.segment"}
    assert len(upward("walrus_core._hot_c", cython_imports(text))) == 2
