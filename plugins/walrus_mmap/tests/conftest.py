"""Fixtures: the backend as this system has it, and with everything taken away that only POSIX has."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from walrus_mmap.backend import MmapBackend


def make_portable(delete, put):
    """Take away what Windows lacks; ``delete(owner, name)`` and ``put(owner, name, value)`` do it."""
    import mmap
    import os
    import sys

    from walrus_mmap import file, system

    missing = "posix_fallocate pread pwrite preadv pwritev fdatasync posix_fadvise fchmod SEEK_DATA SEEK_HOLE"
    for name in [*missing.split(), "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC"]:
        if hasattr(os, name):
            delete(os, name)
    if hasattr(mmap, "MADV_DONTNEED"):
        delete(mmap, "MADV_DONTNEED")
    sys.modules["fcntl"] = None
    put(system, "_fallocate", lambda: None)
    put(file, "GROWTH_NEEDS_NO_MAP", True)


@pytest.fixture(params=["native", "portable"])
def system_kind(request, monkeypatch):
    """Which calls the operating system has in this test."""
    if request.param == "native" and "WALRUS_PORTABLE" in os.environ:
        pytest.skip("the calls of this system were taken away: the portable half runs")
    if request.param == "portable":
        monkeypatch.setitem(sys.modules, "fcntl", None)
        make_portable(monkeypatch.delattr, monkeypatch.setattr)
    return request.param


@pytest.fixture
def needs(system_kind):
    """Return a function that skips the portable half of a test of a call which that does without."""

    def check(call):
        if system_kind == "portable":
            pytest.skip(f"this system (as pretended) has no {call}")

    return check


@pytest.fixture
def backend(system_kind):
    return MmapBackend()


@pytest.fixture
def make_file(backend, tmp_path):
    """Return a function that creates files, and close them at the end."""
    files = []

    def make(size_bytes, name="file"):
        file = backend.create(str(tmp_path / name), size_bytes=size_bytes)
        files.append(file)
        return file

    yield make
    for file in files:
        file.close()


@pytest.fixture
def run_child(system_kind):
    """Return a function that runs code in a process of its own, where a signal is only a bad status.

    The code finds ``backend``, ``errno``, ``os`` and its arguments in ``arguments``.
    """

    def run(code, *arguments):
        lines = ["import errno, os, sys", "from walrus_mmap.backend import MmapBackend"]
        if system_kind == "portable":
            lines += [inspect.getsource(make_portable), "make_portable(delattr, setattr)"]
        lines += ["backend, arguments = MmapBackend(), sys.argv[1:]", inspect.cleandoc(code)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "error", "-c", "\n".join(lines), *map(str, arguments)]
        # Not in this folder: the source tree must not stand in front of what is installed.
        done = subprocess.run(
            command, env=environment, cwd=tempfile.gettempdir(), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"status {done.returncode}\n{done.stderr}"
        return done.stdout

    return run


def mount_or_skip(*command):
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.fixture
def mounted(tmp_path):
    """Return a function that mounts a small file system of a kind and returns its path."""
    mounts: list[Path] = []

    def mount(kind, size_bytes):
        point = tmp_path / "mounted"
        point.mkdir()
        if kind == "tmpfs":
            mount_or_skip("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(point))
        else:
            block_bytes = kind.removeprefix("ext4-")
            if shutil.which("mkfs.ext4") is None:
                pytest.skip("mkfs.ext4 is not installed")
            image = tmp_path / "image"
            with image.open("wb") as sink:
                sink.truncate(size_bytes)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-b", block_bytes, str(image)], check=True)
            mount_or_skip("mount", "-o", "loop", str(image), str(point))
        mounts.append(point)
        return point

    yield mount
    for point in mounts:
        subprocess.run(["umount", str(point)], check=True)


def fill_up(directory):
    """Write to a file of its own until the file system is full; return that file."""
    path = Path(directory) / "filler"
    with path.open("wb", buffering=0) as sink:
        length_bytes = 1 << 20
        while length_bytes >= 256:
            try:
                sink.write(bytes([1]) * length_bytes)
            except OSError:
                length_bytes //= 2
    return path


@pytest.fixture(name="fill_up")
def fill_up_fixture():
    return fill_up
