"""A log beside a list model of it: what must be there after an interrupt, a fault, a kill.

``Ledger`` runs operations on a log and on the model. ``Effect`` says what one more operation does, if
it happens; after it was struck, every look at the log must find it wholly done or not at all.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import threading
import weakref
from collections.abc import Callable
from random import Random
from typing import Any, Optional

from attrs import define, field

from walrus_core import ReadConsistency, Walrus
from walrus_core.memory import MemoryBackend, MemoryStore
from walrus_core.testing import TORN_SECTOR_DAMAGES, FaultyBackend, judge

PATH = "/log"
DEFAULT = "default"
WHOLE_BLOCK = 12_000
"""An entry of this length has a block of 16 KiB for itself."""
HANG_S = 30.0

Place = tuple[str, str]
"""(topic, cursor)."""


@define
class Effect:
    """What an operation adds and where it moves cursors, if it happens."""

    added: dict[str, list[bytes]] = field(factory=dict)
    moves: dict[Place, int] = field(factory=dict)
    saves: bool = False
    """Cursors may become durable where they stand."""
    tears: bool = False
    """A write may have ended inside a sector, which is reported and costs nothing."""


@define
class Model:
    """What the log holds. Entries are by offset; what was reclaimed is still in the lists."""

    entries: dict[str, list[bytes]] = field(factory=dict)
    position: dict[Place, int] = field(factory=dict)
    saved: dict[Place, int] = field(factory=dict)
    """The lowest position that may be durable."""
    in_doubt: dict[Place, set[int]] = field(factory=dict)
    """Positions that a struck operation may have made durable, until the next checkpoint."""
    maybe: dict[str, list[list[bytes]]] = field(factory=dict)
    """Appends that failed behind the end as it is: after a crash one of them may be there."""
    refused: dict[str, list[tuple[int, list[bytes]]]] = field(factory=dict)
    """Of these, (offset, payloads) of those behind which others were acknowledged since: a write that
    failed with all that counts written is found after a power cut that takes the others."""
    inside: dict[str, set[int]] = field(factory=dict)
    """Offsets inside a batch: no topic ends there."""

    def add(self, topic: str, payloads: list[bytes]) -> None:
        """Note a batch."""
        known = self.entries.setdefault(topic, [])
        refused = [(len(known), way) for way in self.maybe.pop(topic, []) if way != payloads]
        self.refused.setdefault(topic, []).extend(refused)
        self.inside.setdefault(topic, set()).update(range(len(known) + 1, len(known) + len(payloads)))
        known.extend(payloads)
        self.position.setdefault((topic, DEFAULT), 0)
        self.saved.setdefault((topic, DEFAULT), 0)


def copy_store(store: MemoryStore) -> MemoryStore:
    """Return what a kill of the process leaves: everything written."""
    other = MemoryStore()
    with store.lock:
        other.files = copy.deepcopy(store.files)
        other.directories = set(store.directories)
    return other


class Ledger:
    """One log in a memory store, opened through a faulty backend, and its model."""

    def __init__(
        self, options: dict[str, Any], store: Optional[MemoryStore] = None, model: Optional[Model] = None
    ) -> None:
        """``store`` and ``model`` are copied."""
        self.options = options
        self.store = MemoryStore() if store is None else copy_store(store)
        self.model = Model() if model is None else copy.deepcopy(model)
        self.backend = FaultyBackend(MemoryBackend(store=self.store))
        self.backend.open_files = weakref.WeakSet()
        self.wal: Any = None
        self._ticks = 0
        self._opened = 0
        self.persist_every = options.get("consistency", ReadConsistency.strictly_at_once()).persist_every

    # --- operations ---------------------------------------------------------------------------

    def _now(self) -> int:
        self._ticks += 1
        return self._ticks

    def open(self) -> Walrus:
        """Open the log and keep it. The clock and the random numbers are the same in each run."""
        self._opened += 1
        self.wal = open_on(self.backend, self.options, self._opened, self._now)
        return self.wal

    def append(self, topic: str, data: bytes) -> None:
        """Append, and check the offset."""
        found = self.wal.append_for_topic(topic, data)
        self.model.add(topic, [data])
        assert found == len(self.model.entries[topic]) - 1, f"offset {found} of {topic}"

    def batch(self, topic: str, payloads: list[bytes]) -> None:
        """Append a batch, and check the offsets."""
        found = self.wal.batch_append_for_topic(topic, payloads)
        start = len(self.model.entries.get(topic, []))
        self.model.add(topic, payloads)
        assert found == range(start, start + len(payloads)), f"offsets {found} of {topic}"

    def read(self, topic: str, count: int = 1, cursor: str = DEFAULT) -> None:
        """Consume ``count`` entries one by one, and check them."""
        for _ in range(count):
            place = (topic, cursor)
            position = self.model.position.setdefault(place, 0)
            entry = self.wal.read_next(topic, cursor=cursor)
            assert entry is not None, f"nothing at {position} of {topic}"
            expected = (position, self.model.entries[topic][position])
            assert (entry.offset, entry.data) == expected
            self._moved(place, position + 1)

    def read_rest(self, topic: str, cursor: str = DEFAULT) -> None:
        """Consume everything by batch reads, and check it."""
        place = (topic, cursor)
        expected = self.model.entries[topic]
        position = self.model.position.setdefault(place, 0)
        while entries := self.wal.batch_read_for_topic(topic, cursor=cursor):
            assert [e.offset for e in entries] == list(range(position, position + len(entries)))
            assert [e.data for e in entries] == expected[position : position + len(entries)]
            position += len(entries)
        assert position == len(expected), f"{topic} ends at {position}, not at {len(expected)}"
        self._moved(place, position)

    def _moved(self, place: Place, position: int) -> None:
        """Fewer than ``persist_every`` consumed entries lack a durable checkpoint when a read returns."""
        self.model.position[place] = position
        saved = position - self.persist_every + 1
        if saved > self.model.saved.get(place, 0):
            self.model.saved[place] = saved
            self.model.in_doubt.pop(place, None)

    def seek(self, topic: str, offset: int, cursor: str = DEFAULT) -> None:
        """Set a cursor."""
        self.wal.seek(topic, offset, cursor)
        self.model.position[topic, cursor] = self.model.saved[topic, cursor] = offset
        self.model.in_doubt.pop((topic, cursor), None)

    def sync(self) -> None:
        """Sync, and check what the log says of itself."""
        self.wal.sync()
        for place, position in self.model.position.items():
            self.model.saved[place] = position
        for topic, entries in self.model.entries.items():
            assert self.wal.durable_offset(topic) == len(entries), topic

    def close(self) -> None:
        """Close and drop the log; no file may stay open that anyone still refers to.

        An interrupt between the opening of a file and the note of it leaves it to its finaliser.
        """
        self.wal.close()
        self.wal = None
        if self.backend.open_files:
            gc.collect()
        assert not self.backend.open_files, "files stay open behind a close"

    # --- what must hold -----------------------------------------------------------------------

    def killed(self) -> MemoryStore:
        """Return what a kill leaves now."""
        return copy_store(self.store)

    def settle(self, effect: Effect, happened: bool = False, is_reopened: bool = False) -> None:
        """Find out whether the operation happened, by its effects on the living log.

        The next append tells what the topic held; every look before it must agree. ``happened``:
        it was not struck, so it did. ``is_reopened``: cursors may stand where they were durable.
        """
        wal, model = self.wal, self.model
        for topic in {"a", *model.entries, *effect.added}:
            old = model.entries.get(topic, [])
            added = effect.added.get(topic, [])
            seen = wal.next_offset(topic)
            assert seen in (len(old), len(old) + len(added)), f"{topic} ends at {seen}"
            visible = [entry.data for entry in wal.topic(topic)]
            oldest = wal.oldest_offset(topic)
            check_visible(visible, old, [[], added], oldest, f"living log, {topic}")
            offset = wal.append_for_topic(topic, b"next")
            assert offset in (len(old), len(old) + len(added)), f"next entry of {topic} got {offset}"
            if offset == len(old) + len(added) and added:
                model.add(topic, added)
            else:
                assert len(visible) + oldest <= len(old), "an entry was visible and went away"
                assert not happened or not added, f"{topic} misses {added}"
            model.add(topic, [b"next"])
        self._settle_cursors(effect, happened, is_reopened)

    def _settle_cursors(self, effect: Effect, happened: bool, is_reopened: bool) -> None:
        model = self.model
        for place, moved in {**model.position, **effect.moves}.items():
            before = model.position.get(place, 0)
            allowed = {moved} if happened else {before, moved}
            if is_reopened:
                allowed |= set(range(model.saved.get(place, 0), before + 1))
            found = self.wal.cursor_offset(*place)
            assert found in allowed, f"cursor {place} stands at {found}, not in {allowed}"
            assert self.wal.oldest_offset(place[0]) <= max(allowed), "unread entries were reclaimed"
            # What is durable may be either, until the next checkpoint.
            model.in_doubt.setdefault(place, set()).add(moved)
            model.saved[place] = min(model.saved.get(place, 0), found)
            model.position[place] = found

    def adopt(self) -> None:
        """Take over what an opened log holds, where the model left it in doubt. ``check_log`` comes first."""
        wal, model = self.wal, self.model
        for topic, ways in model.maybe.items():
            old = model.entries.get(topic, [])
            oldest = wal.oldest_offset(topic)
            found = [entry.data for entry in wal.topic(topic)]
            added = next((way for way in ways if found == (old + way)[oldest:] and way), [])
            if added:
                model.entries.setdefault(topic, []).extend(added)
        model.maybe.clear()
        model.in_doubt.clear()
        for place in {*model.position, *((topic, DEFAULT) for topic in model.entries)}:
            model.position[place] = model.saved[place] = wal.cursor_offset(*place)

    def go_on(self) -> None:
        """Use every part of the log, on this thread and on another one that finds no lock taken."""
        model = self.model
        self.batch("a", [b"n1", b"n2" * 50, b"n3"])
        self.append("fresh", b"f1")
        self.read("a")
        on_another_thread(self._go_on_there)
        self.seek("a", max(len(model.entries["a"]) - 2, self.wal.oldest_offset("a")))
        self.read_rest("a")
        self.append("a", b"w" * WHOLE_BLOCK)
        self.append("a", b"x" * WHOLE_BLOCK)
        self.append("a", b"end")

    def _go_on_there(self) -> None:
        self.append("a", b"there")
        self.append("fresher", b"f2")
        self.read("a")
        entry = self.wal.read_next("a", checkpoint=False)
        assert entry is not None
        assert entry.data == self.model.entries["a"][self.model.position["a", DEFAULT]]
        self.wal.mark_topic_clean("fresh")
        assert self.wal.topic_is_clean("fresh")
        self.sync()


def open_on(backend: Any, options: dict[str, Any], seed: int, clock: Callable[[], int]) -> Walrus:
    """Open the log in a memory store."""
    return Walrus(PATH, backend=backend, random_bytes=Random(seed).randbytes, clock=clock, **options)


def on_another_thread(work: Callable[[], object]) -> None:
    """Run ``work`` on a thread of its own. Raises: what it raises; AssertionError where it hangs."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANG_S)
    assert not thread.is_alive(), "another thread hangs: a lock is held by nobody who would release it"
    if errors:
        raise errors[0]


