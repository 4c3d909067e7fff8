"""The append path of one block, in pure Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Optional

from walrus_core._pure.frames import Buffer, as_payload, encode_header, frame_size
from walrus_core.format import FLAG_FIRST, FRAME_ALIGN

CALL_BYTES_MIN = 16 * 1024
"""Frames of so many bytes, of one entry or of a batch, are written by a call. Below it the compiled twin
puts them into the window, if there is one."""

_ZEROS = bytes(FRAME_ALIGN)


class Tail:
    """Where the next frame of an unsealed block goes, and the append of one entry there.

    Invariants: ``state`` changes in one store, after the bytes are written. ``claimed`` is raised
    before a write starts, so ``torn`` (claimed beyond the state) tells that a write was
    interrupted and bytes of it may stand behind the last good frame.

    Threads: the caller holds the topic's lock for ``append``, ``claim`` and ``advance``;
    ``state`` may be read at any time.
    """

    __slots__ = (
        "_clock",
        "_write",
        "algorithm",
        "claimed",
        "end",
        "first_offset",
        "key",
        "ready",
        "reserved",
        "state",
    )

    def __init__(
        self,
        *,
        write: Callable[[int, Buffer], None],
        window: Optional[memoryview],
        descriptor: int,
        base: int,
        clock: Optional[Callable[[], int]],
        key: int,
        algorithm: int,
        first_offset: int,
        end: int,
        reserved: int,
        state: tuple[int, int, int, int, int],
        stages: bool = False,
    ) -> None:
        """Positions are bytes from the start of the block; the block starts at ``base`` of its file.

        ``write(at_bytes_in_block, data)`` is always there; ``window`` (the block's memory) and
        ``descriptor`` (of its file, -1: none) let the compiled twin write by itself, as does
        ``clock`` None, which means the system's clock. ``state`` is (at, index, payload_bytes,
        low, high): the end of the frames, their count, and totals. ``stages`` lets the compiled twin
        put frames together that go past the topic's lock; none do here.
        """
        self._write = write
        self._clock = clock
        self.key = key
        self.algorithm = algorithm
        self.first_offset = first_offset
        self.end = end
        self.reserved = reserved
        self.ready = 2**64 - 1
        """Frames of less than CALL_BYTES_MIN go up to here: the pages are ready, or being made so."""
        self.state = state
        self.claimed = state[0]

    @property
    def next_offset(self) -> int:
        """Offset that the next entry of this block gets."""
        return self.first_offset + self.state[1]

    @property
    def torn(self) -> bool:
        """True where an interrupted write may have left bytes behind the last good frame."""
        return self.claimed != self.state[0]

    def now(self) -> int:
        """Return the time to stamp entries with, in nanoseconds since the epoch."""
        return time.time_ns() if self._clock is None else self._clock()

    def append(self, data: object) -> int:
        """Write one entry as a batch of its own.

        Returns: its offset, or -1 where it does not fit in the reserved space (nothing changed).

        Raises: InvalidPayloadError: nothing changed. Whatever ``write`` raises: the tail is torn.
        """
        payload = as_payload(data)
        size = frame_size(len(payload))
        if not self._has_room(size):
            return -1
        timestamp = self.now()
        # Asked again: an injected clock may be anything, even an append.
        if not self._has_room(size):
            return -1
        at, index, payload_bytes, low, high = self.state
        header = encode_header(self.key, self.algorithm, payload, FLAG_FIRST, 0, index, timestamp)
        self.claimed = at + size
        self._write(at, b"".join((header, payload, _ZEROS[: -len(payload) % FRAME_ALIGN])))
        self.state = (
            at + size,
            index + 1,
            payload_bytes + len(payload),
            min(low, timestamp),
            max(high, timestamp),
        )
        return self.first_offset + index

    def _has_room(self, size: int) -> bool:
        return self.claimed == self.state[0] and self.has_room(size)

    def append_batch(self, payloads: list[bytes]) -> Optional[range]:
        """Append a batch without help: only the compiled twin can. Returns: None, nothing changed."""
        return None

    def write_staged(self) -> None:
        """Write what was staged: nothing is."""

    def claim(self, end_at: int) -> None:
        """Announce that bytes up to ``end_at`` may be written now."""
        self.claimed = end_at

    def advance(self, state: tuple[int, int, int, int, int]) -> None:
        """Make frames that were written under ``claim`` part of the block, in one step."""
        self.state = state

    def has_room(self, size: int) -> bool:
        """Say whether frames of ``size`` bytes can be written without anything made ready before."""
        limit = self.reserved if size >= CALL_BYTES_MIN else min(self.reserved, self.ready)
        return self.state[0] + size <= limit

    def prepare(self, start: int, stop: int) -> None:
        """Have the pages of ``[start, stop)`` made ready: here the writer makes them so itself."""

    def release(self) -> None:
        """Let go of the window; no append may follow."""
