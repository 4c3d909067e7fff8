"""Damaged bytes: what is raised, what is lost, what can be passed, and that nothing else suffers."""

from __future__ import annotations

import random

import pytest
from helpers import EACH, LOOSE, NEVER, WHOLE_BLOCK, contents, read_all

from walrus_core import CorruptionError
from walrus_core.errors import ChecksumError
from walrus_core.format import (
    FRAME_HEADER_SIZE,
    MARK_AT,
    PAGE_SIZE,
    SECTOR_SIZE,
    SEGMENT_HEADER_SIZE,
    STATE_AT,
)
from walrus_core.hookspecs import hookimpl


def payload_of(number: int) -> bytes:
    """A payload of its own for each number, of different lengths."""
    return b"<entry %d>" % number + b"." * (number * 37 % 300)


def closed_log(store, count: int = 200, **options) -> list[bytes]:
    """Fill topic t over several blocks, and topic other; close. Returns the payloads of t."""
    wal = store.open(fsync_schedule=NEVER, **options)
    payloads = [payload_of(number) for number in range(count)]
    for start in range(0, count, 10):
        wal.batch_append_for_topic("t", payloads[start : start + 10])
    wal.append_for_topic("other", b"untouched")
    wal.close()
    return payloads


def frame_at(store, number: int) -> tuple[str, int]:
    """Return where the frame of entry ``number`` begins."""
    name, at = store.find(b"<entry %d>" % number)
    return name, at - FRAME_HEADER_SIZE


def check_skipping(store, payloads: list[bytes], lost: list[tuple[int, int]], **options) -> None:
    """Reading with skip returns all but the lost ranges, which are reported exactly."""
    gone = {offset for first, end in lost for offset in range(first, end)}
    for read in ("next", "batch", "stateless", "handle"):
        wal = store.open(on_corruption="skip", consistency=LOOSE, **options)
        if read == "next":
            found = {}
            while (entry := wal.read_next("t", cursor=read)) is not None:
                found[entry.offset] = entry.data
        elif read == "batch":
            found = {}
            while entries := wal.batch_read_for_topic("t", 2000, cursor=read):
                found.update((entry.offset, entry.data) for entry in entries)
        elif read == "stateless":
            found, offset = {}, 0
            while entries := wal.batch_read_for_topic("t", 2000, start_offset=offset):
                found.update((entry.offset, entry.data) for entry in entries)
                offset = entries[-1].offset + 1
        else:
            found = {entry.offset: entry.data for entry in wal.topic("t")}
        assert found == {number: data for number, data in enumerate(payloads) if number not in gone}, read
        ranges = [(damage.first_offset, damage.end_offset) for damage in wal.damages if damage.topic == "t"]
        assert sorted(set(ranges)) == lost, read
        assert contents(wal, "other") == [b"untouched"]
        wal.close()


# --- what is lost ----------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", ["fnv1a64", "crc32c"])
@pytest.mark.parametrize("number", [0, 1, 57, 198, 199])
def test_a_damaged_payload_costs_its_own_entry(memory_store, number, checksum):
    payloads = closed_log(memory_store, checksum=checksum)
    name, at = frame_at(memory_store, number)
    memory_store.flip(name, at + FRAME_HEADER_SIZE + 2, 5)
    check_skipping(memory_store, payloads, [(number, number + 1)])


@pytest.mark.parametrize("byte", [8, 12, 16, 17, 18, 20, 24, 31])
@pytest.mark.parametrize("number", [0, 57, 199])
def test_a_damaged_header_costs_what_lies_up_to_the_next_sound_frame(memory_store, number, byte):
    payloads = closed_log(memory_store)
    name, at = frame_at(memory_store, number)
    memory_store.flip(name, at + byte, 3)
    check_skipping(memory_store, payloads, [(number, number + 1)])


def test_adjacent_damaged_headers_are_one_range(memory_store):
    payloads = closed_log(memory_store)
    for number in (20, 21, 22, 90):
        name, at = frame_at(memory_store, number)
        memory_store.flip(name, at + 8)
    check_skipping(memory_store, payloads, [(20, 23), (90, 91)])


