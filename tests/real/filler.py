"""Goes through levels of free space on a small disk, with a log on it that meets the end of each.

    python -m real.filler CONFIG      (JSON; tests/ is on the path)

Prints a line for each level, then ``REFUSED LEVELS``. Any violation is a traceback and status 1.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from random import Random
from typing import Any

from walrus_core import Walrus
from walrus_core.errors import DiskFullError, WalrusError

from .children import TOPICS
from .ledger import Ledger
from .steps import Steps, open_log

STEPS_MAX = 3000
REFUSALS = 12
SPARE_BYTES = 1 << 20
PAGE_BYTES = 4096
SHARES = {"append": 10.0, "batch": 3.0, "read": 1.0, "sync": 0.4}


class Level:
    """One log on a disk with a chosen number of free bytes."""

    def __init__(self, config: dict[str, Any], number: int) -> None:
        self.config = config
        self.random = Random(f"{config['seed']} {number}")
        self.seed = f"{config['seed']} {number}"
        self.directory = os.path.join(config["folder"], "log")
        self.ballast = os.path.join(config["folder"], "ballast")
        self.spare = os.path.join(config["folder"], "spare")
        """What is given back in the end, when the log itself may have filled the disk."""
        self.ledger = Ledger(self.seed, TOPICS, config["persist_every"], all_survives=True)
        self.refused = 0
        self.serial = 0

    def take(self, *words: object) -> None:
        """Give what the steps say to the ledger, without a pipe in between."""
        self.ledger.take(" ".join(map(str, (0, 0, *words))))

    def fill(self) -> int:
        """Leave a random number of bytes free, none now and then. Returns: how many."""
        status = os.statvfs(self.config["folder"])
        free_bytes = status.f_bavail * status.f_frsize
        left_bytes = self.random.choice([0, self.random.randrange(1 << 18), self.random.randrange(3 << 20)])
        with open(self.ballast, "ab") as sink:
            length_bytes = free_bytes - left_bytes
            while length_bytes > 0:
                try:
                    os.posix_fallocate(sink.fileno(), 0, length_bytes)
                    break
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                # The file system takes some for itself.
                length_bytes -= PAGE_BYTES
        return left_bytes

    def work(self, wal: Walrus, steps_max: int, refusals: int) -> None:
        """Take steps until so many were refused."""
        steps = Steps(wal, self.random, TOPICS, self.seed, self.serial, self.take, SHARES)
        self.serial += 100_000
        refused = 0
        for _ in range(steps_max):
            try:
                steps.step()
            except DiskFullError:
                refused += 1
                if refused == refusals:
                    break
        self.refused += refused

    def check_files(self, wal: Walrus) -> None:
        """No half-made segment: every file is one that the log opened, or LOCK, or cursors.db."""
        names = [name for name in os.listdir(self.directory) if name.endswith(".wal")]
        assert len(names) == wal.recovery_report.segment_count, f"{names}, {wal.recovery_report}"
        others = set(os.listdir(self.directory)) - set(names)
        assert others <= {"LOCK", "cursors.db"}, others

    def run(self) -> None:
        """Fill, work, give space back, work, and judge at every step."""
        left_bytes = -1
        with open(self.spare, "wb") as sink:
            os.posix_fallocate(sink.fileno(), 0, SPARE_BYTES)
        before = self.random.random() < 0.5
        if not before:
            left_bytes = self.fill()
        try:
            wal = open_log(self.directory, self.config)
        except DiskFullError:
            self.refused += 1
            os.unlink(self.ballast)
            wal = open_log(self.directory, self.config)
        if before:
            self.work(wal, self.random.randrange(60), 1)
            left_bytes = self.fill()
        self.work(wal, STEPS_MAX, REFUSALS)
        if self.random.random() < 0.5:
            # Reopened while the disk is full: what was acknowledged can be read.
            self.close(wal)
            try:
                wal = open_log(self.directory, self.config)
            except DiskFullError:
                self.refused += 1
                os.unlink(self.ballast)
                wal = open_log(self.directory, self.config)
            self.check_files(wal)
            self.ledger.check(wal, self.random)
        if os.path.exists(self.ballast):
            os.unlink(self.ballast)
        os.unlink(self.spare)
        self.go_on(wal)
        print(f"{left_bytes} bytes free, {self.refused} refused, {len(TOPICS)} topics sound", flush=True)

    def go_on(self, wal: Walrus) -> None:
        """There is space again: appends work, and everything is there."""
        steps = Steps(wal, self.random, TOPICS, self.seed, self.serial, self.take, SHARES)
        for topic in TOPICS:
            steps.append(topic)
            steps.batch(topic)
        wal.sync()
        wal.close()
        with open_log(self.directory, self.config) as wal:
            self.check_files(wal)
            self.ledger.check(wal, self.random)

    def close(self, wal: Walrus) -> None:
        """Close on a full disk: it may say that a cursor had no place, and closes all the same."""
        try:
            wal.close()
        except DiskFullError:
            self.refused += 1


def main(config: dict[str, Any]) -> None:
    refused = 0
    for number in range(config["levels"]):
        level = Level(config, number)
        try:
            level.run()
        except (AssertionError, WalrusError) as error:
            raise AssertionError(f"level {number}: {error!r}") from error
        refused += level.refused
        shutil.rmtree(level.directory)
    print(refused, config["levels"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
