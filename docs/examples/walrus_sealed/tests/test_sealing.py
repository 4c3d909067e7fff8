"""What stands on the medium, what a key opens, and what damage costs."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walrus_core import Walrus
from walrus_core.errors import ConfigError, CorruptionError, StorageError
from walrus_core.plugins import load_backend
from walrus_core.testing import FaultyBackend, PowerLoss, SimulatedBackend, SimulatedDisk
from walrus_sealed.backend import KEY_VARIABLE, SealedBackend
from walrus_sealed.file import inner_size, outer_size
from walrus_sealed.sectors import HEADER_AREA_BYTES, HEADER_PLACES, SECTOR_BYTES, Sectors

KEY = bytes(range(32))
SMALL: dict[str, Any] = {"block_size": 16_384, "blocks_per_segment": 4}
SECRET = b"a secret that stands on no disk " * 40


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def put(path: Path, data: bytes, at: int = 0, size: int = 8192) -> bytes:
    """Write through the backend. Returns: what then stands in the file behind the header."""
    backend = SealedBackend(key=KEY)
    file = backend.create(str(path), size_bytes=size)
    file.write_at(at, data)
    file.close()
    backend.close()
    return path.read_bytes()[HEADER_AREA_BYTES:]


# --- the medium -------------------------------------------------------------------------------


def test_nothing_of_a_log_is_plain_on_the_disk(tmp_path: Path) -> None:
    with Walrus(str(tmp_path / "log"), backend=SealedBackend(key=KEY), **SMALL) as wal:
        wal.append_for_topic("confidential-topic", SECRET)
    raw = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
    for plain in (SECRET[:16], b"confidential-topic", b"WALRUSEG", b"WALRUSBK", b"WALRUSCU", KEY):
        assert plain not in raw


def test_equal_bytes_differ_by_place_and_by_file(tmp_path: Path) -> None:
    sector = bytes([7]) * SECTOR_BYTES
    one, two = put(tmp_path / "one", sector * 3), put(tmp_path / "two", sector * 3)
    sealed = [data[n * SECTOR_BYTES : (n + 1) * SECTOR_BYTES] for data in (one, two) for n in range(3)]
    assert len(set(sealed)) == 6


def test_what_nobody_wrote_stays_zero_and_sparse(tmp_path: Path) -> None:
    raw = put(tmp_path / "one", b"x", at=2 << 20, size=32 << 20)
    assert raw.count(0) > len(raw) - 2 * SECTOR_BYTES
    assert os.stat(tmp_path / "one").st_blocks * 512 < 1 << 20


def test_a_part_of_a_sector_is_one_write_of_the_whole_of_it() -> None:
    inner = FaultyBackend()
    file = SealedBackend(inner=inner, key=KEY).create("/one", size_bytes=4096)
    file.write_at(0, b"a" * 512)
    inner.reset()
    file.write_at(100, b"b" * 300)
    assert [name for name, _ in inner.log] == ["read", "write"]
    assert inner.written_bytes == SECTOR_BYTES
    assert file.read_at(0, 512) == b"a" * 100 + b"b" * 300 + b"a" * 112


@given(st.integers(0, 1 << 40))
def test_the_size_inside_tells_the_size_outside(size: int) -> None:
    assert outer_size(inner_size(size)) == size
    assert inner_size(size) < inner_size(size + 1)


def create_and_write(backend: SealedBackend) -> None:
    file = backend.create("/one", size_bytes=5000)
    file.write_at(0, b"too late")
    file.sync()


def test_a_cut_in_the_middle_of_a_creation_leaves_a_file_of_zeros() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        disk = SimulatedDisk(rng)
        disk.stop_in(1 + seed % 5)
        with pytest.raises(PowerLoss):
            create_and_write(SealedBackend(inner=SimulatedBackend(disk), key=KEY))
        backend = SealedBackend(inner=SimulatedBackend(disk.after_power_loss()), key=KEY)
        for name in backend.list("/"):
            found = backend.open(f"/{name}")
            assert found.read_at(0, found.size_bytes) in (
                bytes(found.size_bytes),
                b"too late".ljust(5000, b"\0"),
            )


def test_a_header_whose_sync_failed_is_not_tried_again() -> None:
    inner = FaultyBackend()
    inner.create("/one", size_bytes=inner_size(4096)).close()  # as a cut in its creation leaves it
    file = SealedBackend(inner=inner, key=KEY).open("/one")
    inner.fail("sync", number=errno.EIO)
    for _ in range(2):  # the second sync would succeed, without what the first one lost
        with pytest.raises(OSError) as caught:
            file.write_at(0, b"x")
        assert caught.value.errno == errno.EIO
    assert file.read_at(0, 1) == b"\0"


# --- keys -------------------------------------------------------------------------------------


def test_another_key_opens_nothing_and_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    Walrus(path, backend=SealedBackend(key=KEY), **SMALL).close()
    with pytest.raises(StorageError, match="another key"):
        Walrus(path, backend=SealedBackend(key=bytes(32)), **SMALL)
    Walrus(path, backend=SealedBackend(key=KEY), **SMALL).close()


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "00" * 33, "\N{SNOWMAN}"])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="key"):
        SealedBackend(key_file=str(tmp_path / "key"))


def test_no_key_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=KEY_VARIABLE):
        SealedBackend()
    with pytest.raises(ConfigError, match="cannot be read"):
        SealedBackend(key_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="16 bytes"):
        SealedBackend(key=bytes(16))
    with pytest.raises(ConfigError, match="inner"):
        SealedBackend(inner="sealed", key=KEY)


def test_the_plugin_is_found_by_its_name_with_the_key_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY.hex() + "\n")
    options = {"key_file": str(tmp_path / "key"), "inner_options": {"io_uring": "off"}}
    backend = load_backend("sealed", options=options)
    facts = backend.probe()
    backend.close()
    assert facts["inner"] == "fd" and facts["io_uring"].startswith("off")
    put(tmp_path / "one", b"by key")
    other = load_backend("sealed", options={"key_file": options["key_file"], "inner": "mmap"})
    file = other.open(str(tmp_path / "one"))
    assert bytes(file.read_at(0, 6)) == b"by key"
    file.close()
    other.close()


def test_the_key_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY.hex())
    with Walrus.builder().data_dir(tmp_path / "log").backend("sealed").build() as wal:
        assert wal.append_for_topic("t", b"x") == 0


# --- damage -----------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_one_damaged_copy_of_the_header_costs_nothing_and_two_the_file(tmp_path: Path) -> None:
    put(tmp_path / "one", SECRET)
    backend = SealedBackend(key=KEY)
    flip(tmp_path / "one", HEADER_PLACES[0] + 20)
    file = backend.open(str(tmp_path / "one"))
    assert file.read_at(0, len(SECRET)) == SECRET
    file.close()
    put(tmp_path / "lost", SECRET)
    for place in HEADER_PLACES:
        flip(tmp_path / "lost", place)
    with pytest.raises(OSError, match="header is damaged") as caught:
        backend.open(str(tmp_path / "lost"))
    assert caught.value.errno == errno.EIO
    backend.close()


def test_a_changed_bit_costs_sixteen_bytes_and_the_core_sees_it(tmp_path: Path) -> None:
    put(tmp_path / "one", SECRET)
    flip(tmp_path / "one", HEADER_AREA_BYTES + 600)
    backend = SealedBackend(key=KEY)
    file = backend.open(str(tmp_path / "one"))
    found = bytes(file.read_at(0, len(SECRET)))
    file.close()
    wrong = [place for place, (a, b) in enumerate(zip(found, SECRET, strict=True)) if a != b]
    assert wrong and all(592 <= place < 608 for place in wrong)
    path = tmp_path / "log"
    with Walrus(str(path), backend=backend, **SMALL) as wal:
        for number in range(3):
            wal.append_for_topic("t", bytes([number]) * 3000)
    (segment,) = path.glob("*.wal")
    flip(segment, HEADER_AREA_BYTES + 65_536 + 4096 + 3032 + 500)
    with Walrus(str(path), backend=SealedBackend(key=KEY), **SMALL) as wal:
        assert wal.read_next("t") is not None
        with pytest.raises(CorruptionError):
            wal.read_next("t")
        rest = wal.batch_read_for_topic("t", on_corruption="skip")
        assert [entry.offset for entry in rest] == [2]


def test_headers_of_no_kind() -> None:
    zeros = bytes(SECTOR_BYTES)
    whole = Sectors(KEY, bytes(32)).header()
    assert Sectors.of_headers(KEY, [zeros, zeros]) is None
    assert Sectors.of_headers(KEY, [zeros, whole]) is not None
    with pytest.raises(ValueError, match="damaged"):
        Sectors.of_headers(KEY, [b"\1".ljust(SECTOR_BYTES, b"\0"), zeros])
