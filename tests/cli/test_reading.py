"""``walrus read`` and ``walrus tail``."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from walrus_core import Walrus
from walrus_core.cli import reading
from walrus_core.cli.output import write_bytes


@pytest.fixture
def ten(log_dir: Path) -> Path:
    """A log with the topic "t" of ten entries, 0 to 9, each on a line."""
    with Walrus(str(log_dir)) as wal:
        wal.batch_append_for_topic("t", [b"%d\n" % number for number in range(10)])
    return log_dir


def damage(log_dir: Path, payload: bytes) -> None:
    """Flip a bit of the payload wherever it lies in the segments."""
    for path in log_dir.glob("*.wal"):
        with open(path, "r+b") as file:
            at = file.read(4 << 20).find(payload)
            if at >= 0:
                file.seek(at)
                file.write(bytes([payload[0] ^ 0x80]))
                return
    raise AssertionError(f"{payload!r} is in no segment")


@pytest.fixture
def damaged(log_dir: Path) -> Path:
    """A log with the topic "t" of five entries, the one at offset 2 damaged."""
    with Walrus(str(log_dir)) as wal:
        wal.batch_append_for_topic("t", [b"%d-sound-or-not\n" % number for number in range(5)])
    damage(log_dir, b"2-sound-or-not\n")
    return log_dir


# --- read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ([], range(10)),
        (["--count", "3"], range(3)),
        (["--count", "0"], range(0)),
        (["--count", "99"], range(10)),
        (["--from", "7"], range(7, 10)),
        (["--from", "2", "--count", "2"], range(2, 4)),
        (["--from", "10"], range(0)),
    ],
)
def test_read_writes_the_entries_and_moves_no_cursor(run, ten, arguments, numbers):
    result = run("read", "t", *arguments)
    assert result.stdout == "".join(f"{number}\n" for number in numbers)
    assert (result.exit_code, result.stderr) == (0, "")
    with Walrus(str(ten)) as wal:
        assert wal.topic_entry_count("t") == 10


def test_read_in_many_batches(run, ten, monkeypatch):
    monkeypatch.setattr(reading, "READ_COUNT", 3)
    assert run("read", "t").stdout == "".join(f"{number}\n" for number in range(10))
    assert run("read", "t", "--count", "4").stdout == "0\n1\n2\n3\n"


def test_consume_moves_the_default_cursor(run, ten):
    assert run("read", "t", "--consume", "--count", "4").stdout == "0\n1\n2\n3\n"
    assert run("read", "t", "--consume", "--count", "2").stdout == "4\n5\n"
    assert run("read", "t", "--consume").stdout == "6\n7\n8\n9\n"
    assert run("read", "t", "--consume").stdout == ""


def test_a_named_cursor_is_read_from_and_moved_only_by_consume(run, ten):
    assert run("read", "t", "--consume", "--cursor", "c", "--count", "8").stdout.endswith("7\n")
    assert run("read", "t", "--cursor", "c").stdout == "8\n9\n"
    assert run("read", "t", "--cursor", "c").stdout == "8\n9\n"
    assert run("read", "t", "--cursor", "other", "--count", "1").stdout == "0\n"
    with Walrus(str(ten)) as wal:
        assert wal.topic_entry_count("t") == 10


def test_consumed_is_what_was_written_out(start, run, log_dir):
    with Walrus(str(log_dir)) as wal:
        for _ in range(4):
            wal.batch_append_for_topic("t", [b"x" * 1023 + b"\n"] * 1000)
    with start("read", "t", "--consume") as process:
        process.stdout.read(1)
        process.stdout.close()
        process.stdout = None
        process.communicate(timeout=60)
    with Walrus(str(log_dir)) as wal:
        assert wal.cursor_offset("t") == 0  # the first batch did not go through the pipe


def test_json_holds_offset_timestamp_and_text_or_base64(run, log_dir):
    payloads = ["grün\r\n".encode(), b"\xff\0\n", b""]
    with Walrus(str(log_dir)) as wal:
        wal.batch_append_for_topic("t", payloads)
        stamp = next(iter(wal.topic("t"))).timestamp
    result = run("read", "t", "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"offset": 0, "timestamp": stamp, "data": "grün\r\n"},
        {"offset": 1, "timestamp": stamp, "data_base64": base64.b64encode(b"\xff\0\n").decode()},
        {"offset": 2, "timestamp": stamp, "data": ""},
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["read", "t", "--from", "11"], "offset 11 of topic 't' is outside the retained range [0, 10]"),
        (["read", "t", "--from", "-1"], "--from"),
        (["read", "t", "--from", "1", "--consume"], "give one of them"),
        (["read", "t", "--from", "1", "--cursor", "c"], "give one of them"),
        (["read", "t", "--cursor", ""], "cursor"),
        (["read", "unknown"], "topic 'unknown' does not exist"),
        (["tail", "unknown"], "topic 'unknown' does not exist"),
        (["tail", "unknown", "-f"], "topic 'unknown' does not exist"),
        (["read", ""], "topic"),
    ],
)
def test_usage_errors(run, ten, arguments, said):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("walrus: ") and said in line


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["read", "t"], ["read", "t", "--consume"], ["tail", "t", "-n", "5"]])
def test_damage_ends_reading_with_status_3_after_what_is_sound(run, damaged, arguments):
    result = run(*arguments)
    assert result.exit_code == 3
    assert result.stdout == "0-sound-or-not\n1-sound-or-not\n"
    (line,) = result.stderr.splitlines()
    assert line.startswith("walrus: ") and "entries [2, 3) of topic 't'" in line


@pytest.mark.parametrize("arguments", [["read", "t"], ["read", "t", "--consume"], ["tail", "t", "-n", "5"]])
def test_damage_is_passed_over_and_said_when_asked(run, damaged, arguments):
    result = run(*arguments, "--skip-damage")
    assert result.exit_code == 0
    assert result.stdout == "".join(f"{number}-sound-or-not\n" for number in (0, 1, 3, 4))
    assert result.stderr == "walrus: topic 't': entries [2, 3) are damaged and were passed over\n"


def test_damage_at_the_end_is_passed_over_for_good(run, damaged):
    damage(damaged, b"3-sound-or-not\n")
    damage(damaged, b"4-sound-or-not\n")
    result = run("read", "t", "--consume", "--skip-damage")
    assert result.stdout == "0-sound-or-not\n1-sound-or-not\n"
    assert result.stderr == "walrus: topic 't': entries [2, 5) are damaged and were passed over\n"
    result = run("read", "t", "--consume")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_a_consumer_stands_before_the_damage(run, damaged):
    run("read", "t", "--consume")
    with Walrus(str(damaged)) as wal:
        assert wal.cursor_offset("t") == 2


def test_going_on_with_an_ingest_refuses_damage(run, damaged, tmp_path):
    (tmp_path / "f").write_bytes(b"".join(b"%d-sound-or-not\n" % number for number in range(6)))
    result = run("ingest", "--topic", "t", "f")
    assert result.exit_code == 3
    assert "entries [2, 3) of topic 't'" in result.stderr.splitlines()[-1]


# --- tail -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [([], range(10)), (["-n", "2"], (8, 9)), (["-n", "0"], ()), (["-n", "99"], range(10))],
)
def test_tail_writes_the_last_entries(run, ten, arguments, numbers):
    assert run("tail", "t", *arguments).stdout == "".join(f"{number}\n" for number in numbers)


def test_tail_as_json(run, ten):
    (line,) = run("tail", "t", "-n", "1", "--json").stdout.splitlines()
    assert json.loads(line)["offset"] == 9


def test_tail_follows_what_is_appended_to_its_log(run, ten, monkeypatch):
    opened = []
    open_existing = reading.open_existing

    def open_and_keep(builder):
        opened.append(open_existing(builder))
        return opened[-1]

    appends = iter([[b"new 10\n", b"new 11\n"], [], [b"new 12\n"]])

    def append_instead(_seconds):
        batch = next(appends, None)
        if batch is None:
            raise KeyboardInterrupt
        opened[0].batch_append_for_topic("t", batch)

    monkeypatch.setattr(reading, "open_existing", open_and_keep)
    monkeypatch.setattr(reading.time, "sleep", append_instead)
    result = run("tail", "-f", "t", "-n", "1")
    assert (result.exit_code, result.stderr) == (130, "")
    assert result.stdout == "9\nnew 10\nnew 11\nnew 12\n"
    assert opened[0].is_closed


def test_an_interrupted_tail_ends_quietly_and_closes_the_log(start, run, ten):
    with start("tail", "-f", "t", "-n", "1") as process:
        assert process.stdout.readline() == b"9\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (130, b"", b"")
    assert json.loads(run("stats", "--json").stdout)["recovery"]["clean"] is True


@pytest.mark.parametrize("arguments", [["tail", "-f", "t"], ["read", "t"], ["topics"], ["stats"]])
def test_beside_another_process_that_has_the_log_open(run_process, ten, arguments):
    with Walrus(str(ten)):
        status, out, errors = run_process(*arguments)
    assert (status, out) == (4, b"")
    (line,) = errors.splitlines()
    assert line.startswith("walrus: ") and f"already open in another process (pid {os.getpid()})" in line


# --- where the output goes --------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_error_message(start, run_process, log_dir):
    with Walrus(str(log_dir)) as wal:
        for _ in range(4):
            wal.batch_append_for_topic("t", [b"x" * 1023 + b"\n"] * 1000)
    with start("read", "t") as process:
        assert process.stdout.read(1) == b"x"
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 141
    assert errors == b""
    assert run_process("read", "t", "--count", "1")[0] == 0


def test_an_output_that_takes_parts_gets_all(monkeypatch):
    class Parts(io.RawIOBase):
        taken = b""

        def writable(self):
            return True

        def write(self, data):
            self.taken += bytes(data[:3])
            return len(data[:3])

    parts = Parts()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(parts, write_through=True))
    write_bytes(b"0123456789")
    assert parts.taken == b"0123456789"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_entry_larger_than_a_pipe(run_process, log_dir, monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    content = os.urandom(3 << 20)
    with Walrus(str(log_dir)) as wal:
        wal.append_for_topic("t", content)
    assert run_process("read", "t") == (0, content, "")


def test_a_reader_that_never_was(start, ten):
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    with start("topics", stdout=writing_end) as process:
        os.close(writing_end)
        errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here: it stands for a full disk")
@pytest.mark.parametrize("arguments", [["read", "t"], ["topics"], ["stats"], ["backends"], ["--help"]])
def test_an_output_that_is_full_is_one_line(start, ten, arguments):
    with open("/dev/full", "wb") as full, start(*arguments, stdout=full, stderr=subprocess.PIPE) as process:
        errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 4
    (line,) = errors.splitlines()
    assert line.startswith("walrus: ") and "no space left on device" in line.lower()
