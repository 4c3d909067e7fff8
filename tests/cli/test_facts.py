"""``walrus topics``, ``stats`` and ``backends``, and the group itself."""

from __future__ import annotations

import json
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import walrus_core
from walrus_core import Walrus, cli
from walrus_core.cli import backends as backends_module
from walrus_core.hot import describe


@pytest.fixture
def two(log_dir: Path) -> Path:
    """A log with the topics "a", of five entries, two consumed, and "b" of one."""
    with Walrus(str(log_dir)) as wal:
        wal.batch_append_for_topic("a", [b"12345678"] * 5)
        wal.append_for_topic("b", b"")
        wal.batch_read_for_topic("a", max_entries=2)
    return log_dir


def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distribution: str, point: str, code: str) -> None:
    """Put a distribution with one plugin on the path: ``point`` names module and backend alike."""
    folder = tmp_path / f"site-{distribution}"
    info = folder / f"{distribution.replace('-', '_')}-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9.9\n")
    (info / "entry_points.txt").write_text(f"[walrus]\n{point} = plugin_{point}\n")
    (folder / f"plugin_{point}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, f"plugin_{point}", raising=False)


# --- topics and stats -------------------------------------------------------------------------


def test_topics(run, two):
    assert run("topics").stdout == "a\nb\n"
    assert json.loads(run("topics", "--json").stdout) == {"topics": ["a", "b"]}


def test_names_cannot_steer_the_terminal(run, log_dir):
    name = "x\n\x1b[31m[bold]grün"
    with Walrus(str(log_dir)) as wal:
        wal.append_for_topic(name, b"")
    assert run("topics").stdout == "x\\n\\x1b[31m[bold]grün\n"
    assert json.loads(run("topics", "--json").stdout) == {"topics": [name]}
    assert "x\\n\\x1b[31m[bold]grün " in run("stats").stdout
    assert "\x1b" not in run("read", "no\x1b\nsuch").stderr.strip()


def test_stats_for_people(run, two):
    lines = run("stats").stdout.splitlines()
    assert lines[0].split() == ["topic", "entries", "unread", "oldest", "next", "durable", "size", "blocks"]
    assert lines[2].split() == ["a", "5", "3", "0", "5", "5", "200", "B", "1"]
    assert lines[3].split() == ["b", "1", "1", "0", "1", "1", "32", "B", "1"]
    assert "2 topics, 6 entries (4 unread), 232 B in 2 blocks" in lines
    assert any(line.startswith(f"{two}: backend fd; sync every 200 ms; ") for line in lines)
    assert describe() in lines[-1]


def test_stats_for_programs(run, two):
    facts = json.loads(run("stats", "--json").stdout)
    assert facts["totals"] == {"topics": 2, "entries": 6, "unread": 4, "size_bytes": 232, "blocks": 2}
    assert facts["topics"][0] == {
        "name": "a",
        "entry_count": 5,
        "unread_count": 3,
        "oldest_offset": 0,
        "next_offset": 5,
        "durable_offset": 5,
        "size_bytes": 200,
        "block_count": 1,
    }
    assert (facts["backend"], facts["fsync"], facts["checksum"]) == ("fd", 200, "fnv1a64")
    assert facts["recovery"]["clean"] is True


def test_stats_of_a_log_without_topics(run, log_dir):
    Walrus(str(log_dir)).close()
    result = run("stats")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (
        0,
        "0 topics, 0 entries (0 unread), 0 B in 0 blocks",
    )
    assert run("topics").stdout == ""


def test_stats_say_what_recovery_did(start, run, log_dir, tmp_path):
    (tmp_path / "f").write_bytes(b"x\n" * 20_000)
    with start("ingest", "f", "--batch", "1", "--ack") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    (log_dir / "stray.txt").touch()
    (log_dir / "stray.wal").touch()
    text = run("stats").stdout
    assert "recovery: the log had not been closed" in text
    assert "left alone: stray" in text
    assert "recovery: " not in run("stats").stdout


@pytest.mark.parametrize("command", [["topics"], ["stats"], ["read", "t"], ["tail", "t"]])
def test_reading_makes_no_log(run, log_dir, command):
    for exists in (False, True):
        if exists:
            log_dir.mkdir()
            (log_dir / "walrus.toml").write_text('checksum = "crc32c"\n')
        before = sorted(log_dir.glob("*"))
        result = run(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"walrus: there is no log in {log_dir}\n"
        assert log_dir.exists() == exists and sorted(log_dir.glob("*")) == before


def test_a_directory_that_is_a_file(run, log_dir):
    log_dir.touch()
    result = run("topics")
    assert result.exit_code == 4
    assert len(result.stderr.splitlines()) == 1


def test_a_log_of_memory_has_no_directory_to_look_into(run, log_dir):
    assert run("topics", "--backend", "memory").exit_code == 0
    assert not log_dir.exists()


def test_a_bad_configuration_file_is_one_line(run, small_blocks):
    (small_blocks / "walrus.toml").write_text("block_sise = 1\n")
    result = run("topics")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "unknown keys block_sise" in line


# --- backends ---------------------------------------------------------------------------------


def test_backends_are_listed_and_the_chosen_one_is_marked(run, log_dir):
    facts = json.loads(run("backends", "--json").stdout)
    assert facts["chosen"] == "fd"
    found = {backend["name"]: backend for backend in facts["backends"]}
    assert sorted(found) == ["fd", "memory", "mmap"]
    assert found["fd"]["distribution"] == "walrus-fd" and found["fd"]["version"] == version("walrus-fd")
    assert [name for name, backend in found.items() if backend["is_chosen"]] == ["fd"]
    assert "io_uring" in found["fd"]["probe"] and found["fd"]["error"] is None
    text = run("backends").stdout
    (marked,) = (line for line in text.splitlines() if line.startswith("*"))
    assert marked.split()[:3] == ["*", "fd", "walrus-fd"]
    assert "io_uring: " in text
    assert not log_dir.exists()


@pytest.mark.parametrize("how", ["option", "environment", "file"])
def test_backends_say_which_would_be_chosen(run, log_dir, monkeypatch, how):
    if how == "environment":
        monkeypatch.setenv("WALRUS_BACKEND", "mmap")
    elif how == "file":
        log_dir.mkdir()
        (log_dir / "walrus.toml").write_text('backend = "mmap"\n')
    arguments = ["--backend", "mmap"] if how == "option" else []
    assert json.loads(run("backends", "--json", *arguments).stdout)["chosen"] == "mmap"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import a_module_that_is_not_there", "No module named 'a_module_that_is_not_there'"),
        ("raise SystemExit('leaving')", "SystemExit: leaving"),
        ("raise ValueError('first line\\nsecond line')", "first line second line"),
        ("from walrus_core.hookspecs import hookimpl", "registers none"),
    ],
)
def test_a_broken_backend_shows_its_error_and_does_not_stop_the_list(run, tmp_path, monkeypatch, code, said):
    offer(tmp_path, monkeypatch, "walrus-broken", "broken", code)
    result = run("backends")
    assert result.exit_code == 0
    (line,) = (line for line in result.stdout.splitlines() if "walrus-broken 9.9" in line)
    assert "broken: " in line and said in line
    assert "io_uring: " in result.stdout and "page_bytes: " in result.stdout
    result = run("backends", "--backend", "broken")
    assert result.exit_code == 5
    assert "io_uring: " in result.stdout
    (line,) = result.stderr.splitlines()
    assert said in line


