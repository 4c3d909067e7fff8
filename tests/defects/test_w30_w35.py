"""Rows W30 to W35 of the defects known of the original: each scenario, run against this engine."""

from __future__ import annotations

import os
import threading

import pytest
from helpers import EACH, LOOSE, NEVER, WHOLE_BLOCK, contents, run_threads, with_faults

from walrus_core import FsyncSchedule
from walrus_core.errors import EntryTooLargeError, UsageError
from walrus_core.format import BLOCK_SIZE_DEFAULT, BLOCKS_PER_SEGMENT_DEFAULT, FRAME_HEADER_SIZE, PAGE_SIZE

LARGEST = 4 * 16384 - PAGE_SIZE - FRAME_HEADER_SIZE


# --- W30 ------------------------------------------------------------------------------------


def open_flags(directory: str) -> set[bool]:
    """Return for the open segments and cursors.db of a directory whether writes to them are durable."""
    if not os.path.isdir("/proc/self/fdinfo"):
        pytest.skip("this system does not list the flags of descriptors in /proc/self/fdinfo")
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
            with open(f"/proc/self/fdinfo/{number}") as file:
                flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
        except FileNotFoundError:
            continue
        if os.path.dirname(target) == directory and target.endswith((".wal", ".db")):
            found.add(bool(flags & os.O_DSYNC))
    return found


@pytest.mark.parametrize("durable_first", [True, False])
def test_w30_the_schedule_belongs_to_the_instance(durable_first, make_store):
    """In the original the first instance of the process decides for all whether files are O_SYNC."""
    schedules = {
        "durable": {"fsync_schedule": EACH, "durable_writes": True},
        "plain": {"fsync_schedule": NEVER},
    }
    order = ["durable", "plain"] if durable_first else ["plain", "durable"]
    stores = {name: make_store("fd", name) for name in order}
    logs = {name: stores[name].open(**schedules[name]) for name in order}
    for wal in logs.values():
        wal.append_for_topic("t", b"a")
    assert open_flags(stores["durable"].path) == {True}
    assert open_flags(stores["plain"].path) == {False}
    assert logs["durable"].durable_offset("t") == 1
    assert logs["plain"].durable_offset("t") == 0
    logs[order[0]].close()
    assert logs[order[1]].append_for_topic("t", b"b") == 1
    assert logs[order[1]].durable_offset("t") == (2 if order[1] == "durable" else 0)


def test_w30_each_log_syncs_by_its_own_schedule(make_store):
    logs = {}
    for name, schedule in (
        ("each", EACH),
        ("never", NEVER),
        ("later", FsyncSchedule.milliseconds(3_600_000)),
    ):
        wal, backend = with_faults(make_store("memory", name), fsync_schedule=schedule)
        wal.append_for_topic("t", b"a")
        wal.sync()
        backend.reset()
        logs[name] = (wal, backend)
    for wal, _backend in logs.values():
        wal.append_for_topic("t", b"b")
    assert {name: wal.durable_offset("t") for name, (wal, _) in logs.items()} == {
        "each": 2,
        "never": 1,
        "later": 1,
    }
    assert {name: backend.calls["sync"] > 0 for name, (_, backend) in logs.items()} == {
        "each": True,
        "never": False,
        "later": False,
    }


# --- W31 ------------------------------------------------------------------------------------


def test_w31_the_backend_belongs_to_the_instance(make_store, monkeypatch):
    """In the original a process-wide flag decides, and flipping it breaks batches of open logs."""
    stores = [make_store(kind, f"log{place}") for place, kind in enumerate(["fd", "mmap", "memory", "fd"])]
    logs = []
    for place, store in enumerate(stores):
        monkeypatch.setenv("WALRUS_BACKEND", ["mmap", "fd", "nonsense", "mmap"][place])
        logs.append(store.open())
        for wal in logs:
            wal.batch_append_for_topic("t", [b"%d" % place * 5000] * 4)
            wal.append_for_topic("t", b"x")
    assert [wal.backend_name for wal in logs] == ["fd", "mmap", "memory", "fd"]
    for place, wal in enumerate(logs):
        expected = [data for turn in range(place, 4) for data in [b"%d" % turn * 5000] * 4 + [b"x"]]
        assert contents(wal, "t") == expected
        assert [entry.data for entry in wal.batch_read_for_topic("t", 1 << 20)] == expected


@pytest.mark.parametrize("kinds", [("fd", "mmap"), ("mmap", "fd")])
def test_w31_each_backend_opens_the_directory_of_the_other(kinds, make_store, file_kind):
    store = make_store(kinds[0])
    payloads = [bytes([number]) * (500 * number) for number in range(30)]
    wal = store.open()
    wal.batch_append_for_topic("t", payloads)
    wal.read_next("t")
    killed = store.killed()
    wal.close()
    for state in (killed, store):
        other = state.open(backend=file_kind(kinds[1])())
        assert contents(other, "t") == payloads
        assert other.read_next("t").offset == 1
        assert other.append_for_topic("t", b"more") == 30


# --- W32 ------------------------------------------------------------------------------------


