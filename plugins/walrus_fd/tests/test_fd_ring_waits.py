"""Waiting for what is in flight in a ring, whatever arrives meanwhile."""

from __future__ import annotations

import types
from typing import Any

import pytest

from walrus_fd import ring as ring_module
from walrus_fd.ring import Ring


def waiting(ring: Ring, monkeypatch: pytest.MonkeyPatch, arrivals: list[BaseException]) -> Any:
    """Put something into flight whose completions are interrupted by these, one after the other."""
    flight = types.SimpleNamespace(is_over=False)

    def drive(_ring: Ring, driven: Any) -> None:
        assert driven is flight
        if arrivals:
            raise arrivals.pop(0)
        flight.is_over = True

    monkeypatch.setattr(Ring, "_drive", drive)
    monkeypatch.setattr(ring, "_flight", flight)
    return flight


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_what_arrives_while_completions_are_waited_for_is_raised_when_they_are_there(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    first = kind("first")
    flight = waiting(ring, monkeypatch, [first, kind("second"), SystemExit()])
    with pytest.raises(kind) as caught:
        ring._settle()
    assert caught.value is first
    assert flight.is_over and ring._flight is None and ring.broken is None


def test_a_process_without_any_memory_keeps_the_buffers_and_gives_the_ring_up(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned: list[Any] = []
    monkeypatch.setattr(ring_module, "_ABANDONED", abandoned)
    with monkeypatch.context() as patch:
        flight = waiting(ring, patch, [MemoryError(str(number)) for number in range(100_000)])
        with pytest.raises(MemoryError, match=r"^0$"):
            ring._settle()
        assert abandoned == [flight] and ring._flight is flight
        assert ring.broken == "waiting for completions failed: MemoryError('999')"
