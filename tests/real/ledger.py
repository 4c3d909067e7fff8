"""What the lines of ``steps`` say must hold of the log: the oracle, fed by a process that is gone."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from walrus_core import Walrus

from .judge import CursorModel, TopicModel
from .steps import payload


class Ledger:
    """The model of every topic, and when each acknowledged entry was acknowledged."""

    def __init__(self, seed: str, topics: Sequence[str], persist_every: int) -> None:
        self.seed = seed
        self.models = {topic: TopicModel(topic) for topic in topics}
        self.acknowledged_ns: dict[str, list[int]] = {topic: [] for topic in topics}
        self.next_serial = 0
        self.acknowledged_count = 0
        self.ended = ""
        """How the process says that it ended, empty while it has not."""
        self.longest_sync_s = 0.0
        self._persist_every = persist_every

    def take(self, line: str) -> None:
        """Take over what one line says."""
        _size, time_ns, word, *rest = line.split(maxsplit=3)
        if word in ("opening", "ended", "sync_took"):
            self.ended = rest[0].strip() if word == "ended" else self.ended
            if word == "sync_took":
                self.longest_sync_s = max(self.longest_sync_s, float(rest[0].split()[1]))
            return
        fields = rest[0].split()
        getattr(self, f"_{word}")(int(time_ns), self.models[fields[0]], *fields[1:])

    def _opened(self, _time_ns: int, model: TopicModel, found: str, durable: str) -> None:
        assert found == durable, f"{model.name}: not durable after open"
        for start, batch in model.in_doubt:
            if start + len(batch) == int(found):
                return  # which entries those are is for the next check to find out
        assert model.durable <= int(found) <= len(model.entries), (
            f"{model.name}: opened with {found} entries, {model.durable} were durable"
        )
        model.durable = int(found)

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

    def _refused(self, _time_ns: int, model: TopicModel) -> None:
        """The last append failed and has changed nothing."""
        model.in_doubt.pop()

    def _doubtful(self, _time_ns: int, model: TopicModel) -> None:
        """The last append failed half-way: it stays in doubt."""
        assert model.in_doubt

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

    def _read(self, _time_ns: int, model: TopicModel, name: str, at: str, target: str) -> None:
        cursor = model.cursors.setdefault(name, CursorModel(int(at), is_kept=False))
        if not cursor.is_kept:
            cursor.position = cursor.floor = int(at)
        assert cursor.position == int(at), f"{model.name}: cursor {name} moved to {at} by itself"
        for position in range(int(at) + 1, int(target) + 1):
            cursor.may_move(position)

    def _moved(self, _time_ns: int, model: TopicModel, name: str, position: str) -> None:
        cursor = model.cursors[name]
        cursor.moved(int(position), self._persist_every)
        cursor.in_doubt.clear()

    def check(self, wal: Walrus, random: Random, all_survives: bool) -> None:
        """Compare a log that was opened after the crash, and take over what it holds."""
        assert set(wal.topics()) <= set(self.models), f"topics of nobody: {wal.topics()}"
        assert wal.recovery_report.damages == (), f"damage: {wal.recovery_report.damages}"
        assert wal.recovery_report.foreign_files == ()
        for name, model in self.models.items():
            model.check(wal, random, all_survives)
            del self.acknowledged_ns[name][len(model.entries) :]
            # An entry in doubt that came to stay was acknowledged by nobody, at no time.
            missing = len(model.entries) - len(self.acknowledged_ns[name])
            self.acknowledged_ns[name] += [0] * missing
