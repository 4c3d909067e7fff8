"""Pages whose checksums fit and whose contents cannot be: they are taken for damage."""

from __future__ import annotations

import pytest

from walrus_core import format as fmt
from walrus_core import pages
from walrus_core.pages import BlockHeader, PageIdentity, PageState, SegmentHeader

KEY = 0x0123456789ABCDEF
SEGMENT = SegmentHeader(b"L" * 16, 7, 65536, 4, fmt.CHECKSUM_FNV1A64, 99, 1)
BLOCK = BlockHeader(7, 1, 1, 5, 2, 10, 4, b"topic")
IDENTITY = PageIdentity(fmt.PAGE_CURSOR, 3, 1, b"topic", b"cursor")


def test_what_can_be_is_read_back():
    header = pages.decode_segment_header(pages.encode_segment_header(SEGMENT), "f")[0]
    assert header == SEGMENT
    assert pages.decode_block_header(pages.encode_block_header(BLOCK, KEY), KEY) == (BLOCK, True)
    assert pages.decode_identity(page_with(IDENTITY), KEY) == IDENTITY


@pytest.mark.parametrize(
    "change",
    [{"sequence": fmt.NUMBER_MAX + 1}, {"block_size_bytes": 12345}, {"slot_count": 0}, {"algorithm": 77}],
)
def test_a_segment_header_that_cannot_be(change):
    area = pages.encode_segment_header(SEGMENT._replace(**change))
    assert pages.decode_segment_header(area, "f")[0] is None


@pytest.mark.parametrize(
    "change",
    [
        {"previous_sequence": 5},
        {"previous_sequence": 6},
        {"sequence": fmt.NUMBER_MAX + 1},
        {"first_offset": fmt.OFFSET_MAX + 1},
        {"topic": b""},
        {"topic": b"\xff\xfe"},
        {"topic": b"with\0zero"},
    ],
)
def test_a_block_header_that_cannot_be(change):
    page = pages.encode_block_header(BLOCK._replace(**change), KEY)
    assert pages.decode_block_header(page, KEY) == (None, False)


def page_with(identity):
    return bytes(fmt.IDENTITY_AT) + pages.encode_identity(identity, KEY)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": fmt.PAGE_TOPIC},
        {"kind": 77},
        {"cursor": b""},
        {"topic": b""},
        {"topic": b"\xff"},
        {"cursor": b"with\0zero"},
    ],
)
def test_an_identity_that_cannot_be(change):
    assert pages.decode_identity(page_with(IDENTITY._replace(**change)), KEY) is None


@pytest.mark.parametrize(
    ("state", "is_believed"),
    [
        (PageState(fmt.STATE_GENERATION_MAX, fmt.NUMBER_MAX), True),
        (PageState(fmt.STATE_GENERATION_MAX + 1, 1), False),
        (PageState(1, fmt.NUMBER_MAX + 1), False),
        (PageState(1, 1, floor=fmt.NUMBER_MAX + 1), False),
        (PageState(1, 1, clean_plus_one=fmt.NUMBER_MAX + 1), False),
    ],
)
def test_a_state_that_cannot_be(state, is_believed):
    """From the last generation that is believed on, every later one must be."""
    page = pages.encode_state(state, KEY).ljust(fmt.SECTOR_SIZE, b"\0") * 2
    found = (state, False, False) if is_believed else (None, True, True)
    assert pages.decode_states(page.ljust(fmt.PAGE_SIZE, b"\0"), KEY) == found


def states_of(*generations):
    """Return a page with states of these generations, each in its sector."""
    page = bytearray(fmt.PAGE_SIZE)
    for generation in generations:
        at = fmt.STATE_AT[generation % 2]
        data = pages.encode_state(pages.PageState(generation, generation * 10, 0), KEY)
        page[at : at + len(data)] = data
    return bytes(page)


@pytest.mark.parametrize("generation", [3, 4, 99])
def test_an_empty_sector_beside_a_later_state_has_lost_its_state(generation):
    """From the second state on both sectors are in use."""
    state, is_damaged, lost_both = pages.decode_states(states_of(generation), KEY)
    assert (state.generation, is_damaged, lost_both) == (generation, True, False)
    assert pages.decode_states(states_of(generation, generation - 1), KEY)[1:] == (False, False)


@pytest.mark.parametrize("generation", [1, 2])
def test_an_empty_sector_beside_one_of_the_first_two_states_is_the_work_of_a_crash(generation):
    assert pages.decode_states(states_of(generation), KEY)[1:] == (False, False)
    assert pages.decode_states(states_of(1, 2), KEY)[1:] == (False, False)
    assert pages.decode_states(bytes(fmt.PAGE_SIZE), KEY) == (None, False, False)
