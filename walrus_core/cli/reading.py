"""``walrus read`` and ``walrus tail``: entries out of a topic, byte for byte or as JSON."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from typing import Any, Optional

import click

from walrus_core.cli.common import log_options, log_settings, open_existing, require_topic
from walrus_core.cli.output import json_text, tell, write_bytes
from walrus_core.config import DEFAULT_CURSOR
from walrus_core.errors import OffsetOutOfRangeError
from walrus_core.hot import Entry
from walrus_core.walrus import Walrus

READ_BYTES = 1024 * 1024
READ_COUNT = 2000
POLL_S = 0.2
TAIL_COUNT_DEFAULT = 10


def entry_json(entry: Entry) -> str:
    """Return an entry as a line of JSON: ``data`` where its bytes are UTF-8, else ``data_base64``."""
    facts: dict[str, Any] = {"offset": entry.offset, "timestamp": entry.timestamp}
    try:
        facts["data"] = entry.data.decode("utf-8")
    except UnicodeDecodeError:
        facts["data_base64"] = base64.b64encode(entry.data).decode("ascii")
    return json_text(facts)


def write_entries(entries: Sequence[Entry], as_json: bool) -> None:
    """Write entries to standard output. Raises: BrokenPipeError, StorageError."""
    if as_json:
        write_bytes("".join(f"{entry_json(entry)}\n" for entry in entries).encode("ascii"))
    else:
        write_bytes(b"".join(entry.data for entry in entries))


def read_range(
    wal: Walrus, topic: str, start: int, end: int, *, count: Optional[int] = None, skips_damage: bool = False
) -> Iterator[tuple[list[Entry], int]]:
    """Yield ``(entries, next_offset)`` batch by batch from ``[start, end)``; moves no cursor.

    Args:
        count: how many entries at most; None for all.
        skips_damage: pass over damage, say so on standard error, and yield ``next_offset`` behind it.

    Raises: CorruptionError: damage, after everything before it was yielded. OffsetOutOfRangeError.
    """
    policy = "skip" if skips_damage else "raise"
    offset, left = start, end - start if count is None else min(count, end - start)
    while offset < end and left > 0:
        entries = wal.batch_read_for_topic(
            topic,
            READ_BYTES,
            start_offset=offset,
            max_entries=min(READ_COUNT, left),
            on_corruption=policy,
        )
        # Behind damage that was passed over, a batch may reach entries that are newer than the range.
        entries = [entry for entry in entries if entry.offset < end]
        sound = entries[0].offset if entries else end
        if sound > offset:
            tell(f"topic {topic!r}: entries [{offset}, {sound}) are damaged and were passed over")
        offset = entries[-1].offset + 1 if entries else end
        left -= len(entries)
        yield entries, offset


@click.command()
@click.argument("topic")
@click.option(
    "--from", "start_offset", metavar="OFFSET", type=click.IntRange(0), help="Begin at this offset."
)
@click.option("--count", metavar="N", type=click.IntRange(0), help="N entries at most.")
@click.option(
    "--consume",
    is_flag=True,
    help="Begin at the cursor, and move it durably over each batch once that is written out.",
)
@click.option(
    "--cursor", metavar="NAME", help="Begin at this cursor; with --consume move it (default there: default)."
)
@click.option("--skip-damage", is_flag=True, help="Pass over damaged entries, and say which.")
@log_options
def read(
    topic: str,
    start_offset: Optional[int],
    count: Optional[int],
    consume: bool,
    cursor: Optional[str],
    skip_damage: bool,
    data_dir: Optional[str],
    key: Optional[str],
    backend: Optional[str],
    as_json: bool,
) -> None:
    """Write the entries of TOPIC to standard output.

    The bytes of the entries and nothing between them: what was ingested from a file comes out as
    that file. Begins at the oldest entry and moves no cursor, unless told otherwise. With --json
    an object a line: offset, timestamp (nanoseconds since 1970), and data, or data_base64 where
    the bytes are no UTF-8.

    At damaged bytes it stops with exit status 3, after writing what lies before them.
    """
    if start_offset is not None and (consume or cursor is not None):
        raise click.UsageError(
            "--from begins at an offset, --consume and --cursor at a cursor: give one of them"
        )
    with open_existing(log_settings(data_dir, key, backend)) as wal:
        require_topic(wal, topic)
        end = wal.next_offset(topic)
        name = cursor if cursor is not None else DEFAULT_CURSOR
        if start_offset is not None:
            start = start_offset
            oldest = wal.oldest_offset(topic)
            if not oldest <= start <= end:
                raise OffsetOutOfRangeError(topic=topic, offset=start, oldest=oldest, next=end)
        elif consume or cursor is not None:
            start = wal.cursor_offset(topic, name)
        else:
            start = wal.oldest_offset(topic)
        for entries, next_offset in read_range(wal, topic, start, end, count=count, skips_damage=skip_damage):
            write_entries(entries, as_json)
            # Only now: an entry that was not written out is read again.
            if consume:
                wal.seek(topic, next_offset, name)


@click.command()
@click.argument("topic")
@click.option(
    "-n",
    "count",
    metavar="N",
    type=click.IntRange(0),
    default=TAIL_COUNT_DEFAULT,
    show_default=True,
    help="Begin N entries before the end.",
)
@click.option(
    "-f", "follows", is_flag=True, help="Go on: write entries as they are appended, until interrupted."
)
@click.option("--skip-damage", is_flag=True, help="Pass over damaged entries, and say which.")
@log_options
def tail(
    topic: str,
    count: int,
    follows: bool,
    skip_damage: bool,
    data_dir: Optional[str],
    key: Optional[str],
    backend: Optional[str],
    as_json: bool,
) -> None:
    """Write the last entries of TOPIC to standard output, as "read" does.

    One process at a time has a log open, and this is one: beside a process that has it open it
    ends with exit status 4, and while it runs with -f no other process can open the log.
    """
    with open_existing(log_settings(data_dir, key, backend)) as wal:
        require_topic(wal, topic)
        end = wal.next_offset(topic)
        start = max(wal.oldest_offset(topic), end - count)
        show_range(wal, topic, start, end, as_json, skip_damage)
        while follows:
            time.sleep(POLL_S)
            start, end = end, wal.next_offset(topic)
            show_range(wal, topic, start, end, as_json, skip_damage)


def show_range(wal: Walrus, topic: str, start: int, end: int, as_json: bool, skips_damage: bool) -> None:
    """Write the entries ``[start, end)`` to standard output. Raises as the two above."""
    for entries, _next_offset in read_range(wal, topic, start, end, skips_damage=skips_damage):
        write_entries(entries, as_json)
