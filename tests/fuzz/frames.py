"""Target ``frames``: any bytes as a block, read by both twins, which must agree."""

from __future__ import annotations

import struct
from types import ModuleType
from typing import Any

from walrus_core import _hot_py as pure
from walrus_core import format as fmt

from .bytesource import Source
from .craft import reseal_frame

try:
    from walrus_core import _hot_c as compiled
except ImportError:
    compiled = None  # the wheel without a compiler: the pure twin alone

ALGORITHMS = (fmt.CHECKSUM_FNV1A64, fmt.CHECKSUM_CRC32C)
SEQUENCE = 5
KEY = pure.block_key(0x0123456789ABCDEF, SEQUENCE)
SIZE_MAX = 4096
REFUSED = (ValueError, OverflowError)


def run(data: bytes) -> None:
    """Read the bytes in every way there is."""
    source = Source(data)
    algorithm = source.pick(ALGORITHMS)
    at = source.byte() % 64 * 8 if source.byte() < 200 else source.number()
    index, limit, budget, count = (source.number() for _ in range(4))
    index = index if index >= 2**63 else index % 2**62
    remaining = source.number() % 2**20
    if source.byte() < 200:
        at, index, limit = at % 64, index % 4, 2**32
    seals = source.byte()
    view = bytearray(source.rest()[:SIZE_MAX])
    place = at
    # Frames with lengths that lie and checks that fit: each of the first is sealed where it stands.
    for number in range(seals % 8):
        if not 0 <= place <= len(view) - fmt.FRAME_HEADER_SIZE:
            break
        if seals & 0x80:
            struct.pack_into("<I", view, place + 20, index + number & 0xFFFFFFFF)
        reseal_frame(view, place, SEQUENCE, algorithm, 0x0123456789ABCDEF)
        place += pure.frame_size(int.from_bytes(view[place + 8 : place + 12], "little"))
    arguments = (bytes(view), at, algorithm, index, limit, budget, count, remaining)
    found = read_all(pure, *arguments)
    check(found, len(view), at, index)
    if compiled is not None:
        other = read_all(compiled, *arguments)
        # What has no place in 64 signed bits the compiled twin refuses, the pure one need not.
        for name, answer in other.items():
            assert answer == found[name] or answer is REFUSED, (
                f"{name}: pure {found[name]}, compiled {answer}"
            )
        assert at >= 2**63 or index >= 2**63 or REFUSED not in other.values(), other


def read_all(
    twin: ModuleType,
    view: bytes,
    at: int,
    algorithm: int,
    index: int,
    limit: int,
    budget: int,
    count: int,
    left: int,
) -> dict[str, Any]:
    """Return what each reading function of a twin answers."""

    def entries() -> Any:
        found, *rest = twin.decode(view, at, KEY, algorithm, 10, index, limit, budget, count)
        return [(entry.offset, entry.timestamp, entry.data) for entry in found], rest

    calls = {
        "decode": entries,
        "seek": lambda: twin.seek(view, at, KEY, index, limit),
        "walk": lambda: twin.walk(view, at, KEY, algorithm, index, 0, limit),
        "walk on": lambda: twin.walk(view, at, KEY, algorithm, index, left, limit),
        "find": lambda: twin.find_frame(view, at, KEY, index, limit),
        "peek": lambda: twin.peek_header(view, at, KEY),
        "is zero": lambda: twin.is_zero(view),
    }
    found: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            found[name] = call()
        except REFUSED:
            found[name] = REFUSED
    return found


def check(found: dict[str, Any], size: int, at: int, index: int) -> None:
    """Nothing outside the bytes was read, and what was read is in order."""
    entries, (end_at, end_index, status, need) = found["decode"]
    assert [offset for offset, _, _ in entries] == list(range(10 + index, 10 + index + len(entries)))
    assert end_index == index + len(entries)
    assert at <= end_at and (not entries or end_at <= size)
    assert sum(len(data) for _, _, data in entries) <= size
    assert status != pure.SHORT or end_at + need > size
    walked = found["walk"]
    assert walked[1] >= index and (walked[0] == at or walked[0] <= size)
    if found["peek"] is not None:
        assert at + fmt.FRAME_HEADER_SIZE <= size
    place, number = found["find"]
    if place >= 0:
        length = pure.peek_header(b"", 0, KEY) or 0
        assert length == 0 and place + fmt.FRAME_HEADER_SIZE <= size and number >= index
