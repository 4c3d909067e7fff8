"""``python tests/soak``: writers, readers, checkpoints, reclaim, kills and reopenings in a closed loop.

    python tests/soak --minutes 5 --backend fd --seed WORD

Without ``--backend``, each of them for so long. Exit status 0: no law was broken; 1: one was, and the last
lines say which, with the seed. Run as a folder: the source tree must not stand in front of what is installed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """Run what the command line says."""
    sys.path[0] = str(ROOT / "tests" / "soak" / "nothing")
    sys.path.append(str(ROOT))
    from tests.soak.log import CLASSES
    from tests.soak.loop import Soak

    parser = argparse.ArgumentParser(prog="python tests/soak", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="how long, for each backend")
    parser.add_argument("--backend", choices=CLASSES, action="append")
    parser.add_argument(
        "--seed", default=str(time.time_ns()), help="a word that makes the same choices again"
    )
    parser.add_argument("--folder", help="where the logs lie while it runs")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    for backend in options.backend or CLASSES:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="walrus-soak-") as folder:
            soak = Soak(backend, options.seed, Path(folder), lambda line: print(line, flush=True))
            started_s = time.monotonic()
            try:
                soak.run(60 * options.minutes)
            except AssertionError as error:
                print(f"VIOLATION: {error}", flush=True)
                return 1
            print(f"{soak.rate(time.monotonic() - started_s)}: all laws held", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
