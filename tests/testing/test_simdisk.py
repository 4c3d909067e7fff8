"""The simulated disk itself: what it must never lose, and what it must be able to lose."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from random import Random

import pytest

from walrus_core.backend import Capabilities
from walrus_core.testing import PowerLoss, SimulatedBackend, SimulatedDisk, SimulatedFile
from walrus_core.testing.inode import SECTOR, Inode, surviving

DRAWS = 400
SIZE = 4 * SECTOR


def new_disk(seed: int = 1) -> SimulatedDisk:
    return SimulatedDisk(Random(seed), Capabilities(files=False, discard=True, drop_cache=True, memory=True))


def synced_file(disk: SimulatedDisk) -> SimulatedFile:
    """Return a file of ones that is durable, with its name."""
    backend = SimulatedBackend(disk)
    file = backend.create("/d/f", size_bytes=SIZE)
    assert isinstance(file, SimulatedFile)
    file.write_at(0, b"1" * SIZE)
    file.sync()
    backend.sync_dir("/d")
    return file


def contents(disk: SimulatedDisk) -> set[bytes]:
    """Return what power cuts may leave of the file."""
    return {bytes(disk.after_power_loss().names["/d/f"].live) for _ in range(DRAWS)}


def test_what_is_synced_survives() -> None:
    disk = new_disk()
    synced_file(disk)
    assert contents(disk) == {b"1" * SIZE}


def test_sectors_are_lost_and_kept_one_by_one_and_never_torn() -> None:
    disk = new_disk()
    synced_file(disk).write_at(100, b"2" * (SIZE - 100))
    found = contents(disk)
    assert {b"1" * SIZE, b"1" * 100 + b"2" * (SIZE - 100)} < found
    assert b"1" * (SIZE - SECTOR) + b"2" * SECTOR in found, "a later sector without the earlier ones"
    for data in found:
        assert all(len(set(data[at : at + SECTOR])) == 1 for at in range(SECTOR, SIZE, SECTOR))


def test_a_sector_never_has_a_later_write_without_the_earlier_one() -> None:
    disk = new_disk()
    file = synced_file(disk)
    file.write_at(0, b"2")
    file.write_at(1, b"3")
    assert {data[:2] for data in contents(disk)} == {b"11", b"21", b"23"}


def test_names_are_lost_until_the_directory_is_synced() -> None:
    disk = new_disk()
    backend = SimulatedBackend(disk)
    synced_file(disk)
    backend.create("/d/new", size_bytes=SIZE).sync()
    backend.remove("/d/f")
    found = {tuple(sorted(disk.after_power_loss().names)) for _ in range(DRAWS)}
    assert found == {(), ("/d/f",), ("/d/new",), ("/d/f", "/d/new")}
    backend.sync_dir("/d")
    assert {tuple(disk.after_power_loss().names) for _ in range(DRAWS)} == {("/d/new",)}


def test_an_unsynced_size_is_lost_or_kept() -> None:
    disk = new_disk()
    synced_file(disk).reserve(SIZE, SECTOR)
    assert {len(data) for data in contents(disk)} == {SIZE, SIZE + SECTOR}


def test_a_dead_machine_changes_nothing() -> None:
    disk = new_disk()
    file = synced_file(disk)
    disk.stop_in(2)
    file.write_at(0, b"2")
    with pytest.raises(PowerLoss):
        file.write_at(SECTOR, b"3")
    before = bytes(file.inode.live)
    with pytest.raises(PowerLoss):
        file.write_at(0, b"4")
    with pytest.raises(PowerLoss):
        file.sync()
    assert bytes(file.inode.live) == before


def test_the_death_of_a_process_loses_nothing() -> None:
    disk = new_disk()
    file = synced_file(disk)
    file.write_at(0, b"2" * SIZE)
    assert {bytes(disk.after_death().names["/d/f"].live) for _ in range(DRAWS)} == {b"2" * SIZE}


def test_a_failed_sync_lies_until_the_cache_is_dropped() -> None:
    disk = new_disk(3)
    file = synced_file(disk)
    file.write_at(0, b"2" * SIZE)
    disk.sync_fails_in = 1
    with pytest.raises(OSError, match="input/output"):
        file.sync()
    file.sync()
    assert bytes(file.read_at(0, SIZE)) == b"2" * SIZE, "readable, and said to be durable"
    durable = bytes(file.inode.durable)
    file.drop_cache()
    assert bytes(file.read_at(0, SIZE)) == durable


def test_what_is_written_through_a_window_is_unsynced_too() -> None:
    disk = new_disk()
    file = synced_file(disk)
    file.memory(0, SIZE)[0:SIZE] = b"2" * SIZE
    found = contents(disk)
    assert {b"1" * SIZE, b"2" * SIZE} < found
    file.sync()
    assert contents(disk) == {b"2" * SIZE}


def test_a_durable_write_is_durable_and_nothing_else() -> None:
    inode = Inode()
    inode.grow(SIZE)
    inode.sync()
    inode.write(0, b"2" * SIZE)
    inode.write_durably(SECTOR + 5, b"3")
    found = {bytes(surviving(Random(seed), inode)) for seed in range(DRAWS)}
    middle = b"2" * 5 + b"3" + b"2" * (SECTOR - 6)
    assert {data[SECTOR : 2 * SECTOR] for data in found} == {middle}
    assert {data[:1] for data in found} == {b"\0", b"2"}


def test_states_go_through_the_patterns_first() -> None:
    disk = new_disk()
    file = synced_file(disk)
    for sector in range(4):
        file.write_at(sector * SECTOR, b"2" * SECTOR)
    none, whole, in_order, reverse = (
        bytes(state.names["/d/f"].live[::SECTOR]) for state in disk.power_loss_states(4)
    )
    assert (none, whole) == (b"1111", b"2222")
    assert in_order == in_order.replace(b"1", b"").ljust(4, b"1")
    assert reverse == reverse.replace(b"1", b"").rjust(4, b"1")
    assert len(list(disk.power_loss_states(20))) == 20


def test_what_is_torn_is_the_last_write_in_order() -> None:
    disk = new_disk()
    file = synced_file(disk)
    file.write_at(0, b"2" * SIZE)
    found = {bytes(disk.after_power_loss("in order").names["/d/f"].live[::SECTOR]) for _ in range(DRAWS)}
    assert found == {b"1111", b"2111", b"2211", b"2221", b"2222"}


def test_disks_share_no_bytes_that_change() -> None:
    disk = new_disk()
    file = synced_file(disk)
    left = disk.after_power_loss()
    file.write_at(0, b"2" * SIZE)
    file.sync()
    SimulatedBackend(left).open("/d/f").write_at(0, b"3")
    later = left.after_power_loss("all")
    assert bytes(left.durable_names["/d/f"].durable) == b"1" * SIZE
    assert bytes(later.names["/d/f"].live) == b"3" + b"1" * (SIZE - 1)
    assert bytes(disk.names["/d/f"].live) == b"2" * SIZE
    assert later.digest() != left.digest() == left.after_power_loss("none").digest()


@pytest.mark.parametrize("stays", [False, True])
def test_faults_come_once_or_stay(stays: bool) -> None:
    disk = new_disk()
    file = synced_file(disk)
    disk.faults_stay = stays
    disk.write_fails_in, disk.sync_fails_in, disk.read_lies_in = 2, 2, 2
    for call in (partial(file.write_at, 0, b"4"), file.sync):
        call()
        with pytest.raises(OSError, match="input/output"):
            call()
        with pytest.raises(OSError, match="input/output") if stays else nullcontext():
            call()
    reads = [bytes(file.read_at(SECTOR, SECTOR)) == b"1" * SECTOR for _ in range(3)]
    assert reads == [True, False, not stays]


def test_a_disk_has_a_capacity() -> None:
    disk = new_disk()
    file = synced_file(disk)
    disk.capacity_bytes = SIZE + 100
    file.reserve(SIZE, 100)
    with pytest.raises(OSError, match="space"):
        file.reserve(SIZE, 101)
    with pytest.raises(OSError, match="space"):
        SimulatedBackend(disk).create("/d/g", size_bytes=1)


def test_a_removed_file_comes_back_until_the_directory_is_synced() -> None:
    disk = new_disk()
    backend = SimulatedBackend(disk)
    synced_file(disk)
    backend.remove("/d/f")
    assert [len(disk.after_power_loss(pattern).names) for pattern in ("none", "all")] == [1, 0]
    with pytest.raises(FileNotFoundError):
        backend.open("/d/f")
