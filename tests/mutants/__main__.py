"""``python tests/mutants``: try seeded bugs one after the other.

    python tests/mutants                    all of them
    python tests/mutants "seal without a sync" ...     these
    python tests/mutants --write-docs       put the table into docs/testing.md

Run as a folder, not as ``python -m``: the source tree must not stand in front of what is installed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    # In the place of this folder, which Python put first: `tests` is found from the root, and the
    # library where it is installed, if it is.
    sys.path[0] = str(ROOT / "tests" / "mutants" / "nothing")
    sys.path.append(str(ROOT))
    from tests.mutants.bugs import BUGS, BY_NAME
    from tests.mutants.docs import write
    from tests.mutants.seeding import BrokenRun, check_sound, run_tests
    from walrus_core import hot

    parser = argparse.ArgumentParser(prog="python tests/mutants", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--skip-sound", action="store_true", help="do not run the unchanged copy first")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/testing.md")
    options = parser.parse_args(arguments)
    if options.write_docs:
        write(ROOT / "docs" / "testing.md")
        return 0
    unknown = [name for name in options.names if name not in BY_NAME]
    if unknown:
        parser.error(f"no such bug: {', '.join(unknown)}")
    missed = 0
    for bug in [BY_NAME[name] for name in options.names] or BUGS:
        pure = bug.pure or not hot.COMPILED
        started_s = time.monotonic()
        try:
            if not options.skip_sound:
                check_sound(bug.caught_by, pure)
            found = run_tests(bug.caught_by, bug, pure)
        except BrokenRun as error:
            missed += 1
            print(f"BROKEN    {bug.name}: {error}", flush=True)
            continue
        missed += not found.failed
        word = "caught   " if found.failed else "SURVIVED "
        print(f"{word} {time.monotonic() - started_s:5.1f} s  {bug.name}: {found.first_failure}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