def test_two_backends_of_one_name_both_show(run, tmp_path, monkeypatch):
    offer(tmp_path, monkeypatch, "walrus-other", "fd", "")
    result = run("backends", "--json")
    found = [b for b in json.loads(result.stdout)["backends"] if b["name"] == "fd"]
    assert sorted(backend["distribution"] for backend in found) == ["walrus-fd", "walrus-other"]
    assert all("more than one distribution" in backend["error"] for backend in found)
    assert result.exit_code == 5


def test_a_backend_that_nobody_offers(run, tmp_path):
    result = run("backends", "--backend", "nope")
    assert result.exit_code == 5 and "io_uring: " in result.stdout
    assert result.stderr.splitlines() == [
        "walrus: no backend 'nope' is installed (installed: fd, mmap); pip install walrus-nope"
    ]
    (tmp_path / "f").touch()
    assert run("ingest", "f", "--backend", "nope").exit_code == 5


def test_nothing_installed(run, monkeypatch):
    for module in ("walrus_core.plugins", "walrus_core.cli.backends"):
        monkeypatch.setattr(f"{module}.installed_plugins", lambda *_: {})
    result = run("backends", "--json")
    assert result.exit_code == 5
    facts = json.loads(result.stdout)
    assert (facts["chosen"], [backend["name"] for backend in facts["backends"]]) == (None, ["memory"])
    assert "pip install walrus-fd" in result.stderr


