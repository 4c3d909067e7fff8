"""What a figure was measured on: processor, kernel, file system, Python, frame code."""

from __future__ import annotations

import os
import platform
import shutil
from typing import Any, Optional

from attrs import frozen

from walrus_core import __version__
from walrus_core.hot import describe

COPY_ON_WRITE = frozenset({"btrfs", "zfs", "bcachefs"})
"""Write each change to a new place: space reserved for a map does not hold there."""
IN_MEMORY = frozenset({"tmpfs", "ramfs"})
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "afs", "virtiofs"})

_MOUNTS = "/proc/self/mountinfo"
_PROCESSORS = "/proc/cpuinfo"


@frozen(kw_only=True)
class FileSystem:
    """Where a directory lies. ``kind`` and ``device`` are "unknown" where the system does not tell."""

    kind: str
    device: str
    free_bytes: int
    options: str = ""
    """How it was mounted: the options of the mount and of the file system, with commas."""


def file_system(directory: str) -> FileSystem:
    """Return the file system of an existing directory. Raises: OSError: it cannot be looked at."""
    kind, device, options = _mount_of(os.stat(directory).st_dev, os.path.realpath(directory))
    free_bytes = shutil.disk_usage(directory).free
    return FileSystem(kind=kind, device=device, free_bytes=free_bytes, options=options)


def _mount_of(device_number: int, path: str) -> tuple[str, str, str]:
    """Return (kind, device, options) of the mount that holds ``path``."""
    wanted = f"{os.major(device_number)}:{os.minor(device_number)}"
    best: Optional[tuple[int, str, str, str]] = None
    for line in _lines(_MOUNTS):
        fields, _, rest = line.partition(" - ")
        words = fields.split()
        about = rest.split()
        if len(words) < 6 or len(about) < 2:
            continue
        point = words[4].replace("\\040", " ")
        is_above = point == "/" or path == point or path.startswith(f"{point}/")
        # Btrfs gives its subvolumes device numbers that no mount shows: there the longest path counts.
        score = len(point) + (10_000 if words[2] == wanted else 0)
        if is_above and (best is None or score >= best[0]):
            best = (score, about[0], about[1], ",".join([words[5], *about[2:3]]))
    return best[1:] if best is not None else ("unknown", "unknown", "")


def machine_facts() -> dict[str, Any]:
    """Return what of the machine and the interpreter decides figures, for JSON."""
    return {
        "processor": processor_name(),
        "cores": _usable_cores(),
        "memory_bytes": _memory_bytes(),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "walrus_core": __version__,
        "frame_code": describe(),
    }


def processor_name() -> str:
    """Return the model of the processor, as far as the system tells."""
    for line in _lines(_PROCESSORS):
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "Hardware") and value.strip():
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on this system: 0 means unknown
        return 0


def _lines(path: str) -> list[str]:
    """Return the lines of a file of the system; none where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
