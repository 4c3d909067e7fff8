"""Types of the compiled twin: those of the pure one, which has the same names."""

from walrus_core._front_py import (
    Express as Express,
    Front as Front,
    Ready as Ready,
)
