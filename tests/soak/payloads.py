"""Which payloads a writer appends, and what the processes of a soak tell one another."""

from __future__ import annotations

from typing import Optional

from walrus_core.testing import make_payload

TOPICS = ("a", "b", "c")
WRITERS = (0, 1)
"""Two for each topic: what each of them appended stays in its order, between the entries of the other."""
CURSORS = ("default", "other")
READ_MAX = 64
"""Entries that one read takes, at most."""
LIFE_SPAN = 10_000_000
"""Each process counts on from the next multiple: what was under way at an end may be there or not."""
LENGTH_MIN = 32
"""From here on a payload says itself whose it is."""


def name_of(topic: str, writer: int) -> str:
    """Return the name by which the payloads of a writer call themselves."""
    return f"{topic}/{writer}"


def follows(counter: int, before: Optional[int]) -> bool:
    """Return whether entry ``counter`` of a writer may be its next one behind ``before`` (None: any may)."""
    return before is None or counter == before + 1 or (counter > before and counter % LIFE_SPAN == 0)


def payload(topic: str, writer: int, counter: int) -> bytes:
    """Return entry ``counter`` of a writer: mostly short, some longer than a block."""
    chance = (counter * 2_654_435_761 + writer) % 2**32
    if chance % 100 < 90:
        length = LENGTH_MIN + chance // 100 % 500
    else:
        length = LENGTH_MIN + chance // 100 % (6000 if chance % 100 < 99 else 40_000)
    return make_payload(name_of(topic, writer), counter, length)
