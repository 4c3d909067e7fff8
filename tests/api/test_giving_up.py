"""A directory becomes somebody else's only when nothing of the log that had it is under way any more,
and all that the log held is given back, whatever interrupts."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from helpers import NEVER, WHOLE_BLOCK, contents, wait_until, with_faults

from walrus_core import FsyncSchedule, ReadConsistency, Walrus, lock
from walrus_core.engine import Engine
from walrus_core.errors import ClosedError, LockedError
from walrus_core.files import FileCache
from walrus_core.flusher import Flusher
from walrus_core.lock import DirectoryLock
from walrus_core.memory import MemoryBackend, MemoryStore

PATH = "/log"
OPTIONS = {
    "block_size": 16384,
    "blocks_per_segment": 2,
    "fsync_schedule": NEVER,
    "consistency": ReadConsistency.at_least_once(1),
}


class SlowRemove(MemoryBackend):
    """Stops before it removes a segment, on the background thread, until it is told to go on."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store=store)
        self.at_work, self.may_go_on = threading.Event(), threading.Event()
        self.removed: list[str] = []

    def remove(self, path: str) -> None:
        if threading.current_thread() is not threading.main_thread():
            self.at_work.set()
            assert self.may_go_on.wait(30)
        super().remove(path)
        self.removed.append(path)


@pytest.fixture
def removing():
    """A log whose background thread is about to remove a segment that all cursors have passed."""
    backend = SlowRemove(MemoryStore())
    wal = Walrus(PATH, backend=backend, **OPTIONS)
    for number in range(8):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.sync()
    while wal.read_next("t") is not None:
        pass
    assert backend.at_work.wait(30)
    yield wal, backend
    backend.may_go_on.set()


def open_again(backend: SlowRemove) -> Walrus:
    return Walrus(PATH, backend=MemoryBackend(store=backend.store), **OPTIONS)


@pytest.mark.parametrize("interrupts", [0, 1, 2])
def test_an_interrupted_close_waits_for_what_the_background_thread_is_at(removing, monkeypatch, interrupts):
    wal, backend = removing
    stop, calls = Flusher.stop, []

    def interrupted(self, wait):
        stop(self, False)
        calls.append(wait)
        if len(calls) <= interrupts:
            raise KeyboardInterrupt
        threading.Timer(0.1, backend.may_go_on.set).start()
        stop(self, wait)

    monkeypatch.setattr(Flusher, "stop", interrupted)
    if interrupts:
        with pytest.raises(KeyboardInterrupt):
            wal.close()
    else:
        wal.close()
    assert backend.removed
    assert wal.is_closed
    removed = list(backend.removed)
    with open_again(backend) as again:
        assert again.recovery_report.damages == ()
        assert again.append_for_topic("t", b"next") == 8
    assert backend.removed == removed


def test_a_log_dropped_at_work_keeps_its_directory_until_the_thread_is_done(removing, monkeypatch):
    wal, backend = removing
    with pytest.warns(ResourceWarning, match="unclosed log"):
        wal.__del__()
    monkeypatch.setattr(lock, "LEAVING_S_MAX", 0.05)
    with pytest.raises(LockedError):
        open_again(backend)
    monkeypatch.setattr(lock, "LEAVING_S_MAX", 30.0)
    threading.Timer(0.1, backend.may_go_on.set).start()
    with open_again(backend) as again:
        assert backend.removed
        assert again.append_for_topic("t", b"next") == 8


def test_a_log_dropped_at_rest_gives_its_directory_up_at_once():
    store = MemoryStore()
    wal = Walrus(PATH, backend=MemoryBackend(store=store), **OPTIONS)
    wal.append_for_topic("t", b"a")
    with pytest.warns(ResourceWarning, match="unclosed log"):
        wal.__del__()
    with Walrus(PATH, backend=MemoryBackend(store=store), **OPTIONS) as again:
        assert again.next_offset("t") == 1


