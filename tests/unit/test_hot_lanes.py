"""Checksums of many payloads side by side: batches of every count and mix of lengths, by every kernel."""

from __future__ import annotations

import ctypes
import mmap
import random
import shutil
import subprocess
from pathlib import Path

import pytest

FNV = 1
KEY = 0xFEDCBA9876543210
TIER_MAX = 3
COUNTS = [*range(1, 70), 95, 96, 97, 127, 128, 129, 160, 200, 255, 256, 257, 300]


def equal_lengths(source, count):
    return [source.choice([0, 1, 8, 40, 100, 256, 400, 800])] * count


def lines(source, count):
    return [source.randint(60, 200) for _ in range(count)]


def anything(source, count):
    return [source.randint(0, 900) for _ in range(count)]


def around_tiles(source, count):
    """Lengths at which the pieces of 16 bytes and the chunks of 384 begin and end."""
    return [max(0, source.choice([16, 32, 48, 384, 400]) + source.randint(-25, 1)) for _ in range(count)]


def few_long(source, count):
    return [source.choice([0, 8, 30, 30, 30, 3000 if source.random() < 0.1 else 15]) for _ in range(count)]


def many_sizes(source, count):
    return [int(2 ** source.uniform(0, 12)) for _ in range(count)]


MIXES = [equal_lengths, lines, anything, around_tiles, few_long, many_sizes]


@pytest.fixture(params=range(TIER_MAX + 1))
def tier(request, twin):
    """Let the compiled twin use kernels up to this tier; the pure one has one way."""
    if not twin.COMPILED:
        if request.param:
            pytest.skip("the pure twin has one way")
        yield 0
        return
    chosen = twin._use_kernels(request.param)
    try:
        if chosen != request.param:
            pytest.skip(f"this processor has no kernels of tier {request.param}")
        yield chosen
    finally:
        twin._use_kernels(TIER_MAX)


@pytest.mark.parametrize("mix", MIXES)
def test_batches_of_every_count(twin, oracle, tier, mix):
    source = random.Random(mix.__name__)
    for count in source.sample(COUNTS, 12):
        payloads = [source.randbytes(length) for length in mix(source, count)]
        view = b"".join(twin.encode_batch(KEY, FNV, payloads, 0, count, 0, 77))
        assert view == oracle.batch(KEY, FNV, payloads, 0, 77), count
        entries, at, index, status, _ = twin.decode(view, 0, KEY, FNV, 0, 0, count, 2**40, 2**40)
        assert (at, index, status) == (len(view), count, twin.DONE), count
        assert [entry.data for entry in entries] == payloads
        walked = twin.walk(view, 0, KEY, FNV, 0, 0, count)
        assert walked[:3] == (len(view), count, 0) and walked[6] == twin.DONE, count


def test_the_payload_that_changed_is_the_one_found(twin, oracle, tier):
    source = random.Random(tier)
    for count in (7, 33, 64, 130):
        payloads = [source.randbytes(length) for length in lines(source, count)]
        view = bytearray(oracle.batch(KEY, FNV, payloads))
        starts = [0]
        for payload in payloads:
            starts.append(starts[-1] + (len(payload) + 39) // 8 * 8)
        for broken in {0, count - 1, *source.sample(range(count), 5)}:
            place = starts[broken] + 32 + source.randrange(len(payloads[broken]))
            view[place] ^= 1 << source.randrange(8)
            entries, at, index, status, _ = twin.decode(view, 0, KEY, FNV, 0, 0, count, 2**40, 2**40)
            assert (len(entries), at, index) == (broken, starts[broken], broken)
            assert status == twin.BAD_PAYLOAD
            assert twin.walk(view, 0, KEY, FNV, 0, 0, count)[:2] == (starts[broken], broken)
            view[starts[broken] : starts[broken + 1]] = oracle.frame(
                KEY, FNV, payloads[broken], int(broken == 0), count - 1 - broken, broken, 0
            )


# --- the C functions themselves: a state of its own for every payload, and no byte beside it --------

HEADERS = Path(__file__).resolve().parents[2] / "walrus_core"
PROGRAM = """
#include "_checksum.h"
void set_up(void) { walrus_checksum_setup(); }
int choose(int tier) { return walrus_checksum_choose(tier); }
void lanes(walrus_lane *jobs, size_t count) { walrus_fnv_lanes(jobs, count); }
uint64_t plain(const uint8_t *data, size_t length, uint64_t state)
{
    return walrus_fnv_plain(data, length, state);
}
"""


class Lane(ctypes.Structure):
    """walrus_lane."""

    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("state", ctypes.c_uint64)]


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """The functions of _checksum.h, compiled for the test."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("lanes")
    (folder / "lanes.c").write_text(PROGRAM, encoding="utf-8")
    command = [compiler, "-O1", "-w", "-shared", "-fPIC", f"-I{HEADERS}", "lanes.c", "-o", "lanes.so"]
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "lanes.so"))
    library.plain.restype = ctypes.c_uint64
    library.plain.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64]
    library.lanes.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.set_up()
    return library


@pytest.fixture(scope="module")
def fenced():
    """Random bytes between two pages that cannot be read, as (address, length)."""
    page, inner = mmap.PAGESIZE, 16 * mmap.PAGESIZE
    memory = mmap.mmap(-1, inner + 2 * page)
    memory[page : page + inner] = random.Random(5).randbytes(inner)
    held = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(held)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for place in (address, address + page + inner):
        assert protect(place, page, 0) == 0, ctypes.get_errno()
    yield address + page, inner
    del held
    memory.close()


@pytest.mark.parametrize("tier", range(TIER_MAX + 1))
@pytest.mark.parametrize("mix", MIXES)
def test_lanes_between_pages_that_cannot_be_read(functions, fenced, tier, mix):
    if functions.choose(tier) != tier:
        pytest.skip(f"this processor has no kernels of tier {tier}")
    address, size = fenced
    source = random.Random(f"{mix.__name__} {tier}")
    for count in range(1, 201):
        jobs = (Lane * count)()
        for job, length in zip(jobs, mix(source, count), strict=True):
            start = source.choice([0, size - length, source.randint(0, size - length)])
            state = source.choice([source.getrandbits(64), 0, 2**64 - 1, source.getrandbits(8)])
            job.data, job.length, job.state = address + start, length, state
        expected = [functions.plain(job.data, job.length, job.state) for job in jobs]
        functions.lanes(jobs, count)
        assert [job.state for job in jobs] == expected, count


@pytest.mark.parametrize("tier", range(1, TIER_MAX + 1))
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x80", b"\x7f\x01", b"\x00\xff"])
def test_lanes_of_extreme_bytes(functions, tier, fill):
    if functions.choose(tier) != tier:
        pytest.skip(f"this processor has no kernels of tier {tier}")
    data = ctypes.create_string_buffer(fill * 1500)
    for length in (383, 384, 385, 767, 1500):
        jobs = (Lane * 64)()
        for number, job in enumerate(jobs):
            state = [0, 2**64 - 1, 0xFF, 0x80, 2**63][number % 5] ^ number // 5
            job.data, job.length, job.state = ctypes.addressof(data) + number % 3, length, state
        expected = [functions.plain(job.data, job.length, job.state) for job in jobs]
        functions.lanes(jobs, len(jobs))
        assert [job.state for job in jobs] == expected, length
