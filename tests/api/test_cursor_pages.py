"""How cursors.db grows, up to its bound and over what others put behind its end; two pages of one owner."""

from __future__ import annotations

import errno

import pytest
from helpers import NEVER, contents

from walrus_core import format as fmt
from walrus_core.cursorfile import cursor_page_key
from walrus_core.errors import DiskFullError
from walrus_core.pages import PageState, decode_cursors_header, decode_identity, encode_identity, encode_state


def test_a_file_that_may_not_grow_refuses_new_owners_and_goes_on(store, monkeypatch):
    wal = store.open(fsync_schedule=NEVER)
    wal.append_for_topic("t0", b"first")
    pages = len(store.read_file("cursors.db")) // fmt.PAGE_SIZE
    monkeypatch.setattr(fmt, "CURSORS_PAGES_MAX", pages)

    def fill():
        for number in range(1, pages + 1):
            wal.append_for_topic(f"t{number}", b"one")

    with pytest.raises(DiskFullError) as caught:
        fill()
    assert caught.value.errno == errno.EFBIG
    made = len(wal.topics())
    assert made < pages
    wal.append_for_topic("t0", b"second")
    wal.close()
    monkeypatch.undo()
    wal = store.open()
    assert contents(wal, "t0") == [b"first", b"second"]
    wal.append_for_topic(f"t{made}", b"now")
    assert len(wal.topics()) == made + 1


def test_what_others_put_behind_the_end_is_wiped_before_it_is_ours(store):
    """What lies behind twice the size that is known is nobody's; up to there a crash may have grown it."""
    with store.open(fsync_schedule=NEVER) as wal:
        wal.append_for_topic("before", b"b")
    data = store.read_file("cursors.db")
    pages = len(data) // fmt.PAGE_SIZE
    store.write_file("cursors.db", data + bytes(len(data)) + b"\xa5" * 3 * len(data))
    with store.open(fsync_schedule=NEVER) as wal:
        for number in range(2 * pages):
            wal.append_for_topic(f"t{number}", b"%d" % number)
    grown = store.read_file("cursors.db")
    assert b"\xa5" * 100 not in grown[: 4 * len(data)]
    with store.open() as wal:
        assert wal.recovery_report.damages == ()
        assert len(wal.topics()) == 2 * pages + 1
        assert contents(wal, f"t{2 * pages - 1}") == [b"%d" % (2 * pages - 1)]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("offset", [1, 4])
def test_of_two_pages_of_one_owner_the_one_that_is_further_on_counts(store, offset, is_first):
    """As where the page of a cursor was given back, and the zeros of that were lost with the power."""
    with store.open(fsync_schedule=NEVER) as wal:
        for number in range(5):
            wal.append_for_topic("t", b"%d" % number)
        wal.read_next("t", cursor="other")
        for _ in range(3):
            wal.read_next("t")
    data = store.read_file("cursors.db")
    log_id = decode_cursors_header(data, "cursors.db")
    places = range(2, len(data) // fmt.PAGE_SIZE)
    page_of = {number: data[number * fmt.PAGE_SIZE : (number + 1) * fmt.PAGE_SIZE] for number in places}
    owners = {number: decode_identity(page_of[number], cursor_page_key(log_id, number)) for number in places}
    (mine,) = [number for number, owner in owners.items() if owner and owner.cursor == b"default"]
    (other,) = [number for number, owner in owners.items() if owner and owner.cursor == b"other"]
    free = min(number for number, owner in owners.items() if owner is None)
    # Before or behind the page that there is: the other cursor's makes room.
    target = free if is_first == (free < mine) else other
    key = cursor_page_key(log_id, target)
    states = [encode_state(PageState(number, offset), key).ljust(fmt.SECTOR_SIZE, b"\0") for number in (8, 9)]
    identity = encode_identity(owners[mine]._replace(page=target), key)
    store.patch("cursors.db", target * fmt.PAGE_SIZE, b"".join(states) + identity)
    with store.open() as wal:
        assert wal.cursor_offset("t") == max(3, offset)
        wal.read_next("t")
        assert wal.cursor_offset("t") == max(3, offset) + 1
    with store.open() as wal:
        assert wal.cursor_offset("t") == max(3, offset) + 1
        assert wal.recovery_report.damages == ()
    data = store.read_file("cursors.db")
    assert sum(b"default" in data[at : at + fmt.PAGE_SIZE] for at in range(0, len(data), fmt.PAGE_SIZE)) == 1