def test_a_lost_sector_costs_the_entries_in_it(memory_store):
    payloads = closed_log(memory_store)
    name, at = frame_at(memory_store, 30)
    memory_store.patch(name, at, bytes(frame_at(memory_store, 36)[1] - at))
    check_skipping(memory_store, payloads, [(30, 36)])


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_a_lost_body_costs_one_block(memory_store, fill):
    payloads = closed_log(memory_store)
    name, at = frame_at(memory_store, 100)
    base = SEGMENT_HEADER_SIZE + (at - SEGMENT_HEADER_SIZE) // 16384 * 16384
    inside = [number for number in range(200) if base <= frame_at(memory_store, number)[1] < base + 16384]
    inside = [number for number in inside if frame_at(memory_store, number)[0] == name]
    memory_store.patch(name, base + PAGE_SIZE, fill * (16384 - PAGE_SIZE))
    check_skipping(memory_store, payloads, [(inside[0], inside[-1] + 1)])


@pytest.mark.parametrize("number", [0, 100])
def test_a_block_whose_header_page_is_lost_is_a_gap(memory_store, number):
    payloads = closed_log(memory_store)
    name, at = frame_at(memory_store, number)
    base = SEGMENT_HEADER_SIZE + (at - SEGMENT_HEADER_SIZE) // 16384 * 16384
    places = [frame_at(memory_store, entry) for entry in range(200)]
    inside = [
        entry for entry, place in enumerate(places) if place[0] == name and base <= place[1] < base + 16384
    ]
    memory_store.patch(name, base, b"\xff" * 3072)
    wal = memory_store.open()
    kinds = [damage.kind for damage in wal.recovery_report.damages]
    assert "block header" in kinds
    wal.close()
    check_skipping(memory_store, payloads, [(inside[0], inside[-1] + 1)])


def test_damage_in_a_large_entry(memory_store):
    wal = memory_store.open()
    payloads = [b"a" * 10, b"<entry 1>" + b"." * 40_000, b"b" * 10]
    for payload in payloads:
        wal.append_for_topic("t", payload)
    wal.append_for_topic("other", b"untouched")
    wal.close()
    name, at = frame_at(memory_store, 1)
    memory_store.flip(name, at + 35_000)
    check_skipping(memory_store, payloads, [(1, 2)])


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_damaged_is_reported_exactly(memory_store, seed):
    """What is read and what is reported lost make up the whole topic, without overlap."""
    random_source = random.Random(seed)
    payloads = closed_log(memory_store, checksum=random_source.choice(["fnv1a64", "crc32c"]))
    places = [frame_at(memory_store, number) for number in (5, 50, 150, 195)]
    for _ in range(random_source.choice([1, 4, 20])):
        name, at = random_source.choice(places)
        block_end = at - (at - SEGMENT_HEADER_SIZE) % 16384 + 16384
        length = random_source.choice([1, 30, 700])
        place = random_source.randrange(block_end - 16384 + PAGE_SIZE, block_end - length)
        memory_store.patch(name, place, random_source.randbytes(length))
    wal = memory_store.open(on_corruption="skip")
    assert wal.next_offset("t") == 200
    read = {}
    while entries := wal.batch_read_for_topic("t", 3000):
        read.update((entry.offset, entry.data) for entry in entries)
    assert all(data == payloads[offset] for offset, data in read.items())
    lost = [(damage.first_offset, damage.end_offset) for damage in wal.damages]
    gone = [offset for first, end in lost for offset in range(first, end)]
    assert sorted([*read, *gone]) == list(range(200))
    assert wal.append_for_topic("t", b"after") == 200
    assert wal.read_next("t").data == b"after"


# --- how it is told ---------------------------------------------------------------------------


def test_a_batch_read_returns_the_sound_prefix_then_raises(store):
    payloads = closed_log(store)
    name, at = frame_at(store, 57)
    store.flip(name, at + FRAME_HEADER_SIZE)
    wal = store.open(consistency=LOOSE)
    assert [entry.data for entry in wal.batch_read_for_topic("t")] == payloads[:57]
    for _ in range(2):
        with pytest.raises(ChecksumError) as caught:
            wal.batch_read_for_topic("t")
        error = caught.value
        assert (error.topic, error.offset, error.end_offset) == ("t", 57, 58)
        assert error.path.endswith(name)
        assert error.at_bytes == at
        assert "[57, 58)" in str(error)
        assert "'t'" in str(error)
        assert wal.cursor_offset("t") == 57
    entries = wal.batch_read_for_topic("t", on_corruption="skip")
    assert [entry.data for entry in entries] == payloads[58 : 58 + len(entries)]
    assert len(entries) == 142
    wal.close()
    assert store.open().cursor_offset("t") == 200


