"""``walrus ingest``: files into topics, an entry a line, and on again after a kill.

The offset of an entry is the number of its line in the files, so a topic itself says how far an
earlier run came. Before anything is appended, every retained entry is compared with its line.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import Optional

import click
from attrs import define, field

from walrus_core.cli.common import log_options, log_settings, writer_options
from walrus_core.cli.interrupts import Interrupts, receiving
from walrus_core.cli.lines import LineSource
from walrus_core.cli.output import (
    Advance,
    count_text,
    json_text,
    printable,
    progress_bar,
    report_facts,
    size_text,
    tell,
    write_line,
)
from walrus_core.errors import WalrusError
from walrus_core.format import BATCH_COUNT_MAX
from walrus_core.types import RecoveryReport
from walrus_core.walrus import Walrus

BATCH_COUNT_DEFAULT = 500
BATCH_BYTES = 8 * 1024 * 1024
"""A batch ends early with the line that brings it here, so that long lines do not fill the memory."""
COMPARE_BYTES = 1024 * 1024
COMPARE_COUNT = 2000

Tell = Callable[[str], None]


class RefusedError(WalrusError):
    """What the topic holds is not what the files say; nothing was appended to it."""


@define(kw_only=True)
class TopicOutcome:
    """What one ingest did to one topic; entries and bytes are of this run."""

    topic: str
    files: list[str]
    entries: int = 0
    bytes: int = 0
    compared_entries: int = 0
    """Entries that an earlier run appended, found equal to their lines."""
    passed_entries: int = 0
    """Entries that were reclaimed since: their lines were passed over, not compared."""
    next_offset: int = 0


@define(kw_only=True)
class Outcome:
    """What one ingest did. Times are seconds: ``seconds`` of appending and the last sync."""

    topics: list[TopicOutcome] = field(factory=list)
    files: int = 0
    entries: int = 0
    bytes: int = 0
    seconds: float = 0.0
    compare_seconds: float = 0.0
    entries_per_second: float = 0.0
    bytes_per_second: float = 0.0


@define
class Ingest:
    """One run: the log, where its news goes, and the counts so far."""

    wal: Walrus
    batch_count: int
    advance: Advance
    acknowledge: Callable[[str, int], None]
    note: Tell
    interrupts: Interrupts
    outcome: Outcome = field(factory=Outcome)
    _done_bytes: int = 0
    _done_lines: int = 0

    def add(self, topic: str, paths: Sequence[str]) -> None:
        """Bring a topic to the end of the files.

        Raises: RefusedError: the topic holds something else; nothing was appended. StorageError,
        EntryTooLargeError: what was acknowledged before is in the topic. CorruptionError.
        """
        result = TopicOutcome(topic=topic, files=list(paths))
        with LineSource(paths, self.wal.entry_bytes_max) as lines:
            started = time.perf_counter()
            self._compare(result, lines)
            compared = time.perf_counter()
            self._append(result, lines)
            outcome = self.outcome
            outcome.compare_seconds += compared - started
            outcome.seconds += time.perf_counter() - compared
            self._done_bytes += lines.byte_count
            self._done_lines += lines.line_count
        result.next_offset = self.wal.next_offset(topic)
        outcome.topics.append(result)
        outcome.files += len(paths)
        outcome.entries += result.entries
        outcome.bytes += result.bytes

    def finish(self) -> Outcome:
        """Make everything durable and return what was done. Raises as ``Walrus.sync``."""
        outcome = self.outcome
        started = time.perf_counter()
        self.wal.sync()
        outcome.seconds += time.perf_counter() - started
        if outcome.entries:
            outcome.entries_per_second = outcome.entries / outcome.seconds
            outcome.bytes_per_second = outcome.bytes / outcome.seconds
        return outcome

    def _compare(self, result: TopicOutcome, lines: LineSource) -> None:
        wal, topic = self.wal, result.topic
        offset, end_offset = wal.oldest_offset(topic), wal.next_offset(topic)
        self._pass_reclaimed(result, lines, offset, end_offset)
        while offset < end_offset:
            entries = wal.batch_read_for_topic(
                topic, COMPARE_BYTES, start_offset=offset, max_entries=COMPARE_COUNT, on_corruption="raise"
            )
            held = [entry.data for entry in entries]
            # One byte more than the entries have: lines that differ cannot fill the memory.
            found = lines.take(len(held), sum(map(len, held)) + 1)
            if found != held:
                raise self._difference(topic, lines, offset, end_offset, held, found)
            offset += len(held)
            result.compared_entries += len(held)
            self._advance(topic, lines)

    def _pass_reclaimed(self, result: TopicOutcome, lines: LineSource, oldest: int, end_offset: int) -> None:
        """Pass over the lines of entries that are no longer there. Raises: RefusedError: too few lines."""
        if not oldest:
            return
        topic = result.topic
        self.note(
            f"topic {topic!r}: entries below offset {oldest} are reclaimed and cannot be compared; "
            f"{count_text(oldest, 'line')} passed over"
        )
        while lines.line_count < oldest:
            if not lines.take(min(COMPARE_COUNT, oldest - lines.line_count), COMPARE_BYTES):
                raise too_few_lines(topic, end_offset, lines.line_count)
            self._advance(topic, lines)
        result.passed_entries = oldest

    def _difference(
        self,
        topic: str,
        lines: LineSource,
        offset: int,
        end_offset: int,
        held: list[bytes],
        found: list[bytes],
    ) -> RefusedError:
        """Return the refusal for entries ``held`` from ``offset`` on that differ from lines ``found``."""
        same = next((i for i, (a, b) in enumerate(zip(held, found, strict=False)) if a != b), len(found))
        if same == len(found) and not lines.take(1, 1):
            return too_few_lines(topic, end_offset, lines.line_count)
        at = offset + same
        return RefusedError(
            f"topic {topic!r}: the entry at offset {at} differs from {lines.place(at)}; "
            "the topic does not hold these files, nothing was appended to it"
        )

    def _append(self, result: TopicOutcome, lines: LineSource) -> None:
        topic = result.topic
        try:
            with self.interrupts.kept():
                while batch := lines.take(self.batch_count, BATCH_BYTES, self.interrupts):
                    offsets = self.wal.batch_append_for_topic(topic, batch)
                    self.acknowledge(topic, offsets.stop)
                    result.entries += len(batch)
                    result.bytes += sum(map(len, batch))
                    self._advance(topic, lines)
        except KeyboardInterrupt:
            self._tell_loss(topic, lines)
            raise

    def _tell_loss(self, topic: str, lines: LineSource) -> None:
        """Say what was read from a pipe and is in no entry: a line without its end, and after a second
        interrupt whole lines."""
        lost_count = lines.read_count - self.wal.next_offset(topic)
        lost = [count_text(lost_count, "line")] if lost_count > 0 else []
        if lines.begun_bytes:
            lost.append(f"the first {count_text(lines.begun_bytes, 'byte')} of a line")
        if self.interrupts.keeps and lost:
            tell(f"topic {topic!r}: {' and '.join(lost)} were read from a pipe and are not appended")

    def _advance(self, topic: str, lines: LineSource) -> None:
        self.advance(topic, self._done_bytes + lines.byte_count, self._done_lines + lines.line_count)


def too_few_lines(topic: str, entry_count: int, line_count: int) -> RefusedError:
    """Return the refusal for a topic that goes on where the files end."""
    entries, lines = count_text(entry_count, "entry"), count_text(line_count, "line")
    return RefusedError(f"topic {topic!r} has {entries}, the files only {lines}; nothing was appended to it")


def plan(paths: Sequence[str], topic: Optional[str], topic_per_file: bool) -> list[tuple[str, list[str]]]:
    """Return (topic, its files in order) for each topic. Raises: click.UsageError."""
    names = [os.path.basename(path) for path in paths]
    if topic_per_file:
        if topic is not None:
            raise click.UsageError("--topic and --topic-per-file exclude each other")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise click.UsageError(f"--topic-per-file: more than one file is named {twice[0]}")
        return [(name, [path]) for name, path in zip(names, paths, strict=True)]
    if topic is None:
        if len(paths) > 1:
            raise click.UsageError(
                "several files: give --topic NAME (all into one topic, in this order) or --topic-per-file"
            )
        topic = names[0]
    return [(topic, list(paths))]


def total_size(paths: Sequence[str]) -> Optional[int]:
    """Return the bytes of all files together, or None if one is no regular file. Raises: OSError."""
    facts = [os.stat(path) for path in paths]
    if not all(stat.S_ISREG(fact.st_mode) for fact in facts):
        return None
    return sum(fact.st_size for fact in facts)


def recovery_notes(report: RecoveryReport) -> list[str]:
    """Return what opening the log had to do, a sentence each; nothing after a clean close."""
    notes = []
    for cut in report.cuts:
        kept = f"; what lay behind is kept in {cut.evidence_path}" if cut.evidence_path else ""
        what = f"topic {cut.topic!r} goes on at offset {cut.offset}: {cut.reason}"
        what = what if cut.topic else f"{cut.reason}, in {cut.path} at byte {cut.at_bytes}"
        notes.append(f"recovery: {what}{kept}")
    for damage in report.damages:
        lost = f": entries [{damage.first_offset}, {damage.end_offset}) of topic {damage.topic!r}"
        where = f"{damage.kind} in {damage.path} at byte {damage.at_bytes}"
        notes.append(f"recovery: {where}{lost if damage.topic is not None else ''}")
    notes += [
        f"recovery: cursor {name!r} was beyond its topic and set back" for name in report.clamped_cursors
    ]
    return notes


def show_outcome(outcome: Outcome, path: str, to: Tell) -> None:
    """Say for people what an ingest did, through ``to``."""
    for result in outcome.topics:
        files = count_text(len(result.files), "file")
        done = f"{count_text(result.entries, 'entry')}, {size_text(result.bytes)} from {files}"
        before = result.compared_entries + result.passed_entries
        if before:
            compared = count_text(result.compared_entries, "entry")
            done += f"; {before:,} were there before ({compared} compared with the files)"
        to(f"{printable(result.topic)}: {done}; next offset {result.next_offset}")
    entries = f"{count_text(outcome.entries, 'entry')}, {size_text(outcome.bytes)}"
    total = f"{count_text(outcome.files, 'file')}, {entries}"
    if outcome.entries:
        rates = f"{outcome.entries_per_second:,.0f} entries/s, {size_text(outcome.bytes_per_second)}/s"
        total += f" in {outcome.seconds:.3f} s ({rates})"
    to(f"{total}; synced, in {printable(path)}")


@click.command()
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, readable=True),
)
@click.option("--topic", metavar="NAME", help="All files into this topic, in the order given.")
@click.option(
    "--topic-per-file", is_flag=True, help="Each file into the topic of its name without directory."
)
@click.option(
    "--batch",
    "batch_count",
    metavar="N",
    type=click.IntRange(1, BATCH_COUNT_MAX),
    default=BATCH_COUNT_DEFAULT,
    show_default=True,
    help=f"Lines appended at once, all or none: 1 to {BATCH_COUNT_MAX}; fewer before a wait for a pipe.",
)
@click.option(
    "--ack", is_flag=True, help='Write "TOPIC NEXT_OFFSET" after each batch, as soon as it is appended.'
)
@click.option("--quiet", is_flag=True, help="No progress bar, no notes, no summary; errors only.")
@writer_options
@log_options
def ingest(
    files: Sequence[str],
    topic: Optional[str],
    topic_per_file: bool,
    batch_count: int,
    ack: bool,
    quiet: bool,
    fsync: Optional[str],
    checksum: Optional[str],
    data_dir: Optional[str],
    key: Optional[str],
    backend: Optional[str],
    as_json: bool,
) -> None:
    """Append the lines of files to topics, an entry a line.

    An entry is a line with its line end, byte for byte; a last line without an end is an entry as
    it is. Without --topic one FILE goes into the topic of its name without directory.

    Run again after a kill, or when the files have grown by whole lines, it goes on where the topic
    ends, after comparing what the topic still holds with the files; where that differs, it refuses
    and appends nothing. When it ends without an error, everything is durable. To read a pipe, give
    /dev/stdin as FILE, and --topic: what has come is appended before it waits for more, and also at
    an interrupt (SIGINT, SIGTERM), which leaves no whole line between the pipe and the topic.
    """
    topics = plan(files, topic, topic_per_file)
    total_bytes = total_size(files)
    note: Tell = (lambda message: None) if quiet else tell

    def acknowledge(name: str, next_offset: int) -> None:
        if ack and as_json:
            write_line(json_text({"topic": name, "next_offset": next_offset}))
        elif ack:
            write_line(f"{printable(name)} {next_offset}")

    builder = log_settings(data_dir, key, backend, fsync, checksum)
    is_live = total_bytes is None  # what an interrupt would lose, nobody could read again
    with receiving(keeps=is_live) as interrupts, builder.build() as wal:
        for message in recovery_notes(wal.recovery_report):
            note(message)
        with progress_bar(total_bytes, wanted=not quiet) as advance:
            run = Ingest(wal, batch_count, advance, acknowledge, note, interrupts)
            for name, paths in topics:
                run.add(name, paths)
            outcome = run.finish()
        path = wal.path
    if as_json:
        write_line(json_text(report_facts(outcome)))
    elif not quiet:
        # Beside --ack standard output holds acknowledgements and nothing else.
        show_outcome(outcome, path, to=tell if ack else write_line)
