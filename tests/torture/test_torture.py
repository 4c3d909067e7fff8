"""The runner: shards that are done stay done, failures name their seed, the table says what was counted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from walrus_core import hot

from .bar import Bar, Unable
from .bars import BARS
from .real_bars import place, reason
from .report import BEGIN, END, table, write_docs
from .runner import PROGRAM, Result, pending, run_all, run_here, run_shard
from .state import State


def count(seed: int) -> dict[str, int]:
    return {"things": seed + 1}


def fail_at_3(seed: int) -> dict[str, int]:
    if seed == 3:
        raise AssertionError("three is too many")
    return count(seed)


def bar(run: object = count, name: str = "toy") -> Bar:
    return Bar(name, "memory", "counts", run, shard_seeds=2, release_seeds=5)  # type: ignore[arg-type]


def here(monkeypatch: pytest.MonkeyPatch, results: list[tuple[str, range]]) -> None:
    """Let shards run in this process."""

    def shard(one: Bar, seeds: range, _prefix: object) -> Result:
        results.append((one.key, seeds))
        try:
            counts = {"things": sum(one.run(seed)["things"] for seed in seeds)}
        except AssertionError as error:
            return Result(one, seeds, None, str(error), 1.0)
        return Result(one, seeds, counts, "", 1.0)

    monkeypatch.setattr("tests.torture.runner.run_shard", shard)


def test_the_last_shard_is_shorter() -> None:
    assert bar().shards() == [range(0, 2), range(2, 4), range(4, 5)]


def test_shards_that_are_done_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "state.json"
    run: list[tuple[str, range]] = []
    here(monkeypatch, run)
    bars = [bar(), bar(fail_at_3, "bad")]
    assert run_all(State(path, "1"), bars, workers=2, prefix=[], deadline_s=None) == 1
    assert len(run) == 6
    del run[:]
    again = State(path, "1")
    assert run_all(again, bars, workers=1, prefix=[], deadline_s=None) == 1
    assert run == [("bad/memory", range(2, 4))]
    assert again.totals("toy/memory") == {"things": 15}
    assert again.facts("bad/memory") == (2, 1, 2.0)
    assert len(list(pending(State(path, "2"), bars))) == 6, "another version starts over"


def test_bars_take_turns(tmp_path: Path) -> None:
    bars = [bar(name="a"), bar(name="b")]
    keys = [one.key for one, _seeds in pending(State(tmp_path / "s", "1"), bars)]
    assert keys == ["a/memory", "b/memory"] * 3


def test_no_shard_begins_behind_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[tuple[str, range]] = []
    here(monkeypatch, run)
    assert run_all(State(tmp_path / "s", "1"), [bar()], workers=2, prefix=[], deadline_s=0.0) == 0
    assert run == []


def test_a_seed_that_fails_is_named_with_the_command_that_repeats_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(AssertionError, match="three"):
        run_here(bar(fail_at_3), range(2, 5))
    message = capfd.readouterr().err
    assert "seed 3" in message
    assert "--bar toy/memory --seeds 3:4" in message


def test_a_shard_runs_in_a_process_of_its_own() -> None:
    found = next(one for one in BARS if one.key == "damage/closed-fnv1a64")
    result = run_shard(found, range(1), [])
    assert result.message == ""
    assert result.counts is not None
    assert result.counts["directories"] > 100
    assert result.seconds > 0


def test_a_process_that_dies_is_a_failure() -> None:
    result = run_shard(bar(), range(1), ["sh", "-c", "kill -KILL $$"])
    assert result.counts is None
    assert "status -9" in result.message


def unable(_seed: int) -> dict[str, int]:
    raise Unable("nothing can be mounted")


def test_a_bar_that_cannot_run_here_is_neither_done_nor_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_here(bar(unable), range(2))
    said = capfd.readouterr().out
    monkeypatch.setattr(
        "tests.torture.runner.subprocess.run",
        lambda *_arguments, **_options: subprocess.CompletedProcess([], 0, said, ""),
    )
    state = State(tmp_path / "s", "1")
    assert run_all(state, [bar(unable)], workers=1, prefix=[], deadline_s=None) == 0
    assert "SKIPPED toy/memory 0:2: nothing can be mounted" in capfd.readouterr().out
    assert state.facts("toy/memory") == (0, 0, 0.0)


def test_what_would_skip_a_test_is_the_reason_of_its_bar() -> None:
    def lacks() -> None:
        pytest.skip("no such device")

    with pytest.raises(Unable, match="no such device"), place():
        lacks()
    if hot.COMPILED:
        assert reason(lambda: None, lacks) == "no such device"
        assert reason(lambda: None) == ""
    else:
        assert "compiled" in reason()


def test_the_command_refuses_a_bar_that_there_is_not() -> None:
    command = [sys.executable, str(PROGRAM), "--bar", "nonsense", "--seeds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode != 0
    assert "power-loss/simulated" in done.stderr


def test_names_of_bars_differ_and_need_no_quotes() -> None:
    keys = [one.key for one in BARS]
    assert len(set(keys)) == len(keys)
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-/") for key in keys)


def test_the_table_goes_between_the_markers(tmp_path: Path) -> None:
    state = State(tmp_path / "s", "1.0 (abc)")
    state.done(bar(), range(0, 2), {"things": 1_234_567, "odds": 3}, 90.0)
    state.failed(bar(), range(2, 4), "no")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_docs(page, table(state, [bar(), bar(name="never run")]))
    text = page.read_text()
    assert "| toy | memory | counts | 1 of 3 shards | 3 odds, 1 234 567 things | 1 | 2 |" in text
    assert "Version 1.0 (abc):" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "never run" not in text
    page.write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        write_docs(page, "x")


def test_the_page_has_the_markers() -> None:
    text = (PROGRAM.parents[1] / "docs" / "testing.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1


def test_two_runs_do_not_share_a_state(tmp_path: Path) -> None:
    first, second = State(tmp_path / "s", "1"), State(tmp_path / "s", "1")
    with first.kept_by_us(), pytest.raises(BlockingIOError), second.kept_by_us():
        raise AssertionError("both have it")
    with second.kept_by_us():
        second.done(bar(), range(0, 2), {"things": 1}, 1.0)
    first.load()
    assert first.is_done(bar(), range(0, 2))
