"""Checksums of both twins: known answers, and every length and state against plain loops."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

U64 = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xCBF29CE484222325),
        (b"a", 0xAF63DC4C8601EC8C),
        (b"foobar", 0x85944171F73967E8),
    ],
)
def test_fnv1a64_known_answers(twin, data, expected):
    assert twin.fnv1a64(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (
            bytes.fromhex(
                "01c00000 00000000 00000000 00000000 14000000 00000400"
                "00000014 00000018 28000000 00000000 02000000 00000000"
            ),
            0xD9963A56,
        ),
    ],
)
def test_crc32c_known_answers(twin, data, expected):
    assert twin.crc32c(data) == expected


def test_checksums_of_every_length(twin, oracle):
    data = random.Random(1).randbytes(1101)
    state = 0x0123456789ABCDEF
    fnv, lengths = state, range(1101)
    for length in lengths:
        assert twin.fnv1a64(data[:length], state) == fnv, length
        fnv = oracle.fnv(data[length : length + 1], fnv)
    for length in [*range(80), 255, 256, 257, 767, 768, 769, 1023, 1100]:
        assert twin.crc32c(data[:length]) == oracle.crc(data[:length]), length


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(0, 12_000), state=U64, skip=st.integers(0, 9))
def test_checksums_of_random_data(twin, oracle, seed, length, state, skip):
    data = memoryview(random.Random(seed).randbytes(length + skip))[skip:]
    assert twin.fnv1a64(data, state) == oracle.fnv(data, state)
    assert twin.crc32c(data) == oracle.crc(data)


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x80", b"\x7f\x01"])
@pytest.mark.parametrize("state", [0, 2**64 - 1, 0xFF, 0x80, 2**63])
def test_fnv1a64_of_extreme_bytes_and_states(twin, oracle, fill, state):
    data = fill * 700
    for length in (1, 63, 64, 65, 255, 256, 257, 511, 512, 513, 700, len(data)):
        assert twin.fnv1a64(data[:length], state) == oracle.fnv(data[:length], state), length


@settings(deadline=None)
@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_checksums_go_on_from_a_state(twin, data, cut):
    assert twin.fnv1a64(data[cut:], twin.fnv1a64(data[:cut])) == twin.fnv1a64(data)
    assert twin.crc32c(data[cut:], twin.crc32c(data[:cut])) == twin.crc32c(data)


def test_checksums_of_more_than_a_release_of_the_gil(twin, oracle):
    data = random.Random(2).randbytes(200_001)
    assert twin.fnv1a64(data) == oracle.fnv(data)
    assert twin.crc32c(data) == oracle.crc(data)


@settings(deadline=None)
@given(value=U64)
def test_mix64(twin, oracle, value):
    assert twin.mix64(value) == oracle.mix(value)


def test_block_key(twin, oracle):
    assert twin.block_key(1, 2**64 - 1) == oracle.fnv(struct.pack("<QQ", 1, 2**64 - 1))


@settings(deadline=None)
@given(zeros=st.integers(0, 300), place=st.integers(0, 299))
def test_is_zero(twin, zeros, place):
    data = bytearray(zeros)
    assert twin.is_zero(data) is True
    if place < zeros:
        data[place] = 1
        assert twin.is_zero(data) is False


@pytest.mark.parametrize("tier", [0, 1, 2, 3])
def test_every_kernel_of_the_compiled_twin(twin, oracle, tier):
    if not twin.COMPILED:
        pytest.skip("the pure twin has one way")
    if twin._use_kernels(tier) != tier:
        twin._use_kernels(3)
        pytest.skip(f"this processor has no kernels of tier {tier}")
    try:
        source = random.Random(tier)
        for length in [*range(1101), 4095, 5000, 6143, 6144, 20_001]:
            data = memoryview(source.randbytes(length + length % 5))[length % 5 :]
            state = source.getrandbits(64) | source.choice([0, 0xFF])
            assert twin.fnv1a64(data, state) == oracle.fnv(data, state), length
            assert twin.crc32c(data) == oracle.crc(data), length
    finally:
        twin._use_kernels(3)
