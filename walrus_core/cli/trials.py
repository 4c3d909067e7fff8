"""Trials of backends on one disk, and what follows from them: which backend suits it, and why.

One trial is one backend in one round: appends, batches, reads, and appends that are durable one
by one, each for a share of the time. Backends take turns, so that what else the machine does
hits all of them. Figures are of this machine at this moment; nothing here judges right or wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Optional

from attrs import define, field, frozen

from walrus_core.cli.host import write_at
from walrus_core.cli.machine import COPY_ON_WRITE, IN_MEMORY, NETWORK, FileSystem
from walrus_core.cli.measure import (
    BATCH_COUNT,
    Latencies,
    Spread,
    append_batches,
    append_each,
    duration_text,
    make_payload,
    rate_text,
    read_batches,
    read_each,
    time_each,
)
from walrus_core.config import FsyncSchedule, ReadConsistency
from walrus_core.plugins import load_backend
from walrus_core.walrus import Walrus

PERSIST_EVERY = 1000
PIECE_BYTES_MAX = 256 * 1024 * 1024
"""No piece of a trial writes more payload than this, however fast the disk."""
ROUND_COUNT = 3
SYNCS_MAX = 1_000_000
BLOCKS_IN_MEMORY = 4
TAIL_COUNT_MIN = 1000
"""Of fewer syncs the slowest hundredth is chance."""
CLEARLY = 1.1
"""Figures that differ by less than this factor count as the same."""
RATES: Mapping[str, str] = {
    "append": "append, an entry a call",
    "batch": f"append, {BATCH_COUNT:,} entries a call",
    "read_next": "read, an entry a call",
    "batch_read": "read, many entries a call",
}
PIECES = (*RATES, "sync")

Step = Callable[[str], None]
"""Called with the name of a piece when it is done."""


@frozen(kw_only=True)
class Plan:
    """How long and how much: ``piece_seconds`` for each piece of each trial."""

    piece_seconds: float
    entry_bytes: int
    piece_bytes_max: int
    checksum: str
    rounds: int

    @property
    def entry_count_max(self) -> int:
        """How many entries a piece writes at most: whole batches, at least one."""
        fitting = self.piece_bytes_max // max(self.entry_bytes, 1)
        return max(fitting // BATCH_COUNT, 1) * BATCH_COUNT


@define(kw_only=True)
class Trials:
    """What the rounds of one backend measured: entries per second by piece, seconds of each sync."""

    backend: str
    options: Mapping[str, Any] = field(factory=dict)
    uses_maps: bool = False
    keeps_files: bool = True
    error: Optional[str] = None
    rates: dict[str, list[float]] = field(factory=dict)
    syncs: list[float] = field(factory=list)

    def spread(self, piece: str) -> Spread:
        """Return the rates of a piece over the rounds."""
        return Spread.of(self.rates[piece])

    def latencies(self) -> Latencies:
        """Return how long single durable appends took, over all rounds."""
        return Latencies.of(self.syncs)


@frozen(kw_only=True)
class Verdict:
    """Which backend suits: its name and the reasons, each a sentence. None: no backend ran."""

    backend: Optional[str]
    reasons: Sequence[str]


def look_at_backend(trials: Trials) -> None:
    """Note how a backend keeps its bytes. Raises: PluginError, ConfigError."""
    loaded = load_backend(trials.backend, options=trials.options)
    try:
        trials.keeps_files = loaded.capabilities.files
        trials.uses_maps = loaded.capabilities.memory and loaded.capabilities.files
    finally:
        loaded.close()


def run_trial(trials: Trials, plan: Plan, directory: str, step: Step) -> None:
    """Run one round of a backend in an existing directory, which is left with two logs in it.

    Raises: WalrusError: the backend could not do it. Durability: none is needed afterwards.
    """
    payload = make_payload(plan.entry_bytes)
    given: dict[str, Any] = {
        "backend": trials.backend,
        "backend_options": dict(trials.options),
        "checksum": plan.checksum,
    }
    if not trials.keeps_files:
        # A file that is no sparse one costs all of its bytes when it is created.
        given["blocks_per_segment"] = BLOCKS_IN_MEMORY
    with Walrus(
        os.path.join(directory, "rates"),
        **given,
        consistency=ReadConsistency.at_least_once(PERSIST_EVERY),
    ) as wal:
        _measure_rates(wal, trials, plan, payload, step)
    with Walrus(
        os.path.join(directory, "syncs"),
        **given,
        fsync_schedule=FsyncSchedule.sync_each(),
    ) as wal:
        count = min(SYNCS_MAX, plan.entry_count_max)
        append = wal.append_for_topic
        trials.syncs += time_each(lambda: append("sync", payload), count, plan.piece_seconds)
        step("sync")


def _measure_rates(wal: Walrus, trials: Trials, plan: Plan, payload: bytes, step: Step) -> None:
    batch = [payload] * BATCH_COUNT
    appended = _repeat(trials, "append", plan, lambda: append_each(wal, "each", payload, BATCH_COUNT))
    step("append")
    wal.sync()
    batched = _repeat(trials, "batch", plan, lambda: append_batches(wal, "batch", batch, 1))
    step("batch")
    wal.sync()
    _repeat(trials, "read_next", plan, lambda: read_each(wal, "each", BATCH_COUNT), appended)
    step("read_next")
    _repeat(trials, "batch_read", plan, lambda: read_batches(wal, "batch", BATCH_COUNT), batched)
    step("batch_read")


def _repeat(
    trials: Trials, piece: str, plan: Plan, run: Callable[[], float], count_max: Optional[int] = None
) -> int:
    """Repeat a piece of BATCH_COUNT entries until time or entries are used up. Returns: how many it did."""
    count_max = plan.entry_count_max if count_max is None else count_max
    seconds = 0.0
    count = 0
    stop = perf_counter() + plan.piece_seconds
    while count == 0 or (count < count_max and perf_counter() < stop):
        seconds += run()
        count += BATCH_COUNT
    trials.rates.setdefault(piece, []).append(count / seconds)
    return count


def disk_syncs(directory: str, entry_bytes: int, seconds_max: float, count_max: int) -> list[float]:
    """Return seconds of each small write made durable by the system alone: what the disk can do.

    The file is there in full before, so that no sync pays for its growth. Raises: OSError.
    """
    sync = os.fdatasync if hasattr(os, "fdatasync") else os.fsync
    path = os.path.join(directory, "bare")
    payload = make_payload(entry_bytes)
    size_bytes = 4 * 1024 * 1024
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, bytes(size_bytes))
        os.fsync(descriptor)
        at = 0

        def write_one() -> None:
            nonlocal at
            write_at(descriptor, payload, at)
            sync(descriptor)
            at = (at + len(payload)) % (size_bytes - len(payload))

        return time_each(write_one, count_max, seconds_max)
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.remove(path)


# --- which one suits ------------------------------------------------------------------------------


def choose(found: Sequence[Trials], where: FileSystem) -> Verdict:
    """Say which backend suits this disk. ``found`` is in the order in which equals are preferred."""
    notes = _file_system_notes(where)
    working = [trials for trials in found if trials.error is None]
    if not working:
        return Verdict(backend=None, reasons=["no backend worked here", *notes])
    safe = [trials for trials in working if not (trials.uses_maps and where.kind in COPY_ON_WRITE)]
    passed = [trials.backend for trials in working if trials not in safe]
    if safe and passed:
        notes.append(
            f"not {', '.join(passed)}: on {where.kind} space that is reserved for a map does not hold, "
            "and a full disk would end the process"
        )
    able = safe or working
    if len(able) == 1:
        return Verdict(backend=able[0].backend, reasons=[*notes, "no other backend was measured here"])
    ahead = max(able, key=_score)
    first = able[0]
    if _score(ahead) < CLEARLY * _score(first):
        ahead = first
        notes.append("no other is clearly faster taken over all")
    notes += [_compare(ahead, other) for other in able if other is not ahead]
    if ahead.uses_maps:
        notes.append("it writes through maps: a failing device then ends the process instead of raising")
    return Verdict(backend=ahead.backend, reasons=notes)


def _file_system_notes(where: FileSystem) -> list[str]:
    if where.kind in NETWORK or where.kind.startswith("fuse"):
        return [f"{where.kind} may not keep what a sync promises; a log belongs on a local disk"]
    if where.kind in IN_MEMORY:
        return [f"{where.kind} is memory: syncs cost nothing here, and nothing survives power loss"]
    return []


def _figures(trials: Trials) -> dict[str, tuple[float, str]]:
    """Return, by the name it has for people, each figure (higher is better) and its text."""
    found: dict[str, tuple[float, str]] = {}
    for piece in RATES:
        rate = trials.spread(piece).median
        found[piece.replace("_", " ")] = rate, rate_text(rate)
    latencies = trials.latencies()
    found["sync p50"] = 1 / latencies.p50_us, duration_text(latencies.p50_us)
    if latencies.count >= TAIL_COUNT_MIN:
        found["sync p99"] = 1 / latencies.p99_us, duration_text(latencies.p99_us)
    return found


def _score(trials: Trials) -> float:
    """Return the geometric mean of all figures, so that each counts by its ratio alone."""
    product = 1.0
    figures = _figures(trials)
    for figure, _ in figures.values():
        product *= figure ** (1 / len(figures))
    return product


def _compare(ahead: Trials, other: Trials) -> str:
    mine, theirs = _figures(ahead), _figures(other)
    better, worse = [], []
    for name, (figure, text) in mine.items():
        if name not in theirs:
            continue
        against, against_text = theirs[name]
        told = f"{name} {text} against {against_text}"
        if figure >= CLEARLY * against:
            better.append(told)
        elif against >= CLEARLY * figure:
            worse.append(told)
    parts = [f"ahead in {'; '.join(better)}"] if better else []
    parts += [f"behind in {'; '.join(worse)}"] if worse else []
    return f"beside {other.backend}: {', and '.join(parts) or 'the same in everything'}"
