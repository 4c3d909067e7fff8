"""A log is sound at every moment, and a verify says so; one flipped bit anywhere is found where it is."""

from __future__ import annotations

import random

import pytest
from helpers import LOOSE, NEVER

from walrus_core import format as fmt
from walrus_core import hot
from walrus_core.errors import UnsupportedVersionError, UsageError
from walrus_core.findings import TORN
from walrus_core.hot import frame_size
from walrus_core.livecheck import verify_live
from walrus_core.verify import verify_directory

from .verifying import COUNT, SLOT, damages, fill, frame_of, look, payload_of, slot_of

pytestmark = pytest.mark.usefixtures("short_pauses")


# --- sound ------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", ["fnv1a64", "crc32c"])
def test_a_closed_log_is_sound_and_counted(store, checksum):
    fill(store, checksum=checksum)
    report = look(store)
    assert report.is_sound and report.closed_cleanly and report.findings == ()
    assert [(t.name, t.first_offset, t.next_offset, t.entry_count) for t in report.topics] == [
        ("big", 0, 1, 1),
        ("t", 0, COUNT, COUNT),
    ]
    assert report.topics[1].payload_bytes == sum(len(payload_of(n)) for n in range(COUNT))
    assert verify_live(store.backend(), store.path).findings == ()


def test_a_killed_log_is_sound_and_its_tail_is_told(memory_store):
    fill(memory_store)
    wal = memory_store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"<entry %d>" % COUNT + b"." * 50)
    killed = memory_store.killed()
    assert look(killed).is_sound and not look(killed).closed_cleanly
    name, at = killed.find(b"<entry %d>" % COUNT)
    killed.patch(name, at + 20, bytes(10))
    (torn,) = look(killed).findings
    assert (torn.category, torn.kind, torn.topic, torn.first_offset) == (TORN, "torn tail", "t", COUNT)
    assert (torn.path.endswith(name), torn.at_bytes) == (True, at - fmt.FRAME_HEADER_SIZE)


@pytest.mark.parametrize("seed", range(8 if hot.COMPILED else 3))
def test_every_moment_of_a_log_is_sound(memory_store, seed):
    """After each call, what the death of the process would leave: with reclaim, large entries, marks."""
    chance = random.Random(seed)
    wal = memory_store.open(consistency=LOOSE)
    for _ in range(40):
        topic = chance.choice("ab")
        kind = chance.random()
        if kind < 0.4:
            sizes = [chance.randrange(3000) for _ in range(chance.randrange(1, 12))]
            wal.batch_append_for_topic(topic, [chance.randbytes(size) for size in sizes])
        elif kind < 0.5:
            wal.append_for_topic(topic, chance.randbytes(chance.randrange(40_000)))
        elif kind < 0.8:
            wal.batch_read_for_topic(topic, 30_000)
        else:
            wal.sync()
        report = look(memory_store.killed())
        assert report.is_sound, (seed, report.findings)
        assert verify_live(memory_store.backend(), memory_store.path).is_sound


def test_nothing_is_written(file_store):
    fill(file_store)
    wal = file_store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"tail")
    killed = file_store.killed()
    killed.flip("cursors.db", 3 * fmt.PAGE_SIZE)
    before = {name: killed.read_file(name) for name in killed.names()}
    look(killed)
    verify_live(killed.backend(), killed.path)
    assert {name: killed.read_file(name) for name in killed.names()} == before


def test_no_log(memory_store):
    for verify in (verify_directory, verify_live):
        with pytest.raises(UsageError, match="no log"):
            verify(memory_store.backend(), memory_store.path)


def test_a_newer_format_cannot_be_verified(memory_store):
    from helpers import with_version

    fill(memory_store)
    data = bytearray(memory_store.read_file("cursors.db"))
    data[: fmt.SECTOR_SIZE] = with_version(bytes(data), 0, fmt.SECTOR_SIZE, fmt.VERSION + 1)
    memory_store.write_file("cursors.db", bytes(data))
    with pytest.raises(UnsupportedVersionError):
        look(memory_store)


# --- one flipped bit --------------------------------------------------------------------------