def check_visible(
    visible: list[bytes], old: list[bytes], ways: list[list[bytes]], oldest: int, where: str
) -> None:
    """What is retained from ``oldest`` on is all of ``old``, with all of one of ``ways`` behind it."""
    findings = [judge(where, old + added, list(enumerate(visible, oldest)), oldest=oldest) for added in ways]
    if all(findings):
        raise AssertionError(
            f"{where}: {shorten(visible)}, from {oldest}: {'; '.join(map(str, findings[-1]))}"
        )


def shorten(payloads: list[bytes]) -> str:
    """Describe payloads so that a message stays readable."""
    return str([data if len(data) < 12 else f"{data[:8]!r}*{len(data)}" for data in payloads])


# --- images: what a crash at this moment would leave ---------------------------------------------


class Images:
    """Opens images of crashed logs and compares them with the model; equal images only once."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._seen: set[bytes] = set()

    def check(
        self,
        store: MemoryStore,
        model: Model,
        effect: Effect,
        where: str,
        durable: Optional[dict[str, int]] = None,
    ) -> None:
        """Open ``store``. After a kill everything written is there; with ``durable``, after power loss,
        at least what lies below these offsets."""
        digest = hashlib.blake2b(repr((model, effect, durable is None, durable)).encode())
        for path, data in sorted(store.files.items()):
            digest.update(path.encode() + b"\0" + len(data).to_bytes(8, "little"))
            digest.update(data)
        if digest.digest() in self._seen:
            return
        wal = open_on(MemoryBackend(store=store), self._options, 10**6, lambda: 1)
        try:
            check_log(wal, model, effect, where, durable)
        finally:
            wal.close()
        self._seen.add(digest.digest())


def check_log(
    wal: Walrus, model: Model, effect: Effect, where: str, durable: Optional[dict[str, int]]
) -> None:
    """Compare a log that was opened after a crash with the model, before it is used."""
    tolerated = TORN_SECTOR_DAMAGES if effect.tears else frozenset()
    harmful = [damage for damage in wal.recovery_report.damages if damage.kind not in tolerated]
    assert harmful == [], f"{where}: {harmful}"
    check_slots(wal, where)
    for topic in set(model.entries) | set(model.maybe) | set(effect.added) | set(wal.topics()):
        old = model.entries.get(topic, [])
        ways = [[], effect.added.get(topic, []), *model.maybe.get(topic, [])]
        visible = [entry.data for entry in wal.topic(topic)]
        oldest = wal.oldest_offset(topic)
        if durable is None:
            check_visible(visible, old, ways, oldest, f"{where}, {topic}")
            continue
        end = oldest + len(visible)
        for start, way in model.refused.get(topic, []):
            if durable.get(topic, 0) <= start and start + len(way) == end:
                old, ways = (old[:start], [way]) if visible == (old[:start] + way)[oldest:] else (old, ways)
        fits = [added for added in ways if visible == (old + added)[oldest:end]]
        assert fits, f"{where}, {topic}: {shorten(visible)} from {oldest}"
        assert end >= durable.get(topic, 0), f"{where}: {topic} ends at {end}, durable {durable[topic]}"
        inside = model.inside.get(topic, set())
        whole = end not in inside if end <= len(old) else any(end == len(old) + len(way) for way in fits)
        assert whole, f"{where}: half a batch, {topic} ends at {end}"
    for place in {**model.position, **effect.moves}:
        check_cursor(wal, model, effect, place, where)


def check_cursor(wal: Walrus, model: Model, effect: Effect, place: Place, where: str) -> None:
    """A cursor stands between what was durable and where it stood, or where the operation set it."""
    found, oldest = wal.cursor_offset(*place), wal.oldest_offset(place[0])
    low, high = model.saved.get(place, 0), model.position.get(place, 0)
    moved = effect.moves.get(place, high)
    if high == 0 and place[1] != DEFAULT and found == oldest:
        return  # never moved: it holds nothing back, and begins at the oldest entry
    assert low <= found <= high or found in {moved, *model.in_doubt.get(place, ())}, (
        f"{where}: cursor {place} stands at {found}, not in [{low}, {high}] or at {moved}"
    )
    assert oldest <= max(high, moved, *model.in_doubt.get(place, ())), (
        f"{where}: {place} unread entries were reclaimed"
    )


def check_slots(wal: Walrus, where: str) -> None:
    """Every slot is free or holds a block of a topic: none is lost."""
    held: dict[int, int] = {}
    for topic in wal._engine.topics.values():
        for block in topic.blocks:
            held[block.segment.sequence] = held.get(block.segment.sequence, 0) + block.header.slots
    for segment in wal._engine.allocator.segments.values():
        used = segment.header.slot_count - len(segment.free)
        assert used == held.get(segment.sequence, 0), f"{where}: slots of {segment.sequence} are lost"
        assert not segment.quarantined, where
    names = [name for name in wal._engine.backend.list(PATH) if name.endswith(".free")]
    assert names == [], f"{where}: {names}"
