"""Random steps on a log that tell, line by line, what is about to happen and what has returned.

Runs in the processes that are killed or lose their disk; ``ledger`` is the other end. It knows
payloads by (topic, serial), so a line names them instead of carrying them.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Optional

from walrus_core import FsyncSchedule, ReadConsistency, Walrus

BLOCK_BYTES = 16384
BLOCKS_PER_SEGMENT = 4
CURSORS = ("default", "other")
SHARES = {"append": 10.0, "batch": 3.0, "read": 4.0, "read_batch": 2.0, "sync": 0.4}
"""How often each step is taken, in proportion."""

Say = Callable[..., None]


@functools.lru_cache(maxsize=8192)
def payload(seed: str, topic: str, serial: int) -> bytes:
    """Return the bytes of an entry, which name it; most are short, some need blocks of their own."""
    random = Random(f"{seed} {topic} {serial}")
    kind = random.random()
    if kind < 0.7:
        length = random.randint(0, 300)
    elif kind < 0.95:
        length = random.randint(300, 6000)
    else:
        length = random.randint(6000, 40_000)
    head = b"<%s %d>" % (topic.encode(), serial)
    return head + (random.randbytes(length) if kind < 0.9 else bytes(length))


class Reporter:
    """Writes lines to a descriptor, each at once, so that a line that was begun is whole.

    A line begins with the size of the disk's journal and the time, both taken before it is written:
    what it tells was so when the disk had done that much and not more.
    """

    def __init__(self, descriptor: int, journal: Optional[str] = None) -> None:
        self._descriptor = descriptor
        self._journal = journal

    def __call__(self, *words: object) -> None:
        """Write one line."""
        size_bytes = os.stat(self._journal).st_size if self._journal else 0
        line = " ".join(map(str, (size_bytes, time.monotonic_ns(), *words))) + "\n"
        os.write(self._descriptor, line.encode())


def make_backend(kind: str, options: dict[str, Any]) -> Any:
    """Return a new backend object."""
    if kind == "fd":
        from walrus_fd.backend import FdBackend

        return FdBackend(**options)
    from walrus_mmap.backend import MmapBackend

    return MmapBackend(**options)


def open_log(directory: str, config: dict[str, Any], **more: Any) -> Walrus:
    """Open the log that ``config`` describes, with small blocks: steps cross blocks and segments.

    ``config`` has backend, schedule, persist_every; may have io_uring and durable_writes.
    """
    durable = {"durable_writes": True} if config.get("durable_writes") else {}
    ring = {"io_uring": config.get("io_uring", "off")} if config["backend"] == "fd" else {}
    options: dict[str, Any] = {
        "backend": make_backend(config["backend"], {**durable, **ring}),
        "fsync_schedule": FsyncSchedule.parse(config["schedule"]),
        "consistency": ReadConsistency.at_least_once(config["persist_every"]),
        "block_size": BLOCK_BYTES,
        "blocks_per_segment": BLOCKS_PER_SEGMENT,
        **durable,
        **more,
    }
    return Walrus(directory, **options)


class Steps:
    """Takes random steps on the topics that are its own; no other thread touches them."""

    def __init__(
        self,
        wal: Walrus,
        random: Random,
        topics: Sequence[str],
        seed: str,
        first_serial: int,
        say: Say,
        shares: Optional[dict[str, float]] = None,
    ) -> None:
        """``first_serial`` lies above every serial that was used for these topics before."""
        self.wal = wal
        self.random = random
        self.topics = topics
        self.seed = seed
        self.say = say
        self._serials = dict.fromkeys(topics, first_serial)
        self._shares = SHARES if shares is None else shares

    def opened(self) -> None:
        """Tell what the log holds now that it is open; all of that is durable."""
        for topic in self.topics:
            self.say("opened", topic, self.wal.next_offset(topic), self.wal.durable_offset(topic))
            oldest = self.wal.oldest_offset(topic)
            for cursor in CURSORS:
                self.say("stands", topic, cursor, self.wal.cursor_offset(topic, cursor), oldest)

    def step(self) -> None:
        """Take one step. Raises: whatever the log raises; the line that says so is for the caller."""
        topic = self.random.choice(self.topics)
        name = self.random.choices(list(self._shares), list(self._shares.values()))[0]
        getattr(self, name)(topic)

    def _next_payloads(self, topic: str, count: int) -> list[bytes]:
        first = self._serials[topic]
        self._serials[topic] += count
        self.say("append", topic, first, count)
        return [payload(self.seed, topic, serial) for serial in range(first, first + count)]

    def _appended(self, topic: str, next_offset: int) -> None:
        self.say("appended", topic, next_offset, self.wal.durable_offset(topic))

    def append(self, topic: str) -> None:
        """Append one entry."""
        (data,) = self._next_payloads(topic, 1)
        self._appended(topic, self.wal.append_for_topic(topic, data) + 1)

    def batch(self, topic: str) -> None:
        """Append a batch, now and then a large one."""
        count = self.random.choice([1, 2, 3, self.random.randint(1, 12), self.random.randint(1, 40)])
        batch = self._next_payloads(topic, count)
        self._appended(topic, self.wal.batch_append_for_topic(topic, batch).stop)

    def _read(self, topic: str, count: int) -> None:
        cursor = self.random.choice(CURSORS)
        at = self.wal.cursor_offset(topic, cursor)
        end = self.wal.next_offset(topic)
        self.say("read", topic, cursor, at, min(at + count, end), end)
        if count == 1:
            entry = self.wal.read_next(topic, cursor=cursor)
            offsets = [] if entry is None else [entry.offset]
        else:
            entries = self.wal.batch_read_for_topic(topic, 1 << 30, max_entries=count, cursor=cursor)
            offsets = [entry.offset for entry in entries]
        # A cursor that is new begins at the oldest entry, which may be another one by now.
        first = offsets[0] if offsets else at
        assert offsets == list(range(first, min(first + count, end))), f"{topic}: {offsets} read at {at}"
        self.say("moved", topic, cursor, first, first + len(offsets))

    def read(self, topic: str) -> None:
        """Consume one entry."""
        self._read(topic, 1)

    def read_batch(self, topic: str) -> None:
        """Consume much, so that blocks can be given back."""
        self._read(topic, self.random.choice([5, 50, 1000]))

    def sync(self, _topic: str) -> None:
        """Sync everything."""
        self.wal.sync()
        for topic in self.topics:
            self.say("synced", topic, self.wal.durable_offset(topic))
