"""One sealed file in a file of the backend inside.

Inside it is a header area of 4096 bytes, then the sectors. The file inside is 511 bytes longer than
header area and file: so there is room for the whole of the last sector, and the exact size follows
from the size inside, with which it changes in one step.

**Invariants**
* A header is durable before any sector is written: a file without one has never held anything.
* Every write inside is of whole sectors, each of which a power cut leaves old or new. So a write of
  a part of a sector, which reads, changes and writes it, tears as any write does.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from typing import Optional

from walrus_core.backend import Buffer, CapableFile
from walrus_sealed.sectors import (
    HEADER_AREA_BYTES,
    HEADER_PLACES,
    SALT_BYTES,
    SECTOR_BYTES,
    Sectors,
    WrongKey,
)


def inner_size(size_bytes: int) -> int:
    """Return how long the file inside is for a file of ``size_bytes``: its last sector always fits."""
    return HEADER_AREA_BYTES + (size_bytes + SECTOR_BYTES - 1 if size_bytes else 0)


def outer_size(inner_bytes: int) -> int:
    """Return how long the file is whose inside is so long; the reverse of ``inner_size``."""
    return max(inner_bytes - HEADER_AREA_BYTES - SECTOR_BYTES + 1, 0)


def _down(place: int) -> int:
    return place // SECTOR_BYTES * SECTOR_BYTES


def _up(place: int) -> int:
    return -(-place // SECTOR_BYTES) * SECTOR_BYTES


class SealedFile:
    """One open file.

    Threads: reads and writes of one file take turns, so that none sees half of a sector.
    """

    def __init__(self, inner: CapableFile, path: str, key: bytes) -> None:
        """``inner`` is closed with this object, but not where this raises.

        Raises: OSError: EACCES for a wrong key, EIO for a damaged header.
        """
        self.inner = inner
        self.path = path
        self._key = key
        self._lock = threading.Lock()
        self._header_failure: Optional[OSError] = None
        self._sectors: Optional[Sectors] = self._read_headers()

    def _read_headers(self) -> Optional[Sectors]:
        if self.inner.size_bytes < HEADER_AREA_BYTES:
            return None  # a power cut came into the creation of the file
        headers = [bytes(self.inner.read_at(place, SECTOR_BYTES)) for place in HEADER_PLACES]
        try:
            return Sectors.of_headers(self._key, headers)
        except WrongKey:
            raise OSError(errno.EACCES, "the file was sealed with another key", self.path) from None
        except ValueError as error:
            raise OSError(errno.EIO, f"{error}: the file cannot be read any more", self.path) from None

    def write_header(self) -> Sectors:
        """Give the file a header, if it has none yet. Durability: it is durable.

        Raises: OSError: there is none, and there will be none until the file is opened again. A sync
        that failed must not be tried again: the second one may succeed without the bytes.
        """
        if self._header_failure is not None:
            failed = self._header_failure
            raise OSError(failed.errno, failed.strerror, self.path) from failed
        if self._sectors is None:
            try:
                self._sectors = self._make_header()
            except OSError as error:
                self._header_failure = error
                raise
        return self._sectors

    def _make_header(self) -> Sectors:
        sectors = Sectors(self._key, os.urandom(SALT_BYTES))
        self.inner.reserve(0, HEADER_AREA_BYTES)
        for place in HEADER_PLACES:
            self.inner.write_at(place, sectors.header())
        self.inner.sync()
        return sectors

    # --- required ---------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """Size of the file now, to the byte."""
        return outer_size(self.inner.size_bytes)

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        """Return exactly ``length_bytes``. Raises: OSError. Cost: about 4 µs a sector."""
        self._check(at_bytes, length_bytes)
        with self._lock:
            start = _down(at_bytes)
            plain = self._read(start, _up(at_bytes + length_bytes))
        return plain[at_bytes - start : at_bytes - start + length_bytes]

    def _check(self, at_bytes: int, length_bytes: int) -> None:
        size_bytes = self.size_bytes
        if at_bytes < 0 or length_bytes < 0 or at_bytes + length_bytes > size_bytes:
            reason = f"[{at_bytes}, {at_bytes + length_bytes}) ends beyond {size_bytes} bytes"
            raise OSError(errno.EIO, reason, self.path)

    def _read(self, start: int, stop: int) -> bytes:
        """Return the sectors in ``[start, stop)``."""
        if self._sectors is None or start == stop:
            return bytes(stop - start)
        sealed = bytes(self.inner.read_at(HEADER_AREA_BYTES + start, stop - start))
        return self._sectors.unseal(start // SECTOR_BYTES, sealed)

    def _whole(self, at_bytes: int, data: bytes) -> tuple[int, bytes]:
        """Fill a range up to whole sectors with what they hold. Returns: (place inside, sealed bytes)."""
        start, end = _down(at_bytes), at_bytes + len(data)
        stop = _up(end)
        plain = bytearray(stop - start)
        edges = {start} if start < at_bytes else set()
        if end < stop:
            edges.add(stop - SECTOR_BYTES)
        for edge in edges:
            plain[edge - start : edge - start + SECTOR_BYTES] = self._read(edge, edge + SECTOR_BYTES)
        plain[at_bytes - start : end - start] = data
        sealed = self.write_header().seal(start // SECTOR_BYTES, bytes(plain))
        return HEADER_AREA_BYTES + start, sealed

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        """Write all of ``data``. Raises: OSError; any part of the range may be written."""
        self._check(at_bytes, len(data))
        if len(data):
            with self._lock:
                self.inner.write_at(*self._whole(at_bytes, bytes(data)))

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        """Reserve the sectors of a range. Raises: OSError; size and space are as before."""
        end = at_bytes + length_bytes
        with self._lock:
            start = HEADER_AREA_BYTES + _down(at_bytes)
            stop = HEADER_AREA_BYTES + _up(end)
            if end > self.size_bytes:
                stop = inner_size(end)
            self.inner.reserve(start, stop - start)

    def sync(self) -> None:
        """Make every byte written before durable. Raises: OSError."""
        self.inner.sync()

    def close(self) -> None:
        """Close the file inside; a second call does nothing."""
        self.inner.close()

    # --- by capability ----------------------------------------------------------------------

    def write_many(self, writes: Sequence[tuple[int, Sequence[Buffer]]]) -> None:
        """Write several extents, each joined and sealed at once instead of buffer by buffer."""
        for at_bytes, buffers in writes:
            self.write_at(at_bytes, b"".join(buffers))

    def read_many(self, reads: Sequence[tuple[int, int]]) -> list[Buffer]:
        """Read several extents."""
        return [self.read_at(at_bytes, length_bytes) for at_bytes, length_bytes in reads]

    def discard(self, at_bytes: int, length_bytes: int) -> None:
        """Give whole sectors back, and write zeros into those at the edges. Raises: OSError."""
        self._check(at_bytes, length_bytes)
        first, last = _up(at_bytes), _down(at_bytes + length_bytes)
        if first >= last:
            self.write_at(at_bytes, bytes(length_bytes))
            return
        self.write_at(at_bytes, bytes(first - at_bytes))
        with self._lock:
            self.inner.discard(HEADER_AREA_BYTES + first, last - first)
        self.write_at(last, bytes(at_bytes + length_bytes - last))

    def drop_cache(self) -> None:
        """Have the backend inside forget cached bytes."""
        self.inner.drop_cache()
