"""A backend around a backend: it counts calls, fails chosen ones, runs code inside them, and
knows what a power cut would leave.

Written against the protocols of ``walrus_core.backend`` alone, so it goes around any backend; wrap your
own to see what a log does when it fails. The wrapped files hand out neither descriptors nor windows, so
every byte of the log passes through the methods here. What an author learns: which calls a log makes in
which order (``log``), that every error must be a plain ``OSError``, and that after one of them the log
takes any part of a write as written, and nothing as durable.

Three ways to choose what fails:

* ``fail(operation, ...)``, ``during(operation, action)``, ``lie(...)``: a ``Rule`` for calls of one kind;
* ``fault = Fault(place, ...)``: the n-th call of a run, whatever it is, once or with all that follow;
* ``capacity_bytes``: a disk of that size.
"""

from __future__ import annotations

import errno as errno_names
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, MutableSet, Sequence
from typing import Any, Optional, cast

from attrs import evolve

from walrus_core.backend import Buffer, Capabilities, SegmentFile
from walrus_core.memory import MemoryBackend, MemoryStore
from walrus_core.testing.faults import OPERATIONS, Countdown, Fault, Rule, failure


class FaultyFile:
    """One file of a ``FaultyBackend``."""

    def __init__(self, backend: FaultyBackend, inner: SegmentFile, path: str) -> None:
        """``inner`` is the file of the wrapped backend."""
        self._backend = backend
        self.inner: Any = inner
        self.path = path

    @property
    def size_bytes(self) -> int:
        """Size of the file now."""
        size: int = self.inner.size_bytes
        return size

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        """Read, perhaps with one bit flipped."""
        rule = self._backend.note("read", self.path)
        self._backend.read_bytes += length_bytes
        self._backend.reads.append((os.path.basename(self.path), at_bytes, length_bytes))
        data: Buffer = self.inner.read_at(at_bytes, length_bytes)
        if rule is not None and rule.lies is not None and length_bytes:
            lying = bytearray(data)
            lying[rule.lies // 8 % length_bytes] ^= 1 << rule.lies % 8
            return bytes(lying)
        return data

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        """Write, or the first bytes of it and raise."""
        rule = self._backend.rule_for("write", self.path, len(data))
        if rule is not None and rule.number:
            written = rule.written if rule.written >= 0 else max(len(data) + rule.written, 0)
            if written:
                self.inner.write_at(at_bytes, bytes(data)[:written])
            raise failure(rule.number, self.path)
        self._backend.written_bytes += len(data)
        self.inner.write_at(at_bytes, data)

    def write_many(self, writes: Sequence[tuple[int, Sequence[Buffer]]]) -> None:
        """Write several extents one by one, or the first bytes of them and raise."""
        joined = [(at_bytes, b"".join(map(bytes, buffers))) for at_bytes, buffers in writes]
        length = left = sum(len(data) for _at, data in joined)
        rule = self._backend.rule_for("write_many", self.path, length)
        fails = rule is not None and bool(rule.number)
        if rule is not None and fails:
            left = rule.written if rule.written >= 0 else max(length + rule.written, 0)
        for at_bytes, data in joined:
            self.inner.write_at(at_bytes, data[:left])
            left -= len(data[:left])
        if rule is not None and fails:
            raise failure(rule.number, self.path)
        self._backend.written_bytes += length

    def read_many(self, reads: Sequence[tuple[int, int]]) -> list[Buffer]:
        """Read several extents, each a read of its own."""
        return [self.read_at(at_bytes, length_bytes) for at_bytes, length_bytes in reads]

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        """Reserve, if there is space."""
        self._backend.note("reserve", self.path)
        self._backend.take_space(at_bytes + length_bytes - self.inner.size_bytes, self.path)
        self.inner.reserve(at_bytes, length_bytes)

    def sync(self) -> None:
        """Sync; what had been written when it began is then known to be durable."""
        self._backend.note("sync", self.path)
        self._backend.sync_inner(self)

    def close(self) -> None:
        """Close."""
        self._backend.open_files.discard(self)
        self._backend.note("close", self.path)
        self.inner.close()

    def discard(self, at_bytes: int, length_bytes: int) -> None:
        """Give space back."""
        self._backend.note("discard", self.path)
        self.inner.discard(at_bytes, length_bytes)

    def drop_cache(self) -> None:
        """Drop the cache, where the wrapped backend has one."""
        self._backend.note("drop_cache", self.path)
        if self._backend.inner.capabilities.drop_cache:
            self.inner.drop_cache()


class FaultyBackend:
    """Wraps ``inner`` (default: a MemoryBackend). ``rules`` act in the order they were added.

    ``calls`` counts by operation, ``log`` lists (operation, name of the file), ``reads`` (name, at_bytes,
    length_bytes), ``failed`` the operations that were made to fail. With a memory backend inside,
    ``synced_store`` is what a power cut that takes everything unsynced leaves.
    """

    api = 1

    def __init__(self, inner: Any = None, *, emulates: bool = False) -> None:
        """``emulates``: declare ``vectored`` and ``drop_cache`` even where ``inner`` has them not."""
        self.inner = MemoryBackend() if inner is None else inner
        self.name = self.inner.name
        self.emulates = emulates
        self.rules: list[Rule] = []
        self.countdown: Optional[Countdown] = None
        self.fault: Optional[Fault] = None
        self.capacity_bytes: Optional[int] = None
        """Files cannot grow beyond this together; None: they can."""
        self.is_watched = True
        """Calls count and may fail."""
        self.calls: Counter[str] = Counter()
        self.log: list[tuple[str, str]] = []
        self.failed: list[str] = []
        self.reads: list[tuple[str, int, int]] = []
        self.read_bytes = 0
        self.written_bytes = 0
        self.open_files: MutableSet[FaultyFile] = set()
        self._sizes: dict[str, int] = {}
        self._lock = threading.RLock()
        self._synced: dict[str, bytes] = {}
        """Synced bytes by path, under the names that are durable."""
        self._unnamed: dict[str, bytes] = {}
        """Synced bytes of files whose names no directory sync has covered yet."""
        if self._store is not None:
            self._synced = {path: bytes(data) for path, data in self._store.files.items()}

    # --- to choose what fails -----------------------------------------------------------------

    def fail(self, operation: str, *, number: int = errno_names.ENOSPC, **facts: Any) -> Rule:
        """Let calls of ``operation`` fail with this errno; the other facts are those of ``Rule``."""
        return self._add(Rule(operation=operation, number=number, **facts))

    def during(self, operation: str, action: Callable[[], object], **facts: Any) -> Rule:
        """Run ``action`` inside calls of ``operation``, before they do anything."""
        return self._add(Rule(operation=operation, action=action, **facts))

    def lie(self, bit: int, **facts: Any) -> Rule:
        """Let reads return this bit flipped; the other facts are those of ``Rule``."""
        return self._add(Rule(operation="read", lies=bit, **facts))

    def interrupt(self, place: int, action: Callable[[], object]) -> Countdown:
        """Run ``action`` once, inside call number ``place`` (from 0) that this thread makes from now on."""
        self.countdown = Countdown(place, action)
        return self.countdown

    def _add(self, rule: Rule) -> Rule:
        if rule.operation not in OPERATIONS:
            raise ValueError(f"{rule.operation!r} is none of {', '.join(OPERATIONS)}")
        self.rules.append(rule)
        return rule

    def reset(self) -> None:
        """Forget all rules, faults and counts."""
        self.rules.clear()
        self.countdown = self.fault = self.capacity_bytes = None
        self.calls.clear()
        for noted in (self.log, self.failed, self.reads):
            noted.clear()
        self.read_bytes = self.written_bytes = 0

    def synced_store(self) -> MemoryStore:
        """Return a store with exactly what syncs have covered so far."""
        if self._store is None:
            raise TypeError("only a memory backend can be looked into")
        store = MemoryStore()
        with self._lock:
            store.files = {path: bytearray(data) for path, data in self._synced.items()}
            store.directories = set(self._store.directories)
        return store

    # --- what the files call ----------------------------------------------------------------

    @property
    def _store(self) -> Optional[MemoryStore]:
        return self.inner.store if isinstance(self.inner, MemoryBackend) else None

    def rule_for(self, operation: str, path: str, length: int = 0) -> Optional[Rule]:
        """Count the call and return the rule that acts on it; its action has then been run.

        ``length`` is that of a write, of which the fault says how much is written.
        """
        if not self.is_watched:
            return None
        if self.countdown is not None:
            self.countdown.count()
        with self._lock:
            self.calls[operation] += 1
            self.log.append((operation, os.path.basename(path)))
            found = self._fault_for(operation, length)
            if found is None:
                found = next((rule for rule in list(self.rules) if rule.matches(operation, path)), None)
        if found is not None and found.action is not None:
            found.action()
        return found

    def _fault_for(self, operation: str, length: int) -> Optional[Rule]:
        fault, place = self.fault, len(self.log)
        if fault is None or place < fault.place:
            return None
        if place == fault.place or (fault.stays and operation in self.failed):
            self.failed.append(operation)
            return Rule(operation=operation, number=fault.number, written=fault.written(length))
        return None

    def note(self, operation: str, path: str) -> Optional[Rule]:
        """Count the call. Raises: OSError where a rule says so. Returns: the rule that acts on it."""
        rule = self.rule_for(operation, path)
        if rule is not None and rule.number:
            raise failure(rule.number, path)
        return rule

    def take_space(self, growth_bytes: int, path: str) -> None:
        """Raises: OSError: the file would grow beyond the capacity."""
        if self.capacity_bytes is None or growth_bytes <= 0:
            return
        with self._lock:
            used = sum(self._sizes.values())
            if used + growth_bytes > self.capacity_bytes:
                raise failure(errno_names.ENOSPC, path)
            self._sizes[path] = self._sizes.get(path, 0) + growth_bytes

    def sync_inner(self, file: FaultyFile) -> None:
        """Sync a file of the wrapped backend and note what that has made durable."""
        image = b""
        if self._store is not None:
            # What is durable is what had been written when the sync began.
            image = bytes(file.inner.read_at(0, file.inner.size_bytes))
        file.inner.sync()
        path = os.path.normpath(file.path)
        with self._lock:
            named = path in self._synced and path not in self._unnamed
            (self._synced if named else self._unnamed)[path] = image

    # --- the protocol -----------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """Those of ``inner``, less the ways past this wrapper."""
        found: Capabilities = self.inner.capabilities
        return evolve(
            found,
            memory=False,
            paging=False,
            fileno=False,
            durable_writes=False,
            read_only=False,
            vectored=self.emulates,
            drop_cache=found.drop_cache or self.emulates,
        )

    def make_directory(self, path: str) -> None:
        """Make a directory."""
        self.note("make_directory", path)
        self.inner.make_directory(path)

    def list(self, directory: str) -> Iterable[str]:
        """List."""
        self.note("list", directory)
        return list(self.inner.list(directory))

    def create(self, path: str, *, size_bytes: int) -> FaultyFile:
        """Create a file, if there is space."""
        self.note("create", path)
        self.take_space(size_bytes, path)
        return self._wrap(self.inner.create(path, size_bytes=size_bytes), path)

    def open(self, path: str) -> FaultyFile:
        """Open a file."""
        self.note("open", path)
        file = self._wrap(self.inner.open(path), path)
        with self._lock:
            self._sizes[path] = file.size_bytes
        return file

    def _wrap(self, inner: SegmentFile, path: str) -> FaultyFile:
        file = FaultyFile(self, inner, path)
        self.open_files.add(file)
        return file

    def rename(self, old_path: str, new_path: str) -> None:
        """Rename a file."""
        self.note("rename", old_path)
        self.inner.rename(old_path, new_path)
        with self._lock:
            self._sizes[new_path] = self._sizes.pop(old_path, 0)
            old_path, new_path = os.path.normpath(old_path), os.path.normpath(new_path)
            # The new name is durable only with the next sync of the directory; until then the old one is.
            self._unnamed[new_path] = self._unnamed.pop(old_path, self._synced.get(old_path, b""))

    def remove(self, path: str) -> None:
        """Remove a file."""
        self.note("remove", path)
        self.inner.remove(path)
        self._sizes.pop(path, None)

    def sync_dir(self, directory: str) -> None:
        """Sync the names."""
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

    def sync_many(self, files: Sequence[SegmentFile]) -> None:
        """Sync several files: one call of its own kind where ``emulates``, else a sync for each."""
        if self.emulates:
            self.note("sync_many", "several")
        for file in files:
            if self.emulates:
                self.sync_inner(cast(FaultyFile, file))
            else:
                file.sync()

    def close(self) -> None:
        """Close the wrapped backend."""
        self.inner.close()

    def probe(self) -> dict[str, Any]:
        """Say what is inside."""
        return {"inner": self.inner.probe()}
