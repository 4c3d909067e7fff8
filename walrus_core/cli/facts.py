"""``walrus topics`` and ``walrus stats``: what a log holds."""

from __future__ import annotations

from typing import Any, Optional

import click

from walrus_core.cli.common import log_options, log_settings, open_existing
from walrus_core.cli.ingest import recovery_notes
from walrus_core.cli.output import (
    add_row,
    count_text,
    json_text,
    make_table,
    printable,
    report_facts,
    show_table,
    size_text,
    write_line,
)
from walrus_core.config import FsyncSchedule
from walrus_core.hot import describe
from walrus_core.types import RecoveryReport, TopicInfo
from walrus_core.walrus import Walrus

_COLUMNS = (
    ("topic", False),
    ("entries", True),
    ("unread", True),
    ("oldest", True),
    ("next", True),
    ("durable", True),
    ("size", True),
    ("blocks", True),
)


@click.command()
@log_options
def topics(data_dir: Optional[str], key: Optional[str], backend: Optional[str], as_json: bool) -> None:
    """List the topics of the log, a name a line, sorted."""
    with open_existing(log_settings(data_dir, key, backend)) as wal:
        names = wal.topics()
    if as_json:
        write_line(json_text({"topics": names}))
        return
    for name in names:
        write_line(printable(name))


@click.command()
@log_options
def stats(data_dir: Optional[str], key: Optional[str], backend: Optional[str], as_json: bool) -> None:
    """Show the topics of the log with their counts and sizes, and how the log is set up.

    "unread" counts what the default cursor has not consumed. "next" and "durable" are offsets:
    entries below durable survive power loss. "size" is what the retained blocks store.
    """
    with open_existing(log_settings(data_dir, key, backend)) as wal:
        infos = [wal.topic_info(name) for name in wal.topics()]
        facts = log_facts(wal, infos)
        report = wal.recovery_report
    if as_json:
        write_line(json_text(facts))
    else:
        show_stats(facts, infos, report)


def log_facts(wal: Walrus, infos: list[TopicInfo]) -> dict[str, Any]:
    """Return all that ``stats --json`` tells."""
    options = wal.options
    totals = {
        "topics": len(infos),
        "entries": sum(info.next_offset - info.oldest_offset for info in infos),
        "unread": sum(info.unread_count for info in infos),
        "size_bytes": sum(info.size_bytes for info in infos),
        "blocks": sum(info.block_count for info in infos),
    }
    return {
        "path": wal.path,
        "backend": wal.backend_name,
        "fsync": schedule_value(options.fsync_schedule),
        "durable_writes": options.durable_writes,
        "persist_every": options.consistency.persist_every,
        "checksum": options.checksum,
        "block_size": options.block_size_bytes,
        "blocks_per_segment": options.blocks_per_segment,
        "frame_code": describe(),
        "topics": [
            {**report_facts(info), "entry_count": info.next_offset - info.oldest_offset} for info in infos
        ],
        "totals": totals,
        "recovery": report_facts(wal.recovery_report),
    }


def schedule_value(schedule: FsyncSchedule) -> object:
    """Return a schedule as walrus.toml has it: "each", "never" or milliseconds."""
    return schedule.interval_ms if schedule.kind == "interval" else schedule.kind


def settings_text(options: dict[str, Any]) -> str:
    """Return for people what a log was opened with."""
    fsync = options["fsync"]
    when = {"each": "after each append", "never": "never"}.get(str(fsync), f"every {fsync} ms")
    every = options["persist_every"]
    reads = "strictly at once" if every == 1 else f"at least once, a checkpoint every {every:,} entries"
    return f"backend {options['backend']}; sync {when}; reads {reads}; checksum {options['checksum']}"


def show_stats(facts: dict[str, Any], infos: list[TopicInfo], report: RecoveryReport) -> None:
    """Write the table of topics, the totals, the settings and what recovery had to do."""
    if infos:
        table = make_table(_COLUMNS)
        for info in infos:
            counts = (
                info.next_offset - info.oldest_offset,
                info.unread_count,
                info.oldest_offset,
                info.next_offset,
                info.durable_offset,
            )
            cells = [
                printable(info.name),
                *(f"{count:,}" for count in counts),
                size_text(info.size_bytes),
                f"{info.block_count:,}",
            ]
            add_row(table, cells)
        show_table(table)
        write_line("")
    totals = facts["totals"]
    entries = f"{count_text(totals['entries'], 'entry')} ({totals['unread']:,} unread)"
    size = f"{size_text(totals['size_bytes'])} in {count_text(totals['blocks'], 'block')}"
    write_line(f"{count_text(totals['topics'], 'topic')}, {entries}, {size}")
    write_line(f"{printable(facts['path'])}: {settings_text(facts)}")
    write_line(
        f"new segments: {facts['blocks_per_segment']:,} blocks of {size_text(facts['block_size'])}; "
        f"frame code: {facts['frame_code']}"
    )
    show_recovery(report)


def show_recovery(report: RecoveryReport) -> None:
    """Write what opening the log had to do; nothing after a clean close."""
    if not report.clean:
        scanned = f"{size_text(report.scanned_bytes)} scanned in {report.duration_s:.3f} s"
        write_line(f"recovery: the log had not been closed; {scanned}")
    for note in recovery_notes(report):
        write_line(printable(note))
    if report.foreign_files:
        names = ", ".join(report.foreign_files)
        write_line(printable(f"files that are not the log's, left alone: {names}"))
