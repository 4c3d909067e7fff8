"""Both twins of the frame code, and an oracle that knows the frame from docs/format.md alone."""

from __future__ import annotations

import importlib
import importlib.util
import struct
import tempfile
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from walrus_core import hot, livecheck

FNV = 1
CRC = 2
MASK = (1 << 64) - 1
BASE = 4096
KEY = 0xFEDCBA9876543210
BLOCK_SIZE = 1 << 20


def oracle_fnv(data: bytes, state: int = 0xCBF29CE484222325) -> int:
    for byte in data:
        state = (state ^ byte) * 0x100000001B3 % 2**64
    return state


def oracle_crc_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


CRC_BYTES = [oracle_crc_byte(byte) for byte in range(256)]


def oracle_crc(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ CRC_BYTES[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


def oracle_mix(value: int) -> int:
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def oracle_frame(
    key: int, algorithm: int, payload: bytes, flags: int, remaining: int, index: int, timestamp: int
) -> bytes:
    """Return one frame, field by field."""
    first, third = struct.pack("<I", len(payload)), struct.pack("<BBHI", 1, flags, remaining, index)
    value = oracle_mix(key ^ int.from_bytes(first + third[:4], "little"))
    value = oracle_mix(oracle_mix(value ^ timestamp) + index & MASK)
    rest = first + struct.pack("<I", value >> 32) + third + struct.pack("<Q", timestamp)
    if algorithm == FNV:
        checksum = oracle_fnv(rest + payload, key)
    else:
        checksum = oracle_mix(key + index & MASK) >> 32 << 32 | oracle_crc(rest + payload)
    return struct.pack("<Q", checksum) + rest + payload + bytes(-len(payload) % 8)


def oracle_batch(
    key: int, algorithm: int, payloads: list[bytes], index: int = 0, timestamp: int = 0, whole: bool = True
) -> bytes:
    """Return the frames of one batch, or with ``whole`` false of a batch per payload."""
    count = len(payloads)
    return b"".join(
        oracle_frame(
            key,
            algorithm,
            payload,
            int(place == 0 or not whole),
            count - 1 - place if whole else 0,
            index + place,
            timestamp,
        )
        for place, payload in enumerate(payloads)
    )


@pytest.fixture(scope="session")
def oracle() -> SimpleNamespace:
    """The naive frame code that the twins are compared with."""
    return SimpleNamespace(
        fnv=oracle_fnv, crc=oracle_crc, mix=oracle_mix, frame=oracle_frame, batch=oracle_batch
    )


def load_twin(name: str) -> ModuleType:
    if importlib.util.find_spec(f"walrus_core.{name}") is None:
        pytest.skip(f"walrus_core.{name} is not built here")
    return importlib.import_module(f"walrus_core.{name}")


@pytest.fixture(scope="session", params=["_hot_py", "_hot_c"], ids=["pure", "compiled"])
def twin(request: pytest.FixtureRequest) -> ModuleType:
    """The twin that is in use. Tests that compare the two have both, whichever it is."""
    if (request.param == "_hot_c") != hot.COMPILED:
        pytest.skip("a run with the other twin tests it: WALRUS_PURE=1 has the pure one, ./check both")
    return load_twin(request.param)


@pytest.fixture(scope="session")
def twins() -> tuple[ModuleType, ModuleType]:
    """The pure and the compiled twin, for comparisons of the two."""
    return load_twin("_hot_py"), load_twin("_hot_c")


def make_tail(twin: ModuleType, **facts: Any) -> Any:
    """Return a tail over nothing yet, of a block of BLOCK_SIZE, with ``facts`` instead of the usual ones."""
    usual = {"write": None, "window": None, "descriptor": -1, "base": 0, "clock": None, "key": KEY}
    usual |= {"algorithm": FNV, "first_offset": 0, "end": BLOCK_SIZE, "state": (64, 0, 0, 0, 0)}
    found = usual | facts
    return twin.Tail(**({"reserved": found["end"]} | found))


class Block:
    """A block of some kind and the tail over it; ``content()`` is what stands in it."""

    def __init__(
        self, twin, kind, *, algorithm=FNV, size=BLOCK_SIZE, reserved=None, at=64, clock=None, index=0
    ):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.memory = bytearray(size) if kind == "window" else None
        self.window = None if self.memory is None else memoryview(self.memory)
        self.calls: list[int] = []
        self.tail = twin.Tail(
            write=self.write,
            window=self.window,
            descriptor=self.file.fileno() if kind == "descriptor" else -1,
            base=BASE,
            clock=clock,
            key=KEY,
            algorithm=algorithm,
            first_offset=1000,
            end=size,
            reserved=size if reserved is None else reserved,
            state=(at, index, 0, 2**64 - 1, 0),
        )

    def write(self, at, data):
        self.calls.append(at)
        if self.memory is not None:
            self.memory[at : at + len(data)] = data
            return
        self.file.seek(BASE + at)
        self.file.write(data)
        self.file.flush()

    def content(self, at, length):
        if self.memory is not None:
            return bytes(self.memory[at : at + length])
        self.file.seek(BASE + at)
        return self.file.read(length)

    def close(self):
        self.tail.release()
        self.file.close()


@pytest.fixture(params=["window", "descriptor", "call"])
def kind(request):
    """How the tail of the test writes."""
    return request.param


@pytest.fixture
def make(twin, kind):
    """Make blocks of the twin and kind under test, and close them after it."""
    made = []

    def make_block(**options):
        made.append(Block(twin, kind, **options))
        return made[-1]

    yield make_block
    for block in made:
        block.close()


@pytest.fixture(scope="session")
def block_class():
    """The class of the blocks, for tests that need one kind."""
    return Block


@pytest.fixture
def short_pauses(monkeypatch):
    """Nobody writes beside these looks, so damage need not be waited for."""
    monkeypatch.setattr(livecheck, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(livecheck, "FRAME_PAUSES_S", (0.0,))
