"""How cursors.db grows: up to its bound, and over what others have put behind its end."""

from __future__ import annotations

import errno

import pytest
from helpers import NEVER, contents

from walrus_core import format as fmt
from walrus_core.errors import DiskFullError


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
