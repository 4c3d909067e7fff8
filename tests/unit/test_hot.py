"""Frames: checksums, layout, encode, decode, seek, search and walk, for both twins.

Every test here takes one twin at a time and compares it with an oracle of its own;
``test_hot_parity.py`` compares the twins with each other, on damaged bytes above all.
"""

from __future__ import annotations

import copy
import inspect
import mmap
import pickle
import random
import struct
import sys
import types

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from walrus_core import hot
from walrus_core.errors import InvalidPayloadError

FNV = 1
CRC = 2
ALGORITHMS = pytest.mark.parametrize("algorithm", [FNV, CRC], ids=["fnv1a64", "crc32c"])
U64 = st.integers(0, 2**64 - 1)
PAYLOADS = st.lists(
    st.one_of(
        st.binary(max_size=80),
        st.integers(0, 1200).map(lambda n: random.Random(n).randbytes(n)),
    ),
    max_size=24,
)
OUT_OF_FIELD = (OverflowError, struct.error)


# --- names --------------------------------------------------------------------------------


def test_the_twin_has_the_names_that_hot_takes(twin):
    assert (twin.DONE, twin.SHORT, twin.BAD_HEADER, twin.BAD_PAYLOAD) == (0, 1, 2, 3)
    assert twin.FNV_BASIS == 0xCBF29CE484222325
    assert twin.FNV_PRIME == 0x100000001B3
    assert twin.GATHER_BYTES_MIN == 65536
    assert twin.COMPILED is (twin.__name__ == "walrus_core._hot_c")


def test_the_twin_has_the_signatures_of_the_pure_one(twin):
    from walrus_core import _hot_py

    for name, function in vars(_hot_py).items():
        if isinstance(function, types.FunctionType) and not name.startswith("_"):
            ours = inspect.signature(getattr(twin, name)).parameters.values()
            theirs = inspect.signature(function).parameters.values()
            assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs], name


# --- entries ------------------------------------------------------------------------------


def test_an_entry_is_immutable(twin):
    entry = twin.Entry(7, 8, b"x")
    for name in ("offset", "timestamp", "data", "other"):
        with pytest.raises(AttributeError):
            setattr(entry, name, 1)
        with pytest.raises(AttributeError):
            delattr(entry, name)
    assert (entry.offset, entry.timestamp, entry.data) == (7, 8, b"x")


def test_entries_compare_by_value(twin):
    entry = twin.Entry(2**40, 2**63, b"x")
    assert entry == twin.Entry(2**40, 2**63, b"x")
    assert entry != twin.Entry(2**40 + 1, 2**63, b"x")
    assert entry != twin.Entry(2**40, 0, b"x")
    assert entry != twin.Entry(2**40, 2**63, b"y")
    assert entry != (2**40, 2**63, b"x")
    assert hash(entry) == hash((2**40, 2**63, b"x"))
    assert repr(entry) == f"Entry(offset={2**40}, timestamp={2**63}, data=b'x')"


def test_a_pickled_entry_is_loaded_by_the_twin_in_use(twin):
    entry = twin.Entry(2**64 - 1, 2**64 - 1, b"payload")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        loaded = pickle.loads(pickle.dumps(entry, protocol))
        assert type(loaded) is hot.Entry
        assert (loaded.offset, loaded.timestamp, loaded.data) == (2**64 - 1, 2**64 - 1, b"payload")
    copied = copy.copy(entry)
    assert (copied.offset, copied.timestamp, copied.data) == (2**64 - 1, 2**64 - 1, b"payload")


def test_many_entries_live_and_die(twin):
    entries = [twin.Entry(n, n, b"%d" % n) for n in range(5000)]
    del entries[::2]
    entries += [twin.Entry(n, n, b"%d" % n) for n in range(5000)]
    assert all(entry.data == b"%d" % entry.offset == b"%d" % entry.timestamp for entry in entries)


# --- payloads and encode --------------------------------------------------------------------


def test_as_payload_copies_what_can_change(twin):
    source = bytearray(b"abc")
    payload = twin.as_payload(source)
    source[0] = 0
    assert payload == b"abc" and type(payload) is bytes
    assert twin.as_payload(memoryview(b"abcdef")[::2]) == b"ace"
    same = b"xyz"
    assert twin.as_payload(same) is same


