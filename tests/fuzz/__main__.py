"""Longer runs: ``python -m tests.fuzz TARGET SECONDS [SEED]``, from the root of the tree.

TARGET is one of the targets or ``all``, which shares the time among them. With ``--atheris`` (CPython 3.11
and ``pip install atheris``) the coverage of the Python code guides the inputs, and those that reach new
code are kept in the folder that ``--keep`` names; without, the seed alone decides, so that a run can be
repeated. Exit status 0: nothing found; 1: a finding, on standard output, with what repeats it.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile

from walrus_core import hot

from . import targets
from .guided import run_atheris


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=[*targets.TARGETS, "all"])
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int, nargs="?", default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--atheris", action="store_true", help="let coverage guide the inputs")
    parser.add_argument("--keep", help="folder for inputs that reach new code (with --atheris)")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    names = list(targets.TARGETS) if arguments.target == "all" else [arguments.target]
    print(f"seed {arguments.seed}, frames {hot.describe()}", flush=True)
    for name in names:
        seconds = arguments.seconds / len(names)
        if arguments.atheris:
            keep = arguments.keep or tempfile.mkdtemp(prefix=f"fuzz-{name}-")
            status = run_atheris(name, seconds, arguments.seed, keep)
            if status:
                return 1
            continue
        try:
            count = targets.hunt(name, arguments.seed, seconds)
        except targets.Finding as finding:
            print(f"FOUND {finding}", flush=True)
            return 1
        print(f"{name}: {count} inputs in {seconds:.0f} s, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
