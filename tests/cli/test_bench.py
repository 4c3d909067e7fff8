"""``walrus bench``: the shape of what it says, never the figures; and what follows from figures."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from walrus_core import FsyncSchedule, Walrus
from walrus_core.cli import bench as bench_module
from walrus_core.cli import machine, measure, trials
from walrus_core.cli.machine import FileSystem, file_system
from walrus_core.cli.measure import Latencies, Spread, duration_text, percentile, rate_text
from walrus_core.cli.trials import RATES, Plan, Trials, choose
from walrus_core.errors import StorageError

TINY = ("--seconds", "0.1", "--entry-bytes", "16")
EXT4 = FileSystem(kind="ext4", device="/dev/x", free_bytes=10**12)


@pytest.fixture(autouse=True)
def tiny_pieces(monkeypatch):
    """A piece of a trial is one batch, and a round is the only one."""
    monkeypatch.setattr(bench_module, "PIECE_BYTES_MAX", 16)
    monkeypatch.setattr(bench_module, "ROUND_COUNT", 1)
    monkeypatch.setattr(trials, "BATCH_COUNT", 20)


# --- the command ------------------------------------------------------------------------------------


def test_bench_for_programs(run, tmp_path):
    result = run("bench", *TINY, "--data-dir", tmp_path / "not" / "there", "--json")
    facts = json.loads(result.stdout)
    assert result.exit_code == 0
    assert facts["directory"] == str(tmp_path)
    assert facts["file_system"]["free_bytes"] > 0
    assert [one["name"] for one in facts["backends"]] == ["fd", "mmap"]
    assert facts["suits"]["backend"] in ("fd", "mmap")
    assert facts["suits"]["reasons"]
    assert facts["disk_alone"]["count"] >= 1
    assert facts["machine"]["frame_code"].startswith(("compiled", "pure"))
    for one in facts["backends"]:
        assert one["error"] is None
        assert set(one["rates"]) == set(RATES)
        assert all(0 < rates["low"] <= rates["median"] <= rates["high"] for rates in one["rates"].values())
        sync = one["sync"]
        assert sync["count"] >= 1
        assert 0 < sync["p50_us"] <= sync["p99_us"] <= sync["p999_us"]


def test_bench_for_people(run, tmp_path):
    result = run("bench", *TINY, "--data-dir", tmp_path)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0].split()[:4] == ["entries", "of", "16", "B"]
    assert lines[0].split()[4:] == ["fd", "mmap", "the", "disk", "alone"]
    firsts = [line.split("  ")[0] for line in lines[2:10]]
    assert firsts == [*RATES.values(), "sync, p50", "sync, p99", "sync, p99.9", "syncs measured"]
    assert any(line.startswith(f"{tmp_path}: ") for line in lines)
    assert any(line.startswith("suits this disk: ") for line in lines)
    assert result.stderr == ""


def test_bench_of_one_backend(run, tmp_path):
    facts = json.loads(run("bench", *TINY, "--data-dir", tmp_path, "--backend", "mmap", "--json").stdout)
    assert [one["name"] for one in facts["backends"]] == ["mmap"]
    assert facts["suits"]["backend"] == "mmap"


def test_bench_leaves_a_log_as_it_is_and_nothing_behind(run, log_dir):
    small = {"block_size": 16384, "blocks_per_segment": 4, "fsync_schedule": FsyncSchedule.no_fsync()}
    with Walrus(str(log_dir), **small) as wal:
        wal.append_for_topic("t", b"mine")
        before = {path.name: path.read_bytes() for path in log_dir.iterdir()}
        assert run("bench", *TINY).exit_code == 0  # beside an open log
        assert {path.name: path.read_bytes() for path in log_dir.iterdir()} == before


def test_bench_of_a_backend_that_is_missing(run, tmp_path):
    result = run("bench", *TINY, "--data-dir", tmp_path, "--backend", "tape")
    assert result.exit_code == 5
    assert "tape" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_bench_below_a_file(run, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    result = run("bench", *TINY, "--data-dir", tmp_path / "file" / "log")
    assert result.exit_code == 4
    assert result.stderr.startswith("walrus: make a directory in ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("option", [("--seconds", "0"), ("--entry-bytes", "0"), ("--checksum", "md5")])
def test_bench_refuses_values_that_mean_nothing(run, option):
    assert run("bench", *option).exit_code == 2


def test_one_broken_backend_does_not_stop_the_others(run, tmp_path, monkeypatch):
    def fail(found, *_more):
        raise StorageError(path="p", operation="write to", errno=5, reason=f"{found.backend} is on fire")

    whole = trials.run_trial
    monkeypatch.setattr(
        bench_module,
        "run_trial",
        lambda found, *more: fail(found) if found.backend == "fd" else whole(found, *more),
    )
    result = run("bench", *TINY, "--data-dir", tmp_path)
    assert result.exit_code == 0
    assert "fd could not be measured" in result.stdout
    assert "fd is on fire" in result.stdout
    assert "suits this disk: mmap" in result.stdout
    assert run("bench", *TINY, "--data-dir", tmp_path, "--backend", "fd").exit_code == 4


def test_an_interrupt_leaves_nothing_behind(start, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    with start("bench", "--seconds", "600", "--data-dir", folder) as process:
        deadline = time.monotonic() + 60
        while not list(folder.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert list(folder.iterdir())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(folder.iterdir()) == []


# --- which one suits --------------------------------------------------------------------------------


def trial(backend: str, rate: float = 1000.0, sync_us: float = 100.0, **more: object) -> Trials:
    rates = {piece: [rate] for piece in RATES}
    return Trials(backend=backend, rates=rates, syncs=[sync_us / 1e6] * 1000, **more)  # type: ignore[arg-type]


def test_the_faster_one_suits():
    verdict = choose([trial("fd"), trial("mmap", rate=3000.0, sync_us=150.0)], EXT4)
    assert verdict.backend == "mmap"
    [reason] = verdict.reasons
    assert reason.startswith("beside fd: ahead in append 3.00 k/s against 1.00 k/s; batch ")
    assert reason.endswith("and behind in sync p50 150 µs against 100 µs; sync p99 150 µs against 100 µs")


def test_of_equals_the_first_suits():
    verdict = choose([trial("fd"), trial("mmap", rate=1050.0)], EXT4)
    assert verdict.backend == "fd"
    assert verdict.reasons[-1] == "beside mmap: the same in everything"


def test_durable_appends_count_as_well():
    verdict = choose([trial("fd"), trial("mmap", sync_us=10.0)], EXT4)
    assert verdict.backend == "mmap"


def test_the_slowest_of_few_syncs_is_no_reason():
    few = trial("mmap", rate=3000.0)
    few.syncs = [1e-4] * 90 + [5.0] * 10
    assert "p99" not in " ".join(choose([trial("fd"), few], EXT4).reasons)


def test_maps_do_not_suit_where_changes_go_to_a_new_place():
    btrfs = FileSystem(kind="btrfs", device="/dev/x", free_bytes=1)
    found = [trial("fd"), trial("mmap", rate=9000.0, uses_maps=True)]
    verdict = choose(found, btrfs)
    assert verdict.backend == "fd"
    assert "not mmap" in verdict.reasons[0]
    assert choose(found, EXT4).backend == "mmap"
    assert "ends the process" in choose(found, EXT4).reasons[-1]


@pytest.mark.parametrize(("kind", "word"), [("tmpfs", "memory"), ("nfs4", "local"), ("fuse.sshfs", "local")])
def test_what_kind_of_disk_it_is_is_told(kind, word):
    verdict = choose([trial("fd")], FileSystem(kind=kind, device="x", free_bytes=1))
    assert word in verdict.reasons[0]


def test_none_suits_where_none_works():
    verdict = choose([Trials(backend="fd", error="broken")], EXT4)
    assert verdict.backend is None
    assert verdict.reasons == ["no backend worked here"]


# --- figures ----------------------------------------------------------------------------------------


def test_spread_and_percentiles():
    assert Spread.of([3.0, 1.0, 8.0]) == Spread(median=3.0, low=1.0, high=8.0, count=3)
    thousand = [float(number) for number in range(1, 1001)]
    assert [percentile(thousand, share) for share in (0.5, 0.99, 0.999, 1)] == [500, 990, 999, 1000]
    assert percentile([7.0], 0.999) == 7.0
    assert Latencies.of([2e-6, 1e-6]).p50_us == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(0.5, "0.50 /s"), (999, "999 /s"), (999.6, "1.00 k/s"), (45_678, "45.7 k/s"), (2_345_678, "2.35 M/s")],
)
def test_rates_for_people(per_second, text):
    assert rate_text(per_second) == text


def test_times_for_people():
    assert [duration_text(us) for us in (9.999, 150, 2310, 1.2e6)] == [
        "10.0 µs",
        "150 µs",
        "2.31 ms",
        "1.20 s",
    ]


@pytest.mark.parametrize(("bytes_max", "count"), [(4_999, 40), (1, 20)])
def test_a_plan_writes_whole_batches(bytes_max, count):
    plan = Plan(piece_seconds=1, entry_bytes=100, piece_bytes_max=bytes_max, checksum="fnv1a64", rounds=1)
    assert plan.entry_count_max == count


def test_loops_refuse_to_time_reads_of_nothing(make_log):
    wal = make_log()
    wal.append_for_topic("t", b"x")
    with pytest.raises(EOFError):
        measure.read_each(wal, "t", 2)
    wal.seek("t", 0)
    with pytest.raises(EOFError):
        measure.read_batches(wal, "t", 2)


def test_threads_are_timed_from_first_start_to_last_end():
    assert 0.02 <= measure.run_threads(lambda: time.sleep(0.02), 3) < 20

    def fail() -> None:
        raise ValueError("of a thread")

    with pytest.raises(ValueError, match="of a thread"):
        measure.run_threads(fail, 2)


def test_the_file_system_of_a_directory(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    folder = tmp_path / "with a space"
    folder.mkdir()
    number = os.stat(folder).st_dev
    mine = f"{os.major(number)}:{os.minor(number)}"
    shown = str(folder).replace(" ", "\\040")
    mounts.write_text(
        "1 0 0:1 / / rw - ext4 /dev/root rw\n"
        f"2 1 {mine} / {shown} rw,noatime shared:1 - xfs /dev/mine rw\n"
        f"3 1 {mine} / {shown}/below rw - tmpfs below rw\n"
        f"4 1 {mine} / {shown}-beside rw - tmpfs beside rw\n"
        f"5 1 0:7 / {shown} rw - tmpfs covered rw\n"
        "broken\n"
    )
    monkeypatch.setattr(machine, "_MOUNTS", str(mounts))
    found = file_system(str(folder))
    assert (found.kind, found.device) == ("xfs", "/dev/mine")
    monkeypatch.setattr(machine, "_MOUNTS", str(tmp_path / "none"))
    assert file_system(str(tmp_path)).kind == "unknown"


def test_machine_facts_are_told_where_the_system_tells_nothing(monkeypatch, tmp_path: Path):
    assert machine.machine_facts()["cores"] >= 1
    monkeypatch.setattr(machine, "_PROCESSORS", str(tmp_path / "none"))
    assert machine.processor_name()


# --- backends of others -----------------------------------------------------------------------------


def test_bench_of_any_backend_by_its_name(run, tmp_path):
    facts = json.loads(run("bench", *TINY, "--data-dir", tmp_path, "--backend", "memory", "--json").stdout)
    [one] = facts["backends"]
    assert (one["name"], one["error"]) == ("memory", None)
    assert all(rates["low"] > 0 for rates in one["rates"].values())


def test_bench_gives_a_backend_the_options_of_walrus_toml(run, log_dir, monkeypatch):
    given = []
    load = trials.load_backend
    monkeypatch.setattr(
        trials,
        "load_backend",
        lambda name, options: given.append((name, dict(options))) or load(name, options=options),
    )
    log_dir.mkdir()
    (log_dir / "walrus.toml").write_text('backend = "fd"\n[backend_options]\nio_uring = "off"\n')
    assert run("bench", *TINY, "--backend", "fd").exit_code == 0
    assert run("bench", *TINY).exit_code == 0
    assert [dict(options) for name, options in given if name == "fd"] == [{"io_uring": "off"}] * 2
    assert all(options == {} for name, options in given if name != "fd")
    (log_dir / "walrus.toml").write_text('backend = "fd"\n[backend_options]\nring = true\n')
    result = run("bench", *TINY, "--backend", "fd")
    assert result.exit_code != 0
    assert "backend 'fd' refuses them" in result.stderr