@pytest.mark.parametrize(
    ("value", "words"), [("text", "encode"), (5, "int"), (None, "NoneType"), ([1], "list")]
)
def test_as_payload_refuses_what_is_no_buffer(twin, value, words):
    with pytest.raises(InvalidPayloadError, match=words):
        twin.as_payload(value)


@ALGORITHMS
@settings(max_examples=60, deadline=None)
@given(
    key=U64,
    payload=st.binary(max_size=300),
    flags=st.integers(0, 255),
    remaining=st.integers(0, 65535),
    index=st.integers(0, 2**32 - 1),
    timestamp=U64,
)
def test_a_header_is_laid_out_as_documented(
    twin, oracle, algorithm, key, payload, flags, remaining, index, timestamp
):
    frame = oracle.frame(key, algorithm, payload, flags, remaining, index, timestamp)
    assert twin.encode_header(key, algorithm, payload, flags, remaining, index, timestamp) == frame[:32]
    assert twin.frame_size(len(payload)) == len(frame)
    word = int.from_bytes(frame[16:20], "little")
    check = twin.header_check(key, len(payload), word, index, timestamp)
    assert check == int.from_bytes(frame[12:16], "little")
    assert twin.peek_header(b"8 before" + frame, 8, key) == (len(payload), index, remaining)


def test_numbers_without_a_place_in_the_header_are_refused(twin):
    for flags, remaining, index, timestamp in [
        (256, 0, 0, 0),
        (0, 65536, 0, 0),
        (0, 0, 2**32, 0),
        (0, 0, 0, 2**64),
        (0, 0, 0, -1),
    ]:
        with pytest.raises(OUT_OF_FIELD):
            twin.encode_header(1, FNV, b"", flags, remaining, index, timestamp)
    for count, index, timestamp in [(65537, 0, 0), (1, 2**32, 0), (1, 0, 2**64), (1, 0, -1)]:
        with pytest.raises(OUT_OF_FIELD):
            twin.encode_batch(1, FNV, [b""] * count, 0, 1, index, timestamp)


@pytest.mark.skipif(
    sys.platform != "linux", reason="memory that is only reserved is asked for as Linux wants it"
)
def test_a_payload_of_4_gib_is_refused_before_it_is_read(twin):
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    try:
        memory = mmap.mmap(-1, 2**32, flags=flags)
    except OSError as error:
        pytest.skip(f"no 4 GiB of address space here: {error}")
    with memory, memoryview(memory) as view, pytest.raises(OUT_OF_FIELD):
        twin.encode_header(1, FNV, view, 0, 0, 0, 0)


@ALGORITHMS
@settings(max_examples=60, deadline=None)
@given(data=st.data(), payloads=PAYLOADS, key=U64, index=st.integers(0, 2**31), timestamp=U64)
def test_a_batch_is_its_frames(twin, oracle, algorithm, data, payloads, key, index, timestamp):
    start = data.draw(st.integers(0, len(payloads)))
    stop = data.draw(st.integers(start, len(payloads)))
    run = b"".join(twin.encode_batch(key, algorithm, payloads, start, stop, index + start, timestamp))
    frames = [
        oracle.frame(key, algorithm, payload, place == 0, len(payloads) - 1 - place, index + place, timestamp)
        for place, payload in enumerate(payloads)
    ]
    assert run == b"".join(frames[start:stop])


@ALGORITHMS
def test_large_payloads_are_handed_on_uncopied(twin, oracle, algorithm):
    source = random.Random(3)
    sizes = [70_001, 10, 0, 65_535, 65_536, 65_537, 3, 1_200_000]
    payloads = [source.randbytes(size) for size in sizes]
    run = twin.encode_batch(5, algorithm, payloads, 0, len(payloads), 9, 77)
    assert b"".join(run) == oracle.batch(5, algorithm, payloads, 9, 77)
    gathered = [payload for payload in payloads if len(payload) >= twin.GATHER_BYTES_MIN]
    assert [part for part in run if any(part is payload for payload in payloads)] == gathered
    assert len(run) == 8


