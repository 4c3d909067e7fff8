"""``python tests/torture``: every randomised harness at the size of a release.

    python tests/torture                          run what is not done yet, two processes
    python tests/torture --list                   what there is, what is done
    python tests/torture --bar power-loss/simulated --seeds 17:18     one seed, here
    python tests/torture --write-docs             put the totals into docs/testing.md

Run as a folder, not as ``python -m``: the source tree must not stand in front of what is installed.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ("walrus_core", ":(glob)plugins/*/walrus_*/**")
"""What is tortured, as git's patterns: not the tests beside it, whose changes start nothing over."""


def version() -> str:
    """Return what is tested: the version, the last commit that changed it, the twin of the hot path."""
    import walrus_core
    from walrus_core import hot

    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%h", "--", *LIBRARY]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "no commit known"
    return f"{walrus_core.__version__} ({commit}), {'compiled' if hot.COMPILED else 'pure'}"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/torture", description=__doc__.split("\n")[0])
    parser.add_argument("--bar", action="append", help="only these, by name or by name/backend")
    parser.add_argument("--seeds", help="FIRST:END: these seeds of one bar, in this process")
    parser.add_argument("--list", action="store_true", help="list what there is, and what is done")
    parser.add_argument("--write-docs", action="store_true", help="put the totals into docs/testing.md")
    parser.add_argument("--state", type=Path, default=ROOT / ".torture" / "state.json")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="begin no shard after so long")
    parser.add_argument("--prefix", default="", help="a command that each shard is run by, such as 'nice'")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    # In the place of this folder, which Python put first: `tests` is found from the root, and the
    # library where it is installed, if it is.
    sys.path[0] = str(ROOT / "tests" / "torture" / "nothing")
    sys.path.append(str(ROOT))
    from tests.torture.bars import BARS
    from tests.torture.report import table, write_docs
    from tests.torture.runner import run_all, run_here
    from tests.torture.state import State

    options = parse(arguments)
    bars = [bar for bar in BARS if not options.bar or {bar.key, bar.name} & set(options.bar)]
    if not bars:
        sys.exit(f"no such bar; there are {', '.join(bar.key for bar in BARS)}")
    if options.seeds:
        first, _, end = options.seeds.partition(":")
        logging.disable(logging.CRITICAL)
        run_here(bars[0], range(int(first), int(end or int(first) + 1)))
        return 0
    state = State(options.state, version())
    if options.list or options.write_docs:
        text = table(state, BARS)
        print(text)
        if options.write_docs:
            write_docs(ROOT / "docs" / "testing.md", text)
        for bar in bars if options.list else []:
            print(f"{bar.key}: {state.facts(bar.key)[0]} of {len(bar.shards())} shards, {bar.title}")
        return 0
    runnable = []
    for bar in bars:
        reason = bar.reason_to_skip()
        if reason:
            print(f"SKIPPED {bar.key}: {reason}")
        else:
            runnable.append(bar)
    deadline_s = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    prefix = shlex.split(options.prefix)
    try:
        with state.kept_by_us():
            state.load()
            failures = run_all(state, runnable, workers=options.workers, prefix=prefix, deadline_s=deadline_s)
    except BlockingIOError:
        sys.exit(f"another run is using {options.state}")
    print(table(state, BARS))
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
