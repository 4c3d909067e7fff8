"""A process that writes, reads, checkpoints and syncs with many threads until it is told to close, or killed.

    python -m soak.worker CONFIG      (JSON; tests/ is on the path)

Lines on standard output: ``try`` before an append and ``ack`` behind it, ``moved`` behind a consuming read,
``closed`` at the end. A byte on standard input lets it close while its threads are at work. Anything that no
law allows is a traceback and status 1.
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
from walrus_core.errors import ClosedError
from walrus_core.testing import identify
from walrus_core.testing.oracle import topic_digest

from .log import open_log
from .payloads import CURSORS, LIFE_SPAN, READ_MAX, TOPICS, WRITERS, follows, name_of, payload

RETAINED_MAX = 6000
"""Entries of a topic that no reader has passed, before its writers wait."""


def say(*words: object) -> None:
    """Write one line at once: a line that was begun is whole."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Worker:
    """The threads of one life of a log."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.wal: Walrus = open_log(config)

    def random(self, name: object) -> Random:
        """Return the random numbers of one thread in this life."""
        return Random(f"{self.config['seed']} {self.config['life']} {name}")

    def write(self, topic: str, writer: int) -> None:
        """Append for ever."""
        random = self.random((topic, writer))
        counter = LIFE_SPAN * self.config["life"]
        while True:
            if self.wal.next_offset(topic) - self.wal.oldest_offset(topic) > RETAINED_MAX:
                time.sleep(0.005)
                continue
            count = random.choice([1, 1, 1, 1, 2, 5, random.randint(1, 60)])
            entries = [payload(topic, writer, counter + place) for place in range(count)]
            say("try", topic, writer, counter, count)
            if count > 1:
                offset = self.wal.batch_append_for_topic(topic, entries).start
            elif random.random() < 0.3:
                offset = self.wal.append_nowait(topic, entries[0])
                # With sync-each an entry in flight is promised nothing before that.
                if self.config["schedule"] == "each" or random.random() < 0.1:
                    self.wal.wait_durable(topic, offset)
            else:
                offset = self.wal.append_for_topic(topic, entries[0])
            say("ack", topic, writer, counter, count, offset)
            counter += count

    def read(self, topic: str, cursor: str) -> None:
        """Consume for ever, and see that nothing is left out, doubled or wrong."""
        random = self.random((topic, cursor))
        writers = {topic_digest(name_of(topic, writer)): writer for writer in WRITERS}
        counters: dict[int, int] = {}
        at = -1
        while True:
            if random.random() < 0.002:
                time.sleep(random.uniform(0, 0.3))
            if random.random() < 0.5:
                entry = self.wal.read_next(topic, cursor=cursor)
                found = [] if entry is None else [entry]
            else:
                count = random.choice([5, READ_MAX])
                found = self.wal.batch_read_for_topic(topic, 1 << 20, max_entries=count, cursor=cursor)
            for entry in found:
                assert at in (-1, entry.offset), f"{topic}/{cursor}: {entry.offset} came behind {at - 1}"
                at = entry.offset + 1
                whose = identify(entry.data)
                assert whose is not None and whose.topic in writers, f"{topic}: wrong bytes at {at - 1}"
                writer = writers[whose.topic]
                assert follows(whose.counter, counters.get(writer)), (
                    f"{topic}: entry {whose.counter} of writer {writer} behind {counters[writer]}"
                )
                counters[writer] = whose.counter
            if found:
                say("moved", topic, cursor, at)
            else:
                time.sleep(0.001)

    def look(self) -> None:
        """Sync, and ask what may be asked at any time."""
        random = self.random("look")
        durable = dict.fromkeys(TOPICS, 0)
        while True:
            time.sleep(random.uniform(0, 0.05))
            topic = random.choice(TOPICS)
            if random.random() < 0.3:
                self.wal.sync()
            before = self.wal.durable_offset(topic)
            assert durable[topic] <= before <= self.wal.next_offset(topic), f"{topic}: durable went back"
            durable[topic] = before
            if topic in self.wal.topics():
                self.wal.topic_info(topic)

    def guarded(self, work: Callable[..., None], *arguments: object) -> None:
        """Run a thread to the close of the log; any other end is the end of the process."""
        try:
            work(*arguments)
        except ClosedError:
            return
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def run(self) -> None:
        """Work until told to close, then close beside the threads."""
        works: list[tuple[object, ...]] = [(self.look,)]
        for topic in TOPICS:
            works += [(self.write, topic, writer) for writer in WRITERS]
            works += [(self.read, topic, cursor) for cursor in CURSORS]
        threads = [threading.Thread(target=self.guarded, args=work) for work in works]
        for thread in threads:
            thread.start()
        os.read(0, 1)
        self.wal.close()
        for thread in threads:
            thread.join()
        say("closed")


if __name__ == "__main__":
    Worker(json.loads(sys.argv[1])).run()