def test_an_empty_run_of_a_batch(twin):
    assert twin.encode_batch(1, FNV, [], 0, 0, 0, 0) == []
    assert twin.encode_batch(1, FNV, [b"a"], 1, 1, 0, 0) == []
    with pytest.raises(IndexError):
        twin.encode_batch(1, FNV, [b"a"], 0, 2, 0, 0)


# --- decode and its kin -----------------------------------------------------------------------


def decoded(twin, result):
    """Return what decode returned with its entries as tuples."""
    entries, *rest = result
    assert all(type(entry) is twin.Entry for entry in entries)
    return [(entry.offset, entry.timestamp, entry.data) for entry in entries], *rest


@ALGORITHMS
@settings(max_examples=60, deadline=None)
@given(
    payloads=PAYLOADS, key=U64, index=st.integers(0, 2**31), junk=st.binary(max_size=20).map(lambda b: b * 8)
)
def test_what_was_encoded_is_decoded_and_walked(twin, oracle, algorithm, payloads, key, index, junk):
    run = oracle.batch(key, algorithm, payloads, index, 11)
    view, at, count = junk + run, len(junk), len(payloads)
    behind = len(view)
    expected = [(100 + index + place, 11, payload) for place, payload in enumerate(payloads)]
    result = twin.decode(view, at, key, algorithm, 100, index, index + count, 2**70, 2**70)
    assert decoded(twin, result) == (expected, behind, index + count, twin.DONE, 0)
    assert twin.seek(view, at, key, index, index + count) == (behind, index + count, twin.DONE, 0)
    total = sum(map(len, payloads))
    low, high = (11, 11) if payloads else (2**64 - 1, 0)
    assert twin.walk(view, at, key, algorithm, index, 0, index + count) == (
        (behind, index + count, 0, total, low, high, twin.DONE, 0)
    )
    # Without a limit all of them end at the end of the buffer, and ask for the next header.
    result = twin.decode(view, at, key, algorithm, 0, index, 2**70, 2**70, 2**70)
    assert result[1:] == (behind, index + count, twin.SHORT, 32)
    assert twin.seek(view, at, key, index, 2**70) == (behind, index + count, twin.SHORT, 32)
    walked = twin.walk(view, at, key, algorithm, index, 0, 2**70)
    assert walked == (behind, index + count, 0, total, low, high, twin.SHORT, 32)


@ALGORITHMS
@settings(max_examples=80, deadline=None)
@example(lengths=[0, 0, 0], max_bytes=-1, max_entries=9, limit=3)
@example(lengths=[0, 0, 0], max_bytes=0, max_entries=9, limit=3)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=40),
    max_bytes=st.integers(-1, 700),
    max_entries=st.integers(-1, 45),
    limit=st.integers(0, 45),
)
def test_decode_stops_at_its_budgets(twin, oracle, algorithm, lengths, max_bytes, max_entries, limit):
    payloads = [bytes([n & 255]) * length for n, length in enumerate(lengths)]
    view = oracle.batch(3, algorithm, payloads)
    expected: list[bytes] = []
    for payload in payloads[:limit]:
        if len(expected) >= max_entries or (expected and len(b"".join(expected)) + len(payload) > max_bytes):
            break
        expected.append(payload)
    entries, at, index, status, need = twin.decode(view, 0, 3, algorithm, 0, 0, limit, max_bytes, max_entries)
    assert [entry.data for entry in entries] == expected
    assert (at, index) == (sum(twin.frame_size(len(payload)) for payload in expected), len(expected))
    ran_out = len(expected) == len(payloads) and limit > len(payloads) and max_entries > len(payloads)
    assert (status, need) == ((twin.SHORT, 32) if ran_out else (twin.DONE, 0))


