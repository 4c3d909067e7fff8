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


def entries(twin, offsets):
    return [twin.Entry(offset, 1, b"%d" % offset) for offset in offsets]


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
    ready.fill(entries(frames, range(3, 10)))
    assert ready.peek(5).data == b"5"
    assert ready.peek(5).data == b"5"
    assert ready.peek(8).data == b"8"
    assert ready.peek(7) is None, "dropped"
    assert ready.peek(9).data == b"9"
    assert ready.peek(10) is None
    ready.move(20)
    assert ready.offset == 20
    ready.fill(entries(frames, [20, 25]))
    assert ready.peek(20).data == b"20"
    assert ready.peek(21) is None, "a gap, as damage leaves one"
    assert ready.peek(25).data == b"25"
    ready.drop()
    assert ready.peek(25) is None


def test_a_compiled_ready_takes_entries_only():
    front, frames = compiled("_front_c"), compiled("_hot_c")
    ready = front.Ready(0)
    with pytest.raises(TypeError, match="not an entry"):
        ready.fill([*entries(frames, [0]), b"no entry"])
    assert ready.peek(0) is None


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
    ready.fill(entries(frames, [2, 3, 4, 6, 7]))
    log._express.admit_cursor("t", ready)
    assert log.read_next("t") is None, "no limit yet"
    ready.limit = 5
    assert [log.read_next("t").offset for _ in range(2)] == [3, 4]
    assert ready.offset == 5
    ready.limit = 100
    assert log.read_next("t") is None, "a gap: the long way tells of the damage"
    assert ready.offset == 5
    ready.fill(entries(frames, [5, 6]))
    for options in ({"checkpoint": False}, {"cursor": "other"}, {"on_corruption": "skip"}):
        assert log.read_next("t", **options) is None
    assert log.read_next("t").offset == 5
    log._express.bar_cursor("t")
    assert log.read_next("t") is None
    assert ready.offset == 6
