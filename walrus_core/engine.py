"""Engine: the rooms of one open log, put together, opened and closed in order.

``walrus.py`` is the public surface over it. Lives here: construction, open, the background
tick, close, and what fork and interpreter exit mean for a log.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Optional

from attrs import evolve

from walrus_core import format as fmt
from walrus_core import lifetime
from walrus_core.allocator import Allocator, new_log_id
from walrus_core.backend import Backend
from walrus_core.block import Block
from walrus_core.config import DEFAULT_CURSOR, Options
from walrus_core.cursor import Cursor, persist_moved
from walrus_core.cursorfile import CursorPage
from walrus_core.errors import StorageError, UsageError, storage_error
from walrus_core.events import Events
from walrus_core.files import FileCache, wrap_directory_call
from walrus_core.flusher import Flusher
from walrus_core.front import Express
from walrus_core.gate import CLOSED, FORKED, OPEN, Door, Gate
from walrus_core.lock import DirectoryLock
from walrus_core.memory import MemoryBackend
from walrus_core.paths import absolute
from walrus_core.plugins import backend_of, observers_of
from walrus_core.reclaim import Reclaimer
from walrus_core.recovery import Recovered, finish, recover
from walrus_core.syncer import Syncable, Syncer
from walrus_core.topic import Topic
from walrus_core.types import Damage, RecoveryReport

DAMAGES_KEPT = 1000


class Engine:
    """One open log. Threads: see the rooms; ``topics`` only grows, under ``_create_lock``."""

    def __init__(self, options: Options) -> None:
        """Open the directory that ``options`` name, creating it if need be.

        Raises: LockedError, PluginError, CorruptionError, UnsupportedVersionError, StorageError:
        everything that was taken is given back.
        """
        quiet = os.environ.get("WALRUS_QUIET", "") not in ("", "0")
        options, self.backend, self.events = _resolve(options, quiet)
        self.options = options
        self._waits = options.fsync_schedule.kind == "each"
        self.express = Express()
        # Where every append waits for its sync, only those in flight may go past the lock.
        self.express_in_flight = Express() if self._waits else self.express
        self.express_in_flight.watched = not self._waits
        ways = (self.express, self.express_in_flight)
        self.gate = Gate(options.path, self.events.poisoned, quiet, ways, writes_sync=options.durable_writes)
        self.topics: dict[str, Topic] = {}
        self._cursors_by_topic: dict[str, dict[str, Cursor]] = {}
        self.door = Door()
        self._create_lock = threading.RLock()
        self._close_lock = threading.RLock()
        self._is_released = False
        self._flusher = Flusher(self, options.fsync_schedule.interval_ms / 1000, self.gate.warn)
        self.damages: dict[Damage, None] = {}
        self.files = FileCache(self.backend, options.open_files_max, self.gate)
        self._lock: Optional[DirectoryLock] = None
        try:
            self._open()
        except BaseException:
            self._release([])
            raise
        lifetime.watch(self)

    # --- open -------------------------------------------------------------------------------

    def _open(self) -> None:
        directory = self.options.path
        self._call_directory("create directory", lambda: self.backend.make_directory(directory))
        identity = (
            None
            if self.backend.capabilities.files
            else ("memory", id(self._store()), os.path.normpath(directory))
        )
        self._lock = DirectoryLock(directory, identity, self.gate.warn)
        names = sorted(self._call_directory("list", lambda: self.backend.list(directory)))
        recovered = recover(self.files, directory, names, new_log_id(self.options.random_bytes))
        self.cursors = recovered.cursors
        self._build(recovered)
        self.report: RecoveryReport = finish(self.files, directory, recovered, self.allocator)
        self._restore(recovered)
        self.events.recovered(self.report)
        for damage in self.report.damages:
            self.note_damage(damage)

    def _store(self) -> object:
        return self.backend.store if isinstance(self.backend, MemoryBackend) else self.backend

    def _call_directory(self, operation: str, call: Callable[[], Any]) -> Any:
        return wrap_directory_call(self.gate, self.options.path, operation, call, poisons=False)

    def _build(self, recovered: Recovered) -> None:
        options = self.options
        self.allocator = Allocator(
            self.files,
            self.cursors,
            options,
            options.random_bytes or os.urandom,
            options.clock or time.time_ns,
            self.events.segment_created,
            self.events.segment_reclaimed,
        )
        self.allocator.start(*recovered.inventory.in_use)
        self.syncer = Syncer(
            self.files,
            self.cursors,
            self.gate,
            self.events.synced if self.events.has_observers else None,
            self._sealed,
            wake=self._flusher.wake if options.fsync_schedule.kind == "interval" else (lambda: True),
            urge=self._flusher.wake if options.fsync_schedule.kind == "never" else (lambda: None),
            durable_writes=options.durable_writes,
            keeps_noted=self._waits,
        )
        self.reclaimer = Reclaimer(
            self.cursors,
            self.allocator,
            lambda topic: list(self._cursors_by_topic[topic.name].values()),
        )

    def _restore(self, recovered: Recovered) -> None:
        for item in recovered.topics:
            topic = self._new_topic(item.name, item.page)
            blocks = [found.block for found in item.chain.kept]
            topic.restore(blocks, item.next_offset, item.low_water, item.chain.appendable)
            self._cursors_by_topic[topic.name] = {}
            for page in item.cursors:
                self._add_cursor(topic, page.identity.cursor.decode("utf-8"), page)
            self._add_cursor(topic, DEFAULT_CURSOR, None)
            self.topics[topic.name] = topic

    # --- topics and cursors -------------------------------------------------------------------

    def live_topics(self) -> list[Topic]:
        """Return the topics that exist for users: those that ever had an entry."""
        return [topic for topic in list(self.topics.values()) if topic.next_offset > 0]

    def find_topic(self, name: str) -> Optional[Topic]:
        """Return the topic, or None where it does not exist."""
        topic = self.topics.get(name)
        return topic if topic is not None and topic.next_offset > 0 else None

    def make_topic(self, name: str, encoded: bytes) -> Topic:
        """Return the topic, creating its page where it is new.

        Raises: StorageError: nothing changed. A topic without entries is not there for users.
        """
        with self._create_lock:
            self.gate.check_call()
            topic = self.topics.get(name)
            if topic is None:
                random_bytes = self.options.random_bytes or os.urandom
                incarnation = int.from_bytes(random_bytes(8), "little")
                page = self.cursors.find(fmt.PAGE_TOPIC, encoded)
                if page is None:
                    page = self.cursors.add(fmt.PAGE_TOPIC, incarnation, encoded)
                topic = self._new_topic(name, page)
                self._cursors_by_topic[name] = {}
                self._add_cursor(topic, DEFAULT_CURSOR, None)
                self.topics[name] = topic
            return topic

    def _new_topic(self, name: str, page: CursorPage) -> Topic:
        return Topic(
            name,
            page,
            self.allocator,
            self.syncer,
            self.gate,
            self.options.clock,
            self.express_in_flight,
            is_synced_each=self._waits,
        )

    def _add_cursor(self, topic: Topic, name: str, page: Any) -> Cursor:
        known = self._cursors_by_topic[topic.name]
        if name not in known:
            known[name] = Cursor(name, topic, self.cursors, self.syncer, page)
        return known[name]

    def cursor(self, topic: Topic, name: str) -> Cursor:
        """Return a cursor of the topic; a new one starts at the oldest entry.

        A new one is kept only by ``keep_cursor``: asking after a name or peeking through it must
        not hold back the reclaim of blocks.
        """
        known = self._cursors_by_topic[topic.name].get(name)
        return Cursor(name, topic, self.cursors, self.syncer, None) if known is None else known

    def keep_cursor(self, cursor: Cursor) -> None:
        """Keep a cursor that is about to move. The caller holds the topic's read lock."""
        known = self._cursors_by_topic[cursor.topic.name]
        if cursor.name not in known:
            with self.reclaimer.lock:
                known.setdefault(cursor.name, cursor)

    def forget_unmoved(self, cursor: Cursor) -> None:
        """Take back ``keep_cursor`` for a new one whose first move failed: it must not hold back reclaim."""
        if not cursor.is_there:
            with self.reclaimer.lock:
                self._cursors_by_topic[cursor.topic.name].pop(cursor.name, None)

    def visible_end(self, topic: Topic) -> int:
        """Return the offset below which readers see entries.

        Raises: PoisonedError is for the caller to decide; after a failure only durable ones count.
        """
        if self._waits or self.gate.failure is not None:
            return topic.durable_offset
        return topic.next_offset

    def note_damage(self, damage: Damage) -> None:
        """Keep, log and announce damage; the same damage once."""
        if damage in self.damages:
            return
        if len(self.damages) < DAMAGES_KEPT:
            self.damages[damage] = None
        self.gate.warn("damaged bytes: %s", damage)
        self.events.corruption_found(damage)

    def _sealed(self, block: Block, topic: Syncable) -> None:
        if isinstance(topic, Topic):
            self.events.block_sealed(block.info(topic.name))

    # --- background ---------------------------------------------------------------------------

    def request_reclaim(self, topic: Topic) -> None:
        """Let the flusher give blocks back, if there are any."""
        if self.reclaimer.request(topic):
            self._flusher.wake()

    def tick(self) -> bool:
        """Sync and reclaim, on the flusher's thread. Returns: whether something is left."""
        if self.gate.blocks_writes or self.gate.state != OPEN:
            self.syncer.awaiting.tell()
            return False
        try:
            with self.door.enter("background work"):
                self.syncer.sync_in_flight(self.express_in_flight, self._waits)
                self.reclaimer.run()
        except (StorageError, UsageError) as error:
            # A usage error here says that the log was closed or dropped meanwhile. A failed sync
            # has poisoned the log; a full disk waits for space: the next tick tries.
            self.gate.warn("background work on %s: %s", self.options.path, error)
        except Exception as error:
            self.fail(error)
        return not self.syncer.is_idle and self.options.fsync_schedule.kind != "never"

    def fail(self, error: BaseException) -> None:
        """Take no more writes: a defect of ours, or SystemExit, must not end syncing in silence."""
        failure = StorageError(path=self.options.path, operation="sync", errno=None, reason=repr(error))
        self.gate.poison(failure)
        self.syncer.awaiting.tell()

    def request_sync(self) -> bool:
        """Let the flusher sync what is in flight, where no schedule does. Returns: whether it will come."""
        return self.options.fsync_schedule.kind == "interval" or self._flusher.wake()

    def sync(self) -> None:
        """Make all entries and all cursors durable. Raises: SyncFailedError, PoisonedError."""
        with self.door.enter("a sync"):
            self.gate.check_call()
            self.syncer.sync()
            failure = self.persist_cursors()
            self._reclaim_all()
        if failure is not None:
            raise failure

    def _reclaim_all(self) -> None:
        for topic in self.live_topics():
            self.reclaimer.request(topic)
        self.reclaimer.run()

    def persist_cursors(self) -> Optional[StorageError]:
        """Make every cursor's position durable. The entries must be durable. As ``persist_moved``."""
        return persist_moved(
            self.live_topics(), lambda topic: list(self._cursors_by_topic[topic.name].values()), self.cursors
        )

    # --- close --------------------------------------------------------------------------------

    def close(self) -> None:
        """Sync, persist cursors, join the thread, give everything back. Idempotent, interrupted or not.

        Raises: the first error, once; everything is given back all the same. ReentrantCallError:
        called by a signal handler inside another call; nothing changed.
        """
        if self.gate.state == FORKED:
            return  # in the child whatever a thread of the parent was at, and held, is so for ever
        with self.door.enter("a close"), self._close_lock:
            if self._is_released:
                return
            try:
                if self.gate.state == OPEN:
                    self.gate.shut()
                self._flusher.stop(wait=True)
                self._drain()
                if self.gate.blocks_writes:
                    self.syncer.awaiting.tell()  # that nothing becomes durable any more
                else:
                    self._finish_cleanly()
            finally:
                # Others may still wait for a sync: nobody is told durable what is dropped from memory now.
                self._release([self.syncer.end])

    def _drain(self) -> None:
        """Wait for calls that began before the gate was shut; drop what they left unpublished."""
        for topic in list(self.topics.values()):
            with topic.lock:
                topic.bar()
                topic.settle()
            with topic.read_lock:
                pass

    def _finish_cleanly(self) -> None:
        self.syncer.sync()
        failure = self.persist_cursors()
        self._reclaim_all()
        self.allocator.discard_spares()
        for topic in self.live_topics():
            self._mark_clean(topic)
        self.files.sync(self.files.dirty_files())
        if not self.cursors.is_clean:
            # Last of all: the marks it vouches for are durable.
            self.cursors.set_clean(True)
        if failure is not None:
            raise failure

    def _mark_clean(self, topic: Topic) -> None:
        """Write where the topic ends, and that nothing stands behind the last frame, where that is so."""
        if topic.page.state.floor < topic.next_offset and not topic.page.damaged:
            self.cursors.write_state(topic.page, floor=topic.next_offset)
        block = topic.active
        tail = None if block is None else block.tail
        if block is None or tail is None:
            return
        if not tail.torn and block.is_clean and block.marked_at == tail.state[0]:
            return
        # Behind the last frame may stand those of a batch that was interrupted: the block ends before them.
        block.write_mark(block.state, fmt.MARK_SEALED if tail.torn else fmt.MARK_CLEAN)

    def _release(self, steps: list[Callable[[], object]]) -> None:
        """Give back what is held, whatever state it is in; can be done again. Raises: the first error.
        ``steps`` are those that come when nothing can be written any more."""
        # Until the thread has ended, which may be removing a file, the directory must be nobody else's.
        errors = self._flusher.end()
        steps = [lambda: self.gate.leave(CLOSED), *steps]
        steps += [topic.close_tails for topic in self.topics.values()]
        steps += [self.files.close, self.backend.close]
        errors += lifetime.give_back(steps)
        if self._lock is not None:
            self._lock.release()
        self._is_released = True
        if errors:
            first = errors[0]
            raise storage_error(first, self.options.path, "close") if isinstance(first, OSError) else first

    def abandon(self) -> None:
        """The log was dropped unclosed: stop the thread, write nothing, promise nothing."""
        if self.gate.state == OPEN:
            self.gate.leave(CLOSED)
            self._flusher.stop(wait=False)
            if self._lock is not None:
                self._lock.leave()
                self._flusher.run_last(self._lock.drop)

    def after_fork(self) -> None:
        """In a forked child: every call raises ForkedError, even where a thread of the parent was closing."""
        self._flusher.forget_in_child()
        if not self._is_released:
            self.gate.leave(FORKED)


def _resolve(options: Options, quiet: bool) -> tuple[Options, Backend, Events]:
    """Return the options with the directory's path as it stays, the backend and the observers of a log."""
    backend = backend_of(options)
    try:
        if backend.capabilities.files:
            options = evolve(options, path=absolute(options.path))
        return options, backend, Events(observers_of(options), quiet)
    except BaseException:
        backend.close()
        raise