@ALGORITHMS
def test_a_cut_buffer_is_short_wherever_it_is_cut(twin, oracle, algorithm):
    payloads = [b"first", b"x" * 21, b""]
    view = oracle.batch(9, algorithm, payloads)
    starts = [0, 40, 96, 128]
    for length in range(len(view)):
        place = max(n for n, start in enumerate(starts) if start <= length)
        need = 32 if length - starts[place] < 32 else starts[place + 1] - starts[place]
        entries, *rest = twin.decode(view[:length], 0, 9, algorithm, 0, 0, 3, 1000, 1000)
        assert [entry.data for entry in entries] == payloads[:place]
        assert rest == [starts[place], place, twin.SHORT, need], length
        assert twin.seek(view[:length], 0, 9, 0, 3) == (starts[place], place, twin.SHORT, need)
        walked = twin.walk(view[:length], 0, 9, algorithm, 0, 0, 3)
        assert (walked[0], walked[1], walked[6], walked[7]) == (starts[place], place, twin.SHORT, need)


@ALGORITHMS
def test_frames_of_another_place_are_not_taken(twin, oracle, algorithm):
    view = oracle.batch(9, algorithm, [b"payload"] * 3)
    bad_key = twin.decode(view, 0, 8, algorithm, 0, 0, 3, 1000, 1000)
    assert bad_key == ([], 0, 0, twin.BAD_HEADER, 0)
    bad_index = twin.decode(view, 0, 9, algorithm, 0, 1, 3, 1000, 1000)
    assert bad_index == ([], 0, 1, twin.BAD_HEADER, 0)
    assert twin.peek_header(view, 0, 8) is None
    assert twin.peek_header(bytes(64), 0, 0) is None
    assert twin.peek_header(view, len(view) - 31, 9) is None


@ALGORITHMS
def test_a_damaged_payload_is_named_and_the_frames_before_it_kept(twin, oracle, algorithm):
    payloads = [b"p" * 100] * 20
    sound = oracle.batch(9, algorithm, payloads)
    for broken in range(20):
        view = bytearray(sound)
        view[136 * broken + 40] ^= 1
        entries, *rest = twin.decode(view, 0, 9, algorithm, 0, 0, 20, 10_000, 10_000)
        assert [entry.data for entry in entries] == payloads[:broken]
        assert rest == [136 * broken, broken, twin.BAD_PAYLOAD, 136]
        walked = twin.walk(view, 0, 9, algorithm, 0, 0, 20)
        left = 20 - broken if broken else 0
        low, high = (0, 0) if broken else (2**64 - 1, 0)
        assert walked == (136 * broken, broken, left, 100 * broken, low, high, twin.BAD_PAYLOAD, 136)
        assert twin.seek(view, 0, 9, 0, 20) == (len(view), 20, twin.DONE, 0)


@ALGORITHMS
def test_walk_wants_whole_batches_in_order(twin, oracle, algorithm):
    def frame(flags, remaining, index):
        return oracle.frame(1, algorithm, b"12345678", flags, remaining, index, index)

    batches = frame(1, 1, 0) + frame(0, 0, 1) + frame(1, 0, 2) + frame(1, 2, 3)
    assert twin.walk(batches, 0, 1, algorithm, 0, 0, 99) == (160, 4, 2, 32, 0, 3, twin.SHORT, 32)
    for wrong in (frame(1, 1, 4), frame(0, 0, 4), frame(0, 2, 4)):
        walked = twin.walk(batches + wrong, 0, 1, algorithm, 0, 0, 99)
        assert walked == (160, 4, 2, 32, 0, 3, twin.BAD_HEADER, 0)
    assert twin.walk(frame(0, 0, 0), 0, 1, algorithm, 0, 0, 9)[6] == twin.BAD_HEADER
    assert twin.walk(frame(0, 0, 0), 0, 1, algorithm, 0, 1, 9)[:3] == (40, 1, 0)
    assert twin.walk(frame(1, 0, 0), 0, 1, algorithm, 0, 1, 9)[6] == twin.BAD_HEADER


@settings(deadline=None)
@given(
    gap=st.integers(0, 12),
    index=st.integers(0, 9),
    index_min=st.integers(-1, 11),
    index_end=st.integers(-1, 11),
    at=st.integers(0, 14),
)
def test_find_frame(twin, oracle, gap, index, index_min, index_end, at):
    view = b"\1 noise " * gap + oracle.frame(4, FNV, b"payload", 1, 0, index, 5)
    hit = at <= gap and index_min <= index < index_end
    assert twin.find_frame(view, 8 * at, 4, index_min, index_end) == ((8 * gap, index) if hit else (-1, -1))
    assert twin.find_frame(view[:-1], 8 * at, 4, index_min, index_end) == (-1, -1)


