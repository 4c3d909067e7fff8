"""Entries in flight that wait in memory for the sync that writes them: always the last of their topic.

Only the compiled twin stages, and only for files that have a descriptor; the others pass the same tests.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from helpers import EACH, contents

from walrus_core import Walrus, hot
from walrus_core.errors import DiskFullError, PoisonedError, SyncFailedError
from walrus_core.flusher import Flusher

WHY_NOT = "this system has no pwrite, by which is staged" if hot.COMPILED else "the pure twin stages nothing"
stages = pytest.mark.skipif(not (hot.COMPILED and hasattr(os, "pwrite")), reason=WHY_NOT)
full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody syncs in the background."""
    monkeypatch.setattr(Flusher, "wake", lambda _self: None)


def stored(store: Any, payload: bytes) -> bool:
    """True where a segment file has the payload."""
    return any(payload in store.read_file(name) for name in store.names(".wal"))


def without_space(wal: Walrus, topic: str) -> Callable[[], None]:
    """Let every write to the topic's file fail for want of space. Returns: what ends it."""
    block = wal._topics[topic].active
    assert block is not None and block.file.handle is not None
    descriptor = block.file.handle.fileno()
    kept, device = os.dup(descriptor), os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, descriptor)
    os.close(device)

    def end() -> None:
        os.dup2(kept, descriptor)
        os.close(kept)

    return end


