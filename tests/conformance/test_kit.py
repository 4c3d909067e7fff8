"""The kit itself: it catches backends that are broken, skips with a reason, and cannot be talked round."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from walrus_core.backend import Buffer
from walrus_core.engine import Engine
from walrus_core.memory import MemoryBackend, MemoryStore
from walrus_core.testing import SimulatedBackend, SimulatedDisk
from walrus_core.testing.contract import LAWS, check_backend, judge_backend, judge_law
from walrus_core.testing.laws_log import abandon, open_log
from walrus_core.testing.machine import run_machine
from walrus_core.testing.subject import BrokenLaw, Subject
from walrus_core.testing.suite import BackendSuite

from . import broken_threads as broken_threads  # notes what it breaks in BROKEN
from .broken import BROKEN, Around, AroundFile
from .broken_files import BROKEN_ON_FILES, LEFT_OPEN, plain_backend

STATES = 8

on_posix = pytest.mark.skipif(os.name == "nt", reason="the backend of the guide is of POSIX")


def subject_of(cls: type[Around], directory: str) -> Subject:
    """Return a backend of this class around a simulated disk whose power can be cut."""
    disk = SimulatedDisk(random.Random("broken"))

    def make(_directory: str, *, durable_writes: bool = False) -> Any:
        disk.writes_durably = durable_writes
        return cls(SimulatedBackend(disk))

    def power_loss(backend: Any, _directory: str) -> Iterator[Any]:
        for after in disk.power_loss_states(STATES, random.Random("cut")):
            yield cls(SimulatedBackend(after))

    return Subject(make, directory, peek=lambda path: bytes(disk.names[path].durable), power_loss=power_loss)


@pytest.mark.parametrize("flaw", BROKEN)
def test_a_broken_backend_is_caught_by_the_law_that_it_breaks(flaw: str) -> None:
    cls, law_name = BROKEN[flaw]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        verdict = judge_law(LAWS[law_name], subject_of(cls, "/kit"))
    finally:
        sys.setswitchinterval(before)
    assert verdict.is_broken, f"{law_name} did not notice {flaw}: {verdict}"
    assert isinstance(verdict.error, (BrokenLaw, OSError)), verdict


@pytest.mark.parametrize("law_name", sorted({law_name for _, law_name in BROKEN.values()}))
def test_the_same_laws_hold_for_the_sound_one(law_name: str) -> None:
    verdict = judge_law(LAWS[law_name], subject_of(Around, "/kit"))
    assert not verdict.is_broken, verdict
    assert verdict.reason is None, verdict


def files_subject_of(cls: type[Around], folder: Path) -> Subject:
    """Return a backend of this class around the backend of the guide."""
    plain = plain_backend()
    return Subject(lambda _directory, **options: cls(plain(**options)), str(folder / "log"))


@pytest.fixture
def _closed_afterwards() -> Iterator[None]:
    """Close what the backends of a test have left open."""
    yield
    while LEFT_OPEN:
        os.close(LEFT_OPEN.pop())


@on_posix
@pytest.mark.usefixtures("_closed_afterwards")
@pytest.mark.parametrize("flaw", BROKEN_ON_FILES)
def test_a_broken_backend_on_files_is_caught_by_the_law_that_it_breaks(flaw: str, tmp_path: Path) -> None:
    cls, law_name = BROKEN_ON_FILES[flaw]
    verdict = judge_law(LAWS[law_name], files_subject_of(cls, tmp_path))
    assert isinstance(verdict.error, BrokenLaw), f"{law_name} did not notice {flaw}: {verdict}"


@on_posix
@pytest.mark.parametrize("law_name", sorted({law_name for _, law_name in BROKEN_ON_FILES.values()}))
def test_the_same_laws_hold_for_the_sound_one_on_files(law_name: str, tmp_path: Path) -> None:
    assert str(judge_law(LAWS[law_name], files_subject_of(Around, tmp_path))) == f"{law_name}: held"


@on_posix
@pytest.mark.parametrize(
    ("law_name", "module", "reason"),
    [
        ("a_closed_file_keeps_no_descriptor", "resource", "this system cannot limit how many files are open"),
        (
            "a_refused_open_keeps_no_descriptor",
            "resource",
            "this system cannot limit how many files are open",
        ),
        ("a_write_is_whole_or_raises", "resource", "this system cannot limit the size of files"),
        ("a_failed_sync_is_raised", "fcntl", "descriptors of this system cannot be made to fail"),
    ],
)
def test_what_a_system_cannot_refuse_is_not_applicable(
    law_name: str, module: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    verdict = judge_law(LAWS[law_name], files_subject_of(Around, tmp_path))
    assert verdict.reason is not None, verdict
    assert verdict.reason.endswith(reason), verdict


class SyncsElsewhere(AroundFile):
    """Its sync needs no descriptor, and so do its writes."""

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        pass

    def sync(self) -> None:
        pass


@on_posix
def test_a_sync_without_a_descriptor_is_not_called_broken(tmp_path: Path) -> None:
    cls = type("Elsewhere", (Around,), {"file_class": SyncsElsewhere})
    verdict = judge_law(LAWS["a_failed_sync_is_raised"], files_subject_of(cls, tmp_path))
    assert (verdict.reason or "").startswith("the backend syncs without a descriptor"), verdict


@on_posix
def test_what_laws_set_for_the_process_is_as_before(tmp_path: Path) -> None:
    import resource

    def settings() -> list[Any]:
        limits = [resource.getrlimit(kind) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)]
        return [*limits, signal.getsignal(signal.SIGXFSZ), sys.getswitchinterval(), os.listdir("/dev/fd")]

    before = settings()
    for name in sorted({name for _, name in (*BROKEN_ON_FILES.values(), BROKEN["PatchesPages"])}):
        LAWS[name](files_subject_of(Around, tmp_path / name))
    assert settings() == before


def test_a_log_that_dies_while_its_thread_is_at_work_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is the log's until then: a law must not take that for a fault of the backend."""
    tick, at_work = Engine.tick, threading.Event()

    def slowly(engine: Engine) -> bool:
        at_work.set()
        time.sleep(0.1)
        return tick(engine)

    monkeypatch.setattr(Engine, "tick", slowly)
    store = MemoryStore()
    subject = Subject(lambda _directory, **_options: MemoryBackend(store=store), "/kit")
    wal = open_log(subject)
    wal._engine._flusher.wake()
    assert at_work.wait(20)
    abandon(wal)
    open_log(subject).close()


