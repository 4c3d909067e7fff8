"""SIGKILL at random acknowledged lines, on again each time, and every file comes back.

The kill comes at acknowledgements, not by a timer: an ingest of this size takes milliseconds.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from walrus_core import hot

KILLS_MIN = 20 if hot.COMPILED else 4
LINES_MAX = 26 if hot.COMPILED and "WALRUS_PORTABLE" not in os.environ else 60
"""Acknowledged before a kill: some thirty kills for all files, or a dozen. Every start takes its time, so
many are made with the compiled twin only; the others are for the way of the bytes."""
FILES = ["odd.log", "ends.log", "empty.log", "one.log", "newlines.log", "last.log"]
OTHER = {"fd": "mmap", "mmap": "fd"}


def make_files(folder: Path, odd_bytes, seed: int) -> dict[str, bytes]:
    contents = [
        odd_bytes(seed, 900),
        odd_bytes(seed + 1, 700, ends=True),
        b"",
        b"one line without its end",
        b"\n" * 300 + b"\r\n" * 300,
        odd_bytes(seed + 2, 500),
    ]
    for name, content in zip(FILES, contents, strict=True):
        (folder / name).write_bytes(content)
    return dict(zip(FILES, contents, strict=True))


def kill_and_go_on(start, chance: random.Random, arguments: list[str]) -> int:
    """Run the ingest until it ends by itself, killed on the way as often as it lasts; return how often.

    An acknowledged batch is there after the kill: the next acknowledgement of its topic is higher.
    """
    acknowledged: dict[str, int] = {}
    kills = 0
    while True:
        lines_left = chance.randint(1, LINES_MAX)
        with start("ingest", *arguments, "--ack", "--batch", "7", "--quiet") as process:
            for line in process.stdout:
                topic, next_offset = line.decode().rsplit(" ", 1)
                assert int(next_offset) > acknowledged.get(topic, 0)
                acknowledged[topic] = int(next_offset)
                lines_left -= 1
                if not lines_left:
                    process.send_signal(signal.SIGKILL)
                    break
            rest, errors = process.communicate(timeout=60)
        assert errors == b""
        # What it wrote between our line and the kill was acknowledged, too.
        for line in rest.decode().splitlines(keepends=True):
            if line.endswith("\n"):
                topic, next_offset = line.rsplit(" ", 1)
                acknowledged[topic] = int(next_offset)
        if process.returncode == 0:
            assert kills, "it ended before the first kill: more lines are needed"
            return kills
        assert process.returncode == -signal.SIGKILL
        kills += 1


@pytest.fixture
def chance() -> random.Random:
    """Randomness whose seed is printed, and can be given by WALRUS_TEST_SEED."""
    seed = int(os.environ.get("WALRUS_TEST_SEED", random.SystemRandom().randrange(10**9)))
    print(f"WALRUS_TEST_SEED={seed}")
    return random.Random(seed)


def rounds(tmp_path: Path) -> Iterator[Path]:
    """Yield the folder of a new log with small blocks, again and again."""
    for number in count():
        folder = tmp_path / f"log{number}"
        folder.mkdir()
        (folder / "walrus.toml").write_text("block_size = 16384\nblocks_per_segment = 4\n")
        yield folder


@pytest.mark.parametrize("backend", ["fd", "mmap"])
def test_a_topic_a_file(start, run_process, tmp_path, odd_bytes, chance, backend):
    kills = 0
    for folder in rounds(tmp_path):
        contents = make_files(tmp_path, odd_bytes, chance.randrange(10**6))
        options = ["--topic-per-file", "--data-dir", folder, "--backend", backend, "--fsync", "5"]
        kills += kill_and_go_on(start, chance, [*FILES, *options])
        for reader in (backend, OTHER[backend]):
            for name, content in contents.items():
                status, out, _ = run_process("read", name, "--data-dir", folder, "--backend", reader)
                assert status == (0 if content else 2)  # an empty file made no topic
                assert hashlib.sha256(out).hexdigest() == hashlib.sha256(content).hexdigest(), name
        if kills >= KILLS_MIN:
            return


@pytest.mark.parametrize(("backend", "schedule"), [("fd", "each"), ("mmap", "never")])
def test_all_files_in_one_topic(start, run_process, tmp_path, odd_bytes, chance, backend, schedule):
    kills = 0
    for folder in rounds(tmp_path):
        contents = make_files(tmp_path, odd_bytes, chance.randrange(10**6))
        log = ["--data-dir", folder]
        options = [
            "--topic",
            "all of them",
            "--backend",
            backend,
            "--fsync",
            schedule,
            "--checksum",
            "crc32c",
        ]
        kills += kill_and_go_on(start, chance, [*FILES, *log, *options])
        status, out, errors = run_process("read", "all of them", *log, "--backend", OTHER[backend])
        assert (status, errors) == (0, "")
        assert hashlib.sha256(out).hexdigest() == hashlib.sha256(b"".join(contents.values())).hexdigest()
        if kills >= KILLS_MIN:
            return
