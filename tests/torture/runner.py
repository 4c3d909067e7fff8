"""Runs shards in processes of their own, two at a time, and goes on where the last run stopped."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import zip_longest
from pathlib import Path
from typing import Optional

from attrs import frozen

from .bar import Bar, Unable
from .state import State, name_of

PROGRAM = Path(__file__).parent
RESULT = "torture-result "
UNABLE = "torture-unable "
MESSAGE_LINES = 30
SHARD_S_MAX = 3600.0
INTERRUPTED = (130, -signal.SIGINT)
"""How a shard ends that got the same interrupt as the runner: neither done nor failed."""


@frozen
class Result:
    """What became of a shard: counts, or the message of a failure."""

    bar: Bar
    seeds: range
    counts: Optional[dict[str, int]]
    message: str
    seconds: float
    unable: str = ""
    """Why this machine cannot run it, as it turned out."""


def replay_command(bar: Bar, seed: int) -> str:
    """Return the command that runs one seed alone."""
    program = os.path.relpath(PROGRAM)
    return f"{shlex.join([sys.executable, program])} --bar {bar.key} --seeds {seed}:{seed + 1}"


def cpu_seconds() -> float:
    """Return what this process and the children that it has waited for have used so far."""
    return sum(os.times()[:4])


def run_here(bar: Bar, seeds: range) -> None:
    """Run seeds in this process and print what they counted. Raises: what the harness raises, after the
    seed and the command that repeats it."""
    total: Counter[str] = Counter()
    started_s = cpu_seconds()
    for seed in seeds:
        try:
            total.update(bar.run(seed))
        except Unable as reason:
            print(UNABLE + json.dumps(str(reason)), flush=True)
            return
        except BaseException:
            print(f"{bar.key}: seed {seed}; again: {replay_command(bar, seed)}", file=sys.stderr, flush=True)
            raise
    result = {"counts": total, "seconds": cpu_seconds() - started_s}
    print(RESULT + json.dumps(result), flush=True)


def run_shard(bar: Bar, seeds: range, prefix: Sequence[str]) -> Result:
    """Run seeds in a process of their own; a crash, a hang and an exception are failures alike."""
    command = [*prefix, sys.executable, str(PROGRAM), "--bar", bar.key, "--here", "--seeds", name_of(seeds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SHARD_S_MAX)
    except subprocess.TimeoutExpired:
        return Result(bar, seeds, None, f"{bar.key} {name_of(seeds)}: hangs", SHARD_S_MAX)
    if done.returncode in INTERRUPTED:
        return Result(bar, seeds, None, "", 0.0)
    unable = [line for line in done.stdout.splitlines() if line.startswith(UNABLE)]
    if unable and not done.returncode:
        return Result(bar, seeds, None, "", 0.0, json.loads(unable[-1][len(UNABLE) :]))
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        # The seed stands first, what was wrong last.
        lines = done.stderr.splitlines()
        last = "\n".join(lines if len(lines) <= MESSAGE_LINES else [lines[0], *lines[1 - MESSAGE_LINES :]])
        message = f"{bar.key} {name_of(seeds)}: status {done.returncode}\n{last}"
        return Result(bar, seeds, None, message, 0.0)
    found = json.loads(lines[-1][len(RESULT) :])
    return Result(bar, seeds, found["counts"], "", found["seconds"])


def pending(state: State, bars: Sequence[Bar]) -> Iterator[tuple[Bar, range]]:
    """Go through the shards that are still to be run, of each bar in turn."""
    left = {
        bar.key: [(bar, seeds) for seeds in bar.shards() if not state.is_done(bar, seeds)] for bar in bars
    }
    for turn in zip_longest(*left.values()):
        yield from (shard for shard in turn if shard is not None)


def run_all(
    state: State, bars: Sequence[Bar], *, workers: int, prefix: Sequence[str], deadline_s: Optional[float]
) -> int:
    """Run what is left. Returns: how many shards failed.

    An interrupt, and the deadline (of ``time.monotonic``), leave the shards that are under way to the
    next run; those that ended are in the state.
    """
    todo = pending(state, bars)
    failures = 0
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[Result]] = set()
        try:
            while True:
                while len(running) < workers and (deadline_s is None or time.monotonic() < deadline_s):
                    following = next(todo, None)
                    if following is None:
                        break
                    running.add(pool.submit(run_shard, *following, prefix))
                if not running:
                    return failures
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                failures += sum(_note(state, future.result()) for future in ended)
        except KeyboardInterrupt:
            print("stopped; the next run goes on from here", file=sys.stderr)
            raise


def _note(state: State, result: Result) -> bool:
    """Keep a result. Returns: whether it is a failure."""
    name = f"{result.bar.key} {name_of(result.seeds)}"
    if result.unable:
        print(f"SKIPPED {name}: {result.unable}", flush=True)
        return False
    if result.counts is None and not result.message:
        return False
    if result.counts is None:
        state.failed(result.bar, result.seeds, result.message)
        print(f"FAILED {result.message}", flush=True)
        return True
    state.done(result.bar, result.seeds, result.counts, result.seconds)
    print(f"{name}: {result.seconds:.0f} s, {result.counts}", flush=True)
    return False
