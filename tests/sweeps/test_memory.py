"""MemoryError at every allocation of an operation: no crash, it happens wholly or not at all.

CPython's own test module can make every allocation from the n-th on fail. Between the interpreter's
allocations and those of the engine there is no difference, so the places are tried until the operation
gets through. WALRUS_SWEEP=all tries every place of every operation, else a seeded choice.
"""

from __future__ import annotations

import importlib.util
import os
import random
from typing import Any
