"""What it takes to break a log on purpose: for our tests, and for the author of a backend.

* ``SimulatedDisk``, ``SimulatedBackend``: a disk that knows what was synced, and goes through what a
  power cut may leave. Also the most exact description of what a backend promises.
* ``FaultyBackend``: wraps any backend; counts its calls, fails the n-th one or all from it on, leaves
  writes short, fills the disk, lets reads lie, runs code inside a call.
* ``make_payload``, ``identify``, ``judge``: payloads that say what they are, and the comparison of what
  a log holds with what was appended.
* ``contract``, ``suite``, ``machine``: the conformance kit for backends. ``suite`` (pytest) and
  ``machine`` (Hypothesis) need the extra ``testing``, and are imported by their names.

Nothing else here needs pytest, and nothing of the library imports it. A wrapped backend of your own::

    backend = FaultyBackend(MyBackend())
    backend.fail("sync", number=errno.EIO, skip=3)      # the fourth sync fails, once
    wal = Walrus(path, backend=backend)
"""

from walrus_core.testing.faults import Countdown, Fault, Rule
from walrus_core.testing.faulty import FaultyBackend, FaultyFile
from walrus_core.testing.model import TORN_SECTOR_DAMAGES, CursorModel, TopicModel
from walrus_core.testing.oracle import Finding, identify, judge, make_payload
from walrus_core.testing.simdisk import PowerLoss, SimulatedBackend, SimulatedDisk, SimulatedFile

__all__ = [
    "SimulatedDisk",
    "SimulatedBackend",
    "SimulatedFile",
    "PowerLoss",
    "FaultyBackend",
    "FaultyFile",
    "Rule",
    "Fault",
    "Countdown",
    "make_payload",
    "identify",
    "judge",
    "Finding",
    "TopicModel",
    "CursorModel",
    "TORN_SECTOR_DAMAGES",
]
