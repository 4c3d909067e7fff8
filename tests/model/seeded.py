"""The state machine from one seed: the same steps every time, so that a failing seed replays alone."""

from __future__ import annotations

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import LogMachine

EXAMPLES = 100
STEPS = 60


def run_seeded(machine: type[LogMachine], number: int) -> dict[str, int]:
    """Run ``EXAMPLES`` examples of ``STEPS`` steps. Raises: what the machine raises, with its steps."""
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(number)(machine), settings=chosen)
    return {"examples": EXAMPLES}
