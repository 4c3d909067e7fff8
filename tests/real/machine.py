"""File systems of our own: small images on loop devices, tmpfs, and how their power is cut.

Mount points are named after this process, so that what a killed run left behind can be told from
what a run beside this one is using.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PREFIX = "walrus-real-"
_FS_IOC_SHUTDOWN = 0x8004587D
"""_IOR('X', 125, __u32), of ext4, XFS and f2fs."""
_NO_LOG_FLUSH = 2
"""Even the file system's own journal loses what it had not written: as when the power goes."""
SIZES_BYTES = {"ext4": 256 << 20, "xfs": 320 << 20}
_numbers = itertools.count()


def need_root() -> None:
    """Skip the test, by name, where file systems cannot be mounted."""
    if not sys.platform.startswith("linux"):
        pytest.skip("loop devices and mounts are of Linux")
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")


def need_tool(*names: str) -> None:
    """Skip the test where a program is not installed."""
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def run_or_skip(*command: str, why: str) -> str:
    """Run a command that this machine may not allow; returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{why}: {done.stderr.strip()}")
    return done.stdout.strip()


def new_point(folder: Path) -> Path:
    """Return a new folder to mount something on."""
    point = folder / f"{PREFIX}{os.getpid()}-{next(_numbers)}"
    point.mkdir()
    return point


def unmount(point: Path) -> None:
    """Unmount; a moment of somebody else's use (an indexer, a scan) is waited for."""
    for _ in range(50):
        done = subprocess.run(["umount", str(point)], capture_output=True, text=True)
        if not done.returncode:
            return
        if "busy" not in done.stderr:
            break
        time.sleep(0.02)
    raise AssertionError(f"umount {point}: {done.stderr.strip()}")


def mounts() -> list[str]:
    """Return what is mounted and named as ``new_point`` does, newest first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        points = [line.split()[4] for line in lines]
    return [point for point in reversed(points) if os.path.basename(point).startswith(PREFIX)]


def owner_of(point: str) -> int:
    """Return the process that made a mount point."""
    return int(os.path.basename(point).removeprefix(PREFIX).split("-")[0])


def clean_stale() -> None:
    """Unmount what processes that are gone left mounted; loop devices go with the mounts."""
    for point in mounts():
        if not os.path.exists(f"/proc/{owner_of(point)}"):
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)


def clean_own() -> None:
    """Unmount what this process still has mounted, whatever keeps it busy."""
    for point in mounts():
        if owner_of(point) == os.getpid():
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)


def make_file_system(kind: str, image: Path, size_bytes: int) -> None:
    """Make a file system of this kind in a new sparse file."""
    with image.open("wb") as sink:
        sink.truncate(size_bytes)
    if kind == "ext4":
        # Nothing is reserved for root and nothing left to a thread that goes on after the mount.
        options = ["-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
    else:
        options = ["-q", "-f"]
    run_or_skip(f"mkfs.{kind}", *options, str(image), why=f"mkfs.{kind} does not work here")


class Volume:
    """A file system in an image, mounted on a loop device, of which the power can be cut."""

    def __init__(self, kind: str, folder: Path) -> None:
        need_root()
        need_tool("mount", f"mkfs.{kind}")
        self.image = folder / f"{kind}.img"
        make_file_system(kind, self.image, SIZES_BYTES[kind])
        self.point = new_point(folder)
        self.mount()

    def mount(self) -> None:
        """Mount it; after a cut that replays the journal of the file system."""
        command = ["mount", "-o", "loop", str(self.image), str(self.point)]
        run_or_skip(*command, why="a loop device cannot be mounted here")

    def cut(self) -> int:
        """Cut the power now. Returns: when that began (monotonic, nanoseconds)."""
        descriptor = os.open(self.point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            now_ns = time.monotonic_ns()
            fcntl.ioctl(descriptor, _FS_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)
        return now_ns

    def restart(self) -> None:
        """The power is back: everything cached is gone."""
        unmount(self.point)
        self.mount()


@contextlib.contextmanager
def volume(kind: str, folder: Path) -> Iterator[Volume]:
    """A volume that is unmounted at the end."""
    made = Volume(kind, folder)
    try:
        yield made
    finally:
        subprocess.run(["umount", "--lazy", str(made.point)], capture_output=True, check=False)
