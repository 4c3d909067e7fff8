"""``walrus verify`` and ``walrus repair``: what of a log's directory is sound, and making it open again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Optional

import click

from walrus_core.backend import Backend
from walrus_core.cli.common import holds_log, log_options, log_settings
from walrus_core.cli.output import (
    Advance,
    add_row,
    count_text,
    json_text,
    make_table,
    printable,
    progress_bar,
    report_facts,
    show_table,
    size_text,
    tell,
    write_line,
)
from walrus_core.config import Options
from walrus_core.errors import UsageError, WalrusError
from walrus_core.findings import DAMAGE, NOTE, TORN, UNREADABLE, Finding, VerifyReport
from walrus_core.livecheck import verify_live
from walrus_core.lock import DirectoryLock
from walrus_core.look import Progress, open_look
from walrus_core.plugins import backend_of
from walrus_core.repair import REMOVE, WRITE, RepairPlan, carry_out, plan_repair
from walrus_core.verify import verify_directory

STATUS_DAMAGED = 1
STATUS_UNKNOWN = 2
SOUND, DAMAGED, UNKNOWN = "sound", "damaged", "not verified"

_TITLES = {
    DAMAGE: "damaged",
    UNREADABLE: "could not be read",
    TORN: "left by a crash, cleared away by the next open (no damage)",
    NOTE: "worth knowing",
}
_COLUMNS = (
    ("what", False),
    ("topic", False),
    ("offsets", False),
    ("file", False),
    ("byte", True),
    ("mended by", False),
)


@click.command()
@log_options
@click.option("--live", is_flag=True, help="Read beside a running writer, without its lock.")
@click.pass_context
def verify(
    ctx: click.Context,
    data_dir: Optional[str],
    key: Optional[str],
    backend: Optional[str],
    as_json: bool,
    live: bool,
) -> None:
    """Read all of a log's directory and say what of it is sound. Nothing is written, nothing recovered.

    A torn tail after a crash is no damage. Exit status: 0 sound; 1 damage was found; 2 it could not be
    verified (usage, locked by a writer, unreadable).

    With --live it reads beside a running writer; what the writer is at work on is left out.
    """
    try:
        options = log_settings(data_dir, key, backend).options()
        with _opened(options) as store, _progress(as_json) as progress:
            if live:
                report = verify_live(store, options.path, progress=progress)
            else:
                report = _verify_locked(store, options.path, progress)
    except WalrusError as error:
        _refuse(ctx, error, as_json)
        return
    verdict = verdict_of(report)
    if as_json:
        write_line(json_text(verify_facts(report, verdict)))
    else:
        _show_report(report, verdict)
    ctx.exit({SOUND: 0, DAMAGED: STATUS_DAMAGED}.get(verdict, STATUS_UNKNOWN))


def verdict_of(report: VerifyReport) -> str:
    """Return "sound", "damaged", or "not verified" where parts could not be read."""
    if report.of(DAMAGE):
        return DAMAGED
    return SOUND if report.is_sound else UNKNOWN


def _refuse(ctx: click.Context, error: WalrusError, as_json: bool) -> None:
    tell(str(error))
    if as_json:
        write_line(json_text({"verdict": UNKNOWN, "error": str(error), "error_type": type(error).__name__}))
    ctx.exit(STATUS_UNKNOWN)


@contextmanager
def _opened(options: Options) -> Iterator[Backend]:
    """Yield the backend of a log that must be there. Raises: UsageError, PluginError."""
    store: Backend = backend_of(options)
    try:
        if store.capabilities.files and not holds_log(options.path):
            raise UsageError(f"there is no log in {options.path}")
        yield store
    finally:
        store.close()


@contextmanager
def _locked(store: Backend, directory: str, *, read_only: bool) -> Iterator[None]:
    """Keep writers out. Raises: LockedError: there is one; or, read-only, one came meanwhile."""
    identity = None if store.capabilities.files else ("memory", id(store))
    lock = DirectoryLock(directory, identity, read_only=read_only)
    try:
        yield
        lock.check_overtaken()
    finally:
        lock.release()


def _verify_locked(store: Backend, directory: str, progress: Progress) -> VerifyReport:
    with _locked(store, directory, read_only=True):
        return verify_directory(store, directory, progress=progress)


@contextmanager
def _progress(is_quiet: bool) -> Iterator[Progress]:
    """Show a bar once it is known how much there is to read."""
    with ExitStack() as stack:
        bars: list[Advance] = []

        def advance(topic: str, bytes_done: int, bytes_total: int, entry_count: int) -> None:
            if not bars:
                bars.append(stack.enter_context(progress_bar(bytes_total, wanted=not is_quiet)))
            bars[0](topic, bytes_done, entry_count)

        yield advance


# --- what people and programs see ---------------------------------------------------------


def verify_facts(report: VerifyReport, verdict: str) -> dict[str, Any]:
    """Return all that ``verify --json`` tells."""
    return {
        "verdict": verdict,
        "path": report.path,
        "live": report.live,
        "closed_cleanly": report.closed_cleanly,
        "segments": report.segment_count,
        "blocks": report.block_count,
        "checked_bytes": report.checked_bytes,
        "duration_s": report.duration_s,
        "topics": [report_facts(topic) for topic in report.topics],
        **{category: _finding_facts(report.of(category)) for category in _TITLES},
    }


def _finding_facts(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings without the bytes that would mend them."""
    return [
        {name: value for name, value in report_facts(finding).items() if name not in ("mended", "category")}
        for finding in findings
    ]


