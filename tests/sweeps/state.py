"""A digest of everything an open log remembers, so that equal states are checked only once.

Two interrupts that leave the same bytes in the store and the same objects in memory cannot be told
apart by anything that is done later.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import sys
import threading
import weakref
from collections import OrderedDict
from typing import Any

from walrus_core import hot, lock
from walrus_core._pure import entry
from walrus_core.config import Options
from walrus_core.events import Events
from walrus_core.memory import MemoryStore
from walrus_core.testing import FaultyBackend, FaultyFile

RLOCK = type(threading.RLock())
LOCK = type(threading.Lock())
METHOD_OF_C = type(itertools.count().__next__)
METHOD = type(Events.poisoned.__get__(0))
LEFT_OUT = (FaultyBackend, FaultyFile, Options, Events, weakref.ref)
"""What is the same in every run, or is in the store."""


def digest(wal: Any, backend: FaultyBackend) -> bytes:
    """Return a digest of the store, of the files left open, and of the log (None where it did not open)."""
    whole = hashlib.blake2b()
    store: MemoryStore = backend.inner.store
    for images in (store.files, backend._synced, backend._unnamed):
        for path, data in sorted(images.items()):
            whole.update(path.encode() + b"\0" + len(data).to_bytes(8, "little"))
            whole.update(data)
        whole.update(b"next")
    whole.update(repr(sorted(file.path for file in backend.open_files)).encode())
    whole.update(repr(len(lock._registry)).encode())
    parts: list[str] = []
    if wal is not None:
        _walk(wal._engine, parts, {})
    whole.update("\n".join(parts).encode())
    return whole.digest()


def _walk(root: Any, parts: list[str], known: dict[int, int]) -> None:
    """Write a canonical description of what ``root`` refers to; objects are named by their order."""
    todo = [root]
    while todo:
        item = todo.pop()
        if item is None or isinstance(item, (bool, int, str, bytes)):
            parts.append(repr(item))
        elif isinstance(item, LEFT_OUT):
            parts.append(type(item).__name__)
        elif id(item) in known:
            parts.append(f"seen {known[id(item)]}")
        else:
            known[id(item)] = len(known)
            parts.append(type(item).__name__)
            todo.extend(reversed(_inside(item, parts)))


def _inside(item: Any, parts: list[str]) -> list[Any]:
    """Return what an object refers to, in an order that does not depend on addresses."""
    if isinstance(item, RLOCK):
        parts.append(repr(item).split("count=")[1].split()[0])
        return []
    if isinstance(item, LOCK):
        parts.append(str(item.locked()))
        return []
    if isinstance(item, float):
        return [bool(item)]  # a time of the machine's clock, or none yet
    if isinstance(item, lock.DirectoryLock):
        return [item._key is None]
    if isinstance(item, METHOD_OF_C):
        parts.append(repr(item.__self__))
        return []
    if isinstance(item, METHOD):
        return [item.__func__.__qualname__, item.__self__]
    if isinstance(item, (dict, OrderedDict)):
        return [part for pair in item.items() for part in pair]
    if isinstance(item, (set, frozenset)):
        return [len(item), *(sorted(item) if all(isinstance(one, int) for one in item) else ())]
    if isinstance(item, (list, tuple)):
        return [len(item), *item]
    if isinstance(item, hot.Tail):
        return [item.state, item.torn, item.reserved, item.next_offset]
    if type(item).__module__.startswith("walrus_core"):
        return _attributes(item)
    return []


def _attributes(item: Any) -> list[Any]:
    names = set(getattr(item, "__dict__", ()))
    for cls in type(item).__mro__:
        names.update(getattr(cls, "__slots__", ()))
    return [part for name in sorted(names) if hasattr(item, name) for part in (name, getattr(item, name))]


def checksums_once() -> list[tuple[Any, str, Any]]:
    """Return (module, name, replacement) such that the pure twin computes equal checksums once.

    Runs of a sweep write the same bytes over and over; the checksum is most of their time.
    """
    slow = entry.fnv1a64

    @functools.lru_cache(maxsize=50_000)
    def remembered(data: bytes, state: int) -> int:
        return slow(data, state)

    def fnv1a64(data: Any, state: int = entry.FNV_BASIS) -> int:
        return remembered(bytes(data), state)

    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("walrus_core")]
    return [(m, "fnv1a64", fnv1a64) for m in modules if getattr(m, "fnv1a64", None) is slow]
