"""A program that uses the public interface, for type checkers: `tox -e consumer` checks it, nothing runs it.

Every public call is here with the type that a caller gets, so that a checker which infers less, or
Any, fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Optional

from typing_extensions import assert_type

from walrus_core import (
    CorruptionError,
    Entry,
    FsyncSchedule,
    ReadConsistency,
    Walrus,
    WalrusBuilder,
    WalrusError,
    __version__,
)
from walrus_core.backend import BACKEND_API, Backend, Capabilities, SegmentFile
from walrus_core.config import Options
from walrus_core.errors import ChecksumError, LockedError, PluginError, StorageError, UsageError
from walrus_core.hookspecs import hookimpl
from walrus_core.memory import MemoryBackend
from walrus_core.types import Damage, RecoveryReport, SegmentInfo, TopicInfo


def write(wal: Walrus) -> None:
    """Everything that appends."""
    assert_type(wal.append_for_topic("t", b"one"), int)
    assert_type(wal.append_for_topic("t", bytearray(b"two")), int)
    assert_type(wal.append_for_topic("t", memoryview(b"three")), int)
    assert_type(wal.batch_append_for_topic("t", [b"a", b"b"]), range)
    assert_type(wal.batch_append_for_topic("t", (part for part in (b"a", b"b"))), range)
    assert_type(wal.append_nowait("t", b"four"), int)
    wal.wait_durable("t", 4)
    wal.sync()


async def write_awaiting(wal: Walrus) -> int:
    """The same from an event loop."""
    offset = await wal.append_async("t", b"five")
    assert_type(offset, int)
    return await wal.topic("t").append_async(b"more")


def read(wal: Walrus) -> Iterator[bytes]:
    """Everything that reads."""
    entry = wal.read_next("t")
    assert_type(entry, Optional[Entry])
    if entry is not None:
        assert_type(entry.offset, int)
        assert_type(entry.timestamp, int)
        assert_type(entry.data, bytes)
    assert_type(wal.read_next("t", checkpoint=False, cursor="mine", on_corruption="skip"), Optional[Entry])
    assert_type(wal.batch_read_for_topic("t", 1 << 20), list[Entry])
    topic = wal.topic("t")
    assert_type(topic.name, str)
    assert_type(topic.append(b"six"), int)
    assert_type(topic.append_nowait(b"seven"), int)
    topic.wait_durable(7)
    assert_type(topic.append_batch([b"c", b"d"]), range)
    assert_type(topic.read(checkpoint=False), Optional[Entry])
    for one in topic:
        assert_type(one, Entry)
        yield one.data


def facts(wal: Walrus) -> None:
    """Everything that tells."""
    assert_type(wal.topics(), list[str])
    assert_type(wal.next_offset("t"), int)
    assert_type(wal.oldest_offset("t"), int)
    assert_type(wal.durable_offset("t"), int)
    assert_type(wal.topic_entry_counts(), dict[str, int])
    assert_type(wal.topic_info("t"), TopicInfo)
    assert_type(wal.topic_info("t").size_bytes, int)
    assert_type(wal.topic_is_clean("t"), bool)
    assert_type(wal.recovery_report, RecoveryReport)
    assert_type(wal.backend_name, str)
    assert_type(wal.is_closed, bool)
    assert_type(wal.path, str)
    assert_type(wal.options, Options)
    assert_type(wal.damages, tuple[Damage, ...])
    assert_type(wal.entry_bytes_max, int)
    assert_type(wal.topic_entry_count("t"), int)
    assert_type(wal.topic_size("t"), int)
    assert_type(wal.cursor_offset("t", "mine"), int)
    wal.seek("t", 0, cursor="mine")
    wal.mark_topic_clean("t")
    wal.mark_topic_dirty("t")
    version: str = __version__
    print(version)


class Observer:
    """An observer as its author writes it."""

    @hookimpl
    def walrus_segment_created(self, info: SegmentInfo) -> None:
        """Count it."""
        assert_type(info.sequence, int)

    @hookimpl
    def walrus_corruption_found(self, damage: Damage) -> None:
        """Tell it."""
        assert_type(damage.first_offset, Optional[int])


def configure() -> Walrus:
    """The builder, each of whose methods returns the builder."""
    builder = Walrus.builder()
    assert_type(builder, WalrusBuilder)
    builder = (
        builder.data_dir("data")
        .key("tenant")
        .backend("fd", io_uring="off")
        .consistency(ReadConsistency.at_least_once(persist_every=100))
        .fsync_schedule(FsyncSchedule.milliseconds(50))
        .observer(Observer())
    )
    assert_type(builder, WalrusBuilder)
    assert_type(builder.build(), Walrus)
    strict, often = ReadConsistency.strictly_at_once(), FsyncSchedule.no_fsync()
    for opened in (
        Walrus.open("data", backend="mmap"),
        Walrus.from_options(builder.options()),
        Walrus.new_for_key("tenant"),
        Walrus.with_consistency(strict),
        Walrus.with_consistency_and_schedule(strict, often),
        Walrus.with_consistency_for_key("tenant", strict),
        Walrus.with_consistency_and_schedule_for_key("tenant", strict, often),
    ):
        assert_type(opened, Walrus)
        opened.close()
    return Walrus("data", backend="mmap", fsync_schedule=FsyncSchedule.sync_each())


def file_of(backend: Backend) -> SegmentFile:
    """A backend is whatever has its methods."""
    assert_type(backend.capabilities, Capabilities)
    api: int = BACKEND_API
    print(api)
    return backend.create("segment", size_bytes=4096)


def errors() -> None:
    """One tree, caught at any height."""
    reference: Backend = MemoryBackend()
    file_of(reference)
    try:
        with configure() as wal:
            assert_type(wal, Walrus)
            write(wal)
            facts(wal)
            list(read(wal))
            asyncio.run(write_awaiting(wal))
    except (LockedError, StorageError, PluginError, UsageError):
        raise
    except (ChecksumError, CorruptionError) as error:
        print(error.message)
    except WalrusError as error:
        print(error)
