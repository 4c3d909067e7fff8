"""More than a flipped bit: lost sectors, blocks, files; and what recovery calls damage, verify does too."""

from __future__ import annotations

import random

import pytest
from helpers import NEVER, WHOLE_BLOCK

from walrus_core import CorruptionError
from walrus_core import format as fmt
from walrus_core.errors import StorageError
from walrus_core.findings import DAMAGE, NOTE, OPEN, REBUILD, REPAIR, RESET, TORN, UNREADABLE
from walrus_core.livecheck import verify_live
from walrus_core.testing import FaultyBackend
from walrus_core.verify import verify_directory

from .verifying import COUNT, SLOT, damages, fill, frame_of, look, page_of, slot_of

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_a_lost_sector_tells_the_entries_in_it(memory_store):
    fill(memory_store)
    name, at = frame_of(memory_store, 30)
    memory_store.patch(name, at, bytes(frame_of(memory_store, 36)[1] - at))
    assert damages(memory_store) == [("frame header", name, at, "t", 30, 36)]
    found = verify_live(memory_store.backend(), memory_store.path).of(DAMAGE)
    assert [(f.kind, f.at_bytes, f.first_offset, f.end_offset) for f in found] == [
        ("frame header", at, 30, 36)
    ]


def test_a_quarantined_block_is_a_gap_in_its_topic(memory_store):
    wal = memory_store.open(fsync_schedule=NEVER)
    for number in range(5):
        wal.append_for_topic("t", b"<entry %d>" % number + bytes(WHOLE_BLOCK))
    wal.close()
    name, at = frame_of(memory_store, 2)
    next_name, next_at = frame_of(memory_store, 3)
    memory_store.patch(name, slot_of(at), b"\xff" * fmt.MARK_AT[0])
    expected = [
        ("block header", name, slot_of(at), None, None, None),
        ("missing block", next_name, slot_of(next_at), "t", 2, 3),
    ]
    assert damages(memory_store) == expected
    found = verify_live(memory_store.backend(), memory_store.path).of(DAMAGE)
    assert [(f.kind, f.at_bytes, f.first_offset, f.end_offset) for f in found] == [
        ("block header", slot_of(at), None, None),
        ("missing block", slot_of(next_at), 2, 3),
    ]


def test_zeroed_marks_and_states_are_found(memory_store):
    fill(memory_store)
    wal = memory_store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"again")
    wal.close()
    name, at = memory_store.find(b"again")
    base = slot_of(at)
    memory_store.patch(name, base + fmt.MARK_AT[0], bytes(fmt.SECTOR_SIZE))
    memory_store.patch("cursors.db", 2 * fmt.PAGE_SIZE, bytes(fmt.SECTOR_SIZE))
    found = damages(memory_store)
    # The log page's other state is taken for one write old: then the log was not closed for sure, and a
    # power cut may have emptied the mark.
    assert [(kind, place) for kind, _name, place, *_ in found] == [("cursor state", 2 * fmt.PAGE_SIZE)]


def test_a_zeroed_mark_of_a_closed_log_is_found(memory_store):
    fill(memory_store)
    wal = memory_store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"again")
    wal.close()
    name, at = memory_store.find(b"again")
    for mark_at in fmt.MARK_AT:
        data = memory_store.read_file(name)
        memory_store.patch(name, slot_of(at) + mark_at, bytes(fmt.SECTOR_SIZE))
        assert ("block mark", name, slot_of(at) + mark_at, "t", None, None) in damages(memory_store)
        memory_store.write_file(name, data)


