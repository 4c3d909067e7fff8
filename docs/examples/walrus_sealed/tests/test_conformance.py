"""The backend goes through the kit: on real files, and on a disk whose power is cut."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from walrus_core.backend import Backend
from walrus_core.testing import SimulatedBackend, SimulatedDisk
from walrus_core.testing.suite import BackendSuite
from walrus_sealed.backend import SealedBackend

KEY = bytes(range(32))


class TestSealedFiles(BackendSuite):
    def make_backend(self, path: str, **options: Any) -> SealedBackend:
        return SealedBackend(inner="fd", key=KEY, **options)


class TestSealedOnADiskWithoutPower(BackendSuite):
    def setup_method(self) -> None:
        self.disk = SimulatedDisk(random.Random("sealed"))

    def make_backend(self, path: str, *, durable_writes: bool = False) -> SealedBackend:
        self.disk.writes_durably = durable_writes
        return SealedBackend(inner=SimulatedBackend(self.disk), key=KEY)

    def power_loss(self, backend: Backend, path: str) -> Iterator[SealedBackend]:
        for disk in self.disk.power_loss_states(10, random.Random("cut")):
            yield SealedBackend(inner=SimulatedBackend(disk), key=KEY)