# --- syncs --------------------------------------------------------------------------------------


class SyncsHeldUp:
    """Keeps syncs of a log by the threads named here from beginning, until they may."""

    def __init__(self, monkeypatch, names: set[str]) -> None:
        self.begun, self.may_go_on, self.ended = (threading.Event() for _ in range(3))
        sync_one = FileCache.sync_one

        def held_up(files, file):
            if threading.current_thread().name not in names:
                return sync_one(files, file)
            self.begun.set()
            assert self.may_go_on.wait(30)
            try:
                sync_one(files, file)
            finally:
                self.ended.set()

        monkeypatch.setattr(FileCache, "sync_one", held_up)


def interrupted_once(monkeypatch, name: str) -> None:
    """Let the next call of this method of an engine end with an interrupt, when it has done its work."""
    method = getattr(Engine, name)

    def interrupted(self):
        monkeypatch.setattr(Engine, name, method)
        method(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, name, interrupted)


@pytest.mark.parametrize("backend", ["fd", "mmap"])
def test_an_interrupted_close_acknowledges_nothing_that_it_drops(tmp_path, monkeypatch, backend):
    """A sync is under way, others wait in memory for the next one, and a close is interrupted."""
    pytest.importorskip(f"walrus_{backend}")
    schedule = FsyncSchedule.sync_each()
    wal = Walrus(tmp_path / "log", backend=backend, fsync_schedule=schedule)
    wal.append_for_topic("t", b"0")
    held_up = SyncsHeldUp(monkeypatch, {"first"})
    acknowledged: list[tuple[int, bytes]] = []
    refused: list[ClosedError] = []

    def append() -> None:
        data = threading.current_thread().name.encode()
        try:
            acknowledged.append((wal.append_for_topic("t", data), data))
        except ClosedError as error:
            refused.append(error)

    threads = [threading.Thread(target=append, name=name) for name in ("first", "second", "third")]
    threads[0].start()
    assert held_up.begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    topic = wal._engine.topics["t"]
    wait_until(lambda: topic.next_offset == 4)
    close = FileCache.close

    def late(files):
        # What is durable by now is; nothing becomes so after the tails are gone.
        for thread in threads:
            thread.join(timeout=1)
        close(files)

    monkeypatch.setattr(FileCache, "close", late)
    interrupted_once(monkeypatch, "_drain")
    threading.Timer(0.2, held_up.may_go_on.set).start()
    with pytest.raises(KeyboardInterrupt):
        wal.close()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert len(acknowledged) + len(refused) == 3 and refused
    with Walrus(tmp_path / "log", backend=backend) as again:
        assert again.recovery_report.damages == ()
        kept = contents(again, "t")
        assert kept[0] == b"0"
        for offset, data in acknowledged:
            assert kept[offset] == data


def test_an_interrupted_close_keeps_its_directory_until_a_sync_is_over(tmp_path, monkeypatch):
    pytest.importorskip("walrus_fd")
    wal = Walrus(tmp_path / "log", backend="fd", fsync_schedule=FsyncSchedule.sync_each())
    wal.append_for_topic("t", b"0")  # so that the next sync is one of the topic alone, without its lock
    held_up = SyncsHeldUp(monkeypatch, {"appends"})

    def append() -> None:
        with pytest.raises(ClosedError):
            wal.append_for_topic("t", b"a")
        refused.append("t")

    refused: list[str] = []
    appending = threading.Thread(target=append, name="appends")
    appending.start()
    assert held_up.begun.wait(30)
    release, was_over = DirectoryLock.release, []

    def noted(directory_lock):
        was_over.append(held_up.ended.is_set())
        release(directory_lock)

    monkeypatch.setattr(DirectoryLock, "release", noted)
    interrupted_once(monkeypatch, "_drain")
    threading.Timer(0.2, held_up.may_go_on.set).start()
    with pytest.raises(KeyboardInterrupt):
        wal.close()
    assert was_over == [True]
    appending.join(timeout=20)
    assert refused == ["t"]


