"""What the lines of ``steps`` say must hold of the log: the oracle, fed by a process that is gone."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Optional

from walrus_core import Walrus

from .judge import CursorModel, TopicModel
from .steps import payload

NEVER = 1 << 62


class Delays:
    """What keeps a schedule from being exact: how long syncs take, how late threads wake."""

    def __init__(self) -> None:
        self._woken_ns: list[int] = []
        self._pause_s = 0.0
        self._syncs_ns: list[tuple[int, int]] = []
        self._began_ns = 0
        """When the sync that is under way began; 0 for none."""

    def woke(self, time_ns: int, pause_s: str) -> None:
        """A thread woke that sleeps for ``pause_s``, again and again."""
        self._woken_ns.append(time_ns)
        self._pause_s = float(pause_s)

    def sync_began(self, time_ns: int) -> None:
        """A sync is under way, maybe as a part of one that is."""
        self._began_ns = self._began_ns or time_ns

    def sync_ended(self, time_ns: int) -> None:
        """The sync that was under way has ended."""
        if self._began_ns:
            self._syncs_ns.append((self._began_ns, time_ns))
        self._began_ns = 0

    def between(self, first_ns: int, end_ns: int) -> tuple[float, float]:
        """Return how long the longest sync in this time took, and how late the latest wake came, in seconds.

        What was under way at the end counts up to there.
        """
        syncs = [*self._syncs_ns, *([(self._began_ns, end_ns)] if self._began_ns else [])]
        sync_ns = max((end - began for began, end in syncs if end >= first_ns), default=0)
        wakes = [*self._woken_ns, end_ns]
        pause_ns = max(
            (wakes[at] - wakes[at - 1] for at in range(1, len(wakes)) if wakes[at] >= first_ns), default=0
        )
        return sync_ns / 1e9, max(0.0, pause_ns / 1e9 - self._pause_s)


class Ledger:
    """The model of every topic, and when each acknowledged entry was acknowledged."""

    def __init__(
        self, seed: str, topics: Sequence[str], persist_every: int, all_survives: bool = False
    ) -> None:
        """``all_survives``: only processes die, so that every acknowledged entry stays."""
        self.seed = seed
        self.models = {topic: TopicModel(topic) for topic in topics}
        self.acknowledged_ns: dict[str, list[int]] = {topic: [] for topic in topics}
        self.next_serial = 0
        self.acknowledged_count = 0
        self.ended = ""
        """How the process says that it ended, empty while it has not."""
        self.insisted = False
        """It tried to go on after a failed sync, and everything was refused."""
        self.delays = Delays()
        self.cut_ns: Optional[int] = None
        """When the power began to be cut, or the disk to refuse all writes. What returns later is not asked
        for: ext4 and XFS may answer syncs with success while their journal stops (docs/decisions/0014)."""
        self.late_count = 0
        """Acknowledged appends that returned after that."""
        self._persist_every = persist_every
        self._all_survives = all_survives

    def take(self, line: str) -> None:
        """Take over what one line says."""
        _size, time_ns, word, *rest = line.split(maxsplit=3)
        is_late = self.cut_ns is not None and int(time_ns) > self.cut_ns
        if word in ("opening", "ended", "insisted"):
            self.ended = rest[0].strip() if word == "ended" else self.ended
            self.insisted = self.insisted or word == "insisted"
            return
        fields = rest[0].split() if rest else []
        if word in ("woke", "sync_began", "sync_ended"):
            if not is_late:
                getattr(self.delays, word)(int(time_ns), *fields)
            return
        model = self.models[fields[0]]
        if is_late:
            self._take_late(word, int(time_ns), model, fields)
        else:
            getattr(self, f"_{word}")(int(time_ns), model, *fields[1:])

    def _take_late(self, word: str, time_ns: int, model: TopicModel, fields: list[str]) -> None:
        """Take over a line that came while the power was being cut: it may be so, and need not."""
        if word == "stands" or word == "synced":
            return
        self.late_count += word == "appended"
        durable, persist_every = model.durable, self._persist_every
        self._persist_every = NEVER
        getattr(self, f"_{word}")(time_ns, model, *fields[1:])
        self._persist_every = persist_every
        model.durable = min(durable, len(model.entries))

    def _opened(self, _time_ns: int, model: TopicModel, found: str, durable: str) -> None:
        """The log was opened by the process itself: take over what it found, as ``check`` does."""
        assert found == durable, f"{model.name}: not durable after open"
        end = int(found)
        for start, batch in model.in_doubt:
            if start == len(model.entries) and start + len(batch) == end:
                model.appended(batch)
                self.acknowledged_ns[model.name] += [0] * len(batch)
        model.in_doubt.clear()
        least = len(model.entries) if self._all_survives else model.durable
        assert least <= end and end in model.ends, (
            f"{model.name}: opened with {end} entries, {least} to {len(model.entries)} may be there"
        )
        del model.entries[end:], self.acknowledged_ns[model.name][end:]
        model.ends = {known for known in model.ends if known <= end}
        model.durable = end

    def _stands(self, _time_ns: int, model: TopicModel, name: str, at: str, oldest: str) -> None:
        """After an opening: where a cursor stands. One that was never made durable begins anew."""
        cursor = model.cursors.get(name)
        if cursor is not None:
            end = len(model.entries)
            assert cursor.allows(int(at), int(oldest), end), f"{model.name}: cursor {name} came back at {at}"
            cursor.is_kept = cursor.is_kept and cursor.is_saved
            cursor.may_be_saved = cursor.may_be_saved or bool(cursor.in_doubt)
            cursor.pinned(int(at))
            cursor.in_doubt.clear()

    def _append(self, _time_ns: int, model: TopicModel, first: str, count: str) -> None:
        serials = range(int(first), int(first) + int(count))
        self.next_serial = max(self.next_serial, serials.stop)
        batch = [payload(self.seed, model.name, serial) for serial in serials]
        model.in_doubt.append((len(model.entries), batch))

    def _appended(self, time_ns: int, model: TopicModel, next_offset: str, durable: str) -> None:
        _start, batch = model.in_doubt.pop()
        model.appended(batch)
        assert len(model.entries) == int(next_offset), f"{model.name}: appended up to {next_offset}"
        self.acknowledged_ns[model.name] += [time_ns] * len(batch)
        self.acknowledged_count += 1
        self._set_durable(model, durable)

    def _set_durable(self, model: TopicModel, durable: str) -> None:
        assert model.durable <= int(durable) <= len(model.entries), (
            f"{model.name}: durable_offset {durable} was {model.durable} of {len(model.entries)}"
        )
        assert int(durable) in model.ends, f"{model.name}: durable_offset {durable} lies inside a batch"
        model.durable = int(durable)

    def _synced(self, _time_ns: int, model: TopicModel, durable: str) -> None:
        self._set_durable(model, durable)
        assert model.durable == len(model.entries), f"{model.name}: sync returned and not durable"
        for cursor in model.cursors.values():
            cursor.pinned(cursor.position)

    def _read(self, _time_ns: int, model: TopicModel, name: str, at: str, target: str, end: str) -> None:
        cursor = model.cursors.setdefault(name, CursorModel(int(at), is_kept=False))
        if not cursor.is_kept:
            cursor.position = cursor.floor = int(at)
        assert cursor.position == int(at), f"{model.name}: cursor {name} moved to {at} by itself"
        for position in range(int(at) + 1, int(target if cursor.is_kept else end) + 1):
            cursor.may_move(position)

    def _moved(self, _time_ns: int, model: TopicModel, name: str, first: str, position: str) -> None:
        cursor = model.cursors[name]
        assert cursor.position == int(first) or not cursor.is_kept, (
            f"{model.name}: cursor {name} at {cursor.position} went on at {first}"
        )
        cursor.moved(int(position), self._persist_every)
        cursor.in_doubt.clear()

    def check(self, wal: Walrus, random: Random) -> None:
        """Compare a log that was opened after the crash, and take over what it holds."""
        assert set(wal.topics()) <= set(self.models), f"topics of nobody: {wal.topics()}"
        assert wal.recovery_report.damages == (), f"damage: {wal.recovery_report.damages}"
        assert wal.recovery_report.foreign_files == ()
        for name, model in self.models.items():
            model.check(wal, random, self._all_survives)
            del self.acknowledged_ns[name][len(model.entries) :]
            # An entry in doubt that came to stay was acknowledged by nobody, at no time.
            missing = len(model.entries) - len(self.acknowledged_ns[name])
            self.acknowledged_ns[name] += [0] * missing