def test_read_next_raises_and_stays(store):
    payloads = closed_log(store)
    name, at = frame_at(store, 3)
    store.flip(name, at + 8)
    wal = store.open()
    assert [wal.read_next("t").data for _ in range(3)] == payloads[:3]
    for checkpoint in (True, False, True):
        with pytest.raises(CorruptionError) as caught:
            wal.read_next("t", checkpoint)
        assert not isinstance(caught.value, ChecksumError)
        assert (caught.value.offset, caught.value.end_offset) == (3, 4)
        assert wal.cursor_offset("t") == 3
    assert wal.read_next("t", checkpoint=False, on_corruption="skip").data == payloads[4]
    assert wal.cursor_offset("t") == 3
    assert wal.read_next("t", on_corruption="skip").data == payloads[4]
    assert wal.cursor_offset("t") == 5
    assert wal.read_next("t").data == payloads[5]


def test_damage_at_the_end_of_a_topic_is_passed_too(store):
    payloads = closed_log(store, 5)
    name, at = frame_at(store, 4)
    store.flip(name, at + FRAME_HEADER_SIZE)
    wal = store.open()
    assert [entry.data for entry in wal.batch_read_for_topic("t")] == payloads[:4]
    assert wal.read_next("t", on_corruption="skip") is None
    assert wal.cursor_offset("t") == 5
    assert wal.topic_entry_count("t") == 0
    wal.append_for_topic("t", b"after")
    assert wal.read_next("t").data == b"after"
    assert store.killed().open().cursor_offset("t") == 6


@pytest.mark.parametrize("seek_to", [3, 4])
def test_seek_steps_over_damage_as_well(memory_store, seek_to):
    payloads = closed_log(memory_store, 10)
    name, at = frame_at(memory_store, 3)
    memory_store.flip(name, at + FRAME_HEADER_SIZE)
    wal = memory_store.open()
    wal.seek("t", seek_to)
    if seek_to == 3:
        with pytest.raises(ChecksumError):
            wal.read_next("t")
    else:
        assert wal.read_next("t").data == payloads[4]


def test_stateless_reads_raise_at_damage_and_go_on_behind_it(memory_store):
    payloads = closed_log(memory_store)
    name, at = frame_at(memory_store, 30)
    memory_store.flip(name, at + 12)
    wal = memory_store.open()
    assert [entry.data for entry in wal.batch_read_for_topic("t", start_offset=25)] == payloads[25:30]
    with pytest.raises(CorruptionError):
        wal.batch_read_for_topic("t", start_offset=30)
    assert wal.batch_read_for_topic("t", start_offset=31)[0].data == payloads[31]
    assert wal.batch_read_for_topic("t", start_offset=30, on_corruption="skip")[0].data == payloads[31]
    with pytest.raises(CorruptionError):
        list(wal.topic("t"))
    assert wal.cursor_offset("t") == 0


def test_observers_are_told_once_of_each_damage(memory_store):
    closed_log(memory_store)
    for number in (3, 77):
        name, at = frame_at(memory_store, number)
        memory_store.flip(name, at + FRAME_HEADER_SIZE)
    told = []

    class Observer:
        @hookimpl
        def walrus_corruption_found(self, damage):
            told.append((damage.topic, damage.first_offset, damage.end_offset, damage.kind))
            raise RuntimeError("an observer may fail")

    wal = memory_store.open(observers=(Observer(),), on_corruption="skip")
    # Nothing is given back, however long the reads take.
    wal.seek("t", 0, cursor="slow")
    for _ in range(3):
        wal.seek("t", 0)
        assert len(read_all(wal, "t")) == 198
    assert told == [("t", 3, 4, "payload checksum"), ("t", 77, 78, "payload checksum")]
    assert len(wal.damages) == 2


def test_the_list_of_damages_is_bounded(memory_store):
    wal = memory_store.open(fsync_schedule=NEVER)
    for _ in range(2):
        wal.batch_append_for_topic("t", [b"x"] * 1500)
    wal.close()
    for name in memory_store.names(".wal"):
        data = bytearray(memory_store.read_file(name))
        for slot in range(4):
            base = SEGMENT_HEADER_SIZE + slot * 16384 + PAGE_SIZE
            for place in range(base, base + 16384 - PAGE_SIZE - 40, 40):
                data[place + FRAME_HEADER_SIZE] ^= 1
        memory_store.write_file(name, bytes(data))
    wal = memory_store.open(on_corruption="skip", consistency=LOOSE)
    assert wal.read_next("t") is None
    assert wal.cursor_offset("t") == 3000
    assert len(wal.damages) == 1000


