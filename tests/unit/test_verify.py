"""Every byte of a small log, flipped: what a verify finds, and where. And that it writes nothing."""

from __future__ import annotations

import random

import pytest
from helpers import LOOSE, NEVER, WHOLE_BLOCK

from walrus_core import CorruptionError, hot, livecheck
from walrus_core import format as fmt
from walrus_core.errors import StorageError, UnsupportedVersionError, UsageError
from walrus_core.findings import DAMAGE, NOTE, OPEN, REBUILD, REPAIR, RESET, TORN, UNREADABLE
from walrus_core.hot import frame_size
from walrus_core.livecheck import verify_live
from walrus_core.verify import verify_directory

SLOT = 16384
COUNT = 190


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Nobody writes beside these looks, so damage need not be waited for."""
    monkeypatch.setattr(livecheck, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(livecheck, "FRAME_PAUSES_S", (0.0,))


def payload_of(number: int) -> bytes:
    return b"<entry %d>" % number + b"." * (number * 37 % 300)


def fill(store, count: int = COUNT, **options) -> None:
    """Topic t over several blocks, a large entry of topic big, a cursor; closed."""
    wal = store.open(fsync_schedule=NEVER, consistency=LOOSE, **options)
    for start in range(0, count, 10):
        wal.batch_append_for_topic("t", [payload_of(n) for n in range(start, start + 10)])
    wal.append_for_topic("big", b"b" * 20_000)
    wal.read_next("t", cursor="slow")
    wal.read_next("t")
    wal.close()


def look(store):
    return verify_directory(store.backend(), store.path)


def damages(store) -> list[tuple]:
    found = look(store).of(DAMAGE)
    return [
        (f.kind, f.path.rpartition("/")[2], f.at_bytes, f.topic, f.first_offset, f.end_offset) for f in found
    ]


def page_of(store, cursor: bytes) -> int:
    """Return where the page of a cursor begins; it has states, as that of a topic need not."""
    data = store.read_file("cursors.db")
    return data.index(b"t" + cursor + b"\0", 3 * fmt.PAGE_SIZE) // fmt.PAGE_SIZE * fmt.PAGE_SIZE


def slot_of(at: int) -> int:
    return at - (at - fmt.SEGMENT_HEADER_SIZE) % SLOT


def frame_of(store, number: int) -> tuple[str, int]:
    name, at = store.find(b"<entry %d>" % number)
    return name, at - fmt.FRAME_HEADER_SIZE


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


# --- more than a bit --------------------------------------------------------------------------


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
    from walrus_core.testing import FaultyBackend

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
    from walrus_core.testing import FaultyBackend

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
