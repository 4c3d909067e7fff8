"""A backend around a backend: it counts calls, fails chosen ones, runs code inside them, and
knows what a power cut would leave.

Written against the protocols of ``walrus_core.backend`` alone. The wrapped files hand out neither
descriptors nor windows, so every byte of the log passes through the methods here.
"""

from __future__ import annotations

import errno as errno_names
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional, Union

from attrs import define, evolve, field

from walrus_core.backend import Buffer, Capabilities, SegmentFile
from walrus_core.memory import MemoryBackend, MemoryStore

OPERATIONS = (
    "list",
    "create",
    "open",
    "rename",
    "remove",
    "sync_dir",
    "read",
    "write",
    "reserve",
    "discard",
    "sync",
    "close",
)


@define
class Rule:
    """Fails or watches calls of one operation on paths that end with ``suffix`` (or one of several).

    ``skip`` calls pass first; then it acts ``times`` times (None: for ever). ``written`` bytes of
    a failing write still reach the file, as a short write before the error would leave them.
    """

    operation: str
    suffix: Union[str, tuple[str, ...]] = ""
    skip: int = 0
    times: Optional[int] = 1
    number: int = 0
    action: Optional[Callable[[], object]] = None
    written: int = 0
    seen: int = field(default=0, init=False)
    acted: int = field(default=0, init=False)

    def matches(self, operation: str, path: str) -> bool:
        """Return whether the rule acts on this call, which it counts."""
        if operation != self.operation or not path.endswith(self.suffix):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.times is not None and self.acted >= self.times):
            return False
        self.acted += 1
        return True


@define
class Countdown:
    """Runs ``action`` once, inside call number ``left`` (from 0) that one thread makes."""

    left: int
    action: Callable[[], object]
    thread: int = field(factory=threading.get_ident, init=False)
    is_over: bool = field(default=False, init=False)

    def count(self) -> None:
        """Count one call of the backend."""
        if self.is_over or threading.get_ident() != self.thread:
            return
        self.left -= 1
        if self.left < 0:
            self.is_over = True
            self.action()


class FaultyFile:
    """One file of a ``FaultyBackend``."""

    def __init__(self, backend: FaultyBackend, inner: SegmentFile, path: str) -> None:
        self._backend = backend
        self.inner = inner
        self.path = path

    @property
    def size_bytes(self) -> int:
        return self.inner.size_bytes

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        self._backend.note("read", self.path)
        self._backend.read_bytes += length_bytes
        self._backend.reads.append((os.path.basename(self.path), at_bytes, length_bytes))
        return self.inner.read_at(at_bytes, length_bytes)

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        rule = self._backend.rule_for("write", self.path)
        if rule is not None and rule.number:
            if rule.written:
                self.inner.write_at(at_bytes, bytes(data)[: rule.written])
            raise failure(rule.number, self.path)
        self._backend.written_bytes += len(data)
        self.inner.write_at(at_bytes, data)

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        self._backend.note("reserve", self.path)
        self.inner.reserve(at_bytes, length_bytes)

    def sync(self) -> None:
        self._backend.note("sync", self.path)
        # What is durable is what had been written when the sync began.
        image = self._backend.image_of(self)
        self.inner.sync()
        self._backend.keep(self.path, image)

    def close(self) -> None:
        self._backend.open_files.discard(self)
        self._backend.note("close", self.path)
        self.inner.close()

    def discard(self, at_bytes: int, length_bytes: int) -> None:
        self._backend.note("discard", self.path)
        self.inner.discard(at_bytes, length_bytes)

    def drop_cache(self) -> None:
        self.inner.drop_cache()


