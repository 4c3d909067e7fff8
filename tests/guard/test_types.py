"""What type checkers are told is what there is: stubs name the twins' names, the sample calls everything.

`tox -e consumer` lets mypy and pyright look at the sample against the installed wheels.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

from walrus_core import Walrus, _front_py, _hot_py, group, waiters
from walrus_core.handle import TopicHandle

ROOT = Path(__file__).resolve().parents[2]
CONSUMER = ROOT / "tests/types/consumer.py"
COMPILED_ONLY = {"Stage", "Queue"}
"""Parts of the compiled module that Python code never asks for."""


def stub_names(path: Path) -> set[str]:
    """Return the names that a stub gives away."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found.update(alias.asname for alias in node.names if alias.asname)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize(
    ("stub", "names"),
    [
        ("_hot_c", set(_hot_py.__all__)),
        ("_front_c", {"Express", "Front", "Group", "Loops", "Ready", "Waiters"}),
    ],
)
def test_a_stub_names_what_the_twins_have(stub, names):
    assert stub_names(ROOT / f"walrus_core/{stub}.pyi") - COMPILED_ONLY == names
    # The pure twins of Group and of Waiters are in rooms of their own.
    twins = {"_hot_c": [_hot_py], "_front_c": [_front_py, group, waiters]}[stub]
    assert [name for name in names if not any(hasattr(twin, name) for twin in twins)] == []


@pytest.mark.parametrize("stub", ["_hot_c", "_front_c"])
def test_a_stub_names_what_the_compiled_module_has(stub):
    if importlib.util.find_spec(f"walrus_core.{stub}") is None:
        pytest.skip("the compiled modules are not installed here")
    module = vars(importlib.import_module(f"walrus_core.{stub}"))
    names = {
        name
        for name, value in module.items()
        # Errors are imported to be raised, and are not of these modules.
        if not name.startswith("_") and getattr(value, "__module__", "") != "walrus_core.errors"
    }
    assert stub_names(ROOT / f"walrus_core/{stub}.pyi") == names


@pytest.mark.parametrize("cls", [Walrus, TopicHandle])
def test_the_sample_uses_every_public_name_of(cls):
    tree = ast.parse(CONSUMER.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    public = {name for name in dir(cls) if not name.startswith("_")}
    assert public - used == set(), "call it in tests/types/consumer.py, with the type that comes back"
