"""``walrus doctor``: facts of the machine, and what would go wrong where something is missing."""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import sys
from pathlib import Path

import pytest

from walrus_core.cli import doctor as doctor_module
from walrus_core.cli import host
from walrus_core.cli.backends import BackendFacts
from walrus_core.hot import COMPILED, describe

SEGMENT_BYTES = 65536 + 100 * 10 * 1024 * 1024


@pytest.fixture
def calm(monkeypatch, log_dir):
    """A machine with nothing wrong: ext4, space, limits, fast syncs."""
    if sys.platform.startswith("linux"):
        monkeypatch.setattr(host, "file_system_magic", lambda directory: 0xEF53)
    monkeypatch.setattr(
        host, "probe_sync", lambda d: host.SyncFacts(count=9, p50_ms=0.2, p99_ms=1.0, max_ms=1.0)
    )
    monkeypatch.setattr(
        host, "probe_space", lambda d: host.SpaceFacts(reserve_problem=None, punch_problem=None)
    )
    space = {"free_bytes": 10**12, "total_bytes": 10**13, "free_inodes": 10**6}
    monkeypatch.setattr(host, "space_facts", lambda directory: space)
    monkeypatch.setattr(host, "limits", lambda: {"open_files": 1024, "file_bytes": None})
    monkeypatch.setattr(doctor_module, "COMPILED", True)
    return monkeypatch


def problems(run, *arguments) -> list[str]:
    result = run("doctor", "--json", *arguments)
    found = json.loads(result.stdout)["problems"]
    assert result.exit_code == (1 if found else 0)
    return found


def test_real_facts(run, log_dir):
    facts = json.loads(run("doctor", "--json").stdout)
    assert (facts["path"], facts["exists"]) == (str(log_dir), False)
    assert facts["examined"] == str(log_dir.parent)
    assert facts["sync"]["count"] >= 1 and 0 < facts["sync"]["p50_ms"] <= facts["sync"]["p99_ms"]
    assert facts["space"]["free_bytes"] > 0 and facts["page_bytes"] == mmap.PAGESIZE
    assert facts["frame_code"] == describe()
    assert {backend["name"] for backend in facts["backends"]} == {"fd", "mmap"}
    assert facts["lock"] == "yes"
    assert COMPILED or any("pure Python" in problem for problem in facts["problems"])


def test_space_where_nothing_counts_inodes(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.delattr(os, "statvfs", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _directory: usage)
    found = host.space_facts(str(tmp_path))
    assert found == {"free_bytes": usage.free, "total_bytes": usage.total, "free_inodes": None}


def test_the_real_limit_of_open_files(run):
    resource = pytest.importorskip("resource", reason="this system has no resource limits")
    facts = json.loads(run("doctor", "--json").stdout)
    assert facts["limits"]["open_files"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_nothing_is_left_behind(run, log_dir):
    assert not log_dir.exists()
    before = sorted(log_dir.parent.iterdir())
    run("doctor")
    assert sorted(log_dir.parent.iterdir()) == before
    log_dir.mkdir()
    run("doctor")
    assert list(log_dir.iterdir()) == []


def test_for_people(run, calm, log_dir):
    result = run("doctor")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[-1] == "what would go wrong here: nothing that shows"
    assert any(line.startswith("a sync takes ") and "p50 0.20 ms, p99 1.00 ms" in line for line in lines)
    assert any(line.startswith("backend fd ") and "io_uring: " in line for line in lines)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="statfs's f_type is Linux's")
@pytest.mark.parametrize(
    ("magic", "said"),
    [
        (0x6969, "is a network file system"),
        (0xFF534D42, "is a network file system"),
        (0x01021997, "is a network file system"),
        (0x65735546, "is a FUSE file system"),
        (0x794C7630, "the layer of a container"),
        (0x01021994, "everything is lost at power loss"),
    ],
)
def test_file_systems_that_keep_less(run, calm, magic, said):
    calm.setattr(host, "file_system_magic", lambda directory: magic)
    (problem,) = problems(run)
    assert said in problem
    assert f"- {problem}" in run("doctor").stdout.splitlines()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="statfs's f_type is Linux's")
def test_the_magic_number_is_the_systems(tmp_path):
    """/proc and /sys have numbers of their own, which never change."""
    assert host.file_system_magic("/proc") == 0x9FA0
    assert host.file_system_magic("/sys") == 0x62656572
    with pytest.raises(FileNotFoundError):
        host.file_system_magic(str(tmp_path / "none"))


