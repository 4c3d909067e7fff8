"""Laws of several threads on one file: reads and writes run beside each other and lose nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random

from attrs import define

from walrus_core.backend import SegmentFile
from walrus_core.testing.subject import SECTOR_BYTES, Subject, hold, law, pattern, same

SIZE_BYTES = 1 << 17
WRITERS = 4
"""Of sectors beside each other."""
STRIDES_BYTES = (512, 4096, 16_384)
"""How far apart they are: in one page, and in pages beside each other, because a lock for each page is no
lock for a chunk of several."""
ROUNDS = 400
ROUNDS_MIN = 10
"""Rounds of a writer on a medium so slow that ``ENOUGH_SECONDS`` are over before."""
ENOUGH_SECONDS = 0.3


@law()
def readers_run_beside_a_writer(subject: Subject) -> None:
    """Three threads read what does not change while one writes elsewhere, in the same sectors, too."""
    steady = pattern(4000, "steady")
    wrong: list[str] = []

    def read() -> None:
        for _ in range(150):
            if bytes(file.read_at(100, 4000)) != steady:
                wrong.append("a reader found other bytes than those that nobody changed")

    def write() -> None:
        for number in range(300):
            data = pattern(90, number)
            file.write_at(4100 + number % 50, data)
            if bytes(file.read_at(4100 + number % 50, 90)) != data:
                wrong.append("the writer did not read its own write")

    with subject.file() as (_, file):
        file.write_at(100, steady)
        _run_threads([read, read, read, write])
        hold(not wrong, "; ".join(sorted(set(wrong))))


@law()
def writers_of_several_blocks_run_side_by_side(subject: Subject) -> None:
    """Topics share a segment file: their threads write different pages of it at once, beside syncs."""
    wrong: list[str] = []

    def write(number: int) -> Callable[[], None]:
        def work() -> None:
            for step in range(100):
                data = pattern(700, (number, step))
                at = number * 32_768 + step * 300
                file.write_at(at, data)
                if bytes(file.read_at(at, 700)) != data:
                    wrong.append(f"writer {number} did not read its own write")

        return work

    def sync() -> None:
        for _ in range(10):
            file.sync()

    with subject.file(SIZE_BYTES) as (_, file):
        _run_threads([*(write(number) for number in range(4)), sync])
        hold(not wrong, "; ".join(sorted(set(wrong))))
        for number in range(4):
            same(file.read_at(number * 32_768 + 29_700, 700), pattern(700, (number, 99)), f"writer {number}")


@law()
def writers_of_neighbouring_sectors_lose_nothing(subject: Subject) -> None:
    """Only writes of one sector take turns: a write must not put back older bytes of the sector beside it."""
    with subject.file(SIZE_BYTES) as (_, file), _switching_often():
        for stride_bytes in STRIDES_BYTES:
            lost: list[str] = []
            neighbours = [_Neighbour(file, number * stride_bytes, lost) for number in range(WRITERS)]
            start = threading.Barrier(WRITERS)
            _run_threads([partial(neighbour.write, start) for neighbour in neighbours])
            for neighbour in neighbours:
                neighbour.look("after all writes")
            hold(not lost, f"of {WRITERS} writers {stride_bytes} bytes apart: {'; '.join(lost[:3])}")


@define
class _Neighbour:
    """One writer of one sector, which nobody else writes. What it misses it says in ``lost``."""

    file: SegmentFile
    at_bytes: int
    lost: list[str]
    written: bytes = b""

    def write(self, start: threading.Barrier) -> None:
        """Write the sector over and over, and look for each write twice: at once, and before the next."""
        self.written = bytes(self.file.read_at(self.at_bytes, SECTOR_BYTES))
        start.wait(60)
        enough = time.monotonic() + ENOUGH_SECONDS
        # Of any length, because threads that keep in step with each other never meet inside a write.
        pauses = Random(self.at_bytes)
        for step in range(ROUNDS):
            if self.lost or (step >= ROUNDS_MIN and time.monotonic() > enough):
                return
            data = pattern(SECTOR_BYTES, (self.at_bytes, step))
            self.file.write_at(self.at_bytes, data)
            self.written = data
            self.look(f"write {step}")
            time.sleep(pauses.random() * 1e-4)  # the others may put back what they have read before
            self.look(f"write {step}, some time later")

    def look(self, when: str) -> None:
        """Note it where the sector does not hold what was written to it last."""
        if bytes(self.file.read_at(self.at_bytes, SECTOR_BYTES)) != self.written:
            self.lost.append(f"the sector at {self.at_bytes} does not hold its own write ({when})")


@contextmanager
def _switching_often() -> Iterator[None]:
    """Have threads take turns as often as the interpreter can: what can come between two lines does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _run_threads(works: list[Callable[[], None]]) -> None:
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    hold(not any(thread.is_alive() for thread in threads), "a thread hangs")
    if errors:
        raise errors[0]