def test_who_awaits_entries_is_told_when_a_close_was_interrupted_before_its_sync(tmp_path, monkeypatch):
    pytest.importorskip("walrus_fd")
    schedule = FsyncSchedule.milliseconds(600_000)

    async def run() -> None:
        wal = Walrus(tmp_path / "log", backend="fd", fsync_schedule=schedule)
        waiting = [asyncio.ensure_future(wal.append_async("t", b"a")) for _ in range(3)]
        while wal.next_offset("t") < 3:
            await asyncio.sleep(0)
        interrupted_once(monkeypatch, "_drain")
        with pytest.raises(KeyboardInterrupt):
            wal.close()
        ends = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)
        assert [type(end) for end in ends] == [ClosedError] * 3

    asyncio.run(run())


# --- files --------------------------------------------------------------------------------------


def test_a_file_that_was_just_opened_is_closed_after_an_interrupt(memory_store, monkeypatch):
    """``close`` knows of it although nothing was done with it yet."""
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER)
    opened: list[object] = []
    make_room = FileCache._make_room

    def interrupted(self, *arguments):
        if not opened:
            opened.extend(backend.open_files)
            raise KeyboardInterrupt
        make_room(self, *arguments)

    wal.append_for_topic("t", b"a")
    wal.sync()
    file = wal._engine.topics["t"].active.file
    wal._engine.files.forget(file)
    monkeypatch.setattr(FileCache, "_make_room", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wal.batch_read_for_topic("t", start_offset=0)
    assert opened and file.handle is not None
    # Closed at once, without a use of that file.
    wal._engine.files.close()
    assert backend.open_files == set()
    monkeypatch.undo()
    assert contents(wal, "t") == [b"a"]
    wal.close()


@pytest.mark.parametrize("interrupts", [1, 3])
def test_a_close_interrupted_between_two_files_closes_all(memory_store, monkeypatch, interrupts):
    wal, backend = with_faults(memory_store, fsync_schedule=NEVER, blocks_per_segment=2)
    for number in range(5):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    wal.sync()
    assert len(backend.open_files) == 4
    close, struck = FileCache.close, []

    def interrupted(self):
        if len(struck) < interrupts:
            struck.append(len(self._open))
            self._close(next(iter(self._open)))
            raise KeyboardInterrupt
        close(self)

    monkeypatch.setattr(FileCache, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wal.close()
    assert struck == [4, 3, 2][:interrupts]
    assert backend.open_files == set()
    assert wal.is_closed
    with memory_store.open() as again:
        assert again.next_offset("t") == 5


FORK_BESIDE_A_SYNC = """
import signal, threading, warnings
warnings.filterwarnings("ignore", message="This process .* is multi-threaded")
from walrus_core import FsyncSchedule, Walrus
from walrus_core.files import FileCache

under_way, may_go_on = threading.Event(), threading.Event()
sync_one = FileCache.sync_one


def slow(files, file):
    if threading.current_thread().name == "syncs":
        under_way.set()
        may_go_on.wait(30)
    sync_one(files, file)


FileCache.sync_one = slow
with Walrus(arguments[0], backend="fd", fsync_schedule=FsyncSchedule.sync_each()) as wal:
    wal.append_for_topic("t", b"0")
    thread = threading.Thread(target=lambda: wal.append_for_topic("t", b"1"), name="syncs")
    thread.start()
    assert under_way.wait(30)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    may_go_on.set()
    thread.join()
    assert wal.durable_offset("t") == 2
print("parent went on")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_beside_a_sync_leaves_without_waiting_for_it(tmp_path, run_child):
    """By the end of its block and of the interpreter: the thread that syncs is not in the child."""
    pytest.importorskip("walrus_fd")
    done = run_child(FORK_BESIDE_A_SYNC, tmp_path / "log")
    assert done.stdout.endswith("parent went on\n")
