"""What tests of repair share: a log with something in every place, ways to break it, and the repair."""

from __future__ import annotations

from helpers import LOOSE, NEVER, WHOLE_BLOCK, contents

from walrus_core import format as fmt
from walrus_core.pages import decode_segment_header, encode_segment_header
from walrus_core.repair import FOLDER_PREFIX, carry_out, plan_repair
from walrus_core.verify import verify_directory

NOON_S = 1_800_000_000.0
OPTIONS = {"resets_cursors": True, "rebuilds_cursors": True}


def fill(store) -> dict[str, list[bytes]]:
    """Topics t, whose oldest blocks are given back, and u; closed. Returns: what they hold."""
    wal = store.open(fsync_schedule=NEVER, consistency=LOOSE)
    for number in range(8):
        wal.append_for_topic("t", b"<entry %d>" % number + bytes(WHOLE_BLOCK))
    wal.batch_append_for_topic("u", [b"u%d" % number * 50 for number in range(40)])
    wal.seek("t", 3)
    wal.seek("u", 7, cursor="slow")
    wal.sync()
    found = {topic: contents(wal, topic) for topic in ("t", "u")}
    wal.close()
    return found


def mend(store, backend=None, **options):
    """Plan and carry out; returns the plan and the folder."""
    backend = backend if backend is not None else store.backend()
    plan = plan_repair(backend, store.path, **options)
    return plan, carry_out(backend, plan, now=lambda: NOON_S)


def files_of(store) -> dict[str, bytes]:
    """The files of the log itself."""
    names = [name for name in store.names() if not name.startswith(FOLDER_PREFIX)]
    return {name: store.read_file(name) for name in names}


def folder_files(store, folder: str) -> dict[str, bytes]:
    backend = store.backend()
    found = {}
    for name in backend.list(folder):
        file = backend.open(f"{folder}/{name}")
        found[name] = bytes(file.read_at(0, file.size_bytes))
        file.close()
    backend.close()
    return found


def is_sound(store) -> bool:
    return verify_directory(store.backend(), store.path).is_sound


def page_of(store, owner: bytes) -> int:
    data = store.read_file("cursors.db")
    return data.index(owner + b"\0", 3 * fmt.PAGE_SIZE) // fmt.PAGE_SIZE * fmt.PAGE_SIZE


def block_at(store, needle: bytes) -> tuple[str, int]:
    name, at = store.find(needle)
    return name, at - (at - fmt.SEGMENT_HEADER_SIZE) % 16384


def break_copies(store) -> None:
    """One of two copies of everything, in all files."""
    name, base = block_at(store, b"<entry 5>")
    store.patch(name, 0, b"\xff" * 100)
    store.patch(name, base + 1536, bytes(1536))
    newest, at = block_at(store, b"<entry 7>")
    store.patch(newest, at, b"\xff" * 600)
    store.patch("cursors.db", fmt.PAGE_SIZE, bytes(512))
    store.patch("cursors.db", page_of(store, b"uslow"), b"\xff" * 512)
    store.patch("cursors.db", page_of(store, b"uslow") + 2560, bytes(1536))


def break_states(store) -> None:
    for owner in (b"uslow", b"tdefault", b"t"):
        store.patch("cursors.db", page_of(store, owner), b"\xff" * 1024)


def break_identity(store) -> None:
    store.patch("cursors.db", page_of(store, b"tdefault") + 1024, bytes(3072))


def break_log_page(store) -> None:
    store.patch("cursors.db", 2 * fmt.PAGE_SIZE, b"\xee" * fmt.PAGE_SIZE)


def break_cursor_headers(store) -> None:
    store.patch("cursors.db", 0, bytes(2 * fmt.PAGE_SIZE))


def break_length(store) -> None:
    store.write_file("cursors.db", store.read_file("cursors.db")[: 3 * fmt.PAGE_SIZE + 100])


def empty_cursors(store) -> None:
    store.write_file("cursors.db", b"")


def bring_foreign(store) -> None:
    """A segment of another log: this one's with another log id, and checksums that fit."""
    name = store.names(".wal")[0]
    data = store.read_file(name)
    header, _ = decode_segment_header(data, name)
    other = encode_segment_header(header._replace(log_id=b"another log's id", sequence=700))
    foreign = other.ljust(fmt.SEGMENT_HEADER_SIZE, b"\0") + data[fmt.SEGMENT_HEADER_SIZE :]
    store.write_file(f"{700:020d}.wal", foreign)


BREAKS = [
    break_copies,
    break_states,
    break_identity,
    break_log_page,
    break_cursor_headers,
    break_length,
    empty_cursors,
    bring_foreign,
]