def expected_in_segment(store, name: str, at: int) -> set[tuple]:
    """Return (kind, place, topic, offsets) that a flip at ``at`` of a closed log must give, or nothing."""
    if at < fmt.SEGMENT_HEADER_SIZE:
        copies = [c for c in (0, fmt.SEGMENT_COPY_AT) if c <= at < c + fmt.SEGMENT_HEADER_USED]
        return {("segment header, one of two copies", c, None, None, None) for c in copies}
    base = slot_of(at)
    page = store.read_file(name)[base : base + fmt.PAGE_SIZE]
    inside = at - base
    big_name, big_at = store.find(b"b" * 20_000)
    in_big = name == big_name and slot_of(big_at) <= at < slot_of(big_at) + 2 * SLOT
    topic = "big" if in_big else "t"
    if in_big and base != slot_of(big_at):
        inside = at - slot_of(big_at)
    elif not any(page):
        is_mark = fmt.MARK_AT[0] <= inside < fmt.PAGE_SIZE
        return {("block header", base, None, None, None)} if is_mark else set()
    if inside < fmt.MARK_AT[0]:
        copy = inside // fmt.BLOCK_HEADER_SIZE * fmt.BLOCK_HEADER_SIZE
        return {("block header, one of two copies", base + copy, topic, None, None)}
    if inside < fmt.PAGE_SIZE:
        mark = inside // fmt.SECTOR_SIZE * fmt.SECTOR_SIZE
        is_seen = inside - mark < fmt.MARK_SIZE or not any(page[mark : mark + fmt.SECTOR_SIZE])
        return {("block mark", base + mark, topic, None, None)} if is_seen else set()
    frames = [("big", 0, big_name, big_at - fmt.FRAME_HEADER_SIZE, 20_000)]
    frames += [("t", n, *frame_of(store, n), len(payload_of(n))) for n in range(COUNT)]
    for owner, number, frame_name, frame_at, length in frames:
        if frame_name == name and frame_at <= at < frame_at + frame_size(length):
            if at >= frame_at + fmt.FRAME_HEADER_SIZE + length:
                return set()  # padding
            in_header = 8 <= at - frame_at < fmt.FRAME_HEADER_SIZE
            kind = "frame header" if in_header else "payload checksum"
            return {(kind, frame_at, owner, number, number + 1)}
    return set()  # behind the last frame, or space that is free


def test_a_flip_anywhere_in_a_segment_is_found_where_it_is(memory_store):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    fill(memory_store)
    kinds = set()
    for name in memory_store.names(".wal"):
        data = memory_store.read_file(name)
        edges = [0, 511, 512, 32767, 32768, 33279, 33280]
        for slot in range(4):
            base = fmt.SEGMENT_HEADER_SIZE + slot * SLOT
            edges += [
                base + at for at in (0, 1535, 1536, 3071, 3072, 3135, 3136, 3584, 4095, 4096, 4104, SLOT - 1)
            ]
            edges += [base + chance.randrange(SLOT) for _ in range(8 if hot.COMPILED else 2)]
        for at in edges:
            memory_store.flip(name, at, chance.randrange(8))
            found = {
                (k, place, *rest) for k, found_in, place, *rest in damages(memory_store) if found_in == name
            }
            memory_store.write_file(name, data)
            expected = expected_in_segment(memory_store, name, at)
            kinds |= {kind for kind, *_ in expected}
            assert found == expected, (seed, name, at)
    assert kinds == {
        "segment header, one of two copies",
        "block header, one of two copies",
        "block header",
        "block mark",
        "payload checksum",
        "frame header",
    }


def test_a_flip_anywhere_in_cursors_db_is_found_where_it_is(memory_store):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    fill(memory_store)
    data = memory_store.read_file("cursors.db")
    owners = 0
    for number in range(len(data) // fmt.PAGE_SIZE):
        base = number * fmt.PAGE_SIZE
        is_used = any(data[base : base + fmt.PAGE_SIZE])
        has_state = any(data[base : base + fmt.IDENTITY_AT])
        owners += has_state
        for inside in [
            0,
            55,
            56,
            511,
            512,
            567,
            568,
            1023,
            1024,
            2559,
            2560,
            4095,
            *chance.sample(range(4096), 8),
        ]:
            sector = inside // fmt.SECTOR_SIZE * fmt.SECTOR_SIZE
            expected = None
            if number < 2:
                expected = ("cursors.db header, one of two copies", 0) if inside < fmt.SECTOR_SIZE else None
            elif is_used and not has_state:
                # A page that never had a state costs nothing with its identity.
                expected = ("cursor state", sector) if inside < fmt.IDENTITY_AT else None
            elif inside < fmt.IDENTITY_AT and is_used:
                expected = ("cursor state", sector) if inside - sector < fmt.STATE_SIZE else None
            elif inside < fmt.IDENTITY_AT:
                expected = ("free cursor page", sector)  # a state that belongs to nobody
            elif is_used:
                copy = fmt.IDENTITY_AT if inside < fmt.IDENTITY_COPY_AT else fmt.IDENTITY_COPY_AT
                expected = ("cursor page identity, one of two copies", copy)
            memory_store.flip("cursors.db", base + inside, chance.randrange(8))
            found = [(kind, place) for kind, _name, place, *_ in damages(memory_store)]
            memory_store.write_file("cursors.db", data)
            wanted = [] if expected is None else [(expected[0], base + expected[1])]
            assert found == wanted, (seed, number, inside)
    assert owners >= 5  # header and copy, the log, two cursors
