"""Puts one bug into a copy of the library and runs the tests that must notice, in a process of its own.

The copy holds ``walrus_core`` and the plugins as they are in the source tree, and the compiled modules of
the installed library where they are in use. Nothing is changed in the tree itself.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Optional

from attrs import field, frozen

from walrus_core import hot

from .bug import Bug

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("walrus_core", "plugins/walrus_fd/walrus_fd", "plugins/walrus_mmap/walrus_mmap")
TEST_LIMIT_S = 60
RUN_LIMIT_S = 560
NOT_THE_COPY = 99

# Run as a script in the copy, whose folder Python then puts first.
RUN = """\
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

def foreign():
    names = [name for name in sys.modules if name.startswith("walrus_")]
    files = [getattr(sys.modules[name], "__file__", None) for name in names]
    return [file for file in files if file and not Path(file).resolve().is_relative_to(HERE)]

import pytest
import walrus_core, walrus_core.hot, walrus_fd.backend, walrus_mmap.backend

status = NOT_THE_COPY if foreign() else pytest.main(sys.argv[1:])
if foreign():
    print("imported from elsewhere:", *foreign())
    status = NOT_THE_COPY
sys.exit(status)
""".replace("NOT_THE_COPY", str(NOT_THE_COPY))


class BrokenRun(Exception):
    """The tests did not run to an answer, so the bug is neither caught nor missed."""


class Survived(AssertionError):
    """No test failed where one must."""


@frozen
class Outcome:
    """What the tests said of a copy."""

    failed: bool
    passed: tuple[str, ...]
    """Node ids of those that had passed by then; a test that was skipped is none of them."""
    first_failure: str
    output: str = field(repr=False)


def sources() -> Iterator[tuple[Path, str]]:
    """Yield each file of the library in the tree and its path from the root of a copy."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in (".py", ".pyi", ".typed") and path.is_file():
                yield path, path.relative_to((ROOT / package).parent).as_posix()


def place_in_copy(file: str) -> str:
    """Return where a file of the repository is in a copy."""
    package = next(package for package in PACKAGES if file.startswith(f"{package}/"))
    return Path(file).relative_to(Path(package).parent).as_posix()


def seed(text: str, bug: Bug) -> str:
    """Return a source with the bug in it. Raises: ValueError: its text is not there exactly once."""
    count = text.count(bug.before)
    if count != 1:
        raise ValueError(f"{bug.name}: the text to replace stands {count} times in {bug.file}")
    return text.replace(bug.before, bug.after)


@contextmanager
def copied(bug: Optional[Bug]) -> Iterator[Path]:
    """Give a copy of the library, with the bug in it if there is one; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="walrus-mutant-") as folder:
        root = Path(folder)
        for path, place in sources():
            target = root / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        installed = Path(hot.__file__).parent
        for path in installed.iterdir():
            if path.name.endswith(tuple(EXTENSION_SUFFIXES)):
                shutil.copyfile(path, root / "walrus_core" / path.name)
        if bug is not None:
            target = root / place_in_copy(bug.file)
            target.write_text(seed(target.read_text(encoding="utf-8"), bug), encoding="utf-8")
        (root / "run_in_copy.py").write_text(RUN, encoding="utf-8")
        yield root


def run_tests(tests: Sequence[str], bug: Optional[Bug], pure: bool) -> Outcome:
    """Run tests against a copy, up to the first failure.

    Raises: BrokenRun: they could not be run, or something else than the copy was imported.
    """
    with copied(bug) as root, tempfile.TemporaryDirectory(prefix="walrus-mutant-files-") as files:
        command = [sys.executable, str(root / "run_in_copy.py"), *(str(ROOT / test) for test in tests)]
        command += ["-q", "-x", "-rpfE", "--tb=short", "-p", "no:cacheprovider", f"--timeout={TEST_LIMIT_S}"]
        command += [f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}", f"--basetemp={files}/t"]
        # Not in the source tree, which must not stand in front of the copy in a child process either.
        status, output = run_limited(command, files, environment(root, pure))
    if status not in (0, 1):
        raise BrokenRun(f"status {status} of {' '.join(tests)}\n{output[-4000:]}")
    told = []
    for word, test in re.findall(r"^(PASSED|FAILED|ERROR) (\S.*)$", output, re.MULTILINE):
        # Told from the working folder on; one that failed is followed by why.
        path, _, name = test.partition("::")
        told.append((word, f"{os.path.relpath(os.path.join(files, path), ROOT)}::{name}"))
    failures = [test for word, test in told if word != "PASSED"]
    passed = tuple(test for word, test in told if word == "PASSED")
    return Outcome(status == 1, passed, failures[0] if failures else "", output)


def environment(root: Path, pure: bool) -> Mapping[str, str]:
    """Return the environment of a run in the copy: nothing of ours that tests go by."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WALRUS_", "PYTEST_")) and name not in ("PYTHONHOME", "PYTHONSAFEPATH")
    }
    kept["PYTHONPATH"] = str(root)
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    if pure:
        kept["WALRUS_PURE"] = "1"
    return kept


def run_limited(command: Sequence[str], folder: str, env: Mapping[str, str]) -> tuple[int, str]:
    """Run a command in a process group of its own. Returns: its status and what it said.

    Raises: BrokenRun: it took too long, and was ended with all that it had started.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=RUN_LIMIT_S)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise BrokenRun(f"no answer after {RUN_LIMIT_S} s\n{output[-4000:]}") from error
        raise
    return process.returncode, output


_ran: set[tuple[str, bool]] = set()
"""Tests that the unchanged copy has run without a failure, and whether with the pure twin."""
_passed: set[tuple[str, bool]] = set()
"""Those of their node ids that passed: the others were skipped."""


def check_sound(tests: Iterable[str], pure: bool) -> None:
    """Run tests against an unchanged copy, each once.

    Raises: BrokenRun: one fails there, so that its failure proves nothing.
    """
    new = [test for test in dict.fromkeys(tests) if (test, pure) not in _ran]
    if not new:
        return
    found = run_tests(new, None, pure)
    if found.failed:
        raise BrokenRun(f"the unchanged copy fails {found.first_failure}\n{found.output[-4000:]}")
    _ran.update((test, pure) for test in new)
    _passed.update((test, pure) for test in found.passed)


def is_pure(bug: Bug) -> bool:
    """Say whether the copy with this bug runs the pure twin."""
    return bug.pure or not hot.COMPILED


def check_caught(bug: Bug) -> str:
    """Put the bug into a copy, and have a test fail there that passes without it.

    Returns: the failure; "" where none of its tests can run on this machine. Raises: Survived; BrokenRun.
    """
    pure = is_pure(bug)
    check_sound(bug.caught_by, pure)
    if not any(test.startswith(bug.caught_by) for test, was_pure in _passed if was_pure == pure):
        return ""
    found = run_tests(bug.caught_by, bug, pure)
    if not found.failed:
        raise Survived(f"{bug.name}, in {bug.file}: {bug.why}. No test fails of {', '.join(bug.caught_by)}")
    return found.first_failure
