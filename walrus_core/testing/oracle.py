"""Payloads that say what they are, and the judge who compares what a log holds with what it should.

A payload carries its topic, its counter, its own length and a hash over all of it. So whoever finds
one on a broken log can tell, without any other memory, whether its bytes are right and whose they are;
and beside the list of what was appended, ``judge`` tells apart

* WRONG: bytes that nobody appended in this form;
* LOST: an entry that must be there is not, or later ones are there without it;
* REPEATED: an entry is there a second time;
* REORDERED: an entry stands before an earlier one;
* PHANTOM: a sound payload that was never acknowledged nor in flight here, or is of another topic;
* HALF_BATCH: the topic ends inside a batch.

Operations in flight count as either: the caller says what must be there at least and what may be.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Optional

WRONG = "wrong"
LOST = "lost"
REPEATED = "repeated"
REORDERED = "reordered"
PHANTOM = "phantom"
HALF_BATCH = "half a batch"
KINDS = (WRONG, LOST, REPEATED, REORDERED, PHANTOM, HALF_BATCH)

_HEADER = struct.Struct("<4sIQ8s8s")
_MAGIC = b"PAY1"
HEADER_LENGTH = _HEADER.size
"""Payloads of this length or more describe themselves; shorter ones are cut out of their own hash."""


class Identity(NamedTuple):
    """Whose payload it is: ``topic`` is the digest of the name."""

    topic: bytes
    counter: int


def topic_digest(topic: str) -> bytes:
    """Return the 8 bytes by which payloads name their topic."""
    return hashlib.blake2b(topic.encode("utf-8"), digest_size=8).digest()


def make_payload(topic: str, counter: int, length: int, filler: Optional[bytes] = None) -> bytes:
    """Return the payload of ``length`` bytes that names itself ``counter`` of ``topic``.

    ``filler`` (at least ``length - HEADER_LENGTH`` bytes, of which the rest is left out) takes the place
    of the bytes that follow from topic and counter: zeros, say, or bytes of the log's own files.
    Shorter payloads than a header follow from topic, counter and length alone; the empty one names nobody.
    """
    name = topic_digest(topic)
    seed = hashlib.blake2b(b"%b %d %d" % (name, counter, length), digest_size=32).digest()
    if length < HEADER_LENGTH:
        return seed[:length]
    rest = length - HEADER_LENGTH
    body = (seed * (rest // len(seed) + 1) if filler is None else filler)[:rest]
    if len(body) < rest:
        raise ValueError(f"the filler has {len(body)} bytes, {rest} are needed")
    return _HEADER.pack(_MAGIC, length, counter, name, _hash(name, counter, body)) + body


def _hash(name: bytes, counter: int, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8, key=b"%b%d" % (name, counter)).digest()


def identify(data: bytes) -> Optional[Identity]:
    """Return whose payload this is; None where the bytes are no sound payload that describes itself."""
    if len(data) < HEADER_LENGTH:
        return None
    magic, length, counter, name, check = _HEADER.unpack_from(data)
    if magic != _MAGIC or length != len(data) or _hash(name, counter, data[HEADER_LENGTH:]) != check:
        return None
    return Identity(name, counter)


class Finding(NamedTuple):
    """One thing that is not as it should be; ``offset`` is where it was found, or is missing."""

    kind: str
    offset: int
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.offset}: {self.detail}"


def judge(
    topic: str,
    expected: Sequence[bytes],
    found: Iterable[tuple[int, bytes]],
    *,
    oldest: int = 0,
    least: Optional[int] = None,
    ends: Optional[Collection[int]] = None,
    gone: Collection[int] = (),
) -> list[Finding]:
    """Compare the entries of a topic, in the order in which they were read, with what was appended.

    Args:
        topic: Its name.
        expected: Payloads by offset, from 0: acknowledged ones, and behind them what was in flight.
        found: (offset, payload) of each entry, from ``oldest`` on.
        oldest: Offset of the first entry that was not reclaimed.
        least: Entries below this offset must be there; those from it on may be there, as a prefix.
            None: all of ``expected``.
        ends: Offsets at which the topic may end; None: anywhere.
        gone: Offsets that the log has reported as lost; they are no finding.

    Returns: what is wrong, in the order of the log; nothing where all is well.
    """
    least = len(expected) if least is None else least
    entries = list(found)
    if [data for _offset, data in entries] == list(expected[oldest : oldest + len(entries)]):
        # The common case, at once: a prefix, of which only the offsets and the end are still to be told.
        findings = [
            Finding(WRONG, offset, f"stands where offset {place} should")
            for place, (offset, _data) in enumerate(entries, oldest)
            if offset != place
        ]
        end = oldest + len(entries)
    else:
        findings, end = _align(topic, expected, entries, oldest, gone)
    findings += [Finding(LOST, offset, "must be there") for offset in range(end, least) if offset not in gone]
    if ends is not None and end >= least and end not in ends:
        findings.append(Finding(HALF_BATCH, end, "the topic ends here"))
    return findings


def _align(
    topic: str,
    expected: Sequence[bytes],
    entries: list[tuple[int, bytes]],
    oldest: int,
    gone: Collection[int],
) -> tuple[list[Finding], int]:
    """Tell what each entry is that was found. Returns: findings, and the offset at which the topic ends."""
    places: dict[bytes, list[int]] = {}
    for p in range(oldest, len(expected)):
        places.setdefault(expected[p], []).append(p)
    findings: list[Finding] = []
    seen: set[int] = set()
    missing: dict[int, str] = {}
    next_place = oldest
    place: Optional[int]
    for offset, data in entries:
        candidates = places.get(data, ())
        place = next((p for p in candidates if p >= next_place), candidates[-1] if candidates else None)
        if place is None:
            findings.append(_stranger(topic, offset, data))
            # It took the place of the entry that should stand at this offset.
            if offset == next_place:
                next_place += 1
        elif place >= next_place:
            missing.update({p: f"entry {place} follows" for p in range(next_place, place) if p not in gone})
            if offset != place:
                findings.append(Finding(WRONG, offset, f"holds entry {place}"))
            seen.add(place)
            next_place = place + 1
        elif place in seen:
            findings.append(Finding(REPEATED, offset, f"entry {place} once more"))
        else:
            missing.pop(place, None)
            seen.add(place)
            findings.append(Finding(REORDERED, offset, f"entry {place} behind entry {next_place - 1}"))
    findings += [Finding(LOST, place, why) for place, why in sorted(missing.items())]
    return findings, next_place


def _stranger(topic: str, offset: int, data: bytes) -> Finding:
    """Say what an entry is that nobody expected."""
    whose = identify(data)
    if whose is None:
        return Finding(WRONG, offset, f"{len(data)} bytes {data[:24]!r}")
    if whose.topic != topic_digest(topic):
        return Finding(PHANTOM, offset, f"entry {whose.counter} of another topic")
    return Finding(PHANTOM, offset, f"entry {whose.counter}, which was never acknowledged")
