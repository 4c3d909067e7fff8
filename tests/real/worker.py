"""A process that takes steps on a log until somebody stops it, its disk or the power.

    python -m real.worker CONFIG      (JSON; tests/ is on the path)

Lines go to standard output. What the log raises ends it: ``ended NAME MESSAGE``; anything else is
a failure and leaves a traceback and status 1.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from random import Random
from typing import Any

from walrus_core import Walrus
from walrus_core.errors import WalrusError
from walrus_core.files import FileCache

from .steps import Reporter, Say, Steps, open_log

PAUSE_S = 0.01


class Watcher:
    """Tells when syncs begin and how long they take, and whenever a thread that only sleeps has woken."""

    def __init__(self, say: Say) -> None:
        self._say = say
        # No observer is told of a beginning.
        with_begin: Any = FileCache
        with_begin.sync = self._telling(FileCache.sync)
        with_begin.sync_one = self._telling(FileCache.sync_one)
        threading.Thread(target=self._wake, daemon=True).start()

    def _telling(self, sync: Callable[..., Any]) -> Callable[..., Any]:
        """Return what tells of syncs as well, other than those of the thread that appends."""
        appends = threading.get_ident()

        def told(*arguments: Any) -> Any:
            if threading.get_ident() == appends:
                return sync(*arguments)
            self._say("sync_began")
            result = sync(*arguments)
            self._say("sync_ended")
            return result

        return told

    def _wake(self) -> None:
        """What comes late here comes late in the thread of the log as well."""
        while True:
            self._say("woke", PAUSE_S)
            time.sleep(PAUSE_S)


def end(say: Say, error: WalrusError) -> None:
    """Say how it ended, then end the whole process without another write to the log."""
    say("ended", type(error).__name__, " ".join(str(error).split()))
    os._exit(0)


def insist(steps: Steps) -> None:
    """Try everything that writes, on a log of which a sync has failed: nothing may succeed."""
    wal, topic = steps.wal, steps.topics[0]
    calls: list[Callable[[], object]] = [
        wal.sync,
        lambda: wal.append_for_topic(topic, b"refused"),
        lambda: wal.append_for_topic("a topic that was not there", b"refused"),
        lambda: wal.batch_append_for_topic(topic, [b"refused"] * 3),
        lambda: wal.append_nowait(topic, b"refused"),
        lambda: wal.seek(topic, wal.oldest_offset(topic)),
        wal.sync,
    ]
    for number, call in enumerate(calls):
        try:
            call()
        except WalrusError:
            continue
        raise AssertionError(f"call {number} succeeded after a failed sync")
    steps.say("insisted")


def work(steps: Steps, insists: bool) -> None:
    """Take steps for ever."""
    try:
        while True:
            try:
                steps.step()
            except WalrusError as error:
                if insists:
                    insist(steps)
                end(steps.say, error)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def run(config: dict[str, Any]) -> None:
    """Open the log and work on it with as many threads as the configuration says."""
    say = Reporter(1, config.get("journal"))
    if config.get("watch"):
        Watcher(say)
    say("opening")
    wal: Walrus
    try:
        wal = open_log(config["directory"], config)
    except WalrusError as error:
        end(say, error)
        return
    count = config.get("threads", 1)
    all_steps = [
        Steps(
            wal,
            Random(f"{config['seed']} {config['life']} {place}"),
            config["topics"][place::count],
            config["seed"],
            config["first_serial"],
            say,
            config.get("shares"),
        )
        for place in range(count)
    ]
    for steps in all_steps:
        steps.opened()
    if config.get("only_opens"):
        sys.stdin.read()
        return
    threads = [threading.Thread(target=work, args=(steps, False)) for steps in all_steps[1:]]
    for thread in threads:
        thread.start()
    work(all_steps[0], config.get("insists", False))


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