def test_damage_found_at_open_is_in_the_report_and_blocks_nothing(store):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(6):
        wal.append_for_topic(
            "t", b"%d" % number * WHOLE_BLOCK if number != 2 else b"<entry 2>" + bytes(12_000)
        )
    wal.close()
    name, at = store.find(b"<entry 2>")
    base = SEGMENT_HEADER_SIZE + (at - SEGMENT_HEADER_SIZE) // 16384 * 16384
    store.patch(name, base, b"\xff" * 3072)
    wal = store.open()
    kinds = {(damage.kind, damage.first_offset, damage.end_offset) for damage in wal.recovery_report.damages}
    assert ("block header", None, None) in kinds
    assert ("missing block", 2, 3) in kinds
    assert set(wal.damages) == set(wal.recovery_report.damages)
    assert wal.append_for_topic("t", b"after") == 6
    assert [entry.offset for entry in wal.batch_read_for_topic("t")] == [0, 1]
    with pytest.raises(CorruptionError):
        wal.read_next("t")
    assert wal.read_next("t", on_corruption="skip").offset == 3


@pytest.mark.parametrize("topics", [{"t"}, {"t", "u"}])
def test_a_last_block_of_which_nothing_is_left_is_missed(memory_store, topics):
    """Its header page reads as zeros, as that of a free slot does: the topic's page knows better."""
    wal = memory_store.open(fsync_schedule=NEVER)
    for topic in sorted(topics):
        wal.append_for_topic(topic, topic.encode() * WHOLE_BLOCK)
        wal.batch_append_for_topic(
            topic, [topic.encode() * WHOLE_BLOCK] + [b"<last of %b>" % topic.encode()] * 1
        )
    wal.close()
    name, at = memory_store.find(b"<last of t>")
    base = SEGMENT_HEADER_SIZE + (at - SEGMENT_HEADER_SIZE) // 16384 * 16384
    memory_store.patch(name, base, bytes(16384))
    for _ in range(2):
        wal = memory_store.open()
        found = [(d.kind, d.topic, d.first_offset, d.end_offset) for d in wal.recovery_report.damages]
        assert found == [("missing block", "t", 1, 3)]
        assert wal.next_offset("t") == 3
        wal.close()
    wal = memory_store.open(on_corruption="skip")
    assert wal.append_for_topic("t", b"after") == 3
    assert contents(wal, "t") == [b"t" * WHOLE_BLOCK, b"after"]
    with pytest.raises(CorruptionError):
        wal.batch_read_for_topic("t", start_offset=1, on_corruption="raise")


def test_a_damaged_low_water_costs_no_entries_behind_it(memory_store):
    """The older state names blocks that were given back meanwhile, and what is left has no mark yet."""
    wal = memory_store.open(fsync_schedule=EACH, block_size=16384, blocks_per_segment=4)
    for turn in range(2):
        for number in range(4):
            wal.append_for_topic("t", bytes([turn * 4 + number]) * WHOLE_BLOCK)
        while wal.read_next("t", checkpoint=True) is not None:
            pass
        wal.sync()
    page = wal._engine.topics["t"].page
    assert page.state.generation > 2 and wal.oldest_offset("t") == 7
    # As within 0.1 s of a burst: no mark was written in the last block.
    block = wal._engine.topics["t"].active
    killed = memory_store.killed()
    for at in MARK_AT:
        killed.patch(block.file.path.rsplit("/", 1)[1], block.base + at, bytes(SECTOR_SIZE))
    newest = page.identity.page * PAGE_SIZE + STATE_AT[page.state.generation % 2]
    killed.patch("cursors.db", newest, b"\xa5" * 8)
    again = killed.open()
    kinds = {damage.kind for damage in again.recovery_report.damages}
    assert kinds == {"cursor state, read from the older one", "missing block"}
    assert again.next_offset("t") == 8
    assert again.read_next("t", on_corruption="skip") is None
    assert again.batch_read_for_topic("t", start_offset=7)[0].data == bytes([7]) * WHOLE_BLOCK