@ALGORITHMS
def test_large_buffers_without_the_gil(twin, oracle, algorithm):
    source = random.Random(4)
    payloads = [source.randbytes(size) for size in (300_000, 5, 0, 66_000, 70_000, 66_001, 66_000, 66_000, 9)]
    view = oracle.batch(2, algorithm, payloads)
    entries, at, index, status, need = twin.decode(view, 0, 2, algorithm, 0, 0, 9, 2**40, 100)
    assert [entry.data for entry in entries] == payloads
    assert (at, index, status, need) == (len(view), 9, twin.DONE, 0)
    walked = twin.walk(view, 0, 2, algorithm, 0, 0, 9)
    assert walked == (len(view), 9, 0, sum(map(len, payloads)), 0, 0, twin.DONE, 0)
    assert twin.find_frame(view, 8, 2, 8, 9) == (len(view) - 48, 8)
    assert twin.is_zero(bytes(100_000)) is True
    assert twin.is_zero(bytes(100_000) + b"\1") is False


def test_places_outside_the_buffer(twin, oracle):
    view = oracle.batch(2, FNV, [b"abc"])
    far = 2**62
    assert twin.decode(view, far, 2, FNV, 0, 0, 1, 9, 9) == ([], far, 0, twin.SHORT, 32)
    assert twin.seek(view, far, 2, 0, 1) == (far, 0, twin.SHORT, 32)
    assert twin.find_frame(view, far, 2, 0, 1) == (-1, -1)
    assert twin.peek_header(view, far, 2) is None
    assert twin.walk(view, far, 2, FNV, 0, 0, 1)[6:] == (twin.SHORT, 32)
    for index in (-1, 2**32, 2**40):
        assert twin.decode(view, 0, 2, FNV, 0, index, 2**50, 9, 9)[1:] == (0, index, twin.BAD_HEADER, 0)


def test_negative_places_never_yield_an_entry(twin, oracle):
    view = oracle.batch(2, FNV, [b"abc"])
    refused = (ValueError, OverflowError, struct.error)
    for at in (-1, -8, -2000, -(2**70)):
        with pytest.raises(refused):
            twin.decode(view, at, 2, FNV, 0, 0, 1, 9, 9)
        with pytest.raises(refused):
            twin.walk(view, at, 2, FNV, 0, 0, 1)
        with pytest.raises(refused):
            twin.seek(view, at, 2, 0, 1)
        with pytest.raises(refused):
            twin.peek_header(view, at, 2)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_any_contiguous_buffer_can_be_read(twin, oracle, kind):
    view = kind(oracle.batch(2, CRC, [b"abc"]))
    ((entry,), *rest) = twin.decode(view, 0, 2, CRC, 0, 0, 1, 9, 9)
    assert (entry.data, rest) == (b"abc", [40, 1, twin.DONE, 0])
    assert type(entry.data) is bytes
    assert twin.walk(view, 0, 2, CRC, 0, 0, 1)[:2] == (40, 1)


def test_no_buffer_is_kept(twin, oracle):
    view = bytearray(oracle.batch(2, CRC, [b"abc"]))
    entries = twin.decode(view, 0, 2, CRC, 0, 0, 1, 9, 9)[0]
    with pytest.raises((ValueError, OverflowError, struct.error)):
        twin.decode(view, -1, 2, CRC, 0, 0, 1, 9, 9)
    twin.walk(view, 0, 2, CRC, 0, 0, 1), twin.seek(view, 0, 2, 0, 1), twin.find_frame(view, 0, 2, 0, 1)
    twin.peek_header(view, 0, 2), twin.is_zero(view), twin.fnv1a64(view), twin.crc32c(view)
    twin.encode_header(1, FNV, view, 0, 0, 0, 0), twin.as_payload(view)
    view.clear()  # raises BufferError while anything holds on to it
    assert entries[0].data == b"abc"