def test_copy_on_write_is_a_note(run, calm):
    if not sys.platform.startswith("linux"):
        pytest.skip("statfs's f_type is Linux's")
    calm.setattr(host, "file_system_magic", lambda directory: 0x9123683E)
    facts = json.loads(run("doctor", "--json").stdout)
    assert facts["problems"] == [] and any("even reserved space may fail" in note for note in facts["notes"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("limits", {"open_files": 100, "file_bytes": None}), "the limit of open files is 100"),
        (("limits", {"open_files": None, "file_bytes": SEGMENT_BYTES - 1}), "no segment can be made"),
        (("space_facts", {"free_bytes": 10**6, "total_bytes": 1, "free_inodes": None}), "as good as full"),
        (
            ("space_facts", {"free_bytes": 10**9, "total_bytes": 1, "free_inodes": None}),
            "less than two segments",
        ),
        (
            ("space_facts", {"free_bytes": 10**12, "total_bytes": 1, "free_inodes": 3}),
            "3 files can still be made",
        ),
        (
            ("probe_sync", host.SyncFacts(count=9, p50_ms=50.0, p99_ms=60.0, max_ms=60.0)),
            "about 20 appends a second",
        ),
        (("probe_space", host.SpaceFacts(reserve_problem=None, punch_problem="no")), "no hole punching (no)"),
        (("probe_lock", "no locks"), "a log cannot be opened"),
    ],
)
def test_what_would_go_wrong(run, calm, change, said):
    name, answer = change
    calm.setattr(host, name, lambda *_arguments: answer)
    (problem,) = problems(run)
    assert said in problem


def test_limits_that_just_suffice(run, calm):
    calm.setattr(host, "limits", lambda: {"open_files": 256 + 64, "file_bytes": SEGMENT_BYTES})
    assert problems(run) == []


def test_a_real_limit_of_file_size(start, log_dir):
    resource = pytest.importorskip("resource", reason="this system has no resource limits")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024 * 1024, 64 * 1024 * 1024))

    with start("doctor", "--json", preexec_fn=limit) as process:
        out, _errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert any("64.0 MiB" in problem for problem in json.loads(out)["problems"])


def test_a_place_that_cannot_be_written(run, calm, log_dir):
    def refuse(directory):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), directory)

    calm.setattr(host, "probe_file", refuse)
    (problem,) = problems(run)
    assert "only verified" in problem
    assert "a sync takes" not in run("doctor").stdout


def test_a_file_in_the_place_of_the_directory(run, calm, log_dir):
    log_dir.touch()
    (problem,) = problems(run)
    assert problem == f"{log_dir} is no directory"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_directory_that_everybody_may_write(run, calm, log_dir):
    log_dir.mkdir()
    log_dir.chmod(0o777)
    (problem,) = problems(run)
    assert problem.startswith(f"everybody may write to {log_dir}")


def test_a_backend_that_is_missing(run, calm):
    (problem,) = problems(run, "--backend", "nope")
    assert "no backend 'nope' is installed" in problem


def test_no_backend_at_all(run, calm):
    for module in ("walrus_core.plugins", "walrus_core.cli.backends", "walrus_core.cli.doctor"):
        calm.setattr(f"{module}.installed_plugins", lambda *_: {})
    (problem,) = problems(run)
    assert problem.startswith("no log can be opened: ") and "pip install walrus-fd" in problem


def test_a_backend_that_is_broken(run, calm):
    def broken(name, distribution, version, options):
        return BackendFacts(
            name=name, distribution=distribution, version=version, is_chosen=False, error="it does not load"
        )

    calm.setattr(doctor_module, "describe_backend", broken)
    assert problems(run) == [f"the backend {name} is broken: it does not load" for name in ("fd", "mmap")]


def test_punching_and_reserving_are_really_tried(tmp_path: Path):
    with host.probe_file(str(tmp_path)) as descriptor:
        facts = host.probe_space(descriptor)
        assert os.fstat(descriptor).st_size == 1024 * 1024
    if facts.punch_problem is not None:
        pytest.skip(f"this file system does not punch holes: {facts.punch_problem}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("release", "kind", "expected"),
    [("6.13.0", "ext4", True), ("6.18.1-x", "xfs", True), ("6.12.9", "ext4", False), ("6.13", "vfat", False)],
)
def test_fine_timestamps(monkeypatch, release, kind, expected):
    monkeypatch.setattr(sys, "platform", "linux")
    assert host.has_fine_timestamps(release, kind) is expected