@pytest.mark.parametrize(
    "flaw",
    [
        "ShortWrites",
        "WritesWholeSectors",
        "DiscardsWholePages",
        "LiesAboutTheSize",
        "KeepsWhatIsRemoved",
        "ForgetsASync",
    ],
)
def test_the_state_machine_finds_it_too(flaw: str) -> None:
    with pytest.raises(BrokenLaw):
        # Enough for any draws: what a seed draws depends also on which modules are loaded.
        run_machine(subject_of(BROKEN[flaw][0], "/kit"), 4000, seed=1, shrinks=False)


# --- without pytest ---------------------------------------------------------------------------


def test_a_check_names_every_broken_law() -> None:
    cls = BROKEN["ShortWrites"][0]
    disk = SimulatedDisk(random.Random(1))
    with pytest.raises(BrokenLaw) as caught:
        check_backend(lambda directory, **options: cls(SimulatedBackend(disk)), "/kit")
    lines = str(caught.value).splitlines()
    assert any(line.startswith("read_your_write: broken: BrokenLaw") for line in lines)
    assert any(line.startswith("closed_bytes_are_found_again: broken") for line in lines)


def test_a_check_says_what_was_not_applicable_and_why() -> None:
    store = MemoryStore()
    verdicts = judge_backend(lambda directory, **options: MemoryBackend(store=store, **options), "/kit")
    said = {verdict.law.name: str(verdict) for verdict in verdicts}
    assert not [verdict for verdict in verdicts if verdict.is_broken]
    assert said["read_your_write"] == "read_your_write: held"
    wanted = "a_window_survives_close: not applicable: the backend memory does not declare 'memory'"
    assert said["a_window_survives_close"] == wanted
    assert said["a_rename_is_there_or_not"].endswith("no power_loss was given, so no power can be cut")


