"""The run tests what it says it tests: the compiled or the pure twin, installed or from the tree.

A build that quietly fell back to the pure twin, or a path that quietly put the source tree
before the installed wheel, passes every other test.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from walrus_core import hot

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = Path(hot.__file__).resolve().parent
INSTALLED_ONLY = pytest.mark.skipif(
    os.environ.get("WALRUS_EXPECT_INSTALLED") != "1",
    reason="WALRUS_EXPECT_INSTALLED is not 1: this run may use the source tree",
)


def test_the_expected_twin_runs():
    expected = os.environ.get("WALRUS_EXPECT_EXT")
    if expected is None:
        pytest.skip("WALRUS_EXPECT_EXT is not set: this run takes whichever twin there is")
    assert (expected == "1") == hot.COMPILED


def test_io_uring_is_there_or_not_as_expected():
    expected = os.environ.get("WALRUS_EXPECT_URING")
    if expected is None or sys.platform != "linux":
        pytest.skip("WALRUS_EXPECT_URING is not set, or this is no Linux: with or without liburing")
    assert (importlib.util.find_spec("liburing") is not None) == (expected == "1")


@INSTALLED_ONLY
def test_the_installed_package_runs_not_the_source_tree():
    assert INSTALLED != ROOT / "walrus_core"


@INSTALLED_ONLY
def test_the_wheel_holds_the_modules_of_the_tree_and_no_others():
    def modules(folder: Path) -> set[str]:
        found = (p for p in folder.rglob("*") if p.suffix in (".py", ".pyi") or p.name == "py.typed")
        return {p.relative_to(folder).as_posix() for p in found}

    # A module too many comes from an old build folder: remove build/ and install again. One too
    # few: name its package in pyproject.toml.
    assert modules(INSTALLED) == modules(ROOT / "walrus_core")


@INSTALLED_ONLY
def test_the_wheel_holds_no_sources_of_the_compiled_module():
    assert [p.name for p in INSTALLED.rglob("*") if p.suffix in (".c", ".pyx", ".pxd", ".pxi")] == []
