"""What happens to logs that are still open when the process ends."""

from __future__ import annotations

from types import SimpleNamespace

from walrus_core import lifetime
from walrus_core.errors import SyncFailedError


def test_at_exit_every_log_is_closed_and_one_that_cannot_be_is_told(monkeypatch):
    told, closed = [], []

    def fail():
        raise SyncFailedError(path="/log", operation="sync", errno=5, reason="no")

    def gate():
        return SimpleNamespace(path="/log", warn=lambda *words: told.append(words[0] % words[1:]))

    logs = [
        SimpleNamespace(close=fail, gate=gate()),
        SimpleNamespace(close=lambda: closed.append("second"), gate=gate()),
    ]
    monkeypatch.setattr(lifetime, "_open_logs", logs)
    lifetime._close_at_exit()
    assert closed == ["second"]
    assert len(told) == 1 and told[0].startswith("closing /log at exit: sync of /log failed")


def test_an_interrupt_at_exit_is_not_swallowed(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(lifetime, "_open_logs", [SimpleNamespace(close=interrupt)])
    try:
        lifetime._close_at_exit()
    except KeyboardInterrupt:
        return
    raise AssertionError("the interrupt is gone")
