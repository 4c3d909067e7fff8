"""The life of a log: open, close, drop, fork, a second writer, a directory that cannot be used."""

from __future__ import annotations

import _thread
import gc
import logging
import os
import threading
import warnings

import pytest
from helpers import EACH, LOOSE, NEVER, WHOLE_BLOCK, contents, run_threads, wait_until, with_faults

from walrus_core import FsyncSchedule, Walrus
from walrus_core.errors import ClosedError, LockedError, StorageError
from walrus_core.memory import MemoryBackend


def calls_of(wal):
    """Every public method of a log that has one entry in topic t."""
    return {
        "append": lambda: wal.append_for_topic("t", b"x"),
        "append new": lambda: wal.append_for_topic("new", b"x"),
        "batch": lambda: wal.batch_append_for_topic("t", [b"x"]),
        "empty batch": lambda: wal.batch_append_for_topic("t", []),
        "read_next": lambda: wal.read_next("t"),
        "peek": lambda: wal.read_next("t", checkpoint=False),
        "read unknown": lambda: wal.read_next("unknown"),
        "batch_read": lambda: wal.batch_read_for_topic("t"),
        "stateless": lambda: wal.batch_read_for_topic("t", start_offset=0),
        "cursor_offset": lambda: wal.cursor_offset("t"),
        "seek": lambda: wal.seek("t", 0),
        "next_offset": lambda: wal.next_offset("t"),
        "oldest_offset": lambda: wal.oldest_offset("t"),
        "durable_offset": lambda: wal.durable_offset("t"),
        "sync": wal.sync,
        "topics": wal.topics,
        "count": lambda: wal.topic_entry_count("t"),
        "counts": wal.topic_entry_counts,
        "size": lambda: wal.topic_size("t"),
        "info": lambda: wal.topic_info("t"),
        "is_clean": lambda: wal.topic_is_clean("t"),
        "mark_clean": lambda: wal.mark_topic_clean("t"),
        "mark_dirty": lambda: wal.mark_topic_dirty("t"),
        "enter": wal.__enter__,
        "handle append": lambda: wal.topic("t").append(b"x"),
        "handle read": lambda: wal.topic("t").read(),
        "handle iteration": lambda: list(wal.topic("t")),
        "handle len": lambda: len(wal.topic("t")),
    }


# --- close ----------------------------------------------------------------------------------


def test_every_method_of_a_closed_log_says_so(store):
    wal = store.open()
    wal.append_for_topic("t", b"a")
    before = calls_of(wal)
    wal.close()
    for name, call in before.items():
        with pytest.raises(ClosedError) as caught:
            call()
        assert store.path in str(caught.value), name
    assert wal.is_closed
    assert "closed" in repr(wal)
    wal.close()
    assert contents(store.open(), "t") == [b"a"]


def test_a_log_is_a_context_manager(store):
    with store.open() as wal:
        assert not wal.is_closed
        wal.append_for_topic("t", b"a")
        assert "open" in repr(wal)
    assert wal.is_closed
    reopened = store.open()
    with pytest.raises(RuntimeError, match="mine"), reopened:
        raise RuntimeError("mine")
    assert reopened.is_closed
    assert contents(store.open(), "t") == [b"a"]


def test_close_waits_for_calls_under_way(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"a")
    closers = []

    def close_meanwhile() -> None:
        closers.append(threading.Thread(target=wal.close, daemon=True))
        closers[0].start()
        closers[0].join(0.1)

    backend.during("write", close_meanwhile, suffix=".wal", skip=3)
    assert wal.batch_append_for_topic("t", [bytes(WHOLE_BLOCK)] * 5) == range(1, 6)
    closers[0].join(20)
    assert not closers[0].is_alive()
    assert memory_store.open().next_offset("t") == 6


def test_close_releases_those_who_wait(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=EACH)
    wal.append_for_topic("t", b"a")

    def append(number: int) -> object:
        try:
            return wal.append_for_topic("t", b"%d" % number)
        except ClosedError:
            return "closed"

    works = [lambda number=number: append(number) for number in range(8)] + [wal.close] * 3
    answers = run_threads(works, seconds=20)[:8]
    acknowledged = sorted(answer for answer in answers if answer != "closed")
    assert memory_store.open().next_offset("t") >= 1 + len(acknowledged)
    assert backend.open_files == set()


