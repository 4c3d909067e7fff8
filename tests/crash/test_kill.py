"""SIGKILL at random acknowledged lines, for real: nothing that was acknowledged is lost or doubled.

A child copies files into a log and is killed over and over, not by a timer but after a random
number of acknowledged appends, while it is inside the next ones; each new child goes on where
``next_offset`` says. In the end every file must be there byte for byte.
"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from walrus_core import hot
from walrus_core.testing import judge

from .ingest import lines_of, open_log

HERE = Path(__file__).parent
KILLS_MIN = 24 if hot.COMPILED else 5
LINES_MAX = 600
"""Of one file; all of them together are less than a pipe holds."""
AHEAD = 4
"""So many appends the child may do beyond the line at which it is killed."""
MODULES = {"fd": "walrus_fd", "mmap": "walrus_mmap"}

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


def need(*backends: str) -> None:
    for name in backends:
        if importlib.util.find_spec(MODULES[name]) is None:
            pytest.skip(f"walrus-{name} is not installed")


def odd_file(random: Random, line_count: int) -> bytes:
    """Return lines of all kinds: empty, long, binary, with carriage returns; the last without an end."""
    lines = []
    for number in range(line_count):
        kind = random.random()
        if kind < 0.1:
            lines.append(b"")
        elif kind < 0.2:
            lines.append(random.randbytes(random.randint(1, 300)).replace(b"\n", b"\0"))
        elif kind < 0.22:
            lines.append(bytes(random.randint(1, 9000)))
        elif kind < 0.3:
            lines.append(f"żółw {number} €\r".encode())
        else:
            lines.append(b"%d " % number + bytes(random.choices(range(32, 127), k=random.randint(0, 120))))
    return b"\n".join(lines) + b"\nno end of line"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Ten files of odd bytes."""
    random = Random("files to ingest")
    folder = tmp_path / "files"
    folder.mkdir()
    paths = [folder / f"file{number}.log" for number in range(10)]
    for path in paths:
        path.write_bytes(odd_file(random, random.randint(300, LINES_MAX)))
    return paths


class Child:
    """One run of ``ingest.py``, which gets leave for one append at a time."""

    def __init__(self, directory: Path, backend: str, schedule: str, threads: int, files: list[Path]) -> None:
        command = [sys.executable, str(HERE / "ingest.py"), str(directory), backend, schedule, str(threads)]
        self.process = subprocess.Popen(
            [*command, *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def allow(self, count: int) -> None:
        """Let the child do ``count`` appends more."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"." * count)
        self.process.stdin.flush()

    def line(self) -> list[str]:
        """Return the words of the next line, none at the end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().split()

    def end(self) -> str:
        """Wait for the end. Returns: what it wrote to standard error."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
        stderr = self.process.stderr
        assert stderr is not None
        text = stderr.read().decode()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, stderr):
            stream.close()
        return text


class Ingestion:
    """Children one after the other on one directory, and what they acknowledged."""

    def __init__(self, directory: Path, files: list[Path], random: Random) -> None:
        self.directory = directory
        self.files = files
        self.random = random
        self.acknowledged = {path.name: 0 for path in files}
        self.kill_count = 0

    def run_child(self, backend: str, schedule: str, threads: int, kills: bool) -> bool:
        """Run one child, to its end or to its death. Returns: whether the files are complete."""
        child = Child(self.directory, backend, schedule, threads, self.files)
        for _ in self.files:
            words = child.line()
            assert words[:1] == ["at"], child.end()
            found, least = int(words[2]), self.acknowledged[words[1]]
            assert found >= least, f"{words[1]} goes to {found}, {least} were acknowledged"
            self.acknowledged[words[1]] = found
        left = self.random.randint(1, 20) if kills else sys.maxsize
        child.allow(left + AHEAD if kills else LINES_MAX * len(self.files))
        while left:
            words = child.line()
            if words[:1] != ["ack"]:
                assert words == ["done"], child.end()
                assert child.end() == ""
                assert child.process.returncode == 0
                return True
            self.acknowledged[words[1]] = int(words[2])
            left -= 1
        child.process.kill()
        child.end()
        assert child.process.returncode == -signal.SIGKILL
        self.kill_count += 1
        return False

    def check(self, backend: str) -> None:
        """Compare the log with the files, byte for byte, each line once."""
        with open_log(str(self.directory), backend, "interval") as wal:
            assert wal.topics() == sorted(path.name for path in self.files)
            for path in self.files:
                entries = [(entry.offset, entry.data) for entry in wal.topic(path.name)]
                findings = judge(path.name, lines_of(path), entries)
                assert not findings, f"{path.name}: {'; '.join(map(str, findings[:5]))}"
                content = b"".join(data for _offset, data in entries)
                assert content == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("backends", "schedule", "threads"),
    [
        (["fd"], "interval", 1),
        (["mmap"], "interval", 1),
        (["fd", "mmap"], "never", 1),
        (["fd"], "each", 4),
        (["mmap"], "each", 4),
    ],
    ids=["fd", "mmap", "fd and mmap in turn", "fd, sync-each, 4 threads", "mmap, sync-each, 4 threads"],
)
def test_kill_and_continue(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    files: list[Path],
    backends: list[str],
    schedule: str,
    threads: int,
) -> None:
    need(*backends)
    ingestion = Ingestion(tmp_path / "log", files, Random(request.node.name))
    for number in range(1000):
        kills = ingestion.kill_count < KILLS_MIN
        if ingestion.run_child(backends[number % len(backends)], schedule, threads, kills):
            break
    assert ingestion.kill_count >= KILLS_MIN, "the files are too small for so many kills"
    for backend in MODULES:
        if importlib.util.find_spec(MODULES[backend]) is not None:
            ingestion.check(backend)
