"""The twins of the express way: the same names, words and answers, whatever way they take."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

from walrus_core import _front_py, _hot_py, hot

CALLS = ["append_for_topic", "append_nowait", "batch_append_for_topic", "read_next"]


def compiled(name):
    """Return a compiled module, or skip the test by name."""
    if importlib.util.find_spec(f"walrus_core.{name}") is None:
        pytest.skip(f"{name} is not built here")
    return importlib.import_module(f"walrus_core.{name}")


@pytest.fixture(params=["pure", "compiled"])
def twins(request):
    """The modules of one twin: (front, hot)."""
    if request.param == "pure":
        return _front_py, _hot_py
    return compiled("_front_c"), compiled("_hot_c")


def run_of(twin, offsets):
    """Return the frames of entries whose payloads are their offsets, with 3 bytes in front of them."""
    payloads = [b"%d" % offset for offset in offsets]
    return bytes(3) + b"".join(
        bytes(part) for part in twin.encode_batch(7, 1, payloads, 0, len(payloads), 0, 1)
    )


def fill(ready, twin, first, end):
    ready.fill(run_of(twin, range(first, end)), 3, first, end)


def test_the_front_in_use_belongs_to_the_frame_code_in_use():
    from walrus_core import front

    assert front.twin.__name__.endswith("_c" if hot.COMPILED else "_py")


@pytest.mark.parametrize("call", CALLS)
def test_both_twins_say_the_same_of_a_call(call):
    pure = getattr(_front_py.Front, call).__doc__
    other = getattr(compiled("_front_c").Front, call).__doc__
    # The compiled one carries its signature in front.
    text = other.split("--\n\n", 1)[-1].strip()
    assert [line.strip() for line in text.splitlines()] == [
        line.strip() for line in pure.strip().splitlines()
    ]


def test_ready_gives_what_is_at_an_offset_and_drops_what_is_before(twins):
    front, frames = twins
    ready = front.Ready(5)
    assert ready.offset == 5
    assert ready.peek(5) is None
    fill(ready, frames, 3, 10)
    first = ready.peek(5)
    assert (first.offset, first.timestamp, first.data) == (5, 1, b"5")
    assert ready.peek(5).data == b"5"
    assert ready.peek(8).data == b"8"
    assert ready.peek(7) is None, "dropped"
    assert ready.peek(9).data == b"9"
    assert ready.peek(10) is None
    ready.move(20)
    assert ready.offset == 20
    fill(ready, frames, 20, 21)
    assert ready.peek(20).data == b"20"
    assert ready.peek(21) is None
    fill(ready, frames, 25, 27)
    assert ready.peek(20) is None, "a gap, as damage leaves one"
    assert ready.peek(26).data == b"26"
    ready.drop()
    assert ready.peek(26) is None


def test_ready_never_looks_behind_its_bytes(twins):
    front, frames = twins
    ready = front.Ready(0)
    run = run_of(frames, range(3))
    for at in (-1, len(run) + 1, 1 << 40):
        with pytest.raises((ValueError, OverflowError)):
            ready.fill(run, at, 0, 3)
    for end in range(3, len(run)):
        # More promised than is there: what fits is given, and nothing behind it.
        ready.fill(run[:end], 3, 0, 3)
        given = [ready.peek(offset) for offset in range(3)]
        whole = (end - 3) // 40
        assert [entry is not None for entry in given] == [place < whole for place in range(3)]
    ready.fill(b"\xff" * 64, 0, 0, 1)
    assert ready.peek(0) is None, "a length beyond the end"


class Log:
    """What the express way falls back to, on a front of its own."""

    def make(self, front):
        class Both(front.Front):
            def __init__(self):
                self.long_way = []
                self._express = self._in_flight = front.Express()

            def _append_entry(self, topic, data):
                self.long_way.append((topic, data))
                return -1

            _append_in_flight = _append_entry
            _append_batch = _append_entry

            def _read_one(self, topic, checkpoint, cursor, on_corruption):
                self.long_way.append((topic, checkpoint, cursor, on_corruption))

        return Both()


@pytest.fixture
def make_tail(tmp_path):
    """Return a function that makes a compiled tail on a file."""
    frames = compiled("_hot_c")
    with open(tmp_path / "file", "w+b") as file:
        file.truncate(1 << 20)

        def make(clock=None, reserved=65536):
            return frames.Tail(
                write=lambda at, data: pytest.fail("wrote by a call"),
                window=None,
                descriptor=file.fileno(),
                base=0,
                clock=clock,
                key=7,
                algorithm=1,
                first_offset=100,
                end=1 << 20,
                reserved=reserved,
                state=(4096, 0, 0, 2**64 - 1, 0),
            )

        yield make


def test_an_admitted_tail_is_written_and_a_barred_one_is_not(make_tail):
    log = Log().make(compiled("_front_c"))
    tail = make_tail()
    assert log.append_for_topic("t", b"a") == -1
    log._express.admit_tail("t", tail)
    assert log.append_for_topic("t", b"b") == 100
    assert log.append_nowait("t", b"c") == 101
    assert log.batch_append_for_topic("t", [b"d", b"e"]) == range(102, 104)
    assert log.batch_append_for_topic("t", (b"f",)) == range(104, 105)
    assert log.append_for_topic("u", b"other") == -1
    log._express.bar_tail("t")
    log._express.bar_tail("never admitted")
    assert log.append_for_topic("t", b"g") == -1
    assert tail.state[1] == 5
    log._express.admit_tail("t", tail)
    log._express.blocked = True
    assert log.append_for_topic("t", b"h") == log.append_nowait("t", b"h") == -1
    assert log.batch_append_for_topic("t", [b"h"]) == -1
    assert tail.state[1] == 5


def test_what_was_found_last_is_forgotten_with_its_topic(make_tail):
    log = Log().make(compiled("_front_c"))
    first, second, other = make_tail(), make_tail(), make_tail()
    log._express.admit_tail("t", first)
    log._express.admit_tail("o", other)
    for _ in range(3):
        log.append_for_topic("t", b"")
        log.append_for_topic("o", b"")
    log._express.admit_tail("t", second)
    log.append_for_topic("t", b"")
    assert [tail.state[1] for tail in (first, second, other)] == [3, 1, 3]
    assert log.append_for_topic("o", b"") == 103
    log._express.bar_tail("o")
    assert log.append_for_topic("o", b"") == -1
    assert log.append_for_topic("t", b"") == 101
    # A name is an object of its own each time, and may get the place of one that is gone.
    for number in range(200):
        log._express.admit_tail(f"t{number}", make_tail())
        assert log.append_for_topic(f"t{number}", b"") == 100
        assert log.append_for_topic(f"u{number}", b"") == -1
    assert log.append_for_topic(None, b"") == -1
    assert [tail.state[1] for tail in (first, second, other)] == [3, 2, 4]


def test_what_was_ready_last_is_forgotten_with_its_topic():
    front, frames = compiled("_front_c"), compiled("_hot_c")
    log = Log().make(front)
    first, second = front.Ready(0), front.Ready(7)
    for ready, start in ((first, 0), (second, 7)):
        fill(ready, frames, start, start + 4)
        ready.limit = 100
    log._express.admit_cursor("t", first)
    assert [log.read_next("t").offset for _ in range(2)] == [0, 1]
    log._express.admit_cursor("t", second)
    assert [log.read_next("t").offset for _ in range(2)] == [7, 8]
    log._express.bar_cursor("t")
    assert log.read_next("t") is None and log.read_next(None) is None
    assert (first.offset, second.offset) == (2, 9)


class Text(str):
    __slots__ = ()


class Bytes(bytes):
    __slots__ = ()


@pytest.mark.parametrize(
    ("topic", "data"),
    [
        (Text("t"), b"a"),
        ("t", Bytes(b"a")),
        ("t", bytearray(b"a")),
        ("t", "text"),
        (["t"], b"a"),
        ("t", bytes(70_000)),
        ("t", bytes(65_536)),
    ],
    ids=[
        "topic of another kind",
        "bytes of another kind",
        "buffer",
        "text",
        "unhashable",
        "long",
        "too long",
    ],
)
def test_what_is_not_simple_takes_the_long_way(make_tail, topic, data):
    log = Log().make(compiled("_front_c"))
    tail = make_tail()
    log._express.admit_tail("t", tail)
    assert log.append_for_topic(topic, data) == -1
    assert log.batch_append_for_topic(topic, [b"x", data]) == -1
    assert tail.state[1] == 0 and not tail.torn
    assert log.long_way[0] == (topic, data)


@pytest.mark.parametrize("batch", [[], (), iter([b"a"]), {b"a": 1}, [b"a"] * 2001, [bytes(60_000)] * 20])
def test_batches_that_are_not_simple_take_the_long_way(make_tail, batch):
    log = Log().make(compiled("_front_c"))
    tail = make_tail(reserved=1 << 20)
    log._express.admit_tail("t", tail)
    assert log.batch_append_for_topic("t", batch) == -1
    assert tail.state[1] == 0 and not tail.torn


def test_a_tail_that_needs_python_code_is_not_admitted(make_tail):
    log = Log().make(compiled("_front_c"))
    log._express.admit_tail("t", make_tail(clock=lambda: 1))
    assert log.append_for_topic("t", b"a") == -1


def test_a_full_tail_sends_on_and_changes_nothing(make_tail):
    log = Log().make(compiled("_front_c"))
    tail = make_tail(reserved=4096 + 80)
    log._express.admit_tail("t", tail)
    assert log.append_for_topic("t", bytes(49)) == -1
    assert log.batch_append_for_topic("t", [b"1234567"] * 3) == -1
    assert log.append_for_topic("t", bytes(48)) == 100
    assert log.append_for_topic("t", b"") == -1
    assert tail.state[:2] == (4096 + 80, 1)


def test_reads_take_what_is_ready_up_to_the_limit():
    front, frames = compiled("_front_c"), compiled("_hot_c")
    log = Log().make(front)
    ready = front.Ready(3)
    fill(ready, frames, 2, 5)
    log._express.admit_cursor("t", ready)
    assert log.read_next("t") is None, "no limit yet"
    ready.limit = 5
    assert [log.read_next("t") for _ in range(2)] == [frames.Entry(3, 1, b"3"), frames.Entry(4, 1, b"4")]
    assert ready.offset == 5
    ready.limit = 100
    assert log.read_next("t") is None, "nothing is ready any more"
    fill(ready, frames, 6, 8)
    assert log.read_next("t") is None, "a gap: the long way tells of the damage"
    assert ready.offset == 5
    fill(ready, frames, 5, 7)
    for options in ({"checkpoint": False}, {"cursor": "other"}, {"on_corruption": "skip"}):
        assert log.read_next("t", **options) is None
    assert log.read_next("t").offset == 5
    log._express.bar_cursor("t")
    assert log.read_next("t") is None
    assert ready.offset == 6
