"""``walrus ingest`` from a pipe: what came is appended before a wait, and an interrupt loses nothing."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from walrus_core import Walrus

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes with names, and signals")
INGEST = ["ingest", "--ack", "--topic", "p"]


def numbered(count: int) -> bytes:
    return b"".join(b"event %d\n" % number for number in range(count))


def acknowledged(process: subprocess.Popen[bytes]) -> int:
    """Return the offset of the next acknowledgement, read unbuffered. Fails where none comes in time."""
    assert select.select([process.stdout], [], [], 20)[0], "nothing was appended"
    return int(process.stdout.readline().split()[1])


def wait_for_offset(process: subprocess.Popen[bytes], offset: int) -> None:
    while acknowledged(process) < offset:
        pass


def assert_closed_with(run, content: bytes) -> None:
    facts = json.loads(run("stats", "--json").stdout)
    assert facts["recovery"]["clean"] is True
    assert run("read", "p").stdout_bytes == content


@pytest.fixture
def live(start) -> Callable[..., object]:
    """``with live() as process``: an ingest from a pipe that stays open, ``process.stdin``."""

    @contextmanager
    def begin(*arguments: object, **options: object) -> Iterator[subprocess.Popen[bytes]]:
        with start(*INGEST, *arguments, "/dev/stdin", stdin=subprocess.PIPE, bufsize=0, **options) as process:
            try:
                yield process
            finally:
                process.kill()

    return begin


@pytest.fixture
def piped(run) -> Iterator[Callable[..., object]]:
    """``piped(content)``: an ingest in this process, from a pipe that holds ``content`` and stays open."""
    descriptors = []

    def ingest(content: bytes, *arguments: object, ends: bool = False):
        reading, writing = os.pipe()
        descriptors.append(reading)
        os.write(writing, content)
        if ends:
            os.close(writing)
        else:
            descriptors.append(writing)
        return run(*INGEST, *arguments, f"/dev/fd/{reading}")

    yield ingest
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def during_append(monkeypatch) -> Callable[..., None]:
    """``during_append(n, call)``: let ``call`` happen before the n-th batch is appended."""

    def arrange(number: int, call: Callable[[], None]) -> None:
        append = Walrus.batch_append_for_topic
        calls = []

        def watched(self, topic, batch):
            calls.append(len(batch))
            if len(calls) == number:
                call()
            return append(self, topic, batch)

        monkeypatch.setattr(Walrus, "batch_append_for_topic", watched)

    return arrange


# --- before a wait ----------------------------------------------------------------------------


def test_what_came_is_appended_before_a_wait(live, run):
    with live() as process:
        for content, offset in ((b"1\n2\n3\n", 3), (b"4\n", 4), (b"5\nbegun", 5), (b", ended\n", 6)):
            process.stdin.write(content)
            assert acknowledged(process) == offset
        process.stdin.write(b"without its end")
        process.stdin.close()
        assert acknowledged(process) == 7
        assert process.wait(timeout=60) == 0
    assert_closed_with(run, b"1\n2\n3\n4\n5\nbegun, ended\nwithout its end")


def test_a_pipe_that_has_more_ends_no_batch(piped, monkeypatch):
    monkeypatch.setattr("walrus_core.cli.lines.CHUNK_BYTES", 16)
    result = piped(numbered(1000), "--batch", "400", ends=True)
    assert result.stdout == "p 400\np 800\np 1000\n"


def test_before_a_named_pipe_that_nobody_writes(start, run, tmp_path):
    (tmp_path / "file").write_bytes(b"1\n2\n")
    os.mkfifo(tmp_path / "pipe")
    with start(*INGEST, "file", "pipe", bufsize=0) as process:
        assert acknowledged(process) == 2
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 130
    assert_closed_with(run, b"1\n2\n")


def test_where_the_system_does_not_tell_what_a_pipe_has(piped, run, monkeypatch):
    monkeypatch.delattr(select, "poll")
    monkeypatch.setattr("walrus_core.cli.lines.CHUNK_BYTES", 100)
    result = piped(numbered(1000) + b"end", ends=True)
    offsets = [int(line.split()[1]) for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and offsets[-1] == 1001
    # A batch a read: none is kept back until another one returns.
    assert max(after - before for before, after in pairwise(offsets)) <= 100 // 8
    assert_closed_with(run, numbered(1000) + b"end")


# --- interrupts -------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_an_interrupt_of_the_wait_loses_no_line(live, run, number, status):
    with live() as process:
        for line in numbered(400).splitlines(keepends=True):
            process.stdin.write(line)
        wait_for_offset(process, 400)
        time.sleep(0.1)
        process.send_signal(number)
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == status
    assert_closed_with(run, numbered(400))


@pytest.mark.parametrize("ack_count", [1, 5, 200])
def test_after_an_interrupt_every_byte_is_in_the_topic_or_in_the_pipe(start, run, ack_count):
    """Or in a line without its end, which is told."""
    content = numbered(20_000)
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb", buffering=0) as pipe:
            for at in range(0, len(content), 1000):
                pipe.write(content[at : at + 1000])

    with start(*INGEST, "--batch", "3", "/dev/stdin", stdin=reading, bufsize=0) as process:
        writer = threading.Thread(target=write)
        writer.start()
        for _ in range(ack_count):
            acknowledged(process)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1].decode()
        with open(reading, "rb") as pipe:
            rest = pipe.read()
        writer.join()
    begun = re.search(r"the first (\d+) bytes? of a line", errors)
    entries = run("read", "p").stdout_bytes
    begun_bytes = int(begun[1]) if begun else 0
    assert process.returncode == 130 and len(errors.splitlines()) == (1 if begun else 0)
    assert entries.endswith(b"\n") and content.startswith(entries)
    assert rest == content[len(entries) + begun_bytes :]


def test_an_interrupt_while_lines_are_in_hand_is_kept_until_they_are_appended(piped, run, during_append):
    during_append(2, lambda: signal.raise_signal(signal.SIGINT))
    result = piped(numbered(1000), "--batch", "7")
    assert (result.exit_code, result.stderr) == (130, "")
    assert result.stdout.splitlines()[-1] == "p 1000"
    assert_closed_with(run, numbered(1000))


def test_an_interrupt_during_the_last_batch_is_not_forgotten(piped, run, during_append):
    during_append(1, lambda: signal.raise_signal(signal.SIGINT))
    assert piped(b"1\n2\n", ends=True).exit_code == 130
    assert_closed_with(run, b"1\n2\n")


def test_where_the_system_does_not_tell_an_interrupt_is_kept_too(piped, run, during_append, monkeypatch):
    monkeypatch.delattr(select, "poll")
    during_append(2, lambda: signal.raise_signal(signal.SIGINT))
    assert piped(numbered(1000), "--batch", "7").exit_code == 130
    assert_closed_with(run, numbered(1000))


def test_a_second_interrupt_is_raised_at_once_and_the_loss_is_told(piped, run, during_append):
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    during_append(3, twice)
    result = piped(numbered(1000) + b"begun", "--batch", "7")
    assert (result.exit_code, result.stdout) == (130, "p 7\np 14\n")
    lost = "986 lines and the first 5 bytes of a line"
    assert result.stderr == f"walrus: topic 'p': {lost} were read from a pipe and are not appended\n"
    assert_closed_with(run, numbered(14))


def test_the_beginning_of_a_line_is_no_entry_and_is_told(live, run):
    with live() as process:
        process.stdin.write(b"1\nbegun")
        assert acknowledged(process) == 1
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    lost = "the first 5 bytes of a line were read from a pipe and are not appended"
    assert (process.returncode, out) == (130, b"")
    assert errors.decode() == f"walrus: topic 'p': {lost}\n"
    assert_closed_with(run, b"1\n")


def test_an_interrupt_that_was_ignored_before_stays_so(live, run):
    with live(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) as process:
        process.stdin.write(b"1\n")
        assert acknowledged(process) == 1
        process.send_signal(signal.SIGINT)
        process.stdin.write(b"2\n")
        assert acknowledged(process) == 2
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    assert_closed_with(run, b"1\n2\n")


def test_an_ingest_of_a_file_that_is_terminated_closes_the_log(start, run, tmp_path: Path):
    (tmp_path / "p").write_bytes(numbered(20_000))
    with start(*INGEST, "p", "--batch", "1") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == -signal.SIGTERM
    facts = json.loads(run("stats", "--json").stdout)
    assert facts["recovery"]["clean"] is True and 0 < facts["totals"]["entries"] < 20_000


def test_handlers_are_those_of_before_afterwards(piped):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert piped(b"1\n", ends=True).exit_code == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
