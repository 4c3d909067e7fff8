"""Repair that is interrupted anywhere, or cannot keep what it is about to change."""

from __future__ import annotations

import contextlib
import json

import pytest

from walrus_core import hot
from walrus_core.errors import StorageError
from walrus_core.repair import MANIFEST_NAME, carry_out, plan_repair
from walrus_core.testing import FaultyBackend

from .repairing import BREAKS, NOON_S, OPTIONS, break_copies, files_of, fill, is_sound, mend


class Interrupted(BaseException):
    """Stands for whatever may come between two calls of the backend."""


def _stop():
    raise Interrupted


@pytest.mark.parametrize("break_it", BREAKS)
@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_interrupted_at_every_call_and_run_again_it_ends_the_same(memory_store, break_it, how):
    """An interrupt leaves what was written; a power cut leaves only what syncs have covered.

    Every third call with the pure twin, which is slow; what a repair calls is the same.
    """
    fill(memory_store)
    break_it(memory_store)
    broken = memory_store.killed()
    mend(memory_store, **OPTIONS)
    wanted = files_of(memory_store)
    place, stride = 0, 1 if hot.COMPILED else 3
    while True:
        store = broken.killed()
        backend = FaultyBackend(store.backend())
        plan = plan_repair(backend, store.path, **OPTIONS)
        backend.reset()
        rule = backend.interrupt(place, _stop)
        with contextlib.suppress(Interrupted):
            carry_out(backend, plan, now=lambda: NOON_S)
        if not rule.is_over:
            break
        if how == "kill":
            synced = backend.synced_store()
            store._memory.files = synced.files
        _check_evidence(broken, store)
        mend(store, **OPTIONS)
        assert _logical(files_of(store)) == _logical(wanted), place
        place += stride
    assert place > 10


def _logical(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.endswith(".free")}


def _check_evidence(broken, store) -> None:
    """Every byte that is not what it was is in a copy that a manifest names."""
    copies: list[dict] = []
    data_of: dict[str, bytes] = {}
    for path, data in store._memory.files.items():
        folder, _, name = path.rpartition("/")
        if name == MANIFEST_NAME and data.strip(b"\0"):
            facts = json.loads(bytes(data)) if data.rstrip(b"\0").endswith(b"}\n") else {"steps": []}
            copies += [{**step, "folder": folder} for step in facts["steps"]]
        data_of[path] = bytes(data)
    for name in broken.names():
        old = broken.read_file(name)
        new = data_of.get(f"{store.path}/{name}")
        if new == old:
            continue
        kept = bytearray(new if new is not None and len(new) == len(old) else len(old))
        for step in copies:
            if step["file"] == name and step["copy"]:
                saved = data_of[f"{step['folder']}/{step['copy']}"]
                at = step["at_bytes"] if step["action"] == "write" else 0
                kept[at : at + len(saved)] = saved
        assert bytes(kept) == old, name


@pytest.mark.parametrize("operation", ["list", "create", "write", "sync", "sync_dir"])
def test_nothing_is_changed_where_the_copies_cannot_be_made(memory_store, operation):
    fill(memory_store)
    break_copies(memory_store)
    before = files_of(memory_store)
    backend = FaultyBackend(memory_store.backend())
    plan = plan_repair(backend, memory_store.path, **OPTIONS)
    backend.reset()
    backend.fail(operation)  # the first call is one of the copies'
    with pytest.raises(StorageError):
        carry_out(backend, plan, now=lambda: NOON_S)
    assert files_of(memory_store) == before
    mend(memory_store, **OPTIONS)
    assert is_sound(memory_store)
