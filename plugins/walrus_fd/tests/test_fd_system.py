"""Answers of the system that this one seldom gives: other platforms, short counts, interrupted calls."""

from __future__ import annotations

import errno
import types
from collections.abc import Callable
from typing import Any

import pytest

from walrus_fd import files, space


def on_darwin(monkeypatch: pytest.MonkeyPatch, answer: Callable[[int, int], object]) -> None:
    fcntl = pytest.importorskip("fcntl", reason="F_FULLFSYNC is asked for through fcntl")
    monkeypatch.setattr(files, "sys", types.SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", answer)


@pytest.mark.parametrize("number", [None, errno.ENOTSUP, errno.ENOTTY, errno.EIO])
def test_on_darwin_the_drive_is_flushed_too(monkeypatch: pytest.MonkeyPatch, number: Any) -> None:
    calls: list[object] = []

    def ask(descriptor: int, request: int) -> int:
        calls.append((descriptor, request))
        if number is not None:
            raise OSError(number, "no")
        return 0

    on_darwin(monkeypatch, ask)
    monkeypatch.setattr(files.os, "fdatasync", lambda descriptor: calls.append("fdatasync"), raising=False)
    if number == errno.EIO:
        with pytest.raises(OSError, match="no"):
            files._sync_descriptor(7)
    else:
        files._sync_descriptor(7)
    known = number in (None, errno.EIO)
    assert calls == ([(7, 51)] if known else [(7, 51), "fdatasync"])


def test_without_fdatasync_there_is_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.delattr(files.os, "fdatasync", raising=False)
    monkeypatch.setattr(files.os, "fsync", calls.append)
    files._sync_descriptor(7)
    assert calls == [7]


def answering(monkeypatch: pytest.MonkeyPatch, numbers: list[int]) -> list[int]:
    """Let fallocate fail with these one after the other (0: it succeeds). Returns: those that are left."""
    state = {"errno": 0}

    def fallocate(*_arguments: int) -> int:
        state["errno"] = numbers.pop(0)
        return -1 if state["errno"] else 0

    monkeypatch.setattr(space, "_fallocate", fallocate)
    monkeypatch.setattr(space.ctypes, "get_errno", lambda: state["errno"])
    return numbers


def test_a_punch_that_a_signal_interrupts_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    left = answering(monkeypatch, [errno.EINTR, errno.EINTR, 0])
    space.punch(7, 0, 4096)
    assert left == []


def test_an_error_of_a_punch_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, [errno.EIO])
    with pytest.raises(OSError) as caught:
        space.discard(7, 0, 4096, lambda count, at: b"", lambda data, at: 0)
    assert caught.value.errno == errno.EIO


def test_without_a_punch_what_is_not_zero_is_overwritten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(space, "_fallocate", None)
    content = bytearray(b"\0" * 4096 + b"x" * 4096)

    def read(count: int, at: int) -> bytes:
        # Never all at once.
        return bytes(content[at : at + min(count, 1000)])

    def write(data: Any, at: int) -> int:
        part = bytes(data)[:1000]
        content[at : at + len(part)] = part
        return len(part)

    space.discard(7, 0, 8192, read, write)
    assert content == bytes(8192)
    with pytest.raises(OSError, match="ended while bytes"):
        space.discard(7, 4096, 8192, read, write)
    content[0] = 1
    with pytest.raises(OSError, match="wrote nothing"):
        space.discard(7, 0, 8192, read, lambda data, at: 0)


def test_other_systems_have_no_punch_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "sys", types.SimpleNamespace(platform="darwin"))
    assert space._load_fallocate() is None
    monkeypatch.setattr(space, "sys", types.SimpleNamespace(platform="linux"))
    monkeypatch.setattr(space.ctypes, "CDLL", lambda *_name, **_options: types.SimpleNamespace())
    assert space._load_fallocate() is None