def _show_report(report: VerifyReport, verdict: str) -> None:
    for category in _TITLES:
        _show_findings(_TITLES[category], report.of(category))
    entries = sum(topic.entry_count for topic in report.topics)
    stored = f"{size_text(report.checked_bytes)} in {count_text(report.block_count, 'block')}"
    write_line(
        f"{count_text(len(report.topics), 'topic')}, {count_text(entries, 'sound entry')}, {stored} of "
        f"{count_text(report.segment_count, 'segment')} read in {report.duration_s:.2f} s"
    )
    if report.live:
        how = "its writer may be at work, so what is above the marks was left out"
    elif report.closed_cleanly:
        how = "it was closed cleanly"
    else:
        how = "it was not closed cleanly, the next open recovers it"
    write_line(printable(f"{report.path}: {verdict}; {how}"))


def _show_findings(title: str, findings: Sequence[Finding]) -> None:
    """Write a table of findings under a title; nothing where there are none."""
    if not findings:
        return
    table = make_table(_COLUMNS)
    for finding in findings:
        owner = finding.topic or ""
        if finding.cursor:
            owner = f"{owner}/{finding.cursor}"
        cells = (
            printable(finding.kind),
            printable(owner),
            _offsets_text(finding),
            printable(os.path.basename(finding.path)),
            f"{finding.at_bytes}",
            finding.remedy or "",
        )
        add_row(table, cells)
    write_line(f"{title}:")
    show_table(table)
    write_line("")


def _offsets_text(finding: Finding) -> str:
    if finding.first_offset is None:
        return ""
    if finding.end_offset is None:
        return f"from {finding.first_offset}"
    return f"[{finding.first_offset}, {finding.end_offset})"


# --- repair -------------------------------------------------------------------------------


@click.command()
@log_options
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--reset-cursors", is_flag=True, help="Set cursors whose position is lost to the oldest entry.")
@click.option(
    "--rebuild-cursors",
    is_flag=True,
    help="Make anew what of cursors.db is lost, from the blocks; lost cursors start at the oldest entry.",
)
@click.pass_context
def repair(
    ctx: click.Context,
    data_dir: Optional[str],
    key: Optional[str],
    backend: Optional[str],
    as_json: bool,
    dry_run: bool,
    reset_cursors: bool,
    rebuild_cursors: bool,
) -> None:
    """Make a damaged directory one that opens. What is replaced or removed is copied aside before.

    The copies, with a manifest, are in the folder repair-<time> inside the log's directory. Damaged
    entries stay lost, and are reported when read. Exit status: 0 nothing damaged is left; 1 damage is
    left; 2 it could not be done.
    """
    try:
        options = log_settings(data_dir, key, backend).options()
        with (
            _opened(options) as store,
            _locked(store, options.path, read_only=dry_run),
            _progress(as_json) as progress,
        ):
            plan = plan_repair(
                store,
                options.path,
                resets_cursors=reset_cursors,
                rebuilds_cursors=rebuild_cursors,
                progress=progress,
            )
            folder = None if dry_run else carry_out(store, plan)
            left = list(plan.left)
            if plan.steps:
                left = _left_after(
                    plan, _verify_planned(store, plan) if dry_run else _look_again(store, plan)
                )
    except WalrusError as error:
        _refuse(ctx, error, as_json)
        return
    if as_json:
        write_line(json_text(repair_facts(plan, left, folder, dry_run)))
    else:
        _show_repair(plan, left, folder, dry_run)
    ctx.exit(STATUS_DAMAGED if left else 0)


def _look_again(store: Backend, plan: RepairPlan) -> VerifyReport:
    """Verify all but the frames, which no repair changes."""
    return verify_directory(store, plan.path, reads_frames=False)


def _verify_planned(store: Backend, plan: RepairPlan) -> VerifyReport:
    """Verify what the plan would make of the directory, in memory. Raises: as ``verify_directory``."""
    with open_look(store, plan.path, from_medium=False) as look:
        names = look.names()
        for step in plan.steps:
            if step.action == WRITE:
                file = look.files.add(step.path)
                # A copy may lie behind the end of a file that was cut short.
                file.reserve(step.at_bytes, len(step.data))
                file.write(step.at_bytes, step.data)
                continue
            if os.path.basename(step.path) in names:
                look.backend.remove(step.path)
            if step.action != REMOVE:
                handle = look.backend.create(step.path, size_bytes=len(step.data))
                look.files.add(step.path, handle).write(0, step.data)
        look.files.close()
        return _look_again(look.backend, plan)


def _left_after(plan: RepairPlan, after: VerifyReport) -> list[Finding]:
    """Return the damage that is still there: what was left, and what a new look finds."""
    found = {finding.place: finding for finding in (*plan.left, *after.of(DAMAGE))}
    return list(found.values())


def repair_facts(
    plan: RepairPlan, left: Sequence[Finding], folder: Optional[str], dry_run: bool
) -> dict[str, Any]:
    """Return all that ``repair --json`` tells."""
    return {
        "path": plan.path,
        "dry_run": dry_run,
        "folder": folder,
        "steps": [
            {
                "action": step.action,
                "path": step.path,
                "at_bytes": step.at_bytes,
                "length_bytes": len(step.data),
                "why": list(step.why),
            }
            for step in plan.steps
        ],
        "left": _finding_facts(left),
    }


def _show_repair(plan: RepairPlan, left: Sequence[Finding], folder: Optional[str], dry_run: bool) -> None:
    done = "would" if dry_run else "did"
    for step in plan.steps:
        what = f"{step.action} {os.path.basename(step.path)}"
        if step.data:
            what += f", {len(step.data)} bytes at {step.at_bytes}"
        write_line(printable(f"{done}: {what} ({'; '.join(step.why)})"))
    if not plan.steps:
        write_line("nothing to repair")
    if folder is not None:
        write_line(printable(f"what was there before is in {folder}"))
    _show_findings("damage that is left", left)
