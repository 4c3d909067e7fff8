"""The simulated disk goes through the kit, with and without windows; its power can be cut."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from attrs import evolve

from walrus_core.backend import Capabilities
from walrus_core.testing import SimulatedBackend, SimulatedDisk
from walrus_core.testing.simdisk import EVERYTHING
from walrus_core.testing.suite import BackendSuite

STATES = 12


class TestSimulatedBackend(BackendSuite):
    offers: Capabilities = EVERYTHING

    def setup_method(self) -> None:
        self.disk = SimulatedDisk(random.Random("kit"), self.offers)

    def make_backend(self, path: str, *, durable_writes: bool = False) -> SimulatedBackend:
        self.disk.writes_durably = durable_writes
        return SimulatedBackend(self.disk)

    def peek(self, path: str) -> bytes:
        return bytes(self.disk.names[path].durable)

    def power_loss(self, backend: Any, path: str) -> Iterator[SimulatedBackend]:
        for disk in backend.disk.power_loss_states(STATES, random.Random("cut")):
            yield SimulatedBackend(disk)


class TestSimulatedBackendWithoutWindows(TestSimulatedBackend):
    offers = evolve(EVERYTHING, memory=False)
