"""The judge tells every kind of wrong apart, and lets what is right pass."""

from __future__ import annotations

import pytest

from walrus_core.testing import identify, judge, make_payload
from walrus_core.testing.oracle import (
    HALF_BATCH,
    HEADER_LENGTH,
    LOST,
    PHANTOM,
    REORDERED,
    REPEATED,
    WRONG,
    topic_digest,
)

TOPIC = "orders"
EXPECTED = [make_payload(TOPIC, number, 40 + number) for number in range(8)]
ENDS = {0, 2, 5, 8}


def found(*numbers: int) -> list[tuple[int, bytes]]:
    """Return entries of these numbers, read at offsets from 0 on."""
    return [(place, EXPECTED[number]) for place, number in enumerate(numbers)]


def kinds(entries: list[tuple[int, bytes]], **facts: object) -> list[tuple[str, int]]:
    findings = judge(TOPIC, EXPECTED, entries, **facts)  # type: ignore[arg-type]
    return [(finding.kind, finding.offset) for finding in findings]


@pytest.mark.parametrize("length", [0, 1, HEADER_LENGTH - 1, HEADER_LENGTH, HEADER_LENGTH + 1, 5000])
def test_a_payload_has_its_length_and_says_whose_it_is(length: int) -> None:
    data = make_payload(TOPIC, 7, length)
    assert len(data) == length
    assert data == make_payload(TOPIC, 7, length)
    whose = identify(data)
    assert whose == (None if length < HEADER_LENGTH else (topic_digest(TOPIC), 7))
    if length:
        assert data not in (make_payload(TOPIC, 8, length), make_payload("other", 7, length))[: length // 8]


def test_a_payload_that_was_changed_is_nobodys() -> None:
    data = make_payload(TOPIC, 7, 100, filler=bytes(100))
    for at in range(100):
        assert identify(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]) is None, at
    assert identify(data[:-1]) is None
    assert identify(data + b"\0") is None


def test_a_filler_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="filler"):
        make_payload(TOPIC, 1, 100, filler=b"short")


def test_what_is_right_passes() -> None:
    assert kinds(found(*range(8)), ends=ENDS) == []
    assert kinds(found(0, 1, 2, 3, 4), least=3, ends=ENDS) == []
    assert kinds([(place, EXPECTED[place]) for place in range(3, 8)], oldest=3) == []
    assert kinds([(place, EXPECTED[place]) for place in (0, 1, 4, 5, 6, 7)], gone={2, 3}) == []


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (found(0, 1, 2), [(LOST, 3), (LOST, 4), (LOST, 5), (LOST, 6), (LOST, 7)]),
        (found(0, 1, 2, 2, 3, 4, 5, 6, 7), [(REPEATED, 3), *[(WRONG, place) for place in range(4, 9)]]),
        ([(0, EXPECTED[0]), *((place, EXPECTED[place]) for place in range(2, 8))], [(LOST, 1)]),
    ],
)
def test_lost_and_repeated(entries: list[tuple[int, bytes]], expected: list[tuple[str, int]]) -> None:
    assert kinds(entries) == expected


def test_reordered() -> None:
    places = [0, 1, 3, 2, 4, 5, 6, 7]
    assert (REORDERED, 3) in kinds(found(*places))
    assert LOST not in {kind for kind, _offset in kinds(found(*places))}


def test_wrong_bytes_phantoms_and_other_topics() -> None:
    entries = found(*range(8))
    entries[3] = (3, EXPECTED[3][:-1] + b"?")
    assert kinds(entries) == [(WRONG, 3)]
    entries[3] = (3, make_payload(TOPIC, 99, 50))
    assert kinds(entries) == [(PHANTOM, 3)]
    entries[3] = (3, make_payload("other", 3, 43))
    assert kinds(entries) == [(PHANTOM, 3)]
    assert kinds([*found(*range(8)), (8, make_payload(TOPIC, 8, 48))]) == [(PHANTOM, 8)]


def test_half_a_batch() -> None:
    assert kinds(found(0, 1, 2), least=2, ends=ENDS) == [(HALF_BATCH, 3)]


def test_an_entry_at_another_offset() -> None:
    entries = [(offset + 1, data) for offset, data in found(*range(8))]
    assert {kind for kind, _offset in kinds(entries)} == {WRONG}


def test_equal_payloads_are_taken_in_order() -> None:
    expected = [b"", b"a", b"", b"a"]
    assert judge(TOPIC, expected, list(enumerate(expected))) == []
    assert [f.kind for f in judge(TOPIC, expected, [(0, b""), (1, b""), (2, b"a")])] == [WRONG, WRONG, LOST]
