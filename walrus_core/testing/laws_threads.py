"""Laws of several threads on one file: reads and writes run beside each other and lose nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

from walrus_core.testing.subject import Subject, hold, law, pattern, same

SIZE_BYTES = 1 << 17


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
