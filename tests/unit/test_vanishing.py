"""Verify beside a writer: what it takes away meanwhile is no damage, what cannot be read is an error."""

from __future__ import annotations

import errno

import pytest
from helpers import NEVER

from walrus_core import livecheck
from walrus_core.errors import StorageError
from walrus_core.findings import DAMAGE
from walrus_core.livecheck import verify_live
from walrus_core.look import Look


@pytest.fixture
def log(memory_store, monkeypatch):
    monkeypatch.setattr(livecheck, "PAUSES_S", (0.0,))
    monkeypatch.setattr(livecheck, "FRAME_PAUSES_S", (0.0,))
    with memory_store.open(fsync_schedule=NEVER) as wal:
        for number in range(8):
            wal.append_for_topic("t", b"%d" % number * 5000)
        wal.read_next("t")
    return memory_store


def failing(monkeypatch, method, number, suffix):
    """Let a method of the look fail for files whose names end so."""
    real = getattr(Look, method)

    def fail(look, first, *more):
        path = first if method == "read_file" else more[0].file.path
        if path.endswith(suffix):
            raise StorageError(path=path, operation="read", errno=number, reason="no")
        return real(look, first, *more)

    monkeypatch.setattr(Look, method, fail)


@pytest.mark.parametrize(
    ("method", "suffix", "kinds"),
    [
        ("read_file", "cursors.db", [livecheck.MISSING_KIND]),
        ("read_file", ".wal", []),
        ("read_frames", ".wal", []),
    ],
)
def test_files_that_go_meanwhile(log, monkeypatch, method, suffix, kinds):
    complete = verify_live(log.backend(), log.path)
    assert complete.findings == () and complete.block_count > 1
    failing(monkeypatch, method, errno.ENOENT, suffix)
    found = verify_live(log.backend(), log.path)
    assert [finding.kind for finding in found.of(DAMAGE)] == kinds
    assert found.block_count == (0 if suffix == ".wal" else complete.block_count)


@pytest.mark.parametrize(
    ("method", "suffix"), [("read_file", "cursors.db"), ("read_file", ".wal"), ("read_frames", ".wal")]
)
def test_files_that_cannot_be_read(log, monkeypatch, method, suffix):
    failing(monkeypatch, method, errno.EIO, suffix)
    with pytest.raises(StorageError) as caught:
        verify_live(log.backend(), log.path)
    assert caught.value.errno == errno.EIO
