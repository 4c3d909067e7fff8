"""The overlay: what is written is read again, and nothing of it reaches the files below."""

from __future__ import annotations

import random

import pytest

from walrus_core.format import PAGE_SIZE
from walrus_core.memory import MemoryBackend
from walrus_core.overlay import Change, OverlayBackend

SIZE = 5 * PAGE_SIZE + 100


@pytest.fixture
def below():
    backend = MemoryBackend()
    backend.create("/d/f", size_bytes=SIZE).write_at(0, random.Random(1).randbytes(SIZE))
    return backend


def test_random_writes_are_read_again_and_stay_above(below):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    before = bytes(below.store.files["/d/f"])
    overlay = OverlayBackend(below)
    model = bytearray(before)
    for _ in range(200):
        if chance.random() < 0.05:
            end = len(model) + chance.randrange(2 * PAGE_SIZE)
            overlay.open("/d/f").reserve(end - 1, 1)
            model.extend(bytes(end - len(model)))
        at = chance.randrange(len(model))
        data = chance.randbytes(chance.randrange(min(3 * PAGE_SIZE, len(model) - at)))
        overlay.open("/d/f").write_at(at, data)
        model[at : at + len(data)] = data
        first = chance.randrange(len(model))
        length = chance.randrange(len(model) - first)
        assert bytes(overlay.open("/d/f").read_at(first, length)) == model[first : first + length]
        assert overlay.open("/d/f").size_bytes == len(model)
    assert bytes(below.store.files["/d/f"]) == before
    patched = bytearray(before).ljust(len(model) + PAGE_SIZE, b"\0")
    for change in overlay.changes():
        assert change.path == "/d/f"
        patched[change.at_bytes : change.at_bytes + len(change.data)] = change.data
    assert patched[: len(model)] == model


def test_changes_are_runs_of_pages_that_differ(below):
    overlay = OverlayBackend(below)
    file = overlay.open("/d/f")
    file.write_at(PAGE_SIZE, file.read_at(PAGE_SIZE, 10))  # the same bytes
    assert overlay.changes() == []
    file.write_at(3 * PAGE_SIZE - 1, b"ab")
    (change,) = overlay.changes()
    expected = bytearray(below.store.files["/d/f"][2 * PAGE_SIZE : 4 * PAGE_SIZE])
    expected[PAGE_SIZE - 1 : PAGE_SIZE + 1] = b"ab"
    assert change == Change(path="/d/f", at_bytes=2 * PAGE_SIZE, data=bytes(expected))


def test_files_come_and_go_above_only(below):
    overlay = OverlayBackend(below)
    with pytest.raises(FileExistsError):
        overlay.create("/d/f", size_bytes=1)
    overlay.remove("/d/f")
    assert set(overlay.list("/d")) == set()
    with pytest.raises(FileNotFoundError):
        overlay.open("/d/f")
    with pytest.raises(FileNotFoundError):
        overlay.remove("/d/f")
    overlay.create("/d/f", size_bytes=7).write_at(0, b"new")
    assert bytes(overlay.open("/d/f").read_at(0, 7)) == b"new\0\0\0\0"
    assert set(overlay.list("/d")) == {"f"} and overlay.is_new("/d/f")
    with pytest.raises(OSError, match="ends beyond"):
        overlay.open("/d/f").read_at(0, 8)
    with pytest.raises(OSError, match="ends beyond"):
        overlay.open("/d/f").write_at(6, b"ab")
    assert list(below.list("/d")) == ["f"] and len(below.store.files["/d/f"]) == SIZE


def test_no_write_right_is_asked_for(file_store):
    """The file below is opened by ``open_read_only``, so a write to it would be refused by the system."""
    file_store.open().close()
    backend = file_store.backend()
    path = f"{file_store.path}/cursors.db"
    file = backend.open_read_only(path)
    before = bytes(file.read_at(0, file.size_bytes))
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.write_at(0, b"x")
    file.drop_cache()
    file.close()
    with pytest.raises(FileNotFoundError):
        backend.open_read_only(f"{file_store.path}/none")
    backend.close()
    assert file_store.read_file("cursors.db") == before
