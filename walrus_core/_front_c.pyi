"""Types of the compiled twin: those of the pure one and, for ``Group``, of the pure ``group.py``,
for ``Loops`` and ``Waiters`` those of ``waiters.py``."""

from typing import final

from walrus_core._front_py import (
    Express as Express,
    Front as Front,
    Ready as Ready,
)
from walrus_core.group import Group as Group
from walrus_core.waiters import Loops as Loops
from walrus_core.waiters import Waiters as Waiters

@final
class Queue:
    """A part of ``Waiters`` that Python code never asks for."""
