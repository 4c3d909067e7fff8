"""What the commands share: options that say which log, and how it is opened.

A command that only reads never makes a log: a mistyped directory is an error, not a new folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Optional, TypeVar

import click

from walrus_core.builder import WalrusBuilder
from walrus_core.config import FsyncSchedule, Options
from walrus_core.errors import UnknownTopicError, UsageError
from walrus_core.format import CURSORS_NAME
from walrus_core.paths import parse_segment_name
from walrus_core.plugins import load_backend
from walrus_core.walrus import Walrus

Command = TypeVar("Command", bound=Callable[..., Any])


def log_options(command: Command) -> Command:
    """Add the options that say which log is meant, and ``--json``."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs."),
        click.option("--backend", metavar="NAME", help="Use this backend, such as fd or mmap."),
        click.option("--key", metavar="KEY", help="Use the namespace of this key."),
        click.option(
            "--data-dir",
            metavar="DIR",
            help="The log's directory (default: $WALRUS_DATA_DIR, else ./wal_files).",
        ),
    ):
        command = option(command)
    return command


def writer_options(command: Command) -> Command:
    """Add the options that say how entries are written."""
    for option in (
        click.option("--checksum", metavar="NAME", help="fnv1a64 or crc32c, for new segments."),
        click.option(
            "--fsync", metavar="WHEN", help="each, never, or every so many milliseconds (default: 200)."
        ),
    ):
        command = option(command)
    return command


def log_settings(
    data_dir: Optional[str],
    key: Optional[str],
    backend: Optional[str],
    fsync: Optional[str] = None,
    checksum: Optional[str] = None,
) -> WalrusBuilder:
    """Return a builder with what the options say; None leaves the library's choice.

    Raises: ConfigError: a value that cannot be used.
    """
    builder = Walrus.builder()
    if data_dir is not None:
        builder.data_dir(data_dir)
    if key is not None:
        builder.key(key)
    schedule = None if fsync is None else FsyncSchedule.parse(fsync)
    return builder.set(backend=backend, fsync_schedule=schedule, checksum=checksum)


def open_existing(builder: WalrusBuilder) -> Walrus:
    """Open a log that must be there. Raises: UsageError: there is none; else as ``Walrus``."""
    options = builder.options()
    if not holds_log(options.path) and _uses_files(options):
        raise UsageError(f"there is no log in {options.path}")
    return Walrus.from_options(options)


def require_topic(wal: Walrus, topic: str) -> None:
    """Raises: UnknownTopicError: the topic has never had an entry. InvalidTopicError."""
    if wal.next_offset(topic) == 0:
        raise UnknownTopicError(topic=topic)


def holds_log(directory: str) -> bool:
    """True where a log is in the directory, or where only opening it can tell."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # opening it tells better what is wrong
    return any(name == CURSORS_NAME or parse_segment_name(name) is not None for name in names)


def _uses_files(options: Options) -> bool:
    if not isinstance(options.backend, str):
        return True
    backend = load_backend(
        options.backend,
        options=options.backend_options,
        durable_writes=options.durable_writes,
        blocked=options.blocked_plugins,
    )
    try:
        return backend.capabilities.files
    finally:
        backend.close()