@pytest.mark.parametrize(
    ("is_closed", "kind"), [(False, "entries missing at the end"), (True, "missing block")]
)
def test_a_lost_end_is_told_by_cursors(memory_store, is_closed, kind):
    """And after a clean close by the topic's own page."""
    wal = memory_store.open(fsync_schedule=NEVER)
    for number in range(6):
        wal.append_for_topic("t", b"<entry %d>" % number + bytes(WHOLE_BLOCK))
    wal.seek("t", 0, cursor="slow")
    wal.seek("t", 6)
    wal.sync()
    if is_closed:
        wal.close()
    else:
        memory_store = memory_store.killed()
    (newest,) = memory_store.names(".wal")[1:]
    lost = [n for n in range(6) if frame_of(memory_store, n)[0] == newest]
    del memory_store._memory.files[f"{memory_store.path}/{newest}"]
    assert [(kind, *rest[2:]) for kind, *rest in damages(memory_store)] == [(kind, "t", lost[0], 6)]


def test_a_truncated_segment(memory_store):
    fill(memory_store, 400)
    name = memory_store.names(".wal")[0]
    data = memory_store.read_file(name)
    cut_at = fmt.SEGMENT_HEADER_SIZE + 2 * SLOT
    memory_store.write_file(name, data[:cut_at])
    found = damages(memory_store)
    assert ("segment truncated", name, cut_at, None, None, None) in found
    missing = [item for item in found if item[0] == "missing block"]
    assert missing and missing[0][3] == "t" and missing[0][4] > 0


@pytest.mark.parametrize("has_copy", [True, False])
def test_a_lost_segment_header(memory_store, has_copy):
    fill(memory_store, 400)
    name = memory_store.names(".wal")[0]
    memory_store.patch(name, 0, bytes(fmt.SEGMENT_HEADER_USED))
    if not has_copy:
        memory_store.patch(name, fmt.SEGMENT_COPY_AT, bytes(fmt.SEGMENT_HEADER_USED))
    first = damages(memory_store)[0]
    assert first[:3] == ("segment header" + (", one of two copies" if has_copy else ""), name, 0)


@pytest.mark.parametrize(
    ("break_it", "kind", "remedy"),
    [
        (lambda store: store._memory.files.pop(f"{store.path}/cursors.db"), "cursors.db missing", REBUILD),
        (lambda store: store.patch("cursors.db", 0, bytes(8192)), "cursors.db header", REBUILD),
        (lambda store: store.patch("cursors.db", 8192, b"\xff" * 1024), "cursors.db log page", REBUILD),
        (lambda store: store.patch("cursors.db", 8192 + 1024, bytes(3072)), "cursors.db log page", REBUILD),
        (
            lambda store: store.patch("cursors.db", page_of(store, b"slow") + 1024, bytes(3072)),
            "cursor page identity",
            REBUILD,
        ),
        (
            lambda store: store.patch("cursors.db", page_of(store, b"slow"), b"\xff" * 1024),
            "cursor states",
            RESET,
        ),
        (
            lambda store: store.write_file("cursors.db", store.read_file("cursors.db")[: 5 * 4096]),
            "cursors.db truncated",
            REBUILD,
        ),
        (lambda store: store.write_file("cursors.db", b""), "cursors.db header", REBUILD),
    ],
)
def test_cursors_db_beyond_its_copies(memory_store, break_it, kind, remedy):
    """One finding, with what mends it; and the frames are read all the same."""
    fill(memory_store)
    break_it(memory_store)
    report = look(memory_store)
    assert [(finding.kind, finding.remedy) for finding in report.of(DAMAGE)] == [(kind, remedy)]
    assert sum(topic.entry_count for topic in report.topics) == COUNT + 1


def test_an_unfinished_creation_is_no_damage(memory_store):
    memory_store.open().close()
    for name in memory_store.names(".wal"):
        del memory_store._memory.files[f"{memory_store.path}/{name}"]
    memory_store.patch("cursors.db", 0, bytes(3 * fmt.PAGE_SIZE))
    (finding,) = look(memory_store).findings
    assert (finding.category, finding.kind) == (TORN, "cursors.db never finished")


