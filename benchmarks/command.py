"""The command line of the suite. Exit status: 0 whatever the figures are; 1 something failed; 2 usage."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import ROOT
from benchmarks.docs import write_docs
from benchmarks.figures import SCHEMA, all_figures
from benchmarks.model import Scale
from benchmarks.report import markdown
from benchmarks.suite import Suite, warm_memory
from benchmarks.works import WORKS

MIB = 2**20
ROUNDS_DEFAULT = 5
ROUNDS_QUICK = 3
FACTOR_QUICK = 0.1
WARM_BYTES = {"quick": 64 * MIB, "default": 1024 * MIB, "full": 3 * 1024 * MIB}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure walrus beside other libraries and the machine's own limits, in one run.",
        epilog="The default takes some five minutes and 2 GB of disk, --full some ten and 6 GB. "
        "Figures do not change the exit status.",
    )
    made.add_argument("works", nargs="*", metavar="WORK", help="names of works (default: all; see --list)")
    made.add_argument("--list", action="store_true", help="list works and contenders, and end")
    size = made.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a look in under a minute; rough figures")
    size.add_argument("--full", action="store_true", help="the large works too, in full size")
    made.add_argument("--rounds", type=_positive(int), help=f"how many (default: {ROUNDS_DEFAULT})")
    made.add_argument("--factor", type=_positive(float), help="do this share of the entries (default: 1)")
    made.add_argument(
        "--contender", action="append", default=[], metavar="NAME", help="only these; repeat it"
    )
    made.add_argument("--no-pure", action="store_true", help="leave out the pure-Python twin")
    made.add_argument(
        "--dir", type=Path, default=Path(tempfile.gettempdir()), help="where (default: %(default)s)"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    made.add_argument("--from-json", type=Path, metavar="FILE", help="measure nothing, take these figures")
    made.add_argument("--write-docs", action="store_true", help="write report and chart into docs/")
    made.add_argument("--docs", type=Path, default=ROOT / "docs", help=argparse.SUPPRESS)
    return made


def _positive(kind: type[int] | type[float]) -> Any:
    def number(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    return number


def main(arguments: Sequence[str]) -> int:
    """Run the command. Returns: its exit status."""
    made = parser()
    options = made.parse_args(arguments)
    unknown = [name for name in options.works if name not in WORKS]
    if unknown:
        made.error(f"no work is called {', '.join(unknown)}; there are {', '.join(WORKS)}")
    chosen = [WORKS[name] for name in dict.fromkeys(options.works)] or list(WORKS.values())
    if options.list:
        for work in chosen:
            print(f"{work.name}: {work.title}")
            print(f"    {'; '.join(one.name for one in work.contenders)}")
        return 0
    known = {one.name for work in chosen for one in work.contenders}
    strangers = [name for name in options.contender if name not in known]
    if strangers:
        made.error(f"no contender of these works is called {', '.join(strangers)}; see --list")
    if not options.dir.is_dir():
        made.error(f"{options.dir} is not a directory")
    figures = load(options.from_json) if options.from_json else measure(options, chosen)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(markdown(figures), end="")
    if options.write_docs:
        write_docs(figures, options.docs)
    failed = [out for out in figures["left_out"] if out["failed"]]
    for out in failed:
        print(f"failed: {out['work']}, {out['contender']}: {out['reason']}", file=sys.stderr)
    return 1 if failed else 0


def load(path: Path) -> dict[str, Any]:
    """Return the figures of an earlier run. Raises: OSError, ValueError: none of this suite."""
    figures = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(figures, dict) or figures.get("schema") != SCHEMA:
        raise ValueError(f"{path} does not hold figures of this suite")
    return figures


def measure(options: argparse.Namespace, chosen: Sequence[Any]) -> dict[str, Any]:
    """Run the works that the options ask for. Returns: the figures. Raises: OSError."""
    started, clock = datetime.now(timezone.utc), perf_counter()
    factor = options.factor or (FACTOR_QUICK if options.quick else 1.0)
    rounds = options.rounds or (ROUNDS_QUICK if options.quick else ROUNDS_DEFAULT)
    suite = Suite(
        works=chosen,
        scale=Scale(factor=factor, full=options.full),
        rounds=rounds,
        directory=options.dir,
        tell=tell,
        only=options.contender,
        with_pure=not options.no_pure,
    )
    size = "quick" if options.quick else "full" if options.full else "default"
    tell("warming up the memory")
    warmed_bytes = warm_memory(options.dir, round(WARM_BYTES[size] * min(options.factor or 1.0, 1.0)))
    results = suite.run()
    tell("")
    return all_figures(
        suite,
        results,
        started=started.isoformat(timespec="seconds"),
        seconds=perf_counter() - clock,
        warmed_bytes=warmed_bytes,
    )


def tell(message: str) -> None:
    """Show what is being done, on one line of standard error; nothing where that is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{message[:110]}", end="", file=sys.stderr, flush=True)
