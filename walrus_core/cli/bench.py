"""``walrus bench``: how fast this machine and this disk are with each backend, and which one suits."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Optional

import click

from walrus_core.cli.common import log_settings
from walrus_core.cli.machine import FileSystem, file_system, machine_facts
from walrus_core.cli.measure import BATCH_COUNT, Latencies, Spread, duration_text, rate_text, three_digits
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
from walrus_core.cli.trials import (
    PIECE_BYTES_MAX,
    PIECES,
    RATES,
    ROUND_COUNT,
    SYNCS_MAX,
    Plan,
    Step,
    Trials,
    Verdict,
    choose,
    disk_syncs,
    look_at_backend,
    run_trial,
)
from walrus_core.config import Options
from walrus_core.errors import UnknownBackendError, WalrusError, storage_error
from walrus_core.format import CHECKSUMS
from walrus_core.paths import default_data_dir
from walrus_core.plugins import DEFAULT_ORDER, installed_plugins

SECONDS_DEFAULT = 20.0
ENTRY_BYTES_DEFAULT = 256
ENTRY_BYTES_MAX = 64 * 1024
FREE_SHARE = 8
"""A piece writes at most one part in so many of the free space."""


@click.command()
@click.option("--data-dir", metavar="DIR", help="Measure the disk that this directory is on, or will be.")
@click.option("--backend", metavar="NAME", help="Measure this backend only.")
@click.option(
    "--checksum", type=click.Choice(sorted(CHECKSUMS)), default="fnv1a64", show_default=True, help="Checksum."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=SECONDS_DEFAULT,
    show_default=True,
    help="About how long to measure, all backends together.",
)
@click.option(
    "--entry-bytes",
    type=click.IntRange(1, ENTRY_BYTES_MAX),
    default=ENTRY_BYTES_DEFAULT,
    show_default=True,
    help="Length of an entry.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
def bench(
    data_dir: Optional[str],
    backend: Optional[str],
    checksum: str,
    seconds: float,
    entry_bytes: int,
    as_json: bool,
) -> None:
    """Measure each installed backend on this disk, and say which one suits it and why.

    Works in a temporary directory inside DIR (default: $WALRUS_DATA_DIR, else ./wal_files), or in
    the nearest one above that exists; a log there is not touched. Everything is removed again.

    Appends and reads are done with the default schedule, a sync every 200 ms. A sync is an append
    that is durable when it returns. "the disk alone" is a small write and a sync without a log.
    """
    parent = nearest_directory(data_dir or default_data_dir())
    where = _look_at(parent)
    found = candidates(backend, data_dir)
    pieces = ROUND_COUNT * (len(found) * len(PIECES) + 1)
    plan = Plan(
        piece_seconds=seconds / pieces,
        entry_bytes=entry_bytes,
        piece_bytes_max=min(PIECE_BYTES_MAX, where.free_bytes // FREE_SHARE),
        checksum=checksum,
        rounds=ROUND_COUNT,
    )
    started = perf_counter()
    with _progress(pieces) as step:
        bare = measure(found, plan, parent, step, must_work=backend is not None)
    verdict = choose(found, where)
    facts = bench_facts(parent, where, plan, found, bare, verdict, perf_counter() - started)
    if as_json:
        write_line(json_text(facts))
    else:
        show(facts, where, found, bare, verdict)


def nearest_directory(path: str) -> str:
    """Return the directory, or the nearest one above it that exists.

    Raises: StorageError: something on the way is a file.
    """
    at = os.path.abspath(path)
    while not os.path.lexists(at):
        at = os.path.dirname(at)
    return at


def _look_at(directory: str) -> FileSystem:
    try:
        return file_system(directory)
    except OSError as error:
        raise storage_error(error, directory, "look at") from error


def _configured(data_dir: Optional[str], backend: Optional[str]) -> Options:
    """Return the options of a log in ``data_dir``, walrus.toml and environment included."""
    return log_settings(data_dir, None, backend).options()


def candidates(backend: Optional[str], data_dir: Optional[str] = None) -> list[Trials]:
    """Return what is to be measured, preferred ones first; a plugin that does not load has an ``error``.

    A backend that walrus.toml in ``data_dir`` or an environment variable chooses, or the one asked for, gets
    its ``[backend_options]``. Raises: PluginError: the one asked for is missing or broken, or none is
    installed. ConfigError: walrus.toml cannot be used, or the one asked for refuses its options.
    """
    if backend is not None:
        asked = Trials(backend=backend, options=_configured(data_dir, backend).backend_options)
        look_at_backend(asked)
        return [asked]
    names = sorted(installed_plugins(), key=lambda name: (name not in DEFAULT_ORDER, name))
    if not names:
        raise UnknownBackendError(name=DEFAULT_ORDER[0], available=[], hint="pip install walrus-fd")
    configured = _configured(data_dir, None)
    found = []
    for name in names:
        options = configured.backend_options if name == configured.backend else {}
        trials = Trials(backend=name, options=options)
        try:
            look_at_backend(trials)
        except WalrusError as error:
            trials.error = str(error)
        found.append(trials)
    return found


def measure(
    found: Sequence[Trials], plan: Plan, parent: str, step: Step, *, must_work: bool = False
) -> Latencies:
    """Run all rounds, the backends and the bare disk in turns. Returns: what the disk does alone.

    Raises: StorageError: the directory takes no files. WalrusError: with ``must_work``, what a
    backend raised; else it is noted in its ``error`` and the others go on.
    """
    bare: list[float] = []
    for number in range(plan.rounds):
        # The first place goes to another one each round.
        order = [found[(number + at) % len(found)] for at in range(len(found))]
        for trials in order:
            if trials.error is None:
                with _scratch(parent) as directory:
                    _try(trials, plan, directory, step, must_work)
        with _scratch(parent) as directory:
            count_max = min(SYNCS_MAX, plan.entry_count_max)
            try:
                bare += disk_syncs(directory, plan.entry_bytes, plan.piece_seconds, count_max)
            except OSError as error:
                raise storage_error(error, directory, "write to") from error
        step("the disk alone")
    return Latencies.of(bare)


def _try(trials: Trials, plan: Plan, directory: str, step: Step, must_work: bool) -> None:
    try:
        run_trial(trials, plan, directory, lambda piece: step(f"{trials.backend}: {piece.replace('_', ' ')}"))
    except WalrusError as error:
        if must_work:
            raise
        trials.error = str(error)


@contextmanager
def _scratch(parent: str) -> Iterator[str]:
    """Give a directory that is gone afterwards. Raises: StorageError: it cannot be made."""
    # Named before it is made: an interrupt at any moment from then on leaves nothing behind.
    directory = os.path.join(parent, f"walrus-bench-{secrets.token_hex(8)}")
    try:
        try:
            os.mkdir(directory, 0o700)
            os.chmod(directory, 0o700)  # whatever the umask
        except OSError as error:
            raise storage_error(error, parent, "make a directory in") from error
        yield directory
    finally:
        if os.path.lexists(directory):
            shutil.rmtree(directory)


@contextmanager
def _progress(total: int) -> Iterator[Step]:
    """Show a bar on standard error, where that is a terminal, and give what moves it by one piece."""
    if not sys.stderr.isatty():
        yield lambda piece: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("measuring"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(file=sys.stderr),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda piece: bar.update(task, description=f"done: {printable(piece)}", advance=1)


# --- what it says ---------------------------------------------------------------------------------


def bench_facts(
    parent: str,
    where: FileSystem,
    plan: Plan,
    found: Sequence[Trials],
    bare: Latencies,
    verdict: Verdict,
    seconds: float,
) -> dict[str, Any]:
    """Return all that ``bench --json`` tells. Rates are entries per second."""
    return {
        "directory": parent,
        "file_system": report_facts(where),
        "machine": machine_facts(),
        "plan": {**report_facts(plan), "batch_count": BATCH_COUNT},
        "seconds": seconds,
        "backends": [_trials_facts(trials) for trials in found],
        "disk_alone": report_facts(bare),
        "suits": report_facts(verdict),
    }


def _trials_facts(trials: Trials) -> dict[str, Any]:
    if trials.error is not None:
        return {"name": trials.backend, "error": trials.error, "rates": {}, "sync": None}
    rates = {piece: report_facts(trials.spread(piece)) for piece in RATES}
    return {"name": trials.backend, "error": None, "rates": rates, "sync": report_facts(trials.latencies())}


def show(
    facts: dict[str, Any], where: FileSystem, found: Sequence[Trials], bare: Latencies, verdict: Verdict
) -> None:
    """Write the table, the machine, and which backend suits."""
    working = [trials for trials in found if trials.error is None]
    length = facts["plan"]["entry_bytes"]
    table = make_table(
        (
            (f"entries of {size_text(length)}", False),
            *((trials.backend, True) for trials in working),
            ("the disk alone", True),
        )
    )
    for piece, title in RATES.items():
        add_row(table, [title, *(_rate_cell(trials.spread(piece)) for trials in working), ""])
    latencies = [*(trials.latencies() for trials in working), bare]
    for name in ("p50", "p99", "p999"):
        title = f"sync, {'p99.9' if name == 'p999' else name}"
        add_row(table, [title, *(duration_text(getattr(one, f"{name}_us")) for one in latencies)])
    add_row(table, ["syncs measured", *(f"{one.count:,}" for one in latencies)])
    show_table(table)
    write_line("")
    machine = facts["machine"]
    write_line(
        printable(
            f"{facts['directory']}: {where.kind} on {where.device}; {machine['processor']}, "
            f"{count_text(machine['cores'], 'core')}; {machine['system']} {machine['kernel']}; "
            f"{machine['python']}; frame code: {machine['frame_code']}"
        )
    )
    rounds = count_text(facts["plan"]["rounds"], "round")
    write_line(f"median (lowest to highest) of {rounds}, in {three_digits(facts['seconds'])} s")
    for trials in found:
        if trials.error is not None:
            write_line(printable(f"{trials.backend} could not be measured: {' '.join(trials.error.split())}"))
    if verdict.backend is not None:
        write_line(printable(f"suits this disk: {verdict.backend}"))
    for reason in verdict.reasons:
        write_line(printable(f"  {reason}"))


def _rate_cell(rates: Spread) -> str:
    return f"{rate_text(rates.median)} ({rate_text(rates.low)} to {rate_text(rates.high)})"
