"""The benchmark suite: ``python -m benchmarks`` from the root of the repository; see docs/benchmarks.md.

``works/`` says what is measured and against which bar; ``ours``, ``databases`` and ``limits`` do
the work, each with another library; ``suite`` runs rounds; ``report``, ``chart`` and ``docs`` show
them. The suite may import walrus_core; nothing imports the suite.

What is measured is the *installed* walrus_core: ``python -m`` puts the repository first on the
path, where the sources lie without their compiled module, so it is taken off again.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def prefer_installed() -> bool:
    """Take the repository off the path where walrus_core is found without it. Returns: whether it was.

    Only the place that ``python -m`` added: a PYTHONPATH that names the repository is a choice.
    """
    if not sys.path or Path(sys.path[0] or ".").resolve() != ROOT or "walrus_core" in sys.modules:
        return False
    first = sys.path.pop(0)
    if importlib.util.find_spec("walrus_core") is None:
        sys.path.insert(0, first)
        return False
    return True


prefer_installed()
