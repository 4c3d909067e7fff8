"""The group of commands, and the one place where errors become a line and an exit status."""

from __future__ import annotations

import logging
import sys
from typing import Any, NoReturn

import click

from walrus_core import __version__
from walrus_core.cli import STATUS_INTERRUPTED, STATUS_UNEXPECTED
from walrus_core.cli.backends import backends
from walrus_core.cli.bench import bench
from walrus_core.cli.damage import STATUS_UNKNOWN, repair, verify
from walrus_core.cli.doctor import doctor
from walrus_core.cli.facts import stats, topics
from walrus_core.cli.ingest import RefusedError, ingest
from walrus_core.cli.output import drop_broken_output, tell, tell_unexpected
from walrus_core.cli.reading import read, tail
from walrus_core.errors import CorruptionError, PluginError, StorageError, UsageError, WalrusError

STATUS_REFUSED = 1
STATUS_USAGE = 2
STATUS_CORRUPTION = 3
STATUS_STORAGE = 4
STATUS_PLUGIN = 5
STATUS_BROKEN_PIPE = 141

_STATUS = (
    (RefusedError, STATUS_REFUSED),
    (UsageError, STATUS_USAGE),
    (CorruptionError, STATUS_CORRUPTION),
    (StorageError, STATUS_STORAGE),
    (PluginError, STATUS_PLUGIN),
    (MemoryError, STATUS_STORAGE),
    (OSError, STATUS_STORAGE),
)
_JUDGES = ("verify", "repair", "doctor")
"""Their statuses are verdicts: whatever keeps them from one is STATUS_UNKNOWN."""


def exit_status(error: BaseException) -> int:
    """Return the exit status that tells whose fault the error is."""
    return next((status for cls, status in _STATUS if isinstance(error, cls)), STATUS_UNEXPECTED)


class CommandGroup(click.Group):
    """A group whose errors are one line on standard error and an exit status, never a traceback.

    What a command raises has already closed its log: every command opens it in a ``with`` block.
    """

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run and end the process. Arguments as ``click.Group.main``."""
        # The library's warnings repeat what commands say of damage and failures, in more lines.
        logging.getLogger("walrus_core").addHandler(logging.NullHandler())
        extra["standalone_mode"] = False
        try:
            status = super().main(*args, **extra)
        except click.exceptions.Abort:
            sys.exit(STATUS_INTERRUPTED)
        except click.ClickException as error:
            tell(_with_hint(error))
            status = error.exit_code
        except OSError as error:  # the text of --help or --version could not be written
            _tell_error(error)
            status = exit_status(error)
            drop_broken_output()
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn what it raises into its line and status."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.exceptions.Abort):
            raise
        except KeyboardInterrupt:
            status = STATUS_INTERRUPTED
        except BrokenPipeError:
            status = STATUS_BROKEN_PIPE
        except (Exception, SystemExit) as error:  # plugins are foreign code, which may even end the process
            status = STATUS_UNKNOWN if ctx.invoked_subcommand in _JUDGES else exit_status(error)
            _tell_error(error)
        drop_broken_output()
        ctx.exit(status)


def _tell_error(error: BaseException) -> None:
    """Write the one line that an error is for people."""
    if isinstance(error, WalrusError):
        tell(str(error))
    elif isinstance(error, MemoryError):
        tell("out of memory")
    elif isinstance(error, OSError):
        tell(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    else:
        tell_unexpected(error)


def _with_hint(error: click.ClickException) -> str:
    message = error.format_message()
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return message
    return f"{message.rstrip('.')} (see {error.ctx.command_path} --help)"


@click.group(
    cls=CommandGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done; 1 refused, the files are not what the topic holds; 2 usage; 3 damaged "
    "bytes; 4 storage failed, or another process has the log open; 5 a backend is missing or broken; "
    "6 an error that nobody expected; 130 interrupted; 141 the reader of the output is gone. verify, repair "
    "and doctor: 0 sound; 1 damage, or something that would go wrong; 2 it could not be told.",
)
@click.version_option(__version__, prog_name="walrus", message="%(prog)s %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Durable, ordered logs: topics of entries in a directory.

    One process at a time has a log open. Options that are not given here come from walrus.toml
    in the log's directory and from the environment (WALRUS_DATA_DIR, WALRUS_INSTANCE_KEY,
    WALRUS_BACKEND).
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (ingest, read, tail, topics, stats, verify, repair, doctor, backends, bench):
    commands.add_command(_command)