class FaultyBackend:
    """Wraps ``inner`` (default: a MemoryBackend). ``rules`` act in the order they were added.

    ``calls`` counts by operation, ``reads`` lists (name, at_bytes, length_bytes). With a memory
    backend inside, ``synced_store`` is what a power cut that takes everything unsynced leaves.
    """

    api = 1

    def __init__(self, inner: Any = None) -> None:
        self.inner = MemoryBackend() if inner is None else inner
        self.name = self.inner.name
        self.rules: list[Rule] = []
        self.countdown: Optional[Countdown] = None
        self.calls: Counter[str] = Counter()
        self.reads: list[tuple[str, int, int]] = []
        self.read_bytes = 0
        self.written_bytes = 0
        self.open_files: set[FaultyFile] = set()
        self._lock = threading.RLock()
        self._synced: dict[str, bytes] = {}
        """Synced bytes by path, under the names that are durable."""
        self._unnamed: dict[str, bytes] = {}
        """Synced bytes of files whose names no directory sync has covered yet."""
        if self._store is not None:
            self._synced = {path: bytes(data) for path, data in self._store.files.items()}

    # --- for tests --------------------------------------------------------------------------

    def fail(self, operation: str, *, number: int = errno_names.ENOSPC, **facts: Any) -> Rule:
        """Let calls of ``operation`` fail with this errno; the other facts are those of ``Rule``."""
        return self._add(Rule(operation=operation, number=number, **facts))

    def during(self, operation: str, action: Callable[[], object], **facts: Any) -> Rule:
        """Run ``action`` inside calls of ``operation``, before they do anything."""
        return self._add(Rule(operation=operation, action=action, **facts))

    def interrupt(self, place: int, action: Callable[[], object]) -> Countdown:
        """Run ``action`` once, inside call number ``place`` (from 0) that this thread makes from now on."""
        self.countdown = Countdown(place, action)
        return self.countdown

    def _add(self, rule: Rule) -> Rule:
        assert rule.operation in OPERATIONS
        self.rules.append(rule)
        return rule

    def reset(self) -> None:
        """Forget all rules and counts."""
        self.rules.clear()
        self.countdown = None
        self.calls.clear()
        self.reads.clear()
        self.read_bytes = self.written_bytes = 0

    def synced_store(self) -> MemoryStore:
        """Return a store with exactly what syncs have covered so far."""
        assert self._store is not None, "only a memory backend can be looked into"
        store = MemoryStore()
        with self._lock:
            store.files = {path: bytearray(data) for path, data in self._synced.items()}
            store.directories = set(self._store.directories)
        return store

    # --- what the files call ----------------------------------------------------------------

    @property
    def _store(self) -> Optional[MemoryStore]:
        return self.inner.store if isinstance(self.inner, MemoryBackend) else None

    def rule_for(self, operation: str, path: str) -> Optional[Rule]:
        """Count the call and return the rule that acts on it; its action has then been run."""
        if self.countdown is not None:
            self.countdown.count()
        with self._lock:
            self.calls[operation] += 1
            found = next((rule for rule in list(self.rules) if rule.matches(operation, path)), None)
        if found is not None and found.action is not None:
            found.action()
        return found

    def note(self, operation: str, path: str) -> None:
        """Count the call. Raises: OSError where a rule says so."""
        rule = self.rule_for(operation, path)
        if rule is not None and rule.number:
            raise failure(rule.number, path)

    def image_of(self, file: FaultyFile) -> bytes:
        """Return the bytes of a file now, where they are in memory."""
        return bytes(file.inner.read_at(0, file.inner.size_bytes)) if self._store is not None else b""

    def keep(self, path: str, image: bytes) -> None:
        """A sync of ``path`` completed, which covered ``image``."""
        path = os.path.normpath(path)
        with self._lock:
            named = path in self._synced and path not in self._unnamed
            (self._synced if named else self._unnamed)[path] = image

    # --- the protocol -----------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        found: Capabilities = self.inner.capabilities
        return evolve(
            found, memory=False, fileno=False, vectored=False, durable_writes=False, read_only=False
        )

    def make_directory(self, path: str) -> None:
        self.inner.make_directory(path)

    def list(self, directory: str) -> Iterable[str]:
        self.note("list", directory)
        return self.inner.list(directory)

    def create(self, path: str, *, size_bytes: int) -> FaultyFile:
        self.note("create", path)
        return self._wrap(self.inner.create(path, size_bytes=size_bytes), path)

    def open(self, path: str) -> FaultyFile:
        self.note("open", path)
        return self._wrap(self.inner.open(path), path)

    def _wrap(self, inner: SegmentFile, path: str) -> FaultyFile:
        file = FaultyFile(self, inner, path)
        self.open_files.add(file)
        return file

    def rename(self, old_path: str, new_path: str) -> None:
        self.note("rename", old_path)
        self.inner.rename(old_path, new_path)
        old_path, new_path = os.path.normpath(old_path), os.path.normpath(new_path)
        with self._lock:
            # The new name is durable only with the next sync of the directory; until then the old one is.
            self._unnamed[new_path] = self._unnamed.pop(old_path, self._synced.get(old_path, b""))

    def remove(self, path: str) -> None:
        self.note("remove", path)
        self.inner.remove(path)

    def sync_dir(self, directory: str) -> None:
        self.note("sync_dir", directory)
        self.inner.sync_dir(directory)
        if self._store is not None:
            with self._lock:
                parent = os.path.normpath(directory)
                names = {path for path in self._store.files if os.path.dirname(path) == parent}
                kept = {**self._synced, **self._unnamed}
                elsewhere = {
                    path: data for path, data in self._synced.items() if os.path.dirname(path) != parent
                }
                # A file that was named durably before it was synced has its size at most.
                self._synced = {**elsewhere, **{path: kept.get(path, b"") for path in names}}
                self._unnamed = {
                    path: data for path, data in self._unnamed.items() if os.path.dirname(path) != parent
                }

    def sync_many(self, files: Sequence[FaultyFile]) -> None:
        for file in files:
            file.sync()

    def close(self) -> None:
        self.inner.close()

    def probe(self) -> dict[str, Any]:
        return {"inner": self.inner.probe()}


def failure(number: int, path: str) -> OSError:
    """Return the OSError that the system would raise."""
    return OSError(number, os.strerror(number), path)