def test_foreign_things_are_told(memory_store, make_store):
    fill(memory_store)
    other = make_store("memory", "other")
    fill(other)
    memory_store.write_file("00000000000000000900.wal", other.read_file(other.names(".wal")[0]))
    memory_store.write_file("stray.txt", b"")
    memory_store.write_file("00000000000000000901.free", bytes(10))
    memory_store.write_file("00000000000000000001-00000-7.cut", b"x")
    report = look(memory_store)
    assert report.is_sound
    told = {(f.category, f.kind, f.path.rpartition("/")[2]) for f in report.findings}
    assert told == {
        (NOTE, "segment of another log", "00000000000000000900.wal"),
        (NOTE, "foreign file", "stray.txt"),
        (NOTE, "copy that recovery set aside", "00000000000000000001-00000-7.cut"),
        (TORN, "segment never finished", "00000000000000000901.free"),
    }


def test_a_cursors_db_of_another_log(memory_store, make_store):
    fill(memory_store)
    other = make_store("memory", "other")
    fill(other)
    memory_store.write_file("cursors.db", other.read_file("cursors.db"))
    report = look(memory_store)
    assert [(f.kind, f.remedy) for f in report.of(DAMAGE)] == [("cursors.db of another log", REBUILD)]
    assert sum(topic.entry_count for topic in report.topics) == COUNT + 1


def test_bytes_that_cannot_be_read_are_told_apart_from_damage(memory_store):
    fill(memory_store)
    backend = FaultyBackend(memory_store.backend())
    name, _at = frame_of(memory_store, 0)
    reads = len([1 for found, _a, _l in _reads_of(memory_store) if found == name])
    backend.fail("read", number=5, suffix=name, skip=reads - 1)
    report = verify_directory(backend, memory_store.path)
    (finding,) = report.findings
    assert (finding.category, finding.topic) == (UNREADABLE, "t") and not report.is_sound
    backend.fail("list", number=13)
    with pytest.raises(StorageError):
        verify_directory(backend, memory_store.path)


def _reads_of(store) -> list[tuple[str, int, int]]:
    backend = FaultyBackend(store.backend())
    verify_directory(backend, store.path)
    return backend.reads


def test_what_recovery_calls_damage_so_does_verify(memory_store):
    """Random bytes over random places: verify is silent only where an open and all reads are."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    fill(memory_store)
    files = {name: memory_store.read_file(name) for name in memory_store.names()}
    for trial in range(60):
        for name, data in files.items():
            memory_store.write_file(name, data)
        name = chance.choice(sorted(files))
        for _ in range(chance.randrange(1, 5)):
            length = chance.choice([1, 8, 512, 5000])
            at = chance.randrange(len(files[name]) - length)
            memory_store.patch(name, at, chance.choice([chance.randbytes(length), bytes(length)]))
        found = damages(memory_store)
        try:
            wal = memory_store.open(on_corruption="skip")
        except CorruptionError:
            assert found, (seed, trial)
            continue
        for topic in wal.topics():
            # By a cursor of its own: the default one's position may be what is damaged.
            while wal.batch_read_for_topic(topic, 100_000, cursor="fresh"):
                pass
        # "frame" is what an open sees of a block from outside; the reads say more exactly what is lost.
        known = [d for d in wal.damages if d.first_offset is not None and d.kind != "frame"]
        told = {(d.topic, d.first_offset, d.end_offset) for d in known}
        wal.close()
        ours = [(topic, first, end) for _k, _n, _a, topic, first, end in found if first is not None]
        for topic, first, end in told:
            assert any(t == topic and f <= first and e >= end for t, f, e in ours) or all(
                any(t == topic and f <= offset < e for t, f, e in ours) for offset in range(first, end)
            ), (seed, trial, told, found)
        if not found:
            assert wal.damages == (), (seed, trial)


def test_remedies_are_told(memory_store):
    fill(memory_store)
    name, at = frame_of(memory_store, COUNT - 1)
    memory_store.flip(name, slot_of(at))
    for mark_at in fmt.MARK_AT:
        memory_store.patch(name, slot_of(at) + mark_at, b"\xff" * fmt.MARK_SIZE)
    remedies = {finding.kind: finding.remedy for finding in look(memory_store).of(DAMAGE)}
    assert remedies == {"block header, one of two copies": REPAIR, "block mark": OPEN}
