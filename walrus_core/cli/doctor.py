"""``walrus doctor``: what this machine does for a log in this directory, and what would go wrong."""

from __future__ import annotations

import mmap
import os
import platform
import stat
from typing import Any, Optional

import click
from attrs import define, field

from walrus_core.cli import host
from walrus_core.cli.backends import choose, load_problem
from walrus_core.cli.backends import describe as describe_backend
from walrus_core.cli.common import log_options, log_settings
from walrus_core.cli.machine import file_system
from walrus_core.cli.output import (
    add_row,
    json_text,
    make_table,
    printable,
    report_facts,
    show_table,
    size_text,
    write_line,
)
from walrus_core.config import Options
from walrus_core.format import SEGMENT_HEADER_SIZE
from walrus_core.hot import COMPILED, describe
from walrus_core.memory import MemoryBackend
from walrus_core.plugins import installed_plugins

STATUS_PROBLEMS = 1
SLOW_SYNC_MS = 20.0
SEGMENTS_FREE_MIN = 2
"""Less free space than that many segments is worth a word."""
_OTHER_FILES = 64
"""Descriptors that a process needs besides those of a log."""


@define
class Examination:
    """What was found out: facts by name, and sentences about what would go wrong."""

    facts: dict[str, Any] = field(factory=dict)
    problems: list[str] = field(factory=list)
    notes: list[str] = field(factory=list)


@click.command()
@log_options
@click.pass_context
def doctor(
    ctx: click.Context, data_dir: Optional[str], key: Optional[str], backend: Optional[str], as_json: bool
) -> None:
    """Examine the place of a log: file system, space, limits, backends, how long a sync takes.

    The directory need not exist; then its nearest parent is examined. Nothing is left behind. Ends with
    what would go wrong here. Exit status: 0 nothing; 1 something; 2 it could not be told.
    """
    settings = log_settings(data_dir, key, backend)
    options, problem = choose(settings)
    found = Examination()
    if problem is not None:
        found.problems.append(f"no log can be opened: {problem}")
    path = (options or log_settings(data_dir, key, "memory").options()).path
    examine_place(found, path, options)
    examine_limits(found, options)
    examine_code(found, options)
    if as_json:
        write_line(json_text({**found.facts, "notes": found.notes, "problems": found.problems}))
    else:
        _show(found)
    ctx.exit(STATUS_PROBLEMS if found.problems else 0)


def examine_place(found: Examination, path: str, options: Optional[Options]) -> None:
    """The directory, its file system and its space."""
    directory = host.nearest_directory(path)
    found.facts.update(path=path, examined=directory, exists=os.path.isdir(path))
    _examine_directory(found, path)
    kind = _examine_file_system(found, directory)
    try:
        with host.probe_file(directory) as descriptor:
            _examine_file(found, descriptor, kind)
    except OSError as error:
        reason = error.strerror or str(error)
        found.facts["probe_error"] = reason
        if host.is_read_only(error):
            text = f"nothing can be written to {directory} ({reason}): a log cannot be opened, only verified"
        else:
            text = f"writing to {directory} fails ({reason}): so would opening a log"
        found.problems.append(text)
    _examine_space(found, directory, options)


def _examine_directory(found: Examination, path: str) -> None:
    if os.path.lexists(path) and not os.path.isdir(path):
        found.problems.append(f"{path} is no directory")
        return
    if os.name == "posix" and os.path.isdir(path) and os.stat(path).st_mode & stat.S_IWOTH:
        found.problems.append(f"everybody may write to {path}: anybody can replace the files of the log")


def _examine_file_system(found: Examination, directory: str) -> str:
    mounted = file_system(directory)
    magic = host.file_system_magic(directory)
    by_magic = None if magic is None else host.FILE_SYSTEMS.get(magic, "unknown")
    found.facts["file_system"] = {
        "kind": mounted.kind,
        "by_statfs": by_magic,
        "magic": None if magic is None else f"{magic:#x}",
        "device": mounted.device,
        "options": mounted.options,
    }
    name = mounted.kind if mounted.kind != "unknown" else by_magic or "unknown"
    if magic in host.NETWORK_MAGICS:
        found.problems.append(
            f"{name} is a network file system: another machine decides what a lock and a sync mean, so two "
            "writers and lost entries are possible, whatever a sync returned"
        )
    elif magic == host.FUSE_MAGIC:
        found.problems.append(
            f"{name} is a FUSE file system: locks, sync and maps are as good as the program behind it"
        )
    elif magic == host.OVERLAY_MAGIC:
        found.problems.append(
            f"{name} is the layer of a container: it goes with the container, and entries in it; use a volume"
        )
    elif magic in host.MEMORY_MAGICS:
        found.problems.append(f"{name} is memory: everything is lost at power loss and reboot")
    elif magic in host.COPY_ON_WRITE_MAGICS:
        found.notes.append(
            f"{name} writes every change to a new place: on a full disk even reserved space may fail; with "
            "the backend mmap that kills the process, with fd it is an error"
        )
    if {"nobarrier", "barrier=0"} & set(mounted.options.split(",")):
        found.problems.append("mounted without barriers: a completed sync does not survive power loss")
    if host.has_fine_timestamps(platform.release(), mounted.kind):
        found.notes.append(
            "this kernel keeps fine timestamps: a program that looks at a segment's status (ls, monitoring) "
            "between a write and its sync makes that sync write the inode as well"
        )
    return mounted.kind


