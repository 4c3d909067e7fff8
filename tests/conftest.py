"""Stores: log directories on every backend, which tests open, break, kill and open again."""

from __future__ import annotations

import copy
import gc
import importlib
import importlib.util
import inspect
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

import pytest

from walrus_core import Walrus
from walrus_core.memory import MemoryBackend, MemoryStore

BACKENDS = {"fd": ("walrus_fd.backend", "FdBackend"), "mmap": ("walrus_mmap.backend", "MmapBackend")}
KINDS = ("memory", *BACKENDS)
SMALL = {"block_size": 16384, "blocks_per_segment": 4}
ENVIRONMENT = ("WALRUS_DATA_DIR", "WALRUS_INSTANCE_KEY", "WALRUS_BACKEND", "WALRUS_QUIET")


def load_helper(name: str) -> ModuleType:
    """Make a file beside this one importable by its bare name, without a folder on sys.path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


load_helper("helpers")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Inherited from a shell that started this in the background. Tests interrupt, also their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def backend_class(kind: str) -> type[Any]:
    """Return the class of a backend that keeps files; skips the test where it is not installed."""
    module, name = BACKENDS[kind]
    try:
        found: type[Any] = getattr(importlib.import_module(module), name)
    except ImportError as error:
        pytest.skip(f"backend {kind} is not installed here: {error}")
    return found


class Store:
    """A log directory on one backend that outlives the logs opened on it."""

    def __init__(self, kind: str, path: str, memory: Optional[MemoryStore] = None) -> None:
        self.kind = kind
        self.path = path
        self._memory = memory if memory is not None else MemoryStore()
        self._logs: list[Walrus] = []
        self._copies: list[Store] = []
        if kind != "memory":
            backend_class(kind)

    def backend(self, **options: Any) -> Any:
        """Return a new backend object on this store."""
        if self.kind == "memory":
            return MemoryBackend(store=self._memory)
        return backend_class(self.kind)(**options)

    def open(self, **options: Any) -> Walrus:
        """Open the log here, with small blocks unless told otherwise."""
        if options.get("backend") is None:
            durable = {"durable_writes": True} if options.get("durable_writes") else {}
            options["backend"] = self.backend(**durable)
        wal = Walrus(self.path, **{**SMALL, **options})
        self._logs.append(wal)
        return wal

    def killed(self) -> Store:
        """Return a store as a kill of the process would leave this one now."""
        target = f"{self.path}-killed-{len(self._copies)}"
        if self.kind == "memory":
            other = Store(self.kind, self.path, MemoryStore())
            with self._memory.lock:
                other._memory.files = copy.deepcopy(self._memory.files)
                other._memory.directories = set(self._memory.directories)
        else:
            shutil.copytree(self.path, target, ignore=shutil.ignore_patterns("LOCK"))
            other = Store(self.kind, target)
        self._copies.append(other)
        return other

    # --- raw bytes, not through a backend ---------------------------------------------------

    def names(self, suffix: str = "") -> list[str]:
        """Return the names of the files in the directory, but for LOCK."""
        if self.kind == "memory":
            parent = os.path.normpath(self.path)
            found = [os.path.basename(path) for path in self._memory.files if os.path.dirname(path) == parent]
        else:
            found = os.listdir(self.path)
        return sorted(name for name in found if name != "LOCK" and name.endswith(suffix))

    def read_file(self, name: str) -> bytes:
        """Return the bytes of a file."""
        path = os.path.join(self.path, name)
        return bytes(self._memory.files[path]) if self.kind == "memory" else Path(path).read_bytes()

    def write_file(self, name: str, data: bytes) -> None:
        """Replace or make a file."""
        path = os.path.join(self.path, name)
        if self.kind == "memory":
            self._memory.files[path] = bytearray(data)
        else:
            Path(path).write_bytes(data)

    def patch(self, name: str, at: int, data: bytes) -> None:
        """Overwrite bytes of a file."""
        old = self.read_file(name)
        assert at + len(data) <= len(old)
        self.write_file(name, old[:at] + data + old[at + len(data) :])

    def flip(self, name: str, at: int, bit: int = 0) -> None:
        """Flip one bit of a file."""
        self.patch(name, at, bytes([self.read_file(name)[at] ^ (1 << bit)]))

    def find(self, needle: bytes) -> tuple[str, int]:
        """Return (name, position) of the only place in the segments where ``needle`` stands."""
        places = []
        for name in self.names(".wal"):
            data = self.read_file(name)
            at = data.find(needle)
            while at >= 0:
                places.append((name, at))
                at = data.find(needle, at + 1)
        assert len(places) == 1, f"{needle!r} stands at {places}"
        return places[0]

    def close(self) -> None:
        """Close every log opened here and on copies."""
        for wal in self._logs:
            wal.close()
        for other in self._copies:
            other.close()


@pytest.fixture(autouse=True)
def _no_walrus_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def _process_state() -> dict[str, object]:
    """Return what a test may change for itself, and has to put back for those after it."""
    return {
        "logging": (logging.getLogger("walrus_core").level, logging.root.manager.disable),
        "signals": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)),
        "folder": os.getcwd(),
        "collector": gc.isenabled(),
        "switch interval": sys.getswitchinterval(),
    }


@pytest.fixture(autouse=True)
def _leaves_the_process_as_it_was() -> Iterator[None]:
    before = _process_state()
    yield
    assert _process_state() == before


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """A function that makes a store: ``make_store(kind, name="log")``. All are closed at the end."""
    made: list[Store] = []

    def make(kind: str = "memory", name: str = "log") -> Store:
        store = Store(kind, str(tmp_path / f"{name}-{kind}"))
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture
def file_kind() -> Callable[[str], type[Any]]:
    """``backend_class``, for tests that need a backend of their own."""
    return backend_class


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, make_store: Callable[..., Store]) -> Store:
    """A store on each backend in turn."""
    return make_store(request.param)


@pytest.fixture(params=tuple(BACKENDS))
def file_store(request: pytest.FixtureRequest, make_store: Callable[..., Store]) -> Store:
    """A store on each backend that keeps real files."""
    return make_store(request.param)


@pytest.fixture
def memory_store(make_store: Callable[..., Store]) -> Store:
    """A store on the reference backend alone, for what does not depend on the backend."""
    return make_store("memory")


@pytest.fixture
def make_log(store: Store) -> Callable[..., Walrus]:
    """``store.open``: opens and reopens the log of the store with the options given."""
    return store.open


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that mounts a tmpfs of a size in bytes; skips the test where that is not allowed."""
    points: list[Path] = []

    def mount(size_bytes: int) -> Path:
        if os.name != "posix" or os.geteuid() != 0:
            pytest.skip("mounting a small file system needs root")
        point = tmp_path / f"mounted-{len(points)}"
        point.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(point)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
        points.append(point)
        return point

    yield mount
    for point in points:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


@pytest.fixture
def run_child() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs Python code in a process of its own: ``run_child(code, *arguments)``.

    The code finds its arguments in ``arguments``; warnings are errors there too.
    """

    def run(code: str, *arguments: object, status: Optional[int] = 0) -> subprocess.CompletedProcess[str]:
        text = "import os, sys\narguments = sys.argv[1:]\n" + inspect.cleandoc(code)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "error", "-c", text, *map(str, arguments)]
        # Not in this folder: the source tree must not stand in front of what is installed.
        done = subprocess.run(
            command, env=environment, cwd=tempfile.gettempdir(), capture_output=True, text=True, timeout=120
        )
        if status is not None:
            assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run
