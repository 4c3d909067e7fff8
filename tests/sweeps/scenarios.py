"""The operations that are interrupted: how the log is prepared, what is called, what it does."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from typing import Any

from attrs import define, field

from walrus_core import FsyncSchedule, ReadConsistency
from walrus_core.errors import StorageError

from .ledger import WHOLE_BLOCK, Effect, Ledger

SMALL = {"block_size": 16384, "blocks_per_segment": 2}
SCHEDULES = {"never": FsyncSchedule.no_fsync(), "each": FsyncSchedule.sync_each()}
DAY_MS = 86_400_000
LOOSE = {"consistency": ReadConsistency.at_least_once(3)}
BIG = b"B" * WHOLE_BLOCK
X = b"x" * 30


def nothing(_ledger: Ledger) -> None:
    """No preparation."""


@define
class Scenario:
    """One operation. ``build`` makes the directory, once; ``warm`` runs before each call, after opening."""

    name: str
    act: Callable[[Ledger], Any]
    effect: Effect = field(factory=Effect)
    build: Callable[[Ledger], None] = nothing
    warm: Callable[[Ledger], None] = nothing
    options: dict[str, Any] = field(factory=dict)
    is_killed: bool = False
    """The directory is left as a kill leaves it, not as a close does."""
    is_open: bool = True
    """The log is open when the operation begins."""


def append(topic: str, data: bytes) -> Callable[[Ledger], Any]:
    """Return the append of one entry."""
    return lambda ledger: ledger.wal.append_for_topic(topic, data)


def batch(topic: str, payloads: list[bytes]) -> Callable[[Ledger], Any]:
    """Return the append of a batch."""
    return lambda ledger: ledger.wal.batch_append_for_topic(topic, payloads)


def two_topics(ledger: Ledger) -> None:
    """Some entries in two topics."""
    for number in range(3):
        ledger.append("a", b"a%d" % number)
    ledger.append("b", b"b0")


def five_unread(ledger: Ledger) -> None:
    """Entries over two blocks, nothing read."""
    two_topics(ledger)
    ledger.batch("a", [b"c1", b"c2"])
    ledger.append("a", BIG)


def dirty(ledger: Ledger) -> None:
    """One more entry, so that the log is no longer clean and the topic is dirty (unless sync-each)."""
    ledger.append("a", b"dirty")


def synced(ledger: Ledger) -> None:
    """Neither clean nor dirty."""
    dirty(ledger)
    ledger.sync()


def tight(ledger: Ledger) -> None:
    """A block whose reservation the last batch has used up."""
    ledger.batch("a", [b"t" * 60_000, b"t" * 9_000])


def block_full(ledger: Ledger) -> None:
    """A segment with one free slot; the active block is nearly full."""
    ledger.append("a", BIG)


def segment_full(ledger: Ledger) -> None:
    """All slots in use, the active block nearly full."""
    ledger.append("a", BIG)
    ledger.append("b", BIG)
    ledger.append("b", BIG)
    ledger.append("a", BIG)


def all_pages_used(ledger: Ledger) -> None:
    """cursors.db has no free page."""
    ledger.append("a", b"0")
    for number in range(13):
        ledger.seek("a", 1, f"c{number}")


def consumed_blocks(ledger: Ledger) -> None:
    """Three full blocks of topic a, in two segments, all but the last entry consumed."""
    ledger.append("a", b"a0")
    for _ in range(3):
        ledger.append("a", BIG)
    ledger.append("b", b"b0")
    ledger.sync()
    ledger.append("a", BIG)
    ledger.seek("a", 4)
    ledger.append("a", b"late")


def read_two(ledger: Ledger) -> None:
    """The window is filled, the cursor has a page."""
    dirty(ledger)
    ledger.read("a", 2)


def read_one(ledger: Ledger) -> None:
    """One entry consumed."""
    dirty(ledger)
    ledger.read("a", 1)


def unclean(ledger: Ledger) -> None:
    """What a killed process leaves: unsealed blocks of three topics, part of a batch, a torn frame."""
    five_unread(ledger)
    ledger.append("c", b"c0")
    ledger.read("a", 2)
    ledger.sync()
    ledger.append("b", b"b1")
    ledger.backend.during("write", _interrupt, suffix=".wal", skip=4)
    with contextlib.suppress(KeyboardInterrupt):
        ledger.wal.batch_append_for_topic("a", [b"torn"] * 3 + [BIG, BIG, b"end"])
    ledger.backend.fail("write", number=errno.EIO, suffix=".wal", written=40)
    with contextlib.suppress(StorageError):
        ledger.wal.append_for_topic("b", b"torn" * 10)


def _interrupt() -> None:
    raise KeyboardInterrupt


READS = [
    Scenario(
        "read_strict_first",
        lambda ledger: ledger.wal.read_next("a"),
        Effect(moves={("a", "default"): 1}),
        five_unread,
    ),
    Scenario(
        "read_strict",
        lambda ledger: ledger.wal.read_next("a"),
        Effect(moves={("a", "default"): 3}),
        five_unread,
        read_two,
    ),
    Scenario(
        "read_loose_persists",
        lambda ledger: ledger.wal.read_next("a"),
        Effect(moves={("a", "default"): 3}),
        five_unread,
        read_two,
        LOOSE,
    ),
    Scenario(
        "read_loose",
        lambda ledger: ledger.wal.read_next("a"),
        Effect(moves={("a", "default"): 2}),
        five_unread,
        read_one,
        LOOSE,
    ),
    Scenario(
        "read_other_cursor",
        lambda ledger: ledger.wal.read_next("a", cursor="other"),
        Effect(moves={("a", "other"): 1}),
        five_unread,
        dirty,
    ),
    Scenario(
        "batch_read",
        lambda ledger: ledger.wal.batch_read_for_topic("a"),
        Effect(moves={("a", "default"): 7}),
        five_unread,
        read_one,
    ),
    Scenario("peek", lambda ledger: ledger.wal.read_next("a", checkpoint=False), build=five_unread),
    Scenario(
        "batch_read_stateless",
        lambda ledger: ledger.wal.batch_read_for_topic("a", start_offset=1),
        build=five_unread,
    ),
    Scenario(
        "seek_on",
        lambda ledger: ledger.wal.seek("a", 4),
        Effect(moves={("a", "default"): 4}),
        five_unread,
        read_two,
    ),
    Scenario(
        "seek_back",
        lambda ledger: ledger.wal.seek("a", 1),
        Effect(moves={("a", "default"): 1}),
        five_unread,
        read_two,
        LOOSE,
    ),
]

APPENDS = [
    Scenario("append", append("a", X), Effect({"a": [X]}), two_topics, dirty),
    Scenario("append_express", append("a", X), Effect({"a": [X]}), two_topics, dirty),
    Scenario("append_after_open", append("a", X), Effect({"a": [X]}), two_topics),
    Scenario("append_after_sync", append("a", X), Effect({"a": [X]}), two_topics, synced),
    Scenario(
        "append_reserves",
        append("a", X),
        Effect({"a": [X]}),
        warm=tight,
        options={"block_size": 262_144},
    ),
    Scenario("append_leases", append("a", BIG), Effect({"a": [BIG]}), warm=block_full),
    Scenario("append_creates_segment", append("a", BIG), Effect({"a": [BIG]}), warm=segment_full),
    Scenario("append_two_slots", append("a", BIG + BIG), Effect({"a": [BIG + BIG]}), two_topics, dirty),
    Scenario("first_append", append("new", X), Effect({"new": [X]}), two_topics, dirty),
    Scenario("first_append_of_log", append("a", X), Effect({"a": [X]})),
    Scenario("first_append_grows_cursors", append("new", X), Effect({"new": [X]}), all_pages_used, dirty),
    Scenario(
        "append_wakes_thread",
        append("a", X),
        Effect({"a": [X]}),
        two_topics,
        options={"fsync_schedule": FsyncSchedule.milliseconds(DAY_MS)},
    ),
    Scenario("batch", batch("a", [X, b"", BIG[:99]]), Effect({"a": [X, b"", BIG[:99]]}), two_topics, dirty),
    Scenario("batch_first", batch("new", [X, b"y"]), Effect({"new": [X, b"y"]}), two_topics, dirty),
    Scenario("batch_blocks", batch("a", [X, BIG, b"y"]), Effect({"a": [X, BIG, b"y"]}), two_topics, dirty),
    Scenario(
        "batch_segments",
        batch("a", [X, BIG, BIG, BIG, b"y"]),
        Effect({"a": [X, BIG, BIG, BIG, b"y"]}),
        two_topics,
        block_full,
    ),
    Scenario(
        "batch_reserves",
        batch("a", [X, b"y" * 70_000]),
        Effect({"a": [X, b"y" * 70_000]}),
        warm=tight,
        options={"block_size": 262_144},
    ),
]

OTHERS = [
    Scenario("sync", lambda ledger: ledger.wal.sync(), build=five_unread, warm=read_two, options=LOOSE),
    Scenario("sync_seals", lambda ledger: ledger.wal.sync(), build=two_topics, warm=segment_full),
    Scenario("sync_reclaims", lambda ledger: ledger.wal.sync(), warm=consumed_blocks),
    Scenario("mark_clean", lambda ledger: ledger.wal.mark_topic_clean("a"), build=two_topics, warm=dirty),
    Scenario("mark_dirty", lambda ledger: ledger.wal.mark_topic_dirty("a"), build=two_topics, warm=dirty),
    Scenario("close", lambda ledger: ledger.wal.close(), build=five_unread, warm=read_two, options=LOOSE),
    Scenario("close_reclaims", lambda ledger: ledger.wal.close(), warm=consumed_blocks),
    Scenario("open_new", lambda ledger: ledger.open(), is_open=False),
    Scenario("open_clean", lambda ledger: ledger.open(), build=five_unread, is_open=False),
    Scenario("open_unclean", lambda ledger: ledger.open(), build=unclean, is_killed=True, is_open=False),
    Scenario(
        "open_reclaims", lambda ledger: ledger.open(), build=consumed_blocks, is_killed=True, is_open=False
    ),
]

SCENARIOS = {scenario.name: scenario for scenario in [*APPENDS, *READS, *OTHERS]}
