"""What tests of plugins share: distributions that are only pretended."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint

import pytest

from walrus_core import plugins
from walrus_core.hookspecs import hookimpl


class Distribution:
    """As much of an installed distribution as an entry point knows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = "1.0"
        self.metadata = {"Name": name, "Version": "1.0"}


@pytest.fixture
def install(monkeypatch):
    """A function that installs pretended plugins, and only those: ``install(name=..., module=...)``."""
    points: list[EntryPoint] = []

    def entry_points(*, group):
        return [point for point in points if point.group == group]

    monkeypatch.setattr(plugins, "entry_points", entry_points)

    def add(name, classes=(), *, distribution=None, module=None, group="walrus"):
        target = f"pretended_{name}_{len(points)}".replace("-", "_")
        if module is None:
            module = types.ModuleType(target)

            @hookimpl
            def walrus_register_backends():
                return list(classes)

            module.walrus_register_backends = walrus_register_backends
        if not isinstance(module, Exception):
            monkeypatch.setitem(sys.modules, target, module)
        point = EntryPoint(name=name, value=target, group=group)
        points.append(point._for(Distribution(distribution or f"walrus-{name}")))
        return target

    return add
