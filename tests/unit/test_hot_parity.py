"""The two twins on the same bytes, sound and damaged: equal results, and never a wrong payload."""

from __future__ import annotations

import random
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FNV = 1
CRC = 2
ALGORITHMS = pytest.mark.parametrize("algorithm", [FNV, CRC], ids=["fnv1a64", "crc32c"])
U64 = st.integers(0, 2**64 - 1)
PAYLOADS = st.lists(
    st.one_of(st.binary(max_size=60), st.integers(100, 700).map(lambda n: random.Random(n).randbytes(n))),
    min_size=1,
    max_size=21,
)
NUMBERS = st.one_of(st.integers(-2, 30), st.integers(-(2**66), 2**66))


def reading(module, view, at, key, algorithm, index, limit, max_bytes, max_entries):
    """Return what every reading function of a twin says of ``view``, entries as tuples."""
    entries, *rest = module.decode(view, at, key, algorithm, 10, index, limit, max_bytes, max_entries)
    return (
        [(entry.offset, entry.timestamp, entry.data) for entry in entries],
        rest,
        module.seek(view, at, key, index, limit),
        module.walk(view, at, key, algorithm, index, 0, limit),
        module.walk(view, at, key, algorithm, index, 3, limit),
        module.find_frame(view, at, key, index, limit),
        module.peek_header(view, at, key),
        module.is_zero(view),
        module.verify(bytes(view), at, key, algorithm, index, limit) if at >= 0 else None,
    )


def from_a_file(module, view, key, algorithm, index, limit, max_bytes, max_entries):
    """Return what a twin decodes of the bytes where they stand in a file, entries as tuples."""
    with tempfile.TemporaryFile() as file:
        file.write(b"before" + view)
        file.flush()
        entries, *rest = module.decode_file(
            file.fileno(), 6, len(view), key, algorithm, 10, index, limit, max_bytes, max_entries
        )
    return [(entry.offset, entry.timestamp, entry.data) for entry in entries], rest


@ALGORITHMS
@settings(max_examples=150, deadline=None)
@given(data=st.data(), payloads=PAYLOADS, key=U64, whole=st.booleans(), timestamp=U64)
def test_equal_on_damaged_bytes(twins, oracle, algorithm, data, payloads, key, whole, timestamp):
    sound = oracle.batch(key, algorithm, payloads, 0, timestamp, whole)
    view = bytearray(sound)
    for bit in data.draw(st.lists(st.integers(0, 8 * len(view) - 1), max_size=4)):
        view[bit >> 3] ^= 1 << (bit & 7)
    del view[data.draw(st.integers(len(view) - 40, len(view))) :]
    arguments = (0, key, algorithm, 0, 2**40, data.draw(NUMBERS), data.draw(NUMBERS))
    pure, compiled = (reading(module, view, *arguments) for module in twins)
    assert pure == compiled
    # Bytes, which cannot change, are verified where they stand; files are read frame by frame.
    for module in twins:
        assert reading(module, bytes(view), *arguments) == pure
        if module.READS_FILES:
            assert from_a_file(module, view, *arguments[1:3], *arguments[3:]) == (pure[0], pure[1])
    at = 0
    for entry in pure[0]:
        for module in twins:
            found = module.entry_in(bytes(view), at, entry[0])
            assert (found.offset, found.timestamp, found.data) == entry
        at += twins[0].frame_size(len(entry[2]))
    for place, (offset, stamp, payload) in enumerate(pure[0]):
        assert (offset, stamp, payload) == (10 + place, timestamp, payloads[place])


@ALGORITHMS
def test_every_flipped_bit_is_found_by_both(twins, oracle, algorithm):
    payloads = [b"one entry", b"", b"another, longer entry"]
    sound = oracle.batch(77, algorithm, payloads, 0, 5)
    starts = [0, 48, 80]
    for bit in range(8 * len(sound)):
        view = bytearray(sound)
        view[bit >> 3] ^= 1 << (bit & 7)
        pure, compiled = (reading(module, view, 0, 77, algorithm, 0, 3, 99, 9) for module in twins)
        assert pure == compiled, bit
        hit = max(n for n, start in enumerate(starts) if start <= bit >> 3)
        in_payload = (bit >> 3) - starts[hit] - 32
        untouched = 3 if in_payload >= len(payloads[hit]) else hit
        assert [entry[2] for entry in pure[0]] == payloads[:untouched], bit


@ALGORITHMS
@settings(max_examples=100, deadline=None)
@given(
    junk=st.binary(max_size=400),
    at=st.integers(0, 420),
    key=U64,
    index=NUMBERS.filter(lambda n: abs(n) < 2**62),
    numbers=st.tuples(NUMBERS, NUMBERS, NUMBERS),
)
def test_equal_on_any_bytes(twins, algorithm, junk, at, key, index, numbers):
    pure, compiled = (reading(module, junk, at, key, algorithm, index, *numbers) for module in twins)
    assert pure == compiled


@ALGORITHMS
@settings(max_examples=60, deadline=None)
@given(data=st.data(), payloads=PAYLOADS, key=U64, index=st.integers(0, 2**32 - 30), timestamp=U64)
def test_equal_runs(twins, algorithm, data, payloads, key, index, timestamp):
    start = data.draw(st.integers(0, len(payloads)))
    stop = data.draw(st.integers(0, len(payloads)))
    pure, compiled = (
        module.encode_batch(key, algorithm, payloads, start, stop, index, timestamp) for module in twins
    )
    assert [bytes(part) for part in pure] == [bytes(part) for part in compiled]


@settings(deadline=None)
@given(data=st.binary(max_size=3000), fnv=U64, crc=st.integers(0, 2**32 - 1))
def test_equal_checksums(twins, data, fnv, crc):
    pure, compiled = twins
    assert pure.fnv1a64(data, fnv) == compiled.fnv1a64(data, fnv)
    assert pure.crc32c(data, crc) == compiled.crc32c(data, crc)
    assert pure.mix64(fnv) == compiled.mix64(fnv)
    assert pure.block_key(fnv, crc) == compiled.block_key(fnv, crc)
    assert pure.frame_size(crc) == compiled.frame_size(crc)


def test_entries_of_the_two_are_distinct_types_with_one_hash(twins):
    pure, compiled = (module.Entry(1, 2, b"x") for module in twins)
    assert pure != compiled
    assert hash(pure) == hash(compiled)
    assert repr(pure) == repr(compiled)
    assert pure.__reduce__() == compiled.__reduce__()
