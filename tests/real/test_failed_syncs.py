"""Syncs that fail on a device that answers EIO: the log stops, and reopening finds the truth.

A failed sync leaves pages in the cache that are clean and that no disk has. So the first reopening
is on the same mount, where they can still be read, wherever the file system lets one write again;
what it finds must also be there after the next mount, which finds only what the disk has.
``WALRUS_FAILED_SYNCS=N`` makes N failures a backend.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import pytest

from walrus_core import Walrus
from walrus_core.errors import StorageError

from .children import TOPICS, Worker, full_config, need
from .ledger import Ledger
from .recorder import Recorder, recorder
from .steps import open_log

FAILURES = int(os.environ.get("WALRUS_FAILED_SYNCS", "9"))
SEED = os.environ.get("WALRUS_SEED", "syncs")
MODES = ("eio-data", "eio-write", "eio-flush")
NAMES = ("fd each", "fd ring each", "fd O_DSYNC", "mmap each")


def contents(wal: Walrus) -> dict[str, list[tuple[int, bytes]]]:
    """Return every entry of every topic."""
    return {topic: [(entry.offset, entry.data) for entry in wal.topic(topic)] for topic in wal.topics()}


class Failure:
    """One log on a disk that fails under it."""

    def __init__(self, disk: Recorder, name: str, number: int, word: str) -> None:
        self.seed = f"{word} {name} {number}"
        self.random = Random(self.seed)
        self.disk = disk
        self.mode = MODES[number % len(MODES)]
        more = {"seed": self.seed, "life": 0, "first_serial": 0, "insists": True, "threads": 1}
        self.config = full_config(name, self.random, directory=str(disk.point / f"log-{number}"), **more)
        self.ledger = Ledger(self.seed, TOPICS, self.config["persist_every"])

    def work(self) -> None:
        """Let a worker work until the disk has failed it and it has insisted in vain."""
        worker = Worker(self.config)
        wanted = self.random.randint(5, 80)
        has_failed = False
        try:
            while line := worker.line():
                self.ledger.take(line)
                if self.ledger.acknowledged_count >= wanted and not has_failed:
                    ranges = self.disk.data_ranges(Path(self.config["directory"]))
                    numbers = " ".join(map(str, ranges)) if self.mode == "eio-data" else ""
                    if self.mode == "eio-write":
                        # The journal of the file system stops as well.
                        self.ledger.cut_ns = time.monotonic_ns()
                    self.disk.set_mode(f"{self.mode} {numbers}")
                    has_failed = True
        finally:
            self.disk.set_mode("ok")
            worker.rest()
        assert worker.process.returncode == 0
        assert self.ledger.insisted, f"it ended with {self.ledger.ended!r}"
        kind = self.ledger.ended.split()[0]
        assert kind in ("SyncFailedError", "StorageError", "PoisonedError"), self.ledger.ended

    def reopen(self) -> bool:
        """Judge the log. Returns: whether it could be opened on the mount on which the sync failed."""
        first = None
        try:
            with open_log(self.config["directory"], self.config) as wal:
                first = contents(wal)
                self.ledger.check(wal, self.random)
        except StorageError:
            # The file system has shut itself: it takes a new mount.
            pass
        self.disk.unmount()
        self.disk.mount()
        with open_log(self.config["directory"], self.config) as wal:
            for topic, entries in (first or {}).items():
                # What every cursor had passed may have been given back by the close in between.
                left = [entry for entry in entries if entry[0] >= wal.oldest_offset(topic)]
                assert contents(wal)[topic] == left, "entries came from the cache and are gone"
            self.ledger.check(wal, self.random)
            wal.append_for_topic("after", b"the fault")
        return first is not None


def fail_syncs(folder: Path, name: str, word: str, count: int) -> int:
    """Let ``count`` logs meet a disk that fails. Returns: how many were reopened on the same mount."""
    same_mount = 0
    with recorder(folder) as disk:
        for number in range(count):
            failure = Failure(disk, name, number, word)
            try:
                failure.work()
                same_mount += failure.reopen()
            except (AssertionError, StorageError) as error:
                where = f"WALRUS_SEED={word!r}, failure {number}, {failure.mode}"
                raise AssertionError(f"{where}: {error}") from error
    return same_mount


def test_the_disk_refuses_a_part_of_a_large_write(tmp_path: Path) -> None:
    with recorder(tmp_path) as disk:
        folder = disk.point / "large"
        folder.mkdir()
        with open(folder / "file", "wb", buffering=0) as sink:
            sink.write(bytes(1 << 20))
            os.fsync(sink.fileno())
            end = max(disk.data_ranges(folder))
            disk.set_mode(f"eio-data {end - 4096} {end}")
            os.pwrite(sink.fileno(), b"x" * (1 << 20), 0)
            with pytest.raises(OSError, match="Input/output"):
                os.fsync(sink.fileno())
        disk.set_mode("ok")


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_sync_stops_the_log(name: str, tmp_path: Path) -> None:
    need(name)
    same_mount = fail_syncs(tmp_path, name, SEED, FAILURES)
    assert same_mount, "no reopening was on the mount on which the sync had failed"
    print(f"{FAILURES} failed syncs, {same_mount} reopened on the same mount")
