"""A compile that fails: required it is an error, else a loud word and a wheel that says what it is."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(
        "WALRUS_ARTIFACTS" not in os.environ, reason="WALRUS_ARTIFACTS is not set: `tox -e packages` sets it"
    ),
    pytest.mark.skipif(os.name != "posix", reason="CC is not looked at by the compiler of this system"),
]


@pytest.fixture
def build(tmp_path):
    """Return a function that builds the core's wheel from the sdist with compilers that are no compilers."""

    def build(**environment: str) -> tuple[int, str, list[Path]]:
        (sdist,) = Path(os.environ["WALRUS_ARTIFACTS"]).glob("walrus_core-*.tar.gz")
        command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-cache-dir"]
        done = subprocess.run(
            [*command, "--wheel-dir", str(tmp_path), str(sdist)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr, list(tmp_path.glob("*.whl"))

    return build


@pytest.fixture
def second_fails(tmp_path):
    """A compiler that makes the first module and not the second."""
    script = tmp_path / "cc"
    script.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        "  *-c*_front_c.c*) exit 1 ;;\n"
        '  *-c*) while [ $# -gt 1 ]; do [ "$1" = -o ] && : >"$2"; shift; done ;;\n'
        '  *) while [ $# -gt 1 ]; do [ "$1" = -o ] && : >"$2"; shift; done ;;\nesac\n'
    )
    script.chmod(0o755)
    return str(script)


def test_required_it_is_an_error(build):
    status, _, made = build(CC="false", WALRUS_REQUIRE_EXT="1")
    assert status != 0
    assert made == []


def test_else_the_wheel_is_pure_and_says_so(build):
    status, text, (wheel,) = build(CC="false")
    assert status == 0
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "WARNING: walrus-core could not be compiled" in text


def test_one_module_alone_is_none(build, second_fails):
    status, text, (wheel,) = build(CC=second_fails)
    assert status == 0
    assert "WARNING: walrus-core could not be compiled" in text
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if name.endswith(".so")] == []
    assert wheel.name.endswith("-py3-none-any.whl")


def test_both_switches_contradict_each_other(build):
    status, text, made = build(WALRUS_REQUIRE_EXT="1", WALRUS_DISABLE_EXT="1")
    assert status != 0
    assert made == []
    assert "contradict each other" in text
