"""A small log that tests of verify break, and what a verify says of it."""

from __future__ import annotations

from helpers import LOOSE, NEVER

from walrus_core import format as fmt
from walrus_core.findings import DAMAGE
from walrus_core.verify import verify_directory

SLOT = 16384
COUNT = 190


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
