"""What is there to be measured: other libraries, backends, the compiled frame code, parts of the API."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Optional

from walrus_core import Walrus, hot
from walrus_core.plugins import installed_plugins

MODULES: Mapping[str, str] = {
    "lmdb": "lmdb",
    "rocksdict": "rocksdict",
    "persist-queue": "persistqueue",
    "diskcache": "diskcache",
}
"""Distributions of the extra ``bench`` and the module of each."""

COMPILED = "compiled"


def missing(need: str) -> Optional[str]:
    """Return why something that a contender needs is not there, or None where it is.

    ``need``: a distribution of MODULES, "backend NAME", COMPILED, or a method of Walrus.
    """
    if need in MODULES:
        if find_spec(MODULES[need]) is None:
            return f"{need} is not installed: pip install {need}"
        return None
    kind, _, name = need.partition(" ")
    if kind == "backend":
        return None if name in installed_plugins() else f"the backend {name} is not installed"
    if need == COMPILED:
        return None if hot.COMPILED else "the frame code runs as its pure twin here"
    return None if hasattr(Walrus, need) else f"this walrus_core has no Walrus.{need}"


def module_of(distribution: str) -> Any:
    """Import the module of a distribution of MODULES. They are untyped, so nothing is known of it."""
    return import_module(MODULES[distribution])


def versions() -> dict[str, str]:
    """Return the versions of everything that is measured and is here."""
    found = {"sqlite": sqlite3.sqlite_version}
    for name in ("walrus-core", "walrus-fd", "walrus-mmap", "liburing", *MODULES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
