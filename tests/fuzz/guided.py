"""Coverage-guided runs with atheris, in a process of their own: libFuzzer ends the one it runs in."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from .targets import CORPUS

CHILD = """
import logging, sys
import atheris
logging.disable(logging.CRITICAL)
with atheris.instrument_imports(include=["walrus_core", "tests.fuzz"]):
    from tests.fuzz import targets
name = sys.argv.pop(1)
atheris.Setup(sys.argv, lambda data: targets.try_input(name, data))
atheris.Fuzz()
"""
INPUT_BYTES_MAX = 4096
INPUT_SECONDS_MAX = 20
MEMORY_MIB_MAX = 2048


def run_atheris(target: str, seconds: float, seed: int, keep: str) -> int:
    """Run a target from its corpus on. Returns: the exit status, 0 where nothing was found.

    What is found stands on standard output, the input also in a file of the folder ``keep``.
    """
    if importlib.util.find_spec("atheris") is None:
        print(f"skipped {target}: atheris is not installed (it has wheels for CPython 3.11)", flush=True)
        return 0
    command = [
        sys.executable,
        "-c",
        CHILD,
        target,
        f"-max_total_time={max(1, int(seconds))}",
        f"-seed={seed or 1}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-artifact_prefix={keep}/found-",
        "-print_final_stats=1",
        keep,
        str(CORPUS / target),
    ]
    return subprocess.run(command, cwd=Path(__file__).resolve().parents[2], check=False).returncode
