"""Every public name is in docs/api.md, and has something to say."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import walrus_core
from walrus_core import hookspecs

ROOT = Path(__file__).resolve().parents[2]
API = (ROOT / "docs/api.md").read_text(encoding="utf-8")
CLASSES = re.findall(r"^\.\. autoclass:: (\S+)$", API, re.MULTILINE)
MODULES = re.findall(r"^\.\. automodule:: (\S+)$", API, re.MULTILINE)
FOR_PLUGINS = {"walrus_core.backend", "walrus_core.errors", "walrus_core.hookspecs", "walrus_core.types"}


def load(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def public(module_name: str) -> dict[str, Any]:
    """Return the public classes and functions of a module: those in ``__all__``, else those made in it."""
    module = importlib.import_module(module_name)
    names = getattr(module, "__all__", None)
    found = {name: getattr(module, name) for name in names or vars(module) if not name.startswith("_")}
    return {
        name: value
        for name, value in found.items()
        if callable(value) and (names or getattr(value, "__module__", "") == module_name)
    }


def undocumented(name: str, value: Any) -> list[str]:
    """Return what of a class or function, its public methods included, has no docstring of its own."""
    found = [] if inspect.getdoc(value) else [name]
    if inspect.isclass(value) and value.__module__.startswith("walrus"):
        for attribute, member in vars(value).items():
            is_method = inspect.isroutine(member) or isinstance(member, (property, classmethod, staticmethod))
            if not attribute.startswith("_") and is_method and not inspect.getdoc(getattr(value, attribute)):
                found.append(f"{name}.{attribute}")
    return found


def test_what_the_package_gives_away_is_there():
    documented = {load(name) for name in CLASSES} | {value for m in MODULES for value in public(m).values()}
    names = [name for name in walrus_core.__all__ if not name.startswith("__")]
    assert [name for name in names if getattr(walrus_core, name) not in documented] == []


def test_what_plugins_may_import_is_there():
    assert FOR_PLUGINS - set(MODULES) == set()


@pytest.mark.parametrize("name", [*CLASSES, *MODULES])
def test_everything_says_what_it_is(name):
    if name in CLASSES:
        assert undocumented(name, load(name)) == []
        return
    found = public(name)
    assert found
    assert [line for key, value in found.items() for line in undocumented(f"{name}.{key}", value)] == []


def test_every_hook_is_described_with_its_arguments():
    hooks = {name: value for name, value in vars(hookspecs).items() if name.startswith("walrus_")}
    assert len(hooks) >= 8
    assert [name for name, hook in hooks.items() if not inspect.getdoc(hook)] == []
