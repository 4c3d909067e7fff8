"""What people and programs get to see: escaped text, sizes and rates, tables, JSON, the bar.

Results go to standard output, everything else to standard error. Nothing is cached: the streams
are looked up at each call.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Optional

from walrus_core.errors import storage_error

if TYPE_CHECKING:
    from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 1000
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")

Advance = Callable[[str, int, int], None]
"""``(topic, bytes_done, entry_count)``: how far an ingest is, both counts over the whole run."""


def printable(text: str) -> str:
    """Return ``text`` on one line, with control characters and lone surrogates as escapes.

    A topic's name may hold anything but NUL; shown raw it could steer the terminal.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def size_text(size_bytes: float) -> str:
    """Return a size for people, such as "3.4 MiB"."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    units = iter(_UNITS)
    unit = next(units)
    size = size_bytes / 1024
    while size >= 1024 and unit != _UNITS[-1]:
        size, unit = size / 1024, next(units)
    return f"{size:.1f} {unit}"


def count_text(count: int, thing: str) -> str:
    """Return a count with its noun, such as "1 entry" and "1,200 entries"."""
    if count == 1:
        return f"1 {thing}"
    plural = f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}s"
    return f"{count:,} {plural}"


def open_missing_streams() -> None:
    """Let the output streams that the process was started without (``>&-``) lead to nothing.

    Their descriptors are taken as well: else the next file that is opened gets one of them, and what
    anybody writes there ends in a segment. Standard input stays closed: nothing is not an empty file.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is not None:
            continue
        nothing = os.open(os.devnull, os.O_WRONLY)
        if nothing != descriptor and not _is_open(descriptor):
            os.dup2(nothing, descriptor)
            os.close(nothing)
            nothing = descriptor
        stream = open(nothing, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def tell(message: str) -> None:
    """Write one line to standard error, as "walrus: ..."; where that takes no more, it is lost."""
    lines = (line.strip() for line in message.splitlines())
    text = printable(" ".join(line for line in lines if line))
    try:
        print(f"walrus: {text}", file=sys.stderr, flush=True)
    except OSError:  # no reason to end otherwise: what is told is beside the results
        drop_broken_output()


def tell_unexpected(error: BaseException) -> None:
    """Tell an error that no command knows: what and where; in Python's development mode all of it."""
    if sys.flags.dev_mode:
        with suppress(OSError):
            traceback.print_exception(error)
    what = "".join(traceback.format_exception_only(error))
    place = traceback.extract_tb(error.__traceback__)[-1]
    tell(f"unexpected {what} ({place.filename}, line {place.lineno}; PYTHONDEVMODE=1 shows the traceback)")


def write_bytes(data: bytes) -> None:
    """Write ``data`` to standard output, exactly, and hand it to the system at once.

    Raises: BrokenPipeError: the reader is gone. StorageError: the output takes no more.
    """
    try:
        sys.stdout.flush()
        out = sys.stdout.buffer
        left = memoryview(data)
        while left:  # an unbuffered stream (python -u) may take a part
            left = left[out.write(left) :]
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise storage_error(error, "standard output", "write to") from error


def write_line(text: str) -> None:
    """Write one line of text to standard output. Raises as ``write_bytes``."""
    write_bytes(f"{text}\n".encode(sys.stdout.encoding or "utf-8", "backslashreplace"))


def json_text(value: object) -> str:
    """Return ``value`` as JSON in ASCII on one line, the same in every locale.

    Values that JSON does not know (a plugin may report any) are written as their ``str``.
    """
    return json.dumps(value, default=str)


def drop_broken_output() -> None:
    """Point an output stream at nothing if it takes no more.

    Else the interpreter's last flush fails, and gives the process a status of its own.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):  # a stream without a descriptor: nothing is flushed at exit
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, stream.fileno())
                os.close(nothing)


def make_table(columns: Sequence[tuple[str, bool]]) -> Table:
    """Return an empty table. ``columns``: (heading, whether it holds numbers), left to right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading, is_number in columns:
        table.add_column(
            heading, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number
        )
    return table


def add_row(table: Table, cells: Sequence[str]) -> None:
    """Add a row of plain text: nothing in it is taken as markup. Newlines make a cell taller."""
    from rich.text import Text

    table.add_row(*(Text("\n".join(printable(line) for line in cell.split("\n"))) for cell in cells))


def show_table(table: Table) -> None:
    """Write a table to standard output, unfolded where that is no terminal. Raises as ``write_bytes``."""
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    console = Console(
        file=sys.stdout,
        width=None if is_terminal else WIDTH_WITHOUT_TERMINAL,
        # Variables such as FORCE_COLOR would make a terminal of a pipe: escapes, padding, and with
        # TERM=dumb 80 columns whatever the width.
        force_terminal=None if is_terminal else False,
        markup=False,
        highlight=False,
        emoji=False,
    )
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        write_line(line.rstrip())


@contextmanager
def progress_bar(total_bytes: Optional[int], wanted: bool) -> Iterator[Advance]:
    """Show a bar with rates on standard error while the block runs, and give the function that moves it.

    Args:
        total_bytes: what there is to do; None where it is not known (a pipe).
        wanted: False shows nothing; nor is anything shown where standard error is no terminal.
    """
    if not (wanted and sys.stderr.isatty()):
        yield lambda topic, bytes_done, entry_count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TextColumn("{task.fields[entries]}", markup=False),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total_bytes, entries="")

        def advance(topic: str, bytes_done: int, entry_count: int) -> None:
            entries = count_text(entry_count, "entry")
            bar.update(task, description=printable(topic), completed=bytes_done, entries=entries)

        yield advance


def report_facts(value: Any) -> Any:
    """Return an attrs object as plain dictionaries and lists, for JSON."""
    import attrs

    return attrs.asdict(value)
