"""Loading the Python binding of io_uring, ``liburing`` from PyPI, where this process can bear it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types

_OLDEST_VERSION = (2024, 5, 3)
_AVX512_FROM_YEAR = 2026

_NAMES = {
    "queue": (
        "io_uring",
        "io_uring_sqe",
        "io_uring_cqe",
        "io_uring_queue_init",
        "io_uring_queue_exit",
        "io_uring_ring_dontfork",
        "io_uring_submit",
        "io_uring_sq_ready",
        "io_uring_cq_ready",
        "io_uring_peek_cqe",
        "io_uring_cqe_seen",
    ),
    "helper": ("io_uring_put_sqe",),
    "common": ("iovec",),
    "file": ("io_uring_prep_write", "io_uring_prep_writev", "io_uring_prep_read", "io_uring_prep_fsync"),
}
"""What is used of the binding, by the compiled module that defines it."""


class Unusable(Exception):
    """There is no io_uring here; the text says why."""


def safe_version() -> str:
    """Return the installed version of the binding, without importing it.

    Raises: Unusable where importing it is out of the question: the wheels of 2026 are built for
        AVX-512 and kill a process without it by SIGILL, which nothing can catch.
    """
    from importlib import metadata

    try:
        version = metadata.version("liburing")
    except metadata.PackageNotFoundError:
        raise Unusable("liburing is not installed (pip install 'walrus-fd[uring]')") from None
    try:
        numbers = tuple(int(part) for part in version.split(".")[:3])
    except ValueError:
        raise Unusable(f"liburing has the unknown version {version}") from None
    if numbers < _OLDEST_VERSION:
        raise Unusable(f"liburing {version} is older than {'.'.join(map(str, _OLDEST_VERSION))}")
    if numbers[0] >= _AVX512_FROM_YEAR and not _has_avx512():
        raise Unusable(f"liburing {version} needs AVX-512, which this processor lacks (use one below 2026)")
    return version


def _has_avx512(path: str = "/proc/cpuinfo") -> bool:
    try:
        with open(path, encoding="ascii", errors="replace") as lines:
            return any(line.startswith("flags") and "avx512f" in line.split() for line in lines)
    except OSError:
        # Not knowing is answered like lacking: the plain path is always right.
        return False


def load() -> types.SimpleNamespace:
    """Import the compiled modules of the binding and return the names that are used.

    The package itself is passed by, because its ``__init__`` rewrites a cache file beside the code
    at every import: that fails for a user who may not write there, races with other processes,
    and takes five times as long. An ``import liburing`` elsewhere in the program works as ever.

    Raises: ImportError, AttributeError where the installed binding is another than expected.
    """
    name = "liburing"
    is_loaded = name in sys.modules
    if not is_loaded:
        specification = importlib.util.find_spec(name)
        if specification is None or specification.submodule_search_locations is None:
            raise ImportError("liburing is not a package")
        stand_in = types.ModuleType(name)
        stand_in.__path__ = list(specification.submodule_search_locations)
        sys.modules[name] = stand_in
    try:
        modules = {part: importlib.import_module(f"{name}.{part}") for part in _NAMES}
    finally:
        if not is_loaded:
            del sys.modules[name]
    return types.SimpleNamespace(
        **{
            function: getattr(modules[part], function)
            for part, functions in _NAMES.items()
            for function in functions
        }
    )