def test_the_probe_gets_the_options_of_the_file(run, log_dir, monkeypatch):
    asked = []
    load_backend = backends_module.load_backend

    def watch(name, **facts):
        asked.append((name, dict(facts["options"])))
        return load_backend(name, **facts)

    monkeypatch.setattr(backends_module, "load_backend", watch)
    log_dir.mkdir()
    (log_dir / "walrus.toml").write_text('backend = "fd"\n[backend_options]\nno_such_option = 1\n')
    result = run("backends")
    assert ("fd", {"no_such_option": 1}) in asked and ("mmap", {}) in asked
    assert result.exit_code == 5 and "no_such_option" in result.stderr


# --- the group --------------------------------------------------------------------------------


def test_version(run):
    assert run("--version").stdout == f"walrus {walrus_core.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_the_commands_and_the_exit_statuses(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    for word in ("ingest", "read", "tail", "topics", "stats", "backends", "Exit status"):
        assert word in result.stdout


@pytest.mark.parametrize(
    "arguments", [["nope"], ["--nope"], ["read"], ["read", "t", "--nope"], ["topics", "t"]]
)
def test_usage_errors_are_one_line(run, arguments):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("walrus: ") and "--help)" in line


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_click_or_rich_main_says_what_to_install(package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 5
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors == f"walrus: {package} is not installed; pip install 'walrus-core[cli]'\n"


def test_an_interrupt_before_the_commands_is_quiet(monkeypatch, capsys):
    from walrus_core.cli.app import commands

    def interrupt(**_facts):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "main", interrupt)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (MemoryError(), 4, "out of memory"),
        (OSError(5, "Input/output error", "a file"), 4, "a file: Input/output error"),
        (OSError("odd"), 4, "odd"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_of_the_machine_are_one_line(run, two, monkeypatch, error, status, said):
    def fail(self):
        raise error

    monkeypatch.setattr(Walrus, "topics", fail)
    result = run("topics")
    assert result.exit_code == status
    assert result.stderr == (f"walrus: {said}\n" if said else "")


def test_a_full_disk_is_status_4_and_the_log_goes_on(run, log_dir, tmp_path, monkeypatch):
    from walrus_core.errors import DiskFullError

    def full(self, topic, batch):
        raise DiskFullError(path="segment", operation="reserve", errno=28, reason="No space left on device")

    (tmp_path / "f").write_bytes(b"x\n")
    with monkeypatch.context() as patch:
        patch.setattr(Walrus, "batch_append_for_topic", full)
        result = run("ingest", "f")
    assert result.exit_code == 4
    assert result.stderr == "walrus: no space left to reserve segment: No space left on device\n"
    assert run("ingest", "f").exit_code == 0
