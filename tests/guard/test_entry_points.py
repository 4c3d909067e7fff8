"""The installed distributions register the backends as users find them: by entry point."""

from __future__ import annotations

import importlib.metadata
import os

import pytest

EXPECTED = {"fd": "walrus-fd", "mmap": "walrus-mmap"}
# An environment of the matrix says which of them it has, to prove that one goes without the other.
PLUGINS = os.environ.get("WALRUS_EXPECT_PLUGINS", "fd mmap").split()


def installed(name: str) -> list[importlib.metadata.EntryPoint]:
    found = [point for point in importlib.metadata.entry_points(group="walrus") if point.name == name]
    if name not in PLUGINS:
        assert found == []
        pytest.skip(f"WALRUS_EXPECT_PLUGINS says that {EXPECTED[name]} is not installed here")
    if not found and os.environ.get("WALRUS_EXPECT_INSTALLED") != "1":
        pytest.skip(f"{EXPECTED[name]} is not installed here (the tests run from the source tree)")
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_one_distribution_registers_the_backend(name):
    points = installed(name)
    assert [point.dist.name for point in points if point.dist] == [EXPECTED[name]]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_plugin_registers_one_class_of_that_name(name):
    (point,) = installed(name)
    classes = list(point.load().walrus_register_backends())
    assert [cls.name for cls in classes] == [name]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_extra_of_the_core_names_the_plugin(name):
    installed(name)
    required = importlib.metadata.requires("walrus-core") or []
    assert any(line.startswith(EXPECTED[name]) and f'extra == "{name}"' in line for line in required)


@pytest.mark.parametrize("name", EXPECTED)
def test_versions_go_together(name):
    installed(name)
    assert importlib.metadata.version(EXPECTED[name]) == importlib.metadata.version("walrus-core")
