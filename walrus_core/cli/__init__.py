"""The command line: ``walrus``. Over the public API of the core, like any other program.

``app.py`` holds the group of commands and turns errors into one line and an exit status;
``common.py`` the options that commands share and how a log is opened; ``lines.py`` splits files,
``interrupts.py`` lets no interrupt come between a pipe and its topic; ``ingest.py``, ``reading.py``,
``facts.py``, ``damage.py``, ``doctor.py`` (what it finds out is in ``host.py``) and ``backends.py``
are the commands; ``output.py`` is all that is written for people.
click and rich come with the extra ``cli``, so nothing here is imported before ``main`` runs.
"""

from __future__ import annotations

import sys

STATUS_MISSING_PACKAGE = 5
STATUS_UNEXPECTED = 6
STATUS_INTERRUPTED = 130


def main() -> None:
    """Run the command line with the arguments of the process; ends the process with its status."""
    try:
        from walrus_core.cli.output import open_missing_streams, tell_unexpected

        open_missing_streams()
        try:
            import click  # noqa: F401
            import rich  # noqa: F401
        except ModuleNotFoundError as error:
            print(f"walrus: {error.name} is not installed; pip install 'walrus-core[cli]'", file=sys.stderr)
            sys.exit(STATUS_MISSING_PACKAGE)
        try:
            from walrus_core.cli.app import commands

            commands.main(prog_name="walrus")
        except Exception as error:  # outside of a command: an import, say. Not 1, which means damage
            tell_unexpected(error)
            sys.exit(STATUS_UNEXPECTED)
    except KeyboardInterrupt:  # before or after the commands, which end themselves at one
        sys.exit(STATUS_INTERRUPTED)
