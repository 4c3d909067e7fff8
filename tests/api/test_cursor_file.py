"""cursors.db cut short, overwritten, exchanged or full: what opening the directory makes of it."""

from __future__ import annotations

import os
import struct

import pytest
from helpers import LOOSE, NEVER, WHOLE_BLOCK, contents, two_topics, with_faults, with_version

from walrus_core import CorruptionError, pages
from walrus_core.errors import UnsupportedVersionError
from walrus_core.format import PAGE_SIZE, SEGMENT_HEADER_SIZE
from walrus_core.verify import verify_directory


def page_of(store, topic: bytes, cursor: bytes = b"") -> int:
    """Return the number of the page of a topic or cursor."""
    data = store.read_file("cursors.db")
    for number in range(2, len(data) // PAGE_SIZE):
        page = data[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
        if page[2 * 512 + 40 :].startswith(topic + cursor + b"\0") and topic:
            return number
    raise AssertionError(f"no page of {topic!r}")


def newest_state(store, number: int) -> int:
    """Return the position of the newer state of a page."""
    data = store.read_file("cursors.db")
    at = number * PAGE_SIZE
    generations = [struct.unpack_from("<Q", data, at + place)[0] for place in (0, 512)]
    return at + 512 * generations.index(max(generations))


def test_a_header_copy_of_the_cursor_file_is_enough(store):
    two_topics(store)
    store.patch("cursors.db", 0, b"\xff" * PAGE_SIZE)
    wal = store.open()
    assert wal.cursor_offset("t") == 2


@pytest.mark.parametrize("place", [0, PAGE_SIZE])
def test_a_header_of_another_log_in_the_place_of_one_copy_costs_nothing(store, make_store, place):
    """Which of two sound headers counts the log page tells, whose checksum is bound to its log."""
    two_topics(store)
    other = make_store(store.kind, "other")
    two_topics(other)
    store.patch("cursors.db", place, other.read_file("cursors.db")[:512])
    wal = store.open()
    assert wal.cursor_offset("t") == 2
    assert len(contents(wal, "t")) == 6 and wal.recovery_report.damages == ()


def test_both_headers_lost(store):
    two_topics(store)
    store.patch("cursors.db", 0, b"\xff" * 2 * PAGE_SIZE)
    with pytest.raises(CorruptionError, match="header"):
        store.open()


def test_a_missing_cursor_file_beside_segments_is_an_error(store):
    two_topics(store)
    data = store.read_file("cursors.db")
    store.write_file("saved", data)
    if store.kind == "memory":
        del store._memory.files[os.path.join(store.path, "cursors.db")]
    else:
        os.unlink(os.path.join(store.path, "cursors.db"))
    with pytest.raises(CorruptionError, match="missing"):
        store.open()
    assert "cursors.db" not in store.names()
    store.write_file("cursors.db", bytes(len(data)))
    with pytest.raises(CorruptionError):
        store.open()
    store.write_file("cursors.db", data)
    assert store.open().cursor_offset("t") == 2


def test_one_damaged_state_falls_back_to_the_other_and_is_reported(store):
    two_topics(store)
    page = page_of(store, b"t", b"default")
    store.flip("cursors.db", newest_state(store, page) + 9)
    wal = store.open()
    assert [damage.kind for damage in wal.recovery_report.damages] == [
        "cursor state, read from the older one"
    ]
    assert wal.cursor_offset("t") == 1
    assert wal.read_next("t").offset == 1
    wal.close()
    wal = store.open()
    assert wal.cursor_offset("t") == 2
    assert wal.recovery_report.damages == ()


def test_both_states_of_a_cursor_damaged(store):
    two_topics(store)
    page = page_of(store, b"t", b"default")
    for place in (0, 512):
        store.patch("cursors.db", page * PAGE_SIZE + place, b"\xff" * 64)
    wal = store.open()
    assert [(damage.kind, damage.topic) for damage in wal.recovery_report.damages] == [("cursor states", "t")]
    for call in (
        lambda: wal.read_next("t"),
        lambda: wal.read_next("t", checkpoint=False),
        lambda: wal.batch_read_for_topic("t"),
        lambda: wal.cursor_offset("t"),
    ):
        with pytest.raises(CorruptionError, match="seek"):
            call()
    assert wal.batch_read_for_topic("t", start_offset=3)[0].offset == 3
    assert len(contents(wal, "t")) == 6
    assert wal.read_next("t", cursor="slow").offset == 0
    assert wal.read_next("u").data == b"u"
    for _ in range(6):
        wal.read_next("t", cursor="slow")
    wal.sync()
    assert wal.oldest_offset("t") == 0, "nothing may be given back while a position is unknown"
    wal.seek("t", 4)
    assert wal.read_next("t").offset == 4
    wal.sync()
    assert wal.oldest_offset("t") > 0
    wal.close()
    wal = store.open()
    assert wal.cursor_offset("t") == 5


def test_both_states_of_a_topic_damaged(store):
    wal = store.open(fsync_schedule=NEVER)
    for number in range(6):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.batch_read_for_topic("t", 3 * WHOLE_BLOCK)
    wal.sync()
    assert wal.oldest_offset("t") == 3
    wal.close()
    page = page_of(store, b"t")
    for place in (0, 512):
        store.patch("cursors.db", page * PAGE_SIZE + place, b"\xff" * 64)
    wal = store.open()
    assert ("cursor states", "t") in {(damage.kind, damage.topic) for damage in wal.recovery_report.damages}
    assert wal.next_offset("t") == 6
    assert wal.batch_read_for_topic("t", 1, start_offset=3)[0].data == bytes([3]) * WHOLE_BLOCK
    assert wal.append_for_topic("t", b"after") == 6


@pytest.mark.parametrize("copy", [2 * 512, 5 * 512])
def test_an_identity_is_read_from_its_copy(store, copy):
    two_topics(store)
    for page in (page_of(store, b"t"), page_of(store, b"t", b"default")):
        store.flip("cursors.db", page * PAGE_SIZE + copy + 41)
    wal = store.open()
    assert wal.topics() == ["t", "u"]
    assert wal.cursor_offset("t") == 2


def test_a_page_with_states_and_no_identity_is_an_error(store):
    two_topics(store)
    page = page_of(store, b"t", b"default")
    for copy in (2 * 512, 5 * 512):
        store.flip("cursors.db", page * PAGE_SIZE + copy + 41)
    with pytest.raises(CorruptionError) as caught:
        store.open()
    assert caught.value.at_bytes == page * PAGE_SIZE


def test_a_cursor_beyond_the_end_is_set_back_and_reported(store):
    wal = store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t", b"first")
    wal.sync()
    old = store.killed()
    wal.append_for_topic("t", b"second")
    wal.read_next("t")
    wal.read_next("t")
    # Not after a close, which writes where the topic ends: what is missing would be damage then.
    old.write_file("cursors.db", store.read_file("cursors.db"))
    wal = old.open()
    assert wal.recovery_report.clamped_cursors == ("t/default",)
    assert (wal.next_offset("t"), wal.cursor_offset("t")) == (1, 1)
    assert wal.append_for_topic("t", b"anew") == 1
    assert wal.read_next("t").data == b"anew"
    wal.close()
    assert old.open().recovery_report.clamped_cursors == ()


@pytest.mark.timeout(30)
def test_sequences_of_blocks_are_never_used_again(memory_store):
    """The page that reserves them falls back to its older state, from before the first block."""
    wal = memory_store.open(fsync_schedule=NEVER)
    for number in range(3):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.append_for_topic("u", b"u")
    killed = memory_store.killed()
    killed.flip("cursors.db", newest_state(killed, 2) + 9)
    for turn in range(2):
        wal = killed.open()
        for number in range(4):
            wal.append_for_topic("t", bytes([3 + turn * 4 + number]) * WHOLE_BLOCK)
        wal.sync()
        sequences = [block.sequence for topic in wal._engine.topics.values() for block in topic.blocks]
        assert len(sequences) == len(set(sequences))
        killed = killed.killed()
    wal = killed.open()
    assert contents(wal, "t") == [bytes([number]) * WHOLE_BLOCK for number in range(11)]


def test_every_topic_and_cursor_survives_growth_of_the_cursor_file(memory_store):
    wal, backend = with_faults(memory_store, consistency=LOOSE, fsync_schedule=NEVER)
    for number in range(60):
        wal.append_for_topic(f"t{number}", b"%d" % number)
        wal.append_for_topic(f"t{number}", b"more")
        wal.read_next(f"t{number}", cursor=f"c{number}")
    wal.sync()
    for state in (memory_store.killed(), memory_store):
        memory_store.close() if state is memory_store else None
        again = state.open()
        assert len(again.topics()) == 60
        assert [again.cursor_offset(f"t{number}", f"c{number}") for number in range(60)] == [1] * 60
    assert backend.calls["sync"] < 300


def test_metadata_pages_that_are_too_short_are_not_sound():
    assert pages.decode_segment_header(b"", "x", bytes(16), 1) == (None, False)
    assert pages.decode_block_header(b"", 1) == (None, False)
    assert pages.decode_cursors_header(b"", "x") is None


def test_a_newer_cursor_file_is_refused_as_such(store):
    two_topics(store)
    data = store.read_file("cursors.db")
    for at in (0, PAGE_SIZE):
        store.patch("cursors.db", at, with_version(data, at, 512, 2))
    before = store.read_file("cursors.db")
    with pytest.raises(UnsupportedVersionError, match="version 2"):
        store.open()
    assert store.read_file("cursors.db") == before


@pytest.mark.parametrize("at", [0, 511, 512, 600])
def test_a_stain_on_a_free_page_is_reported_and_costs_nothing(memory_store, at):
    """No owner writes one sector alone, so nothing can be lost with it; an owner that comes wipes it."""
    wal = memory_store.open()
    wal.append_for_topic("t", b"x")
    wal.close()
    memory_store.flip("cursors.db", 9 * PAGE_SIZE + at)
    wal = memory_store.open()
    assert [(d.kind, d.at_bytes) for d in wal.recovery_report.damages] == [
        ("free cursor page", 9 * PAGE_SIZE)
    ]
    for number in range(9):
        wal.append_for_topic(f"more {number}", b"y")
    wal.close()
    wal = memory_store.open()
    assert wal.recovery_report.damages == ()
    assert wal.topics() == sorted(["t", *(f"more {number}" for number in range(9))])


def test_two_stains_on_a_free_page_may_be_an_owner(memory_store):
    wal = memory_store.open()
    wal.append_for_topic("t", b"x")
    wal.close()
    for at in (0, 512):
        memory_store.flip("cursors.db", 9 * PAGE_SIZE + at)
    with pytest.raises(CorruptionError):
        memory_store.open()


def test_a_cursor_file_of_another_log_is_refused_before_a_new_log_begins_beside_the_old(store, make_store):
    wal = store.open()
    wal.append_for_topic("t", b"mine")
    wal.close()
    other = make_store(store.kind, "other")
    wal = other.open()
    wal.append_for_topic("t", b"of another")
    wal.close()
    own = store.read_file("cursors.db")
    store.write_file("cursors.db", other.read_file("cursors.db"))
    before = {name: store.read_file(name) for name in store.names()}
    with pytest.raises(CorruptionError, match=r"of another log than the segments.*--rebuild-cursors"):
        store.open()
    assert {name: store.read_file(name) for name in store.names()} == before
    store.write_file("cursors.db", own)
    assert contents(store.open(), "t") == [b"mine"]


@pytest.mark.parametrize("foreign_count", [1, 3])
def test_segments_that_nobody_can_read_may_be_those_of_the_cursor_file(store, make_store, foreign_count):
    """One stray file beside them proves nothing; if most are of another log, the directory is."""
    wal = store.open()
    for number in range(5):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.close()
    own = store.names(".wal")
    assert len(own) == 2
    for name in own:
        store.patch(name, 0, bytes(SEGMENT_HEADER_SIZE))
    other = make_store(store.kind, "other")
    wal = other.open()
    wal.append_for_topic("t", b"of another")
    wal.close()
    (segment,) = other.names(".wal")
    for number in range(foreign_count):
        store.write_file(f"{900 + number:020d}.wal", other.read_file(segment))
    if foreign_count > len(own):
        with pytest.raises(CorruptionError, match="of another log than the segments"):
            store.open()
        return
    wal = store.open()
    assert wal.next_offset("t") == 5
    assert {damage.kind for damage in wal.recovery_report.damages} == {"segment header", "missing block"}
    wal.close()
    report = verify_directory(store.backend(), store.path)
    assert "cursors.db of another log" not in {finding.kind for finding in report.findings}
