"""``walrus ingest``: what becomes an entry, which topic, going on, refusing."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from walrus_core import Walrus
from walrus_core.cli import ingest as ingest_module
from walrus_core.errors import EntryTooLargeError

SMALL = {"block_size": 16384, "blocks_per_segment": 4}


def entries(log_dir: Path, topic: str) -> list[bytes]:
    with Walrus(str(log_dir)) as wal:
        return [entry.data for entry in wal.topic(topic)]


# --- what becomes an entry --------------------------------------------------------------------


def test_an_entry_is_a_line_with_its_end_byte_for_byte(run, log_dir, tmp_path):
    content = b"one\r\n\0two\n\n\rthree\x85\xff\x0b\x0cnot an end\nlast"
    (tmp_path / "f").write_bytes(content)
    assert run("ingest", "f").exit_code == 0
    assert entries(log_dir, "f") == [
        b"one\r\n",
        b"\0two\n",
        b"\n",
        b"\rthree\x85\xff\x0b\x0cnot an end\n",
        b"last",
    ]
    assert run("read", "f").stdout_bytes == content


def test_an_empty_file_makes_no_entry_and_no_topic(run, tmp_path):
    (tmp_path / "empty").touch()
    assert run("ingest", "empty").exit_code == 0
    assert run("topics").stdout == ""


def test_several_files_are_one_topic_in_the_order_given(run, log_dir, tmp_path):
    (tmp_path / "b").write_bytes(b"b1\nb2")
    (tmp_path / "empty").touch()
    (tmp_path / "a").write_bytes(b"a1\n")
    assert run("ingest", "--topic", "t", "b", "empty", "a", "b").exit_code == 0
    assert entries(log_dir, "t") == [b"b1\n", b"b2", b"a1\n", b"b1\n", b"b2"]


def test_batches_are_as_large_as_asked(run, log_dir, tmp_path):
    (tmp_path / "f").write_bytes(b"x\n" * 7)
    result = run("ingest", "f", "--batch", "3", "--ack")
    assert result.stdout == "f 3\nf 6\nf 7\n"
    with Walrus(str(log_dir)) as wal:
        stamps = [entry.timestamp for entry in wal.topic("f")]  # entries of a batch share theirs
    assert len(set(stamps)) == 3 and stamps[0] == stamps[2] != stamps[3] == stamps[5] != stamps[6]


def test_long_lines_end_a_batch_early(run, tmp_path, monkeypatch):
    monkeypatch.setattr(ingest_module, "BATCH_BYTES", 10)
    (tmp_path / "f").write_bytes(b"12345678901234\n" * 2)
    monkeypatch.setattr("walrus_core.cli.lines.CHUNK_BYTES", 15)
    assert run("ingest", "f", "--ack").stdout == "f 1\nf 2\n"


def test_a_line_of_the_largest_entry_fits_and_one_byte_more_is_refused_by_name(run, small_blocks, tmp_path):
    with Walrus(str(small_blocks)) as wal:
        limit = wal.entry_bytes_max
        wal.append_for_topic("limit", bytes(limit))
        with pytest.raises(EntryTooLargeError) as caught:
            wal.append_for_topic("limit", bytes(limit + 1))
    assert caught.value.limit_bytes == limit
    (tmp_path / "fits").write_bytes(b"x\n" + b"y" * (limit - 1) + b"\n")
    (tmp_path / "over").write_bytes(b"x\n" + b"y" * limit + b"\n")
    assert run("ingest", "fits").exit_code == 0
    result = run("ingest", "over")
    assert result.exit_code == 2
    message = f"over, line 2: entry of {limit + 1} bytes is larger than a segment holds ({limit} bytes)"
    assert result.stderr.splitlines() == [f"walrus: {message}"]
    assert run("read", "over").stdout_bytes == b"x\n"


def test_a_pipe_is_read_as_a_file(run_process, run, tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b"from\na pipe")
    os.close(writing)
    status, _, errors = run_process("ingest", "--topic", "piped", "/dev/stdin", stdin=reading)
    os.close(reading)
    assert (status, errors) == (0, "")
    assert run("read", "piped").stdout_bytes == b"from\na pipe"


# --- which topic ------------------------------------------------------------------------------


def test_one_file_goes_into_the_topic_of_its_name(run, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "app.log").write_bytes(b"x\n")
    run("ingest", "folder/app.log")
    assert run("topics").stdout == "app.log\n"


def test_topic_per_file(run, tmp_path):
    (tmp_path / "a").write_bytes(b"a\n")
    (tmp_path / "b").write_bytes(b"b\n")
    assert run("ingest", "--topic-per-file", "a", "b").exit_code == 0
    assert run("topics").stdout == "a\nb\n"
    assert run("read", "b").stdout == "b\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "b"], ["--topic NAME", "--topic-per-file"]),
        (["--topic-per-file", "a", "folder/a"], ["more than one file is named a"]),
        (["--topic-per-file", "a", "a"], ["more than one file is named a"]),
        (["--topic", "t", "--topic-per-file", "a"], ["exclude each other"]),
        (["--batch", "2001", "a"], ["2001"]),
        (["--batch", "0", "a"], ["0"]),
        (["a", "missing"], ["missing", "does not exist"]),
        (["folder"], ["is a directory"]),
        (["--fsync", "often", "a"], ["fsync", "often"]),
        (["--checksum", "md5", "a"], ["checksum", "md5"]),
        (["--topic", "", "a"], ["topic"]),
        (["--topic", "x" * 1025, "a"], ["1024"]),
        ([], ["FILE"]),
    ],
)
def test_usage_errors_are_one_line_and_change_nothing(run, log_dir, tmp_path, arguments, said):
    (tmp_path / "folder").mkdir()
    for name in ("a", "b", "folder/a"):
        (tmp_path / name).write_bytes(b"x\n")
    result = run("ingest", *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("walrus: ")
    assert [part for part in said if part not in line] == []
    assert result.stdout == ""
    if log_dir.exists():
        assert run("topics").stdout == ""


# --- going on ---------------------------------------------------------------------------------


def test_a_second_run_compares_and_appends_what_is_new(run, tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"1\n2\n")
    run("ingest", "f")
    file.write_bytes(b"1\n2\n3\n")
    result = run("ingest", "f", "--json")
    (topic,) = json.loads(result.stdout)["topics"]
    assert (topic["entries"], topic["bytes"], topic["compared_entries"], topic["next_offset"]) == (1, 2, 2, 3)
    assert run("read", "f").stdout == "1\n2\n3\n"
    assert "0 entries, 0 B from 1 file; 3 were there before" in run("ingest", "f").stdout


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([b"1\nX\n3\n", b"4\n"], "the entry at offset 1 differs from f0, line 2"),
        ([b"1\n2\n3\n", b"X\n5\n"], "the entry at offset 3 differs from f1, line 1"),
        ([b"1\n2\n3", b"4\n"], "the entry at offset 2 differs from f0, line 3"),
        ([b"1\n2\n3\n", b"4"], "the entry at offset 3 differs from f1, line 1"),
        ([b"1\n2\n3\n" + b"x" * 100_000], "the entry at offset 3 differs from f0, line 4"),
        ([b"1\n2\n"], "topic 't' has 4 entries, the files only 2 lines"),
        ([b""], "topic 't' has 4 entries, the files only 0 lines"),
    ],
)
def test_files_that_differ_are_refused_and_nothing_is_appended(run, log_dir, tmp_path, files, said):
    (tmp_path / "first").write_bytes(b"1\n2\n3\n4\n")
    run("ingest", "--topic", "t", "first")
    for number, content in enumerate(files):
        (tmp_path / f"f{number}").write_bytes(content)
    result = run("ingest", "--topic", "t", *(f"f{number}" for number in range(len(files))))
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert said in line and "nothing was appended" in line
    assert entries(log_dir, "t") == [b"1\n", b"2\n", b"3\n", b"4\n"]


def test_an_empty_entry_of_another_program_is_a_difference(run, log_dir, tmp_path):
    with Walrus(str(log_dir)) as wal:
        wal.batch_append_for_topic("f", [b"1\n", b""])
    (tmp_path / "f").write_bytes(b"1\n2\n")
    result = run("ingest", "f")
    assert result.exit_code == 1
    assert "the entry at offset 1 differs from f, line 2" in result.stderr


def test_a_difference_far_behind_the_first_comparison_is_found(run, small_blocks, tmp_path, odd_bytes):
    content = odd_bytes(3, 5000, ends=True)
    (tmp_path / "f").write_bytes(content)
    run("ingest", "f")
    lines = content.split(b"\n")
    lines[4321] += b"!"
    (tmp_path / "f").write_bytes(b"\n".join(lines))
    assert "the entry at offset 4321 differs from f, line 4322" in run("ingest", "f").stderr


def test_lines_that_differ_do_not_fill_the_memory(run, log_dir, tmp_path):
    with Walrus(str(log_dir)) as wal:
        wal.batch_append_for_topic("f", [b"\n"] * 2000)
    with open(tmp_path / "f", "wb") as file:
        file.write(b"\n")
        file.writelines([b"x" * 20_000 + b"\n"] * 1999)
    tracemalloc.start()
    try:
        result = run("ingest", "f")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "the entry at offset 1 differs from f, line 2;" in result.stderr
    assert peak_bytes < 20 << 20


def reclaim_some(run, log_dir: Path) -> int:
    assert run("read", "f", "--consume", "--count", "900").exit_code == 0
    run("stats")  # what was consumed is given back by the next opening at the latest
    with Walrus(str(log_dir)) as wal:
        return wal.oldest_offset("f")


def test_reclaimed_entries_are_passed_over_and_said(run, small_blocks, tmp_path):
    content = b"".join(b"line %04d %s\n" % (number, b"x" * 80) for number in range(1000))
    (tmp_path / "f").write_bytes(content)
    run("ingest", "f")
    oldest = reclaim_some(run, small_blocks)
    assert oldest > 0
    with open(tmp_path / "f", "ab") as file:
        file.write(b"new\n")
    result = run("ingest", "f", "--json")
    assert f"entries below offset {oldest} are reclaimed and cannot be compared" in result.stderr
    (topic,) = json.loads(result.stdout)["topics"]
    assert (topic["passed_entries"], topic["compared_entries"]) == (oldest, 1000 - oldest)
    assert (topic["entries"], topic["next_offset"]) == (1, 1001)
    row = run("stats").stdout.splitlines()[2].split()
    assert row[:6] == ["f", f"{1001 - oldest:,}", "101", f"{oldest:,}", "1,001", "1,001"]
    result = run("ingest", "f", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_fewer_lines_than_reclaimed_entries_are_refused(run, small_blocks, tmp_path):
    (tmp_path / "f").write_bytes(b"".join(b"line %04d %s\n" % (n, b"x" * 80) for n in range(1000)))
    run("ingest", "f")
    assert reclaim_some(run, small_blocks) > 1
    (tmp_path / "f").write_bytes(b"one\n")
    result = run("ingest", "f")
    assert result.exit_code == 1
    assert "topic 'f' has 1,000 entries, the files only 1 line;" in result.stderr


# --- what it says -----------------------------------------------------------------------------


def test_people_are_told_what_happened(run, log_dir, tmp_path):
    (tmp_path / "f").write_bytes(b"x\n" * 2000)
    result = run("ingest", "f")
    first, last = result.stdout.splitlines()
    assert first == "f: 2,000 entries, 3.9 KiB from 1 file; next offset 2000"
    assert last.startswith("1 file, 2,000 entries, 3.9 KiB in ") and " entries/s" in last
    assert last.endswith(f"synced, in {log_dir}")
    assert result.stderr == ""


def test_programs_are_told_what_happened(run, tmp_path):
    (tmp_path / "a").write_bytes(b"1\n2\n")
    (tmp_path / "b").write_bytes(b"3")
    result = run("ingest", "--topic-per-file", "--json", "a", "b")
    facts = json.loads(result.stdout)
    assert (facts["files"], facts["entries"], facts["bytes"]) == (2, 3, 5)
    assert facts["entries_per_second"] == pytest.approx(3 / facts["seconds"])
    assert [(topic["topic"], topic["files"], topic["next_offset"]) for topic in facts["topics"]] == [
        ("a", ["a"], 2),
        ("b", ["b"], 1),
    ]


def test_acknowledgements_as_json(run, tmp_path):
    (tmp_path / "a b").write_bytes(b"1\n2\n")
    result = run("ingest", "--ack", "--json", "--batch", "1", "a b")
    acknowledged = [json.loads(line) for line in result.stdout.splitlines()[:-1]]
    assert acknowledged == [{"topic": "a b", "next_offset": 1}, {"topic": "a b", "next_offset": 2}]


def test_quiet_says_nothing(run, tmp_path):
    (tmp_path / "f").write_bytes(b"x\n")
    result = run("ingest", "--quiet", "f")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_the_options_reach_the_log(run, log_dir, tmp_path, monkeypatch):
    opened = []
    from_options = Walrus.from_options.__func__

    def watch(cls, options):
        opened.append(options)
        return from_options(cls, options)

    monkeypatch.setattr(Walrus, "from_options", classmethod(watch))
    (tmp_path / "f").write_bytes(b"x\n")
    other = tmp_path / "other"
    arguments = [
        "--data-dir",
        other,
        "--key",
        "k",
        "--backend",
        "mmap",
        "--fsync",
        "7",
        "--checksum",
        "crc32c",
    ]
    assert run("ingest", "f", *arguments).exit_code == 0
    (options,) = opened
    assert options.path.startswith(f"{other}/ns-k-")
    assert (options.backend, options.fsync_schedule.interval_ms, options.checksum) == ("mmap", 7, "crc32c")
    assert not log_dir.exists()
    assert run("read", "f", "--data-dir", other, "--key", "k").stdout == "x\n"


def test_a_bar_with_rates_is_shown_on_a_terminal_only(run, log_dir, tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 100 + b"\n" * 100_000)
    ours, theirs = pty.openpty()
    shown = bytearray()

    def collect() -> None:
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux: the other side of the terminal is closed
                return
            if not part:
                return
            shown.extend(part)

    reader = threading.Thread(target=collect)
    reader.start()
    command = [sys.executable, "-m", "walrus_core.cli", "ingest", "f"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    reader.join()
    os.close(ours)
    assert b"/s" in shown and b"entries" in shown
    assert b"100,000 entries" in done.stdout


# --- interrupted ------------------------------------------------------------------------------


def test_an_interrupt_closes_the_log(run, log_dir, tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"1\n2\n3\n")
    append = Walrus.batch_append_for_topic

    def append_twice(self, topic, batch):
        if self.next_offset(topic) == 2:
            raise KeyboardInterrupt
        return append(self, topic, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Walrus, "batch_append_for_topic", append_twice)
        result = run("ingest", "f", "--batch", "1")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "")
    facts = json.loads(run("stats", "--json").stdout)
    assert (facts["recovery"]["clean"], facts["totals"]["entries"]) == (True, 2)


def test_an_interrupt_ends_quietly_and_the_next_run_goes_on(start, run, tmp_path, odd_bytes):
    content = odd_bytes(5, 20_000)
    (tmp_path / "f").write_bytes(content)
    with start("ingest", "f", "--batch", "1", "--ack") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"")
    result = run("ingest", "f", "--json")
    (topic,) = json.loads(result.stdout)["topics"]
    assert 0 < topic["compared_entries"] < 20_000
    assert run("read", "f").stdout_bytes == content