def test_every_law_says_what_it_is() -> None:
    assert len(LAWS) > 50
    assert [name for name, law in LAWS.items() if not law.explanation.endswith((".", ":", "read."))] == []


@pytest.mark.parametrize("module", ["walrus_core", "walrus_core.testing", "walrus_core.testing.contract"])
def test_neither_pytest_nor_hypothesis_is_imported(module: str, tmp_path: Path) -> None:
    code = f"import sys, {module}; sys.exit(len({{'pytest', 'hypothesis'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


# --- the pytest class -------------------------------------------------------------------------


def test_every_law_is_a_test_of_the_suite() -> None:
    assert [name for name in LAWS if not hasattr(BackendSuite, f"test_{name}")] == []


@pytest.mark.parametrize(
    "name", ["test_read_your_write", "subject", "test_random_operations_agree_with_a_model"]
)
def test_no_law_is_overridden(name: str) -> None:
    with pytest.raises(TypeError, match=f"overrides {name}"):
        type("TestMine", (BackendSuite,), {name: lambda self: None})
    with pytest.raises(TypeError, match=f"overrides {name}"):
        type("TestMine", (BackendSuite,), {name: None})


def test_no_law_is_overridden_by_a_class_mixed_in() -> None:
    mixin = type("Mixin", (), {"test_close_is_idempotent": lambda self: None})
    with pytest.raises(TypeError, match="overrides test_close_is_idempotent"):
        type("TestMine", (mixin, BackendSuite), {})


def test_an_author_gives_what_is_asked_for_and_tests_of_his_own() -> None:
    given = {
        "make_backend": lambda self, path: None,
        "peek": lambda self, path: b"",
        "test_more": lambda self: None,
    }
    type("TestMine", (BackendSuite,), {**given, "examples": 5})


SUITE = """
    from walrus_core.memory import MemoryBackend, MemoryFile, MemoryStore
    from walrus_core.testing.suite import BackendSuite

    class TestMine(BackendSuite):
        examples = 2

        def setup_method(self):
            self.store = MemoryStore()

        def make_backend(self, path, **options):
            return MemoryBackend(store=self.store, **options)
"""


def run_pytest(folder: Path, text: str, *arguments: str) -> tuple[int, str]:
    """Run a test file as an author does. Returns: (exit status, what it says)."""
    (folder / "test_mine.py").write_text(textwrap.dedent(text))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rsf",
        "-p",
        "no:cacheprovider",
        "test_mine.py",
        *arguments,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout + done.stderr


def test_the_suite_skips_by_name_with_the_reason(tmp_path: Path) -> None:
    status, said = run_pytest(tmp_path, SUITE, "-k", "window or descriptor_is or read_your_write")
    assert status == 0, said
    assert "1 passed" in said and "3 skipped" in said
    assert "the backend memory does not declare 'fileno'" in said


def test_the_suite_fails_on_a_broken_backend(tmp_path: Path) -> None:
    flaw = """
    MemoryFile.write_at_whole = MemoryFile.write_at
    MemoryFile.write_at = lambda self, at, data: self.write_at_whole(at, bytes(data)[:4096])
    """
    status, said = run_pytest(tmp_path, SUITE + flaw, "-k", "read_your_write or close_is_idempotent")
    assert status == 1, said
    assert "FAILED test_mine.py::TestMine::test_read_your_write" in said and "1 passed" in said
