"""What a user gets: the README in new environments, with and without a compiler, from built packages alone.

    python .ci/fresh.py [--keep]

Builds the distributions, gathers what they depend on, and then makes one new environment after the other
in which pip may take nothing but those files. In each, the README's commands (blocks of `sh`) and code
(blocks of `python`) run; then walrus-fd is taken away, and what is left must work and say what is missing.
Ends with a table, and with an error where a line of it is not as it should be.

It needs a C compiler itself, for the wheel that the machine without one gets.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NEEDED = (
    "attrs>=22.2",
    "pluggy>=1.2",
    "tomli>=2.0",
    "click>=8.1",
    "rich>=13",
    "setuptools>=77",
    "cython>=3.0",
    "wheel",
)
# All that a machine without a compiler has of the commands of a system.
TOOLS = "sh bash env cat cp ls mkdir rm head sort uname printf"


class Machine(NamedTuple):
    """One kind of machine: which files pip finds there, whether it has a compiler, what must come of it."""

    name: str
    files: tuple[str, ...]
    has_compiler: bool
    is_compiled: bool


MACHINES = (
    Machine("no compiler, wheel of this platform", ("*.whl",), False, True),
    Machine("no compiler, pure wheel", ("walrus_*-py3-none-any.whl",), False, False),
    Machine("compiler, sdists", ("walrus_*.tar.gz",), True, True),
    Machine("no compiler, sdists", ("walrus_*.tar.gz",), False, False),
)


class Failed(Exception):
    """A step did not go as it should."""


class Environment:
    """A new virtual environment, in which pip finds the given files and nothing else."""

    def __init__(self, folder: Path, machine: Machine, built: Path, dependencies: Path) -> None:
        self.folder, self.machine = folder, machine
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        offered = folder / "offered"
        offered.mkdir(parents=True)
        for pattern in machine.files:
            for path in built.glob(pattern):
                shutil.copy(path, offered)
        self.work = folder / "work"
        self.work.mkdir()
        path = f"{self.bin}{os.pathsep}{os.environ['PATH'] if machine.has_compiler else self._tools()}"
        self.environment = {
            "PATH": path,
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_FIND_LINKS": f"{offered} {dependencies}",
        }
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)

    def _tools(self) -> str:
        tools = self.folder / "tools"
        tools.mkdir()
        for name in TOOLS.split():
            found = shutil.which(name)
            if found:
                (tools / name).symlink_to(found)
        return str(tools)

    def run(self, *command: str, status: int = 0) -> str:
        """Run a command there, return what it says; another exit status than this one is a failure."""
        done = subprocess.run(
            command,
            cwd=self.work,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != status:
            raise Failed(f"{' '.join(command)[:300]}\nended with {done.returncode}\n{done.stdout[-3000:]}")
        return done.stdout

    def python(self, code: str) -> str:
        """Run Python code there."""
        return self.run(str(self.bin / "python"), "-I", "-c", code).strip()


def blocks(path: Path, kind: str) -> list[str]:
    """Return the blocks of one kind in a page."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def try_machine(machine: Machine, folder: Path, built: Path, dependencies: Path) -> dict[str, str]:
    """Do all that a user would on one machine; return the line of the table."""
    started = time.monotonic()
    there = Environment(folder, machine, built, dependencies)
    shutil.copy(ROOT / "README.md", there.work)
    commands, programs = blocks(ROOT / "README.md", "sh"), blocks(ROOT / "README.md", "python")
    if not commands or not programs or not any("pip install" in block for block in commands):
        raise Failed("README.md has no blocks of sh that install and use the packages, or none of python")
    for block in commands:
        there.run("bash", "-euc", block)
    for block in programs:
        there.python(block)
    compiled = there.python("from walrus_core import hot; print(hot.COMPILED)") == "True"
    if compiled != machine.is_compiled:
        raise Failed(f"the {'compiled' if compiled else 'pure'} module runs, which is not what was expected")
    versions = there.python(
        "from importlib.metadata import version\n"
        "print(', '.join(sorted({version(f'walrus-{name}') for name in ('core', 'fd', 'mmap')})))"
    )
    # Its exit status depends on more than that, such as how many files a process may open here.
    doctor = there.python(
        "import subprocess\n"
        "print(subprocess.run(['walrus', 'doctor'], capture_output=True, text=True).stdout)"
    )
    if ("the frame code is pure Python" in doctor) == compiled:
        raise Failed(f"walrus doctor does not say that the frame code is pure, or wrongly says so:\n{doctor}")

    there.run("pip", "uninstall", "--yes", "walrus-fd")
    there.run("walrus", "ingest", "--data-dir", "alone", "--topic", "lines", "README.md")
    if there.run("walrus", "read", "--data-dir", "alone", "lines") != (ROOT / "README.md").read_text(
        encoding="utf-8"
    ):
        raise Failed("what was read back through mmap is not what was ingested")
    if '"chosen": "mmap"' not in there.run("walrus", "backends", "--json"):
        raise Failed("without walrus-fd the backend is not mmap")
    told = there.run("walrus", "stats", "--backend", "fd", status=5).strip()
    if "pip install walrus-fd" not in told:
        raise Failed(f"the message does not say what to install: {told}")
    return {
        "machine": machine.name,
        "frame code": "compiled" if compiled else "pure",
        "README": f"{len(commands)} + {len(programs)} blocks",
        "without walrus-fd": told.partition(": ")[2],
        "version": versions,
        "seconds": f"{time.monotonic() - started:.0f}",
    }


def gather(folder: Path) -> tuple[Path, Path]:
    """Build the distributions and download what they depend on; return both folders."""
    tools, built, dependencies = folder / "tools", folder / "built", folder / "dependencies"
    subprocess.run([sys.executable, "-m", "venv", str(tools)], check=True)
    python = str(tools / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "build", "filelock"], check=True)
    subprocess.run([*pip, "wheel", "--wheel-dir", str(dependencies), *NEEDED], check=True)
    subprocess.run([python, str(ROOT / ".ci/artifacts.py"), "build", "--into", str(built)], check=True)
    return built, dependencies


def show(lines: list[dict[str, str]]) -> None:
    """Print the table."""
    names = list(lines[0])
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in names}
    for line in [{name: name for name in names}, {name: "-" * widths[name] for name in names}, *lines]:
        print("  ".join(line[name].ljust(widths[name]) for name in names).rstrip())


def main() -> None:
    """Try every machine; say which failed and how."""
    folder = Path(tempfile.mkdtemp(prefix="fresh-"))
    lines, failures = [], []
    try:
        built, dependencies = gather(folder)
        for number, machine in enumerate(MACHINES):
            try:
                lines.append(try_machine(machine, folder / f"machine-{number}", built, dependencies))
            except Failed as error:
                failures.append(f"{machine.name}: {error}")
    finally:
        if "--keep" in sys.argv[1:]:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if lines:
        show(lines)
    if failures:
        sys.exit("\n\n".join(["", *failures, f"{len(failures)} of {len(MACHINES)} machines failed"]))
    print(f"{len(lines)} machines, all as they should be")


if __name__ == "__main__":
    main()