def test_w32_the_largest_entry_fits_and_one_byte_more_does_not(store):
    wal = store.open()
    wal.append_for_topic("small", b"a")
    largest = b"x" * LARGEST
    assert wal.append_for_topic("t", largest) == 0
    with pytest.raises(EntryTooLargeError):
        wal.append_for_topic("t", largest + b"x")
    assert list(wal.batch_append_for_topic("t", [largest, b"b"])) == [1, 2]
    assert contents(store.killed().open(), "t") == [largest, largest, b"b"]
    sizes = {len(store.read_file(name)) for name in store.names(".wal")}
    assert sizes == {65536 + 4 * 16384}, "no file grows"
    wal.close()
    assert contents(store.open(), "t") == [largest, largest, b"b"]


def test_w32_the_limit_of_the_default_geometry(file_store):
    wal = file_store.open(block_size=BLOCK_SIZE_DEFAULT, blocks_per_segment=BLOCKS_PER_SEGMENT_DEFAULT)
    with pytest.raises(EntryTooLargeError) as caught:
        wal.append_for_topic("t", bytes(1 << 30))
    assert caught.value.limit_bytes == 1_048_576_000 - PAGE_SIZE - FRAME_HEADER_SIZE
    assert file_store.names(".wal") == []
    assert wal.append_for_topic("t", b"a") == 0


# --- W33 ------------------------------------------------------------------------------------


def test_w33_small_batch_reads_read_little(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER, consistency=LOOSE, block_size=1 << 22)
    for _ in range(20):
        wal.batch_append_for_topic("t", [bytes(100)] * 1500)
    assert wal.topic_info("t").block_count == 1
    for _ in range(100):
        backend.reset()
        assert len(wal.batch_read_for_topic("t", 1000)) == 10
        assert backend.read_bytes <= 4 * 65536
    backend.reset()
    assert wal.batch_read_for_topic("t", 1000, start_offset=990)[0].offset == 990
    assert backend.read_bytes <= 4 * 65536


# --- W34 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sealed", "block_size"), [(True, 65536), (False, 65536), (False, 16384)])
def test_w34_the_budget_counts_payload_only_and_everywhere_alike(store, sealed, block_size):
    """The original counts headers in sealed blocks only: 28 entries instead of 100."""
    wal = store.open(fsync_schedule=NEVER, block_size=block_size)
    wal.batch_append_for_topic("t", [bytes(100)] * 300)
    if sealed:
        wal.append_for_topic("t", bytes(60_000))
        wal.sync()
    assert len(wal.batch_read_for_topic("t", 10_000)) == 100
    assert len(wal.batch_read_for_topic("t", 10_099, checkpoint=False)) == 100
    assert len(wal.batch_read_for_topic("t", 10_100, checkpoint=False)) == 101
    assert len(wal.batch_read_for_topic("t", 99)) == 1
    assert len(wal.batch_read_for_topic("t", 100)) == 1
    assert wal.cursor_offset("t") == 102


@pytest.mark.parametrize("max_bytes", [0, -1, -(2**70)])
def test_w34_a_budget_of_nothing_is_an_error(store, max_bytes):
    wal = store.open()
    wal.append_for_topic("t", b"a")
    with pytest.raises(UsageError):
        wal.batch_read_for_topic("t", max_bytes)
    with pytest.raises(UsageError):
        wal.batch_read_for_topic("unknown", max_bytes)
    assert wal.cursor_offset("t") == 0


# --- W35 ------------------------------------------------------------------------------------


def test_w35_appends_and_batches_wait_for_a_batch_under_way(memory_store):
    """The original answers WouldBlock, and callers lost data by not trying again."""
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    results: list[object] = []
    threads: list[threading.Thread] = []

    def start_others() -> None:
        single, batch = b"single", [b"x"] * 3
        for work in (
            lambda: wal.append_for_topic("t", single),
            lambda: wal.batch_append_for_topic("t", batch),
        ):
            thread = threading.Thread(target=lambda work=work: results.append(work()), daemon=True)
            thread.start()
            threads.append(thread)
        threads[0].join(0.05)

    backend.during("write", start_others, suffix=".wal", skip=2)
    assert wal.batch_append_for_topic("t", [bytes(WHOLE_BLOCK)] * 5) == range(0, 5)
    for thread in threads:
        thread.join(20)
    assert sorted(map(str, results)) in (["5", "range(6, 9)"], ["8", "range(5, 8)"])
    assert wal.next_offset("t") == 9


def test_w35_many_writers_of_one_topic(store):
    wal = store.open(fsync_schedule=NEVER)

    def write(writer: int) -> list[int]:
        offsets = []
        for number in range(40):
            if number % 4:
                offsets.append(wal.append_for_topic("t", b"%d-%d" % (writer, number)))
            else:
                offsets += wal.batch_append_for_topic("t", [b"%d-%d" % (writer, number)] * 30)
        return offsets

    results = run_threads([lambda writer=writer: write(writer) for writer in range(4)])
    assert sorted(offset for offsets in results for offset in offsets) == list(range(wal.next_offset("t")))
    assert all(offsets == sorted(offsets) for offsets in results)
    found = contents(wal, "t")
    for writer, offsets in enumerate(results):
        mine = [found[offset] for offset in offsets]
        counts = [1 if number % 4 else 30 for number in range(40)]
        assert mine == [b"%d-%d" % (writer, number) for number in range(40) for _ in range(counts[number])]