@stages
def test_a_sync_writes_what_waits(file_store, asleep):
    wal = file_store.open(fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    wal.append_nowait("t", b"second entry")
    wal.append_nowait("t", b"third entry")
    assert wal.next_offset("t") == 3
    assert stored(file_store, b"first") and not stored(file_store, b"second entry")
    wal.wait_durable("t", 1)
    assert stored(file_store, b"second entry") and stored(file_store, b"third entry")
    assert wal.durable_offset("t") == 3
    assert contents(wal, "t") == [b"first", b"second entry", b"third entry"]


def test_a_sync_of_several_topics_writes_what_waits(file_store, asleep):
    wal = file_store.open(fsync_schedule=EACH)
    for topic in "ab":
        wal.append_for_topic(topic, b"first")
        wal.append_nowait(topic, b"waits in " + topic.encode())
    wal.sync()
    assert stored(file_store, b"waits in a") and stored(file_store, b"waits in b")
    assert wal.durable_offset("a") == wal.durable_offset("b") == 2


@stages
@pytest.mark.parametrize(
    "write",
    [
        lambda wal: wal.append_nowait("t", bytearray(b"not bytes")),
        lambda wal: wal.append_nowait("t", b"large" * 4_000),
        lambda wal: wal.append_for_topic("t", memoryview(b"waited for")),
        lambda wal: wal.batch_append_for_topic("t", [b"a", b"batch"]),
        lambda wal: wal.batch_append_for_topic("t", [b"over", b"blocks" * 3_000, b"and" * 3_000]),
    ],
    ids=["no bytes", "large", "durable", "batch", "batch over blocks"],
)
def test_what_waits_is_written_before_anything_else(file_store, asleep, write):
    wal = file_store.open(fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    wal.append_nowait("t", b"second entry")
    assert not stored(file_store, b"second entry")
    write(wal)
    assert stored(file_store, b"second entry")
    wal.sync()
    found = contents(wal, "t")
    assert found[:2] == [b"first", b"second entry"] and len(found) == wal.next_offset("t")
    wal.close()
    assert contents(file_store.open(), "t") == found


def test_what_waits_is_bounded(file_store, asleep):
    """More than fits into memory for it goes into the file, and into the next blocks."""
    wal = file_store.open(fsync_schedule=EACH)
    payloads = [b"%06d" % number * 40 for number in range(1_000)]
    for payload in payloads:
        wal.append_nowait("t", payload)
    if hot.COMPILED:
        assert stored(file_store, payloads[500])
    left = contents(file_store.killed().open(), "t")
    assert left == payloads[: len(left)]
    wal.close()
    assert contents(file_store.open(), "t") == payloads


@stages
@full
def test_a_full_disk_takes_nothing_of_what_waits(file_store, asleep):
    wal = file_store.open(fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    wal.append_nowait("t", b"waits")
    end = without_space(wal, "t")
    try:
        for write in (
            lambda: wal.append_nowait("t", bytearray(b"refused")),
            lambda: wal.batch_append_for_topic("t", [b"refused"]),
        ):
            with pytest.raises(DiskFullError):
                write()
    finally:
        end()
    assert wal.next_offset("t") == 2
    assert wal.append_nowait("t", b"third") == 2
    wal.sync()
    wal.close()
    assert contents(file_store.open(), "t") == [b"first", b"waits", b"third"]


@stages
@full
def test_a_sync_that_cannot_write_what_waits_poisons(file_store, asleep):
    wal = file_store.open(fsync_schedule=EACH)
    wal.append_for_topic("t", b"first")
    wal.append_nowait("t", b"in doubt")
    end = without_space(wal, "t")
    try:
        with pytest.raises(SyncFailedError) as caught:
            wal.wait_durable("t", 1)
    finally:
        end()
    assert caught.value.errno == errno.ENOSPC and caught.value.operation == "write"
    assert wal.durable_offset("t") == 1
    assert [entry.data for entry in wal.batch_read_for_topic("t", start_offset=0)] == [b"first"]
    with pytest.raises(PoisonedError):
        wal.append_nowait("t", b"refused")
    wal.close()
    assert contents(file_store.open(), "t") == [b"first"]


@stages
@full
def test_a_sync_of_several_topics_that_cannot_write_what_waits_poisons(file_store, asleep):
    wal = file_store.open(fsync_schedule=EACH)
    for topic in "tu":
        wal.append_for_topic(topic, b"first")
    for topic in "tu":
        wal.append_nowait(topic, b"in doubt")
    end = without_space(wal, "t")
    try:
        with pytest.raises(SyncFailedError) as caught:
            wal.sync()
    finally:
        end()
    assert caught.value.errno == errno.ENOSPC and caught.value.operation == "write"
    assert [wal.durable_offset(topic) for topic in "tu"] == [1, 1]
    with pytest.raises(PoisonedError):
        wal.append_nowait("u", b"refused")


def test_topics_stage_for_themselves(file_store, asleep):
    wal = file_store.open(fsync_schedule=EACH)
    for number in range(50):
        for topic in "abc":
            wal.append_nowait(topic, b"%s%d" % (topic.encode(), number))
    wal.sync()
    wal.close()
    after = file_store.open()
    for topic in "abc":
        assert contents(after, topic) == [b"%s%d" % (topic.encode(), number) for number in range(50)]


@pytest.mark.parametrize("seed", range(6))
def test_any_mix_of_calls_keeps_the_order(file_store, seed):
    print(f"seed {seed}")
    chance = random.Random(seed)
    wal = file_store.open(fsync_schedule=EACH)
    expected: list[bytes] = []
    for step in range(300):
        payload = b"%d." % step * chance.choice([0, 1, 5, 60, 300, 1_000])
        kind = chance.choices("nblewsr", [60, 5, 3, 5, 5, 2, 1])[0]
        if kind == "b":
            batch = [payload, b"of a batch", payload]
            assert wal.batch_append_for_topic("t", batch).start == len(expected)
            expected += batch
        elif kind == "w" and expected:
            offset = chance.randrange(len(expected))
            wal.wait_durable("t", offset)
            assert wal.durable_offset("t") > offset
        elif kind == "s":
            wal.sync()
            assert contents(wal, "t") == expected
        elif kind == "r":
            wal.close()
            wal = file_store.open(fsync_schedule=EACH)
        else:
            append = wal.append_for_topic if kind == "e" else wal.append_nowait
            assert append("t", bytearray(payload) if kind == "l" else payload) == len(expected)
            expected.append(payload)
    wal.close()
    assert contents(file_store.open(), "t") == expected
