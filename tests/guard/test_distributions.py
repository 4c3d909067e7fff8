"""The distributions of this repository agree: one version, one licence, ranges that fit each other."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


def metadata(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


VERSION = metadata(ROOT)["project"]["version"]
every_distribution = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
every_plugin = pytest.mark.parametrize("folder", FOLDERS[1:], ids=lambda folder: folder.name)


def ours(folder: Path) -> list[str]:
    """Return what a distribution requires of the others here, extras included."""
    project = metadata(folder)["project"]
    extras = project.get("optional-dependencies", {}).values()
    lines = [*project.get("dependencies", []), *(line for extra in extras for line in extra)]
    return [line for line in lines if line.startswith("walrus-")]


def test_plugins_are_found():
    assert {folder.name for folder in FOLDERS[1:]} >= {"walrus_fd", "walrus_mmap"}


@every_distribution
def test_one_version(folder):
    assert metadata(folder)["project"]["version"] == VERSION


def test_the_module_says_the_same_version():
    text = (ROOT / "walrus_core/__init__.py").read_text(encoding="utf-8")
    assert re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE) == [VERSION]
    tools = metadata(ROOT)["tool"]
    assert (tools["bumpversion"]["current_version"], tools["towncrier"]["version"]) == (VERSION, VERSION)


@every_distribution
def test_what_they_require_of_each_other_is_this_minor_release(folder):
    # ~=0.1.3 is at least 0.1.3 and below 0.2.
    assert [line for line in ours(folder) if not line.endswith(f"~={VERSION}")] == []


@every_plugin
def test_a_plugin_requires_the_core_and_the_core_has_an_extra_of_it(folder):
    name = metadata(folder)["project"]["name"]
    assert f"walrus-core~={VERSION}" in ours(folder)
    assert metadata(ROOT)["project"]["optional-dependencies"][name.removeprefix("walrus-")] == [
        f"{name}~={VERSION}"
    ]


@every_plugin
def test_one_licence(folder):
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@every_distribution
def test_what_every_distribution_says_of_itself(folder):
    project = metadata(folder)["project"]
    assert project["license-files"] == ["LICENSE"]
    assert project["readme"] == "README.md"
    assert project["requires-python"] == metadata(ROOT)["project"]["requires-python"]
    assert "Typing :: Typed" in project["classifiers"]
    # What was built in place, or is left over, must not get into a wheel.
    assert metadata(folder)["tool"]["setuptools"]["include-package-data"] is False
    packages = metadata(folder)["tool"]["setuptools"]["packages"]
    assert sorted(packages) == sorted(
        ".".join(path.parent.relative_to(folder).parts)
        for path in (folder / packages[0]).rglob("__init__.py")
    )
    assert (folder / packages[0] / "py.typed").is_file()
    assert "py.typed" in metadata(folder)["tool"]["setuptools"]["package-data"][packages[0]]