def test_close_joins_the_background_thread(store):
    before = _thread._count()
    wal = store.open(fsync_schedule=FsyncSchedule.milliseconds(1))
    wal.append_for_topic("t", b"a")
    wait_until(lambda: wal.durable_offset("t") == 1)
    assert _thread._count() == before + 1
    wal.close()
    # The thread has done its work; the interpreter notes its end a moment later.
    wait_until(lambda: _thread._count() == before)


def test_an_error_of_close_is_raised_once_and_everything_is_given_back(memory_store):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    wal.append_for_topic("t", b"a")
    backend.fail("sync", number=5, times=None)
    with pytest.raises(StorageError):
        wal.close()
    wal.close()
    assert wal.is_closed
    assert backend.open_files == set()
    assert memory_store.open().next_offset("t") in (0, 1)


# --- dropped ---------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [NEVER, FsyncSchedule.milliseconds(1)])
def test_a_dropped_log_warns_does_no_io_and_frees_the_directory(memory_store, schedule):
    backend = with_faults(memory_store)[1]
    memory_store.close()
    small = {"block_size": 16384, "blocks_per_segment": 4}
    wal = Walrus(memory_store.path, backend=backend, fsync_schedule=schedule, **small)
    wal.append_for_topic("t", b"a")
    wal.sync()
    wal.append_for_topic("u", b"b")
    gc.collect()
    calls = dict(backend.calls)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del wal
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert "unclosed log" in str(caught[0].message)
    caught.clear()
    if schedule == NEVER:
        assert {name: count for name, count in backend.calls.items() if calls.get(name) != count} == {}
    wal = Walrus(memory_store.path, backend=backend)
    assert (wal.next_offset("t"), wal.next_offset("u")) == (1, 1)
    wal.close()


def test_a_log_that_is_closed_does_not_warn(store):
    wal = Walrus(store.path, backend=store.backend())
    wal.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del wal
        gc.collect()


def test_an_open_log_at_the_end_of_the_process_is_closed(file_store, file_kind, run_child):
    file_kind("fd")
    done = run_child(
        """
        from walrus_core import FsyncSchedule, ReadConsistency, Walrus
        from walrus_fd.backend import FdBackend
        wal = Walrus(arguments[0], backend=FdBackend(), fsync_schedule=FsyncSchedule.milliseconds(3_600_000),
                     consistency=ReadConsistency.at_least_once(100))
        wal.append_for_topic("t", b"a")
        wal.append_for_topic("t", b"b")
        wal.read_next("t")
        print("done")
        """,
        file_store.path,
    )
    assert done.stdout == "done\n"
    wal = file_store.open()
    assert wal.recovery_report.clean
    assert (wal.next_offset("t"), wal.cursor_offset("t")) == (2, 1)


# --- one writer ------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_the_first_goes_on(store):
    wal = store.open()
    for _ in range(3):
        with pytest.raises(LockedError) as caught:
            store.open()
        assert caught.value.pid == os.getpid()
    wal.append_for_topic("t", b"a")
    wal.close()
    store.open()


def test_two_memory_stores_at_one_path_are_two_logs(make_store):
    first, second = (
        Walrus("/same", backend=MemoryBackend(), block_size=16384, blocks_per_segment=4) for _ in "ab"
    )
    first.append_for_topic("t", b"a")
    assert second.topics() == []
    first.close()
    second.close()


# --- fork ------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("schedule", ["1", "each", "never"])
@pytest.mark.parametrize("kind", ["memory", "fd", "mmap"])
def test_a_forked_child_gets_an_error_from_every_method_and_does_no_harm(
    kind, schedule, tmp_path, run_child, make_store
):
    """In a process of its own, because the one that runs the tests has threads of all kinds."""
    make_store(kind)  # Skips here, not in the child, where it is not installed.
    code = FORK.replace("KIND", kind)
    done = run_child(code, tmp_path / "log", schedule, os.path.dirname(__file__))
    assert done.stdout.endswith("parent went on\n")