def _examine_file(found: Examination, descriptor: int, kind: str) -> None:
    space = host.probe_space(descriptor)
    found.facts["reserve"] = space.reserve_problem or "yes"
    found.facts["hole_punching"] = space.punch_problem or "yes"
    if space.reserve_problem is not None:
        found.notes.append(
            f"no fallocate ({space.reserve_problem}): space is reserved by writing zeros, which is slower"
        )
    if space.punch_problem is not None:
        found.problems.append(
            f"no hole punching ({space.punch_problem}): the space of consumed blocks comes back only when a "
            "whole segment is consumed, or by reuse"
        )
    lock_problem = host.probe_lock(descriptor)
    found.facts["lock"] = lock_problem or "yes"
    if lock_problem is not None:
        found.problems.append(f"no file locks ({lock_problem}): a log cannot be opened")
    sync = host.probe_sync(descriptor)
    found.facts["sync"] = report_facts(sync)
    if sync.p50_ms > SLOW_SYNC_MS:
        found.problems.append(
            f"a sync takes {sync.p50_ms:.1f} ms: with sync-each, one writer gets about "
            f"{1000 / sync.p50_ms:.0f} appends a second"
        )


def _examine_space(found: Examination, directory: str, options: Optional[Options]) -> None:
    space = host.space_facts(directory)
    found.facts["space"] = space
    free, inodes = space["free_bytes"], space["free_inodes"]
    if options is None or free is None:
        return
    segment_bytes = SEGMENT_HEADER_SIZE + options.block_size_bytes * options.blocks_per_segment
    full = "an append then raises DiskFullError and changes nothing, reads go on, and with space appends do"
    if free < options.block_size_bytes:
        found.problems.append(
            f"{size_text(free)} are free, less than a block: the disk is as good as full; {full}"
        )
    elif free < SEGMENTS_FREE_MIN * segment_bytes:
        found.problems.append(f"{size_text(free)} are free, room for less than two segments; {full}")
    if inodes is not None and inodes < _OTHER_FILES:
        found.problems.append(f"{inodes} files can still be made: a log needs one for each segment")


def examine_limits(found: Examination, options: Optional[Options]) -> None:
    """What the system lets this process have."""
    limits = host.limits()
    found.facts["limits"] = limits
    found.facts["page_bytes"] = mmap.PAGESIZE
    if options is None:
        return
    wanted = options.open_files_max + _OTHER_FILES
    if limits["open_files"] is not None and limits["open_files"] < wanted:
        found.problems.append(
            f"the limit of open files is {limits['open_files']:,}, and a log keeps up to "
            f"{options.open_files_max} open: TooManyFilesError (raise ulimit -n, or lower open_files_max)"
        )
    segment_bytes = SEGMENT_HEADER_SIZE + options.block_size_bytes * options.blocks_per_segment
    if limits["file_bytes"] is not None and limits["file_bytes"] < segment_bytes:
        found.problems.append(
            f"the limit of a file's size is {size_text(limits['file_bytes'])}, a segment has "
            f"{size_text(segment_bytes)}: no segment can be made (DiskFullError)"
        )


def examine_code(found: Examination, options: Optional[Options]) -> None:
    """The installed backends and the frame code."""
    found.facts["frame_code"] = describe()
    if not COMPILED:
        found.problems.append("the frame code is pure Python: it works, many times slower than compiled")
    blocked = () if options is None else options.blocked_plugins
    installed = installed_plugins(blocked)
    if options is not None and options.backend not in {*installed, MemoryBackend.name}:
        found.problems.append(f"no log can be opened: {load_problem(str(options.backend), options)}")
    told = []
    for name, plugins in sorted(installed.items()):
        for plugin in plugins:
            facts = describe_backend(name, plugin.distribution, plugin.version, options)
            told.append(report_facts(facts))
            if facts.error is not None:
                found.problems.append(f"the backend {name} is broken: {facts.error}")
            ring = str(facts.probe.get("io_uring", ""))
            if ring and not ring.startswith("live"):
                found.notes.append(f"the backend {name} works without io_uring: {ring}")
    found.facts["backends"] = told


def _show(found: Examination) -> None:
    facts = found.facts
    place = facts["file_system"]
    rows = [
        ("directory", facts["path"] if facts["exists"] else f"{facts['path']} (not there yet)"),
        (
            "file system",
            f"{place['kind']} on {place['device']} (statfs: {place['by_statfs']}, {place['magic']})",
        ),
        ("mounted", place["options"]),
    ]
    free = facts["space"]["free_bytes"]
    total = facts["space"]["total_bytes"]
    if free is not None and total is not None:
        rows.append(("free space", f"{size_text(free)} of {size_text(total)}"))
    if "sync" in facts:
        sync = facts["sync"]
        rows.append(
            ("a sync takes", f"p50 {sync['p50_ms']:.2f} ms, p99 {sync['p99_ms']:.2f} ms ({sync['count']})")
        )
        rows.append(("reserves space", facts["reserve"]))
        rows.append(("punches holes", facts["hole_punching"]))
        rows.append(("locks files", facts["lock"]))
    limits = facts["limits"]
    rows.append(("open files", f"at most {host.as_text(limits['open_files'])}"))
    rows.append(("size of a file", f"at most {host.as_text(limits['file_bytes'])}"))
    rows.append(("page size", f"{facts['page_bytes']}"))
    rows.append(("frame code", facts["frame_code"]))
    for backend in facts["backends"]:
        says = backend["error"] or "; ".join(f"{name}: {value}" for name, value in backend["probe"].items())
        rows.append((f"backend {backend['name']}", says))
    table = make_table((("what", False), ("how it is here", False)))
    for row in rows:
        add_row(table, row)
    show_table(table)
    write_line("")
    for note in found.notes:
        write_line(printable(f"note: {note}"))
    write_line(
        "what would go wrong here:" if found.problems else "what would go wrong here: nothing that shows"
    )
    for problem in found.problems:
        write_line(printable(f"- {problem}"))
