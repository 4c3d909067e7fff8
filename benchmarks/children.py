"""Child processes of the suite: with the pure twin of the frame code, or with a memory of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

import walrus_core
from benchmarks import ROOT

COMMAND = [sys.executable, "-m", "benchmarks.worker"]
PURE = {"WALRUS_PURE": "1"}


def child_environment(**variables: str) -> dict[str, str]:
    """Return the environment in which a child finds the same walrus_core as this process."""
    environment = {**os.environ, **variables}
    if Path(walrus_core.__file__).resolve().parents[1] == ROOT:
        paths = [str(ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


class Child:
    """A worker that does one task after the other. Use it in a ``with`` block: its end ends the child."""

    def __init__(self, **variables: str) -> None:
        """Start the process with these variables in its environment. Raises: OSError."""
        self._process = subprocess.Popen(
            COMMAND,
            cwd=ROOT,
            env=child_environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, task: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Have a task done (``worker.TASKS``). Returns: its answer.

        Raises: RuntimeError: the task raised, with its message; or the child ended without an answer.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None, "both are pipes"
        stdin.write(json.dumps({"task": task, "arguments": dict(arguments)}) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"the child for {task!r} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def __enter__(self) -> Child:
        """Return the child."""
        return self

    def __exit__(
        self,
        _type: Optional[type[BaseException]],
        error: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        """Close its input, at which it ends; after an exception do not wait for its task."""
        if error is not None:
            self._process.kill()
        self._process.communicate()


def one_task(task: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Have one task done by a child of its own. Raises as ``Child.ask``."""
    with Child() as child:
        return child.ask(task, arguments)