FORK = """
import importlib.util, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message="This process .* is multi-threaded")
spec = importlib.util.spec_from_file_location("conftest", os.path.join(arguments[2], "..", "conftest.py"))
conftest = importlib.util.module_from_spec(spec)
sys.modules["conftest"] = conftest
spec.loader.exec_module(conftest)
spec = importlib.util.spec_from_file_location("lifecycle", os.path.join(arguments[2], "test_lifecycle.py"))
lifecycle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lifecycle)
from walrus_core import FsyncSchedule, Walrus
from walrus_core.errors import ForkedError, LockedError

store = conftest.Store("KIND", arguments[0])
wal = store.open(fsync_schedule=FsyncSchedule.parse(arguments[1]))
wal.append_for_topic("t", b"a")
handle = wal.topic("t")
pid = os.fork()
if pid == 0:
    status = 1
    try:
        for name, call in lifecycle.calls_of(wal).items():
            try:
                call()
            except ForkedError as error:
                assert arguments[0] in str(error)
            else:
                raise AssertionError(name + " did not raise ForkedError")
        try:
            wal.close()
        except ForkedError:
            pass
        else:
            raise AssertionError("close did not raise ForkedError")
        if "KIND" != "memory":
            try:
                Walrus(arguments[0], backend=store.backend())
            except LockedError as error:
                assert error.pid == os.getppid(), error
            else:
                raise AssertionError("the child could open the directory of its parent")
        other = conftest.Store("KIND", arguments[0] + "-child")
        with other.open() as mine:
            mine.append_for_topic("t", b"of the child")
            assert mine.read_next("t").data == b"of the child"
        del wal, handle
        import gc
        gc.collect()
        status = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if status:
            os._exit(status)
    sys.exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert wal.append_for_topic("t", b"b") == 1
wal.sync()
assert [entry.data for entry in wal.topic("t")] == [b"a", b"b"]
wal.close()
again = store.open()
assert [entry.data for entry in again.topic("t")] == [b"a", b"b"]
assert again.recovery_report.clean
store.close()
print("parent went on")
"""


# --- what is left after a failure, and what is said -------------------------------------------


def test_a_failed_open_leaves_nothing_open(memory_store):
    wal, backend = with_faults(memory_store)
    wal.append_for_topic("t", b"a")
    wal.close()
    for operation in ("list", "open", "read", "sync"):
        backend.reset()
        backend.fail(operation, number=5)
        with pytest.raises(StorageError):
            memory_store.open(backend=backend)
        assert backend.open_files == set(), operation
    backend.reset()
    assert contents(memory_store.open(backend=backend), "t") == [b"a"]


def test_silent_by_default_and_quiet_on_request(store, caplog, capfd, monkeypatch):
    caplog.set_level(logging.DEBUG)
    wal = store.open(consistency=LOOSE)
    wal.append_for_topic("t", b"payload of t")
    wal.close()
    name, at = store.find(b"payload of t")
    store.flip(name, at)
    wal = store.open(on_corruption="skip")
    assert wal.read_next("t") is None
    assert "damaged" in caplog.text
    wal.close()
    caplog.clear()
    monkeypatch.setenv("WALRUS_QUIET", "1")
    wal = store.open(on_corruption="skip")
    wal.seek("t", 0)
    assert wal.read_next("t") is None
    assert len(wal.damages) == 1
    wal.close()
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["fd", "mmap"])
def test_a_log_stays_where_it_was_opened(tmp_path, monkeypatch, file_kind, kind):
    """Whatever becomes the current directory, with whichever other log in it."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    options = {"fsync_schedule": EACH, "block_size": 16384, "blocks_per_segment": 2}
    backend = file_kind(kind)

    def fill(wal, count):
        for number in range(count):
            wal.append_for_topic("t", b"%d" % number * 5000)

    monkeypatch.chdir(tmp_path / "two")
    with Walrus("log", backend=backend(), **options) as other:
        fill(other, 6)
    monkeypatch.chdir(tmp_path / "one")
    wal = Walrus("log", backend=backend(), open_files_max=8, **options)
    fill(wal, 2)
    monkeypatch.chdir(tmp_path / "two")
    fill(wal, 80)
    wal.close()
    for name, count in (("one", 82), ("two", 6)):
        with Walrus(tmp_path / name / "log", backend=backend(), **options) as again:
            assert again.next_offset("t") == len(contents(again, "t")) == count
            assert again.recovery_report.foreign_files == () and again.recovery_report.damages == ()


@pytest.mark.parametrize(("given", "quiet"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_what_quiet_means(memory_store, monkeypatch, given, quiet):
    """As WALRUS_PURE: set to nothing or 0 it is as good as unset."""
    if given is not None:
        monkeypatch.setenv("WALRUS_QUIET", given)
    assert memory_store.open()._engine.gate.quiet is quiet
