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
    from tests.mutants.seeding import BrokenRun, Survived, check_caught, check_sound, is_pure

    parser = argparse.ArgumentParser(prog="python tests/mutants", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/testing.md")
    options = parser.parse_args(arguments)
    if options.write_docs:
        write(ROOT / "docs" / "testing.md")
        return 0
    unknown = [name for name in options.names if name not in BY_NAME]
    if unknown:
        parser.error(f"no such bug: {', '.join(unknown)}")
    chosen = [BY_NAME[name] for name in options.names] or BUGS
    for pure in (False, True):
        # All at once: a process for each would cost more than most of the tests.
        check_sound((test for bug in chosen if is_pure(bug) == pure for test in bug.caught_by), pure)
    missed = 0
    for bug in chosen:
        started_s = time.monotonic()
        try:
            failure = check_caught(bug)
            word = "caught" if failure else "UNTRIED"
        except (Survived, BrokenRun) as error:
            missed += 1
            word, failure = type(error).__name__.upper(), str(error)
        print(f"{word:9} {time.monotonic() - started_s:5.1f} s  {bug.name}: {failure}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
