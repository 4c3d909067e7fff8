"""Targets ``directory`` and ``cursors``: a whole log that lies, opened and used on MemoryBackend.

The input is a program of lies, applied to the files of a sound log. Whatever it does, opening ends in a
typed error or in a log that keeps its promises: offsets in order, appends read back, and the same again
after closing and opening. Where no checksum was made to fit, every entry is one that was appended, in
its own place of its own topic.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Optional

from walrus_core import Walrus
from walrus_core import format as fmt
from walrus_core.errors import WalrusError

from .bytesource import Source
from .craft import (
    BLOCK_SIZE,
    SLOTS,
    TOPICS,
    Image,
    length_of,
    open_memory,
    payload,
    reseal_block,
    reseal_cursor_page,
    reseal_frame,
    reseal_segment,
    sound_files,
)

FILE_BYTES_MAX = 32 * 1024 * 1024
STEPS_MAX = 12
ENTRIES_MAX = 100_000

# (at, width) of the fields, as docs/format.md has them.
SEGMENT_FIELDS = ((8, 4), (16, 8), (24, 8), (32, 16), (48, 8), (56, 4), (60, 4), (64, 4), (72, 8), (80, 8))
BLOCK_FIELDS = ((8, 8), (16, 4), (20, 4), (24, 8), (32, 8), (40, 8), (48, 8), (56, 2), (64, 8))
MARK_FIELDS = ((0, 8), (8, 4), (12, 4), (16, 8), (24, 4), (32, 8), (40, 8), (48, 8))
FRAME_FIELDS = ((8, 4), (16, 1), (17, 1), (18, 2), (20, 4), (24, 8))
STATE_FIELDS = ((0, 8), (8, 8), (16, 8), (24, 8))
IDENTITY_FIELDS = ((8, 4), (16, 8), (24, 8), (32, 2), (34, 2), (40, 8))
NAMES = (b"alpha", b"beta", b"../../etc", b"a\0b", b"\xff\xfe", b"", b"x" * 1024, b"/")

Lie = Callable[[Image, Source], bool]
"""Changes the image; returns whether a checksum was made to fit."""


def _set(file: bytearray, at: int, width: int, value: int) -> None:
    if at + width <= len(file):
        file[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")


def _pick_slot(image: Image, source: Source) -> tuple[bytearray, int]:
    file = image.files[source.pick(image.segments())]
    return file, fmt.SEGMENT_HEADER_SIZE + source.byte() % SLOTS * BLOCK_SIZE


def lie_in_segment_header(image: Image, source: Source) -> bool:
    file = image.files[source.pick(image.segments())]
    at, width = source.pick(SEGMENT_FIELDS)
    value = source.number()
    for start in (0, fmt.SEGMENT_COPY_AT):
        _set(file, start + at, width, value)
    reseal_segment(file)
    return True


def lie_in_block_header(image: Image, source: Source) -> bool:
    file, page = _pick_slot(image, source)
    at, width = source.pick(BLOCK_FIELDS)
    value = source.number()
    for start in (0, fmt.BLOCK_COPY_AT):
        _set(file, page + start + at, width, value)
    reseal_block(file, page)
    return True


def lie_about_topic(image: Image, source: Source) -> bool:
    file, page = _pick_slot(image, source)
    name = source.pick(NAMES)
    for start in (0, fmt.BLOCK_COPY_AT):
        if page + fmt.PAGE_SIZE <= len(file):
            file[page + start + 64 : page + start + 64 + len(name)] = name
            _set(file, page + start + 56, 2, len(name))
    reseal_block(file, page)
    return True


def lie_in_mark(image: Image, source: Source) -> bool:
    file, page = _pick_slot(image, source)
    start = page + source.pick(fmt.MARK_AT)
    at, width = source.pick(MARK_FIELDS)
    _set(file, start + at, width, source.number())
    reseal_block(file, page)
    return True


def lie_in_frame(image: Image, source: Source) -> bool:
    file, page = _pick_slot(image, source)
    at = page + fmt.PAGE_SIZE
    sequence, algorithm = _sequence(file, page), fmt.CHECKSUM_FNV1A64
    for _ in range(source.byte() % 8):
        length = int.from_bytes(file[at + 8 : at + 12], "little")
        if at + length + 72 > len(file):
            break
        at += (length + 39) & -8
    field, width = source.pick(FRAME_FIELDS)
    _set(file, at + field, width, source.number())
    reseal_frame(file, at, sequence, algorithm)
    return True


def _sequence(file: bytearray, page: int) -> int:
    return int.from_bytes(file[page + 24 : page + 32].ljust(8, b"\0"), "little")


def lie_in_cursor_state(image: Image, source: Source) -> bool:
    number = fmt.CURSORS_FIRST_PAGE + source.byte() % 10
    file = image.files.get(fmt.CURSORS_NAME, bytearray())
    start = number * fmt.PAGE_SIZE + source.pick(fmt.STATE_AT)
    at, width = source.pick(STATE_FIELDS)
    _set(file, start + at, width, source.number())
    reseal_cursor_page(file, number)
    return True


def lie_in_identity(image: Image, source: Source) -> bool:
    number = fmt.CURSORS_FIRST_PAGE + source.byte() % 10
    file = image.files.get(fmt.CURSORS_NAME, bytearray())
    field, value, name = source.pick(IDENTITY_FIELDS), source.number(), source.pick(NAMES)
    for start in (fmt.IDENTITY_AT, fmt.IDENTITY_COPY_AT):
        place = number * fmt.PAGE_SIZE + start
        _set(file, place + field[0], field[1], value)
        if value % 2 and place + 40 + len(name) <= len(file):
            file[place + 40 : place + 40 + len(name)] = name
            _set(file, place + 32, 2, len(name))
    reseal_cursor_page(file, number)
    return True


def copy_a_block(image: Image, source: Source) -> bool:
    """Put a block where another one is, with a header that says that it belongs there."""
    file, page = _pick_slot(image, source)
    other, target = _pick_slot(image, source)
    data = file[page : page + BLOCK_SIZE]
    if len(data) != BLOCK_SIZE or target + BLOCK_SIZE > len(other):
        return False
    other[target : target + BLOCK_SIZE] = data
    if source.byte() % 2:
        for start in (0, fmt.BLOCK_COPY_AT):
            other[target + start + 8 : target + start + 16] = other[48:56]
            _set(other, target + start + 16, 4, (target - fmt.SEGMENT_HEADER_SIZE) // BLOCK_SIZE)
        reseal_block(other, target)
        return True
    return False


def copy_a_cursor_page(image: Image, source: Source) -> bool:
    file = image.files.get(fmt.CURSORS_NAME, bytearray())
    first, second = (source.byte() % 16 for _ in range(2))
    file[second * fmt.PAGE_SIZE : (second + 1) * fmt.PAGE_SIZE] = file[
        first * fmt.PAGE_SIZE : (first + 1) * fmt.PAGE_SIZE
    ]
    if source.byte() % 2:
        for start in (fmt.IDENTITY_AT, fmt.IDENTITY_COPY_AT):
            _set(file, second * fmt.PAGE_SIZE + start + 16, 8, second)
        reseal_cursor_page(file, second)
    return True


def copy_a_segment(image: Image, source: Source) -> bool:
    """Give a copy of a segment a number of its own, everywhere or in the name alone."""
    name = source.pick(image.segments())
    number = source.number()
    file = bytearray(image.files[name])
    if source.byte() % 2:
        for start in (0, fmt.SEGMENT_COPY_AT):
            _set(file, start + 48, 8, number)
        reseal_segment(file)
        for slot in range(SLOTS):
            page = fmt.SEGMENT_HEADER_SIZE + slot * BLOCK_SIZE
            for start in (0, fmt.BLOCK_COPY_AT):
                if any(file[page : page + 8]):
                    _set(file, page + start + 8, 8, number)
            if page + fmt.PAGE_SIZE <= len(file):
                reseal_block(file, page)
    suffix = source.pick((".wal", ".wal", ".wal", ".free", ".cut", ".WAL"))
    image.files[f"{number:020d}{suffix}"] = file
    return True


def resize(image: Image, source: Source) -> bool:
    name = source.pick(sorted(image.files))
    size = source.number() % (1 << 20)
    file = image.files[name]
    del file[size:]
    file.extend(bytes(max(0, size - len(file))))
    return False


def remove(image: Image, source: Source) -> bool:
    image.files.pop(source.pick(sorted(image.files)))
    return False


def overwrite(image: Image, source: Source) -> bool:
    """Damage as a medium makes it: nothing fits afterwards."""
    name = source.pick(sorted(image.files))
    at = (source.byte() << 8 | source.byte()) * (8 if source.byte() % 2 else 1)
    image.write(name, at, source.take(1 + source.byte() % 16))
    return False


def wipe(image: Image, source: Source) -> bool:
    file, page = _pick_slot(image, source)
    at = page + source.pick((0, fmt.BLOCK_COPY_AT, *fmt.MARK_AT, fmt.PAGE_SIZE))
    length = source.pick((8, 512, 1536, 4096, BLOCK_SIZE))
    length = min(length, max(0, len(file) - at))
    file[at : at + length] = bytes(length)
    return False


LIES: tuple[Lie, ...] = (
    lie_in_segment_header,
    lie_in_block_header,
    lie_about_topic,
    lie_in_mark,
    lie_in_frame,
    lie_in_cursor_state,
    lie_in_identity,
    copy_a_block,
    copy_a_cursor_page,
    copy_a_segment,
    resize,
    remove,
    overwrite,
    wipe,
)
CURSOR_LIES: tuple[Lie, ...] = (
    lie_in_cursor_state,
    lie_in_identity,
    copy_a_cursor_page,
    resize,
    remove,
    overwrite,
)


def run(data: bytes) -> None:
    """Tell lies in any file of the directory, open it and use it."""
    _run(data, LIES)


def run_cursors(data: bytes) -> None:
    """The same with lies about cursors.db alone, on a log with or without segments."""
    _run(data, CURSOR_LIES)


def _run(data: bytes, lies: tuple[Lie, ...]) -> None:
    source = Source(data)
    choice = source.byte()
    image = Image(sound_files(bool(choice & 1)))
    is_forged = False
    if choice & 6 == 6:
        for name in image.segments():
            image.files.pop(name)
    for _ in range(STEPS_MAX):
        if not source or not image.files:
            break
        lie = source.pick(lies)
        if not image.segments() and lie not in CURSOR_LIES:
            continue
        is_forged |= lie(image, source)
    use(image, is_forged)


Content = dict[str, list[tuple[int, bytes]]]


def use(image: Image, is_forged: bool) -> None:
    """Open, read, append, close, and the same again: typed errors, or one and the same content."""
    store = image.store(FILE_BYTES_MAX)
    seen: Optional[Content] = None
    for turn in range(3):
        try:
            wal = open_memory(store, on_corruption="skip")
        except WalrusError as error:
            if seen is None:
                return
            raise AssertionError("a log that was opened and used cannot be opened again") from error
        try:
            found = read_everything(wal)
            if seen is not None:
                # Less what was consumed, and given back since.
                seen = {
                    name: [each for each in entries if each[0] >= wal.oldest_offset(name)]
                    for name, entries in seen.items()
                }
                assert found == seen, f"after reopening: {_difference(seen, found)}"
            elif not is_forged:
                check_truth(found)
            append_somewhere(wal, turn, is_forged)
            seen = read_everything(wal)
            consume(wal)
        finally:
            wal.close()


def read_everything(wal: Walrus) -> Content:
    """Return (offset, payload) of all entries that can be read, damage stepped over."""
    found: Content = {}
    for name in sorted(wal.topics()):
        oldest, end = wal.oldest_offset(name), wal.next_offset(name)
        assert 0 <= oldest <= end <= 2**63 and wal.durable_offset(name) <= end
        assert 0 <= wal.topic_entry_count(name) <= end and wal.topic_size(name) >= 0
        found[name] = [(entry.offset, entry.data) for entry in itertools.islice(wal.topic(name), ENTRIES_MAX)]
        offsets = [offset for offset, _data in found[name]]
        assert offsets == sorted(set(offsets)), f"offsets of {name!r}: {offsets}"
        assert not offsets or (oldest <= offsets[0] and offsets[-1] < end)
    return found


def check_truth(found: Content) -> None:
    """Every entry is one that was appended, in its place."""
    for name, entries in found.items():
        assert name in TOPICS, name
        for offset, data in entries:
            assert data == payload(name, offset, length_of(name, offset)), (
                f"entry {offset} of {name} is another"
            )


def append_somewhere(wal: Walrus, turn: int, is_forged: bool) -> None:
    """Append to every topic and a new one; what was refused has not happened.

    Where the last frame of a block lies about its length, what follows it cannot be found, so in a forged
    log an entry may be missing; another one never stands in its place.
    """
    for name in [*sorted(wal.topics())[:5], f"new {turn}"]:
        before = wal.next_offset(name)
        batch = [b"one of two", b"x" * (BLOCK_SIZE if turn == 1 else 10)]
        try:
            assert wal.append_for_topic(name, b"appended") == before
            assert wal.batch_append_for_topic(name, batch) == range(before + 1, before + 3)
        except WalrusError:
            continue
        expected = list(enumerate([b"appended", *batch], before))
        entries = [
            (entry.offset, entry.data) for entry in wal.batch_read_for_topic(name, start_offset=before)
        ]
        assert entries == expected or (is_forged and set(entries) <= set(expected)), (name, entries)


def consume(wal: Walrus) -> None:
    """Move a cursor of every topic, and take the way of the iterating reader of one."""
    for name in sorted(wal.topics())[:5]:
        try:
            wal.read_next(name, cursor="reader")
            entries = wal.batch_read_for_topic(name, 4096, cursor="reader")
        except WalrusError:
            continue
        if entries:
            assert wal.cursor_offset(name, "reader") == entries[-1].offset + 1


def _difference(before: Content, after: Content) -> str:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            short = [[offset for offset, _ in entries or ()] for entries in (old, new)]
            return f"topic {name!r} had the offsets {short[0]}, it has {short[1]}"
    return "nothing"
