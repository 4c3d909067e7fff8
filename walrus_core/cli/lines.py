"""Files as one row of lines, in bounded memory.

A line ends with its LF, which belongs to it; CR and NUL are bytes like any other. The last line
of a file needs no end. The n-th line of the row (from 0) is what the entry at offset n holds.
"""

from __future__ import annotations

import io
import os
import stat
from bisect import bisect_right
from collections.abc import Sequence
from typing import Optional

from walrus_core.cli.interrupts import Interrupts, has_input
from walrus_core.errors import EntryTooLargeError, storage_error

CHUNK_BYTES = 256 * 1024


class LineSource:
    """Hands out the lines of several files, one file after the other.

    Memory: a chunk, the lines of it, and the longest line up to ``line_bytes_max``. Use as a
    context manager: the end of the block closes the file in hand.
    """

    def __init__(self, paths: Sequence[str], line_bytes_max: int) -> None:
        """Open nothing yet. A line longer than ``line_bytes_max``, its end included, is an error."""
        self._waiting = list(reversed(paths))
        self._line_bytes_max = line_bytes_max
        self._file: Optional[io.FileIO] = None
        self._path = ""
        self._is_regular = True
        """Of the file in hand: a read of it waits for nobody, and can be done again."""
        self._lines: list[bytes] = []
        """Whole lines of the last chunk; those before ``_at`` are handed out."""
        self._at = 0
        self._pieces: list[bytes] = []
        """Beginning of a line whose end is not read yet; no longer filled once it is too long."""
        self._pieces_bytes = 0
        """Length of that line so far, too long or not."""
        self._failure: Optional[EntryTooLargeError] = None
        self._first_lines: list[int] = []
        """For each file that was opened, the number of its first line in the row, rising."""
        self._paths: list[str] = []
        self._found_count = 0
        self.line_count = 0
        """Lines handed out."""
        self.byte_count = 0
        """Bytes handed out."""

    def __enter__(self) -> LineSource:
        """Return the source itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the file in hand."""
        self._close_file()

    @property
    def read_count(self) -> int:
        """Whole lines that were read, handed out or not."""
        return self._found_count

    @property
    def begun_bytes(self) -> int:
        """Bytes of a line whose end is not read yet."""
        return self._pieces_bytes

    def take(self, count: int, bytes_max: int, interrupts: Optional[Interrupts] = None) -> list[bytes]:
        """Return the next ``count`` lines, fewer once they have ``bytes_max`` bytes, [] at the end.

        The lines before one that is too long are handed out first. With ``interrupts`` also those
        before a read of a pipe that would wait; then an interrupt is let through only where all
        whole lines that were read are handed out.

        Raises: EntryTooLargeError: the next line is too long; it is named. StorageError: a file
        cannot be read.
        """
        batch: list[bytes] = []
        total_bytes = 0
        while len(batch) < count and total_bytes < bytes_max:
            if self._at == len(self._lines) and not self._fill(bool(batch), interrupts):
                break
            part = self._lines[self._at : self._at + count - len(batch)]
            self._at += len(part)
            total_bytes += sum(map(len, part))
            batch += part
        self.line_count += len(batch)
        self.byte_count += total_bytes
        return batch

    def place(self, line: int) -> str:
        """Return "FILE, line N" (from 1) of a line that was read, by its number in the row."""
        at = bisect_right(self._first_lines, line) - 1
        # Of several files that begin at one line all but the last are empty.
        return f"{self._paths[at]}, line {line - self._first_lines[at] + 1}"

    def _fill(self, has_some: bool, interrupts: Optional[Interrupts]) -> bool:
        """Read on until there is a line.

        Returns: False at the end, and before a failure or a wait where the caller ``has_some`` lines.
        """
        self._lines, self._at = [], 0
        while not self._lines:
            if self._failure is not None:
                if not has_some:
                    raise self._failure
                return False
            if interrupts is not None and has_some and self._may_wait(interrupts):
                return False
            if not self._await_input(interrupts):
                return False
            self._split(self._read())
        return True

    def _may_wait(self, interrupts: Interrupts) -> bool:
        """True where going on may wait for another process, or an interrupt is to be raised."""
        if interrupts.is_pending:
            return True
        if self._file is None:  # opening a named pipe waits for who writes it
            return bool(self._waiting) and not os.path.isfile(self._waiting[-1])
        return not self._is_regular and not has_input(self._file)

    def _await_input(self, interrupts: Optional[Interrupts]) -> bool:
        """Wait, taking nothing, until a read would return; False where no file is left."""
        if interrupts is None:
            return self._file is not None or self._open_next()
        with interrupts.let_through():
            if self._file is None and not self._open_next():
                return False
            if self._file is not None and not self._is_regular:
                has_input(self._file, timeout_ms=None)
        return True

    def _split(self, chunk: bytes) -> None:
        """Add a chunk to what there is of the line; an empty one is the end of the file."""
        if not chunk:
            self._close_file()
            if self._pieces_bytes:
                self._end_line(b"")
            return
        lines = io.BytesIO(chunk).readlines()  # splits at LF only
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
        if lines and self._pieces_bytes:
            self._end_line(lines.pop(0))
        if self._failure is None:
            self._add_lines(lines)
        if rest:
            self._pieces_bytes += len(rest)
            if self._pieces_bytes <= self._line_bytes_max:
                self._pieces.append(rest)

    def _end_line(self, end: bytes) -> None:
        length_bytes = self._pieces_bytes + len(end)
        pieces, self._pieces, self._pieces_bytes = self._pieces, [], 0
        if length_bytes > self._line_bytes_max:
            self._fail(length_bytes)
        else:
            self._add_lines([b"".join((*pieces, end))])

    def _add_lines(self, lines: list[bytes]) -> None:
        if lines and max(map(len, lines)) > self._line_bytes_max:
            first = next(i for i, line in enumerate(lines) if len(line) > self._line_bytes_max)
            too_long, lines = lines[first], lines[:first]
            self._found_count += len(lines)
            self._fail(len(too_long))
        else:
            self._found_count += len(lines)
        self._lines += lines

    def _fail(self, length_bytes: int) -> None:
        limit_bytes = self._line_bytes_max
        reason = EntryTooLargeError(length_bytes=length_bytes, limit_bytes=limit_bytes)
        message = f"{self.place(self._found_count)}: {reason}"
        self._failure = EntryTooLargeError(message, length_bytes=length_bytes, limit_bytes=limit_bytes)

    def _open_next(self) -> bool:
        if not self._waiting:
            return False
        self._path = self._waiting.pop()
        try:
            self._file = io.FileIO(self._path, "rb")
        except OSError as error:
            raise storage_error(error, self._path, "read") from error
        self._is_regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        self._first_lines.append(self._found_count)
        self._paths.append(self._path)
        return True

    def _read(self) -> bytes:
        assert self._file is not None
        try:
            return self._file.read(CHUNK_BYTES)
        except OSError as error:
            raise storage_error(error, self._path, "read") from error

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
