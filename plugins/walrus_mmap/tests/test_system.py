"""Answers of the system that this one seldom gives: other platforms, short counts, interrupted calls."""

from __future__ import annotations

import errno
import types

import pytest

from walrus_mmap import system


def test_on_darwin_the_cache_of_the_drive_is_flushed_too(monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="F_FULLFSYNC is of POSIX systems")
    calls = []
    monkeypatch.setattr(system, "sys", types.SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda *asked: calls.append(asked))
    system.sync_file(7)
    assert calls == [(7, 51)]
    assert not system.syncs_maps()


def test_elsewhere_there_is_fsync(monkeypatch):
    calls = []
    monkeypatch.setattr(system, "sys", types.SimpleNamespace(platform="other"))
    monkeypatch.setattr(system.os, "fsync", calls.append)
    system.sync_file(7)
    assert calls == [7]


def test_on_windows_no_directory_is_synced(monkeypatch):
    monkeypatch.setattr(system, "os", types.SimpleNamespace(name="nt"))
    assert system.sync_directory("there is no such place") is None


@pytest.fixture
def answers(monkeypatch):
    """What fallocate fails with, one after the other (0: it succeeds)."""
    numbers, state = [], {"errno": 0}

    def fallocate(*_arguments):
        state["errno"] = numbers.pop(0)
        return -1 if state["errno"] else 0

    monkeypatch.setattr(system, "_fallocate", lambda: fallocate)
    monkeypatch.setattr(system.ctypes, "get_errno", lambda: state["errno"])
    return numbers


def test_a_punch_that_a_signal_interrupts_is_done_again(answers):
    answers += [errno.EINTR, errno.EINTR, 0]
    system.punch(7, 0, 4096)
    assert answers == []


def test_an_error_of_a_punch_is_raised(answers):
    answers += [errno.EIO]
    with pytest.raises(OSError) as caught:
        system.punch(7, 0, 4096)
    assert caught.value.errno == errno.EIO


def test_where_nothing_can_be_punched_that_is_said(monkeypatch):
    monkeypatch.setattr(system, "_fallocate", lambda: None)
    assert not system.can_punch()
    with pytest.raises(OSError) as caught:
        system.punch(7, 0, 4096)
    assert caught.value.errno in system.UNSUPPORTED


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_a_system_without_the_call_has_none(monkeypatch, platform):
    monkeypatch.setattr(system, "sys", types.SimpleNamespace(platform=platform))
    monkeypatch.setattr(system.ctypes, "CDLL", lambda *_name, **_options: types.SimpleNamespace())
    assert system._fallocate.__wrapped__() is None


def test_zeros_that_are_not_written_are_an_error(monkeypatch, tmp_path):
    with open(tmp_path / "file", "wb", buffering=0) as file:
        monkeypatch.setattr(system.os, "write", lambda _descriptor, _data: 0)
        with pytest.raises(OSError, match="zeros wrote nothing"):
            system.zero(file.fileno(), 0, 4096)


@pytest.mark.parametrize(
    ("number", "found"), [(errno.EINVAL, []), (errno.ENXIO, [(0, 4096)]), (errno.EIO, None)]
)
def test_where_holes_are_unknown_there_are_none(monkeypatch, number, found):
    def refuse(_descriptor, _at, _whence):
        raise OSError(number, "no")

    monkeypatch.setattr(system.os, "SEEK_DATA", 3, raising=False)
    monkeypatch.setattr(system.os, "lseek", refuse)
    if found is None:
        with pytest.raises(OSError, match="no"):
            system.holes(7, 0, 4096)
    else:
        assert system.holes(7, 0, 4096) == found


def test_a_system_that_cannot_tell_holes_tells_none(monkeypatch):
    monkeypatch.delattr(system.os, "SEEK_DATA", raising=False)
    assert system.holes(7, 0, 4096) == []
