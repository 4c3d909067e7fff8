"""The other side of ``disk``: start it, mount what is on it, and rebuild what a crash may leave."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple, Optional

import pytest

from .children import environment
from .machine import make_file_system, need_root, need_tool, new_point, run_or_skip, unmount

IMAGE_BYTES = 20 << 20
SECTOR_BYTES = 512
REQUEST_KIB = 64
"""A request of the file system is at most this, and so is one write of the disk. FUSE splits larger ones;
where the disk refuses a later part, the loop device takes the shorter write for all of it: no error."""


def need_fuse() -> None:
    """Skip the test, by name, where no FUSE file system can be served."""
    need_root()
    need_tool("mount", "losetup", "mkfs.ext4")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this system has no /dev/fuse")
    need_tool("fusermount3")
    try:
        importlib.import_module("mfusepy")
    except ImportError:
        pytest.skip("mfusepy is not installed: pip install 'walrus-core[torture]'")
    except OSError as error:
        pytest.skip(f"mfusepy does not work here: {error}")


class Request(NamedTuple):
    """One line of the journal: a write, or with ``data`` None a flush."""

    end_bytes: int
    """The journal's size once it was noted."""
    at_bytes: int
    data: Optional[bytes]


def read_journal(path: Path) -> list[Request]:
    """Return everything that the disk was asked to do, in order."""
    header_bytes = 13
    text = path.read_bytes()
    found = []
    at = 0
    while at + header_bytes <= len(text):
        kind = text[at : at + 1]
        position = int.from_bytes(text[at + 1 : at + 9], "little")
        length = int.from_bytes(text[at + 9 : at + 13], "little")
        at += header_bytes
        data = text[at : at + length] if kind == b"W" else None
        at += length
        assert kind in (b"W", b"F") and at <= len(text), "the journal is not one"
        found.append(Request(at, position, data))
    return found


class Recorder:
    """A running disk with a file system on it, mounted at ``point``."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "base.img"
        self.journal = folder / "journal"
        self._control = folder / "control"
        self.set_mode("ok")
        self.journal.touch()
        make_file_system("ext4", self.image, IMAGE_BYTES)
        self.disk_point = new_point(folder)
        self.point = new_point(folder)
        self._errors = os.memfd_create("errors")
        self.process = self._start()
        self.device = ""
        self._usual_limit: Optional[tuple[Path, str]] = None

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = [self.disk_point, self.image, self.journal, self._control]
        program = str(Path(__file__).with_name("disk.py"))
        process = subprocess.Popen(
            [sys.executable, program, *map(str, arguments)],
            env=environment(),
            cwd=tempfile.gettempdir(),
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        for _ in range(2000):
            if (self.disk_point / "disk").exists():
                return process
            if process.poll() is not None:
                problems = os.pread(self._errors, 1 << 20, 0).decode()
                pytest.skip(f"FUSE does not work here: {problems[-300:]}")
            time.sleep(0.005)
        process.kill()
        raise AssertionError("the disk does not come up")

    def mount(self) -> None:
        """Mount the file system on the disk, past the cache of the loop device's own file."""
        command = ["losetup", "--find", "--show", "--direct-io=on", str(self.disk_point / "disk")]
        self.device = run_or_skip(*command, why="no loop device can be had")
        self._limit_requests()
        run_or_skip("mount", self.device, str(self.point), why="a loop device cannot be mounted here")
        # From now on the device goes with its last user.
        subprocess.run(["losetup", "--detach", self.device], capture_output=True, check=False)

    def _limit_requests(self) -> None:
        limit = Path("/sys/block", Path(self.device).name, "queue/max_sectors_kb")
        try:
            self._usual_limit = (limit, limit.read_text())
            limit.write_text(str(REQUEST_KIB))
        except OSError as error:
            pytest.skip(f"the requests of a loop device cannot be limited: {error}")

    def _restore_requests(self) -> None:
        """Leave the loop device as it was; others use it later."""
        if self._usual_limit is not None:
            limit, kib = self._usual_limit
            self._usual_limit = None
            limit.write_text(kib)

    def unmount(self) -> None:
        """Unmount the file system; the disk stays."""
        self._restore_requests()
        unmount(self.point)

    def data_ranges(self, folder: Path) -> list[int]:
        """Return where on the disk the bytes of the files in a folder lie: first, end, first, end, ..."""
        need_tool("filefrag")
        listing = subprocess.run(
            ["filefrag", "-e", "-v", "-b4096", *map(str, folder.iterdir())], capture_output=True, text=True
        )
        found = []
        for line in listing.stdout.splitlines():
            fields = line.replace("..", " ").replace(":", " ").split()
            if fields and fields[0].isdigit():
                found += [int(fields[3]) * 4096, (int(fields[4]) + 1) * 4096]
        return found

    def set_mode(self, mode: str) -> None:
        """Tell the disk how to answer from now on; in one step, it reads at any moment."""
        new = self._control.with_suffix(".new")
        new.write_text(mode)
        new.replace(self._control)

    def stop(self) -> None:
        """Take everything down, whatever state it is in."""
        self.set_mode("ok")
        self._restore_requests()
        for point in (self.point, self.disk_point):
            subprocess.run(["umount", "--lazy", str(point)], capture_output=True, check=False)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._errors)


@contextlib.contextmanager
def recorder(folder: Path) -> Iterator[Recorder]:
    """A mounted recorder that is taken down at the end."""
    need_fuse()
    made = Recorder(folder)
    try:
        made.mount()
        yield made
    finally:
        made.stop()


class States:
    """What the disk may hold after a crash, in the order of the requests; time only goes on."""

    def __init__(self, base: Path, requests: list[Request]) -> None:
        self._flushed = bytearray(base.read_bytes())
        self._requests = requests
        self._done = 0
        self._cached: list[Request] = []
        """Writes since the last flush: each of them may be there or not."""

    def advance(self, count: int) -> int:
        """Go on to where ``count`` requests were made. Returns: the journal's size there."""
        for request in self._requests[self._done : count]:
            if request.data is not None:
                self._cached.append(request)
                continue
            for write in self._cached:
                self._apply(self._flushed, write)
            self._cached.clear()
        self._done = max(self._done, count)
        return self._requests[self._done - 1].end_bytes if self._done else 0

    @staticmethod
    def _apply(image: bytearray, write: Request) -> None:
        assert write.data is not None
        image[write.at_bytes : write.at_bytes + len(write.data)] = write.data

    def draw(self, random: Random) -> tuple[str, bytearray]:
        """Return a disk that a crash may leave now, and how it was drawn."""
        image = bytearray(self._flushed)
        how = random.choice(["all", "none", "each by chance", "each by chance", "torn", "one is missing"])
        chosen = list(self._cached)
        if how == "none":
            chosen = []
        elif how != "all" and chosen:
            if how == "one is missing":
                del chosen[random.randrange(len(chosen))]
            else:
                chosen = [write for write in chosen if random.random() < 0.5]
            random.shuffle(chosen)
        for write in chosen:
            self._apply(image, self._tear(random, write) if how == "torn" else write)
        return f"{how}, {len(chosen)} of {len(self._cached)} cached writes", image

    @staticmethod
    def _tear(random: Random, write: Request) -> Request:
        """Keep a run of whole sectors of a write."""
        assert write.data is not None
        sectors = len(write.data) // SECTOR_BYTES
        first = random.randint(0, sectors)
        last = random.randint(first, sectors)
        data = write.data[first * SECTOR_BYTES : last * SECTOR_BYTES]
        return Request(write.end_bytes, write.at_bytes + first * SECTOR_BYTES, data)
