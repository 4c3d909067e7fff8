"""How a soak opens its log."""

from __future__ import annotations

import importlib
from typing import Any

from walrus_core import FsyncSchedule, ReadConsistency, Walrus

CLASSES = {"fd": ("walrus_fd.backend", "FdBackend"), "mmap": ("walrus_mmap.backend", "MmapBackend")}


def open_log(config: dict[str, Any]) -> Walrus:
    """Open the log that ``config`` describes; see ``Soak.config``."""
    durable = {"durable_writes": True} if config["durable_writes"] else {}
    ring = {"io_uring": config["io_uring"]} if config["backend"] == "fd" else {}
    module, name = CLASSES[config["backend"]]
    backend = getattr(importlib.import_module(module), name)
    return Walrus(
        config["directory"],
        backend=backend(**durable, **ring),
        fsync_schedule=FsyncSchedule.parse(config["schedule"]),
        consistency=ReadConsistency.at_least_once(config["persist_every"]),
        block_size=config["block_size"],
        blocks_per_segment=8,
        open_files_max=config["open_files_max"],
        **durable,
    )
