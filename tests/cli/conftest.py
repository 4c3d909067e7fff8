"""The command line as a function, and as a process of its own; data with odd lines."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from walrus_core.cli.app import commands

SMALL_BLOCKS = "block_size = 16384\nblocks_per_segment = 4\n"
ENTRY_BYTES_MAX = 4 * 16384 - 4096 - 32
KEPT_VARIABLES = {"WALRUS_PURE", "WALRUS_TEST_SEED"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine decides which log a test opens, nor how."""
    for name in list(os.environ):
        if name.startswith("WALRUS_") and name not in KEPT_VARIABLES:
            monkeypatch.delenv(name)
    monkeypatch.delenv(
        "PYTHONUNBUFFERED", raising=False
    )  # with it, standard output is another kind of stream


@pytest.fixture
def log_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log's directory, named by WALRUS_DATA_DIR; not made yet."""
    directory = tmp_path / "log"
    monkeypatch.setenv("WALRUS_DATA_DIR", str(directory))
    monkeypatch.chdir(tmp_path)
    return directory


@pytest.fixture
def small_blocks(log_dir: Path) -> Path:
    """The log's directory with a walrus.toml: blocks of 16 KiB, four a segment."""
    log_dir.mkdir()
    (log_dir / "walrus.toml").write_text(SMALL_BLOCKS)
    return log_dir


@pytest.fixture
def run(log_dir: Path) -> Callable[..., Result]:
    """``run("read", "t")``: a command in this process. A traceback of it, or its line, fails the test."""

    def invoke(*arguments: object, is_unexpected: bool = False) -> Result:
        result = CliRunner().invoke(commands, [str(argument) for argument in arguments], prog_name="walrus")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.stderr.startswith("walrus: unexpected ") == is_unexpected, result.stderr
        return result

    return invoke


@pytest.fixture
def start(log_dir: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """``start("read", "t")``: a command in a process of its own, its three streams piped."""

    def popen(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # The folder of the test, so that the package is found where this process found it.
        return subprocess.Popen(
            [sys.executable, "-m", "walrus_core.cli", *map(str, arguments)],
            cwd=tmp_path,
            **{**streams, **options},
        )

    return popen


@pytest.fixture
def run_process(start: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., tuple[int, bytes, str]]:
    """As ``start``, to its end: (exit status, standard output, standard error)."""

    def communicate(*arguments: object, **options: Any) -> tuple[int, bytes, str]:
        with start(*arguments, **options) as process:
            out, errors = process.communicate(timeout=60)
        return process.returncode, out, errors.decode()

    return communicate


@pytest.fixture
def odd_bytes() -> Callable[..., bytes]:
    """``odd_bytes(seed, line_count)``: lines of all kinds, the last one without its end."""

    def make(seed: int, line_count: int, ends: bool = False) -> bytes:
        chance = random.Random(seed)
        kinds: list[Callable[[], bytes]] = [
            lambda: b"",
            lambda: b"\r",
            lambda: b"\0" * chance.randrange(5),
            lambda: chance.randbytes(chance.randrange(200)).replace(b"\n", b"\r"),
            lambda: f"2026-01-01 zeile {chance.randrange(10**9)} grün".encode() + b"\r",
            lambda: b"plain line %d" % chance.randrange(10**6),
        ]
        lines = [chance.choice(kinds)() for _ in range(line_count)]
        for _ in range(line_count // 300):  # longer than a block of 16 KiB
            lines[chance.randrange(line_count)] = b"long" * chance.randrange(4000, 12000)
        return b"\n".join(lines) + (b"\n" if ends else b"\nlast line without its end")

    return make
