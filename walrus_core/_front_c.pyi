"""Types of the compiled twin: those of the pure one and, for ``Group``, of the pure ``group.py``."""

from walrus_core._front_py import (
    Express as Express,
    Front as Front,
    Ready as Ready,
)
from walrus_core.group import Group as Group
