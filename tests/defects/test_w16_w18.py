"""Rows W16 to W18 of the defects known of the original: each scenario, run against this engine."""

from __future__ import annotations

import pytest
from helpers import NEVER, WHOLE_BLOCK, contents, read_all

# --- W16 ------------------------------------------------------------------------------------

UNDER_SIGNALS = """
import signal
from walrus_core import FsyncSchedule, Walrus
from walrus_fd.backend import FdBackend
from walrus_mmap.backend import MmapBackend

path, kind, mode, schedule = arguments
seen = [0]

def count(number, frame):
    seen[0] += 1

def make_backend():
    return MmapBackend() if kind == "mmap" else FdBackend(io_uring=mode)

def options():
    return dict(backend=make_backend(), block_size=65536, blocks_per_segment=8,
                fsync_schedule=FsyncSchedule.parse(schedule))

def make_batch(number):
    return [b"%d-%d-" % (number, place) + bytes(place % 200) for place in range(1500)]

batches = [make_batch(number) for number in range(10)]
expected = [payload for batch in batches for payload in batch]
signal.signal(signal.SIGALRM, count)
wal = Walrus(path, **options())
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
try:
    for batch in batches:
        offsets = wal.batch_append_for_topic("t", batch)
        assert len(offsets) == 1500
    wal.sync()
    found = []
    while entries := wal.batch_read_for_topic("t", 100_000, start_offset=len(found)):
        found.extend(entry.data for entry in entries)
    assert found == expected, "in the process that wrote"
finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
assert seen[0] > 20, f"only {seen[0]} signals came"
wal.close()
with Walrus(path, **options()) as wal:
    assert [entry.data for entry in wal.topic("t")] == expected, "after reopening"
    assert wal.recovery_report.damages == ()
"""


@pytest.mark.parametrize("schedule", ["each", "never", "1"])
@pytest.mark.parametrize(("kind", "mode"), [("fd", "on"), ("fd", "off"), ("mmap", "")])
def test_w16_signals_break_no_batch(kind, mode, schedule, tmp_path, file_kind, run_child):
    for needed in ("fd", "mmap"):
        file_kind(needed)
    if mode == "on":
        backend = file_kind("fd")()
        answer = str(backend.probe()["io_uring"])
        backend.close()
        if not answer.startswith("live"):
            pytest.skip(f"io_uring is {answer}")
    run_child(UNDER_SIGNALS, tmp_path / "log", kind, mode, schedule)


# --- W17 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [("memory", "memory"), ("fd", "fd"), ("fd", "mmap"), ("memory", "fd")])
def test_w17_two_namespaces_in_one_process_share_nothing(kinds, make_store):
    """The original counts blocks by an id that starts at 1 in every instance, in one table."""
    store_a, store_b = make_store(kinds[0], "a"), make_store(kinds[1], "b")
    wal_a, wal_b = store_a.open(fsync_schedule=NEVER), store_b.open(fsync_schedule=NEVER)
    payloads = [bytes([number]) * WHOLE_BLOCK for number in range(12)]
    for payload in payloads:
        wal_a.append_for_topic("t", payload)
        wal_b.append_for_topic("t", payload)
    names = store_a.names(".wal")
    assert read_all(wal_b, "t") == payloads
    wal_b.sync()
    assert store_a.names(".wal") == names
    wal_b.close()
    wal_a.close()
    wal_a = store_a.open()
    assert wal_a.topic_entry_count("t") == 12
    assert read_all(wal_a, "t") == payloads


# --- W18 ------------------------------------------------------------------------------------


def foreign_files(store) -> dict[str, bytes]:
    """Files of other people, and what crashes of other programs leave behind."""
    segment = store.read_file(store.names(".wal")[0])
    cursors = store.read_file("cursors.db")
    return {
        "notes.txt": b"hello",
        "empty": b"",
        "cursors.db.tmp": cursors[:5000],
        "cursors.db~": cursors,
        "read_offset_idx_index.db": b"\xc8\x00" * 4000,
        "index.tmp": bytes(range(256)) * 64,
        "1.wal": segment,
        "0000000000000000001.wal": segment,
        "000000000000000000001.wal": segment,
        "00000000000000000001.wal.bak": segment,
        "00000000000000000001.WAL": segment,
        "0000000000000000000x.wal": segment,
        "00000000000000000077.wal.tmp": segment[:70_000],
        "core": b"\x7fELF" + b"\xff" * 70_000,
        ".hidden": b"\x00" * 100,
        "名前": b"x",
    }


def test_w18_foreign_files_and_leftovers_are_left_alone(store):
    wal = store.open()
    expected: dict[str, list[bytes]] = {"t0": [], "t1": [], "t2": []}
    for number in range(20):
        expected[f"t{number % 3}"].append(b"%d" % number * 1000)
        wal.append_for_topic(f"t{number % 3}", b"%d" % number * 1000)
    wal.close()
    foreign = foreign_files(store)
    for name, data in foreign.items():
        store.write_file(name, data)
    for _ in range(2):
        wal = store.open()
        assert {topic: contents(wal, topic) for topic in wal.topics()} == expected
        assert sorted(wal.recovery_report.foreign_files) == sorted(foreign)
        assert wal.recovery_report.damages == ()
        wal.append_for_topic("t0", b"more")
        expected["t0"].append(b"more")
        wal.close()
    for topic in range(3):
        wal = store.open()
        read_all(wal, f"t{topic}")
        wal.close()
    assert {name: store.read_file(name) for name in foreign} == foreign


@pytest.mark.parametrize("number", [2**64, 2**64 - 1, 10**20 - 1, 0])
def test_w18_a_foreign_file_with_an_impossible_number_stops_nothing(store, number):
    name = f"{number:020d}.wal"
    wal = store.open()
    wal.append_for_topic("t", b"a")
    wal.close()
    store.write_file(name, b"not a segment" * 10_000)
    wal = store.open()
    for payload in range(10):
        wal.append_for_topic("t", bytes([payload]) * WHOLE_BLOCK)
    assert len(read_all(wal, "t")) == 11
    wal.close()
    assert store.read_file(name) == b"not a segment" * 10_000
    wal = store.open()
    assert wal.next_offset("t") == 11


def test_w18_what_a_crash_of_our_own_leaves_behind_is_cleared_away(store):
    wal = store.open()
    wal.append_for_topic("t", b"a")
    wal.close()
    segment = store.read_file(store.names(".wal")[0])
    for number, data in ((2, b""), (3, bytes(len(segment))), (4, segment[:70_000]), (9, segment)):
        store.write_file(f"{number:020d}.free", data)
    wal = store.open()
    assert contents(wal, "t") == [b"a"]
    assert store.names() == ["00000000000000000001.wal", "cursors.db"]
    assert wal.recovery_report.damages == ()
