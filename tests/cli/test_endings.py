"""How a command ends: without a stream, with one that takes no more, and on an error that nobody expected."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from walrus_core import Walrus, cli
from walrus_core.cli import damage, doctor, facts
from walrus_core.errors import WalrusError

JUDGES = ["verify", "repair", "doctor"]
IN, OUT, ERRORS = 0, 1, 2

closed_streams = pytest.mark.skipif(os.name != "posix", reason="descriptors are closed before exec")
full_disk = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="it stands for a full disk")


@pytest.fixture
def two(log_dir: Path) -> Path:
    """A closed log: topic "t" of two entries."""
    with Walrus(str(log_dir)) as wal:
        wal.batch_append_for_topic("t", [b"one\n", b"two\n"])
    return log_dir


@pytest.fixture
def without(run_process):
    """``without(OUT, "read", "t")``: a command in a process that has not got that descriptor."""
    return lambda descriptor, *arguments: run_process(*arguments, preexec_fn=lambda: os.close(descriptor))


# --- without a stream -------------------------------------------------------------------------


@closed_streams
@pytest.mark.parametrize("command", ["verify", "topics", "stats", "backends", "read t", "tail t"])
def test_without_standard_error_the_results_are_the_same(without, run_process, two, command):
    status, out, errors = without(ERRORS, *command.split())
    expected = run_process(*command.split())[1]
    assert (status, errors) == (0, "")
    assert out.splitlines()[-1] == expected.splitlines()[-1]  # those before may tell how long it took


@closed_streams
@pytest.mark.parametrize("command", ["verify", "topics", "stats", "backends", "read t", "tail t", "--help"])
def test_without_standard_output_the_status_is_the_same(without, two, command):
    assert without(OUT, *command.split()) == (0, b"", "")


@closed_streams
@pytest.mark.parametrize("descriptor", [OUT, ERRORS])
def test_an_ingest_without_a_stream_is_done(without, run, two, tmp_path, descriptor):
    (tmp_path / "f").write_bytes(b"x\n" * 2000)
    assert without(descriptor, "ingest", "--ack", "f")[0] == 0
    assert run("read", "f").stdout == "x\n" * 2000
    assert run("verify").exit_code == 0


@closed_streams
def test_an_error_is_not_among_the_data(without, two):
    assert without(ERRORS, "read", "nope") == (2, b"", "")
    assert without(ERRORS, "verify", "--data-dir", "nope") == (2, b"", "")


@closed_streams
def test_a_closed_standard_input_is_not_an_empty_file(without, two):
    status, out, errors = without(IN, "ingest", "--topic", "new", "/dev/stdin")
    assert (status, out) == (2, b"") and "does not exist" in errors


@closed_streams
@pytest.mark.parametrize("missing", ["stdout", "stderr"])
def test_no_file_gets_the_descriptor_of_a_missing_stream(tmp_path, missing):
    program = (
        "import os, sys\n"
        "from walrus_core.cli.output import open_missing_streams\n"
        "open_missing_streams()\n"
        f"print(sys.{missing}.fileno(), os.open(os.devnull, os.O_RDONLY) > 2, file=sys.__{{}}__)\n"
    ).format("stderr" if missing == "stdout" else "stdout")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        cwd=tmp_path,
        preexec_fn=lambda: os.close(OUT if missing == "stdout" else ERRORS),
    )
    assert (done.stdout + done.stderr).decode() == f"{OUT if missing == 'stdout' else ERRORS} True\n"


# --- a stream that takes no more --------------------------------------------------------------


@full_disk
@pytest.mark.parametrize("command", JUDGES)
def test_a_verdict_that_could_not_be_written_is_none(start, two, command):
    with open("/dev/full", "wb") as full, start(command, stdout=full) as process:
        errors = process.communicate(timeout=60)[1].decode()
    (line,) = errors.splitlines()
    assert process.returncode == 2 and "no space left on device" in line.lower()


@full_disk
@pytest.mark.parametrize(("command", "status"), [("verify", 2), ("topics", 2), ("stats --backend no", 5)])
def test_an_error_that_could_not_be_told_keeps_its_status(start, log_dir, command, status):
    with open("/dev/full", "wb") as full, start(*command.split(), stderr=full) as process:
        assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == status


@closed_streams
def test_an_error_that_nobody_reads_keeps_its_status(start, log_dir):
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    with start("verify", stderr=writing_end) as process:
        os.close(writing_end)
        assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 2


# --- an error that nobody expected ------------------------------------------------------------

ODD_ERRORS = [TypeError("odd\nin two lines"), SystemExit(1), RecursionError(), WalrusError("odd")]


@pytest.mark.parametrize("error", ODD_ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("command", ["stats", *JUDGES])
def test_an_error_that_nobody_expected_is_no_verdict(run, two, monkeypatch, command, error):
    def fail(*_arguments):
        raise error

    for module, name in ((facts, "log_facts"), (damage, "_opened"), (doctor, "examine_place")):
        monkeypatch.setattr(module, name, fail)
    is_unexpected = not isinstance(error, WalrusError)
    result = run(command, is_unexpected=is_unexpected)
    assert (result.exit_code, result.stdout) == (6 if command == "stats" else 2, "")
    (line,) = result.stderr.splitlines()
    if is_unexpected:
        assert f"unexpected {type(error).__name__}" in line and f"({__file__}, line " in line


def test_a_backend_that_breaks_its_contract_is_no_damage(start, two, tmp_path):
    """A plugin of a distribution of its own, which fails as no backend may."""
    info = tmp_path / "walrus_odd-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: walrus-odd\nVersion: 9.9\n")
    (info / "entry_points.txt").write_text("[walrus]\nodd = odd_plugin\n")
    (tmp_path / "odd_plugin.py").write_text(
        "from walrus_core.hookspecs import hookimpl\n"
        "from walrus_core.memory import MemoryBackend\n"
        "class Odd(MemoryBackend):\n"
        "    name = 'odd'\n"
        "    def list(self, directory):\n"
        "        raise TypeError('no list')\n"
        "@hookimpl\ndef walrus_register_backends():\n    return [Odd]\n"
    )
    for development in ("", "1"):
        environment = {**os.environ, "PYTHONDEVMODE": development}
        with start("verify", "--backend", "odd", env=environment) as process:
            out, errors = process.communicate(timeout=60)
        lines = errors.decode().splitlines()
        assert (process.returncode, out) == (2, b"")
        assert lines[-1].startswith("walrus: unexpected TypeError: no list (")
        assert (len(lines) == 1) == (not development)
        assert (lines[0] == "Traceback (most recent call last):") == bool(development)


def test_commands_that_cannot_be_imported_are_no_damage(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "walrus_core.cli.app", None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 6
    assert capsys.readouterr().err.startswith("walrus: unexpected ModuleNotFoundError: ")


# --- where the output is no terminal ----------------------------------------------------------


@pytest.mark.parametrize("variables", [{"FORCE_COLOR": "1"}, {"FORCE_COLOR": "1", "TERM": "dumb"}])
def test_tables_are_the_same_whatever_the_environment(run, two, monkeypatch, variables):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    with Walrus(str(two)) as wal:
        wal.append_for_topic("a long name " * 20, b"x")
    plain = run("stats").stdout
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run("stats").stdout == plain
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) > 200
